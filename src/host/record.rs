//! What is written about one container, in `data/stacks/PROJECT/containers/ID/`.
//!
//! | file | written by | holds |
//! |---|---|---|
//! | `config.json` | create (and rename) | [`ContainerRecord`] |
//! | `creator.json` | create, of a one-off that removes itself | [`ProcessMark`] |
//! | `supervision.json` | supervisor | [`Supervision`] |
//! | `health.json` | supervisor | [`stack_runtime::observed::Health`] |
//!
//! `run.json` and `exit.json` belong to the container's monitor (`stack_runtime::monitor`).

use super::process::ProcessMark;
use crate::supervise::restart::Restarts;
use serde::{Deserialize, Serialize};
use stack_runtime::boot;
use stack_runtime::home::{self, Home};
use stack_runtime::observed::{Exit, Health, PublishedPort};
use stack_runtime::spec::{ContainerSpec, RestartSpec};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of `config.json`; another is refused.
pub const FORMAT: u32 = 1;

/// A created container, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub format: u32,
    /// 64 hex digits.
    pub id: String,
    pub project: String,
    /// RFC 3339.
    pub created_at: String,
    pub spec: ContainerSpec,
}

/// So many runs of a container are told apart.
const RUNS_KEPT: usize = 32;

impl Supervision {
    /// Twice for the same run is once.
    pub fn note_run(&mut self, started_at: &str) {
        if self.runs.last().is_none_or(|last| last != started_at) {
            self.runs.push(started_at.to_owned());
        }
        let surplus = self.runs.len().saturating_sub(RUNS_KEPT);
        self.runs.drain(..surplus);
    }
}

/// What the supervisor knows about a container beyond run, exit and health.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Supervision {
    pub restarts: Restarts,
    /// It was started, and its end was not dealt with yet.
    pub is_up: bool,
    /// Between two attempts of the restart policy.
    pub is_waiting: bool,
    pub is_paused: bool,
    /// It was told to stop, with this grace, and has not ended yet.
    pub stopping: Option<Duration>,
    /// Its program has run at least once.
    pub has_run: bool,
    /// When its last runs began, newest last.
    pub runs: Vec<String>,
    /// In which boot it was started last.
    pub boot: String,
    /// Why the last start failed.
    pub failure: Option<Exit>,
    /// Bound while it runs.
    pub published: Vec<PublishedPort>,
    /// Network name and address.
    pub addresses: Vec<(String, String)>,
    /// What was asked for and could not be had, in sentences.
    pub warnings: Vec<String>,
}

impl Supervision {
    /// As it is in this boot: what ran in an earlier one lies down until it is started.
    fn now(self) -> Self {
        if !self.is_of_earlier_boot() {
            return self;
        }
        Self {
            restarts: self.restarts,
            has_run: self.has_run,
            runs: self.runs,
            failure: self.failure,
            boot: self.boot,
            ..Self::default()
        }
    }

    fn is_of_earlier_boot(&self) -> bool {
        !self.boot.is_empty() && self.boot != boot::id()
    }

    /// It is to be brought up after a boot, or after a stop that was none of the user's.
    pub fn is_due(&self, policy: RestartSpec) -> bool {
        let is_down = self.is_of_earlier_boot() || self.restarts.is_set_aside;
        is_down && self.has_run && self.restarts.comes_back(policy)
    }
}

/// The directory of one container, as typed files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDir(PathBuf);

impl ContainerDir {
    pub fn new(home: &Home, project: &str, id: &str) -> Self {
        Self(home.container(project, id))
    }
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
    pub fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// `None` when there is no such container.
    ///
    /// # Errors
    /// `InvalidData` for another format or a damaged file.
    pub fn record(&self) -> io::Result<Option<ContainerRecord>> {
        let record: Option<ContainerRecord> = home::read_json(&self.0.join("config.json"))?;
        match record {
            Some(record) if record.format != FORMAT => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} has format {}, this stack reads {FORMAT}", self.0.display(), record.format),
            )),
            record => Ok(record),
        }
    }
    pub fn write_record(&self, record: &ContainerRecord) -> io::Result<()> {
        home::replace_durably(&self.0.join("config.json"), &serde_json::to_vec(record)?)
    }

    pub fn supervision(&self) -> io::Result<Supervision> {
        let supervision: Supervision = home::read_json(&self.0.join("supervision.json"))?.unwrap_or_default();
        Ok(supervision.now())
    }
    pub fn write_supervision(&self, supervision: &Supervision) -> io::Result<()> {
        home::replace_json(&self.0.join("supervision.json"), supervision)
    }

    /// Made by this process, which means to start it and to see it removed.
    pub fn write_creator(&self) -> io::Result<()> {
        let own = ProcessMark::of(std::process::id().cast_signed())?;
        home::replace_json(&self.0.join("creator.json"), &own)
    }

    /// A one-off that was never started, and whoever made it is gone.
    pub fn is_abandoned(&self) -> bool {
        let creator: Option<ProcessMark> = home::read_json(&self.0.join("creator.json")).ok().flatten();
        let is_untouched =
            || ["run.json", "exit.json", "supervision.json"].iter().all(|n| !self.0.join(n).exists());
        creator.is_some_and(|creator| !creator.is_alive()) && is_untouched()
    }

    /// The next run begins: nothing is known of it yet.
    pub fn forget_run(&self) -> io::Result<()> {
        ["run.json", "exit.json"].iter().try_for_each(|name| match std::fs::remove_file(self.0.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        })
    }

    pub fn health(&self) -> io::Result<Health> {
        Ok(home::read_json(&self.0.join("health.json"))?.unwrap_or_default())
    }
    pub fn write_health(&self, health: &Health) -> io::Result<()> {
        home::replace_json(&self.0.join("health.json"), health)
    }
}

/// The ids of a project's containers, in no particular order. Names that start with a dot are being made or removed.
pub fn container_ids(home: &Home, project: &str) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(home.containers(project)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        ids.extend(name.to_str().filter(|n| !n.starts_with('.')).map(String::from));
    }
    Ok(ids)
}
