//! Failure: a verb that did not succeed. Made from every library's error once, printed by one function of `ui`.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done, also when there was nothing to do |
//! | 1 | any failure: the command line, the project's text, an image, a build, a container, the engine |
//! | 126, 127 | `exec`, `run`: the program is not executable, or not there |
//! | 130 | stopped by Ctrl-C or SIGTERM |
//! | other | `exec`, `run`, `up --exit-code-from`: the program's own code; 128 + n when a signal ended it |

use stack_runtime::engine::{EngineError, ErrorKind};
use stack_schema::diagnostic::{Diagnostic, Severity};
use std::fmt::Write as _;

/// Result of a verb.
pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The command line.
    Usage,
    /// What the user wrote in a file.
    Project,
    NotFound,
    Conflict,
    PermissionDenied,
    PortTaken,
    Unreachable,
    /// A service did not do what was asked of it.
    Service,
    Build,
    /// Something that this machine lacks.
    Machine,
    /// The user or a signal ended it.
    Interrupted,
    /// Only an exit code, passed through; nothing is printed.
    Exit,
    Other,
}

/// What went wrong, in the one shape.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: Kind,
    /// Lower case, no full stop.
    pub message: String,
    /// Findings about the user's text; when there are any they are printed instead of `message`.
    pub diagnostics: Vec<Diagnostic>,
    /// Evidence: the last probe, the last lines of a log. Printed below the message, indented.
    pub evidence: Vec<String>,
    /// A sentence.
    pub hint: Option<String>,
    pub exit_code: u8,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let exit_code = match kind {
            Kind::Interrupted => 130,
            _ => 1,
        };
        let (diagnostics, evidence) = (Vec::new(), Vec::new());
        Self { kind, message: message.into(), diagnostics, evidence, hint: None, exit_code }
    }

    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }

    /// The command line asks for something that makes no sense, or for things that exclude each other.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Nothing to say, only a code to end with.
    pub fn exit(code: u8) -> Self {
        Self::new(Kind::Exit, "").exit_code(code)
    }

    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "")
    }

    pub fn no_such_service(key: &str) -> Self {
        Self::new(Kind::NotFound, format!("no such service: {key}"))
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn evidence(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    pub fn exit_code(mut self, code: u8) -> Self {
        self.exit_code = code;
        self
    }

    /// The one shape as plain text; colour is the terminal writer's business.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&diagnostic.render());
        }
        if !self.message.is_empty() {
            let _ = writeln!(out, "error: {}", self.message);
        }
        for line in self.evidence.iter().flat_map(|e| e.lines()) {
            let _ = writeln!(out, "  {line}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "hint: {hint}");
        }
        out
    }

    /// One line for machines: the message, or the first finding's.
    pub fn summary(&self) -> &str {
        let first = self.diagnostics.iter().find(|d| d.severity == Severity::Error);
        if self.message.is_empty() { first.map_or("", |d| d.message.as_str()) } else { &self.message }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.summary())
    }
}

impl std::error::Error for Failure {}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let kind = match error.kind {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::Conflict => Kind::Conflict,
            ErrorKind::PermissionDenied => Kind::PermissionDenied,
            ErrorKind::PortTaken => Kind::PortTaken,
            ErrorKind::Unreachable => Kind::Unreachable,
            ErrorKind::NoSuchProgram | ErrorKind::Other => Kind::Other,
        };
        let mut failure = Self::new(kind, error.message);
        failure.hint = error.hint;
        failure
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics, ..Self::new(Kind::Project, "") }
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        vec![diagnostic].into()
    }
}

/// Completes "failed to …" around an error of the operating system.
pub fn failed<E: std::fmt::Display>(to: &str) -> impl FnOnce(E) -> Failure + '_ {
    move |error| Failure::other(format!("failed to {to}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_has_message_evidence_and_hint() {
        let failure = Failure::new(Kind::Service, "container shop-db-1 is unhealthy")
            .evidence("last probe (exit 2): no response\nsecond line")
            .hint("Look at its logs.");
        let expected = "error: container shop-db-1 is unhealthy\n  last probe (exit 2): no response\n  second line\nhint: Look at its logs.\n";
        assert_eq!(failure.render(), expected);
        assert_eq!(failure.exit_code, 1);
    }

    #[test]
    fn interruption_ends_with_130() {
        assert_eq!(Failure::interrupted().exit_code, 130);
        assert_eq!(Failure::interrupted().render(), "");
    }

    #[test]
    fn findings_stand_for_the_message() {
        let failure = Failure::from(Diagnostic::error("unknown key `imgae`"));
        assert_eq!(failure.summary(), "unknown key `imgae`");
        assert!(failure.render().starts_with("error: unknown key"));
    }
}
