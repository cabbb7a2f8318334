//! `stack down`: converge to the empty project.

use super::Context;
use crate::failure::{Result, failed};
use crate::find::is_true;
use crate::plan::intent::{self, Intent, RemoveImages};
use crate::plan::label;
use stack_runtime::engine::Engine;
use stack_runtime::home::Lock;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also remove named and anonymous volumes
    #[arg(short, long)]
    volumes: bool,
    /// Also remove containers of services that the file does not have, and those of `run`
    #[arg(long)]
    remove_orphans: bool,
    /// Seconds between the stop signal and SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Also remove images: local (built here) or all
    #[arg(long, value_name = "WHICH", value_parser = ["local", "all"])]
    rmi: Option<String>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let mut scene = context.existing(&args.services).await?;
    let grace = args.timeout.map(Duration::from_secs);
    let lock = match context.home.stack(&scene.project.name).is_dir() {
        true => context.lock_with_grace(&scene.project.name, grace).await?,
        // Nothing but an image was ever built.
        false => {
            if !context.dry_run {
                crate::build::sweep(&context.home);
            }
            None
        }
    };
    if args.rmi.is_some() || lock.is_some() {
        scene = context.observe(scene.project, args.rmi.is_some()).await?;
    }
    let orphans_by_default = || is_true(context.setting("COMPOSE_REMOVE_ORPHANS").as_deref());
    let intent = intent::Down {
        services: args.services,
        volumes: args.volumes,
        remove_orphans: args.remove_orphans || orphans_by_default(),
        grace,
        images: args
            .rmi
            .as_deref()
            .map(|which| if which == "all" { RemoveImages::All } else { RemoveImages::Local }),
    };
    context.carry_out(&scene, &Intent::Down(intent)).await?;
    lock.map_or(Ok(()), |lock| leave(context, &scene.project.name, lock))
}

/// All there is of a project, whatever its files say.
///
/// # Errors
/// As the verb.
pub(super) async fn all(context: &Context, project: &str) -> Result<()> {
    let lock = context.lock(project).await?;
    let observed = context.engine().observe(project, &[]).await?;
    let scene = context.observe(label::project_of(project, &observed), false).await?;
    let intent = intent::Down { remove_orphans: true, ..intent::Down::default() };
    context.carry_out(&scene, &Intent::Down(intent)).await?;
    lock.map_or(Ok(()), |lock| leave(context, project, lock))
}

/// A project that has no container any more has no directory either.
fn leave(context: &Context, project: &str, lock: Lock) -> Result<()> {
    let failed = || failed("remove the project's directory");
    let mut left = std::fs::read_dir(context.home.stack(project)).map_err(failed())?;
    let is_empty = left.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lock"));
    if is_empty { lock.remove().map_err(failed()) } else { Ok(()) }
}
