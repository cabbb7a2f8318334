//! What a keeper does when it is told to: one function per order.

use super::{Answer, DEFAULT_GRACE, Keeper, Order, TERM};
use crate::host::remove;
use crate::supervise::health::HealthMachine;
use crate::supervise::life::{Action, Event, Phase};
use crate::supervise::protocol::{Attach, What};
use stack_runtime::engine::Result;
use stack_runtime::{cgroup, monitor};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

impl Keeper {
    pub(super) async fn obey(&mut self, order: Order) {
        // An asker who is gone needs no answer.
        match order {
            Order::Start { attach, answer } => drop(answer.send(self.start(attach).await)),
            Order::Stop { signal, grace, answer } => self.stop(signal, grace, answer).await,
            Order::Signal { signal, answer } => drop(answer.send(self.signal(signal).await)),
            Order::Pause(answer) => drop(answer.send(self.pause())),
            Order::Resume(answer) => drop(answer.send(self.resume())),
            Order::Renamed(answer) => drop(answer.send(self.renamed())),
            Order::CaughtUp(answer) => drop(answer.send(Ok(()))),
            Order::Remove { volumes, answer } => drop(answer.send(self.remove(volumes).await)),
        }
    }

    async fn start(&mut self, attach: Option<Attach>) -> Result<Option<OwnedFd>> {
        match self.step(Event::Start) {
            Action::Launch => {
                self.supervision.restarts.start();
                if attach.is_some() {
                    self.note("attach", &[]);
                }
                self.launch(attach).await
            }
            Action::Refuse => Err(self.conflict("is being stopped")),
            _ => {
                let connect = |attach: Attach| monitor::connect_to(self.dir.path(), attach.size);
                attach.map(connect).transpose().map_err(|e| self.failed("attach to", &e))
            }
        }
    }

    async fn stop(&mut self, signal: Option<i32>, grace: Option<Duration>, answer: Answer) {
        match self.stack.is_set_aside() {
            true => self.supervision.restarts.set_aside(),
            false => self.supervision.restarts.stop(),
        }
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

    pub(super) fn terminate(&mut self, signal: Option<i32>, grace: Option<Duration>) {
        let Some(run) = &self.run else { return };
        let init = run.init.clone();
        let signal = signal.or_else(|| self.stop_signal()).unwrap_or(TERM);
        let grace = grace.or(self.record.spec.stop_grace).unwrap_or(DEFAULT_GRACE);
        self.note("kill", &[("signal", signal.to_string())]);
        // A grace period beyond the clock's range has no end.
        self.kill_at = Instant::now().checked_add(grace);
        self.supervision.stopping = Some(grace);
        self.save();
        tokio::spawn(async move {
            if let Err(e) = init.tell(signal).await {
                tracing::warn!("cannot send signal {signal} to process {}: {e}", init.pid());
            }
        });
        if self.supervision.is_paused {
            // The signal is queued by now or soon, and delivered when it is thawed.
            drop(self.freeze(false));
        }
    }

    /// Between two attempts of the restart policy there is nobody to hear it, but it still ends the attempts.
    async fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(run) = &self.run {
            run.init.signal(signal).map_err(|e| self.failed("signal", &e))?;
        } else if self.phase != Phase::Waiting {
            return Err(self.conflict("is not running"));
        }
        self.note("kill", &[("signal", signal.to_string())]);
        self.supervision.restarts.signal(signal, self.stop_signal());
        self.save();
        if self.phase == Phase::Waiting && self.supervision.restarts.is_cancelled {
            self.step(Event::Stop);
            self.settle().await;
        }
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
        self.note("pause", &[]);
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
        self.note("unpause", &[]);
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
        let Some(record) = record else { return Ok(()) };
        self.record.spec.name = record.spec.name;
        self.stack.network.rename(&self.record.id, &self.record.spec)
    }

    pub(super) async fn remove(&mut self, volumes: bool) -> Result<()> {
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
}
