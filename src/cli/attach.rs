//! `stack attach`: our streams at those of a running container.

use super::Context;
use super::detach::DetachKeys;
use super::session::{Input, Left, Session};
use super::terminal::{Raw, size};
use crate::failure::{Failure, Result, failed};
use crate::host::journal;
use stack_runtime::monitor::{self, Attachment};
use stack_runtime::observed::{ContainerObserved, State};
use std::io::IsTerminal;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keys that leave it running, such as ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Which container of the service
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Only output
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    service: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let keys = DetachKeys::chosen(args.detach_keys.as_deref())?;
    let scene = context.existing(std::slice::from_ref(&args.service)).await?;
    let container = super::exec::chosen(&args.service, args.index, &scene.observed.containers)?;
    let (id, name, tty) = (container.id.as_str(), container.name.as_str(), container.spec.tty);
    if context.dry_run {
        context.ui.data(&format!("attach to {name}\n"));
        return Ok(());
    }
    let input = input(&args, container)?;
    let size = size().filter(|_| tty).map(|s| (s.ws_row, s.ws_col));
    let directory = context.home.container(&scene.project.name, id);
    let connected = monitor::connect_to(&directory, size).and_then(Attachment::new);
    let attachment = connected.map_err(failed(&format!("attach to container {name}")))?;
    journal::note_of(&context.home, &scene.project.name, id, &container.spec, "attach", &[]);
    let proxies = args.sig_proxy;
    let mut session = Session { context, scene: &scene, id, name, tty, input, proxies, keys };
    let raw = if tty && input != Input::None { Raw::enter() } else { None };
    let left = session.carry(&attachment).await?;
    drop(raw);
    match left {
        Left::Detached => Ok(()),
        Left::Ended => session.report(&session.exit().await?),
    }
}

fn input(args: &Args, container: &ContainerObserved) -> Result<Input> {
    if matches!(container.state, State::Paused { .. }) {
        return Err(Failure::other("cannot attach to a paused container, unpause it first"));
    }
    if args.no_stdin || !container.spec.stdin_open {
        return Ok(Input::None);
    }
    if container.spec.tty && !std::io::stdin().is_terminal() {
        let failure =
            Failure::usage("cannot attach stdin to a TTY-enabled container because stdin is not a terminal");
        return Err(failure.hint("Use `--no-stdin` to see its output only."));
    }
    Ok(Input::Part)
}
