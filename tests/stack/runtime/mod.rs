//! The container runtime with the real kernel: busybox containers through a real launcher.
//!
//! Needs root; skipped visibly otherwise (a failure with `STACK_TEST_PRIVILEGED=1`).

mod confinement;
mod exec;
pub mod harness;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod resources;
