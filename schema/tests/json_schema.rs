//! The schema that the table gives, judged by a validator: it accepts every valid file of the bundles, and refuses the broken
//! ones that are broken in what a schema can say.

mod support;

use serde_json::Value;
use stack_schema::attributes::json_schema::json_schema;
use stack_schema::load::{read_source, render};
use stack_schema::yaml;
use support::{Case, Memory, read_bundle};

/// Each document of the case's Compose files, as it stands.
fn documents(case: &Case) -> Vec<Value> {
    let root = case.root();
    let memory = Memory::new(&root, &case.files);
    let sources = case.compose_files().into_iter().map(|file| read_source(&memory, &root.join(file), &root));
    let parse = |source| yaml::parse(&source, yaml::Limits::default(), &mut Vec::new());
    sources.flatten().flat_map(parse).map(|document| render::to_json(&document)).collect()
}

/// `!reset` says nothing in one file alone: an earlier one has the value.
fn stands_alone(case: &Case) -> bool {
    case.compose_files().len() == 1 && !case.files.values().any(|text| text.contains("!reset"))
}

/// Over an extended service, null says nothing alone: the value is there.
fn leaves_a_value(service: &Value) -> bool {
    service.get("extends").is_some()
        && service.as_object().is_some_and(|own| own.values().any(Value::is_null))
}

/// Without the services of which one file does not tell enough.
fn complete(mut document: Value) -> Value {
    if let Some(services) = document.get_mut("services").and_then(Value::as_object_mut) {
        services.retain(|_, service| !leaves_a_value(service));
    }
    document
}

#[test]
fn valid_files_fit_the_schema() {
    let validator = jsonschema::validator_for(&json_schema()).expect("a schema");
    let mut failures = String::new();
    let mut judged = 0;
    for bundle in ["attributes.txt", "rules.txt"] {
        for case in read_bundle(bundle).iter().filter(|case| stands_alone(case)) {
            // An editor marks what a load only warns about.
            if case.name == "include-odd" {
                continue;
            }
            for document in documents(case).into_iter().map(complete) {
                judged += 1;
                for error in validator.iter_errors(&document) {
                    failures.push_str(&format!("{}: {}: {error}\n", case.name, error.instance_path));
                }
            }
        }
    }
    assert!(judged > 100, "{judged}");
    assert!(failures.is_empty(), "{failures}");
}

/// Sentences of findings that are about the form of one value.
const FORMS: [&str; 5] =
    ["unknown attribute", " must be ", "is no value of", "needs the attribute", "cannot be a key of"];

#[test]
fn broken_files_do_not() {
    let validator = jsonschema::validator_for(&json_schema()).expect("a schema");
    let mut judged = 0;
    for case in read_bundle("broken.txt") {
        let loaded = case.load();
        let base = case.root().join("compose.yaml");
        let is_formal = loaded.diagnostics.iter().any(|found| {
            let is_here = found.place.as_ref().is_some_and(|place| place.source.path.as_ref() == Some(&base));
            is_here && FORMS.iter().any(|form| found.message.contains(form))
        });
        if is_formal {
            judged += 1;
            let is_refused = documents(&case).iter().any(|document| !validator.is_valid(document));
            assert!(is_refused, "{} fits the schema", case.name);
        }
    }
    assert!(judged > 25, "{judged}");
}
