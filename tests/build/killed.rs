//! A build that is killed while a RUN runs.

use crate::bed::{Bed, Case, LONG};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const ALL: &[(&str, Case)] = &[("a_killed_build_leaves_nothing", a_killed_build_leaves_nothing)];

const COMPOSE: &str = "name: killed\nservices:\n  web:\n    build:\n      context: .\n      network: none\n      secrets: [token]\nsecrets:\n  token:\n    file: token\n";

fn a_killed_build_leaves_nothing(bed: &Bed) {
    bed.write("compose.yaml", COMPOSE);
    bed.write("token", "s3cr3t");
    // A number that no other process has in its arguments.
    let number = 100_000 + std::process::id();
    let text = |last: &str| {
        format!("FROM busybox:1\nRUN echo done > /first\nRUN --mount=type=secret,id=token {last}\n")
    };
    bed.write("Dockerfile", &text(&format!("sleep {number}")));
    let mut child = build(bed);
    let sleeping = format!("sleep {number}");
    eventually("the command runs", || is_running(&sleeping));
    assert!(
        std::fs::read_dir(bed.env.home.run.join("build")).is_ok_and(|mut entries| entries.next().is_some())
    );
    let steps = steps(bed);
    assert!(steps.iter().any(|step| has_group(step)), "{steps:?}");
    child.kill().expect("killed");
    child.wait().expect("reaped");
    eventually("the command is gone", || !is_running(&sleeping));
    bed.write("Dockerfile", &text("cp /run/secrets/token /copy"));
    let status = build(bed).wait().expect("ended");
    assert!(status.success());
    // The first step was in the cache, and the secret of the killed build is gone.
    let records = std::fs::read_dir(bed.env.home.build().join("cache")).expect("there").count();
    assert_eq!(records, 2);
    assert_eq!(std::fs::read_dir(bed.env.home.run.join("build")).expect("there").count(), 0);
    assert!(!steps.iter().any(|step| has_group(step)), "{steps:?}");
}

/// The working directories of the RUN steps under way, which name their control groups.
fn steps(bed: &Bed) -> Vec<String> {
    let tmp = std::fs::read_dir(bed.env.home.build().join("tmp")).expect("there").flatten();
    let inside =
        tmp.filter_map(|build| std::fs::read_dir(build.path()).ok()).flat_map(|entries| entries.flatten());
    inside
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("run-"))
        .collect()
}

/// In the unified hierarchy or in any of the first version.
fn has_group(step: &str) -> bool {
    let root = std::path::Path::new("/sys/fs/cgroup");
    let group = std::path::Path::new("stack/build").join(step);
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    root.join(&group).exists() || hierarchies.into_iter().any(|one| one.path().join(&group).exists())
}

fn build(bed: &Bed) -> Child {
    Command::new(env!("CARGO_BIN_EXE_stack"))
        .args(["--progress", "plain", "build"])
        .current_dir(&bed.context)
        .env("STACK_HOME", &bed.env.home.data)
        .stdout(Stdio::null())
        .spawn()
        .expect("started")
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Some living process has exactly these arguments.
fn is_running(command: &str) -> bool {
    let wanted = format!("{}\0", command.replace(' ', "\0"));
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    processes
        .into_iter()
        .any(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|text| text == wanted))
}
