//! The files of a container that does not run: its root, mounted nowhere.

use crate::home::Home;
use crate::image::Store;
use crate::init::{overlay, user_ids};
use crate::snapshot;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The root as a detached mount: there as long as the descriptor is open, seen by nobody else. `dir` is the
/// container's directory. The caller makes sure that the container is not started meanwhile.
///
/// # Errors
/// The operating system's.
pub fn root_at_rest(home: &Home, chain_id: &str, dir: &Path) -> io::Result<OwnedFd> {
    let store = Store::open(home)?;
    let lower = snapshot::lower_dirs(&store, chain_id)?;
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    if lower.is_empty() {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        return Ok(rustix::fs::open(&upper, flags, rustix::fs::Mode::empty())?);
    }
    let scratch = tempfile::tempdir_in(dir)?;
    overlay(&lower, Some((&upper, &work)), false, scratch.path())
}

/// The files of a container whether it runs or not, read-only and without what is mounted in it.
///
/// # Errors
/// The operating system's.
pub fn root_to_read(home: &Home, chain_id: &str, dir: &Path) -> io::Result<OwnedFd> {
    let mut layers = snapshot::lower_dirs(&Store::open(home)?, chain_id)?;
    layers.insert(0, dir.join("upper"));
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    // The kernel wants two.
    if layers.len() == 1 {
        return Ok(rustix::fs::open(&layers[0], flags, rustix::fs::Mode::empty())?);
    }
    let scratch = tempfile::tempdir_in(dir)?;
    let mount = overlay(&layers, None, false, scratch.path())?;
    Ok(rustix::fs::openat(mount, ".", flags, rustix::fs::Mode::empty())?)
}

/// User and group id of `user[:group]`, from the files below the root.
///
/// # Errors
/// A name that the container does not know.
pub fn ids_of(root: impl AsFd, user: &str) -> io::Result<(u32, u32)> {
    user_ids(root, user).map_err(io::Error::other)
}
