//! Relative paths to absolute ones.

use crate::attributes::{PathKind, Shape};
use crate::env::Env;
use crate::short;
use crate::yaml::{Map, Node, Value};
use std::path::{Component, Path, PathBuf};

/// Resolves every path of a tree against `base`; `~` is the home directory.
pub(super) fn resolve(node: &mut Node, shape: &Shape, base: &Path, environment: &Env) {
    if let (Some(attribute), Value::Str(text)) = (shape.attribute, &mut node.value) {
        match attribute.kind {
            PathKind::None => {}
            PathKind::Local => *text = absolute(text, base, environment),
            PathKind::Foreign => *text = mount_source(text, base, environment),
            PathKind::Context if is_remote(text) => {}
            PathKind::Context => *text = absolute(text, base, environment),
        }
    }
    match &mut node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter_mut() {
                let is_extension = key.starts_with("x-") && !shape.is_user_keyed();
                if let Some(below) = shape.member(key).filter(|_| !is_extension) {
                    resolve(&mut entry.node, below, base, environment);
                }
            }
            bind_source(node, base, environment);
            local_device(node, shape, base, environment);
            keys(node, shape, base, environment);
        }
        Value::Seq(items) => {
            if let Some(below) = &shape.item {
                items.iter_mut().for_each(|item| resolve(item, below, base, environment));
            }
        }
        _ => {}
    }
}

impl super::Session<'_> {
    /// What the paths of another file count from: its directory, or, where paths stay relative, the way there from `base`.
    pub(super) fn resolve_from(&self, directory: &Path, base: &Path) -> PathBuf {
        if self.request.no_path_resolution { relative(directory, base) } else { directory.to_owned() }
    }

    /// The first symbolic link in the path of a watch rule is followed: changes are told of what is behind it.
    pub(super) fn follow_watched(&self, tree: &mut Node) {
        let services = tree.get_mut("services").and_then(Node::as_map_mut);
        for (_, entry) in services.into_iter().flat_map(Map::iter_mut) {
            let rules = entry.node.get_mut("develop").and_then(|develop| develop.get_mut("watch"));
            for rule in rules.and_then(Node::as_seq_mut).into_iter().flatten() {
                if let Some(Value::Str(path)) = rule.get_mut("path").map(|path| &mut path.value) {
                    *path = self.followed(Path::new(path)).display().to_string();
                }
            }
        }
    }

    fn followed(&self, path: &Path) -> PathBuf {
        let mut above: Vec<&Path> = path.ancestors().collect();
        above.reverse();
        let first = above.into_iter().find_map(|part| Some((part, self.files.followed(part)?)));
        match first.and_then(|(link, target)| Some(target.join(path.strip_prefix(link).ok()?))) {
            Some(behind) => behind.components().collect(),
            None => path.to_owned(),
        }
    }

    /// A path that may have stayed relative.
    pub(super) fn on_disk(&self, path: &str) -> PathBuf {
        self.request.project_directory.join(path)
    }
}

/// The way from one directory to another.
fn relative(to: &Path, from: &Path) -> PathBuf {
    let common = to.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(common)).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}

/// The source of a mount is a path only when the mount is a bind.
fn bind_source(node: &mut Node, base: &Path, environment: &Env) {
    let is_bind = node.get("type").and_then(Node::as_str) == Some("bind") && node.get("target").is_some();
    if let Some(Value::Str(source)) =
        node.get_mut("source").filter(|_| is_bind).map(|source| &mut source.value)
    {
        *source = mount_source(source, base, environment);
    }
}

/// A volume that is a bind by its driver's options.
fn local_device(node: &mut Node, shape: &Shape, base: &Path, environment: &Env) {
    let is_volume = shape.attribute.is_some_and(|attribute| attribute.path == "volumes.*");
    let option =
        |name: &str| node.get("driver_opts").and_then(|options| options.get(name)).and_then(Node::as_str);
    let is_bind = option("o") == Some("bind") && node.get("driver").and_then(Node::as_str) == Some("local");
    if !is_volume || !is_bind {
        return;
    }
    let device = node.get_mut("driver_opts").and_then(|options| options.get_mut("device"));
    if let Some(Value::Str(device)) = device.map(|device| &mut device.value) {
        *device = absolute(device, base, environment);
    }
}

/// `id=path` of a build's SSH agents and keys.
fn keys(node: &mut Node, shape: &Shape, base: &Path, environment: &Env) {
    if shape.attribute.is_none_or(|attribute| attribute.path != "services.*.build") {
        return;
    }
    for item in node.get_mut("ssh").and_then(Node::as_seq_mut).into_iter().flatten() {
        let Value::Str(text) = &mut item.value else { continue };
        if let Some((id, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) {
            *text = format!("{id}={}", absolute(path, base, environment));
        }
    }
}

/// Whether a build context is something else than a directory here.
pub(super) fn is_remote(text: &str) -> bool {
    text.contains("://")
        || text.starts_with("service:")
        || text.starts_with("git@")
        || text.starts_with("github.com/")
}

fn home(text: &str, environment: &Env) -> Option<String> {
    let rest = text.strip_prefix('~')?;
    let home = environment.get("HOME")?;
    Some(format!("{}/{}", home.trim_end_matches('/'), rest.trim_start_matches('/')))
}

/// A relative or `~` path against `base`, cleaned; an absolute one as it is.
pub(super) fn absolute(text: &str, base: &Path, environment: &Env) -> String {
    if let Some(path) = home(text, environment) {
        return short::clean_path(&path);
    }
    if text.starts_with('/') {
        return text.to_owned();
    }
    join(text, base)
}

fn mount_source(text: &str, base: &Path, environment: &Env) -> String {
    let is_drive =
        text.as_bytes().get(1) == Some(&b':') && text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    if is_drive || text.starts_with("\\\\") {
        return text.to_owned();
    }
    absolute(text, base, environment)
}

/// `base/text`, cleaned.
pub(super) fn join(text: &str, base: &Path) -> String {
    if text.starts_with('/') {
        return short::clean_path(text);
    }
    short::clean_path(&format!("{}/{text}", base.display()))
}
