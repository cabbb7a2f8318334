//! `stack exec`: a process in a running container, its exit code ours.

use super::Context;
use super::terminal::{Raw, size};
use crate::failure::{Failure, Result, failed};
use crate::host::streams::{Streams, copy};
use crate::plan::label::Labelled;
use crate::supervise::Exec;
use rustix::termios::{Winsize, tcsetwinsize};
use stack_runtime::engine::{EngineError, ErrorKind};
use stack_runtime::observed::{ContainerObserved, State};
use stack_runtime::spec::ExecSpec;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run it in the background
    #[arg(short, long)]
    detach: bool,
    /// Set a variable; may be repeated
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Which container of the service
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// No terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
    #[arg(short = 't', long, hide = true)]
    tty: bool,
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    service: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let scene = match context.existing(&[]).await {
        Err(failure) => return Err(failure),
        Ok(scene) => scene,
    };
    let container = chosen(&args.service, args.index, &scene.observed.containers)?;
    if context.dry_run {
        context.ui.data(&format!("exec {:?} in {}\n", args.command.join(" "), container.name));
        return Ok(());
    }
    let tty = wants_terminal(args.no_tty || args.detach)?;
    let spec = args.spec(context, tty);
    let client = scene.engine.client(&scene.project.name).await?;
    let size = size().map_or((24, 80), |s| (s.ws_row, s.ws_col));
    if args.detach {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(failed("open /dev/null"))?;
        return Ok(client
            .exec(&container.id, &spec, Some([null.as_fd(), null.as_fd(), null.as_fd()]), size)
            .await
            .map(drop)?);
    }
    if tty {
        let exec = client.exec(&container.id, &spec, None, size).await.map_err(refused)?;
        return exit(attend(exec).await?);
    }
    let streams = Streams::open(std::io::stdin().as_fd()).map_err(failed("prepare the streams"))?;
    let started = client.exec(&container.id, &spec, Some(streams.sides()), size).await;
    let code = started.map_err(refused)?.wait().await?;
    streams.finish().await;
    exit(code)
}

/// A shell's codes for a program that is not there (127) or may not be executed (126).
fn refused(error: EngineError) -> Failure {
    let is_about_program =
        error.message.contains("failed to execute") || error.kind == ErrorKind::NoSuchProgram;
    let code = match (is_about_program, error.message.contains("not found")) {
        (true, true) => 127,
        (true, false) => 126,
        (false, _) => 1,
    };
    Failure::from(error).exit_code(code)
}

/// The process's code becomes ours.
pub(super) fn exit(code: i32) -> Result<()> {
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::exit(code)),
        Err(_) => Err(Failure::exit(1)),
    }
}

/// A terminal unless told not to; then standard input must be one as well.
pub(super) fn wants_terminal(refused: bool) -> Result<bool> {
    let wants = !refused && std::io::stdout().is_terminal();
    if wants && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("stdin is not a terminal").hint("Use `-T` where input is piped in."));
    }
    Ok(wants)
}

/// The running container of a service that is meant: by its number, else the lowest, else one of `run`.
pub(super) fn chosen<'a>(
    service: &str,
    index: Option<u32>,
    containers: &'a [ContainerObserved],
) -> Result<&'a ContainerObserved> {
    let runs = |c: &&ContainerObserved| matches!(c.state, State::Running { .. } | State::Paused { .. });
    let is_meant = |c: &&ContainerObserved| {
        c.service() == service && index.is_none_or(|n| !c.is_one_off() && c.number() == n)
    };
    let found = containers.iter().filter(runs).filter(is_meant).min_by_key(|c| (c.is_one_off(), c.number()));
    found.ok_or_else(|| match index {
        Some(n) => Failure::other(format!("service {service:?} is not running container #{n}")),
        None => Failure::other(format!("service {service:?} is not running")),
    })
}

impl Args {
    fn spec(&self, context: &Context, tty: bool) -> ExecSpec {
        let variable = |text: &String| match text.split_once('=') {
            Some((key, value)) => Some((key.to_string(), value.to_string())),
            None => context.variable(text).map(|value| (text.clone(), value.to_string())),
        };
        let env = self.env.iter().filter_map(variable).collect();
        ExecSpec {
            args: self.command.clone(),
            env,
            working_dir: self.workdir.clone(),
            user: self.user.clone(),
            tty,
            privileged: self.privileged,
        }
    }
}

/// Until the process ends; with a terminal, what is typed goes in and what it prints comes out.
async fn attend(mut exec: Exec) -> Result<i32> {
    let Some(master) = exec.terminal.take() else { return Ok(exec.wait().await?) };
    let _raw = Raw::enter();
    let output = relay(master)?;
    let code = exec.wait().await?;
    // The other end is closed when the last process of the terminal is gone; what it printed comes first.
    drop(tokio::time::timeout(std::time::Duration::from_secs(1), output).await);
    Ok(code)
}

/// Copies between a terminal's master side and our own streams; the returned task ends with its output.
pub(super) fn relay(master: OwnedFd) -> Result<tokio::task::JoinHandle<()>> {
    let input = std::fs::File::from(master.try_clone().map_err(failed("use the terminal"))?);
    let resized = master.try_clone().map_err(failed("use the terminal"))?;
    std::thread::spawn(move || copy(std::io::stdin().lock(), input));
    tokio::spawn(follow_size(resized));
    Ok(tokio::task::spawn_blocking(move || copy(std::fs::File::from(master), std::io::stdout())))
}

async fn follow_size(master: OwnedFd) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some(Winsize { ws_row, ws_col, .. }) = size() {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            if tcsetwinsize(&master, size).is_err() {
                return;
            }
        }
        changed.recv().await;
    }
}
