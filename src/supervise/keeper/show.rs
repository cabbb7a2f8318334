//! What others see of the container: status, notices, files.

use super::{Keeper, Status};
use crate::host::journal;
use crate::supervise::protocol::What;
use stack_runtime::observed::HealthStatus;

impl Keeper {
    pub(super) fn health_changed(&self) {
        self.save_health();
        if let Some(health) = &self.health {
            let status = health.health().status;
            if matches!(status, HealthStatus::Healthy | HealthStatus::Unhealthy) {
                self.note(&format!("health_status: {}", format!("{status:?}").to_lowercase()), &[]);
            }
            self.tell(What::Health(status));
        }
    }

    /// A stopped container with a health check is shown as unhealthy, with its log.
    pub(super) fn health_ended(&self) {
        let mut last = self.dir.health().unwrap_or_default();
        last.status = HealthStatus::Unhealthy;
        self.report(self.dir.write_health(&last));
    }

    pub(super) fn show(&self) {
        let status = Status {
            name: self.record.spec.name.clone(),
            phase: self.phase,
            pid: self.run.as_ref().map(|run| run.init.pid()),
            is_paused: self.supervision.is_paused,
            health: self.health.as_ref().map_or(HealthStatus::None, |health| health.health().status),
            exit: self.exit.clone(),
            restart_count: self.supervision.restarts.count,
            warnings: self.supervision.warnings.clone(),
        };
        self.status.send_replace(status);
    }

    /// For `stack events`.
    pub(super) fn note(&self, action: &str, extra: &[(&str, String)]) {
        journal::note(&self.stack.home, &self.record, action, extra);
    }

    pub(super) fn tell(&self, what: What) {
        self.show();
        self.stack.tell(&self.record.id, &self.record.spec.name, what);
    }

    pub(super) fn save(&self) {
        self.report(self.dir.write_supervision(&self.supervision));
    }

    pub(super) fn save_health(&self) {
        if let Some(health) = &self.health {
            self.report(self.dir.write_health(health.health()));
        }
    }

    /// A file that cannot be written (disk full) must not end the watch.
    pub(super) fn report(&self, written: std::io::Result<()>) {
        if let Err(e) = written {
            tracing::warn!(container = self.record.spec.name, "cannot write its state: {e}");
        }
    }
}
