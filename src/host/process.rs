//! Processes named in files: a process id alone may mean another process by now, so its start time stands beside it.

use serde::{Deserialize, Serialize};

/// A process and the moment it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    pub pid: i32,
    pub start: u64,
}

impl ProcessMark {
    /// The mark of a living process.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start: start_time(&stat)? })
    }

    /// Still the same process, and not a zombie that nobody reaped yet.
    pub fn is_alive(self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| start_time(&stat) == Some(self.start) && !is_zombie(&stat))
    }
}

/// The command name may contain spaces and brackets: fields are counted behind the last bracket.
fn fields(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace())
}

fn start_time(stat: &str) -> Option<u64> {
    fields(stat)?.nth(19)?.parse().ok()
}

fn is_zombie(stat: &str) -> bool {
    fields(stat).and_then(|mut f| f.next()).is_some_and(|state| matches!(state, "Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_our_mark_is_ours() {
        let own = ProcessMark::of(std::process::id() as i32).expect("alive");
        assert!(own.is_alive());
        assert!(!ProcessMark { start: own.start + 1, ..own }.is_alive());
    }

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(start_time(stat), Some(4242));
        assert!(!is_zombie(stat));
        assert!(is_zombie(&stat.replace(" S ", " Z ")));
        assert_eq!(start_time("nonsense"), None);
    }
}
