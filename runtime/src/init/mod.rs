//! Init: what happens inside the new namespaces, up to `execve`.
//!
//! A list of [`Operation`]s is built first ([`plan`]) and executed after, in order; a failure names its
//! operation. Single-threaded, forked from the monitor, so it must never return: it executes the program,
//! becomes its reaper, or exits.
//!
//! [`Link`] is the socket to the monitor: `p` lets it proceed (it is in its control groups), `g` lets it go
//! (the network is there); back come [`Note`]s. It is close-on-exec, so its end after
//! [`Note::Executing`] is the success of `execve`.

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
mod user;

pub(crate) use confine::prepare_default_filter;
pub(crate) use operation::Operation;
pub(crate) use plan::{container, exec};
pub(crate) use root::overlay;
pub(crate) use user::ids as user_ids;

use crate::cgroup::Group;
use crate::launch::LaunchError;
use crate::sys::{packet, process};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Init to monitor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    Warning(String),
    /// With the master side of the terminal.
    Terminal,
    /// All is done, only `execve` is left.
    Executing,
    Failed(LaunchError),
}

/// Init's end of the socket to the monitor.
#[derive(Debug)]
pub(crate) struct Link(pub OwnedFd);

impl Link {
    pub(crate) fn send(&self, note: &Note, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        packet::send(&self.0, &serde_json::to_vec(note)?, fds)
    }

    /// A monitor that is gone means that nobody wants this container any more.
    pub(crate) fn wait(&self) {
        if packet::receive(&self.0).map_or(true, |(bytes, _)| bytes.is_empty()) {
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
            identity: user::Identity::default(),
        }
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| io::Error::other("there is no root yet"))
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
    streams.chain([context.link.0.as_raw_fd()]).collect()
}
