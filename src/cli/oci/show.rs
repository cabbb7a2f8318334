//! What the reading verbs print.

use super::args::{Events, List, ListFormat, Ps, PsFormat};
use super::print;
use serde_json::Value;
use stack_runtime::launch::LaunchError;
use stack_runtime::oci::{Result, Runtime};

pub(super) fn pretty(value: &Value) -> String {
    // A value of our own always has a text.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn line(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

pub(super) fn list(runtime: &Runtime, args: &List) -> Result<String> {
    let records = runtime.list()?;
    if args.quiet {
        return Ok(records.iter().map(|record| format!("{}\n", record.id)).collect());
    }
    let described: Vec<Value> = records.iter().map(|record| runtime.describe(record)).collect();
    if args.format == ListFormat::Json {
        return Ok(line(&described));
    }
    let text = |container: &Value, key: &str| match &container[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let keys = ["id", "pid", "status", "bundle", "created", "owner"];
    let mut rows = vec![keys.map(str::to_uppercase)];
    rows.extend(described.iter().map(|container| keys.map(|key| text(container, key))));
    Ok(table(&rows))
}

fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 2;
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

pub(super) fn processes(runtime: &Runtime, args: &Ps) -> Result<String> {
    match args.format {
        PsFormat::Json => Ok(line(&runtime.pids(&args.id)?)),
        PsFormat::Table => runtime.ps(&args.id, &args.args),
    }
}

pub(super) fn events(runtime: &Runtime, args: &Events) -> Result<()> {
    if args.stats {
        return print(&line(&runtime.stats(&args.id)?));
    }
    let interval = args.interval()?;
    runtime.watch(&args.id, interval, |event| {
        print(&line(event)).map_err(|e: LaunchError| std::io::Error::other(e.reason))
    })
}
