//! One RUN in a container of its own.
//!
//! All RUNs of a build share one network (made with the first that wants it) and one launcher per network.
//! Containers die with the launcher, so a build that is killed leaves none.
//!
//! Errors: what the launcher refuses; a command that ends badly is not an error here but an [`Ended`].

use super::event::Stream;
use super::failure::{BuildFailure, Doing, Result};
use super::request::Network;
use indexmap::IndexMap;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stack_runtime::home;
use stack_runtime::launch::{
    BindFiles, JoinPids, LaunchRequest, LaunchStdio, Launcher, LauncherNetns, LauncherOptions,
};
use stack_runtime::network::BuildNetwork;
use stack_runtime::observed::Exit;
use stack_runtime::spec::{ContainerSpec, MountSpec, NetworkMode};
use std::collections::VecDeque;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::OnceCell;

/// Lines kept for the failure.
const LAST_LINES: usize = 200;
const LINE_BYTES_MAX: usize = 64 << 10;
const LOOPBACK_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
pub(super) const HOSTNAME: &str = "buildkitsandbox";

/// Everything a RUN needs, resolved.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) args: Vec<String>,
    pub(super) env: IndexMap<String, String>,
    pub(super) working_dir: String,
    pub(super) user: String,
    pub(super) mounts: Vec<MountSpec>,
    /// Layers of image mounts, by target.
    pub(super) images: IndexMap<String, Vec<PathBuf>>,
    pub(super) network: Network,
    pub(super) shm_size: Option<u64>,
    pub(super) ulimits: IndexMap<String, (i64, i64)>,
    pub(super) extra_hosts: Vec<(String, String)>,
    /// Top first.
    pub(super) lower: Vec<PathBuf>,
    /// Holds `upper` and `work`.
    pub(super) directory: PathBuf,
    /// All output goes there as it comes, both streams together; opened for appending.
    pub(super) log: std::fs::File,
}

/// How the command ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    /// The last lines it printed, both streams together.
    pub(super) output: Vec<String>,
}

/// Launchers and network of one build.
#[derive(Default)]
pub(super) struct Runners {
    program: Option<PathBuf>,
    shared: OnceCell<Shared>,
    host: OnceCell<Launcher>,
}

/// Where a RUN runs.
struct Place<'a> {
    launcher: &'a Launcher,
    resolv_conf: String,
    hosts: String,
    /// The host's address (`host-gateway`).
    gateway: Option<IpAddr>,
}

struct Shared {
    network: BuildNetwork,
    launcher: Launcher,
}

pub(super) type OnLine<'a> = &'a (dyn Fn(Stream, String) + Sync);
pub(super) type OnNote<'a> = &'a (dyn Fn(String) + Sync);

impl Runners {
    /// `program`: the binary to launch with; `None`: the running one.
    pub(super) fn new(program: Option<PathBuf>) -> Self {
        Self { program, ..Self::default() }
    }

    async fn shared(&self) -> Result<&Shared> {
        let start = || async {
            let network = BuildNetwork::start().doing(|| "make the network of the build")?;
            let netns = network.netns.try_clone().doing(|| "share the network of the build")?;
            Ok(Shared { launcher: self.launcher(LauncherNetns::Join(netns)).await?, network })
        };
        self.shared.get_or_try_init(start).await
    }

    async fn launcher(&self, netns: LauncherNetns) -> Result<Launcher> {
        let options = LauncherOptions { netns, program: self.program.clone(), ..LauncherOptions::default() };
        // It waits for the new process to answer.
        super::shared::blocking(|| Launcher::spawn(options).doing(|| "start the launcher of the build")).await
    }

    async fn of(&self, network: Network, on_note: OnNote<'_>) -> Result<Place<'_>> {
        if network == Network::Default {
            let shared = self.shared().await?;
            if let Err(error) = shared.network.ready().await {
                on_note(format!("the build has no way out: {error}"));
            }
            return Ok(Place {
                launcher: &shared.launcher,
                resolv_conf: shared.network.resolv_conf.clone(),
                hosts: shared.network.hosts.clone(),
                gateway: shared.network.host_gateway,
            });
        }
        let launcher = self.host.get_or_try_init(|| self.launcher(LauncherNetns::Current)).await?;
        let resolv_conf = match network {
            Network::Host => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            _ => String::new(),
        };
        // Without a network of its own the host is at the loopback address.
        let gateway = (network == Network::Host).then_some(std::net::Ipv4Addr::LOCALHOST.into());
        Ok(Place { launcher, resolv_conf, hosts: LOOPBACK_HOSTS.into(), gateway })
    }

    /// Runs the command to its end. Dropping the future kills it.
    pub(super) async fn run(&self, order: Order, on_line: OnLine<'_>, on_note: OnNote<'_>) -> Result<Ended> {
        let place = self.of(order.network, on_note).await?;
        let files = write_files(&order, &place).doing(|| "write hosts and resolv.conf")?;
        let directory = order.directory.clone();
        let (stdout, stdout_end) = pipe_to_read()?;
        let (stderr, stderr_end) = pipe_to_read()?;
        let stdin: OwnedFd = std::fs::File::open("/dev/null").doing(|| "open /dev/null")?.into();
        let log = order.log.try_clone().doing(|| "keep the output")?;
        let request = request(order, files, [stdin, stdout_end, stderr_end]);
        let created = place.launcher.create(request).await.map_err(refused)?;
        let guard = Guard::new(created.pid)?;
        created.warnings.iter().cloned().for_each(on_note);
        place.launcher.start(&created).await.map_err(refused)?.into_iter().for_each(on_note);
        let last = LastLines::default();
        let out = forward(stdout, &log, |line| on_line(Stream::Stdout, last.keep(line)));
        let err = forward(stderr, &log, |line| on_line(Stream::Stderr, last.keep(line)));
        let (out, err, gone) = tokio::join!(out, err, readable(&created.monitor));
        out.and(err).and(gone).doing(|| "follow the command")?;
        drop(guard);
        let exit = read_exit(&directory)?;
        Ok(Ended { exit, output: last.take() })
    }
}

fn refused(error: stack_runtime::launch::LaunchError) -> BuildFailure {
    let mut failure = BuildFailure::new(error.to_string());
    failure.exit_code = Some(error.code);
    if error.code == 127 {
        failure = failure.hint("Is the program, or the shell of the shell form, in the image?");
    }
    failure
}

fn request(order: Order, files: Vec<MountSpec>, stdio: [OwnedFd; 3]) -> LaunchRequest {
    let id = order.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let network = if order.network == Network::None { NetworkMode::None } else { NetworkMode::Inherit };
    let spec = ContainerSpec {
        name: id.clone(),
        args: order.args,
        env: order.env.into_iter().collect(),
        working_dir: order.working_dir,
        user: order.user,
        hostname: Some(HOSTNAME.into()),
        mounts: files.into_iter().chain(order.mounts).collect(),
        shm_size: order.shm_size,
        ulimits: order.ulimits,
        network,
        ..ContainerSpec::default()
    };
    LaunchRequest {
        cgroup: group(&id),
        id,
        dir: order.directory,
        spec,
        lower_dirs: order.lower,
        files: BindFiles::default(),
        volumes: IndexMap::new(),
        images: order.images,
        join: JoinPids::default(),
        stdio: LaunchStdio::Fds(stdio),
        ephemeral: true,
    }
}

/// Read-only, unless a mount of the user is at the same path.
fn write_files(order: &Order, place: &Place<'_>) -> std::io::Result<Vec<MountSpec>> {
    let path = |name: &str| order.directory.join(name);
    let mut binds = Vec::new();
    for (name, text) in [("hosts", hosts(order, place)), ("resolv.conf", place.resolv_conf.clone())] {
        home::replace(&path(name), text.as_bytes())?;
        std::fs::set_permissions(path(name), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        let target = format!("/etc/{name}");
        if !order.mounts.iter().any(|mount| mount.target == target) {
            binds.push(super::mounts::bind(path(name), &target, true));
        }
    }
    Ok(binds)
}

fn hosts(order: &Order, place: &Place<'_>) -> String {
    let mut hosts = place.hosts.clone();
    if !hosts.contains(HOSTNAME) {
        hosts.push_str(&format!("127.0.0.1\t{HOSTNAME}\n"));
    }
    for (name, address) in &order.extra_hosts {
        match (address.as_str(), place.gateway) {
            ("host-gateway", Some(gateway)) => hosts.push_str(&format!("{gateway}\t{name}\n")),
            ("host-gateway", None) => {}
            (address, _) => hosts.push_str(&format!("{address}\t{name}\n")),
        }
    }
    hosts
}

fn read_exit(directory: &Path) -> Result<Exit> {
    let exit = home::read_json(&directory.join("exit.json")).doing(|| "read how the command ended")?;
    // Nobody saw it.
    Ok(exit.unwrap_or_default())
}

/// Kills the container when the build goes on without it.
struct Guard(OwnedFd);

impl Guard {
    fn new(pid: i32) -> Result<Self> {
        let pid = rustix::process::Pid::from_raw(pid)
            .ok_or_else(|| BuildFailure::new("the container has no process"))?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty()).doing(|| "watch the container")?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Ended already is the normal case.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

fn pipe_to_read() -> Result<(pipe::Receiver, OwnedFd)> {
    let make = || {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok::<_, std::io::Error>((pipe::Receiver::from_owned_fd(read)?, write))
    };
    make().doing(|| "make a pipe")
}

/// Waits for a pidfd.
async fn readable(fd: &OwnedFd) -> std::io::Result<()> {
    let fd = fd.try_clone()?;
    let wait = move || loop {
        match rustix::event::poll(&mut [PollFd::new(&fd.as_fd(), PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    };
    tokio::task::spawn_blocking(wait).await.map_err(std::io::Error::other)?
}

/// Splits a stream into lines; a longer line than the limit is split, except in the log.
async fn forward(
    mut stream: pipe::Receiver,
    mut log: &std::fs::File,
    on_line: impl Fn(String),
) -> std::io::Result<()> {
    let mut open: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            if !open.is_empty() {
                on_line(text(&open));
            }
            return Ok(());
        }
        log.write_all(&buffer[..count])?;
        for byte in &buffer[..count] {
            if *byte == b'\n' || open.len() == LINE_BYTES_MAX {
                on_line(text(&open));
                open.clear();
            }
            if *byte != b'\n' {
                open.push(*byte);
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Default)]
struct LastLines(std::sync::Mutex<VecDeque<String>>);

impl LastLines {
    fn keep(&self, line: String) -> String {
        let mut lines = self.0.lock().expect("never poisoned: nothing panics while it is held");
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(500).collect());
        line
    }

    fn take(self) -> Vec<String> {
        self.0.into_inner().expect("never poisoned: nothing panics while it is held").into()
    }
}

/// The control group of a RUN step, by the name of its working directory.
pub(super) fn group(id: &str) -> String {
    format!("stack/build/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::io::Read;

    #[tokio::test]
    async fn lines_are_split_and_bounded() {
        let (read, write) = pipe_to_read().expect("a pipe");
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::File::from(write);
            file.write_all(b"one\r\n\ntwo\nlast").expect("written");
            file.write_all(&vec![b'x'; LINE_BYTES_MAX + 10]).expect("written");
        });
        let lines = RefCell::new(Vec::new());
        let log = tempfile::NamedTempFile::new().expect("a file");
        forward(read, log.as_file(), |line| lines.borrow_mut().push(line)).await.expect("read");
        let mut whole = String::new();
        log.reopen().and_then(|mut log| log.read_to_string(&mut whole)).expect("read");
        assert!(
            whole.starts_with("one\r\n\ntwo\nlast")
                && whole.len() == "one\r\n\ntwo\nlast".len() + LINE_BYTES_MAX + 10
        );
        writer.join().expect("written");
        let lines = lines.into_inner();
        assert_eq!(lines[..3], ["one", "", "two"]);
        assert_eq!((lines[3].len(), lines[4].len()), (LINE_BYTES_MAX, 14));
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let last = LastLines::default();
        for number in 0..250 {
            last.keep(number.to_string());
        }
        let kept = last.take();
        assert_eq!((kept.len(), kept[0].as_str()), (LAST_LINES, "50"));
    }
}
