//! Attributes of a service that end in the kernel: limits, scores, rules, namespaces.

use crate::common::{Project, World};
use nix::mount::{MsFlags, mount, umount};

const IDLE: &str = "image: 'busybox:1', command: [sleep, '1000'], stop_grace_period: 0s";

fn sh(project: &Project<'_>, service: &str, script: &str) -> String {
    project.stack(&["exec", "-T", service, "sh", "-c", script]).ok().text().to_owned()
}

fn services<'w>(world: &'w World, key: &str, list: &[(&str, &str)]) -> Project<'w> {
    let text: String = list.iter().map(|(key, rest)| format!("  {key}: {{ {IDLE}, {rest} }}\n")).collect();
    world.project(key, &[("compose.yaml", &format!("services:\n{text}"))])
}

#[test]
fn scores_rules_paths_and_namespaces_are_as_asked() {
    World::with_busybox().run(|world| {
        let project = services(
            world,
            "asked",
            &[
                ("plain", "init: false"),
                ("score", "oom_score_adj: 500"),
                ("paths", "security_opt: ['systempaths=unconfined']"),
                ("rule", "device_cgroup_rules: ['c 10:237 rwm']"),
                ("names", "hostname: own, domainname: example.org"),
                ("uts", "uts: host"),
                ("groups", "cgroup: host"),
                ("noted", "annotations: { org.example.note: kept }"),
            ],
        );
        project.stack(&["up", "-d"]).ok();
        assert_eq!(sh(&project, "score", "cat /proc/1/oom_score_adj"), "500");
        let covered = |service: &str| {
            sh(&project, service, "grep -c ' /proc/' /proc/mounts; true").parse::<u32>().unwrap()
        };
        assert!(covered("plain") > 5 && covered("paths") == 0, "{} {}", covered("plain"), covered("paths"));
        let make = "mknod /made c 10 237 && : < /made";
        sh(&project, "rule", make);
        project.stack(&["exec", "-T", "plain", "sh", "-c", make]).code(1).says("not permitted");
        assert_eq!(
            sh(&project, "names", "hostname; cat /etc/hostname /proc/sys/kernel/domainname"),
            "own\nown\nexample.org"
        );
        assert!(sh(&project, "names", "cat /etc/hosts").contains("own.example.org own"));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(sh(&project, "uts", "hostname"), host);
        let own = |kind: &str| {
            std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap().display().to_string()
        };
        let of = |service: &str, kind: &str| sh(&project, service, &format!("readlink /proc/1/ns/{kind}"));
        assert_eq!((of("uts", "uts"), of("groups", "cgroup")), (own("uts"), own("cgroup")));
        assert_ne!(of("plain", "cgroup"), own("cgroup"));
        let id = project.stack(&["ps", "-q", "noted"]).ok().text().to_owned();
        let file = world.home.join("stacks").join(&project.name).join("containers").join(id).join("oci.json");
        let bundle: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(bundle["spec"]["annotations"]["org.example.note"], "kept");
    });
}

#[test]
fn impossible_wishes_are_refused_in_dockers_words() {
    World::with_busybox().run(|world| {
        for (attributes, why) in [
            ("oom_score_adj: 5000", "must be from -1000 to 1000"),
            ("device_cgroup_rules: ['x 1:2 rwm']", "invalid device cgroup rule format: 'x 1:2 rwm'"),
            (
                "cpus: 0.5, cpu_quota: 50000",
                "Conflicting options: Nano CPUs and CPU Quota cannot both be set.",
            ),
            (
                "cpu_period: 10",
                "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ),
            ("cpu_quota: 10", "CPU cfs quota cannot be less than 1ms (i.e. 1000)"),
            ("cpuset: '0-4000'", "Requested CPUs are not available - requested 0-4000, available: 0"),
            ("cpuset: 'x'", "Invalid value x for cpuset cpus"),
            (
                "memswap_limit: 1g",
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (
                "mem_limit: 64m, memswap_limit: 32m",
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                "mem_limit: 64m, mem_reservation: 128m",
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ),
            ("mem_swappiness: 101", "invalid value: 101, valid memory swappiness range is 0-100"),
            ("uts: host, hostname: own", "conflicting options: hostname and the UTS mode"),
            (
                "volumes: [{ type: bind, source: ., target: /x, bind: { recursive: readonly } }]",
                "requires 'readonly' to be specified in conjunction",
            ),
        ] {
            let project = services(world, "refused", &[("web", attributes)]);
            let ran = project.stack(&["up", "-d"]).code(1);
            assert!(ran.stderr.contains(why), "{why}: {ran}");
        }
    });
}

#[test]
fn limits_of_processor_and_memory_reach_the_kernel() {
    World::with_busybox().run(|world| {
        let project = services(world, "kernel", &[
            ("quota", "cpu_period: 50000, cpu_quota: 25000"),
            ("swap", "mem_limit: 64m, memswap_limit: 64m, mem_reservation: 32m, mem_swappiness: 10"),
        ]);
        let up = project.stack(&["up", "-d"]).ok();
        let quota = sh(&project, "quota", "cd /sys/fs/cgroup; cat cpu.max 2>/dev/null || cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us");
        assert_eq!(quota.split_whitespace().collect::<Vec<_>>(), ["25000", "50000"]);
        let swap = sh(&project, "swap", "cd /sys/fs/cgroup; if test -e memory.max; then cat memory.swap.max memory.low; else cd memory; cat memory.memsw.limit_in_bytes memory.soft_limit_in_bytes memory.swappiness; fi");
        let (whole, low) = ((64 << 20).to_string(), (32 << 20).to_string());
        match swap.split_whitespace().collect::<Vec<_>>()[..] {
            [none, reserved] => {
                assert_eq!((none, reserved), ("0", low.as_str()));
                assert!(up.stderr.contains("swappiness"), "what is not had is said: {up}");
            }
            [total, reserved, swappiness] => assert_eq!((total, reserved, swappiness), (whole.as_str(), low.as_str(), "10")),
            _ => panic!("{swap}"),
        }
    });
}

#[test]
fn mounts_below_a_bind_come_along_as_far_as_asked() {
    World::with_busybox().run(|world| {
        let bind =
            |name: &str, more: &str| format!("{{ type: bind, source: ./outer, target: /{name}, {more} }}");
        let binds = [
            bind("all", "read_only: true"),
            bind("none", "bind: { recursive: disabled }"),
            bind("top", "read_only: true, bind: { recursive: writable }"),
            bind("forced", "read_only: true, bind: { recursive: readonly }"),
        ];
        let project = services(world, "below", &[("web", &format!("volumes: [{}]", binds.join(", ")))]);
        project.write("outer/below/covered", "");
        let place = project.directory.join("outer/below");
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(place.join("inner"), "").unwrap();
        let up = project.stack(&["up", "-d"]);
        let look = || {
            let seen = ["all", "none", "top", "forced"]
                .map(|name| sh(&project, "web", &format!("ls /{name}/below")));
            let writable = ["all", "none", "top", "forced"].map(|name| {
                project
                    .stack(&[
                        "exec",
                        "-T",
                        "web",
                        "sh",
                        "-c",
                        &format!("touch /{name}/below/new && rm /{name}/below/new"),
                    ])
                    .status
                    .success()
            });
            (seen, writable, project.stack(&["exec", "-T", "web", "touch", "/top/new"]).status.success())
        };
        let found = up.status.success().then(look);
        umount(&place).unwrap();
        let (seen, writable, top) = found.unwrap_or_else(|| panic!("{up}"));
        assert_eq!(seen, ["inner", "covered", "inner", "inner"]);
        assert_eq!(writable, [false, true, true, false]);
        assert!(!top, "the bind itself is read-only");
    });
}
