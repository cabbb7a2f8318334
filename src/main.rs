//! `stack`: hidden entry points first (single-threaded, before any runtime), then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|entry| entry == "__launch") {
        return stack_runtime::launch::main();
    }
    ExitCode::SUCCESS
}
