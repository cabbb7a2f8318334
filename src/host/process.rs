//! Processes named in files: a process id alone may mean another process by now, so its start time stands beside it.

use serde::{Deserialize, Serialize};
use stack_runtime::monitor;
use std::io;

/// A process and the moment it started, as [`monitor::start_time`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    pub pid: i32,
    pub start: u64,
}

impl ProcessMark {
    /// The mark of a living process.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, start: monitor::start_time(pid)? })
    }

    /// Still the same process, and not a zombie that nobody reaped yet.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_our_mark_is_ours() {
        let own = ProcessMark::of(std::process::id().cast_signed()).expect("alive");
        assert!(own.is_alive());
        assert!(!ProcessMark { start: own.start + 1, ..own }.is_alive());
    }
}
