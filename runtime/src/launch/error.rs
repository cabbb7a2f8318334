//! Why something could not be launched.

use serde::{Deserialize, Serialize};

/// A failed launch: which operation, why, and the exit code that stands for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("failed to {operation}: {reason}")]
pub struct LaunchError {
    /// Completes "failed to …", e.g. `mount /proc`.
    pub operation: String,
    pub reason: String,
    /// 125 the launcher itself, 126 not executable, 127 not found, 128 any other start failure.
    pub code: i32,
}

impl LaunchError {
    /// A failure of the machinery, before anything of the container ran.
    pub fn new(operation: impl Into<String>, reason: impl ToString) -> Self {
        Self { operation: operation.into(), reason: reason.to_string(), code: 125 }
    }

    pub fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }
}

/// Names the operation of a system error.
pub(crate) trait Named<T> {
    fn named(self, operation: impl Into<String>) -> Result<T, LaunchError>;
}

impl<T, E: ToString> Named<T> for Result<T, E> {
    fn named(self, operation: impl Into<String>) -> Result<T, LaunchError> {
        self.map_err(|e| LaunchError::new(operation, e))
    }
}
