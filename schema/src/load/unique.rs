//! Items of a list that are the same thing: a later one replaces the earlier one in its place.

use crate::attributes::{Shape, Short, Unique};
use crate::diagnostic::Diagnostic;
use crate::keypath::Trail;
use crate::load::merge::Notes;
use crate::load::provenance::{Kind, Link};
use crate::yaml::{Node, Value, scalar};
use std::collections::HashMap;

pub(super) fn unique(node: &mut Node, shape: &Shape, path: &Trail<'_>, notes: &mut Notes<'_>) {
    match &mut node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter_mut() {
                if let Some(below) = shape.member(key) {
                    unique(&mut entry.node, below, &path.key(key), notes);
                }
            }
        }
        Value::Seq(items) => {
            if let Some(below) = &shape.item {
                for (index, item) in items.iter_mut().enumerate() {
                    unique(item, below, &path.index(index), notes);
                }
            }
            let rule = shape.attribute.map_or(Unique::No, |attribute| match attribute.short {
                // A list only when nothing was interpolated.
                Short::KeyValue | Short::Labels => Unique::Key,
                _ => attribute.unique,
            });
            if rule != Unique::No {
                *items = distinct(std::mem::take(items), rule, path, notes);
            }
        }
        _ => {}
    }
}

fn distinct(items: Vec<Node>, rule: Unique, path: &Trail<'_>, notes: &mut Notes<'_>) -> Vec<Node> {
    let mut kept: Vec<Node> = Vec::with_capacity(items.len());
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, item) in items.into_iter().enumerate() {
        let Some(identity) = identity(&item, rule) else {
            kept.push(item);
            continue;
        };
        match seen.get(&identity) {
            None => {
                seen.insert(identity, kept.len());
                kept.push(item);
            }
            Some(first) if rule == Unique::Strict => {
                let message = format!("`{}` is listed twice", identity.trim_matches('"'));
                let diagnostic =
                    Diagnostic::error(message).at(item.place.clone()).key(path.index(index).to_string());
                notes.diagnostics.push(diagnostic.related(kept[*first].place.clone(), "first listed here"));
            }
            Some(first) => {
                let (span, via) = (item.place.clone(), kept[*first].place.clone());
                notes.links.push(Link { span, via, kind: Kind::Over });
                kept[*first] = item;
            }
        }
    }
    kept
}

/// `1` and `"1"` are two things where a list is compared as it was written.
fn written(item: &Node, text: String) -> String {
    let is_number = item.place.is_text(&text) && matches!(scalar::resolve(&text), Value::Int(_));
    if is_number { text } else { format!("\"{text}\"") }
}

/// What makes an item the same as another one; `None`: nothing does.
fn identity(item: &Node, rule: Unique) -> Option<String> {
    let member = |name: &str| item.get(name).and_then(Node::scalar_text);
    match rule {
        Unique::No => None,
        Unique::Value => item.scalar_text(),
        Unique::Strict => item.scalar_text().map(|text| written(item, text)),
        Unique::Key => item.as_str().map(|text| text.split('=').next().unwrap_or(text).to_owned()),
        Unique::Member(name) => member(name),
        Unique::Port if item.as_map().is_none() => item.scalar_text(),
        Unique::Port => {
            let parts = [("host_ip", "0.0.0.0"), ("published", ""), ("target", ""), ("protocol", "tcp")];
            Some(parts.map(|(name, default)| member(name).unwrap_or_else(|| default.to_owned())).join("|"))
        }
        Unique::Target(prefix) => {
            member("target").or_else(|| member("source").map(|source| format!("{prefix}{source}")))
        }
    }
}
