//! `stack pull` and `stack push`.

use super::image::{Local, push_one};
use super::{Context, Hushed, Scene};
use crate::apply::images::Images;
use crate::event::{Event, Sink};
use crate::failure::Result;
use crate::plan::intent::{self, Intent};
use crate::plan::label::image_of;
use std::collections::BTreeSet;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// No progress of layers
    #[arg(short, long)]
    quiet: bool,
    /// Also what the services depend on
    #[arg(long)]
    include_deps: bool,
    /// Leave out services that can be built
    #[arg(long)]
    ignore_buildable: bool,
    /// Go on and succeed when a pull fails
    #[arg(long)]
    ignore_pull_failures: bool,
    /// missing or always
    #[arg(long, value_name = "POLICY", value_parser = ["missing", "always"])]
    policy: Option<String>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// Go on when a push fails
    #[arg(long)]
    ignore_push_failures: bool,
    /// Also what the services depend on
    #[arg(long)]
    include_deps: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    context.insist();
    if args.quiet {
        context.hush(Hushed::Parts);
    }
    let scene = context.scene(&args.services).await?;
    let intent = intent::Pull {
        services: args.services,
        dependencies: args.include_deps,
        ignore_buildable: args.ignore_buildable,
        policy: args.policy.as_deref().map(super::up::policy).transpose()?,
    };
    let result = context.carry_out(&scene, &Intent::Pull(intent)).await;
    match result {
        Err(failure) if args.ignore_pull_failures => {
            context.ui.emit(Event::warning(failure.summary()));
            Ok(())
        }
        Err(failure) => {
            tell_buildable(context, &scene)?;
            Err(failure)
        }
        Ok(_) => Ok(()),
    }
}

/// Services whose image no registry gave, but which can be built.
fn tell_buildable(context: &Context, scene: &Scene) -> Result<()> {
    let local = Local::new(context);
    let mut keys = Vec::new();
    for service in scene.project.services.values().filter(|s| s.build.is_some()) {
        if let Some(image) = &service.image
            && local.view(image)?.is_none()
        {
            keys.push(service.key.as_str());
        }
    }
    if !keys.is_empty() {
        let text = "Some service image(s) must be built from source by running:\n    stack build";
        context.ui.emit(Event::warning(format!("{text} {}", keys.join(" "))));
    }
    Ok(())
}

pub(super) async fn push(args: PushArgs, context: &Context) -> Result<()> {
    let services = if args.include_deps { Vec::new() } else { args.services.clone() };
    let project = context.project(&args.services)?;
    let scene = context.observe(project, false).await?;
    push_services(context, &scene, &services, (args.ignore_push_failures, &BTreeSet::new())).await
}

/// Services with both a build and an image are pushed, except those that are `done`; the others have nothing that is
/// theirs to push.
pub(super) async fn push_services(
    context: &Context,
    scene: &Scene,
    services: &[String],
    (ignore_failures, done): (bool, &BTreeSet<String>),
) -> Result<()> {
    context.needs_network("a push")?;
    let local = Local::new(context);
    let is_meant = |key: &String| (services.is_empty() || services.contains(key)) && !done.contains(key);
    for service in scene.project.services.values().filter(|s| is_meant(&s.key)) {
        let (Some(build), Some(_)) = (&service.build, &service.image) else {
            context.ui.emit(Event::done(format!("Image {}", image_of(&scene.project, service)), "Skipped"));
            continue;
        };
        for name in std::iter::once(&image_of(&scene.project, service)).chain(&build.tags) {
            match push_one(&local, name, context.ui.as_ref()).await {
                Err(failure) if !ignore_failures => return Err(failure),
                Err(failure) => context.ui.emit(Event::warning(failure.summary())),
                Ok(()) => {}
            }
        }
    }
    Ok(())
}
