//! Watch: edits on the host reach the running stack.
//!
//! ```text
//! notify ─► Tree ─► Batch ─► decide ─► Step … ─► Doer
//!           what changed   when to act   what to do    doing it
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`rule`] | a service's `develop.watch`, checked and compiled |
//! | [`tree`] | one watch per directory, the walk of new directories, the recovery from lost events |
//! | [`batch`] | pure: collects changed paths until an edit is complete |
//! | [`decide`] | pure: a batch and the rules to ordered steps |
//! | [`host`] | the real doer; the verb lends it convergence and a voice |
//! | [`lock`] | one session per project |
//! | [`sync`] | puts files into a running container, never outside of its root |
//! | [`session`] | the loop |
//!
//! Order inside one batch, as in Compose: rebuild, sync, restart, exec; the first failure drops the rest of
//! the batch, and watching goes on. Where Compose waits for 500 ms without an event, a batch here ends as
//! soon as the writer has closed its file and nothing else follows at once; see [`batch`].

pub mod batch;
pub mod decide;
pub mod host;
pub mod lock;
pub mod rule;
pub mod session;
pub mod sync;
pub mod tree;

pub use decide::Step;
pub use host::{HostDoer, Verb};
pub use lock::Only;
pub use rule::{Rule, Rules};
pub use session::{Doer, Session};
pub use sync::Replica;
