//! What Compose adds to what was written: defaults, the default network, implied dependencies, resource names.

use super::canonical;
use crate::diagnostic::Diagnostic;
use crate::short;
use crate::source::Place;
use crate::yaml::{Entry, Map, Node, Value};

const SECTIONS: [&str; 4] = ["networks", "volumes", "secrets", "configs"];

pub(super) fn normalise(tree: &mut Node, project: &str, diagnostics: &mut Vec<Diagnostic>) {
    let mut uses_default = false;
    let mut place = tree.place.clone();
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        for (_, entry) in services.iter_mut() {
            let service = &mut entry.node;
            if let Some(map) = service.as_map_mut() {
                uses_default |= default_network(map, &entry.key);
                place = entry.key.clone();
                service_defaults(map);
                implied_dependencies(map);
            }
        }
    }
    if uses_default {
        declare_default(tree, &place);
    }
    for section in SECTIONS {
        resource_names(tree, section, project, diagnostics);
    }
}

/// Joins the default network when none is named; true when the service then uses it.
fn default_network(service: &mut Map, place: &Place) -> bool {
    let has_mode = service.get("network_mode").and_then(Node::as_str).is_some_and(|mode| !mode.is_empty());
    if has_mode || service.contains_key("provider") {
        return false;
    }
    let is_empty = service.get("networks").is_none_or(|node| node.as_map().is_none_or(Map::is_empty));
    if is_empty {
        let mut networks = Map::default();
        networks.set("default", Node::new(Value::Null, place.clone()));
        service.set("networks", Node::new(Value::Map(networks), place.clone()));
    }
    service.get("networks").is_some_and(|node| node.get("default").is_some())
}

fn declare_default(tree: &mut Node, place: &Place) {
    let Some(map) = tree.as_map_mut() else { return };
    if map.get("networks").and_then(Node::as_map).is_none() {
        map.set("networks", Node::map(place.clone()));
    }
    let networks = map.get_mut("networks").and_then(Node::as_map_mut);
    if let Some(networks) = networks.filter(|networks| !networks.contains_key("default")) {
        networks.set("default", Node::map(place.clone()));
    }
}

/// Sets a member that is not there.
fn default(map: &mut Map, key: &str, value: Value, place: &Place) {
    if map.get(key).is_none_or(Node::is_null) {
        map.set(key, Node::new(value, place.clone()));
    }
}

fn each_item(map: &mut Map, key: &str, mut fill: impl FnMut(&mut Map, &Place)) {
    for item in map.get_mut(key).and_then(Node::as_seq_mut).into_iter().flatten() {
        let place = item.place.clone();
        if let Some(map) = item.as_map_mut() {
            fill(map, &place);
        }
    }
}

/// Members that a long form has without being written; also with `--no-normalize`.
pub(super) fn defaults(tree: &mut Node, verbatim: bool) {
    if !verbatim {
        typed_defaults(tree);
    }
    let services = tree.get_mut("services").and_then(Node::as_map_mut);
    for (_, entry) in services.into_iter().flat_map(Map::iter_mut) {
        if let Some(service) = entry.node.as_map_mut() {
            member_defaults(service);
        }
    }
}

/// What a resource or service is once its values have types.
fn typed_defaults(tree: &mut Node) {
    for section in SECTIONS {
        let resources = tree.get_mut(section).and_then(Node::as_map_mut);
        for (_, entry) in
            resources.into_iter().flat_map(Map::iter_mut).filter(|(_, entry)| entry.node.is_null())
        {
            entry.node.value = Value::Map(Map::default());
        }
    }
    let services = tree.get_mut("services").and_then(Node::as_map_mut);
    for (_, entry) in services.into_iter().flat_map(Map::iter_mut) {
        let options = entry.node.get_mut("provider").and_then(|provider| provider.get_mut("options"));
        let options = options.and_then(Node::as_map_mut).into_iter().flat_map(Map::iter_mut);
        options.for_each(|(_, option)| canonical::texts(&mut option.node));
        let scale = entry.node.get("scale").cloned();
        let deploy = entry.node.get_mut("deploy").and_then(Node::as_map_mut);
        if let (Some(scale), Some(deploy)) = (scale, deploy) {
            default(deploy, "replicas", scale.value, &scale.place);
        }
    }
}

fn member_defaults(service: &mut Map) {
    let string = |text: &str| Value::Str(text.to_owned());
    each_item(service, "ports", |port, place| {
        default(port, "mode", string("ingress"), place);
        default(port, "protocol", string("tcp"), place);
    });
    each_item(service, "secrets", |secret, place| {
        if let Some(source) = secret.get("source").and_then(Node::as_str).map(str::to_owned) {
            default(secret, "target", Value::Str(format!("/run/secrets/{source}")), place);
        }
    });
    each_item(service, "env_file", |file, place| default(file, "required", Value::Bool(true), place));
    each_item(service, "gpus", device_count);
    depends_on_defaults(service);
    let reservations = service
        .get_mut("deploy")
        .and_then(|n| n.get_mut("resources"))
        .and_then(|n| n.get_mut("reservations"));
    if let Some(reservations) = reservations.and_then(Node::as_map_mut) {
        each_item(reservations, "devices", device_count);
        each_item(reservations, "generic_resources", |resource, place| {
            let spec = resource.get_mut("discrete_resource_spec").and_then(Node::as_map_mut);
            for spec in spec.into_iter() {
                default(spec, "kind", string(""), place);
                default(spec, "value", Value::Int(0), place);
            }
        });
    }
}

fn service_defaults(service: &mut Map) {
    if let Some(policy) =
        service.get_mut("pull_policy").filter(|policy| policy.as_str() == Some("if_not_present"))
    {
        policy.value = Value::Str("missing".into());
    }
    // After the merge: there, `/a` and `/a/` were two places.
    each_item(service, "volumes", |volume, _| {
        if let Some(Value::Str(target)) = volume.get_mut("target").map(|target| &mut target.value) {
            *target = short::clean_path(target);
        }
    });
    build_defaults(service);
}

fn device_count(request: &mut Map, place: &Place) {
    if !request.contains_key("device_ids") {
        default(request, "count", Value::Int(-1), place);
    }
}

fn build_defaults(service: &mut Map) {
    let Some(place) = service.get("build").map(|build| build.place.clone()) else { return };
    let Some(build) = service.get_mut("build").and_then(Node::as_map_mut) else { return };
    if !build.contains_key("dockerfile_inline") {
        default(build, "dockerfile", Value::Str("Dockerfile".into()), &place);
    }
    match build.get_mut("args").map(|args| &mut args.value) {
        Some(Value::Map(args)) => args.retain(|_, entry| !entry.node.is_null()),
        Some(Value::Seq(args)) => args.retain(|arg| arg.as_str().is_none_or(|text| text.contains('='))),
        _ => {}
    }
    // A list of which nothing is left is null to docker compose, a mapping is not.
    if let Some(args) = build.get_mut("args").filter(|args| args.as_seq().is_some_and(<[_]>::is_empty)) {
        args.value = Value::Null;
    }
}

fn depends_on_defaults(service: &mut Map) {
    for (_, entry) in
        service.get_mut("depends_on").and_then(Node::as_map_mut).into_iter().flat_map(Map::iter_mut)
    {
        let place = entry.node.place.clone();
        if let Some(dependency) = entry.node.as_map_mut() {
            default(dependency, "required", Value::Bool(true), &place);
        }
    }
}

/// Links, `service:` namespaces and volumes_from need the other service to be there first.
fn implied_dependencies(service: &mut Map) {
    let mut implied: Vec<(String, Place, bool)> = Vec::new();
    for item in service.get("links").and_then(Node::as_seq).unwrap_or_default() {
        if let Some(text) = item.as_str() {
            let name =
                text.split_once(':').filter(|(_, alias)| !alias.contains(':')).map_or(text, |(name, _)| name);
            implied.push((name.to_owned(), item.place.clone(), true));
        }
    }
    for mode in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let node = service.get(mode);
        if let Some((node, name)) =
            node.and_then(|node| Some((node, node.as_str()?.strip_prefix("service:")?)))
        {
            implied.push((name.to_owned(), node.place.clone(), true));
        }
    }
    for item in service.get("volumes_from").and_then(Node::as_seq).unwrap_or_default() {
        if let Some(text) = item.as_str().filter(|text| !text.starts_with("container:")) {
            implied.push((text.split(':').next().unwrap_or(text).to_owned(), item.place.clone(), false));
        }
    }
    for (name, place, restart) in implied {
        depend(service, name, &place, restart);
    }
}

fn depend(service: &mut Map, name: String, place: &Place, restart: bool) {
    if service.get("depends_on").and_then(Node::as_map).is_none() {
        service.set("depends_on", Node::map(place.clone()));
    }
    let Some(dependencies) = service.get_mut("depends_on").and_then(Node::as_map_mut) else { return };
    if dependencies.contains_key(&name) {
        return;
    }
    let mut dependency = Map::default();
    dependency.set("condition", Node::str("service_started", place.clone()));
    if restart {
        dependency.set("restart", Node::new(Value::Bool(true), place.clone()));
    }
    dependency.set("required", Node::new(Value::Bool(true), place.clone()));
    dependencies
        .insert(name, Entry { key: place.clone(), node: Node::new(Value::Map(dependency), place.clone()) });
}

/// `<project>_<key>` unless named; an external resource has its key as name.
fn resource_names(tree: &mut Node, section: &str, project: &str, diagnostics: &mut Vec<Diagnostic>) {
    let Some(resources) = tree.get_mut(section).and_then(Node::as_map_mut) else { return };
    for (key, entry) in resources.iter_mut() {
        let place = entry.key.clone();
        if entry.node.is_null() {
            entry.node.value = Value::Map(Map::default());
        }
        let is_external = entry.node.get("external").and_then(Node::as_bool).unwrap_or(false);
        let Some(resource) = entry.node.as_map_mut() else { continue };
        if section == "volumes" && is_external {
            let others =
                resource.iter().find(|(k, _)| !matches!(*k, "name" | "external") && !k.starts_with("x-"));
            if let Some((other, entry)) = others {
                let message = format!("the external volume `{key}` cannot have the attribute `{other}`");
                let path = format!("volumes.{key}.{other}");
                diagnostics.push(Diagnostic::error(message).at(entry.key.clone()).key(path));
            }
        }
        let name = if is_external { key.to_owned() } else { format!("{project}_{key}") };
        default(resource, "name", Value::Str(name), &place);
    }
}
