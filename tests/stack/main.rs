//! The integration tests of the program, in one binary, so that it is linked once.

#![allow(clippy::unwrap_used)] // a failed `unwrap` is a failed test

mod common;
mod fake;

mod cli;
mod crash;
mod database;
mod example;
mod external;
mod face;
mod harness;
mod oci;
mod plan;
mod runtime;
mod watch;
