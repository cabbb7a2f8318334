//! `--explain`: of each step that is executed, the input that changed first.

use crate::bed::{Bed, Built, Case};
use stack::build::{self, BuildEvent, BuildRequest, DockerfileSource};
use stack_runtime::image::prune::{InUse, Which, prune};
use stack_runtime::image::{ImageConfig, Reference, archive};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub(crate) const ALL: &[(&str, Case)] = &[
    ("steps_say_which_input_changed_first", steps_say_which_input_changed_first),
    ("a_changed_base_and_a_lost_layer_are_named", a_changed_base_and_a_lost_layer_are_named),
];

const TEXT: &str =
    "FROM busybox:1\nARG LEVEL=1\nWORKDIR /app\nCOPY src ./src\nRUN echo $LEVEL > /level\nRUN true\n";

fn explained(bed: &Bed, request: BuildRequest) -> Built {
    bed.write(
        "Dockerfile",
        match &request.dockerfile {
            DockerfileSource::Inline(text) => text,
            DockerfileSource::Path(_) => TEXT,
        },
    );
    let dockerfile = DockerfileSource::default();
    bed.build_request(BuildRequest { explain: true, dockerfile, ..request })
}

/// Instruction and reason, a line each.
fn why(built: &Built) -> Vec<String> {
    built.success();
    let line = |event: &BuildEvent| match event {
        BuildEvent::Explained { name, why, .. } => {
            Some(format!("{}: {why}", name.split("] ").nth(1).unwrap_or(name)))
        }
        _ => None,
    };
    built.events.iter().filter_map(line).collect()
}

fn steps_say_which_input_changed_first(bed: &Bed) {
    let build = |text: &str| why(&explained(bed, bed.request(text)));
    for (path, text) in [("src/a", "1"), ("src/b", "1"), ("src/deep/c", "1")] {
        bed.write(path, text);
    }
    let unknown = "no earlier build of it is known";
    assert_eq!(
        build(TEXT),
        ["WORKDIR /app", "COPY src ./src", "RUN echo $LEVEL > /level", "RUN true"]
            .map(|step| format!("{step}: {unknown}"))
    );
    assert_eq!(build(TEXT), [""; 0]);

    let below = "it stands on [3/5] COPY src ./src";
    let copy = |reason: &str| {
        [
            format!("COPY src ./src: {reason}"),
            format!("RUN echo $LEVEL > /level: {below}"),
            format!("RUN true: {below}"),
        ]
    };
    bed.write("src/deep/c", "2");
    assert_eq!(build(TEXT), copy("src/deep/c: content changed"));
    let mode = |mode| {
        std::fs::set_permissions(bed.context.join("src/b"), PermissionsExt::from_mode(mode)).expect("set")
    };
    mode(0o600);
    assert_eq!(build(TEXT), copy("src/b: mode was 0644, is 0600"));
    bed.write("src/aa", "new");
    assert_eq!(build(TEXT), copy("src/aa: new"));
    std::fs::remove_file(bed.context.join("src/a")).expect("removed");
    assert_eq!(build(TEXT), copy("src/a: gone"));
    std::os::unix::fs::symlink("b", bed.context.join("src/a")).expect("linked");
    assert_eq!(build(TEXT), copy("src/a: new"));
    // What is back as it was is found again.
    mode(0o644);
    assert_eq!(build(TEXT).len(), 3);
    mode(0o600);
    assert_eq!(build(TEXT), [""; 0]);

    let mut request = bed.request(TEXT);
    request.args.insert("LEVEL".into(), Some("2".into()));
    assert_eq!(
        why(&explained(bed, request))[..2],
        [
            "RUN echo $LEVEL > /level: environment LEVEL: was `1`, is `2`".to_owned(),
            "RUN true: environment LEVEL: was `1`, is `2`".to_owned()
        ]
    );
    build(TEXT);
    let changed = build(&TEXT.replace("RUN true", "RUN false || true"));
    assert_eq!(changed, ["RUN false || true: command: was `/bin/sh -c true`, is `/bin/sh -c false || true`"]);
    let owned = build(&TEXT.replace("COPY src", "COPY --chown=5 src"));
    assert_eq!(owned[0], "COPY --chown=5 src ./src: user of --chown: new, `5`");
    build(TEXT);
    let user = build(&TEXT.replace("RUN true", "USER 7\nRUN true"));
    assert_eq!(user, ["RUN true: user: was ``, is `7`"]);
    let mount = "--mount=type=bind,source=src,target=/m true";
    build(&TEXT.replace("RUN true", &format!("RUN {mount}")));
    bed.write("src/b", "seen");
    let read = build(&TEXT.replace("RUN true", &format!("RUN {mount}")));
    assert!(read.contains(&format!("RUN {mount}: src/b: content changed")), "{read:#?}");

    let mut uncached = bed.request(TEXT);
    uncached.no_cache = true;
    let reasons = why(&explained(bed, uncached));
    assert!(reasons.len() == 4 && reasons.iter().all(|line| line.ends_with("the cache is not to be used")));
}

fn a_changed_base_and_a_lost_layer_are_named(bed: &Bed) {
    let text = "FROM base:1\nRUN true\nRUN echo 2\n";
    let base = |content: &str| {
        let tree = bed.directory.path().join("base");
        std::fs::create_dir_all(tree.join("bin")).expect("made");
        std::fs::copy(bed.directory.path().join("rootfs/bin/busybox"), tree.join("bin/busybox"))
            .expect("copied");
        let _ = std::os::unix::fs::symlink("busybox", tree.join("bin/sh"));
        let _ = std::os::unix::fs::symlink("busybox", tree.join("bin/true"));
        std::fs::write(tree.join("content"), content).expect("written");
        let tar =
            std::process::Command::new("tar").arg("-C").arg(&tree).args(["-c", "."]).output().expect("tar");
        let config = ImageConfig { env: vec!["PATH=/bin".into()], ..ImageConfig::default() };
        let name = Reference::parse("base:1").expect("a name");
        archive::import(&bed.env.store, &tar.stdout[..], config, &[name]).expect("imported");
    };
    base("1");
    let first = explained(bed, bed.request(text));
    first.success();
    base("2");
    let reasons = why(&explained(bed, bed.request(text)));
    assert_eq!(reasons.len(), 2);
    for reason in &reasons {
        assert!(
            reason.contains("base image: was `base:1@sha256:") && reason.contains("is `base:1@sha256:"),
            "{reason}"
        );
    }
    // Its layer is gone, and nothing else is different.
    let built = explained(bed, bed.request(text));
    let store = &bed.env.store;
    store.remove(built.success().image_id.as_str(), true).expect("removed");
    prune(store, || Ok(InUse::default()), Which::Orphans).expect("pruned");
    let lost = why(&explained(bed, bed.request(text)));
    assert_eq!(lost[0], "RUN true: its inputs are as before, but its layer is no longer in the store");
    build::prune(&bed.env.home, store, true, Duration::ZERO).expect("pruned");
    assert!(why(&explained(bed, bed.request(text)))[0].ends_with("no earlier build of it is known"));
}
