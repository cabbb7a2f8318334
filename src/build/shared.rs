//! What the steps of a build share: request, Dockerfile, graph, cache and contexts.

use super::cache::Cache;
use super::context::Context;
use super::explain::Ledger;
use super::failure::{BuildFailure, Doing, Result};
use super::graph::Graph;
use super::inputs::{self, NamedContext};
use super::key::Key;
use super::request::{BuildEnv, BuildRequest};
use super::state::Outside;
use super::view::Layers;
use stack_runtime::snapshot::{self, Layer, Working};
use stack_schema::dockerfile::Dockerfile;
use stack_schema::dockerfile::lint::Check;
use stack_schema::dockerfile::stages::Selection;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

fn epoch(outside: &Outside) -> Result<Option<i64>> {
    let Some(text) = outside.given("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds = text.parse().ok().filter(|seconds| jiff::Timestamp::from_second(*seconds).is_ok());
    let failure = || {
        BuildFailure::new(format!("invalid SOURCE_DATE_EPOCH: {text}"))
            .hint("It is a number of seconds since 1970.")
    };
    seconds.filter(|seconds| *seconds >= 0).ok_or_else(failure).map(Some)
}

/// What all steps share, also those on other threads.
pub(super) struct Shared {
    pub(super) env: BuildEnv,
    pub(super) request: BuildRequest,
    pub(super) cache: Cache,
    pub(super) outside: Outside,
    /// `SOURCE_DATE_EPOCH`, in seconds: the date of the image, and the latest time of any file in it.
    pub(super) epoch: Option<i64>,
    pub(super) file: Dockerfile,
    /// Which findings are wanted.
    pub(super) check: Check,
    dockerfile: Option<PathBuf>,
    pub(super) ledger: Ledger,
    pub(super) selection: Selection,
    pub(super) graph: Graph,
    /// By name; the build context is the empty one.
    contexts: Mutex<HashMap<String, Arc<Context>>>,
}

/// Runs blocking work beside the async runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(BuildFailure::doing("finish a step", e)),
    }
}

impl Shared {
    pub(super) fn new(env: BuildEnv, request: BuildRequest, cache: Cache) -> Result<Self> {
        let (file, dockerfile) = inputs::read(&request)?;
        let outside = inputs::outside(&file, &request)?;
        let epoch = epoch(&outside)?;
        let check = super::check::wanted(&file, &outside)?;
        let selection = inputs::selection(&file, &request, &outside)?;
        let graph = Graph::new(&file, &selection);
        let ledger = Ledger::load(&request, &cache);
        Ok(Self {
            env,
            request,
            cache,
            outside,
            epoch,
            file,
            check,
            dockerfile,
            ledger,
            selection,
            graph,
            contexts: Mutex::default(),
        })
    }

    /// The date of what is built, RFC 3339.
    pub(super) fn date(&self) -> Option<String> {
        let epoch = self.epoch.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        epoch.map(|date| date.to_string())
    }

    /// A key of a layer, which depends on the latest time of its files.
    pub(super) fn dated(&self, key: Key) -> Key {
        match self.epoch {
            Some(epoch) => key.number("epoch", epoch.cast_unsigned()),
            None => key,
        }
    }

    /// The layer of what was changed. `all`: times of files are none of its inputs, so none stays.
    pub(super) fn commit(&self, working: Working, all: bool) -> Result<Layer> {
        if let Some(epoch) = self.epoch {
            working.set_times(epoch, all).doing(|| "set the times of a layer")?;
        }
        Ok(working.commit(&self.env.store)?)
    }

    /// Directories of a chain, top first.
    pub(super) fn lower(&self, chain: &str) -> Result<Vec<PathBuf>> {
        snapshot::lower_dirs(&self.env.store, chain).doing(|| "find the layers of a stage")
    }

    pub(super) fn view(&self, chain: &str) -> Result<Layers> {
        Ok(Layers { lower: self.lower(chain)?, upper: None })
    }

    pub(super) fn writable(&self, parent: &str, working: &Working) -> Result<Layers> {
        Ok(Layers { lower: self.lower(parent)?, upper: Some((working.upper.clone(), working.work.clone())) })
    }

    /// The build context (empty name) or a named directory. Blocks.
    pub(super) fn context(&self, name: &str) -> Result<Arc<Context>> {
        let mut contexts = self.contexts.lock().expect("never poisoned: nothing panics while it is held");
        if let Some(context) = contexts.get(name) {
            return Ok(context.clone());
        }
        let is_whole = self.request.whole_contexts.contains(name);
        let context = match name {
            "" => Context::open(&self.request.context, self.dockerfile.as_deref(), is_whole, &self.cache)?,
            name => match inputs::named_context(&self.request, name)? {
                NamedContext::Directory(path) => Context::open(&path, None, is_whole, &self.cache)?,
                NamedContext::Image(_) => {
                    return Err(BuildFailure::new(format!("the context `{name}` is no directory")));
                }
            },
        };
        let context = Arc::new(context);
        contexts.insert(name.to_owned(), context.clone());
        Ok(context)
    }

    /// What later builds are compared with.
    pub(super) fn save(&self) {
        self.ledger.save(&self.cache);
        let contexts = self.contexts.lock().expect("never poisoned: nothing panics while it is held");
        contexts.values().for_each(|context| context.digests.save(&self.cache));
    }
}
