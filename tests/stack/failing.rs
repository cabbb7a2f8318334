//! What does not come true is said: failed starts, memory, the way out, stops without an end.

use crate::common::{Project, World, eventually};
use rustix::process::{Pid, Signal, kill_process};

fn one(attributes: &str) -> String {
    format!("services:\n  web: {{ image: 'busybox:1', stop_grace_period: 0s, {attributes} }}\n")
}

/// `State` and `ExitCode` of the service in `ps`.
fn state(project: &Project<'_>) -> (String, i64) {
    let row = project.ps().pop().expect("one container");
    (row["State"].as_str().unwrap_or_default().into(), row["ExitCode"].as_i64().unwrap_or_default())
}

#[test]
fn what_never_ran_stays_created_and_what_ran_is_exited() {
    World::with_busybox().run(|world| {
        let project = world.project("never", &[("compose.yaml", &one("command: [/nope]"))]);
        project.stack(&["up", "-d"]).code(1).says("/nope");
        assert_eq!(state(&project), ("created".into(), 127));
        assert!(project.stack(&["ps", "-a"]).ok().stdout.contains(" Created "));
        let mounted = one("command: [/run-me/it], volumes: ['./bin:/run-me']");
        let project = world.project("once", &[("compose.yaml", &mounted), ("bin/it", "#!/bin/sh\nexit 3\n")]);
        std::process::Command::new("chmod").arg("+x").arg(project.directory.join("bin/it")).status().unwrap();
        project.stack(&["up", "-d"]).ok();
        eventually("it ends", || (state(&project) == ("exited".into(), 3)).then_some(()));
        std::fs::remove_file(project.directory.join("bin/it")).unwrap();
        project.stack(&["up", "-d"]).code(1);
        assert_eq!(state(&project), ("exited".into(), 127));
    });
}

/// Fills more memory than it may have.
const GREEDY: &str = "mem_limit: 16m, memswap_limit: 16m, command: [sh, -c, 'exec tail /dev/zero']";

#[test]
fn running_out_of_memory_is_said_everywhere() {
    World::with_busybox().run(|world| {
        let project = world.project("greedy", &[("compose.yaml", &one(GREEDY))]);
        project.stack(&["up"]).ok().says("exited with code 137 (out of memory)");
        assert_eq!(state(&project), ("exited".into(), 137));
        assert_eq!(project.ps()[0]["OOMKilled"], true);
        assert!(project.stack(&["ps", "-a"]).ok().stdout.contains("(out of memory)"));
        let checked = one(&format!("{GREEDY}, healthcheck: {{ test: ['CMD', 'false'] }}"));
        let project = world.project("waited", &[("compose.yaml", &checked)]);
        project.stack(&["up", "--wait"]).code(1).says("it used more memory than it may");
    });
}

#[test]
fn a_missing_way_out_is_said_by_up() {
    World::with_busybox().run(|world| {
        let project = world.project("inside", &[("compose.yaml", &one("command: [sleep, '1000']"))]);
        let up = project.stack_with(&[("PATH", "/nonexistent")], &["up", "-d"]).ok();
        let warnings = up
            .stderr
            .matches("warning: `pasta` is not installed, so containers reach nothing outside")
            .count();
        assert_eq!(warnings, 1, "{up}");
        assert!(up.stderr.contains("install the package `passt`"), "{up}");
        let quiet = one("command: [sleep, '1000'], network_mode: none");
        let project = world.project("alone", &[("compose.yaml", &quiet)]);
        let up = project.stack_with(&[("PATH", "/nonexistent")], &["up", "-d"]).ok();
        assert!(!up.stderr.contains("warning"), "{up}");
    });
}

#[test]
fn a_limit_that_cannot_be_had_is_said_by_up() {
    World::with_busybox().run(|world| {
        let hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
        let can_raise = nix::sys::resource::setrlimit(
            nix::sys::resource::Resource::RLIMIT_NOFILE,
            hard.min(1024),
            hard.saturating_add(1),
        )
        .is_ok();
        let attributes =
            format!("command: [sleep, '1000'], ulimits: {{ nofile: {} }}", hard.saturating_add(1));
        let project = world.project("greedy", &[("compose.yaml", &one(&attributes))]);
        let up = project.stack(&["up", "-d"]).ok();
        let named = format!("container {}-web-1: RLIMIT_NOFILE", project.name);
        assert_eq!(up.stderr.contains(&named), !can_raise, "{up}");
    });
}

/// A stop that was cut off goes on; who comes next waits for it, but not for ever.
#[test]
fn a_stop_without_an_end_is_ended_by_another_timeout() {
    World::with_busybox().run(|world| {
        let deaf = "services:\n  web: { image: 'busybox:1', stop_grace_period: 10000h, \
            command: [sh, -c, \"trap : TERM; touch /up; while :; do sleep 0.1; done\"] }\n";
        let project = world.project("deaf", &[("compose.yaml", deaf)]);
        project.stack(&["up", "-d"]).ok();
        eventually("it does not hear", || {
            project.stack(&["exec", "-T", "web", "test", "-e", "/up"]).status.success().then_some(())
        });
        let down = project.spawn(&["down"]);
        let is_stopping = || down.stderr().contains("Stopping").then_some(());
        eventually("it is told to stop", is_stopping);
        let supervision = || {
            let id = project.stack(&["ps", "-aq"]).ok().text().to_owned();
            let dir = world.home.join("stacks").join(&project.name).join("containers").join(id);
            let bytes = std::fs::read(dir.join("supervision.json")).ok()?;
            let text: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
            (!text["stopping"].is_null()).then_some(())
        };
        eventually("the stop is under way", supervision);
        kill_process(Pid::from_raw(down.pid().cast_signed()).unwrap(), Signal::KILL).unwrap();
        drop(down);
        project.stack(&["down", "-t", "0"]).ok();
        assert!(project.ps().is_empty());
    });
}
