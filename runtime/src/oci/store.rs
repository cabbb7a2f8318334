//! The state directory: what is known of a container between two commands.

use super::{Result, Runtime};
use crate::cgroup::Group;
use crate::container::Bundle;
use crate::home;
use crate::init::START_PIPE;
use crate::launch::{LaunchError, Named};
use crate::monitor::start_time;
use oci_spec::runtime::{ContainerState, State, StateBuilder};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who a container is and where it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub oci_version: String,
    pub id: String,
    /// 0: not yet.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// Below the root of each hierarchy.
    pub cgroup: String,
    /// It waits for its start, or has waited.
    pub is_complete: bool,
    /// Name of whoever created it.
    pub owner: String,
    #[serde(default)]
    pub annotations: HashMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// `paused` is no state of the specification.
pub(crate) fn oci_status(status: &str) -> ContainerState {
    match status {
        "creating" => ContainerState::Creating,
        "created" => ContainerState::Created,
        "stopped" => ContainerState::Stopped,
        _ => ContainerState::Running,
    }
}

impl Record {
    /// As hooks and agents get it.
    pub(crate) fn state(&self, status: Status) -> State {
        let mut state = StateBuilder::default()
            .version(self.oci_version.as_str())
            .id(self.id.as_str())
            .status(oci_status(status.as_str()))
            .bundle(self.bundle.clone())
            .build()
            .expect("no field is required");
        state.set_pid((status != Status::Stopped).then_some(self.pid));
        state.set_annotations(Some(self.annotations.clone()).filter(|all| !all.is_empty()));
        state
    }

    /// Its init lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.pid > 0 && start_time(self.pid).is_ok_and(|time| time == self.start_time)
    }

    pub(crate) fn group(&self) -> Result<Group> {
        if self.cgroup.is_empty() {
            return Ok(Group::default());
        }
        Group::find(&self.cgroup).named("find the control group")
    }
}

impl Runtime {
    pub(super) fn dir(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// The new directory of a container: an init in a user namespace must get through to the pipe in it.
    pub(super) fn claim(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        let make_root = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        make_root().named(format!("make {}", self.root.display()))?;
        let dir = self.dir(id);
        match fs::create_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(LaunchError::new(format!("create {id:?}"), "container with given ID already exists"))
            }
            result => result.named(format!("make {}", dir.display())),
        }?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).named("open the state directory")?;
        Ok(dir)
    }

    /// # Errors
    /// A container that does not exist; the operating system's.
    pub fn load(&self, id: &str) -> Result<Record> {
        check_id(id)?;
        let record = home::read_json(&self.dir(id).join("state.json")).named("read the state")?;
        record.ok_or_else(|| LaunchError::new(format!("find {id:?}"), "container does not exist"))
    }

    pub(super) fn save(&self, record: &Record) -> Result<()> {
        home::replace_json(&self.dir(&record.id).join("state.json"), record).named("write the state")
    }

    pub(super) fn load_bundle(&self, id: &str) -> Result<Bundle> {
        let bundle = home::read_json(&self.dir(id).join("bundle.json")).named("read the bundle")?;
        bundle.ok_or_else(|| LaunchError::new("read the bundle", "it is missing"))
    }

    pub(super) fn save_bundle(&self, bundle: &Bundle) -> Result<()> {
        home::replace_json(&self.dir(&bundle.id).join("bundle.json"), bundle).named("write the bundle")
    }

    pub fn status(&self, record: &Record) -> Status {
        if !record.is_complete && (record.pid == 0 || record.is_alive()) {
            return Status::Creating;
        }
        if !record.is_alive() {
            return Status::Stopped;
        }
        if self.dir(&record.id).join(START_PIPE).exists() {
            return Status::Created;
        }
        match record.group().is_ok_and(|group| group.is_frozen()) {
            true => Status::Paused,
            false => Status::Running,
        }
    }

    /// Every container of this root, by id. One that vanishes meanwhile is none.
    ///
    /// # Errors
    /// The operating system's.
    pub fn list(&self) -> Result<Vec<Record>> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.named(format!("read {}", self.root.display()))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut records: Vec<Record> = names.filter_map(|id| self.load(&id).ok()).collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }
}

fn check_id(id: &str) -> Result<()> {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
    if is_plain && !id.is_empty() && id != "." && id != ".." && id.len() <= 1024 {
        return Ok(());
    }
    let odd = id.chars().find(|c| !c.is_ascii_alphanumeric() && !"_+-.".contains(*c));
    let reason = odd.map_or_else(
        || "it names no container".to_owned(),
        |odd| format!("invalid character `{odd}` in the ID"),
    );
    Err(LaunchError::new(
        format!("use the container id {id:?}"),
        format!("invalid container ID format: {reason}"),
    ))
}

/// The path's file, if it is one.
pub(super) fn write_pid(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    home::replace(path, pid.to_string().as_bytes()).named(format!("write the pid file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::check_id;

    #[test]
    fn an_id_is_one_plain_name() {
        for id in ["a", "web-1", "A_b+c.d"] {
            check_id(id).unwrap();
        }
        for id in ["", ".", "..", "a/b", "a b", "ä"] {
            check_id(id).unwrap_err();
        }
    }
}
