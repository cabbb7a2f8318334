//! `stack version`.

use super::Context;
use crate::failure::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// pretty or json
    #[arg(short, long, default_value = "pretty", value_name = "FORMAT")]
    format: String,
    /// Only the number
    #[arg(long)]
    short: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    context.ui.data(&match (args.short, args.format.as_str()) {
        (true, _) => format!("{version}\n"),
        (false, "json") => format!("{{\"version\":\"{version}\"}}\n"),
        (false, _) => format!("stack version {version}\n"),
    });
    Ok(())
}
