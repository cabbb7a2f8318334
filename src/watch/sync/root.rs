//! A container's root as an open directory, and directories found and made below it.

use crate::host::process::ProcessMark;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How often a look-up is repeated that ran into a rename elsewhere in the tree.
const RETRIES: u32 = 16;

#[derive(Debug)]
pub struct Root(OwnedFd);

/// A place in a root.
#[derive(Debug)]
pub struct Found {
    pub directory: OwnedFd,
    pub name: OsString,
    pub stat: Option<Stat>,
}

impl Found {
    pub fn is_directory(&self) -> bool {
        self.stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}

impl Root {
    /// Of a container by its first process.
    ///
    /// # Errors
    /// `NotFound` when the process has ended, or has not yet entered the container's root.
    pub fn of_process(mark: ProcessMark) -> io::Result<Self> {
        let root = Self::of_directory(Path::new(&format!("/proc/{}/root", mark.pid)))?;
        let gone = |why: &str| io::Error::new(io::ErrorKind::NotFound, why);
        if !mark.is_alive() {
            return Err(gone("the container has ended"));
        }
        let (inside, outside) = (rustix::fs::fstat(&root.0)?, rustix::fs::stat("/")?);
        if (inside.st_dev, inside.st_ino) == (outside.st_dev, outside.st_ino) {
            return Err(gone("the container has not started yet"));
        }
        Ok(root)
    }

    /// An open directory, e.g. the root of a container that does not run.
    pub fn of(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// # Errors
    /// The operating system's.
    pub fn of_directory(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// Opens a directory of the container, making what is missing of its path.
    ///
    /// # Errors
    /// `NotADirectory` when something else is in the way; otherwise the operating system's.
    pub fn directory(&self, path: &str, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        match self.existing(path) {
            Err(Errno::NOENT) => self.make(path, owner),
            other => Ok(other?),
        }
    }

    /// # Errors
    /// The operating system's.
    pub fn existing(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        self.existing_at(Path::new(path))
    }

    fn existing_at(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RETRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// The directory and the name that a path means; its last part is followed if it is a link and `follows`. What is
    /// there, if anything is.
    ///
    /// # Errors
    /// `NotFound` when the directory is not there; otherwise the operating system's.
    pub fn find(&self, path: &Path, follows: bool) -> io::Result<Found> {
        const LINKS_MAX: u32 = 40;
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let (above, name) = match (path.parent(), path.file_name()) {
                (Some(above), Some(name)) => (above.to_owned(), name.to_owned()),
                // The root, or a path that ends with dots.
                _ => (path.clone(), OsString::from(".")),
            };
            let directory = self.existing_at(&above)?;
            let stat = match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => None,
                stat => Some(stat?),
            };
            let is_link = stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            if !(is_link && follows) {
                return Ok(Found { directory, name, stat });
            }
            let target = rustix::fs::readlinkat(&directory, &name, Vec::new())?;
            path = above.join(OsStr::from_bytes(target.as_bytes()));
        }
        Err(Errno::LOOP.into())
    }

    fn make(&self, path: &str, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        let mut current = self.existing("/")?;
        let mut prefix = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            prefix = format!("{prefix}/{name}");
            current = match self.existing(&prefix) {
                Err(Errno::NOENT) => {
                    make_one(current.as_fd(), name, owner)?;
                    self.existing(&prefix)?
                }
                other => other?,
            };
        }
        Ok(current)
    }
}

fn make_one(above: BorrowedFd<'_>, name: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755))?;
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(above, name, uid, gid, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
