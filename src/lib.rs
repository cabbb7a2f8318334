//! The decisions and the face of `stack`: the only crate that knows both what the user wrote and what the kernel does.
//!
//! ```text
//! Args ─find─► Sources ─load─► Project ─converge─► Plan ─apply─► Outcome ─report─► Report + exit code
//!                                └─ observe ─► Observed ┘        └─ Event … ─► ui
//! ```

pub mod apply;
pub mod build;
pub mod cli;
pub mod doctor;
pub mod event;
pub mod failure;
pub mod find;
pub mod host;
pub mod obtain;
pub mod plan;
pub mod proxies;
pub mod schedule;
pub mod supervise;
pub mod ui;
pub mod unit;
pub mod watch;
