//! Signals, freezing, and the end.

use super::store::{Record, Status};
use super::{Result, Runtime, hooks};
use crate::cgroup::Group;
use crate::launch::{LaunchError, Named};
use crate::monitor::start_time;
use oci_spec::runtime::{LinuxNamespaceType as Kind, Spec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::time::{Duration, Instant};

/// A killed init is gone within this, also on a loaded machine.
const GONE_WITHIN: Duration = Duration::from_secs(10);

impl Runtime {
    /// Sends a signal to init, or with `all` to everybody. Number 0 asks whether that is possible.
    ///
    /// # Errors
    /// The container does not run.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let record = self.load(id)?;
        let operation = || format!("signal {id:?}");
        let status = self.status(&record);
        if all {
            let group = record.group()?;
            send_to_all(&group, signal).named(operation())?;
        } else if matches!(status, Status::Stopped | Status::Creating) {
            return Err(LaunchError::new(operation(), "container not running"));
        } else {
            self.send(&record, signal).named(operation())?;
        }
        // What is frozen in version 1 dies only when it thaws.
        if signal == libc::SIGKILL && status == Status::Paused {
            record.group()?.freeze(false).named(operation())?;
        }
        Ok(())
    }

    /// Init ends everybody in its pid namespace; without one of its own somebody has to.
    fn send(&self, record: &Record, signal: i32) -> std::io::Result<()> {
        let pid = Pid::from_raw(record.pid).ok_or(Errno::SRCH)?;
        let target = pidfd_open(pid, PidfdFlags::empty())?;
        if start_time(record.pid)? != record.start_time {
            return Err(Errno::SRCH.into());
        }
        crate::sys::signal::send(&target, signal)?;
        let shares_pids = signal == libc::SIGKILL
            && self.load_bundle(&record.id).is_ok_and(|bundle| !has_pids(&bundle.spec));
        if shares_pids { record.group().map_err(std::io::Error::other)?.kill() } else { Ok(()) }
    }

    /// # Errors
    /// It does not run; the kernel's.
    pub fn pause(&self, id: &str) -> Result<()> {
        let record = self.load(id)?;
        match self.status(&record) {
            Status::Running | Status::Created => record.group()?.freeze(true).named(format!("pause {id:?}")),
            _ => Err(LaunchError::new(format!("pause {id:?}"), "container not running or created")),
        }
    }

    /// # Errors
    /// It is not paused; the kernel's.
    pub fn resume(&self, id: &str) -> Result<()> {
        let record = self.load(id)?;
        match self.status(&record) {
            Status::Paused => record.group()?.freeze(false).named(format!("resume {id:?}")),
            _ => Err(LaunchError::new(format!("resume {id:?}"), "container not paused")),
        }
    }

    /// Removes what is left of a container that has ended; with `force` ends it first, and none is fine. Warnings
    /// are those of its hooks.
    ///
    /// # Errors
    /// It still runs; the operating system's.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<String>> {
        let record = match self.load(id) {
            Err(_) if force && !self.dir(id).join("state.json").exists() => {
                return self.delete_rest(id).map(|()| Vec::new());
            }
            record => record?,
        };
        match self.status(&record) {
            Status::Stopped => {}
            // It has not run yet; there is nothing to lose.
            Status::Created => self.end(&record)?,
            _ if force => self.end(&record)?,
            status => {
                let reason = format!("cannot delete container that is not stopped: {}", status.as_str());
                return Err(LaunchError::new(format!("delete {id:?}"), reason));
            }
        }
        let bundle = self.load_bundle(id);
        record.group()?.remove().named("remove the control group")?;
        let warnings = bundle.map(|bundle| self.run_poststop(&record, &bundle.spec)).unwrap_or_default();
        fs::remove_dir_all(self.dir(id)).named("remove the state")?;
        Ok(warnings)
    }

    /// A directory that a create which was killed has left.
    fn delete_rest(&self, id: &str) -> Result<()> {
        match fs::remove_dir_all(self.dir(id)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).named("remove the state"),
            _ => Ok(()),
        }
    }

    fn end(&self, record: &Record) -> Result<()> {
        let group = record.group()?;
        if record.is_alive() {
            let _ = self.send(record, libc::SIGKILL);
        }
        if group.is_frozen() {
            group.freeze(false).named("thaw the control group")?;
        }
        let deadline = Instant::now() + GONE_WITHIN;
        while record.is_alive() {
            if Instant::now() > deadline {
                return Err(LaunchError::new(format!("delete {:?}", record.id), "its init does not end"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(super) fn run_poststop(&self, record: &Record, spec: &Spec) -> Vec<String> {
        let list = spec.hooks().as_ref().and_then(|hooks| hooks.poststop().clone()).unwrap_or_default();
        hooks::each(&list, &record.state(Status::Stopped), &record.bundle)
    }
}

fn has_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == Kind::Pid)
}

fn send_to_all(group: &Group, signal: i32) -> std::io::Result<()> {
    if signal == libc::SIGKILL && group.unified_dir().is_some_and(|dir| dir.join("cgroup.kill").exists()) {
        return group.kill();
    }
    for pid in group.processes()?.into_iter().filter_map(Pid::from_raw) {
        let sent = pidfd_open(pid, PidfdFlags::empty()).map_err(std::io::Error::from);
        match sent.and_then(|target| crate::sys::signal::send(target, signal)) {
            // Already gone is as good.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            result => result?,
        }
    }
    Ok(())
}
