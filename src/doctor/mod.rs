//! What this machine lacks, and the command that mends it.
//!
//! | part | is |
//! |---|---|
//! | `stack_runtime::machine` | what there is, as data |
//! | [`check`] | what follows from it: findings (pure) |
//! | [`mend`] | commands, as the distribution has them (pure) |
//!
//! `stack doctor` shows all findings; a verb that creates something refuses with what is missing ([`obstacle`]).

pub mod check;
mod mend;

use crate::failure::{Failure, Kind};
use check::findings;
use stack_runtime::home::Home;
use stack_runtime::machine::Machine;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `kernel`.
    pub check: &'static str,
    pub state: State,
    /// What is, and what follows from it.
    pub text: String,
    /// A command line.
    pub mend: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Good,
    /// Something will not be had.
    Warning,
    /// Nothing runs.
    Missing,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
        }
    }
}

impl Finding {
    pub(crate) fn new(check: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { check, state, text: text.into(), mend: None }
    }

    pub(crate) fn mend(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

/// Why nothing can be made on this machine, in the one shape; `None` when it can. A matter of a few dozen system calls.
pub fn obstacle(home: &Home) -> Option<Failure> {
    let machine = Machine::glance(home);
    refusal(&findings(&machine))?;
    // Only now it is worth knowing what the distribution calls things.
    refusal(&findings(&machine.with_names()))
}

/// Why an ordinary user got no user namespace.
pub fn no_user_namespace(home: &Home, reason: &std::io::Error) -> Failure {
    let mut machine = Machine::glance(home).with_names();
    // Whatever the settings are: it was refused.
    machine.restrictions.refused = Some(reason.to_string());
    let failure = refusal(&findings(&machine));
    failure.unwrap_or_else(|| Failure::new(Kind::PermissionDenied, reason.to_string()))
}

fn refusal(findings: &[Finding]) -> Option<Failure> {
    let finding = findings.iter().find(|finding| finding.state == State::Missing)?;
    let hint = match &finding.mend {
        Some(command) => format!("Run `{command}`. `stack doctor` tells more."),
        None => "`stack doctor` tells more.".to_owned(),
    };
    Some(Failure::new(Kind::Machine, finding.text.clone()).hint(hint))
}

#[cfg(test)]
mod tests;
