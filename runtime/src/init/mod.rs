//! Init: what happens inside the new namespaces, up to `execve`.
//!
//! A list of [`Operation`]s is built first ([`plan`]) and executed after, in order; a failure names its
//! operation. Single-threaded, forked from the monitor, so it must never return: it executes the program,
//! becomes its reaper, or exits.
//!
//! [`Link`] is the socket to the monitor: `m` tells that the ids of its user namespace are mapped, `p` lets it
//! proceed (it is in its control groups), `g` lets it go (the network is there); back come [`Note`]s. It is
//! close-on-exec, so its end after [`Note::Executing`] is the success of `execve`.

mod birth;
mod confine;
mod copy;
mod execute;
mod mounts;
mod operation;
mod options;
pub(crate) mod path;
mod plan;
mod reaper;
mod root;
mod traits;
mod user;

pub(crate) use birth::{Child, Maps, birth, clone, map_namespace};
pub(crate) use confine::prepare_default_filter;
pub(crate) use mounts::{is_bind, prepare_bind, prepare_devices};
pub(crate) use operation::Operation;
pub(crate) use options::{propagation, words as mount_options};
pub(crate) use plan::{container, exec, process};
pub(crate) use root::overlay;
pub(crate) use traits::{has_user_namespace, root_ids};
pub(crate) use user::ids as user_ids;

use crate::cgroup::Group;
use crate::launch::LaunchError;
use crate::sys::{packet, process};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Name of the pipe on which a created container awaits its start.
pub(crate) const START_PIPE: &str = "exec.fifo";

/// Init to monitor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    Warning(String),
    /// With the master side of the terminal.
    Terminal,
    /// The system call filter asks on this descriptor, as soon as it is there.
    Listener(i32),
    /// The root is there; hooks of the runtime may see it.
    Prepared,
    /// All is done but for the start.
    Ready,
    /// All is done, only `execve` is left.
    Executing,
    Failed(LaunchError),
}

/// Init's end of the socket to the monitor, or of the pipe to whoever started it.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    /// Where the notes go after the start, one to a line.
    pipe: Option<File>,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, pipe: None }
    }

    pub(crate) fn send(&self, note: &Note, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(note)?;
        match &self.pipe {
            Some(pipe) => {
                bytes.push(b'\n');
                let mut pipe = pipe;
                pipe.write_all(&bytes)
            }
            // The simplest call of all: a filter may forbid the others.
            None if fds.is_empty() => Ok(rustix::io::write(&self.socket, &bytes).map(drop)?),
            None => packet::send(&self.socket, &bytes, fds),
        }
    }

    /// A monitor that is gone means that nobody wants this container any more.
    pub(crate) fn wait(&self) {
        if packet::receive(&self.socket).map_or(true, |(bytes, _)| bytes.is_empty()) {
            process::exit(0);
        }
    }
}

/// What the operations work on and learn.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub link: Link,
    pub group: &'a Group,
    /// The new root, until it is `/`.
    root: Option<OwnedFd>,
    /// A directory of the host to mount at, in passing.
    scratch: std::path::PathBuf,
    /// Standard input, output and error of the program.
    pub streams: Option<[OwnedFd; 3]>,
    /// They are pipes made for this program, so its user may own them.
    pub owns_streams: bool,
    pub environment: Vec<String>,
    /// Bind mounts that were opened before, by their place in the list of mounts.
    pub trees: Vec<(usize, OwnedFd)>,
    /// Device nodes likewise.
    pub devices: Vec<(std::path::PathBuf, OwnedFd)>,
    /// The root likewise.
    pub root_tree: Option<OwnedFd>,
    /// The directory with the pipe on which the start is awaited.
    pub start: Option<OwnedFd>,
    /// Descriptors from 3 on that the program gets.
    pub preserved: Vec<i32>,
    has_directory: bool,
    shares_mounts: bool,
    identity: user::Identity,
}

impl<'a> Context<'a> {
    pub(crate) fn new(link: Link, group: &'a Group, environment: Vec<String>) -> Self {
        Self {
            link,
            group,
            root: None,
            scratch: std::path::PathBuf::new(),
            streams: None,
            owns_streams: false,
            environment,
            trees: Vec::new(),
            devices: Vec::new(),
            root_tree: None,
            start: None,
            preserved: Vec::new(),
            has_directory: false,
            shares_mounts: false,
            identity: user::Identity::default(),
        }
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| io::Error::other("there is no root yet"))
    }

    /// Waits until somebody reads the pipe, and talks to them from then on. Until then an end is a plain signal away.
    fn await_start(&mut self) -> io::Result<()> {
        let Some(dir) = self.start.take() else { return Ok(()) };
        process::block(&[]);
        crate::sys::task::exit_on_signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]);
        self.link.send(&Note::Ready, &[])?;
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let pipe = rustix::fs::openat(dir, START_PIPE, flags, rustix::fs::Mode::empty())?;
        self.link.pipe = Some(pipe.into());
        Ok(())
    }

    fn warn(&self, warning: impl Into<String>) {
        // The monitor listens until the program runs; without it init ends anyway.
        let _ = self.link.send(&Note::Warning(warning.into()), &[]);
    }
}

/// Executes the operations, the last of which does not return.
pub(crate) fn run(operations: Vec<Operation>, mut context: Context<'_>) -> ! {
    for operation in operations {
        if let Err(error) = operation.run(&mut context) {
            let failure = operation.failure(&error);
            let _ = context.link.send(&Note::Failed(failure), &[]);
            process::exit(1);
        }
    }
    process::exit(0)
}

/// Descriptors that init keeps; all others are closed at its start.
pub(crate) fn kept(context: &Context<'_>) -> Vec<i32> {
    let streams = context.streams.iter().flatten().map(AsRawFd::as_raw_fd);
    let trees = context.trees.iter().map(|(_, tree)| tree).chain(&context.root_tree).chain(&context.start);
    let trees = trees.chain(context.devices.iter().map(|(_, node)| node));
    let preserved = context.preserved.iter().copied();
    let own = trees.map(AsRawFd::as_raw_fd).chain([context.link.socket.as_raw_fd()]);
    streams.chain(own).chain(preserved).collect()
}
