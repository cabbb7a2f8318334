//! Removes a file or a tree in the container, following no link.

use super::Root;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// A tree this deep was made to be deep.
const DEPTH_MAX: u32 = 512;

/// What is not there is removed already.
pub(super) fn remove_place(root: &Root, above: &str, name: &str) -> io::Result<()> {
    match root.existing(above) {
        Ok(directory) => remove_below(directory.as_fd(), OsStr::new(name)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

pub(super) fn remove_below(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = std::ffi::CString::new(name.as_bytes())?;
    remove(directory, &name, 0)
}

fn remove(directory: BorrowedFd<'_>, name: &std::ffi::CStr, depth: u32) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    if depth == DEPTH_MAX {
        return Err(io::Error::other("the directory is too deep"));
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let dots = matches!(entry.file_name().to_bytes(), b"." | b"..");
        if !(dots && entry.file_type() == FileType::Directory) {
            remove(inner.as_fd(), entry.file_name(), depth + 1)?;
        }
    }
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}
