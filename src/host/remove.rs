//! Removing a container that does not run.
//!
//! Its directory first gets a name that starts with a dot, and with that the container is gone; whatever cuts the rest
//! off is finished by the next [`sweep`].

use super::record::ContainerRecord;
use super::{journal, names};
use stack_runtime::engine::{EngineError, ErrorKind, Result};
use stack_runtime::home::Home;
use stack_runtime::monitor::RunRecord;
use stack_runtime::spec::{MountKindSpec, MountSpec};
use stack_runtime::{cgroup, volume};
use std::collections::BTreeMap;
use std::fs;
use std::io;

/// A container that is gone already is no failure.
pub fn container(home: &Home, record: &ContainerRecord, with_volumes: bool) -> io::Result<()> {
    let path = home.container(&record.project, &record.id);
    let hidden = home.containers(&record.project).join(format!(".{}.removed", record.id));
    match fs::rename(&path, &hidden) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(()) => journal::note(home, record, "destroy", &[]),
    }
    names::free(home, &record.project, &record.spec.name, &record.id)?;
    cgroup::remove(&crate::supervise::cgroup(&record.project, &record.id))?;
    remove_dir(&hidden)?;
    if with_volumes { anonymous_volumes(home, record) } else { Ok(()) }
}

/// A named volume.
///
/// # Errors
/// `Conflict` while any container of any project refers to it, as in Docker.
pub fn volume(home: &Home, name: &str) -> Result<bool> {
    let users = users(home)
        .map_err(|e| failed(name, &e))?
        .remove(name)
        .unwrap_or_default()
        .iter()
        .map(|id| id.get(..12).unwrap_or(id).to_owned())
        .collect::<Vec<_>>();
    if users.is_empty() {
        return volume::remove(home, name).map_err(|e| failed(name, &e));
    }
    let message = format!("remove {name}: volume is in use - [{}]", users.join(", "));
    Err(EngineError::new(ErrorKind::Conflict, message))
}

fn failed(name: &str, reason: &io::Error) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("failed to remove volume {name}: {reason}"))
}

/// Volumes that containers refer to, of all projects, with the ids of those containers.
pub fn users(home: &Home) -> io::Result<BTreeMap<String, Vec<String>>> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for project in super::observe::projects(home)? {
        for id in super::record::container_ids(home, &project)? {
            let Some(record) = super::record::ContainerDir::new(home, &project, &id).record()? else {
                continue;
            };
            for mount in record.spec.mounts {
                if let MountKindSpec::Volume { name, .. } = mount.kind {
                    users.entry(name).or_default().push(id.clone());
                }
            }
        }
    }
    Ok(users)
}

/// The running containers, of all projects, that have a volume mounted: their init processes and where.
pub fn running_users(home: &Home, volume: &str) -> io::Result<Vec<(i32, String)>> {
    let mut users = Vec::new();
    for project in super::observe::projects(home)? {
        for id in super::record::container_ids(home, &project)? {
            let dir = super::record::ContainerDir::new(home, &project, &id);
            let Some(run) = RunRecord::read(dir.path())?.filter(RunRecord::is_alive) else { continue };
            let is_it = |mount: &MountSpec| matches!(&mount.kind, MountKindSpec::Volume { name, .. } if name == volume);
            let mounts = dir.record()?.map(|record| record.spec.mounts).unwrap_or_default();
            users.extend(mounts.into_iter().find(is_it).map(|mount| (run.pid, mount.target)));
        }
    }
    Ok(users)
}

/// Removes what earlier commands left half made or half removed.
pub fn sweep(home: &Home, project: &str) -> io::Result<()> {
    let entries = match fs::read_dir(home.containers(project)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if is_hidden && !names::is_held(&entry.path())? {
            remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes what a stack leaves when its last container is gone. Nothing, while it has one.
pub fn stack(home: &Home, project: &str) -> io::Result<()> {
    if !super::record::container_ids(home, project)?.is_empty() {
        return Ok(());
    }
    sweep(home, project)?;
    let stack = home.stack(project);
    remove_dir(&home.containers(project))?;
    remove_dir(&stack.join("names"))
}

fn anonymous_volumes(home: &Home, record: &ContainerRecord) -> io::Result<()> {
    for mount in &record.spec.mounts {
        if let MountKindSpec::Volume { name, anonymous: true, .. } = &mount.kind
            && !is_used(home, &record.project, name)?
        {
            volume::remove(home, name)?;
        }
    }
    Ok(())
}

/// A replacement takes its predecessor's anonymous volumes over.
fn is_used(home: &Home, project: &str, volume: &str) -> io::Result<bool> {
    let is_it = |kind: &MountKindSpec| matches!(kind, MountKindSpec::Volume { name, .. } if name == volume);
    for id in super::record::container_ids(home, project)? {
        let record = super::record::ContainerDir::new(home, project, &id).record()?;
        if record.is_some_and(|record| record.spec.mounts.iter().any(|mount| is_it(&mount.kind))) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove_dir(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
