//! Does the whole make sense? References, exclusions, cycles. Only services that a profile enables are judged.

mod service;

use super::select::{Selection, references};
use crate::diagnostic::Diagnostic;
use crate::keypath::KeyPath;
use crate::source::Place;
use crate::yaml::{Map, Node, Value};
use std::collections::{HashMap, HashSet};

/// Reports what makes the file invalid, and returns what only makes it impossible to create containers.
/// With `broken` (something did not fit the table) only references are judged: the rest would repeat what is known.
pub(super) fn check(
    tree: &Node,
    selection: &Selection,
    default_platform: Option<&str>,
    broken: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    let empty = Map::default();
    let services = tree.get("services").and_then(Node::as_map).unwrap_or(&empty);
    let enabled = selection.enabled.iter().map(String::as_str).collect();
    let checker = Checker { tree, services, selection, enabled, default_platform };
    let mut found = Vec::new();
    let mut refused = Vec::new();
    for key in &selection.enabled {
        if let Some(entry) = services.entry(key) {
            let service = Service { key, node: &entry.node, place: &entry.key };
            checker.references(&service, &mut found);
            checker.dependencies(&service, &mut found);
            if !broken {
                checker.service(&service, &mut found);
                checker.refusals(&service, &mut refused);
            }
        }
    }
    checker.cycles(&mut found);
    if !broken {
        checker.host_ports(&mut refused);
        checker.container_names(&mut found);
        checker.file_objects(&mut found);
    }
    diagnostics.append(&mut found);
    refused
}

struct Checker<'t> {
    tree: &'t Node,
    services: &'t Map,
    selection: &'t Selection,
    enabled: HashSet<&'t str>,
    /// From DOCKER_DEFAULT_PLATFORM.
    default_platform: Option<&'t str>,
}

struct Service<'t> {
    key: &'t str,
    node: &'t Node,
    place: &'t Place,
}

impl Service<'_> {
    fn path(&self) -> KeyPath {
        KeyPath::root().key("services").key(self.key)
    }

    /// A value at a dotted path below the service.
    fn find(&self, path: &str) -> Option<&Node> {
        path.split('.').try_fold(self.node, |node, key| node.get(key))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.find(path).and_then(Node::as_str)
    }

    fn error(&self, path: &str, message: impl Into<String>) -> Diagnostic {
        let place = self.find(path).map_or(self.place, |node| &node.place);
        Diagnostic::error(message).at(place.clone()).key(format!("{}.{path}", self.path()))
    }
}

type Found = Vec<Diagnostic>;

impl Checker<'_> {
    fn service(&self, service: &Service<'_>, found: &mut Found) {
        self.image_or_build(service, found);
        self.build(service, found);
        self.network_mode(service, found);
        service::scale(service, found);
        service::limits(service, found);
        service::healthcheck(service, found);
        service::ports(service, found);
        service::mounts(service, found);
        service::watch(service, found);
        service::policies(service, found);
        service::device_requests(service, found);
    }

    /// Valid for `docker compose config`, and an error of the engine as soon as a container is created.
    fn refusals(&self, service: &Service<'_>, refused: &mut Found) {
        service::restart(service, refused);
        self.default_platform(service, refused);
        service::durations(service, refused);
        service::published(service, refused);
        if let Some(name) =
            service.text("container_name").filter(|name| has_container_name(name) && !is_container_name(name))
        {
            let hint = "It begins with a letter or digit and goes on with these, `_`, `.` and `-`.";
            refused.push(
                service.error("container_name", format!("`{name}` cannot be a container name")).hint(hint),
            );
        }
        if service.find("healthcheck.start_interval").is_some()
            && service.find("healthcheck.start_period").is_none()
        {
            refused.push(service.error(
                "healthcheck.start_interval",
                "`start_interval` has a meaning only with `start_period`",
            ));
        }
        for (index, mount) in
            service.find("volumes").and_then(Node::as_seq).unwrap_or_default().iter().enumerate()
        {
            let kind = mount.get("type").and_then(Node::as_str).unwrap_or_default();
            if matches!(kind, "npipe" | "cluster") {
                let message = format!("mounts of type `{kind}` do not exist on Linux");
                refused.push(
                    Diagnostic::error(message)
                        .at(mount.place.clone())
                        .key(format!("{}.volumes[{index}]", service.path())),
                );
            }
        }
        for reference in references(service.node)
            .iter()
            .filter(|reference| matches!(reference.section, "secrets" | "configs"))
        {
            let object = self.tree.get(reference.section).and_then(|objects| objects.get(&reference.key));
            if let Some(reason) = object.and_then(|object| refused_object(object, reference.section, service))
            {
                let kind = reference.section.trim_end_matches('s');
                let message =
                    format!("service `{}` cannot have the {kind} `{}`: {reason}", service.key, reference.key);
                let path =
                    reference.path.steps().iter().fold(service.path(), |path, step| path.then(step.clone()));
                refused.push(Diagnostic::error(message).at(reference.place.clone()).key(path.to_string()));
            }
        }
    }

    fn image_or_build(&self, service: &Service<'_>, found: &mut Found) {
        let has = |key: &str| service.node.get(key).is_some();
        let image = service.text("image").is_some_and(|image| !image.is_empty());
        if !image && !has("build") && !has("provider") {
            let message = format!("service `{}` has neither an image nor a build", service.key);
            let diagnostic =
                Diagnostic::error(message).at(service.place.clone()).key(service.path().to_string());
            found.push(diagnostic.hint("Give it `image:` or `build:`."));
        }
    }

    fn build(&self, service: &Service<'_>, found: &mut Found) {
        let Some(build) = service.node.get("build") else { return };
        if build.get("dockerfile_inline").is_some() && build.get("dockerfile").is_some() {
            let message = format!("service `{}` has both `dockerfile` and `dockerfile_inline`", service.key);
            found.push(service.error("build.dockerfile_inline", message));
        }
        let platforms: Vec<&str> = texts(build.get("platforms")).collect();
        if let Some(platform) =
            service.text("platform").filter(|p| !platforms.is_empty() && !platforms.contains(p))
        {
            let message = format!("`build.platforms` must contain the service's platform `{platform}`");
            found.push(service.error("build.platforms", message));
        }
        let contexts = build.get("additional_contexts").and_then(Node::as_map);
        for (name, entry) in contexts.into_iter().flat_map(Map::iter) {
            let Some(other) = entry.node.as_str().and_then(|text| text.strip_prefix("service:")) else {
                continue;
            };
            let reason = match self.services.get(other) {
                None => "unknown",
                Some(other) if other.get("build").is_none() => "never built",
                Some(_) => continue,
            };
            let message = format!(
                "the context `{name}` of service `{}` is service `{other}`, which is {reason}",
                service.key
            );
            found.push(
                Diagnostic::error(message)
                    .at(entry.node.place.clone())
                    .key(format!("{}.build.additional_contexts.{name}", service.path())),
            );
        }
    }

    fn default_platform(&self, service: &Service<'_>, refused: &mut Found) {
        let default = self.default_platform.filter(|_| service.text("platform").is_none());
        let platforms: Vec<&str> = texts(service.find("build.platforms")).collect();
        if let Some(default) = default.filter(|p| !platforms.is_empty() && !platforms.contains(p)) {
            let message =
                format!("`build.platforms` must contain `{default}`, which DOCKER_DEFAULT_PLATFORM asks for");
            refused.push(service.error("build.platforms", message));
        }
    }

    fn network_mode(&self, service: &Service<'_>, found: &mut Found) {
        let has_networks =
            service.find("networks").and_then(Node::as_map).is_some_and(|networks| !networks.is_empty());
        if service.text("network_mode").is_some_and(|mode| !mode.is_empty()) && has_networks {
            let message = format!("service `{}` has both `network_mode` and `networks`", service.key);
            let diagnostic = service.error("network_mode", message).hint("Remove one of them.");
            let networks = service.find("networks").map(|networks| networks.place.clone());
            found.push(match networks {
                Some(place) => diagnostic.related(place, "its networks"),
                None => diagnostic,
            });
        }
    }

    fn suggest<'c>(
        &self,
        diagnostic: Diagnostic,
        name: &str,
        known: impl Iterator<Item = &'c str>,
    ) -> Diagnostic {
        match super::fit::nearest(name, known) {
            Some(near) => diagnostic.hint(format!("Did you mean `{near}`?")),
            None => diagnostic,
        }
    }

    fn references(&self, service: &Service<'_>, found: &mut Found) {
        let empty = Map::default();
        for reference in references(service.node) {
            let declared = self.tree.get(reference.section).and_then(Node::as_map).unwrap_or(&empty);
            if declared.contains_key(&reference.key) {
                continue;
            }
            let kind = reference.section.trim_end_matches('s');
            let message = match reference.key.as_str() {
                "" => format!("a {kind} of service `{}` has no `source`", service.key),
                key => format!("service `{}` refers to undefined {kind} `{key}`", service.key),
            };
            let path =
                reference.path.steps().iter().fold(service.path(), |path, step| path.then(step.clone()));
            let diagnostic = Diagnostic::error(message).at(reference.place).key(path.to_string());
            let near = super::fit::nearest(&reference.key, declared.keys());
            found.push(match near {
                _ if reference.key.is_empty() => diagnostic,
                Some(near) => diagnostic.hint(format!("Did you mean `{near}`?")),
                None => diagnostic.hint(format!(
                    "Declare it: `{}: {{{}: }}` at the top level.",
                    reference.section, reference.key
                )),
            });
        }
    }

    fn dependencies(&self, service: &Service<'_>, found: &mut Found) {
        let dependencies = service.find("depends_on").and_then(Node::as_map);
        for (name, entry) in dependencies.into_iter().flat_map(Map::iter) {
            let is_required = entry.node.get("required").and_then(Node::as_bool).unwrap_or(true);
            let is_enabled = self.enabled.contains(name);
            if is_enabled || (self.services.contains_key(name) && !is_required) {
                continue;
            }
            let message = format!("service `{}` depends on undefined service `{name}`", service.key);
            let diagnostic = Diagnostic::error(message)
                .at(entry.key.clone())
                .key(format!("{}.depends_on.{name}", service.path()));
            let profiles: Vec<&str> = self
                .services
                .get(name)
                .map(|other| texts(other.get("profiles")).collect())
                .unwrap_or_default();
            found.push(match profiles[..] {
                [] => self.suggest(diagnostic, name, self.services.keys().filter(|key| *key != service.key)),
                _ => diagnostic.hint(format!(
                    "`{name}` is in the inactive profile `{}`: add `--profile {}`.",
                    profiles.join("`, `"),
                    profiles[0]
                )),
            });
        }
    }

    fn cycles(&self, found: &mut Found) {
        let mut finished: HashSet<&str> = HashSet::new();
        for key in &self.selection.enabled {
            let mut path: Vec<&str> = Vec::new();
            if let Some(cycle) = self.cycle_from(key, &mut path, &mut finished) {
                found.push(self.cycle(&cycle));
                return;
            }
        }
    }

    /// Depth first; a service met again on the way closes a cycle.
    fn cycle_from<'s>(
        &'s self,
        key: &'s str,
        path: &mut Vec<&'s str>,
        finished: &mut HashSet<&'s str>,
    ) -> Option<Vec<&'s str>> {
        // An explicit stack: the graph may be as long as the file allows.
        let mut stack: Vec<(&str, Vec<&str>)> = vec![(key, self.targets(key))];
        if finished.contains(key) {
            return None;
        }
        path.push(key);
        while let Some((_, targets)) = stack.last_mut() {
            match targets.pop() {
                Some(next) if path.contains(&next) => {
                    let start = path.iter().position(|seen| *seen == next).unwrap_or(0);
                    let mut cycle = path[start..].to_vec();
                    cycle.push(next);
                    return Some(cycle);
                }
                Some(next) if finished.contains(next) => {}
                Some(next) => {
                    path.push(next);
                    stack.push((next, self.targets(next)));
                }
                None => {
                    stack.pop();
                    finished.extend(path.pop());
                }
            }
        }
        None
    }

    fn targets(&self, key: &str) -> Vec<&str> {
        let dependencies =
            self.services.get(key).and_then(|service| service.get("depends_on")).and_then(Node::as_map);
        let mut targets: Vec<&str> = dependencies
            .into_iter()
            .flat_map(Map::keys)
            .filter(|name| self.services.contains_key(name))
            .collect();
        targets.reverse();
        targets
    }

    fn cycle(&self, cycle: &[&str]) -> Diagnostic {
        let edge = |from: &str, to: &str| {
            let dependencies = self.services.get(from)?.get("depends_on")?.as_map()?;
            dependencies.entry(to).map(|entry| entry.key.clone())
        };
        let mut diagnostic =
            Diagnostic::error(format!("services depend on each other in a circle: {}", cycle.join(" → ")));
        for (position, pair) in cycle.windows(2).enumerate() {
            let Some(place) = edge(pair[0], pair[1]) else { continue };
            let remark = format!("`{}` depends on `{}`", pair[0], pair[1]);
            diagnostic = match position {
                0 => diagnostic.at(place).key(format!("services.{}.depends_on.{}", pair[0], pair[1])),
                _ => diagnostic.related(place, remark),
            };
        }
        diagnostic
    }

    /// Two services, or one twice, on the same port of this machine. Ranges are left to the run: it picks from them.
    fn host_ports(&self, refused: &mut Found) {
        let mut seen: Vec<(HostPort, &str, &Node)> = Vec::new();
        for key in &self.selection.services {
            let ports =
                self.services.get(key).and_then(|service| service.get("ports")).and_then(Node::as_seq);
            for (index, port) in ports.unwrap_or_default().iter().enumerate() {
                let Some(own) = HostPort::read(port) else { continue };
                if let Some((_, other, first)) = seen.iter().find(|(taken, ..)| taken.clashes(&own)) {
                    let message = match *other == key {
                        true => format!("service `{key}` publishes host port {} twice", own.number),
                        false => format!(
                            "service `{key}` publishes host port {}, as service `{other}` does",
                            own.number
                        ),
                    };
                    let diagnostic = Diagnostic::error(message)
                        .at(port.place.clone())
                        .key(format!("services.{key}.ports[{index}]"));
                    let hint = "Give one of the two another host port, or remove it.";
                    refused.push(diagnostic.related(first.place.clone(), "the other one").hint(hint));
                }
                seen.push((own, key, port));
            }
        }
    }

    fn container_names(&self, found: &mut Found) {
        let mut seen: HashMap<&str, (&str, &Node)> = HashMap::new();
        for key in &self.selection.enabled {
            let Some(node) = self.services.get(key).and_then(|service| service.get("container_name")) else {
                continue;
            };
            let Some(name) = node.as_str() else { continue };
            if !has_container_name(name) {
                let message = match name.len() {
                    0 | 1 => "a container name has at least two characters".to_owned(),
                    _ => format!("`{name}` cannot be a container name"),
                };
                let diagnostic = Diagnostic::error(message).at(node.place.clone());
                found.push(diagnostic.key(format!("services.{key}.container_name")));
            }
            if let Some((other, first)) = seen.get(name) {
                let message =
                    format!("the container name `{name}` of service `{key}` is taken by service `{other}`");
                let diagnostic = Diagnostic::error(message)
                    .at(node.place.clone())
                    .key(format!("services.{key}.container_name"));
                found.push(diagnostic.related(first.place.clone(), "taken here"));
            } else {
                seen.insert(name, (key, node));
            }
        }
    }

    /// A secret or config has exactly one source.
    fn file_objects(&self, found: &mut Found) {
        for (section, sources) in
            [("secrets", &["file", "environment"][..]), ("configs", &["file", "environment", "content"][..])]
        {
            for (key, entry) in self.tree.get(section).and_then(Node::as_map).into_iter().flat_map(Map::iter)
            {
                let has = |source: &&str| match entry.node.get(source) {
                    Some(node) if section == "secrets" && *source == "environment" => {
                        node.as_str() != Some("")
                    }
                    node => node.is_some(),
                };
                let given: Vec<&str> = sources.iter().copied().filter(has).collect();
                let list = sources.iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", ");
                let at = |message: String| {
                    Diagnostic::error(message).at(entry.key.clone()).key(format!("{section}.{key}"))
                };
                let external = entry.node.get("external").and_then(Node::as_bool);
                let may_lack = match section {
                    "secrets" => external == Some(true),
                    _ => external.is_some() || entry.node.get("driver").is_some(),
                };
                match given.len() {
                    0 if !may_lack => found.push(at(format!("`{section}.{key}` needs one of {list}"))),
                    2.. => found.push(at(format!("`{section}.{key}` has more than one of {list}"))),
                    _ => {}
                }
            }
        }
    }
}

/// Why a secret or config that exists cannot be given to a service.
fn refused_object(object: &Node, section: &str, service: &Service<'_>) -> Option<&'static str> {
    let has = |key: &str| object.get(key).is_some();
    if object.get("external").and_then(Node::as_bool) == Some(true) {
        return Some("it is external, and there is no store outside the project");
    }
    if has("template_driver") || (section == "secrets" && has("driver")) {
        return Some("it needs a driver of Swarm");
    }
    let is_read_only = service.find("read_only").and_then(Node::as_bool) == Some(true);
    (is_read_only && !has("file")).then_some("it is written into the container, whose root is read-only")
}

/// What docker compose asks for: somewhere in it two characters of a container name. The engine wants all of it to be one.
fn has_container_name(name: &str) -> bool {
    let is_inner = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    name.as_bytes().windows(2).any(|pair| pair[0].is_ascii_alphanumeric() && is_inner(&pair[1]))
}

fn is_container_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn texts(node: Option<&Node>) -> impl Iterator<Item = &str> {
    node.and_then(Node::as_seq).unwrap_or_default().iter().filter_map(Node::as_str)
}

fn number(node: Option<&Node>) -> Option<i64> {
    match node?.value {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

/// One port of this machine.
struct HostPort {
    ip: Option<std::net::IpAddr>,
    number: u16,
    protocol: String,
}

impl HostPort {
    fn read(port: &Node) -> Option<Self> {
        let text = |key: &str| port.get(key).and_then(Node::as_str);
        let number = text("published")?.parse().ok().filter(|number| *number != 0)?;
        let ip = text("host_ip").and_then(|ip| ip.parse().ok());
        Some(Self { ip, number, protocol: text("protocol").unwrap_or("tcp").to_owned() })
    }

    fn clashes(&self, other: &Self) -> bool {
        let same_address = match (self.ip, other.ip) {
            (Some(mine), Some(theirs)) if mine.is_ipv4() != theirs.is_ipv4() => false,
            (Some(mine), Some(theirs)) => mine == theirs || mine.is_unspecified() || theirs.is_unspecified(),
            _ => true,
        };
        same_address && self.number == other.number && self.protocol == other.protocol
    }
}
