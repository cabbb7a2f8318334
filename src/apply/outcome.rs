//! Outcome: what became of a step. Report: one outcome per step, in plan order.

use crate::failure::Failure;
use crate::plan::step::StepId;

#[derive(Debug, Clone)]
pub enum Outcome {
    Done,
    /// Its guard did not hold.
    Skipped,
    /// `container`: the id of the one that did not do what was asked of it.
    Failed {
        failure: Failure,
        container: Option<String>,
    },
    /// A step before it failed.
    NotRun,
}

#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By step.
    pub outcomes: Vec<Outcome>,
    /// Containers that were created: final name and id.
    pub created: Vec<(String, String)>,
}

impl Report {
    /// The first failure in plan order, with its step and the container it is about.
    pub fn failure(&self) -> Option<(StepId, &Failure, Option<&str>)> {
        self.outcomes.iter().enumerate().find_map(|(index, outcome)| match outcome {
            Outcome::Failed { failure, container } => Some((StepId(index), failure, container.as_deref())),
            _ => None,
        })
    }

    pub fn id_of(&self, name: &str) -> Option<&str> {
        self.created.iter().find(|(n, _)| n == name).map(|(_, id)| id.as_str())
    }
}
