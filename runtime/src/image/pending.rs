//! What may not have reached the disk: a blob or snapshot that was renamed to its place, but whose content a power cut
//! would lose.
//!
//! ```text
//! mark:   pending/HEX.KIND.BOOT   made before the rename; metadata reaches the disk in order, so it is there first
//! settle: one syncfs for everything that a pull, load or build made, then the marks go, then the image is recorded
//! ```
//!
//! A mark of an earlier boot tells of content that nobody can trust, and no image is recorded for it: whoever opens
//! the store first removes both. So a power cut costs a download or a build step, never a wrong layer, and a pull
//! costs one synchronisation, not one for every file.

use super::digest::Digest;
use super::store::{Store, names_in};
use crate::boot;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

/// What a mark is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Blob,
    Snapshot,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A mark, read from its name.
struct Mark {
    path: PathBuf,
    target: PathBuf,
    boot: String,
}

pub(super) fn directory(store: &Store) -> PathBuf {
    store.root().join("pending")
}

/// To be called right before the rename.
pub(crate) fn mark(store: &Store, kind: Kind, digest: &Digest) -> io::Result<()> {
    let name = format!("{}.{}.{}", digest.hex(), kind.word(), boot::id());
    File::create(directory(store).join(name)).map(drop)
}

/// Everything that is at its place now is on disk when this returns.
pub(super) fn settle(store: &Store) -> io::Result<()> {
    let there: Vec<Mark> = marks(store)?.into_iter().filter(|mark| mark.target.exists()).collect();
    if there.is_empty() {
        return Ok(());
    }
    rustix::fs::syncfs(File::open(store.root())?)?;
    there.iter().try_for_each(|mark| gone_is_fine(fs::remove_file(&mark.path)))
}

/// Removes what a power cut may have damaged.
pub(super) fn discard_lost(store: &Store) -> io::Result<()> {
    for mark in marks(store)?.into_iter().filter(|mark| mark.boot != boot::id()) {
        if mark.target.is_dir() {
            // Moved away first: a reader sees all of it or nothing.
            let doomed = tempfile::Builder::new().prefix("lost-").tempdir_in(store.tmp())?;
            gone_is_fine(fs::rename(&mark.target, doomed.path().join("snapshot")))?;
        } else {
            gone_is_fine(fs::remove_file(&mark.target))?;
        }
        gone_is_fine(fs::remove_file(&mark.path))?;
    }
    Ok(())
}

fn marks(store: &Store) -> io::Result<Vec<Mark>> {
    let directory = directory(store);
    let read = |name: String| {
        let mut parts = name.splitn(3, '.');
        let digest = Digest::from_hex(parts.next()?).ok()?;
        let target = match parts.next()? {
            "blob" => store.blob_path(&digest),
            "snapshot" => store.snapshots().join(digest.hex()),
            _ => return None,
        };
        Some(Mark { path: directory.join(&name), target, boot: parts.next()?.to_owned() })
    };
    Ok(names_in(&directory)?.into_iter().filter_map(read).collect())
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    fn home(directory: &tempfile::TempDir) -> Home {
        Home { data: directory.path().join("data"), run: directory.path().join("run") }
    }

    fn boots(store: &Store) -> usize {
        marks(store).expect("readable").len()
    }

    #[test]
    fn what_an_earlier_boot_did_not_settle_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&home(&directory)).expect("a store");
        let (kept, lost) =
            (store.write_blob(b"kept").expect("a blob"), store.write_blob(b"lost").expect("a blob"));
        let snapshot = Digest::of(b"snapshot");
        let tree = store.snapshots().join(snapshot.hex());
        fs::create_dir_all(tree.join("fs")).expect("a tree");
        for (digest, kind) in [(&lost, "blob"), (&snapshot, "snapshot")] {
            fs::write(super::directory(&store).join(format!("{}.{kind}.earlier", digest.hex())), "")
                .expect("a mark");
        }
        let store = Store::open(&home(&directory)).expect("a store");
        assert!(store.has_blob(&kept), "of this boot");
        assert!(!store.has_blob(&lost) && !tree.exists());
        assert_eq!(boots(&store), 2, "those of this boot");
    }

    #[test]
    fn settling_takes_the_marks_of_what_is_at_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&home(&directory)).expect("a store");
        store.write_blob(b"made").expect("a blob");
        mark(&store, Kind::Snapshot, &Digest::of(b"still being made")).expect("a mark");
        settle(&store).expect("settled");
        assert_eq!(boots(&store), 1, "somebody is about to rename this one");
    }
}
