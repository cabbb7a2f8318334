//! Variables that are not set: a warning only where the model uses the value, and once for each place in the text.

use super::Session;
use crate::diagnostic::{Diagnostic, Severity};
use crate::source::Source;
use crate::yaml::{Node, Value};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Attributes that are gone when the model is complete, because they have done their work.
const CONSUMED: [&str; 4] = ["include", ".extends", ".env_file", ".label_file"];

impl Session<'_> {
    /// Takes the warnings among the findings of an interpolation, from `first` on.
    pub(super) fn set_unset_aside(&mut self, first: usize) {
        let found = self.diagnostics.split_off(first);
        let (unset, rest) =
            found.into_iter().partition::<Vec<_>, _>(|found| found.severity == Severity::Warning);
        self.diagnostics.extend(rest);
        self.unset.extend(unset);
    }

    /// Reports those that `tree` uses; all of them when there is no tree.
    pub(super) fn report_unset(&mut self, tree: Option<&Node>) {
        let mut places = BTreeMap::new();
        tree.into_iter().for_each(|tree| collect(tree, &mut places));
        let mut told: Vec<Diagnostic> = Vec::new();
        let mut seen = HashSet::new();
        for found in std::mem::take(&mut self.unset) {
            let is_used = tree.is_none()
                || CONSUMED.iter().any(|attribute| found.key_path.contains(attribute))
                || is_within(&found, &places);
            let at = found.place.as_ref().map(|place| (Arc::as_ptr(&place.source), place.start, place.end));
            if is_used && seen.insert(at) {
                told.push(found);
            }
        }
        self.diagnostics.extend(told);
    }
}

/// Ends of values, by source and start.
type Places = BTreeMap<(*const Source, usize), usize>;

fn collect(node: &Node, places: &mut Places) {
    match &node.value {
        Value::Map(map) if !map.is_empty() => {
            let values = map.iter().filter(|(key, _)| !key.starts_with("x-"));
            values.for_each(|(_, entry)| collect(&entry.node, places));
        }
        Value::Seq(items) if !items.is_empty() => items.iter().for_each(|item| collect(item, places)),
        _ => {
            let end = places.entry((Arc::as_ptr(&node.place.source), node.place.start)).or_insert(0);
            *end = node.place.end.max(*end);
        }
    }
}

fn is_within(found: &Diagnostic, places: &Places) -> bool {
    let Some(place) = &found.place else { return true };
    let source = Arc::as_ptr(&place.source);
    let nearest = places.range(..=(source, place.start)).next_back();
    nearest.is_some_and(|((of, _), end)| *of == source && place.end <= *end)
}
