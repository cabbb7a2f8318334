//! The command line: one file per verb. Arguments in, one call, report out.
//!
//! Names, flags, output habits and exit codes are `docker compose`'s.

mod args;
mod attached;
mod context;
mod detach;
mod follow;
mod graph;
mod interrupts;
mod session;
mod terminal;

mod attach;
mod build;
mod builder;
mod cache;
mod commit;
mod config;
mod cp;
mod debug;
mod doctor;
mod down;
mod enable;
mod events;
mod exec;
mod explain;
mod export;
mod image;
mod images;
mod life;
mod login;
mod logs;
mod ls;
pub mod oci;
mod patience;
mod port;
mod ports;
mod ps;
mod pull;
mod reason;
mod renew;
mod run;
mod scale;
mod schema;
mod stats;
mod system;
mod top;
pub mod up;
mod version;
mod volume;
mod volumes;
mod wait;
mod watch;

use crate::failure::{Failure, Result};
use crate::ui::Ui;
use args::{Cli, Verb};
use clap::Parser;
pub use context::{Context, Hushed, Scene};
use stack_runtime::home::Home;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line `args` (the program's name first) and says how the process ends.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let wishes = cli.global.wishes();
    let entered = if cli.verb.is_for_anybody() { Ok(()) } else { rootless() };
    let ui = match Ui::new(&wishes, cli.verb.name()) {
        Ok(ui) => ui,
        Err(failure) => return end(&Ui::quiet(), Err(failure)),
    };
    if let Err(failure) = entered {
        return end(&ui, Err(failure));
    }
    if let Verb::Doctor(args) = &cli.verb {
        return end(&ui, doctor::run(args, &ui));
    }
    let context = match Context::new(&cli.global, ui) {
        Ok(context) => context,
        Err(failure) => return end(&Ui::quiet(), Err(failure)),
    };
    let result = block_on(dispatch(cli.verb, &context));
    end(&context.ui, result)
}

/// An ordinary user becomes root of their own user namespace, before there are threads.
fn rootless() -> Result<()> {
    stack_runtime::rootless::enter().map_err(|e| crate::doctor::no_user_namespace(&Home::from_env(), &e))
}

/// One thread is enough: whatever blocks for long runs elsewhere.
fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(crate::failure::failed("start"))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

fn end(ui: &Ui, result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => {
            ui.settle();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            ui.failure(&failure);
            ExitCode::from(failure.exit_code)
        }
    }
}

/// Help and version are data and a success; anything else is Compose's exit code for a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    let failed = error.use_stderr();
    drop(error.print()); // nobody is left to tell
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn dispatch(verb: Verb, context: &Context) -> Result<()> {
    match verb {
        Verb::Up(args) => up::run(*args, context).await,
        Verb::Down(args) => down::run(args, context).await,
        Verb::Create(args) => up::create(*args, context).await,
        Verb::Run(args) => run::run(*args, context).await,
        Verb::Start(args) => life::start(args, context).await,
        Verb::Stop(args) => life::stop(args, context).await,
        Verb::Restart(args) => life::restart(args, context).await,
        Verb::Kill(args) => life::kill(args, context).await,
        Verb::Pause(args) => life::pause(args, context).await,
        Verb::Unpause(args) => life::unpause(args, context).await,
        Verb::Wait(args) => wait::run(args, context).await,
        Verb::Attach(args) => attach::run(args, context).await,
        Verb::Commit(args) => commit::run(args, context).await,
        Verb::Export(args) => export::run(args, context).await,
        Verb::Cp(args) => cp::run(args, context).await,
        Verb::Stats(args) => stats::run(args, context).await,
        Verb::Rm(args) => life::remove(args, context).await,
        Verb::Ps(args) => ps::run(args, context).await,
        Verb::Logs(args) => logs::run(args, context).await,
        Verb::Exec(args) => exec::run(args, context).await,
        Verb::Events(args) => events::run(args, context).await,
        Verb::Top(args) => top::run(args, context).await,
        Verb::Port(args) => port::run(args, context).await,
        Verb::Ls(args) => ls::run(&args, context),
        Verb::Images(args) => images::run(args, context).await,
        Verb::Build(args) => build::run(args, context).await,
        Verb::Pull(args) => pull::run(args, context).await,
        Verb::Push(args) => pull::push(args, context).await,
        Verb::Config(args) => config::run(args, context).await,
        Verb::Explain(args) => explain::run(&args, context),
        Verb::Graph(args) => graph::run(&args, context),
        Verb::Schema(_) => {
            schema::run(context);
            Ok(())
        }
        Verb::Scale(args) => scale::run(args, context).await,
        Verb::Volumes(args) => volumes::run(args, context).await,
        Verb::Watch(args) => watch::run(args, context).await,
        Verb::Enable(args) => enable::enable(&args, context),
        Verb::Disable(args) => enable::disable(&args, context),
        // Done before there are threads.
        Verb::Doctor(_) => Ok(()),
        Verb::Version(args) => version::run(&args, context),
        Verb::Image(verb) => image::run(verb, context).await,
        Verb::Login(args) => login::run(args, context).await,
        Verb::Logout(args) => login::logout(&args, context),
        Verb::Builder(verb) => builder::run(&verb, context),
        Verb::Cache(verb) => cache::run(verb, context).await,
        Verb::Volume(verb) => volume::run(verb, context),
        Verb::System(verb) => system::run(verb, context),
        Verb::Debug(verb) => debug::run(&verb, context),
    }
}

/// SERVICE arguments that the project must know.
fn known_services(project: &stack_schema::project::Project, keys: &[String]) -> Result<()> {
    let is_unknown =
        |key: &&String| !project.services.contains_key(*key) && !project.disabled.contains_key(*key);
    match keys.iter().find(is_unknown) {
        Some(key) => Err(Failure::no_such_service(key)),
        None => Ok(()),
    }
}
