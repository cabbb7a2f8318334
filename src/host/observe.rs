//! What exists, read from files and the kernel; no supervisor is asked.

use super::record::{ContainerDir, Supervision, container_ids};
use crate::supervise;
use stack_runtime::home::Home;
use stack_runtime::image::Store;
use stack_runtime::network::{records, shared};
use stack_runtime::observed::{
    ContainerObserved, Exit, Health, HealthStatus, ImageObserved, NetworkObserved, Observed, State,
};
use stack_runtime::{monitor, volume};
use std::io;

/// The containers of one project; all networks and volumes (their labels say whose they are); the images asked for.
pub fn observe(home: &Home, project: &str, images: &[String]) -> io::Result<Observed> {
    Ok(Observed {
        containers: containers(home, project)?,
        networks: networks(home)?,
        volumes: volume::list(home)?,
        images: self::images(home, images)?,
        supervisor_alive: supervise::is_alive(home, project),
    })
}

fn networks(home: &Home) -> io::Result<Vec<NetworkObserved>> {
    let records = records::list(home)?.into_iter();
    let observed = records.map(|record| {
        let guests = shared::guests(home, record.name(), &record.project).map_err(io::Error::other)?;
        Ok(NetworkObserved { guests, ..record.observed })
    });
    observed.collect()
}

/// By name.
pub fn containers(home: &Home, project: &str) -> io::Result<Vec<ContainerObserved>> {
    let mut all = Vec::new();
    for id in container_ids(home, project)? {
        // One that is removed while we look does not exist.
        all.extend(container(home, project, &id)?);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The names of all projects that have something on disk.
pub fn projects(home: &Home) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(home.stacks()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut projects = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        projects.extend(name.to_str().filter(|name| !name.starts_with('.')).map(String::from));
    }
    projects.sort();
    Ok(projects)
}

/// One container; `None` without one.
pub fn container(home: &Home, project: &str, id: &str) -> io::Result<Option<ContainerObserved>> {
    let dir = ContainerDir::new(home, project, id);
    let Some(record) = dir.record()? else { return Ok(None) };
    let supervision = dir.supervision()?;
    let is_due = supervision.is_due(record.spec.restart);
    let state = state(&dir, supervision.is_waiting, supervision.is_paused)?;
    let (state, failed_start) = not_started(state, &supervision);
    let is_running = matches!(state, State::Running { .. } | State::Paused { .. });
    let health = health(&dir, record.spec.health.is_some(), is_running)?;
    Ok(Some(ContainerObserved {
        id: record.id,
        name: record.spec.name.clone(),
        labels: record.spec.labels.clone(),
        spec: record.spec,
        created_at: record.created_at,
        state,
        failed_start,
        health,
        restart_count: supervision.restarts.count,
        is_due,
        published: if is_running { supervision.published } else { Vec::new() },
        addresses: if is_running { supervision.addresses } else { Vec::new() },
    }))
}

fn state(dir: &ContainerDir, is_waiting: bool, is_paused: bool) -> io::Result<State> {
    let mut state = monitor::observe(dir.path())?;
    if matches!(&state, State::Exited { exit: Exit { code: None, .. } }) {
        // Looked at between two runs: the old monitor was gone, the new one had not written yet.
        state = monitor::observe(dir.path())?;
    }
    Ok(match state {
        State::Exited { exit } if is_waiting => State::Restarting { exit },
        State::Running { pid, started_at } if is_paused => State::Paused { pid, started_at },
        state => state,
    })
}

/// As in Docker, a failed start ends nothing that never ran.
fn not_started(state: State, supervision: &Supervision) -> (State, Option<Exit>) {
    let failure = match &state {
        State::Exited { exit } if exit.error.is_some() => Some(exit.clone()),
        State::Created => supervision.failure.clone(),
        _ => None,
    };
    match failure {
        Some(exit) if supervision.has_run => (State::Exited { exit }, None),
        Some(exit) => (State::Created, Some(exit)),
        None => (state, None),
    }
}

fn health(dir: &ContainerDir, has_check: bool, is_running: bool) -> io::Result<Health> {
    if !has_check {
        return Ok(Health::default());
    }
    let mut health = dir.health()?;
    if is_running && health.status == HealthStatus::None {
        health.status = HealthStatus::Starting;
    }
    Ok(health)
}

fn images(home: &Home, references: &[String]) -> io::Result<Vec<ImageObserved>> {
    if references.is_empty() {
        return Ok(Vec::new());
    }
    let store = Store::open(home)?;
    let find = |reference: &String| {
        let id = store.resolve(reference)?.map(|id| id.to_string());
        Ok(ImageObserved { reference: reference.clone(), id })
    };
    references.iter().map(find).collect()
}
