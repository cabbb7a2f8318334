//! The merged view of a chain without mounting it: one lookup at a time.
//!
//! Layers may leave out directories that exist below them, and may name a directory through a
//! symbolic link that a lower layer has (`bin/x` where `/bin` leads to `usr/bin`).

use super::tree::{self, Attributes, opaque};
use crate::image::Store;
use rustix::fs::{self, FileType, Stat};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// The layers below, top first, opened.
pub(crate) struct Below {
    roots: Vec<OwnedFd>,
}

pub(crate) enum Found {
    Directory(Attributes),
    Symlink(Vec<u8>),
    Other,
}

enum InLayer {
    Absent { hidden: bool },
    Found(Found),
}

impl Below {
    pub(crate) fn open(store: &Store, chain_id: &str) -> io::Result<Self> {
        let directories = super::lower_dirs(store, chain_id)?;
        Ok(Self { roots: directories.iter().map(|d| tree::open_root(d)).collect::<io::Result<_>>()? })
    }

    /// The root directory's attributes.
    pub(crate) fn root(&self) -> io::Result<Attributes> {
        match self.roots.first() {
            Some(root) => Ok(Attributes::of(&fs::fstat(root)?, tree::xattrs_of(root)?)),
            None => Ok(Attributes::plain_directory()),
        }
    }

    /// What the chain has at a path whose parents are directories in the merged view.
    pub(crate) fn lookup(&self, path: &Path) -> io::Result<Option<Found>> {
        for root in &self.roots {
            match in_layer(root, path)? {
                InLayer::Found(found) => return Ok(Some(found)),
                InLayer::Absent { hidden: true } => return Ok(None),
                InLayer::Absent { hidden: false } => {}
            }
        }
        Ok(None)
    }
}

fn in_layer(root: &OwnedFd, path: &Path) -> io::Result<InLayer> {
    let mut directory = root.try_clone()?;
    let mut hidden = false;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else { continue };
        let name = CString::new(name.as_bytes())?;
        let Some(stat) = tree::stat(&directory, &name)? else {
            return Ok(InLayer::Absent { hidden });
        };
        if tree::is_whiteout(&stat) {
            return Ok(InLayer::Absent { hidden: true });
        }
        if components.peek().is_none() {
            return Ok(InLayer::Found(found(&directory, &name, &stat)?));
        }
        if tree::kind(&stat) != FileType::Directory {
            return Ok(InLayer::Absent { hidden: true });
        }
        directory = tree::open_directory(&directory, &name)?;
        hidden |= is_opaque(&directory)?;
    }
    Ok(InLayer::Absent { hidden })
}

fn found(parent: &OwnedFd, name: &CString, stat: &Stat) -> io::Result<Found> {
    Ok(match tree::kind(stat) {
        FileType::Directory => {
            Found::Directory(Attributes::of(stat, tree::xattrs_of(tree::open_directory(parent, name)?)?))
        }
        FileType::Symlink => Found::Symlink(fs::readlinkat(parent, name, Vec::new())?.into_bytes()),
        _ => Found::Other,
    })
}

pub(crate) fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    let mut value = [0; 8];
    match fs::fgetxattr(directory, opaque(), &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// A path component as the kernel takes it.
pub(crate) fn c_name(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a name contains a zero byte"))
}
