//! The builder: a Dockerfile becomes a graph of steps, each step a layer or a change of the image's configuration.
//!
//! ```text
//! Dockerfile ─select─► stages ─graph─► steps ─schedule─► each: key ─► cache record? ─► or execute, commit, record
//!                                                                └─► state (config, history, chain of layers)
//! ```
//!
//! | module | does |
//! |---|---|
//! | `request` | what is asked for |
//! | `event` | what happens, as data |
//! | `failure` | why it did not succeed: the line of the Dockerfile, the exit code, the last output |
//! | `graph` | stages and steps, and what each waits for |
//! | `read` | what a Dockerfile says, without building it |
//! | `state` | what a stage is after a step; metadata instructions (pure) |
//! | `key` | content-addressed cache keys |
//! | `explain` | why a step was not in the cache |
//! | `cache` | records on disk, prune |
//! | `exchange` | caches that travel with builds: import and export |
//! | `travel` | the whole cache in a directory |
//! | `csv` | fields of one line |
//! | `elsewhere` | contexts that are not directories here |
//! | `output` | what becomes of the image |
//! | `attest` | statements that travel with an image |
//! | `packages` | what is installed in an image |
//! | `platforms` | one build for several platforms |
//! | `emulation` | programs of other architectures |
//! | `check` | findings without a build |
//! | `tree` | a directory tree that nothing leads out of |
//! | `written` | how the history writes values |
//! | `view` | merged layers, mounted where nobody else sees them |
//! | `pick` | the files a COPY or ADD means, with their digests |
//! | `place` | putting picked files into a layer |
//! | `unpack` | ADD of archives |
//! | `remote` | ADD of files over HTTP |
//! | `git` | repositories as contexts and in ADD |
//! | `context` | directories to copy from, ignore files |
//! | `stats` | digests of a context's files by their inode data |
//! | `owners` | names of users and groups in an image |
//! | `transfer` | COPY, ADD and WORKDIR: plan, key, layer |
//! | `command` | RUN: plan, key, layer |
//! | `mounts` | `RUN --mount` |
//! | `run` | one RUN in a container |
//! | `ssh` | agents forwarded to RUN |
//! | `inputs` | from a request to Dockerfile, values and stages |
//! | `shared` | what the steps of a build share |
//! | `steps` | a build: preparing, executing its steps, writing the image |
//!
//! # Cache keys
//!
//! The parent's part of every key is the chain id of its layers: a step is reused only on exactly the files it
//! was made on. RUN adds arguments, environment, `ARG`s, directory, user, mounts and network; COPY and ADD add
//! names, types, modes, owners, link targets and content of what they copy, never times. Proxy variables, secrets
//! and the content of cache mounts are in no key.
//!
//! # On disk, below `data/build/`
//!
//! | path | holds |
//! |---|---|
//! | `cache/KEY.json` | one record: the layer made by the step of this key; its time of change is its last use |
//! | `digests/KEY.json` | content digest of a part of a layer chain (they never change) |
//! | `contexts/KEY` | digests of a context's files, by their inode data |
//! | `explain/KEY` | what the keys of the last build were made of, and the files of a content digest |
//! | `remote/KEY`, `remote/KEY.json` | what an address gave, and what its server said about it |
//! | `mounts/ID/` | cache mounts: `data/` is what is mounted, `lock` serialises `sharing=locked` |
//! | `logs/TIME-….log` | all that a RUN printed, of the last 200 that were executed |
//! | `sizes.json` | how much is in each cache mount, as of its last use |
//! | `locks/KEY` | one build at a time executes a key; the others find its record |
//! | `tmp/NAME/` | working directories of one build, `lock` held while it lives; its secrets are in `run/build/NAME/` |
//!
//! Records appear by rename, and a layer is in the store before its record is: killed at any moment, a build
//! leaves the old state or the new one.

mod attest;
mod cache;
mod check;
mod command;
mod commit;
mod context;
pub mod csv;
mod elsewhere;
mod emulation;
mod event;
mod exchange;
mod explain;
mod failure;
mod git;
mod graph;
mod inputs;
mod key;
mod mounts;
mod output;
mod owners;
mod packages;
mod pick;
mod place;
mod platforms;
mod read;
mod remote;
mod request;
mod run;
mod shared;
mod ssh;
mod state;
mod stats;
mod steps;
mod transfer;
pub mod travel;
mod tree;
mod unpack;
mod view;
mod written;

pub use attest::{Attest, Detail};
pub use cache::{Kept, Pruned, Usage, chains_in_use, kept, prune, sweep, usage};
pub use check::{Checked, check};
pub use commit::{Commit, commit};
pub use elsewhere::STDIN;
pub use event::{BuildEvent, Stream};
pub use exchange::{CacheFrom, CacheTo};
pub use failure::BuildFailure;
pub use git::is_address;
pub use inputs::images;
pub use output::{Dest, Output};
pub use platforms::build_for;
pub use read::{Understood, understand};
pub use request::{BuildEnv, BuildRequest, BuildResult, DockerfileSource, Network, Secret};
pub use steps::{Events, build};
