//! `up` and `create`: materials, then networks and volumes, then every service after what it depends on.
//!
//! A replacement is four steps, in Compose's order, so that the old container runs until the new one is made:
//! create under a temporary name, stop the old one, remove it, rename. Anonymous volumes go along.

mod gates;

use super::intent::{Run, Up};
use super::label::{Labelled, container_name, image_of};
use super::materials::{self, Materials};
use super::order;
use super::resources::{self, Resources, take_down};
use super::spec::{Around, ImageView, container_spec, logging};
use super::step::{Action, Cause, Creation, Guard, OneOff, Plan, Settled, StepId, Target};
use super::survey::{Survey, anonymous_volumes, donors, existing, final_name, is_running, temporary_name};
use super::verdict::{Judge, Verdict};
use stack_runtime::image::ImageConfig;
use stack_runtime::observed::{ContainerObserved, Observed};
use stack_runtime::spec::MountSpec;
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Project, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

type Findings = Vec<Diagnostic>;

pub(super) fn up(project: &Project, observed: &Observed, up: &Up) -> Result<Plan, Findings> {
    let services = order::selected(project, &up.services, up.dependencies).map_err(|d| vec![d])?;
    for key in up.scale.keys() {
        order::known(project, key).map_err(|d| vec![d])?;
    }
    let mut rise = Rise::prepare(project, observed, up, &services, &services)?;
    rise.bring_up(&services);
    if up.wait && up.start {
        rise.wait_for_all(&services);
    }
    rise.orphans();
    Ok(rise.plan)
}

pub(super) fn run(project: &Project, observed: &Observed, run: &Run) -> Result<Plan, Findings> {
    let service = &run.service;
    let keys: Vec<String> =
        service.depends_on.keys().filter(|k| project.services.contains_key(*k)).cloned().collect();
    let needed = if run.up.dependencies && !keys.is_empty() {
        order::selected(project, &keys, true).map_err(|d| vec![d])?
    } else {
        Vec::new()
    };
    let needed: Vec<&Service> = needed.into_iter().filter(|s| s.key != service.key).collect();
    let all: Vec<&Service> = needed.iter().copied().chain([service]).collect();
    let mut rise = Rise::prepare(project, observed, &run.up, &needed, &all)?;
    rise.bring_up(&needed);
    let gates = if run.up.dependencies { rise.gates(service) } else { Vec::new() };
    let creation = rise.creation(service, 1, run.name.clone(), Some(run.one_off.clone()));
    rise.create(creation, Cause::Asked, None, &gates);
    rise.orphans();
    Ok(rise.plan)
}

/// The plan while it grows, service by service.
struct Rise<'a> {
    project: &'a Project,
    survey: Survey<'a>,
    up: &'a Up,
    plan: Plan,
    materials: Materials,
    resources: Resources,
    verdicts: BTreeMap<String, Vec<Verdict>>,
    /// The strongest verdict other than keep, by service.
    replaced: BTreeMap<String, Verdict>,
    /// Create steps by service.
    created: BTreeMap<String, Vec<StepId>>,
    /// Start steps by service.
    started: BTreeMap<String, Vec<StepId>>,
    /// Containers by service, as a wait names them.
    targets: BTreeMap<String, Vec<Target>>,
    waits: BTreeMap<(String, &'static str), Option<StepId>>,
    /// Stopped ahead of their dependency's replacement, by container id.
    stopped: BTreeMap<String, Ahead>,
    shared: BTreeMap<String, Arc<Service>>,
}

/// A stop that comes before the replacement of a dependency.
#[derive(Clone)]
struct Ahead {
    step: StepId,
    guard: Option<Guard>,
    dependency: String,
}

impl<'a> Rise<'a> {
    /// `kept` are brought up; `used` also need their images, networks and volumes.
    fn prepare(
        project: &'a Project,
        observed: &'a Observed,
        up: &'a Up,
        kept: &[&'a Service],
        used: &[&Service],
    ) -> Result<Self, Findings> {
        let survey = Survey::new(observed);
        let mut plan = Plan::new(&project.name);
        let materials = materials::converge(&mut plan, project, observed, used, up)?;
        let first: Vec<StepId> = materials.values().copied().collect();
        let resources = resources::converge(&mut plan, project, &survey, used, &first, up)?;
        let mut rise = Self {
            project,
            survey,
            up,
            plan,
            materials,
            resources,
            verdicts: BTreeMap::new(),
            replaced: BTreeMap::new(),
            created: BTreeMap::new(),
            started: BTreeMap::new(),
            targets: BTreeMap::new(),
            waits: BTreeMap::new(),
            stopped: BTreeMap::new(),
            shared: BTreeMap::new(),
        };
        rise.can_be_made(used)?;
        rise.judge(kept);
        rise.clear_leftovers();
        Ok(rise)
    }

    /// What can be said of the services without their images is said before anything is done.
    fn can_be_made(&mut self, services: &[&Service]) -> Result<(), Findings> {
        let config = ImageConfig { cmd: Some(vec![String::new()]), ..ImageConfig::default() };
        let image = ImageView { config, ..ImageView::default() };
        for warning in services.iter().flat_map(|service| logging::warnings(service)) {
            self.plan.warn(warning);
        }
        let project = self.project;
        let around = Foreseen { project, observed: self.survey.observed };
        let made = services.iter().map(|service| {
            let creation = self.creation(service, 1, container_name(project, service, 1), None);
            container_spec(project, &creation, &image, &around)
        });
        let findings: Findings = made.filter_map(Result::err).collect();
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }

    fn judge(&mut self, services: &[&Service]) {
        let judge = Judge {
            project: self.project,
            survey: &self.survey,
            up: self.up,
            materials: &self.materials,
            resources: &self.resources,
        };
        for service in services {
            let containers = self.survey.containers(&service.key);
            let verdicts: Vec<Verdict> =
                containers.iter().map(|c| judge.judge(service, c, &self.replaced)).collect();
            let certain = verdicts.iter().find(|v| matches!(v, Verdict::Replace(_) | Verdict::Again(_)));
            if let Some(strongest) = certain.or_else(|| verdicts.iter().find(|v| !v.is_keep())) {
                self.replaced.insert(service.key.clone(), strongest.clone());
            }
            self.verdicts.insert(service.key.clone(), verdicts);
        }
    }

    fn clear_leftovers(&mut self) {
        for container in self.survey.leftovers.clone() {
            let volumes = !self.survey.shares_volumes(container);
            take_down(&mut self.plan, container, Cause::Interrupted, &[], self.up.grace, volumes);
        }
    }

    fn bring_up(&mut self, services: &[&Service]) {
        for service in services {
            self.service(service, services);
        }
    }

    fn scale(&self, service: &Service) -> usize {
        self.up.scale.get(&service.key).copied().unwrap_or(service.scale) as usize
    }

    fn service(&mut self, service: &Service, selected: &[&Service]) {
        let wanted = self.scale(service);
        let verdicts = self.verdicts.remove(&service.key).unwrap_or_default();
        let all: Vec<_> = self.survey.containers(&service.key).iter().copied().zip(verdicts).collect();
        let (kept, extra) = scaled(all, wanted);
        for (container, _) in extra {
            take_down(&mut self.plan, container, Cause::ScaledDown, &[], self.up.grace, false);
        }
        let next = self.survey.containers(&service.key).iter().map(|c| c.number()).max().unwrap_or(0) + 1;
        let missing = wanted.saturating_sub(kept.len());
        for (container, verdict) in &kept {
            self.present(service, container, verdict, selected);
        }
        for number in (next..).take(missing) {
            self.absent(service, number);
        }
    }

    /// A container that is to be there and is not.
    fn absent(&mut self, service: &Service, number: u32) {
        let name = container_name(self.project, service, number);
        let creation = self.creation(service, number, name.clone(), None);
        let created = self.create(creation, Cause::Missing, None, &[]);
        self.start(service, Target::Planned { name }, Cause::Created, None, &[created]);
    }

    fn present(
        &mut self,
        service: &Service,
        container: &ContainerObserved,
        verdict: &Verdict,
        selected: &[&Service],
    ) {
        match verdict {
            Verdict::Keep => self.keep(service, container, None),
            Verdict::Replace(cause) => self.replace(service, container, cause, None, selected),
            Verdict::Maybe(cause, guard) => {
                self.replace(service, container, cause, Some(guard), selected);
                self.keep(service, container, opposite(guard));
            }
            Verdict::Again(cause) => {
                let name = final_name(container).to_string();
                let creation = self.successor(service, container, name.clone());
                let created = self.create(creation, cause.clone(), None, &[]);
                self.start(service, Target::Planned { name }, Cause::Replaced, None, &[created]);
            }
        }
    }

    fn keep(&mut self, service: &Service, container: &ContainerObserved, guard: Option<Guard>) {
        let name = final_name(container).to_string();
        let mut after = Vec::new();
        if name != container.name {
            let rename = Action::Rename { container: existing(container), name: name.clone() };
            after.push(self.plan.add(rename, Cause::Interrupted, &[]));
        }
        let target = if guard.is_some() {
            Target::Current { name: name.clone(), id: container.id.clone() }
        } else {
            existing(container)
        };
        let targets = self.targets.entry(service.key.clone()).or_default();
        if !targets.iter().any(|t| t.name() == name) {
            targets.push(target);
        }
        if let Some(ahead) = self.stopped.get(&container.id).cloned() {
            after.push(ahead.step);
            let cause = Cause::DependencyReplaced(ahead.dependency);
            return self.start(service, existing(container), cause, ahead.guard, &after);
        }
        if is_running(container) {
            self.plan.settled.push(Settled::Running { container: name });
        } else {
            self.start(service, existing(container), Cause::NotRunning, guard, &after);
        }
    }

    fn replace(
        &mut self,
        service: &Service,
        container: &ContainerObserved,
        cause: &Cause,
        guard: Option<&Guard>,
        selected: &[&Service],
    ) {
        let name = final_name(container).to_string();
        let mut creation = self.successor(service, container, name.clone());
        creation.temporary = Some(temporary_name(container, &name));
        let guard = guard.cloned();
        let created = self.create(creation, cause.clone(), guard.clone(), &[]);
        let mut after = self.stop_dependents(service, selected, guard.as_ref());
        after.push(created);
        let (grace, old) = (self.up.grace, existing(container));
        if is_running(container) {
            let stop = Action::Stop { container: old.clone(), grace };
            after = vec![self.plan.add_guarded(stop, Cause::Replaced, guard.clone(), &after)];
        }
        let volumes = self.up.renew_anonymous_volumes;
        let remove = Action::Remove { container: old, volumes };
        let removed = self.plan.add_guarded(remove, Cause::Replaced, guard.clone(), &after);
        let rename = Action::Rename { container: Target::Planned { name: name.clone() }, name: name.clone() };
        let renamed = self.plan.add_guarded(rename, Cause::Replaced, guard.clone(), &[removed]);
        self.start(service, Target::Planned { name }, Cause::Replaced, guard, &[renamed]);
    }

    /// Dependents that restart with their dependency go down before it.
    fn stop_dependents(
        &mut self,
        service: &Service,
        selected: &[&Service],
        guard: Option<&Guard>,
    ) -> Vec<StepId> {
        let mut steps = Vec::new();
        let restarts = |s: &&&Service| s.depends_on.get(&service.key).is_some_and(|d| d.restart);
        for dependent in selected.iter().filter(restarts) {
            let kept = self.verdicts.get(&dependent.key).is_some_and(|v| v.iter().all(Verdict::is_keep));
            let containers = self.survey.containers(&dependent.key).to_vec();
            for container in containers.into_iter().filter(|c| kept && is_running(c)) {
                let action = Action::Stop { container: existing(container), grace: self.up.grace };
                let cause = Cause::DependencyReplaced(service.key.clone());
                let step = self.plan.add_guarded(action, cause, guard.cloned(), &[]);
                let ahead = Ahead { step, guard: guard.cloned(), dependency: service.key.clone() };
                self.stopped.insert(container.id.clone(), ahead);
                steps.push(step);
            }
        }
        steps
    }

    fn creation(
        &mut self,
        service: &Service,
        number: u32,
        name: String,
        one_off: Option<OneOff>,
    ) -> Creation {
        let shared = self.shared.entry(service.key.clone()).or_insert_with(|| Arc::new(service.clone()));
        Creation {
            service: Arc::clone(shared),
            reference: image_of(self.project, service),
            number,
            name,
            temporary: None,
            inherited: Vec::new(),
            one_off,
        }
    }

    fn successor(&mut self, service: &Service, old: &ContainerObserved, name: String) -> Creation {
        let mut creation = self.creation(service, old.number(), name, None);
        if !self.up.renew_anonymous_volumes {
            creation.inherited = anonymous_volumes(old);
        }
        creation
    }

    /// After every image, network and volume, and after whoever it takes mounts from.
    fn create(&mut self, creation: Creation, cause: Cause, guard: Option<Guard>, after: &[StepId]) -> StepId {
        let key = creation.service.key.clone();
        let donors = donors(&creation.service).filter_map(|donor| self.created.get(donor)).flatten();
        let after: Vec<StepId> = self
            .materials
            .values()
            .chain(&self.resources.ready)
            .chain(donors)
            .chain(after)
            .copied()
            .collect();
        let step = self.plan.add_guarded(Action::Create(Box::new(creation)), cause, guard, &after);
        self.created.entry(key).or_default().push(step);
        step
    }

    fn start(
        &mut self,
        service: &Service,
        target: Target,
        cause: Cause,
        guard: Option<Guard>,
        after: &[StepId],
    ) {
        if let Target::Planned { name } = &target {
            let targets = self.targets.entry(service.key.clone()).or_default();
            let old = self.survey.containers(&service.key).iter().find(|c| final_name(c) == name);
            targets.push(match (old, &guard) {
                (Some(old), Some(_)) => Target::Current { name: name.clone(), id: old.id.clone() },
                _ => target.clone(),
            });
        }
        if !self.up.start {
            return;
        }
        let mut after = after.to_vec();
        if self.up.dependencies {
            after.extend(self.gates(service));
        }
        let resources = self.resources.ready.iter().copied();
        after.extend(resources);
        let step = self.plan.add_guarded(Action::Start { container: target }, cause, guard, &after);
        self.started.entry(service.key.clone()).or_default().push(step);
    }

    fn orphans(&mut self) {
        let orphans = self.survey.orphans(self.project);
        if orphans.is_empty() || self.up.ignore_orphans {
            return;
        }
        if self.up.remove_orphans {
            for orphan in orphans {
                take_down(&mut self.plan, orphan, Cause::Orphan, &[], self.up.grace, false);
            }
            return;
        }
        let names: Vec<&str> = orphans.iter().map(|c| c.name.as_str()).collect();
        let finding = Diagnostic::warning(format!("found orphan containers ({}) for this project", names.join(", ")))
            .hint("If you removed or renamed a service in your compose file, run this command with `--remove-orphans`.");
        self.plan.warnings.push(finding);
    }
}

/// Other images and containers as far as they can be foreseen: every image can be had, every service has a container.
struct Foreseen<'a> {
    project: &'a Project,
    observed: &'a Observed,
}

impl Around for Foreseen<'_> {
    fn image(&self, _: &str) -> Option<String> {
        Some(String::new())
    }
    fn mounts(&self, container: &str) -> Option<Vec<MountSpec>> {
        let mut planned = self.project.services.values().map(|s| container_name(self.project, s, 1));
        let is_known = self.observed.containers.iter().any(|c| c.name == container);
        (is_known || planned.any(|name| name == container)).then(Vec::new)
    }
}

fn opposite(guard: &Guard) -> Option<Guard> {
    match guard {
        Guard::ImageDiffers { reference, from } => {
            Some(Guard::ImageSame { reference: reference.clone(), from: from.clone() })
        }
        other => Some(other.clone()),
    }
}

type Judged<'a> = (&'a ContainerObserved, Verdict);

/// What stays and what is too many: outdated ones go first, then the highest numbers.
fn scaled(mut all: Vec<Judged<'_>>, wanted: usize) -> (Vec<Judged<'_>>, Vec<Judged<'_>>) {
    if all.len() <= wanted {
        return (all, Vec::new());
    }
    all.sort_by_key(|(container, verdict)| (!verdict.is_keep(), container.number()));
    let mut extra = all.split_off(wanted);
    all.sort_by_key(|(container, _)| container.number());
    extra.retain(|(_, verdict)| !matches!(verdict, Verdict::Again(_)));
    (all, extra)
}
