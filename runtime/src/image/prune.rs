//! Freeing what nothing refers to, and how much there is.
//!
//! Roots are names (where images without one may go), images in use and chains in use; from
//! them images, and from images manifests, configs, layers' blobs and snapshots are reached.
//! The rest goes, images first, so that a cut in between leaves orphans, never holes.

use super::digest::{Digest, chain};
use super::error::{Doing, Error, Result};
use super::manifest::{self, Parsed};
use super::reference::Reference;
use super::store::{Image, Store, names_in};
use crate::snapshot;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// A partial download is worth keeping for so long.
const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3600);

/// What must stay although no image refers to it.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    /// Image ids that containers were made from.
    pub images: BTreeSet<String>,
    /// Chain ids that containers or the build cache stand on.
    pub chains: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Only what no image refers to; images all stay.
    Orphans,
    /// Images without a name, too.
    Dangling,
    /// All images that are not in use.
    Unused,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Freed {
    pub images: Vec<Digest>,
    /// Names that went with them.
    pub untagged: Vec<Reference>,
    pub bytes: u64,
}

/// For `system df`: bytes on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    pub images: usize,
    pub images_in_use: usize,
    pub blobs: u64,
    pub snapshots: u64,
    pub unfinished: u64,
    /// What [`prune`] of unused images would free.
    pub reclaimable: u64,
}

/// What is reached from some images.
#[derive(Default)]
pub(super) struct Reached {
    pub(super) blobs: BTreeSet<String>,
    pub(super) chains: BTreeSet<String>,
}

/// What is in use is asked for under the lock: whoever makes a container holds a
/// [`super::Lease`] from finding the image until the container is on record.
///
/// # Errors
/// [`Error::InUse`] while a pull, build or load runs; nothing is freed then.
pub fn prune(store: &Store, in_use: impl FnOnce() -> io::Result<InUse>, which: Which) -> Result<Freed> {
    let lock = alone(store)?;
    let in_use = in_use().doing(|| "find out which images are in use".to_owned())?;
    free(store, &in_use, which, &lock).doing(|| "prune images".to_owned())
}

/// Nothing is made while this is held.
pub(crate) fn alone(store: &Store) -> Result<File> {
    let lock = store.open_gc_lock().doing(|| "lock the image store".to_owned())?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse(
            "images are being pulled, built, loaded or checked; try again afterwards".into(),
        )),
        Err(fs::TryLockError::Error(e)) => Err(e).doing(|| "lock the image store".to_owned()),
    }
}

/// The lock is a parameter to show that it is held.
pub(super) fn free(store: &Store, in_use: &InUse, which: Which, _lock: &File) -> io::Result<Freed> {
    let mut freed = Freed::default();
    let (kept, gone): (Vec<Image>, Vec<Image>) =
        store.images()?.into_iter().partition(|i| stays(i, in_use, which));
    for image in gone {
        freed.untagged.extend(image.references.iter().cloned());
        store.remove(image.id.as_str(), true)?;
        freed.images.push(image.id);
    }
    let reached = reach(store, &kept, in_use);
    let blobs = store.root().join("blobs/sha256");
    freed.bytes += sweep(&blobs, |name| !reached.blobs.contains(name), |path| fs::remove_file(path))?;
    freed.bytes += sweep(
        &store.snapshots(),
        |name| !reached.chains.contains(name),
        |path| remove_snapshot(store, path),
    )?;
    let tmp = store.tmp();
    freed.bytes += sweep(&tmp, |name| is_old(&tmp.join(name)), remove_any)?;
    // Nobody can hold them while we hold the store.
    sweep(&store.root().join("locks"), |name| name != "gc", |path| fs::remove_file(path))?;
    Ok(freed)
}

fn stays(image: &Image, in_use: &InUse, which: Which) -> bool {
    let used = in_use.images.contains(image.id.as_str());
    match which {
        Which::Orphans => true,
        Which::Dangling => used || !image.references.is_empty(),
        Which::Unused => used,
    }
}

pub(super) fn reach(store: &Store, images: &[Image], in_use: &InUse) -> Reached {
    let mut reached = Reached::default();
    for image in images {
        reached.blobs.insert(image.id.hex().to_owned());
        if let Some(manifest) = &image.manifest_digest {
            reach_manifest(store, manifest, &mut reached);
        }
        let mut parent = String::new();
        for layer in &image.layers {
            parent = chain(&parent, layer).to_string();
            reach_chain(store, &parent, &mut reached);
        }
    }
    for chain_id in &in_use.chains {
        reach_chain(store, chain_id, &mut reached);
    }
    reached
}

fn reach_manifest(store: &Store, digest: &Digest, reached: &mut Reached) {
    reached.blobs.insert(digest.hex().to_owned());
    let parsed = store.read_blob(digest).and_then(|bytes| manifest::parse(&bytes, digest.as_str()));
    // A damaged manifest reaches nothing; the image runs without it.
    if let Ok(Parsed::Manifest(manifest)) = parsed {
        reached.blobs.extend(manifest.layers.iter().map(|l| l.digest.hex().to_owned()));
    }
}

/// A chain with all below it, and their blobs.
fn reach_chain(store: &Store, chain_id: &str, reached: &mut Reached) {
    let mut next = chain_id.to_owned();
    while let Ok(digest) = Digest::parse(&next) {
        if !reached.chains.insert(digest.hex().to_owned()) {
            return;
        }
        if let Ok(Some(blob)) = snapshot::blob(store, &next) {
            reached.blobs.insert(blob.digest.hex().to_owned());
        }
        match snapshot::meta(store, &next) {
            Ok(meta) => next = meta.parent,
            Err(_) => return,
        }
    }
}

/// Removes what is chosen from a directory; returns its bytes.
fn sweep(
    directory: &Path,
    chosen: impl Fn(&str) -> bool,
    remove: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<u64> {
    let mut bytes = 0;
    for name in names_in(directory)?.iter().filter(|n| chosen(n)) {
        let path = directory.join(name);
        bytes += disk_use(&path)?;
        remove(&path)?;
    }
    Ok(bytes)
}

/// Out of the way in one step first: a snapshot is there whole or not at all.
pub(crate) fn remove_snapshot(store: &Store, path: &Path) -> io::Result<()> {
    let doomed = tempfile::Builder::new().prefix("doomed-").tempdir_in(store.tmp())?;
    fs::rename(path, doomed.path().join("snapshot"))?;
    doomed.close()
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Nothing is being made while the store is locked, but a partial download may be resumed.
fn is_old(path: &Path) -> bool {
    let is_partial = path.extension().is_some_and(|e| e == "partial");
    let age = path.symlink_metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
    !is_partial || age.is_some_and(|a| a > UNFINISHED_AGE)
}

/// Blocks on disk, without following links.
pub(super) fn disk_use(path: &Path) -> io::Result<u64> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    // A file with several names counts in parts.
    let mut bytes = metadata.blocks() * 512 / metadata.nlink().max(1);
    if metadata.is_dir() {
        bytes = metadata.blocks() * 512;
        for entry in fs::read_dir(path)? {
            bytes += disk_use(&entry?.path())?;
        }
    }
    Ok(bytes)
}

/// Measures; reads every directory of every snapshot.
pub fn usage(store: &Store, in_use: &InUse) -> Result<Usage> {
    measure(store, in_use).doing(|| "measure the image store".to_owned())
}

fn measure(store: &Store, in_use: &InUse) -> io::Result<Usage> {
    let images = store.images()?;
    let used: Vec<Image> = images.iter().filter(|i| stays(i, in_use, Which::Unused)).cloned().collect();
    let reached = reach(store, &used, in_use);
    let mut usage = Usage { images: images.len(), images_in_use: used.len(), ..Default::default() };
    let blobs = store.root().join("blobs/sha256");
    for (directory, reached, total) in [
        (&blobs, &reached.blobs, &mut usage.blobs),
        (&store.snapshots(), &reached.chains, &mut usage.snapshots),
    ] {
        for name in names_in(directory)? {
            let bytes = disk_use(&directory.join(&name))?;
            *total += bytes;
            usage.reclaimable += if reached.contains(&name) { 0 } else { bytes };
        }
    }
    usage.unfinished = disk_use(&store.tmp())?;
    Ok(usage)
}
