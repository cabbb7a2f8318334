//! Short forms to long ones, for every attribute whose row names a short form. What is already long stays.

use super::fit;
use crate::attributes::{self, Shape, Short, form};
use crate::diagnostic::Diagnostic;
use crate::keypath::Trail;
use crate::short::{self, ShortError};
use crate::source::Place;
use crate::yaml::{Entry, Map, Node, Tag, Value};
use std::collections::HashMap;

pub(super) struct Canonical<'d> {
    /// Strings with `$` were not interpolated: a short form that cannot be read stays as it is.
    pub(super) lenient: bool,
    /// What the earlier files say.
    pub(super) base: Option<&'d Node>,
    pub(super) diagnostics: &'d mut Vec<Diagnostic>,
}

impl Canonical<'_> {
    pub(super) fn root(&mut self, document: &mut Node) {
        self.node(document, attributes::root(), &Trail::Root);
    }

    pub(super) fn node(&mut self, node: &mut Node, shape: &Shape, path: &Trail<'_>) {
        if node.tag == Tag::Reset || node.is_null() {
            return;
        }
        if let Some(attribute) = shape.attribute.filter(|attribute| !(self.lenient && attribute.is_late())) {
            match (attribute.short, shape.any.as_ref().and_then(|any| any.attribute)) {
                (Short::Strings, Some(member)) => strings(node, member.accepts(form::NULL)),
                (short, _) => self.lengthen(node, short, path),
            }
        }
        match &mut node.value {
            Value::Map(map) => {
                for (key, entry) in map.iter_mut() {
                    let is_extension = key.starts_with("x-") && !shape.is_user_keyed();
                    if let Some(below) = shape.member(key).filter(|_| !is_extension) {
                        self.node(&mut entry.node, below, &path.key(key));
                    }
                }
                self.external(map, shape, path);
            }
            Value::Seq(items) => {
                let Some(below) = &shape.item else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, below, &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn lengthen(&mut self, node: &mut Node, short: Short, path: &Trail<'_>) {
        match short {
            Short::None | Short::External | Short::Strings => {}
            Short::Build => wrap(node, "context"),
            Short::DependsOn => {
                self.once(node, path);
                names(node, |item| {
                    let mut condition = Node::map(item.place.clone());
                    if let Some(map) = condition.as_map_mut() {
                        map.set("condition", Node::str("service_started", item.place.clone()));
                        map.set("required", Node::new(Value::Bool(true), item.place.clone()));
                    }
                    condition
                });
            }
            Short::Names => {
                self.once(node, path);
                names(node, |item| Node::new(Value::Null, item.place.clone()));
            }
            Short::KeyValue => {
                if path.key_at(3) == Some("additional_contexts") {
                    self.with_values(node, path, &[]);
                }
                key_values(node, false);
                self.names_of_variables(node, path);
            }
            Short::Labels => key_values(node, true),
            Short::OneOrMore => one_or_more(node),
            // After the merge: until then a single value replaces a single value.
            Short::Texts => {}
            Short::Words => self.words(node, path),
            Short::HealthTest => health_test(node),
            Short::EnvFile => env_files(node),
            // All of them or none.
            Short::Port if self.lenient && has_unread(node) => {}
            Short::Port => self.list(node, path, ports),
            Short::Volume => self.list(node, path, |item| volume(item).map(|volume| vec![volume])),
            Short::Device => self.list(node, path, |item| device(item).map(|device| vec![device])),
            Short::Grant => grants(node),
            Short::Gpus => gpus(node, self.lenient),
            Short::Hosts => self.hosts(node, path),
            Short::Ssh => {
                self.with_values(node, path, &["default"]);
                if self.lenient {
                    key_values(node, false);
                } else {
                    ssh(node);
                }
            }
        }
    }

    fn report(&mut self, error: &ShortError, place: &Place, path: &Trail<'_>) {
        let message = format!("`{path}` is not valid: {error}");
        self.diagnostics.push(Diagnostic::error(message).at(place.clone()).key(path.to_string()));
    }

    /// Items of this list need a value, but for some names.
    fn with_values(&mut self, node: &mut Node, path: &Trail<'_>, bare: &[&str]) {
        let lenient = self.lenient;
        let mut bad = Vec::new();
        for (index, item) in node.as_seq_mut().into_iter().flatten().enumerate() {
            let text = item.as_str().unwrap_or_default();
            if !lenient && !text.contains('=') && !bare.contains(&text) {
                bad.push((
                    ShortError(format!("`{text}` has no value; write `{text}=…`")),
                    item.place.clone(),
                    index,
                ));
            }
        }
        bad.iter().for_each(|(error, place, index)| self.report(error, place, &path.index(*index)));
    }

    /// Items of a list that is to become a mapping stand in it once; over an earlier file nobody counts them.
    fn once(&mut self, node: &Node, path: &Trail<'_>) {
        let is_host = path.key_at(2) == Some("extra_hosts") || path.key_at(3) == Some("extra_hosts");
        if !is_host && fit::find(path, self.base).is_some_and(|earlier| !earlier.is_null()) {
            return;
        }
        let mut seen: HashMap<&str, &Node> = HashMap::new();
        for (index, item) in node.as_seq().unwrap_or_default().iter().enumerate() {
            let Some(text) = item.as_str() else { continue };
            if let Some(first) = seen.get(text) {
                let message = format!("`{text}` is listed twice");
                let path = path.index(index).to_string();
                let diagnostic = Diagnostic::error(message).at(item.place.clone()).key(path);
                self.diagnostics.push(diagnostic.related(first.place.clone(), "first listed here"));
            }
            seen.entry(text).or_insert(item);
        }
    }

    /// `A = x` in a list is a variable called `A `: surely not what is meant.
    fn names_of_variables(&mut self, node: &Node, path: &Trail<'_>) {
        for (name, entry) in node.as_map().into_iter().flat_map(Map::iter) {
            if name.ends_with([' ', '\t']) {
                let message = format!("the variable name `{name}` ends with white space");
                let diagnostic =
                    Diagnostic::error(message).at(entry.key.clone()).key(path.key(name).to_string());
                self.diagnostics.push(diagnostic.hint("Write `NAME=value` without spaces around `=`."));
            }
        }
    }

    fn words(&mut self, node: &mut Node, path: &Trail<'_>) {
        let Some(text) = node.as_str() else { return };
        match short::words(text) {
            Ok(words) => {
                if let Some(dropped) = words.dropped {
                    let message = format!("no shell runs this command, so `{dropped}` is dropped");
                    let hint = "Write it as `[\"sh\", \"-c\", \"…\"]` if a shell is meant.";
                    self.diagnostics.push(
                        Diagnostic::warning(message).at(node.place.clone()).key(path.to_string()).hint(hint),
                    );
                }
                let place = &node.place;
                let items = words.words.into_iter().map(|word| Node::str(word, place.clone())).collect();
                node.value = Value::Seq(items);
            }
            Err(_) if self.lenient => {}
            Err(error) => self.report(&error, &node.place.clone(), path),
        }
    }

    /// Replaces each item by what it stands for.
    fn list(
        &mut self,
        node: &mut Node,
        path: &Trail<'_>,
        read: impl Fn(&Node) -> Result<Vec<Node>, ShortError>,
    ) {
        let Value::Seq(items) = &mut node.value else { return };
        let mut long = Vec::with_capacity(items.len());
        for (index, item) in std::mem::take(items).into_iter().enumerate() {
            if matches!(item.value, Value::Map(_)) {
                long.push(item);
                continue;
            }
            match read(&item) {
                Ok(nodes) => long.extend(nodes),
                Err(_) if self.lenient => long.push(item),
                Err(error) => self.report(&error, &item.place, &path.index(index)),
            }
        }
        *items = long;
    }

    /// `external: {name: x}` becomes `external: true` and the resource's own `name`.
    fn external(&mut self, map: &mut Map, shape: &Shape, path: &Trail<'_>) {
        let is_resource = shape
            .members
            .get("external")
            .and_then(|below| below.attribute)
            .is_some_and(|a| a.short == Short::External);
        if !is_resource {
            return;
        }
        let Some(external) = map.get_mut("external").filter(|external| external.as_map().is_some()) else {
            return;
        };
        let place = external.place.clone();
        let name = external.get("name").cloned();
        external.value = Value::Bool(true);
        let Some(name) = name else { return };
        match map.get("name") {
            Some(other) if other.as_str() != name.as_str() => {
                let diagnostic = Diagnostic::error("`name` and `external.name` differ");
                let diagnostic = diagnostic.at(other.place.clone()).key(path.key("name").to_string());
                self.diagnostics.push(
                    diagnostic
                        .related(name.place, "the other name")
                        .hint("Write `external: true` and keep one `name`."),
                );
            }
            Some(_) => {}
            None => map.set("name", Node { place, ..name }),
        }
    }

    fn hosts(&mut self, node: &mut Node, path: &Trail<'_>) {
        let mut hosts = Vec::new();
        match &node.value {
            Value::Map(map) => {
                for (host, entry) in map.iter() {
                    if host.contains([':', '=']) || host.is_empty() {
                        self.report(
                            &ShortError(format!("`{host}` is no host name")),
                            &entry.key,
                            &path.key(host),
                        );
                    }
                    if entry.node.is_null() {
                        let error = ShortError(format!("`{host}` has no address"));
                        self.report(&error, &entry.key, &path.key(host));
                    }
                    let addresses = entry.node.as_seq().unwrap_or(std::slice::from_ref(&entry.node));
                    for address in
                        addresses.iter().filter_map(|node| node.as_str().map(|text| (text, &node.place)))
                    {
                        hosts.push(Node::str(format!("{host}={}", bare(address.0)), address.1.clone()));
                    }
                }
            }
            Value::Seq(items) => {
                self.once(node, path);
                for (index, item) in items.iter().enumerate() {
                    let Some(text) = item.as_str() else { continue };
                    match text.split_once('=').or_else(|| text.split_once(':')) {
                        Some((host, addresses)) if !host.is_empty() => {
                            let one = |address: &str| {
                                Node::str(format!("{host}={}", bare(address)), item.place.clone())
                            };
                            hosts.extend(addresses.split(',').map(one));
                        }
                        _ if self.lenient => hosts.push(item.clone()),
                        _ => {
                            let error =
                                ShortError(format!("`{text}` names no address; write `host=address`"));
                            self.report(&error, &item.place, &path.index(index));
                        }
                    }
                }
            }
            _ => return,
        }
        node.value = Value::Seq(hosts);
    }
}

/// An address without the brackets of IPv6.
fn bare(address: &str) -> &str {
    address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address)
}

fn one(key: &str, node: Node) -> Map {
    let mut map = Map::default();
    map.set(key, node);
    map
}

/// A string becomes `{key: string}`.
fn wrap(node: &mut Node, key: &str) {
    if node.as_str().is_some() {
        let inner = Node { tag: Tag::None, ..node.clone() };
        node.value = Value::Map(one(key, inner));
    }
}

/// A list of names becomes a mapping.
fn names(node: &mut Node, value: impl Fn(&Node) -> Node) {
    let Value::Seq(items) = &node.value else { return };
    let named = items.iter().filter_map(|item| Some((item.as_str()?.to_owned(), item)));
    node.value = Value::Map(
        named.map(|(name, item)| (name, Entry { key: item.place.clone(), node: value(item) })).collect(),
    );
}

fn key_values(node: &mut Node, null_is_empty: bool) {
    if let Value::Seq(items) = &node.value {
        node.value = Value::Map(items.iter().filter_map(|item| key_value(item, null_is_empty)).collect());
    } else if let Value::Map(map) = &mut node.value {
        for (_, entry) in map.iter_mut() {
            match entry.node.scalar_text() {
                Some(text) => entry.node.value = Value::Str(text),
                None if null_is_empty && entry.node.tag != Tag::Reset => {
                    entry.node.value = Value::Str(String::new())
                }
                None => {}
            }
        }
    }
}

fn key_value(item: &Node, null_is_empty: bool) -> Option<(String, Entry)> {
    let text = item.as_str()?;
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Value::Str(value.to_owned())),
        None if null_is_empty => (text, Value::Str(String::new())),
        None => (text, Value::Null),
    };
    Some((key.to_owned(), Entry { key: item.place.clone(), node: Node::new(value, item.place.clone()) }))
}

fn strings(node: &mut Node, null_is_empty: bool) {
    let Value::Map(map) = &mut node.value else { return };
    for (_, entry) in map.iter_mut() {
        let stays = entry.node.tag == Tag::Reset || (entry.node.is_null() && !null_is_empty);
        if !stays {
            entry.node.value = Value::Str(entry.node.scalar_text().unwrap_or_default());
        }
    }
}

fn one_or_more(node: &mut Node) {
    if !matches!(node.value, Value::Seq(_) | Value::Null) {
        let item = Node { tag: Tag::None, ..node.clone() };
        node.value = Value::Seq(vec![item]);
    }
}

/// A string or a list of scalars becomes a list of strings.
pub(super) fn texts(node: &mut Node) {
    one_or_more(node);
    for item in node.as_seq_mut().into_iter().flatten() {
        item.value = Value::Str(item.scalar_text().unwrap_or_default());
    }
}

fn health_test(node: &mut Node) {
    if let Some(text) = node.as_str() {
        let (text, place) = (text.to_owned(), node.place.clone());
        node.value = Value::Seq(vec![Node::str("CMD-SHELL", place.clone()), Node::str(text, place)]);
    }
}

fn env_files(node: &mut Node) {
    one_or_more(node);
    for item in node.as_seq_mut().into_iter().flatten() {
        wrap(item, "path");
    }
}

fn grants(node: &mut Node) {
    for item in node.as_seq_mut().into_iter().flatten() {
        wrap(item, "source");
    }
}

fn gpus(node: &mut Node, as_written: bool) {
    if node.as_str() == Some("all") {
        let count = if as_written { node.value.clone() } else { Value::Int(-1) };
        let count = Node::new(count, node.place.clone());
        node.value = Value::Seq(vec![Node::new(Value::Map(one("count", count)), node.place.clone())]);
    }
}

/// Whether a port cannot be read because nothing was interpolated.
fn has_unread(node: &Node) -> bool {
    let short = node.as_seq().unwrap_or_default().iter().filter(|item| item.as_map().is_none());
    short.into_iter().any(|item| ports(item).is_err())
}

fn ports(item: &Node) -> Result<Vec<Node>, ShortError> {
    if matches!(item.value, Value::Float(_)) {
        return Err(ShortError("a port has no fraction".into()));
    }
    let text = item.scalar_text().unwrap_or_default();
    let specs = short::parse_port(&text)?;
    Ok(specs.into_iter().map(|spec| port(spec, &item.place)).collect())
}

fn port(spec: short::PortSpec, place: &Place) -> Node {
    let mut node = Node::map(place.clone());
    if let Some(map) = node.as_map_mut() {
        map.set("mode", Node::str("ingress", place.clone()));
        if let Some(ip) = spec.host_ip {
            map.set("host_ip", Node::str(ip, place.clone()));
        }
        map.set("target", Node::new(Value::Int(i64::from(spec.target)), place.clone()));
        if !spec.published.is_empty() {
            map.set("published", Node::str(spec.published, place.clone()));
        }
        map.set("protocol", Node::str(spec.protocol, place.clone()));
    }
    node
}

fn volume(item: &Node) -> Result<Node, ShortError> {
    let spec = short::parse_volume(item.as_str().unwrap_or_default())?;
    let place = &item.place;
    let is_bind = spec.source.as_deref().is_some_and(short::is_path);
    let string = |text: &str| Node::str(text, place.clone());
    let truth = || Node::new(Value::Bool(true), place.clone());
    let mut map = Map::default();
    map.set("type", string(if is_bind { "bind" } else { "volume" }));
    if let Some(source) = &spec.source {
        map.set("source", string(source));
    }
    map.set("target", string(&spec.target));
    if spec.read_only {
        map.set("read_only", truth());
    }
    let mut bind = Map::default();
    let mut options = Map::default();
    spec.selinux.iter().for_each(|label| bind.set("selinux", string(label)));
    spec.propagation.iter().for_each(|mode| bind.set("propagation", string(mode)));
    if is_bind {
        bind.set("create_host_path", truth());
    }
    if spec.nocopy {
        options.set("nocopy", truth());
    }
    if !bind.is_empty() {
        map.set("bind", Node::new(Value::Map(bind), place.clone()));
    }
    // docker compose reads a target of two characters on a way of its own.
    let is_long = item.as_str().is_some_and(|text| text.len() > 2);
    if (!is_bind && is_long) || !options.is_empty() {
        map.set("volume", Node::new(Value::Map(options), place.clone()));
    }
    Ok(Node::new(Value::Map(map), place.clone()))
}

fn device(item: &Node) -> Result<Node, ShortError> {
    let text = item.as_str().unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts[..] {
        [source] | [source, ""] => (source, source, "rwm"),
        [source, "", permissions] => (source, source, permissions),
        [source, target] => (source, target, "rwm"),
        [source, target, permissions] => (source, target, permissions),
        _ => return Err(ShortError(format!("`{text}` has too many colons; use the long form"))),
    };
    let mut map = one("source", Node::str(source, item.place.clone()));
    map.set("target", Node::str(target, item.place.clone()));
    map.set("permissions", Node::str(permissions, item.place.clone()));
    Ok(Node::new(Value::Map(map), item.place.clone()))
}

/// A mapping or list becomes a list of `id` or `id=path`.
fn ssh(node: &mut Node) {
    if let Value::Map(map) = &node.value {
        let item =
            |(id, entry): (&str, &Entry)| match entry.node.scalar_text().filter(|path| !path.is_empty()) {
                Some(path) => Node::str(format!("{id}={path}"), entry.key.clone()),
                None => Node::str(id, entry.key.clone()),
            };
        node.value = Value::Seq(map.iter().map(item).collect());
    }
}
