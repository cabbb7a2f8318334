//! `stack wait`: until the containers of services have ended.

use super::Context;
use crate::failure::{Failure, Result};
use crate::plan::label::Labelled;
use futures_util::stream::{FuturesUnordered, StreamExt};
use stack_runtime::engine::{Engine, Until, Waited};
use stack_runtime::observed::{ContainerObserved, State};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Take the project down when they have ended
    #[arg(long)]
    down_project: bool,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let scene = context.existing(&[]).await?;
    let project = scene.project.name.clone();
    let is_up = |c: &&ContainerObserved| {
        matches!(c.state, State::Running { .. } | State::Paused { .. } | State::Restarting { .. })
    };
    let is_meant = |c: &&ContainerObserved| args.services.iter().any(|key| key == c.service());
    let waited: Vec<&ContainerObserved> =
        scene.observed.containers.iter().filter(is_up).filter(is_meant).collect();
    if !scene.observed.containers.is_empty() {
        super::known_services(&scene.project, &args.services)?;
    }
    if waited.is_empty() {
        return Err(Failure::other(format!("no containers for project {project:?}")));
    }
    if context.dry_run {
        waited.iter().for_each(|c| context.ui.data(&format!("wait for the end of {}\n", c.name)));
        return Ok(());
    }
    let end = async |container: &ContainerObserved| {
        (container.id.clone(), scene.engine.wait(&project, &container.id, Until::Exited).await)
    };
    let mut ends: FuturesUnordered<_> = waited.into_iter().map(end).collect();
    let mut code = 0;
    while let Some((id, end)) = ends.next().await {
        // Only an end ends such a wait; one that nobody saw is not taken for a success.
        let Waited::Exited(exit) = end? else { continue };
        let shown = exit.code.map_or_else(|| "unknown".into(), |code| code.to_string());
        context.ui.data(&format!("container {id:?} exited with status code {shown}\n"));
        code = exit.code.unwrap_or(1);
    }
    drop(ends);
    if args.down_project {
        super::down::all(context, &project).await?;
    }
    super::exec::exit(code)
}
