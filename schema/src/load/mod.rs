//! Text to project, one file per phase.
//!
//! ```text
//! per document   parse → interpolate → fit (forms, casts, unknown keys) → canonical (short → long) → include → extend → merge
//! per file set   unique → resolve paths and variables
//! once           normalise (defaults, names, implied dependencies) → select (profiles, services) → consistent → tidy → bind
//! ```
//!
//! Every phase works on the same tree and the same table ([`crate::attributes`]), collects every problem as a placed
//! [`Diagnostic`], and goes on with what it has; only an error in what a later phase needs ends the load early.

mod bind;
mod canonical;
mod consistent;
mod environment;
mod extend;
mod fingerprint;
mod fit;
mod include;
mod merge;
mod model;
mod name;
mod normalise;
mod paths;
pub mod provenance;
pub mod render;
mod select;
mod support;
mod tidy;
mod unique;
mod unset;

pub(crate) use fit::nearest;
pub use provenance::Provenance;

pub use name::{is_project_name, normalise_name};

use crate::diagnostic::{Diagnostic, Severity};
use crate::env::{Env, Origin};
use crate::interpolate::Usage;
use crate::keypath::{KeyPath, Step};
use crate::project::Project;
use crate::source::{Files, Place, Source};
use crate::yaml::{Node, Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to load, and in which light.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// Absolute paths in merge order; `-` is [`LoadRequest::stdin`].
    pub files: Vec<PathBuf>,
    pub stdin: Option<String>,
    /// Absolute: the base of relative paths.
    pub project_directory: PathBuf,
    /// From `-p` or COMPOSE_PROJECT_NAME: wins over `name:`, must be valid as it is.
    pub project_name: Option<String>,
    /// Active profiles; `*` is all of them.
    pub profiles: Vec<String>,
    /// The process environment over the `.env` files.
    pub environment: Env,
    /// Of variables in the `.env` files' own values.
    pub usages: Vec<Usage>,
    /// Services named on the command line; empty: all. Their profiles become active.
    pub services: Vec<String>,
    /// Names in diagnostics are relative to this directory.
    pub display_base: PathBuf,
    /// Keep `${…}` as written: values keep their forms, too, and nothing is selected.
    pub no_interpolate: bool,
    /// Keep relative paths.
    pub no_path_resolution: bool,
    /// No defaults, no implied dependencies.
    pub no_normalize: bool,
    /// No checks of references between resources.
    pub no_consistency: bool,
    /// Names of containers and images are joined by `_`, as the first generation of Compose did.
    pub compatibility: bool,
    /// Keep networks, volumes, secrets and configs that no service uses.
    pub all_resources: bool,
    /// Do not read the services' env files.
    pub no_env_resolution: bool,
}

/// What came of it. `project` is there when no diagnostic is an error.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub project: Option<Project>,
    /// The canonical tree: what `config` shows.
    pub tree: Option<Arc<Node>>,
    /// In the order of the places they point at.
    pub diagnostics: Vec<Diagnostic>,
    /// Nothing was interpolated: a `$` is rendered as it stands.
    pub verbatim: bool,
    /// Where what stands in `tree` came from.
    pub provenance: Provenance,
}

/// A value of the model and where it came from.
#[derive(Debug)]
pub struct Explanation<'l> {
    /// The value, with its place.
    pub node: &'l Node,
    /// False for a default, and for a member of a long form that was made from a short one: the place is what it was made from.
    pub is_written: bool,
    /// Nearest first.
    pub trail: Vec<provenance::Step>,
}

impl Loaded {
    /// Where the value at a key path such as `services.web.ports[1]` was written; when there is none, its nearest parent.
    pub fn place_of(&self, key_path: &str) -> Option<Place> {
        place_of(self.tree.as_ref()?, key_path)
    }

    /// The value at a key path and how it came to be; `None` when the model has nothing there.
    pub fn explain(&self, key_path: &str) -> Option<Explanation<'_>> {
        let path = KeyPath::parse(key_path)?;
        let tree = self.tree.as_deref()?;
        let (node, key) =
            path.steps().iter().try_fold((tree, None), |(node, _), step| match (step, &node.value) {
                (Step::Key(key), Value::Map(map)) => {
                    map.entry(key).map(|entry| (&entry.node, Some((key, entry))))
                }
                (Step::Index(index), Value::Seq(items)) => items.get(*index).map(|item| (item, None)),
                _ => None,
            })?;
        let is_written = key.is_none_or(|(name, entry)| entry.key != node.place || entry.key.is_text(name));
        Some(Explanation { node, is_written, trail: self.provenance.trail(&node.place, &path, Some(tree)) })
    }

    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

pub(crate) fn place_of(tree: &Node, key_path: &str) -> Option<Place> {
    let mut node = tree;
    let mut place = &tree.place;
    for step in KeyPath::parse(key_path)?.steps() {
        let next = match (step, &node.value) {
            (Step::Key(key), Value::Map(map)) => map.entry(key).map(|entry| (&entry.node, &entry.key)),
            (Step::Index(index), Value::Seq(items)) => items.get(*index).map(|item| (item, &item.place)),
            _ => None,
        };
        let Some((below, at)) = next else { break };
        (node, place) = (below, at);
        if !matches!(node.value, Value::Map(_)) {
            place = &node.place;
        }
    }
    Some(place.clone())
}

/// Loads a project. Never fails as such: what is wrong stands in the diagnostics.
pub fn load(request: &LoadRequest, files: &dyn Files) -> Loaded {
    let mut session = Session::new(request, files);
    let (tree, project) = match session.run() {
        Some((tree, project)) => (Some(tree), Some(project)),
        None => (session.tree.take().map(Arc::new), None),
    };
    session.report_unset(None);
    session.trace(tree.as_deref());
    let mut diagnostics = session.diagnostics;
    sort(&mut diagnostics);
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Loaded {
        project: project.filter(|_| !failed),
        tree: tree.filter(|_| !failed),
        diagnostics,
        verbatim: request.no_interpolate,
        provenance: session.provenance,
    }
}

/// By source in the order of first mention, then by position; a repeated finding is kept once.
fn sort(diagnostics: &mut Vec<Diagnostic>) {
    let mut sources: Vec<*const Source> = Vec::new();
    let mut rank = |place: Option<&Place>| {
        let source = place.map_or(std::ptr::null(), |place| Arc::as_ptr(&place.source));
        sources.iter().position(|known| *known == source).unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        })
    };
    let ranks: Vec<usize> = diagnostics.iter().map(|diagnostic| rank(diagnostic.place.as_ref())).collect();
    let mut ordered: Vec<(usize, Diagnostic)> = ranks.into_iter().zip(diagnostics.drain(..)).collect();
    ordered.sort_by_key(|(rank, diagnostic)| (*rank, diagnostic.place.as_ref().map(|place| place.start)));
    diagnostics.extend(ordered.into_iter().map(|(_, diagnostic)| diagnostic));
    diagnostics.dedup();
    shorten(diagnostics);
}

/// More findings than this are of no use to anybody, and each costs time to show.
const MOST_FINDINGS: usize = 1000;

fn shorten(diagnostics: &mut Vec<Diagnostic>) {
    let Some(more) = diagnostics.len().checked_sub(MOST_FINDINGS).filter(|more| *more > 0) else { return };
    let worst = diagnostics.iter().map(|found| found.severity).max().unwrap_or(Severity::Warning);
    diagnostics.truncate(MOST_FINDINGS);
    let rest = Diagnostic::warning(format!("{more} more findings are not shown"));
    diagnostics.push(Diagnostic { severity: worst, ..rest });
}

/// One load: what all phases share.
struct Session<'a> {
    request: &'a LoadRequest,
    files: &'a dyn Files,
    environment: Env,
    diagnostics: Vec<Diagnostic>,
    /// Every source once, by path.
    sources: HashMap<PathBuf, Arc<Source>>,
    /// Documents that were parsed while looking for the name.
    parsed: HashMap<*const Source, Vec<Node>>,
    /// Values of `environment:` secrets and configs, by kind and key.
    contents: HashMap<(String, String), String>,
    /// What is valid but makes it impossible to create a container.
    refusals: Vec<Diagnostic>,
    provenance: Provenance,
    /// Warnings about variables that are not set, until it is known which of them matter.
    unset: Vec<Diagnostic>,
    /// How many of the diagnostics say already how their text came where it is.
    traced: usize,
    /// The files being included, outermost first, with the places that include them.
    including: Vec<(PathBuf, Place)>,
    /// How many files were included so far.
    included: usize,
    /// The files that the services of the current document extend from.
    bases: HashMap<*const Source, extend::Base>,
    tree: Option<Node>,
}

impl<'a> Session<'a> {
    fn new(request: &'a LoadRequest, files: &'a dyn Files) -> Self {
        Self {
            request,
            files,
            environment: request.environment.clone(),
            diagnostics: Vec::new(),
            sources: HashMap::new(),
            parsed: HashMap::new(),
            contents: HashMap::new(),
            refusals: Vec::new(),
            provenance: Provenance::default(),
            unset: Vec::new(),
            traced: 0,
            including: Vec::new(),
            included: 0,
            bases: HashMap::new(),
            tree: None,
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Says of each new finding how its text came where it is.
    fn trace(&mut self, tree: Option<&Node>) {
        // Nobody reads more; and each look goes through everything that is known.
        const MOST: usize = 200;
        let limit = self.diagnostics.len().min(MOST.max(self.traced));
        for diagnostic in &mut self.diagnostics[self.traced..limit] {
            self.provenance.lengthen(diagnostic, tree);
        }
        self.traced = self.diagnostics.len();
    }

    fn failed(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    fn run(&mut self) -> Option<(Arc<Node>, Project)> {
        let inputs = self.inputs();
        let name = self.project_name(&inputs)?;
        self.provenance.used(self.request.usages.clone(), &self.environment);
        self.environment.set("COMPOSE_PROJECT_NAME", &name, Origin::Given("the project's name".into()));
        let environment = self.environment.clone();
        let directory = self.request.project_directory.clone();
        let resolve_from = (!self.request.no_path_resolution).then_some(directory.as_path());
        let mut tree = self.model(&inputs, &directory, resolve_from, &environment)?;
        if resolve_from.is_some() {
            self.follow_watched(&mut tree);
        }
        self.variables(&mut tree, &environment);
        let verbatim = self.request.no_interpolate;
        if let Some(map) = tree.as_map_mut() {
            map.remove("version");
        }
        if !(verbatim && self.request.no_normalize) {
            model::set_name(&mut tree, &name);
        }
        let broken = self.failed();
        normalise::defaults(&mut tree, verbatim);
        if !self.request.no_normalize {
            normalise::normalise(&mut tree, &name, &mut self.diagnostics);
        }
        if let Some(map) = tree.as_map_mut().filter(|map| map.get("services").is_none_or(Node::is_null)) {
            let place = map
                .get("name")
                .map_or_else(|| Place { source: inputs[0].clone(), start: 0, end: 0 }, |n| n.place.clone());
            map.set("services", Node::map(place));
        }
        let selection = select::select(&mut tree, self.request, &mut self.diagnostics);
        if !self.request.no_consistency && !verbatim {
            self.refusals =
                consistent::check(&tree, &selection, self.default_platform(), broken, &mut self.diagnostics);
            self.refusals.iter_mut().for_each(|refusal| self.provenance.lengthen(refusal, Some(&tree)));
        }
        self.trace(Some(&tree));
        if self.failed() {
            return None;
        }
        self.service_variables(&mut tree, &selection);
        let disabled = select::split(&mut tree, &selection, self.request.all_resources || verbatim);
        self.report_unset(Some(&tree));
        if !verbatim {
            tidy::tidy(&mut tree);
        }
        support::warn(&tree, &mut self.diagnostics);
        let tree = Arc::new(tree);
        let project = self.bind(&tree, disabled, name);
        Some((tree, project))
    }

    /// The sources named in the request.
    fn inputs(&mut self) -> Vec<Arc<Source>> {
        let paths = self.request.files.clone();
        if paths.is_empty() {
            self.report(Diagnostic::error("no Compose file was given"));
        }
        paths
            .iter()
            .filter_map(|path| if path.as_os_str() == "-" { self.stdin() } else { self.read(path, None) })
            .collect()
    }

    fn stdin(&mut self) -> Option<Arc<Source>> {
        let text = self.request.stdin.clone()?;
        Some(Arc::new(Source { name: "<stdin>".into(), path: None, text }))
    }

    /// Reads a file as text, once. `asked` is where the user named it.
    fn read(&mut self, path: &Path, asked: Option<&Place>) -> Option<Arc<Source>> {
        if let Some(source) = self.sources.get(path) {
            return Some(source.clone());
        }
        match read_source(self.files, path, &self.request.display_base) {
            Ok(source) => {
                self.sources.insert(path.to_owned(), source.clone());
                Some(source)
            }
            Err(Unreadable { message, place: None }) => {
                let diagnostic = Diagnostic::error(message);
                self.report(match asked {
                    Some(place) => diagnostic.at(place.clone()),
                    None => diagnostic,
                });
                None
            }
            Err(Unreadable { message, place: Some(place) }) => {
                let hint = match place.start {
                    0 => "Save the file as UTF-8 (it may be UTF-16, or no text at all).",
                    _ => "Save the file as UTF-8.",
                };
                let diagnostic = Diagnostic::error(message).at(place).hint(hint);
                self.report(match asked {
                    Some(asked) => diagnostic.related(asked.clone(), "the file is named here"),
                    None => diagnostic,
                });
                None
            }
        }
    }
}

/// Why a file is no source.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// A sentence.
    pub message: String,
    /// The first byte that is not UTF-8.
    pub place: Option<Place>,
}

/// Reads a file as a source.
///
/// # Errors
/// It is not there, cannot be read, or is not UTF-8.
pub fn read_source(files: &dyn Files, path: &Path, display_base: &Path) -> Result<Arc<Source>, Unreadable> {
    let name = display_name(path, display_base);
    let bytes = files.read(path).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("the file `{name}` does not exist"),
            _ => format!("the file `{name}` cannot be read: {error}"),
        };
        Unreadable { message, place: None }
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(Source { name, path: Some(path.to_owned()), text })),
        Err(error) => Err(not_text(name, path, error.utf8_error().valid_up_to(), error.as_bytes())),
    }
}

/// The place stands in what can be read of the file.
fn not_text(name: String, path: &Path, at: usize, bytes: &[u8]) -> Unreadable {
    let message = format!("the file `{name}` is not UTF-8: the byte at offset {at} is wrong");
    let shown = &bytes[..bytes.len().min(at + 200)];
    let text = String::from_utf8_lossy(shown).into_owned();
    let source = Arc::new(Source { name, path: Some(path.to_owned()), text });
    Unreadable { message, place: Some(Place { source, start: at, end: at + '\u{fffd}'.len_utf8() }) }
}

/// The path as the user would write it from `base`.
pub fn display_name(path: &Path, base: &Path) -> String {
    if let Ok(below) = path.strip_prefix(base) {
        return below.display().to_string();
    }
    let up = base.parent().and_then(|parent| path.strip_prefix(parent).ok());
    up.map_or_else(|| path.display().to_string(), |below| format!("../{}", below.display()))
}
