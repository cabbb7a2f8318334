//! Watches the directories that the rules name and gives the changed paths, batch by batch.
//!
//! One watch per directory, set by our own walk, for three reasons: directories that every rule ignores
//! (`node_modules`) cost nothing; a directory made a moment ago is walked *after* its watch is set, so files
//! written before that are found (notify's own recursion loses them); and when the kernel's queue overflows,
//! what is known from the last walk is compared with a new one.
//!
//! A path that does not exist yet is found through its nearest existing ancestor.

use super::batch::{Batch, Seen};
use super::rule::Rules;
use crate::failure::{Failure, Kind};
use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// See the module.
pub struct Tree {
    rules: Rules,
    roots: Vec<PathBuf>,
    watcher: RecommendedWatcher,
    events: UnboundedReceiver<notify::Result<Event>>,
    /// Everything below the roots that a rule may want, as of the last look.
    known: HashMap<PathBuf, Stamp>,
    batch: Batch,
}

/// Changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    is_dir: bool,
    inode: u64,
    size: u64,
    /// Of content and of attributes.
    times: [(i64, i64); 2],
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
        Self { is_dir: meta.is_dir(), inode: meta.ino(), size: meta.size(), times }
    }
}

impl Tree {
    /// Everything is watched when this returns: an edit made afterwards is not missed.
    ///
    /// # Errors
    /// inotify's limits, with a hint.
    pub fn open(rules: Rules) -> Result<Self, Failure> {
        let (sender, events) = unbounded_channel();
        let watcher =
            notify::recommended_watcher(move |event| drop(sender.send(event))).map_err(|e| failed(&e))?;
        let mut roots: Vec<PathBuf> = rules.rules.iter().map(|rule| rule.path.clone()).collect();
        roots.sort();
        roots.dedup();
        let (known, batch) = (HashMap::new(), Batch::default());
        let mut tree = Self { rules, roots, watcher, events, known, batch };
        tree.find_roots(Path::new("/"))?;
        tree.batch.take();
        Ok(tree)
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Everything there is now that a rule wants.
    pub fn present(&self) -> Vec<PathBuf> {
        let mut present: Vec<PathBuf> =
            self.known.keys().filter(|path| self.rules.wants(path)).cloned().collect();
        present.sort();
        present
    }

    /// Waits for the next complete batch. Cancelling it loses nothing.
    ///
    /// # Errors
    /// inotify's limits, with a hint.
    pub async fn changed(&mut self) -> Result<Vec<PathBuf>, Failure> {
        loop {
            let due = self.batch.due().map(tokio::time::Instant::from_std);
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(event) => self.absorb(event)?,
                    None => return Err(Failure::other("failed to watch: the watcher has ended")),
                },
                () = sleep_until(due) => return Ok(self.take()),
            }
        }
    }

    fn take(&mut self) -> Vec<PathBuf> {
        let paths = self.batch.take();
        for path in &paths {
            match std::fs::symlink_metadata(path) {
                Ok(meta) => drop(self.known.insert(path.clone(), Stamp::of(&meta))),
                Err(_) => self.forget(path),
            }
        }
        paths
    }

    fn absorb(&mut self, event: notify::Result<Event>) -> Result<(), Failure> {
        let event = event.map_err(|e| failed(&e))?;
        if event.need_rescan() {
            return self.look_again();
        }
        let Some(seen) = meaning(&event.kind) else { return Ok(()) };
        event.paths.iter().try_for_each(|path| self.see(path, seen, appears(&event.kind)))
    }

    fn see(&mut self, path: &Path, seen: Seen, appeared: bool) -> Result<(), Failure> {
        if (appeared || seen == Seen::Removed) && self.roots.iter().any(|root| root.starts_with(path)) {
            self.find_roots(path)?;
        }
        if seen == Seen::Removed {
            self.forget(path);
        }
        if appeared && is_dir(path) && self.is_below_a_root(path) {
            self.walk(path.to_owned())?;
        }
        if self.rules.wants(path) {
            self.batch.add(path, seen, Instant::now());
        }
        Ok(())
    }

    fn is_below_a_root(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }

    /// Watches the roots at or below a path that are there, and the place where the others would appear.
    fn find_roots(&mut self, below: &Path) -> Result<(), Failure> {
        let roots: Vec<PathBuf> = self.roots.iter().filter(|root| root.starts_with(below)).cloned().collect();
        for root in roots {
            self.watch_place_of(&root)?;
            if is_dir(&root) {
                self.walk(root)?;
            } else if let Ok(meta) = std::fs::symlink_metadata(&root) {
                self.found(root, &meta);
            }
        }
        Ok(())
    }

    /// Watches the nearest existing directory above; again when one appeared below it meanwhile.
    fn watch_place_of(&mut self, root: &Path) -> Result<(), Failure> {
        loop {
            let nearest = root.ancestors().skip(1).find(|place| is_dir(place)).unwrap_or(Path::new("/"));
            if self.watch(nearest)? && root.ancestors().skip(1).find(|place| is_dir(place)) == Some(nearest) {
                return Ok(());
            }
        }
    }

    /// Watches a directory and all below it that a rule may want; what is found there counts as changed.
    fn walk(&mut self, directory: PathBuf) -> Result<(), Failure> {
        let mut open = vec![directory];
        while let Some(directory) = open.pop() {
            if self.rules.prunes(&directory) || !self.watch(&directory)? {
                continue;
            }
            if let Ok(meta) = std::fs::symlink_metadata(&directory) {
                self.found(directory.clone(), &meta);
            }
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => open.push(entry.path()),
                    Ok(meta) => self.found(entry.path(), &meta),
                    // Gone again: its own event says so.
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn found(&mut self, path: PathBuf, meta: &Metadata) {
        let stamp = Stamp::of(meta);
        if self.known.insert(path.clone(), stamp) != Some(stamp) && self.rules.wants(&path) {
            self.batch.add(&path, Seen::Settled, Instant::now());
        }
    }

    /// `false`: it is gone again.
    fn watch(&mut self, directory: &Path) -> Result<bool, Failure> {
        match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(true),
            Err(_) if !is_dir(directory) => Ok(false),
            Err(e) => Err(failed(&e)),
        }
    }

    /// Of a removed directory, all that was below it.
    fn forget(&mut self, path: &Path) {
        if !self.known.remove(path).is_some_and(|stamp| stamp.is_dir) {
            return;
        }
        let below: Vec<PathBuf> =
            self.known.keys().filter(|known| known.starts_with(path)).cloned().collect();
        for gone in below {
            // A moved directory keeps its watch, which would speak of the old path.
            if self.known.remove(&gone).is_some_and(|stamp| stamp.is_dir) {
                let _ = self.watcher.unwatch(&gone);
            }
        }
    }

    /// Events were lost: everything that is not as it was counts as changed.
    fn look_again(&mut self) -> Result<(), Failure> {
        let before: Vec<PathBuf> = self.known.keys().cloned().collect();
        self.find_roots(Path::new("/"))?;
        for path in before {
            if std::fs::symlink_metadata(&path).is_err() {
                self.known.remove(&path);
                if self.rules.wants(&path) {
                    self.batch.add(&path, Seen::Removed, Instant::now());
                }
            }
        }
        Ok(())
    }
}

/// What an event says of its path; `None` for those that say nothing (reading, opening) or repeat others.
fn meaning(kind: &EventKind) -> Option<Seen> {
    match kind {
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => Some(Seen::Written),
        EventKind::Create(_)
        | EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Metadata(_) | ModifyKind::Name(RenameMode::To)) => {
            Some(Seen::Settled)
        }
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Seen::Removed),
        _ => None,
    }
}

/// A name that was not there before.
fn appears(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)))
}

fn is_dir(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn failed(error: &notify::Error) -> Failure {
    let failure = Failure::new(Kind::Other, format!("failed to watch: {error}"));
    let out_of_watches = matches!(error.kind, notify::ErrorKind::MaxFilesWatch);
    let out_of_instances = matches!(&error.kind, notify::ErrorKind::Io(e) if e.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32));
    match (out_of_watches, out_of_instances) {
        (true, _) => failure
            .hint("Raise the sysctl fs.inotify.max_user_watches, or let `ignore` cover large directories."),
        (_, true) => failure.hint("Raise the sysctl fs.inotify.max_user_instances."),
        _ => failure,
    }
}

#[cfg(test)]
mod tests;
