//! The one watcher of a running stack: starts, stops, probes, restarts, and can be replaced at any moment.
//!
//! | module | does |
//! |---|---|
//! | [`life`] | the life of one container as a table: phase × event → phase, action (pure) |
//! | [`restart`] | restart policies: after which exit, how long until the next attempt (pure) |
//! | [`health`] | the health machine: when to probe, what a result means (pure) |
//! | [`listening`] | rows of `/proc/PID/net/tcp{,6}`: does anybody outside loopback get an answer (pure) |
//! | `entry` | the process: lock, socket, adoption, end |
//! | `stack` | what its parts share |
//! | `keeper` | one task per container: orders, monitor, clock |
//! | `launch`, `stopping`, `probe` | one start; one stop; one run of a health check |
//! | `connection`, `client` | both ends of a request |
//! | `neighbour` | the supervisors of stacks whose networks are joined |
//! | [`protocol`], [`wire`] | what is said to it, and how it travels |

mod client;
mod connection;
mod entry;
pub mod health;
mod keeper;
mod launch;
pub mod life;
pub mod listening;
mod neighbour;
mod probe;
pub mod protocol;
pub mod restart;
mod stack;
mod stopping;
pub mod wire;

pub(crate) use client::unexpected;
pub use client::{Client, Exec, Notices};
pub use entry::{gone, is_alive, main};
pub use launch::cgroup;
