//! Cases in bundles: many small file sets in one text file.
//!
//! ```text
//! === name ids:TOP-name,TOP-services args:-p;shop
//! name: shop            (the file compose.yaml, until the next section)
//! @@ sub/other.yaml
//! …
//! @@ expected.json      (what docker compose 2.40 prints, or what we print where `differs:` says why)
//! ```
//!
//! Arguments behind `--` belong to `config`. A `!` after a path: the file ends without a newline. Files `compose.*.yaml` are given in order, as with several `-f`. The project directory is `/case/<name>`.
#![allow(dead_code, reason = "each test binary uses its part")]

use stack_schema::env::{Env, parse_dotenv};
use stack_schema::load::{LoadRequest, Loaded, load, read_source};
use stack_schema::source::Files;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) differs: bool,
    /// By relative path, without the expectation.
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) expected: String,
}

/// Where the bundles lie.
pub(crate) fn bundle_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

pub(crate) fn read_bundle(name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(bundle_path(name)).expect("a bundle");
    let mut cases: Vec<Case> = Vec::new();
    let mut section = String::new();
    let mut is_open = false;
    for line in text.split_inclusive('\n') {
        if let Some(header) = line.strip_prefix("=== ") {
            cases.push(header_of(header.trim_end()));
            section = "compose.yaml".into();
        } else if let Some(path) = line.strip_prefix("@@ ") {
            end_open(&mut cases, &section, is_open);
            let path = path.trim_end();
            (section, is_open) = (path.trim_end_matches('!').into(), path.ends_with('!'));
            if let Some(case) = cases.last_mut().filter(|_| !section.starts_with("expected")) {
                case.files.entry(section.clone()).or_default();
            }
        } else if let Some(case) = cases.last_mut() {
            let slot = if section.starts_with("expected") {
                &mut case.expected
            } else {
                case.files.entry(section.clone()).or_default()
            };
            slot.push_str(line);
        }
    }
    cases
}

/// Takes the last newline of a section that is to have none.
fn end_open(cases: &mut [Case], section: &str, is_open: bool) {
    if let Some(text) = cases.last_mut().and_then(|case| case.files.get_mut(section)).filter(|_| is_open) {
        text.truncate(text.trim_end_matches('\n').len());
    }
}

fn header_of(header: &str) -> Case {
    let mut words = header.split(' ');
    let mut case = Case { name: words.next().unwrap_or_default().into(), ..Case::default() };
    for word in words {
        match word.split_once(':') {
            Some(("args", args)) => case.args = args.split(';').map(str::to_owned).collect(),
            Some(("differs", _)) => case.differs = true,
            _ => panic!("the header `{header}` has an unknown word"),
        }
    }
    case
}

/// The files of a case below `/case/<name>`.
pub(crate) struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
    directories: BTreeSet<PathBuf>,
}

impl Memory {
    pub(crate) fn new(root: &Path, files: &BTreeMap<String, String>) -> Self {
        let files: BTreeMap<PathBuf, Vec<u8>> =
            files.iter().map(|(path, text)| (root.join(path), text.clone().into_bytes())).collect();
        let directories =
            files.keys().flat_map(|path| path.ancestors().skip(1).map(Path::to_owned)).collect();
        Self { files, directories }
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
    fn is_file(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
    fn is_dir(&self, path: &Path) -> bool {
        self.directories.contains(path)
    }
}

impl Case {
    pub(crate) fn root(&self) -> PathBuf {
        Path::new("/case").join(&self.name)
    }

    /// The Compose files of the case, by relative path.
    pub(crate) fn compose_files(&self) -> Vec<&str> {
        let numbered: Vec<&str> = self
            .files
            .keys()
            .filter(|f| f.starts_with("compose.") && *f != "compose.yaml")
            .map(String::as_str)
            .collect();
        if numbered.is_empty() { vec!["compose.yaml"] } else { numbered }
    }

    pub(crate) fn load(&self) -> Loaded {
        let root = self.root();
        let memory = Memory::new(&root, &self.files);
        let mut request = LoadRequest {
            files: self.compose_files().into_iter().map(|file| root.join(file)).collect(),
            project_directory: root.clone(),
            display_base: root.clone(),
            environment: Env::process([("HOME".to_owned(), "/home/u".to_owned())]),
            ..LoadRequest::default()
        };
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-p" => request.project_name = args.next().cloned(),
                "--profile" => request.profiles.extend(args.next().cloned()),
                "--" => {}
                "--no-interpolate" => request.no_interpolate = true,
                "--no-normalize" => request.no_normalize = true,
                "--no-path-resolution" => request.no_path_resolution = true,
                service if !service.starts_with('-') => request.services.push(service.to_owned()),
                other => panic!("unknown argument {other}"),
            }
        }
        if let Ok(source) = read_source(&memory, &root.join(".env"), &root) {
            let outer = request.environment.clone();
            let dotenv = parse_dotenv(&source, &|name| outer.get(name).map(str::to_owned));
            request.environment.fill(&dotenv.variables);
        }
        load(&request, &memory)
    }
}

/// The bundle's text again, with each case's expectation replaced.
pub(crate) fn write_bundle(name: &str, expectation: &str, cases: &[(Case, String)]) {
    let old = std::fs::read_to_string(bundle_path(name)).expect("a bundle");
    let mut out = String::new();
    let mut blocks = old.split("=== ");
    out.push_str(blocks.next().unwrap_or_default());
    for (block, (_, expected)) in blocks.zip(cases) {
        let files = block.split("@@ expected").next().unwrap_or_default();
        out.push_str(&format!("=== {files}@@ {expectation}\n{expected}"));
    }
    std::fs::write(bundle_path(name), out).expect("a writable bundle");
}
