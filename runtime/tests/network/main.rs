//! The network of a stack on the real kernel, in namespaces of the test's own: a private
//! "host", a stack, and containers that are just namespaces.
//!
//! Needs root. Without it every test says that it is skipped; with
//! `STACK_TEST_PRIVILEGED=1` a skip is a failure.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod lab;
mod names;
mod ports;
mod stack;
mod uplink;
