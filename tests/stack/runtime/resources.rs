//! Limits by control groups.

use super::harness::sh;
use crate::privileged;
use stack_runtime::cgroup;
use stack_runtime::spec::{ContainerSpec, ResourceSpec};
use std::time::Duration;

fn limited(resources: ResourceSpec, script: &str) -> ContainerSpec {
    ContainerSpec { resources, ..sh(script) }
}

privileged!(out_of_memory_is_reported_as_such, fixture, {
    let resources = ResourceSpec { memory: Some(16 << 20), ..ResourceSpec::default() };
    let container = fixture.up(limited(resources, "exec dd if=/dev/zero of=/dev/null bs=64M count=1")).await;
    let exit = container.exit().await;
    assert_eq!((exit.code, exit.oom_killed), (Some(137), true));
    let small = ResourceSpec { memory: Some(1 << 20), ..ResourceSpec::default() };
    let error = fixture.create(fixture.request(limited(small, "true"))).await.err().expect("it is refused");
    assert_eq!(error.reason, "Minimum memory limit allowed is 6MB");
});

privileged!(processes_are_limited, fixture, {
    let resources = ResourceSpec { pids: Some(5), ..ResourceSpec::default() };
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo all";
    let (code, output) = fixture.run(limited(resources, script)).await;
    assert_ne!(code, Some(0));
    assert!(output.contains("can't fork"), "{output}");
});

privileged!(limits_are_seen_inside, fixture, {
    let resources = ResourceSpec {
        memory: Some(32 << 20),
        cpus: Some(0.5),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".into()),
        ..ResourceSpec::default()
    };
    let script = "cd /sys/fs/cgroup; if [ -e memory.max ]; then cat memory.max cpu.max cpuset.cpus; \
        else cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares cpuset/cpuset.cpus; fi; \
        grep Cpus_allowed_list /proc/self/status";
    let container = fixture.create(fixture.request(limited(resources, script))).await.unwrap();
    assert_eq!(container.created.warnings, Vec::<String>::new());
    fixture.start(&container).await.unwrap();
    container.exit().await;
    let output = container.output();
    assert!(
        output == "33554432\n50000\n100000\n512\n0\nCpus_allowed_list:\t0\n"
            || output.starts_with("33554432\n50000 100000\n0\n"),
        "{output}"
    );
});

privileged!(a_group_can_be_frozen_and_killed, fixture, {
    let container = fixture.up(sh("while :; do echo tick; sleep 0.02; done")).await;
    container.wait_for_output("tick").await;
    let group = fixture.cgroup(&container);
    cgroup::freeze(&group, true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = container.output().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(container.output().len(), before);
    cgroup::freeze(&group, false).unwrap();
    super::harness::wait_until("ticks after thawing", || container.output().len() > before).await;
    cgroup::kill(&group).unwrap();
    assert_eq!(container.exit().await.code, Some(137));
});

privileged!(impossible_limits_are_refused, fixture, {
    let cases = [
        (ResourceSpec { cpus: Some(1e6), ..ResourceSpec::default() }, "range of CPUs is from 0.01 to"),
        (
            ResourceSpec { memory_swap: Some(1 << 30), ..ResourceSpec::default() },
            "always set the Memory limit",
        ),
    ];
    for (resources, expected) in cases {
        let error = fixture.create(fixture.request(limited(resources, "true"))).await.err().expect(expected);
        assert!(error.reason.contains(expected), "{error}");
    }
});
