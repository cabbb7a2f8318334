//! Pull and push against a real registry server and against misbehaving ones, on loopback in
//! a network namespace of each test's own.

#![allow(clippy::unwrap_used)]

mod common;

use common::http::{Answer, Request, cutting_proxy, relay, serve, stalling_proxy};
use common::registry::Server;
use common::{in_private_network, is_privileged, store_in};
use stack_runtime::image::archive::load;
use stack_runtime::image::login::{Kept, login, logout};
use stack_runtime::image::progress::silent;
use stack_runtime::image::pull::{pull, resolve_digest};
use stack_runtime::image::push::push;
use stack_runtime::image::tar_read::Entry;
use stack_runtime::image::tar_write::Writer;
use stack_runtime::image::{
    Digest, Error, ImageConfig, Phase, Platform, Progress, Reference, Store, fixture,
};
use stack_runtime::snapshot::{self, Working};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.append(&Entry { size: content.len() as u64, ..Entry::file(name, 0o644) }, content).unwrap();
    writer.finish().unwrap()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Two stores: one to push from, one to pull into.
fn stores() -> (tempfile::TempDir, Store, Store) {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (store_in(&root.path().join("from")), store_in(&root.path().join("to")));
    (root, from, to)
}

/// An image of two layers: one loaded, one built here.
fn two_layers(store: &Store, name: &str) -> Digest {
    let archive =
        fixture::docker_archive(&["base:1"], ImageConfig::default(), &[layer("big", &noise(3_000_000))])
            .unwrap();
    load(store, &archive[..]).unwrap();
    let base = store.image("base:1").unwrap().unwrap();
    let working = Working::temporary(store, &base.chain_id).unwrap();
    std::fs::write(working.upper.join("built"), "here").unwrap();
    let built = working.commit(store).unwrap();
    let mut document = base.document;
    document.rootfs.diff_ids.push(built.diff_id.clone());
    let layers = document.rootfs.diff_ids.clone();
    store.write_image(&serde_json::to_vec(&document).unwrap(), &layers, &[reference(name)]).unwrap()
}

#[test]
fn what_is_pushed_can_be_pulled() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let Some(server) = Server::start(5000, false).await else { return };
        let (_root, from, to) = stores();
        let name = server.name("team/app:1");
        let id = two_layers(&from, &name);
        let digest = push(&from, &reference(&name), &silent).await.unwrap();
        // Again: everything is there, the digest is the same.
        let seen = Mutex::new(Vec::new());
        let again = push(&from, &reference(&name), &|p| seen.lock().unwrap().push(p)).await.unwrap();
        assert_eq!(again, digest);
        let exists = |p: &&Progress| matches!(p, Progress::Layer { phase: Phase::Exists, .. });
        assert_eq!(seen.lock().unwrap().iter().filter(exists).count(), 3);

        assert_eq!(resolve_digest(&reference(&name)).await.unwrap(), digest);
        let image = pull(&to, &reference(&name), None, &silent).await.unwrap();
        assert_eq!(image.id, id);
        assert_eq!(image.manifest_digest, Some(digest.clone()));
        let fs = snapshot::lower_dirs(&to, &image.chain_id).unwrap();
        assert_eq!(std::fs::read(fs[0].join("built")).unwrap(), b"here");
        assert_eq!(fs[1].join("big").metadata().unwrap().len(), 3_000_000);
        // By digest: known without and with the registry.
        let pinned = format!("{}@{digest}", server.name("team/app"));
        assert_eq!(to.image(&pinned).unwrap().unwrap().id, id);
        assert_eq!(pull(&to, &reference(&pinned), None, &silent).await.unwrap().id, id);
        // Under another name from the pulled image: the same digest.
        to.tag(&id, &reference(&server.name("other:2"))).unwrap();
        assert_eq!(push(&to, &reference(&server.name("other:2")), &silent).await.unwrap(), digest);
        // A tag that moves leaves the old image dangling.
        let archive =
            fixture::docker_archive(&[&name], ImageConfig::default(), &[layer("new", b"new")]).unwrap();
        load(&from, &archive[..]).unwrap();
        push(&from, &reference(&name), &silent).await.unwrap();
        assert_ne!(pull(&to, &reference(&name), None, &silent).await.unwrap().id, id);
        assert!(!to.by_id(id.as_str()).unwrap().unwrap().references.contains(&reference(&name)));

        let missing = pull(&to, &reference(&server.name("nosuch")), None, &silent).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
        let absent = push(&to, &reference(&server.name("absent")), &silent).await.unwrap_err();
        assert!(matches!(absent, Error::NoSuchImage(_)), "{absent}");
    });
}

#[test]
fn concurrent_pulls_share() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let Some(server) = Server::start(5000, false).await else { return };
        let (_root, from, to) = stores();
        let name = server.name("app");
        let id = two_layers(&from, &name);
        push(&from, &reference(&name), &silent).await.unwrap();
        let r = reference(&name);
        let (a, b, c) = tokio::join!(
            pull(&to, &r, None, &silent),
            pull(&to, &r, None, &silent),
            pull(&to, &r, None, &silent)
        );
        assert_eq!([a.unwrap().id, b.unwrap().id, c.unwrap().id], [id.clone(), id.clone(), id]);
        assert_eq!(std::fs::read_dir(to.tmp()).unwrap().count(), 0);
    });
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let Some(server) = Server::start(5000, false).await else { return };
        let (_root, from, to) = stores();
        two_layers(&from, &server.name("app"));
        push(&from, &reference(&server.name("app")), &silent).await.unwrap();
        let brought = cutting_proxy(5001, 5000, 3, 1_000_000).await;
        let retries = AtomicU32::new(0);
        let count = |p| {
            if matches!(p, Progress::Retrying { .. }) {
                retries.fetch_add(1, Ordering::SeqCst);
            }
        };
        let image = pull(&to, &reference("127.0.0.1:5001/app"), None, &count).await.unwrap();
        let fs = snapshot::lower_dirs(&to, &image.chain_id).unwrap();
        assert_eq!(fs[1].join("big").metadata().unwrap().len(), 3_000_000);
        assert!(retries.load(Ordering::SeqCst) >= 2);
        // Without resuming, the three cut attempts alone would double it.
        let brought = brought.load(Ordering::SeqCst);
        assert!(brought < 3_700_000, "{brought} bytes for a layer of 3,000,000");
    });
}

#[test]
fn an_earlier_partial_is_used_and_a_false_one_is_not() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let Some(server) = Server::start(5000, false).await else { return };
        let (root, from, to) = stores();
        let name = server.name("app");
        two_layers(&from, &name);
        push(&from, &reference(&name), &silent).await.unwrap();
        let chain_id = from.image(&name).unwrap().unwrap().chain_ids[0].to_string();
        let blob = snapshot::blob(&from, &chain_id).unwrap().unwrap();
        let bytes = std::fs::read(from.blob_path(&blob.digest)).unwrap();
        let partial = |store: &Store| store.tmp().join(format!("{}.partial", blob.digest.hex()));
        std::fs::write(partial(&to), &bytes[..2_900_000]).unwrap();
        let brought = cutting_proxy(5001, 5000, 0, 0).await;
        pull(&to, &reference("127.0.0.1:5001/app"), None, &silent).await.unwrap();
        assert!(brought.load(Ordering::SeqCst) < 300_000);
        let other = store_in(&root.path().join("other"));
        std::fs::write(partial(&other), noise(2_900_000)).unwrap();
        pull(&other, &reference(&name), None, &silent).await.unwrap();
    });
}

/// Cut at nine tenths, as by a kill: the next pull fetches the last tenth.
#[test]
fn a_pull_that_was_cut_goes_on_where_it_ended() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let Some(server) = Server::start(5000, false).await else { return };
        let (_root, from, to) = stores();
        two_layers(&from, &server.name("app"));
        push(&from, &reference(&server.name("app")), &silent).await.unwrap();
        let image = from.image(&server.name("app")).unwrap().unwrap();
        let blob = snapshot::blob(&from, image.chain_ids[0].as_str()).unwrap().unwrap();
        let partial = to.tmp().join(format!("{}.partial", blob.digest.hex()));
        stalling_proxy(5001, 5000, blob.size * 9 / 10).await;
        let nine_tenths = async {
            // The head of the answer is among the bytes of the connection.
            while partial.metadata().map_or(0, |m| m.len()) < blob.size * 9 / 10 - 2000 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let name = reference("127.0.0.1:5001/app");
        tokio::select! {
            pulled = pull(&to, &name, None, &silent) => panic!("it was to be cut: {pulled:?}"),
            () = nine_tenths => {}
        }
        let brought = cutting_proxy(5002, 5000, 0, 0).await;
        pull(&to, &reference("127.0.0.1:5002/app"), None, &silent).await.unwrap();
        let brought = brought.load(Ordering::SeqCst);
        assert!(brought < blob.size * 15 / 100, "{brought} of {} bytes again", blob.size);
    });
}

#[test]
fn a_full_disk_is_told_before_the_first_byte() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let Some(server) = Server::start(5000, false).await else { return };
        let (root, from, _) = stores();
        // Before there is another thread.
        let small = root.path().join("small");
        std::fs::create_dir(&small).unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let flags = nix::mount::MsFlags::empty();
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        nix::mount::mount(Some("none"), &small, Some("tmpfs"), flags, Some("size=4m")).unwrap();
        two_layers(&from, &server.name("app"));
        push(&from, &reference(&server.name("app")), &silent).await.unwrap();
        let to = store_in(&small);
        let brought = cutting_proxy(5001, 5000, 0, 0).await;
        let error = pull(&to, &reference("127.0.0.1:5001/app"), None, &silent).await.unwrap_err();
        let Error::Space { needed, free, .. } = &error else { panic!("{error}") };
        assert!(*needed > 6_000_000 && *free < 4 << 20, "{error}");
        assert!(
            error.to_string().contains(&needed.to_string()) && error.to_string().contains(&free.to_string())
        );
        assert!(brought.load(Ordering::SeqCst) < 10_000, "not one byte of a layer");
        nix::mount::umount2(&small, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

/// The environment names the file and the proxies, so the test runs itself again with another one.
fn again(test: &str, env: &[(&str, &str)]) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).envs(env.iter().copied());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{env:?}: {said}");
}

#[test]
fn mirrors_are_asked_first_and_the_registry_last() {
    if !is_privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registries.json");
    let mirrors = |list: &str| format!(r#"{{"mirrors":{{"127.0.0.1:5000":[{list}]}}}}"#);
    for (config, expected) in [
        // Nobody, then the one that has it; the registry itself does not answer.
        (mirrors(r#""http://127.0.0.1:5009","http://127.0.0.1:5001""#), "mirror"),
        (mirrors(r#""http://127.0.0.1:5002","http://127.0.0.1:5003""#), "registry"),
        (mirrors(""), "limit"),
        (mirrors(r#""127.0.0.1:5001""#), "wrong"),
        (r#"{"insecure-registries":["10.7.7.7:5000"]}"#.to_owned(), "insecure"),
        ("{}".to_owned(), "secure"),
    ] {
        std::fs::write(&file, config).unwrap();
        again("with_registries", &[("STACK_REGISTRIES", file.to_str().unwrap()), ("EXPECT", expected)]);
    }
}

#[test]
#[ignore = "run by mirrors_are_asked_first_and_the_registry_last"]
fn with_registries() {
    let Ok(expected) = std::env::var("EXPECT") else { return };
    in_private_network(|| async move {
        let (_root, from, to) = stores();
        let port = if matches!(expected.as_str(), "mirror") { 5001 } else { 5000 };
        let limit = |_: Request| Answer::status(429).with("ratelimit-limit", "100;w=21600");
        let name = reference("127.0.0.1:5000/app");
        if expected == "limit" {
            serve(5000, limit).await;
            let error = pull(&to, &name, None, &silent).await.unwrap_err();
            assert!(error.to_string().contains("its limit is 100 in 6 h"), "{error}");
            let hint = stack_runtime::engine::EngineError::from(error).hint.unwrap();
            assert!(hint.contains("mirror") && hint.contains("registries.json"), "{hint}");
            return;
        }
        let Some(server) = Server::start(port, false).await else { return };
        two_layers(&from, &server.name("app"));
        push(&from, &reference(&server.name("app")), &silent).await.unwrap_or_else(|error| {
            assert!(expected == "wrong" && error.to_string().contains("registries.json"), "{error}");
            Digest::of(b"")
        });
        let elsewhere = Mutex::new(Vec::new());
        let note = |progress| {
            if let Progress::Elsewhere { mirror, .. } = progress {
                elsewhere.lock().unwrap().push(mirror);
            }
        };
        match expected.as_str() {
            "mirror" => {
                let image = pull(&to, &name, None, &note).await.unwrap();
                assert_eq!(image.references, [name], "under the registry's name");
                assert_eq!(*elsewhere.lock().unwrap(), ["127.0.0.1:5009"]);
            }
            "registry" => {
                // One does not have it, one has had enough of us.
                serve(5002, |_| Answer::status(404)).await;
                serve(5003, limit).await;
                pull(&to, &name, None, &note).await.unwrap();
                assert_eq!(*elsewhere.lock().unwrap(), ["127.0.0.1:5002", "127.0.0.1:5003"]);
            }
            "wrong" => {
                let error = pull(&to, &name, None, &silent).await.unwrap_err();
                assert!(error.to_string().contains("registries.json is not valid"), "{error}");
            }
            kind => {
                let made = std::process::Command::new("ip")
                    .args(["addr", "add", "10.7.7.7/32", "dev", "lo"])
                    .status();
                assert!(made.unwrap().success());
                relay(("10.7.7.7", 5000), 5000, u64::MAX).await;
                let pulled = pull(&to, &reference("10.7.7.7:5000/app"), None, &silent).await;
                assert_eq!(pulled.is_ok(), kind == "insecure", "{pulled:?}");
            }
        }
    });
}

#[test]
fn proxies_of_the_environment() {
    if !is_privileged() {
        return;
    }
    let proxy = "http://127.0.0.1:5003";
    again("with_proxy", &[("HTTPS_PROXY", proxy), ("EXPECT", "CONNECT registry.invalid:443")]);
    again("with_proxy", &[("HTTPS_PROXY", proxy), ("NO_PROXY", "registry.invalid"), ("EXPECT", "")]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registries.json");
    std::fs::write(&file, r#"{"mirrors":{"registry.invalid":["http://mirror.invalid"]}}"#).unwrap();
    let expected = "GET http://mirror.invalid/v2/app/manifests/latest";
    let file = file.to_str().unwrap();
    again("with_proxy", &[("HTTP_PROXY", proxy), ("STACK_REGISTRIES", file), ("EXPECT", expected)]);
}

#[test]
#[ignore = "run by proxies_of_the_environment"]
fn with_proxy() {
    let Ok(expected) = std::env::var("EXPECT") else { return };
    in_private_network(|| async move {
        let (_root, _, to) = stores();
        let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        serve(5003, move |request| {
            seen.lock().unwrap().push(format!("{} {}", request.method, request.path));
            Answer::status(403)
        })
        .await;
        pull(&to, &reference("registry.invalid/app"), None, &silent).await.unwrap_err();
        assert_eq!(asked.lock().unwrap().first().map_or("", String::as_str), expected);
        // Never to ourselves.
        pull(&to, &reference("127.0.0.1:5999/app"), None, &silent).await.unwrap_err();
        assert!(asked.lock().unwrap().iter().all(|line| !line.contains("5999")));
    });
}

#[test]
fn damaged_blobs_are_refused() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let Some(server) = Server::start(5000, false).await else { return };
        let (root, from, to) = stores();
        let name = server.name("app");
        let id = two_layers(&from, &name);
        push(&from, &reference(&name), &silent).await.unwrap();
        let chain_id = from.image(&name).unwrap().unwrap().chain_ids[0].to_string();
        let blob = snapshot::blob(&from, &chain_id).unwrap().unwrap();
        let file = server.blob_file(blob.digest.hex());
        let whole = std::fs::read(&file).unwrap();
        let mut wrong = whole.clone();
        wrong[1_000_000] ^= 1;
        std::fs::write(&file, &wrong).unwrap();
        let error = pull(&to, &reference(&name), None, &silent).await.unwrap_err();
        assert!(matches!(&error, Error::Digest { expected, .. } if *expected == blob.digest), "{error}");
        assert!(to.images().unwrap().is_empty() && !to.has_blob(&blob.digest));
        std::fs::write(&file, &whole[..1_000_000]).unwrap();
        let error = pull(&to, &reference(&name), None, &silent).await.unwrap_err();
        assert!(matches!(error, Error::Size { .. }), "{error}");
        // Mended, it works.
        std::fs::write(&file, &whole).unwrap();
        pull(&to, &reference(&name), None, &silent).await.unwrap();
        // A manifest that is not what its digest says.
        let manifest = to.image(&name).unwrap().unwrap().manifest_digest.unwrap();
        let text = std::fs::read_to_string(server.blob_file(manifest.hex())).unwrap();
        std::fs::write(
            server.blob_file(manifest.hex()),
            text.replace("schemaVersion\":2", "schemaVersion\": 2"),
        )
        .unwrap();
        let other = store_in(&root.path().join("other"));
        let pinned = format!("{}@{manifest}", server.name("app"));
        assert!(pull(&other, &reference(&pinned), None, &silent).await.is_err());
        assert!(other.by_id(id.as_str()).unwrap().is_none());
    });
}

/// The environment names the credentials, so the test runs itself again with another one.
#[test]
fn passwords_of_the_configuration_file() {
    if !is_privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let run = |config: &str, expect: &str| {
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "with_password", "--ignored", "--nocapture"]);
        let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).env("DOCKER_CONFIG", directory.path());
        let output = command.env("EXPECT", expect).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr)
        );
    };
    run(r#"{"auths":{"127.0.0.1:5000":{"username":"user","password":"s3cret"}}}"#, "ok");
    run(r#"{"auths":{"127.0.0.1:5000":{"username":"user","password":"wrong"}}}"#, "denied");
    run("{}", "denied");
    run(r#"{"credsStore":"desktop"}"#, "cannot run docker-credential-desktop");
    let helper = |script: &str| {
        let path = directory.path().join("docker-credential-kept");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let with_helper = r#"{"credHelpers":{"127.0.0.1:5000":"kept"},"credsStore":"other"}"#;
    helper(
        r#"read url; test "$1 $url" = "get 127.0.0.1:5000" && echo '{"Username":"user","Secret":"s3cret"}'"#,
    );
    run(with_helper, "ok");
    helper("echo credentials not found in native keychain; exit 1");
    run(with_helper, "denied");
    helper("echo the keychain is locked; exit 1");
    run(with_helper, "the keychain is locked");
    // Signing in writes what pull and push read, beside what was there.
    run(r#"{"psFormat":"x","auths":{"other.io":{"auth":"dTpw"}}}"#, "login");
    let written = std::fs::read_to_string(directory.path().join("config.json")).unwrap();
    assert!(written.contains("psFormat") && written.contains("other.io"), "{written}");
    assert!(!written.contains("127.0.0.1"), "signed out at the end: {written}");
    // With a helper the password is nowhere else.
    helper(&format!("cat > {}/asked-$1", directory.path().display()));
    run(with_helper, "helper");
    let kept = std::fs::read_to_string(directory.path().join("asked-store")).unwrap();
    assert!(kept.contains("s3cret") && kept.contains("127.0.0.1:5000"), "{kept}");
    assert!(!std::fs::read_to_string(directory.path().join("config.json")).unwrap().contains("czNjcmV0"));
}

#[test]
#[ignore = "run by passwords_of_the_configuration_file"]
fn with_password() {
    let Ok(expected) = std::env::var("EXPECT") else { return };
    in_private_network(|| async move {
        let Some(server) = Server::start(5000, true).await else { return };
        let (_root, from, to) = stores();
        let name = server.name("app");
        two_layers(&from, &name);
        if expected == "helper" {
            login("127.0.0.1:5000", "user", "s3cret").await.unwrap();
            return;
        }
        if expected == "login" {
            return sign_in_and_out(&from, &name).await;
        }
        match push(&from, &reference(&name), &silent).await {
            Ok(_) => {
                assert_eq!(expected, "ok");
                pull(&to, &reference(&name), None, &silent).await.unwrap();
            }
            Err(error) => {
                assert!(matches!(error, Error::Unauthorised { .. }), "{error}");
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
    });
}

async fn sign_in_and_out(from: &Store, name: &str) {
    let wrong = login("127.0.0.1:5000", "user", "wrong").await.unwrap_err();
    assert!(matches!(wrong, Error::Unauthorised { .. }), "{wrong}");
    assert!(push(from, &reference(name), &silent).await.is_err());
    let kept = login("127.0.0.1:5000", "user", "s3cret").await.unwrap();
    let Kept::File(path) = kept else { panic!("{kept:?}") };
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o077, 0);
    push(from, &reference(name), &silent).await.unwrap();
    assert!(logout("127.0.0.1:5000").unwrap());
    assert!(!logout("127.0.0.1:5000").unwrap());
    assert!(matches!(login("not a host", "u", "p").await, Err(Error::Invalid { .. })));
}

#[test]
fn no_answer_is_not_a_no() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let (_root, _, to) = stores();
        for name in ["127.0.0.1:5999/app", "10.255.255.1:5000/app", "registry.invalid/app"] {
            let error = pull(&to, &reference(name), None, &silent).await.unwrap_err();
            assert!(error.is_unreachable(), "{name}: {error}");
            assert!(error.to_string().contains(name.split('/').next().unwrap()), "{error}");
        }
    });
}

/// An image for two platforms behind a token, from memory.
struct Misbehaving {
    blobs: Vec<Vec<u8>>,
    index: Vec<u8>,
    failures: AtomicU32,
}

impl Misbehaving {
    fn new() -> Self {
        let mut blobs = Vec::new();
        let mut manifests = Vec::new();
        for architecture in ["amd64", "arm64", "riscv64"] {
            let archive = layer("which", architecture.as_bytes());
            let mut document: serde_json::Value = serde_json::from_slice(&fixture::document(
                ImageConfig::default(),
                std::slice::from_ref(&archive),
            ))
            .unwrap();
            document["architecture"] = architecture.into();
            let config = serde_json::to_vec(&document).unwrap();
            let manifest = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "digest": Digest::of(&config), "size": config.len() },
                "layers": [{ "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": Digest::of(&archive), "size": archive.len() }],
            });
            let manifest = serde_json::to_vec(&manifest).unwrap();
            manifests.push(serde_json::json!({
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": Digest::of(&manifest), "size": manifest.len(),
                "platform": { "os": "linux", "architecture": architecture },
            }));
            blobs.extend([archive, config, manifest]);
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        Self { blobs, index: serde_json::to_vec(&index).unwrap(), failures: AtomicU32::new(2) }
    }

    fn answer(&self, request: &Request) -> Answer {
        if request.path.starts_with("/token?") {
            assert!(request.path.contains("scope=repository%3Aapp%3Apull"), "{}", request.path);
            return Answer::ok(r#"{"token":"abc"}"#);
        }
        if request.header("authorization") != Some("Bearer abc") {
            let challenge = r#"Bearer realm="http://127.0.0.1:5000/token",service="test",scope="x""#;
            return Answer::status(401).with("www-authenticate", challenge);
        }
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Answer::status(503);
        }
        match request.path.rsplit('/').next().unwrap_or_default() {
            "latest" => Answer::ok(self.index.clone()),
            "denied" => Answer {
                body: br#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#.to_vec(),
                ..Answer::status(403)
            },
            "false" => Answer::ok(self.index.clone()).with("docker-content-digest", Digest::of(b"").as_str()),
            "endless" => Answer::ok(vec![b' '; 9 << 20]),
            "junk" => Answer::ok("<html>"),
            digest => match self.blobs.iter().find(|b| Digest::of(b).as_str() == digest) {
                Some(blob) => Answer::ok(blob.clone()),
                None => Answer::status(404),
            },
        }
    }
}

#[test]
fn tokens_platforms_and_refusals() {
    if !is_privileged() {
        return;
    }
    in_private_network(|| async {
        let server = Misbehaving::new();
        serve(5000, move |request| server.answer(&request)).await;
        let (_root, _, to) = stores();
        let name = |version: &str| reference(&format!("127.0.0.1:5000/app{version}"));
        let retries = AtomicU32::new(0);
        let count = |p| {
            if matches!(p, Progress::Retrying { .. }) {
                retries.fetch_add(1, Ordering::SeqCst);
            }
        };
        let image = pull(&to, &name(""), None, &count).await.unwrap();
        assert_eq!(image.architecture, Platform::host().architecture);
        assert_eq!(retries.load(Ordering::SeqCst), 2);
        let other = Platform::parse("linux/riscv64").unwrap();
        let image = pull(&to, &name(""), Some(&other), &silent).await.unwrap();
        assert_eq!(image.architecture, "riscv64");
        let none = Platform::parse("linux/s390x").unwrap();
        for (version, platform, reason) in [
            ("", Some(&none), "linux/s390x"),
            (":denied", None, "not for you"),
            (":false", None, "expected sha256:e3b0"),
            (":endless", None, "larger than"),
            (":junk", None, "not valid"),
            (":nosuch", None, "app:nosuch not found"),
        ] {
            let error = pull(&to, &name(version), platform, &silent).await.unwrap_err();
            assert!(error.to_string().contains(reason), "{version}: {error}");
            assert!(!error.is_unreachable(), "{version}: {error}");
        }
    });
}
