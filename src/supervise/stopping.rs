//! How a container is told to stop: the signal, the grace, the kill; and what if pid 1 does not hear it.
//!
//! The kernel drops a signal to pid 1 of a namespace that has no handler for it. Waiting for the grace period is then
//! pointless, and everybody knows the ten-second stop of `sh -c app`. So where `/proc/PID/status` says that the signal
//! will not be heard, the children of pid 1 get it instead, and pid 1 is killed when none is left.

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use stack_runtime::monitor::{self, RunRecord};
use stack_runtime::sys;
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

const KILL: i32 = 9;
const STOP: i32 = 19;
/// How often pid 1's children are looked at while it does not hear us.
const CHILDREN_PAUSE: Duration = Duration::from_millis(20);
/// A shell needs a moment to end after its last child, or to start the next.
const CHILDLESS_TIMES: u32 = 5;

/// A container's first process, by a descriptor that cannot mean another one.
#[derive(Debug)]
pub(super) struct Init {
    pid: i32,
    /// `None` when it has ended.
    fd: Option<OwnedFd>,
}

impl Init {
    /// Of a process that cannot end now: it waits for its start.
    pub(super) fn waiting(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, fd: open(pid)? })
    }

    /// Of a process that was written down earlier. Opened first, compared second: the descriptor means the process
    /// that had this start time.
    pub(super) fn written(run: &RunRecord) -> io::Result<Self> {
        let fd =
            open(run.pid)?.filter(|_| monitor::start_time(run.pid).is_ok_and(|time| time == run.start_time));
        Ok(Self { pid: run.pid, fd })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// A process that has ended is no failure.
    pub(super) fn signal(&self, number: i32) -> io::Result<()> {
        const NO_SUCH_PROCESS: i32 = 3;
        let Some(fd) = &self.fd else { return Ok(()) };
        match sys::signal::send(fd, number) {
            Err(e) if e.raw_os_error() == Some(NO_SUCH_PROCESS) => Ok(()),
            result => result,
        }
    }

    pub(super) fn kill(&self) {
        // The only failure left is that it has ended.
        let _ = self.signal(KILL);
    }

    /// Sends the stop signal so that somebody hears it. Returns when there is nothing more to tell: at once, if pid 1
    /// hears it; when it was killed, if it does not and has no children (any more).
    pub(super) async fn tell(&self, signal: i32) -> io::Result<()> {
        if hears(self.pid, signal) {
            return self.signal(signal);
        }
        let mut told = HashSet::new();
        let mut childless = 0;
        while childless < CHILDLESS_TIMES {
            let children = children(self.pid);
            let is_sleeping_alone = children.is_empty() && told.is_empty();
            childless = if children.is_empty() { childless + 1 } else { 0 };
            for child in children {
                if told.insert(child) {
                    send(child, signal);
                }
            }
            if is_sleeping_alone {
                break;
            }
            if hears(self.pid, signal) {
                return self.signal(signal);
            }
            tokio::time::sleep(CHILDREN_PAUSE).await;
        }
        self.kill();
        Ok(())
    }
}

fn open(pid: i32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn send(pid: i32, signal: i32) {
    if let (Some(pid), Some(signal)) = (Pid::from_raw(pid), Signal::from_named_raw(signal)) {
        // It may have ended in between.
        let _ = kill_process(pid, signal);
    }
}

fn children(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Whether a signal from outside reaches pid 1 of a namespace: KILL does, and what it catches, or holds back for later.
fn hears(pid: i32, signal: i32) -> bool {
    signal == KILL
        || signal == STOP
        || std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| is_caught(&status, signal))
}

fn is_caught(status: &str, signal: i32) -> bool {
    status
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .filter(|(name, _)| matches!(*name, "SigCgt" | "SigBlk"))
        .filter_map(|(_, mask)| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::is_caught;

    #[test]
    fn a_caught_or_blocked_signal_is_heard() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000004000\nSigCgt:\t0000000000000200\n";
        assert!(is_caught(status, 1), "blocked");
        assert!(is_caught(status, 10), "caught");
        assert!(!is_caught(status, 15), "ignored");
        assert!(!is_caught("", 15));
    }
}
