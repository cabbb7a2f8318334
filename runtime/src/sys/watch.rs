//! Readiness of a descriptor in the async runtime.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor (pidfd, socket, pipe) until dropped. Call within a tokio runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is valid and names the same open file for as long as it lives, and AsyncFd owns it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
