//! User namespaces: whether we are in one, making one, joining one. Callers are single-threaded.

use super::process::{self, Fork};
use rustix::mount::MountPropagationFlags;
use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// Tells the processes that we start whose user namespace they are in.
const OWNER: &str = "STACK_USER_NAMESPACE_OF";
const DONE: &str = "done";

/// The uid, outside, of the ordinary user for whom this process is root ([`become_root`]).
pub fn owner() -> Option<u32> {
    std::env::var(OWNER).ok()?.parse().ok().filter(|_| !is_initial())
}

/// Not in a user namespace, as far as the mapping tells (user_namespaces(7)).
pub fn is_initial() -> bool {
    static INITIAL: OnceLock<bool> = OnceLock::new();
    *INITIAL.get_or_init(|| {
        let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        text.is_empty() || text.split_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// Only one user id is mapped, so no file can belong to anybody else.
pub fn is_single_id() -> bool {
    static SINGLE: OnceLock<bool> = OnceLock::new();
    *SINGLE.get_or_init(|| {
        let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let mut fields = text.split_whitespace();
        fields.nth(2) == Some("1") && fields.next().is_none()
    })
}

/// How many groups are mapped; `None` where that is all of them.
pub fn groups() -> Option<u32> {
    let text = fs::read_to_string("/proc/self/gid_map").ok().filter(|_| !is_initial())?;
    text.lines().map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok()).sum()
}

/// Enters a new user namespace. `map` runs in a process outside and gives ours, whose number it gets, its mappings.
///
/// # Errors
/// Of the kernel, which may forbid it, and of `map` (`PermissionDenied`, with its words).
pub fn create(map: impl FnOnce(i32) -> io::Result<()>) -> io::Result<()> {
    let (mut go, made) = pipe()?;
    let (mut words, told) = pipe()?;
    let ours = getpid().as_raw_nonzero().get();
    let helper = match process::fork()? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop((made, words));
            process::exit(i32::from(answer(&mut go, told, || map(ours)).is_err()))
        }
    };
    drop((go, told));
    let unshared = process::unshare(libc::CLONE_NEWUSER);
    // Without the byte the helper sees the end of the pipe, and does nothing.
    let asked = if unshared.is_ok() { (&made).write_all(b"g") } else { Ok(()) };
    drop(made);
    let mut said = String::new();
    words.read_to_string(&mut said)?;
    waitpid(Pid::from_raw(helper), WaitOptions::empty())?;
    unshared.and(asked)?;
    if said == DONE { Ok(()) } else { Err(io::Error::new(io::ErrorKind::PermissionDenied, said)) }
}

fn answer(go: &mut File, mut told: File, map: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if go.read(&mut [0])? == 0 {
        return Ok(());
    }
    match map() {
        Ok(()) => told.write_all(DONE.as_bytes()),
        Err(e) => told.write_all(e.to_string().as_bytes()),
    }
}

fn pipe() -> io::Result<(File, File)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read.into(), write.into()))
}

/// Into the user namespace that the descriptor names.
pub fn join(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?)
}

/// Root of the user namespace just entered, on behalf of the user `owner`: user and group 0, and mounts of its own
/// that follow the host's. Processes that we start know about it.
pub fn become_root(owner: u32) -> io::Result<()> {
    nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into())?;
    process::unshare(libc::CLONE_NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // SAFETY: the process is single-threaded, so nobody reads the environment at the same time.
    unsafe { std::env::set_var(OWNER, owner.to_string()) };
    Ok(())
}
