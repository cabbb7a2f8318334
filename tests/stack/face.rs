//! The verbs with the real thing: attached `up` and its ends, what `run` and `exec` pass through, and why a service failed.

use crate::common::{Project, World, eventually, free_port, get};
use rustix::process::Signal;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

const TWO: &str = r#"
services:
  one:
    image: busybox:1
    command: ["sh", "-c", "trap 'echo one says bye; exit 0' TERM; echo one is up; sleep 1000 & wait"]
  two:
    image: busybox:1
    command: ["sh", "-c", "trap 'echo two says bye; exit 0' TERM; echo two is up >&2; sleep 1000 & wait"]
    depends_on: [one]
"#;

fn with(key: &'static str, compose: &'static str, test: impl FnOnce(&World, &Project<'_>) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let project = world.project(key, &[("compose.yaml", compose)]);
        test(world, &project);
        project.stack(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn ctrl_c_stops_an_attached_up_and_keeps_the_containers() {
    with("ctrl-c", TWO, |_, project| {
        let up = project.spawn(&["up"]);
        eventually("both lines", || {
            (up.stdout().contains("one-1  | one is up") && up.stderr().contains("two-1  | two is up"))
                .then_some(())
        });
        up.signal(Signal::INT);
        let ran = up.wait(PATIENCE).code(130).says("Gracefully Stopping");
        assert!(ran.stdout.contains("one-1  | one says bye\n"), "{ran}");
        assert!(ran.stdout.contains("one-1 exited with code 0\n"), "{ran}");
        assert_eq!(project.ps_field("one", "State"), "exited");
        assert_eq!(project.ps_field("two", "State"), "exited");
    });
}

#[test]
fn a_second_ctrl_c_kills() {
    let stubborn = r#"
services:
  one:
    image: busybox:1
    command: ["sh", "-c", "trap '' TERM; echo one is up; while :; do sleep 1; done"]
    stop_grace_period: 10m
"#;
    with("ctrl-c-twice", stubborn, |_, project| {
        let up = project.spawn(&["up"]);
        eventually("its line", || up.stdout().contains("one is up").then_some(()));
        up.signal(Signal::INT);
        eventually("the stop", || up.stderr().contains("Stopping\n").then_some(()));
        up.signal(Signal::INT);
        up.wait(PATIENCE).code(130);
        assert_eq!(project.ps_field("one", "State"), "exited");
    });
}

#[test]
fn an_exit_ends_an_attached_up_as_asked() {
    let compose = r#"
services:
  job:
    image: busybox:1
    command: ["sh", "-c", "echo working; exit 3"]
  server:
    image: busybox:1
    command: ["sh", "-c", "trap 'exit 5' TERM; sleep 1000 & wait"]
"#;
    with("abort", compose, |_, project| {
        let ran = project.stack(&["up", "--abort-on-container-exit"]).code(3);
        assert!(ran.stdout.contains("job-1     | working\n"), "{ran}");
        assert!(ran.stdout.contains("job-1 exited with code 3\n"), "{ran}");
        project.stack(&["up", "--exit-code-from", "server"]).code(5);
        project.stack(&["up", "job"]).ok();
        assert_eq!(project.ps_field("server", "ExitCode"), "");
    });
}

#[test]
fn up_twice_is_silent_and_a_change_replaces_only_its_service() {
    with("converge", TWO, |_, project| {
        project.stack(&["up", "-d"]).ok();
        let ids =
            || project.ps().iter().map(|row| row["ID"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let first = ids();
        assert_eq!(project.stack(&["up", "-d", "--dry-run"]).ok().stdout, "");
        let again = project.stack(&["up", "-d"]).ok();
        assert!(again.stderr.contains(&format!("Container {}-one-1 Running", project.name)), "{again}");
        assert_eq!(ids(), first);
        project.edit("compose.yaml", "two is up", "two is new");
        project.stack(&["up", "-d", "--dry-run"]).ok().says("replace two-1 (command changed)");
        project.stack(&["up", "-d"]).ok();
        let second = ids();
        assert_eq!(second[0], first[0]);
        assert_ne!(second[1], first[1]);
    });
}

#[test]
fn a_failing_service_ends_with_its_reason() {
    let compose = r#"
services:
  ends:
    image: busybox:1
    command: ["sh", "-c", "echo cannot find my configuration; exit 4"]
    healthcheck: { test: [CMD, "false"] }
  sick:
    image: busybox:1
    command: ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
    healthcheck: { test: [CMD-SHELL, "echo not today; exit 9"], interval: 100ms, retries: 2 }
  needs-ends:
    image: busybox:1
    depends_on: { ends: { condition: service_healthy } }
  needs-sick:
    image: busybox:1
    depends_on: { sick: { condition: service_healthy } }
  wrong:
    image: busybox:1
    command: no-such-program
"#;
    with("reason", compose, |_, project| {
        let ran = project.stack(&["up", "-d", "needs-ends"]).code(1).says("exited (4)");
        assert!(ran.stderr.contains("it ended with exit code 4"), "{ran}");
        assert!(ran.stderr.contains("| cannot find my configuration"), "{ran}");
        let ran = project.stack(&["up", "-d", "needs-sick"]).code(1).says("is unhealthy");
        assert!(ran.stderr.contains("its last health probe ended with exit code 9:\n  not today"), "{ran}");
        project.stack(&["up", "-d", "wrong"]).code(1).says("no-such-program");
    });
}

#[test]
fn run_and_exec_pass_output_input_and_codes_through() {
    with("codes", TWO, |_, project| {
        project.stack(&["up", "-d", "one"]).ok();
        let ran = project.stack(&["exec", "-T", "one", "sh", "-c", "echo out; echo err >&2; exit 7"]).code(7);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
        project.stack(&["exec", "-T", "one", "sh", "-c", "kill -9 $$"]).code(137);
        project.stack(&["exec", "-T", "one", "no-such-program"]).code(127);
        project.stack(&["exec", "-T", "one", "/etc/passwd"]).code(126);
        let set = [
            "exec",
            "-T",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            "-u",
            "nobody",
            "one",
            "sh",
            "-c",
            "echo $A $PWD $(id -u)",
        ];
        assert_eq!(project.stack(&set).ok().text(), "b /tmp 65534");
        project.stack(&["exec", "-T", "two", "true"]).code(1).says("service \"two\" is not running");

        let ran = project
            .stack(&["run", "--rm", "-T", "two", "sh", "-c", "echo out; echo err >&2; exit 7"])
            .code(7);
        assert_eq!(ran.stdout, "out\n");
        assert!(ran.stderr.ends_with("err\n"), "{ran}");
        let rows = project.ps();
        assert_eq!(rows.len(), 1, "--rm leaves nothing: {rows:?}");
        for round in 0..20 {
            let ran = project.stack(&["run", "-q", "--rm", "-T", "--no-deps", "two", "echo", "all of it"]);
            assert_eq!(ran.ok().stdout, "all of it\n", "round {round}");
        }
    });
}

#[test]
fn a_taken_port_is_named_before_anything_is_created() {
    World::with_busybox().run(|world| {
        let port = free_port();
        let compose = format!(
            "services:\n  web:\n    image: busybox:1\n    command: [sleep, '1000']\n    ports:\n      - \"{port}:80\"\n"
        );
        let project = world.project("port", &[("compose.yaml", &compose)]);
        let holder = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        let ran = project.stack(&["up", "-d"]).code(1).says(&format!("host port {port} is taken"));
        assert!(ran.stderr.contains("compose.yaml:6:9  services.web.ports[0]"), "{ran}");
        assert!(ran.stderr.contains(&format!("process {}", std::process::id())), "{ran}");
        assert!(project.ps().is_empty());
        drop(holder);
        project.stack(&["up", "-d"]).ok();
        project.stack(&["down"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn a_port_that_served_is_free_at_once() {
    World::with_busybox().run(|world| {
        let port = free_port();
        let serve = "mkdir -p /www && echo served > /www/index.html && exec httpd -f -p 80 -h /www";
        let compose = format!(
            "services:\n  web:\n    image: busybox:1\n    init: true\n    command: [sh, -c, '{serve}']\n    ports: [\"{port}:80\"]\n"
        );
        let project = world.project("again", &[("compose.yaml", &compose)]);
        for _ in 0..3 {
            project.stack(&["up", "-d"]).ok();
            assert_eq!(get(port, "/").trim(), "served");
            project.stack(&["down"]).ok();
        }
        world.assert_no_leak();
    });
}

#[test]
fn logs_follow_tail_and_merge() {
    let compose = r#"
services:
  one:
    image: busybox:1
    command: ["sh", "-c", "for i in 1 2 3 4 5; do echo line $$i; done; sleep 1000"]
    stop_signal: SIGKILL
"#;
    with("logs", compose, |_, project| {
        project.stack(&["up", "-d"]).ok();
        eventually("all lines", || project.stack(&["logs"]).ok().stdout.contains("line 5").then_some(()));
        assert_eq!(
            project.stack(&["logs", "--tail", "2", "--no-log-prefix"]).ok().stdout,
            "line 4\nline 5\n"
        );
        assert!(project.stack(&["logs", "-t"]).ok().stdout.starts_with("one-1  | 20"));
        assert_eq!(project.stack(&["logs", "--since", "2099-01-01"]).ok().stdout, "");
        let follow = project.spawn(&["logs", "-f", "--tail", "0"]);
        project.stack(&["restart", "one"]).ok();
        eventually("the lines of the second run", || {
            follow.stdout().contains("one-1  | line 5").then_some(())
        });
        project.stack(&["stop", "-t", "0"]).ok();
        follow.wait(PATIENCE).ok();
    });
}
