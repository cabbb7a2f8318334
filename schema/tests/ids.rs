//! The map from feature IDs to what shows them is complete and names only what exists.

mod support;

use std::collections::HashSet;
use std::path::Path;

fn test_names(directory: &Path, found: &mut HashSet<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            test_names(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let names = text.lines().filter_map(|line| {
                line.trim_start().strip_prefix("fn ")?.split('(').next().map(str::to_owned)
            });
            found.extend(names);
        }
    }
}

/// The table of deliberate differences names a case for each row.
#[test]
fn every_difference_has_a_case() {
    let cases: HashSet<String> = ["differs.txt", "broken.txt", "refused.txt"]
        .iter()
        .flat_map(|bundle| support::read_bundle(bundle))
        .map(|case| case.name)
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let table = readme.split("| where | docker compose | here | case |").nth(1).expect("the table");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 20, "{}", rows.len());
    for row in rows {
        let case = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default().trim();
        assert!(cases.contains(case), "no case {case}: {row}");
    }
}

#[test]
fn every_name_in_the_map_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bundles = ["attributes.txt", "rules.txt", "differs.txt", "broken.txt", "refused.txt"];
    let cases: HashSet<String> =
        bundles.iter().flat_map(|bundle| support::read_bundle(bundle)).map(|case| case.name).collect();
    let mut tests = HashSet::new();
    test_names(&root.join("src"), &mut tests);
    test_names(&root.join("tests"), &mut tests);
    let mut root_tests = HashSet::new();
    test_names(&root.join("../src"), &mut root_tests);
    test_names(&root.join("../tests"), &mut root_tests);
    let map = std::fs::read_to_string(root.join("tests/ids.txt")).expect("the map");
    let mut seen = HashSet::new();
    // Section 1 of the inventory has as many.
    assert_eq!(map.lines().filter(|line| !line.starts_with('#')).count(), 503);
    for line in map.lines().filter(|line| !line.starts_with('#')) {
        let (id, names) = line.split_once(' ').expect("an ID and a name");
        assert!(seen.insert(id), "{id} stands twice");
        for name in names.split(' ') {
            match name.split_once(':') {
                Some(("case", case)) => assert!(cases.contains(case), "{id}: no case {case}"),
                Some(("test", test)) => assert!(tests.contains(test), "{id}: no test {test}"),
                Some(("root", test)) => assert!(root_tests.contains(test), "{id}: no test {test}"),
                Some(("elsewhere", _)) => {}
                None if name == "-" => {}
                _ => panic!("{id}: {name}"),
            }
        }
    }
}

/// Not a check: a list for people.
#[test]
#[ignore = "prints the IDs that no test shows: cargo test -p stack-schema --test ids -- --ignored --nocapture"]
#[allow(clippy::print_stdout, reason = "it is what the command is for")]
fn ids_without_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(root.join("tests/ids.txt")).expect("the map");
    map.lines().filter_map(|line| line.strip_suffix(" -")).for_each(|id| println!("{id}"));
}
