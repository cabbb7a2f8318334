//! `stack builder …`: the build cache.

use super::Context;
use crate::build;
use crate::failure::{Result, failed};
use crate::ui::human;
use stack_runtime::image::Store;
use stack_runtime::image::prune::{self, Which};
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Remove what builds no longer need
    Prune {
        /// Also what images stand on
        #[arg(short, long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

pub(super) fn run(verb: &Verb, context: &Context) -> Result<()> {
    let Verb::Prune { all, force } = verb;
    let question = "This will remove the build cache";
    if context.dry_run || !(*force || super::terminal::confirms(context, question)?) {
        return Ok(());
    }
    context.may_change()?;
    let store = Store::open(&context.home).map_err(failed("open the image store"))?;
    let cache =
        build::prune(&context.home, &store, *all, Duration::ZERO).map_err(failed("prune the build cache"))?;
    // Layers that only the cache had named.
    let in_use = || super::system::in_use(&context.home).map_err(std::io::Error::other);
    let layers = prune::prune(&store, in_use, Which::Orphans).map_err(super::image::of_image)?;
    let total = human::size(cache.bytes.max(layers.bytes));
    context.ui.data(&format!("Total reclaimed space: {total}\n"));
    Ok(())
}
