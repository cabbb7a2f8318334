//! System call filters, device rules, and what must not get in.

use super::bed::bed;
use serde_json::json;
use std::io::Read;
use std::os::unix::net::UnixListener;

fn filter(default: &str, calls: serde_json::Value) -> serde_json::Value {
    json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"], "syscalls": calls })
}

#[test]
fn actions_of_a_filter() {
    bed(|bed| {
        for cannot_gain in [false, true] {
            let mut bundle = bed.bundle("mkdir /tmp/made; echo $?; sync; echo $?");
            bundle.config["process"]["noNewPrivileges"] = cannot_gain.into();
            bundle.config["linux"]["seccomp"] = filter(
                "SCMP_ACT_ALLOW",
                json!([
                    { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 },
                    { "names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS" },
                    { "names": ["no_such_call"], "action": "SCMP_ACT_KILL_PROCESS" },
                ]),
            );
            let said = bundle.run();
            assert_eq!(said.out, "1\n159\n", "{}", said.err);
            assert!(said.err.contains("Network is down"), "{}", said.err);
        }
    });
}

#[test]
fn operators_compare_arguments() {
    bed(|bed| {
        let refuse = |op: &str, value: u64, two: u64| {
            let mut bundle = bed.bundle("chmod 0751 /tmp/file && echo made");
            bundle.own_root();
            std::fs::write(bundle.dir.join("rootfs/tmp/file"), "").unwrap();
            let arg = |index: u32| json!([{ "index": index, "value": value, "valueTwo": two, "op": op }]);
            bundle.config["linux"]["seccomp"] = filter(
                "SCMP_ACT_ALLOW",
                json!([
                    { "names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": arg(1) },
                    { "names": ["fchmodat"], "action": "SCMP_ACT_ERRNO", "args": arg(2) },
                ]),
            );
            bundle.run().out != "made\n"
        };
        let mode = 0o751;
        let verdicts = [
            ("SCMP_CMP_EQ", mode, 0, true),
            ("SCMP_CMP_EQ", 1, 0, false),
            ("SCMP_CMP_NE", mode, 0, false),
            ("SCMP_CMP_GT", mode - 1, 0, true),
            ("SCMP_CMP_GE", mode, 0, true),
            ("SCMP_CMP_LT", mode, 0, false),
            ("SCMP_CMP_LE", mode, 0, true),
            ("SCMP_CMP_MASKED_EQ", 0o007, 0o001, true),
            ("SCMP_CMP_MASKED_EQ", 0o007, 0o002, false),
        ];
        for (op, value, two, expected) in verdicts {
            assert_eq!(refuse(op, value, two), expected, "{op} {value:o} {two:o}");
        }
    });
}

#[test]
fn an_agent_gets_the_listener_and_the_state() {
    bed(|bed| {
        let path = bed.dir.join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut bundle = bed.bundle("mkdir /tmp/made; echo $?");
        let asks = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]);
        bundle.config["linux"]["seccomp"] = filter("SCMP_ACT_ALLOW", asks);
        bundle.config["linux"]["seccomp"]["listenerPath"] = path.to_str().unwrap().into();
        bundle.config["linux"]["seccomp"]["listenerMetadata"] = "words".into();
        // It takes the listener and goes: whoever asks then hears that there is no such call.
        let agent = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut bytes = vec![0; 64 * 1024];
            let length = connection.read(&mut bytes).unwrap();
            serde_json::from_slice::<serde_json::Value>(&bytes[..length]).unwrap()
        });
        let said = bundle.run();
        assert_eq!(said.out, "1\n", "{}", said.err);
        assert!(said.err.contains("Function not implemented"), "{}", said.err);
        let state = agent.join().unwrap();
        assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("words")));
        assert_eq!(state["state"]["id"], bundle.id.as_str());
        assert!(state["pid"].as_i64().unwrap() > 1);
        std::fs::remove_file(bed.dir.join("agent.sock")).unwrap();
        assert!(bundle.refused().contains("failed to connect with seccomp agent"));
    });
}

#[test]
fn device_rules_hold_and_the_usual_devices_work_all_the_same() {
    bed(|bed| {
        let mut bundle =
            bed.bundle("head -c 1 /dev/kmsg; echo > /dev/null; mknod /tmp/k c 1 11 && echo made");
        bundle.own_root();
        bundle.config["linux"]["devices"] =
            json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 }]);
        bundle.config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        let said = bundle.run();
        assert!(
            said.err.contains("Operation not permitted") && said.out == "made\n",
            "{}{}",
            said.out,
            said.err
        );
    });
}

#[test]
fn labels_need_their_security_module() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        if !std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|on| on.starts_with('Y'))
        {
            bundle.config["process"]["apparmorProfile"] = "some".into();
            assert!(bundle.refused().contains("this host has no AppArmor"));
            bundle.config["process"].as_object_mut().unwrap().remove("apparmorProfile");
        }
        if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
            bundle.config["process"]["selinuxLabel"] = "system_u:system_r:x_t:s0".into();
            assert!(bundle.refused().contains("this host has no SELinux"));
        }
    });
}

/// CVE-2019-5736: a program that is the runtime itself, by the link that every process has to its own. Ours, with the
/// host's libraries, waits for a reader of its log.
#[test]
fn the_runtimes_program_is_out_of_reach_for_writing() {
    bed(|bed| {
        let mut bundle = bed.bundle("sleep 1000");
        let root = bundle.own_root();
        for dir in ["/lib", "/lib64", "/usr/lib"] {
            std::fs::create_dir_all(root.join(&dir[1..])).unwrap();
            bundle.mount(dir, "bind", dir, &["rbind", "ro"]);
        }
        let itself = |log: &str| json!(["/proc/self/exe", "oci", "--debug", "--log", log, "list"]);
        let words = |log: &str| -> Vec<String> { serde_json::from_value(itself(log)).unwrap() };
        let pipes = ["run", "exec"].map(|name| {
            let pipe = format!("/tmp/{}-{name}", bundle.id);
            nix::unistd::mkfifo(&root.join(&pipe[1..]), nix::sys::stat::Mode::from_bits_truncate(0o666))
                .unwrap();
            pipe
        });
        let exec = ["exec", "--detach", &bundle.id].map(str::to_owned);
        let id = bundle.detach();
        let args: Vec<String> = exec.into_iter().chain(words(&pipes[1])).collect();
        // It keeps its streams, so nobody must wait for their end.
        let mut command = bed.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let null = std::process::Stdio::null;
        assert!(command.stdout(null()).stderr(null()).status().unwrap().success());
        assert_read_only_program(&pipes[1]);
        bed.ok(&["delete", "-f", id]);
        bundle.config["process"]["args"] = itself(&pipes[0]);
        bundle.detach();
        assert_read_only_program(&pipes[0]);
    });
}

/// Of the process with this word in its command line.
#[track_caller]
fn assert_read_only_program(word: &str) {
    use rustix::fs::{OFlags, SealFlags, StatVfsMountFlags, fcntl_get_seals, fstatvfs, open};
    let pid = crate::common::eventually("the runtime inside", || {
        let pids = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        pids.into_iter().find(|dir| {
            let line = std::fs::read(dir.join("cmdline")).unwrap_or_default();
            line.starts_with(b"/proc/self/exe\0") && line.split(|b| *b == 0).any(|w| w == word.as_bytes())
        })
    });
    let program = open(pid.join("exe"), OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap();
    let is_read_only = fstatvfs(&program).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY);
    let is_sealed = fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    assert!(is_read_only || is_sealed, "{} can be written", pid.display());
}
