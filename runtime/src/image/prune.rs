//! Freeing what nothing refers to, and how much there is.

use super::digest::Digest;
use super::error::{Error, Result};
use super::store::Store;
use std::collections::BTreeSet;

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
    pub untagged: Vec<String>,
    pub bytes: u64,
}

/// For `system df`: bytes on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    pub images: usize,
    pub blobs: u64,
    pub snapshots: u64,
    pub unfinished: u64,
    /// What [`prune`] of unused images would free.
    pub reclaimable: u64,
}

/// # Errors
/// [`Error::InUse`] while a pull, build or load runs.
pub fn prune(_store: &Store, _in_use: &InUse, _which: Which) -> Result<Freed> {
    Err(Error::NotYet("pruning".into()))
}

pub fn usage(_store: &Store, _in_use: &InUse) -> Result<Usage> {
    Err(Error::NotYet("measuring".into()))
}
