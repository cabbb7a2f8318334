//! `stack system check`: what is damaged in the image store, and mending it.

use super::super::Context;
use super::super::image::of_image;
use super::containers;
use crate::build;
use crate::failure::{Failure, Kind, Result, failed};
use serde_json::json;
use stack_runtime::home::Home;
use stack_runtime::image::Store;
use stack_runtime::image::check::{self, Checked, Damage, Repair, User, Users};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Remove what is damaged, or make it anew; what containers stand on is kept
    #[arg(long)]
    repair: bool,
    /// table or json
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: String,
}

pub(in crate::cli) fn run(args: &Args, context: &Context) -> Result<()> {
    let shown: fn(&Damage) -> String = match args.format.as_str() {
        "table" => text,
        "json" => |damage| line(damage) + "\n",
        other => return Err(Failure::usage(format!("unsupported format {other:?}"))),
    };
    let store = Store::open(&context.home).map_err(failed("open the image store"))?;
    let checked = if args.repair && !context.dry_run {
        context.may_change()?;
        check::repair(&store, || users(&context.home).map_err(std::io::Error::other))
    } else {
        check::check(&store, &users(&context.home)?)
    };
    let checked = checked.map_err(of_image)?;
    context.ui.data(&checked.damages.iter().map(shown).collect::<String>());
    context.ui.remark(&summary(&checked));
    if checked.is_damaged() { Err(damaged(&checked)) } else { Ok(()) }
}

fn users(home: &Home) -> Result<Users> {
    let containers = containers(home)?.into_iter().map(|container| User {
        name: container.name,
        image_id: container.spec.image_id,
        chain_id: container.spec.chain_id,
    });
    Ok(Users { containers: containers.collect(), cache: build::chains_in_use(home) })
}

fn text(damage: &Damage) -> String {
    let mut lines = vec![format!("{} {}: {}", damage.kind.word(), damage.name, damage.problem)];
    if !damage.needed_by.is_empty() {
        lines.push(format!("  needed by {}", damage.needed_by.join(", ")));
    }
    lines.extend(done(&damage.repair).map(|done| format!("  {done}")));
    if !damage.went.is_empty() {
        lines.push(format!("  with it went {}", damage.went.join(", ")));
    }
    lines.join("\n") + "\n"
}

fn done(repair: &Repair) -> Option<String> {
    match repair {
        Repair::None => None,
        Repair::Removed => Some("removed".into()),
        Repair::Mended => Some("made anew".into()),
        Repair::Kept(holders) => Some(format!("kept, as {} runs on it", names(holders))),
    }
}

fn names(holders: &[String]) -> String {
    match holders {
        [one] => format!("container {one}"),
        several => format!("each of the containers {}", several.join(", ")),
    }
}

fn line(damage: &Damage) -> String {
    let repair = match &damage.repair {
        Repair::None => "none",
        Repair::Removed => "removed",
        Repair::Mended => "mended",
        Repair::Kept(_) => "kept",
    };
    json!({
        "Kind": damage.kind.word(), "Name": damage.name, "Problem": damage.problem,
        "NeededBy": damage.needed_by, "Repair": repair, "With": damage.went,
    })
    .to_string()
}

fn summary(checked: &Checked) -> String {
    let Checked { blobs, layers, images, names, damages } = checked;
    let found = match damages.len() {
        0 => "no damage".to_owned(),
        1 => "1 damaged thing".to_owned(),
        count => format!("{count} damaged things"),
    };
    format!("Checked {blobs} blobs, {layers} layers, {images} images and {names} names: {found}.")
}

fn damaged(checked: &Checked) -> Failure {
    let is_kept = checked.damages.iter().any(|damage| matches!(damage.repair, Repair::Kept(_)));
    let failure = Failure::new(Kind::Other, "the image store is damaged");
    if is_kept {
        failure
            .hint("Remove those containers with `stack down`, and run `stack system check --repair` again.")
    } else {
        failure.hint("`stack system check --repair` removes what is damaged, for the next pull or build.")
    }
}
