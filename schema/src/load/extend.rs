//! `extends`: a service that begins with another one, of the same document or another file.

use super::provenance::Kind;
use super::{Session, canonical, fit, merge, paths};
use crate::attributes::{self, Shape};
use crate::diagnostic::Diagnostic;
use crate::env::Env;
use crate::keypath::{KeyPath, Step, Trail};
use crate::source::{Place, Source};
use crate::yaml::{Map, Node, Tag};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One link of a chain: which service of which file, and where it says so.
struct Link {
    file: PathBuf,
    service: String,
    place: Place,
}

/// What an `extends` asks for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    name: &'a str,
    place: &'a Place,
    around: Around<'a>,
}

/// What surrounds the document that begins the chain.
#[derive(Clone, Copy)]
struct Around<'a> {
    /// Where its relative paths count from.
    base: &'a Path,
    environment: &'a Env,
}

impl Session<'_> {
    pub(super) fn extend(
        &mut self,
        document: &mut Node,
        source: &Arc<Source>,
        base: &Path,
        environment: &Env,
    ) {
        let around = Around { base, environment };
        self.bases.clear();
        let Some(services) = document.get("services").and_then(Node::as_map) else { return };
        let extending: Vec<String> = services
            .iter()
            .filter(|(_, entry)| entry.node.get("extends").is_some())
            .map(|(key, _)| key.to_owned())
            .collect();
        for key in extending {
            let mut chain = Vec::new();
            if let Some(service) = self.resolved(document, source, &key, around, &mut chain)
                && let Some(slot) = document.get_mut("services").and_then(|services| services.get_mut(&key))
            {
                *slot = service;
            }
        }
    }

    /// The service `key` of a document with everything it extends.
    fn resolved(
        &mut self,
        document: &Node,
        source: &Arc<Source>,
        key: &str,
        around: Around<'_>,
        chain: &mut Vec<Link>,
    ) -> Option<Node> {
        let mut service = document.get("services")?.get(key)?.clone();
        let Some(extends) = service.as_map_mut().and_then(|map| map.remove("extends")) else {
            return Some(service);
        };
        if extends.node.tag == Tag::Reset {
            return Some(service);
        }
        let named = extends.node.get("service").unwrap_or(&extends.node);
        let Some(name) = named.as_str() else {
            if named.as_map().is_some() || named.is_null() {
                let path = format!("services.{key}.extends");
                let diagnostic = Diagnostic::error(format!("`{path}` names no service"));
                self.report(diagnostic.at(named.place.clone()).key(path).hint("Give it `service:`."));
            }
            return Some(service);
        };
        let file = source.path.clone().unwrap_or_default();
        if chain.iter().any(|link| link.file == file && link.service == key) {
            // Every service of the circle would tell the same.
            if !self.diagnostics.iter().any(|diagnostic| diagnostic.message.starts_with(CIRCLE)) {
                self.report(circular(key, &named.place, chain));
            }
            return None;
        }
        if chain.len() == MAX_CHAIN {
            let message = format!("services extend each other more than {MAX_CHAIN} times in a row");
            if !self.diagnostics.iter().any(|diagnostic| diagnostic.message == message) {
                self.report(
                    Diagnostic::error(message).at(named.place.clone()).key(format!("services.{key}.extends")),
                );
            }
            return None;
        }
        chain.push(Link { file, service: key.to_owned(), place: named.place.clone() });
        let wanted = Wanted { name, place: &named.place, around };
        let base = match extends
            .node
            .get("file")
            .and_then(|file| Some((file.as_str()?.to_owned(), file.place.clone())))
        {
            None => self.base_in_document(document, source, &wanted, chain),
            Some((file, place)) => self.base_in_file(&file, &place, source, &wanted, chain),
        };
        chain.pop();
        let mut whole = base?;
        let services = Trail::Root.key("services");
        let path = services.key(key);
        self.provenance.link(Kind::Extends, whole.place.clone(), named.place.clone());
        let notes = self.notes();
        merge::merge_extending(&mut whole, service, service_shape(), &path, notes);
        Some(whole)
    }

    fn base_in_document(
        &mut self,
        document: &Node,
        source: &Arc<Source>,
        wanted: &Wanted<'_>,
        chain: &mut Vec<Link>,
    ) -> Option<Node> {
        let Wanted { name, place, around } = *wanted;
        if document.get("services").and_then(|services| services.get(name)).is_none() {
            let diagnostic = self.missing(document, name, place, source).key(key_of(chain));
            self.report(diagnostic);
            return None;
        }
        self.resolved(document, source, name, around, chain)
    }

    fn base_in_file(
        &mut self,
        file: &str,
        file_place: &Place,
        from: &Source,
        wanted: &Wanted<'_>,
        chain: &mut Vec<Link>,
    ) -> Option<Node> {
        let Wanted { name, around: Around { base, environment }, .. } = *wanted;
        if paths::is_remote(file) || file.starts_with("oci:") {
            let message = format!("extending a service of `{file}` from elsewhere is not supported yet");
            self.report(
                Diagnostic::error(message)
                    .at(file_place.clone())
                    .key(key_of(chain))
                    .hint("Copy the file beside this one."),
            );
            return None;
        }
        let base = match (chain.len(), from.path.as_deref().and_then(Path::parent)) {
            (2.., Some(directory)) => directory,
            _ => base,
        };
        let path = PathBuf::from(paths::join(file, base));
        let source = self.read(&path, Some(file_place))?;
        let Some(document) = self.extended_document(&source, name, environment) else {
            if !self.failed() {
                let nothing = Node::map(file_place.clone());
                let diagnostic = self.missing(&nothing, name, wanted.place, &source).key(key_of(chain));
                self.report(diagnostic);
            }
            return None;
        };
        let mut service = self.base_in_document(&document, &source, wanted, chain)?;
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let resolve_from = self.resolve_from(&directory, base);
        paths::resolve(&mut service, service_shape(), &resolve_from, environment);
        Some(service)
    }

    /// The documents of a base file, merged. What does not fit in services that nobody extends does not count, unless it is a
    /// short form: these are read for the whole file.
    fn extended_document(
        &mut self,
        source: &Arc<Source>,
        name: &str,
        environment: &Env,
    ) -> Option<Arc<Node>> {
        let key = Arc::as_ptr(source);
        if !self.bases.contains_key(&key) {
            let base = self.base_document(source, environment);
            self.bases.insert(key, base);
        }
        let base = self.bases.get(&key)?;
        let prefix = format!("services.{name}.");
        let counts = |found: &&Diagnostic| found.key_path.starts_with(&prefix) || found.key_path.is_empty();
        self.diagnostics.extend(base.misfits.iter().filter(counts).chain(&base.unreadable).cloned());
        base.tree.clone()
    }

    fn base_document(&mut self, source: &Arc<Source>, environment: &Env) -> Base {
        let mut base = Base { tree: None, misfits: Vec::new(), unreadable: Vec::new() };
        let mut merged: Option<Node> = None;
        for document in self.parse(source) {
            let Some(mut document) = self.interpolated(document, environment) else { return base };
            let lenient = self.request.no_interpolate;
            fit::Fit { lenient, base: merged.as_ref(), diagnostics: &mut base.misfits }.root(&mut document);
            let mut findings = null_forms(&document);
            canonical::Canonical { lenient, base: merged.as_ref(), diagnostics: &mut findings }
                .root(&mut document);
            let (early, late): (Vec<_>, Vec<_>) = findings.into_iter().partition(is_of_form);
            base.unreadable.extend(early);
            base.misfits.extend(late);
            let mut whole = merged.take().unwrap_or_else(|| Node::map(document.place.clone()));
            let notes = self.notes();
            merge::merge_extending(&mut whole, document, attributes::root(), &Trail::Root, notes);
            merged = Some(whole);
        }
        base.tree = merged.map(Arc::new);
        base
    }

    fn missing(&self, document: &Node, name: &str, place: &Place, source: &Source) -> Diagnostic {
        let diagnostic = Diagnostic::error(format!("`{}` has no service `{name}` to extend", source.name))
            .at(place.clone());
        let services = document.get("services").and_then(Node::as_map);
        match super::fit::nearest(name, services.iter().flat_map(|services| services.keys())) {
            Some(near) => diagnostic.hint(format!("Did you mean `{near}`?")),
            None => diagnostic,
        }
    }
}

/// A longer chain is a mistake, or meant to exhaust the stack.
const MAX_CHAIN: usize = 100;

/// A file that services extend from, read once for all of them.
pub(super) struct Base {
    tree: Option<Arc<Node>>,
    /// What does not fit, whichever service it belongs to.
    misfits: Vec<Diagnostic>,
    /// Short forms that cannot be read.
    unreadable: Vec<Diagnostic>,
}

/// Attributes whose forms docker compose reads in the whole base file, used or not.
const FORMS: [&str; 9] =
    ["build", "depends_on", "env_file", "ports", "volumes", "gpus", "devices", "configs", "secrets"];

fn is_of_form(found: &Diagnostic) -> bool {
    let path = KeyPath::parse(&found.key_path);
    let step = path.as_ref().and_then(|path| path.steps().get(2));
    matches!(step, Some(Step::Key(key)) if FORMS.contains(&key.as_str()))
}

/// Of these not even a null is read.
const NEVER_NULL: [&str; 5] = ["build", "depends_on", "env_file", "ports", "gpus"];

fn null_forms(document: &Node) -> Vec<Diagnostic> {
    let services = document.get("services").and_then(Node::as_map);
    let mut found = Vec::new();
    for (name, entry) in services.into_iter().flat_map(Map::iter) {
        for key in NEVER_NULL {
            let Some(node) = entry.node.get(key).filter(|node| node.is_null() && node.tag == Tag::None)
            else {
                continue;
            };
            let path = KeyPath::root().key("services").key(name).key(key).to_string();
            let message = format!("`{path}` is null, which a file that is extended cannot say");
            found.push(Diagnostic::error(message).at(node.place.clone()).key(path).hint("Remove the line."));
        }
    }
    found
}

fn service_shape() -> &'static Shape {
    attributes::root().find("services.*").expect("the table has services")
}

const CIRCLE: &str = "services extend each other in a circle";

/// The key path of the `extends` that is being followed.
fn key_of(chain: &[Link]) -> String {
    chain.last().map_or_else(String::new, |link| format!("services.{}.extends", link.service))
}

fn circular(key: &str, place: &Place, chain: &[Link]) -> Diagnostic {
    let names: Vec<&str> = chain.iter().map(|link| link.service.as_str()).chain([key]).collect();
    let diagnostic =
        Diagnostic::error(format!("{CIRCLE}: {}", names.join(" → "))).at(place.clone()).key(key_of(chain));
    chain
        .iter()
        .filter(|link| link.place != *place)
        .fold(diagnostic, |d, link| d.related(link.place.clone(), "extended here"))
}
