//! Which services are meant: profiles, names on the command line, and what these depend on; and what the others leave unused.

use super::LoadRequest;
use crate::diagnostic::Diagnostic;
use crate::keypath::KeyPath;
use crate::source::Place;
use crate::yaml::{Map, Node};
use std::collections::HashSet;

/// Keys, in the user's order.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// A profile makes them part of the project.
    pub(super) enabled: Vec<String>,
    /// Of these, the ones asked for and what they depend on.
    pub(super) services: Vec<String>,
}

pub(super) fn select(tree: &mut Node, request: &LoadRequest, diagnostics: &mut Vec<Diagnostic>) -> Selection {
    let empty = Map::default();
    let services = tree.get("services").and_then(Node::as_map).unwrap_or(&empty);
    let mut active: HashSet<&str> = request.profiles.iter().map(String::as_str).collect();
    for name in &request.services {
        match services.get(name) {
            Some(service) => active.extend(profiles(service)),
            None => diagnostics.push(no_such_service(name, services)),
        }
    }
    let is_enabled = |service: &Node| {
        let mut own = profiles(service).peekable();
        request.no_interpolate
            || own.peek().is_none()
            || active.contains("*")
            || own.any(|profile| {
                active.contains(profile) || (profile.is_empty() && request.profiles.is_empty())
            })
    };
    let enabled: Vec<String> =
        services.iter().filter(|(_, entry)| is_enabled(&entry.node)).map(|(key, _)| key.to_owned()).collect();
    let named = if request.no_interpolate { &[][..] } else { &request.services };
    let chosen = closure(services, &enabled, named);
    let kept = enabled.iter().filter(|key| chosen.contains(key.as_str())).cloned().collect();
    Selection { enabled, services: kept }
}

fn profiles(service: &Node) -> impl Iterator<Item = &str> {
    service.get("profiles").and_then(Node::as_seq).unwrap_or_default().iter().filter_map(Node::as_str)
}

fn no_such_service(name: &str, services: &Map) -> Diagnostic {
    let diagnostic = Diagnostic::error(format!("no such service: {name}"));
    match super::fit::nearest(name, services.keys()) {
        Some(near) => diagnostic.hint(format!("Did you mean `{near}`?")),
        None => diagnostic,
    }
}

/// The named services and their dependencies; all enabled ones when none is named.
fn closure<'t>(services: &'t Map, enabled: &'t [String], named: &'t [String]) -> HashSet<&'t str> {
    if named.is_empty() {
        return enabled.iter().map(String::as_str).collect();
    }
    let mut chosen = HashSet::new();
    let mut open: Vec<&str> = named.iter().map(String::as_str).collect();
    while let Some(key) = open.pop() {
        if chosen.insert(key) {
            let dependencies =
                services.get(key).and_then(|service| service.get("depends_on")).and_then(Node::as_map);
            open.extend(dependencies.iter().flat_map(|dependencies| dependencies.keys()));
        }
    }
    chosen
}

/// Takes the services that are not selected out of the tree, and the resources that nobody uses then.
pub(super) fn split(tree: &mut Node, selection: &Selection, keep_resources: bool) -> Map {
    let mut disabled = Map::default();
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        let kept: HashSet<&str> = selection.services.iter().map(String::as_str).collect();
        let keys: Vec<String> =
            services.keys().filter(|key| !kept.contains(key)).map(str::to_owned).collect();
        for key in keys {
            if let Some(entry) = services.remove(&key) {
                disabled.insert(key, entry);
            }
        }
    }
    if !keep_resources {
        prune(tree);
    }
    disabled
}

fn prune(tree: &mut Node) {
    let empty = Map::default();
    let mut used: HashSet<(&'static str, String)> = HashSet::new();
    for (_, entry) in tree.get("services").and_then(Node::as_map).unwrap_or(&empty).iter() {
        used.extend(references(&entry.node).into_iter().map(|reference| (reference.section, reference.key)));
    }
    for section in ["networks", "volumes", "secrets", "configs", "models"] {
        if let Some(resources) = tree.get_mut(section).and_then(Node::as_map_mut) {
            resources.retain(|key, _| used.contains(&(section, key.to_owned())));
        }
    }
}

/// A service's use of a resource.
pub(super) struct Reference {
    /// `networks`, `volumes`, `secrets`, `configs` or `models`.
    pub(super) section: &'static str,
    pub(super) key: String,
    pub(super) place: Place,
    /// Below the service.
    pub(super) path: KeyPath,
}

/// Every resource a service names.
pub(super) fn references(service: &Node) -> Vec<Reference> {
    let mut found = Vec::new();
    for section in ["networks", "models"] {
        for (key, entry) in service.get(section).and_then(Node::as_map).into_iter().flat_map(Map::iter) {
            let path = KeyPath::root().key(section).key(key);
            found.push(Reference { section, key: key.to_owned(), place: entry.key.clone(), path });
        }
    }
    let root = KeyPath::root();
    sources(service, "secrets", &root, &mut found);
    sources(service, "configs", &root, &mut found);
    sources(service, "volumes", &root, &mut found);
    if let Some(build) = service.get("build") {
        sources(build, "secrets", &root.key("build"), &mut found);
    }
    found
}

/// The `source` of each item; of mounts only those of volumes.
fn sources(owner: &Node, section: &'static str, path: &KeyPath, found: &mut Vec<Reference>) {
    for (index, item) in owner.get(section).and_then(Node::as_seq).unwrap_or_default().iter().enumerate() {
        let is_used = section != "volumes" || item.get("type").and_then(Node::as_str) == Some("volume");
        let source = item.get("source").filter(|source| source.as_str().is_some());
        let key = source.and_then(Node::as_str).unwrap_or_default();
        // A volume without a source is anonymous.
        if is_used && !(section == "volumes" && key.is_empty()) {
            let (place, path) = (source.unwrap_or(item).place.clone(), path.key(section).index(index));
            found.push(Reference { section, key: key.to_owned(), place, path });
        }
    }
}
