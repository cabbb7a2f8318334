//! Why a build did not succeed.
//!
//! ```text
//! error: [2/3] process `/bin/sh -c make all` did not complete successfully: exit code: 2
//!   --> api/Dockerfile:4:1
//!     4 | RUN make all
//!   make: *** No rule to make target 'all'.  Stop.
//!   the whole output: /var/lib/stack/build/logs/20260102T030405-x7Kq2a.log
//! hint: …
//! ```

use crate::failure::{Failure, Kind};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::source::Place;
use std::fmt::Display;
use std::path::PathBuf;

/// The diagnostic says what and where; `output` is what the command printed last.
#[derive(Debug, Clone)]
pub struct BuildFailure {
    pub diagnostic: Box<Diagnostic>,
    /// `[stage 2/5] RUN make`, empty before the first step.
    pub step: String,
    /// Of a RUN that ended by itself.
    pub exit_code: Option<i32>,
    /// At most 200 lines.
    pub output: Vec<String>,
    /// Where all of it is.
    pub log: Option<PathBuf>,
}

pub(super) type Result<T> = std::result::Result<T, BuildFailure>;

impl BuildFailure {
    pub fn new(message: impl Into<String>) -> Self {
        Diagnostic::error(message).into()
    }

    /// Completes "failed to …".
    pub fn doing(what: impl Display, why: impl Display) -> Self {
        Self::new(format!("failed to {what}: {why}"))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.diagnostic.hint = Some(hint.into());
        self
    }

    /// Keeps a place that is already known.
    pub fn at(mut self, place: &Place) -> Self {
        self.diagnostic.place.get_or_insert_with(|| place.clone());
        self
    }

    /// Names the step, in the message by its number (`[build 2/5]`).
    pub fn step(mut self, name: &str) -> Self {
        if self.step.is_empty() {
            name.clone_into(&mut self.step);
            if let Some(end) = name.find(']').filter(|_| name.starts_with('[')) {
                self.diagnostic.message.insert_str(0, &format!("{} ", &name[..=end]));
            }
        }
        self
    }

    /// The one shape, with the output below.
    pub fn render(&self) -> String {
        Failure::from(self.clone()).render()
    }
}

impl Display for BuildFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for BuildFailure {}

impl From<Diagnostic> for BuildFailure {
    fn from(diagnostic: Diagnostic) -> Self {
        Box::new(diagnostic).into()
    }
}

impl From<Box<Diagnostic>> for BuildFailure {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self { diagnostic, step: String::new(), exit_code: None, output: Vec::new(), log: None }
    }
}

impl From<stack_runtime::image::Error> for BuildFailure {
    fn from(error: stack_runtime::image::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<BuildFailure> for Failure {
    fn from(failure: BuildFailure) -> Self {
        let mut diagnostic = failure.diagnostic;
        // The shape prints hints last, below the output.
        let hint = diagnostic.hint.take();
        let mut out = Self::new(Kind::Build, "");
        out.diagnostics = vec![*diagnostic];
        out.evidence = failure.output;
        out.evidence.extend(failure.log.map(|log| format!("the whole output: {}", log.display())));
        out.hint = hint;
        out
    }
}

/// Names what was attempted.
pub(super) trait Doing<T> {
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Display> Doing<T> for std::result::Result<T, E> {
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|why| BuildFailure::doing(what(), why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_schema::source::Source;
    use std::sync::Arc;

    #[test]
    fn shows_the_line_the_output_and_the_hint() {
        let source = Source { name: "Dockerfile".into(), path: None, text: "FROM a\nRUN false\n".into() };
        let place = Place { source: Arc::new(source), start: 7, end: 16 };
        let mut failure = BuildFailure::new("exit code 1").hint("Try again.").at(&place);
        failure.output = vec!["last line".into()];
        let expected = "error: exit code 1\n  --> Dockerfile:2:1\n    2 | RUN false\n      | ^^^^^^^^^\n  last line\nhint: Try again.\n";
        assert_eq!(failure.render(), expected);
    }
}
