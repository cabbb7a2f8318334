//! The launcher process itself.

use std::process::ExitCode;

/// The hidden entry `__launch`: single-threaded, control socket on stdin.
pub fn main() -> ExitCode {
    ExitCode::from(125)
}
