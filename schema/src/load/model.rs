//! One model from one set of files: each document through its phases, then merged in order.

use super::provenance::Kind;
use super::{Session, canonical, fit, merge, paths, unique};
use crate::attributes;
use crate::diagnostic::Diagnostic;
use crate::env::Env;
use crate::interpolate;
use crate::keypath::Trail;
use crate::source::{Place, Source};
use crate::yaml::{self, Node, Value};
use std::path::Path;
use std::sync::Arc;

/// Sets the resolved project name, at the front of the tree.
pub(super) fn set_name(tree: &mut Node, name: &str) {
    let place = tree.get("name").map_or_else(|| tree.place.clone(), |node| node.place.clone());
    if let Some(map) = tree.as_map_mut() {
        map.set("name", Node::str(name, place));
    }
}

/// A build without a context has the base directory.
fn build_contexts(tree: &mut Node) {
    let services = tree.get_mut("services").and_then(Node::as_map_mut);
    for (_, entry) in services.into_iter().flat_map(yaml::Map::iter_mut) {
        let Some(build) = entry.node.get_mut("build") else { continue };
        let place = build.place.clone();
        if let Some(build) = build.as_map_mut().filter(|build| !build.contains_key("context")) {
            build.set("context", Node::str(".", place));
        }
    }
}

impl Session<'_> {
    pub(super) fn notes(&mut self) -> merge::Notes<'_> {
        let verbatim = self.request.no_interpolate;
        merge::Notes { diagnostics: &mut self.diagnostics, links: self.provenance.links(), verbatim }
    }

    /// The merged tree of a set of files with a base directory and an environment of its own. Its relative paths count from
    /// `resolve_from`; `None` keeps them.
    pub(super) fn model(
        &mut self,
        inputs: &[Arc<Source>],
        base: &Path,
        resolve_from: Option<&Path>,
        environment: &Env,
    ) -> Option<Node> {
        let mut merged: Option<Node> = None;
        for source in inputs {
            for document in self.documents(source) {
                let Some(mut document) = self.document(document, merged.as_ref(), environment) else {
                    continue;
                };
                self.include(&mut document, base, environment);
                self.extend(&mut document, source, base, environment);
                let place = document.place.clone();
                let mut whole = merged.take().unwrap_or_else(|| Node::map(place));
                let notes = self.notes();
                merge::merge(&mut whole, document, attributes::root(), &Trail::Root, notes);
                fit::nulls(&whole, attributes::root(), &Trail::Root, &mut self.diagnostics);
                fit::needed(&whole, attributes::root(), &Trail::Root, &mut self.diagnostics);
                merged = Some(whole);
            }
        }
        let Some(mut tree) = merged else {
            self.report_empty(inputs);
            return None;
        };
        if tree.as_map().is_some_and(|map| map.keys().all(|key| key == "version")) {
            // What should have been in it may just have failed to be included.
            if !self.failed() {
                self.report(Diagnostic::error("the Compose file is empty").at(tree.place.clone()));
            }
            return None;
        }
        let notes = self.notes();
        unique::unique(&mut tree, attributes::root(), &Trail::Root, &mut { notes });
        build_contexts(&mut tree);
        if let Some(from) = resolve_from {
            paths::resolve(&mut tree, attributes::root(), from, environment);
        }
        Some(tree)
    }

    /// The documents of a source; its aliases are noted.
    pub(super) fn parse(&mut self, source: &Arc<Source>) -> Vec<Node> {
        let mut aliases = Vec::new();
        let documents =
            yaml::parse_noting(source, yaml::Limits::default(), &mut self.diagnostics, &mut aliases);
        aliases.into_iter().for_each(|(span, via)| self.provenance.link(Kind::Alias, span, via));
        documents
    }

    fn documents(&mut self, source: &Arc<Source>) -> Vec<Node> {
        match self.parsed.remove(&Arc::as_ptr(source)) {
            Some(documents) => documents,
            None => self.parse(source),
        }
    }

    /// Files without a document say nothing; when none says anything, and not because it failed, that is an error.
    fn report_empty(&mut self, inputs: &[Arc<Source>]) {
        let Some(source) = inputs.first().filter(|_| !self.failed() && self.including.is_empty()) else {
            return;
        };
        let place = Place { source: source.clone(), start: 0, end: 0 };
        self.report(Diagnostic::error("the Compose file is empty").at(place));
    }

    /// A document that fits the table and has only long forms; `None` when it is no mapping.
    fn document(&mut self, document: Node, base: Option<&Node>, environment: &Env) -> Option<Node> {
        let mut document = self.interpolated(document, environment)?;
        let lenient = self.request.no_interpolate;
        fit::Fit { lenient, base, diagnostics: &mut self.diagnostics }.root(&mut document);
        canonical::Canonical { lenient, base, diagnostics: &mut self.diagnostics }.root(&mut document);
        Some(document)
    }

    pub(super) fn interpolated(&mut self, mut document: Node, environment: &Env) -> Option<Node> {
        if !matches!(document.value, Value::Map(_)) {
            let message = format!("a Compose file is a mapping, this is {}", document.kind_name());
            self.report(Diagnostic::error(message).at(document.place));
            return None;
        }
        if document.as_map().is_some_and(yaml::Map::is_empty) {
            self.report(Diagnostic::error("the Compose file is empty").at(document.place.clone()));
            return None;
        }
        if !self.request.no_interpolate {
            let lookup = |name: &str| environment.get(name).map(str::to_owned);
            let mut usages = Vec::new();
            let first = self.diagnostics.len();
            interpolate::tree(&mut document, &Trail::Root, &lookup, &mut self.diagnostics, &mut usages);
            self.set_unset_aside(first);
            self.provenance.used(usages, environment);
        }
        Some(document)
    }
}
