//! Pure: collects changed paths until an edit is complete.
//!
//! An editor's save is a burst: a temporary file, a rename, a write, a close. Waiting for a fixed quiet
//! time after it makes every save slow, so the wait follows what was seen:
//!
//! - a file that was written is complete when its writer closes it, so before that the batch waits longer;
//! - after that, a breath: long enough for the rest of one save, and longer the more paths there are, because a
//!   large batch is a checkout or a generator that goes on;
//! - a removal waits longer too: some editors remove the file before they write it anew;
//! - never longer than [`AGE_MAX`] after the first change.

use indexmap::IndexMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After the last event of one settled edit.
const BREATH: Duration = Duration::from_millis(8);
/// After a removal, and in a batch of several files.
const LONG_BREATH: Duration = Duration::from_millis(25);
/// In a batch of many files, and while a writer has not closed its file.
const LONGEST_BREATH: Duration = Duration::from_millis(60);
/// A batch is acted on at this age even when changes go on.
const AGE_MAX: Duration = Duration::from_millis(1000);
const SEVERAL: usize = 4;
const MANY: usize = 40;

/// What was seen of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Made or written, and perhaps not complete.
    Written,
    /// Closed after writing, renamed to here, attributes changed: complete.
    Settled,
    Removed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Batch {
    paths: IndexMap<PathBuf, Seen>,
    /// Times of the first and of the last change.
    span: Option<(Instant, Instant)>,
}

impl Batch {
    pub fn add(&mut self, path: &Path, seen: Seen, now: Instant) {
        self.span = Some((self.span.map_or(now, |(first, _)| first), now));
        match self.paths.get_mut(path) {
            Some(known) => *known = seen,
            None => drop(self.paths.insert(path.to_owned(), seen)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// When to act, unless something else is seen before; `None` while empty.
    pub fn due(&self) -> Option<Instant> {
        let (first, last) = self.span?;
        Some((last + self.breath()).min(first + AGE_MAX))
    }

    /// The paths in the order in which they were first seen; the batch is empty afterwards.
    pub fn take(&mut self) -> Vec<PathBuf> {
        self.span = None;
        std::mem::take(&mut self.paths).into_keys().collect()
    }

    fn breath(&self) -> Duration {
        let any = |wanted: Seen| self.paths.values().any(|seen| *seen == wanted);
        match self.paths.len() {
            MANY.. => LONGEST_BREATH,
            _ if any(Seen::Written) => LONGEST_BREATH,
            SEVERAL.. => LONG_BREATH,
            _ if any(Seen::Removed) => LONG_BREATH,
            _ => BREATH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(batch: &Batch, start: Instant) -> Duration {
        batch.due().expect("not empty") - start
    }

    #[test]
    fn a_closed_file_waits_only_a_breath() {
        let (start, mut batch) = (Instant::now(), Batch::default());
        batch.add(Path::new("/a"), Seen::Written, start);
        assert_eq!(after(&batch, start), LONGEST_BREATH);
        batch.add(Path::new("/a"), Seen::Settled, start);
        assert_eq!(after(&batch, start), BREATH);
        assert_eq!(batch.take(), [PathBuf::from("/a")]);
        assert!(batch.is_empty() && batch.due().is_none());
    }

    #[test]
    fn a_removal_may_be_the_first_half_of_a_save() {
        let (start, mut batch) = (Instant::now(), Batch::default());
        batch.add(Path::new("/a"), Seen::Removed, start);
        assert_eq!(after(&batch, start), LONG_BREATH);
    }

    #[test]
    fn many_changes_wait_longer_but_not_for_ever() {
        let (start, mut batch) = (Instant::now(), Batch::default());
        for n in 0..100 {
            batch.add(Path::new(&format!("/{n}")), Seen::Settled, start + Duration::from_millis(n * 15));
        }
        assert_eq!(after(&batch, start), AGE_MAX);
        assert_eq!(batch.take().len(), 100);
    }
}
