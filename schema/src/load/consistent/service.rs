//! Rules about one service alone.

use super::{Found, Service, number};
use crate::diagnostic::Diagnostic;
use crate::source::Place;
use crate::yaml::{Node, Value};
use std::collections::HashMap;

pub(super) fn scale(service: &Service<'_>, found: &mut Found) {
    let (scale, replicas) = (number(service.find("scale")), number(service.find("deploy.replicas")));
    for (path, count) in [("scale", scale), ("deploy.replicas", replicas)] {
        if count.is_some_and(|count| count < 0) {
            found.push(service.error(path, format!("`{}.{path}` must not be negative", service.path())));
        }
        if count.is_some_and(|count| count > 1) && service.text("container_name").is_some() {
            let message =
                format!("service `{}` cannot have a container name and more than one container", service.key);
            found.push(
                service
                    .error("container_name", message)
                    .hint(format!("Remove `container_name` or `{path}`.")),
            );
        }
    }
    if let (Some(scale), Some(replicas)) = (scale, replicas)
        && scale != replicas
    {
        let message =
            format!("service `{}` has `scale: {scale}` and `deploy.replicas: {replicas}`", service.key);
        found.push(service.error("scale", message).hint("Write one of them, or both the same."));
    }
}

pub(super) fn limits(service: &Service<'_>, found: &mut Found) {
    for (short, owner, long) in [
        ("cpus", "deploy.resources.limits", "cpus"),
        ("mem_limit", "deploy.resources.limits", "memory"),
        ("pids_limit", "deploy.resources.limits", "pids"),
        ("mem_reservation", "deploy.resources.reservations", "memory"),
    ] {
        let (Some(mine), Some(owner_node)) = (service.find(short), service.find(owner)) else { continue };
        let theirs = owner_node.get(long);
        let is_unset = matches!(&mine.value, Value::Int(0)) || mine.as_str() == Some("0");
        if !is_unset && theirs.map(|node| &node.value) != Some(&mine.value) {
            let message =
                format!("service `{}` says different things in `{short}` and `{owner}.{long}`", service.key);
            let place = theirs.unwrap_or(owner_node).place.clone();
            found.push(
                service
                    .error(short, message)
                    .related(place, "the other one")
                    .hint("Write one of them, or both the same."),
            );
        }
    }
}

/// What cannot last less than nothing.
const DURATIONS: [&str; 7] = [
    "stop_grace_period",
    "healthcheck.interval",
    "healthcheck.timeout",
    "healthcheck.start_period",
    "healthcheck.start_interval",
    "deploy.restart_policy.delay",
    "deploy.restart_policy.window",
];

pub(super) fn durations(service: &Service<'_>, refused: &mut Found) {
    for path in DURATIONS {
        if let Some(text) = service.text(path).filter(|text| text.starts_with('-')) {
            let name = path.rsplit('.').next().unwrap_or(path);
            refused.push(service.error(path, format!("`{name}` cannot be {text}: it is negative")));
        }
    }
}

pub(super) fn healthcheck(service: &Service<'_>, found: &mut Found) {
    let Some(check) = service.node.get("healthcheck") else { return };
    let words = check.get("test").and_then(Node::as_seq).unwrap_or_default();
    let words: Vec<&str> = words.iter().filter_map(Node::as_str).collect();
    let Some((first, rest)) = words.split_first() else { return };
    let form = match *first {
        "CMD" | "CMD-SHELL" | "NONE" => return,
        "HTTP" => "`[HTTP, \"http://host:port/path\"]`",
        "TCP" => "`[TCP, \"[host:]port\"]`",
        "GRPC" => "`[GRPC, \"[host:]port\"]`, with a service name behind it if one is meant",
        "LOG" => "`[LOG, \"text\"]`, with a number of lines behind it if more than one is meant",
        _ => {
            let message = "a health check's test begins with `CMD`, `CMD-SHELL` or `NONE`";
            let hint = "Or it is one of the built-in ones: `HTTP`, `TCP`, `GRPC`, `LOG`.";
            return found.push(service.error("healthcheck.test", message).hint(hint));
        }
    };
    if !is_built_in(first, rest) {
        found.push(service.error("healthcheck.test", format!("a built-in probe has the form {form}")));
    }
}

fn is_built_in(kind: &str, rest: &[&str]) -> bool {
    // `80`, `localhost:80`, `127.0.0.1:80`, `[::1]:80`: names of others are nothing to probe oneself by.
    let is_address = |text: &str| {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_own = matches!(host, "" | "localhost") || host.parse::<std::net::IpAddr>().is_ok();
        is_own && port.parse::<u16>().is_ok()
    };
    let is_url = |url: &str| {
        let authority = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        authority.is_some_and(|a| is_address(a) || is_address(&format!("{a}:80")))
    };
    match (kind, rest) {
        ("HTTP", [url]) => is_url(url),
        ("TCP", [address]) | ("GRPC", [address] | [address, _]) => is_address(address),
        ("LOG", [text]) => !text.is_empty(),
        ("LOG", [text, count]) => !text.is_empty() && count.parse::<u32>().is_ok_and(|count| count > 0),
        _ => false,
    }
}

pub(super) fn ports(service: &Service<'_>, found: &mut Found) {
    for (index, port) in service.find("ports").and_then(Node::as_seq).unwrap_or_default().iter().enumerate() {
        let path = format!("{}.ports[{index}]", service.path());
        let error = |message: String, node: &Node| {
            Diagnostic::error(message).at(node.place.clone()).key(path.clone())
        };
        match port.get("target") {
            None => found
                .push(error(format!("a published port of service `{}` has no `target`", service.key), port)),
            Some(target) if !number(Some(target)).is_some_and(|target| (1..=65535).contains(&target)) => {
                found.push(error("a port is from 1 to 65535".into(), target));
            }
            Some(_) => {}
        }
        if let Some(node) = port.get("host_ip")
            && node.as_str().is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_err())
        {
            found.push(error(format!("`{}` is no IP address", node.as_str().unwrap_or_default()), node));
        }
    }
}

/// The published port of the long form is a text like any other until something listens on it.
pub(super) fn published(service: &Service<'_>, refused: &mut Found) {
    for (index, port) in service.find("ports").and_then(Node::as_seq).unwrap_or_default().iter().enumerate() {
        let published = port.get("published").and_then(|node| Some((node, node.as_str()?)));
        if let Some((node, text)) = published.filter(|(_, text)| !is_port_range(text)) {
            let message = format!("`{text}` is no port or range of ports");
            let path = format!("{}.ports[{index}]", service.path());
            refused.push(Diagnostic::error(message).at(node.place.clone()).key(path));
        }
    }
}

fn is_port_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    text.is_empty()
        || matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last)
}

pub(super) fn mounts(service: &Service<'_>, found: &mut Found) {
    let mut seen: HashMap<String, Place> = HashMap::new();
    for (index, mount) in
        service.find("volumes").and_then(Node::as_seq).unwrap_or_default().iter().enumerate()
    {
        let path = format!("{}.volumes[{index}]", service.path());
        let error = |message: String| Diagnostic::error(message).at(mount.place.clone()).key(path.clone());
        let kind = mount.get("type").and_then(Node::as_str).unwrap_or_default();
        let Some(target) = mount.get("target").and_then(Node::as_str).filter(|target| !target.is_empty())
        else {
            found.push(error(format!("a mount of service `{}` has no `target`", service.key)));
            continue;
        };
        if kind == "bind" && mount.get("source").and_then(Node::as_str).is_none_or(str::is_empty) {
            found.push(error("a bind has no `source`".into()));
        }
        if let Some(first) = seen.get(target) {
            let message = format!("service `{}` mounts two things at `{target}`", service.key);
            found.push(error(message).related(first.clone(), "the other one"));
        }
        seen.insert(target.to_owned(), mount.place.clone());
    }
    for (index, item) in service.find("tmpfs").and_then(Node::as_seq).unwrap_or_default().iter().enumerate() {
        let target = item.as_str().unwrap_or_default().split(':').next().unwrap_or_default();
        if let Some(first) = seen.insert(crate::short::clean_path(target), item.place.clone()) {
            let message = format!("service `{}` mounts two things at `{target}`", service.key);
            let diagnostic = Diagnostic::error(message)
                .at(item.place.clone())
                .key(format!("{}.tmpfs[{index}]", service.path()));
            found.push(diagnostic.related(first, "the other one"));
        }
    }
}

pub(super) fn watch(service: &Service<'_>, found: &mut Found) {
    for (index, rule) in
        service.find("develop.watch").and_then(Node::as_seq).unwrap_or_default().iter().enumerate()
    {
        let path = format!("{}.develop.watch[{index}]", service.path());
        let error = |message: String| Diagnostic::error(message).at(rule.place.clone()).key(path.clone());
        let action = rule.get("action").and_then(Node::as_str).unwrap_or_default();
        let has =
            |key: &str| rule.get(key).and_then(Node::as_str).is_some_and(|text| !text.trim().is_empty());
        if !has("path") {
            found.push(error("a watch rule has no `path`".into()));
        }
        if !matches!(action, "rebuild" | "restart") && !has("target") {
            found.push(error(format!("the action `{action}` needs a `target`")));
        }
    }
}

pub(super) fn policies(service: &Service<'_>, found: &mut Found) {
    if let Some(policy) = service.text("pull_policy")
        && !is_pull_policy(policy)
    {
        let hint = "It is `always`, `never`, `missing`, `build`, `daily`, `weekly` or `every_<duration>`.";
        found.push(service.error("pull_policy", format!("`{policy}` is no pull policy")).hint(hint));
    }
}

pub(super) fn restart(service: &Service<'_>, found: &mut Found) {
    if let Some(restart) = service.text("restart") {
        let (word, count) =
            restart.split_once(':').map_or((restart, None), |(word, count)| (word, Some(count)));
        let fits = match (word, count) {
            ("no" | "always" | "unless-stopped" | "on-failure" | "", None) => true,
            ("on-failure", Some(count)) => count.parse::<u32>().is_ok(),
            _ => false,
        };
        if !fits {
            let hint = "It is `no`, `always`, `on-failure`, `on-failure:N` or `unless-stopped`.";
            found.push(service.error("restart", format!("`{restart}` is no restart policy")).hint(hint));
        }
    }
    if let Some(condition) = service.text("deploy.restart_policy.condition")
        && !matches!(condition, "none" | "any" | "on-failure" | "always" | "unless-stopped" | "no")
    {
        let message = format!("`{condition}` is no restart condition");
        found.push(
            service
                .error("deploy.restart_policy.condition", message)
                .hint("It is `none`, `on-failure` or `any`."),
        );
    }
}

fn is_pull_policy(policy: &str) -> bool {
    matches!(
        policy,
        "always" | "never" | "missing" | "if_not_present" | "build" | "refresh" | "daily" | "weekly"
    ) || policy.strip_prefix("every_").is_some_and(|every| crate::short::parse_duration(every).is_ok())
}

pub(super) fn device_requests(service: &Service<'_>, found: &mut Found) {
    for path in ["gpus", "deploy.resources.reservations.devices"] {
        for request in service.find(path).and_then(Node::as_seq).unwrap_or_default() {
            let has = |key: &str| request.get(key).is_some();
            let at = |message: &str| {
                Diagnostic::error(message).at(request.place.clone()).key(format!("{}.{path}", service.path()))
            };
            if has("count") && has("device_ids") {
                found.push(at("a device request has either `count` or `device_ids`"));
            }
            if path != "gpus" && !has("capabilities") {
                found.push(at("a device request needs `capabilities`"));
            }
        }
    }
}
