//! `stack`: hidden entry points first (single-threaded, before any runtime), then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("__launch") => stack_runtime::launch::main(),
        Some("__supervise") => {
            let arguments: Vec<_> = arguments.filter_map(|argument| argument.into_string().ok()).collect();
            let project = arguments.first();
            project.map_or(ExitCode::FAILURE, |project| {
                stack::supervise::main(project, arguments.get(1).map(String::as_str))
            })
        }
        _ => stack::cli::main(std::env::args_os()),
    }
}
