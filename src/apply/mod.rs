//! Apply: the interpreter of a plan. One arm per step, no decisions, steps side by side where the graph allows.
//!
//! A failed step keeps only those behind it from running; every step gets one outcome. Dropping the future at
//! any moment is as if the program had been killed there: the next plan goes on from what it finds.

pub mod images;
mod outcome;
mod step;
mod words;

use crate::event::{Event, Sink};
use crate::plan::Plan;
use crate::plan::step::{Settled, StepId};
use futures_util::stream::{FuturesUnordered, StreamExt};
use images::Images;
pub use outcome::{Outcome, Report};
use stack_runtime::engine::Engine;
use stack_runtime::observed::Observed;
use stack_schema::project::Project;
use std::collections::BTreeSet;

/// What the steps work on.
pub struct World<'a, E, I> {
    pub engine: &'a E,
    pub images: &'a I,
    pub project: &'a Project,
    /// What the plan was made from.
    pub observed: &'a Observed,
    pub events: &'a dyn Sink,
    /// At most so many steps at once.
    pub parallel: usize,
}

/// Runs all steps of the plan.
pub async fn apply<E: Engine, I: Images>(world: &World<'_, E, I>, plan: &Plan) -> Report {
    for settled in &plan.settled {
        world.events.emit(match settled {
            Settled::Running { container } => Event::done(format!("Container {container}"), "Running"),
            Settled::InUse { network } => {
                Event::warned(format!("Network {network}"), "Resource is still in use")
            }
        });
    }
    let made = step::Made::default();
    let mut progress = Progress::new(plan);
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < world.parallel.max(1)
            && let Some(id) = progress.ready.pop_first()
        {
            let (made, step) = (&made, plan.step(id));
            running.push(async move { (id, step::run(world, made, step).await) });
        }
        match running.next().await {
            Some((id, outcome)) => progress.finish(id, outcome),
            None => break,
        }
    }
    Report { outcomes: progress.outcomes(), created: made.list() }
}

/// Which steps may run, and what became of the others.
struct Progress<'a> {
    plan: &'a Plan,
    /// Unfinished steps before each.
    open: Vec<usize>,
    ready: BTreeSet<StepId>,
    outcomes: Vec<Option<Outcome>>,
}

impl<'a> Progress<'a> {
    fn new(plan: &'a Plan) -> Self {
        let open: Vec<usize> = plan.steps().map(|(id, _)| plan.before(id).count()).collect();
        let ready = open.iter().enumerate().filter(|(_, n)| **n == 0).map(|(i, _)| StepId(i)).collect();
        Self { plan, open, ready, outcomes: vec![None; plan.len()] }
    }

    fn finish(&mut self, id: StepId, outcome: Outcome) {
        let lets_go_on = matches!(outcome, Outcome::Done | Outcome::Skipped);
        self.outcomes[id.0] = Some(outcome);
        if !lets_go_on {
            return;
        }
        for next in self.plan.after(id).collect::<Vec<_>>() {
            self.open[next.0] -= 1;
            if self.open[next.0] == 0 {
                self.ready.insert(next);
            }
        }
    }

    fn outcomes(self) -> Vec<Outcome> {
        self.outcomes.into_iter().map(|o| o.unwrap_or(Outcome::NotRun)).collect()
    }
}
