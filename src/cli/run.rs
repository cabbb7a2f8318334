//! `stack run`: a one-off container of a service, its exit code ours.
//!
//! A container of which the command line is killed goes on; with `--rm` its supervisor removes it when it ends.

use super::detach::DetachKeys;
use super::session::{Input, Left, Session};
use super::terminal::{Raw, size};
use super::{Context, Hushed, Scene};
use crate::failure::{Failure, Result};
use crate::plan::intent::{Building, Intent, Run, Up};
use crate::plan::label;
use crate::plan::step::OneOff;
use crate::supervise::protocol::Attach;
use stack_runtime::engine::Engine;
use stack_schema::project::{Mount, MountKind, Port, Project, Service};
use stack_schema::short::{is_path, parse_port, parse_volume, split_words};
use std::collections::BTreeSet;
use std::io::IsTerminal;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Build the image first
    #[arg(long)]
    build: bool,
    /// Print the container's id and return
    #[arg(short, long)]
    detach: bool,
    /// Replace the image's entry point
    #[arg(long, value_name = "TEXT")]
    entrypoint: Option<String>,
    /// Set a variable; may be repeated
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Keep standard input open
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    interactive: bool,
    /// Set a label; may be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Do not start what the service depends on
    #[arg(long)]
    no_deps: bool,
    /// No terminal
    #[arg(short = 'T', long = "no-tty", visible_alias = "no-TTY")]
    no_tty: bool,
    #[arg(short = 't', long, hide = true)]
    tty: bool,
    /// Publish a port; may be repeated
    #[arg(short, long = "publish", value_name = "PORT")]
    publish: Vec<String>,
    /// Publish the service's own ports
    #[arg(short = 'P', long)]
    service_ports: bool,
    /// When to pull: always, missing, never
    #[arg(long, value_name = "POLICY")]
    pull: Option<String>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// No progress of pulls
    #[arg(long)]
    quiet_pull: bool,
    /// No output of builds
    #[arg(long)]
    quiet_build: bool,
    /// Remove containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Answer to the service's names, too
    #[arg(long)]
    use_aliases: bool,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Mount a volume; may be repeated
    #[arg(short, long = "volume", value_name = "VOLUME")]
    volumes: Vec<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Add a capability; may be repeated
    #[arg(long = "cap-add", value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability; may be repeated
    #[arg(long = "cap-drop", value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    service: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    if args.service_ports && !args.publish.is_empty() {
        return Err(Failure::usage("--service-ports and --publish are incompatible"));
    }
    if args.quiet {
        context.hush(Hushed::All);
    } else if args.quiet_pull {
        context.hush(Hushed::Parts);
    }
    let tty = !args.detach && super::exec::wants_terminal(args.no_tty || !std::io::stdin().is_terminal())?;
    let keys = DetachKeys::chosen(None)?;
    let scene = context.scene(std::slice::from_ref(&args.service)).await?;
    let intent = args.intent(context, &scene.project, tty)?;
    let name = intent.name.clone();
    let intent = Intent::Run(Box::new(intent));
    if context.dry_run {
        return context.carry_out(&scene, &intent).await.map(drop);
    }
    context.may_change()?;
    let lock = context.lock(&scene.project.name).await?;
    let scene = context.observe(scene.project, true).await?;
    let report = context.carry_out(&scene, &intent).await?;
    drop(lock);
    context.ui.settle();
    let missing = || Failure::other(format!("container {name} was not created"));
    let id = report.id_of(&name).ok_or_else(missing)?.to_string();
    let one = One { context, scene: &scene, id: &id, name: &name, auto_remove: args.rm };
    if args.detach {
        one.start().await?;
        context.ui.data(&format!("{id}\n"));
        return Ok(());
    }
    one.attended(tty, args.interactive, keys).await
}

impl Args {
    fn intent(&self, context: &Context, project: &Project, tty: bool) -> Result<Run> {
        let base =
            project.services.get(&self.service).ok_or_else(|| Failure::no_such_service(&self.service))?;
        let slug: String = stack_runtime::volume::anonymous_name();
        let generated = label::joined(project, &[&project.name, &self.service, "run", &slug[..12]]);
        Ok(Run {
            service: self.one_off(context, base, tty)?,
            name: self.name.clone().unwrap_or(generated),
            one_off: OneOff { slug, auto_remove: self.rm, use_aliases: self.use_aliases },
            up: Up {
                dependencies: !self.no_deps,
                build: if self.build { Building::Always } else { Building::WhenMissing },
                pull: self.pull.as_deref().map(super::up::policy).transpose()?,
                remove_orphans: self.remove_orphans,
                ignore_orphans: true,
                quiet_build: self.quiet_build,
                ..Up::default()
            },
        })
    }

    /// The service as this run wants it.
    fn one_off(&self, context: &Context, base: &Service, tty: bool) -> Result<Service> {
        let mut service = base.clone();
        service.container_name = None;
        service.tty = tty;
        service.stdin_open = !self.detach;
        if !self.command.is_empty() || self.entrypoint.is_some() {
            service.command = Some(self.command.clone());
        }
        if let Some(text) = &self.entrypoint {
            service.entrypoint = Some(split_words(text).map_err(|e| Failure::usage(e.to_string()))?);
        }
        service.user = self.user.clone().or(service.user);
        service.working_dir = self.workdir.clone().or(service.working_dir);
        for text in &self.env {
            let (key, value) = variable(context, text);
            service.environment.insert(key, value);
        }
        for text in &self.labels {
            let pair =
                text.split_once('=').ok_or_else(|| Failure::usage("label must be set as KEY=VALUE"))?;
            service.labels.insert(pair.0.into(), pair.1.into());
        }
        service.cap_drop.retain(|c| !self.cap_add.contains(c));
        service.cap_add.extend(self.cap_add.iter().cloned());
        service.cap_drop.extend(self.cap_drop.iter().cloned());
        self.publish(&mut service)?;
        self.mount(context, &mut service)?;
        Ok(service)
    }

    fn publish(&self, service: &mut Service) -> Result<()> {
        if !self.service_ports {
            service.ports.clear();
        }
        for text in &self.publish {
            let ports =
                parse_port(text).map_err(|e| Failure::usage(format!("invalid port {text:?}: {e}")))?;
            service.ports.extend(ports.into_iter().map(|p| Port {
                host_ip: p.host_ip,
                published: p.published,
                target: p.target,
                protocol: p.protocol,
                mode: "ingress".into(),
                name: None,
            }));
        }
        Ok(())
    }

    fn mount(&self, context: &Context, service: &mut Service) -> Result<()> {
        for text in &self.volumes {
            let spec =
                parse_volume(text).map_err(|e| Failure::usage(format!("invalid volume {text:?}: {e}")))?;
            let is_bind = spec.source.as_deref().is_some_and(is_path);
            let here = |source: String| context.current_directory().join(source).display().to_string();
            service.volumes.retain(|m| m.target != spec.target);
            service.volumes.push(Mount {
                kind: if is_bind { MountKind::Bind } else { MountKind::Volume },
                source: if is_bind { spec.source.map(here) } else { spec.source },
                target: spec.target,
                read_only: spec.read_only,
                create_host_path: true,
                propagation: spec.propagation,
                recursive: None,
                nocopy: spec.nocopy,
                subpath: None,
                tmpfs_size: None,
                tmpfs_mode: None,
            });
        }
        Ok(())
    }
}

/// A bare name takes our own value; without one the container gets none.
fn variable(context: &Context, text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_string(), Some(value.to_string())),
        None => (text.to_string(), context.variable(text).map(str::to_string)),
    }
}

/// The container of this run.
struct One<'a> {
    context: &'a Context,
    scene: &'a Scene,
    id: &'a str,
    name: &'a str,
    auto_remove: bool,
}

impl One<'_> {
    async fn start(&self) -> Result<()> {
        let started = self.scene.engine.start(&self.scene.project.name, self.id).await;
        self.or_removed(started).await?;
        self.warn(true).await;
        Ok(())
    }

    /// What it did not get.
    async fn warn(&self, whole: bool) {
        self.context.warn_of(self.scene, &BTreeSet::from([self.name]), whole).await;
    }

    /// Compose leaves nothing of a run that never ran.
    async fn or_removed<T>(&self, started: stack_runtime::engine::Result<T>) -> Result<T> {
        if started.is_err() {
            drop(self.scene.engine.remove(&self.scene.project.name, self.id, true).await);
        }
        Ok(started?)
    }

    /// Carries input and output until it ends.
    async fn attended(&self, tty: bool, interactive: bool, keys: DetachKeys) -> Result<()> {
        let input = if interactive { Input::Whole } else { Input::None };
        let (context, scene, id, name) = (self.context, self.scene, self.id, self.name);
        let mut session = Session { context, scene, id, name, tty, input, proxies: true, keys };
        let attach = Attach { size: size().filter(|_| tty).map(|s| (s.ws_row, s.ws_col)) };
        let started = self.scene.engine.start_attached(&self.scene.project.name, self.id, attach).await;
        let attachment = self.or_removed(started).await?;
        // Its output does not wait for the stack's way out, which is rarely at fault.
        self.warn(false).await;
        let raw = if tty { Raw::enter() } else { None };
        if !interactive {
            drop(attachment.close_input().await); // it may have ended
        }
        let left = session.carry(&attachment).await?;
        drop(raw);
        if left == Left::Detached {
            return Ok(());
        }
        let exit = session.exit().await?;
        if self.auto_remove {
            // Its supervisor removes it; when we are over, it and its volumes are gone.
            self.scene.engine.remove(&self.scene.project.name, self.id, true).await?;
        }
        session.report(&exit)
    }
}
