//! `stack up` and `stack create`.

use super::attached::{Attached, Ending};
use super::{Context, Hushed, Scene, ports};
use crate::apply::Report;
use crate::failure::{Failure, Kind, Result};
use crate::find::is_true;
use crate::plan::Plan;
use crate::plan::intent::{Building, Intent, Recreate, Up};
use crate::plan::step::Action;
use jiff::Timestamp;
use stack_runtime::home::Lock;
use stack_schema::project::{Project, PullPolicy};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Shared {
    /// Build images first
    #[arg(long)]
    build: bool,
    /// Never build
    #[arg(long)]
    no_build: bool,
    /// When to pull: always, missing, never, build
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// No progress of pulls
    #[arg(long)]
    quiet_pull: bool,
    /// Replace containers although nothing changed
    #[arg(long)]
    force_recreate: bool,
    /// Leave existing containers although something changed
    #[arg(long)]
    no_recreate: bool,
    /// Remove containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
    /// Number of containers of a service; may be repeated
    #[arg(long = "scale", value_name = "SERVICE=NUM")]
    scale: Vec<String>,
    /// Answer questions with yes
    #[arg(short = 'y', long)]
    yes: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    shared: Shared,
    /// Return when everything is started
    #[arg(short, long)]
    detach: bool,
    /// Wait until everything runs or is healthy; implies -d
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so many seconds
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
    /// Rebuild and refresh services while their files change
    #[arg(short, long)]
    watch: bool,
    /// Do not start what the services depend on
    #[arg(long)]
    no_deps: bool,
    /// Create only
    #[arg(long)]
    no_start: bool,
    /// Replace what the services depend on, too
    #[arg(long)]
    always_recreate_deps: bool,
    /// New anonymous volumes instead of the old ones
    #[arg(short = 'V', long)]
    renew_anon_volumes: bool,
    /// Seconds between the stop signal and SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Stop everything when a container ends
    #[arg(long)]
    abort_on_container_exit: bool,
    /// Stop everything when a container fails
    #[arg(long)]
    abort_on_container_failure: bool,
    /// End with this service's exit code; implies --abort-on-container-exit
    #[arg(long, value_name = "SERVICE")]
    exit_code_from: Option<String>,
    /// Follow the logs of these services only; may be repeated
    #[arg(long = "attach", value_name = "SERVICE")]
    attach: Vec<String>,
    /// Follow the logs of what the services depend on, too
    #[arg(long)]
    attach_dependencies: bool,
    /// Do not follow the logs of this service; may be repeated
    #[arg(long = "no-attach", value_name = "SERVICE")]
    no_attach: Vec<String>,
    /// No output of builds
    #[arg(long)]
    quiet_build: bool,
    /// One colour for all
    #[arg(long)]
    no_color: bool,
    /// Lines without the container's name
    #[arg(long)]
    no_log_prefix: bool,
    /// Time before each line
    #[arg(long)]
    timestamps: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    menu: Option<bool>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    args.check()?;
    args.shared.hush(context);
    let scene = context.scene(&args.shared.services).await?;
    something_to_start(&scene.project)?;
    let intent = args.intent(context)?;
    let attaches = !(args.detaches() || args.no_start || context.dry_run);
    let session = match args.watch && !context.dry_run {
        true => Some(super::watch::session(context, &scene.project, &args.shared.services, false, false)?),
        false => None,
    };
    if !attaches {
        return raise(context, &scene, intent, args.limit()).await.map(drop);
    }
    let attached = args.attached(context, scene.project.clone(), Timestamp::now())?;
    let mut ready = prepare(context, &scene, intent).await?;
    let engine = ready.scene.engine.clone();
    let (listener, unlogged) = mpsc::unbounded_channel();
    ready.scene.engine = engine.clone().listener(listener);
    let (risen, is_up) = oneshot::channel();
    let rising = async move {
        ready.carry_out(context, args.limit()).await?;
        let _ = risen.send(()); // nobody watches
        Ok(())
    };
    let watching = async move {
        match (session, is_up.await) {
            (Some(mut session), Ok(())) => session.run().await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = attached.run(&engine, rising, unlogged) => ended,
        failed = watching => failed,
    }
}

pub(super) async fn create(args: CreateArgs, context: &Context) -> Result<()> {
    args.shared.check()?;
    args.shared.hush(context);
    let scene = context.scene(&args.shared.services).await?;
    something_to_start(&scene.project)?;
    let intent = Up { start: false, ..args.shared.intent()? };
    raise(context, &scene, intent, None).await.map(drop)
}

fn something_to_start(project: &Project) -> Result<()> {
    match project.services.is_empty() {
        true => Err(Failure::new(Kind::Project, "no service selected")),
        false => Ok(()),
    }
}

/// Converges the project again with an intent of its own, for `watch`.
///
/// # Errors
/// As `up`.
pub async fn converge(context: &Context, project: Project, intent: Up) -> Result<Report> {
    let scene = context.observe(project, true).await?;
    raise(context, &scene, intent, None).await
}

async fn raise(context: &Context, scene: &Scene, intent: Up, limit: Option<Duration>) -> Result<Report> {
    if context.dry_run {
        let intent = Intent::Up(super::renew::settled(context, scene, intent)?);
        let plan = context.plan(scene, &intent)?;
        return context.apply(scene, &plan).await;
    }
    prepare(context, scene, intent).await?.carry_out(context, limit).await
}

/// A plan that may be carried out: nobody else changes the project, and the ports can be had.
struct Ready {
    _lock: Option<Lock>,
    scene: Scene,
    plan: Plan,
}

async fn prepare(context: &Context, scene: &Scene, intent: Up) -> Result<Ready> {
    context.may_change()?;
    // Also when nothing seems to be missing: a command that was cut off may have left a stop on its way.
    let lock = context.lock(&scene.project.name).await?;
    // What another command did while we waited counts.
    let scene = context.observe(scene.project.clone(), true).await?;
    let intent = Intent::Up(super::renew::settled(context, &scene, intent)?);
    let plan = context.plan(&scene, &intent)?;
    let starts = plan.steps().any(|(_, step)| matches!(step.action, Action::Start { .. }));
    if starts {
        ports::check(&scene, &plan)?;
    }
    Ok(Ready { _lock: lock, scene, plan })
}

impl Ready {
    async fn carry_out(self, context: &Context, limit: Option<Duration>) -> Result<Report> {
        super::patience::within(context, &self.scene, &self.plan, limit).await
    }
}

impl Shared {
    fn hush(&self, context: &Context) {
        if self.quiet_pull {
            context.hush(Hushed::Parts);
        }
        if self.yes {
            context.agree();
        }
    }

    fn check(&self) -> Result<()> {
        if self.build && self.no_build {
            return Err(Failure::usage("--build and --no-build are incompatible"));
        }
        if self.force_recreate && self.no_recreate {
            return Err(Failure::usage("--force-recreate and --no-recreate are incompatible"));
        }
        Ok(())
    }

    fn intent(&self) -> Result<Up> {
        let recreate = match (self.force_recreate, self.no_recreate) {
            (true, _) => Recreate::Always,
            (_, true) => Recreate::Never,
            _ => Recreate::Diverged,
        };
        Ok(Up {
            services: self.services.clone(),
            build: match (self.build, self.no_build) {
                (true, _) => Building::Always,
                (_, true) => Building::Never,
                _ => Building::WhenMissing,
            },
            pull: self.pull.as_deref().map(policy).transpose()?,
            recreate,
            recreate_dependencies: if self.no_recreate { Recreate::Never } else { Recreate::Diverged },
            scale: self.scale.iter().map(|text| scale(text)).collect::<Result<BTreeMap<_, _>>>()?,
            remove_orphans: self.remove_orphans,
            ..Up::default()
        })
    }
}

pub(super) fn policy(text: &str) -> Result<PullPolicy> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" | "if_not_present" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        "build" => Ok(PullPolicy::Build),
        _ => Err(Failure::usage(format!("invalid --pull option {text:?}"))),
    }
}

fn scale(text: &str) -> Result<(String, u32)> {
    let parsed = text.split_once('=').and_then(|(key, number)| Some((key.to_string(), number.parse().ok()?)));
    parsed.ok_or_else(|| Failure::usage(format!("invalid --scale option {text:?}. Should be SERVICE=NUM")))
}

impl Args {
    fn limit(&self) -> Option<Duration> {
        self.wait_timeout.map(Duration::from_secs)
    }

    fn detaches(&self) -> bool {
        self.detach || self.wait
    }

    fn aborts(&self) -> bool {
        self.abort_on_container_exit || self.exit_code_from.is_some()
    }

    fn check(&self) -> Result<()> {
        self.shared.check()?;
        let shared = &self.shared;
        let attaches = !self.attach.is_empty() || self.attach_dependencies;
        let holds = self.aborts() || self.abort_on_container_failure || attaches || self.watch;
        let conflict = match () {
            () if shared.no_recreate && self.renew_anon_volumes => {
                "--no-recreate and --renew-anon-volumes are incompatible"
            }
            () if shared.no_recreate && self.always_recreate_deps => {
                "--always-recreate-deps and --no-recreate are incompatible"
            }
            () if shared.no_build && self.watch => "--no-build and --watch are incompatible",
            () if self.abort_on_container_exit && self.abort_on_container_failure => {
                "--abort-on-container-failure cannot be combined with --abort-on-container-exit"
            }
            () if !self.attach.is_empty() && self.attach_dependencies => {
                "cannot combine --attach and --attach-dependencies"
            }
            () if self.detach && holds => {
                "--detach cannot be combined with --abort-on-container-exit, --abort-on-container-failure, --attach, --attach-dependencies or --watch"
            }
            () if self.wait && holds => {
                "--wait cannot be combined with --abort-on-container-exit, --abort-on-container-failure, --attach, --attach-dependencies or --watch"
            }
            () => return Ok(()),
        };
        Err(Failure::usage(conflict))
    }

    fn intent(&self, context: &Context) -> Result<Up> {
        let base = self.shared.intent()?;
        let setting = |name: &str| is_true(context.setting(name).as_deref());
        let ignore_orphans = setting("COMPOSE_IGNORE_ORPHANS");
        if ignore_orphans && base.remove_orphans {
            return Err(Failure::usage("cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans"));
        }
        let recreate = match base.recreate {
            Recreate::Diverged if self.renew_anon_volumes => Recreate::Always,
            other => other,
        };
        Ok(Up {
            dependencies: !self.no_deps,
            recreate,
            recreate_dependencies: if self.always_recreate_deps {
                Recreate::Always
            } else {
                base.recreate_dependencies
            },
            renew_anonymous_volumes: self.renew_anon_volumes,
            start: !self.no_start,
            wait: self.wait || (self.detach && self.wait_timeout.is_some()),
            remove_orphans: base.remove_orphans || setting("COMPOSE_REMOVE_ORPHANS"),
            ignore_orphans,
            grace: self.timeout.map(Duration::from_secs),
            quiet_build: self.quiet_build,
            ..base
        })
    }

    fn attached<'a>(&self, context: &'a Context, project: Project, since: Timestamp) -> Result<Attached<'a>> {
        let ending = match (&self.exit_code_from, self.abort_on_container_failure) {
            (Some(service), _) => Ending::CodeOf(service.clone()),
            (None, true) => Ending::FirstFailure,
            (None, false) if self.abort_on_container_exit => Ending::FirstExit,
            (None, false) => Ending::AllEnded,
        };
        if let Ending::CodeOf(key) = &ending
            && !project.services.contains_key(key)
        {
            return Err(Failure::no_such_service(key));
        }
        let services = self.followed(&project)?;
        let style = crate::ui::log::LogStyle {
            colour: context.ui.colour_out && !self.no_color,
            prefix: !self.no_log_prefix,
            timestamps: self.timestamps,
        };
        let stays = self.watch;
        Ok(Attached { context, project, services, ending, style, since, stays })
    }

    /// The services whose logs are shown; at least one.
    fn followed(&self, project: &Project) -> Result<Vec<String>> {
        let all = || project.services.keys().cloned().collect::<Vec<_>>();
        if let Some(other) = self.attach.iter().find(|key| !project.services.contains_key(*key)) {
            return Err(Failure::usage(format!("cannot attach to services not included in up: {other}")));
        }
        let named =
            match (self.attach.is_empty(), self.shared.services.is_empty() || self.attach_dependencies) {
                (false, _) => self.attach.clone(),
                (true, true) => all(),
                (true, false) => self.shared.services.clone(),
            };
        let is_shown = |key: &String| {
            let attach = project.services.get(key).is_none_or(|s| s.attach) || self.attach.contains(key);
            attach && !self.no_attach.contains(key)
        };
        let shown: Vec<String> = named.into_iter().filter(is_shown).collect();
        Ok(if shown.is_empty() { all() } else { shown })
    }
}
