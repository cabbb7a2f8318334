//! The user's terminal: questions, raw mode, its size.

use super::Context;
use crate::failure::{Result, failed};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{BufRead, stdin};

/// Asks on standard error and reads one line; only a clear yes is one.
pub(super) fn confirms(context: &Context, question: &str) -> Result<bool> {
    agrees(context, &format!("{question}. Are you sure"))
}

/// As [`confirms`], with the question as it is.
pub(super) fn agrees(context: &Context, question: &str) -> Result<bool> {
    if context.is_agreed() {
        return Ok(true);
    }
    context.ui.remark(&format!("{question}? [yN]"));
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).map_err(failed("read the answer"))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes" | "true" | "t" | "1"))
}

/// Raw mode until dropped.
pub(super) struct Raw(Termios);

impl Raw {
    /// `None` when standard input is no terminal.
    pub(super) fn enter() -> Option<Self> {
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0); // the terminal is gone
    }
}

pub(super) fn size() -> Option<Winsize> {
    tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(stdin())).ok()
}
