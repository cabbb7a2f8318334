//! What each fuzz target does with its bytes. The libFuzzer programs and the test that replays the corpus share it.
//!
//! Beyond "no panic": findings can be shown, places lie in their sources, and what was accepted means the same when it is
//! written and read again.

use stack_schema::dockerfile::expand::Expander;
use stack_schema::dockerfile::{self, stages};
use stack_schema::ignore::{Glob, Patterns};
use stack_schema::interpolate::{self, Finding};
use stack_schema::load::{LoadRequest, Loaded, load, render};
use stack_schema::source::{Files, Source};
use stack_schema::{env, short};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A target's name and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

pub(crate) const ALL: [Target; 6] = [
    ("compose", compose),
    ("interpolate", interpolated),
    ("dotenv", dotenv),
    ("short", short_forms),
    ("dockerfile", dockerfiles),
    ("ignore", ignored),
];

/// Files in memory, below `/p`.
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

/// `compose.yaml`, and after lines of `%%%` an override, another file to include or extend, and an env file.
fn compose(data: &[u8]) {
    const NAMES: [&str; 4] = ["compose.yaml", "compose.override.yaml", "other.yaml", ".env"];
    let mut files = Memory(BTreeMap::new());
    for (name, part) in NAMES.iter().zip(split(data, b"\n%%%\n")) {
        files.0.insert(Path::new("/p").join(name), part.to_vec());
    }
    let loaded = load(&request(&files), &files);
    loaded.diagnostics.iter().for_each(|found| {
        let _ = (found.render(), found.to_json());
    });
    if loaded.project.is_some() {
        rendered_again(&loaded);
    }
}

fn request(files: &Memory) -> LoadRequest {
    let named = files.0.keys().filter(|path| path.to_string_lossy().contains("compose"));
    let mut all: Vec<PathBuf> = named.cloned().collect();
    all.sort_by_key(|path| path.as_os_str().len());
    LoadRequest {
        files: all,
        project_directory: "/p".into(),
        display_base: "/p".into(),
        profiles: vec!["*".into()],
        ..LoadRequest::default()
    }
}

/// What `config` prints is read again, and printed the same.
fn rendered_again(loaded: &Loaded) {
    let _: serde_json::Value = serde_json::from_str(&render::json(loaded)).expect("`config` prints JSON");
    let text = render::yaml(loaded);
    let files = Memory(BTreeMap::from([("/p/compose.yaml".into(), text.clone().into_bytes())]));
    let again = load(&request(&files), &files);
    let found: String = again.diagnostics.iter().map(|found| found.render()).collect();
    assert!(again.project.is_some(), "{text}\n{found}");
    assert_eq!(render::yaml(&again), text);
}

fn split<'d>(data: &'d [u8], at: &'d [u8]) -> impl Iterator<Item = &'d [u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let part = rest?;
        let end = part.windows(at.len()).position(|window| window == at);
        rest = end.map(|end| &part[end + at.len()..]);
        Some(end.map_or(part, |end| &part[..end]))
    })
}

fn value_of(name: &str) -> Option<String> {
    match name {
        "A" => Some("a".into()),
        "E" => Some(String::new()),
        "D" => Some("$A${A}".into()),
        _ => None,
    }
}

fn interpolated(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut findings = Vec::new();
    let value = interpolate::text(text, &value_of, &mut findings);
    if !text.contains('$') {
        assert_eq!(value, text);
    }
    let mut references = Vec::new();
    interpolate::references(text, &mut references);
    for finding in &findings {
        if let Finding::Used { name, .. } | Finding::Unset { name, .. } = finding {
            assert!(
                references.len() > 100 || references.iter().any(|reference| reference.name == *name),
                "{name}"
            );
        }
    }
    // Text in which every dollar sign is doubled is itself.
    let mut findings = Vec::new();
    assert_eq!(interpolate::text(&text.replace('$', "$$"), &value_of, &mut findings), text);
    assert!(findings.is_empty());
}

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source { name: "t".into(), path: None, text: text.into() })
}

fn dotenv(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for read in [env::parse_dotenv(&source(text), &value_of), env::parse_raw(&source(text), &value_of)] {
        read.diagnostics.iter().for_each(|found| {
            let _ = found.render();
        });
        assert!(read.variables.iter().all(|(name, _)| !name.is_empty()));
    }
}

fn short_forms(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(duration) = short::parse_duration(text) {
        let written = short::format_duration(duration);
        assert_eq!(short::parse_duration(&written).expect("what is written is read"), duration, "{written}");
    }
    if let Ok(bytes) = short::parse_bytes(text) {
        assert_eq!(short::parse_bytes(&bytes.0.to_string()).expect("a number of bytes").0, bytes.0);
    }
    if let Ok(ports) = short::parse_port(text) {
        assert!(ports.len() <= 65_536);
    }
    if let Ok(words) = short::split_words(text) {
        assert!(words.iter().map(String::len).sum::<usize>() <= text.len());
    }
    let cleaned = short::clean_path(text);
    assert_eq!(short::clean_path(&cleaned), cleaned);
    let _ = (short::parse_volume(text), short::parse_mode(text), short::words(text), short::is_path(text));
}

fn dockerfiles(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variables = value_of;
    let expander = Expander { escape: '\\', variables: &variables };
    for line in text.lines().take(50) {
        let _ = (expander.word(line), expander.words(line), expander.body(line));
        let _ = dockerfile::parse_trigger(line, "base");
    }
    match dockerfile::parse(source(text)) {
        Err(found) => {
            let _ = found.render();
        }
        Ok(file) => {
            file.findings.iter().for_each(|finding| {
                let _ = finding.diagnostic.render();
            });
            let any = |text: &str| if text.contains('!') { Err(text.to_owned()) } else { Ok(()) };
            let names =
                stages::Names { contexts: &|_| false, variables: &variables, platform: &any, image: &any };
            let _ = dockerfile::lint::check_bases(&file, &names, &[]);
            let _ = stages::every(&file, &names);
            if let Ok(selection) = stages::select(&file, None, &names) {
                assert!(selection.target < file.stages.len());
            }
        }
    }
}

/// The last line is the path, the others are the patterns.
fn ignored(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (patterns, path) = text.rsplit_once('\n').unwrap_or(("", text));
    if let Ok(patterns) = Patterns::parse(patterns) {
        if patterns.is_empty() {
            assert!(!patterns.matches(path));
        }
        let _ = (patterns.matches(path), patterns.takes_back(), patterns.may_take_back_below(path));
    }
    for line in patterns.lines().take(4) {
        if let Ok(glob) = Glob::new(line) {
            let _ = glob.matches(path);
        }
    }
}

/// Runs the target of that name.
#[allow(dead_code, reason = "the corpus test goes through all of them")]
pub(crate) fn run(name: &str, data: &[u8]) {
    let (_, target) = ALL.iter().find(|(known, _)| *known == name).expect("a target's name");
    target(data);
}
