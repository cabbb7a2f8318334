//! Which attribute of a service changed since its container was made.
//!
//! A container carries short digests of its service's attributes in a label ([`super::label::PARTS`]). They only
//! explain; whether a container is replaced is decided by the fingerprint alone.

use super::label;
use sha2::{Digest, Sha256};
use stack_runtime::spec::Map;
use stack_schema::project::Service;
use std::collections::BTreeMap;
use std::fmt::Debug;

type Parts = BTreeMap<String, String>;

/// The label's text: `{"environment.FOO":"1f…","ports":"93…"}`, attributes at their default left out.
pub fn label_of(service: &Service) -> String {
    serde_json::to_string(&parts(service)).expect("strings serialise")
}

/// Phrases such as `environment FOO changed`; never empty.
pub fn between(labels: &Map, service: &Service) -> Vec<String> {
    let is_ours = label::of(labels, label::VERSION) == label::TOOL_VERSION;
    let old: Option<Parts> = serde_json::from_str(label::of(labels, label::PARTS)).ok();
    let changes = match old {
        Some(old) if is_ours => compare(&old, &parts(service)),
        _ => Vec::new(),
    };
    if changes.is_empty() { vec!["configuration changed".into()] } else { changes }
}

fn compare(old: &Parts, new: &Parts) -> Vec<String> {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().filter_map(|key| phrase(key, old.get(key), new.get(key))).collect()
}

fn phrase(key: &str, old: Option<&String>, new: Option<&String>) -> Option<String> {
    let word = match (old, new) {
        (Some(old), Some(new)) if old == new => return None,
        (Some(_), Some(_)) => "changed",
        (None, _) => "added",
        (_, None) => "removed",
    };
    Some(format!("{} {word}", key.replacen('.', " ", 1)))
}

fn parts(service: &Service) -> Parts {
    let mut parts = Parts::new();
    attributes(&mut parts, service);
    for (name, value) in &service.environment {
        parts.insert(format!("environment.{name}"), digest(value));
    }
    for (name, value) in &service.labels {
        parts.insert(format!("labels.{name}"), digest(value));
    }
    parts
}

/// Every attribute that the fingerprint covers, environment and labels apart.
macro_rules! attributes {
    ($($name:ident),* $(,)?) => {
        fn attributes(parts: &mut Parts, service: &Service) {
            let plain = Service::default();
            $(put(parts, stringify!($name), &service.$name, &plain.$name);)*
        }
    };
}

attributes!(
    annotations,
    attach,
    cap_add,
    cap_drop,
    cgroup,
    command,
    configs,
    container_name,
    devices,
    dns,
    dns_opt,
    dns_search,
    domainname,
    entrypoint,
    expose,
    external_links,
    extra_hosts,
    group_add,
    healthcheck,
    hostname,
    image,
    init,
    ipc,
    links,
    logging,
    network_mode,
    networks,
    oom_score_adj,
    pid,
    platform,
    ports,
    privileged,
    read_only,
    resources,
    restart,
    secrets,
    security_opt,
    shm_size,
    stdin_open,
    stop_grace_period,
    stop_signal,
    sysctls,
    tmpfs,
    tty,
    ulimits,
    user,
    userns_mode,
    uts,
    volumes,
    volumes_from,
    working_dir,
);

fn put<T: Debug>(parts: &mut Parts, name: &str, value: &T, plain: &T) {
    let (value, plain) = (format!("{value:?}"), format!("{plain:?}"));
    if value != plain {
        parts.insert(name.to_string(), digest_of(&value));
    }
}

fn digest<T: Debug>(value: &T) -> String {
    digest_of(&format!("{value:?}"))
}

/// Eight hex digits: enough to tell an old value from a new one.
fn digest_of(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(service: &Service) -> Map {
        let pairs = [(label::PARTS, label_of(service)), (label::VERSION, label::TOOL_VERSION.to_string())];
        pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
    }

    fn with_env(value: &str) -> Service {
        let environment = [("FOO".to_string(), Some(value.to_string()))].into_iter().collect();
        Service { environment, ..Service::default() }
    }

    #[test]
    fn a_variable_is_named() {
        assert_eq!(between(&labels(&with_env("1")), &with_env("2")), ["environment FOO changed"]);
        assert_eq!(between(&labels(&with_env("1")), &Service::default()), ["environment FOO removed"]);
        assert_eq!(between(&labels(&Service::default()), &with_env("1")), ["environment FOO added"]);
    }

    #[test]
    fn an_attribute_is_named() {
        let new = Service { command: Some(vec!["sh".into()]), ..Service::default() };
        assert_eq!(between(&labels(&Service::default()), &new), ["command added"]);
    }

    #[test]
    fn without_the_label_the_answer_is_general() {
        assert_eq!(between(&Map::new(), &with_env("1")), ["configuration changed"]);
    }
}
