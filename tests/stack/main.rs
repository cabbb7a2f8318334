//! The integration tests of the program, in one binary, so that it is linked once.

#![allow(clippy::unwrap_used)] // a failed `unwrap` is a failed test

mod common;
mod fake;

mod attached;
mod builds;
mod cli;
mod converge;
mod copying;
mod crash;
mod database;
mod devices;
mod doctor;
mod drill;
mod events;
mod example;
mod external;
mod face;
mod failing;
mod frozen;
mod harness;
mod ids;
mod limits;
mod listing;
mod lives;
mod oci;
mod plan;
mod probes;
mod reboot;
mod refused;
mod runtime;
mod sharing;
mod storage;
mod supervision;
mod terminal;
mod user;
mod verbs;
mod volumes;
mod watch;
