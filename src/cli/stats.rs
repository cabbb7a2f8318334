//! `stack stats`: what running containers use, from their control groups and network namespaces.

use super::Context;
use crate::failure::Result;
use crate::plan::label::Labelled;
use crate::ui::human::{binary_size, short_id, size};
use crate::ui::table::Table;
use crate::ui::template;
use serde_json::{Value, json};
use stack_runtime::cgroup::{self, Used};
use stack_runtime::observed::{ContainerObserved, State};
use stack_runtime::spec::NetworkMode;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two samples.
const PERIOD: Duration = Duration::from_secs(1);
/// The first row tells what was used since shortly before.
const FIRST_PERIOD: Duration = Duration::from_millis(200);
const HEADING: [(&str, &str); 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// table, json or a template such as '{{.Name}}: {{.CPUPerc}}'
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: String,
    /// Only once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    service: Option<String>,
}

/// A container's use and when it was looked up.
#[derive(Debug, Clone, Copy)]
struct Sample {
    used: Used,
    received_bytes: u64,
    sent_bytes: u64,
    at: Instant,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let keys: Vec<String> = args.service.iter().cloned().collect();
    let mut scene = context.existing(&keys).await?;
    let mut earlier = samples(&scene.project.name, &scene.observed.containers);
    tokio::time::sleep(FIRST_PERIOD).await;
    loop {
        let later = samples(&scene.project.name, &scene.observed.containers);
        let shown = scene.observed.containers.iter().filter(|c| args.lists(c));
        let rows = shown.map(|c| args.row(c, earlier.get(&c.id), later.get(&c.id)));
        context.ui.data(&args.text(rows));
        if args.no_stream {
            return Ok(());
        }
        earlier = later;
        tokio::time::sleep(PERIOD).await;
        scene = context.observe(scene.project, false).await?;
    }
}

/// Of those that run.
fn samples(project: &str, containers: &[ContainerObserved]) -> HashMap<String, Sample> {
    let sample = |container: &ContainerObserved| {
        let (State::Running { pid, .. } | State::Paused { pid, .. }) = container.state else { return None };
        let used = cgroup::used(&crate::supervise::cgroup(project, &container.id)).ok()?;
        let has_network =
            matches!(container.spec.network, NetworkMode::Bridge(_) | NetworkMode::Container(_));
        let (received_bytes, sent_bytes) = if has_network { traffic(pid) } else { (0, 0) };
        Some((container.id.clone(), Sample { used, received_bytes, sent_bytes, at: Instant::now() }))
    };
    containers.iter().filter_map(sample).collect()
}

/// Bytes received and sent by all interfaces but the loopback.
fn traffic(pid: i32) -> (u64, u64) {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let row = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        (name.trim() != "lo").then(|| Some((*numbers.first()?, *numbers.get(8)?)))?
    };
    table.lines().filter_map(row).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

impl Args {
    fn lists(&self, container: &ContainerObserved) -> bool {
        let runs = matches!(container.state, State::Running { .. } | State::Paused { .. });
        (self.all || runs) && self.service.as_ref().is_none_or(|key| key == container.service())
    }

    /// The keys of `docker stats --format json`.
    fn row(&self, container: &ContainerObserved, earlier: Option<&Sample>, later: Option<&Sample>) -> Value {
        let id = if self.no_trunc { container.id.as_str() } else { short_id(&container.id) };
        let Some((earlier, later)) = earlier.zip(later) else {
            return json!({
                "BlockIO": "--", "CPUPerc": "--", "Container": id, "ID": id, "MemPerc": "--",
                "MemUsage": "-- / --", "Name": container.name, "NetIO": "--", "PIDs": "--",
            });
        };
        let used = later.used;
        let limit = used.memory_limit_bytes.unwrap_or(u64::MAX).min(memory_of_machine());
        let share = used.memory_bytes as f64 / limit.max(1) as f64;
        json!({
            "BlockIO": format!("{} / {}", size(used.read_bytes), size(used.written_bytes)),
            "CPUPerc": format!("{:.2}%", busy(earlier, later) * 100.0),
            "Container": id,
            "ID": id,
            "MemPerc": format!("{:.2}%", share * 100.0),
            "MemUsage": format!("{} / {}", binary_size(used.memory_bytes), binary_size(limit)),
            "Name": container.name,
            "NetIO": format!("{} / {}", size(later.received_bytes), size(later.sent_bytes)),
            "PIDs": used.processes.to_string(),
        })
    }

    fn text(&self, rows: impl Iterator<Item = Value>) -> String {
        match self.format.as_str() {
            "table" => self.afresh() + &table(rows),
            "json" => rows.map(|row| format!("{row}\n")).collect(),
            other => self.afresh() + &template::render(other, rows),
        }
    }

    /// A terminal shows the last sample only.
    fn afresh(&self) -> String {
        let is_redrawn = !self.no_stream && std::io::stdout().is_terminal();
        if is_redrawn { "\x1b[H\x1b[J".into() } else { String::new() }
    }
}

/// Processors' worth of work between two samples.
fn busy(earlier: &Sample, later: &Sample) -> f64 {
    let span = later.at.duration_since(earlier.at).as_nanos();
    let work = later.used.cpu_nanoseconds.saturating_sub(earlier.used.cpu_nanoseconds);
    work as f64 / span.max(1) as f64
}

fn memory_of_machine() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn table(rows: impl Iterator<Item = Value>) -> String {
    let mut table = Table::new(&HEADING.map(|(heading, _)| heading));
    for row in rows {
        table.row(HEADING.map(|(_, key)| row[key].as_str().unwrap_or_default().to_owned()));
    }
    table.render()
}
