//! Installing a system call filter.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One instruction of a classic BPF program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// Flag of [`install`]: a descriptor on which somebody else answers for the filter.
pub const NEW_LISTENER: u32 = 8;

/// Installs the filter for this process and what it executes. Needs no_new_privs or CAP_SYS_ADMIN.
/// With [`NEW_LISTENER`] the listener's descriptor.
pub fn install(program: &[Instruction], flags: u32) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the system call filter is too long"))?;
    let filter =
        libc::sock_fprog { len: length, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: Instruction has sock_filter's layout, the kernel only reads `length` of them, and both live across the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    match result {
        ..0 => Err(io::Error::last_os_error()),
        // SAFETY: with this flag the kernel has just made the descriptor, nobody else owns it.
        fd if flags & NEW_LISTENER != 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        _ => Ok(None),
    }
}
