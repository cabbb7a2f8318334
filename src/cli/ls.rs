//! `stack ls`: every project that has containers.

use super::Context;
use super::ps::{config_files, state_word};
use crate::failure::{Failure, Result, failed};
use crate::host::observe;
use crate::plan::label::Labelled;
use crate::ui::table::Table;
use stack_runtime::observed::ContainerObserved;
use std::collections::BTreeMap;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also projects of which nothing runs
    #[arg(short, long)]
    all: bool,
    /// table or json
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: String,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// name=TEXT
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let part = match args.filter.as_deref().map(|f| f.split_once('=').unwrap_or((f, ""))) {
        None => "",
        Some(("name", part)) => part,
        Some((key, _)) => return Err(Failure::usage(format!("invalid filter '{key}'"))),
    };
    let mut projects = Vec::new();
    for name in observe::projects(&context.home).map_err(failed("list projects"))? {
        let containers = observe::containers(&context.home, &name).map_err(failed("list projects"))?;
        let runs = containers.iter().any(|c| state_word(&c.state) == "running");
        if !containers.is_empty() && (args.all || runs) && name.contains(part) {
            projects.push((name, status(&containers, args.all), files(&containers)));
        }
    }
    context.ui.data(&args.text(&projects)?);
    Ok(())
}

type Project = (String, String, String);

impl Args {
    fn text(&self, projects: &[Project]) -> Result<String> {
        if self.quiet {
            return Ok(projects.iter().map(|(name, ..)| format!("{name}\n")).collect());
        }
        match self.format.as_str() {
            "table" => {
                let mut table = Table::wide(&["NAME", "STATUS", "CONFIG FILES"]);
                projects.iter().for_each(|(name, status, files)| table.row([name, status, files]));
                Ok(table.render())
            }
            "json" => {
                let object = |(name, status, files): &Project| serde_json::json!({"Name": name, "Status": status, "ConfigFiles": files});
                let all: Vec<_> = projects.iter().map(object).collect();
                Ok(format!("{}\n", serde_json::Value::from(all)))
            }
            other => Err(Failure::usage(format!("unsupported format {other:?}"))),
        }
    }
}

/// `running(2)`, with `-a` also `exited(1), running(2)`.
fn status(containers: &[ContainerObserved], all: bool) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for container in containers.iter().filter(|c| !c.is_one_off()) {
        *counts.entry(state_word(&container.state)).or_default() += 1;
    }
    let shown = counts.iter().filter(|(word, _)| all || **word == "running" || **word == "restarting");
    shown.map(|(word, count)| format!("{word}({count})")).collect::<Vec<_>>().join(", ")
}

fn files(containers: &[ContainerObserved]) -> String {
    let files = containers.iter().map(config_files).find(|f| !f.is_empty());
    files.unwrap_or("N/A").to_string()
}
