//! Gates: what a start waits for. One wait per service and condition, and none where it holds already.

use super::super::step::{Action, Cause, Reached, StepId};
use super::super::survey::is_running;
use super::Rise;
use stack_runtime::observed::{ContainerObserved, HealthStatus, State};
use stack_schema::project::{Condition, Service};

impl Rise<'_> {
    /// What must have happened before a container of the service may start.
    pub(super) fn gates(&mut self, service: &Service) -> Vec<StepId> {
        let mut gates = Vec::new();
        for (key, dependency) in &service.depends_on {
            let Some(other) = self.project.services.get(key) else {
                self.optional_is_absent(&service.key, key);
                continue;
            };
            gates.extend(self.started.get(key).into_iter().flatten().copied());
            let until = match dependency.condition {
                Condition::ServiceStarted => continue,
                Condition::ServiceHealthy => Reached::Healthy,
                Condition::ServiceCompletedSuccessfully => Reached::Completed,
            };
            let cause = Cause::NeededBy(service.key.clone());
            gates.extend(self.wait(other, until, dependency.required, cause));
        }
        gates
    }

    fn optional_is_absent(&mut self, service: &str, key: &str) {
        let text = format!("optional dependency \"{key}\" of service \"{service}\" is not enabled");
        if !self.plan.warnings.iter().any(|w| w.message == text) {
            self.plan.warn(text);
        }
    }

    /// One wait per service and condition; none where it holds already.
    fn wait(&mut self, service: &Service, until: Reached, required: bool, cause: Cause) -> Option<StepId> {
        let kind = match until {
            Reached::Healthy => "healthy",
            Reached::Completed => "completed",
            Reached::Up { .. } => "up",
        };
        let slot = (service.key.clone(), kind);
        if let Some(known) = self.waits.get(&slot) {
            return *known;
        }
        let containers = self.targets.get(&service.key).cloned().unwrap_or_default();
        let started = self.started.get(&service.key).cloned().unwrap_or_default();
        let holds = started.is_empty() && self.holds(service, until);
        let is_due = !containers.is_empty() && !holds;
        let step = is_due.then(|| {
            let action = Action::Wait { service: service.key.clone(), containers, until, required };
            self.plan.add(action, cause, &started)
        });
        self.waits.insert(slot, step);
        step
    }

    fn holds(&self, service: &Service, until: Reached) -> bool {
        let containers = self.survey.containers(&service.key);
        let healthy = |c: &&ContainerObserved| c.health.status == HealthStatus::Healthy && is_running(c);
        let up = |c: &&ContainerObserved| {
            is_running(c) && matches!(c.health.status, HealthStatus::Healthy | HealthStatus::None)
        };
        match until {
            Reached::Healthy => containers.iter().all(healthy),
            Reached::Completed => containers.iter().any(|c| completed(c)),
            Reached::Up { may_complete } => {
                containers.iter().all(|c| up(c) || (may_complete && completed(c)))
            }
        }
    }

    pub(super) fn wait_for_all(&mut self, services: &[&Service]) {
        for service in services {
            let wanted = |s: &&Service| {
                let dependency = s.depends_on.get(&service.key);
                dependency.is_some_and(|d| d.condition == Condition::ServiceCompletedSuccessfully)
            };
            let may_complete = services.iter().any(wanted);
            self.wait(service, Reached::Up { may_complete }, true, Cause::Asked);
        }
    }
}

fn completed(container: &ContainerObserved) -> bool {
    matches!(&container.state, State::Exited { exit } if exit.code == Some(0))
}
