//! `stack system …`: disk use, its budget, freeing what nothing needs, and what is damaged.

mod budget;
mod check;

pub(super) use budget::keep as keep_budget;

use super::Context;
use super::image::of_image;
use crate::build;
use crate::failure::{Failure, Result, failed};
use crate::host::observe;
use crate::ui::human::size;
use crate::ui::table::Table;
use serde_json::json;
use stack_runtime::home::Home;
use stack_runtime::image::Store;
use stack_runtime::image::prune::{self, InUse, Which};
use stack_runtime::observed::ContainerObserved;
use stack_runtime::volume;
use std::fs;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Show disk use
    Df {
        /// table or json
        #[arg(long, default_value = "table", value_name = "FORMAT")]
        format: String,
    },
    /// Show or set how much images and build cache may take; builds and pulls then free what was not used for longest
    Budget(budget::Args),
    /// Verify every digest of the image store
    Check(check::Args),
    /// Remove stopped run containers, unused images and the build cache
    Prune {
        /// Also images with a name that no container uses
        #[arg(short, long)]
        all: bool,
        /// Also volumes that no container uses
        #[arg(long)]
        volumes: bool,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<()> {
    match verb {
        Verb::Budget(args) => budget::run(&args, context),
        Verb::Check(args) => check::run(&args, context),
        Verb::Df { format } => show(&format, context),
        Verb::Prune { all, volumes, force } => prune(all, volumes, force, context),
    }
}

/// What containers and the build cache stand on.
pub(super) fn in_use(home: &Home) -> Result<InUse> {
    let mut in_use = InUse { chains: build::chains_in_use(home), ..InUse::default() };
    for container in containers(home)? {
        in_use.images.insert(container.spec.image_id);
        in_use.chains.insert(container.spec.chain_id);
    }
    Ok(in_use)
}

fn containers(home: &Home) -> Result<Vec<ContainerObserved>> {
    let mut all = Vec::new();
    for project in observe::projects(home).map_err(failed("list projects"))? {
        all.extend(observe::containers(home, &project).map_err(failed("list containers"))?);
    }
    Ok(all)
}

struct Row {
    kind: &'static str,
    count: usize,
    active: usize,
    bytes: u64,
    reclaimable: u64,
}

fn show(format: &str, context: &Context) -> Result<()> {
    let rows = rows(context)?;
    let budget = budget::shown(context)?;
    let text = match format {
        "table" => {
            let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
            for row in &rows {
                let cells =
                    [row.count.to_string(), row.active.to_string(), size(row.bytes), size(row.reclaimable)];
                table.row(std::iter::once(row.kind.to_string()).chain(cells));
            }
            let line = budget.map(|budget| format!("\n{}\n", budget.text()));
            table.render() + &line.unwrap_or_default()
        }
        "json" => {
            let rows = rows.iter().map(Row::json).chain(budget.map(|budget| budget.json()));
            rows.map(|row| row + "\n").collect()
        }
        other => return Err(Failure::usage(format!("unsupported format {other:?}"))),
    };
    context.ui.data(&text);
    Ok(())
}

impl Row {
    fn json(&self) -> String {
        json!({
            "Type": self.kind, "TotalCount": self.count, "Active": self.active,
            "Size": size(self.bytes), "Reclaimable": size(self.reclaimable),
        })
        .to_string()
    }
}

fn rows(context: &Context) -> Result<Vec<Row>> {
    let home = &context.home;
    let store = Store::open(home).map_err(failed("open the image store"))?;
    let in_use = in_use(home)?;
    let images = prune::usage(&store, &in_use).map_err(of_image)?;
    let containers = containers(home)?;
    let running = |c: &ContainerObserved| super::ps::state_word(&c.state) == "running";
    let used = super::volume::used(context)?;
    let volumes = volume::list(home).map_err(failed("list volumes"))?;
    let bytes_of = |name: &str| disk_use(&volume::data_dir(home, name));
    let unused: u64 = volumes.iter().filter(|v| !used.contains(&v.name)).map(|v| bytes_of(&v.name)).sum();
    let cache = build::usage(home, &store).map_err(failed("measure the build cache"))?;
    let upper = |c: &ContainerObserved| {
        let project = crate::plan::label::of(&c.labels, crate::plan::label::PROJECT);
        disk_use(&home.container(project, &c.id).join("upper"))
    };
    Ok(vec![
        Row {
            kind: "Images",
            count: images.images,
            active: in_use.images.len().min(images.images),
            bytes: images.blobs + images.snapshots + images.unfinished,
            reclaimable: images.reclaimable,
        },
        Row {
            kind: "Containers",
            count: containers.len(),
            active: containers.iter().filter(|c| running(c)).count(),
            bytes: containers.iter().map(upper).sum(),
            reclaimable: containers.iter().filter(|c| !running(c)).map(upper).sum(),
        },
        Row {
            kind: "Local Volumes",
            count: volumes.len(),
            active: volumes.iter().filter(|v| used.contains(&v.name)).count(),
            bytes: volumes.iter().map(|v| bytes_of(&v.name)).sum(),
            reclaimable: unused,
        },
        Row {
            kind: "Build Cache",
            count: cache.records,
            active: 0,
            bytes: cache.total(),
            reclaimable: cache.total(),
        },
    ])
}

/// Blocks on disk; no symbolic link is followed.
fn disk_use(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let below = if meta.is_dir() {
        fs::read_dir(path).into_iter().flatten().flatten().map(|e| disk_use(&e.path())).sum()
    } else {
        0
    };
    meta.blocks() * 512 + below
}

fn prune(all: bool, volumes: bool, force: bool, context: &Context) -> Result<()> {
    let question = match all {
        true => "This will remove the build cache and all images that no container uses",
        false => "This will remove the build cache and images without a name",
    };
    if context.dry_run || !(force || super::terminal::confirms(context, question)?) {
        return Ok(());
    }
    context.may_change()?;
    build::sweep(&context.home);
    let store = Store::open(&context.home).map_err(failed("open the image store"))?;
    let cache = build::prune(&context.home, &store, all, Duration::ZERO);
    let cache = cache.map_err(failed("prune the build cache"))?;
    let which = if all { Which::Unused } else { Which::Dangling };
    // Asked for while nothing can be made, so that nothing is missed.
    let in_use = || in_use(&context.home).map_err(std::io::Error::other);
    let freed = prune::prune(&store, in_use, which).map_err(of_image)?;
    let deleted: String = freed.images.iter().map(|id| format!("Deleted: {id}\n")).collect();
    context.ui.data(&deleted);
    if volumes {
        super::volume::run(super::volume::Verb::Prune { all: false, force: true }, context)?;
    }
    context.ui.data(&format!("Total reclaimed space: {}\n", size(cache.bytes.max(freed.bytes))));
    Ok(())
}
