//! Variables of services: null values from outside, env files, label files, and the contents of secrets and configs.

use super::Session;
use super::provenance::Kind;
use super::select::Selection;
use crate::diagnostic::Diagnostic;
use crate::env::{self, Env, Origin};
use crate::keypath::Trail;
use crate::source::Place;
use crate::yaml::{Entry, Map, Node, Value};

impl Session<'_> {
    /// Gives variables written without a value the one from outside, and notes what `environment:` secrets hold.
    pub(super) fn variables(&mut self, tree: &mut Node, environment: &Env) {
        if self.request.no_interpolate {
            return;
        }
        if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
            for (_, entry) in services.iter_mut() {
                let service = &mut entry.node;
                fill(service.get_mut("environment"), environment);
                if !self.request.no_normalize {
                    fill(service.get_mut("build").and_then(|build| build.get_mut("args")), environment);
                }
            }
        }
        for section in ["secrets", "configs"] {
            let Some(objects) = tree.get(section).and_then(Node::as_map) else { continue };
            for (key, entry) in objects.iter() {
                let variable = entry.node.get("environment").and_then(Node::as_str);
                if let Some(value) = variable.and_then(|variable| environment.get(variable)) {
                    let slot = self.contents.entry((section.to_owned(), key.to_owned()));
                    slot.or_insert_with(|| value.to_owned());
                }
            }
        }
    }

    /// Folds env files into `environment` and label files into `labels`, for the selected services.
    pub(super) fn service_variables(&mut self, tree: &mut Node, selection: &Selection) {
        if self.request.no_interpolate || self.request.no_env_resolution {
            return;
        }
        for key in &selection.services {
            let Some(service) = tree.get_mut("services").and_then(|services| services.get_mut(key)) else {
                continue;
            };
            let mut service = std::mem::replace(service, Node::new(Value::Null, service.place.clone()));
            self.env_files(&mut service, key);
            self.label_files(&mut service);
            if let Some(slot) = tree.get_mut("services").and_then(|services| services.get_mut(key)) {
                *slot = service;
            }
        }
    }

    fn env_files(&mut self, service: &mut Node, key: &str) {
        let Some(map) = service.as_map_mut() else { return };
        let Some(files) = map.remove("env_file") else { return };
        let own = map.remove("environment");
        let mut read = Env::default();
        let (root, service);
        root = Trail::Root.key("services");
        service = root.key(key);
        let path = service.key("env_file");
        for (index, item) in files.node.as_seq().unwrap_or_default().iter().enumerate() {
            self.env_file(item, own.as_ref().map(|own| &own.node), &mut read, &path.index(index));
        }
        let place = own.as_ref().map_or_else(|| files.node.place.clone(), |own| own.node.place.clone());
        let mut variables = Map::default();
        for (name, variable) in read.iter() {
            let place = origin_place(&variable.origin).unwrap_or_else(|| files.node.place.clone());
            variables.set(name, Node::str(&variable.value, place));
        }
        let key_place = own.as_ref().map_or_else(|| files.key.clone(), |own| own.key.clone());
        if let Some(Value::Map(own)) = own.map(|own| own.node.value) {
            for (name, entry) in own {
                if let Some(read) = variables.get(&name) {
                    self.provenance.link(Kind::Over, entry.node.place.clone(), read.place.clone());
                }
                variables.insert(name, entry);
            }
        }
        map.insert("environment", Entry { key: key_place, node: Node::new(Value::Map(variables), place) });
    }

    fn env_file(&mut self, item: &Node, own: Option<&Node>, read: &mut Env, path: &Trail<'_>) {
        let Some(file) = item.get("path").and_then(Node::as_str) else { return };
        let is_required = item.get("required").and_then(Node::as_bool).unwrap_or(true);
        let file = self.on_disk(file);
        if !self.files.is_file(&file) {
            if is_required {
                let name = super::display_name(&file, &self.request.display_base);
                let diagnostic = Diagnostic::error(format!("the env file `{name}` does not exist"));
                let hint = "Make it, or write `required: false` beside its `path`.";
                self.report(diagnostic.at(item.place.clone()).key(path.to_string()).hint(hint));
            }
            return;
        }
        let Some(source) = self.read(&file, Some(&item.place)) else { return };
        let outer = &self.environment;
        let own_value = |name: &str| own.and_then(|own| own.get(name)).and_then(Node::as_str);
        let lookup = |name: &str| outer.get(name).or_else(|| own_value(name)).map(str::to_owned);
        let is_raw = item.get("format").and_then(Node::as_str) == Some("raw");
        let dotenv = if is_raw {
            env::parse_raw(&source, &lookup)
        } else {
            env::parse_dotenv_after(&source, read, &lookup)
        };
        self.diagnostics.extend(dotenv.diagnostics);
        self.provenance.used(dotenv.usages, outer);
        read.overlay(dotenv.variables);
    }

    fn label_files(&mut self, service: &mut Node) {
        let Some(map) = service.as_map_mut() else { return };
        let Some(files) = map.remove("label_file") else { return };
        let mut read = Env::default();
        for item in files.node.as_seq().unwrap_or_default() {
            let Some(file) = item.as_str() else { continue };
            let Some(source) = self.read(&self.on_disk(file), Some(&item.place)) else { continue };
            let earlier = read.clone();
            let dotenv = env::parse_dotenv(&source, &|name| earlier.get(name).map(str::to_owned));
            self.diagnostics.extend(dotenv.diagnostics);
            read.overlay(dotenv.variables);
        }
        let own = map.remove("labels");
        let mut labels = Map::default();
        for (name, variable) in read.iter() {
            let place = origin_place(&variable.origin).unwrap_or_else(|| files.node.place.clone());
            labels.set(name, Node::str(&variable.value, place));
        }
        if let Some(Value::Map(own)) = own.map(|own| own.node.value) {
            own.into_iter().for_each(|(name, entry)| labels.insert(name, entry));
        }
        map.insert("labels", Entry { key: files.key, node: Node::new(Value::Map(labels), files.node.place) });
    }
}

fn origin_place(origin: &Origin) -> Option<Place> {
    match origin {
        Origin::File(place) => Some(place.clone()),
        Origin::Process | Origin::Given(_) => None,
    }
}

fn fill(variables: Option<&mut Node>, environment: &Env) {
    let Some(map) = variables.and_then(Node::as_map_mut) else { return };
    for (name, entry) in map.iter_mut() {
        if let (true, Some(value)) = (entry.node.is_null(), environment.get(name)) {
            entry.node.value = Value::Str(value.to_owned());
        }
    }
}
