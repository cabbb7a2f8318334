//! Limits and devices.

use stack_runtime::spec::{DeviceRequestSpec, DeviceSpec, ResourceSpec};
use stack_schema::project::{Resources, Service};

/// Zero is Docker's "no limit".
pub(super) fn resources(wanted: &Resources) -> ResourceSpec {
    ResourceSpec {
        memory: wanted.memory.map(|b| b.0).filter(|b| *b > 0),
        memory_reservation: wanted.memory_reservation.map(|b| b.0).filter(|b| *b > 0),
        memory_swap: wanted.memory_swap.map(|b| b.0).filter(|b| *b != 0),
        cpus: wanted.cpus.filter(|c| *c > 0.0),
        cpu_shares: wanted.cpu_shares.filter(|s| *s > 0),
        cpu_period: wanted.cpu_period,
        cpu_quota: wanted.cpu_quota,
        cpu_rt_period: wanted.cpu_rt_period,
        cpu_rt_runtime: wanted.cpu_rt_runtime,
        memory_swappiness: wanted.memory_swappiness,
        cpuset_cpus: wanted.cpuset.clone().filter(|c| !c.is_empty()),
        pids: wanted.pids.filter(|p| *p > 0),
        oom_kill_disable: wanted.oom_kill_disable,
    }
}

/// Whether a device is named in full, as the Container Device Interface does it: `vendor.com/class=name`.
pub fn is_qualified(text: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
    };
    text.split_once('=').is_some_and(|(kind, name)| {
        is_word(name) && kind.split_once('/').is_some_and(|(vendor, class)| is_word(vendor) && is_word(class))
    })
}

/// By what they can do, and those that are named as the Container Device Interface does it.
pub fn device_requests(service: &Service) -> Vec<DeviceRequestSpec> {
    let requests = service.device_requests.iter().map(|request| DeviceRequestSpec {
        driver: request.driver.clone(),
        count: request.count,
        device_ids: request.device_ids.clone(),
        capabilities: request.capabilities.clone(),
    });
    let named: Vec<String> =
        service.devices.iter().filter_map(|text| qualified(text)).map(Into::into).collect();
    let named = DeviceRequestSpec { driver: "cdi".into(), device_ids: named, ..Default::default() };
    requests.chain((!named.device_ids.is_empty()).then_some(named)).collect()
}

/// `vendor.com/class=name`, which is its own target.
fn qualified(text: &str) -> Option<&str> {
    let name = text.strip_suffix(":rwm").unwrap_or(text);
    let (name, target) = name.split_at(name.len() / 2);
    match target.strip_prefix(':') {
        Some(target) if target == name => Some(name),
        _ => Some(text),
    }
    .filter(|name| is_qualified(name))
}

/// `/dev/a`, `/dev/a:/dev/b`, `/dev/a:/dev/b:rwm`, `/dev/a:rw`.
pub(super) fn devices(service: &Service) -> Vec<DeviceSpec> {
    service.devices.iter().filter(|text| qualified(text).is_none()).map(|text| device(text)).collect()
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
    let (target, permissions) = (target.into(), permissions.into());
    DeviceSpec { source: source.into(), target, permissions, ..DeviceSpec::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_names_of_devices() {
        assert!(is_qualified("nvidia.com/gpu=all") && is_qualified("vendor.com/net-dev=0:1"));
        for plain in ["/dev/dri", "/dev/a=b", "nvidia.com/gpu", "gpu=0", "=", "a/b="] {
            assert!(!is_qualified(plain), "{plain}");
        }
        assert_eq!(qualified("a.b/c=0:1:a.b/c=0:1:rwm"), Some("a.b/c=0:1"));
        assert_eq!(qualified("a.b/c=0"), Some("a.b/c=0"));
        assert_eq!(qualified("/dev/null:/dev/null:rwm"), None);
    }
}
