//! Input that is meant to hurt, or damaged: a placed error, soon, within bounds, and never a panic.
//!
//! Bounds are on processor time where growth could be quadratic: each of these tests would take minutes, or all memory, without
//! the bound it is about.

use stack_schema::diagnostic::Severity;
use stack_schema::load::{LoadRequest, Loaded, load, render};
use stack_schema::source::{Disk, Files};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

/// Files of bytes, below `/p`.
struct Memory(BTreeMap<PathBuf, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
    fn is_dir(&self, path: &Path) -> bool {
        self.0.keys().any(|file| file.starts_with(path) && file != path)
    }
}

fn request(directory: &Path) -> LoadRequest {
    LoadRequest {
        files: vec![directory.join("compose.yaml")],
        project_directory: directory.to_owned(),
        display_base: directory.to_owned(),
        ..LoadRequest::default()
    }
}

fn loaded(files: &[(&str, &[u8])]) -> Loaded {
    let files = files.iter().map(|(name, bytes)| (Path::new("/p").join(name), bytes.to_vec()));
    load(&request(Path::new("/p")), &Memory(files.collect()))
}

fn one(text: impl AsRef<[u8]>) -> Loaded {
    loaded(&[("compose.yaml", text.as_ref())])
}

/// The first error, as `FILE:LINE:COLUMN message`. Everything found can be shown.
fn error(loaded: &Loaded) -> String {
    assert!(loaded.project.is_none());
    loaded.diagnostics.iter().for_each(|found| assert!(!found.render().is_empty()));
    let found = loaded.diagnostics.iter().find(|found| found.severity == Severity::Error).expect("an error");
    let place = found.place.as_ref().unwrap_or_else(|| panic!("no place: {}", found.message));
    let (line, column) = place.line_column();
    format!("{}:{line}:{column} {}", place.source.name, found.message)
}

#[test]
fn alias_bombs_end_where_they_grow_too_large() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let item = format!("*a{}, ", level - 1).repeat(10);
        let _ = writeln!(laughs, "a{level}: &a{level} [{item}]");
    }
    assert_eq!(error(&one(laughs)), "compose.yaml:6:20 aliases repeat more than 500000 values");
}

#[test]
fn nesting_ends() {
    for text in ["[".repeat(20_000), "{a: ".repeat(20_000), format!("a: {}", "- ".repeat(20_000))] {
        assert!(error(&one(text)).starts_with("compose.yaml:1:"));
    }
    let deep: String = (0..400).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert_eq!(error(&one(deep)), "compose.yaml:129:129 more than 128 levels of nesting");
    // The deepest that is allowed goes through every phase.
    let ladder = |levels: usize| {
        let flat = |below: &str| format!("{}{below}{}", "[".repeat(levels), "]".repeat(levels));
        format!("x-a: &a {}\nx-b: {}\nservices: {{a: {{image: x}}}}\n", flat("x"), flat("*a"))
    };
    assert!(!render::json(&one(ladder(98))).is_empty());
    assert!(error(&one(ladder(100))).ends_with("more than 200 levels of nesting"));
}

#[test]
fn an_alias_cannot_contain_itself() {
    assert_eq!(
        error(&one("x: &x\n  y: *x\n")),
        "compose.yaml:2:6 this alias stands inside the value it repeats"
    );
}

#[test]
fn a_file_of_a_gigabyte_is_not_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::create(directory.path().join("compose.yaml")).expect("a file");
    file.set_len(1 << 30).expect("a sparse file");
    let found = load(&request(directory.path()), &Disk);
    assert_eq!(
        found.diagnostics[0].message,
        "the file `compose.yaml` cannot be read: it is larger than 64 MiB"
    );
}

/// A device never ends.
#[test]
fn a_device_is_not_read_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "include: [/dev/zero]\nservices: {a: {image: x}}\n";
    std::fs::write(directory.path().join("compose.yaml"), text).expect("a file");
    let found = error(&load(&request(directory.path()), &Disk));
    assert!(
        found.starts_with("compose.yaml:1:11 the file `") && found.ends_with("larger than 64 MiB"),
        "{found}"
    );
}

#[test]
fn a_scalar_of_megabytes_is_a_scalar() {
    let long = "x".repeat(8 << 20);
    let found =
        one(format!("services: {{a: {{image: i, command: [\"{long}\"], labels: {{l: '{long}'}}}}}}\n"));
    let project = found.project.expect("it is valid");
    assert_eq!(project.services["a"].labels["l"].len(), long.len());
}

/// Many references on one line: looking to the end of the line for each would take minutes.
#[test]
fn references_cost_what_they_are_long() {
    for one_of_many in ["${A:-x}", "${A}", "$A", "${!}", "${A:-{}", "${", "$$", "${A:-${B:-c}}", "${A?}"] {
        let text = one_of_many.repeat((1 << 18) / one_of_many.len());
        let found = one(format!("services: {{a: {{image: i, labels: {{l: '{text}'}}}}}}\n"));
        assert!(found.diagnostics.len() <= 1001, "{one_of_many}: {}", found.diagnostics.len());
    }
    let different: String = (0..30_000).map(|number| format!("$A{number} ")).collect();
    one(format!("services: {{a: {{image: i, labels: {{l: '{different}'}}}}}}\n"));
}

#[test]
fn operands_nest_a_hundred_deep() {
    let text = format!("{}x{}", "${A:-".repeat(20_000), "}".repeat(20_000));
    let found = error(&one(format!("services: {{a: {{image: '{text}'}}}}\n")));
    assert_eq!(found.split(' ').skip(1).collect::<Vec<_>>().join(" "), "this is no valid `${…}` reference");
    stack_schema::interpolate::references(&text, &mut Vec::new());
}

#[test]
fn of_many_findings_the_first_are_shown() {
    let mut text = String::from("services:\n  a:\n    image: x\n");
    (0..20_000).for_each(|number| _ = writeln!(text, "    imagge{number}: x"));
    let found = one(text);
    assert_eq!(error(&found), "compose.yaml:4:5 unknown attribute `imagge0` in service `a`");
    assert_eq!(found.diagnostics.len(), 1001);
    assert!(found.diagnostics[1000].message.ends_with("more findings are not shown"));
}

/// Each file includes the next one twice: 2⁴⁰ files in the end.
#[test]
fn inclusion_bombs_end() {
    let names: Vec<String> = (0..41).map(|level| format!("f{level}.yaml")).collect();
    let texts: Vec<String> =
        (0..40).map(|level| format!("include: [f{0}.yaml, f{0}.yaml]\n", level + 1)).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("compose.yaml", b"include: [f0.yaml]\n")];
    files.extend(names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_bytes())));
    files.push((&names[40], b"services: {a: {image: x}}\n"));
    assert!(error(&loaded(&files)).ends_with("more than 1000 files are included"));
}

#[test]
fn inclusion_in_a_circle_ends() {
    let files: [(&str, &[u8]); 2] =
        [("compose.yaml", b"include: [b.yaml]\n"), ("b.yaml", b"include:\n  - compose.yaml\n")];
    assert_eq!(error(&loaded(&files)), "b.yaml:2:5 this file includes itself in the end");
}

#[test]
fn extension_in_a_circle_or_without_end_ends() {
    let files: [(&str, &[u8]); 2] = [
        ("compose.yaml", b"services: {a: {extends: {file: b.yaml, service: b}}}\n"),
        ("b.yaml", b"services: {b: {extends: {file: compose.yaml, service: a}}}\n"),
    ];
    assert!(error(&loaded(&files)).contains("services extend each other in a circle"));
    let mut chain = String::from("services:\n");
    (0..1000).for_each(|number| _ = writeln!(chain, "  s{number}: {{extends: s{}}}", number + 1));
    chain.push_str("  s1000: {image: x}\n");
    assert!(error(&one(chain)).ends_with("services extend each other more than 100 times in a row"));
}

/// Every service extends one of a large file, which is read once.
#[test]
fn a_file_that_many_extend_is_read_once() {
    let mut base = String::from("services:\n");
    let mut text = base.clone();
    for number in 0..1500 {
        let _ = writeln!(base, "  s{number}: {{image: x, labels: [a=b, c=d], ports: ['80:80']}}");
        let _ = writeln!(text, "  s{number}: {{extends: {{file: base.yaml, service: s{number}}}}}");
    }
    let found = loaded(&[("compose.yaml", text.as_bytes()), ("base.yaml", base.as_bytes())]);
    assert_eq!(found.project.expect("it is valid").services.len(), 1500);
}

/// What does not fit in the base is told for the service that is extended, and only for this.
#[test]
fn findings_of_a_base_belong_to_who_extends_it() {
    let base = b"services:\n  a: {image: x, prots: [1]}\n  b: {image: x, prots: [1]}\n  c: {image: x}\n";
    let text = b"services:\n  c: {extends: {file: base.yaml, service: c}}\n  b: {extends: {file: base.yaml, service: b}}\n";
    let found = loaded(&[("compose.yaml", text), ("base.yaml", base)]);
    assert_eq!(error(&found), "base.yaml:3:17 unknown attribute `prots` in service `b`");
    assert_eq!(found.diagnostics.len(), 1);
}

#[test]
fn a_long_chain_of_dependencies_is_no_problem() {
    let mut text = String::from("services:\n  s0: {image: x}\n");
    (1..5000)
        .for_each(|number| _ = writeln!(text, "  s{number}: {{image: x, depends_on: [s{}]}}", number - 1));
    assert_eq!(one(&text).project.expect("it is valid").services.len(), 5000);
    text.push_str("  t: {image: x, depends_on: [t]}\n");
    assert!(error(&one(text)).starts_with("compose.yaml:"));
}

#[test]
fn what_is_not_utf8_is_shown_where_it_breaks() {
    let text = b"services:\n  a:\n    image: caf\xe9\n";
    assert_eq!(
        error(&one(text)),
        "compose.yaml:3:15 the file `compose.yaml` is not UTF-8: the byte at offset 29 is wrong"
    );
    let sixteen: Vec<u8> = "\u{feff}services: {}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let found = one(sixteen);
    assert!(error(&found).starts_with("compose.yaml:1:1 the file `compose.yaml` is not UTF-8"));
    assert!(found.diagnostics[0].hint.as_deref().is_some_and(|hint| hint.contains("UTF-16")));
    let main = b"services: {a: {image: x, env_file: a.env}}\n";
    let found = loaded(&[("compose.yaml", main), ("a.env", b"A=b\nB=\xff\n")]);
    assert!(error(&found).starts_with("a.env:2:3 the file `a.env` is not UTF-8"));
    assert_eq!(found.diagnostics[0].related[0].0.line_column(), (1, 36));
}

#[test]
fn a_byte_order_mark_and_carriage_returns_mean_nothing() {
    let plain = "services:\n  a:\n    image: x\n    command: |\n      one\n      two\n    env_file: a.env\n";
    let files = |text: &str| {
        let text = text.to_owned();
        loaded(&[("compose.yaml", text.as_bytes()), ("a.env", b"\xef\xbb\xbfA=1\r\nB=\"x\"\r\n")])
    };
    let expected = render::yaml(&files(plain));
    assert!(expected.contains("A: \"1\"\n") && expected.contains("B: x\n"), "{expected}");
    for text in [
        format!("\u{feff}{plain}"),
        plain.replace('\n', "\r\n"),
        format!("\u{feff}{}", plain.replace('\n', "\r\n")),
    ] {
        let found = files(&text);
        assert_eq!(render::yaml(&found), expected, "{text:?}: {:?}", found.diagnostics);
    }
    assert_eq!(
        error(&one("\u{feff}services:\r\n  a:\r\n    imagge: x\r\n")),
        "compose.yaml:3:5 unknown attribute `imagge` in service `a`"
    );
}

#[test]
fn tabs_and_repeated_keys_are_shown() {
    assert!(error(&one("services:\n\ta: {image: x}\n")).starts_with("compose.yaml:2:2 not valid YAML: tabs"));
    let found = one("services:\n  a: {image: x}\n  a: {image: y}\n");
    assert_eq!(error(&found), "compose.yaml:3:3 the key `a` is written twice");
}

/// Paths that lead out of the project are allowed, as in docker compose; what is not a Compose file is an error at its place.
#[test]
fn paths_that_lead_out_end_in_an_error() {
    let found = loaded(&[("compose.yaml", b"include: [../../../../etc/shadow]\n")]);
    assert_eq!(error(&found), "compose.yaml:1:11 the file `../etc/shadow` does not exist");
    let found = loaded(&[("compose.yaml", b"include: [../../p/../p/secret]\n"), ("secret", b"root:x:0:0\n")]);
    assert_eq!(error(&found), "secret:1:1 a Compose file is a mapping, this is a string");
    for path in [r#""a\0b""#, "'.'", "''", "/", "~nobody/x", "'${X:-..}/..'"] {
        let text = format!("include: [{path}]\nservices: {{a: {{image: x}}}}\n");
        assert!(error(&one(text)).starts_with("compose.yaml:1:11 "), "{path}");
    }
}
