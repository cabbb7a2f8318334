//! The keeper of one container: a task that takes orders, watches the monitor and the clock, and carries out what the
//! tables in [`super::life`], [`super::restart`] and [`super::health`] say. Everything that happens to a container
//! happens here, one thing after the other.

use super::health::HealthMachine;
use super::launch::{self, Run};
use super::life::{Action, Event, Phase, step};
use super::listening;
use super::probe::{self, Probed};
use super::protocol::{Watched, What};
use super::stack::{Keeper as Way, Stack};
use crate::host::record::{ContainerDir, ContainerRecord, Supervision};
use crate::host::{remove, signal};
use stack_runtime::engine::{EngineError, ErrorKind, Result};
use stack_runtime::observed::{Exit, HealthStatus, State};
use stack_runtime::spec::RestartSpec;
use stack_runtime::{cgroup, monitor};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

const TERM: i32 = 15;
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Orders that may queue up while one is carried out.
const ORDERS: usize = 64;

pub(super) type Answer = oneshot::Sender<Result<()>>;

/// What a keeper is told to do.
#[derive(Debug)]
pub(super) enum Order {
    Start(Answer),
    Stop { signal: Option<i32>, grace: Option<Duration>, answer: Answer },
    Signal { signal: i32, answer: Answer },
    Pause(Answer),
    Resume(Answer),
    Renamed(Answer),
    Remove { volumes: bool, answer: Answer },
}

/// What others may know about the container at any moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub name: String,
    pub phase: Phase,
    /// While it runs.
    pub pid: Option<i32>,
    pub is_paused: bool,
    pub health: HealthStatus,
    /// How it ended last, or why it did not start.
    pub exit: Option<Exit>,
    pub restart_count: u32,
}

impl Status {
    pub(super) fn to_watched(&self, id: &str) -> Watched {
        Watched {
            id: id.into(),
            name: self.name.clone(),
            phase: format!("{:?}", self.phase).to_lowercase(),
            pid: self.pid,
            health: self.health,
            restart_count: self.restart_count,
        }
    }
}

struct Keeper {
    stack: Arc<Stack>,
    dir: ContainerDir,
    record: ContainerRecord,
    supervision: Supervision,
    phase: Phase,
    run: Option<Run>,
    health: Option<HealthMachine>,
    probing: Option<JoinHandle<Probed>>,
    /// When the next attempt of the restart policy is due.
    attempt_at: Option<Instant>,
    /// When the grace period is over.
    kill_at: Option<Instant>,
    stopping: Vec<Answer>,
    exit: Option<Exit>,
    status: watch::Sender<Status>,
    is_removed: bool,
}

/// Starts the task. What an earlier supervisor left of the container is taken over: a running one is watched on, an
/// exit that nobody saw is dealt with, a pending restart is waited for.
pub(super) fn spawn(stack: Arc<Stack>, dir: ContainerDir, record: ContainerRecord) -> Way {
    let (orders, inbox) = mpsc::channel(ORDERS);
    let (sender, status) = watch::channel(Status::default());
    let keeper = Keeper::found(stack, dir, record, sender);
    keeper.show();
    tokio::spawn(keeper.keep(inbox));
    Way { orders, status }
}

impl Keeper {
    fn found(
        stack: Arc<Stack>,
        dir: ContainerDir,
        record: ContainerRecord,
        status: watch::Sender<Status>,
    ) -> Self {
        let supervision = dir.supervision().unwrap_or_default();
        let run = launch::adopt(&dir).unwrap_or_else(|e| {
            tracing::warn!(container = record.spec.name, "cannot be taken over: {e}");
            None
        });
        let state = monitor::observe(dir.path()).unwrap_or(State::Created);
        let exit = if let State::Exited { exit } = state { Some(exit) } else { supervision.failure.clone() };
        let phase = match () {
            () if run.is_some() => Phase::Up,
            () if supervision.is_waiting => Phase::Waiting,
            // It ran when the last supervisor looked: its exit is still to be dealt with.
            () if supervision.is_up && exit.is_some() => Phase::Up,
            () => Phase::Down,
        };
        let attempt_at = (phase == Phase::Waiting).then(|| Instant::now() + supervision.restarts.delay);
        Self {
            stack,
            dir,
            record,
            supervision,
            phase,
            run,
            health: None,
            probing: None,
            attempt_at,
            kill_at: None,
            stopping: Vec::new(),
            exit,
            status,
            is_removed: false,
        }
    }

    async fn keep(mut self, mut inbox: mpsc::Receiver<Order>) {
        if self.run.is_some() {
            self.adopt().await;
        } else if self.phase == Phase::Up {
            self.ended().await;
        }
        while !self.is_removed {
            self.show();
            let wake = self.wakes_at().map(tokio::time::Instant::from_std);
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => break,
                },
                () = monitor_gone(self.run.as_ref()) => self.ended().await,
                probed = finished(&mut self.probing) => self.probed(probed),
                () = tokio::time::sleep_until(wake.unwrap_or_else(tokio::time::Instant::now)), if wake.is_some() => {
                    self.woke().await;
                }
            }
        }
        self.show();
        let end = self.record.spec.auto_remove.then(|| self.exit.clone().unwrap_or_default());
        self.stack.forget(&self.record.id, end);
    }

    async fn obey(&mut self, order: Order) {
        // An asker who is gone needs no answer.
        match order {
            Order::Start(answer) => drop(answer.send(self.start().await)),
            Order::Stop { signal, grace, answer } => self.stop(signal, grace, answer).await,
            Order::Signal { signal, answer } => drop(answer.send(self.signal(signal))),
            Order::Pause(answer) => drop(answer.send(self.pause())),
            Order::Resume(answer) => drop(answer.send(self.resume())),
            Order::Renamed(answer) => drop(answer.send(self.renamed())),
            Order::Remove { volumes, answer } => drop(answer.send(self.remove(volumes).await)),
        }
    }

    /// Goes through one cell of the table.
    fn step(&mut self, event: Event) -> Action {
        let (phase, action) = step(self.phase, event);
        self.phase = phase;
        action
    }

    // ---- orders

    async fn start(&mut self) -> Result<()> {
        match self.step(Event::Start) {
            Action::Launch => {
                self.supervision.restarts.start();
                self.launch().await
            }
            Action::Refuse => Err(self.conflict("is being stopped")),
            _ => Ok(()),
        }
    }

    async fn stop(&mut self, signal: Option<i32>, grace: Option<Duration>, answer: Answer) {
        self.supervision.restarts.stop();
        self.save();
        match self.step(Event::Stop) {
            Action::Terminate => {
                self.stopping.push(answer);
                self.terminate(signal, grace);
            }
            Action::Settle => {
                self.settle().await;
                drop(answer.send(Ok(())));
            }
            _ => drop(answer.send(Ok(()))),
        }
    }

    fn terminate(&mut self, signal: Option<i32>, grace: Option<Duration>) {
        let Some(run) = &self.run else { return };
        let init = run.init.clone();
        let signal = signal.or_else(|| self.stop_signal()).unwrap_or(TERM);
        tokio::spawn(async move {
            if let Err(e) = init.tell(signal).await {
                tracing::warn!("cannot send signal {signal} to process {}: {e}", init.pid());
            }
        });
        let grace = grace.or(self.record.spec.stop_grace).unwrap_or(DEFAULT_GRACE);
        // A grace period beyond the clock's range has no end.
        self.kill_at = Instant::now().checked_add(grace);
        if self.supervision.is_paused {
            // The signal is queued by now or soon, and delivered when it is thawed.
            drop(self.freeze(false));
        }
    }

    fn signal(&mut self, signal: i32) -> Result<()> {
        let Some(run) = &self.run else { return Err(self.conflict("is not running")) };
        run.init.signal(signal).map_err(|e| self.failed("signal", &e))?;
        self.supervision.restarts.signal(signal, self.stop_signal());
        self.save();
        Ok(())
    }

    fn pause(&mut self) -> Result<()> {
        if self.run.is_none() {
            return Err(self.conflict("is not running"));
        }
        if self.supervision.is_paused {
            return Err(self.conflict("is already paused"));
        }
        self.freeze(true)?;
        self.cancel_probe();
        if self.health.as_mut().is_some_and(HealthMachine::suspend) {
            self.health_changed();
        }
        self.tell(What::Paused);
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if !self.supervision.is_paused {
            return Err(self.conflict("is not paused"));
        }
        self.freeze(false)?;
        if let Some(health) = &mut self.health {
            health.resume(Instant::now());
        }
        self.tell(What::Resumed);
        Ok(())
    }

    fn freeze(&mut self, is_paused: bool) -> Result<()> {
        let verb = if is_paused { "pause" } else { "resume" };
        cgroup::freeze(&self.cgroup(), is_paused).map_err(|e| self.failed(verb, &e))?;
        self.supervision.is_paused = is_paused;
        self.save();
        Ok(())
    }

    fn renamed(&mut self) -> Result<()> {
        let record = self.dir.record().map_err(|e| self.failed("read", &e))?;
        self.record.spec.name = record.map_or_else(String::new, |record| record.spec.name);
        Ok(())
    }

    async fn remove(&mut self, volumes: bool) -> Result<()> {
        if self.phase.is_active() {
            return Err(self
                .conflict("is running")
                .hint("Stop it before removing it, or ask for a forced removal."));
        }
        let (home, record) = (self.stack.home.clone(), self.record.clone());
        let removing = tokio::task::spawn_blocking(move || remove::container(&home, &record, volumes));
        removing.await.map_err(|e| self.failed("remove", &e))?.map_err(|e| self.failed("remove", &e))?;
        self.is_removed = true;
        self.tell(What::Removed);
        Ok(())
    }

    // ---- the life of a run

    async fn launch(&mut self) -> Result<()> {
        self.attempt_at = None;
        self.supervision =
            Supervision { restarts: self.supervision.restarts.clone(), is_up: true, ..Default::default() };
        self.save();
        self.show();
        match launch::launch(&self.stack, &self.dir, &self.record).await {
            Ok((run, connected)) => {
                self.supervision.addresses = connected.addresses;
                self.supervision.published = connected.published;
                self.supervision.warnings = connected.warnings;
                self.started(run);
                Ok(())
            }
            Err(failure) => {
                self.not_started(&failure).await;
                Err(failure.error)
            }
        }
    }

    fn started(&mut self, run: Run) {
        self.step(Event::Started);
        let earlier = self.dir.health().unwrap_or_default();
        self.health =
            self.record.spec.health.clone().map(|spec| HealthMachine::start(spec, earlier, run.started));
        self.run = Some(run);
        self.exit = None;
        self.save();
        self.save_health();
        self.tell(What::Started);
        for warning in &self.supervision.warnings {
            self.tell(What::Warning(warning.clone()));
        }
    }

    async fn not_started(&mut self, failure: &launch::StartError) {
        self.step(Event::StartFailed);
        let exit = Exit {
            code: Some(failure.code),
            error: Some(failure.error.message.clone()),
            finished_at: jiff::Timestamp::now().to_string(),
            ..Default::default()
        };
        self.supervision.failure = Some(exit.clone());
        self.exit = Some(exit);
        self.release().await;
        self.settle().await;
    }

    /// The monitor is gone: its last word is on disk, or nobody knows.
    async fn ended(&mut self) {
        let written = monitor::read_exit(self.dir.path()).ok().flatten();
        if let (None, Some(run)) = (&written, &self.run) {
            // The monitor was killed: nothing may run unwatched.
            run.init.kill();
            drop(cgroup::kill(&self.cgroup()));
        }
        let run = self.run.take();
        let exit = written.unwrap_or_else(|| unseen(run.as_ref(), self.exit.take()));
        self.exit = Some(exit.clone());
        self.kill_at = None;
        self.release().await;
        let policy = if self.record.spec.auto_remove { RestartSpec::No } else { self.record.spec.restart };
        let delay = self.supervision.restarts.after_exit(policy, exit.code, up_for(&exit));
        let action = self.step(Event::Exited(delay));
        self.tell(What::Exited(exit));
        match action {
            Action::Wait(delay) => self.wait_for_attempt(delay),
            _ => self.settle().await,
        }
        for answer in self.stopping.drain(..) {
            drop(answer.send(Ok(())));
        }
    }

    /// What it held goes back: addresses, ports, the control group.
    async fn release(&mut self) {
        self.cancel_probe();
        self.health = None;
        if self.record.spec.health.is_some() {
            self.health_ended();
        }
        self.stack.network.disconnect(&self.record.id).await;
        self.supervision.published.clear();
        self.supervision.addresses.clear();
        self.supervision.is_paused = false;
        let group = self.cgroup();
        let removed = tokio::task::spawn_blocking(move || cgroup::remove(&group)).await;
        if let Ok(Err(e)) = removed {
            tracing::warn!(container = self.record.spec.name, "control group left behind: {e}");
        }
    }

    fn wait_for_attempt(&mut self, delay: Duration) {
        self.attempt_at = Some(Instant::now() + delay);
        self.supervision.is_up = false;
        self.supervision.is_waiting = true;
        self.save();
        self.tell(What::Restarting { attempt: self.supervision.restarts.count, delay });
    }

    async fn settle(&mut self) {
        self.attempt_at = None;
        self.supervision.is_up = false;
        self.supervision.is_waiting = false;
        self.save();
        self.show();
        if self.record.spec.auto_remove
            && let Err(e) = self.remove(true).await
        {
            tracing::warn!(container = self.record.spec.name, "{e}");
        }
        self.stack.changed.notify_one();
    }

    async fn adopt(&mut self) {
        let Some(run) = &self.run else { return };
        let known = self.dir.health().unwrap_or_default();
        let health = self.record.spec.health.clone();
        let started = run.started;
        self.health = health.map(|spec| HealthMachine::adopt(spec, known, started, Instant::now()));
        if self.supervision.is_paused
            && let Some(health) = &mut self.health
        {
            health.suspend();
        }
        let pid = run.init.pid();
        match launch::reconnect(&self.stack, &self.dir, &self.record, pid).await {
            Ok(connected) => {
                self.supervision.addresses = connected.addresses;
                self.supervision.published = connected.published;
            }
            Err(e) => tracing::warn!(container = self.record.spec.name, "its network is not back: {e}"),
        }
        self.supervision.is_up = true;
        self.supervision.is_waiting = false;
        self.save();
    }

    // ---- the clock

    fn wakes_at(&self) -> Option<Instant> {
        let probe_at =
            if self.probing.is_none() { self.health.as_ref().and_then(HealthMachine::due) } else { None };
        [self.attempt_at, self.kill_at, probe_at].into_iter().flatten().min()
    }

    async fn woke(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            if let Some(run) = &self.run {
                run.init.kill();
            }
        }
        if self.attempt_at.is_some_and(|at| at <= now) && self.step(Event::Due) == Action::Launch {
            if let Err(e) = self.launch().await {
                tracing::warn!(container = self.record.spec.name, "the restart failed: {e}");
            }
            return;
        }
        if self.probing.is_none()
            && self.health.as_ref().and_then(HealthMachine::due).is_some_and(|due| due <= now)
        {
            self.probe();
        }
    }

    fn probe(&mut self) {
        let (Some(run), Some(spec)) = (&self.run, &self.record.spec.health) else { return };
        let (stack, dir) = (self.stack.clone(), self.dir.path().to_owned());
        self.probing = Some(tokio::spawn(probe::run(stack, run.init.pid(), dir, spec.clone())));
    }

    fn probed(&mut self, probed: Probed) {
        self.probing = None;
        let (Some(health), Some(run)) = (&mut self.health, &self.run) else { return };
        let pid = run.init.pid();
        let ports = listening::tcp_ports(&self.record.spec.exposed);
        let is_changed =
            health.probed(probed.begun, probed.ended, probed.result, || listening::reaches_any(pid, &ports));
        self.save_health();
        if is_changed {
            self.health_changed();
        }
    }

    fn cancel_probe(&mut self) {
        if let Some(probing) = self.probing.take() {
            probing.abort();
        }
    }

    // ---- what others see

    fn health_changed(&self) {
        self.save_health();
        if let Some(health) = &self.health {
            self.tell(What::Health(health.health().status));
        }
    }

    /// A stopped container with a health check is shown as unhealthy, with its log.
    fn health_ended(&self) {
        let mut last = self.dir.health().unwrap_or_default();
        last.status = HealthStatus::Unhealthy;
        self.report(self.dir.write_health(&last));
    }

    fn show(&self) {
        let status = Status {
            name: self.record.spec.name.clone(),
            phase: self.phase,
            pid: self.run.as_ref().map(|run| run.init.pid()),
            is_paused: self.supervision.is_paused,
            health: self.health.as_ref().map_or(HealthStatus::None, |health| health.health().status),
            exit: self.exit.clone(),
            restart_count: self.supervision.restarts.count,
        };
        self.status.send_replace(status);
    }

    fn tell(&self, what: What) {
        self.show();
        self.stack.tell(&self.record.id, &self.record.spec.name, what);
    }

    fn save(&self) {
        self.report(self.dir.write_supervision(&self.supervision));
    }

    fn save_health(&self) {
        if let Some(health) = &self.health {
            self.report(self.dir.write_health(health.health()));
        }
    }

    /// A file that cannot be written (disk full) must not end the watch.
    fn report(&self, written: std::io::Result<()>) {
        if let Err(e) = written {
            tracing::warn!(container = self.record.spec.name, "cannot write its state: {e}");
        }
    }

    // ---- small things

    fn cgroup(&self) -> String {
        launch::cgroup(&self.stack.project, &self.record.id)
    }

    fn stop_signal(&self) -> Option<i32> {
        self.record.spec.stop_signal.as_deref().and_then(signal::number)
    }

    fn conflict(&self, what: &str) -> EngineError {
        EngineError::new(ErrorKind::Conflict, format!("container {} {what}", self.record.spec.name))
    }

    fn failed(&self, verb: &str, reason: &dyn std::fmt::Display) -> EngineError {
        let message = format!("failed to {verb} container {}: {reason}", self.record.spec.name);
        EngineError::new(ErrorKind::Other, message)
    }
}

async fn monitor_gone(run: Option<&Run>) {
    match run {
        // An error means that it cannot be watched; then its end is looked up at once.
        Some(run) => drop(run.monitor.readable().await),
        None => std::future::pending().await,
    }
}

async fn finished(probing: &mut Option<JoinHandle<Probed>>) -> Probed {
    match probing {
        Some(task) => task.await.unwrap_or_else(|e| Probed::failed(Instant::now(), &e)),
        None => std::future::pending().await,
    }
}

/// An end that was not written down.
fn unseen(run: Option<&Run>, known: Option<Exit>) -> Exit {
    match run {
        Some(run) => Exit {
            started_at: run.record.started_at.clone(),
            finished_at: jiff::Timestamp::now().to_string(),
            ..Default::default()
        },
        None => known.unwrap_or_default(),
    }
}

fn up_for(exit: &Exit) -> Duration {
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let (Some(from), Some(to)) = (parse(&exit.started_at), parse(&exit.finished_at)) else {
        return Duration::ZERO;
    };
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
