//! The supervisor's process: `stack __supervise PROJECT`.
//!
//! | file in `run/PROJECT/` | is |
//! |---|---|
//! | `supervisor.lock` | locked for as long as the supervisor lives: there is one |
//! | `supervisor.json` | who it is ([`ProcessMark`]) |
//! | `supervisor.sock` | where it listens ([`super::protocol`]) |
//! | `supervisor.log` | what it had to say; empty in good times |
//!
//! It ends by itself when nothing runs and nobody is connected, and takes these files, the stack's network and its
//! launcher along. Killed, it leaves everything: its launcher starts the next one, or the next command does.

use super::client::{READY, ShortPath, create_in_run, socket_path};
use super::protocol::What;
use super::stack::Stack;
use super::wire::Wire;
use super::{Client, connection, neighbour};
use crate::host::process::ProcessMark;
use crate::host::record;
use stack_runtime::engine::ErrorKind;
use stack_runtime::home::{self, Home};
use stack_runtime::launch::{Launcher, LauncherNetns, LauncherOptions};
use stack_runtime::monitor::{self, RunRecord};
use stack_runtime::network::{Host, StackNetwork, UplinkState, shared};
use stack_runtime::sys;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};

/// DNS, published ports and probes share these.
const WORKERS: usize = 2;
/// How long a second supervisor waits for the first to answer or to go.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a fresh one waits for whoever started it.
const FIRST_CLIENT: Duration = Duration::from_secs(5);
const LOCK: &str = "supervisor.lock";
const PAUSE: Duration = Duration::from_millis(5);
/// Between two looks whether containers of other stacks still use a network, when nobody is there to tell.
const GUESTS: Duration = Duration::from_secs(1);

/// Whether a supervisor of the project runs, from its file and `/proc`.
pub fn is_alive(home: &Home, project: &str) -> bool {
    let mark: Option<ProcessMark> =
        home::read_json(&home.run_of(project).join("supervisor.json")).ok().flatten();
    mark.is_some_and(ProcessMark::is_alive)
}

/// Waits until the supervisor is gone; not for one that has containers or other clients.
pub async fn gone(home: &Home, project: &str) {
    // A connection that was just closed may still be counted.
    const OTHERS: Duration = Duration::from_millis(500);
    let begun = Instant::now();
    while is_alive(home, project) && begun.elapsed() < PATIENCE {
        if let Ok(Some(client)) = Client::connect(home, project).await {
            match client.shutdown().await {
                Err(e) if e.kind == ErrorKind::Conflict || begun.elapsed() > OTHERS => return,
                _ => {}
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Second argument of a supervisor that replaces a killed one: nobody is about to connect to it.
const REPLACEMENT: &str = "replacement";

/// The hidden entry. Says `ready` on its standard output when it (or another supervisor) answers, or why not.
pub fn main(project: &str, role: Option<&str>) -> ExitCode {
    log_to_stderr();
    // A command that is interrupted does not take the supervisor along. It fails only for the leader of a group,
    // which nobody interrupts from a terminal.
    let _ = rustix::process::setsid();
    rename_process();
    if let Err(e) = stack_runtime::cgroup::delegated::settle() {
        tracing::warn!("no control groups: {e}");
    }
    let home = Home::from_env();
    let patience = if role == Some(REPLACEMENT) { Duration::ZERO } else { FIRST_CLIENT };
    match supervise(&home, project, patience) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            say(&format!("{e}\n"));
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STACK_LOG").unwrap_or_else(|_| "warn".into());
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr).try_init();
}

fn rename_process() {
    // Only for the eyes of whoever lists processes.
    let _ = rustix::thread::set_name(c"stack");
}

/// The first line goes to whoever started us; afterwards the pipe is let go of, so that they see its end.
fn say(line: &str) {
    // Nobody reading is fine: a replacement is started without a reader.
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
    if let Ok(nothing) = File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(nothing);
    }
}

fn supervise(home: &Home, project: &str, patience: Duration) -> io::Result<()> {
    home.prepare()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let done = runtime.block_on(async {
        match only_one(home, project).await? {
            Some(lock) => run(home, project, lock, patience).await,
            None => {
                say(READY);
                Ok(())
            }
        }
    });
    // A thread that is stuck in the kernel must not keep an ended supervisor.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// The lock of the one supervisor, or `None` when another one answers.
async fn only_one(home: &Home, project: &str) -> io::Result<Option<File>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(lock) = try_lock(home, project)? {
            return Ok(Some(lock));
        }
        if Client::connect(home, project).await.is_ok_and(|client| client.is_some()) {
            return Ok(None);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another supervisor neither answers nor ends"))
}

/// The last supervisor removed the file on its way out: only a lock on the file that is there now counts.
fn try_lock(home: &Home, project: &str) -> io::Result<Option<File>> {
    let file = create_in_run(home, project, LOCK, File::options().write(true))?;
    let path = home.run_of(project).join(LOCK);
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(e)) => return Err(e),
        Ok(()) => {}
    }
    let is_same =
        fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() == now.ino()));
    Ok(is_same.then_some(file))
}

async fn run(home: &Home, project: &str, lock: File, patience: Duration) -> io::Result<()> {
    let stack = open(home, project)?;
    let listener = listen(home, project)?;
    write_mark(home, project)?;
    adopt(&stack);
    tokio::spawn(tell_uplink(stack.clone()));
    let keeping = tokio::spawn(keep_launcher(stack.clone(), stack.launcher().netns()?));
    say(READY);
    serve(&stack, listener, patience).await;
    keeping.abort();
    close(&stack).await;
    drop(lock);
    Ok(())
}

fn open(home: &Home, project: &str) -> io::Result<Arc<Stack>> {
    let host = Host::here()?;
    let netns = given_netns().or_else(|| living_netns(home, project));
    let netns = netns.or_else(|| shared::kept_namespace(home, project));
    let launcher = launcher(project, netns.map_or(LauncherNetns::New, LauncherNetns::Join))?;
    let network = StackNetwork::open(home, project, launcher.netns()?, host)
        .map_err(|e| io::Error::other(e.to_string()))?
        .neighbours(neighbour::of(home));
    Ok(Stack::new(home.clone(), project.into(), launcher, network))
}

/// Nobody waits for the way out of the stack; that it does not come is told to whoever listens.
async fn tell_uplink(stack: Arc<Stack>) {
    let mut uplink = stack.network.uplink();
    while uplink.changed().await.is_ok() {
        let state = uplink.borrow_and_update().clone();
        if let UplinkState::Failed(why) = state {
            tracing::warn!("{why}");
            stack.tell("", &stack.project, What::Warning(why));
        }
    }
}

fn launcher(project: &str, netns: LauncherNetns) -> io::Result<Launcher> {
    let respawn = Some(vec!["__supervise".into(), project.into(), REPLACEMENT.into()]);
    Launcher::spawn(LauncherOptions { netns, respawn, ..Default::default() })
}

/// A launcher that is killed is replaced by one in the same network namespace. Containers do not notice.
async fn keep_launcher(stack: Arc<Stack>, netns: OwnedFd) -> io::Result<()> {
    loop {
        let Some(pid) = rustix::process::Pid::from_raw(stack.launcher().pid()) else { return Ok(()) };
        match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            Ok(ended) => drop(sys::watch(ended)?.readable().await?),
            Err(rustix::io::Errno::SRCH) => {}
            Err(e) => return Err(e.into()),
        }
        tracing::warn!("the launcher was killed; another one is started");
        stack.replace_launcher(launcher(&stack.project, LauncherNetns::Join(netns.try_clone()?))?);
    }
}

/// A replacement's launcher hands the stack's network namespace on as standard input.
fn given_netns() -> Option<OwnedFd> {
    let given = fs::read_link("/proc/self/fd/0").ok()?;
    given.to_str()?.strip_prefix("net:")?;
    let netns = io::stdin().as_fd().try_clone_to_owned().ok()?;
    // Nothing that is started from here may keep it.
    let _ = nix::unistd::dup2_stdin(File::open("/dev/null").ok()?);
    Some(netns)
}

/// The stack's network namespace lives on in the monitors of running containers.
fn living_netns(home: &Home, project: &str) -> Option<OwnedFd> {
    let ids = record::container_ids(home, project).unwrap_or_default();
    ids.iter().find_map(|id| {
        let run = RunRecord::read(&home.container(project, id)).ok()??;
        let netns = File::open(format!("/proc/{}/ns/net", run.monitor_pid)).ok()?;
        // Opened first, compared second.
        run.is_alive().then(|| netns.into())
    })
}

fn listen(home: &Home, project: &str) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let path = socket_path(home, project);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(ShortPath::of(&path)?.path())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn write_mark(home: &Home, project: &str) -> io::Result<()> {
    let mark = ProcessMark::of(std::process::id().cast_signed())?;
    home::replace_json(&home.run_of(project).join("supervisor.json"), &mark)
}

/// Takes over what an earlier supervisor left. A container that cannot be read is left alone.
fn adopt(stack: &Arc<Stack>) {
    for id in record::container_ids(&stack.home, &stack.project).unwrap_or_default() {
        if let Err(e) = stack.keeper(&id) {
            tracing::warn!("{e}");
        }
    }
}

/// Until nothing runs, nobody is connected and no other stack uses a network of ours. Whoever started us has a moment
/// to come in.
async fn serve(stack: &Arc<Stack>, listener: UnixListener, patience: Duration) {
    let mut idle_at = Some(tokio::time::Instant::now() + patience);
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => {
                idle_at = None;
                welcome(stack, accepted.map(|(stream, _)| stream));
            }
            () = stack.changed.notified() => if idle_at.is_none() && stack.is_idle() {
                if !stack.has_guests() {
                    break;
                }
                idle_at = Some(tokio::time::Instant::now() + GUESTS);
            },
            () = tokio::time::sleep_until(idle_at.unwrap_or_else(tokio::time::Instant::now)), if idle_at.is_some() => {
                idle_at = None;
                // Asks once more, as any change does.
                stack.changed.notify_one();
            }
        }
    }
}

fn welcome(stack: &Arc<Stack>, accepted: io::Result<UnixStream>) {
    match accepted.and_then(Wire::new) {
        Ok(wire) => {
            let lease = stack.lease(wire.sender.line());
            tokio::spawn(connection::serve(stack.clone(), wire, lease));
        }
        Err(e) => tracing::warn!("a connection was refused: {e}"),
    }
}

/// Nothing is left: network, launcher, files. The socket is gone first, so nobody new comes in.
async fn close(stack: &Stack) {
    let run = stack.home.run_of(&stack.project);
    for name in ["supervisor.sock", "supervisor.json"] {
        let _ = fs::remove_file(run.join(name));
    }
    stack.network.close().await;
    end_launcher(stack).await;
    for name in ["supervisor.log", LOCK] {
        let _ = fs::remove_file(run.join(name));
    }
    let _ = fs::remove_dir(&run);
}

/// Told first: a launcher that only sees us end starts the next supervisor.
async fn end_launcher(stack: &Stack) {
    let launcher = stack.launcher();
    let pid = launcher.pid();
    launcher.say_goodbye();
    let deadline = Instant::now() + PATIENCE;
    while monitor::start_time(pid).is_ok() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
