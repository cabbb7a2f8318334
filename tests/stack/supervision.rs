//! SIGKILL for the supervisor, the command line and the monitor: what goes on, what is lost, what is said.

use crate::common::{PATIENCE, Project, World, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;

fn one(attributes: &str) -> String {
    format!("services:\n  web: {{ image: 'busybox:1', stop_grace_period: 0s, {attributes} }}\n")
}

fn dir(project: &Project<'_>) -> PathBuf {
    let id = project.stack(&["ps", "-aq", "web"]).ok().text().to_owned();
    project.world.home.join("stacks").join(&project.name).join("containers").join(id)
}

fn read(path: PathBuf) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default()
}

fn number(value: &serde_json::Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

fn supervisor(project: &Project<'_>) -> Option<i32> {
    number(&read(project.world.home.join("run").join(&project.name).join("supervisor.json"))["pid"])
}

fn monitor(project: &Project<'_>) -> Option<i32> {
    number(&read(dir(project).join("run.json"))["monitor_pid"])
}

fn kill(pid: Option<i32>) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid.expect("it runs")).unwrap(), Signal::KILL);
}

/// Waits for the next one.
fn kill_supervisor(project: &Project<'_>) {
    let before = supervisor(project);
    kill(before);
    eventually("the next supervisor", || supervisor(project).filter(|now| Some(*now) != before));
}

const COUNTS: &str = "command: [sh, -c, 'i=0; while [ $$i -lt 3000 ]; do echo line $$i; i=$$((i+1)); [ $$((i%100)) = 0 ] && sleep 0.02; done; exit 7']";

#[test]
fn lines_are_kept_once_and_in_order_over_killed_supervisors_and_readers() {
    World::with_busybox().run(|world| {
        let project = world.project("lines", &[("compose.yaml", &one(COUNTS))]);
        let attached = project.spawn(&["up", "--no-log-prefix"]);
        eventually("it prints", || attached.stdout().contains("line 100\n").then_some(()));
        let followed = project.spawn(&["logs", "-f", "--no-log-prefix"]);
        for _ in 0..3 {
            kill_supervisor(&project);
        }
        kill(i32::try_from(attached.pid()).ok());
        eventually("it ends", || (project.ps_field("web", "State") == "exited").then_some(()));
        let expected: String = (0..3000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(project.stack(&["logs", "--no-log-prefix"]).ok().stdout, expected);
        assert_eq!(project.ps()[0]["ExitCode"], 7);
        eventually("the follower has all", || followed.stdout().contains("line 2999\n").then_some(()));
        assert_eq!(followed.stdout(), expected);
    });
}

#[test]
fn an_end_that_nobody_saw_is_unknown_and_what_was_printed_stays() {
    World::with_busybox().run(|world| {
        let attributes = "command: [sh, -c, 'echo before; exec sleep 1000']";
        let project = world.project("unseen", &[("compose.yaml", &one(attributes))]);
        let attached = project.spawn(&["up"]);
        eventually("it prints", || attached.stdout().contains("before").then_some(()));
        kill(monitor(&project));
        attached.wait(PATIENCE).says("exited with code unknown");
        let row = &project.ps()[0];
        assert_eq!((row["State"].as_str(), row["ExitCode"].as_i64()), (Some("exited"), Some(-1)));
        assert!(row["Status"].as_str().unwrap().starts_with("Exited (unknown)"), "{row}");
        assert_eq!(project.stack(&["logs", "--no-log-prefix"]).ok().stdout, "before\n");
        let waited = project.spawn(&["up", "--exit-code-from", "web"]);
        eventually("it prints", || waited.stdout().contains("before").then_some(()));
        eventually("it runs", || monitor(&project).filter(|_| project.ps_field("web", "State") == "running"));
        kill(monitor(&project));
        assert!(!waited.wait(PATIENCE).status.success(), "unknown is no success");
    });
}

#[test]
fn everybody_killed_at_once_the_next_command_tells_the_truth() {
    World::with_busybox().run(|world| {
        let project = world.project("all", &[("compose.yaml", &one("command: [sleep, '1000']"))]);
        let attached = project.spawn(&["up"]);
        eventually("it runs", || {
            (project.ps().len() == 1 && project.ps_field("web", "State") == "running").then_some(())
        });
        let (monitor, supervisor) = (monitor(&project), supervisor(&project));
        kill(supervisor);
        kill(monitor);
        kill(i32::try_from(attached.pid()).ok());
        eventually("it is not left running", || {
            (project.ps_field("web", "Status").starts_with("Exited (unknown)")).then_some(())
        });
        project.stack(&["up", "-d"]).ok();
        assert_eq!(project.ps_field("web", "State"), "running");
    });
}

#[test]
fn policies_and_probes_go_on_after_everybody_was_killed() {
    World::with_busybox().run(|world| {
        let attributes = "restart: always, command: [sh, -c, 'touch /ready; exec sleep 1000'], \
            healthcheck: { test: [CMD, test, -e, /ready], interval: 200ms, retries: 1 }";
        let project = world.project("goeson", &[("compose.yaml", &one(attributes))]);
        project.stack(&["up", "-d", "--wait"]).ok();
        let (before, first) = (monitor(&project), supervisor(&project));
        kill(first);
        kill(before);
        eventually("it runs again", || {
            monitor(&project)
                .filter(|now| Some(*now) != before && project.ps_field("web", "State") == "running")
        });
        eventually("it is probed again", || (project.ps_field("web", "Health") == "healthy").then_some(()));
        assert!(supervisor(&project) != first);
        project.stack(&["exec", "-T", "web", "rm", "/ready"]).ok();
        kill_supervisor(&project);
        eventually("the next one probes", || {
            (project.ps_field("web", "Health") == "unhealthy").then_some(())
        });
    });
}

#[test]
fn memory_that_ran_out_is_known_without_a_supervisor() {
    World::with_busybox().run(|world| {
        let attributes = "mem_limit: 16m, memswap_limit: 16m, \
            command: [sh, -c, 'while ! test -e /go; do sleep 0.02; done; exec tail /dev/zero']";
        let project = world.project("memory", &[("compose.yaml", &one(attributes))]);
        project.stack(&["up", "-d"]).ok();
        let (dir, pid) = (dir(&project), supervisor(&project));
        let stopped = Pid::from_raw(pid.unwrap()).unwrap();
        // Frozen, then killed: a killed one is replaced before the container ends.
        kill_process(stopped, Signal::STOP).unwrap();
        let run = read(dir.join("run.json"));
        std::fs::write(format!("/proc/{}/root/go", run["pid"]), "").unwrap();
        eventually("its end is written", || dir.join("exit.json").exists().then_some(()));
        kill(pid);
        eventually("it has ended", || (project.ps_field("web", "State") == "exited").then_some(()));
        assert_eq!(project.ps()[0]["OOMKilled"], true);
        assert_eq!(project.ps()[0]["ExitCode"], 137);
    });
}

#[test]
fn a_removal_that_was_cut_off_is_made_by_the_next_supervisor() {
    World::with_busybox().run(|world| {
        let project = world.project("removal", &[("compose.yaml", &one("command: [sleep, '1000']"))]);
        project.stack(&["up", "-d"]).ok();
        let script = "until test -e /go; do sleep 0.02; done";
        let ran = project.stack(&["run", "-d", "--rm", "web", "sh", "-c", script]).ok();
        let dir = world.home.join("stacks").join(&project.name).join("containers").join(ran.text());
        let pid = supervisor(&project);
        kill_process(Pid::from_raw(pid.unwrap()).unwrap(), Signal::STOP).unwrap();
        let run = read(dir.join("run.json"));
        std::fs::write(format!("/proc/{}/root/go", run["pid"]), "").unwrap();
        eventually("its end is written", || dir.join("exit.json").exists().then_some(()));
        // As if it had been killed between noting the end and removing what ended.
        let mut noted = read(dir.join("supervision.json"));
        noted["is_up"] = false.into();
        std::fs::write(dir.join("supervision.json"), noted.to_string()).unwrap();
        kill(pid);
        eventually("it is gone", || (project.ps().len() == 1 && !dir.exists()).then_some(()));
        assert_eq!(project.ps_field("web", "State"), "running");
    });
}
