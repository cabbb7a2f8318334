//! Attached `up`: logs of all containers, from the start of the first until they ended, one of them ends it, or the
//! user does.
//!
//! Ctrl-C stops gracefully, a second one kills; the containers stay.

use super::follow::{Follow, Line};
use super::{Context, Scene};
use crate::event::Event;
use crate::event::Sink;
use crate::failure::{Failure, Kind, Result};
use crate::host::HostEngine;
use crate::plan::intent::Intent;
use crate::plan::label::{Labelled, container_name};
use crate::plan::step::short;
use crate::supervise::Client;
use crate::supervise::protocol::{Notice, What};
use crate::ui::log::{LogPrinter, LogStyle};
use jiff::Timestamp;
use stack_runtime::engine::{Engine, Until};
use stack_runtime::logs::Options;
use stack_runtime::monitor::{self, Attachment};
use stack_runtime::observed::{ContainerObserved, Exit, Observed, State};
use stack_schema::project::Project;
use std::collections::HashSet;
use tokio::sync::mpsc;

/// When an attached `up` is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ending {
    AllEnded,
    FirstExit,
    FirstFailure,
    CodeOf(String),
}

/// Containers without a log, as they are started.
pub(super) type Unlogged = mpsc::UnboundedReceiver<(String, Attachment)>;

pub(super) struct Attached<'a> {
    pub(super) context: &'a Context,
    pub(super) project: Project,
    /// Whose logs are shown.
    pub(super) services: Vec<String>,
    pub(super) ending: Ending,
    pub(super) style: LogStyle,
    /// Older lines are not shown.
    pub(super) since: Timestamp,
    /// Goes on although all containers ended (`--watch`).
    pub(super) stays: bool,
}

/// What ends it.
enum End {
    Code(i32),
    /// By the user.
    Stopped,
    /// Not everything could be started.
    Failed(Failure),
}

/// What is being shown.
struct Show<'a> {
    attached: &'a Attached<'a>,
    follow: Follow,
    printer: LogPrinter,
    /// Endings that were told: name and time.
    told: HashSet<(String, String)>,
    /// Ids of containers that ended and are not restarted, as far as we were told.
    over: HashSet<String>,
    /// Not everything is started yet.
    is_rising: bool,
    has_started: bool,
}

impl Attached<'_> {
    /// Shows what the containers print, first while `rising` starts them.
    pub(super) async fn run(
        self,
        engine: &HostEngine,
        rising: impl Future<Output = Result<()>>,
        mut unlogged: Unlogged,
    ) -> Result<()> {
        let mut notices = engine.watch(&self.project.name).await?;
        let mut show = Show {
            attached: &self,
            follow: Follow::new(),
            printer: LogPrinter::new(self.style.clone()),
            told: HashSet::new(),
            over: HashSet::new(),
            is_rising: true,
            has_started: false,
        };
        show.announce_all();
        let observed = engine.observe(&self.project.name, &[]).await?;
        show.add_running(&observed);
        let mut rising = Box::pin(rising);
        let end = loop {
            tokio::select! {
                line = show.follow.next() => show.print(&line),
                risen = &mut rising, if show.is_rising => match risen {
                    Err(failure) if failure.kind == Kind::Interrupted && show.has_started => break End::Stopped,
                    Err(failure) => break End::Failed(failure),
                    Ok(()) => {
                        if let Some(code) = show.risen(engine, &notices.client()).await? {
                            break End::Code(code);
                        }
                    }
                },
                Some((id, attachment)) = unlogged.recv() => show.listen(engine, &id, attachment).await?,
                () = self.context.interrupts.next(), if !show.is_rising => break End::Stopped,
                notice = notices.next() => match notice? {
                    Some(notice) => {
                        if let Some(code) = show.take(engine, &notices.client(), notice).await? {
                            break End::Code(code);
                        }
                    }
                    None => break End::Code(show.last_code(engine).await?),
                },
            }
        };
        drop(rising); // with its lock
        self.end(end, &mut show).await
    }

    async fn end(&self, end: End, show: &mut Show<'_>) -> Result<()> {
        self.context.ui.settle();
        self.context.interrupts.heed();
        if show.is_rising && !matches!(end, End::Failed(_)) {
            // Starts that were cut off come before the stops.
            tokio::select! {
                lock = self.context.lock(&self.project.name) => drop(lock?),
                () = self.context.interrupts.next() => return Err(Failure::interrupted()),
            }
        }
        match end {
            End::Code(code) => self.finish(code, show).await,
            End::Stopped => self.stop(show).await,
            End::Failed(failure) => {
                show.drain_all().await;
                Err(failure)
            }
        }
    }

    async fn scene(&self) -> Result<Scene> {
        self.context.observe(self.project.clone(), false).await
    }

    /// The user wants it stopped.
    async fn stop(&self, show: &mut Show<'_>) -> Result<()> {
        self.context.ui.emit(Event::info("Gracefully Stopping... press Ctrl+C again to force"));
        let scene = self.scene().await?;
        let stop = Intent::Stop { services: self.keys(), grace: None };
        let plan = self.context.plan(&scene, &stop)?;
        // A second Ctrl-C ends `apply` as interrupted.
        let stopped = {
            let apply = self.context.apply(&scene, &plan);
            tokio::pin!(apply);
            loop {
                tokio::select! {
                    line = show.follow.next() => show.print(&line),
                    done = &mut apply => break done,
                }
            }
        };
        if stopped.is_err() {
            self.kill().await?;
        }
        show.drain_all().await;
        Err(Failure::interrupted())
    }

    async fn kill(&self) -> Result<()> {
        self.context.interrupts.heed();
        let scene = self.scene().await?;
        let kill = Intent::Kill { services: self.keys(), signal: "SIGKILL".into(), orphans: false };
        self.context.carry_out(&scene, &kill).await?;
        for container in scene.observed.containers.iter().filter(|c| !c.is_one_off()) {
            if matches!(container.state, State::Running { .. } | State::Paused { .. }) {
                scene.engine.wait(&self.project.name, &container.id, Until::Exited).await?;
            }
        }
        Ok(())
    }

    fn keys(&self) -> Vec<String> {
        self.project.services.keys().cloned().collect()
    }

    /// Ends by itself: what aborts stops the others first.
    async fn finish(&self, code: i32, show: &mut Show<'_>) -> Result<()> {
        if self.ending != Ending::AllEnded {
            self.context.ui.emit(Event::info("Aborting on container exit..."));
            let scene = self.scene().await?;
            let stop = Intent::Stop { services: self.keys(), grace: None };
            self.context.carry_out(&scene, &stop).await?;
        }
        show.drain_all().await;
        let code = match &self.ending {
            Ending::AllEnded => 0,
            Ending::CodeOf(key) => self.code_of(key).await?.unwrap_or(code),
            Ending::FirstExit | Ending::FirstFailure => code,
        };
        match u8::try_from(code) {
            Ok(0) => Ok(()),
            Ok(code) => Err(Failure::exit(code)),
            Err(_) => Err(Failure::exit(1)),
        }
    }

    async fn code_of(&self, key: &str) -> Result<Option<i32>> {
        let observed = self.context.engine().observe(&self.project.name, &[]).await?;
        let of_service = observed.containers.iter().filter(|c| c.service() == key && !c.is_one_off());
        Ok(of_service.filter_map(|c| exit_of(c)?.code).next())
    }
}

fn exit_of(container: &ContainerObserved) -> Option<&Exit> {
    match &container.state {
        State::Exited { exit } | State::Restarting { exit } => Some(exit),
        _ => None,
    }
}

impl Show<'_> {
    fn is_shown(&self, container: &ContainerObserved) -> bool {
        !container.is_one_off() && self.attached.services.iter().any(|key| key == container.service())
    }

    /// So that prefixes line up from the first line on.
    fn announce_all(&mut self) {
        let project = &self.attached.project;
        for service in self.attached.services.iter().filter_map(|key| project.services.get(key)) {
            for number in 1..=service.scale {
                let name = container_name(project, service, number);
                self.printer.announce(short(&project.name, &name));
            }
        }
    }

    fn add_running(&mut self, observed: &Observed) {
        let runs = |c: &&ContainerObserved| matches!(c.state, State::Running { .. } | State::Paused { .. });
        observed.containers.iter().filter(runs).for_each(|container| self.add(container));
    }

    /// Everything is started; the code to end with, if all is over already.
    async fn risen(&mut self, engine: &HostEngine, client: &Client) -> Result<Option<i32>> {
        self.is_rising = false;
        self.attached.context.ui.settle();
        let observed = engine.observe(&self.attached.project.name, &[]).await?;
        observed.containers.iter().for_each(|container| self.add(container));
        self.ended_before(client, &observed).await
    }

    fn add(&mut self, container: &ContainerObserved) {
        if self.is_shown(container) {
            let name = short(&self.attached.project.name, &container.name).to_string();
            let directory = self.attached.context.home.container(&self.attached.project.name, &container.id);
            self.printer.announce(&name);
            let since = Some(self.attached.since);
            self.follow.add(&name, directory, Options { since, ..Options::default() });
        }
    }

    /// Shows the output of one that has no log.
    async fn listen(&mut self, engine: &HostEngine, id: &str, attachment: Attachment) -> Result<()> {
        let project = &self.attached.project.name;
        let observed = engine.observe(project, &[]).await?;
        let container = observed.containers.iter().find(|c| c.id == id);
        if let Some(container) = container.filter(|c| self.is_shown(c)) {
            let name = short(project, &container.name).to_string();
            self.printer.announce(&name);
            self.follow.attach(&name, self.attached.context.home.container(project, id), attachment);
        }
        Ok(())
    }

    /// A restart of one that has no log.
    fn listen_again(&mut self, container: &ContainerObserved) {
        let directory = self.attached.context.home.container(&self.attached.project.name, &container.id);
        if let Ok(attachment) = monitor::connect_to(&directory, None).and_then(Attachment::new) {
            let name = short(&self.attached.project.name, &container.name).to_string();
            self.follow.attach(&name, directory, attachment);
        }
    }

    fn print(&mut self, line: &Line) {
        let time = format!("{:.9}", line.time);
        let text = self.printer.line(&line.name, &time, &line.text);
        match line.stream {
            stack_runtime::logs::Stream::Stdout => self.attached.context.ui.data(&text),
            stack_runtime::logs::Stream::Stderr => self.attached.context.ui.data_err(&text),
        }
    }

    async fn drain(&mut self, name: &str) {
        for line in self.follow.drain(name).await {
            self.print(&line);
        }
    }

    async fn drain_all(&mut self) {
        let observed = self.attached.context.engine().observe(&self.attached.project.name, &[]).await;
        for container in observed.into_iter().flat_map(|o| o.containers) {
            match &container.state {
                State::Exited { exit } if self.is_shown(&container) => {
                    self.say_ended(&container.name, exit, false).await;
                }
                _ => self.drain(short(&self.attached.project.name, &container.name)).await,
            }
        }
    }

    /// The code to end with, if what happened before we looked ends it.
    async fn ended_before(&mut self, client: &Client, observed: &Observed) -> Result<Option<i32>> {
        let shown: Vec<_> = observed.containers.iter().filter(|c| self.is_shown(c)).collect();
        let mut code = None;
        for container in self.over_among(client, shown.clone()).await? {
            let Some(exit) = exit_of(container) else { continue };
            self.say_ended(&container.name, exit, false).await;
            self.over.insert(container.id.clone());
            let own = exit.code.unwrap_or(1);
            code = code.or(self.aborts(container.service(), own).then_some(own));
        }
        let all_ended = !self.attached.stays && shown.iter().all(|c| self.over.contains(&c.id));
        Ok(code.or(all_ended.then_some(0)))
    }

    /// Those that ended for good: an end that its supervisor has not dealt with yet may be followed by a restart, and
    /// then we are told.
    async fn over_among<'c>(
        &self,
        client: &Client,
        containers: Vec<&'c ContainerObserved>,
    ) -> Result<Vec<&'c ContainerObserved>> {
        let watched = client.inspect().await?;
        let is_down = |id: &str| watched.iter().find(|w| w.id == id).is_none_or(|w| w.phase == "down");
        let has_ended = |c: &&ContainerObserved| matches!(c.state, State::Exited { .. }) && is_down(&c.id);
        Ok(containers.into_iter().filter(has_ended).collect())
    }

    /// Nothing is left to supervise: the first bad end, or 0.
    async fn last_code(&self, engine: &HostEngine) -> Result<i32> {
        let observed = engine.observe(&self.attached.project.name, &[]).await?;
        let shown = observed.containers.iter().filter(|c| self.is_shown(c));
        let codes = shown.filter_map(|c| Some(exit_of(c)?.code.unwrap_or(1)));
        Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
    }

    /// Only the services that are attached to count, and the one whose code is asked for.
    fn aborts(&self, service: &str, code: i32) -> bool {
        let is_attached = self.attached.services.iter().any(|key| key == service);
        match &self.attached.ending {
            Ending::AllEnded => false,
            Ending::FirstExit => is_attached,
            Ending::CodeOf(key) => is_attached || key == service,
            Ending::FirstFailure => is_attached && code != 0,
        }
    }

    async fn take(&mut self, engine: &HostEngine, client: &Client, notice: Notice) -> Result<Option<i32>> {
        let observed = engine.observe(&self.attached.project.name, &[]).await?;
        let container = observed.containers.iter().find(|c| c.id == notice.id);
        match notice.what {
            What::Started => {
                self.has_started = true;
                self.over.remove(&notice.id);
                container.into_iter().for_each(|c| self.add(c));
                let has_none = |c: &&ContainerObserved| c.spec.logging.driver == "none" && self.is_shown(c);
                if let Some(container) = container.filter(|c| !self.is_rising && has_none(c)) {
                    self.listen_again(container);
                }
                Ok(None)
            }
            What::Exited(exit) => {
                let is_shown = container.is_some_and(|c| self.is_shown(c));
                let service = container.map(|c| c.service().to_string()).unwrap_or_default();
                let restarts = container
                    .is_some_and(|c| matches!(c.state, State::Restarting { .. } | State::Running { .. }));
                if is_shown {
                    self.say_ended(&notice.name, &exit, restarts).await;
                }
                let code = exit.code.unwrap_or(1);
                if container.is_some_and(|c| !c.is_one_off()) && self.aborts(&service, code) {
                    return Ok(Some(code));
                }
                if !restarts {
                    self.over.insert(notice.id);
                }
                Ok(self.all_ended(client, &observed).await?.then_some(0))
            }
            What::Adopted => {
                self.add_running(&observed);
                match self.is_rising {
                    true => Ok(None),
                    false => self.ended_before(client, &observed).await,
                }
            }
            _ => Ok(None),
        }
    }

    async fn all_ended(&self, client: &Client, observed: &Observed) -> Result<bool> {
        let shown: Vec<_> = observed.containers.iter().filter(|c| self.is_shown(c)).collect();
        if self.is_rising || self.attached.stays {
            return Ok(false);
        }
        let doubtful: Vec<_> = shown.into_iter().filter(|c| !self.over.contains(&c.id)).collect();
        let all = doubtful.len();
        Ok(all == 0 || self.over_among(client, doubtful).await?.len() == all)
    }

    async fn say_ended(&mut self, name: &str, exit: &Exit, restarts: bool) {
        let name = short(&self.attached.project.name, name).to_string();
        self.drain(&name).await;
        if !self.told.insert((name.clone(), exit.finished_at.clone())) {
            return;
        }
        let code = exit.code.map_or_else(|| "unknown".to_string(), |code| code.to_string());
        let cause = if exit.oom_killed { " (out of memory)" } else { "" };
        let restarting = if restarts { " (restarting)" } else { "" };
        let remark = self.printer.remark(&name, &format!("exited with code {code}{cause}{restarting}"));
        self.attached.context.ui.data(&remark);
    }
}
