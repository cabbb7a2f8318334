//! Options of the local driver, `type`, `o` and `device`: what stands in the place of a volume's own directory.
//!
//! Docker mounts it on the host when the first container starts. Here nothing is mounted on the host: a bind is the
//! directory itself, and any other file system is mounted by each container for itself. That is the same one for a
//! device; a tmpfs is taken over from a container that has it, so that it lives as long as one of them runs.

use crate::spec::Map;
use std::path::PathBuf;

/// What a container finds where the volume is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Directory { path: PathBuf, read_only: bool },
    FileSystem { kind: String, device: String, options: Vec<String> },
}

const OPTIONS: [&str; 4] = ["type", "o", "device", "size"];
/// The kernel asks a helper, a server or the first network namespace for these.
const HELPED: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "sshfs"];
/// Options of a bind that are honoured.
const OF_BIND: [&str; 6] = ["bind", "rbind", "ro", "rw", "defaults", ""];

/// Why there can be no such volume, in Docker's words where it refuses it too.
pub fn check(options: &Map) -> Result<(), String> {
    if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(format!("invalid option: {unknown:?}"));
    }
    let has = |key: &str| options.contains_key(key);
    for (key, needed) in [("type", "device"), ("device", "type"), ("o", "device"), ("o", "type")] {
        if has(key) && !has(needed) {
            return Err(format!("missing required option: {needed:?}"));
        }
    }
    if has("size") {
        return Err("quota size requested but no quota support".into());
    }
    let kind = options.get("type").map(String::as_str).unwrap_or_default();
    match HELPED.contains(&kind) || kind.starts_with("fuse") {
        true => Err(format!("file systems of type {kind} are not mounted by stack")),
        false => Ok(()),
    }
}

/// Options that are left out, by name.
pub fn without_effect(options: &Map) -> Vec<&str> {
    if !is_bind(options) {
        return Vec::new();
    }
    words(options).filter(|word| !OF_BIND.contains(word)).collect()
}

/// `own` is the volume's directory.
pub(super) fn place(own: PathBuf, options: &Map) -> Place {
    let Some(device) = options.get("device") else { return Place::Directory { path: own, read_only: false } };
    if is_bind(options) {
        return Place::Directory { path: device.into(), read_only: words(options).any(|word| word == "ro") };
    }
    Place::FileSystem {
        kind: options.get("type").cloned().unwrap_or_default(),
        device: device.clone(),
        options: words(options).filter(|word| !word.is_empty()).map(str::to_owned).collect(),
    }
}

fn is_bind(options: &Map) -> bool {
    words(options).any(|word| word == "bind" || word == "rbind")
}

fn words(options: &Map) -> impl Iterator<Item = &str> {
    options.get("o").into_iter().flat_map(|text| text.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_local_volume_is_a_directory_or_a_file_system() {
        let of = |pairs: &[(&str, &str)]| place("/own".into(), &map(pairs));
        assert_eq!(of(&[]), Place::Directory { path: "/own".into(), read_only: false });
        let bind = [("type", "none"), ("o", "bind,ro"), ("device", "/srv")];
        assert_eq!(of(&bind), Place::Directory { path: "/srv".into(), read_only: true });
        let tmpfs = [("type", "tmpfs"), ("o", "size=1m, uid=7"), ("device", "tmpfs")];
        let options = vec!["size=1m".to_owned(), "uid=7".to_owned()];
        assert_eq!(of(&tmpfs), Place::FileSystem { kind: "tmpfs".into(), device: "tmpfs".into(), options });
    }

    #[test]
    fn local_options_are_refused_as_docker_does() {
        let why = |pairs: &[(&str, &str)]| check(&map(pairs)).unwrap_err();
        assert_eq!(why(&[("foo", "1")]), "invalid option: \"foo\"");
        assert_eq!(why(&[("type", "tmpfs")]), "missing required option: \"device\"");
        assert_eq!(why(&[("device", "/srv")]), "missing required option: \"type\"");
        assert_eq!(why(&[("o", "bind")]), "missing required option: \"device\"");
        assert_eq!(why(&[("size", "1g")]), "quota size requested but no quota support");
        let nfs = [("type", "nfs"), ("o", "addr=10.0.0.1,rw"), ("device", ":/export")];
        assert_eq!(why(&nfs), "file systems of type nfs are not mounted by stack");
        assert_eq!(check(&map(&[("type", "none"), ("o", "bind"), ("device", "/srv")])), Ok(()));
        assert_eq!(check(&Map::new()), Ok(()));
    }

    #[test]
    fn options_of_a_bind_that_do_nothing_are_named() {
        let options = map(&[("type", "none"), ("o", "bind,ro,nodev,uid=3"), ("device", "/srv")]);
        assert_eq!(without_effect(&options), ["nodev", "uid=3"]);
    }
}
