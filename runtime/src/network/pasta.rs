//! One `pasta` process: a namespace's way out through the host's own sockets.
//!
//! It takes the host as it is: no rule, no `sysctl`, no address is added there, so another
//! tool's forward chain has nothing to drop. The interface gets an address of our own
//! instead of a copy of the host's. Therefore the host's address stays reachable from
//! inside (that is `host-gateway`, and published ports by that address), and the gateway
//! is not mapped to the host's loopback (`--no-map-gw`), so services that listen on
//! 127.0.0.1 of the host stay private, as with Docker. The options are those that the
//! releases of 2023 (Debian 12) and later ones have in common.

use super::UPLINK;
use crate::home;
use crate::monitor::{self, start_time_of_child};
use crate::sys::aside::{self, Life};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

const PROGRAM: &str = "pasta";
/// In its environment: the path of its log, which tells the processes of several stacks apart.
const MARK: &str = "STACK_UPLINK_LOG";
/// Link-local, so it can hide no address that is routed anywhere.
const ADDRESS: &str = "169.254.77.1";
const GATEWAY: &str = "169.254.77.2";
const PREFIX: &str = "30";
/// Configuring takes 60 to 90 ms on an idle machine.
const CONFIGURED: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(2);

/// A running process, ours or found again.
#[derive(Debug)]
pub(super) struct Pasta {
    pub(super) record: Record,
    pidfd: AsyncFd<OwnedFd>,
    /// Route tables of the namespace it serves.
    routes: Routes,
}

/// The process as recorded: the start time tells it from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pid: i32,
    start_time: u64,
}

impl Pasta {
    /// Starts one for `served`. Blocks for a few milliseconds; call it inside the async runtime.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn start(host: &OwnedFd, served: &OwnedFd, log: &Path, life: Life) -> Result<Self, String> {
        let mut command =
            command(log).map_err(|e| format!("{NOTHING_OUTSIDE}: failed to start `{PROGRAM}`: {e}"))?;
        command.env(MARK, log);
        let pid = aside::spawn(command, host, served, life).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => format!("{NOTHING_OUTSIDE}: failed to start `{PROGRAM}`: {e}"),
        })?;
        Self::watch(pid, served)
            .map_err(|_| format!("{NOTHING_OUTSIDE}: `{PROGRAM}` ended at once: {}", last_words(log)))
    }

    /// The recorded process, if it still runs.
    pub(super) fn find(record: Record, served: &OwnedFd) -> Option<Self> {
        let found = Self::watch(record.pid, served).ok()?;
        // Opened first, compared second: the number cannot change hands in between.
        (found.record == record).then_some(found)
    }

    fn watch(pid: i32, served: &OwnedFd) -> io::Result<Self> {
        let number = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = aside::watched(pidfd_open(number, PidfdFlags::NONBLOCK)?)?;
        let start_time = start_time_of_child(pid)?;
        let routes = Routes::open(served)?;
        Ok(Self { record: Record { pid, start_time }, pidfd, routes })
    }

    /// Until the namespace has a default route.
    pub(super) async fn configured(&self, log: &Path) -> Result<(), String> {
        let since = Instant::now();
        while !self.routes.lead_out() {
            if since.elapsed() > CONFIGURED {
                let seconds = CONFIGURED.as_secs();
                return Err(format!(
                    "{NOTHING_OUTSIDE}: `{PROGRAM}` did not configure the way out in {seconds} s"
                ));
            }
            if tokio::time::timeout(Duration::from_millis(10), self.ended()).await.is_ok() {
                return Err(format!("{NOTHING_OUTSIDE}: `{PROGRAM}` ended: {}", last_words(log)));
            }
        }
        Ok(())
    }

    /// Until it has ended.
    pub(super) async fn ended(&self) {
        if let Err(error) = self.pidfd.readable().await {
            tracing::debug!(%error, "the end of {PROGRAM} cannot be seen");
            std::future::pending::<()>().await;
        }
    }

    /// Ends it: asked first, killed after a while.
    pub(super) async fn terminate(self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if let Err(error) = pidfd_send_signal(self.pidfd.get_ref(), signal) {
                tracing::debug!(%error, "{PROGRAM} had ended");
            }
            if tokio::time::timeout(GRACE, self.ended()).await.is_ok() {
                break;
            }
        }
    }
}

const NOTHING_OUTSIDE: &str = "containers reach nothing outside";

fn missing() -> String {
    format!(
        "`{PROGRAM}` is not installed, so containers reach nothing outside; install the package `passt` (apt-get install passt)"
    )
}

fn command(log: &Path) -> io::Result<Command> {
    let user = nix::unistd::geteuid();
    let mut command = Command::new(PROGRAM);
    command.args(["--foreground", "--quiet", "--config-net", "--netns-only", "--no-map-gw"]);
    command.args(["--runas", &user.to_string()]);
    command.arg("--netns").arg(aside::place());
    command.args(["--ns-ifname", UPLINK, "--address", ADDRESS, "--netmask", PREFIX, "--gateway", GATEWAY]);
    command.args(["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
    Ok(command)
}

/// What it said last, for an error. Its complaints about a missing system logger say nothing.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut lines = text.lines().rev().map(str::trim).filter(|l| !l.is_empty() && !l.contains("to syslog"));
    lines.next().map_or_else(|| "it gave no reason".to_owned(), |l| l.chars().take(300).collect())
}

/// Processes that were started with this log, also those that nobody came to record. One that was just forked shows
/// itself a moment later, so it is worth to look again.
pub(super) fn unrecorded(log: &Path) -> Vec<Pid> {
    const LOOKS: u32 = 5;
    let mark = format!("{MARK}={}", log.display());
    let is_it = |process: &Path| {
        // It is one program with `passt`, and may run as a variant for the processor.
        let is_name = |name: String| ["pasta", "passt"].iter().any(|known| name.starts_with(known));
        let named = std::fs::read_to_string(process.join("comm")).is_ok_and(is_name);
        let environment = || std::fs::read(process.join("environ")).unwrap_or_default();
        named && environment().split(|byte| *byte == 0).any(|own| own == mark.as_bytes())
    };
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let pid = |path: &Path| Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?);
        let found: Vec<Pid> = processes.filter(|path| is_it(path)).filter_map(|path| pid(&path)).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// Ends a recorded process without a runtime and without its supervisor, and removes the
/// record. A record of a process that has gone is just removed.
pub(super) fn stop_recorded(path: &Path) -> io::Result<()> {
    let Some(record) = home::read_json::<Record>(path)? else { return Ok(()) };
    if let Some(pid) = Pid::from_raw(record.pid)
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        && monitor::start_time(record.pid).is_ok_and(|t| t == record.start_time)
    {
        pidfd_send_signal(&pidfd, Signal::KILL)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The route tables of one namespace, opened in it once.
#[derive(Debug)]
struct Routes {
    ipv4: File,
    ipv6: Option<File>,
}

impl Routes {
    fn open(netns: &OwnedFd) -> io::Result<Self> {
        let netns = netns.try_clone()?;
        let open = move || {
            crate::sys::netns::enter(&netns)?;
            let ipv6 = File::open("/proc/thread-self/net/ipv6_route").ok();
            Ok(Self { ipv4: File::open("/proc/thread-self/net/route")?, ipv6 })
        };
        let thread = std::thread::Builder::new().name("routes".into()).spawn(open)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    }

    /// Whether there is a default route by the uplink, in either family.
    fn lead_out(&self) -> bool {
        let ipv4 = |l: &str| l.starts_with(UPLINK) && l.split_ascii_whitespace().nth(7) == Some("00000000");
        let ipv6 = |l: &str| l.ends_with(UPLINK) && l.split_ascii_whitespace().nth(1) == Some("00");
        text(&self.ipv4).lines().any(ipv4) || self.ipv6.as_ref().is_some_and(|f| text(f).lines().any(ipv6))
    }
}

/// The beginning of a table; a namespace made by us has few routes.
fn text(file: &File) -> String {
    let mut bytes = vec![0; 64 << 10];
    let length = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
