//! The production engine: what the plan asks for, done through the files of `home` and the supervisor of the stack.
//!
//! | module | does |
//! |---|---|
//! | [`remove`] | removing a stopped container, cut-safe |
//! | [`signal`] | signals by the names that users write |
//! | `engine` | [`HostEngine`] |
//! | `watching` | [`Watching`]: what happens, over the ends of supervisors |
//! | [`cdi`] | devices by the Container Device Interface, and requests of GPUs |
//! | `create`, [`observe`] | making a container; what exists |
//! | [`journal`] | what happened to containers, for `stack events` |
//! | [`names`] | names of containers, unique in a project |
//! | [`process`] | is a process that was written down still the same one |
//! | [`record`] | what is written about a container: `config.json`, `supervision.json` |

pub mod cdi;
mod create;
mod engine;
pub mod journal;
pub mod names;
pub mod observe;
pub mod process;
pub mod record;
pub mod remove;
pub mod signal;
pub(crate) mod streams;
#[cfg(test)]
mod tests;
mod watching;

pub use engine::{HostEngine, Listener, PullReport};
pub use watching::Watching;
