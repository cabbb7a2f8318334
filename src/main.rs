//! `stack`: hidden entry points and the OCI runtime first (single-threaded, before any runtime), then the command line.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "stack-oci") {
        return stack::cli::oci::main(std::env::args_os().collect(), 1);
    }
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some("__launch") => stack_runtime::launch::main(),
        Some("__supervise") => {
            let arguments: Vec<_> = arguments.filter_map(|argument| argument.into_string().ok()).collect();
            let project = arguments.first();
            project.map_or(ExitCode::FAILURE, |project| {
                stack::supervise::main(project, arguments.get(1).map(String::as_str))
            })
        }
        Some("oci") => stack::cli::oci::main(std::env::args_os().collect(), 2),
        _ => stack::cli::main(std::env::args_os()),
    }
}
