//! Hooks in all six places: when, where, with what, and what a failure does.

use super::bed::{Bundle, bed};
use serde_json::{Value, json};
use std::fs;

fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
}

fn log(bundle: &Bundle<'_>) -> String {
    fs::read_to_string(bundle.dir.join("log")).unwrap_or_default()
}

#[test]
fn hooks_run_in_order_with_the_state_that_is_due() {
    bed(|bed| {
        let mut bundle = bed.bundle("echo program >> /log/log");
        bundle.mount("/log", "bind", bundle.dir.clone(), &["bind"]);
        bundle.config["annotations"] = json!({ "org.example": "noted" });
        let outside =
            |kind: &str| hook(&format!("read s; echo {kind} $s >> {}", bundle.dir.join("log").display()));
        let inside = hook("read s; echo startContainer $s >> /log/log");
        bundle.config["hooks"] = json!({
            "prestart": outside("prestart"), "createRuntime": outside("createRuntime"),
            "createContainer": outside("createContainer"), "startContainer": inside,
            "poststart": outside("poststart"), "poststop": outside("poststop"),
        });
        let id = bundle.create();
        let after_create: Vec<String> =
            log(&bundle).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(after_create, ["prestart", "createRuntime", "createContainer"]);
        bed.ok(&["start", id]);
        bed.wait(id, "stopped");
        bed.ok(&["delete", id]);
        let log = log(&bundle);
        let states: Vec<(&str, Value)> = log
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(kind, state)| (kind, serde_json::from_str(state).unwrap()))
            .collect();
        let kinds: Vec<&str> = states.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        );
        let statuses: Vec<&str> = states.iter().map(|(_, state)| state["status"].as_str().unwrap()).collect();
        assert_eq!(statuses, ["created", "creating", "creating", "created", "running", "stopped"]);
        for (kind, state) in &states {
            assert_eq!(
                (state["id"].as_str(), state["bundle"].as_str()),
                (Some(id), bundle.dir.to_str()),
                "{kind}"
            );
            assert_eq!(state["annotations"]["org.example"], "noted");
        }
        assert!(log.lines().any(|line| line == "program"));
    });
}

#[test]
fn hooks_see_the_namespaces_they_are_told_of() {
    bed(|bed| {
        let mut bundle = bed.bundle("cat /mnt/from-hook /tmp/other/file");
        let root = bundle.own_root();
        fs::create_dir(root.join("tmp/other")).unwrap();
        fs::write(bundle.dir.join("file"), "mounted\n").unwrap();
        // In the runtime's namespaces a pid is the container's; in the container's own before its root is `/`.
        let runtime = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); test -d /proc/$pid && test $(readlink /proc/$pid/ns/mnt) != $(readlink /proc/self/ns/mnt)";
        let inside =
            format!("echo hooked > mnt/from-hook && mount --bind {} tmp/other", bundle.dir.display());
        bundle.config["hooks"] = json!({ "createRuntime": hook(runtime), "createContainer": hook(&inside) });
        assert_eq!(bundle.says(), "hooked\nmounted\n");
    });
}

#[test]
fn a_failure_before_the_start_undoes_the_container_and_one_after_it_is_a_warning() {
    bed(|bed| {
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let mut bundle = bed.bundle("true");
            let stopped = bundle.dir.join("stopped");
            bundle.config["hooks"] = json!({ kind: hook("echo words >&2; exit 3"), "poststop": hook(&format!("touch {}", stopped.display())) });
            let said = bundle.refused();
            assert!(
                said.contains(kind)
                    && said.contains("error running hook #0")
                    && said.contains("exit status 3: words"),
                "{said}"
            );
            assert!(stopped.exists(), "{kind}: poststop hooks run");
            assert!(bed.refused(&["state", &bundle.id]).contains("does not exist"));
        }
        let mut bundle = bed.bundle("echo ran");
        bundle.config["hooks"] = json!({ "startContainer": hook("exit 3") });
        let said = bundle.run();
        assert!(said.code != 0 && said.out.is_empty() && said.err.contains("startContainer"), "{}", said.err);
        let mut bundle = bed.bundle("echo ran");
        let file = bundle.dir.join("second");
        let mut two = hook("exit 3");
        two.as_array_mut()
            .unwrap()
            .extend(hook(&format!("touch {}", file.display())).as_array().unwrap().clone());
        bundle.config["hooks"] = json!({ "poststart": two });
        let said = bundle.run();
        assert!(
            said.code == 0 && said.out == "ran\n" && said.err.contains("warning: error running hook #0"),
            "{}",
            said.err
        );
        assert!(file.exists(), "the second runs all the same");
    });
}

#[test]
fn a_hook_that_takes_too_long_is_a_failure() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        bundle.config["hooks"] =
            json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }] });
        assert!(bundle.refused().contains("did not end in time"));
    });
}
