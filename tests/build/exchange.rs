//! Caches that travel: what one machine built, another one takes.

use crate::bed::{Bed, Built, Case};
use crate::registry::Server;
use stack::build::{self, BuildEnv, BuildEvent, BuildRequest, CacheFrom, CacheTo, travel};
use stack_runtime::home::Home;
use stack_runtime::image::progress::silent;
use stack_runtime::image::prune::{InUse, Which, prune};
use stack_runtime::image::{Reference, Store, push};
use stack_runtime::snapshot;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

pub(crate) const ALL: &[(&str, Case)] = &[
    ("a_cache_travels_in_a_directory", a_cache_travels_in_a_directory),
    ("a_cache_travels_through_a_registry", a_cache_travels_through_a_registry),
    ("an_image_carries_its_cache", an_image_carries_its_cache),
    ("a_cache_that_fails_is_a_warning", a_cache_that_fails_is_a_warning),
    ("the_file_names_caches", the_file_names_caches),
    ("a_whole_cache_travels", a_whole_cache_travels),
    ("an_import_takes_nothing_that_is_not_what_it_says", an_import_takes_nothing_that_is_not_what_it_says),
];

/// Two layers of the result, one of another stage.
const TEXT: &str = "FROM busybox:1 AS a\nRUN echo a > /a && touch -d @1000 /a\nFROM busybox:1\nCOPY --from=a /a /b\nRUN cat /b > /c";

/// As on a machine that never built anything: neither records nor layers.
fn forget(bed: &Bed, built: &Built) {
    let store = &bed.env.store;
    store.remove(built.success().image_id.as_str(), true).expect("removed");
    build::prune(&bed.env.home, store, true, Duration::ZERO).expect("pruned");
    prune(store, || Ok(InUse::default()), Which::Orphans).expect("pruned");
}

fn with(bed: &Bed, text: &str, from: &[&str], to: &[&str]) -> Built {
    bed.build_request(request(bed, text, from, to))
}

fn request(bed: &Bed, text: &str, from: &[&str], to: &[&str]) -> BuildRequest {
    let base = bed.directory.path();
    BuildRequest {
        cache_from: from.iter().map(|line| CacheFrom::parse(line, base).expect("a source")).collect(),
        cache_to: to.iter().map(|line| CacheTo::parse(line, base).expect("a target")).collect(),
        ..bed.request(text)
    }
}

fn warnings(built: &Built) -> String {
    let warning = |event: &BuildEvent| match event {
        BuildEvent::Warning(finding) => Some(finding.message.clone()),
        _ => None,
    };
    built.events.iter().filter_map(warning).collect::<Vec<_>>().join("\n")
}

fn layers(bed: &Bed) -> usize {
    std::fs::read_dir(bed.env.store.snapshots()).expect("read").count()
}

fn a_cache_travels_in_a_directory(bed: &Bed) {
    let base = layers(bed);
    let built = with(bed, TEXT, &[], &["type=local,dest=min", "type=local,dest=max,mode=max,tag=t"]);
    let (before, fresh) = (bed.image(&built), built.counts());
    assert_eq!(fresh, (3, 0));
    forget(bed, &built);
    // Only the result's layers are in the one, ...
    let some = with(bed, TEXT, &["type=local,src=min"], &[]);
    assert_eq!((some.counts(), warnings(&some).as_str()), ((3, 2), ""));
    forget(bed, &some);
    // ... and all of them in the other, and it is the same image.
    let all = with(bed, TEXT, &["type=local,src=max,tag=t"], &[]);
    assert_eq!(all.counts(), (3, 3));
    assert_eq!(bed.text(&all, "c"), "a\n");
    assert_eq!(bed.image(&all).layers, before.layers);
    // Steps that are found in the cache here are exported, too.
    with(bed, TEXT, &[], &["type=local,dest=again,mode=max"]).success();
    forget(bed, &all);
    // Only what is needed is fetched.
    let mut first = request(bed, TEXT, &["type=local,src=again"], &[]);
    first.target = Some("a".into());
    let first = bed.build_request(first);
    assert_eq!((first.counts(), layers(bed)), ((1, 1), base + 1));
    // Without the cache it is not looked at.
    let mut uncached = request(bed, TEXT, &["type=local,src=again"], &[]);
    uncached.no_cache = true;
    assert_eq!(bed.build_request(uncached).counts(), (3, 0));
}

fn a_cache_travels_through_a_registry(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_097, false)) else { return };
    let name = server.name("team/cache:main");
    let built = with(bed, TEXT, &[], &[&format!("type=registry,ref={name},mode=max")]);
    forget(bed, &built);
    let other = format!("type=registry,ref={}", server.name("team/none"));
    let again = with(bed, TEXT, &[&other, &name], &[]);
    assert_eq!(again.counts(), (3, 3));
    assert!(warnings(&again).contains("team/none"), "{}", warnings(&again));
    // Another step is another key.
    let changed = with(bed, &TEXT.replace("cat /b", "cat /a /b 2>&1 || cat /b"), &[&name], &[]);
    assert_eq!(changed.counts(), (3, 2));
}

fn an_image_carries_its_cache(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_096, false)) else { return };
    let name = server.name("team/app:1");
    let reference: Reference = name.parse().expect("a name");
    let mut wanted = request(bed, TEXT, &[], &["type=inline"]);
    wanted.tags = vec![reference.clone()];
    let built = bed.build_request(wanted);
    bed.wait_for(push::push(&bed.env.store, &reference, &silent)).expect("pushed");
    forget(bed, &built);
    let again = with(bed, TEXT, &[&name], &[]);
    assert_eq!(
        (again.counts(), warnings(&again).as_str()),
        ((3, 2), ""),
        "the other stage's is not in the image"
    );
    assert_eq!(bed.text(&again, "c"), "a\n");
    // An image that carries none is no source.
    forget(bed, &again);
    let mut plain = bed.request(TEXT);
    plain.tags = vec![reference.clone()];
    let plain = bed.build_request(plain);
    bed.wait_for(push::push(&bed.env.store, &reference, &silent)).expect("pushed");
    forget(bed, &plain);
    let none = with(bed, TEXT, &[&name], &[]);
    assert!(none.counts() == (3, 0) && warnings(&none).contains("without a cache"), "{}", warnings(&none));
}

fn a_cache_that_fails_is_a_warning(bed: &Bed) {
    let missing = with(bed, TEXT, &["type=local,src=nowhere"], &["type=local,dest=cache"]);
    assert_eq!(missing.counts(), (3, 0));
    assert!(warnings(&missing).contains("nowhere cannot be used"), "{}", warnings(&missing));
    forget(bed, &missing);
    // A layer that is not what its digest says is made again.
    let blobs = bed.directory.path().join("cache/blobs/sha256");
    for blob in std::fs::read_dir(blobs).expect("read").flatten() {
        let bytes = std::fs::read(blob.path()).expect("read");
        if bytes.starts_with(&[0x1f, 0x8b]) {
            std::fs::write(blob.path(), [&bytes[..], b"x"].concat()).expect("written");
        }
    }
    let damaged = with(bed, TEXT, &["type=local,src=cache"], &[]);
    assert_eq!(damaged.counts(), (3, 0));
    assert!(warnings(&damaged).contains("a cached layer cannot be used"), "{}", warnings(&damaged));
    std::fs::write(bed.directory.path().join("file"), "x").expect("written");
    let failed = with(bed, TEXT, &[], &["type=local,dest=file/x"]).failure();
    assert!(failed.contains("export the cache to"), "{failed}");
    let ignored = with(bed, TEXT, &[], &["type=local,dest=file/x,ignore-error=true"]);
    assert!(ignored.success().steps == 3 && warnings(&ignored).contains("cannot be exported"));
}

/// A machine that has nothing.
fn elsewhere(bed: &Bed, name: &str) -> BuildEnv {
    let data = bed.directory.path().join(name);
    let home = Home { run: data.join("run"), data };
    home.prepare().expect("a home");
    let store = Store::open(&home).expect("a store");
    BuildEnv { program: bed.env.program.clone(), ..BuildEnv::new(home, store) }
}

/// Two stages, of which one is not in the result, and what a cache mount had is in it.
const WITH_MOUNT: &str = "FROM busybox:1 AS a\nRUN --mount=type=cache,id=kept,target=/kept,mode=0750,uid=7 \
     mkdir -p /kept/d && echo $((1 + $(cat /kept/d/count 2>/dev/null || echo 0))) > /kept/d/count && \
     ln -sf count /kept/d/link && cp /kept/d/count /count\nFROM busybox:1\nCOPY --from=a /count /\nCOPY f /f\n";

fn a_whole_cache_travels(bed: &Bed) {
    bed.write("f", "1");
    let built = bed.build(WITH_MOUNT);
    let to = bed.directory.path().join("travels");
    let gone = bed.wait_for(travel::export(&bed.env.home, &bed.env.store, &to)).expect("exported");
    assert_eq!((gone.steps, gone.images, gone.mounts), (3, 1, 1));

    let other = elsewhere(bed, "other");
    let come = bed.wait_for(travel::import(&other.home, &other.store, &to)).expect("imported");
    assert_eq!((come.steps, come.images, come.mounts, come.known), (3, 1, 1, 0));
    let on_other = |text: &str| {
        bed.wait_for(build::build(&other, &bed.request(text), &|_| ()))
            .unwrap_or_else(|e| panic!("{}", e.render()))
    };
    let again = on_other(WITH_MOUNT);
    assert_eq!((again.steps, again.cached), (3, 3), "nothing is executed");
    assert_eq!(again.image_id, built.success().image_id);
    // What a step finds in the mount is what the last one left elsewhere.
    let next = on_other(
        &WITH_MOUNT.replace("COPY f /f", "RUN test -f /count").replace("cp /kept", "sleep 0; cp /kept"),
    );
    let image = other.store.image(next.image_id.as_str()).expect("read").expect("there");
    let layers = snapshot::lower_dirs(&other.store, &image.chain_id).expect("layers");
    let count = layers.iter().find_map(|layer| std::fs::read_to_string(layer.join("count")).ok());
    assert_eq!(count.as_deref(), Some("2\n"));
    let mounts = other.home.build().join("mounts");
    let mount = std::fs::read_dir(mounts).expect("read").next().expect("one").expect("read").path();
    let data = mount.join("data").metadata().expect("there");
    assert_eq!((data.mode() & 0o7777, data.uid()), (0o750, 7));
    assert_eq!(std::fs::read_link(mount.join("data/d/link")).expect("a link"), Path::new("count"));

    // What is here stays, ...
    let twice = bed.wait_for(travel::import(&other.home, &other.store, &to)).expect("imported");
    assert_eq!(twice.known, 5);
    assert_eq!(std::fs::read_to_string(mount.join("data/d/count")).expect("there"), "2\n");
    // ... and the next export names only what is in the cache then.
    let blobs = || std::fs::read_dir(to.join("blobs/sha256")).expect("read").count();
    let before = blobs();
    forget(bed, &built);
    bed.wait_for(travel::export(&bed.env.home, &bed.env.store, &to)).expect("exported");
    assert!(blobs() < before, "{} blobs of {before}", blobs());
}

fn an_import_takes_nothing_that_is_not_what_it_says(bed: &Bed) {
    bed.write("f", "1");
    bed.build(WITH_MOUNT).success();
    let to = bed.directory.path().join("travels");
    bed.wait_for(travel::export(&bed.env.home, &bed.env.store, &to)).expect("exported");
    for blob in std::fs::read_dir(to.join("blobs/sha256")).expect("read").flatten() {
        let bytes = std::fs::read(blob.path()).expect("read");
        if bytes.starts_with(&[0x1f, 0x8b]) {
            std::fs::write(blob.path(), [&bytes[..], b"x"].concat()).expect("written");
        }
    }
    let other = elsewhere(bed, "other");
    let failed = bed.wait_for(travel::import(&other.home, &other.store, &to)).expect_err("damaged");
    assert!(failed.render().contains("digest"), "{}", failed.render());
    let nothing =
        bed.wait_for(travel::import(&other.home, &other.store, &bed.context)).expect_err("nothing there");
    assert!(nothing.render().contains("index.json"), "{}", nothing.render());
    assert!(std::fs::read_dir(other.home.build().join("mounts")).expect("read").next().is_none());
}

fn the_file_names_caches(bed: &Bed) {
    let dockerfile = "FROM busybox:1\nRUN echo made > /made\n";
    let compose = |line: &str| {
        format!("services:\n  web:\n    image: web:1\n    build:\n      context: .\n      {line}\n")
    };
    let stack = |line: &str| {
        bed.write("Dockerfile", dockerfile);
        bed.write("compose.yaml", &compose(line));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stack"));
        command.args(["--progress", "plain", "build"]).current_dir(&bed.context);
        let ran = command.env("STACK_HOME", &bed.env.home.data).output().expect("started");
        (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (done, said) = stack("cache_to: ['type=local,dest=../cache']");
    assert!(done && !said.contains("warning"), "{said}");
    bed.env.store.remove("web:1", true).expect("removed");
    build::prune(&bed.env.home, &bed.env.store, true, Duration::ZERO).expect("pruned");
    prune(&bed.env.store, || Ok(InUse::default()), Which::Orphans).expect("pruned");
    let (done, said) = stack("cache_from: ['type=local,src=../cache']");
    assert!(done && said.contains("CACHED"), "{said}");
    let (done, said) = stack("cache_to: ['type=gha,scope=x']");
    assert!(!done && said.contains("services.web.build.cache_to[0]") && said.contains("`gha`"), "{said}");
}
