//! Valid files give what `docker compose config --format json` (2.40) gives, or what the bundle's `differs:` says; broken
//! files give the diagnostics in the bundle. `UPDATE=1` rewrites the expectations of broken files and of cases that differ.

mod support;

use stack_schema::load::render;
use support::{Case, read_bundle, write_bundle};

const VALID: [&str; 3] = ["attributes.txt", "rules.txt", "differs.txt"];

fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

fn diagnostics(case: &Case) -> String {
    case.load().diagnostics.iter().map(|diagnostic| diagnostic.render()).collect()
}

#[test]
fn valid_files_mean_what_they_mean_to_docker_compose() {
    let mut failures = String::new();
    for bundle in VALID {
        let cases = read_bundle(bundle);
        let mut updated = Vec::new();
        for case in cases {
            let loaded = case.load();
            let json = render::json(&loaded);
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
            if parse(&json) != parse(&case.expected) && !(is_update() && bundle == "differs.txt") {
                let found: String = loaded.diagnostics.iter().map(|d| d.render()).collect();
                failures.push_str(&format!("--- {bundle} {}\n{json}{found}", case.name));
            }
            updated.push((case, json));
        }
        if is_update() && bundle == "differs.txt" {
            write_bundle(bundle, "expected.json", &updated);
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn broken_files_give_exactly_these_diagnostics() {
    let cases = read_bundle("broken.txt");
    assert!(cases.len() >= 100);
    let found: Vec<(Case, String)> =
        cases.into_iter().map(|case| (case.clone(), diagnostics(&case))).collect();
    if is_update() {
        write_bundle("broken.txt", "expected.txt", &found);
        return;
    }
    let mut failures = String::new();
    for (case, text) in &found {
        assert!(case.load().project.is_none(), "{} is no error", case.name);
        if *text != case.expected {
            failures.push_str(&format!("--- {}\n{text}--- instead of\n{}", case.name, case.expected));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// The file is valid, but no container can be made from it: the load has nothing to say, the project keeps the reason.
#[test]
fn refusals_are_told_apart() {
    let told = |case: &Case| {
        let refusals = case.load().project.map(|project| project.refusals).unwrap_or_default();
        let refusals: String = refusals.iter().map(|refusal| refusal.render()).collect();
        diagnostics(case) + &refusals
    };
    let found: Vec<(Case, String)> =
        read_bundle("refused.txt").into_iter().map(|case| (case.clone(), told(&case))).collect();
    if is_update() {
        write_bundle("refused.txt", "expected.txt", &found);
        return;
    }
    for (case, text) in &found {
        assert_eq!(*text, case.expected, "{}", case.name);
        let project = case.load().project.expect("valid");
        assert_eq!(project.refusals.len(), 1, "{}", case.name);
    }
}

#[test]
fn every_error_has_a_place() {
    // A name on the command line, and a project name, stand in no file.
    let placeless = ["no-such-service", "m-p-bad"];
    for case in read_bundle("broken.txt").iter().filter(|case| !placeless.contains(&case.name.as_str())) {
        for diagnostic in case.load().diagnostics {
            assert!(diagnostic.place.is_some(), "{}: {}", case.name, diagnostic.message);
        }
    }
}

/// L1: what is rendered loads again and renders the same.
#[test]
fn rendering_loads_again_to_the_same() {
    for bundle in VALID {
        for case in read_bundle(bundle) {
            let loaded = case.load();
            // An optional dependency on a service of an inactive profile is written, as docker compose does, though the
            // service is not.
            let is_partly_resolved = case.args.iter().any(|arg| arg.starts_with("--no-"));
            // And `1` beside `"1"` is written as two texts.
            let is_lossy = ["profiles-optional-dep", "group-add-kinds"].contains(&case.name.as_str());
            if is_partly_resolved || loaded.project.is_none() || is_lossy {
                continue;
            }
            let yaml = render::yaml(&loaded);
            let again = Case {
                args: Vec::new(),
                files: [("compose.yaml".to_owned(), yaml.clone())].into(),
                ..case.clone()
            };
            let reloaded = again.load();
            let found: String = reloaded.diagnostics.iter().map(|d| d.render()).collect();
            assert!(reloaded.project.is_some(), "{}: {found}\n{yaml}", case.name);
            let mut profiled = render::yaml(&reloaded);
            if case.args.iter().any(|arg| arg == "--profile") {
                profiled = yaml.clone();
            }
            assert_eq!(profiled, yaml, "{}", case.name);
        }
    }
}
