//! Snapshots: one directory per layer, stacked by overlayfs.
//!
//! A snapshot is named by its chain id and lies in `store/snapshots/HEX/{fs,meta.json}`. `fs` is
//! an overlay lower directory as it is: a removed name is a character device 0:0, a directory
//! that hides what is below has `trusted.overlay.opaque=y`. It never changes once it is there.
//!
//! Life of a layer that is built:
//!
//! ```text
//! let working = snapshot::prepare(&store, parent, &directory)?;   // directory/{upper,work}
//! … mount overlay(lower_dirs(parent), working.upper, working.work), change things, unmount …
//! let layer = working.commit(&store)?;                             // upper becomes snapshots/HEX/fs
//! ```
//!
//! Life of a layer that is pulled: [`unpack`] makes the same from an archive. [`archive`] writes a
//! built layer as the archive that its diff id is the digest of, for push and save.

use crate::image::{Digest, Result, Store};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// `meta.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Chain id below, `""` for a base layer.
    pub parent: String,
    pub diff_id: Digest,
    /// Bytes of file content.
    pub size: u64,
}

/// A layer that is in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub diff_id: Digest,
    pub chain_id: Digest,
    pub size: u64,
}

/// A writable layer on top of a chain. Removed when dropped, unless committed or kept.
#[derive(Debug)]
pub struct Working {
    pub upper: PathBuf,
    pub work: PathBuf,
    pub parent: String,
    directory: PathBuf,
    owned: bool,
}

/// The overlay's lower directories, **top first**; `""` has none.
///
/// # Errors
/// When a snapshot of the chain is missing or the chain has no end.
pub fn lower_dirs(store: &Store, chain_id: &str) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    let mut next = chain_id.to_owned();
    while !next.is_empty() {
        let meta = meta(store, &next)?;
        directories.push(directory(store, &next)?.join("fs"));
        if directories.len() > crate::image::store::LAYERS_MAX {
            return Err(invalid(format!("chain {chain_id} has too many layers")));
        }
        next = meta.parent;
    }
    Ok(directories)
}

/// # Errors
/// `NotFound` when there is no such snapshot.
pub fn meta(store: &Store, chain_id: &str) -> io::Result<Meta> {
    crate::home::read_json(&directory(store, chain_id)?.join("meta.json"))?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no snapshot {chain_id}")))
}

pub fn exists(store: &Store, chain_id: &str) -> bool {
    directory(store, chain_id).is_ok_and(|d| d.join("meta.json").is_file())
}

/// Bytes of file content of one snapshot, 0 when it does not exist.
pub fn size(store: &Store, chain_id: &str) -> u64 {
    meta(store, chain_id).map_or(0, |m| m.size)
}

pub(crate) fn directory(store: &Store, chain_id: &str) -> io::Result<PathBuf> {
    let digest = Digest::parse(chain_id).map_err(|e| invalid(e.to_string()))?;
    Ok(store.snapshots().join(digest.hex()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Unpacks an **uncompressed** layer archive on top of `parent` (`""`: base). With `expected`
/// an existing snapshot is found at once and another content is refused.
pub fn unpack(_store: &Store, _parent: &str, _layer: impl Read, _expected: Option<&Digest>) -> Result<Layer> {
    Err(crate::image::Error::NotYet("unpacking".into()))
}

/// Makes `directory/{upper,work}`, empty, with the root directory's owner and mode of the parent.
pub fn prepare(_store: &Store, parent: &str, directory: &Path) -> io::Result<Working> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    Ok(Working { upper, work, parent: parent.to_owned(), directory: directory.to_owned(), owned: true })
}

impl Working {
    /// A new one in the store's own `tmp`.
    pub fn temporary(store: &Store, parent: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("working-").tempdir_in(store.tmp())?.keep();
        prepare(store, parent, &directory)
    }

    /// Leaves the directories for somebody else to remove.
    pub fn keep(mut self) {
        self.owned = false;
    }

    /// Hashes the layer and moves `upper` to its place in the store. Nothing may be mounted on it.
    pub fn commit(self, _store: &Store) -> Result<Layer> {
        Err(crate::image::Error::NotYet("committing".into()))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if self.owned {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Writes the layer's archive, byte for byte the one its diff id names.
/// Only for layers that were committed here; pulled ones have their blob.
pub fn archive(_store: &Store, _chain_id: &str, _to: impl Write) -> Result<()> {
    Err(crate::image::Error::NotYet("archiving".into()))
}
