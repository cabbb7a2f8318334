//! Attached `up`: what is shown, from when on, and what ends it with which code.

use crate::common::{Project, World, eventually};
use rustix::process::Signal;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// `web` starts when `slow` is healthy, which is when the test says so.
const HELD: &str = r#"
services:
  slow:
    image: busybox:1
    command: ["sh", "-c", "trap 'echo slow says bye; exit 0' TERM; echo slow begins; sleep 1000 & wait"]
    volumes: ["./go:/go"]
    healthcheck: { test: [CMD, test, -e, /go/now], interval: 1s, retries: 1000 }
  web:
    image: busybox:1
    command: ["sh", "-c", "trap 'exit 0' TERM; echo web begins; echo web complains >&2; sleep 1000 & wait"]
    depends_on: { slow: { condition: service_healthy } }
"#;

/// Ends with what its name says, as soon as the test says so.
const ENDS: &str = r#"
x-end: &end
  image: busybox:1
  stop_signal: SIGKILL
  volumes: ["./go:/go"]
services:
  three: { <<: *end, command: ["sh", "-c", "until test -e /go/three; do sleep 0.02; done; exit 3"] }
  zero: { <<: *end, command: ["sh", "-c", "until test -e /go/zero; do sleep 0.02; done; exit 0"] }
"#;

fn with(key: &'static str, compose: &'static str, test: impl FnOnce(&Project<'_>) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let project = world.project(key, &[("compose.yaml", compose), ("go/.keep", "")]);
        test(&project);
        project.stack(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        world.assert_no_leak();
    });
}

fn clear(project: &Project<'_>) {
    for name in ["now", "three", "zero"] {
        let _ = std::fs::remove_file(project.directory.join("go").join(name)); // may be none
    }
}

#[test]
fn lines_are_shown_while_dependencies_are_waited_for() {
    with("early", HELD, |project| {
        let up = project.spawn(&["up"]);
        eventually("the line of a container that is waited for", || {
            up.stdout().contains("slow-1  | slow begins\n").then_some(())
        });
        assert!(!up.stdout().contains("web begins") && project.ps_field("web", "State") == "created");
        project.write("go/now", "");
        eventually("the dependent's lines", || {
            let both = up.stdout().contains("web-1   | web begins\n")
                && up.stderr().contains("web-1   | web complains\n");
            both.then_some(())
        });
        up.signal(Signal::INT);
        let ran = up.wait(PATIENCE).code(130);
        assert_eq!(ran.stdout.matches("slow begins").count(), 1, "{ran}");
        assert!(ran.stdout.contains("slow says bye"), "{ran}");
    });
}

#[test]
fn ctrl_c_while_dependencies_are_waited_for_stops_what_runs() {
    with("early-stop", HELD, |project| {
        for signal in [Signal::INT, Signal::TERM] {
            let up = project.spawn(&["up"]);
            eventually("its first line", || up.stdout().contains("slow begins").then_some(()));
            up.signal(signal);
            up.wait(PATIENCE).code(130).says("Gracefully Stopping").says("slow says bye");
            assert_eq!(project.ps_field("slow", "State"), "exited");
            assert_eq!(project.ps_field("web", "State"), "created");
        }
    });
}

#[test]
fn a_dependency_that_fails_ends_it_with_its_reason_after_its_lines() {
    let compose = r#"
services:
  sick:
    image: busybox:1
    command: ["sh", "-c", "echo cannot open the gate; exit 4"]
  web: { image: "busybox:1", depends_on: { sick: { condition: service_completed_successfully } } }
"#;
    with("early-end", compose, |project| {
        let ran = project.stack(&["up"]).code(1);
        assert!(ran.stdout.contains("sick-1  | cannot open the gate\nsick-1 exited with code 4\n"), "{ran}");
        let name = format!("{}-sick-1", project.name);
        let error = format!(
            "error: dependency failed to start: container {name} didn't complete successfully: exit 4"
        );
        assert!(ran.stderr.contains(&error), "{ran}");
    });
}

#[test]
fn only_what_is_asked_for_is_shown() {
    let compose = r#"
services:
  a: { image: "busybox:1", command: [echo, from a] }
  b: { image: "busybox:1", command: [echo, from b], depends_on: [a] }
  mute: { image: "busybox:1", command: [echo, from mute], attach: false }
"#;
    with("shown", compose, |project| {
        let shown = |args: &[&str]| {
            let out = project.stack(&[&["up", "--force-recreate"], args].concat()).ok().stdout;
            let mut lines: Vec<_> = out.lines().filter(|l| l.contains("from")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(shown(&[]), ["a-1  | from a", "b-1  | from b"]);
        assert_eq!(shown(&["b"]), ["b-1  | from b"], "dependencies are not attached");
        assert_eq!(shown(&["--attach-dependencies", "b"]), ["a-1  | from a", "b-1  | from b"]);
        assert_eq!(shown(&["--attach", "mute"]), ["mute-1  | from mute"]);
        assert_eq!(shown(&["--no-attach", "a"]), ["b-1  | from b"]);
        assert_eq!(shown(&["--no-log-prefix", "b"]), ["from b"]);
        let stamped = shown(&["--timestamps", "b"]);
        let time = stamped[0].strip_prefix("b-1  | ").and_then(|rest| rest.split(' ').next()).unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{stamped:?}");
        project
            .stack(&["up", "--attach", "nobody"])
            .code(1)
            .says("cannot attach to services not included in up: nobody");
    });
}

#[test]
fn it_ends_with_the_last_container_and_without_its_code() {
    with("all-ended", ENDS, |project| {
        let up = project.spawn(&["up"]);
        eventually("both run", || {
            (project.stack(&["ps", "-q"]).ok().stdout.lines().count() == 2).then_some(())
        });
        project.write("go/three", "");
        eventually("the first end", || up.stdout().contains("three-1 exited with code 3\n").then_some(()));
        project.write("go/zero", "");
        up.wait(PATIENCE).code(0);
    });
}

#[test]
fn an_exit_or_a_failure_or_a_service_decides_the_code() {
    with("decides", ENDS, |project| {
        let ends = |args: &[&str], first: &str, code: i32| {
            clear(project);
            let up = project.spawn(&[&["up"], args].concat());
            eventually("both run", || {
                (project.stack(&["ps", "-q"]).ok().stdout.lines().count() == 2).then_some(())
            });
            project.write(&format!("go/{first}"), "");
            up.wait(PATIENCE).code(code).says("Aborting on container exit...");
            assert!(project.ps().iter().all(|row| row["State"] == "exited"), "{args:?}: {:?}", project.ps());
        };
        ends(&["--abort-on-container-exit"], "three", 3);
        ends(&["--abort-on-container-exit"], "zero", 0);
        ends(&["--abort-on-container-failure"], "three", 3);
        ends(&["--exit-code-from", "three"], "three", 3);
        ends(&["--exit-code-from", "three"], "zero", 137);
        ends(&["--exit-code-from", "zero"], "zero", 0);
        // A success is no failure.
        clear(project);
        let up = project.spawn(&["up", "--abort-on-container-failure"]);
        eventually("both run", || {
            (project.stack(&["ps", "-q"]).ok().stdout.lines().count() == 2).then_some(())
        });
        project.write("go/zero", "");
        eventually("the harmless end", || up.stdout().contains("zero-1 exited with code 0\n").then_some(()));
        assert_eq!(project.ps_field("three", "State"), "running");
        project.write("go/three", "");
        up.wait(PATIENCE).code(3);
        // Nor does it matter what becomes of those it is not attached to.
        clear(project);
        let up = project.spawn(&["up", "--abort-on-container-exit", "--no-attach", "zero"]);
        eventually("both run", || {
            (project.stack(&["ps", "-q"]).ok().stdout.lines().count() == 2).then_some(())
        });
        project.write("go/zero", "");
        eventually("its end", || (project.ps_field("zero", "State") == "exited").then_some(()));
        project.write("go/three", "");
        up.wait(PATIENCE).code(3);
        project.stack(&["up", "--exit-code-from", "nobody"]).code(1).says("no such service: nobody");
    });
}

#[test]
fn an_exit_before_everything_is_started_aborts_as_well() {
    let compose = r#"
services:
  dies: { image: "busybox:1", command: ["sh", "-c", "exit 6"] }
  never:
    image: busybox:1
    command: [sleep, "1000"]
    stop_signal: SIGKILL
    healthcheck: { test: [CMD, "false"], interval: 1s, retries: 100000 }
  last: { image: "busybox:1", command: [sleep, "1000"], depends_on: { never: { condition: service_healthy } } }
"#;
    with("early-abort", compose, |project| {
        project.stack(&["up", "--abort-on-container-exit"]).code(6);
        assert_eq!(project.ps_field("never", "State"), "exited");
        assert_eq!(project.ps_field("last", "State"), "created");
    });
}

#[test]
fn it_follows_restarts_and_says_so() {
    let compose = r#"
services:
  one:
    image: busybox:1
    restart: on-failure:2
    command: ["sh", "-c", "echo attempt; exit 9"]
"#;
    with("restarts", compose, |project| {
        let ran = project.stack(&["up"]).ok();
        assert_eq!(ran.stdout.matches("one-1  | attempt\n").count(), 3, "{ran}");
        assert_eq!(ran.stdout.matches("one-1 exited with code 9 (restarting)\n").count(), 2, "{ran}");
        assert!(ran.stdout.ends_with("one-1 exited with code 9\n"), "{ran}");
    });
}
