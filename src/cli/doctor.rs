//! `stack doctor`: what this machine lacks.

use crate::doctor::{Finding, State, check};
use crate::failure::{Failure, Result};
use crate::ui::Ui;
use serde_json::json;
use stack_runtime::home::Home;
use stack_runtime::machine::Machine;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// text or json
    #[arg(long, default_value = "text", value_name = "FORMAT", value_parser = ["text", "json"])]
    format: String,
}

/// Runs before anything else does: it tries things in processes of its own, as the user who typed it.
pub(super) fn run(args: &Args, ui: &Ui) -> Result<()> {
    let findings = check::findings(&Machine::look(&Home::from_env()));
    match args.format.as_str() {
        "json" => ui.data(&as_json(&findings)),
        _ => ui.data(&findings.iter().map(line).collect::<String>()),
    }
    match findings.iter().any(|finding| finding.state == State::Missing) {
        true => Err(Failure::exit(1)),
        false => Ok(()),
    }
}

fn line(finding: &Finding) -> String {
    let Finding { check, state, text, mend } = finding;
    let mend = mend.iter().map(|command| format!("{:26}mend: {command}\n", ""));
    format!("{:<8} {check:<16} {text}\n{}", state.word(), mend.collect::<String>())
}

fn as_json(findings: &[Finding]) -> String {
    let object = |finding: &Finding| {
        let Finding { check, state, text, mend } = finding;
        json!({ "Check": check, "State": state.word(), "Text": text, "Mend": mend })
    };
    format!("{}\n", findings.iter().map(object).collect::<serde_json::Value>())
}
