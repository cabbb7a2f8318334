//! Whole trees from one root to another, following no link.

use super::{Equal, Place};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A tree this deep was made to be deep.
const DEPTH_MAX: u32 = 512;

/// A copy in progress.
struct Copying {
    owner: Option<(u32, u32)>,
    /// Devices, pipes and sockets.
    skipped: Vec<PathBuf>,
}

/// Copies `name` of one directory to a name of another, with all below it; what is there already stays unless it is
/// in the way. Returns what was left out.
///
/// # Errors
/// The operating system's, naming the path below the source.
pub fn copy_tree(
    (source, name): (BorrowedFd<'_>, &OsStr),
    (target, new_name): (BorrowedFd<'_>, &OsStr),
    owner: Option<(u32, u32)>,
) -> io::Result<Vec<PathBuf>> {
    let mut copying = Copying { owner, skipped: Vec::new() };
    copying.one((source, name), (target, new_name), Path::new(name), 0)?;
    Ok(copying.skipped)
}

/// Copies what is in one directory into another.
///
/// # Errors
/// As [`copy_tree`].
pub fn copy_children(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    owner: Option<(u32, u32)>,
) -> io::Result<Vec<PathBuf>> {
    let mut copying = Copying { owner, skipped: Vec::new() };
    copying.children(source, target, Path::new(""), 0)?;
    Ok(copying.skipped)
}

impl Copying {
    fn one(
        &mut self,
        (source, name): (BorrowedFd<'_>, &OsStr),
        (target, new_name): (BorrowedFd<'_>, &OsStr),
        shown: &Path,
        depth: u32,
    ) -> io::Result<()> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", shown.display()));
        let from = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd())).join(name);
        let stat = rustix::fs::statat(CWD, &from, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| named(e.into()))?;
        let place = Place { directory: target.try_clone_to_owned()?, name: new_name, owner: self.owner };
        if !place.put(&from, &stat, Equal::Replace).map_err(named)? {
            self.skipped.push(shown.to_owned());
            return Ok(());
        }
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
            return Ok(());
        }
        if depth == DEPTH_MAX {
            return Err(named(io::Error::other("the directory is too deep")));
        }
        let inner = open(source, name).map_err(|e| named(e.into()))?;
        let made = open(target, new_name).map_err(|e| named(e.into()))?;
        self.children(inner.as_fd(), made.as_fd(), shown, depth + 1)
    }

    fn children(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        shown: &Path,
        depth: u32,
    ) -> io::Result<()> {
        for entry in Dir::read_from(open(source, OsStr::new("."))?)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.one((source, name), (target, name), &shown.join(name), depth)?;
            }
        }
        Ok(())
    }
}

fn open(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}
