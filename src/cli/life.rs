//! `start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rm`: one intent each.

use super::{Context, Scene};
use crate::failure::{Failure, Result};
use crate::find::is_true;
use crate::host::{journal, signal};
use crate::plan::Plan;
use crate::plan::intent::Intent;
use crate::plan::step::{Action, Cause};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    /// Wait until everything runs or is healthy
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so many seconds
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Only what has not run since the machine came up, or since `stop --keep-due`, and whose restart policy wants it
    #[arg(long, conflicts_with = "services")]
    due: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    /// Seconds between the stop signal and SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Not the user's own stop: what its restart policy wants comes back with `start --due`, or after a boot
    #[arg(long, conflicts_with = "services")]
    keep_due: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestartArgs {
    /// Seconds between the stop signal and SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Leave dependent services alone
    #[arg(long)]
    no_deps: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct KillArgs {
    /// The signal
    #[arg(short, long, default_value = "SIGKILL", value_name = "SIGNAL")]
    signal: String,
    /// Also containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Stop them first
    #[arg(short, long)]
    stop: bool,
    /// Also remove anonymous volumes
    #[arg(short, long)]
    volumes: bool,
    #[arg(short, long, hide = true)]
    all: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn start(args: StartArgs, context: &Context) -> Result<()> {
    if args.due {
        return carry_out_within(context, &[], Intent::Due, args.wait_timeout.map(Duration::from_secs)).await;
    }
    let services = args.services.clone();
    let intent = Intent::Start { services: args.services, wait: args.wait || args.wait_timeout.is_some() };
    carry_out_within(context, &services, intent, args.wait_timeout.map(Duration::from_secs)).await
}

pub(super) async fn stop(args: StopArgs, context: &Context) -> Result<()> {
    let services = args.services.clone();
    let grace = args.timeout.map(Duration::from_secs);
    if args.keep_due && !context.dry_run {
        let project = context.existing(&[]).await?.project.name;
        context.engine().set_aside(&project).await?;
    }
    carry_out(context, &services, Intent::Stop { services: args.services, grace }).await
}

pub(super) async fn restart(args: RestartArgs, context: &Context) -> Result<()> {
    let services = args.services.clone();
    let grace = args.timeout.map(Duration::from_secs);
    let intent = Intent::Restart { services: args.services, grace, dependents: !args.no_deps };
    carry_out(context, &services, intent).await
}

pub(super) async fn kill(args: KillArgs, context: &Context) -> Result<()> {
    if signal::number(&args.signal).is_none() {
        return Err(Failure::usage(format!("invalid signal: {}", args.signal)));
    }
    let scene = context.existing(&args.services).await?;
    let orphans = args.remove_orphans || is_true(context.setting("COMPOSE_REMOVE_ORPHANS").as_deref());
    let plan =
        context.plan(&scene, &Intent::Kill { services: args.services, signal: args.signal, orphans })?;
    if plan.is_empty() {
        context.ui.remark("No container to kill");
    }
    context.apply(&scene, &plan).await.map(drop)
}

pub(super) async fn pause(args: PauseArgs, context: &Context) -> Result<()> {
    carry_out(context, &args.services.clone(), Intent::Pause { services: args.services }).await
}

pub(super) async fn unpause(args: PauseArgs, context: &Context) -> Result<()> {
    carry_out(context, &args.services.clone(), Intent::Unpause { services: args.services }).await
}

pub(super) async fn remove(args: RemoveArgs, context: &Context) -> Result<()> {
    let mut scene = context.existing(&args.services).await?;
    if args.stop && !context.dry_run {
        let stop = Intent::Stop { services: args.services.clone(), grace: None };
        context.carry_out(&scene, &stop).await?;
        scene = context.observe(scene.project, false).await?;
    }
    let intent = Intent::Remove { services: args.services, stop: args.stop, volumes: args.volumes };
    let plan = context.plan(&scene, &intent)?;
    let names = plan.steps().filter_map(|(_, step)| match &step.action {
        Action::Remove { container, .. } => Some(container.name().to_string()),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() {
        context.ui.remark("No stopped containers");
        return Ok(());
    }
    let question = format!("Going to remove {}", names.join(", "));
    if args.force {
        context.ui.data(&format!("{question}\n"));
    } else if !context.dry_run && !super::terminal::confirms(context, &question)? {
        return Ok(());
    }
    context.apply(&scene, &plan).await.map(drop)
}

async fn carry_out(context: &Context, services: &[String], intent: Intent) -> Result<()> {
    carry_out_within(context, services, intent, None).await
}

async fn carry_out_within(
    context: &Context,
    services: &[String],
    intent: Intent,
    limit: Option<Duration>,
) -> Result<()> {
    let scene = context.existing(services).await?;
    if scene.project.services.is_empty() {
        return Ok(());
    }
    let project = scene.project.name.clone();
    if !context.home.stack(&project).is_dir() {
        return context.carry_out(&scene, &intent).await.map(drop);
    }
    let grace = match &intent {
        Intent::Stop { grace, .. } | Intent::Restart { grace, .. } => *grace,
        _ => None,
    };
    let _lock = context.lock_with_grace(&project, grace).await?;
    let scene = context.observe(scene.project, false).await?;
    let plan = context.plan(&scene, &intent)?;
    super::patience::within(context, &scene, &plan, limit).await?;
    note_restarts(context, &scene, &plan);
    Ok(())
}

/// For `stack events`: a restart is a stop and a start, and then told as what it was.
fn note_restarts(context: &Context, scene: &Scene, plan: &Plan) {
    let restarted = plan.steps().filter_map(|(_, step)| match &step.action {
        Action::Start { container } if step.cause == Cause::Restart => Some(container.name()),
        _ => None,
    });
    for name in restarted.filter(|_| !context.dry_run) {
        let containers = &scene.observed.containers;
        if let Some(found) = containers.iter().find(|c| c.name == name) {
            journal::note_of(&context.home, &scene.project.name, &found.id, &found.spec, "restart", &[]);
        }
    }
}
