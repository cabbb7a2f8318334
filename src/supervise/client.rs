//! The command line's end: finds the supervisor of a stack, or starts one, and asks.
//!
//! A [`Client`] holds one connection open for as long as it lives, so the supervisor does not end between two
//! requests; every request travels on a connection of its own, so requests never wait for each other.

use super::protocol::{Attach, Notice, Reply, Request, Watched};
use super::wire::Wire;
use stack_runtime::engine::{EngineError, ErrorKind, Result, Until, Waited};
use stack_runtime::home::Home;
use stack_runtime::monitor::Attachment;
use stack_runtime::spec::ExecSpec;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// What a started supervisor writes to its standard output when it answers.
pub(super) const READY: &str = "ready\n";

const OWN_PROGRAM: &str = "/proc/self/exe";

/// See the module.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    project: String,
    _lease: Wire,
}

/// Names of the supervisor's files in the run directory of a stack.
pub(super) fn socket_path(home: &Home, project: &str) -> PathBuf {
    home.run_of(project).join("supervisor.sock")
}

impl Client {
    /// `None` when no supervisor runs.
    pub async fn connect(home: &Home, project: &str) -> Result<Option<Self>> {
        let socket = socket_path(home, project);
        let Some(mut lease) = open(&socket, project).await? else { return Ok(None) };
        match ping(&mut lease).await {
            Ok(Reply::Pong { .. }) => Ok(Some(Self { socket, project: project.into(), _lease: lease })),
            Ok(other) => Err(unexpected(&other)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(lost(project, &e)),
        }
    }

    /// The running supervisor, or a new one, started from this very program.
    pub async fn connect_or_spawn(home: &Home, project: &str) -> Result<Self> {
        Self::connect_or_spawn_from(Path::new(OWN_PROGRAM), home, project).await
    }

    /// As [`Client::connect_or_spawn`], with the program named (tests are not `stack` themselves).
    pub async fn connect_or_spawn_from(program: &Path, home: &Home, project: &str) -> Result<Self> {
        // A supervisor may end just before we reach it, or be killed before it answers.
        const ATTEMPTS: u32 = 5;
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            if let Some(client) = Self::connect(home, project).await? {
                return Ok(client);
            }
            match spawn(program, home, project).await {
                Err(e) if e.kind == ErrorKind::Unreachable => failure = Some(e),
                spawned => spawned?,
            }
        }
        Err(failure.unwrap_or_else(|| gone(project)))
    }

    pub fn project(&self) -> &str {
        &self.project
    }

    pub async fn ensure_network(&self, name: &str) -> Result<()> {
        self.done(Request::EnsureNetwork { name: name.into() }).await
    }
    /// The namespace with the bridge of a network of this stack. It is there for as long as the client lives.
    pub async fn join_network(&self, name: &str) -> Result<OwnedFd> {
        match self.request(Request::JoinNetwork { name: name.into() }, &[]).await? {
            (Reply::Done, mut fds) => fds.pop().ok_or_else(|| gone(&self.project)),
            (other, _) => Err(unexpected(&other)),
        }
    }
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        self.done(Request::RemoveNetwork { name: name.into() }).await
    }
    pub async fn start(&self, id: &str) -> Result<()> {
        self.done(Request::Start { id: id.into(), attach: None }).await
    }
    /// Starts it and gives its streams, from the first byte unless it ran already.
    pub async fn start_attached(&self, id: &str, attach: Attach) -> Result<Attachment> {
        let request = Request::Start { id: id.into(), attach: Some(attach) };
        let socket = match self.request(request, &[]).await? {
            (Reply::Done, mut fds) => fds.pop().ok_or_else(|| gone(&self.project))?,
            (other, _) => return Err(unexpected(&other)),
        };
        Attachment::new(socket).map_err(|e| lost(&self.project, &e))
    }
    /// Returns when it has ended.
    pub async fn stop(&self, id: &str, signal: Option<&str>, grace: Option<Duration>) -> Result<()> {
        self.done(Request::Stop { id: id.into(), signal: signal.map(Into::into), grace }).await
    }
    pub async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        self.done(Request::Signal { id: id.into(), signal: signal.into() }).await
    }
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.done(Request::Pause { id: id.into() }).await
    }
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.done(Request::Resume { id: id.into() }).await
    }
    pub async fn renamed(&self, id: &str) -> Result<()> {
        self.done(Request::Renamed { id: id.into() }).await
    }
    pub async fn remove(&self, id: &str, volumes: bool) -> Result<()> {
        self.done(Request::Remove { id: id.into(), volumes }).await
    }
    /// Refused while a container runs.
    pub async fn shutdown(&self) -> Result<()> {
        self.done(Request::Shutdown).await
    }

    pub async fn wait(&self, id: &str, until: Until) -> Result<Waited> {
        match self.request(Request::Wait { id: id.into(), until }, &[]).await?.0 {
            Reply::Waited(waited) => Ok(waited),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn inspect(&self) -> Result<Vec<Watched>> {
        match self.request(Request::Inspect, &[]).await?.0 {
            Reply::Containers(containers) => Ok(containers),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a process in a running container. It gets the three streams; without them it has a terminal of `size`
    /// rows and columns, whose master side comes back in [`Exec::terminal`].
    pub async fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        streams: Option<[BorrowedFd<'_>; 3]>,
        size: (u16, u16),
    ) -> Result<Exec> {
        let fds = streams.as_ref().map_or(&[][..], |streams| streams);
        let request = Request::Exec { id: id.into(), spec: spec.clone(), size };
        let mut wire = self.send(request, fds).await?;
        match self.reply(&mut wire).await? {
            (Reply::ExecStarted, fds) => {
                Ok(Exec { terminal: fds.into_iter().next(), wire, project: self.project.clone() })
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// What happens from now on.
    pub async fn subscribe(&self) -> Result<Notices> {
        let mut wire = self.send(Request::Subscribe, &[]).await?;
        match self.reply(&mut wire).await?.0 {
            Reply::Done => Ok(Notices { wire, project: self.project.clone() }),
            other => Err(unexpected(&other)),
        }
    }

    /// Any request that carries no descriptors and has one reply.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply> {
        self.request(request, &[]).await.map(|(reply, _)| reply)
    }

    async fn done(&self, request: Request) -> Result<()> {
        match self.request(request, &[]).await?.0 {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn request(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let mut wire = self.send(request, fds).await?;
        self.reply(&mut wire).await
    }

    async fn send(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Wire> {
        let wire = open(&self.socket, &self.project).await?.ok_or_else(|| gone(&self.project))?;
        wire.send(request, fds).await.map_err(|e| lost(&self.project, &e))?;
        Ok(wire)
    }

    async fn reply(&self, wire: &mut Wire) -> Result<(Reply, Vec<OwnedFd>)> {
        next_reply(wire, &self.project).await
    }
}

/// A process that runs in a container for us.
#[derive(Debug)]
pub struct Exec {
    /// The master side of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    wire: Wire,
    project: String,
}

impl Exec {
    /// Its exit code; 128 + n for a signal.
    pub async fn wait(&mut self) -> Result<i32> {
        match next_reply(&mut self.wire, &self.project).await?.0 {
            Reply::ExecEnded { code } => Ok(code),
            other => Err(unexpected(&other)),
        }
    }
}

/// What happens to the containers of a stack.
#[derive(Debug)]
pub struct Notices {
    wire: Wire,
    project: String,
}

impl Notices {
    /// `None` when the supervisor has ended.
    pub async fn next(&mut self) -> Result<Option<Notice>> {
        match self.wire.receive().await {
            Ok(Some((Reply::Notice(notice), _))) => Ok(Some(notice)),
            Ok(Some((Reply::Failed(error), _))) => Err(error),
            Ok(Some((other, _))) => Err(unexpected(&other)),
            Ok(None) => Ok(None),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(lost(&self.project, &e)),
        }
    }
}

async fn next_reply(wire: &mut Wire, project: &str) -> Result<(Reply, Vec<OwnedFd>)> {
    match wire.receive().await {
        Ok(Some((Reply::Failed(error), _))) => Err(error),
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(gone(project)),
        Err(e) => Err(lost(project, &e)),
    }
}

async fn open(socket: &Path, project: &str) -> Result<Option<Wire>> {
    match connect(socket).await.and_then(Wire::new) {
        Ok(wire) => Ok(Some(wire)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(EngineError::new(ErrorKind::PermissionDenied, format!("failed to reach the supervisor: {e}"))
                .hint(format!(
                    "The stack `{project}` belongs to another user; run the command as that user."
                )))
        }
        Err(e) => Err(lost(project, &e)),
    }
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let short = ShortPath::of(socket)?;
    UnixStream::connect(short.path()).await
}

/// A socket's address has at most 107 bytes; a path may have more. Through a descriptor of its directory it is short.
pub(super) struct ShortPath {
    directory: File,
    name: PathBuf,
}

impl ShortPath {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let parts = path.parent().zip(path.file_name());
        let (directory, name) = parts.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { directory: File::open(directory)?, name: name.into() })
    }
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(&self.name)
    }
}

async fn ping(wire: &mut Wire) -> io::Result<Reply> {
    wire.send(Request::Ping, &[]).await?;
    let (reply, _) = wire.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(reply)
}

/// Nobody listens, or it ended before it answered.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | UnexpectedEof)
}

fn gone(project: &str) -> EngineError {
    EngineError::new(
        ErrorKind::Unreachable,
        format!("the supervisor of `{project}` ended before it answered"),
    )
    .hint("Run the command again: a new supervisor takes over.")
}

fn lost(project: &str, error: &io::Error) -> EngineError {
    let kind = if is_gone(error) { ErrorKind::Unreachable } else { ErrorKind::Other };
    EngineError::new(kind, format!("failed to talk to the supervisor of `{project}`: {error}"))
}

pub(crate) fn unexpected(reply: &Reply) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("the supervisor gave an answer to something else: {reply:?}"))
}

/// Starts `__supervise PROJECT` and waits until it answers, or says why it does not.
///
/// Its standard output is our pipe: it writes one line and lets go of it. Its messages go to `supervisor.log`.
async fn spawn(program: &Path, home: &Home, project: &str) -> Result<()> {
    let failed = |e: io::Error| {
        EngineError::new(ErrorKind::Other, format!("failed to start the supervisor of `{project}`: {e}"))
    };
    let mut child = command(program, home, project).map_err(failed)?.spawn().map_err(failed)?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said).await.map_err(failed)?;
    }
    // Reaped in the background if it ends while we are still there.
    tokio::spawn(async move { child.wait().await });
    match said.as_str() {
        READY => Ok(()),
        "" => Err(EngineError::new(
            ErrorKind::Unreachable,
            format!("failed to start the supervisor of `{project}`: it ended before it answered"),
        )
        .hint(format!("Its messages are in {}.", home.run_of(project).join("supervisor.log").display()))),
        reason => Err(failed(io::Error::other(reason.trim_end()))),
    }
}

/// Opens a file of the run directory, and makes both where they are missing: a supervisor that ends removes them at
/// the same time.
pub(super) fn create_in_run(
    home: &Home,
    project: &str,
    name: &str,
    options: &mut std::fs::OpenOptions,
) -> io::Result<File> {
    const ATTEMPTS: u32 = 100;
    let run = home.run_of(project);
    for _ in 1..ATTEMPTS {
        std::fs::create_dir_all(&run)?;
        match options.create(true).open(run.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
    }
    options.open(run.join(name))
}

fn command(program: &Path, home: &Home, project: &str) -> io::Result<tokio::process::Command> {
    home.prepare()?;
    let log = create_in_run(home, project, "supervisor.log", File::options().append(true))?;
    let mut command = match stack_runtime::cgroup::delegated::scope(project) {
        Some(mut scope) => {
            // The link means another program there.
            let own = format!("/proc/{}/exe", std::process::id());
            scope.arg(if program == Path::new(OWN_PROGRAM) { Path::new(&own) } else { program });
            tokio::process::Command::from(scope)
        }
        None => {
            let mut command = tokio::process::Command::new(program);
            command.arg0("stack");
            command
        }
    };
    command.args(["__supervise", project]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    if *home != Home::from_env() {
        command.env("STACK_HOME", &home.data);
    }
    Ok(command)
}
