//! The other verbs, and where errors go.

use super::bed::bed;
use serde_json::{Value, json};
use std::fs;

#[test]
fn exec_with_flags_and_with_a_document() {
    bed(|bed| {
        let bundle = bed.bundle("sleep 1000");
        let id = bundle.detach().to_owned();
        let script = "id -u; id -g; id -G; echo $A $B; pwd; grep CapEff /proc/self/status";
        let said = bundle.exec(&[
            "-u",
            "1000:7",
            "-g",
            "8",
            "-e",
            "A=1",
            "--env",
            "B=2",
            "--cwd",
            "/tmp",
            "--cap",
            "CAP_NET_RAW",
            &id,
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(said.out, "1000\n7\n7 8\n1 2\n/tmp\nCapEff:\t0000000000002000\n", "{}", said.err);
        let file = bed.dir.join("process.json");
        let document =
            json!({ "args": ["sh", "-c", "echo $A; exit 9"], "env": ["PATH=/bin", "A=b"], "cwd": "/" });
        fs::write(&file, document.to_string()).unwrap();
        let said = bundle.exec(&["--process", file.to_str().unwrap(), &id]);
        assert_eq!((said.code, said.out.as_str()), (9, "b\n"), "{}", said.err);
        let pid_file = bed.dir.join("pid");
        let args = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), &id, "sleep", "999"];
        // What is left behind keeps the streams that it gets.
        let mut command = bed.command(&args);
        let status =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap();
        assert!(status.success());
        let pid = fs::read_to_string(&pid_file).unwrap();
        assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("999"));
        assert!(bed.ok(&["ps", "--format", "json", &id]).contains(&pid));
    });
}

#[test]
fn exec_codes_and_refusals() {
    bed(|bed| {
        let bundle = bed.bundle("sleep 1000");
        let id = bundle.detach().to_owned();
        for (args, code, words) in [
            (vec!["sh", "-c", "exit 42"], 42, ""),
            (vec!["sh", "-c", "kill -9 $$"], 137, ""),
            (vec!["nosuch"], 255, "executable file not found in $PATH"),
            (vec!["/etc/passwd"], 255, "permission denied"),
        ] {
            let said = bundle.exec(&[&[id.as_str()], &args[..]].concat());
            assert!(said.code == code && said.err.contains(words), "{args:?}: {} {}", said.code, said.err);
        }
        assert_eq!(bundle.exec(&["--cwd", "tmp", &id, "true"]).code, 255);
        let inside = |path| bundle.exec(&["--cgroup", path, &id, "true"]);
        for (path, words) in [
            ("nosuch", "/nosuch/cgroup.procs: no such file"),
            ("..", ".. is not a sub cgroup path"),
            ("a/../../b", "is not a sub cgroup path"),
            ("planets:/", "unknown controller planets"),
        ] {
            let said = inside(path);
            assert!(said.code != 0 && said.err.contains(words), "{path}: {}", said.err);
        }
        assert_eq!(inside("/").code, 0);
    });
}

#[test]
fn a_created_container_can_be_entered() {
    bed(|bed| {
        let bundle = bed.bundle("sleep 1000");
        let id = bundle.create().to_owned();
        assert_eq!(bundle.exec(&[&id, "hostname"]).out, "bed\n");
        assert_eq!(bed.status(&id), "created");
    });
}

#[test]
fn processes_as_a_table_and_as_numbers() {
    bed(|bed| {
        let bundle = bed.bundle("sleep 1234 & sleep 1000");
        let id = bundle.detach().to_owned();
        let table = bed.ok(&["ps", &id]);
        assert!(table.starts_with("UID") && table.contains("sleep 1000"), "{table}");
        assert!(bed.ok(&["ps", &id, "-e", "-o", "pid,args"]).contains("sleep 1000"));
        assert!(bed.refused(&["ps", &id, "-o", "args"]).contains("PID field"));
        let pids: Vec<i32> = serde_json::from_str(&bed.ok(&["ps", "-f", "json", &id])).unwrap();
        assert!(!pids.is_empty());
    });
}

#[test]
fn list_and_state_tell_the_same() {
    bed(|bed| {
        let mut bundle = bed.bundle("sleep 1000");
        bundle.config["annotations"] = json!({ "a": "b" });
        let id = bundle.detach().to_owned();
        let all: Vec<Value> = serde_json::from_str(&bed.ok(&["list", "--format", "json"])).unwrap();
        let state: Value = serde_json::from_str(&bed.ok(&["state", &id])).unwrap();
        assert_eq!(all, std::slice::from_ref(&state));
        assert_eq!(
            (state["annotations"]["a"].as_str(), state["ociVersion"].as_str()),
            (Some("b"), Some("1.2.0"))
        );
        assert_eq!(state["bundle"].as_str(), bundle.dir.to_str());
        let table = bed.ok(&["list"]);
        assert!(table.starts_with("ID ") && table.lines().nth(1).unwrap().starts_with(&id), "{table}");
    });
}

#[test]
fn the_log_has_the_error_as_engines_read_it() {
    bed(|bed| {
        let log = bed.dir.join("log");
        let args = ["--log", log.to_str().unwrap(), "--log-format", "json", "--debug", "start", "nobody"];
        assert!(bed.refused(&args).starts_with("error: failed to find \"nobody\": container does not exist"));
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["level"], "debug");
        let last = lines.last().unwrap();
        assert_eq!(
            (last["level"].as_str(), last["msg"].as_str()),
            (Some("error"), Some("failed to find \"nobody\": container does not exist"))
        );
        assert!(last["time"].as_str().unwrap().ends_with('Z'));
        bed.refused(&["--log", log.to_str().unwrap(), "start", "nobody"]);
        assert!(fs::read_to_string(&log).unwrap().contains("level=error msg=\"failed to find"));
    });
}

#[test]
fn features_and_an_example_that_runs() {
    bed(|bed| {
        let features: Value = serde_json::from_str(&bed.ok(&["features"])).unwrap();
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
        assert_eq!(features["linux"]["capabilities"].as_array().unwrap().len(), 41);
        assert!(features["mountOptions"].as_array().unwrap().contains(&"rro".into()));
        let bundle = bed.bundle("");
        let dir = bundle.dir.to_str().unwrap().to_owned();
        bed.ok(&["spec", "--bundle", &dir]);
        assert!(bed.refused(&["spec", "--bundle", &dir]).contains("File exists"));
        let mut config: Value =
            serde_json::from_slice(&fs::read(bundle.dir.join("config.json")).unwrap()).unwrap();
        config["process"]["args"] = json!(["echo", "example"]);
        config["root"]["path"] = bed.dir.join("rootfs").to_str().unwrap().into();
        fs::write(bundle.dir.join("config.json"), config.to_string()).unwrap();
        assert_eq!(bed.ok(&["run", &bundle.id, "-b", &dir]), "example\n");
    });
}

#[test]
fn the_name_of_the_program_is_enough() {
    bed(|bed| {
        let link = bed.dir.join("stack-oci");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stack"), &link).unwrap();
        let bundle = bed.bundle("echo called by name");
        bundle.write();
        let state = bed.dir.join("state");
        let mut command = std::process::Command::new(&link);
        command.args([
            "--root",
            state.to_str().unwrap(),
            "run",
            "--bundle",
            bundle.dir.to_str().unwrap(),
            &bundle.id,
        ]);
        assert_eq!(super::bed::said(command.output().unwrap()).out, "called by name\n");
    });
}

#[test]
fn the_pid_file_is_inits() {
    bed(|bed| {
        let bundle = bed.bundle("sleep 1000");
        let file = bed.dir.join("pid");
        let id = bundle.create_with(&["--pid-file", file.to_str().unwrap()]).to_owned();
        let state: Value = serde_json::from_str(&bed.ok(&["state", &id])).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), state["pid"].to_string());
    });
}
