//! `stack graph`: which service needs which, as a tree, or as text for a program that draws.

mod dot;
mod mermaid;
mod needs;
mod svg;
mod tree;

use super::Context;
use crate::failure::{Result, failed};
use needs::Needs;
use stack_schema::load::{LoadRequest, load};
use stack_schema::source::Disk;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// text, mermaid, dot or svg
    #[arg(long, default_value = "text", value_name = "FORMAT", value_parser = ["text", "mermaid", "dot", "svg"])]
    format: String,
    /// Write to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only these services and what they need
    #[arg(value_name = "SERVICE")]
    keys: Vec<String>,
}

/// What is wrong with the references, a circle above all, is drawn too, and said afterwards.
pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let request = context.request(|request| request.services.clone_from(&args.keys))?;
    let (project, verdict) = match context.load(&request) {
        Ok(loaded) => (loaded.project, Ok(())),
        Err(failure) => {
            let unjudged = LoadRequest { no_consistency: true, ..request };
            (load(&unjudged, &Disk).project, Err(failure))
        }
    };
    let Some(project) = project else { return verdict };
    let needs = Needs::of(&project);
    let text = match args.format.as_str() {
        "mermaid" => mermaid::text(&needs),
        "dot" => dot::text(&project.name, &needs),
        "svg" => svg::text(&project.name, &needs),
        _ => tree::text(&needs),
    };
    match &args.output {
        Some(path) => {
            let path = context.current_directory().join(path);
            std::fs::write(&path, text).map_err(failed(&format!("write {}", path.display())))?;
        }
        None => context.ui.data(&text),
    }
    verdict
}
