//! What the kernel does: [`spec`] in, running things out. No YAML, no terminal.
//!
//! A planner may name only [`spec`], [`observed`] and [`engine`]; everything else is how.
//!
//! | module | does |
//! |---|---|
//! | [`spec`] | desired resources in the kernel's terms (plain data) |
//! | [`observed`] | what exists (plain data) |
//! | [`engine`] | the seam: observe, and one method per effect |
//! | [`home`] | every path on disk: who writes, who reads, format version, locks, atomic replace |

pub mod cgroup;
pub mod container;
pub mod engine;
pub mod home;
pub mod image;
pub mod init;
pub mod launch;
pub mod logs;
pub mod monitor;
pub mod network;
pub mod observed;
pub mod oci;
pub mod snapshot;
pub mod spec;
pub mod sys;
pub mod volume;
