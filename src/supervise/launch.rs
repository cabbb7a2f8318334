//! One start: from a container's record to its running program.
//!
//! ```text
//! create (namespaces exist, program waits) → connect (addresses, names, ports, files) → attach (if asked for) → start
//! ```
//!
//! On a failure nothing is left: a container that was created and is dropped is undone, its network disconnected.

use super::protocol::Attach;
use super::stack::{Donor, Stack};
use super::stopping::Init;
use crate::host::record::{ContainerDir, ContainerRecord};
use crate::host::remove;
use indexmap::IndexMap;
use stack_runtime::engine::{EngineError, ErrorKind, Result};
use stack_runtime::home::{self, Lock};
use stack_runtime::image::Store;
use stack_runtime::launch::{
    BindFiles, Created, JoinPids, LaunchError, LaunchRequest, LaunchStdio, Launcher,
};
use stack_runtime::monitor::{self, RunRecord};
use stack_runtime::network::{ConnectRequest, Connected};
use stack_runtime::spec::{ContainerSpec, MountKindSpec, NamespaceMode, NetworkMode};
use stack_runtime::volume::{self, local::Place};
use stack_runtime::{snapshot, sys};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::io::unix::AsyncFd;

/// A container that runs.
#[derive(Debug)]
pub(super) struct Run {
    pub init: Arc<Init>,
    /// Readable when the monitor is gone.
    pub monitor: AsyncFd<OwnedFd>,
    pub started: Instant,
    pub record: RunRecord,
}

/// A failed start: what to say, and the exit code that stands for it.
#[derive(Debug)]
pub(super) struct StartError {
    pub error: EngineError,
    pub code: i32,
}

/// The control group of a container, below the root of each hierarchy.
pub fn cgroup(project: &str, id: &str) -> String {
    format!("stack/{project}/{id}")
}

/// What a start gave.
#[derive(Debug)]
pub(super) struct Launched {
    pub run: Run,
    /// What the network gave, with the warnings of the start.
    pub connected: Connected,
    pub attached: Option<OwnedFd>,
}

/// See the module.
pub(super) async fn launch(
    stack: &Stack,
    dir: &ContainerDir,
    record: &ContainerRecord,
    attach: Option<Attach>,
) -> std::result::Result<Launched, StartError> {
    let _locks = lock_volumes(stack, record).await.map_err(|error| StartError { error, code: 128 })?;
    let (launcher, created) = create(stack, dir, record).await?;
    let mut connected =
        connect(stack, dir, record, &created).await.map_err(|error| StartError { error, code: 128 })?;
    let attached = match attach.map(|attach| monitor::connect_to(dir.path(), attach.size)).transpose() {
        Ok(attached) => attached,
        Err(e) => {
            stack.network.disconnect(&record.id).await;
            return Err(StartError { error: failed("attach to the container", &e), code: 128 });
        }
    };
    match start(&launcher, dir, created).await {
        Ok((run, warnings)) => {
            connected.warnings.extend(warnings);
            Ok(Launched { run, connected, attached })
        }
        Err(e) => {
            stack.network.disconnect(&record.id).await;
            Err(start_error(record, e))
        }
    }
}

/// A launcher that was killed is replaced: one more attempt.
async fn create(
    stack: &Stack,
    dir: &ContainerDir,
    record: &ContainerRecord,
) -> std::result::Result<(Arc<Launcher>, Created), StartError> {
    let order = || request(stack, dir, record).map_err(|error| StartError { error, code: 128 });
    let launcher = stack.launcher();
    match launcher.create(order()?).await {
        Ok(created) => Ok((launcher, created)),
        Err(e) if monitor::start_time(launcher.pid()).is_err() => {
            tracing::warn!(container = record.spec.name, "{e}");
            let launcher = stack.next_launcher(&launcher).await;
            let created = launcher.create(order()?).await.map_err(|e| start_error(record, e))?;
            Ok((launcher, created))
        }
        Err(e) => Err(start_error(record, e)),
    }
}

async fn connect(
    stack: &Stack,
    dir: &ContainerDir,
    record: &ContainerRecord,
    created: &Created,
) -> Result<Connected> {
    let netns = created.netns.try_clone().map_err(|e| EngineError::new(ErrorKind::Other, e.to_string()))?;
    let request = ConnectRequest { id: &record.id, spec: &record.spec, netns, dir: dir.path() };
    stack.network.connect(request).await
}

/// Names and ports again, for a container that an earlier supervisor started.
pub(super) async fn reconnect(
    stack: &Stack,
    dir: &ContainerDir,
    record: &ContainerRecord,
    pid: i32,
) -> Result<Connected> {
    let path = format!("/proc/{pid}/ns/net");
    let netns = std::fs::File::open(path).map_err(|e| failed("find its network namespace", &e))?.into();
    let request = ConnectRequest { id: &record.id, spec: &record.spec, netns, dir: dir.path() };
    stack.network.adopt(request).await
}

async fn start(
    launcher: &Launcher,
    dir: &ContainerDir,
    created: Created,
) -> std::result::Result<(Run, Vec<String>), LaunchError> {
    let watching = |e: io::Error| LaunchError::new("watch the container", e);
    let init = Init::waiting(created.pid).map_err(watching)?;
    let mut warnings = created.warnings.clone();
    warnings.extend(launcher.start(&created).await?);
    let run = Run::new(dir, init, created.monitor).map_err(watching)?;
    Ok((run, warnings))
}

impl Run {
    fn new(dir: &ContainerDir, init: Init, monitor: OwnedFd) -> io::Result<Self> {
        let record = RunRecord::read(dir.path())?.ok_or(io::ErrorKind::NotFound)?;
        let started = instant_of(&record.started_at);
        Ok(Self { init: Arc::new(init), monitor: sys::watch(monitor)?, started, record })
    }
}

/// A running container of an earlier supervisor; `None` when it does not run.
pub(super) fn adopt(dir: &ContainerDir) -> io::Result<Option<Run>> {
    let Some(record) = RunRecord::read(dir.path())?.filter(RunRecord::is_alive) else { return Ok(None) };
    let pid = rustix::process::Pid::from_raw(record.monitor_pid).ok_or(io::ErrorKind::InvalidData)?;
    let monitor = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        monitor => monitor?,
    };
    // Opened first, compared second.
    if !record.is_alive() || dir.path().join("exit.json").exists() {
        return Ok(None);
    }
    let init = Init::written(&record)?;
    Run::new(dir, init, monitor).map(Some)
}

/// The moment of a written time on the clock that does not jump.
fn instant_of(time: &str) -> Instant {
    let now = Instant::now();
    let written = time.parse::<jiff::Timestamp>().map(SystemTime::from);
    let age = written.ok().and_then(|written| written.elapsed().ok()).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}

fn request(stack: &Stack, dir: &ContainerDir, record: &ContainerRecord) -> Result<LaunchRequest> {
    let mut spec = record.spec.clone();
    crate::host::cdi::inject(&mut spec)?;
    let owner = match &spec.network {
        NetworkMode::Container(name) => Some(stack.donor(name)?),
        _ => None,
    };
    if let Some(owner) = &owner {
        // Its name and its files too, as in Docker.
        spec.hostname = spec.hostname.or_else(|| owner.spec.hostname.clone());
    }
    let store = Store::open(&stack.home).map_err(|e| failed("open the store", &e))?;
    let lower_dirs =
        snapshot::lower_dirs(&store, &spec.chain_id).map_err(|e| failed("find the image's layers", &e))?;
    let mut images = IndexMap::new();
    let mut volumes = IndexMap::new();
    for mount in &mut spec.mounts {
        match &mount.kind {
            MountKindSpec::Volume { name, .. } => match place(stack, name)? {
                Place::Directory { path, read_only } => {
                    mount.read_only |= read_only;
                    volumes.insert(mount.target.clone(), path);
                }
                Place::FileSystem { kind, device, mut options } => {
                    if in_memory(&kind) {
                        // One of them may end at this very moment.
                        let users = remove::running_users(&stack.home, name);
                        let users = users.map_err(|e| failed("find who has a volume", &e))?;
                        options.extend(users.iter().map(|(pid, path)| format!("shared-with={pid}:{path}")));
                    }
                    mount.kind = MountKindSpec::FileSystem { kind, device, options };
                }
            },
            MountKindSpec::Image { chain_id, .. } => {
                let dirs = snapshot::lower_dirs(&store, chain_id)
                    .map_err(|e| failed("find a mounted image's layers", &e))?;
                images.insert(mount.target.clone(), dirs);
            }
            _ => {}
        }
    }
    Ok(LaunchRequest {
        id: record.id.clone(),
        dir: dir.path().to_owned(),
        join: join(stack, &spec, owner.as_ref().map(|owner| owner.pid))?,
        files: bind_files(owner.as_ref().map_or(dir, |owner| &owner.dir)),
        lower_dirs,
        volumes,
        images,
        stdio: LaunchStdio::Logged,
        cgroup: cgroup(&stack.project, &record.id),
        ephemeral: false,
        spec,
    })
}

/// A file system that is gone with its last mount, and another one wherever it is mounted anew: there is one for all
/// containers that run at the same time, who take it from each other.
fn in_memory(kind: &str) -> bool {
    matches!(kind, "tmpfs" | "ramfs")
}

/// Of two that start at once, the second one finds the volume in memory that the first one has.
async fn lock_volumes(stack: &Stack, record: &ContainerRecord) -> Result<Vec<Lock>> {
    let mut names = Vec::new();
    for mount in &record.spec.mounts {
        if let MountKindSpec::Volume { name, .. } = &mount.kind
            && matches!(place(stack, name)?, Place::FileSystem { kind, .. } if in_memory(&kind))
        {
            names.push(stack.home.volume(name).join("mount.lock"));
        }
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let locking = move || names.iter().map(|path| home::lock(path)).collect::<io::Result<Vec<_>>>();
    let locked = tokio::task::spawn_blocking(locking).await.map_err(|e| failed("lock a volume", &e))?;
    locked.map_err(|e| failed("lock a volume", &e))
}

fn place(stack: &Stack, volume: &str) -> Result<Place> {
    volume::place(&stack.home, volume).map_err(|e| EngineError::new(ErrorKind::Other, e.to_string()))
}

fn bind_files(dir: &ContainerDir) -> BindFiles {
    let file = |name: &str| -> Option<PathBuf> { Some(dir.path().join(name)) };
    BindFiles { hosts: file("hosts"), hostname: file("hostname"), resolv_conf: file("resolv.conf") }
}

fn join(stack: &Stack, spec: &ContainerSpec, network: Option<i32>) -> Result<JoinPids> {
    let pid = match &spec.pid_mode {
        NamespaceMode::Container(name) => Some(stack.donor(name)?.pid),
        _ => None,
    };
    let ipc = match &spec.ipc_mode {
        NamespaceMode::Container(name) => Some(shareable(name, &stack.donor(name)?)?),
        _ => None,
    };
    Ok(JoinPids { network, pid, ipc })
}

fn shareable(name: &str, donor: &Donor) -> Result<i32> {
    if donor.spec.ipc_mode == NamespaceMode::Private {
        let message = format!("cannot join the IPC namespace of container {name}: non-shareable IPC");
        return Err(
            EngineError::new(ErrorKind::Conflict, message).hint("Give that service `ipc: shareable`.")
        );
    }
    Ok(donor.pid)
}

fn start_error(record: &ContainerRecord, error: LaunchError) -> StartError {
    let message = format!("failed to start container {}: {error}", record.spec.name);
    StartError { error: EngineError::new(kind_of(error.code), message), code: error.code }
}

/// What the reserved exit codes say.
pub(super) fn kind_of(code: i32) -> ErrorKind {
    match code {
        126 => ErrorKind::PermissionDenied,
        127 => ErrorKind::NoSuchProgram,
        _ => ErrorKind::Other,
    }
}

fn failed(operation: &str, reason: &dyn std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("failed to {operation}: {reason}"))
}
