//! Images: references, the content store, registries and archives.
//!
//! | module | does |
//! |---|---|
//! | [`reference`] | what a user types as an image name, normalised as Docker does |
//! | [`digest`] | `sha256:…` and hashing while copying |
//! | [`config`] | the image configuration document, complete with Docker's own fields |
//! | [`manifest`] | manifests and indexes, both vocabularies |
//! | [`store`] | what is on disk: blobs, image records, references, leases |
//! | [`check`] | every digest computed again, and repairing |
//! | [`budget`] | keeping to a number of bytes |
//! | [`prune`] | freeing what nothing refers to, sizes |
//! | [`compress`] | gzip and zstd by their magic bytes, bounded |
//! | [`tar_read`], [`tar_write`] | tar: bounded reading, reproducible writing |
//! | `transfer` | one blob, resumed, repeated and verified |
//! | `registry` | one registry over HTTP: tokens, manifests, blobs, uploads |
//! | `registries` | mirrors and insecure registries |
//! | `auth`, [`login`] | credentials of `config.json` and their helpers |
//! | [`pull`], [`push`] | whole images, with progress |
//! | [`fetch`] | one file over HTTP |
//! | [`artifact`] | manifests in registries and OCI layouts, blob by blob |
//! | [`archive`] | load, save, import |
//!
//! Reading is synchronous and cheap (a handful of small files). Only [`pull`] and [`push`] are
//! asynchronous; load, save, import and unpacking block and belong on a blocking thread.

pub mod archive;
pub mod artifact;
mod auth;
pub mod budget;
pub mod check;
pub mod compress;
pub mod config;
pub mod digest;
mod error;
pub mod fetch;
#[doc(hidden)]
pub mod fixture;
pub mod login;
pub mod manifest;
pub(crate) mod pending;
pub mod platform;
pub mod progress;
pub mod prune;
pub mod pull;
pub mod push;
pub mod reference;
mod registries;
mod registry;
pub mod store;
pub mod tar_read;
pub mod tar_write;
mod transfer;

pub use auth::configured;
pub use config::{Document, HealthcheckConfig, ImageConfig};
pub use digest::Digest;
pub(crate) use error::Doing;
pub use error::{Error, Result};
pub use platform::Platform;
pub use progress::{Phase, Progress, Report};
pub use reference::Reference;
pub use store::{Image, Lease, Store};
