//! The program that the launcher runs: a copy of our own binary that no container can write to.
//!
//! A program inside a container can open `/proc/PID/exe` of a process of ours that joins it. So the
//! launcher is executed from a detached read-only mount of the binary, or from a sealed copy in memory
//! where such a mount cannot be made.

use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A descriptor to execute through `/proc/self/fd/N`.
pub(crate) fn sealed(program: &Path) -> io::Result<OwnedFd> {
    read_only_mount(program).or_else(|_| memory_copy(program))
}

fn read_only_mount(program: &Path) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, program, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    crate::sys::mount::set_attributes(&tree, crate::sys::mount::READ_ONLY, 0, false)?;
    Ok(tree)
}

fn memory_copy(program: &Path) -> io::Result<OwnedFd> {
    let fd = memfd_create("stack", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = File::from(fd);
    io::copy(&mut File::open(program)?, &mut copy)?;
    fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy.into())
}
