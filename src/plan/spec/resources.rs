//! Limits and devices.

use stack_runtime::spec::{DeviceSpec, ResourceSpec};
use stack_schema::project::{Resources, Service};

/// Zero is Docker's "no limit".
pub(super) fn resources(wanted: &Resources) -> ResourceSpec {
    ResourceSpec {
        memory: wanted.memory.map(|b| b.0).filter(|b| *b > 0),
        memory_reservation: wanted.memory_reservation.map(|b| b.0).filter(|b| *b > 0),
        memory_swap: wanted.memory_swap.map(|b| b.0).filter(|b| *b != 0),
        cpus: wanted.cpus.filter(|c| *c > 0.0),
        cpu_shares: wanted.cpu_shares.filter(|s| *s > 0),
        cpuset_cpus: wanted.cpuset.clone().filter(|c| !c.is_empty()),
        pids: wanted.pids.filter(|p| *p > 0),
        oom_kill_disable: wanted.oom_kill_disable,
    }
}

/// `/dev/a`, `/dev/a:/dev/b`, `/dev/a:/dev/b:rwm`, `/dev/a:rw`.
pub(super) fn devices(service: &Service) -> Vec<DeviceSpec> {
    service.devices.iter().map(|text| device(text)).collect()
}

fn device(text: &str) -> DeviceSpec {
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let (target, permissions) = match (parts.next(), parts.next()) {
        (Some(target), Some(permissions)) => (target, permissions),
        (Some(second), None) if second.starts_with('/') => (second, "rwm"),
        (Some(permissions), None) => (source, permissions),
        (None, _) => (source, "rwm"),
    };
    DeviceSpec { source: source.into(), target: target.into(), permissions: permissions.into() }
}
