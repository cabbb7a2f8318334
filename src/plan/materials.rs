//! Images: what must be pulled or built before anything is created.
//!
//! | service has | image there | step |
//! |---|---|---|
//! | image | no | pull |
//! | image, policy always | – | pull |
//! | image, policy never or build | no | error |
//! | build | no, or `--build`, or policy build | build |
//! | both | no | pull, whose failure leaves it to a build |
//!
//! Every creation waits for all of them: a pull or build that fails leaves nothing half made.

use super::intent::{Build, BuildWishes, Building as When, Pull, Up};
use super::label::image_of;
use super::order;
use super::step::{Action, Building, Cause, Guard, Plan, StepId};
use stack_runtime::observed::Observed;
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Project, PullPolicy, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The step that may give a name another image, by name.
pub(super) type Materials = BTreeMap<String, StepId>;

/// The image id behind a name; `None`: not there, or not asked about.
pub(super) fn image_id<'a>(observed: &'a Observed, reference: &str) -> Option<&'a str> {
    observed.images.iter().find(|i| i.reference == reference).and_then(|i| i.id.as_deref())
}

pub(super) fn converge(
    plan: &mut Plan,
    project: &Project,
    observed: &Observed,
    services: &[&Service],
    up: &Up,
) -> Result<Materials, Vec<Diagnostic>> {
    let mut materials = Materials::new();
    let mut findings = Vec::new();
    let mut in_order: Vec<&Service> = Vec::new();
    for service in services {
        add_with_contexts(project, service, &mut Vec::new(), &mut in_order);
    }
    for service in in_order {
        if let Err(finding) = one(plan, project, observed, service, up, &mut materials) {
            findings.push(finding);
        }
    }
    if findings.is_empty() { Ok(materials) } else { Err(findings) }
}

fn one(
    plan: &mut Plan,
    project: &Project,
    observed: &Observed,
    service: &Service,
    up: &Up,
    materials: &mut Materials,
) -> Result<(), Diagnostic> {
    let reference = image_of(project, service);
    let is_there = image_id(observed, &reference).is_some();
    let policy = up.pull.unwrap_or(service.pull_policy);
    let may_build = service.build.is_some() && up.build != When::Never;
    let must_build = may_build && (up.build == When::Always || policy == PullPolicy::Build);
    if materials.contains_key(&reference) && !must_build {
        return Ok(());
    }
    if must_build {
        let cause = if up.build == When::Always { Cause::Asked } else { Cause::Policy("build") };
        let step = build(
            plan,
            project,
            service,
            &BuildWishes { quiet: up.quiet_build, ..BuildWishes::default() },
            cause,
            None,
            materials,
        );
        materials.insert(reference, step);
        return Ok(());
    }
    let may_pull = service.image.is_some() && !matches!(policy, PullPolicy::Never | PullPolicy::Build);
    let pulled = (may_pull && (!is_there || policy == PullPolicy::Always)).then(|| {
        let cause = if is_there { Cause::Policy("always") } else { Cause::Missing };
        pull(plan, service, &reference, cause, service.build.is_some())
    });
    materials.extend(pulled.map(|step| (reference.clone(), step)));
    if is_there || (pulled.is_some() && !may_build) {
        return Ok(());
    }
    if !may_build {
        return Err(missing(service, &reference, policy));
    }
    let guard = pulled.map(|_| Guard::ImageMissing { reference: reference.clone() });
    let wishes = BuildWishes { quiet: up.quiet_build, ..BuildWishes::default() };
    let step = build(plan, project, service, &wishes, Cause::Missing, guard, materials);
    materials.insert(reference, step);
    Ok(())
}

fn missing(service: &Service, reference: &str, policy: PullPolicy) -> Diagnostic {
    let finding =
        Diagnostic::error(format!("No such image: {reference}")).key(format!("services.{}", service.key));
    match policy {
        PullPolicy::Never => finding.hint("Its pull policy is `never`; load or pull it first."),
        _ => finding.hint("Leave out `--no-build`, or build it first with `stack build`."),
    }
}

fn pull(plan: &mut Plan, service: &Service, reference: &str, cause: Cause, optional: bool) -> StepId {
    let platform = service.platform.clone();
    plan.add(Action::Pull { reference: reference.to_string(), platform, optional }, cause, &[])
}

fn build(
    plan: &mut Plan,
    project: &Project,
    service: &Service,
    wishes: &BuildWishes,
    cause: Cause,
    guard: Option<Guard>,
    materials: &Materials,
) -> StepId {
    let reference = image_of(project, service);
    let after =
        contexts(project, service, materials).chain(materials.get(&reference).copied()).collect::<Vec<_>>();
    let building = Building { service: Arc::new(service.clone()), reference, wishes: wishes.clone() };
    plan.add_guarded(Action::Build(Box::new(building)), cause, guard, &after)
}

/// Builds that are this one's named contexts (`service:x`), or whose images its Dockerfile names.
fn contexts<'a>(
    project: &'a Project,
    service: &'a Service,
    materials: &'a Materials,
) -> impl Iterator<Item = StepId> + 'a {
    context_services(project, service).filter_map(|other| materials.get(&image_of(project, other)).copied())
}

/// Also those that are not selected: they are not started, but their images are needed.
fn context_services<'a>(
    project: &'a Project,
    service: &'a Service,
) -> impl Iterator<Item = &'a Service> + use<'a> {
    let contexts = service.build.iter().flat_map(|b| b.additional_contexts.values());
    let keys = contexts.filter_map(|context| context.strip_prefix("service:"));
    let keys = keys.chain(service.build.iter().flat_map(|b| b.bases.iter().map(String::as_str)));
    keys.filter_map(|key| project.services.get(key).or_else(|| project.disabled.get(key)))
}

/// `stack pull`.
pub(super) fn pull_all(
    project: &Project,
    observed: &Observed,
    intent: &Pull,
) -> Result<Plan, Vec<Diagnostic>> {
    let mut plan = Plan::new(&project.name);
    let mut seen = Vec::new();
    for service in order::selected(project, &intent.services, intent.dependencies).map_err(|d| vec![d])? {
        let Some(reference) = &service.image else { continue };
        let policy = intent.policy.unwrap_or(service.pull_policy);
        let is_there = image_id(observed, reference).is_some();
        let is_skipped = (intent.ignore_buildable && service.build.is_some())
            || matches!(policy, PullPolicy::Never | PullPolicy::Build)
            || (intent.policy == Some(PullPolicy::Missing) && is_there)
            || seen.contains(&reference);
        if !is_skipped {
            seen.push(reference);
            pull(&mut plan, service, reference, Cause::Asked, false);
        }
    }
    Ok(plan)
}

/// `stack build`.
pub(super) fn build_all(project: &Project, intent: &Build) -> Result<Plan, Vec<Diagnostic>> {
    let mut plan = Plan::new(&project.name);
    let mut materials = Materials::new();
    let named =
        order::selected(project, &intent.services, intent.dependencies && !intent.services.is_empty());
    let mut services: Vec<&Service> = Vec::new();
    for service in named.map_err(|d| vec![d])? {
        add_with_contexts(project, service, &mut Vec::new(), &mut services);
    }
    for service in services.into_iter().filter(|s| s.build.is_some()) {
        let step = build(&mut plan, project, service, &intent.wishes, Cause::Asked, None, &materials);
        materials.insert(image_of(project, service), step);
    }
    Ok(plan)
}

/// Services whose image another one is made from are built first, asked for or not.
fn add_with_contexts<'a>(
    project: &'a Project,
    service: &'a Service,
    path: &mut Vec<&'a str>,
    into: &mut Vec<&'a Service>,
) {
    if path.contains(&service.key.as_str()) || into.iter().any(|s| s.key == service.key) {
        return;
    }
    path.push(&service.key);
    for other in context_services(project, service).filter(|other| other.build.is_some()) {
        add_with_contexts(project, other, path, into);
    }
    path.pop();
    into.push(service);
}
