//! A container's root as an open directory, and directories found and made below it.

use crate::host::process::ProcessMark;
use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How often a look-up is repeated that ran into a rename elsewhere in the tree.
const RETRIES: u32 = 16;

#[derive(Debug)]
pub struct Root(OwnedFd);

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
        let path = if path.is_empty() { "/" } else { path };
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
