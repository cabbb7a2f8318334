//! The fence: the only `unsafe` of the project, one small safe function per system call.
//!
//! What rustix and nix wrap safely is used from there directly; here is the rest.

#![allow(unsafe_code)]

pub mod aside;
pub mod bpf;
pub mod memory;
pub mod mount;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod task;
pub mod tty;
pub mod user_namespace;
mod watch;

pub use watch::watch;
