//! Outcome: what became of a step. Report: one outcome per step, in plan order.

use crate::failure::Failure;
use crate::plan::step::StepId;
use crate::schedule;

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

/// A failure, and the id of the container it is about.
pub(super) type Failed = (Failure, Option<String>);

/// How a step ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    Skipped,
}

impl From<schedule::Outcome<Ended, Failed>> for Outcome {
    fn from(outcome: schedule::Outcome<Ended, Failed>) -> Self {
        match outcome {
            schedule::Outcome::Done(Ended::Done) => Self::Done,
            schedule::Outcome::Done(Ended::Skipped) => Self::Skipped,
            schedule::Outcome::Failed((failure, container)) => Self::Failed { failure, container },
            schedule::Outcome::Skipped { .. } => Self::NotRun,
        }
    }
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
