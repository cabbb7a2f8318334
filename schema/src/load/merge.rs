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
    /// Nothing was interpolated, so values have the forms they were written in.
    pub(super) verbatim: bool,
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
            // Two lists that say nothing are one.
            if base.is_null() && shape.attribute.is_some_and(|attribute| attribute.short.merges_as_list()) {
                base.value = Value::Seq(Vec::new());
            }
            return;
        }
        if self.notes.verbatim && shape.attribute.is_some_and(|attribute| attribute.short.merges_as_list()) {
            unset(base, &mut over);
            listed(base);
            listed(&mut over);
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

/// Takes the members out that are tagged `!reset`, and what they reset.
fn unset(base: &mut Node, over: &mut Node) {
    let Value::Map(theirs) = &mut over.value else { return };
    if let Value::Map(mine) = &mut base.value {
        mine.retain(|key, _| theirs.get(key).is_none_or(|node| node.tag != Tag::Reset));
    }
    theirs.retain(|_, entry| entry.node.tag != Tag::Reset);
}

/// What meets a value of another form becomes a list first: `{A: 1}` is `[A=1]`, a string a list of one.
fn listed(node: &mut Node) {
    let items = match &node.value {
        Value::Null | Value::Seq(_) => return,
        Value::Map(map) => {
            let mut items: Vec<Node> = map.iter().flat_map(|(key, entry)| assignments(key, entry)).collect();
            items.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            items
        }
        _ => vec![node.clone()],
    };
    node.value = Value::Seq(items);
}

/// `A=1`; of a list one for each item.
fn assignments(key: &str, entry: &Entry) -> Vec<Node> {
    let values = entry.node.as_seq().unwrap_or(std::slice::from_ref(&entry.node));
    let text =
        |value: &Node| value.scalar_text().map_or_else(|| key.to_owned(), |value| format!("{key}={value}"));
    values.iter().map(|value| Node { value: Value::Str(text(value)), ..value.clone() }).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes;
    use crate::load::{canonical::Canonical, fit::Fit, render, unique};
    use crate::source::Source;
    use crate::yaml;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// A canonical document.
    fn document(text: &str) -> Node {
        let source = Arc::new(Source { name: "t".into(), path: None, text: text.into() });
        let mut diagnostics = Vec::new();
        let mut tree = yaml::parse(&source, yaml::Limits::default(), &mut diagnostics).remove(0);
        Fit { lenient: false, base: None, diagnostics: &mut diagnostics }.root(&mut tree);
        Canonical { lenient: false, base: None, diagnostics: &mut diagnostics }.root(&mut tree);
        assert!(diagnostics.is_empty(), "{text}\n{diagnostics:?}");
        tree
    }

    type Rule = fn(&mut Node, Node, &Shape, &Trail<'_>, Notes<'_>);

    fn merged(mut base: Node, over: Node, rule: Rule) -> Node {
        let (mut diagnostics, mut links) = (Vec::new(), Vec::new());
        let notes = Notes { diagnostics: &mut diagnostics, links: &mut links, verbatim: false };
        rule(&mut base, over, attributes::root(), &Trail::Root, notes);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        base
    }

    /// What it says, lists that are sets without repetition, keys in order.
    fn meaning(mut tree: Node) -> String {
        let (mut diagnostics, mut links) = (Vec::new(), Vec::new());
        let mut notes = Notes { diagnostics: &mut diagnostics, links: &mut links, verbatim: false };
        unique::unique(&mut tree, attributes::root(), &Trail::Root, &mut notes);
        let mut json = render::to_json(&tree);
        json.sort_all_objects();
        json.to_string()
    }

    fn line() -> impl Strategy<Value = String> {
        let few = "[a-c]";
        prop_oneof![
            (few, few).prop_map(|(k, v)| format!("environment: {{{k}: {v}}}")),
            (few, few).prop_map(|(k, v)| format!("labels: [{k}={v}]")),
            few.prop_map(|w| format!("command: [{w}, x]")),
            few.prop_map(|w| format!("image: {w}")),
            (1u16..4).prop_map(|port| format!("ports: [\"{port}:80\"]")),
            (few, few).prop_map(|(from, to)| format!("volumes: [./{from}:/{to}]")),
            (1u8..9).prop_map(|n| format!("healthcheck: {{test: x, retries: {n}}}")),
            (few, 1u8..9).prop_map(|(k, n)| format!("ulimits: {{{k}: {n}}}")),
            few.prop_map(|w| format!("depends_on: [{w}]")),
            few.prop_map(|w| format!("networks: {{{w}: {{aliases: [{w}1]}}}}")),
            few.prop_map(|w| format!("dns: {w}")),
            few.prop_map(|w| format!("tmpfs: [/{w}]")),
            (1u8..9).prop_map(|n| format!("deploy: {{replicas: {n}}}")),
            few.prop_map(|w| format!("deploy: {{labels: {{{w}: x}}}}")),
        ]
    }

    /// Services `a` and `b`, each attribute at most once, without tags.
    fn file() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::collection::vec(line(), 0..6), 2).prop_map(|services| {
            let mut text = String::from("services:\n");
            for (name, mut lines) in ["a", "b"].into_iter().zip(services) {
                lines.sort();
                lines.dedup_by(|one, other| one.split(':').next() == other.split(':').next());
                text.push_str(&format!("  {name}:\n    init: true\n"));
                lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_the_identity(text in file()) {
            let alone = meaning(document(&text));
            let nothing = || document("services: {}\n");
            prop_assert_eq!(meaning(merged(nothing(), document(&text), merge)), alone.clone());
            prop_assert_eq!(meaning(merged(document(&text), nothing(), merge)), alone);
        }

        /// Without tags it does not matter which two of three files are merged first, as `extends` and `include` do it.
        #[test]
        fn files_merge_in_any_grouping(a in file(), b in file(), c in file()) {
            let left = merged(merged(document(&a), document(&b), merge), document(&c), merge);
            let right = merged(document(&a), merged(document(&b), document(&c), merge_extending), merge);
            prop_assert_eq!(meaning(left), meaning(right));
        }

        /// A reset of the last file holds in either grouping.
        #[test]
        fn a_reset_survives_grouping(a in file(), b in file()) {
            let reset = || document("services: {a: {environment: !reset null, ports: !reset [], labels: !override {z: z}}}\n");
            let left = merged(merged(document(&a), document(&b), merge), reset(), merge);
            let right = merged(document(&a), merged(document(&b), reset(), merge_extending), merge);
            prop_assert_eq!(meaning(left), meaning(right));
        }
    }
}
