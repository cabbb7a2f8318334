//! `stack oci …`, or `stack-oci …` by the program's name: containers from bundles, with the command line of runc,
//! for Podman, containerd and whoever else calls an OCI runtime.
//!
//! Single-threaded: it forks. Errors go to standard error and, as runc writes them, to `--log`.

mod args;
mod log;
mod show;

use args::{Cli, Verb};
use clap::Parser;
use log::Log;
use stack_runtime::launch::LaunchError;
use stack_runtime::oci::{self, Result, Runtime};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

/// What `exec` answers when the program could not be started.
const EXEC_FAILED: i32 = 255;

/// `own`: how many of the arguments name the program and the verb.
pub fn main(arguments: Vec<OsString>, own: usize) -> ExitCode {
    let named = std::iter::once(OsString::from("stack oci")).chain(arguments.iter().skip(own).cloned());
    let cli = match Cli::try_parse_from(named) {
        Ok(cli) => cli,
        Err(error) => {
            let failed = error.use_stderr();
            drop(error.print()); // nobody is left to tell
            return if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let log = Log::new(&cli.global);
    let failure = if matches!(cli.verb, Verb::Exec(_)) { EXEC_FAILED } else { 1 };
    let sealed = if cli.verb.enters_containers() { oci::seal(&arguments) } else { Ok(()) };
    let result = sealed.map_err(|e| LaunchError::new("protect the program", e));
    match result.and_then(|()| dispatch(cli, &log)) {
        Ok(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        Err(error) => {
            log.error(&error);
            ExitCode::from(u8::try_from(failure).unwrap_or(u8::MAX))
        }
    }
}

fn dispatch(cli: Cli, log: &Log) -> Result<i32> {
    let Cli { global, verb } = cli;
    let runtime = Runtime::new(global.root.clone());
    log.debug(&format!("running {}", verb.name()));
    let systemd = global.wants_systemd();
    match verb {
        Verb::Create(args) => log.warnings(runtime.create(&args.options(systemd)?)?),
        Verb::Run(args) => {
            let (code, warnings) = runtime.run(&args.create.options(systemd)?, args.detach, args.keep)?;
            log.warnings(warnings);
            return Ok(code);
        }
        Verb::Start(args) => log.warnings(runtime.start(&args.id)?),
        Verb::Exec(args) => {
            let (code, warnings) = runtime.exec(&args.options()?)?;
            log.warnings(warnings);
            return Ok(code);
        }
        Verb::Kill(args) => runtime.kill(&args.id, args.signal()?, args.all)?,
        Verb::Delete(args) => args.each(|id, force| runtime.delete(id, force), log)?,
        Verb::Pause(args) => runtime.pause(&args.id)?,
        Verb::Resume(args) => runtime.resume(&args.id)?,
        Verb::State(args) => print(&show::pretty(&runtime.describe(&runtime.load(&args.id)?)))?,
        Verb::List(args) => print(&show::list(&runtime, &args)?)?,
        Verb::Ps(args) => print(&show::processes(&runtime, &args)?)?,
        Verb::Events(args) => show::events(&runtime, &args)?,
        Verb::Update(args) => runtime.update(&args.id, args.update()?)?,
        Verb::Features => print(&show::pretty(&oci::features(env!("CARGO_PKG_VERSION"))))?,
        Verb::Spec(args) => args.write()?,
    }
    Ok(0)
}

/// A reader that has gone has seen enough.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(LaunchError::new("write to standard output", e))
        }
        _ => Ok(()),
    }
}
