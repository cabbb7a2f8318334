//! The program is loaded into the kernel and tried with real devices, where there is a unified hierarchy.

use super::*;
use oci_spec::runtime::LinuxDeviceCgroupBuilder;
use std::path::PathBuf;
use std::process::Command;

fn rule(allow: bool, kind: Kind, numbers: Option<(i64, i64)>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).access(access).build().unwrap();
    rule.set_major(numbers.map(|n| n.0)).set_minor(numbers.map(|n| n.1));
    rule
}

fn unified() -> Option<PathBuf> {
    let found = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    found.into_iter().find(|dir| dir.join("cgroup.procs").exists() && dir.join("cgroup.controllers").exists())
}

#[test]
fn lists_are_written_in_the_kernels_form() {
    assert_eq!(line(&rule(false, Kind::A, None, "rwm")), "a");
    assert_eq!(line(&rule(true, Kind::C, Some((1, 3)), "rw")), "c 1:3 rw");
    assert_eq!(line(&rule(true, Kind::B, None, "m")), "b *:* m");
}

#[test]
fn a_program_allows_what_the_rules_allow() {
    let Some(mount) = unified().filter(|_| rustix::process::geteuid().is_root()) else {
        assert!(std::env::var_os("STACK_TEST_PRIVILEGED").is_none(), "this test needs root and cgroup v2");
        eprintln!("SKIPPED: needs root and cgroup v2");
        return;
    };
    let group = mount.join(format!("stack-device-test-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let rules = [
        rule(false, Kind::A, None, "rwm"),
        rule(true, Kind::C, None, "m"),
        rule(true, Kind::C, Some((1, 3)), "rwm"),
        rule(true, Kind::C, Some((1, 5)), "r"),
    ];
    let attached = attach(&group, &rules);
    let script = |script: &str| {
        let script = format!("echo $$ > {}/cgroup.procs || exit 9; {script}", group.display());
        Command::new("sh")
            .args(["-c", &script])
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    let found = ["true < /dev/null", "true < /dev/zero", "true > /dev/zero", "true < /dev/full"].map(script);
    fs::remove_dir(&group).unwrap();
    attached.unwrap();
    assert_eq!(found, [true, true, false, false]);
}
