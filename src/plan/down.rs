//! `down`: converge to the empty project. Dependents stop before what they depend on, then everything goes.

use super::intent::{Down, RemoveImages};
use super::label::{self, Labelled, image_of};
use super::materials::image_id;
use super::order;
use super::resources::used_volumes;
use super::step::{Action, Cause, Plan, Settled, StepId};
use super::survey::{Survey, existing, is_running, networks_of};
use stack_runtime::observed::{ContainerObserved, NetworkObserved, Observed};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Project, Service, Volume};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn down(project: &Project, observed: &Observed, down: &Down) -> Result<Plan, Vec<Diagnostic>> {
    let services = order::only(project, &down.services).map_err(|d| vec![d])?;
    let survey = Survey::new(observed);
    let mut plan = Plan::new(&project.name);
    let doomed = doomed(project, &survey, &services, down);
    let stops = stop(&mut plan, project, &services, &doomed, down);
    let mut gone: Vec<StepId> = Vec::new();
    for container in &doomed {
        let remove = Action::Remove { container: existing(container), volumes: down.volumes };
        let after: Vec<StepId> = stops.get(&container.id).copied().into_iter().collect();
        gone.push(plan.add(remove, Cause::Down, &after));
    }
    let doomed: BTreeSet<&str> = doomed.iter().map(|c| c.id.as_str()).collect();
    let left: Vec<&ContainerObserved> =
        survey.everything().filter(|c| !doomed.contains(c.id.as_str())).collect();
    gone.extend(networks(&mut plan, project, observed, &left, &gone.clone()));
    if down.volumes {
        gone.extend(volumes(&mut plan, project, observed, &services, &left, &gone.clone()));
    }
    images(&mut plan, project, observed, &services, down, &gone);
    if left.is_empty() && (observed.supervisor_alive || !gone.is_empty()) {
        plan.add(Action::Release, Cause::Down, &gone);
    }
    warn_of_nothing(&mut plan, project);
    Ok(plan)
}

fn doomed<'a>(
    project: &Project,
    survey: &Survey<'a>,
    services: &[&Service],
    down: &Down,
) -> Vec<&'a ContainerObserved> {
    let of_service = |c: &ContainerObserved| services.iter().any(|s| s.key == c.service());
    let is_orphan = |c: &ContainerObserved| c.is_one_off() || !is_known(project, c);
    let is_doomed = |c: &&ContainerObserved| match c.is_one_off() {
        true => down.remove_orphans,
        false => of_service(c) || (down.remove_orphans && is_orphan(c)),
    };
    survey.everything().filter(is_doomed).collect()
}

fn is_known(project: &Project, container: &ContainerObserved) -> bool {
    let key = container.service();
    project.services.contains_key(key) || project.disabled.contains_key(key)
}

/// Stop steps by container id; a service's come after those of all its dependents.
fn stop(
    plan: &mut Plan,
    project: &Project,
    services: &[&Service],
    doomed: &[&ContainerObserved],
    down: &Down,
) -> BTreeMap<String, StepId> {
    let mut by_service: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    let mut steps = BTreeMap::new();
    let mut stop = |plan: &mut Plan, container: &ContainerObserved, after: &[StepId]| {
        let action = Action::Stop { container: existing(container), grace: down.grace };
        let step = plan.add(action, Cause::Down, after);
        steps.insert(container.id.clone(), step);
        step
    };
    let running = |c: &&&ContainerObserved| is_running(c);
    let is_ours = |c: &ContainerObserved| !c.is_one_off() && services.iter().any(|s| s.key == c.service());
    for container in doomed.iter().filter(running).filter(|c| !is_ours(c)) {
        let step = stop(plan, container, &[]);
        by_service.entry(container.service()).or_default().push(step);
    }
    for service in services.iter().rev() {
        let dependents = project.services.values().filter(|s| s.depends_on.contains_key(&service.key));
        let after: Vec<StepId> =
            dependents.filter_map(|s| by_service.get(s.key.as_str())).flatten().copied().collect();
        for container in doomed.iter().filter(running).filter(|c| is_ours(c) && c.service() == service.key) {
            let step = stop(plan, container, &after);
            by_service.entry(&service.key).or_default().push(step);
        }
    }
    steps
}

fn networks(
    plan: &mut Plan,
    project: &Project,
    observed: &Observed,
    left: &[&ContainerObserved],
    after: &[StepId],
) -> Vec<StepId> {
    let mut steps = Vec::new();
    for network in project.networks.values().filter(|n| !n.external) {
        let is_it = |n: &&NetworkObserved| {
            // One that another project made is reused, and stays.
            n.name == network.name && label::of(&n.labels, label::PROJECT) == project.name
        };
        let Some(known) = observed.networks.iter().find(is_it) else { continue };
        let has_left = left.iter().any(|c| networks_of(c).contains(&network.name.as_str()));
        if has_left || !known.guests.is_empty() {
            plan.settled.push(Settled::InUse { network: network.name.clone() });
            continue;
        }
        let action = Action::RemoveNetwork { name: network.name.clone() };
        steps.push(plan.add(action, Cause::Down, after));
    }
    steps
}

fn volumes(
    plan: &mut Plan,
    project: &Project,
    observed: &Observed,
    services: &[&Service],
    left: &[&ContainerObserved],
    after: &[StepId],
) -> Vec<StepId> {
    let exists = |v: &Volume| observed.volumes.iter().any(|o| o.name == v.name);
    let in_use = |v: &Volume| left.iter().any(|c| mounts(c, &v.name));
    let doomed = active_volumes(project, services);
    let doomed = doomed.into_iter().filter(|v| !v.external && exists(v) && !in_use(v));
    doomed
        .map(|v| plan.add(Action::RemoveVolume { name: v.name.clone(), optional: true }, Cause::Down, after))
        .collect()
}

/// Those that the services use; all of them where the project was rebuilt from labels, which do not tell.
fn active_volumes<'a>(project: &'a Project, services: &[&Service]) -> Vec<&'a Volume> {
    if project.files.is_empty() {
        project.volumes.values().collect()
    } else {
        used_volumes(project, services)
    }
}

fn mounts(container: &ContainerObserved, volume: &str) -> bool {
    use stack_runtime::spec::MountKindSpec::Volume;
    container.spec.mounts.iter().any(|m| matches!(&m.kind, Volume { name, .. } if name == volume))
}

fn images(
    plan: &mut Plan,
    project: &Project,
    observed: &Observed,
    services: &[&Service],
    down: &Down,
    after: &[StepId],
) {
    let is_doomed = |s: &&&Service| match down.images {
        None => false,
        Some(RemoveImages::Local) => s.build.is_some(),
        Some(RemoveImages::All) => true,
    };
    let references: BTreeSet<String> =
        services.iter().filter(is_doomed).map(|s| image_of(project, s)).collect();
    for reference in references.into_iter().filter(|r| image_id(observed, r).is_some()) {
        plan.add(Action::RemoveImage { reference }, Cause::Down, after);
    }
}

fn warn_of_nothing(plan: &mut Plan, project: &Project) {
    let has_network = project.networks.values().any(|n| !n.external);
    if plan.is_empty() && plan.settled.is_empty() && !has_network {
        plan.warn(format!("No resource found to remove for project \"{}\".", project.name));
    }
}
