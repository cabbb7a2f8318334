//! What is to be seen of a container: its state, its processes, its events.

use super::store::{Record, Status};
use super::{Result, Runtime};
use crate::cgroup;
use crate::launch::{LaunchError, Named};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

impl Runtime {
    /// As `state` and `list` print it.
    pub fn describe(&self, record: &Record) -> Value {
        let status = self.status(record);
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        let mut described = json!({
            "ociVersion": record.oci_version,
            "id": record.id,
            "pid": pid,
            "status": status.as_str(),
            "bundle": record.bundle,
            "rootfs": record.rootfs,
            "created": record.created,
        });
        if !record.annotations.is_empty() {
            described["annotations"] = json!(record.annotations);
        }
        described["owner"] = record.owner.as_str().into();
        described
    }

    /// The numbers of its processes, as the caller sees them.
    ///
    /// # Errors
    /// The operating system's.
    pub fn pids(&self, id: &str) -> Result<Vec<i32>> {
        let record = self.load(id)?;
        record.group()?.processes().named("list the processes")
    }

    /// The lines of `ps` for its processes.
    ///
    /// # Errors
    /// `ps` failed or shows no process numbers.
    pub fn ps(&self, id: &str, args: &[String]) -> Result<String> {
        let pids = self.pids(id)?;
        let usual = ["-ef".to_owned()];
        let args = if args.is_empty() { &usual[..] } else { args };
        let output = Command::new("ps").args(args).output().named("run ps")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(LaunchError::new(
                "run ps",
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        let column = head.split_whitespace().position(|name| name == "PID");
        let column =
            column.ok_or_else(|| LaunchError::new("run ps", "couldn't find PID field in ps output"))?;
        let ours = |line: &&str| {
            let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
            pid.is_some_and(|pid: i32| pids.contains(&pid))
        };
        let mut shown = vec![head];
        shown.extend(lines.filter(ours));
        Ok(shown.join("\n") + "\n")
    }

    /// One `stats` event.
    ///
    /// # Errors
    /// The container does not run.
    pub fn stats(&self, id: &str) -> Result<Value> {
        let record = self.load(id)?;
        if self.status(&record) == Status::Stopped {
            return Err(LaunchError::new(format!("show events of {id:?}"), "container is not running"));
        }
        Ok(json!({ "type": "stats", "id": id, "data": cgroup::stats(&record.group()?) }))
    }

    /// Events until it ends: `stats` at every interval, `oom` when the kernel has killed somebody in it.
    ///
    /// # Errors
    /// The container does not run; those of `tell`.
    pub fn watch(
        &self,
        id: &str,
        interval: Duration,
        mut tell: impl FnMut(&Value) -> std::io::Result<()>,
    ) -> Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        let record = self.load(id)?;
        let group = record.group()?;
        let mut kills = group.oom_kills();
        self.stats(id)?;
        let mut next = Instant::now() + interval;
        while record.is_alive() {
            let now = group.oom_kills();
            for _ in kills..now {
                tell(&json!({ "type": "oom", "id": id })).named("tell an event")?;
            }
            kills = now;
            if Instant::now() >= next {
                next += interval;
                tell(&json!({ "type": "stats", "id": id, "data": cgroup::stats(&group) }))
                    .named("tell an event")?;
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()).min(STEP));
        }
        Ok(())
    }
}
