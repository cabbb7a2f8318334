//! The life of one run: launched, ended, waited for or settled; or found running.

use super::Keeper;
use crate::host::record::Supervision;
use crate::supervise::health::HealthMachine;
use crate::supervise::launch::{self, Launched, Run};
use crate::supervise::life::{Action, Event, Phase};
use crate::supervise::protocol::{Attach, What};
use crate::supervise::stopping::Init;
use stack_runtime::engine::Result;
use stack_runtime::monitor::RunRecord;
use stack_runtime::observed::Exit;
use stack_runtime::spec::RestartSpec;
use stack_runtime::{boot, cgroup, monitor};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

impl Keeper {
    /// With a connection to the attach socket, made before the program starts, when one is asked for.
    pub(super) async fn launch(&mut self, attach: Option<Attach>) -> Result<Option<OwnedFd>> {
        self.attempt_at = None;
        // In this order, so that a restart never looks like an end.
        self.report(self.dir.forget_run());
        self.supervision = Supervision {
            restarts: self.supervision.restarts.clone(),
            has_run: self.supervision.has_run,
            runs: std::mem::take(&mut self.supervision.runs),
            is_up: true,
            boot: boot::id().into(),
            ..Default::default()
        };
        self.save();
        self.show();
        match launch::launch(&self.stack, &self.dir, &self.record, attach).await {
            Ok(Launched { run, connected, attached }) => {
                self.supervision.addresses = connected.addresses;
                self.supervision.published = connected.published;
                self.supervision.warnings = connected.warnings;
                self.started(run);
                Ok(attached)
            }
            Err(failure) => {
                self.not_started(&failure).await;
                Err(failure.error)
            }
        }
    }

    /// A start that was cut off: its monitor may still get through, or undo it; then it is started anew.
    pub(super) async fn start_again(&mut self) {
        const PAUSE: Duration = Duration::from_millis(2);
        while self.run.is_none() && monitor::is_claimed(self.dir.path()).unwrap_or(false) {
            tokio::time::sleep(PAUSE).await;
            self.run = launch::adopt(&self.dir).unwrap_or(None);
        }
        if self.run.is_some() {
            self.step(Event::Started);
            return self.adopt().await;
        }
        if let Ok(Some(exit)) = monitor::read_exit(self.dir.path()) {
            self.exit = Some(exit);
            return self.ended().await;
        }
        if let Err(e) = self.launch(None).await {
            tracing::warn!(container = self.record.spec.name, "the start failed: {e}");
        }
    }

    pub(super) fn started(&mut self, run: Run) {
        self.step(Event::Started);
        let earlier = self.dir.health().unwrap_or_default();
        self.health =
            self.record.spec.health.clone().map(|spec| HealthMachine::start(spec, earlier, run.started));
        self.supervision.note_run(&run.record.started_at);
        self.run = Some(run);
        self.exit = None;
        self.supervision.has_run = true;
        self.save();
        self.save_health();
        self.note("start", &[]);
        self.tell(What::Started);
        for warning in &self.supervision.warnings {
            self.tell(What::Warning(warning.clone()));
        }
    }

    pub(super) async fn not_started(&mut self, failure: &launch::StartError) {
        self.step(Event::StartFailed);
        let exit = Exit {
            code: Some(failure.code),
            error: Some(failure.error.message.clone()),
            finished_at: jiff::Timestamp::now().to_string(),
            ..Default::default()
        };
        self.supervision.failure = Some(exit.clone());
        self.exit = Some(exit);
        self.release().await;
        self.settle().await;
    }

    /// The monitor is gone: its last word is on disk, or nobody knows.
    pub(super) async fn ended(&mut self) {
        let written = monitor::read_exit(self.dir.path()).ok().flatten();
        if written.is_none() {
            self.kill_unwatched();
        }
        let run = self.run.take();
        let exit = written.unwrap_or_else(|| unseen(run.as_ref(), self.exit.take()));
        self.exit = Some(exit.clone());
        self.kill_at = None;
        self.supervision.stopping = None;
        self.release().await;
        let policy = if self.record.spec.auto_remove { RestartSpec::No } else { self.record.spec.restart };
        self.note_end(&exit);
        let delay = self.supervision.restarts.after_exit(policy, exit.code, up_for(&exit));
        let action = self.step(Event::Exited(delay));
        match action {
            Action::Wait(delay) => {
                // Who is told looks at the files: to him it is restarting, not over.
                self.wait_for_attempt(delay);
                self.tell(What::Exited(exit));
                self.tell(What::Restarting { attempt: self.supervision.restarts.count, delay });
            }
            _ => {
                self.tell(What::Exited(exit));
                self.settle().await;
            }
        }
        for answer in self.stopping.drain(..) {
            drop(answer.send(Ok(())));
        }
    }

    fn note_end(&self, exit: &Exit) {
        if exit.oom_killed {
            self.note("oom", &[]);
        }
        let code = exit.code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
        let seconds = up_for(exit).as_secs().to_string();
        self.note("die", &[("execDuration", seconds), ("exitCode", code)]);
        if self.phase == Phase::Stopping {
            self.note("stop", &[]);
        }
    }

    /// The monitor was killed: nothing may run unwatched.
    fn kill_unwatched(&self) {
        if let Ok(Some(record)) = RunRecord::read(self.dir.path())
            && let Ok(init) = Init::written(&record)
        {
            init.kill();
        }
        drop(cgroup::kill(&self.cgroup()));
    }

    /// What it held goes back: addresses, ports, the control group.
    pub(super) async fn release(&mut self) {
        self.cancel_probe();
        self.health = None;
        if self.record.spec.health.is_some() {
            self.health_ended();
        }
        self.stack.network.disconnect(&self.record.id).await;
        self.supervision.published.clear();
        self.supervision.addresses.clear();
        self.supervision.is_paused = false;
        let group = self.cgroup();
        let removed = tokio::task::spawn_blocking(move || cgroup::remove(&group)).await;
        if let Ok(Err(e)) = removed {
            tracing::warn!(container = self.record.spec.name, "control group left behind: {e}");
        }
    }

    pub(super) fn wait_for_attempt(&mut self, delay: Duration) {
        self.attempt_at = Some(Instant::now() + delay);
        self.supervision.is_up = false;
        self.supervision.is_waiting = true;
        self.save();
    }

    pub(super) async fn settle(&mut self) {
        self.attempt_at = None;
        self.supervision.is_up = false;
        self.supervision.is_waiting = false;
        self.save();
        self.show();
        if self.record.spec.auto_remove
            && let Err(e) = self.remove(true).await
        {
            tracing::warn!(container = self.record.spec.name, "{e}");
        }
        self.stack.changed.notify_one();
    }

    pub(super) async fn adopt(&mut self) {
        let Some(run) = &self.run else { return };
        let known = self.dir.health().unwrap_or_default();
        let health = self.record.spec.health.clone();
        let started = run.started;
        self.supervision.note_run(&run.record.started_at);
        self.health = health.map(|spec| HealthMachine::adopt(spec, known, started, Instant::now()));
        if self.supervision.is_paused
            && let Some(health) = &mut self.health
        {
            health.suspend();
        }
        let pid = run.init.pid();
        match launch::reconnect(&self.stack, &self.dir, &self.record, pid).await {
            Ok(connected) => {
                self.supervision.addresses = connected.addresses;
                self.supervision.published = connected.published;
                for warning in &connected.warnings {
                    tracing::warn!(container = self.record.spec.name, "{warning}");
                }
            }
            Err(e) => tracing::warn!(container = self.record.spec.name, "its network is not back: {e}"),
        }
        self.supervision.is_up = true;
        self.supervision.has_run = true;
        self.supervision.is_waiting = false;
        self.save();
        if let Some(grace) = self.supervision.stopping {
            self.step(Event::Stop);
            self.terminate(None, Some(grace));
        }
    }
}

/// An end that was not written down.
fn unseen(run: Option<&Run>, known: Option<Exit>) -> Exit {
    match run {
        Some(run) => Exit {
            started_at: run.record.started_at.clone(),
            finished_at: jiff::Timestamp::now().to_string(),
            ..Default::default()
        },
        None => known.unwrap_or_default(),
    }
}

fn up_for(exit: &Exit) -> Duration {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let (Some(from), Some(to)) = (parse(&exit.started_at), parse(&exit.finished_at)) else {
        return Duration::ZERO;
    };
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
