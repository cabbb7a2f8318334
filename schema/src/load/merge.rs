//! A later tree over an earlier one, by the rules of the table. Both are canonical, so lists meet lists and mappings mappings.

use crate::attributes::{Merge, Shape, Short};
use crate::diagnostic::Diagnostic;
use crate::keypath::Trail;
use crate::load::provenance::{Kind, Link};
use crate::source::Place;
use crate::yaml::{Entry, Map, Node, Tag, Value};

/// Merges `over` into `base`. What is tagged `!reset` in `over` is gone afterwards.
pub(super) fn merge(base: &mut Node, over: Node, shape: &Shape, path: &Trail<'_>, notes: Notes<'_>) {
    Merger { keep_resets: false, notes }.node(base, over, shape, path);
}

/// The same for `extends`: what is tagged `!reset` in `over` stays, tagged, so that it also resets what earlier files say.
pub(super) fn merge_extending(
    base: &mut Node,
    over: Node,
    shape: &Shape,
    path: &Trail<'_>,
    notes: Notes<'_>,
) {
    Merger { keep_resets: true, notes }.node(base, over, shape, path);
}

/// What a merge has to say.
pub(super) struct Notes<'d> {
    pub(super) diagnostics: &'d mut Vec<Diagnostic>,
    pub(super) links: &'d mut Vec<Link>,
}

struct Merger<'d> {
    keep_resets: bool,
    notes: Notes<'d>,
}

impl Merger<'_> {
    fn node(&mut self, base: &mut Node, mut over: Node, shape: &Shape, path: &Trail<'_>) {
        let rule = shape.attribute.map_or(Merge::Default, |attribute| attribute.merge);
        let replaces = rule == Merge::Replace
            || over.tag == Tag::Override
            || (rule == Merge::Pools && over.is_null())
            || (rule == Merge::SameDriver && !same_driver(base, &over));
        if replaces {
            self.settle(&mut over);
            self.replaced(base, &over.place);
            *base = over;
            return;
        }
        if over.is_null() {
            return;
        }
        let place = over.place.clone();
        match (&mut base.value, over.value) {
            (Value::Map(mine), Value::Map(theirs)) => {
                self.members(mine, theirs, shape, path);
                base.place = place;
            }
            (Value::Seq(mine), Value::Seq(theirs)) if rule == Merge::Pools => *mine = pools(mine, theirs),
            (Value::Seq(mine), Value::Seq(theirs)) => mine.extend(theirs),
            (Value::Map(_) | Value::Seq(_), value) => {
                let message = format!(
                    "`{path}` is {} and cannot override {}",
                    Node::new(value, place.clone()).kind_name(),
                    base.kind_name()
                );
                let diagnostic = Diagnostic::error(message).at(place).key(path.to_string());
                self.notes.diagnostics.push(diagnostic.related(base.place.clone(), "what it would override"));
            }
            (_, value) => {
                self.replaced(base, &place);
                *base = Node::new(value, place);
            }
        }
    }

    fn replaced(&mut self, base: &Node, by: &Place) {
        if !base.is_null() {
            self.notes.links.push(Link { span: by.clone(), via: base.place.clone(), kind: Kind::Over });
        }
    }

    fn members(&mut self, mine: &mut Map, theirs: Map, shape: &Shape, path: &Trail<'_>) {
        let is_set = shape
            .attribute
            .is_some_and(|attribute| matches!(attribute.short, Short::KeyValue | Short::Labels));
        let nothing = Shape::default();
        if theirs.iter().any(|(_, entry)| entry.node.tag == Tag::Reset) {
            mine.retain(|key, _| theirs.get(key).is_none_or(|node| node.tag != Tag::Reset));
        }
        for (key, mut entry) in theirs {
            if entry.node.tag == Tag::Reset {
                if self.keep_resets {
                    mine.insert(key, entry);
                }
                continue;
            }
            let is_extension = key.starts_with("x-") && !shape.is_user_keyed();
            let below = shape.member(&key).filter(|_| !is_extension).unwrap_or(&nothing);
            match mine.get_mut(&key).filter(|node| !is_set && node.tag != Tag::Reset) {
                Some(node) => self.node(node, entry.node, below, &path.key(&key)),
                None => {
                    self.settle(&mut entry.node);
                    if let Some(old) = mine.get(&key).filter(|old| old.tag != Tag::Reset) {
                        self.replaced(old, &entry.node.place);
                    }
                    mine.insert(key, entry);
                }
            }
        }
    }

    /// Clears tags of a value that meets nothing, and drops what it resets.
    fn settle(&mut self, node: &mut Node) {
        if !(self.keep_resets && node.tag == Tag::Override) {
            node.tag = Tag::None;
        }
        match &mut node.value {
            Value::Map(map) => {
                if !self.keep_resets {
                    map.retain(|_, entry| entry.node.tag != Tag::Reset);
                }
                for (_, entry) in map.iter_mut().filter(|(_, entry)| entry.node.tag != Tag::Reset) {
                    self.settle(&mut entry.node);
                }
            }
            Value::Seq(items) => items.iter_mut().for_each(|item| self.settle(item)),
            _ => {}
        }
    }
}

fn same_driver(base: &Node, over: &Node) -> bool {
    match (base.get("driver"), over.get("driver")) {
        (Some(mine), Some(theirs)) => mine == theirs,
        _ => true,
    }
}

/// Pools of the later file; each begins with the members of the earlier pool of the same subnet.
fn pools(mine: &[Node], theirs: Vec<Node>) -> Vec<Node> {
    let find = |pool: &Node| {
        mine.iter().find(|base| base.get("subnet") == pool.get("subnet") && pool.get("subnet").is_some())
    };
    theirs
        .into_iter()
        .map(|pool| match (find(&pool), pool.value) {
            (Some(base), Value::Map(over)) => {
                let mut members: Map = base.as_map().cloned().unwrap_or_default();
                over.into_iter().for_each(|(key, entry): (String, Entry)| members.insert(key, entry));
                Node::new(Value::Map(members), pool.place)
            }
            (_, value) => Node::new(value, pool.place),
        })
        .collect()
}
