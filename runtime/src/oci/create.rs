//! From a bundle to an init that waits for its start.

use super::console::{self, Master};
use super::store::{Record, Status, write_pid};
use super::{Result, Runtime, config, foreground, hooks, notify};
use crate::cgroup::{Extent, Group};
use crate::container::{Bundle, Direct, Extras};
use crate::init::{self, Child, Context, Maps, START_PIPE};
use crate::launch::{LaunchError, Named};
use crate::monitor::{Progress, killed, start_time_of_child};
use crate::sys::{mount, packet, process, task};
use jiff::Timestamp;
use oci_spec::runtime::{Hook, LinuxIdMapping, LinuxResources, Mount, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// What `create` and `run` are told.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    pub id: String,
    pub bundle: PathBuf,
    /// Other than the bundle's `config.json`.
    pub config: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that the program gets.
    pub preserve_fds: u32,
    /// Ask systemd for the control group.
    pub systemd: bool,
}

/// A container that waits for its start, while we are still its parent.
#[derive(Debug)]
pub(super) struct Made {
    pub record: Record,
    pub bundle: Bundle,
    pub child: Child,
    pub terminal: Option<OwnedFd>,
    pub warnings: Vec<String>,
}

/// What is undone unless it comes to a good end.
struct Attempt<'a> {
    runtime: &'a Runtime,
    bundle: Bundle,
    record: Record,
    group: Group,
    child: Option<Child>,
    warnings: Vec<String>,
}

impl Runtime {
    /// # Errors
    /// What is wrong with the bundle, or the first thing that could not be done. Nothing is left then.
    pub fn create(&self, options: &CreateOptions) -> Result<Vec<String>> {
        self.make(options, false).map(|made| made.warnings)
    }

    pub(super) fn make(&self, options: &CreateOptions, stays: bool) -> Result<Made> {
        let (spec, mut warnings) = config::load(options)?;
        let terminal = spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal) == Some(true);
        let master = console::choose(terminal, options.console_socket.as_ref(), stays)?;
        let (spec, preserved) = config::listening(spec, options.preserve_fds)?;
        let dir = self.claim(&options.id)?;
        let record = record(options, &spec);
        let bundle = bundle(options, spec, &record, dir);
        let mut attempt = Attempt {
            runtime: self,
            bundle,
            record,
            group: Group::default(),
            child: None,
            warnings: Vec::new(),
        };
        match attempt.make(master, preserved) {
            Ok(terminal) => {
                let Attempt { record, bundle, child, warnings: more, .. } = attempt;
                warnings.extend(more);
                let child =
                    child.ok_or_else(|| LaunchError::new("create the container", "it has no init"))?;
                write_pid(options.pid_file.as_deref(), record.pid)?;
                Ok(Made { record, bundle, child, terminal, warnings })
            }
            Err(error) => {
                attempt.undo();
                Err(error)
            }
        }
    }
}

fn record(options: &CreateOptions, spec: &Spec) -> Record {
    let uid = rustix::process::geteuid();
    let owner = nix::unistd::User::from_uid(uid.as_raw().into()).ok().flatten().map(|user| user.name);
    Record {
        oci_version: spec.version().clone(),
        id: options.id.clone(),
        pid: 0,
        start_time: 0,
        bundle: options.bundle.clone(),
        rootfs: spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default(),
        created: Timestamp::now().to_string(),
        cgroup: config::cgroup(spec, &options.id),
        is_complete: false,
        owner: owner.unwrap_or_default(),
        annotations: spec.annotations().clone().unwrap_or_default(),
    }
}

fn bundle(options: &CreateOptions, spec: Spec, record: &Record, dir: PathBuf) -> Bundle {
    let direct = Direct {
        bundle: options.bundle.clone(),
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
    };
    Bundle {
        id: options.id.clone(),
        dir,
        spec,
        extras: Extras { direct: Some(direct), ..Extras::default() },
        log: crate::spec::LogSpec::default(),
        cgroup: record.cgroup.clone(),
        ephemeral: false,
    }
}

impl Attempt<'_> {
    fn make(&mut self, master: Master<'_>, preserved: Vec<i32>) -> Result<Option<OwnedFd>> {
        self.runtime.save(&self.record)?;
        self.runtime.save_bundle(&self.bundle)?;
        self.confine()?;
        let (trees, root_tree) = prepare_trees(&self.bundle.spec)?;
        let devices = prepare_devices(&self.bundle.spec)?;
        let start = self.start_pipe()?;
        let child = init::birth(&self.bundle.spec, &self.group, |link| {
            let environment = self.bundle.spec.process().as_ref().and_then(|process| process.env().clone());
            let mut context = Context::new(link, &self.group, environment.unwrap_or_default());
            context.owns_streams = true;
            context.preserved = preserved;
            (context.trees, context.root_tree, context.start) = (trees, root_tree, Some(start));
            context.devices = devices;
            let _ = process::close_all_except(&init::kept(&context));
            init::run(init::container(&self.bundle), context)
        })?;
        let child = self.child.insert(child);
        self.record.pid = child.pid;
        self.record.start_time = start_time_of_child(child.pid).named("look at init")?;
        self.runtime.save(&self.record)?;
        self.settle_child()?;
        self.follow(master)
    }

    /// The control groups with all their limits.
    fn confine(&mut self) -> Result<()> {
        let linux = self.bundle.spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        if Group::find(&self.record.cgroup).is_ok_and(|found| found.is_frozen()) {
            // Init would stop in it before its first word.
            return Err(LaunchError::new(
                "make the control group",
                "unable to apply cgroup configuration: container's cgroup unexpectedly frozen",
            ));
        }
        let made = Group::create_in(&self.record.cgroup, &resources, Extent::All);
        let (group, unmet) = match made {
            // Whoever may not have one and does not ask for one runs where he is.
            Err(e)
                if may_do_without(&e, linux.and_then(|linux| linux.cgroups_path().as_ref()), &resources) =>
            {
                self.record.cgroup.clear();
                self.bundle.cgroup.clear();
                self.runtime.save_bundle(&self.bundle)?;
                return Ok(());
            }
            made => made.map_err(|e| {
                LaunchError::new(
                    "make the control group",
                    format!("unable to apply cgroup configuration: {e}"),
                )
            })?,
        };
        self.group = group.chosen_by_others(&self.record.cgroup);
        let others = self.group.processes().map(|pids| pids.len()).unwrap_or(0);
        if others > 0 {
            self.warnings.push(format!("container's cgroup is not empty: {others} process(es) found"));
        }
        match unmet.is_empty() {
            true => Ok(()),
            false => Err(LaunchError::new("set the limits", unmet.join("; "))),
        }
    }

    fn start_pipe(&self) -> Result<OwnedFd> {
        let path = self.bundle.dir.join(START_PIPE);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o622),
            0,
        )
        .named("make the start pipe")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).named("make the start pipe")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.bundle.dir, flags, Mode::empty()).named("open the state directory")
    }

    /// What only its parent can give it.
    fn settle_child(&mut self) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        let spec = &self.bundle.spec;
        let score = spec.process().as_ref().and_then(oci_spec::runtime::Process::oom_score_adj);
        let written =
            score.map(|score| fs::write(format!("/proc/{}/oom_score_adj", child.pid), score.to_string()));
        if let Some(Err(e)) = written {
            self.warnings.push(format!("oom_score_adj is not applied: {e}"));
        }
        if let Some((uids, gids)) = config::new_maps(spec) {
            Maps { uids, gids }.write(child.pid).named("map the ids of the user namespace")?;
            tell(child, b"m")?;
        }
        self.group.place(child.pid).named("enter the control group")?;
        tell(child, b"p")
    }

    /// Until init waits for its start.
    #[allow(deprecated)]
    fn follow(&mut self, master: Master<'_>) -> Result<Option<OwnedFd>> {
        let Some(child) = &self.child else { return Ok(None) };
        let mut progress = Progress::default();
        let mut kept = None;
        while !progress.ready {
            let is_open = progress.read(child);
            if let Some(failure) = progress.failure.take() {
                return Err(failure);
            }
            if !is_open {
                return Err(killed(child));
            }
            if std::mem::take(&mut progress.prepared) {
                let own = self.bundle.spec.hooks().clone().unwrap_or_default();
                // The older of the two were made for what is a created container in the words of today.
                self.run_hooks("prestart", own.prestart(), Status::Created)?;
                self.run_hooks("createRuntime", own.create_runtime(), Status::Creating)?;
                tell(child, b"g")?;
            }
            match (progress.terminal.take(), master) {
                (Some(terminal), Master::Socket(socket)) => console::send(socket, &terminal)?,
                (Some(terminal), _) => {
                    foreground::keep_lines(&terminal);
                    kept = Some(terminal);
                }
                (None, _) => {}
            }
            if let Some(number) = progress.listener.take() {
                let filter = self.bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
                if let Some(filter) = filter {
                    notify::hand_over(filter, child, number, &self.record, Status::Creating)?;
                }
            }
        }
        self.warnings.append(&mut progress.warnings);
        self.record.is_complete = true;
        self.runtime.save(&self.record)?;
        Ok(kept)
    }

    fn run_hooks(&self, kind: &str, list: &Option<Vec<Hook>>, status: Status) -> Result<()> {
        let state = self.record.state(status);
        let list = list.as_deref().unwrap_or_default();
        hooks::run(list, &state, Some(&self.record.bundle)).named(format!("run the {kind} hooks"))
    }

    fn undo(self) {
        if let Some(child) = &self.child {
            let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        let _ = self.group.remove();
        if self.child.is_some() {
            let _ = self.runtime.run_poststop(&self.record, &self.bundle.spec);
        }
        let _ = fs::remove_dir_all(&self.bundle.dir);
    }
}

/// An init that is gone has left a note about why.
fn tell(child: &Child, word: &[u8]) -> Result<()> {
    match packet::send(&child.link, word, &[]) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        result => result.named("start init"),
    }
}

/// Without permission and without a wish of its own.
fn may_do_without(error: &std::io::Error, path: Option<&PathBuf>, resources: &LinuxResources) -> bool {
    let denied = matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS));
    let wishes = resources.memory().is_some() || resources.cpu().is_some() || resources.pids().is_some();
    denied && path.is_none() && !wishes
}

type Trees = (Vec<(usize, OwnedFd)>, Option<OwnedFd>);

/// Trees that must be taken before init is in its namespaces: those with other owners, and where init has a user
/// namespace all of them, since it may not reach what its ids do not own.
fn prepare_trees(spec: &Spec) -> Result<Trees> {
    let has_users = init::has_user_namespace(spec);
    let mut trees = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate().filter(|(_, mount)| init::is_bind(mount))
    {
        let mapped = config::is_mapped(mount);
        if !has_users && mapped.is_none() {
            continue;
        }
        let name = || {
            format!(
                "mount {} at {}",
                mount.source().clone().unwrap_or_default().display(),
                mount.destination().display()
            )
        };
        let tree = init::prepare_bind(mount).named(name())?;
        if let Some(recursive) = mapped {
            let namespace = namespace_for(mount, spec).named(name())?;
            mount::map_ids(&tree, namespace, recursive).named(format!("{} with other owners", name()))?;
        }
        trees.push((index, tree));
    }
    let root = spec.root().as_ref().filter(|_| has_users);
    let root = root.map(|root| {
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
            | rustix::mount::OpenTreeFlags::AT_RECURSIVE;
        rustix::mount::open_tree(rustix::fs::CWD, root.path(), flags)
            .named(format!("mount the root file system {}", root.path().display()))
    });
    Ok((trees, root.transpose()?))
}

/// Owners are ids of the container.
fn prepare_devices(spec: &Spec) -> Result<Vec<(PathBuf, OwnedFd)>> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().clone()).unwrap_or_default();
    let Some((uids, gids)) = config::new_maps(spec) else { return Ok(Vec::new()) };
    let outside = |maps: &[LinuxIdMapping], id: u32| {
        let map = maps.iter().find(|map| id.wrapping_sub(map.container_id()) < map.size());
        map.map(|map| map.host_id() + (id - map.container_id()))
    };
    let mapped = devices.into_iter().map(|mut device| {
        let uid = device.uid().and_then(|id| outside(uids, id));
        let gid = device.gid().and_then(|id| outside(gids, id));
        device.set_uid(uid).set_gid(gid);
        device
    });
    init::prepare_devices(&mapped.collect::<Vec<_>>()).named("make the devices")
}

/// The mount's own ids, or the container's.
fn namespace_for(mount: &Mount, spec: &Spec) -> std::io::Result<OwnedFd> {
    let own = |maps: &Option<Vec<LinuxIdMapping>>| maps.clone().filter(|maps| !maps.is_empty());
    let maps = match (own(mount.uid_mappings()), own(mount.gid_mappings())) {
        (Some(uids), Some(gids)) => Some((uids, gids)),
        (None, None) => config::new_maps(spec).map(|(uids, gids)| (uids.to_vec(), gids.to_vec())),
        _ => return Err(std::io::Error::other("uidMappings and gidMappings belong together")),
    };
    let (uids, gids) = maps.ok_or_else(|| std::io::Error::other("there are no mappings to show it with"))?;
    init::map_namespace(Maps { uids: &uids, gids: &gids })
}

/// Which of the descriptors from 3 on whoever called us has left open for the program.
pub(super) fn inherited(count: u32) -> Vec<i32> {
    const MAX: u32 = 1 << 20;
    (3..3 + count.min(MAX).cast_signed()).filter(|fd| task::is_inherited(*fd)).collect()
}
