//! `include`: other file sets, each loaded with its own base directory and `.env`, whose resources become this document's.

use super::provenance::Kind;
use super::{Session, merge, paths};
use crate::attributes;
use crate::diagnostic::Diagnostic;
use crate::env::{self, Env};
use crate::keypath::Trail;
use crate::source::{Place, Source};
use crate::yaml::{Node, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Deeper than any real project; the cycle check alone would already end.
const MAX_DEPTH: usize = 64;

/// In all: files that each include the next one twice would else be read without end.
const MAX_INCLUDED: usize = 1000;

const SECTIONS: [&str; 6] = ["services", "networks", "volumes", "secrets", "configs", "models"];

/// One entry of the list.
struct Inclusion {
    place: Place,
    paths: Vec<(String, Place)>,
    env_files: Option<Vec<(String, Place)>>,
    project_directory: Option<String>,
}

impl Session<'_> {
    /// Brings the resources of the included files into `document`; what the document itself says goes over them.
    pub(super) fn include(&mut self, document: &mut Node, base: &Path, environment: &Env) {
        let Some(include) = document.as_map_mut().and_then(|map| map.remove("include")) else { return };
        let items = include.node.as_seq().unwrap_or_default();
        let mut imported = Node::map(document.place.clone());
        for item in items {
            let inclusion = Inclusion::read(item);
            if let Some(tree) = self.included(&inclusion, base, environment) {
                import(&mut imported, tree);
            }
        }
        let own = std::mem::replace(document, imported);
        document.place = own.place.clone();
        let notes = self.notes();
        merge::merge_extending(document, own, attributes::root(), &Trail::Root, notes);
    }

    fn included(&mut self, inclusion: &Inclusion, base: &Path, environment: &Env) -> Option<Node> {
        let (first, place) = inclusion.paths.first()?;
        if paths::is_remote(first) || first.starts_with("oci:") {
            let message = format!("including `{first}` from elsewhere is not supported yet");
            self.report(
                Diagnostic::error(message)
                    .at(place.clone())
                    .key("include")
                    .hint("Copy the file beside this one."),
            );
            return None;
        }
        let first_path = PathBuf::from(paths::join(first, base));
        let directory = match &inclusion.project_directory {
            Some(directory) => {
                let directory = PathBuf::from(paths::join(directory, base));
                // What is no directory is taken for a file in the directory that is meant.
                let parent =
                    directory.parent().filter(|_| !self.files.is_dir(&directory)).map(Path::to_owned);
                parent.unwrap_or(directory)
            }
            None => first_path.parent().unwrap_or(base).to_owned(),
        };
        if let Some(chain) = self.cycle(&first_path, &inclusion.place) {
            self.report(chain);
            return None;
        }
        self.included += 1;
        if self.included > MAX_INCLUDED {
            if self.included == MAX_INCLUDED + 1 {
                let message = format!("more than {MAX_INCLUDED} files are included");
                self.report(Diagnostic::error(message).at(inclusion.place.clone()).key("include"));
            }
            return None;
        }
        let environment = self.included_environment(inclusion, base, &directory, environment);
        let inputs: Vec<Arc<Source>> = inclusion
            .paths
            .iter()
            .filter_map(|(path, place)| self.read(Path::new(&paths::join(path, base)), Some(place)))
            .collect();
        for source in &inputs {
            let span = Place { source: source.clone(), start: 0, end: source.text.len() };
            self.provenance.link(Kind::Include, span, inclusion.place.clone());
        }
        self.including.push((first_path, inclusion.place.clone()));
        let resolve_from = self.resolve_from(&directory, base);
        let tree = self.model(&inputs, &directory, Some(&resolve_from), &environment);
        self.including.pop();
        tree
    }

    fn cycle(&self, path: &Path, place: &Place) -> Option<Diagnostic> {
        let roots = self.request.files.iter().map(PathBuf::as_path);
        let is_known =
            roots.chain(self.including.iter().map(|(path, _)| path.as_path())).any(|known| known == path);
        if !is_known && self.including.len() < MAX_DEPTH {
            return None;
        }
        let message =
            if is_known { "this file includes itself in the end" } else { "files are included too deeply" };
        let diagnostic = Diagnostic::error(message).at(place.clone()).key("include");
        Some(
            self.including
                .iter()
                .fold(diagnostic, |d, (_, place)| d.related(place.clone(), "included from here")),
        )
    }

    /// The variables of the including project over those of the included one's own env files.
    fn included_environment(
        &mut self,
        inclusion: &Inclusion,
        base: &Path,
        directory: &Path,
        outer: &Env,
    ) -> Env {
        let mut environment = outer.clone();
        let files = match &inclusion.env_files {
            Some(files) => {
                let named = files.iter().filter(|(path, _)| path != "/dev/null");
                named
                    .map(|(path, place)| (PathBuf::from(paths::join(path, base)), Some(place.clone())))
                    .collect()
            }
            None => {
                let default = directory.join(".env");
                if self.files.is_file(&default) { vec![(default, None)] } else { Vec::new() }
            }
        };
        let mut inner = Env::default();
        for (path, place) in files {
            let Some(source) = self.read(&path, place.as_ref()) else { continue };
            let dotenv = env::parse_dotenv_after(&source, &inner, &|name| outer.get(name).map(str::to_owned));
            self.diagnostics.extend(dotenv.diagnostics);
            inner.overlay(dotenv.variables);
        }
        environment.fill(&inner);
        environment
    }
}

impl Inclusion {
    fn read(item: &Node) -> Self {
        if item.as_str().is_some() {
            return Self {
                place: item.place.clone(),
                paths: texts(item),
                env_files: None,
                project_directory: None,
            };
        }
        Self {
            place: item.place.clone(),
            paths: item.get("path").map(texts).unwrap_or_default(),
            env_files: item.get("env_file").map(texts),
            project_directory: item.get("project_directory").and_then(Node::as_str).map(str::to_owned),
        }
    }
}

fn texts(node: &Node) -> Vec<(String, Place)> {
    let items = node.as_seq().unwrap_or(std::slice::from_ref(node));
    items.iter().filter_map(|item| Some((item.as_str()?.to_owned(), item.place.clone()))).collect()
}

/// Copies the resources of an included tree; of two includes the earlier one wins.
fn import(into: &mut Node, tree: Node) {
    let (Value::Map(mut from), Some(into)) = (tree.value, into.as_map_mut()) else { return };
    for section in SECTIONS {
        let Some(entry) = from.remove(section) else { continue };
        match into.get_mut(section).and_then(Node::as_map_mut) {
            None => into.insert(section, entry),
            Some(mine) => {
                let Value::Map(theirs) = entry.node.value else { continue };
                for (key, entry) in theirs {
                    if !mine.contains_key(&key) {
                        mine.insert(key, entry);
                    }
                }
            }
        }
    }
}
