//! create, start, state, kill, delete, run, and what becomes of them.

use super::bed::{bed, said};
use std::fs;
use std::process::Stdio;

#[test]
fn a_container_goes_through_its_states() {
    bed(|bed| {
        let bundle = bed.bundle("echo ran > /dev/stdout; sleep 1000");
        let id = bundle.create();
        assert_eq!(bed.status(id), "created");
        assert_eq!(bundle.output(), "", "the program waits for its start");
        assert!(bed.refused(&["exec", "nobody", "true"]).contains("container does not exist"));
        bed.ok(&["start", id]);
        assert_eq!(bed.status(id), "running");
        assert!(bed.refused(&["start", id]).contains("already running"));
        assert!(bed.refused(&["delete", id]).contains("not stopped"));
        bed.ok(&["pause", id]);
        assert_eq!(bed.status(id), "paused");
        assert!(bed.refused(&["exec", id, "true"]).contains("paused"));
        bed.ok(&["resume", id]);
        bed.ok(&["kill", id, "KILL"]);
        bed.wait(id, "stopped");
        assert!(bed.refused(&["kill", id, "TERM"]).contains("container not running"));
        bed.ok(&["kill", "--all", id, "0"]);
        bed.ok(&["delete", id]);
        assert!(bed.refused(&["state", id]).contains("container does not exist"));
        assert_eq!(bundle.output(), "ran\n");
    });
}

#[test]
fn an_id_is_taken_once_and_must_be_plain() {
    bed(|bed| {
        let bundle = bed.bundle("sleep 1000");
        bundle.detach();
        assert!(bundle.refused().contains("already exists"));
        let dir = bundle.dir.to_str().unwrap();
        for id in ["", "..", "a/b", "a b"] {
            assert!(
                bed.refused(&["create", "--bundle", dir, id]).contains("invalid container ID format"),
                "{id:?}"
            );
        }
    });
}

#[test]
fn a_paused_container_and_one_that_is_created_are_deleted_by_force() {
    bed(|bed| {
        let paused = bed.bundle("sleep 1000");
        bed.ok(&["pause", paused.detach()]);
        bed.ok(&["delete", "-f", &paused.id]);
        let created = bed.bundle("sleep 1000");
        bed.ok(&["delete", created.create(), "-f"]);
        bed.ok(&["delete", "--force", "nobody"]);
        assert_eq!(bed.ok(&["list", "-q"]), "");
    });
}

#[test]
fn a_signal_ends_a_container_that_waits_for_its_start() {
    bed(|bed| {
        let bundle = bed.bundle("sleep 1000");
        bed.ok(&["kill", bundle.create(), "TERM"]);
        bed.wait(&bundle.id, "stopped");
        assert!(bed.refused(&["start", &bundle.id]).contains("has stopped"));
    });
}

#[test]
fn the_exit_code_of_run_is_the_programs() {
    bed(|bed| {
        assert_eq!(bed.bundle("exit 42").run().code, 42);
        assert_eq!(bed.bundle("kill -9 $$; sleep 5").run().code, 0, "a pid 1 is not killed by itself");
        let outer = bed.bundle("sleep 1000");
        outer.write();
        let mut run = bed
            .command(&["run", "--bundle", outer.dir.to_str().unwrap(), &outer.id])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !bed.ok(&["list", "-q"]).contains(&outer.id)
            || bed.oci(&["state", &outer.id]).out.contains("\"creating\"")
        {}
        bed.wait(&outer.id, "running");
        bed.ok(&["kill", &outer.id, "9"]);
        assert_eq!(run.wait().unwrap().code(), Some(128 + 9));
    });
}

#[test]
fn run_keeps_when_asked_and_otherwise_leaves_nothing() {
    bed(|bed| {
        let bundle = bed.bundle("true");
        bundle.says();
        assert_eq!(bed.ok(&["list", "-q"]), "");
        bundle.write();
        bed.ok(&["run", "--keep", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
        assert_eq!(bed.status(&bundle.id), "stopped");
        bed.ok(&["delete", &bundle.id]);
    });
}

#[test]
fn run_in_front_passes_signals_on() {
    bed(|bed| {
        let bundle = bed.bundle("trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.1; done");
        bundle.write();
        let args = ["run", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id];
        let log = bed.dir.join("front");
        let child = bed.command(&args).stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
        while !fs::read_to_string(&log).unwrap().contains("ready") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGUSR1)
            .unwrap();
        assert_eq!(said(child.wait_with_output().unwrap()).code, 7);
        assert_eq!(fs::read_to_string(&log).unwrap(), "ready\ngot\n");
    });
}

#[test]
fn without_pids_of_its_own_everybody_in_the_group_is_killed() {
    bed(|bed| {
        let mut bundle = bed.bundle("sleep 1234 & exec sleep 1000");
        bundle.drop_namespace("pid");
        let id = bundle.detach();
        while bed.ok(&["ps", "-f", "json", id]).matches(',').count() == 0 {}
        bed.ok(&["kill", id, "KILL"]);
        bed.wait(id, "stopped");
        let deadline = std::time::Instant::now() + crate::common::PATIENCE;
        while bed.ok(&["ps", "-f", "json", id]) != "[]\n" {
            assert!(std::time::Instant::now() < deadline, "the group is not empty");
        }
    });
}

#[test]
fn a_program_that_is_not_there_is_said_at_create_and_nothing_stays() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        bundle.config["process"]["args"] = serde_json::json!(["nosuch"]);
        assert!(bundle.refused().contains("executable file not found in $PATH"));
        bundle.config["process"]["args"] = serde_json::json!(["/etc/passwd"]);
        assert!(bundle.refused().contains("permission denied"));
        assert_eq!(bed.ok(&["list", "-q"]), "");
    });
}
