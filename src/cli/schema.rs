//! `stack schema`: what a Compose file may hold, for editors.

use super::Context;
use stack_schema::attributes::json_schema::json_schema;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(context: &Context) {
    context.ui.data(&format!("{:#}\n", json_schema()));
}
