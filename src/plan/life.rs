//! `start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rm`: containers that exist, as they are. The files' newer text is not applied.

use super::label::Labelled;
use super::order;
use super::step::{Action, Cause, Plan, Reached, StepId};
use super::survey::{Survey, existing, is_running};
use stack_runtime::observed::{ContainerObserved, HealthStatus, Observed, State};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Condition, Project, Service};
use std::collections::BTreeMap;
use std::time::Duration;

type Planned = Result<Plan, Vec<Diagnostic>>;

pub(super) fn start(project: &Project, observed: &Observed, keys: &[String], wait: bool) -> Planned {
    let survey = Survey::new(observed);
    let services = order::selected(project, keys, true).map_err(|d| vec![d])?;
    if let Some(first) = services.first().filter(|_| survey.everything().next().is_none()) {
        let message = format!("service {:?} has no container to start", first.key);
        return Err(vec![Diagnostic::error(message)]);
    }
    let mut life = Life::new(project, &survey);
    for service in &services {
        let gates = life.gates(service);
        for container in survey.containers(&service.key).iter().filter(|c| !is_running(c)) {
            life.start(container, Cause::NotRunning, &gates);
        }
    }
    if wait {
        for service in &services {
            life.wait(service, Reached::Up { may_complete: false }, true, Cause::Asked);
        }
    }
    Ok(life.plan)
}

/// In order, and what needs a healthy dependency waits for it; one that does not become healthy holds nobody back, for
/// nobody is there to be told.
pub(super) fn due(project: &Project, observed: &Observed) -> Planned {
    let survey = Survey::new(observed);
    let services = order::all(project).map_err(|d| vec![d])?;
    let mut life = Life::new(project, &survey);
    for service in services {
        let due = |c: &&&ContainerObserved| c.is_due && !is_running(c);
        let due: Vec<_> = survey.containers(&service.key).iter().filter(due).collect();
        let gates = if due.is_empty() { Vec::new() } else { life.gates_of_due(service) };
        for container in due {
            life.start(container, Cause::Due, &gates);
        }
    }
    Ok(life.plan)
}

pub(super) fn stop(
    project: &Project,
    observed: &Observed,
    keys: &[String],
    grace: Option<Duration>,
) -> Planned {
    let survey = Survey::new(observed);
    let services = order::only(project, keys).map_err(|d| vec![d])?;
    let mut plan = Plan::new(&project.name);
    stop_all(&mut plan, project, &survey, &services, grace);
    Ok(plan)
}

/// Dependents first. The stops by service.
fn stop_all<'a>(
    plan: &mut Plan,
    project: &Project,
    survey: &Survey<'_>,
    services: &[&'a Service],
    grace: Option<Duration>,
) -> BTreeMap<&'a str, Vec<StepId>> {
    let mut stops: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    for service in services.iter().rev() {
        let dependents = project.services.values().filter(|s| s.depends_on.contains_key(&service.key));
        let after: Vec<StepId> =
            dependents.filter_map(|s| stops.get(s.key.as_str())).flatten().copied().collect();
        for container in survey.containers(&service.key).iter().filter(|c| is_running(c)) {
            let action = Action::Stop { container: existing(container), grace };
            let step = plan.add(action, Cause::Asked, &after);
            stops.entry(&service.key).or_default().push(step);
        }
    }
    stops
}

pub(super) fn restart(
    project: &Project,
    observed: &Observed,
    keys: &[String],
    grace: Option<Duration>,
    dependents: bool,
) -> Planned {
    let survey = Survey::new(observed);
    let named = order::only(project, keys).map_err(|d| vec![d])?;
    let restarts_with =
        |s: &Service| named.iter().any(|n| s.depends_on.get(&n.key).is_some_and(|d| d.restart));
    let is_named = |s: &Service| named.iter().any(|n| n.key == s.key);
    let services = order::all(project).map_err(|d| vec![d])?;
    let chosen = services.into_iter().filter(|s| is_named(s) || (dependents && restarts_with(s)));
    let mut life = Life::new(project, &survey);
    for service in chosen {
        let gates = life.restart_gates(service);
        for container in survey.containers(&service.key) {
            life.restart(container, grace, &gates);
        }
    }
    Ok(life.plan)
}

pub(super) fn kill(
    project: &Project,
    observed: &Observed,
    keys: &[String],
    signal: &str,
    orphans: bool,
) -> Planned {
    let survey = Survey::new(observed);
    let services = order::only(project, keys).map_err(|d| vec![d])?;
    let mut plan = Plan::new(&project.name);
    let is_meant = |c: &ContainerObserved| {
        let is_known =
            project.services.contains_key(c.service()) || project.disabled.contains_key(c.service());
        services.iter().any(|s| s.key == c.service()) || (orphans && !is_known)
    };
    for container in survey.everything().filter(|c| is_running(c) && is_meant(c)) {
        let action = Action::Signal { container: existing(container), signal: signal.to_string() };
        plan.add(action, Cause::Asked, &[]);
    }
    Ok(plan)
}

/// What runs of the services themselves; one that is not as the verb expects it is the engine's to refuse.
pub(super) fn pause(project: &Project, observed: &Observed, keys: &[String], is_pause: bool) -> Planned {
    let survey = Survey::new(observed);
    let mut plan = Plan::new(&project.name);
    for service in order::only(project, keys).map_err(|d| vec![d])? {
        for container in survey.containers(&service.key).iter().filter(|c| is_running(c)) {
            let container = existing(container);
            let action = if is_pause { Action::Pause { container } } else { Action::Unpause { container } };
            plan.add(action, Cause::Asked, &[]);
        }
    }
    Ok(plan)
}

pub(super) fn remove(
    project: &Project,
    observed: &Observed,
    keys: &[String],
    stop: bool,
    volumes: bool,
) -> Planned {
    let survey = Survey::new(observed);
    let services = order::only(project, keys).map_err(|d| vec![d])?;
    let mut plan = Plan::new(&project.name);
    let stops = if stop { stop_all(&mut plan, project, &survey, &services, None) } else { BTreeMap::new() };
    for service in services {
        let after = stops.get(service.key.as_str()).cloned().unwrap_or_default();
        for container in survey.containers(&service.key).iter().filter(|c| stop || !is_running(c)) {
            plan.add(Action::Remove { container: existing(container), volumes }, Cause::Asked, &after);
        }
    }
    Ok(plan)
}

struct Life<'a> {
    project: &'a Project,
    survey: &'a Survey<'a>,
    plan: Plan,
    started: BTreeMap<String, Vec<StepId>>,
}

impl<'a> Life<'a> {
    fn new(project: &'a Project, survey: &'a Survey<'a>) -> Self {
        Self { project, survey, plan: Plan::new(&project.name), started: BTreeMap::new() }
    }

    fn start(&mut self, container: &ContainerObserved, cause: Cause, after: &[StepId]) {
        let step = self.plan.add(Action::Start { container: existing(container) }, cause, after);
        self.started.entry(container.service().to_string()).or_default().push(step);
    }

    fn restart(&mut self, container: &ContainerObserved, grace: Option<Duration>, gates: &[StepId]) {
        let mut after = gates.to_vec();
        if is_running(container) {
            let stop = Action::Stop { container: existing(container), grace };
            after.push(self.plan.add(stop, Cause::Restart, gates));
        }
        self.start(container, Cause::Restart, &after);
    }

    fn gates(&mut self, service: &Service) -> Vec<StepId> {
        let mut gates = Vec::new();
        for (key, dependency) in &service.depends_on {
            gates.extend(self.started.get(key).into_iter().flatten().copied());
            let until = match dependency.condition {
                Condition::ServiceStarted => continue,
                Condition::ServiceHealthy => Reached::Healthy,
                Condition::ServiceCompletedSuccessfully => Reached::Completed,
            };
            if let Some(other) = self.project.services.get(key) {
                let cause = Cause::NeededBy(service.key.clone());
                gates.extend(self.wait(other, until, dependency.required, cause));
            }
        }
        gates
    }

    /// Only what is started now is waited for: a job that is done is not done again.
    fn gates_of_due(&mut self, service: &Service) -> Vec<StepId> {
        let mut gates = Vec::new();
        for (key, dependency) in &service.depends_on {
            let Some(started) = self.started.get(key).cloned() else { continue };
            gates.extend(started);
            let other = self.project.services.get(key);
            let other = other.filter(|_| dependency.condition == Condition::ServiceHealthy);
            let cause = Cause::NeededBy(service.key.clone());
            gates.extend(other.and_then(|other| self.wait(other, Reached::Healthy, false, cause)));
        }
        gates
    }

    /// Only dependents that restart with their dependency wait for it.
    fn restart_gates(&mut self, service: &Service) -> Vec<StepId> {
        let edges = service.depends_on.iter().filter(|(key, d)| d.restart && self.started.contains_key(*key));
        let edges: Vec<(String, Condition, bool)> =
            edges.map(|(key, d)| (key.clone(), d.condition, d.required)).collect();
        let mut gates = Vec::new();
        for (key, condition, required) in edges {
            gates.extend(self.started.get(&key).into_iter().flatten().copied());
            let other = self.project.services.get(&key).filter(|_| condition == Condition::ServiceHealthy);
            let cause = Cause::NeededBy(service.key.clone());
            gates.extend(other.and_then(|o| self.wait(o, Reached::Healthy, required, cause)));
        }
        gates
    }

    fn wait(&mut self, service: &Service, until: Reached, required: bool, cause: Cause) -> Option<StepId> {
        let containers = self.survey.containers(&service.key);
        let started = self.started.get(&service.key).cloned().unwrap_or_default();
        let holds = |c: &ContainerObserved| match until {
            Reached::Healthy => is_running(c) && c.health.status == HealthStatus::Healthy,
            Reached::Completed => matches!(&c.state, State::Exited { exit } if exit.code == Some(0)),
            Reached::Up { .. } => is_running(c) && c.health.status != HealthStatus::Starting,
        };
        if containers.is_empty() || (started.is_empty() && containers.iter().all(|c| holds(c))) {
            return None;
        }
        let containers = containers.iter().map(|c| existing(c)).collect();
        let action = Action::Wait { service: service.key.clone(), containers, until, required };
        Some(self.plan.add(action, cause, &started))
    }
}
