//! Desired resources in the kernel's terms. Plain data, serialisable, no behaviour beyond construction.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Labels and options in the user's order.
pub type Map = IndexMap<String, String>;

/// One container, complete: image configuration and service are already merged, so
/// whoever starts it needs no image lookup except for the layers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Full name, e.g. `shop-web-1`.
    pub name: String,
    /// As the user wrote it.
    pub image: String,
    /// `sha256:…` of the image config (the image id).
    pub image_id: String,
    /// Top snapshot of the image: chain id `sha256:…`; empty for `FROM scratch` without layers.
    pub chain_id: String,
    /// Entry point and command, never empty.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// `""` means `/`.
    pub working_dir: String,
    /// `user[:group]`, looked up in the container's own passwd and group files; `""` is root.
    pub user: String,
    /// Supplementary groups, names or ids.
    pub group_add: Vec<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub labels: Map,
    /// For hooks; they mean nothing to us.
    pub annotations: Map,
    pub tty: bool,
    pub stdin_open: bool,
    /// Put a reaping pid 1 in front of the program.
    pub init: bool,
    pub read_only: bool,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub mounts: Vec<MountSpec>,
    /// Host device, container path, cgroup permissions (`rwm`).
    pub devices: Vec<DeviceSpec>,
    /// More that may be used: `c 42:* rmw`.
    pub device_rules: Vec<String>,
    /// Devices that are asked for by what they can do, or by a name of the Container Device Interface.
    pub device_requests: Vec<DeviceRequestSpec>,
    /// Programs of the host that take part in a start: what the requested devices bring along.
    pub hooks: Vec<HookSpec>,
    pub ulimits: IndexMap<String, (i64, i64)>,
    pub sysctls: Map,
    pub shm_size: Option<u64>,
    pub resources: ResourceSpec,
    pub oom_score_adj: Option<i32>,
    pub network: NetworkMode,
    pub dns: DnsSpec,
    /// Host names with addresses; `host-gateway` stands for the gateway to the host.
    pub extra_hosts: Vec<(String, String)>,
    /// Names that only this container knows: alias, and the name on its networks that it stands for.
    pub links: Vec<(String, String)>,
    pub ports: Vec<PortSpec>,
    /// `80/tcp`, from image and service: what counts as "listening" for an early health success.
    pub exposed: Vec<String>,
    pub pid_mode: NamespaceMode,
    pub ipc_mode: NamespaceMode,
    pub uts_host: bool,
    pub cgroup_host: bool,
    pub userns: Option<String>,
    pub health: Option<HealthSpec>,
    pub restart: RestartSpec,
    /// Name or number; default `SIGTERM`.
    pub stop_signal: Option<String>,
    pub stop_grace: Option<Duration>,
    pub logging: LogSpec,
    /// Remove when it ends (`run --rm`).
    pub auto_remove: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountSpec {
    pub kind: MountKindSpec,
    /// Absolute path in the container.
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MountKindSpec {
    Bind {
        source: PathBuf,
        /// Make a missing source directory (root:root 0755).
        create: bool,
        propagation: Option<String>,
        /// What becomes of mounts below the source: `None` or `enabled`, `disabled`, `writable`, `readonly`.
        #[serde(default)]
        recursive: Option<String>,
    },
    /// A named or anonymous volume; `name` is the full name (anonymous: 64 hex digits).
    Volume {
        name: String,
        nocopy: bool,
        subpath: Option<String>,
        anonymous: bool,
    },
    Tmpfs {
        size: Option<u64>,
        mode: Option<u32>,
        options: String,
    },
    /// A file with content made by us (inline secrets and configs), placed before start.
    Content {
        content: String,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// A file system of its own: a local volume with `type` and `device`.
    FileSystem {
        kind: String,
        device: String,
        options: Vec<String>,
    },
    /// A cache or bind directory of the builder: absolute host path, used as it is.
    Directory {
        source: PathBuf,
    },
    /// Another image's tree, read-only.
    Image {
        chain_id: String,
        subpath: Option<String>,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceSpec {
    pub source: PathBuf,
    pub target: String,
    pub permissions: String,
    /// `None`: as on the host.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// As in Docker's API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequestSpec {
    /// Empty: whichever fits.
    pub driver: String,
    /// -1: all.
    pub count: i64,
    pub device_ids: Vec<String>,
    /// All of them must be offered.
    pub capabilities: Vec<String>,
}

/// A hook of the OCI runtime specification.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookSpec {
    /// `createContainer` and the like.
    pub kind: String,
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<i64>,
}

/// Limits; `None` means unlimited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceSpec {
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// Memory plus swap; -1 unlimited.
    pub memory_swap: Option<i64>,
    pub cpus: Option<f64>,
    pub cpu_shares: Option<u64>,
    pub cpuset_cpus: Option<String>,
    /// Microseconds, as the next three.
    pub cpu_period: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpu_rt_period: Option<i64>,
    pub cpu_rt_runtime: Option<i64>,
    pub memory_swappiness: Option<i64>,
    pub pids: Option<i64>,
    pub oom_kill_disable: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// Endpoints on bridges, in interface order (`eth0` first).
    Bridge(Vec<EndpointSpec>),
    Host,
    /// Only loopback.
    #[default]
    None,
    /// The network namespace of another container of the stack, by container name.
    Container(String),
    /// Whatever network namespace the launcher is given (builder).
    Inherit,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// Full network name.
    pub network: String,
    /// Service key, user's aliases, container name; the short id is added at create.
    pub aliases: Vec<String>,
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub mac: Option<String>,
    pub gw_priority: i32,
    pub interface: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsSpec {
    pub servers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortSpec {
    pub host_ip: Option<String>,
    /// Inclusive range of host ports, `(0, 0)` is ephemeral.
    pub published: (u16, u16),
    pub target: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    #[default]
    Private,
    /// IPC only: private, but others may join.
    Shareable,
    Host,
    /// Another container's, by name.
    Container(String),
}

/// Complete: image, service and engine defaults are merged. All durations positive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthSpec {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    pub retries: u32,
    pub start_period: Duration,
    pub start_interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    Exec(Vec<String>),
    /// `http://host[:port][/path]`, asked from the container's network.
    Http(String),
    /// `[host:]port`.
    Tcp(String),
    Grpc {
        address: String,
        service: String,
    },
    /// So many lines of this run's output hold the text.
    Log {
        text: String,
        count: u32,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartSpec {
    #[default]
    No,
    Always,
    /// `0`: without limit.
    OnFailure(u32),
    UnlessStopped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSpec {
    /// `json-file` or `none`.
    pub driver: String,
    /// Rotate at this size; `None`: never.
    pub max_size: Option<u64>,
    pub max_file: u32,
    /// Rotated files are gzip.
    pub compress: bool,
    /// Written with each entry.
    pub attrs: Map,
    /// Output waits for its log in memory of this size, and what finds no room is lost; `None`: it waits in the
    /// program.
    pub buffer_bytes: Option<u64>,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            driver: "json-file".into(),
            max_size: None,
            max_file: 1,
            compress: false,
            attrs: Map::new(),
            buffer_bytes: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// Full name.
    pub name: String,
    pub labels: Map,
    pub internal: bool,
    pub enable_ipv6: bool,
    /// CIDR, gateway, range; empty: from the default pools.
    pub pools: Vec<PoolSpec>,
    pub driver_opts: Map,
    pub fingerprint: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolSpec {
    pub subnet: Option<String>,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
    pub reserved: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSpec {
    pub name: String,
    pub labels: Map,
    pub driver_opts: Map,
    pub fingerprint: String,
}

/// A process to run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// Added to (and winning over) the container's environment.
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub tty: bool,
    pub privileged: bool,
}
