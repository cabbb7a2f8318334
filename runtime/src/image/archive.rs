//! Archives: load, save and import. All of it blocks.

use super::config::ImageConfig;
use super::digest::Digest;
use super::error::{Error, Result};
use super::reference::Reference;
use super::store::Store;
use std::io::{Read, Write};
use std::path::Path;

/// One image of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub id: Digest,
    /// Empty: the archive has no name for it.
    pub references: Vec<Reference>,
}

/// Loads `docker save` and OCI archives, plain, gzip or zstd.
pub fn load(_store: &Store, _archive: impl Read) -> Result<Vec<Loaded>> {
    Err(Error::NotYet("loading".into()))
}

/// As [`load`], from a file or an OCI layout directory.
pub fn load_path(_store: &Store, _path: &Path) -> Result<Vec<Loaded>> {
    Err(Error::NotYet("loading".into()))
}

/// Writes an archive that `docker load`, `podman load` and [`load`] read: names or ids.
pub fn save(_store: &Store, _images: &[String], _to: impl Write) -> Result<()> {
    Err(Error::NotYet("saving".into()))
}

/// Makes an image of one layer from a root file system archive (plain, gzip or zstd).
pub fn import(_store: &Store, _rootfs: impl Read, _config: ImageConfig, _references: &[Reference]) -> Result<Digest> {
    Err(Error::NotYet("importing".into()))
}
