//! A further program in a container.

use super::console::{self, Master};
use super::create::inherited;
use super::store::{Record, Status, write_pid};
use super::{Result, Runtime, config, foreground, notify};
use crate::cgroup::Group;
use crate::container::{Bundle, capability};
use crate::init::{self, Child, Context, Link};
use crate::launch::{LaunchError, Named};
use crate::monitor::Progress;
use crate::sys::{packet, process};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{LinuxNamespaceType as Kind, Process};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// What `exec` is told. Options win over `process`, which is a whole `process.json`.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    pub id: String,
    pub args: Vec<String>,
    pub process: Option<PathBuf>,
    pub cwd: Option<PathBuf>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    pub terminal: bool,
    /// `uid[:gid]`.
    pub user: Option<String>,
    pub additional_gids: Vec<u32>,
    pub capabilities: Vec<String>,
    pub apparmor: Option<String>,
    pub process_label: Option<String>,
    pub no_new_privileges: bool,
    pub detach: bool,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve_fds: u32,
    pub ignore_paused: bool,
    /// Below the container's groups: `[CONTROLLER[,CONTROLLER]:]PATH`.
    pub cgroup: Vec<String>,
}

impl Runtime {
    /// The program's exit code; with `detach` 0 as soon as it runs.
    ///
    /// # Errors
    /// The container does not run, or the program cannot be executed in it.
    pub fn exec(&self, options: &ExecOptions) -> Result<(i32, Vec<String>)> {
        let record = self.load(&options.id)?;
        let refuse = |reason: &str| Err(LaunchError::new(format!("exec in {:?}", options.id), reason));
        match self.status(&record) {
            Status::Created | Status::Running => {}
            Status::Paused if options.ignore_paused => {}
            Status::Paused => {
                return refuse("cannot exec in a paused container (use --ignore-paused to override)");
            }
            Status::Creating => return refuse("cannot exec in a container that is being created"),
            Status::Stopped => return refuse("cannot exec in a stopped container"),
        }
        let mut bundle = self.load_bundle(&options.id)?;
        let preserved = inherited(options.preserve_fds);
        let (process, warnings) = wanted(&bundle, options)?;
        let terminal = process.terminal() == Some(true);
        let master = console::choose(terminal, options.console_socket.as_ref(), !options.detach)?;
        bundle.spec.set_process(Some(process));
        let mut entry = Entry { record: &record, bundle: &bundle, options, preserved, warnings };
        let (child, kept) = entry.go(master)?;
        let warnings = entry.warnings;
        write_pid(options.pid_file.as_deref(), child.pid)?;
        if options.detach {
            return Ok((0, warnings));
        }
        Ok((foreground::attend(&child, kept).named("wait for the process")?, warnings))
    }
}

struct Entry<'a> {
    record: &'a Record,
    bundle: &'a Bundle,
    options: &'a ExecOptions,
    preserved: Vec<i32>,
    warnings: Vec<String>,
}

impl Entry<'_> {
    fn go(&mut self, master: Master<'_>) -> Result<(Child, Option<OwnedFd>)> {
        let gone = || LaunchError::new("find the container", "it has ended");
        let pid = Pid::from_raw(self.record.pid).ok_or_else(gone)?;
        let container = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        if !self.record.is_alive() {
            return Err(gone());
        }
        let group = self.group()?;
        let root = self.foreign_root().named("find the root file system")?;
        let users = self.enter_pids(&container)?;
        let (ours, theirs) = packet::pair().named("make a socket pair")?;
        match init::clone(0, &group).map_err(|e| adding(&e))? {
            process::Clone::Child => self.become_program(Link::new(theirs), &container, &group, root, users),
            process::Clone::Parent { pid, pidfd } => {
                let child = Child { pid, pidfd, link: ours };
                drop(theirs);
                group.place(pid).map_err(|e| adding(&e))?;
                packet::send(&child.link, b"p", &[]).named("start the process")?;
                let kept = self.follow(&child, master)?;
                Ok((child, kept))
            }
        }
    }

    /// Where init is now, if its group has become one that holds only groups.
    fn group(&self) -> Result<Group> {
        let mut group = self.record.group()?;
        let asked = &self.options.cgroup;
        if asked.is_empty() && group.unified_dir().is_some_and(has_controlled_children) {
            return Group::of_process(self.record.pid).named("find the control group of init");
        }
        asked.iter().try_for_each(|asked| descend(&mut group, asked))?;
        Ok(group)
    }

    /// A container without mounts of its own has only a root of its own.
    fn foreign_root(&self) -> io::Result<Option<OwnedFd>> {
        let linux = self.bundle.spec.linux().as_ref();
        let kinds = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
        let has_mounts = kinds.into_iter().any(|namespace| namespace.typ() == Kind::Mount);
        let open = || File::open(format!("/proc/{}/root", self.record.pid));
        (!has_mounts).then(|| open().map(OwnedFd::from)).transpose()
    }

    /// Decides about children only, hence before the clone. Whoever may not do that alone is first made root of the
    /// container's user namespace. The rest: whether there is one to be joined yet.
    fn enter_pids(&self, container: &OwnedFd) -> Result<bool> {
        let differs = is_other_user_namespace(self.record.pid).named("find the user namespace")?;
        let joined = setns(container.as_fd(), CloneFlags::CLONE_NEWPID);
        match joined {
            Err(nix::errno::Errno::EPERM) if differs => {
                let both = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID;
                setns(container.as_fd(), both).named("join the user and pid namespaces")?;
                Ok(false)
            }
            joined => joined.named("join the pid namespace").map(|()| differs),
        }
    }

    fn become_program(
        &self,
        link: Link,
        container: &OwnedFd,
        group: &Group,
        root: Option<OwnedFd>,
        joins_users: bool,
    ) -> ! {
        let (bundle, spec) = (self.bundle, &self.bundle.spec);
        let process = spec.process().clone().unwrap_or_default();
        let mut context = Context::new(link, group, process.env().clone().unwrap_or_default());
        context.owns_streams = true;
        context.preserved = self.preserved.clone();
        context.link.wait();
        let mut all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        if joins_users {
            all |= CloneFlags::CLONE_NEWUSER;
        }
        let entered = setns(container.as_fd(), all).map_err(io::Error::from);
        let entered = entered.and_then(|()| match &root {
            Some(root) => {
                rustix::process::fchdir(root)?;
                Ok(rustix::process::chroot(".")?)
            }
            None => Ok(()),
        });
        if let Err(e) = entered {
            let error = LaunchError::new("join the namespaces of the container", e);
            let _ = context.link.send(&init::Note::Failed(error), &[]);
            process::exit(1);
        }
        let _ = process::close_all_except(&init::kept(&context));
        let users = init::has_user_namespace(spec).then(|| init::root_ids(spec));
        init::run(init::process(bundle, &process, users), context)
    }

    /// Until the program runs, or has failed to.
    fn follow(&mut self, child: &Child, master: Master<'_>) -> Result<Option<OwnedFd>> {
        let mut progress = Progress::default();
        let mut kept = None;
        while progress.read(child) {
            match (progress.terminal.take(), master) {
                (Some(terminal), Master::Socket(socket)) => console::send(socket, &terminal)?,
                (Some(terminal), _) => {
                    foreground::keep_lines(&terminal);
                    kept = Some(terminal);
                }
                (None, _) => {}
            }
            let filter = self.bundle.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
            if let (Some(number), Some(filter)) = (progress.listener.take(), filter) {
                notify::hand_over(filter, child, number, self.record, Status::Running)?;
            }
        }
        progress.finish(child)?;
        self.warnings.append(&mut progress.warnings);
        Ok(kept)
    }
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`, which may not lead out of the group.
fn descend(group: &mut Group, asked: &str) -> Result<()> {
    let fail = |reason: String| LaunchError::new("find the control group", reason);
    let (controllers, path) =
        asked.split_once(':').map_or((None, asked), |(names, path)| (Some(names), path));
    let inner: PathBuf = Path::new(path).components().filter(|part| *part != Component::RootDir).collect();
    if inner.components().any(|part| part == Component::ParentDir) {
        return Err(fail(format!("{path} is not a sub cgroup path")));
    }
    let inner = inner.to_string_lossy();
    let enter = |group: &mut Group, controller| {
        group.descend(controller, &inner).map_err(|e| fail(format!("adding pid to {e}")))
    };
    let Some(controllers) = controllers.filter(|names| !names.is_empty()) else { return enter(group, None) };
    for name in controllers.split(',') {
        if !group.has_controller(name) {
            return Err(fail(format!("unknown controller {name}")));
        }
        enter(group, Some(name))?;
    }
    Ok(())
}

fn adding(error: &io::Error) -> LaunchError {
    let reason = if error.raw_os_error() == Some(libc::EBUSY) {
        "device or resource busy".to_owned()
    } else {
        error.to_string()
    };
    LaunchError::new("enter the control group", format!("adding pid to cgroups: cgroup.procs: {reason}"))
}

fn has_controlled_children(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.subtree_control")).is_ok_and(|names| !names.trim().is_empty())
}

fn is_other_user_namespace(pid: i32) -> io::Result<bool> {
    let inode = |who: &str| fs::metadata(format!("/proc/{who}/ns/user")).map(|meta| meta.ino());
    Ok(inode("self")? != inode(&pid.to_string())?)
}

/// The container's process with what is asked for.
fn wanted(bundle: &Bundle, options: &ExecOptions) -> Result<(Process, Vec<String>)> {
    if let Some(path) = &options.process {
        let reading = || format!("read {}", path.display());
        let mut value: serde_json::Value =
            serde_json::from_slice(&fs::read(path).named(reading())?).named(reading())?;
        let warnings = config::tidy_process(&mut value);
        let mut process: Process = serde_json::from_value(value).named(reading())?;
        process.set_terminal(Some(process.terminal() == Some(true) || options.terminal));
        return Ok((checked(process)?, warnings));
    }
    let mut process = bundle.spec.process().clone().unwrap_or_default();
    process.set_args(Some(options.args.clone())).set_terminal(Some(options.terminal));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(options.env.iter().cloned());
    process.set_env(Some(environment));
    set_user(&mut process, options)?;
    let warnings = set_privileges(&mut process, options)?;
    Ok((checked(process)?, warnings))
}

fn set_user(process: &mut Process, options: &ExecOptions) -> Result<()> {
    if let Some(user) = &options.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| {
                LaunchError::new(format!("use the user {user:?}"), "it is not UID[:GID] in numbers")
            })
        };
        process.user_mut().set_uid(number(uid)?);
        if let Some(gid) = gid {
            process.user_mut().set_gid(number(gid)?);
        }
    }
    if !options.additional_gids.is_empty() {
        let mut groups = process.user().additional_gids().clone().unwrap_or_default();
        groups.extend(&options.additional_gids);
        process.user_mut().set_additional_gids(Some(groups));
    }
    Ok(())
}

fn set_privileges(process: &mut Process, options: &ExecOptions) -> Result<Vec<String>> {
    if options.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if options.apparmor.is_some() {
        process.set_apparmor_profile(options.apparmor.clone());
    }
    if options.process_label.is_some() {
        process.set_selinux_label(options.process_label.clone());
    }
    let full = |name: &String| if name.starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
    let asked = options.capabilities.iter().map(|name| full(&name.to_uppercase()));
    let (known, unknown): (Vec<String>, Vec<String>) = asked.partition(|name| capability::is_known(name));
    let warnings = unknown.iter().map(|name| format!("unknown capability {name:?} is ignored")).collect();
    if known.is_empty() {
        return Ok(warnings);
    }
    let more = capability::resolve(&known, &["ALL".into()], false)
        .map_err(|reason| LaunchError::new("add capabilities", reason))?;
    let more = capability::to_oci(&more);
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<oci_spec::runtime::Capabilities>| {
        Some(set.iter().flatten().chain(&more).copied().collect())
    };
    let (bounding, effective, permitted) =
        (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    // Inheritable and ambient only where an ordinary user would lose them.
    if process.user().uid() != 0 {
        let (inheritable, ambient) = (with(sets.inheritable()), with(sets.ambient()));
        sets.set_inheritable(inheritable).set_ambient(ambient);
    }
    process.set_capabilities(Some(sets));
    Ok(warnings)
}

fn checked(process: Process) -> Result<Process> {
    let refuse = |reason: &str| Err(LaunchError::new("exec", reason));
    match process.args().as_ref().is_none_or(Vec::is_empty) {
        true => refuse("process args cannot be empty"),
        false if !process.cwd().is_absolute() => refuse("Cwd must be an absolute path"),
        false => Ok(process),
    }
}
