//! What exists, as data, read from `home` and the kernel at one moment.

use crate::spec::{ContainerSpec, Map};
use serde::{Deserialize, Serialize};

/// Everything that belongs to one project.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// By name.
    pub containers: Vec<ContainerObserved>,
    pub networks: Vec<NetworkObserved>,
    pub volumes: Vec<VolumeObserved>,
    /// Image references asked about, with what they resolve to locally.
    pub images: Vec<ImageObserved>,
    pub supervisor_alive: bool,
}

#[derive(Debug, Clone)]
pub struct ContainerObserved {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    pub spec: ContainerSpec,
    pub labels: Map,
    /// RFC 3339.
    pub created_at: String,
    pub state: State,
    /// Why it never ran: its first start failed. Such a container stays created.
    pub failed_start: Option<Exit>,
    pub health: Health,
    pub restart_count: u32,
    /// It does not run since the machine went down, and its restart policy wants it back.
    pub is_due: bool,
    /// Host ports actually bound while running.
    pub published: Vec<PublishedPort>,
    /// Network name and address.
    pub addresses: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    Created,
    Running { pid: i32, started_at: String },
    Paused { pid: i32, started_at: String },
    Restarting { exit: Exit },
    Removing,
    Exited { exit: Exit },
    Dead,
}

/// How the program ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// `None`: nobody saw it ("unknown", never 0). Killed by a signal: 128 + n.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// A start that failed, in words.
    pub error: Option<String>,
    pub started_at: String,
    pub finished_at: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    pub status: HealthStatus,
    pub failing_streak: u32,
    /// Newest last, at most five.
    pub log: Vec<ProbeResult>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No health check.
    #[default]
    None,
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    pub start: String,
    pub end: String,
    /// -1: timed out or could not run.
    pub exit_code: i32,
    /// At most 4 KiB.
    pub output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    pub host_ip: String,
    pub host_port: u16,
    pub target: u16,
    pub protocol: crate::spec::Protocol,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkObserved {
    pub name: String,
    pub labels: Map,
    pub fingerprint: String,
    pub subnet: String,
    pub gateway: String,
    pub internal: bool,
    /// Containers of other projects that are attached now, `PROJECT/NAME`; not part of the record.
    #[serde(skip)]
    pub guests: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeObserved {
    pub name: String,
    pub labels: Map,
    pub driver_opts: Map,
    pub fingerprint: String,
    pub created_at: String,
    pub anonymous: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageObserved {
    /// As asked.
    pub reference: String,
    /// Image id (`sha256:…` of the config), `None` when absent.
    pub id: Option<String>,
}
