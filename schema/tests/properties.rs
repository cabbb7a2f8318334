//! Properties over made-up input: L1 (load ∘ render ∘ load = load), the identity of merging, strings through YAML, and that
//! nothing panics whatever the text is.

mod support;

use proptest::prelude::*;
use stack_schema::load::render;
use stack_schema::source::{Place, Source};
use stack_schema::yaml::{self, Node, Value, emit};
use stack_schema::{env, short};
use std::sync::Arc;
use support::Case;

fn case(files: &[(&str, String)]) -> Case {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.clone())).collect();
    Case { name: "property".into(), files, ..Case::default() }
}

/// Lines of a service, each of which fits any service that has an image.
fn line() -> impl Strategy<Value = String> {
    let word = "[a-z][a-z0-9]{0,6}";
    prop_oneof![
        (word, "[ -~]{0,12}").prop_map(|(k, v)| format!("environment: {{{k}: {}}}", quoted(&v))),
        prop::collection::vec(word, 1..4).prop_map(|words| format!("command: [{}]", words.join(", "))),
        (1u16..9999, 1u16..9999)
            .prop_map(|(host, port)| format!("ports: [\"{host}:{port}\", \"{port}/udp\"]")),
        word.prop_map(|w| format!("volumes: [\"./{w}:/{w}:ro\", /anon{w}]")),
        (1u32..900).prop_map(|s| format!("stop_grace_period: {s}s")),
        (1u32..900).prop_map(|m| format!("mem_limit: {m}m")),
        (1u32..40).prop_map(|c| format!("cpus: {}", f64::from(c) / 10.0)),
        word.prop_map(|w| format!("labels: [{w}=1, {w}2]")),
        word.prop_map(|w| format!("healthcheck: {{test: {w}, interval: 1m30s, retries: 2}}")),
        Just("build: {context: ., args: {A: 1}}".to_owned()),
        Just("depends_on: [base]".to_owned()),
        Just("networks: {default: {aliases: [x]}}".to_owned()),
        Just("deploy: {replicas: 2, labels: {a: b}}".to_owned()),
        Just("tmpfs: /run".to_owned()),
        Just("tty: \"yes\"".to_owned()),
        Just("entrypoint: sh -c 'a b'".to_owned()),
        Just("ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}".to_owned()),
        Just("extra_hosts: [\"a:1.1.1.1\", \"a=::1\"]".to_owned()),
    ]
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}

/// A file of one or two services, every attribute at most once.
fn file() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::collection::vec(line(), 0..8), 1..3).prop_map(|services| {
        let mut text = String::from("services:\n  base: {image: base}\n");
        for (number, mut lines) in services.into_iter().enumerate() {
            lines.sort();
            lines.dedup_by(|a, b| a.split(':').next() == b.split(':').next());
            text.push_str(&format!("  s{number}:\n    image: i{number}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
        text
    })
}

fn render(case: &Case) -> String {
    let loaded = case.load();
    let found: String = loaded.diagnostics.iter().map(|diagnostic| diagnostic.render()).collect();
    assert!(loaded.project.is_some(), "{found}\n{:?}", case.files);
    render::yaml(&loaded)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_rendered_loads_to_the_same(text in file()) {
        let first = render(&case(&[("compose.yaml", text)]));
        prop_assert_eq!(render(&case(&[("compose.yaml", first.clone())])), first);
    }

    #[test]
    fn json_loads_to_the_same_as_yaml(text in file()) {
        let loaded = case(&[("compose.yaml", text)]).load();
        let from_json = render(&case(&[("compose.yaml", render::json(&loaded))]));
        prop_assert_eq!(from_json, render::yaml(&loaded));
    }

    #[test]
    fn fingerprints_survive_rendering(text in file()) {
        let loaded = case(&[("compose.yaml", text)]).load();
        let again = case(&[("compose.yaml", render::yaml(&loaded))]).load();
        let prints = |loaded: &stack_schema::load::Loaded| {
            let project = loaded.project.as_ref().expect("valid");
            project.services.values().map(|s| (s.key.clone(), s.fingerprint.clone())).collect::<std::collections::BTreeMap<_, _>>()
        };
        prop_assert_eq!(prints(&again), prints(&loaded));
    }

    #[test]
    fn an_empty_override_changes_nothing(text in file()) {
        let alone = render(&case(&[("compose.yaml", text.clone())]));
        let over = "services: {base: {}}\n".to_owned();
        prop_assert_eq!(render(&case(&[("compose.1.yaml", text.clone()), ("compose.2.yaml", over.clone())])), alone.clone());
        // The same file twice means what it means once, except that ports and watch rules append; ports are unique.
        prop_assert_eq!(render(&case(&[("compose.1.yaml", text.clone()), ("compose.2.yaml", text)])), alone);
    }

    #[test]
    fn strings_survive_yaml_for_every_reader(text in "\\PC{0,20}|[-0-9a-fxo_.:+ ~#&*!|>'\"%@`{}\\[\\],?=]{0,8}|yes|No|null|0o17|1_0|2001-01-01") {
        let source = Arc::new(Source { name: "t".into(), path: None, text: String::new() });
        let place = Place { source, start: 0, end: 0 };
        let mut map = Node::map(place.clone());
        map.as_map_mut().expect("a map").set("k", Node::str(&text, place.clone()));
        let written = emit::emit(&map);
        let source = Arc::new(Source { name: "t".into(), path: None, text: written.clone() });
        let mut diagnostics = Vec::new();
        let read = yaml::parse(&source, yaml::Limits::default(), &mut diagnostics);
        prop_assert_eq!(read[0].get("k").map(|node| &node.value), Some(&Value::Str(text.clone())), "{}", written);
        let other: serde_yaml::Value = serde_yaml::from_str(&written).expect("valid YAML");
        prop_assert_eq!(other["k"].as_str(), Some(text.as_str()), "{}", written);
    }

    #[test]
    fn nothing_panics(text in "[ -~\n\t]{0,80}|services:\n  a: \\{[ -~]{0,60}\\}|(\\PC|\n){0,60}") {
        case(&[("compose.yaml", text.clone()), (".env", text.clone())]).load();
        let source = Arc::new(Source { name: "t".into(), path: None, text: text.clone() });
        env::parse_dotenv(&source, &|_| None);
        env::parse_raw(&source, &|_| None);
        let _ = (short::parse_port(&text), short::parse_volume(&text), short::parse_duration(&text));
        let _ = (short::parse_bytes(&text), short::parse_mode(&text), short::words(&text));
    }
}

/// Hostile documents end in an error, soon.
#[test]
fn bombs_are_refused() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let item = format!("*a{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{item}]\n"));
    }
    let mut ladder = String::new();
    for level in 0..200 {
        let below = if level == 0 { "x".into() } else { format!("*l{}", level - 1) };
        ladder.push_str(&format!("x-l{level}: &l{level} {}{below}{}\n", "[".repeat(20), "]".repeat(20)));
    }
    for text in [
        laughs,
        ladder,
        "[".repeat(20_000),
        "{a: ".repeat(5_000),
        format!("a: {}", "- ".repeat(5_000)),
        "${".repeat(50_000),
    ] {
        let loaded = case(&[("compose.yaml", text)]).load();
        assert!(loaded.project.is_none() && !loaded.diagnostics.is_empty());
    }
}
