//! What the program finds: user, directory, limits, capabilities, priorities.

use super::bed::bed;
use serde_json::json;

#[test]
fn user_groups_umask_home_and_directory() {
    bed(|bed| {
        let mut bundle =
            bed.bundle("id -u; id -g; id -G; umask; echo $HOME; pwd; touch /tmp/made; stat -c %a /tmp/made");
        bundle.own_root();
        std::fs::set_permissions(
            bundle.dir.join("rootfs/tmp"),
            std::os::unix::fs::PermissionsExt::from_mode(0o1777),
        )
        .unwrap();
        bundle.config["process"]["user"] =
            json!({ "uid": 1000, "gid": 7, "additionalGids": [8, 9], "umask": 0o27 });
        bundle.config["process"]["cwd"] = "/made/here".into();
        assert_eq!(bundle.says(), "1000\n7\n7 8 9\n0027\n/srv/web\n/made/here\n640\n");
    });
}

#[test]
fn all_five_sets_of_capabilities() {
    bed(|bed| {
        let mut bundle = bed.bundle("grep ^Cap /proc/self/status");
        let set = |names: &[&str]| json!(names.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>());
        bundle.config["process"]["capabilities"] = json!({
            "bounding": set(&["CHOWN", "KILL", "SETUID"]),
            "permitted": set(&["CHOWN", "KILL"]),
            "effective": set(&["CHOWN", "KILL"]),
            "inheritable": set(&["KILL"]),
            "ambient": set(&["KILL"]),
        });
        bundle.config["process"]["user"]["uid"] = 1000.into();
        // Executing takes an ordinary user's down to the ambient ones.
        let sets = [
            "Inh:\t0000000000000020",
            "Prm:\t0000000000000020",
            "Eff:\t0000000000000020",
            "Bnd:\t00000000000000a1",
            "Amb:\t0000000000000020",
        ];
        assert_eq!(bundle.says(), sets.map(|set| format!("Cap{set}\n")).concat());
    });
}

#[test]
fn a_process_without_capabilities_has_none() {
    bed(|bed| {
        let mut bundle = bed.bundle("grep -c '^Cap.*0000000000000000$' /proc/self/status");
        bundle.config["process"].as_object_mut().unwrap().remove("capabilities");
        assert_eq!(bundle.says(), "5\n");
    });
}

#[test]
fn limits_and_no_new_privileges() {
    bed(|bed| {
        let mut bundle = bed.bundle("ulimit -n; ulimit -Hn; ulimit -c; grep NoNewPrivs /proc/self/status");
        bundle.config["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ]);
        bundle.config["process"]["noNewPrivileges"] = true.into();
        assert_eq!(bundle.says(), "100\n200\n0\nNoNewPrivs:\t1\n");
    });
}

#[test]
fn oom_score_scheduler_and_priorities() {
    bed(|bed| {
        let mut bundle =
            bed.bundle("cat /proc/self/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; ionice");
        bundle.config["process"]["oomScoreAdj"] = 321.into();
        bundle.config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
        bundle.config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
        assert_eq!(bundle.says(), "321\n7 3\nbest-effort: prio 6\n");
    });
}

#[test]
fn personality_and_memory_policy() {
    bed(|bed| {
        let mut bundle = bed.bundle("uname -m; grep -c bind /proc/self/numa_maps | sed 's/^[1-9].*/bound/'");
        bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
        bundle.config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0" });
        let machine = if cfg!(target_arch = "x86_64") { "i686" } else { "armv8l" };
        let said = bundle.says();
        assert!(said.starts_with(machine), "{said}");
        if std::path::Path::new("/proc/self/numa_maps").exists() {
            assert!(said.ends_with("bound\n"), "{said}");
        }
    });
}

#[test]
fn names_of_host_and_domain_and_sysctls() {
    bed(|bed| {
        let mut bundle = bed.bundle(
            "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax",
        );
        bundle.config["hostname"] = "one".into();
        bundle.config["domainname"] = "two.example".into();
        bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel/shmmax": "123456" });
        assert_eq!(bundle.says(), "one\ntwo.example\n1\n123456\n");
    });
}

#[test]
fn only_the_descriptors_that_are_preserved_arrive() {
    bed(|bed| {
        let bundle = bed.bundle("cat <&3; ls /proc/self/fd | wc -l");
        bundle.write();
        std::fs::write(bed.dir.join("three"), "third\n").unwrap();
        let script = "exec 3<\"$0\" 9</dev/null; exec \"$@\"";
        let run = |extra: &[&str]| {
            let mut command = std::process::Command::new("sh");
            command
                .args(["-c", script])
                .arg(bed.dir.join("three"))
                .arg(env!("CARGO_BIN_EXE_stack"))
                .arg("oci");
            command.arg("--root").arg(bed.dir.join("state")).arg("run").args(extra);
            command.args(["--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
            super::bed::said(command.output().unwrap())
        };
        // 0, 1, 2, the preserved one, and the directory that is listed.
        assert_eq!(run(&["--preserve-fds", "1"]).out, "third\n5\n");
        assert!(run(&[]).err.contains("3"), "descriptor 3 must not be there");
        // One that is not open cannot be passed on.
        assert_eq!(run(&["--preserve-fds", "2"]).out, "third\n5\n");
    });
}

#[test]
fn socket_activation_is_passed_on() {
    bed(|bed| {
        let bundle = bed.bundle("echo $LISTEN_FDS $LISTEN_PID; cat <&3");
        bundle.write();
        std::fs::write(bed.dir.join("three"), "third\n").unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec 3<\"$0\"; LISTEN_FDS=1 exec \"$@\""]).arg(bed.dir.join("three"));
        command.arg(env!("CARGO_BIN_EXE_stack")).arg("oci").arg("--root").arg(bed.dir.join("state"));
        command.args(["run", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
        assert_eq!(super::bed::said(command.output().unwrap()).out, "1 1\nthird\n");
    });
}
