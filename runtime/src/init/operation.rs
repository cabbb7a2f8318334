//! The operations of init: data, a name for failures, and one call each.

use super::{Context, confine, copy, execute, mounts, root, user};
use crate::container::{ContentFile, CopyUp, ImageMount};
use crate::launch::LaunchError;
use oci_spec::runtime::{LinuxDevice, LinuxSeccomp, Mount, PosixRlimit};
use std::io;
use std::path::PathBuf;

#[derive(Debug)]
pub(crate) enum Operation {
    /// Dies with its parent from now on.
    DieWithParent,
    NewSession,
    JoinNamespace(PathBuf),
    /// The monitor has put us in the control groups.
    AwaitPlacement,
    NewCgroupNamespace,
    Loopback,
    /// What is mounted from now on stays in here.
    PrivateMounts,
    Root {
        lower_dirs: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        at: PathBuf,
        volatile: bool,
    },
    CopyUp(CopyUp),
    Mount(Mount),
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
    AwaitGo,
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
    WorkingDirectory(PathBuf),
    ReadOnlyRoot,
    Rlimit(PosixRlimit),
    User {
        user: String,
        group_add: Vec<String>,
    },
    Streams {
        terminal: bool,
    },
    Bounding(Vec<u8>),
    NoNewPrivileges,
    Seccomp(Box<LinuxSeccomp>),
    Identity {
        capabilities: Vec<u8>,
    },
    ChangeDirectory(PathBuf),
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
            Self::JoinNamespace(path) => confine::join_namespace(path),
            Self::NewCgroupNamespace => crate::sys::process::unshare(libc::CLONE_NEWCGROUP),
            Self::Loopback => crate::sys::process::loopback_up(),
            Self::PrivateMounts => root::private_mounts(),
            Self::Root { lower_dirs, upper, work, at, volatile } => {
                context.scratch = at.clone();
                context.root = Some(root::mount(lower_dirs, upper, work, at, *volatile)?);
                Ok(())
            }
            Self::CopyUp(copy_up) => copy::fill(context.root()?, copy_up),
            Self::Mount(mount) => mounts::mount(context, mount),
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
            Self::BindFile { source, target, read_only } => {
                mounts::bind_file(context, source, target, *read_only)
            }
            Self::OomScore(score) => confine::oom_score(context, *score),
            Self::Sysctl { key, value } => {
                std::fs::write(format!("/proc/sys/{}", key.replace('.', "/")), value)
            }
            Self::Hostname(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
            Self::Domainname(name) => Ok(rustix::system::setdomainname(name.as_bytes())?),
            Self::Pivot => root::pivot(context),
            Self::WorkingDirectory(path) => std::fs::create_dir_all(path),
            Self::ReadOnlyRoot => root::make_read_only(),
            Self::Rlimit(limit) => confine::rlimit(context, limit),
            Self::User { user, group_add } => {
                let root = std::fs::File::open("/")?;
                context.identity = user::lookup(root, user, group_add).map_err(io::Error::other)?;
                Ok(())
            }
            Self::Streams { terminal } => execute::streams(context, *terminal),
            Self::Bounding(capabilities) => confine::bounding(context, capabilities),
            Self::NoNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
            Self::Seccomp(filter) => confine::seccomp(filter),
            Self::Identity { capabilities } => confine::identity(context, capabilities),
            Self::ChangeDirectory(path) => Ok(rustix::process::chdir(path)?),
            Self::Execute { args, reaper } => execute::execute(context, args, *reaper),
        }
    }

    pub(super) fn failure(&self, error: &io::Error) -> LaunchError {
        LaunchError { operation: self.describe(), reason: plain(error), code: self.code(error) }
    }

    /// Docker's codes: 127 not found, 126 found but not to be executed, 128 anything else.
    fn code(&self, error: &io::Error) -> i32 {
        match (self, error.raw_os_error()) {
            (Self::Execute { .. }, Some(libc::ENOENT | libc::ENOTDIR)) => 127,
            (Self::Execute { .. }, None) if error.kind() == io::ErrorKind::NotFound => 127,
            (Self::Execute { .. }, Some(libc::EACCES | libc::EISDIR | libc::ENOEXEC | libc::EPERM)) => 126,
            (Self::User { .. } | Self::ChangeDirectory(_), _) => 126,
            _ => 128,
        }
    }

    /// Completes "failed to …".
    fn describe(&self) -> String {
        match self {
            Self::DieWithParent => "tie init to its monitor".into(),
            Self::NewSession => "start a session".into(),
            Self::JoinNamespace(path) => format!("join the namespace {}", path.display()),
            Self::AwaitPlacement => "wait for the control group".into(),
            Self::NewCgroupNamespace => "enter a new cgroup namespace".into(),
            Self::Loopback => "set up the loopback interface".into(),
            Self::PrivateMounts => "make mounts private".into(),
            Self::Root { .. } => "mount the root file system".into(),
            Self::CopyUp(copy) => format!("copy {} of the image into its volume", copy.target),
            Self::Mount(mount) => describe_mount(mount),
            Self::Image(image) => format!("mount the image at {}", image.target),
            Self::SharedMemory(pid) => format!("share /dev/shm with process {pid}"),
            Self::Device(device) => format!("make the device {}", device.path().display()),
            Self::Link { path, .. } => format!("make the link {path}"),
            Self::Content(file) => format!("write {}", file.target),
            Self::Mask(path) => format!("mask {}", path.display()),
            Self::ReadOnly(path) => format!("make {} read-only", path.display()),
            Self::Terminal { .. } => "make the terminal".into(),
            Self::AwaitGo => "wait for the start".into(),
            Self::BindFile { target, .. } => format!("mount {target}"),
            Self::OomScore(score) => format!("set the OOM score to {score}"),
            Self::Sysctl { key, value } => format!("set sysctl {key} to {value:?}"),
            Self::Hostname(name) => format!("set the host name {name:?}"),
            Self::Domainname(name) => format!("set the domain name {name:?}"),
            Self::Pivot => "enter the root file system".into(),
            Self::WorkingDirectory(path) => format!("make the working directory {}", path.display()),
            Self::ReadOnlyRoot => "make the root file system read-only".into(),
            Self::Rlimit(limit) => format!("set {}", confine::rlimit_name(limit)),
            Self::User { user, .. } => format!("look up user {user:?}"),
            Self::Streams { .. } => "set up the standard streams".into(),
            Self::Bounding(_) => "limit the capabilities".into(),
            Self::NoNewPrivileges => "set no_new_privs".into(),
            Self::Seccomp(_) => "install the system call filter".into(),
            Self::Identity { .. } => "become the user".into(),
            Self::ChangeDirectory(path) => format!("change to the working directory {}", path.display()),
            Self::Execute { args, .. } => format!("execute {:?}", args.first().map_or("", String::as_str)),
        }
    }
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
