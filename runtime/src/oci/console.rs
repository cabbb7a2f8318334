//! The terminal's master side: to the console socket, or kept by whoever stays in the foreground.

use super::Result;
use crate::launch::{LaunchError, Named};
use crate::sys::packet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Who gets the master side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Master<'a> {
    /// There is no terminal.
    None,
    Socket(&'a Path),
    /// We do.
    Ours,
}

/// What goes together: a terminal and somebody at its other side.
pub(super) fn choose(terminal: bool, socket: Option<&PathBuf>, stays: bool) -> Result<Master<'_>> {
    let refuse = |reason: &str| Err(LaunchError::new("set up the terminal", reason));
    match (terminal, socket) {
        (false, None) => Ok(Master::None),
        (true, Some(socket)) if !stays => Ok(Master::Socket(socket)),
        (true, None) if stays => Ok(Master::Ours),
        (true, None) => refuse("cannot allocate tty if stack oci will detach without setting console socket"),
        _ => refuse("cannot use console socket if stack oci will not detach or allocate tty"),
    }
}

/// The name is for people; the descriptor is what counts.
pub(super) fn send(socket: &Path, master: &OwnedFd) -> Result<()> {
    let connection = super::notify::connect_to(socket)
        .named(format!("connect to the console socket {}", socket.display()))?;
    packet::send(&connection, b"/dev/ptmx", &[master.as_fd()]).named("send the terminal")
}
