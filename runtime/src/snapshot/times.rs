//! Times of a layer that is made, for images that come out the same whenever they are built.

use super::Working;
use super::tree;
use rustix::fs::{self, AtFlags, FileType, Stat, Timespec, Timestamps};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

impl Working {
    /// Nothing in the layer is younger than `seconds` (since 1970) afterwards; with `all`, nothing is older either.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_times(&self, seconds: i64, all: bool) -> io::Result<()> {
        let root = tree::open_root(&self.upper)?;
        below(root.as_fd(), seconds, all)?;
        let stat = fs::fstat(&root)?;
        match is_meant(&stat, seconds, all) {
            true => Ok(fs::futimens(&root, &times(seconds))?),
            false => Ok(()),
        }
    }
}

fn below(directory: BorrowedFd<'_>, seconds: i64, all: bool) -> io::Result<()> {
    for name in tree::names(directory)? {
        let Some(stat) = tree::stat(directory, &name)? else { continue };
        if tree::kind(&stat) == FileType::Directory {
            below(tree::open_directory(directory, &name)?.as_fd(), seconds, all)?;
        }
        // Device nodes that stand for removed names share one inode and have no time in an archive.
        if is_meant(&stat, seconds, all) && !tree::is_whiteout(&stat) {
            fs::utimensat(directory, &name, &times(seconds), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

/// A fraction of a second is younger, too.
fn is_meant(stat: &Stat, seconds: i64, all: bool) -> bool {
    let (whole, fraction) = tree::mtime(stat);
    all || whole > seconds || (whole == seconds && fraction > 0)
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
