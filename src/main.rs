//! `stack`: hidden entry points first (single-threaded, before any runtime), then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("__launch") => stack_runtime::launch::main(),
        Some("__supervise") => {
            let project = arguments.next().and_then(|project| project.into_string().ok());
            project.map_or(ExitCode::FAILURE, |project| stack::supervise::main(&project))
        }
        _ => ExitCode::SUCCESS,
    }
}
