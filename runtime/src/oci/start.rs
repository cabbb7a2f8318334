//! Starting what was created, and all at once.

use super::create::CreateOptions;
use super::store::{Record, Status};
use super::{Result, Runtime, foreground, hooks};
use crate::init::{Note, START_PIPE};
use crate::launch::{LaunchError, Named};
use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

impl Runtime {
    /// Lets the program run; returns when it does. The warnings of init come along.
    ///
    /// # Errors
    /// It is not created, or the program cannot be executed.
    pub fn start(&self, id: &str) -> Result<Vec<String>> {
        let record = self.load_made(id)?;
        match self.status(&record) {
            Status::Created => {}
            Status::Running | Status::Paused => {
                return Err(LaunchError::new(
                    format!("start {id:?}"),
                    "cannot start an already running container",
                ));
            }
            Status::Stopped => {
                return Err(LaunchError::new(
                    format!("start {id:?}"),
                    "cannot start a container that has stopped",
                ));
            }
            Status::Creating => {
                return Err(LaunchError::new(format!("start {id:?}"), "it is still being created"));
            }
        }
        let bundle = self.load_bundle(id)?;
        self.release(&record, &bundle.spec)
    }

    /// Somebody may still be creating it; that is worth a moment.
    fn load_made(&self, id: &str) -> Result<Record> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let record = self.load(id)?;
            if self.status(&record) != Status::Creating || Instant::now() > deadline {
                return Ok(record);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Opens the pipe on which init waits and hears the rest.
    pub(super) fn release(&self, record: &Record, spec: &Spec) -> Result<Vec<String>> {
        if spec.process().is_none() {
            return Err(LaunchError::new(format!("start {:?}", record.id), "the config has no process"));
        }
        // Before it may start: a short program may be over, and reaped, by the time we look.
        let pid = Pid::from_raw(record.pid).ok_or_else(gone)?;
        let init = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        let path = self.dir(&record.id).join(START_PIPE);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(&path, flags, Mode::empty()).named("open the start pipe")?;
        let mut warnings = hear(pipe.into(), &init)?;
        let _ = fs::remove_file(&path);
        let poststart = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().clone()).unwrap_or_default();
        warnings.extend(hooks::each(&poststart, &record.state(Status::Running), &record.bundle));
        Ok(warnings)
    }

    /// Creates, starts, and unless `detach` waits for the end and deletes (unless `keep`). The exit code.
    ///
    /// # Errors
    /// As [`Runtime::create`] and [`Runtime::start`]; nothing is left then.
    pub fn run(&self, options: &CreateOptions, detach: bool, keep: bool) -> Result<(i32, Vec<String>)> {
        let made = self.make(options, !detach)?;
        let mut warnings = made.warnings;
        match self.release(&made.record, &made.bundle.spec) {
            Ok(more) => warnings.extend(more),
            Err(error) => {
                let _ = self.delete(&options.id, true);
                return Err(error);
            }
        }
        if detach {
            return Ok((0, warnings));
        }
        let code = foreground::attend(&made.child, made.terminal).named("wait for the container")?;
        if !keep {
            warnings.extend(self.delete(&options.id, true)?);
        }
        Ok((code, warnings))
    }
}

fn gone() -> LaunchError {
    LaunchError::new("start the container", "its init has ended")
}

/// Reads what init writes until `execve` closes the pipe.
fn hear(mut pipe: File, init: &OwnedFd) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    loop {
        let mut fds = [PollFd::new(&pipe, PollFlags::IN), PollFd::new(init, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result.named("wait for init")?,
        };
        let (wrote, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if wrote {
            let mut chunk = [0; 4096];
            match pipe.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => bytes.extend(&chunk[..length]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(LaunchError::new("hear from init", e)),
            }
        } else if ended {
            break;
        }
    }
    let mut warnings = Vec::new();
    let mut executing = false;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line).named("hear from init")? {
            Note::Warning(warning) => warnings.push(warning),
            Note::Failed(error) => return Err(error),
            Note::Executing => executing = true,
            _ => {}
        }
    }
    if executing { Ok(warnings) } else { Err(gone()) }
}
