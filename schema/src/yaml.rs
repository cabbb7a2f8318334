//! YAML text to a tree in which everything knows its place.
//!
//! The text becomes events (`granit-parser`), the events become [`Node`]s ([`parse()`]), plain scalars are resolved the way
//! docker compose's own reader resolves them ([`scalar`]), and a tree is written back by [`emit`].
//!
//! * Every value and every key has a [`Place`].
//! * Anchors are resolved here, within one document; merge keys (`<<`) are applied here, explicit keys first, earlier sources next.
//! * `!reset` and `!override` are kept as [`Tag`]s for the merge; other tags only say how a scalar is read.
//! * A key written twice, an unknown alias, an alias that contains itself, too many nodes, too much nesting: one placed error each.
//!
//! `serde_yaml` (its maintained continuation) is not used to read Compose files: it gives no places for keys and values,
//! cannot keep `!reset`, reorders keys when it applies `<<`, and reads `0440` as text. The tests use it as a second opinion
//! on what [`emit`] writes.

mod broken;
pub mod emit;
mod parse;
pub mod scalar;
mod tabs;

use crate::source::Place;
use indexmap::IndexMap;

pub use parse::{Limits, parse, parse_noting};

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    /// The value's own text; for a collection, its first character up to its end.
    pub place: Place,
    pub tag: Tag,
}

/// What a value is, after scalar resolution.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Map),
}

/// The two tags that change how files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tag {
    #[default]
    None,
    /// Remove the attribute from what was merged so far.
    Reset,
    /// Replace the attribute instead of merging it.
    Override,
}

/// An ordered mapping with string keys; every key keeps its place.
#[derive(Debug, Clone, Default)]
pub struct Map {
    /// All entries while there are at most [`FEW`]: most mappings are small, and looking through them is cheaper than hashing.
    few: Vec<(String, Entry)>,
    /// All entries once there were more.
    many: Option<Box<IndexMap<String, Entry>>>,
}

const FEW: usize = 16;

/// The order does not count.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, entry)| other.entry(key) == Some(entry))
    }
}

/// A key's place and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: Place,
    pub node: Node,
}

/// Equal in meaning: places do not count.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value && self.tag == other.tag
    }
}

impl Node {
    pub fn new(value: Value, place: Place) -> Self {
        Self { value, place, tag: Tag::None }
    }

    pub fn str(text: impl Into<String>, place: Place) -> Self {
        Self::new(Value::Str(text.into()), place)
    }

    pub fn map(place: Place) -> Self {
        Self::new(Value::Map(Map::default()), place)
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(is) => Some(is),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_seq(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_seq_mut(&mut self) -> Option<&mut Vec<Node>> {
        match &mut self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The member of a mapping; `None` when this is no mapping or has no such key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_map_mut()?.get_mut(key)
    }

    /// A scalar as docker compose writes it into a string attribute; `None` for null and collections.
    pub fn scalar_text(&self) -> Option<String> {
        Self::scalar_of(&self.value)
    }

    pub(crate) fn scalar_of(value: &Value) -> Option<String> {
        match value {
            Value::Bool(is) => Some(is.to_string()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(scalar::format_float(*number)),
            Value::Str(text) => Some(text.clone()),
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// How the value is called in a sentence.
    pub fn kind_name(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Map {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entry_mut(key).map(|entry| &mut entry.node)
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.many {
            Some(many) => many.get(key),
            None => self.few.iter().find(|(known, _)| known == key).map(|(_, entry)| entry),
        }
    }

    fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        match &mut self.many {
            Some(many) => many.get_mut(key),
            None => self.few.iter_mut().find(|(known, _)| known == key).map(|(_, entry)| entry),
        }
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Keeps the position of a key that is already there.
    pub fn insert(&mut self, key: impl Into<String>, entry: Entry) {
        let key = key.into();
        if let Some(known) = self.entry_mut(&key) {
            *known = entry;
            return;
        }
        if self.few.len() == FEW {
            self.many = Some(Box::new(std::mem::take(&mut self.few).into_iter().collect()));
        }
        match &mut self.many {
            Some(many) => {
                many.insert(key, entry);
            }
            None => self.few.push((key, entry)),
        }
    }

    /// Inserts a value that has no key of its own in the text: the key's place is the value's.
    pub fn set(&mut self, key: impl Into<String>, node: Node) {
        self.insert(key, Entry { key: node.place.clone(), node });
    }

    /// Removes a key; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        match &mut self.many {
            Some(many) => many.shift_remove(key),
            None => {
                let at = self.few.iter().position(|(known, _)| known == key)?;
                Some(self.few.remove(at).1)
            }
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Entry) -> bool) {
        match &mut self.many {
            Some(many) => many.retain(|key, entry| keep(key, entry)),
            None => self.few.retain(|(key, entry)| keep(key, entry)),
        }
    }

    pub fn len(&self) -> usize {
        self.many.as_ref().map_or(self.few.len(), |many| many.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let few = self.few.iter().map(|(key, entry)| (key.as_str(), entry));
        let many = self.many.iter().flat_map(|many| many.iter());
        few.chain(many.map(|(key, entry)| (key.as_str(), entry)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Entry)> {
        let few = self.few.iter_mut().map(|(key, entry)| (key.as_str(), entry));
        let many = self.many.iter_mut().flat_map(|many| many.iter_mut());
        few.chain(many.map(|(key, entry)| (key.as_str(), entry)))
    }

    /// Gives back what growing reserved in advance.
    fn shrink(&mut self) {
        self.few.shrink_to_fit();
    }
}

impl IntoIterator for Map {
    type Item = (String, Entry);
    type IntoIter = std::iter::Chain<
        std::vec::IntoIter<(String, Entry)>,
        std::iter::Flatten<std::option::IntoIter<IndexMap<String, Entry>>>,
    >;
    fn into_iter(self) -> Self::IntoIter {
        self.few.into_iter().chain(self.many.map(|many| *many).into_iter().flatten())
    }
}

impl FromIterator<(String, Entry)> for Map {
    fn from_iter<I: IntoIterator<Item = (String, Entry)>>(entries: I) -> Self {
        let mut map = Map::default();
        entries.into_iter().for_each(|(key, entry)| map.insert(key, entry));
        map.shrink();
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;
    use std::sync::Arc;

    fn somewhere() -> Place {
        let source = Arc::new(Source { name: "t".into(), path: None, text: String::new() });
        Place { source, start: 0, end: 0 }
    }

    /// A mapping of `count` keys `k0`, `k1`, … to their numbers.
    fn numbered(count: usize, place: &Place) -> Map {
        let node = |number: usize| Node::new(Value::Int(number as i64), place.clone());
        let mut map = Map::default();
        (0..count).for_each(|number| map.set(format!("k{number}"), node(number)));
        map
    }

    #[test]
    fn a_mapping_of_any_size_keeps_its_order() {
        let place = somewhere();
        for count in [0, 1, FEW - 1, FEW, FEW + 1, 3 * FEW] {
            let mut map = numbered(count, &place);
            let names: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
            assert_eq!(map.keys().collect::<Vec<_>>(), names);
            assert!(names.iter().all(|name| map.contains_key(name)) && map.len() == count);
            assert_eq!(map.clone().into_iter().map(|(key, _)| key).collect::<Vec<_>>(), names);
            if let Some(entry) = map.remove("k0") {
                assert_eq!((map.get("k0"), map.len()), (None, count - 1));
                map.insert("k0", entry);
                assert_eq!(map.keys().last(), Some("k0"));
                assert_eq!(map, numbered(count, &place), "the order does not count");
                map.set("k0", Node::str("x", place.clone()));
                assert!(map != numbered(count, &place) && map.len() == count);
            }
            map.retain(|key, _| key == "k1");
            assert_eq!(map.len(), usize::from(count > 1));
        }
    }
}
