//! The keeper of one container: a task that takes orders, watches the monitor and the clock, and carries out what the
//! tables in [`super::life`], [`super::restart`] and [`super::health`] say. Everything that happens to a container
//! happens here, one thing after the other.
//!
//! | module | does |
//! |---|---|
//! | `orders` | one function per order |
//! | `run` | the life of one run: launched, ended, waited for or settled; or found running |
//! | `clock` | the next attempt, the end of the grace period, the next probe |
//! | `show` | status, notices, files |

mod clock;
mod orders;
mod run;
mod show;

use super::health::HealthMachine;
use super::launch::{self, Run};
use super::life::{Action, Event, Phase, step};
use super::probe::Probed;
use super::protocol::{Attach, Watched};
use super::stack::{Keeper as Way, Stack};
use crate::host::record::{ContainerDir, ContainerRecord, Supervision};
use crate::host::signal;
use stack_runtime::engine::{EngineError, ErrorKind, Result};
use stack_runtime::monitor;
use stack_runtime::observed::{Exit, HealthStatus, State};
use std::os::fd::OwnedFd;
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
    /// Answered with a connection to the attach socket when one was asked for.
    Start {
        attach: Option<Attach>,
        answer: oneshot::Sender<Result<Option<OwnedFd>>>,
    },
    Stop {
        signal: Option<i32>,
        grace: Option<Duration>,
        answer: Answer,
    },
    Signal {
        signal: i32,
        answer: Answer,
    },
    Pause(Answer),
    Resume(Answer),
    Renamed(Answer),
    Remove {
        volumes: bool,
        answer: Answer,
    },
    /// Answered when all orders before it were taken.
    CaughtUp(Answer),
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
    /// What this run asked for and could not be had.
    pub warnings: Vec<String>,
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
            // It ended, and its removal was cut off.
            () if record.spec.auto_remove && exit.is_some() => Phase::Up,
            // Its start was cut off.
            () if supervision.is_up => Phase::Starting,
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
        match self.phase {
            Phase::Up if self.run.is_some() => self.adopt().await,
            Phase::Up => self.ended().await,
            Phase::Starting => self.start_again().await,
            _ => {}
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

    /// Goes through one cell of the table.
    fn step(&mut self, event: Event) -> Action {
        let (phase, action) = step(self.phase, event);
        self.phase = phase;
        action
    }

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
