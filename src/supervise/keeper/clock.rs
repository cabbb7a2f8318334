//! What is due when: the next attempt, the end of the grace period, the next probe.

use super::Keeper;
use crate::supervise::health::HealthMachine;
use crate::supervise::life::{Action, Event};
use crate::supervise::listening;
use crate::supervise::probe::{self, Probed};
use std::time::Instant;

impl Keeper {
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let probe_at =
            if self.probing.is_none() { self.health.as_ref().and_then(HealthMachine::due) } else { None };
        [self.attempt_at, self.kill_at, probe_at].into_iter().flatten().min()
    }

    pub(super) async fn woke(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            if let Some(run) = &self.run {
                run.init.kill();
                self.note("kill", &[("signal", libc::SIGKILL.to_string())]);
            }
        }
        if self.attempt_at.is_some_and(|at| at <= now) && self.step(Event::Due) == Action::Launch {
            if let Err(e) = self.launch(None).await {
                tracing::warn!(container = self.record.spec.name, "the restart failed: {e}");
            }
            return;
        }
        if self.probing.is_none()
            && self.health.as_ref().and_then(HealthMachine::due).is_some_and(|due| due <= now)
        {
            self.probe();
        }
    }

    pub(super) fn probe(&mut self) {
        let (Some(run), Some(spec)) = (&self.run, &self.record.spec.health) else { return };
        let (stack, dir) = (self.stack.clone(), self.dir.path().to_owned());
        self.probing = Some(tokio::spawn(probe::run(stack, run.init.pid(), dir, spec.clone())));
    }

    pub(super) fn probed(&mut self, probed: Probed) {
        self.probing = None;
        let (Some(health), Some(run)) = (&mut self.health, &self.run) else { return };
        let pid = run.init.pid();
        let ports = listening::tcp_ports(&self.record.spec.exposed);
        let is_changed =
            health.probed(probed.begun, probed.ended, probed.result, || listening::reaches_any(pid, &ports));
        self.save_health();
        if is_changed {
            self.health_changed();
        }
    }

    pub(super) fn cancel_probe(&mut self) {
        if let Some(probing) = self.probing.take() {
            probing.abort();
        }
    }
}
