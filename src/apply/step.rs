//! The arms: how each step is done. No decisions; what is asked for twice succeeds twice.

use super::World;
use super::images::Images;
use super::outcome::{Ended, Failed};
use super::words::{reached, words};
use crate::event::Event;
use crate::failure::{Failure, Kind, Result};
use crate::plan::spec::{Around, ImageView, container_spec};
use crate::plan::step::{Action, Building, Cause, Creation, Guard, Reached, Step, Target};
use futures_util::future::try_join_all;
use stack_runtime::engine::{Engine, ErrorKind, Until, Waited};
use stack_runtime::observed::Exit;
use stack_runtime::spec::MountSpec;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// When Compose looks for the first time.
const UP_AFTER: Duration = Duration::from_millis(500);

/// What the plan made so far: id and whether it has a health check, by final name.
#[derive(Debug, Default)]
pub(super) struct Made(Mutex<HashMap<String, Container>>);

#[derive(Debug, Clone)]
struct Container {
    id: String,
    has_health: bool,
    mounts: Vec<MountSpec>,
}

impl Made {
    fn insert(&self, name: &str, container: Container) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), container);
    }
    fn get(&self, name: &str) -> Option<Container> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
    pub(super) fn list(&self) -> Vec<(String, String)> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = made.iter().map(|(name, c)| (name.clone(), c.id.clone())).collect();
        list.sort();
        list
    }
}

pub(super) async fn run<E: Engine, I: Images>(
    world: &World<'_, E, I>,
    made: &Made,
    step: &Step,
) -> std::result::Result<Ended, Failed> {
    let arms = Arms { world, made };
    if let Some(guard) = &step.guard
        && !arms.holds(guard).map_err(|f| (f, None))?
    {
        return Ok(Ended::Skipped);
    }
    arms.shown(step).await.map(|()| Ended::Done)
}

struct Arms<'a, 'w, E, I> {
    world: &'a World<'w, E, I>,
    made: &'a Made,
}

impl<E: Engine, I: Images> Around for Arms<'_, '_, E, I> {
    fn image(&self, reference: &str) -> Option<String> {
        self.view(reference).ok().map(|view| view.chain_id)
    }

    /// Of the one that this plan made, else of the one that was there.
    fn mounts(&self, container: &str) -> Option<Vec<MountSpec>> {
        let known = || self.world.observed.containers.iter().find(|c| c.name == container);
        self.made.get(container).map(|made| made.mounts).or_else(|| Some(known()?.spec.mounts.clone()))
    }
}

impl<E: Engine, I: Images> Arms<'_, '_, E, I> {
    fn holds(&self, guard: &Guard) -> Result<bool> {
        let id = |reference: &str| Ok::<_, Failure>(self.world.images.view(reference)?.map(|v| v.id));
        Ok(match guard {
            Guard::ImageDiffers { reference, from } => id(reference)?.is_some_and(|id| id != *from),
            Guard::ImageSame { reference, from } => id(reference)?.is_none_or(|id| id == *from),
            Guard::ImageMissing { reference } => id(reference)?.is_none(),
        })
    }

    async fn shown(&self, step: &Step) -> std::result::Result<(), Failed> {
        let words = words(step);
        if let Some((thing, doing, _)) = words.as_ref().filter(|w| !w.1.is_empty()) {
            self.emit(Event::working(thing, doing));
        }
        let result = self.act(step).await;
        match (&result, &words) {
            (Ok(()), Some((thing, _, done))) if !done.is_empty() => self.emit(Event::done(thing, done)),
            (Err((failure, _)), Some((thing, ..))) => self.emit(Event::failed(thing, failure.summary())),
            _ => {}
        }
        result
    }

    fn emit(&self, event: Event) {
        self.world.events.emit(event);
    }

    async fn act(&self, step: &Step) -> std::result::Result<(), Failed> {
        let (engine, project) = (self.world.engine, self.world.project.name.as_str());
        let plain = |e: stack_runtime::engine::EngineError| (Failure::from(e), None);
        match &step.action {
            Action::Pull { reference, platform, optional } => {
                self.pull(reference, platform.as_deref(), *optional).await.map_err(|f| (f, None))
            }
            Action::Build(building) => self.build(building).await.map_err(|f| (f, None)),
            Action::RemoveImage { reference } => self.remove_image(reference).map_err(|f| (f, None)),
            Action::CreateNetwork(spec) => engine.create_network(project, spec).await.map_err(plain),
            Action::RemoveNetwork { name } => engine.remove_network(project, name).await.map_err(plain),
            Action::CreateVolume(spec) => engine.create_volume(spec).await.map_err(plain),
            Action::RemoveVolume { name, optional } => {
                self.remove_volume(name, *optional).await.map_err(|f| (f, None))
            }
            Action::Create(creation) => self.create(creation).await.map_err(|f| (f, None)),
            Action::Release => engine.release(project).await.map_err(plain),
            Action::Wait { containers, until, required, .. } => {
                let is_dependency = matches!(step.cause, Cause::NeededBy(_));
                self.wait(containers, *until, *required, is_dependency).await
            }
            Action::Rename { container, .. }
            | Action::Start { container }
            | Action::Stop { container, .. }
            | Action::Signal { container, .. }
            | Action::Pause { container }
            | Action::Unpause { container }
            | Action::Remove { container, .. } => {
                let id = self.resolve(container).map_err(|f| (f, None))?.id;
                self.on_container(&step.action, &id).await.map_err(|f| (f, Some(id)))
            }
        }
    }

    async fn on_container(&self, action: &Action, id: &str) -> Result<()> {
        let (engine, project) = (self.world.engine, self.world.project.name.as_str());
        match action {
            Action::Rename { name, .. } => engine.rename(project, id, name).await?,
            Action::Start { .. } => engine.start(project, id).await?,
            Action::Stop { grace, .. } => engine.stop(project, id, *grace).await?,
            Action::Signal { signal, .. } => engine.signal(project, id, signal).await?,
            Action::Pause { .. } => engine.pause(project, id).await?,
            Action::Unpause { .. } => engine.resume(project, id).await?,
            Action::Remove { volumes, .. } => engine.remove(project, id, *volumes).await?,
            _ => {}
        }
        Ok(())
    }

    async fn pull(&self, reference: &str, platform: Option<&str>, optional: bool) -> Result<()> {
        match self.world.images.pull(reference, platform, self.world.events).await {
            Err(failure) if optional => {
                self.emit(Event::warned(format!("Image {reference}"), "Missing"));
                self.emit(Event::warning(format!("{}; it is built instead", failure.summary())));
                Ok(())
            }
            Ok(()) if optional => {
                self.emit(Event::done(format!("Image {reference}"), "Pulled"));
                Ok(())
            }
            other => other,
        }
    }

    async fn build(&self, building: &Building) -> Result<()> {
        self.world.images.build(self.world.project, building, self.world.events).await
    }

    /// An image that something else uses stays.
    fn remove_image(&self, reference: &str) -> Result<()> {
        match self.world.images.remove(reference) {
            Err(failure) if failure.kind == Kind::Conflict => {
                self.emit(Event::warned(format!("Image {reference}"), "Resource is still in use"));
                Ok(())
            }
            other => other,
        }
    }

    async fn remove_volume(&self, name: &str, optional: bool) -> Result<()> {
        match self.world.engine.remove_volume(name).await {
            Err(e) if optional && e.kind == ErrorKind::Conflict => {
                self.emit(Event::warned(format!("Volume {name}"), "Resource is still in use"));
                Ok(())
            }
            removed => Ok(removed?),
        }
    }

    async fn create(&self, creation: &Creation) -> Result<()> {
        let image = self.view(&creation.reference)?;
        let spec = container_spec(self.world.project, creation, &image, self)?;
        let id = self.world.engine.create(&self.world.project.name, &spec).await?;
        let container = Container { id, has_health: spec.health.is_some(), mounts: spec.mounts };
        self.made.insert(&creation.name, container);
        Ok(())
    }

    fn view(&self, reference: &str) -> Result<ImageView> {
        let missing = || Failure::new(Kind::NotFound, format!("No such image: {reference}"));
        self.world.images.view(reference)?.ok_or_else(missing)
    }

    fn resolve(&self, target: &Target) -> Result<Container> {
        let made = || self.made.get(target.name());
        let existing = |id: &String| self.existing(id);
        let found = match target {
            Target::Existing { id, .. } => Some(existing(id)),
            Target::Planned { .. } => made(),
            Target::Current { id, .. } => Some(made().unwrap_or_else(|| existing(id))),
        };
        found.ok_or_else(|| Failure::other(format!("container {} was not created", target.name())))
    }

    fn existing(&self, id: &str) -> Container {
        let known = self.world.observed.containers.iter().find(|c| c.id == id);
        let has_health = known.is_some_and(|c| c.spec.health.is_some());
        Container { id: id.to_string(), has_health, mounts: Vec::new() }
    }

    async fn wait(
        &self,
        targets: &[Target],
        until: Reached,
        required: bool,
        is_dependency: bool,
    ) -> std::result::Result<(), Failed> {
        let waits = targets.iter().map(|target| self.wait_for(target, until));
        match try_join_all(waits).await {
            Err((failure, _)) if !required => {
                self.emit(Event::warning(format!(
                    "optional dependency failed to start: {}",
                    failure.summary()
                )));
                Ok(())
            }
            Err((mut failure, container)) if is_dependency => {
                failure.message.insert_str(0, "dependency failed to start: ");
                Err((failure, container))
            }
            other => other.map(drop),
        }
    }

    async fn wait_for(&self, target: &Target, until: Reached) -> std::result::Result<(), Failed> {
        let container = self.resolve(target).map_err(|f| (f, None))?;
        let thing = format!("Container {}", target.name());
        self.emit(Event::working(&thing, "Waiting"));
        let ended = match self.wait_once(target.name(), &container, until).await {
            Ok(()) => {
                self.emit(Event::done(&thing, reached(until)));
                return Ok(());
            }
            Err(failure) => failure,
        };
        self.emit(Event::failed(&thing, ended.summary()));
        Err((ended, Some(container.id)))
    }

    async fn wait_once(&self, name: &str, container: &Container, until: Reached) -> Result<()> {
        let wanted = match until {
            Reached::Healthy if !container.has_health => {
                let message = format!("container {name} has no healthcheck configured");
                return Err(Failure::new(Kind::Service, message));
            }
            Reached::Completed => Until::Exited,
            Reached::Up { .. } if !container.has_health => Until::Running,
            Reached::Healthy | Reached::Up { .. } => Until::Healthy,
        };
        let mut waited = self.world.engine.wait(&self.world.project.name, &container.id, wanted).await?;
        if wanted == Until::Running && waited == Waited::Reached {
            waited = self.stays_up(&container.id).await?;
        }
        judge(name, until, &waited)
    }

    /// A program without a health check that ends at once was never up.
    async fn stays_up(&self, id: &str) -> Result<Waited> {
        let end = self.world.engine.wait(&self.world.project.name, id, Until::Exited);
        match tokio::time::timeout(UP_AFTER, end).await {
            Ok(ended) => Ok(ended?),
            Err(_) => Ok(Waited::Reached),
        }
    }
}

fn judge(name: &str, until: Reached, waited: &Waited) -> Result<()> {
    let failed = |message: String| Err(Failure::new(Kind::Service, message));
    match (until, waited) {
        (Reached::Completed, Waited::Exited(exit)) if exit.code == Some(0) => Ok(()),
        (Reached::Completed, Waited::Exited(exit)) => {
            failed(format!("container {name} didn't complete successfully: {}", ending(exit)))
        }
        (Reached::Up { may_complete: true }, Waited::Exited(exit)) if exit.code == Some(0) => Ok(()),
        (_, Waited::Reached) => Ok(()),
        (_, Waited::Exited(exit)) => failed(format!("container {name} exited ({})", code(exit))),
        (_, Waited::Unhealthy) => failed(format!("container {name} is unhealthy")),
    }
}

fn code(exit: &Exit) -> String {
    exit.code.map_or_else(|| "unknown".into(), |code| code.to_string())
}

/// `exit 1`, `signal 9`, `out of memory`.
fn ending(exit: &Exit) -> String {
    match (exit.oom_killed, exit.signal) {
        (true, _) => "killed for using too much memory".into(),
        (false, Some(signal)) => format!("ended by signal {signal}"),
        (false, None) => format!("exit {}", code(exit)),
    }
}
