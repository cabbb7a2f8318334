//! `stack events`: what happens to the containers of the project, from the journal (`host::journal`).

use super::Context;
use super::logs::moment;
use crate::failure::{Result, failed};
use crate::host::journal::{Happened, Reader};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use std::time::Duration;

/// Between two looks at the journal.
const REST: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Also what happened since a time (2026-01-02T15:04:05Z) or for a span back (42m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until a time or a span back
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let since = args.since.as_deref().map(moment).transpose()?;
    let until = args.until.as_deref().map(moment).transpose()?;
    let project = context.project_name(&args.services)?;
    let reading = "read the journal";
    let (earlier, mut reader) = match since {
        Some(_) => Reader::from_begin(&context.home),
        None => (Vec::new(), Reader::from_now(&context.home).map_err(failed(reading))?),
    };
    let shown = |happened: &Happened| {
        let is_meant = args.services.is_empty() || args.services.contains(&happened.service);
        let is_in_time = since.is_none_or(|since| happened.time >= since)
            && until.is_none_or(|until| happened.time <= until);
        happened.project == project && !happened.one_off && is_meant && is_in_time
    };
    let mut found = earlier;
    loop {
        // Looked at before the last reading, so that nothing in time is missed.
        let is_over = until.is_some_and(|until| until <= Timestamp::now());
        found.extend(reader.take().map_err(failed(reading))?);
        for happened in found.drain(..).filter(|happened| shown(happened)) {
            context.ui.data(&if args.json { as_json(&happened) } else { line(&happened) });
        }
        if is_over {
            return Ok(());
        }
        tokio::time::sleep(REST).await;
    }
}

/// As Compose, with an empty line behind.
fn line(happened: &Happened) -> String {
    let time = happened.time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.6f");
    let attributes: Vec<String> =
        happened.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{time} container {} {} ({})\n\n", happened.action, happened.id, attributes.join(", "))
}

fn as_json(happened: &Happened) -> String {
    let object = json!({
        "time": happened.time.to_string(), "type": "container", "service": happened.service,
        "id": happened.id, "action": happened.action, "attributes": happened.attributes,
    });
    format!("{object}\n")
}
