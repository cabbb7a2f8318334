//! `stack watch`, and what a watch session needs done.

use super::{Context, Scene};
use crate::failure::{Failure, Result, failed};
use crate::host::process::ProcessMark;
use crate::plan::intent::{Building, Intent, Recreate, Up};
use crate::plan::label::Labelled;
use crate::watch::sync::Root;
use crate::watch::{Doer, Only, Replica, Rules, Session};
use stack_runtime::observed::State;
use stack_runtime::spec::ExecSpec;
use stack_schema::project::Project;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

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
    let mut session = session(context, &project, &args.services, args.quiet)?;
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
        () = super::context::interrupted() => Err(Failure::interrupted()),
    }
}

/// A session that carries its steps out through the context.
pub(super) fn session<'a>(
    context: &'a Context,
    project: &Project,
    services: &[String],
    quiet: bool,
) -> Result<Session<Hands<'a>>> {
    let rules = Rules::of(project, services)?;
    Session::open(rules, Hands { context, project: project.clone(), quiet })
}

pub(super) struct Hands<'a> {
    context: &'a Context,
    project: Project,
    quiet: bool,
}

impl Hands<'_> {
    async fn scene(&self) -> Result<Scene> {
        self.context.observe(self.project.clone(), false).await
    }
}

impl Doer for Hands<'_> {
    async fn replicas(&self, service: &str) -> Result<Vec<Replica>> {
        let scene = self.scene().await?;
        let mut replicas = Vec::new();
        for container in
            scene.observed.containers.iter().filter(|c| c.service() == service && !c.is_one_off())
        {
            let State::Running { pid, .. } = container.state else { continue };
            let doing = format!("look into {}", container.name);
            let gone = || Failure::other(format!("{} has ended", container.name));
            let mark = ProcessMark::of(pid).ok_or_else(gone)?;
            // Files belong to whom the program runs as; root's keep the host's owner.
            let program = std::fs::metadata(format!("/proc/{pid}")).map_err(failed(&doing))?;
            let owner = (!container.spec.user.is_empty()).then(|| (program.uid(), program.gid()));
            let root = Root::of_process(mark).map_err(failed(&doing))?;
            replicas.push(Replica { name: container.name.clone(), root, owner });
        }
        Ok(replicas)
    }

    async fn rebuild(&self, services: &[String]) -> Result<()> {
        let intent = Up {
            services: services.to_vec(),
            dependencies: false,
            build: Building::Always,
            recreate: Recreate::Always,
            ignore_orphans: true,
            quiet_build: self.quiet,
            ..Up::default()
        };
        let raised = super::up::converge(self.context, self.project.clone(), intent).await;
        self.context.ui.settle();
        raised.map(drop)
    }

    async fn restart(&self, services: &[String]) -> Result<()> {
        let scene = self.scene().await?;
        let intent = Intent::Restart { services: services.to_vec(), grace: None, dependents: true };
        let _lock = self.context.lock(&self.project.name).await?;
        let restarted = self.context.carry_out(&scene, &intent).await;
        self.context.ui.settle();
        restarted.map(drop)
    }

    async fn exec(&self, service: &str, command: &[String]) -> Result<()> {
        let scene = self.scene().await?;
        let client = scene.engine.client(&self.project.name).await?;
        let spec = ExecSpec { args: command.to_vec(), ..ExecSpec::default() };
        let null = std::fs::File::open("/dev/null").map_err(failed("open /dev/null"))?;
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        for container in scene.observed.containers.iter().filter(|c| c.service() == service) {
            if !matches!(container.state, State::Running { .. }) {
                continue;
            }
            let streams = [null.as_fd(), stdout.as_fd(), stderr.as_fd()];
            let mut exec = client.exec(&container.id, &spec, streams, (24, 80)).await?;
            match exec.wait().await? {
                0 => {}
                code => {
                    return Err(Failure::other(format!(
                        "{:?} ended with exit code {code}",
                        command.join(" ")
                    )));
                }
            }
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        self.context.ui.data(&format!("{line}\n"));
    }

    fn complain(&self, failure: &Failure) {
        self.context.ui.failure(failure);
    }
}
