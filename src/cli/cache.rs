//! `stack cache …`: the whole build cache in a directory, from one machine to the next.

use super::Context;
use crate::build::travel::{self, Travelled};
use crate::failure::{Failure, Result, failed};
use stack_runtime::image::Store;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Write steps, their layers, base images and cache mounts into a directory; what it had before goes
    Export(Args),
    /// Add what such a directory has to the build cache
    Import(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<()> {
    let (Verb::Export(args) | Verb::Import(args)) = &verb;
    if context.dry_run {
        return Ok(());
    }
    context.may_change()?;
    let store = Store::open(&context.home).map_err(failed("open the image store"))?;
    let (home, directory) = (&context.home, context.current_directory().join(&args.directory));
    let work = async {
        match verb {
            Verb::Export(_) => travel::export(home, &store, &directory).await,
            Verb::Import(_) => travel::import(home, &store, &directory).await,
        }
    };
    let travelled = tokio::select! {
        done = work => done?,
        () = context.interrupts.next() => return Err(Failure::interrupted()),
    };
    let names: Vec<String> = Vec::new();
    super::system::keep_budget(context, &names);
    context.ui.data(&text(&travelled));
    Ok(())
}

fn text(travelled: &Travelled) -> String {
    let Travelled { steps, images, mounts, known } = travelled;
    let count = |n: &usize, one: &str| format!("{n} {one}{}", if *n == 1 { "" } else { "s" });
    let all = [count(steps, "step"), count(images, "base image"), count(mounts, "cache mount")].join(", ");
    let known = if *known > 0 { format!(" ({known} of them were here already)") } else { String::new() };
    format!("{all}{known}\n")
}
