//! The owner's side: used from tokio, never forks.

use super::message::{Command, Hello, NetnsKind, Order, Reply, Request};
use super::{LaunchError, Named, program};
use crate::container::{self, ExecPlan};
use crate::spec::{ContainerSpec, ExecSpec};
use crate::sys::packet;
use indexmap::IndexMap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use tokio::io::unix::AsyncFd;

/// A fresh launcher answers well within this, also on a loaded machine.
const READY_SECONDS: i64 = 30;

#[derive(Debug)]
pub enum LauncherNetns {
    /// A new one, which lives as long as the launcher or any container.
    New,
    Join(OwnedFd),
    /// The owner's.
    Current,
}

#[derive(Debug)]
pub struct LauncherOptions {
    pub netns: LauncherNetns,
    /// Arguments of the owner's replacement when it dies without shutdown, e.g. `["__supervise", "shop"]`.
    /// It runs the launcher's own copy of the program, with the launcher's network namespace as standard input.
    /// `None`: the launcher just goes.
    pub respawn: Option<Vec<String>>,
    /// The binary with the hidden `__launch` entry; `None`: the running one.
    pub program: Option<PathBuf>,
    /// Added to the launcher's (and the replacement's) environment.
    pub env: Vec<(String, String)>,
}

impl Default for LauncherOptions {
    fn default() -> Self {
        Self { netns: LauncherNetns::Current, respawn: None, program: None, env: Vec::new() }
    }
}

/// See the module. Dropping it is a [`Launcher::shutdown`] that does not wait.
#[derive(Debug)]
pub struct Launcher {
    control: OwnedFd,
    netns: OwnedFd,
    pid: i32,
    child: Option<Child>,
}

/// Everything a container needs from the host, resolved.
#[derive(Debug)]
pub struct LaunchRequest {
    pub id: String,
    /// The container's directory: `upper`, `work`, `run.json`, `exit.json`, `log.json`, … live there.
    pub dir: PathBuf,
    pub spec: ContainerSpec,
    /// Snapshot directories, top first; may be empty.
    pub lower_dirs: Vec<PathBuf>,
    pub files: BindFiles,
    /// Host directory of each volume mount, by mount target.
    pub volumes: IndexMap<String, PathBuf>,
    /// Snapshot directories of each image mount, by mount target, top first.
    pub images: IndexMap<String, Vec<PathBuf>>,
    pub join: JoinPids,
    pub stdio: LaunchStdio,
    /// Path below the cgroup root, e.g. `stack/shop/3f2a…`; empty: no cgroup of its own.
    pub cgroup: String,
    /// Dies with the launcher, is not synced to disk (builder).
    pub ephemeral: bool,
}

/// Files made by the owner and bound over those of the image. They are opened after
/// [`Launcher::start`] was called, so they may be written between create and start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindFiles {
    pub hosts: Option<PathBuf>,
    pub hostname: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
}

/// Init processes of the containers whose namespaces are joined, as the spec asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JoinPids {
    pub network: Option<i32>,
    pub pid: Option<i32>,
    pub ipc: Option<i32>,
}

#[derive(Debug)]
pub enum LaunchStdio {
    /// Log files, and `attach.sock` where the spec wants stdin or a terminal.
    Logged,
    /// The program's own; nothing is logged.
    Fds([OwnedFd; 3]),
}

/// A container that waits for its start. Dropped before, it is undone.
#[derive(Debug)]
pub struct Created {
    pub pid: i32,
    pub netns: OwnedFd,
    pub monitor_pid: i32,
    /// pidfd: readable when the monitor is gone, and then `exit.json` is there.
    pub monitor: OwnedFd,
    /// What was asked for and cannot be had, e.g. a limit without its controller.
    pub warnings: Vec<String>,
    channel: Channel,
}

#[derive(Debug)]
pub struct ExecRequest {
    /// The container's init.
    pub pid: i32,
    /// The container's directory.
    pub dir: PathBuf,
    pub exec: ExecSpec,
    pub stdio: ExecStdio,
}

#[derive(Debug)]
pub enum ExecStdio {
    Fds([OwnedFd; 3]),
    /// A new terminal of this size; see [`ExecProcess::pty`].
    Tty {
        rows: u16,
        cols: u16,
    },
}

/// A running exec. Dropping it does not end the process.
#[derive(Debug)]
pub struct ExecProcess {
    /// As seen from the host.
    pub pid: i32,
    /// The terminal's master side.
    pub pty: Option<OwnedFd>,
    channel: Channel,
}

impl Launcher {
    /// Starts a launcher and waits until it is in its network namespace.
    ///
    /// # Errors
    /// `PermissionDenied` names the missing privilege; otherwise the operating system's.
    pub fn spawn(options: LauncherOptions) -> io::Result<Self> {
        container::check_privileges()?;
        let path = options.program.unwrap_or_else(|| "/proc/self/exe".into());
        let sealed = program::sealed(&path)?;
        let (control, theirs) = packet::pair()?;
        let child = std::process::Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()))
            .arg0("stack")
            .arg("__launch")
            .envs(options.env)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let netns = greet(&control, &options.netns, options.respawn)?;
        Ok(Self { control, netns, pid: child.id().cast_signed(), child: Some(child) })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The network namespace of its containers that have none of their own.
    pub fn netns(&self) -> io::Result<OwnedFd> {
        self.netns.try_clone()
    }

    /// Monitor and init exist in new namespaces; the program waits for [`Launcher::start`].
    pub async fn create(&self, request: LaunchRequest) -> Result<Created, LaunchError> {
        let container::Prepared { bundle, streams, warnings: mut early } = container::prepare(request)?;
        let channel = self.order(&Order::Create(Box::new(bundle)), &streams)?;
        match channel.receive().await? {
            (Reply::Created { pid, monitor_pid, warnings }, fds) => {
                let [netns, monitor] = <[OwnedFd; 2]>::try_from(fds)
                    .map_err(|_| LaunchError::new("create the container", "the monitor sent no namespace"))?;
                early.extend(warnings);
                Ok(Created { pid, netns, monitor_pid, monitor, warnings: early, channel })
            }
            (reply, _) => Err(unexpected("create the container", reply)),
        }
    }

    /// Lets the program run; returns when it does, with warnings. A failure has been written to `exit.json` too.
    pub async fn start(&self, created: &Created) -> Result<Vec<String>, LaunchError> {
        created.channel.send(&Command::Go)?;
        match created.channel.receive().await? {
            (Reply::Started { warnings }, _) => Ok(warnings),
            (reply, _) => Err(unexpected("start the container", reply)),
        }
    }

    /// Runs a program inside a running container; returns when it runs.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecProcess, LaunchError> {
        let (streams, tty) = match request.stdio {
            ExecStdio::Fds(fds) => (Vec::from(fds), None),
            ExecStdio::Tty { rows, cols } => (Vec::new(), Some((rows, cols))),
        };
        let plan = ExecPlan { pid: request.pid, dir: request.dir, exec: request.exec, tty };
        let channel = self.order(&Order::Exec(Box::new(plan)), &streams)?;
        match channel.receive().await? {
            (Reply::Executing { pid }, mut fds) => Ok(ExecProcess { pid, pty: fds.pop(), channel }),
            (reply, _) => Err(unexpected("exec in the container", reply)),
        }
    }

    fn order(&self, order: &Order, streams: &[OwnedFd]) -> Result<Channel, LaunchError> {
        let memory = order.to_memory().named("write the order")?;
        let (ours, theirs) = packet::pair().named("make a socket pair")?;
        let mut fds: Vec<BorrowedFd<'_>> = vec![memory.as_fd(), theirs.as_fd()];
        fds.extend(streams.iter().map(AsFd::as_fd));
        packet::send(&self.control, &[Request::Order.to_byte()], &fds).named("reach the launcher")?;
        Channel::new(ours).named("watch a socket")
    }

    /// Ends the launcher; containers stay, unless ephemeral. No replacement of the owner is started.
    pub async fn shutdown(mut self) {
        self.say_goodbye();
        if let Some(mut child) = self.child.take() {
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
    }

    /// As [`Launcher::shutdown`], where it cannot be taken apart.
    pub fn say_goodbye(&self) {
        // A launcher that is gone already needs no goodbye.
        let _ = packet::send(&self.control, &[Request::Shutdown.to_byte()], &[]);
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

impl ExecProcess {
    /// The exit code; 128 + n for signal n.
    pub async fn wait(&mut self) -> Result<i32, LaunchError> {
        match self.channel.receive().await? {
            (Reply::Ended { code }, _) => Ok(code),
            (reply, _) => Err(unexpected("wait for the process", reply)),
        }
    }

    /// Sends a signal; a process that has ended is no failure.
    pub fn signal(&self, signal: i32) -> Result<(), LaunchError> {
        self.channel.send(&Command::Signal(signal))
    }

    pub fn kill(&self) -> Result<(), LaunchError> {
        self.signal(libc::SIGKILL)
    }

    /// Does nothing without a terminal.
    pub fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        self.pty.as_ref().map_or(Ok(()), |pty| crate::sys::tty::resize(pty, rows, cols))
    }
}

/// Tells a fresh launcher what it is for, and hears which network namespace its containers get.
fn greet(control: &OwnedFd, netns: &LauncherNetns, respawn: Option<Vec<String>>) -> io::Result<OwnedFd> {
    let (kind, fds) = match netns {
        LauncherNetns::New => (NetnsKind::New, vec![]),
        LauncherNetns::Current => (NetnsKind::Current, vec![]),
        LauncherNetns::Join(fd) => (NetnsKind::Join, vec![fd.as_fd()]),
    };
    let hello = Hello { netns: kind, respawn };
    packet::send(control, &serde_json::to_vec(&hello)?, &fds)?;
    let timeout = Timespec { tv_sec: READY_SECONDS, tv_nsec: 0 };
    if poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&timeout))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the launcher did not answer"));
    }
    let (answer, fds) = packet::receive(control)?;
    match String::from_utf8_lossy(&answer).as_ref() {
        "ready" => fds.into_iter().next().ok_or_else(|| io::Error::other("the launcher sent no namespace")),
        "" => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the launcher ended before it was ready")),
        reason => Err(io::Error::other(reason.to_owned())),
    }
}

/// The owner's end of one request's socket.
#[derive(Debug)]
struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self(crate::sys::watch(fd)?))
    }

    fn send(&self, command: &Command) -> Result<(), LaunchError> {
        let bytes = serde_json::to_vec(command).named("encode a command")?;
        match packet::send(self.0.get_ref(), &bytes, &[]) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(LaunchError::new("reach the monitor", e)),
            // Its last reply says what happened, or the end of file does.
            _ => Ok(()),
        }
    }

    async fn receive(&self) -> Result<(Reply, Vec<OwnedFd>), LaunchError> {
        let (bytes, fds) = loop {
            let mut ready = self.0.readable().await.named("watch a socket")?;
            if let Ok(result) = ready.try_io(|fd| packet::receive(fd.get_ref())) {
                match result {
                    // It went without reading our last packet; its own last one is still there.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
                    result => break result.named("hear from the monitor")?,
                }
            }
        };
        if bytes.is_empty() {
            return Err(LaunchError::new("hear from the monitor", "it was killed"));
        }
        match serde_json::from_slice(&bytes).named("decode a reply")? {
            Reply::Failed(error) => Err(error),
            reply => Ok((reply, fds)),
        }
    }
}

fn unexpected(operation: &str, reply: Reply) -> LaunchError {
    LaunchError::new(operation, format!("unexpected reply {reply:?}"))
}
