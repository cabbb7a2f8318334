//! `--wait-timeout`: a plan that has to be carried out in time.

use super::{Context, Scene, reason};
use crate::apply::Report;
use crate::failure::{Failure, Kind, Result};
use crate::plan::Plan;
use crate::plan::step::{Action, Cause, Reached, Target};
use stack_runtime::engine::Engine;
use stack_runtime::observed::{ContainerObserved, HealthStatus, State};
use std::time::Duration;

/// Carries the plan out.
///
/// # Errors
/// The first failed step; or that it took too long, with what was still waited for.
pub(super) async fn within(
    context: &Context,
    scene: &Scene,
    plan: &Plan,
    limit: Option<Duration>,
) -> Result<Report> {
    let Some(limit) = limit else { return context.apply(scene, plan).await };
    match tokio::time::timeout(limit, context.apply(scene, plan)).await {
        Ok(result) => result,
        Err(_) => Err(too_late(context, scene, plan, limit).await),
    }
}

async fn too_late(context: &Context, scene: &Scene, plan: &Plan, limit: Duration) -> Failure {
    let observed = scene.engine.observe(&scene.project.name, &[]).await;
    let containers = observed.map(|o| o.containers).unwrap_or_default();
    let pending = pending(plan, &containers);
    let message = match pending {
        Some((_, true)) => "timeout waiting for dependencies".to_string(),
        _ => format!("application not healthy after {}s", limit.as_secs()),
    };
    let failure = Failure::new(Kind::Service, message);
    let Some((container, _)) = pending else { return failure };
    let failure = failure.evidence(format!("container {} was still waited for", container.name));
    reason::explain(context, scene, failure, Some(&container.id)).await
}

/// The first container of the plan's waits that is not as it should be, and whether another one depends on it.
fn pending<'a>(plan: &Plan, containers: &'a [ContainerObserved]) -> Option<(&'a ContainerObserved, bool)> {
    plan.steps().find_map(|(_, step)| {
        let Action::Wait { containers: targets, until, required: true, .. } = &step.action else {
            return None;
        };
        let is_meant = |c: &&ContainerObserved| targets.iter().any(|target| is(c, target));
        let container = containers.iter().filter(is_meant).find(|c| !has_reached(c, *until))?;
        Some((container, matches!(step.cause, Cause::NeededBy(_))))
    })
}

fn is(container: &ContainerObserved, target: &Target) -> bool {
    container.name == target.name()
}

fn has_reached(container: &ContainerObserved, until: Reached) -> bool {
    let runs = matches!(container.state, State::Running { .. });
    match until {
        Reached::Completed => matches!(container.state, State::Exited { .. }),
        Reached::Healthy => container.health.status == HealthStatus::Healthy,
        Reached::Up { .. } => {
            runs && matches!(container.health.status, HealthStatus::Healthy | HealthStatus::None)
        }
    }
}
