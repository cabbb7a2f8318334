//! What a build is asked for, and what it needs from its surroundings.

use super::attest::Attest;
use super::exchange::{CacheFrom, CacheTo};
use super::output::{Output, Part};
use crate::obtain::Registries;
use indexmap::IndexMap;
use stack_runtime::home::Home;
use stack_runtime::image::{Digest, Reference, Store};
use stack_runtime::spec::Map;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where the builder works.
#[derive(Debug, Clone)]
pub struct BuildEnv {
    pub home: Home,
    pub store: Store,
    /// Steps that may run at the same time; 0: as many as there are processors, at least 4.
    pub parallel: usize,
    /// The binary with the hidden `__launch` entry; `None`: the running one.
    pub program: Option<PathBuf>,
}

impl BuildEnv {
    pub fn new(home: Home, store: Store) -> Self {
        Self { home, store, parallel: 0, program: None }
    }
}

#[derive(Debug, Clone)]
pub enum DockerfileSource {
    /// Relative to the context, or absolute. The default `Dockerfile` falls back to `dockerfile`.
    Path(PathBuf),
    Inline(String),
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::Path("Dockerfile".into())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A network of the build's own with a way out.
    #[default]
    Default,
    None,
    Host,
}

impl Network {
    /// The name as the key and the user know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::None => "none",
            Self::Host => "host",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Default, Self::None, Self::Host].into_iter().find(|network| network.name() == text)
    }
}

/// A build secret. Never in a layer, a key or the history.
#[derive(Clone)]
pub enum Secret {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Absolute directory, or the address of a git repository.
    pub context: PathBuf,
    pub dockerfile: DockerfileSource,
    /// The name by which diagnostics show the Dockerfile; `None`: its path.
    pub dockerfile_name: Option<String>,
    /// `None`: the variable is named without a value, so the default stays.
    pub args: IndexMap<String, Option<String>>,
    pub target: Option<String>,
    /// Set last, without a history entry.
    pub labels: IndexMap<String, String>,
    /// Of the image's manifest.
    pub annotations: Map,
    pub tags: Vec<Reference>,
    /// `linux/amd64`; `None`: this machine's.
    pub platform: Option<String>,
    pub no_cache: bool,
    /// Say why steps are executed.
    pub explain: bool,
    /// Ask the registry for base images even if they are here.
    pub pull: bool,
    pub network: Network,
    /// By id.
    pub secrets: IndexMap<String, Secret>,
    pub extra_hosts: Vec<(String, String)>,
    /// Name → directory, git repository, or `docker-image://reference`.
    pub additional_contexts: IndexMap<String, String>,
    /// Contexts (the build's own has the empty name) whose ignore files mean nothing: repositories.
    pub whole_contexts: BTreeSet<String>,
    /// Bytes of `/dev/shm` in RUN.
    pub shm_size: Option<u64>,
    /// Limits of RUN's processes by name: soft, hard; -1: none.
    pub ulimits: IndexMap<String, (i64, i64)>,
    /// Stages, by name in any case, that take nothing from the cache.
    pub no_cache_filter: Vec<String>,
    /// Sockets of ssh agents by id.
    pub ssh: IndexMap<String, PathBuf>,
    /// Caches of other builds, the first that has a step wins.
    pub cache_from: Vec<CacheFrom>,
    pub cache_to: Vec<CacheTo>,
    /// None: the image in the store.
    pub outputs: Vec<Output>,
    /// What the index is called that this is a part of; the tags are those of the store.
    pub names: Vec<Reference>,
    /// Statements for outputs that can hold them.
    pub attest: Attest,
    /// Offline: other addresses are not asked either.
    pub registries: Registries,
}

#[derive(Debug, Clone, PartialEq)]
pub struct BuildResult {
    pub image_id: Digest,
    pub tags: Vec<Reference>,
    /// Steps that made a layer, and how many of those came from the cache.
    pub steps: usize,
    pub cached: usize,
    /// Of the manifest that was pushed.
    pub pushed: Option<Digest>,
    /// For an index of several platforms.
    pub(super) part: Option<Part>,
}
