//! `stack volume …`.

use super::Context;
use crate::failure::{Failure, Kind, Result, failed};
use crate::host::remove;
use crate::ui::table::Table;
use serde_json::json;
use stack_runtime::observed::VolumeObserved;
use stack_runtime::volume;
use std::collections::BTreeSet;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Only names
        #[arg(short, long)]
        quiet: bool,
        /// table or json
        #[arg(long, default_value = "table", value_name = "FORMAT")]
        format: String,
    },
    /// Show volumes as JSON
    Inspect {
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes with their content
    Rm {
        /// A volume that is not there is no failure
        #[arg(short, long)]
        force: bool,
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes that no container uses
    Prune {
        /// Also named ones
        #[arg(short, long)]
        all: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<()> {
    match verb {
        Verb::Ls { quiet, format } => list(quiet, &format, context),
        Verb::Inspect { names } => inspect(&names, context),
        Verb::Rm { force, names } => remove(force, &names, context),
        Verb::Prune { all, force } => prune(all, force, context),
    }
}

fn all(context: &Context) -> Result<Vec<VolumeObserved>> {
    volume::list(&context.home).map_err(failed("list volumes"))
}

fn list(quiet: bool, format: &str, context: &Context) -> Result<()> {
    let volumes = all(context)?;
    let text = match (quiet, format) {
        (true, _) => volumes.iter().map(|v| format!("{}\n", v.name)).collect(),
        (false, "json") => volumes.iter().map(|v| format!("{}\n", described(context, v))).collect(),
        (false, "table") => {
            let mut table = Table::new(&["DRIVER", "VOLUME NAME"]);
            volumes.iter().for_each(|v| table.row(["local", &v.name]));
            table.render()
        }
        (false, other) => return Err(Failure::usage(format!("unsupported format {other:?}"))),
    };
    context.ui.data(&text);
    Ok(())
}

fn described(context: &Context, volume: &VolumeObserved) -> serde_json::Value {
    json!({
        "CreatedAt": volume.created_at,
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": volume::data_dir(&context.home, &volume.name).display().to_string(),
        "Name": volume.name,
        "Options": volume.driver_opts,
        "Scope": "local",
    })
}

fn inspect(names: &[String], context: &Context) -> Result<()> {
    let volumes = all(context)?;
    let find = |name: &String| volumes.iter().find(|v| v.name == *name).ok_or_else(|| missing(name));
    let found = names.iter().map(|n| find(n).map(|v| described(context, v))).collect::<Result<Vec<_>>>()?;
    let text = serde_json::to_string_pretty(&found).map_err(failed("describe the volume"))?;
    context.ui.data(&(text + "\n"));
    Ok(())
}

fn missing(name: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("no such volume: {name}"))
}

fn remove(force: bool, names: &[String], context: &Context) -> Result<()> {
    context.may_change()?;
    for name in names {
        let was_there = remove::volume(&context.home, name)?;
        if !was_there && !force {
            return Err(missing(name));
        }
        context.ui.data(&format!("{name}\n"));
    }
    Ok(())
}

fn prune(all_too: bool, force: bool, context: &Context) -> Result<()> {
    let question = "This will remove volumes that no container uses";
    if context.dry_run || !(force || super::terminal::confirms(context, question)?) {
        return Ok(());
    }
    context.may_change()?;
    let used = used(context)?;
    for volume in all(context)?.iter().filter(|v| (all_too || v.anonymous) && !used.contains(&v.name)) {
        volume::remove(&context.home, &volume.name)
            .map_err(failed(&format!("remove volume {}", volume.name)))?;
        context.ui.data(&format!("{}\n", volume.name));
    }
    Ok(())
}

/// Names that a container of any project mounts.
pub(super) fn used(context: &Context) -> Result<BTreeSet<String>> {
    let users = remove::users(&context.home).map_err(failed("list containers"))?;
    Ok(users.into_keys().collect())
}
