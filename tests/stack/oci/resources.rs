//! Limits at the start and later, and what is told of them.

use super::bed::{Bed, bed};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Version 1's file if that controller is there, else version 2's.
fn limit(path: &str, controller: &str, legacy: &str, unified: &str) -> String {
    let old = PathBuf::from(format!("/sys/fs/cgroup/{controller}/{path}/{legacy}"));
    let new = PathBuf::from(format!("/sys/fs/cgroup/{path}/{unified}"));
    fs::read_to_string(if old.exists() { old } else { new }).unwrap().trim().to_owned()
}

fn is_unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn path(bed: &Bed) -> String {
    format!("oci-test-{}", bed.dir.file_name().unwrap().to_string_lossy().trim_start_matches('.'))
}

#[test]
fn limits_are_set_updated_and_remembered() {
    bed(|bed| {
        let mut bundle = bed.bundle("sleep 1000");
        let parent = path(bed);
        let group = format!("{parent}/t{}-group", std::process::id());
        bundle.config["linux"]["cgroupsPath"] = format!("/{group}").into();
        bundle.config["linux"]["resources"] = json!({
            "memory": { "limit": 64 << 20, "reservation": 32 << 20 }, "pids": { "limit": 50 },
            "cpu": { "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" },
        });
        let id = bundle.detach().to_owned();
        let memory = || limit(&group, "memory", "memory.limit_in_bytes", "memory.max");
        let pids = || limit(&group, "pids", "pids.max", "pids.max");
        assert_eq!((memory(), pids()), ((64 << 20).to_string(), "50".to_owned()));
        assert_eq!(
            limit(&group, "memory", "memory.soft_limit_in_bytes", "memory.low"),
            (32 << 20).to_string()
        );
        assert_eq!(limit(&group, "cpu", "cpu.shares", "cpu.weight"), if is_unified() { "20" } else { "512" });
        assert_eq!(
            limit(&group, "cpu", "cpu.cfs_quota_us", "cpu.max"),
            if is_unified() { "50000 100000" } else { "50000" }
        );
        assert_eq!(limit(&group, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        bed.ok(&["update", &id, "--memory", "128m", "--pids-limit", "-1"]);
        assert_eq!((memory(), pids()), ((128 << 20).to_string(), "max".to_owned()));
        let said =
            bed.feed(&["update", "-r", "-", &id], r#"{"memory":{"limit":67108864},"cpu":{"quota":25000}}"#);
        assert_eq!((said.code, memory()), (0, (64 << 20).to_string()), "{}", said.err);
        assert_eq!(
            limit(&group, "cpu", "cpu.cfs_quota_us", "cpu.max"),
            if is_unified() { "25000 100000" } else { "25000" }
        );
        let remembered = fs::read_to_string(bed.dir.join("state").join(&id).join("bundle.json")).unwrap();
        let remembered: Value = serde_json::from_str(&remembered).unwrap();
        assert_eq!(remembered["spec"]["linux"]["resources"]["pids"]["limit"], -1);
        assert_eq!(remembered["spec"]["linux"]["resources"]["cpu"]["shares"], 512);
        bed.ok(&["delete", "-f", &id]);
        let parents: Vec<PathBuf> = ["memory", "pids", "unified", ""]
            .iter()
            .map(|c| PathBuf::from("/sys/fs/cgroup").join(c).join(&parent))
            .collect();
        assert!(parents.iter().any(|dir| dir.is_dir()), "somebody else's parent stays");
        remove_everywhere(&parent);
    });
}

fn remove_everywhere(group: &str) {
    let _ = fs::remove_dir(format!("/sys/fs/cgroup/{group}"));
    for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = fs::remove_dir(entry.path().join(group));
    }
}

#[test]
fn a_limit_that_cannot_be_set_fails_the_create() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        bundle.config["linux"]["resources"] = json!({ "cpu": { "cpus": "4000-5000" } });
        assert!(bundle.refused().contains("failed to set the limits: cpuset is not applied"));
        if !is_unified() {
            bundle.config["linux"]["resources"] = json!({ "unified": { "memory.max": "10" } });
            assert!(bundle.refused().contains("needs cgroup v2"));
        }
    });
}

#[test]
fn nobody_is_created_in_a_frozen_group() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        let group = format!("{}/frozen", path(bed));
        bundle.config["linux"]["cgroupsPath"] = format!("/{group}").into();
        let (dir, file, state) = match is_unified() {
            true => ("/sys/fs/cgroup", "cgroup.freeze", "1"),
            false => ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"),
        };
        let dir = PathBuf::from(dir).join(&group);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), state).unwrap();
        let error = bundle.refused();
        assert!(error.contains("cgroup unexpectedly frozen"), "{error}");
        remove_everywhere(&group);
        remove_everywhere(&path(bed));
    });
}

#[test]
fn who_runs_out_of_memory_is_told_and_so_is_what_is_used() {
    bed(|bed| {
        let mut bundle = bed.bundle("sleep 1000");
        bundle.config["linux"]["resources"] =
            json!({ "memory": { "limit": 20 << 20 }, "pids": { "limit": 30 } });
        let id = bundle.detach().to_owned();
        let stats: Value = serde_json::from_str(&bed.ok(&["events", "--stats", &id])).unwrap();
        assert_eq!((stats["type"].as_str(), stats["id"].as_str()), (Some("stats"), Some(id.as_str())));
        assert_eq!(stats["data"]["memory"]["usage"]["limit"], 20 << 20);
        assert_eq!(stats["data"]["pids"], json!({ "current": 1, "limit": 30 }));
        assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
        let log = bed.dir.join("events");
        let mut events = bed
            .command(&["events", "--interval", "50ms", &id])
            .stdout(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let said = || fs::read_to_string(&log).unwrap();
        while said().lines().count() < 2 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let eater = bundle.exec(&[&id, "sh", "-c", "x=a; while :; do x=$x$x; done"]);
        assert_eq!(eater.code, 137, "{}", eater.err);
        let deadline = std::time::Instant::now() + crate::common::PATIENCE;
        while !said().contains(&format!("{{\"type\":\"oom\",\"id\":\"{id}\"}}")) {
            assert!(std::time::Instant::now() < deadline, "{}", said());
        }
        bed.ok(&["kill", &id, "KILL"]);
        assert!(events.wait().unwrap().success(), "events end with the container");
    });
}

#[test]
fn the_control_groups_are_the_containers_own_view() {
    bed(|bed| {
        let mut bundle = bed.bundle(
            "cut -d: -f3 /proc/self/cgroup | sort -u; ls /sys/fs/cgroup | wc -l; touch /sys/fs/cgroup/x 2>&1",
        );
        bundle.config["mounts"][5]["options"] = json!(["nosuid", "ro"]);
        let said = bundle.run().out;
        assert!(said.starts_with("/\n") && said.contains("Read-only"), "{said}");
    });
}
