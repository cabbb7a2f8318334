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
use crate::schedule::{self, AfterFailure};
use images::Images;
pub use outcome::{Outcome, Report};
use stack_runtime::engine::Engine;
use stack_runtime::observed::Observed;
use stack_schema::project::Project;

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
    let before: Vec<Vec<usize>> =
        plan.steps().map(|(id, _)| plan.before(id).map(|before| before.0).collect()).collect();
    let start = |index| step::run(world, &made, plan.step(StepId(index)));
    let ended = schedule::run(&before, world.parallel, AfterFailure::CarryOn, start).await;
    Report { outcomes: ended.into_iter().map(Outcome::from).collect(), created: made.list() }
}
