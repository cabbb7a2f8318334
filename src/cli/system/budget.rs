//! `stack system budget`: how much images and build cache may take, and keeping to it.

use super::super::Context;
use super::super::image::of_image;
use super::containers;
use crate::build;
use crate::event::{Event, Sink};
use crate::failure::{Failure, Result, failed};
use crate::ui::human::size;
use serde_json::json;
use stack_runtime::home::Home;
use stack_runtime::image::budget::{self, Demand, Fitted, Spare};
use stack_runtime::image::prune::{self, InUse};
use stack_runtime::image::{Error, Store};
use std::cell::OnceCell;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// 20g, 500m or a number of bytes; none: as much as they want
    #[arg(value_name = "SIZE|none")]
    size: Option<String>,
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(text) = &args.size else {
        let text = shown(context)?.map_or_else(|| "No budget is set".into(), |budget| budget.text());
        context.ui.data(&(text + "\n"));
        return Ok(());
    };
    let bytes = parse(text)?;
    if context.dry_run {
        return Ok(());
    }
    context.may_change()?;
    budget::write(&context.home, bytes).map_err(failed("set the budget"))
}

fn parse(text: &str) -> Result<Option<u64>> {
    if text == "none" {
        return Ok(None);
    }
    let bytes = stack_schema::short::parse_bytes(text).ok().and_then(|bytes| u64::try_from(bytes.0).ok());
    let wrong = || Failure::usage(format!("invalid size {text:?}")).hint("Write 20g, 500m, or none.");
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong).map(Some)
}

/// The budget and what there is.
pub(super) struct Budget {
    bytes: u64,
    used: u64,
}

impl Budget {
    pub(super) fn text(&self) -> String {
        format!("Budget of images and build cache: {} of {} used", size(self.used), size(self.bytes))
    }

    pub(super) fn json(&self) -> String {
        json!({ "Type": "Budget", "Size": size(self.bytes), "Used": size(self.used) }).to_string()
    }
}

pub(super) fn shown(context: &Context) -> Result<Option<Budget>> {
    let Some(bytes) = budget::read(&context.home).map_err(failed("read the budget"))? else {
        return Ok(None);
    };
    let store = Store::open(&context.home).map_err(failed("open the image store"))?;
    let images = prune::usage(&store, &InUse::default()).map_err(of_image)?;
    let kept: u64 = build::kept(&context.home).iter().map(|kept| kept.bytes).sum();
    Ok(Some(Budget { bytes, used: images.blobs + images.snapshots + kept }))
}

/// After a pull or build: what is too much goes. `needed`: names of images that the command was about. That it cannot
/// be done is a warning; the command itself succeeded.
pub(in crate::cli) fn keep(context: &Context, needed: &[String]) {
    let done = match budget::read(&context.home) {
        Ok(None) => return,
        Ok(Some(bytes)) => fit(context, bytes, needed),
        Err(e) => Err(failed("read the budget")(e)),
    };
    if let Err(failure) = done {
        context.ui.emit(Event::warning(failure.summary()));
    }
}

fn fit(context: &Context, bytes: u64, needed: &[String]) -> Result<()> {
    let home = &context.home;
    let store = Store::open(home).map_err(failed("open the image store"))?;
    let kept = OnceCell::new();
    // All under the lock: nothing can be made meanwhile, so nothing is missed.
    let demand = || {
        let kept: &Vec<_> = kept.get_or_init(|| build::kept(home));
        let spare = |kept: &build::Kept| Spare {
            last_used: kept.last_used,
            chain: kept.chain.clone(),
            bytes: kept.bytes,
        };
        let in_use = in_use(home, &store, needed).map_err(std::io::Error::other)?;
        Ok(Demand { in_use, spares: kept.iter().map(spare).collect() })
    };
    let remove =
        |index: usize| kept.get().and_then(|kept| kept.get(index)).map_or(Ok(()), build::Kept::remove);
    let fitted = match budget::fit(&store, bytes, demand, remove) {
        // Whoever is at it now looks after the budget when it is done.
        Err(Error::InUse(_)) => return Ok(()),
        fitted => fitted.map_err(of_image)?,
    };
    tell(context, bytes, &fitted);
    Ok(())
}

fn in_use(home: &Home, store: &Store, needed: &[String]) -> Result<InUse> {
    let mut in_use = InUse::default();
    for name in needed {
        let id = store.resolve(name).map_err(failed("read an image"))?;
        in_use.images.extend(id.map(|id| id.to_string()));
    }
    for container in containers(home)? {
        in_use.images.insert(container.spec.image_id);
        in_use.chains.insert(container.spec.chain_id);
    }
    Ok(in_use)
}

fn tell(context: &Context, bytes: u64, fitted: &Fitted) {
    if fitted.after < fitted.before {
        let freed = size(fitted.before - fitted.after);
        let images: Vec<String> = fitted.untagged.iter().map(|name| name.familiar()).collect();
        let mut text = format!("freed {freed} to keep the budget of {}", size(bytes));
        if !images.is_empty() {
            text += &format!("; removed {}", images.join(", "));
        }
        context.ui.emit(Event::info(text));
    }
    if fitted.after > bytes {
        let text = format!(
            "images and build cache take {}, more than their budget of {}, and nothing more can go: containers need the \
             rest, or only this machine has it",
            size(fitted.after),
            size(bytes)
        );
        context.ui.emit(Event::warning(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse("none").unwrap(), None);
        assert_eq!(parse("2k").unwrap(), Some(2048));
        for wrong in ["", "0", "-1", "much", "1.5.5g"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
