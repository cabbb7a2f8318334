//! `stack`: hidden entry points first (single-threaded, before any runtime), then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
