//! An image of what a container changed, as `docker commit` makes it.

use super::state::{Made, Outside, State, Words};
use super::{BuildFailure, failure::Doing};
use indexmap::IndexMap;
use stack_runtime::image::config::ImageConfig;
use stack_runtime::image::{Digest, Image, Reference, Store};
use stack_runtime::snapshot;
use stack_schema::dockerfile::Kind;
use stack_schema::source::Source;
use std::fs::File;
use std::io::Seek;
use std::path::Path;
use std::sync::{Arc, Mutex};

type Result<T> = std::result::Result<T, BuildFailure>;

/// What becomes the image.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The container's own.
    pub image: &'a Image,
    /// As the container was started.
    pub config: ImageConfig,
    /// The container's layer; nobody changes it meanwhile.
    pub upper: &'a Path,
    /// What ran in it.
    pub created_by: String,
    pub author: Option<String>,
    pub message: Option<String>,
    /// Instructions of a Dockerfile that make no layer.
    pub changes: &'a [String],
    pub tag: Option<Reference>,
}

/// Returns the new image's id. Blocks.
///
/// # Errors
/// A change that is no such instruction; the operating system's.
pub fn commit(store: &Store, wanted: Commit<'_>) -> Result<Digest> {
    let mut state = State::from_image(wanted.image);
    state.config = wanted.config;
    let history = state.history.clone();
    for change in wanted.changes {
        apply(&mut state, change)
            .map_err(|e| BuildFailure::new(format!("invalid change {change:?}: {e}")))?;
    }
    state.history = history;
    let _lease = store.lease().doing(|| "keep the store")?;
    let doing = || "commit the container's layer".to_owned();
    let mut archive = tempfile::tempfile_in(store.tmp()).doing(doing)?;
    snapshot::pack_tree(File::open(wanted.upper).doing(doing)?, &archive).doing(doing)?;
    archive.rewind().doing(doing)?;
    let layer = snapshot::unpack(store, &wanted.image.chain_id, archive, None)?;
    let created = jiff::Timestamp::now().to_string();
    state.add_layer(Made { diff_id: layer.diff_id, chain_id: layer.chain_id, created }, wanted.created_by);
    if let Some(last) = state.history.last_mut() {
        (last.author, last.comment) = (wanted.author.clone(), wanted.message);
    }
    state.author = wanted.author.or(state.author);
    let document = serde_json::to_vec(&state.document(&IndexMap::new())).expect("plain data");
    let tags: Vec<Reference> = wanted.tag.into_iter().collect();
    Ok(store.write_image(&document, &state.diff_ids, &tags)?)
}

fn apply(state: &mut State, change: &str) -> std::result::Result<(), String> {
    let text = format!("FROM scratch\n{change}\n");
    let source = Source { name: "--change".into(), path: None, text };
    let file = stack_schema::dockerfile::parse(Arc::new(source)).map_err(|e| e.message)?;
    let findings = Mutex::default();
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        let words = Words { escape: file.escape, place: &instruction.place, findings: &findings };
        if let Kind::Workdir(path) = &instruction.kind {
            let path = words.word(state, path)?;
            state.config.working_dir = state.absolute(&path);
        } else if !state.apply(&instruction.kind, &words, &Outside::default())? {
            return Err("it would make a layer".into());
        }
    }
    Ok(())
}
