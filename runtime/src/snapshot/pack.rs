//! A layer directory as an archive: the inverse of unpacking, byte for byte the same each time.
//!
//! Entries come in the order of their names, directories before their content; times are
//! whole seconds; hard links point to the first of their names. Sockets are left out, as no
//! archive can hold them. Directories that overlayfs only copied up are part of the layer.

use super::below::{c_name, is_opaque};
use super::tree::{self, Xattrs};
use crate::image::tar_read::{Entry, Kind};
use crate::image::tar_write::Writer;
use rustix::fs::{self, FileType, Stat};
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Writes the whole archive; returns the bytes of file content.
pub(super) fn pack(root: &Path, to: impl Write) -> io::Result<u64> {
    pack_open(tree::open_root(root)?.as_fd(), to)
}

/// The same of a directory that is open.
pub(super) fn pack_open(root: BorrowedFd<'_>, to: impl Write) -> io::Result<u64> {
    let mut packer = Packer { writer: Writer::new(to), linked: HashMap::new(), size: 0 };
    packer.root(root)?;
    packer.children(root, b"")?;
    packer.writer.finish()?.flush()?;
    Ok(packer.size)
}

/// One name of a directory, with all below it.
pub(super) fn pack_entry(directory: BorrowedFd<'_>, name: &OsStr, to: impl Write) -> io::Result<u64> {
    let mut packer = Packer { writer: Writer::new(to), linked: HashMap::new(), size: 0 };
    let name = c_name(name)?;
    let stat = tree::stat(directory, &name)?.ok_or(io::ErrorKind::NotFound)?;
    packer.child(directory, b"", &name, &stat)?;
    packer.writer.finish()?.flush()?;
    Ok(packer.size)
}

struct Packer<W: Write> {
    writer: Writer<W>,
    /// First name of each file with several, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
    size: u64,
}

impl<W: Write> Packer<W> {
    /// The root is mentioned only when it is not what everybody makes.
    fn root(&mut self, root: impl AsFd) -> io::Result<()> {
        let stat = fs::fstat(&root)?;
        let xattrs = portable(tree::xattrs_of(&root)?);
        if stat.st_mode & 0o7777 == 0o755 && stat.st_uid == 0 && stat.st_gid == 0 && xattrs.is_empty() {
            return Ok(());
        }
        self.writer.append(&entry(b"./".to_vec(), Kind::Directory, &stat, xattrs), io::empty())
    }

    fn children(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
        if is_opaque(directory)? {
            self.mark([path, b".wh..wh..opq"].concat())?;
        }
        for name in tree::names(directory)? {
            if let Some(stat) = tree::stat(directory, &name)? {
                self.child(directory, path, &name, &stat)?;
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        parent: BorrowedFd<'_>,
        directory: &[u8],
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let path = [directory, name.to_bytes()].concat();
        match tree::kind(stat) {
            FileType::Socket => Ok(()),
            FileType::CharacterDevice if tree::is_whiteout(stat) => {
                self.mark([directory, b".wh.", name.to_bytes()].concat())
            }
            FileType::Directory => self.directory(parent, [&path, &b"/"[..]].concat(), name, stat),
            FileType::RegularFile => self.file(parent, path, name, stat),
            _ => self.special(parent, path, name, stat),
        }
    }

    fn mark(&mut self, path: Vec<u8>) -> io::Result<()> {
        self.writer.append(&Entry { path, ..Entry::file("", 0) }, io::empty())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        path: Vec<u8>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let directory = tree::open_directory(parent, name)?;
        let xattrs = tree::xattrs_of(&directory)?;
        if xattrs.iter().any(|(name, _)| name.ends_with(b".overlay.redirect")) {
            return Err(io::Error::other(
                "the layer was written with redirected directories, which no archive can hold",
            ));
        }
        self.writer.append(&entry(path.clone(), Kind::Directory, stat, portable(xattrs)), io::empty())?;
        self.children(directory.as_fd(), &path)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, path: Vec<u8>, name: &CStr, stat: &Stat) -> io::Result<()> {
        if self.link(&path, stat)? {
            return Ok(());
        }
        let file = File::from(tree::open_file(parent, name)?);
        let xattrs = tree::xattrs_of(&file)?;
        if xattrs.iter().any(|(name, _)| name.ends_with(b".overlay.metacopy")) {
            return Err(io::Error::other(
                "the layer was written with metadata-only copies, which no archive can hold",
            ));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.size += size;
        self.writer.append(&Entry { size, ..entry(path, Kind::File, stat, portable(xattrs)) }, file)
    }

    fn special(&mut self, parent: BorrowedFd<'_>, path: Vec<u8>, name: &CStr, stat: &Stat) -> io::Result<()> {
        if self.link(&path, stat)? {
            return Ok(());
        }
        let kind = match tree::kind(stat) {
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::BlockDevice => Kind::Block,
            _ => Kind::Character,
        };
        let mut made = entry(path, kind, stat, portable(tree::xattrs_at(parent, name)?));
        match kind {
            Kind::Symlink => made.link = fs::readlinkat(parent, name, Vec::new())?.into_bytes(),
            Kind::Fifo => {}
            _ => made.device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
        }
        self.writer.append(&made, io::empty())
    }

    /// `true`: the entry was written as a link to an earlier name.
    fn link(&mut self, path: &[u8], stat: &Stat) -> io::Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        match self.linked.get(&(stat.st_dev, stat.st_ino)) {
            Some(first) => {
                let link = first.clone();
                let made = Entry { link, ..entry(path.to_vec(), Kind::HardLink, stat, Vec::new()) };
                self.writer.append(&made, io::empty())?;
                Ok(true)
            }
            None => {
                self.linked.insert((stat.st_dev, stat.st_ino), path.to_vec());
                Ok(false)
            }
        }
    }
}

fn portable(mut xattrs: Xattrs) -> Xattrs {
    xattrs.retain(|(name, _)| tree::is_portable(name));
    xattrs
}

fn entry(path: Vec<u8>, kind: Kind, stat: &Stat, xattrs: Xattrs) -> Entry {
    Entry {
        path,
        link: Vec::new(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        mtime: (tree::mtime(stat).0, 0),
        device: (0, 0),
        xattrs,
    }
}
