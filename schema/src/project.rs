//! The project: the whole desired stack, resolved. Complete, ordered, immutable.
//!
//! Built by `load` from the canonical tree; nothing here is edited after loading.
//! All paths are absolute, all defaults are filled in, interpolation is done.

use crate::diagnostic::Diagnostic;
use crate::source::Place;
use crate::yaml::Node;
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Ordered string map.
pub type Map = IndexMap<String, String>;
/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Bytes(pub i64);

#[derive(Debug, Clone, Default)]
pub struct Project {
    /// `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    /// `_` between the parts of made-up names of containers and images, instead of `-`.
    pub compatibility: bool,
    /// Absolute base of relative paths.
    pub directory: PathBuf,
    /// Absolute, in merge order.
    pub files: Vec<PathBuf>,
    /// Env files that were read for interpolation, absolute.
    pub env_files: Vec<PathBuf>,
    /// Enabled and selected services, in the user's order.
    pub services: IndexMap<String, Service>,
    /// Services that exist in the files but are not selected or whose profile is inactive.
    pub disabled: IndexMap<String, Service>,
    pub networks: IndexMap<String, Network>,
    pub volumes: IndexMap<String, Volume>,
    pub secrets: IndexMap<String, FileObject>,
    pub configs: IndexMap<String, FileObject>,
    pub profiles: Vec<String>,
    /// Why containers of this project cannot be created, though the file is valid: errors for every verb that creates some.
    /// `config` shows them as warnings (they stand among the load's diagnostics as such).
    pub refusals: Vec<Diagnostic>,
    pub places: Places,
}

impl Project {
    /// What joins the parts of made-up names of containers and images.
    pub fn separator(&self) -> char {
        if self.compatibility { '_' } else { '-' }
    }
}

/// Where the values of a project were written, for failures at run time. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Places(Option<Arc<Node>>);

impl Places {
    pub fn new(tree: Arc<Node>) -> Self {
        Self(Some(tree))
    }

    /// The place of a key path such as `services.web.ports[1]`; when there is none, its nearest parent's.
    pub fn of(&self, key_path: &str) -> Option<Place> {
        crate::load::place_of(self.0.as_deref()?, key_path)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Service {
    /// The YAML key.
    pub key: String,
    pub image: Option<String>,
    pub build: Option<Build>,
    pub pull_policy: PullPolicy,
    pub platform: Option<String>,
    /// `None`: image default. `Some(vec![])`: written empty.
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    /// Resolved: env files and `environment` together; `None` removes the image's variable.
    pub environment: IndexMap<String, Option<String>>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub container_name: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub labels: Map,
    pub annotations: Map,
    pub profiles: Vec<String>,
    /// In the user's order; includes dependencies implied by links, volumes_from and `service:` modes.
    pub depends_on: IndexMap<String, Dependency>,
    pub healthcheck: Option<Healthcheck>,
    pub restart: RestartPolicy,
    pub stop_signal: Option<String>,
    /// `None`: default 10 s.
    pub stop_grace_period: Option<Duration>,
    pub ports: Vec<Port>,
    /// `80`, `80/udp`, `3000-3005`.
    pub expose: Vec<String>,
    pub volumes: Vec<Mount>,
    /// Short tmpfs entries: target and option string.
    pub tmpfs: Vec<(String, String)>,
    pub networks: IndexMap<String, Endpoint>,
    /// `None` when `networks` applies; else `none`, `host`, `service:x`, `container:x`.
    pub network_mode: Option<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,
    /// Host name and address (`host-gateway` unresolved), in order.
    pub extra_hosts: Vec<(String, String)>,
    /// `service[:alias]`.
    pub links: Vec<String>,
    /// `container[:alias]`.
    pub external_links: Vec<String>,
    /// `service[:ro]` or `container:name[:ro]`.
    pub volumes_from: Vec<String>,
    pub secrets: Vec<Grant>,
    pub configs: Vec<Grant>,
    pub scale: u32,
    pub resources: Resources,
    pub ulimits: IndexMap<String, Ulimit>,
    pub sysctls: Map,
    pub shm_size: Option<Bytes>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub privileged: bool,
    pub read_only: bool,
    pub init: bool,
    pub tty: bool,
    pub stdin_open: bool,
    pub security_opt: Vec<String>,
    pub devices: Vec<String>,
    /// `c 42:* rmw`.
    pub device_rules: Vec<String>,
    /// Of `gpus` and of `deploy.resources.reservations.devices`.
    pub device_requests: Vec<DeviceRequest>,
    pub ipc: Option<String>,
    pub pid: Option<String>,
    pub uts: Option<String>,
    pub userns_mode: Option<String>,
    pub cgroup: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub logging: Option<Logging>,
    /// `attach: false` keeps the service's logs out of an attached `up`.
    pub attach: bool,
    pub develop: Vec<WatchRule>,
    /// sha256 of the canonical service without build, pull_policy, scale, deploy.replicas, depends_on, profiles.
    pub fingerprint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    #[default]
    Missing,
    Always,
    Never,
    Build,
}

#[derive(Debug, Clone, Default)]
pub struct Build {
    /// Absolute directory.
    pub context: PathBuf,
    /// Relative to the context, or absolute.
    pub dockerfile: PathBuf,
    pub dockerfile_inline: Option<String>,
    pub args: IndexMap<String, Option<String>>,
    pub target: Option<String>,
    pub labels: Map,
    pub tags: Vec<String>,
    pub no_cache: bool,
    pub pull: bool,
    /// `default`, `none`, `host`.
    pub network: Option<String>,
    pub shm_size: Option<Bytes>,
    pub ulimits: IndexMap<String, Ulimit>,
    /// Stages that take nothing from the cache.
    pub no_cache_filter: Vec<String>,
    /// By id: the path of an agent's socket or a key; `None`: the agent of the environment.
    pub ssh: IndexMap<String, Option<String>>,
    pub extra_hosts: Vec<(String, String)>,
    pub secrets: Vec<Grant>,
    /// Named contexts: a directory, `docker-image://…` or `service:x`.
    pub additional_contexts: Map,
    pub platforms: Vec<String>,
    /// Where cached layers come from: `type=registry,ref=…`, `type=local,src=…`, or a reference.
    pub cache_from: Vec<String>,
    /// Where layers are exported to, in the same words.
    pub cache_to: Vec<String>,
    /// Services whose images its Dockerfile is made from. It is not read with the project: whoever builds fills it in.
    pub bases: Vec<String>,
    /// `true`, `false`, `mode=max`.
    pub provenance: Option<String>,
    /// `true`, `false`.
    pub sbom: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    pub condition: Condition,
    pub restart: bool,
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

/// Unset fields inherit from the image, then Docker's defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Healthcheck {
    pub disable: bool,
    /// `["CMD", …]`, `["CMD-SHELL", s]`, `["NONE"]`, or built in: `["HTTP", url]`, `["TCP", "[host:]port"]`,
    /// `["GRPC", "[host:]port", service?]`, `["LOG", text, count?]`; `None` inherits from the image.
    pub test: Option<Vec<String>>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
}

/// From `restart` or `deploy.restart_policy` (which wins).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    /// `0`: no limit.
    OnFailure(u32),
    UnlessStopped,
}

/// One published port; ranges are already spread, except a published range for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub host_ip: Option<String>,
    /// Empty: ephemeral. `8080` or `8000-8010` (first free one).
    pub published: String,
    pub target: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// `ingress` or `host`.
    pub mode: String,
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    pub kind: MountKind,
    /// Bind: absolute host path. Volume: key in `Project::volumes`, or `None` for anonymous.
    pub source: Option<String>,
    pub target: String,
    pub read_only: bool,
    /// Bind only: create a missing source directory.
    pub create_host_path: bool,
    pub propagation: Option<String>,
    /// Bind: `disabled`, `writable`, … (`recursive`).
    pub recursive: Option<String>,
    pub nocopy: bool,
    pub subpath: Option<String>,
    pub tmpfs_size: Option<Bytes>,
    pub tmpfs_mode: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
    Image,
}

/// A service's place on a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Endpoint {
    pub aliases: Vec<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    pub mac_address: Option<String>,
    pub priority: i32,
    pub gw_priority: i32,
    pub interface_name: Option<String>,
}

/// Use of a secret or config by a service or build.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// Key in `Project::secrets` or `Project::configs`.
    pub source: String,
    /// Absolute path in the container (for build secrets: the id).
    pub target: String,
    pub uid: Option<String>,
    pub gid: Option<String>,
    pub mode: Option<u32>,
}

/// A secret or config.
#[derive(Debug, Clone, PartialEq)]
pub struct FileObject {
    pub key: String,
    pub name: String,
    pub content: FileContent,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FileContent {
    File(PathBuf),
    /// From `environment` or `content`, resolved.
    Inline(String),
    /// From a variable that is not set: an error as soon as a container needs it. The variable's name.
    Unset(String),
    External,
}

/// `deploy.resources.limits` and the short service keys, already unified.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    pub memory: Option<Bytes>,
    pub memory_reservation: Option<Bytes>,
    pub memory_swap: Option<Bytes>,
    pub cpus: Option<f64>,
    pub cpu_shares: Option<u64>,
    pub cpuset: Option<String>,
    /// Microseconds, as the next three.
    pub cpu_period: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpu_rt_period: Option<i64>,
    pub cpu_rt_runtime: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<i64>,
    pub pids: Option<i64>,
    pub oom_kill_disable: bool,
}

/// A request for devices by what they can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Empty: whichever fits.
    pub driver: String,
    /// -1: all.
    pub count: i64,
    pub device_ids: Vec<String>,
    pub capabilities: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    pub driver: String,
    pub options: Map,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WatchRule {
    pub action: WatchAction,
    /// Absolute.
    pub path: PathBuf,
    /// Absolute path in the container (sync actions).
    pub target: Option<String>,
    /// `.dockerignore` syntax, relative to `path`.
    pub ignore: Vec<String>,
    pub include: Vec<String>,
    pub initial_sync: bool,
    /// Hook of `sync+exec`.
    pub exec: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchAction {
    Sync,
    Rebuild,
    Restart,
    SyncRestart,
    SyncExec,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Network {
    pub key: String,
    /// Full name, `<project>_<key>` unless named.
    pub name: String,
    pub external: bool,
    /// `bridge` when unset; `host`, `none` name the built-in ones.
    pub driver: Option<String>,
    pub driver_opts: Map,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub ipam: Vec<IpamPool>,
    pub labels: Map,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct IpamPool {
    pub subnet: Option<String>,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
    pub aux_addresses: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    pub key: String,
    pub name: String,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: Map,
    pub labels: Map,
}
