//! A build: preparing it, executing its steps, writing the image.

use super::cache::Cache;
use super::check;
use super::command;
use super::elsewhere;
use super::event::BuildEvent;
use super::exchange::{self, CacheTo, Imported};
use super::explain::Site;
use super::failure::{BuildFailure, Doing, Result};
use super::graph::Step;
use super::inputs::{self, NamedContext};
use super::key::{Key, Part};
use super::output;
use super::read::{Reader, other_platform};
use super::request::{BuildEnv, BuildRequest, BuildResult};
use super::run::Runners;
use super::shared::{Shared, blocking};
use super::state::{Made, State, Words};
use super::transfer::{self, Source};
use crate::obtain::{Registries, obtain};
use crate::schedule::{self, AfterFailure, Outcome};
use stack_runtime::image::digest::chain;
use stack_runtime::image::{Digest, Image, Platform, Progress, Reference as ImageName};
use stack_runtime::snapshot::{self, Layer};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::dockerfile::lint::{self, Finding};
use stack_schema::dockerfile::stages::Reference;
use stack_schema::dockerfile::{Instruction, Kind, parse_trigger};
use stack_schema::ignore::Patterns;
use stack_schema::source::Place;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::OnceCell;

/// Called from several threads; must not block.
pub type Events<'a> = &'a (dyn Fn(BuildEvent) + Send + Sync);

struct Builder<'a> {
    shared: Arc<Shared>,
    events: Events<'a>,
    runners: Runners,
    /// State of each selected stage after its last finished step.
    stages: Vec<Mutex<State>>,
    /// Names resolved once per build.
    images: Mutex<HashMap<String, Arc<OnceCell<Image>>>>,
    counted: Mutex<(usize, usize)>,
    imported: Imported,
    /// By stage, the first step that was executed; only to explain the others.
    executed: Mutex<HashMap<String, String>>,
    /// What was made or found, in the order of its end.
    done: Mutex<Vec<exchange::Step>>,
}

/// Builds an image and names it.
///
/// # Errors
/// [`BuildFailure`]; steps that were completed stay in the cache.
pub async fn build(
    env: &BuildEnv,
    request: &BuildRequest,
    events: Events<'_>,
) -> std::result::Result<BuildResult, BuildFailure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(BuildFailure::new("building needs root (rootless mode is not available yet)")
            .hint("Run it with sudo."));
    }
    let _lease = env.store.lease().doing(|| "use the image store")?;
    let (env, request) = (env.clone(), request.clone());
    let cache = Cache::open(&env.home).doing(|| "open the build cache")?;
    let request = elsewhere::contexts(&env, &cache, request).await?;
    let shared = Arc::new(Shared::new(env, request, cache)?);
    report_findings(&shared, events)?;
    let stages = shared.selection.stages.iter().map(|_| Mutex::default()).collect();
    let runners = Runners::new(shared.env.program.clone());
    let imported = import(&shared, events).await?;
    let builder = Builder {
        shared,
        events,
        runners,
        stages,
        images: Mutex::default(),
        counted: Mutex::default(),
        imported,
        executed: Mutex::default(),
        done: Mutex::default(),
    };
    let outcomes = {
        let dependencies = &builder.shared.graph.dependencies;
        schedule::run(dependencies, builder.parallel(), AfterFailure::Drop, |step| builder.step(step)).await
    };
    builder.shared.save();
    let failed = outcomes.into_iter().find_map(|outcome| match outcome {
        Outcome::Failed(failure) => Some(failure),
        _ => None,
    });
    match failed {
        Some(failure) => Err(failure),
        None => builder.export().await,
    }
}

/// What the sources of cached layers have; one that cannot be read is a warning.
async fn import(shared: &Shared, events: Events<'_>) -> Result<Imported> {
    let request = &shared.request;
    let warn = |text: String| events(BuildEvent::Warning(Diagnostic::warning(text)));
    if request.registries == Registries::Offline || request.no_cache {
        return Ok(Imported::default());
    }
    let platform = request.platform.as_deref().map(Platform::parse).transpose()?;
    Ok(Imported::read(&shared.env.store, &request.cache_from, platform.as_ref(), warn).await)
}

/// What is found without any image; where the Dockerfile wants findings to be errors, nothing is built.
fn report_findings(shared: &Shared, events: Events<'_>) -> Result<()> {
    let mut findings = inputs::findings(&shared.file, &shared.request, &shared.outside);
    let (ignore, unknown) = (Patterns::default(), |_: &str| Ok(None));
    let platform = shared.request.platform.as_deref();
    let mut reader = Reader::new(&shared.file, &shared.outside, platform, &ignore, &unknown)?;
    reader.read(&shared.selection.stages)?;
    findings.extend(reader.findings());
    findings.retain(|finding| is_early(finding) && shared.check.wants(finding.rule));
    for finding in &findings {
        events(BuildEvent::Warning(finding.diagnostic.clone()));
    }
    Ok(shared.check.verdict(&findings)?)
}

/// Known before the first step; the rest takes what the base images set.
fn is_early(finding: &Finding) -> bool {
    finding.rule != lint::UNDEFINED_VAR
}

/// A layer to find or make.
struct Wanted {
    step: usize,
    key: Digest,
    /// What the key is made of.
    parts: Vec<Part>,
    created_by: String,
    /// It is the same on every stage.
    is_independent: bool,
}

/// What a step was.
enum Finished {
    Cached,
    Done,
}

impl Builder<'_> {
    fn parallel(&self) -> usize {
        match self.shared.env.parallel {
            0 => std::thread::available_parallelism().map_or(4, |n| n.get().max(4)),
            limit => limit,
        }
    }

    fn emit(&self, event: BuildEvent) {
        (self.events)(event);
    }

    async fn step(&self, index: usize) -> Result<()> {
        let step = &self.shared.graph.steps[index];
        let name = step.name.clone();
        let began = Instant::now();
        if step.shown {
            self.emit(BuildEvent::Started { step: index, name: name.clone() });
        }
        let place = self.place(step);
        let result = self.execute(index, step).await.map_err(|failure| failure.at(&place).step(&name));
        match &result {
            Err(_) => self.emit(BuildEvent::Failed { step: index, name }),
            Ok(_) if !step.shown => {}
            Ok(Finished::Cached) => self.emit(BuildEvent::Cached { step: index, name }),
            Ok(Finished::Done) => self.emit(BuildEvent::Done { step: index, name, took: began.elapsed() }),
        }
        result.map(|_| ())
    }

    fn place(&self, step: &Step) -> Place {
        let stage = &self.shared.file.stages[self.shared.selection.stages[step.stage].index];
        step.instruction.map_or(&stage.place, |at| &stage.instructions[at].place).clone()
    }

    async fn execute(&self, index: usize, step: &Step) -> Result<Finished> {
        let selected = &self.shared.selection.stages[step.stage];
        let Some(at) = step.instruction else {
            let (state, finished) = self.from(index, step.stage).await?;
            self.set_state(step.stage, state);
            return Ok(finished);
        };
        let mut state = self.state(step.stage);
        let instruction = &self.shared.file.stages[selected.index].instructions[at];
        let uses: Vec<&Reference> = selected.uses.iter().filter(|(i, _)| *i == at).map(|(_, r)| r).collect();
        let finished = self.instruction(index, instruction, &uses, &mut state).await?;
        self.set_state(step.stage, state);
        Ok(finished)
    }

    fn state(&self, position: usize) -> State {
        self.stages[position].lock().expect("never poisoned: nothing panics while it is held").clone()
    }

    fn set_state(&self, position: usize, state: State) {
        *self.stages[position].lock().expect("never poisoned: nothing panics while it is held") = state;
    }

    /// A stage's beginning: its base, and the triggers that the base carries.
    async fn from(&self, index: usize, position: usize) -> Result<(State, Finished)> {
        let selected = &self.shared.selection.stages[position];
        let place = &self.shared.file.stages[selected.index].place;
        let wanted = selected.platform.as_ref().or(self.shared.request.platform.as_ref());
        let platform = wanted.map(|text| Platform::parse(text)).transpose()?;
        let (mut state, finished) = match &selected.base {
            Reference::Scratch => (State::scratch(platform.unwrap_or_else(Platform::host)), Finished::Done),
            Reference::Stage(stage) => {
                (self.state(self.shared.graph.position(*stage)).child(), Finished::Done)
            }
            Reference::Image(name) => self.on_image(name, platform.as_ref(), place).await?,
            Reference::Context(name) => match inputs::named_context(&self.shared.request, name)? {
                NamedContext::Image(reference) => self.on_image(&reference, platform.as_ref(), place).await?,
                NamedContext::Directory(_) => {
                    let failure = BuildFailure::new(format!(
                        "the context `{name}` is a directory, and FROM needs an image"
                    ));
                    return Err(failure.hint("Use FROM scratch and COPY --from with the context's name."));
                }
            },
        };
        state.set_date(self.shared.date().as_deref());
        for trigger in state.take_triggers() {
            let instruction =
                parse_trigger(&trigger, inputs::stage_label(&self.shared.file, selected.index).as_str())?;
            let uses = self.trigger_uses(&instruction, &selected.triggers);
            let uses: Vec<&Reference> = uses.iter().collect();
            let place = instruction.place.clone();
            self.instruction(index, &instruction, &uses, &mut state)
                .await
                .map_err(|failure| failure.at(&place))?;
        }
        Ok((state, finished))
    }

    /// A trigger knows named contexts and images, and those stages of this file that are waited for.
    fn trigger_uses(&self, instruction: &Instruction, known: &[Reference]) -> Vec<Reference> {
        let file = &self.shared.file;
        let is_named = |reference: &&Reference, name: &str| match reference {
            Reference::Stage(stage) => {
                let own = file.stages[*stage].name.as_deref();
                own.is_some_and(|own| own.eq_ignore_ascii_case(name)) || name.parse() == Ok(*stage)
            }
            _ => false,
        };
        let reference = |name: &str| match known.iter().find(|reference| is_named(reference, name)) {
            Some(stage) => stage.clone(),
            None if self.shared.request.additional_contexts.contains_key(name) => {
                Reference::Context(name.to_owned())
            }
            None => Reference::Image(name.to_owned()),
        };
        stack_schema::dockerfile::stages::froms(&instruction.kind).into_iter().map(reference).collect()
    }

    async fn on_image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        place: &Place,
    ) -> Result<(State, Finished)> {
        let image = self.image(name, platform).await?;
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        if wanted.fit(&check::own_platform(&image)).is_none() {
            let message = other_platform(name, &check::own_platform(&image), &wanted);
            self.find(Finding::new(lint::BASE_PLATFORM, place, message));
        }
        let digest = image.manifest_digest.as_ref().unwrap_or(&image.id);
        let mut state = State::from_image(&image);
        state.base = format!("{name}@{digest}");
        Ok((state, Finished::Cached))
    }

    /// An image by name: the local one unless a newer one is wanted; each name once per build.
    async fn image(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let key = format!("{name} {}", platform.map(ToString::to_string).unwrap_or_default());
        let cell = {
            let mut images = self.images.lock().expect("never poisoned: nothing panics while it is held");
            images.entry(key).or_default().clone()
        };
        cell.get_or_try_init(|| self.find_image(name, platform)).await.cloned()
    }

    async fn find_image(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let store = &self.shared.env.store;
        let fits =
            |image: &Image| platform.is_none_or(|wanted| wanted.fit(&check::own_platform(image)).is_some());
        let local = if self.shared.request.pull {
            None
        } else {
            store.image(name).doing(|| format!("look up image {name}"))?
        };
        if let Some(image) = local.filter(fits) {
            store.note_use(image.id.as_str());
            return Ok(image);
        }
        let reference = ImageName::parse(name)?;
        let report = |progress: Progress| {
            if let Progress::Layer { done, total, .. } = progress {
                self.emit(BuildEvent::Pulling { reference: name.to_owned(), done, total });
            }
        };
        let registries = self.shared.request.registries;
        let obtained = obtain(store, &reference, platform, registries, &report).await.map_err(|error| {
            let hint = if error.is_unreachable() {
                "Load the image with `stack image load`, or check the network."
            } else {
                ""
            };
            let failure = BuildFailure::doing(format!("pull base image {name}"), error);
            if hint.is_empty() { failure } else { failure.hint(hint) }
        })?;
        if let Some(notice) = obtained.notice {
            self.emit(BuildEvent::Warning(Diagnostic::warning(notice)));
        }
        Ok(obtained.image)
    }

    async fn instruction(
        &self,
        index: usize,
        instruction: &Instruction,
        uses: &[&Reference],
        state: &mut State,
    ) -> Result<Finished> {
        let findings = Mutex::default();
        let words = Words { escape: self.shared.file.escape, place: &instruction.place, findings: &findings };
        let applied = state.apply(&instruction.kind, &words, &self.shared.outside);
        if applied.map_err(BuildFailure::new)? {
            self.warn(findings);
            return Ok(Finished::Done);
        }
        let sources = self.sources(uses).await?;
        let finished = match &instruction.kind {
            Kind::Workdir(path) => {
                let created_by = state.enter(path, &words).map_err(BuildFailure::new)?;
                self.workdir(index, created_by, state).await?
            }
            Kind::Run(run) => {
                let context = if run.mounts.is_empty() {
                    Source::Chain(String::new())
                } else {
                    self.context_source("")?
                };
                let no_cache = self.is_uncached(index);
                let plan = command::plan(run, sources, &context, &self.shared, state, &words, no_cache);
                self.run(index, plan.map_err(BuildFailure::new)?, state).await?
            }
            Kind::Copy(transfer) | Kind::Add(transfer) => {
                let keyword = if matches!(instruction.kind, Kind::Add(_)) { "ADD" } else { "COPY" };
                let from = match sources.into_iter().next() {
                    Some(source) => source,
                    None => self.context_source("")?,
                };
                let plan = transfer::plan(transfer, keyword, from, state, &words, self.shared.epoch);
                let mut plan = plan.map_err(BuildFailure::new)?;
                plan.obtain(&self.shared).await?;
                self.transfer(index, plan, state).await?
            }
            _ => Finished::Done,
        };
        self.warn(findings);
        Ok(finished)
    }

    /// Of what an instruction found, that which was not told before the first step.
    fn warn(&self, findings: Mutex<Vec<Finding>>) {
        let findings = findings.into_inner().expect("never poisoned: nothing panics while it is held");
        findings.into_iter().filter(|finding| !is_early(finding)).for_each(|finding| self.find(finding));
    }

    fn find(&self, finding: Finding) {
        if self.shared.check.wants(finding.rule) {
            self.emit(BuildEvent::Warning(finding.diagnostic));
        }
    }

    async fn sources(&self, uses: &[&Reference]) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for reference in uses {
            sources.push(match reference {
                Reference::Scratch => Source::Chain(String::new()),
                Reference::Stage(stage) => {
                    Source::Chain(self.state(self.shared.graph.position(*stage)).chain)
                }
                Reference::Image(name) => Source::Chain(self.image(name, None).await?.chain_id),
                Reference::Context(name) => match inputs::named_context(&self.shared.request, name)? {
                    NamedContext::Image(reference) => {
                        Source::Chain(self.image(&reference, None).await?.chain_id)
                    }
                    NamedContext::Directory(_) => self.context_source(name)?,
                },
            });
        }
        Ok(sources)
    }

    fn context_source(&self, name: &str) -> Result<Source> {
        self.shared.context(name).map(Source::Context)
    }

    /// Its stage takes nothing from the cache.
    fn is_uncached(&self, step: usize) -> bool {
        let request = &self.shared.request;
        let stage = self.shared.selection.stages[self.shared.graph.steps[step].stage].index;
        let name = self.shared.file.stages[stage].name.as_deref();
        let is_meant = |filter: &String| name.is_some_and(|name| name.eq_ignore_ascii_case(filter));
        request.no_cache || request.no_cache_filter.iter().any(is_meant)
    }

    /// Makes the working directory, which the state has entered.
    async fn workdir(&self, step: usize, created_by: String, state: &mut State) -> Result<Finished> {
        let path = state.absolute(".");
        if path == "/" {
            state.remember(created_by, true);
            return Ok(Finished::Done);
        }
        let (shared, user, parent) = (self.shared.clone(), state.config.user.clone(), state.chain.clone());
        let (key, parts) = self
            .shared
            .dated(Key::of_step("workdir"))
            .text("parent", &parent)
            .text("path", &path)
            .text("user", &user)
            .parts();
        let make = || async move {
            let made_key = None;
            blocking(move || transfer::make_workdir(&shared, &path, &user, &parent))
                .await
                .map(|layer| (layer, made_key))
        };
        self.layer(Wanted { step, key, parts, created_by, is_independent: false }, state, make).await
    }

    async fn transfer(&self, step: usize, plan: transfer::Plan, state: &mut State) -> Result<Finished> {
        let (shared, parent) = (self.shared.clone(), state.chain.clone());
        let created_by = plan.created_by();
        // What is only looked up is not worth another thread.
        let (plan, keyed) = match transfer::remembered_key(&shared, &plan, &parent) {
            Some(keyed) => (plan, keyed),
            None => {
                blocking(move || transfer::key(&shared, &plan, &parent).map(|keyed| (plan, keyed))).await?
            }
        };
        let (shared, parent) = (self.shared.clone(), state.chain.clone());
        let is_independent = plan.is_independent();
        let make = |keyed: transfer::Keyed| async move {
            let (layer, key) = blocking(move || transfer::execute(&shared, &plan, keyed, &parent)).await?;
            Ok((layer, Some(key)))
        };
        let (key, parts) = (keyed.key.clone(), keyed.parts.clone());
        let layer = Wanted { step, key, parts, created_by, is_independent };
        self.layer(layer, state, || make(keyed)).await
    }

    async fn run(&self, index: usize, plan: command::Plan, state: &mut State) -> Result<Finished> {
        let plan = Arc::new(plan);
        let (key, parts) = if plan.reads_files() {
            let (shared, plan, parent) = (self.shared.clone(), plan.clone(), state.chain.clone());
            blocking(move || plan.key(&shared, &parent)).await?
        } else {
            plan.key(&self.shared, &state.chain)?
        };
        let name = &self.shared.graph.steps[index].name;
        let on_line =
            |stream, line| self.emit(BuildEvent::Output { step: index, name: name.clone(), stream, line });
        let on_note = |text| self.emit(BuildEvent::Note { step: index, text });
        let parent = state.chain.clone();
        let make = || async {
            let layer =
                command::execute(&self.shared, &self.runners, plan.clone(), &parent, &on_line, &on_note)
                    .await?;
            Ok((layer, None))
        };
        let created_by = plan.created_by();
        self.layer(Wanted { step: index, key, parts, created_by, is_independent: false }, state, make).await
    }

    /// The layer of a key: recorded, or made now and recorded. `make` may correct the key.
    async fn layer<F>(
        &self,
        Wanted { step, key, parts, created_by, is_independent }: Wanted,
        state: &mut State,
        make: impl FnOnce() -> F,
    ) -> Result<Finished>
    where
        F: Future<Output = Result<(Layer, Option<Digest>)>>,
    {
        let cache = &self.shared.cache;
        let is_uncached = self.is_uncached(step);
        let find = || (!is_uncached).then(|| cache.find(&self.shared.env.store, &key)).flatten();
        let parent = if is_independent { String::new() } else { state.chain.clone() };
        let note = |key: Digest, made: &Made| {
            let (made, created_by) = (made.clone(), created_by.clone());
            let step = exchange::Step { key, parent: parent.clone(), made, created_by };
            self.done.lock().expect("never poisoned: nothing panics while it is held").push(step);
        };
        let site = self.site(step, &created_by);
        let mut parts = parts;
        if !is_independent && !state.base.is_empty() {
            parts.insert(0, Part { label: "base image".into(), value: state.base.clone() });
        }
        self.shared.ledger.note(&site, &key, &parts);
        if let Some(made) = find() {
            note(key, &made);
            return self.found(made, created_by, is_independent, state).await;
        }
        let _lock = {
            let (cache, key) = (cache.clone(), key.clone());
            blocking(move || cache.lock(&key).doing(|| "lock a step")).await?
        };
        // Another build may have made it meanwhile.
        if let Some(made) = find() {
            note(key, &made);
            return self.found(made, created_by, is_independent, state).await;
        }
        if let Some(made) = self.imported(&key, &parent, is_uncached).await {
            cache.record(&key, &made, &created_by).doing(|| "record a step in the cache")?;
            note(key, &made);
            return self.found(made, created_by, is_independent, state).await;
        }
        self.explain(step, &site, &key, &parts);
        let (layer, corrected) = make().await?;
        let created = jiff::Timestamp::now().to_string();
        let made = Made { diff_id: layer.diff_id, chain_id: layer.chain_id, created };
        let key = corrected.unwrap_or(key);
        cache.record(&key, &made, &created_by).doing(|| "record a step in the cache")?;
        note(key, &made);
        self.count(false);
        state.add_layer(self.in_place(made, is_independent, state).await?, created_by);
        Ok(Finished::Done)
    }

    /// The step as a later build finds it again.
    fn site<'a>(&self, step: usize, words: &'a str) -> Site<'a> {
        let graph = &self.shared.graph;
        let position = graph.steps[step].stage;
        let place = step - graph.steps.iter().position(|other| other.stage == position).unwrap_or(0);
        let stage = self.shared.selection.stages[position].index;
        Site { stage: inputs::stage_label(&self.shared.file, stage), place, words }
    }

    /// If that is wanted.
    fn explain(&self, step: usize, site: &Site<'_>, key: &Digest, parts: &[Part]) {
        if !self.shared.request.explain {
            return;
        }
        let name = self.shared.graph.steps[step].name.clone();
        let below = {
            let mut executed = self.executed.lock().expect("never poisoned: nothing panics while it is held");
            let first = executed.entry(site.stage.clone()).or_insert_with(|| name.clone());
            (*first != name).then(|| first.clone())
        };
        let why = match self.is_uncached(step) {
            true => "the cache is not to be used".to_owned(),
            false => self.shared.ledger.why(site, (key, parts), below.as_deref(), &self.shared.cache),
        };
        self.emit(BuildEvent::Explained { step, name, why });
    }

    /// From another build's cache; one that breaks off is a miss.
    async fn imported(&self, key: &Digest, parent: &str, is_uncached: bool) -> Option<Made> {
        if is_uncached {
            return None;
        }
        match self.imported.take(&self.shared.env.store, key, parent).await {
            Ok(made) => made,
            Err(failure) => {
                let text = format!("a cached layer cannot be used: {failure}");
                self.emit(BuildEvent::Warning(Diagnostic::warning(text)));
                None
            }
        }
    }

    async fn found(
        &self,
        made: Made,
        created_by: String,
        is_independent: bool,
        state: &mut State,
    ) -> Result<Finished> {
        self.count(true);
        state.add_layer(self.in_place(made, is_independent, state).await?, created_by);
        Ok(Finished::Cached)
    }

    /// A layer that was made on nothing, on top of the stage.
    async fn in_place(&self, made: Made, is_independent: bool, state: &State) -> Result<Made> {
        let wanted = chain(&state.chain, &made.diff_id);
        if !is_independent || wanted == made.chain_id {
            return Ok(made);
        }
        let (store, parent) = (self.shared.env.store.clone(), state.chain.clone());
        blocking(move || {
            if !snapshot::exists(&store, wanted.as_str()) {
                snapshot::rebase(&store, made.chain_id.as_str(), &parent)?;
            }
            Ok(Made { chain_id: wanted, ..made })
        })
        .await
    }

    fn count(&self, cached: bool) {
        let mut counted = self.counted.lock().expect("never poisoned: nothing panics while it is held");
        counted.0 += 1;
        counted.1 += usize::from(cached);
    }

    /// Names of the images that were used, with their digests, sorted.
    fn bases(&self) -> Vec<(String, Digest)> {
        let images = self.images.lock().expect("never poisoned: nothing panics while it is held");
        let used = images.iter().filter_map(|(name, cell)| {
            let image = cell.get()?;
            let name = name.split(' ').next().unwrap_or(name);
            Some((name.to_owned(), image.manifest_digest.clone().unwrap_or_else(|| image.id.clone())))
        });
        let mut used: Vec<_> = used.collect();
        used.sort();
        used.dedup();
        used
    }

    /// Writes the target stage as an image.
    async fn export(self) -> Result<BuildResult> {
        let target = self.shared.graph.position(self.shared.selection.target);
        let state = self.state(target);
        let (steps, cached) = *self.counted.lock().expect("never poisoned: nothing panics while it is held");
        let shared = self.shared.clone();
        let bases = self.bases();
        let done = self.done.into_inner().expect("never poisoned: nothing panics while it is held");
        let warn = |text: String| (self.events)(BuildEvent::Warning(Diagnostic::warning(text)));
        let (targets, result) = (shared.request.cache_to.clone(), state.diff_ids.clone());
        let store = shared.env.store.clone();
        exchange::export(&store, &targets, &done, &result, warn).await?;
        let document = encoded(&shared, &state, &done)?;
        let written = output::write(&shared, &state, document, bases).await?;
        if written.is_kept {
            let names = written.tags.iter().map(ImageName::familiar).collect();
            (self.events)(BuildEvent::Exported { image_id: written.image_id.to_string(), tags: names });
        }
        let output::Written { image_id, tags, pushed, part, .. } = written;
        Ok(BuildResult { image_id, tags, steps, cached, pushed, part })
    }
}

/// The image's configuration; with the records of its own steps if that is asked for.
fn encoded(shared: &Shared, state: &State, done: &[exchange::Step]) -> Result<Vec<u8>> {
    let document = state.document(&shared.request.labels);
    if !shared.request.cache_to.iter().any(CacheTo::is_inline) {
        return serde_json::to_vec(&document).doing(|| "encode the image");
    }
    let mut document = serde_json::to_value(&document).doing(|| "encode the image")?;
    document[exchange::INLINE] = exchange::inline(done, &state.diff_ids);
    serde_json::to_vec(&document).doing(|| "encode the image")
}
