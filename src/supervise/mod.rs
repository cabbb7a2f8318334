//! The one watcher of a running stack: starts, stops, probes, restarts, and can be replaced at any moment.
//!
//! | module | does |
//! |---|---|
//! | [`life`] | the life of one container as a table: phase × event → phase, action (pure) |
//! | [`restart`] | restart policies: after which exit, how long until the next attempt (pure) |
//! | [`health`] | the health machine: when to probe, what a result means (pure) |
//! | [`listening`] | rows of `/proc/PID/net/tcp{,6}`: does anybody outside loopback get an answer (pure) |
//! | [`protocol`], [`wire`] | what is said to it, and how it travels |

pub mod health;
pub mod life;
pub mod listening;
pub mod protocol;
pub mod restart;
pub mod wire;
