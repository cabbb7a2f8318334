//! Archives: load, save and import. All of it blocks.
//!
//! What [`save`] writes is both forms at once: an OCI layout (`index.json`, `blobs/`) and
//! Docker's `manifest.json`, so every tool of either family reads it. [`load`] takes either
//! form, plain, gzip or zstd.

mod import;
mod load;
mod received;
mod save;

pub use import::import;
pub use load::{Loaded, load, load_path};
pub use save::{save, save_as};

use super::reference::Reference;
use serde::{Deserialize, Serialize};

/// Annotation with the name of an image in an OCI layout: only the tag, or all of it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's, always the whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// One element of Docker's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A name that is not a valid one is a remark, not a reason to refuse the image.
fn parse_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Reference> {
    names.into_iter().filter_map(|name| Reference::parse(name).ok()).collect()
}
