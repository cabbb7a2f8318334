//! What a process sets for itself and what it leaves to what it executes.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct sched_attr`, first version.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Scheduling {
    /// Filled in by [`set_scheduling`].
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the two below; for the deadline policy.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub fn set_scheduling(mut scheduling: Scheduling) -> io::Result<()> {
    scheduling.size = size_of::<Scheduling>() as u32;
    // SAFETY: `scheduling` lives across the call, its size is given, and the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const scheduling, 0) }).map(drop)
}

/// Class in the high, level in the low 13 bits, as `ioprio_set(2)` has them.
pub fn set_io_priority(value: i32) -> io::Result<()> {
    const THIS_PROCESS: i32 = 1;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, THIS_PROCESS, 0, value) }).map(drop)
}

pub fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// `nodes` as a bit mask, 64 to a word, lowest first.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits of the mask, which has that many and lives across the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// A new session keyring: what is in the one inherited is out of reach.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: the name is a C string that lives across the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

/// Whether the effective user may execute the file, capabilities included.
pub fn may_execute(path: &CStr) -> io::Result<()> {
    let (dir, mode, flags) = (libc::AT_FDCWD, libc::X_OK, libc::AT_EACCESS);
    // SAFETY: the path is a C string that lives across the call.
    check(unsafe { libc::syscall(libc::SYS_faccessat2, dir, path.as_ptr(), mode, flags) }).map(drop)
}

/// Ends at once, with 128 + n, by any of these signals. A pid 1 ignores what it has no handler for.
pub fn exit_on_signals(signals: &[i32]) {
    extern "C" fn end(signal: i32) {
        // SAFETY: _exit has no precondition and may be called in a signal handler.
        unsafe { libc::_exit(128 + signal) }
    }
    for signal in signals {
        // SAFETY: the handler does nothing but _exit.
        unsafe { libc::signal(*signal, end as *const () as libc::sighandler_t) };
    }
}

/// A copy of another process's descriptor.
pub fn take_descriptor(process: BorrowedFd<'_>, descriptor: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) };
    // SAFETY: the kernel has just made this descriptor, nobody else owns it.
    check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether it is open and stays so in what is executed, as those that whoever started this process handed over.
pub fn is_inherited(descriptor: i32) -> bool {
    // SAFETY: asks for flags only; a number that is no descriptor is an error.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}
