//! Signals by number, real-time ones included, which the wrappers leave out.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sends a signal to the process that a pidfd names.
pub fn send(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_details = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is borrowed for the call, and a null siginfo asks the kernel to fill in its own.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_details, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
