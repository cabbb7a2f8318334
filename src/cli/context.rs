//! What every verb works with: the straight line find, load, observe, converge, apply, report.

use super::args::Global;
use super::interrupts::Interrupts;
use super::reason;
use crate::apply::{Report, World, apply};
use crate::event::{Event, Sink};
use crate::failure::{Failure, Kind, Result, failed};
use crate::find::{self, Asked, Found, Place};
use crate::host::{HostEngine, cdi};
use crate::obtain::Registries;
use crate::plan::intent::Intent;
use crate::plan::spec::device_requests;
use crate::plan::step::{Action, Step};
use crate::plan::{Plan, converge, images_of, label};
use crate::proxies::Proxies;
use crate::ui::Ui;
use stack_runtime::engine::Engine;
use stack_runtime::home::{self, Home};
use stack_runtime::observed::Observed;
use stack_schema::diagnostic::{Diagnostic, Severity};
use stack_schema::load::{LoadRequest, Loaded, is_project_name, load, normalise_name};
use stack_schema::project::Project;
use stack_schema::source::{Disk, read_bounded};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// See the module.
pub struct Context {
    pub ui: Arc<Ui>,
    pub home: Home,
    pub dry_run: bool,
    asked: Asked,
    place: Place,
    parallel: Option<i64>,
    all_resources: bool,
    hushed: OnceLock<Hushed>,
    pub(super) interrupts: Interrupts,
    agreed: OnceLock<()>,
    offline: bool,
    /// What registries are asked for must come from them.
    insists: OnceLock<()>,
}

/// What a `--quiet…` flag keeps from the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hushed {
    /// Progress of layers.
    Parts,
    /// All progress.
    All,
}

/// Passes on what is not hushed.
struct Filter<'a> {
    ui: &'a Ui,
    hushed: Option<Hushed>,
}

impl Sink for Filter<'_> {
    fn emit(&self, event: Event) {
        let is_hushed = match (self.hushed, &event) {
            (None, _) | (_, Event::Message { .. }) => false,
            (Some(Hushed::All), _) => true,
            (Some(Hushed::Parts), Event::Progress(progress)) => progress.parent.is_some(),
            (Some(Hushed::Parts), _) => false,
        };
        if !is_hushed {
            self.ui.emit(event);
        }
    }
}

/// A project and what there is of it.
pub struct Scene {
    pub project: Project,
    pub observed: Observed,
    pub engine: HostEngine,
}

impl Context {
    /// # Errors
    /// When the current directory is gone.
    pub(super) fn new(global: &Global, ui: Ui) -> Result<Self> {
        let (ui, home, place) = (Arc::new(ui), Home::from_env(), Place::current()?);
        let (dry_run, parallel) = (global.dry_run, global.parallel);
        Ok(Self {
            ui,
            home,
            dry_run,
            asked: global.asked(),
            place,
            parallel,
            all_resources: global.all_resources,
            hushed: OnceLock::new(),
            interrupts: Interrupts::default(),
            agreed: OnceLock::new(),
            offline: global.offline,
            insists: OnceLock::new(),
        })
    }

    /// Whether `--compatibility` was typed.
    pub fn compatibility(&self) -> bool {
        self.asked.compatibility
    }

    /// From now on less is shown; the first wish counts.
    pub fn hush(&self, hushed: Hushed) {
        let _ = self.hushed.set(hushed);
    }

    /// From now on every question is answered with yes (`-y`).
    pub fn agree(&self) {
        let _ = self.agreed.set(());
    }

    pub fn is_agreed(&self) -> bool {
        self.agreed.get().is_some()
    }

    /// From now on an image that is here does not stand in for one that a registry would not give (`stack pull`).
    pub fn insist(&self) {
        let _ = self.insists.set(());
    }

    pub fn registries(&self) -> Registries {
        match (self.offline, self.insists.get()) {
            (true, _) => Registries::Offline,
            (false, Some(())) => Registries::Required,
            (false, None) => Registries::Preferred,
        }
    }

    /// For what makes no sense without a network.
    ///
    /// # Errors
    /// With `--offline`.
    pub fn needs_network(&self, what: &str) -> Result<()> {
        match self.offline {
            true => Err(Failure::usage(format!("{what} needs the network, and --offline keeps it out"))),
            false => Ok(()),
        }
    }

    pub fn engine(&self) -> HostEngine {
        HostEngine::new(self.home.clone())
    }

    /// The value of a `COMPOSE_*` setting, from the process or `.env`.
    pub fn setting(&self, name: &str) -> Option<String> {
        let of_process = self.place.environment.get(name).map(str::to_string);
        of_process
            .or_else(|| find::settings(&self.asked, &self.place, &Disk).ok()?.get(name).map(str::to_string))
    }

    pub fn current_directory(&self) -> &std::path::Path {
        &self.place.directory
    }

    pub fn variable(&self, name: &str) -> Option<&str> {
        self.place.environment.get(name)
    }

    /// Finds the files; `change` adjusts what is loaded.
    ///
    /// # Errors
    /// No file, or a bad env file.
    pub fn request(&self, change: impl FnOnce(&mut LoadRequest)) -> Result<LoadRequest> {
        let Found { mut request, warnings, .. } = find::find(&self.asked, &self.place, &Disk)?;
        self.ui.diagnostics(&warnings);
        if request.files.iter().any(|f| f.as_os_str() == "-") {
            let bytes = read_bounded(std::io::stdin().lock()).map_err(failed("read standard input"))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| Failure::new(Kind::Project, "standard input is not UTF-8 text"))?;
            request.stdin = Some(text);
        }
        request.all_resources = self.all_resources;
        change(&mut request);
        Ok(request)
    }

    /// Loads and shows the warnings.
    ///
    /// # Errors
    /// What is wrong in the files.
    pub fn load(&self, request: &LoadRequest) -> Result<Loaded> {
        let loaded = read(request)?;
        self.ui.diagnostics(&loaded.diagnostics);
        Ok(loaded)
    }

    /// The same with the findings as data.
    ///
    /// # Errors
    /// Nothing more to say when something is wrong in the files.
    pub fn load_as_data(&self, request: &LoadRequest) -> Result<Loaded> {
        let loaded = load(request, &Disk);
        self.ui.findings(&loaded.diagnostics);
        if loaded.has_errors() { Err(Failure::exit(1)) } else { Ok(loaded) }
    }

    /// The project with these services and what they depend on; none named: all.
    ///
    /// # Errors
    /// As [`Context::load`].
    pub fn project(&self, services: &[String]) -> Result<Project> {
        let request = self.request(|r| r.services = services.to_vec())?;
        self.bound(&request)
    }

    fn bound(&self, request: &LoadRequest) -> Result<Project> {
        self.bind(self.load(request)?)
    }

    /// The project as it is to run here.
    fn bind(&self, loaded: Loaded) -> Result<Project> {
        let missing = || Failure::new(Kind::Project, "the project could not be loaded");
        let mut project = loaded.project.ok_or_else(missing)?;
        Proxies::read(&self.place.environment, &Disk).give_to(&mut project);
        Ok(project)
    }

    /// The whole project, also services of inactive profiles that are named.
    fn whole(&self, services: &[String]) -> Result<Project> {
        let mut request = self.request(|_| ())?;
        let project = self.bound(&request)?;
        let profiles: Vec<String> =
            services.iter().filter_map(|key| project.disabled.get(key)?.profiles.first().cloned()).collect();
        if profiles.is_empty() {
            return Ok(project);
        }
        request.profiles.extend(profiles);
        self.bound(&request)
    }

    /// For verbs that create: the file decides. What this machine lacks is said before anything is touched.
    ///
    /// # Errors
    /// As [`Context::project`], what this machine lacks, and what observing meets.
    pub async fn scene(&self, services: &[String]) -> Result<Scene> {
        let mut loaded = read(&self.request(|r| r.services = services.to_vec())?)?;
        if let Some(project) = &loaded.project {
            // The plan says it, as an error.
            let is_refused = |d: &Diagnostic| {
                project.refusals.iter().any(|r| r.message == d.message && r.key_path == d.key_path)
            };
            loaded.diagnostics.retain(|finding| !is_refused(finding));
        }
        self.ui.diagnostics(&loaded.diagnostics);
        let mut project = self.bind(loaded)?;
        super::build::find_bases(&mut project);
        if !self.dry_run
            && let Some(failure) = crate::doctor::obstacle(&self.home)
        {
            return Err(failure);
        }
        self.observe(project, true).await
    }

    /// # Errors
    /// What observing meets.
    pub async fn observe(&self, project: Project, with_images: bool) -> Result<Scene> {
        let engine = self.engine();
        let images = if with_images { images_of(&project) } else { Vec::new() };
        let observed = engine.observe(&project.name, &images).await?;
        Ok(Scene { project, observed, engine })
    }

    /// For verbs about what exists: with only `-p` no file is read, all comes from labels.
    ///
    /// # Errors
    /// As [`Context::scene`], and an unknown service.
    pub async fn existing(&self, services: &[String]) -> Result<Scene> {
        let scene = match self.only_name()? {
            Some(name) => self.labelled(&name).await?,
            None => match self.whole(services) {
                Ok(project) => self.observe(project, false).await?,
                Err(failure) => match self.setting("COMPOSE_PROJECT_NAME") {
                    Some(name) if self.asked.files.is_empty() => self.labelled(&name).await?,
                    _ => return Err(failure),
                },
            },
        };
        super::known_services(&scene.project, services)?;
        Ok(scene)
    }

    async fn labelled(&self, name: &str) -> Result<Scene> {
        let engine = self.engine();
        let observed = engine.observe(name, &[]).await?;
        Ok(Scene { project: label::project_of(name, &observed), observed, engine })
    }

    /// Of the project that is meant; where only its name is given, nothing of it need exist.
    ///
    /// # Errors
    /// As [`Context::load`], and a service that the files do not have.
    pub fn project_name(&self, services: &[String]) -> Result<String> {
        if let Some(name) = self.only_name()? {
            return Ok(name);
        }
        let project = self.project(&[])?;
        super::known_services(&project, services)?;
        Ok(project.name)
    }

    fn only_name(&self) -> Result<Option<String>> {
        match &self.asked.project_name {
            Some(name) if self.asked.files.is_empty() => valid_name(name).map(Some),
            _ => Ok(None),
        }
    }

    /// At most so many steps at once.
    pub fn parallel(&self) -> usize {
        let setting = || self.setting("COMPOSE_PARALLEL_LIMIT")?.parse().ok();
        match self.parallel.or_else(setting) {
            Some(limit) if limit > 0 => usize::try_from(limit).unwrap_or(usize::MAX),
            _ => 64,
        }
    }

    /// Decides, and shows the warnings of the plan.
    ///
    /// # Errors
    /// Findings, each with its place in the files where it has one.
    pub fn plan(&self, scene: &Scene, intent: &Intent) -> Result<Plan> {
        let plan = converge(&scene.project, &scene.observed, intent);
        let plan = plan.map_err(|findings| placed(&scene.project, findings))?;
        self.ui.diagnostics(&plan.warnings);
        Ok(plan)
    }

    /// Decides and applies; a dry run shows the plan instead.
    ///
    /// # Errors
    /// The first failed step, with its reason.
    pub async fn carry_out(&self, scene: &Scene, intent: &Intent) -> Result<Report> {
        let plan = self.plan(scene, intent)?;
        self.apply(scene, &plan).await
    }

    /// # Errors
    /// The first failed step, with its reason; an interruption.
    pub async fn apply(&self, scene: &Scene, plan: &Plan) -> Result<Report> {
        if self.dry_run {
            self.ui.data(&plan.to_string());
            return Ok(Report::default());
        }
        if !plan.is_empty() {
            self.may_change()?;
            check_devices(&scene.project, plan)?;
        }
        let images = super::image::Local::new(self);
        let events = Filter { ui: &self.ui, hushed: self.hushed.get().copied() };
        let world = World {
            engine: &scene.engine,
            images: &images,
            project: &scene.project,
            observed: &scene.observed,
            events: &events,
            parallel: self.parallel(),
        };
        let work = async {
            let report = apply(&world, plan).await;
            self.warn_of_starts(scene, plan).await;
            report
        };
        let report = tokio::select! {
            report = work => report,
            () = self.interrupts.next() => return Err(Failure::interrupted()),
        };
        let brings = |step: &Step| matches!(step.action, Action::Pull { .. } | Action::Build(_));
        if plan.steps().any(|(_, step)| brings(step)) {
            super::system::keep_budget(self, &images_of(&scene.project));
        }
        match report.failure() {
            None => Ok(report),
            Some((_, failure, container)) => {
                Err(reason::explain(self, scene, failure.clone(), container).await)
            }
        }
    }

    /// Says what the containers that this plan started did not get, and what the stack lacks.
    async fn warn_of_starts(&self, scene: &Scene, plan: &Plan) {
        let started: BTreeSet<&str> = plan
            .steps()
            .filter_map(|(_, step)| match &step.action {
                Action::Start { container } => Some(container.name()),
                _ => None,
            })
            .collect();
        if !started.is_empty() {
            self.warn_of(scene, &started, true).await;
        }
    }

    /// Says what these containers did not get, and of the `whole` stack what it lacks.
    pub(super) async fn warn_of(&self, scene: &Scene, started: &BTreeSet<&str>, whole: bool) {
        // A supervisor that cannot be asked has failed the starts themselves.
        for warned in scene.engine.warnings(&scene.project.name, whole).await.unwrap_or_default() {
            match warned.container {
                Some(name) if started.contains(name.as_str()) => {
                    self.ui.emit(Event::warning(format!("container {name}: {}", warned.text)));
                }
                Some(_) => {}
                None => self.ui.emit(Event::warning(warned.text)),
            }
        }
    }

    /// One changing command per project at a time.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn lock(&self, project: &str) -> Result<Option<home::Lock>> {
        self.lock_with_grace(project, None).await
    }

    /// As [`Context::lock`], with a grace of its own for what an earlier command told to stop.
    ///
    /// # Errors
    /// The operating system's; that something does not stop.
    pub async fn lock_with_grace(
        &self,
        project: &str,
        grace: Option<Duration>,
    ) -> Result<Option<home::Lock>> {
        if self.dry_run {
            return Ok(None);
        }
        crate::build::sweep(&self.home);
        let lock = self.wait_for_lock(project).await?;
        self.engine().finish_cut_off(project, grace).await?;
        Ok(Some(lock))
    }

    async fn wait_for_lock(&self, project: &str) -> Result<home::Lock> {
        let path = self.home.stack(project).join("lock");
        let busy = failed("lock the project");
        if let Some(lock) = home::try_lock(&path).map_err(failed("lock the project"))? {
            return Ok(lock);
        }
        self.ui.emit(Event::info(format!("waiting for another command on project {project}")));
        let waited = tokio::task::spawn_blocking(move || home::lock(&path)).await;
        waited.map_err(failed("lock the project"))?.map_err(busy)
    }

    /// # Errors
    /// When the home cannot be used.
    pub fn may_change(&self) -> Result<()> {
        self.home.prepare().map_err(failed("prepare the home"))
    }
}

/// What is wrong in the files is a failure.
fn read(request: &LoadRequest) -> Result<Loaded> {
    let loaded = load(request, &Disk);
    if loaded.diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(loaded.diagnostics.into());
    }
    Ok(loaded)
}

/// Devices that are asked for and not there are said before anything is made.
fn check_devices(project: &Project, plan: &Plan) -> Result<()> {
    let created = plan.steps().filter_map(|(_, step)| match &step.action {
        Action::Create(creation) => Some(&creation.service),
        _ => None,
    });
    for service in created {
        cdi::check(&device_requests(service)).map_err(|e| {
            let finding = Diagnostic::error(e.message).key(device_key(project, &service.key));
            placed(project, vec![finding.hint(e.hint.unwrap_or_default())])
        })?;
    }
    Ok(())
}

/// Where the devices of a service are asked for.
fn device_key(project: &Project, service: &str) -> String {
    let keys = ["gpus", "deploy.resources.reservations.devices", "devices"];
    let paths = keys.map(|key| format!("services.{service}.{key}"));
    paths.into_iter().find(|path| project.places.of(path).is_some()).unwrap_or_default()
}

fn valid_name(name: &str) -> Result<String> {
    if is_project_name(name) {
        return Ok(name.to_string());
    }
    let message = format!(
        "invalid project name {name:?}: must consist only of lowercase alphanumeric characters, hyphens, and underscores as well as start with a letter or number"
    );
    Err(Failure::new(Kind::Project, message).hint(format!("Try {:?}.", normalise_name(name))))
}

/// Findings of the plan know a key path; the project knows where it was written.
fn placed(project: &Project, findings: Vec<Diagnostic>) -> Failure {
    let place = |mut finding: Diagnostic| {
        if finding.place.is_none() && !finding.key_path.is_empty() {
            finding.place = project.places.of(&finding.key_path);
        }
        finding
    };
    findings.into_iter().map(place).collect::<Vec<_>>().into()
}
