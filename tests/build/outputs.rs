//! What becomes of a build, and where its contexts may come from, on the command line.

use crate::bed::{Bed, Case};
use crate::registry::Server;
use stack_runtime::image::artifact::{Place, Version};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

pub(crate) const ALL: &[(&str, Case)] = &[
    ("files_are_written_to_a_directory", files_are_written_to_a_directory),
    ("archives_and_layouts_are_images_again", archives_and_layouts_are_images_again),
    ("images_are_pushed_and_described", images_are_pushed_and_described),
    ("standard_input_is_a_context_or_a_dockerfile", standard_input_is_a_context_or_a_dockerfile),
    ("contexts_come_from_layouts_and_addresses", contexts_come_from_layouts_and_addresses),
    ("another_platform_needs_an_emulator", another_platform_needs_an_emulator),
    ("several_platforms_are_one_index", several_platforms_are_one_index),
    ("statements_travel_with_the_image", statements_travel_with_the_image),
];

struct Ran {
    done: bool,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Self {
        assert!(self.done, "{}", self.stderr);
        self
    }

    #[track_caller]
    fn fails(self, why: &str) {
        assert!(!self.done && self.stderr.contains(why), "`{why}` is not in {}", self.stderr);
    }
}

/// `stack image build …` in the directory of the bed.
fn build(bed: &Bed, args: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
    command.args(["--progress", "plain", "image", "build"]).args(args).current_dir(bed.directory.path());
    command.env("STACK_HOME", &bed.env.home.data).env_remove("DOCKER_DEFAULT_PLATFORM");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    // One that does not read its input ends all the same.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("ended");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { done: output.status.success(), stdout: output.stdout, stderr }
}

fn path(bed: &Bed, name: &str) -> PathBuf {
    bed.directory.path().join(name)
}

fn text(bed: &Bed, name: &str) -> String {
    fs::read_to_string(path(bed, name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn images(bed: &Bed) -> usize {
    bed.env.store.images().expect("read").len()
}

const FILES: &str = "FROM busybox:1 AS made\nRUN mkdir /d && echo one > /d/f && chmod 640 /d/f && chown 7:8 /d/f && ln -s f /d/l && rm -r /var\n\
    FROM scratch\nCOPY --from=made /d /d\n";

fn files_are_written_to_a_directory(bed: &Bed) {
    bed.write("Dockerfile", FILES);
    let before = images(bed);
    for args in [vec!["-o", "out", "context"], vec!["--output", "type=local,dest=out", "context"]] {
        build(bed, &args, b"").ok();
        assert_eq!(text(bed, "out/d/f"), "one\n");
        let meta = path(bed, "out/d/f").metadata().expect("there");
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 0, 0), "the user's own");
        assert_eq!(fs::read_link(path(bed, "out/d/l")).expect("a link"), PathBuf::from("f"));
        fs::write(path(bed, "out/d/f"), "old").expect("written");
        fs::write(path(bed, "out/other"), "stays").expect("written");
    }
    assert_eq!(text(bed, "out/other"), "stays");
    // What a layer removed is not among the files of a stage.
    let tar = build(bed, &["--target", "made", "-o", "-", "context"], b"").ok().stdout;
    fs::write(path(bed, "made.tar"), tar).expect("written");
    let list = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(path(bed, "made.tar"))
        .output()
        .expect("tar");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains(" d/f\n") && list.contains("bin/busybox") && !list.contains(" var/"), "{list}");
    assert!(list.lines().any(|line| line.starts_with("-rw-r-----") && line.contains("7/8")), "{list}");
    // Several of one build; none of them leaves an image.
    build(bed, &["-o", "type=tar,dest=two.tar", "-o", "two", "-o", "type=cacheonly", "context"], b"").ok();
    assert!(path(bed, "two.tar").is_file() && path(bed, "two/d/f").is_file());
    assert_eq!(images(bed), before);
    build(bed, &["-o", "type=local", "context"], b"").fails("dest is required for local exporter");
    build(bed, &["-o", "type=image,compression=zstd", "context"], b"").fails("`compression`");
}

fn archives_and_layouts_are_images_again(bed: &Bed) {
    bed.write("Dockerfile", "FROM busybox:1\nRUN echo one > /one\nLABEL a=b\n");
    let before = images(bed);
    let args =
        ["-t", "out/app:1", "-o", "type=oci,dest=app.tar", "-o", "type=oci,dest=layout,tar=false", "context"];
    build(bed, &args, b"").ok();
    build(bed, &["-t", "out/app:2", "-o", "type=docker,dest=docker.tar", "context"], b"").ok();
    assert_eq!(images(bed), before, "only files");
    let load = |name: &str| {
        let loaded = stack_runtime::image::archive::load_path(&bed.env.store, &path(bed, name)).expect(name);
        (loaded[0].id.clone(), loaded[0].references.iter().map(|r| r.familiar()).collect::<Vec<_>>())
    };
    let (id, names) = load("app.tar");
    assert_eq!(names, ["out/app:1"]);
    assert_eq!(load("docker.tar"), (id.clone(), vec!["out/app:2".to_owned()]));
    assert_eq!(load("layout").0, id);
    let list = Command::new("tar").arg("-tf").arg(path(bed, "docker.tar")).output().expect("tar").stdout;
    assert!(String::from_utf8_lossy(&list).contains("manifest.json"));
    // One that was there stays.
    build(bed, &["-t", "kept:1", "context"], b"").ok();
    build(bed, &["-o", "type=oci,dest=again.tar", "context"], b"").ok();
    assert_eq!(bed.env.store.image("kept:1").expect("read").expect("kept").id, id);
}

fn images_are_pushed_and_described(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_095, false)) else { return };
    let name = server.name("team/app:1");
    bed.write("Dockerfile", "FROM busybox:1\nARG A\nRUN echo $A > /one\n");
    let files = ["--iidfile", "iid", "--metadata-file", "meta"];
    let args =
        [&["-t", &name, "--build-arg", "A=x", "--label", "l=v", "--push"], &files[..], &["context"]].concat();
    build(bed, &args, b"").ok();
    let image = bed.env.store.image(&name).expect("read").expect("kept");
    assert_eq!((text(bed, "iid").as_str(), image.labels["l"].as_str()), (image.id.as_str(), "v"));
    let reference = name.parse().expect("a name");
    let pushed = bed.wait_for(stack_runtime::image::pull::resolve_digest(&reference)).expect("pushed");
    let meta: serde_json::Value = serde_json::from_str(&text(bed, "meta")).expect("JSON");
    assert_eq!(meta["containerimage.digest"], pushed.as_str());
    assert_eq!(meta["containerimage.config.digest"], image.id.as_str());
    assert_eq!(meta["image.name"], name.as_str());
    build(bed, &["--push", "context"], b"").fails("tag is needed when pushing to registry");
    let quiet = build(bed, &["-q", "--load", "-t", "quiet:1", "context"], b"").ok();
    let loaded = bed.env.store.image("quiet:1").expect("read").expect("loaded");
    assert_eq!(String::from_utf8_lossy(&quiet.stdout), format!("{}\n", loaded.id));
    build(bed, &["-o", &format!("type=registry,name={}", server.name("team/app:2")), "context"], b"").ok();
    let second = server.name("team/app:2").parse().expect("a name");
    bed.wait_for(stack_runtime::image::pull::resolve_digest(&second)).expect("pushed");
    annotations_are_of_manifests(bed, &server.name("team/app:3"));
}

fn annotations_are_of_manifests(bed: &Bed, name: &str) {
    let annotations = |place: Place| -> Vec<(String, String)> {
        let found = bed.wait_for(place.find(&bed.env.store, None, &stack_runtime::image::progress::silent));
        found.expect("there").manifest.annotations.into_iter().collect()
    };
    let wanted = ["--annotation", "a=1", "--annotation", "manifest:b.c=x=y"];
    let expected = [("a".to_owned(), "1".to_owned()), ("b.c".to_owned(), "x=y".to_owned())];
    build(bed, &[&wanted[..], &["-t", name, "--push", "context"]].concat(), b"").ok();
    assert_eq!(annotations(Place::Registry(name.parse().expect("a name"))), expected);
    build(bed, &[&wanted[..], &["-o", "type=oci,dest=noted,tar=false", "context"]].concat(), b"").ok();
    let directory = bed.directory.path().join("noted");
    assert_eq!(annotations(Place::Layout { directory, version: Version::Any }), expected);
    build(bed, &["--annotation", "a=1", "context"], b"")
        .fails("annotations are not supported for images of this machine");
    build(bed, &["--annotation", "index:a=1", "context"], b"")
        .fails("annotations of `index` are not supported");
    build(bed, &["--annotation", "a", "context"], b"").fails("invalid annotation");
    // Nothing is built when a Dockerfile is only looked over.
    bed.write("Dockerfile", "from busybox:1 as X\nRUN echo seen\n");
    let checked = build(bed, &["--check", "-t", "unbuilt:1", "context"], b"").ok();
    let said = &checked.stderr;
    assert!(said.contains("Check complete, ") && said.contains("found"), "{said}");
    assert!(bed.env.store.image("unbuilt:1").expect("read").is_none());
}

fn standard_input_is_a_context_or_a_dockerfile(bed: &Bed) {
    bed.write("file", "content");
    let dockerfile = b"FROM scratch\nCOPY file /\n";
    build(bed, &["-f", "-", "-o", "a", "context"], dockerfile).ok();
    assert_eq!(text(bed, "a/file"), "content");
    // Alone it has an empty context.
    build(bed, &["-o", "b", "-"], b"FROM scratch\nCOPY <<E /x\nhere\nE\n").ok();
    assert_eq!(text(bed, "b/x"), "here\n");
    build(bed, &["-o", "c", "-"], dockerfile).fails("file");
    build(bed, &["-f", "-", "-"], dockerfile).fails("can't use stdin for both build context and dockerfile");
    bed.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    bed.write(".dockerignore", "file");
    for compression in ["--no-auto-compress", "--gzip", "--bzip2", "--xz"] {
        let tar = Command::new("tar").args(["-c", compression, "-C"]).arg(&bed.context).arg(".").output();
        let tar = if compression == "--no-auto-compress" {
            Command::new("tar").args(["-c", "-C"]).arg(&bed.context).arg(".").output()
        } else {
            tar
        };
        build(bed, &["-o", compression.trim_start_matches('-'), "-"], &tar.expect("tar").stdout).ok();
        let file = format!("{}/file", compression.trim_start_matches('-'));
        assert_eq!(text(bed, &file), "content", "ignore files are of directories");
    }
}

fn contexts_come_from_layouts_and_addresses(bed: &Bed) {
    bed.write("Dockerfile", "FROM busybox:1\nRUN echo one > /one\n");
    build(bed, &["-t", "x:first", "-o", "type=oci,dest=layout,tar=false", "context"], b"").ok();
    bed.write("Dockerfile", "FROM busybox:1\nRUN echo two > /one\n");
    build(bed, &["-t", "x:second", "-o", "type=oci,dest=layout,tar=false", "context"], b"").ok();
    bed.write("Dockerfile", "FROM base\nFROM scratch\nCOPY --from=base /one /\n");
    for (layout, expected) in [("layout:first", "one\n"), ("layout:second", "two\n")] {
        let base = format!("base=oci-layout://{layout}");
        build(bed, &["--build-context", &base, "-o", "out", "context"], b"").ok();
        assert_eq!(text(bed, "out/one"), expected);
    }
    build(bed, &["--build-context", "base=oci-layout://layout:none", "-o", "out", "context"], b"")
        .fails("tag none");
    // A file of a web server; nobody unpacks it.
    let served = path(bed, "served");
    fs::create_dir(&served).expect("made");
    let tar =
        Command::new("tar").args(["-cz", "-C"]).arg(&bed.context).arg(".").output().expect("tar").stdout;
    fs::write(served.join("x.tgz"), &tar).expect("written");
    fs::write(served.join("text"), "FROM scratch\nCOPY context /kept\n").expect("written");
    let port = serve(served);
    let url = |name: &str| format!("http://127.0.0.1:{port}/{name}");
    bed.write("Dockerfile", "FROM scratch\nCOPY --from=web . /\n");
    build(bed, &["--build-context", &format!("web={}", url("x.tgz")), "-o", "web", "context"], b"").ok();
    assert_eq!(fs::read(path(bed, "web/context")).expect("read"), tar);
    // As the context an archive is unpacked, and text is the Dockerfile.
    bed.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /inside\n");
    let tar =
        Command::new("tar").args(["-cz", "-C"]).arg(&bed.context).arg(".").output().expect("tar").stdout;
    fs::write(path(bed, "served/x.tgz"), &tar).expect("written");
    build(bed, &["-o", "tgz", &url("x.tgz")], b"").ok();
    assert!(text(bed, "tgz/inside").contains("/inside"));
    build(bed, &["-o", "plain", &url("text")], b"").ok();
    assert!(text(bed, "plain/kept").contains("/kept"));
    build(bed, &["-o", "x", &url("missing")], b"").fails("404");
}

/// Files of a directory, one connection each, until the test ends.
fn serve(directory: PathBuf) -> u16 {
    use std::io::{BufRead, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let name = first.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let (status, body) = match fs::read(directory.join(name)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
        }
    });
    port
}

fn another_platform_needs_an_emulator(bed: &Bed) {
    let other = "linux/s390x";
    bed.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    build(bed, &["--platform", other, "-t", "other:1", "context"], b"").ok();
    assert_eq!(bed.env.store.image("other:1").expect("read").expect("built").architecture, "s390x");
    if std::path::Path::new("/proc/sys/fs/binfmt_misc/qemu-s390x").exists() {
        return;
    }
    bed.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\n");
    build(bed, &["--platform", other, "context"], b"").fails("cannot run programs for linux/s390x");
    // Steps of this machine's platform run, whatever the target is.
    bed.write("Dockerfile", "FROM --platform=$BUILDPLATFORM busybox:1 AS b\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nFROM scratch\nCOPY --from=b /arch /\n");
    build(bed, &["--platform", other, "-o", "cross", "context"], b"").ok();
    assert_eq!(text(bed, "cross/arch"), "s390x\n");
}

/// No program of the other platform is run.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox:1 AS b\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nFROM scratch\nCOPY --from=b /arch /\n";

fn several_platforms_are_one_index(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_094, false)) else { return };
    let name = server.name("team/multi:1");
    bed.write("Dockerfile", CROSS);
    let host = stack_runtime::image::Platform::host().to_string();
    let both = format!("{host},linux/s390x");
    let args = [
        "--platform",
        &both,
        "-t",
        &name,
        "--push",
        "-o",
        "files",
        "-o",
        "type=oci,dest=multi.tar",
        "--metadata-file",
        "meta",
        "context",
    ];
    build(bed, &args, b"").ok();
    assert_eq!(text(bed, "files/linux_s390x/arch"), "s390x\n");
    let kept = bed.env.store.image(&name).expect("read").expect("kept");
    let arch = text(bed, &format!("files/{}/arch", host.replace('/', "_")));
    assert_eq!(arch.trim(), kept.architecture, "this machine's");
    let reference = name.parse().expect("a name");
    let pushed = bed.wait_for(stack_runtime::image::pull::resolve_digest(&reference)).expect("pushed");
    assert!(text(bed, "meta").contains(pushed.as_str()));
    // Each machine gets its own from the registry, and from the archive.
    bed.env.store.remove(&name, true).expect("removed");
    let silent = &stack_runtime::image::progress::silent;
    for platform in [host.as_str(), "linux/s390x"] {
        let wanted = stack_runtime::image::Platform::parse(platform).expect("a platform");
        let pulled =
            bed.wait_for(stack_runtime::image::pull::pull(&bed.env.store, &reference, Some(&wanted), silent));
        assert_eq!(pulled.expect("pulled").architecture, wanted.architecture);
    }
    let loaded =
        stack_runtime::image::archive::load_path(&bed.env.store, &path(bed, "multi.tar")).expect("loaded");
    let loaded = bed.env.store.by_id(loaded[0].id.as_str()).expect("read").expect("there");
    assert_eq!(loaded.architecture, kept.architecture);
    build(bed, &["--platform", &both, "-o", "type=docker,dest=x.tar", "context"], b"")
        .fails("manifest lists");
}

fn statements_travel_with_the_image(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_093, false)) else { return };
    let name = server.name("team/stated:1");
    bed.write(
        "Dockerfile",
        "FROM busybox:1\nARG A\nRUN mkdir -p /lib/apk/db && printf 'P:musl\\nV:1.2-r0\\nA:x86_64\\nL:MIT\\n' > /lib/apk/db/installed\n",
    );
    build(bed, &["-t", "plain:1", "--build-arg", "A=x", "context"], b"").ok();
    let plain = bed.env.store.image("plain:1").expect("read").expect("built");
    let args = ["-t", &name, "--build-arg", "A=x", "--provenance=mode=max", "--sbom", "--push"];
    let args = [&args[..], &["-o", "type=oci,dest=layout,tar=false", "-o", "files", "context"]].concat();
    build(bed, &args, b"").ok();
    assert_eq!(
        bed.env.store.image(&name).expect("read").expect("kept").id,
        plain.id,
        "the image is the same"
    );
    let json = |path: &str| serde_json::from_str::<serde_json::Value>(&text(bed, path)).expect("JSON");
    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
        json(&format!("layout/blobs/sha256/{}", digest.trim_start_matches("sha256:")))
    };
    let index = blob(&json("layout/index.json")["manifests"][0]);
    let (image, stated) = (&index["manifests"][0], &index["manifests"][1]);
    assert_eq!(stated["platform"], serde_json::json!({ "os": "unknown", "architecture": "unknown" }));
    assert_eq!(stated["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    assert_eq!(stated["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    let layers = blob(stated)["layers"].clone();
    let (provenance, sbom) = (blob(&layers[0]), blob(&layers[1]));
    for (statement, kind) in
        [(&provenance, "https://slsa.dev/provenance/v1"), (&sbom, "https://spdx.dev/Document")]
    {
        assert_eq!(statement["predicateType"], kind);
        let about = statement["subject"][0]["digest"]["sha256"].as_str().expect("a digest");
        assert_eq!(image["digest"], format!("sha256:{about}"));
        assert!(statement["subject"][0]["name"].as_str().expect("a name").contains("team/stated@1"));
    }
    let definition = &provenance["predicate"]["buildDefinition"];
    assert_eq!(definition["resolvedDependencies"][0]["uri"], "pkg:docker/busybox:1");
    assert_eq!(definition["externalParameters"]["request"]["args"]["A"], "x");
    let package = &sbom["predicate"]["packages"][0];
    assert_eq!((&package["name"], &package["licenseDeclared"]), (&"musl".into(), &"MIT".into()));
    assert!(package["externalRefs"][0]["referenceLocator"].as_str().expect("a URL").starts_with("pkg:apk/"));
    // Files have them beside them, a registry gives the image without them.
    assert!(json("files/sbom.spdx.json")["predicate"]["packages"][0]["name"] == "musl");
    assert!(path(bed, "files/provenance.json").is_file() && path(bed, "files/bin/busybox").is_file());
    bed.env.store.remove(&name, true).expect("removed");
    let silent = &stack_runtime::image::progress::silent;
    let reference = name.parse().expect("a name");
    let pulled = bed.wait_for(stack_runtime::image::pull::pull(&bed.env.store, &reference, None, silent));
    assert_eq!(pulled.expect("pulled").id, plain.id);
    // The least says nothing of arguments; the store holds no statements.
    build(bed, &["--build-arg", "A=x", "--attest", "type=provenance", "-o", "least", "context"], b"").ok();
    assert!(json("least/provenance.json")["predicate"]["buildDefinition"]["externalParameters"]["request"]["args"].is_null());
    build(bed, &["--sbom", "-t", "x:1", "context"], b"").fails("attestations are not supported");
    build(bed, &["--attest", "type=sbom,generator=x", "context"], b"").fails("`generator`");
}
