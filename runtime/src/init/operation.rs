//! The operations of init: data, a name for failures, and one call each.

use super::confine::{Label, Sets};
use super::options::Propagation;
use super::{Context, Note, birth, confine, copy, execute, mounts, root, user};
use crate::container::{ContentFile, CopyUp, ImageMount};
use crate::launch::LaunchError;
use crate::sys::task::{self, Scheduling};
use oci_spec::runtime::{
    Hook, LinuxDevice, LinuxNamespaceType as Kind, LinuxSeccomp, Mount, PosixRlimit, State,
};
use std::io;
use std::path::PathBuf;

#[derive(Debug)]
pub(crate) enum Operation {
    /// Dies with its parent from now on.
    DieWithParent,
    NewSession,
    /// Waits for its ids, if it is new, and becomes root of it, or who comes first.
    UserNamespace {
        ids: (u32, u32),
        is_new: bool,
    },
    SessionKeyring(String),
    JoinNamespace(Kind, PathBuf),
    /// The monitor has put us in the control groups.
    AwaitPlacement,
    NewCgroupNamespace,
    Loopback,
    /// What is mounted from now on stays in here, or spreads as it is told.
    /// Detached copies of what these bind, by their place among the mounts.
    TakeTrees(Vec<(usize, Mount)>),
    PrivateMounts(Propagation),
    Root {
        lower_dirs: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        at: PathBuf,
        volatile: bool,
    },
    /// A directory of the host; as a mount of its own where we have a mount namespace.
    Directory {
        path: PathBuf,
        is_mounted: bool,
    },
    CopyUp(CopyUp),
    /// With its place in the list of mounts.
    Mount(usize, Mount),
    Image(ImageMount),
    /// `/dev/shm` of the container with this init.
    SharedMemory(i32),
    Device(LinuxDevice),
    Link {
        path: &'static str,
        target: &'static str,
    },
    Content(ContentFile),
    Mask(PathBuf),
    ReadOnly(PathBuf),
    /// Makes the terminal and tells the monitor.
    Terminal {
        console: bool,
        size: Option<(u16, u16)>,
    },
    /// Tells the monitor that hooks may look at the root.
    Prepared,
    AwaitGo,
    Hooks {
        kind: &'static str,
        hooks: Vec<Hook>,
        state: Box<State>,
        /// Below the new root, which is not ours yet.
        in_root: bool,
    },
    /// A mount that was held open for others to be made in it.
    ReadOnlyMount(PathBuf),
    BindFile {
        source: PathBuf,
        target: &'static str,
        read_only: bool,
    },
    OomScore(i32),
    Sysctl {
        key: String,
        value: String,
    },
    Hostname(String),
    Domainname(String),
    Pivot,
    /// Where the old root cannot be put away.
    MoveRoot,
    ChangeRoot,
    RootPropagation(Propagation),
    WorkingDirectory(PathBuf),
    ReadOnlyRoot,
    Rlimit(PosixRlimit),
    User {
        user: String,
        group_add: Vec<String>,
    },
    Ids {
        uid: u32,
        gid: u32,
        /// `None`: those we have.
        groups: Option<Vec<u32>>,
    },
    Streams {
        terminal: bool,
    },
    Label(Label),
    Personality(u64),
    Scheduling(Scheduling),
    IoPriority(i32),
    MemoryPolicy {
        mode: u32,
        nodes: Vec<u64>,
    },
    Umask(u32),
    Affinity(Vec<usize>),
    Bounding(Vec<u8>),
    NoNewPrivileges,
    Seccomp(Box<LinuxSeccomp>),
    Identity(Sets),
    /// Before the user is known to be allowed, and again after, if it was not possible before.
    ChangeDirectory {
        path: PathBuf,
        is_last: bool,
    },
    Find(Vec<String>),
    AwaitStart,
    Execute {
        args: Vec<String>,
        reaper: bool,
    },
}

impl Operation {
    pub(super) fn run(&self, context: &mut Context<'_>) -> io::Result<()> {
        match self {
            Self::DieWithParent => confine::die_with_parent(),
            Self::NewSession => Ok(rustix::process::setsid().map(drop)?),
            Self::UserNamespace { ids, is_new } => confine::enter_user_namespace(context, *ids, *is_new),
            Self::SessionKeyring(id) => confine::session_keyring(context, id),
            Self::JoinNamespace(kind, path) => birth::join(*kind, &std::fs::File::open(path)?),
            Self::NewCgroupNamespace => crate::sys::process::unshare(libc::CLONE_NEWCGROUP),
            Self::Loopback => crate::sys::process::loopback_up(),
            Self::TakeTrees(binds) => binds.iter().try_for_each(|(index, mount)| {
                context.trees.push((*index, mounts::prepare_bind(mount)?));
                Ok(())
            }),
            Self::PrivateMounts(propagation) => {
                context.shares_mounts = propagation.flag == libc::MS_SHARED;
                root::spread("/", *propagation)
            }
            Self::Root { lower_dirs, upper, work, at, volatile } => {
                context.scratch = at.clone();
                context.root = Some(root::mount(lower_dirs, upper, work, at, *volatile)?);
                Ok(())
            }
            Self::Directory { path, is_mounted: true } => root::directory(context, path),
            Self::Directory { path, is_mounted: false } => root::plain(context, path),
            Self::CopyUp(copy_up) => copy::fill(context.root()?, copy_up),
            Self::Mount(index, mount) => mounts::mount(context, *index, mount),
            Self::ReadOnlyMount(at) => mounts::read_only_mount(context, at),
            Self::Image(image) => mounts::image(context, image),
            Self::SharedMemory(pid) => mounts::shared_memory(context, *pid),
            Self::Device(device) => mounts::device(context, device),
            Self::Link { path, target } => mounts::link(context, path, target),
            Self::Content(file) => mounts::content(context, file),
            Self::Mask(path) => mounts::mask(context, path),
            Self::ReadOnly(path) => mounts::read_only(context, path),
            Self::Terminal { console, size } => mounts::terminal(context, *console, *size),
            Self::AwaitPlacement | Self::AwaitGo => {
                context.link.wait();
                Ok(())
            }
            Self::Prepared => context.link.send(&Note::Prepared, &[]),
            Self::AwaitStart => context.await_start(),
            Self::Hooks { hooks, state, in_root, .. } => {
                if *in_root {
                    rustix::process::fchdir(context.root()?)?;
                }
                let mut hooks = hooks.clone();
                // Inside, the host's environment is nobody's business.
                hooks.iter_mut().filter(|hook| !in_root && hook.env().is_none()).for_each(|hook| {
                    hook.set_env(Some(Vec::new()));
                });
                let mut state = state.as_ref().clone();
                state.set_pid(Some(std::process::id().cast_signed()));
                crate::oci::run_hooks(&hooks, &state, None)
            }
            Self::BindFile { source, target, read_only } => {
                mounts::bind_file(context, source, target, *read_only)
            }
            Self::OomScore(score) => confine::oom_score(context, *score),
            Self::Sysctl { key, value } => std::fs::write(sysctl_file(key), value),
            Self::Hostname(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
            Self::Domainname(name) => Ok(rustix::system::setdomainname(name.as_bytes())?),
            Self::Pivot => root::pivot(context),
            Self::MoveRoot => root::move_root(context),
            Self::ChangeRoot => root::change_root(context),
            Self::RootPropagation(propagation) => root::spread("/", *propagation),
            Self::WorkingDirectory(path) => std::fs::create_dir_all(path),
            Self::ReadOnlyRoot => root::make_read_only(),
            Self::Rlimit(limit) => confine::rlimit(context, limit),
            Self::User { user, group_add } => {
                let root = std::fs::File::open("/")?;
                context.identity = user::lookup(root, user, group_add).map_err(io::Error::other)?;
                Ok(())
            }
            Self::Ids { uid, gid, groups } => {
                let root = std::fs::File::open("/")?;
                let own =
                    || rustix::process::getgroups().map(|all| all.iter().map(|gid| gid.as_raw()).collect());
                let groups = groups.clone().map_or_else(own, Ok)?;
                context.identity = user::numbered(root, *uid, *gid, &groups);
                Ok(())
            }
            Self::Label(label) => confine::label(label),
            Self::Personality(persona) => task::set_personality(*persona),
            Self::Scheduling(scheduling) => task::set_scheduling(*scheduling),
            Self::IoPriority(value) => task::set_io_priority(*value),
            Self::MemoryPolicy { mode, nodes } => task::set_memory_policy(*mode, nodes),
            Self::Umask(mask) => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(*mask));
                Ok(())
            }
            Self::Affinity(processors) => confine::affinity(processors),
            Self::Streams { terminal } => execute::streams(context, *terminal),
            Self::Bounding(capabilities) => confine::bounding(context, capabilities),
            Self::NoNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
            Self::Seccomp(filter) => confine::seccomp(context, filter),
            Self::Identity(sets) => confine::identity(context, *sets),
            Self::ChangeDirectory { path, is_last } => execute::change_directory(context, path, *is_last),
            Self::Find(args) => execute::find(context, args),
            Self::Execute { args, reaper } => execute::execute(context, args, *reaper),
        }
    }

    pub(super) fn failure(&self, error: &io::Error) -> LaunchError {
        LaunchError { operation: self.describe(), reason: plain(error), code: self.code(error) }
    }

    /// Docker's codes: 127 not found, 126 found but not to be executed, 128 anything else.
    fn code(&self, error: &io::Error) -> i32 {
        match (self, error.raw_os_error()) {
            (Self::Execute { .. } | Self::Find(_), Some(libc::ENOENT | libc::ENOTDIR)) => 127,
            (Self::Execute { .. } | Self::Find(_), None) if error.kind() == io::ErrorKind::NotFound => 127,
            (
                Self::Execute { .. } | Self::Find(_),
                Some(libc::EACCES | libc::EISDIR | libc::ENOEXEC | libc::EPERM),
            ) => 126,
            (Self::User { .. } | Self::ChangeDirectory { .. }, _) => 126,
            _ => 128,
        }
    }

    /// Completes "failed to …".
    fn describe(&self) -> String {
        match self {
            Self::DieWithParent => "tie init to its monitor".into(),
            Self::NewSession => "start a session".into(),
            Self::UserNamespace { .. } => "enter the user namespace".into(),
            Self::SessionKeyring(_) => "make a session keyring".into(),
            Self::JoinNamespace(_, path) => format!("join the namespace {}", path.display()),
            Self::AwaitPlacement => "wait for the control group".into(),
            Self::NewCgroupNamespace => "enter a new cgroup namespace".into(),
            Self::Loopback => "set up the loopback interface".into(),
            Self::TakeTrees(_) => "open what is bound and shared".into(),
            Self::PrivateMounts(_) => "make mounts private".into(),
            Self::Root { .. } => "mount the root file system".into(),
            Self::Directory { path, .. } => format!("mount the root file system {}", path.display()),
            Self::CopyUp(copy) => format!("copy {} of the image into its volume", copy.target),
            Self::Mount(_, mount) => describe_mount(mount),
            Self::ReadOnlyMount(at) => format!("make {} read-only", at.display()),
            Self::Image(image) => format!("mount the image at {}", image.target),
            Self::SharedMemory(pid) => format!("share /dev/shm with process {pid}"),
            Self::Device(device) => format!("make the device {}", device.path().display()),
            Self::Link { path, .. } => format!("make the link {path}"),
            Self::Content(file) => format!("write {}", file.target),
            Self::Mask(path) => format!("mask {}", path.display()),
            Self::ReadOnly(path) => format!("make {} read-only", path.display()),
            Self::Terminal { .. } => "make the terminal".into(),
            Self::Prepared => "tell that the root is there".into(),
            Self::AwaitGo | Self::AwaitStart => "wait for the start".into(),
            Self::Hooks { kind, .. } => format!("run the {kind} hooks"),
            Self::BindFile { target, .. } => format!("mount {target}"),
            Self::OomScore(score) => format!("set the OOM score to {score}"),
            Self::Sysctl { key, value } => format!("set sysctl {key} to {value:?}"),
            Self::Hostname(name) => format!("set the host name {name:?}"),
            Self::Domainname(name) => format!("set the domain name {name:?}"),
            Self::Pivot | Self::MoveRoot | Self::ChangeRoot => "enter the root file system".into(),
            Self::RootPropagation(_) => "set the propagation of the root file system".into(),
            Self::WorkingDirectory(path) => format!("make the working directory {}", path.display()),
            Self::ReadOnlyRoot => "make the root file system read-only".into(),
            Self::Rlimit(limit) => format!("set {}", confine::rlimit_name(limit)),
            Self::User { user, .. } => format!("look up user {user:?}"),
            Self::Ids { .. } => "look up the user".into(),
            Self::Label(Label::AppArmor(profile)) => format!("apply the AppArmor profile {profile:?}"),
            Self::Label(Label::SeLinux(label)) => format!("apply the SELinux label {label:?}"),
            Self::Personality(_) => "set the personality".into(),
            Self::Scheduling(_) => "set the scheduler".into(),
            Self::IoPriority(_) => "set the I/O priority".into(),
            Self::MemoryPolicy { .. } => "set the memory policy".into(),
            Self::Umask(_) => "set the umask".into(),
            Self::Affinity(_) => "set the CPU affinity".into(),
            Self::Streams { .. } => "set up the standard streams".into(),
            Self::Bounding(_) => "limit the capabilities".into(),
            Self::NoNewPrivileges => "set no_new_privs".into(),
            Self::Seccomp(_) => "install the system call filter".into(),
            Self::Identity(_) => "become the user".into(),
            Self::ChangeDirectory { path, .. } => {
                format!("change to the working directory {}", path.display())
            }
            Self::Find(args) | Self::Execute { args, .. } => {
                format!("execute {:?}", args.first().map_or("", String::as_str))
            }
        }
    }
}

/// With slashes, or with dots; then a slash stands for a dot in a name.
fn sysctl_file(key: &str) -> String {
    let is_path = key.find('/') < key.find('.') && key.contains('/') || !key.contains('.');
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    format!("/proc/sys/{}", if is_path { key.to_owned() } else { key.chars().map(swap).collect() })
}

fn describe_mount(mount: &Mount) -> String {
    let target = mount.destination().display();
    match (mount.typ().as_deref(), mount.source()) {
        (Some("bind"), Some(source)) => format!("mount {} at {target}", source.display()),
        _ => format!("mount {target}"),
    }
}

/// The words of the operating system, without the number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
