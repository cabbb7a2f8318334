//! `stack images`: what the project's containers were made from.

use super::Context;
use crate::failure::{Failure, Result, failed};
use crate::plan::label::Labelled;
use crate::ui::human::{ago, short_id, size};
use crate::ui::table::Table;
use serde_json::json;
use stack_runtime::image::{Image, Reference, Store};
use stack_runtime::observed::ContainerObserved;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// table or json
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: String,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let scene = context.existing(&args.services).await?;
    let is_meant =
        |c: &&ContainerObserved| args.services.is_empty() || args.services.iter().any(|s| s == c.service());
    let containers: Vec<&ContainerObserved> = scene.observed.containers.iter().filter(is_meant).collect();
    if args.quiet {
        let mut ids: Vec<&str> = containers.iter().map(|c| bare(&c.spec.image_id)).collect();
        ids.sort_unstable();
        ids.dedup();
        context.ui.data(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
        return Ok(());
    }
    let rows: Vec<Row> = containers.iter().map(|c| row(context, c)).collect::<Result<_>>()?;
    context.ui.data(&text(&args.format, &rows)?);
    Ok(())
}

fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

struct Row {
    container: String,
    repository: String,
    tag: String,
    id: String,
    image: Option<Image>,
}

fn row(context: &Context, container: &ContainerObserved) -> Result<Row> {
    let id = container.spec.image_id.clone();
    // An ordinary user may look before any store was made.
    let store = context.home.store().is_dir().then(|| Store::open(&context.home)).transpose();
    let store = store.map_err(failed("open the image store"))?;
    let image = store.and_then(|s| s.by_id(&id).ok().flatten());
    let reference = Reference::parse(&container.spec.image).ok();
    let repository = reference.as_ref().map_or_else(|| "<none>".into(), Reference::familiar_name);
    let tag = reference.as_ref().and_then(|r| r.tag()).unwrap_or("<none>").to_string();
    Ok(Row { container: container.name.clone(), repository, tag, id, image })
}

impl Row {
    fn platform(&self) -> String {
        self.image.as_ref().map(|i| format!("{}/{}", i.os, i.architecture)).unwrap_or_default()
    }
    fn size(&self) -> u64 {
        self.image.as_ref().map_or(0, |i| i.size)
    }
    fn created(&self) -> &str {
        self.image.as_ref().map_or("", |i| &i.created)
    }
}

fn text(format: &str, rows: &[Row]) -> Result<String> {
    match format {
        "table" => {
            let mut table =
                Table::wide(&["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"]);
            for row in rows {
                let created = if row.created().is_empty() { "N/A".to_string() } else { ago(row.created()) };
                let id = short_id(&row.id).to_string();
                let cells = [
                    row.container.clone(),
                    row.repository.clone(),
                    row.tag.clone(),
                    row.platform(),
                    id,
                    size(row.size()),
                    created,
                ];
                table.row(cells);
            }
            Ok(table.render())
        }
        "json" => {
            let object = |row: &Row| {
                json!({
                    "ID": row.id, "ContainerName": row.container, "Repository": row.repository, "Tag": row.tag,
                    "Platform": row.platform(), "Size": row.size(), "Created": row.created(),
                })
            };
            Ok(format!("{}\n", serde_json::Value::from(rows.iter().map(object).collect::<Vec<_>>())))
        }
        other => Err(Failure::usage(format!("unsupported format {other:?}"))),
    }
}
