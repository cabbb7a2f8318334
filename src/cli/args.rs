//! What can be typed: the global flags and the verbs.

use super::{
    attach, build, builder, cache, commit, config, cp, debug, doctor, down, enable, events, exec, explain,
    export, graph, image, images, life, login, logs, ls, port, ps, pull, run, scale, schema, stats, system,
    top, up, version, volume, volumes, wait, watch,
};
use crate::find::Asked;
use crate::ui::Wishes;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs Compose files: builds, networks, starts and watches containers. No daemon.
#[derive(Debug, Parser)]
#[command(
    name = "stack",
    bin_name = "stack",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    max_term_width = 110
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Compose file; may be repeated, later ones are merged over earlier ones; - is standard input
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Project name
    #[arg(short, long, value_name = "NAME")]
    project_name: Option<String>,
    /// Activate a profile; may be repeated
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// Read variables from this file instead of .env; may be repeated
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<String>,
    /// Base of relative paths [default: where the first file is]
    #[arg(long, value_name = "DIR")]
    project_directory: Option<PathBuf>,
    /// How progress is shown: auto, tty, plain, json, quiet
    #[arg(long, value_name = "VIEW", env = "COMPOSE_PROGRESS", hide_env = true, global = true)]
    progress: Option<String>,
    /// Use of escape sequences: never, always, auto
    #[arg(long, value_name = "WHEN", env = "COMPOSE_ANSI", hide_env = true, global = true)]
    ansi: Option<String>,
    /// Show what would be done and why, and do nothing
    #[arg(long, global = true)]
    pub(super) dry_run: bool,
    /// Use only what is here: no registry and no other address is asked
    #[arg(
        long,
        env = "STACK_OFFLINE",
        hide_env = true,
        global = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(super) offline: bool,
    /// At most so many steps at once; -1 for no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) parallel: Option<i64>,
    /// Keep networks and volumes that no service uses
    #[arg(long, hide = true)]
    pub(super) all_resources: bool,
    /// Join the parts of names of containers and images by _; config shows no defaults
    #[arg(long)]
    pub(super) compatibility: bool,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

impl Global {
    pub(super) fn asked(&self) -> Asked {
        Asked {
            files: self.files.clone(),
            project_name: self.project_name.clone(),
            profiles: self.profiles.clone(),
            env_files: self.env_files.clone(),
            project_directory: self.project_directory.clone(),
            compatibility: self.compatibility,
        }
    }

    pub(super) fn wishes(&self) -> Wishes {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let status = std::env::var("COMPOSE_STATUS_STDOUT").ok();
        let notes_on_stdout = crate::find::is_true(status.as_deref());
        Wishes { progress: self.progress.clone(), ansi: self.ansi.clone(), no_colour, notes_on_stdout }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create and start the services, and follow their logs
    Up(Box<up::Args>),
    /// Stop and remove containers and networks
    Down(down::Args),
    /// Build or rebuild images
    Build(build::Args),
    /// Rebuild and refresh services while their files change
    Watch(watch::Args),
    /// List containers
    Ps(ps::Args),
    /// Show the output of services
    Logs(logs::Args),
    /// Run a command in a running container
    Exec(exec::Args),
    /// Attach to the streams of a running container
    Attach(attach::Args),
    /// Copy files between a container and this machine
    Cp(cp::Args),
    /// Make an image of what a container changed
    Commit(commit::Args),
    /// Write a container's files as an archive
    Export(export::Args),
    /// Run a one-off command on a service
    Run(Box<run::Args>),
    /// Create containers without starting them
    Create(Box<up::CreateArgs>),
    /// Change the number of containers of services
    Scale(scale::Args),
    /// Start containers that exist
    Start(life::StartArgs),
    /// Stop containers
    Stop(life::StopArgs),
    /// Restart containers
    Restart(life::RestartArgs),
    /// Send a signal to containers
    Kill(life::KillArgs),
    /// Freeze containers
    Pause(life::PauseArgs),
    /// Thaw containers
    Unpause(life::PauseArgs),
    /// Wait until containers have ended
    Wait(wait::Args),
    /// Remove stopped containers
    Rm(life::RemoveArgs),
    /// Show what happens to containers
    Events(events::Args),
    /// Show the processes of containers
    Top(top::Args),
    /// Show what containers use
    Stats(stats::Args),
    /// Show where a port is published
    Port(port::Args),
    /// List the images that containers use
    Images(images::Args),
    /// List the volumes of the project
    Volumes(volumes::Args),
    /// List projects
    Ls(ls::Args),
    /// Pull the images of services
    Pull(pull::Args),
    /// Push the images of services
    Push(pull::PushArgs),
    /// Show the resolved project
    Config(config::Args),
    /// Show where a value of the project comes from
    Explain(explain::Args),
    /// Show which service needs which
    Graph(graph::Args),
    /// Print the JSON Schema of Compose files
    Schema(schema::Args),
    /// Images: list, pull, push, load, save, tag, remove
    #[command(subcommand)]
    Image(image::Verb),
    /// Sign in to a registry
    Login(login::Args),
    /// Forget a registry's password
    Logout(login::LogoutArgs),
    /// The build cache
    #[command(subcommand)]
    Builder(builder::Verb),
    /// The build cache in a directory, for another machine
    #[command(subcommand)]
    Cache(cache::Verb),
    /// Volumes: list, inspect, remove
    #[command(subcommand)]
    Volume(volume::Verb),
    /// Disk use and the health of the image store
    #[command(subcommand)]
    System(system::Verb),
    /// Bring the stack back after a boot: what `restart: always` and `unless-stopped` want
    Enable(enable::EnableArgs),
    /// Leave the stack down after a boot
    Disable(enable::DisableArgs),
    /// Show what this machine lacks, and the commands that mend it
    Doctor(doctor::Args),
    /// Show the version
    Version(version::Args),
    /// What the readers understood
    #[command(subcommand, hide = true)]
    Debug(debug::Verb),
}

impl Verb {
    /// Neither containers nor the store; `doctor` looks from outside of the user namespace, and systemd is there.
    pub(super) fn is_for_anybody(&self) -> bool {
        let is_text = matches!(
            self,
            Self::Config(_)
                | Self::Explain(_)
                | Self::Graph(_)
                | Self::Schema(_)
                | Self::Version(_)
                | Self::Debug(_)
        );
        is_text || matches!(self, Self::Doctor(_) | Self::Enable(_) | Self::Disable(_))
    }

    /// As it heads the progress.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Down(_) => "down",
            Self::Build(_) => "build",
            Self::Pull(_) => "pull",
            Self::Push(_) => "push",
            Self::Create(_) => "create",
            Self::Run(_) => "run",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Restart(_) => "restart",
            Self::Kill(_) => "kill",
            Self::Rm(_) => "remove",
            _ => "running",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_contradict_nothing() {
        Cli::command().debug_assert();
    }
}
