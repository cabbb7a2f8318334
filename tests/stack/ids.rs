//! The maps from feature IDs to what shows them are complete and name only what exists.

use crate::common::checkout;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;

/// Every function of a test's kind; `privileged!(name, …)` declares one too.
fn test_names(directory: &Path, found: &mut HashSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            test_names(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(std::fs::read_to_string(&path).unwrap().lines().filter_map(declared));
        }
    }
}

fn declared(line: &str) -> Option<String> {
    let line = line.trim_start();
    let line = line.strip_prefix("async ").unwrap_or(line);
    let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("privileged!("))?;
    let name = rest.split(['(', ',']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Maps beside this file, by name.
fn maps() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(checkout().join("tests/stack")).unwrap().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let is_map = name.starts_with("ids") && name.ends_with(".txt");
        is_map.then(|| (name, std::fs::read_to_string(entry.path()).unwrap()))
    });
    named.collect()
}

#[test]
fn every_id_has_a_row_and_every_row_names_what_exists() {
    let mut tests = HashSet::new();
    for part in ["src", "tests", "runtime/src", "runtime/tests", "schema/src", "schema/tests"] {
        test_names(&checkout().join(part), &mut tests);
    }
    let (mut rows, mut required) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in maps() {
        let lists = text.lines().filter_map(|line| line.strip_prefix("# required: "));
        required.extend(lists.flat_map(str::split_whitespace).map(str::to_owned));
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (id, names) = line.split_once(' ').unwrap_or_else(|| panic!("{file}: {line}"));
            assert!(rows.insert(id.to_owned()), "{file}: {id} stands twice");
            for name in names.split(' ') {
                match name.split_once(':') {
                    Some(("test", test)) => assert!(tests.contains(test), "{file}: {id}: no test {test}"),
                    Some(("elsewhere", who)) => assert!(!who.is_empty(), "{file}: {id}"),
                    _ => panic!("{file}: {id}: {name}"),
                }
            }
        }
    }
    assert!(!required.is_empty());
    let missing: Vec<_> = required.difference(&rows).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
}
