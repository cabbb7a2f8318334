//! `stack volumes`: the volumes of the project.

use super::Context;
use crate::failure::Result;
use crate::plan::label::{self, Labelled};
use crate::ui::table::Table;
use crate::ui::template;
use serde_json::{Value, json};
use stack_runtime::home::Home;
use stack_runtime::observed::{ContainerObserved, State, VolumeObserved};
use stack_runtime::spec::MountKindSpec;
use stack_runtime::volume;
use std::collections::BTreeSet;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table, json or a template such as '{{.Name}}'
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: String,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let scene = context.existing(&args.services).await?;
    let mounted = mounted_by(&args.services, &scene.observed.containers);
    let is_meant = |v: &&VolumeObserved| {
        label::of(&v.labels, label::PROJECT) == scene.project.name
            && (args.services.is_empty() || mounted.contains(v.name.as_str()))
    };
    let volumes: Vec<&VolumeObserved> = scene.observed.volumes.iter().filter(is_meant).collect();
    let rows = volumes.iter().map(|v| row(&context.home, v));
    let text = match args.format.as_str() {
        _ if args.quiet => volumes.iter().map(|v| format!("{}\n", v.name)).collect(),
        "json" => rows.map(|row| format!("{row}\n")).collect(),
        "table" => {
            let mut table = Table::new(&["DRIVER", "VOLUME NAME"]);
            volumes.iter().for_each(|v| table.row(["local", &v.name]));
            table.render()
        }
        other => template::render(other, rows),
    };
    context.ui.data(&text);
    Ok(())
}

/// Volumes that running containers of the services mount.
fn mounted_by<'a>(services: &[String], containers: &'a [ContainerObserved]) -> BTreeSet<&'a str> {
    let is_meant = |c: &&ContainerObserved| {
        let runs = matches!(c.state, State::Running { .. } | State::Paused { .. });
        runs && services.iter().any(|s| s == c.service())
    };
    let mounts = containers.iter().filter(is_meant).flat_map(|c| &c.spec.mounts);
    let names = mounts.filter_map(|m| match &m.kind {
        MountKindSpec::Volume { name, .. } => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

/// The keys of `docker volume ls --format json`; what only a cluster or a measurement would tell is N/A there, too.
fn row(home: &Home, volume: &VolumeObserved) -> Value {
    let labels: Vec<String> = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": labels.join(","),
        "Links": "N/A",
        "Mountpoint": volume::data_dir(home, &volume.name).display().to_string(),
        "Name": volume.name,
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    })
}
