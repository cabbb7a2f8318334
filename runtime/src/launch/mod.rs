//! The launcher: a single-threaded process that forks containers and execs for a threaded owner.
//!
//! ```text
//! owner (tokio) ══seqpacket══► launcher ──fork──► monitor ──clone3──► init ─execve─► program
//!       ▲                                            │
//!       └──────────── one socket per request ◄───────┘   Created → Go → Started | Failed
//! ```
//!
//! A request is one packet to the launcher with a memory file (the [`Order`] as JSON), the
//! monitor's end of a fresh socket pair and, where wanted, the program's standard streams. From
//! then on the monitor talks to the owner directly, so requests never wait for each other.
//!
//! The launcher sees the end of its owner as end-of-file on the control socket. Without a
//! [`Launcher::shutdown`] (or drop) before, it starts the replacement named by
//! [`LauncherOptions::respawn`] and goes; monitors and containers stay. Without a replacement it
//! just goes, and takes everything ephemeral with it.

mod client;
mod error;
pub(crate) mod message;
mod program;
mod server;

pub use client::{
    BindFiles, Created, ExecProcess, ExecRequest, ExecStdio, JoinPids, LaunchRequest, LaunchStdio, Launcher,
    LauncherNetns, LauncherOptions,
};
pub use error::LaunchError;
pub(crate) use error::Named;
pub(crate) use program::sealed;
pub use server::main;
