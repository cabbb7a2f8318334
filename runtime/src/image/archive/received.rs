//! The files of an image archive, received into the store's `tmp` and hashed on the way.
//!
//! Nothing in the archive chooses a path on disk: each file lies under a name of ours.

use super::super::digest::{Digest, Hashing};
use super::super::error::{Doing, Error, Result};
use super::super::store::{DOCUMENT_MAX, Store, read_bounded};
use super::super::tar_read::{Kind, Reader};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

const FILES_MAX: usize = 100_000;
const LINKS_MAX: usize = 10;

#[derive(Default)]
pub(super) struct Received {
    files: BTreeMap<String, Content>,
    /// Old archives link equal layers to each other.
    links: BTreeMap<String, String>,
}

pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// `None` once it is a blob of the store.
    file: tempfile::TempPath,
}

impl Received {
    pub(super) fn from_tar(store: &Store, archive: impl Read) -> Result<Self> {
        let mut received = Self::default();
        let mut reader = Reader::new(archive);
        while let Some(entry) = reader.entry().map_err(|e| Error::invalid("the image archive", e))? {
            let name = clean(&String::from_utf8_lossy(&entry.path));
            match entry.kind {
                Kind::File => received.add(store, name, &mut reader)?,
                Kind::Symlink => {
                    let target = beside(&name, &String::from_utf8_lossy(&entry.link));
                    received.links.insert(name, target);
                }
                Kind::HardLink => {
                    received.links.insert(name, clean(&String::from_utf8_lossy(&entry.link)));
                }
                _ => {}
            }
        }
        Ok(received)
    }

    /// An OCI layout directory: the index and every blob.
    pub(super) fn from_directory(store: &Store, directory: &Path) -> Result<Self> {
        let mut received = Self::default();
        for name in ["index.json", "oci-layout", "manifest.json"] {
            let path = directory.join(name);
            if path.is_file() {
                received.add(
                    store,
                    name.into(),
                    File::open(&path).doing(|| format!("open {}", path.display()))?,
                )?;
            }
        }
        let blobs = directory.join("blobs/sha256");
        let doing = || format!("read {}", blobs.display());
        for entry in fs::read_dir(&blobs).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = format!("blobs/sha256/{}", entry.file_name().to_string_lossy());
            received.add(store, name, File::open(entry.path()).doing(doing)?)?;
        }
        Ok(received)
    }

    fn add(&mut self, store: &Store, name: String, content: impl Read) -> Result<()> {
        if self.files.len() >= FILES_MAX {
            return Err(Error::invalid("the image archive", format!("it has more than {FILES_MAX} files")));
        }
        let doing = || format!("receive `{name}`");
        let mut file = tempfile::NamedTempFile::new_in(store.tmp()).doing(doing)?;
        let mut hashing = Hashing::new(content);
        let size = io::copy(&mut hashing, &mut file).doing(doing)?;
        let content = Content { digest: hashing.hasher.finish(), size, file: file.into_temp_path() };
        self.files.insert(name, content);
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<(&str, &Content)> {
        let mut name = clean(name);
        for _ in 0..LINKS_MAX {
            if let Some((key, content)) = self.files.get_key_value(&name) {
                return Some((key, content));
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    pub(super) fn get(&self, name: &str) -> Result<&Content> {
        let missing = || {
            Error::invalid(
                "the image archive",
                format!("`{}` is missing", name.chars().take(200).collect::<String>()),
            )
        };
        self.find(name).map(|(_, content)| content).ok_or_else(missing)
    }

    /// A blob of an OCI layout; its content must be what its name says.
    pub(super) fn blob(&self, digest: &Digest) -> Result<&Content> {
        let content = self.get(&format!("blobs/sha256/{}", digest.hex()))?;
        if content.digest != *digest {
            let what = format!("blob {} of the archive", digest.short());
            return Err(Error::Digest { what, expected: digest.clone(), found: content.digest.clone() });
        }
        Ok(content)
    }

    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>> {
        read_bounded(self.get(name)?.open()?, DOCUMENT_MAX, &format!("`{name}`"))
    }
}

impl Content {
    pub(super) fn open(&self) -> Result<File> {
        File::open(&self.file).doing(|| "open a received file".to_owned())
    }

    pub(super) fn bytes(&self, what: &str) -> Result<Vec<u8>> {
        read_bounded(self.open()?, DOCUMENT_MAX, what)
    }

    /// Becomes a blob of the store; the received file may be needed again, so it is linked.
    pub(super) fn keep(&self, store: &Store) -> Result<()> {
        match fs::hard_link(&self.file, store.blob_path(&self.digest)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(e).doing(|| format!("store blob {}", self.digest))
            }
            _ => Ok(()),
        }
    }
}

/// Lexically without `.`, `..` and leading slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A link's target, relative to the directory of the link.
fn beside(name: &str, target: &str) -> String {
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
    if target.starts_with('/') { clean(target) } else { clean(&format!("{directory}/{target}")) }
}
