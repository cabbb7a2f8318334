//! `stack watch`, and what a watch session needs done.

use super::Context;
use crate::failure::{Failure, Result, failed};
use crate::plan::intent::{Building, Intent, Recreate, Up};
use crate::watch::{HostDoer, Only, Rules, Session, Verb};
use stack_runtime::image::Store;
use stack_runtime::image::prune::{self, Which};
use stack_schema::project::Project;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The services are up already
    #[arg(long)]
    no_up: bool,
    /// No output of builds
    #[arg(long)]
    quiet: bool,
    /// Remove images that a rebuild leaves without a name
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    prune: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let project = context.project(&args.services)?;
    if context.dry_run {
        return Ok(());
    }
    context.may_change()?;
    std::fs::create_dir_all(context.home.run_of(&project.name)).map_err(failed("make the run directory"))?;
    let _only = Only::watch(&context.home, &project.name)?;
    let mut session = session(context, &project, &args.services, args.quiet, args.prune)?;
    if !args.no_up {
        let intent = Up {
            services: args.services.clone(),
            build: Building::Always,
            recreate_dependencies: Recreate::Never,
            quiet_build: args.quiet,
            ..Up::default()
        };
        super::up::converge(context, project, intent).await?;
        context.ui.settle();
    }
    tokio::select! {
        ended = session.run() => ended,
        () = context.interrupts.next() => Err(Failure::interrupted()),
    }
}

/// A session that carries its steps out through the context.
pub(super) fn session<'a>(
    context: &'a Context,
    project: &Project,
    services: &[String],
    quiet: bool,
    prune: bool,
) -> Result<Session<HostDoer<Hands<'a>>>> {
    let rules = Rules::of(project, services)?;
    let verb = Hands { context, project: project.clone(), quiet, prune };
    Session::open(rules, HostDoer { engine: context.engine(), project: project.name.clone(), verb })
}

pub(super) struct Hands<'a> {
    context: &'a Context,
    project: Project,
    quiet: bool,
    prune: bool,
}

impl Verb for Hands<'_> {
    async fn converge(&self, intent: Intent) -> Result<()> {
        let converged = match intent {
            Intent::Up(up) => {
                let up = Up { quiet_build: self.quiet, ..up };
                let raised = super::up::converge(self.context, self.project.clone(), up).await.map(drop);
                if raised.is_ok() && self.prune {
                    self.drop_nameless();
                }
                raised
            }
            other => self.carry_out(&other).await,
        };
        self.context.ui.settle();
        converged
    }

    fn say(&self, line: &str) {
        self.context.ui.data(&format!("{line}\n"));
    }

    fn complain(&self, failure: &Failure) {
        self.context.ui.failure(failure);
    }
}

impl Hands<'_> {
    /// The images that the rebuilds before this one made. Another build may be under way: then the next time.
    fn drop_nameless(&self) {
        let freed = Store::open(&self.context.home).map(|store| {
            let in_use = || super::system::in_use(&self.context.home).map_err(std::io::Error::other);
            prune::prune(&store, in_use, Which::Dangling).map_err(super::image::of_image)
        });
        if let Ok(Err(failure)) = freed {
            tracing::debug!(%failure, "images without a name stay");
        }
    }

    async fn carry_out(&self, intent: &Intent) -> Result<()> {
        let _lock = self.context.lock(&self.project.name).await?;
        let scene = self.context.observe(self.project.clone(), false).await?;
        self.context.carry_out(&scene, intent).await.map(drop)
    }
}
