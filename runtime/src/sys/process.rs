//! Making processes and what must be done between fork and exec. Callers are single-threaded.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// libc's constant of this name does not fit its type.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    Child,
    Parent(i32),
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Clone {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Forks a single-threaded process.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the launcher, its monitors and inits never start a thread, so no lock can be held by another one.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Forks into new namespaces (`CLONE_NEW…` flags) and, if given, into a version 2 control group. With
/// `CLONE_PARENT` the child is our parent's.
pub fn clone(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Clone> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    // The kernel wants none for somebody else's child, which gets ours.
    let is_sibling = namespaces & libc::CLONE_PARENT as u64 != 0;
    arguments.exit_signal = if is_sibling { 0 } else { libc::SIGCHLD as u64 };
    if let Some(group) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork; the process is single-threaded and `arguments` outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Clone::Child),
        // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor that nobody else owns.
        pid => Ok(Clone::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Ends the process without running destructors or exit handlers.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 on, except those given. Owners of the closed ones must not be used or dropped.
pub fn close_all_except(keep: &[RawFd]) -> io::Result<()> {
    except(keep, 0)
}

/// Marks every descriptor from 3 on as close-on-exec, except those given.
pub fn close_on_exec_except(keep: &[RawFd]) -> io::Result<()> {
    except(keep, libc::CLOSE_RANGE_CLOEXEC)
}

fn except(keep: &[RawFd], flags: u32) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter(|fd| **fd >= 3).map(|fd| fd.cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if first < fd {
            close_range(first, fd - 1, flags)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, flags)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: closing descriptors is memory-safe; the callers above say what it means for their owners.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Every signal back to its default action, none blocked: what a new program expects.
pub fn reset_signals() {
    for signal in 1..=64 {
        set_action(signal, libc::SIG_DFL);
    }
    block(&[]);
}

/// Those that launcher and monitors ignore back to their default actions, none blocked; all others are there already.
pub fn default_signals() {
    let ignored = [libc::SIGCHLD, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE];
    ignored.into_iter().for_each(|signal| set_action(signal, libc::SIG_DFL));
    block(&[]);
}

pub fn ignore_signals(signals: &[i32]) {
    for signal in signals {
        set_action(*signal, libc::SIG_IGN);
    }
}

fn set_action(signal: i32, action: libc::sighandler_t) {
    // SAFETY: SIG_DFL and SIG_IGN run no code of ours; those that cannot be changed fail harmlessly.
    unsafe { libc::signal(signal, action) };
}

/// Blocks exactly these signals.
pub fn block(signals: &[i32]) {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised and the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Waits for one of these (blocked) signals.
pub fn wait_signal(signals: &[i32]) -> io::Result<i32> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised and no siginfo is asked for.
    match unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) } {
        -1 => Err(io::Error::last_os_error()),
        signal => Ok(signal),
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain integers; sigemptyset and sigaddset only write to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Leaves namespaces (`CLONE_NEW…` flags) for new ones.
pub fn unshare(namespaces: i32) -> io::Result<()> {
    // SAFETY: namespace flags do not touch memory or descriptors.
    match unsafe { libc::unshare(namespaces) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Sets the loopback interface of this network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data, for which zero is valid; the name "lo" fits and stays terminated.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives across the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
