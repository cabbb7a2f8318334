//! What a program may not do: capabilities, system calls, masked and read-only paths, devices.

use super::harness::{Fixture, sh, spec};
use crate::privileged;
use stack_runtime::spec::ContainerSpec;

async fn status(fixture: &Fixture, wanted: ContainerSpec, field: &str) -> u64 {
    let (_, output) =
        fixture.run(ContainerSpec { args: spec(&["cat", "/proc/self/status"]).args, ..wanted }).await;
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_else(|| panic!("{field} in {output}"));
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Docker's fourteen.
const DEFAULT: u64 = 0xa804_25fb;

privileged!(root_has_dockers_capabilities_and_a_user_none, fixture, {
    for field in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(status(fixture, spec(&[]), field).await, DEFAULT, "{field}");
    }
    for field in ["CapInh:", "CapAmb:"] {
        assert_eq!(status(fixture, spec(&[]), field).await, 0, "{field}");
    }
    let web = || ContainerSpec { user: "web".into(), ..spec(&[]) };
    assert_eq!(status(fixture, web(), "CapEff:").await, 0);
    assert_eq!(status(fixture, web(), "CapBnd:").await, DEFAULT);
});

privileged!(capabilities_are_added_and_dropped, fixture, {
    let wanted =
        ContainerSpec { cap_add: vec!["NET_ADMIN".into()], cap_drop: vec!["CAP_CHOWN".into()], ..spec(&[]) };
    assert_eq!(status(fixture, wanted, "CapEff:").await, (DEFAULT | 1 << 12) & !1);
    let none = ContainerSpec { cap_drop: vec!["ALL".into()], ..spec(&[]) };
    assert_eq!(status(fixture, none, "CapBnd:").await, 0);
});

privileged!(no_new_privileges_only_when_asked, fixture, {
    assert_eq!(status(fixture, spec(&[]), "NoNewPrivs:").await, 0);
    let wanted = ContainerSpec { security_opt: vec!["no-new-privileges:true".into()], ..spec(&[]) };
    assert_eq!(status(fixture, wanted, "NoNewPrivs:").await, 1);
});

privileged!(system_calls_are_filtered, fixture, {
    assert_eq!(status(fixture, spec(&[]), "Seccomp:").await, 2);
    for script in ["unshare -m true", "unshare -r true", "mount -t tmpfs none /tmp"] {
        let (code, output) = fixture.sh(script).await;
        assert_ne!(code, Some(0), "{script}");
        assert!(
            output.contains("Operation not permitted") || output.contains("permission denied"),
            "{script}: {output}"
        );
    }
    let open = ContainerSpec { security_opt: vec!["seccomp=unconfined".into()], ..spec(&[]) };
    assert_eq!(status(fixture, open, "Seccomp:").await, 0);
});

privileged!(a_profile_file_is_used, fixture, {
    let path = fixture.dir.join("profile.json");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    std::fs::write(&path, profile).unwrap();
    let option = format!("seccomp={}", path.display());
    let (code, output) =
        fixture.run(ContainerSpec { security_opt: vec![option], ..sh("mkdir /tmp/x") }).await;
    assert_ne!(code, Some(0));
    assert!(output.contains("No space left"), "{output}");
    let missing = ContainerSpec { security_opt: vec!["seccomp=/nope.json".into()], ..sh("true") };
    let error = fixture.create(fixture.request(missing)).await.err().expect("it is refused");
    assert!(error.reason.starts_with("opening seccomp profile (/nope.json) failed"), "{error}");
});

privileged!(paths_are_masked_and_read_only, fixture, {
    let masked = "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug \
        /proc/scsi /proc/timer_list /proc/timer_stats /sys/firmware /sys/devices/virtual/powercap \
        /sys/devices/system/cpu/cpu0/thermal_throttle";
    let script = format!(
        "for p in {masked}; do if [ -d $p ]; then ls -A $p; elif [ -e $p ]; then head -c 64 $p; fi; done; echo $?"
    );
    assert_eq!(fixture.sh(&script).await.1, "0\n", "something is to be seen");
    let script = "for p in bus fs irq sys sysrq-trigger; do awk -v p=/proc/$p '$5 == p { print $6 }' /proc/self/mountinfo; done";
    let (_, output) = fixture.sh(script).await;
    let read_only = output.lines().filter(|line| line.starts_with("ro,")).count();
    let there =
        ["bus", "fs", "irq", "sys", "sysrq-trigger"].map(|p| std::path::Path::new("/proc").join(p).exists());
    let there = there.iter().filter(|exists| **exists).count();
    assert!(there >= 3 && read_only == there && output.lines().count() == there, "{output}");
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run"] {
        let (code, output) = fixture.sh(&format!("echo x > {path}")).await;
        assert_ne!(code, Some(0), "{path}");
        assert!(output.contains("Read-only") || output.contains("nonexistent"), "{path}: {output}");
    }
});

privileged!(only_listed_devices_can_be_used, fixture, {
    let (code, output) = fixture
        .sh("echo x > /dev/null && head -c 4 /dev/zero | wc -c && mknod /tmp/fuse c 10 229 && head -c 1 /tmp/fuse")
        .await;
    assert_ne!(code, Some(0));
    assert!(output.starts_with("4\n") && output.contains("Operation not permitted"), "{output}");
});

privileged!(a_given_device_can_be_used, fixture, {
    let device = stack_runtime::spec::DeviceSpec {
        source: "/dev/zero".into(),
        target: "/dev/mine".into(),
        permissions: "r".into(),
        ..Default::default()
    };
    let wanted = ContainerSpec { devices: vec![device], ..sh("head -c 3 /dev/mine | wc -c") };
    assert_eq!(fixture.run(wanted).await.1, "3\n");
    let missing = stack_runtime::spec::DeviceSpec {
        source: "/dev/nope".into(),
        target: "/dev/nope".into(),
        ..Default::default()
    };
    let refused =
        fixture.create(fixture.request(ContainerSpec { devices: vec![missing], ..sh("true") })).await;
    let error = refused.err().expect("it is refused");
    assert!(error.reason.ends_with("custom device \"/dev/nope\": no such file or directory"), "{error}");
});

privileged!(privileged_has_everything, fixture, {
    let wanted = || ContainerSpec { privileged: true, ..spec(&[]) };
    assert_eq!(status(fixture, wanted(), "Seccomp:").await, 0);
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    assert_eq!(status(fixture, wanted(), "CapEff:").await, u64::from_str_radix(bounding.trim(), 16).unwrap());
    let script =
        "mount -t tmpfs none /tmp && echo mounted; touch /sys/fs/cgroup/memory/x 2>&1 | grep -c Read-only";
    let (_, output) = fixture.run(ContainerSpec { privileged: true, ..sh(script) }).await;
    assert_eq!(output, "mounted\n0\n");
});

privileged!(the_runtime_cannot_be_reached_from_inside, fixture, {
    let (_, output) =
        fixture.sh("readlink /proc/1/exe; ls /proc | grep -c '^[0-9]'; ls / | sort | head -n 40").await;
    assert!(output.starts_with("/bin/busybox\n"), "{output}");
    assert!(!output.contains("work"), "{output}");
});

privileged!(wrong_names_are_refused_before_anything_is_made, fixture, {
    let cases = [
        (ContainerSpec { cap_add: vec!["FOO".into()], ..sh("true") }, "unknown capability: \"CAP_FOO\""),
        (ContainerSpec { security_opt: vec!["what=ever".into()], ..sh("true") }, "invalid --security-opt"),
        (ContainerSpec { oom_score_adj: Some(5000), ..sh("true") }, "range for oom score adj"),
        (spec(&[]), "no command specified"),
    ];
    for (wanted, expected) in cases {
        let error = fixture.create(fixture.request(wanted)).await.err().expect(expected);
        assert!(error.reason.contains(expected), "{error}");
    }
});
