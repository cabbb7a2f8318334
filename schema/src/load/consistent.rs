//! Does the whole make sense? References, exclusions, cycles. Only services that a profile enables are judged.

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
    broken: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    let empty = Map::default();
    let services = tree.get("services").and_then(Node::as_map).unwrap_or(&empty);
    let checker = Checker { tree, services, selection };
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
        scale(service, found);
        limits(service, found);
        healthcheck(service, found);
        ports(service, found);
        mounts(service, found);
        watch(service, found);
        policies(service, found);
        device_requests(service, found);
    }

    /// Valid for `docker compose config`, and an error of the engine as soon as a container is created.
    fn refusals(&self, service: &Service<'_>, refused: &mut Found) {
        restart(service, refused);
        if let Some(name) =
            service.text("container_name").filter(|name| name.len() > 1 && !is_container_name(name))
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
            let message = format!("service `{}` refers to undefined {kind} `{}`", service.key, reference.key);
            let path =
                reference.path.steps().iter().fold(service.path(), |path, step| path.then(step.clone()));
            let diagnostic = Diagnostic::error(message).at(reference.place).key(path.to_string());
            let near = super::fit::nearest(&reference.key, declared.keys());
            found.push(match near {
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
            let is_enabled = self.selection.enabled.iter().any(|key| key == name);
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
            if name.len() < 2 {
                let diagnostic =
                    Diagnostic::error("a container name has at least two characters").at(node.place.clone());
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
                let given: Vec<&str> =
                    sources.iter().copied().filter(|source| entry.node.get(source).is_some()).collect();
                let list = sources.iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", ");
                let at = |message: String| {
                    Diagnostic::error(message).at(entry.key.clone()).key(format!("{section}.{key}"))
                };
                match given.len() {
                    0 if entry.node.get("external").is_none() => {
                        found.push(at(format!("`{section}.{key}` needs one of {list}")))
                    }
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

fn scale(service: &Service<'_>, found: &mut Found) {
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

fn limits(service: &Service<'_>, found: &mut Found) {
    for (short, owner, long) in [
        ("cpus", "deploy.resources.limits", "cpus"),
        ("mem_limit", "deploy.resources.limits", "memory"),
        ("pids_limit", "deploy.resources.limits", "pids"),
        ("mem_reservation", "deploy.resources.reservations", "memory"),
    ] {
        let (Some(mine), Some(owner_node)) = (service.find(short), service.find(owner)) else { continue };
        let theirs = owner_node.get(long);
        if theirs.map(|node| &node.value) != Some(&mine.value) {
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

fn healthcheck(service: &Service<'_>, found: &mut Found) {
    let Some(check) = service.node.get("healthcheck") else { return };
    if let Some(first) = check.get("test").and_then(Node::as_seq).and_then(<[Node]>::first)
        && !matches!(first.as_str(), Some("CMD" | "CMD-SHELL" | "NONE"))
    {
        let message = "a health check's test begins with `CMD`, `CMD-SHELL` or `NONE`";
        found.push(service.error("healthcheck.test", message));
    }
}

fn ports(service: &Service<'_>, found: &mut Found) {
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
            && node.as_str().is_some_and(|ip| !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err())
        {
            found.push(error(format!("`{}` is no IP address", node.as_str().unwrap_or_default()), node));
        }
        if let Some(node) = port.get("published")
            && node.as_str().is_some_and(|published| !is_port_range(published))
        {
            found.push(error(
                format!("`{}` is no port or range of ports", node.as_str().unwrap_or_default()),
                node,
            ));
        }
    }
}

fn is_port_range(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    text.is_empty()
        || matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last)
}

fn mounts(service: &Service<'_>, found: &mut Found) {
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
        if let Some(first) = seen.get(&crate::short::clean_path(target)) {
            let message = format!("service `{}` mounts two things at `{target}`", service.key);
            let diagnostic = Diagnostic::error(message)
                .at(item.place.clone())
                .key(format!("{}.tmpfs[{index}]", service.path()));
            found.push(diagnostic.related(first.clone(), "the other one"));
        }
    }
}

fn watch(service: &Service<'_>, found: &mut Found) {
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

fn policies(service: &Service<'_>, found: &mut Found) {
    if let Some(policy) = service.text("pull_policy")
        && !is_pull_policy(policy)
    {
        let hint = "It is `always`, `never`, `missing`, `build`, `daily`, `weekly` or `every_<duration>`.";
        found.push(service.error("pull_policy", format!("`{policy}` is no pull policy")).hint(hint));
    }
}

fn restart(service: &Service<'_>, found: &mut Found) {
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

fn device_requests(service: &Service<'_>, found: &mut Found) {
    for path in ["gpus", "deploy.resources.reservations.devices"] {
        for request in service.find(path).and_then(Node::as_seq).unwrap_or_default() {
            let has = |key: &str| request.get(key).is_some();
            let at = |message: &str| {
                Diagnostic::error(message).at(request.place.clone()).key(format!("{}.{path}", service.path()))
            };
            if number(request.get("count")).is_some_and(|count| count >= 0) && has("device_ids") {
                found.push(at("a device request has either `count` or `device_ids`"));
            }
            if path != "gpus" && !has("capabilities") && !has("driver") {
                found.push(at("a device request needs `capabilities`"));
            }
        }
    }
}
