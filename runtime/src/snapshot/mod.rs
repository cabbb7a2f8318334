//! Snapshots: one directory per layer, stacked by overlayfs.
//!
//! A snapshot is named by its chain id and lies in `store/snapshots/HEX/{fs,meta.json}`, with
//! `blob.json` beside them if its archive is in the store. `fs` is
//! an overlay lower directory as it is: a removed name is a character device 0:0, a directory
//! that hides what is below has [`opaque`]`=y`. It never changes once it is there.
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

mod below;
mod pack;
mod rebase;
mod times;
pub(crate) mod tree;
mod unpack;
mod verify;

pub use rebase::rebase;

pub use tree::{opaque, owner};
pub(crate) use verify::damage;

use crate::home;
use crate::image::digest::{Beside, Hashing, chain};
use crate::image::pending;
use crate::image::store::{BlobRecord, LAYERS_MAX};
use crate::image::{Digest, Doing, Error, Result, Store};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
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
        if directories.len() > LAYERS_MAX {
            return Err(invalid(format!("chain {chain_id} has too many layers")));
        }
        next = meta.parent;
    }
    Ok(directories)
}

/// # Errors
/// `NotFound` when there is no such snapshot.
pub fn meta(store: &Store, chain_id: &str) -> io::Result<Meta> {
    home::read_json(&directory(store, chain_id)?.join("meta.json"))?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no snapshot {chain_id}")))
}

pub fn exists(store: &Store, chain_id: &str) -> bool {
    directory(store, chain_id).is_ok_and(|d| d.join("meta.json").is_file())
}

/// Bytes of file content of one snapshot, 0 when it does not exist.
pub fn size(store: &Store, chain_id: &str) -> u64 {
    meta(store, chain_id).map_or(0, |m| m.size)
}

/// The blob that holds the layer's archive; `None`: it was built here.
pub fn blob(store: &Store, chain_id: &str) -> io::Result<Option<BlobRecord>> {
    home::read_json(&directory(store, chain_id)?.join("blob.json"))
}

/// Whether the archive that the layer came as is at hand; of one that was built here it can be made.
pub(crate) fn has_archive(store: &Store, chain_id: &str) -> bool {
    blob(store, chain_id).is_ok_and(|blob| blob.is_none_or(|blob| store.has_blob(&blob.digest)))
}

pub(crate) fn set_blob(store: &Store, chain_id: &str, blob: &BlobRecord) -> io::Result<()> {
    home::replace_json(&directory(store, chain_id)?.join("blob.json"), blob)
}

pub(crate) fn directory(store: &Store, chain_id: &str) -> io::Result<PathBuf> {
    let digest = Digest::parse(chain_id).map_err(|e| invalid(e.to_string()))?;
    Ok(store.snapshots().join(digest.hex()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Unpacks an **uncompressed** layer archive on top of `parent` (`""`: base). With `expected`
/// an existing snapshot is found at once and another content is refused. Blocks.
///
/// The caller holds a [`crate::image::Lease`].
pub fn unpack(store: &Store, parent: &str, layer: impl Read, expected: Option<&Digest>) -> Result<Layer> {
    let _lock = match expected {
        Some(diff_id) => {
            let chain_id = chain(parent, diff_id);
            // One at a time makes it; the others find it.
            let lock = store.lock("chain", &chain_id).doing(|| format!("lock snapshot {chain_id}"))?;
            if let Some(layer) = find(store, &chain_id) {
                return Ok(layer);
            }
            Some(lock)
        }
        None => None,
    };
    let doing = || "unpack a layer".to_owned();
    let made = tempfile::Builder::new().prefix("unpack-").tempdir_in(store.tmp()).doing(doing)?;
    let fs = make_fs(made.path()).doing(doing)?;
    let below = below::Below::open(store, parent).doing(doing)?;
    let mut hashing = Hashing::new(layer);
    let size =
        unpack::extract(&mut hashing, tree::open_root(&fs).doing(doing)?, below).map_err(layer_error)?;
    let diff_id = hashing.hasher.finish();
    match expected {
        Some(expected) if *expected != diff_id => Err(Error::Digest {
            what: "the unpacked layer".into(),
            expected: expected.clone(),
            found: diff_id,
        }),
        _ => publish(store, made.path(), Meta { parent: parent.to_owned(), diff_id, size }),
    }
}

/// Unpacks a root file system as a base layer of our own making: its diff id is that of the
/// archive that [`archive`] writes, whatever the given one looked like. Blocks.
pub fn import(store: &Store, rootfs: impl Read) -> Result<Layer> {
    unpacked(store, rootfs)?.commit(store)
}

/// Any archive, unpacked with all care in a place of its own. Blocks.
pub fn unpacked(store: &Store, archive: impl Read) -> Result<Working> {
    let working = Working::temporary(store, "").doing(|| "prepare a layer".to_owned())?;
    let root = tree::open_root(&working.upper).doing(|| "open a layer".to_owned())?;
    let below = below::Below::open(store, "").doing(|| "open a layer".to_owned())?;
    unpack::extract(archive, root, below).map_err(layer_error)?;
    Ok(working)
}

/// What the archive did wrong is its fault, the rest is ours.
fn layer_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            Error::invalid("the layer archive", error)
        }
        _ => Error::Io { doing: "unpack a layer".into(), source: error },
    }
}

fn make_fs(directory: &Path) -> io::Result<PathBuf> {
    let fs = directory.join("fs");
    std::fs::create_dir(&fs)?;
    Ok(fs)
}

fn find(store: &Store, chain_id: &Digest) -> Option<Layer> {
    let meta = meta(store, chain_id.as_str()).ok()?;
    Some(Layer { diff_id: meta.diff_id, chain_id: chain_id.clone(), size: meta.size })
}

/// Moves a directory with a complete `fs` to its place; somebody else's equal one wins.
fn publish(store: &Store, made: &Path, meta: Meta) -> Result<Layer> {
    let chain_id = chain(&meta.parent, &meta.diff_id);
    let doing = || format!("store snapshot {chain_id}");
    home::replace_json(&made.join("meta.json"), &meta).doing(doing)?;
    pending::mark(store, pending::Kind::Snapshot, &chain_id).doing(doing)?;
    let target = store.snapshots().join(chain_id.hex());
    match std::fs::rename(made, &target) {
        Err(e) if !exists(store, chain_id.as_str()) => Err(e).doing(doing),
        _ => Ok(Layer { diff_id: meta.diff_id, chain_id, size: meta.size }),
    }
}

/// Makes `directory/{upper,work}`, empty, with the root directory's owner and mode of the parent.
/// Removed when dropped: see [`Working::keep`].
pub fn prepare(store: &Store, parent: &str, directory: &Path) -> io::Result<Working> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    let root = below::Below::open(store, parent)?.root()?;
    tree::apply(tree::open_root(&upper)?, &root)?;
    Ok(Working { upper, work, parent: parent.to_owned(), directory: directory.to_owned(), owned: true })
}

impl Working {
    /// A new one in the store's own `tmp`.
    pub fn temporary(store: &Store, parent: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("working-").tempdir_in(store.tmp())?;
        let working = prepare(store, parent, directory.path())?;
        let _ = directory.keep();
        Ok(working)
    }

    /// Leaves the directories for somebody else to remove.
    pub fn keep(mut self) {
        self.owned = false;
    }

    /// Hashes the layer and moves `upper` to its place in the store. Nothing may be mounted on
    /// it any more. The caller holds a [`crate::image::Lease`].
    pub fn commit(self, store: &Store) -> Result<Layer> {
        let doing = || "commit a layer".to_owned();
        let mut hasher = Beside::default();
        let size = pack::pack(&self.upper, &mut hasher).doing(doing)?;
        let diff_id = hasher.finish().doing(doing)?;
        let chain_id = chain(&self.parent, &diff_id);
        if let Some(layer) = find(store, &chain_id) {
            return Ok(layer);
        }
        let made = tempfile::Builder::new().prefix("commit-").tempdir_in(store.tmp()).doing(doing)?;
        std::fs::rename(&self.upper, made.path().join("fs")).doing(doing)?;
        publish(store, made.path(), Meta { parent: self.parent.clone(), diff_id, size })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if self.owned {
            // Overlayfs leaves `work/work` without permissions; root may remove it all the same.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Writes a directory, also one that layers are mounted on, as an archive; the same tree gives the same bytes.
///
/// # Errors
/// The operating system's.
pub fn pack_tree(root: impl AsFd, to: impl Write) -> io::Result<u64> {
    pack::pack_open(root.as_fd(), to)
}

/// The same of one name in a directory, which its entries begin with.
///
/// # Errors
/// The operating system's.
pub fn pack_entry(directory: impl AsFd, name: &OsStr, to: impl Write) -> io::Result<u64> {
    pack::pack_entry(directory.as_fd(), name, to)
}

/// Writes the layer's archive, byte for byte the one its diff id names.
/// Only for layers that were committed here; pulled ones have their blob.
///
/// # Errors
/// [`Error::Digest`] when the snapshot does not give those bytes.
pub fn archive(store: &Store, chain_id: &str, to: impl Write) -> Result<()> {
    let doing = || format!("write the archive of layer {chain_id}");
    let meta = meta(store, chain_id).doing(doing)?;
    let fs = directory(store, chain_id).doing(doing)?.join("fs");
    let mut hashing = BufWriter::with_capacity(64 << 10, Hashing::new(to));
    pack::pack(&fs, &mut hashing).doing(doing)?;
    let found = hashing.into_inner().map_err(|e| e.into_error()).doing(doing)?.hasher.finish();
    if found != meta.diff_id {
        return Err(Error::Digest { what: format!("layer {chain_id}"), expected: meta.diff_id, found });
    }
    Ok(())
}
