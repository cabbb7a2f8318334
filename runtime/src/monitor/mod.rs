//! The monitor: one small process per container, its parent, its log writer and its witness.
//!
//! | file in the container's directory | written |
//! |---|---|
//! | `run.json` ([`RunRecord`]) | before the program starts |
//! | `log.json` | from its first byte on |
//! | `monitor.lock` | locked for as long as it lives: a container has one monitor |
//! | `exit.json` ([`Exit`]) | before the program is reaped; a failed start too |

mod attach;
mod exec;
mod run;
mod streams;

pub use attach::{Attachment, connect_to};
pub(crate) use exec::run as exec;
pub(crate) use run::{Progress, killed, run};

use crate::boot;
use crate::home;
use crate::observed::{Exit, State};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Who runs, unmistakably: a pid alone may have been given to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    pub pid: i32,
    /// As [`start_time`] tells it.
    pub start_time: u64,
    pub monitor_pid: i32,
    pub monitor_start_time: u64,
    /// RFC 3339.
    pub started_at: String,
}

impl RunRecord {
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        home::read_json(&dir.join("run.json"))
    }

    /// The monitor of this record still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.monitor_pid).is_ok_and(|time| time == self.monitor_start_time)
    }
}

pub(crate) const CLAIM: &str = "monitor.lock";

/// A monitor works for the container, whether its program runs already or not.
pub fn is_claimed(dir: &Path) -> io::Result<bool> {
    Ok(home::try_lock(&dir.join(CLAIM))?.is_none())
}

/// The end of the last run; `None` while it runs or when nobody saw it.
pub fn read_exit(dir: &Path) -> io::Result<Option<Exit>> {
    home::read_json(&dir.join("exit.json"))
}

/// Created, running or exited (with an unknown code, if nobody saw the end), from files and `/proc`.
pub fn observe(dir: &Path) -> io::Result<State> {
    let Some(run) = RunRecord::read(dir)? else {
        return Ok(read_exit(dir)?.map_or(State::Created, |exit| State::Exited { exit }));
    };
    if run.is_alive() && !dir.join("exit.json").exists() {
        return Ok(State::Running { pid: run.pid, started_at: run.started_at });
    }
    let unknown = Exit { started_at: run.started_at, ..Exit::default() };
    Ok(State::Exited { exit: read_exit(dir)?.unwrap_or(unknown) })
}

/// A number for the moment a process started, that tells it from any other with the same id, also of another boot;
/// fails for one that is gone, and for a zombie too.
pub fn start_time(pid: i32) -> io::Result<u64> {
    match stat(pid)? {
        (b'Z' | b'X', _) => Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended")),
        (_, start_time) => Ok(start_time),
    }
}

/// The same of a process that nobody has reaped: it may have ended already, and why is told elsewhere.
pub(crate) fn start_time_of_child(pid: i32) -> io::Result<u64> {
    Ok(stat(pid)?.1)
}

/// State and start time, fields 3 and 22 of `/proc/PID/stat` (`proc_pid_stat(5)`).
fn stat(pid: i32) -> io::Result<(u8, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command may contain anything, also ") "; the last one ends it.
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let state = fields.first().and_then(|field| field.bytes().next());
    // Clock ticks since boot, which are much the same at every boot for what starts early.
    let start_time =
        fields.get(19).and_then(|field| field.parse::<u64>().ok()).map(|ticks| ticks ^ boot::number());
    state
        .zip(start_time)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat is damaged"))
}
