//! A monitor's life: make the init, wait for the go, watch, witness the end. Single-threaded, no runtime.

use super::streams::Streams;
use super::{RunRecord, start_time, start_time_of_child};
use crate::cgroup::Group;
use crate::container::Bundle;
use crate::home;
use crate::init::{self, Child, Context, Note};
use crate::launch::message::{Command, Reply};
use crate::launch::{LaunchError, Named};
use crate::observed::Exit;
use crate::sys::{packet, process};
use jiff::Timestamp;
use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How far init has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub warnings: Vec<String>,
    pub terminal: Option<OwnedFd>,
    pub failure: Option<LaunchError>,
    /// Where the system call filter will ask.
    pub listener: Option<i32>,
    /// Hooks may run now.
    pub prepared: bool,
    /// Only the start is missing.
    pub ready: bool,
    pub executing: bool,
}

struct Monitor {
    _claim: home::Lock,
    bundle: Bundle,
    group: Group,
    child: Child,
    streams: Streams,
    started_at: String,
}

/// Serves one container to its end.
pub(crate) fn run(bundle: Bundle, reply: OwnedFd, given: Vec<OwnedFd>) -> ! {
    settle(c"stack-monitor");
    if bundle.ephemeral {
        // Dies with the launcher; init dies with the monitor.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    }
    match Monitor::create(bundle, &reply, given) {
        Ok(monitor) => monitor.serve(reply),
        Err(error) => tell(&reply, &Reply::Failed(error), &[]),
    }
    process::exit(0)
}

/// Waits for an earlier monitor of the container to finish: when its owner is killed between create and go, it still
/// has to undo what it made, at the very same places.
fn claim(dir: &Path) -> Result<home::Lock, LaunchError> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match home::try_lock(&dir.join(super::CLAIM)).named("claim the container")? {
            Some(claim) => return Ok(claim),
            None if Instant::now() > deadline => {
                return Err(LaunchError::new("claim the container", "another monitor has it"));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A session of its own, a name to be found by, and no signal but SIGKILL to end it.
pub(crate) fn settle(name: &std::ffi::CStr) {
    // Whoever reads the owner's output must not wait for us.
    if let Ok(null) = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) {
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(name);
    process::default_signals();
    process::ignore_signals(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE]);
}

/// The owner may be gone; then nobody needs to know.
pub(crate) fn tell(reply: &OwnedFd, message: &Reply, fds: &[BorrowedFd<'_>]) {
    if let Ok(bytes) = serde_json::to_vec(message) {
        let _ = packet::send(reply, &bytes, fds);
    }
}

impl Monitor {
    fn create(bundle: Bundle, reply: &OwnedFd, given: Vec<OwnedFd>) -> Result<Self, LaunchError> {
        let claim = claim(&bundle.dir)?;
        prepare_dir(&bundle).named(format!("prepare {}", bundle.dir.display()))?;
        let resources =
            bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let (group, warnings) = Group::create(&bundle.cgroup, &resources).named("make the control group")?;
        let made = Streams::open(&bundle, given).named("make the standard streams");
        let cloned = made.and_then(|(streams, theirs)| Ok((streams, start_init(&bundle, &group, theirs)?)));
        let (streams, child) = cloned.inspect_err(|_| drop(group.remove()))?;
        let monitor = Self { _claim: claim, bundle, group, child, streams, started_at: String::new() };
        let announced = monitor.announce(reply, warnings).and_then(|()| monitor.place());
        announced.inspect_err(|_| monitor.abandon())?;
        Ok(monitor)
    }

    /// In its control groups (but for what it was cloned into), init may proceed.
    fn place(&self) -> Result<(), LaunchError> {
        self.group.place(self.child.pid).named("enter the control group")?;
        packet::send(&self.child.link, b"p", &[]).named("start init")
    }

    /// The owner can set up the network, while init mounts.
    fn announce(&self, reply: &OwnedFd, warnings: Vec<String>) -> Result<(), LaunchError> {
        let netns = fs::File::open(self.netns()).named("open the network namespace")?;
        let own = rustix::process::getpid();
        let pidfd =
            rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).named("open a pidfd")?;
        let created =
            Reply::Created { pid: self.child.pid, monitor_pid: own.as_raw_nonzero().get(), warnings };
        tell(reply, &created, &[netns.as_fd(), pidfd.as_fd()]);
        Ok(())
    }

    /// The joined one, the launcher's, or the new one, which exists since the clone.
    fn netns(&self) -> String {
        let namespaces = self.bundle.spec.linux().as_ref().and_then(|linux| linux.namespaces().clone());
        let network =
            namespaces.unwrap_or_default().into_iter().find(|namespace| namespace.typ() == Kind::Network);
        match network.and_then(|namespace| namespace.path().clone()) {
            Some(path) => path.to_string_lossy().into_owned(),
            None => format!("/proc/{}/ns/net", self.child.pid),
        }
    }

    fn serve(mut self, reply: OwnedFd) {
        let mut progress = Progress::default();
        match self.wait_for_go(&reply, &mut progress) {
            Ok(true) => {}
            // The owner went without a go.
            Ok(false) | Err(_) => return self.abandon(),
        }
        if let Err(error) = self.start(&mut progress) {
            self.fail(&error);
            return tell(&reply, &Reply::Failed(error), &[]);
        }
        tell(&reply, &Reply::Started { warnings: progress.warnings }, &[]);
        drop(reply);
        // From here on there is little to do, for as long as the container runs.
        crate::sys::memory::trim();
        self.streams.pump(&self.child.pidfd);
        self.witness();
    }

    fn wait_for_go(&self, reply: &OwnedFd, progress: &mut Progress) -> io::Result<bool> {
        loop {
            let mut fds = vec![PollFd::new(reply, PollFlags::IN)];
            if progress.failure.is_none() {
                fds.push(PollFd::new(&self.child.link, PollFlags::IN));
            }
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            let (asked, noted) =
                (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|fd| !fd.revents().is_empty()));
            if asked {
                let (bytes, _) = packet::receive(reply)?;
                return Ok(matches!(serde_json::from_slice(&bytes), Ok(Command::Go)));
            }
            if noted && !progress.read(&self.child) {
                progress.failure.get_or_insert_with(|| killed(&self.child));
            }
        }
    }

    /// `run.json` first, then the program.
    fn start(&mut self, progress: &mut Progress) -> Result<(), LaunchError> {
        while self.bundle.has_terminal() && progress.terminal.is_none() && progress.read(&self.child) {}
        if let Some(failure) = progress.failure.take() {
            return Err(failure);
        }
        if let Some(terminal) = progress.terminal.take() {
            self.streams.set_terminal(terminal);
        }
        self.streams.greet();
        self.hooks().named("run the hooks of its devices")?;
        self.started_at = Timestamp::now().to_string();
        self.write_run().named("write run.json")?;
        // One that is gone has said why.
        let _ = packet::send(&self.child.link, b"g", &[]);
        progress.finish(&self.child)
    }

    /// Those that run outside; init runs the others.
    #[allow(deprecated)] // devices still bring hooks of the kind `prestart`
    fn hooks(&self) -> io::Result<()> {
        let Some(hooks) = self.bundle.spec.hooks() else { return Ok(()) };
        let mut state = self.bundle.state("creating");
        state.set_pid(Some(self.child.pid));
        for list in [hooks.prestart(), hooks.create_runtime()].into_iter().flatten() {
            crate::oci::run_hooks(list, &state, None)?;
        }
        Ok(())
    }

    fn write_run(&self) -> io::Result<()> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let record = RunRecord {
            pid: self.child.pid,
            start_time: start_time_of_child(self.child.pid)?,
            monitor_pid: own,
            monitor_start_time: start_time(own)?,
            started_at: self.started_at.clone(),
        };
        let exit = self.bundle.dir.join("exit.json");
        match fs::remove_file(&exit) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => home::replace_json(&self.bundle.dir.join("run.json"), &record),
        }
    }

    /// The program has ended and is not reaped yet.
    fn witness(&self) {
        let status =
            waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let status = status.ok().flatten();
        let signal = status.as_ref().and_then(|status| status.terminating_signal());
        let code =
            status.as_ref().and_then(|status| status.exit_status()).or(signal.map(|signal| 128 + signal));
        let exit = Exit {
            code,
            signal,
            oom_killed: code != Some(0) && self.group.oom_killed(),
            error: None,
            started_at: self.started_at.clone(),
            finished_at: Timestamp::now().to_string(),
        };
        self.end(&exit);
    }

    fn fail(&self, error: &LaunchError) {
        let _ = pidfd_send_signal(&self.child.pidfd, Signal::KILL);
        let exit = Exit {
            code: Some(error.code),
            error: Some(error.to_string()),
            started_at: self.started_at.clone(),
            finished_at: Timestamp::now().to_string(),
            ..Exit::default()
        };
        self.end(&exit);
        // Last: with neither file it would look as if it had never been started.
        let _ = fs::remove_file(self.bundle.dir.join("run.json"));
    }

    /// The witness first; then the process, its group and everything else may go.
    fn end(&self, exit: &Exit) {
        // Nobody is left to hear of a failure: a missing file reads as an unknown end, which is the truth.
        let _ = home::replace_json(&self.bundle.dir.join("exit.json"), exit);
        self.reap();
    }

    /// Undoes a container that was never started.
    fn abandon(&self) {
        let _ = pidfd_send_signal(&self.child.pidfd, Signal::KILL);
        self.reap();
    }

    fn reap(&self) {
        let _ = waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED);
        let _ = self.group.remove();
        let _ = fs::remove_file(self.bundle.dir.join("attach.sock"));
    }
}

impl Progress {
    /// Takes one note; false when there are no more.
    pub(crate) fn read(&mut self, child: &Child) -> bool {
        let received = match packet::receive(&child.link) {
            // It ended without reading our go. That is told once, before what it had to say.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => packet::receive(&child.link),
            received => received,
        };
        let Ok((bytes, mut fds)) = received else { return false };
        match serde_json::from_slice(&bytes) {
            Ok(Note::Warning(warning)) => self.warnings.push(warning),
            Ok(Note::Terminal) => self.terminal = fds.pop(),
            Ok(Note::Listener(number)) => self.listener = Some(number),
            Ok(Note::Prepared) => self.prepared = true,
            Ok(Note::Ready) => self.ready = true,
            Ok(Note::Executing) => self.executing = true,
            Ok(Note::Failed(error)) => self.failure = Some(error),
            Err(_) => return false,
        }
        true
    }

    /// Waits until the program runs, or has failed to.
    pub(crate) fn finish(&mut self, child: &Child) -> Result<(), LaunchError> {
        while self.read(child) {}
        match self.failure.take() {
            Some(failure) => Err(failure),
            None if self.executing => Ok(()),
            None => Err(killed(child)),
        }
    }
}

pub(crate) fn killed(child: &Child) -> LaunchError {
    let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let signal = status.ok().flatten().and_then(|status| status.terminating_signal());
    let reason =
        signal.map_or_else(|| "init ended early".to_owned(), |n| format!("init was killed by signal {n}"));
    LaunchError::new("start the container", reason).code(128)
}

/// What the overlay needs, and the bundle for those who come later (exec).
fn prepare_dir(bundle: &Bundle) -> io::Result<()> {
    for name in ["root", "work"] {
        fs::create_dir_all(bundle.dir.join(name))?;
    }
    prepare_upper(bundle)?;
    if !bundle.ephemeral {
        home::replace_json(&bundle.dir.join("oci.json"), bundle)?;
    }
    if bundle.spec.hooks().is_some() {
        // Hooks look into a bundle for what they are about.
        fs::create_dir_all(bundle.hooks_dir())?;
        home::replace_json(&bundle.hooks_dir().join("config.json"), &bundle.spec)?;
    }
    Ok(())
}

/// The upper directory is what `/` looks like, so a new one gets owner and mode of the image's.
fn prepare_upper(bundle: &Bundle) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let upper = bundle.dir.join("upper");
    let Some(image) = bundle.extras.lower_dirs.first().filter(|_| !upper.exists()) else {
        return fs::create_dir_all(upper);
    };
    let meta = fs::metadata(image)?;
    fs::create_dir(&upper)?;
    chown(&upper, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(upper, meta.permissions())
}

fn start_init(bundle: &Bundle, group: &Group, streams: Option<[OwnedFd; 3]>) -> Result<Child, LaunchError> {
    init::birth(&bundle.spec, group, |link| {
        let environment = bundle.spec.process().as_ref().and_then(|process| process.env().clone());
        let mut context = Context::new(link, group, environment.unwrap_or_default());
        context.owns_streams = !bundle.extras.has_streams;
        context.streams = streams;
        let _ = process::close_all_except(&init::kept(&context));
        init::run(init::container(bundle), context)
    })
}
