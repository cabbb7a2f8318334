//! `stack export`: a container's own files as an archive, without what is mounted in it.

use super::Context;
use crate::failure::{Failure, Result, failed};
use stack_runtime::container::root_to_read;
use stack_runtime::snapshot::pack_tree;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which container of the service
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Into this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    service: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let scene = context.existing(std::slice::from_ref(&args.service)).await?;
    let container = super::exec::chosen(&args.service, args.index, &scene.observed.containers)?;
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("output option is required when exporting to terminal"));
    }
    if context.dry_run {
        context.ui.data(&format!("export {}\n", container.name));
        return Ok(());
    }
    let doing = format!("export container {}", container.name);
    let directory = context.home.container(&scene.project.name, &container.id);
    let root = root_to_read(&context.home, &container.spec.chain_id, &directory).map_err(failed(&doing))?;
    match &args.output {
        None => pack_tree(root, std::io::stdout().lock()).map(drop).map_err(failed(&doing)),
        Some(path) => into_file(path, |file| pack_tree(root, file).map(drop)).map_err(failed(&doing)),
    }
}

/// Complete or not at all, and for its owner alone.
fn into_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".stack-export-").tempfile_in(above)?;
    write(file.as_file_mut())?;
    file.persist(path).map(drop).map_err(|e| e.error)
}
