//! The canonical tree as text: what `docker compose config` prints. Attributes in the order of the table, keys of the user's
//! choice sorted, extensions last; `$` is doubled so that the output loads again.

use super::Loaded;
use crate::attributes::{self, Shape, Short};
use crate::yaml::{Entry, Map, Node, Value, emit, scalar};

/// As YAML.
pub fn yaml(loaded: &Loaded) -> String {
    let Some(tree) = loaded.tree.as_deref() else { return String::new() };
    let Some(map) = tree.as_map().filter(|map| !map.is_empty()) else { return emit::emit(tree) };
    let mut out = String::new();
    for (key, section) in ordered(map, attributes::root()) {
        match section.node.as_map().filter(|services| key == "services" && !services.is_empty()) {
            Some(services) => render_services(&mut out, section, services, loaded.verbatim),
            None => out.push_str(&part(key, section.clone(), loaded.verbatim)),
        }
    }
    out
}

/// One by one, because each is copied to be put in order.
fn render_services(out: &mut String, section: &Entry, services: &Map, verbatim: bool) {
    const HEAD: &str = "services:\n";
    out.push_str(HEAD);
    for (key, service) in ordered(services, &Shape::default()) {
        let mut one = Node::map(section.node.place.clone());
        one.as_map_mut().expect("just made").insert(key, service.clone());
        let text = part("services", Entry { key: section.key.clone(), node: one }, verbatim);
        out.push_str(text.strip_prefix(HEAD).unwrap_or(&text));
    }
}

/// A tree of one section as text.
fn part(key: &str, section: Entry, verbatim: bool) -> String {
    let mut tree = Node::map(section.node.place.clone());
    tree.as_map_mut().expect("just made").insert(key, section);
    prepare(&mut tree, verbatim);
    drop_empty_structs(&mut tree);
    emit::emit(&tree)
}

/// As JSON, indented, with a newline at the end.
pub fn json(loaded: &Loaded) -> String {
    let Some(tree) = loaded.tree.as_deref() else { return String::new() };
    let mut tree = tree.clone();
    prepare(&mut tree, loaded.verbatim);
    if !loaded.verbatim {
        json_members(&mut tree);
    }
    serde_json::to_string_pretty(&Json(&tree)).unwrap_or_default() + "\n"
}

/// A service as the one line of JSON that docker compose takes the hash of: what Go's encoder escapes is escaped.
pub(super) fn hashed(service: &Node) -> String {
    let mut service = service.clone();
    let nothing = Shape::default();
    let shape = attributes::root().find("services.*").unwrap_or(&nothing);
    drop_extensions(&mut service, shape, false);
    service_members(&mut service);
    order(&mut service, shape);
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    let text = serde_json::to_string(&Json(&service)).unwrap_or_default();
    escapes.iter().fold(text, |text, (plain, escaped)| text.replace(*plain, escaped))
}

/// A tree that is written without becoming a JSON value first.
struct Json<'n>(&'n Node);

impl serde::Serialize for Json<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0.value {
            Value::Null => to.serialize_unit(),
            Value::Bool(is) => to.serialize_bool(*is),
            Value::Int(number) => to.serialize_i64(*number),
            Value::Float(number) => to.serialize_f64(*number),
            Value::Str(text) => to.serialize_str(text),
            Value::Seq(items) => to.collect_seq(items.iter().map(Json)),
            Value::Map(map) => to.collect_map(map.iter().map(|(key, entry)| (key, Json(&entry.node)))),
        }
    }
}

fn prepare(tree: &mut Node, verbatim: bool) {
    order(tree, attributes::root());
    if !verbatim {
        escape(tree);
    }
}

/// Doubles `$` in values. Keys are never interpolated, so theirs stay (docker compose doubles them, too, and so changes them).
fn escape(node: &mut Node) {
    match &mut node.value {
        Value::Str(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Map(map) => map.iter_mut().for_each(|(_, entry)| escape(&mut entry.node)),
        Value::Seq(items) => items.iter_mut().for_each(escape),
        _ => {}
    }
}

/// The tree as a JSON value, in its own order.
pub fn to_json(node: &Node) -> serde_json::Value {
    use serde_json::Value as Json;
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(is) => Json::Bool(*is),
        Value::Int(number) => Json::from(*number),
        Value::Float(number) => serde_json::Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Str(text) => Json::String(text.clone()),
        Value::Seq(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(map) => {
            Json::Object(map.iter().map(|(key, entry)| (key.to_owned(), to_json(&entry.node))).collect())
        }
    }
}

/// Known members by the table, then extensions by name; keys of the user's choice by name.
fn order(node: &mut Node, shape: &Shape) {
    match &mut node.value {
        Value::Map(map) => {
            let is_user_keyed = shape.is_user_keyed() || shape.members.is_empty();
            for (key, entry) in map.iter_mut() {
                let is_extension = key.starts_with("x-") && !is_user_keyed;
                match shape.member(key).filter(|_| !is_extension) {
                    Some(below) => order(&mut entry.node, below),
                    None => sort(&mut entry.node),
                }
            }
            let mut entries: Vec<_> = std::mem::take(map).into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| rank(shape, a).cmp(&rank(shape, b)).then_with(|| a.cmp(b)));
            *map = entries.into_iter().collect();
        }
        Value::Seq(items) => {
            let nothing = Shape::default();
            let below = shape.item.as_deref().unwrap_or(&nothing);
            items.iter_mut().for_each(|item| order(item, below));
            if shape.attribute.is_some_and(|attribute| attribute.short == Short::Hosts) {
                items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
        }
        _ => {}
    }
}

fn rank(shape: &Shape, key: &str) -> usize {
    shape.members.get_index_of(key).unwrap_or(usize::MAX)
}

/// The members as [`order`] puts them.
fn ordered<'m>(map: &'m Map, shape: &Shape) -> Vec<(&'m str, &'m Entry)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|(a, _), (b, _)| rank(shape, a).cmp(&rank(shape, b)).then_with(|| a.cmp(b)));
    entries
}

fn sort(node: &mut Node) {
    order(node, &Shape::default());
}

fn each_service(tree: &mut Node, mut visit: impl FnMut(&mut Node)) {
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        services.iter_mut().for_each(|(_, entry)| visit(&mut entry.node));
    }
}

/// docker compose leaves these out of YAML when they are empty, and writes them into JSON always.
const STRUCTS: [&str; 2] = ["resources", "placement"];

fn drop_empty_structs(tree: &mut Node) {
    let is_empty = |node: &Node| node.as_map().is_some_and(Map::is_empty);
    each_service(tree, |service| {
        if let Some(deploy) = service.get_mut("deploy").and_then(Node::as_map_mut) {
            deploy.retain(|key, entry| !(STRUCTS.contains(&key) && is_empty(&entry.node)));
        }
    });
    if let Some(networks) = tree.get_mut("networks").and_then(Node::as_map_mut) {
        for (_, entry) in networks.iter_mut() {
            if let Some(network) = entry.node.as_map_mut() {
                network.retain(|key, entry| !(key == "ipam" && is_empty(&entry.node)));
            }
        }
    }
}

/// docker compose writes extensions into JSON at the top level only.
fn drop_extensions(node: &mut Node, shape: &Shape, is_root: bool) {
    match &mut node.value {
        Value::Map(map) => {
            if !is_root && !shape.is_user_keyed() && !shape.members.is_empty() {
                map.retain(|key, _| !key.starts_with("x-"));
            }
            for (key, entry) in map.iter_mut() {
                if let Some(below) = shape.member(key) {
                    drop_extensions(&mut entry.node, below, false);
                }
            }
        }
        Value::Seq(items) => {
            if let Some(below) = &shape.item {
                items.iter_mut().for_each(|item| drop_extensions(item, below, false));
            }
        }
        _ => {}
    }
}

/// What docker compose makes of an extension on its way to JSON: an empty list is null, a date a point in time.
fn extension(node: &mut Node) {
    match &mut node.value {
        Value::Seq(items) if items.is_empty() => node.value = Value::Null,
        Value::Seq(items) => items.iter_mut().for_each(extension),
        Value::Map(map) => map.iter_mut().for_each(|(_, entry)| extension(&mut entry.node)),
        Value::Str(text)
            if text.len() == "2001-12-14".len() && node.place.is_text(text) && scalar::is_timestamp(text) =>
        {
            text.push_str("T00:00:00Z");
        }
        _ => {}
    }
}

fn ensure(node: &mut Node, key: &str, value: Value) {
    let place = node.place.clone();
    if let Some(map) = node.as_map_mut().filter(|map| !map.contains_key(key)) {
        map.set(key, Node::new(value, place));
    }
}

fn service_members(service: &mut Node) {
    ensure(service, "command", Value::Null);
    ensure(service, "entrypoint", Value::Null);
    let rules = service.get_mut("develop").and_then(|develop| develop.get_mut("watch"));
    for rule in rules.and_then(Node::as_seq_mut).into_iter().flatten() {
        ensure(rule, "exec", Value::Map(Map::default()));
        rule.get_mut("exec").into_iter().for_each(|exec| ensure(exec, "command", Value::Null));
    }
    if let Some(deploy) = service.get_mut("deploy") {
        STRUCTS.iter().for_each(|key| ensure(deploy, key, Value::Map(Map::default())));
    }
}

fn json_members(tree: &mut Node) {
    drop_extensions(tree, attributes::root(), true);
    let extensions =
        tree.as_map_mut().into_iter().flat_map(Map::iter_mut).filter(|(key, _)| key.starts_with("x-"));
    extensions.for_each(|(_, entry)| extension(&mut entry.node));
    each_service(tree, service_members);
    if let Some(networks) = tree.get_mut("networks").and_then(Node::as_map_mut) {
        networks
            .iter_mut()
            .for_each(|(_, entry)| ensure(&mut entry.node, "ipam", Value::Map(Map::default())));
    }
}
