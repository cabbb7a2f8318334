//! `stack ps`: the line up to what is observed.

use super::Context;
use crate::failure::{Failure, Result};
use crate::plan::label::{self, Labelled};
use crate::ui::human::{ago, short_id, since, span};
use crate::ui::table::Table;
use crate::ui::template;
use serde_json::{Value, json};
use stack_runtime::observed::{ContainerObserved, HealthStatus, State};
use stack_runtime::spec::{MountKindSpec, NetworkMode, Protocol};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also stopped containers and those of `run`
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Only names of services
    #[arg(long)]
    services: bool,
    /// table, json or a template such as '{{.Name}}'
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: String,
    /// status=STATE
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Option<String>,
    /// Only containers in this state; may be repeated
    #[arg(long = "status", value_name = "STATE")]
    states: Vec<String>,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Also containers of services that the file does not have
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    orphans: bool,
    #[arg(value_name = "SERVICE")]
    keys: Vec<String>,
}

const HEADING: [&str; 7] = ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"];

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let states = args.wanted_states()?;
    let scene = context.existing(&args.keys).await?;
    let is_listed = |c: &&ContainerObserved| args.lists(c, &states);
    let is_orphan = |c: &ContainerObserved| {
        !scene.project.services.contains_key(c.service()) && !scene.project.disabled.contains_key(c.service())
    };
    let mut containers: Vec<&ContainerObserved> =
        scene.observed.containers.iter().filter(is_listed).collect();
    containers.retain(|c| args.orphans || !is_orphan(c));
    let text = args.text(&scene.project.name, &containers);
    context.ui.data(&text);
    Ok(())
}

impl Args {
    fn wanted_states(&self) -> Result<Vec<String>> {
        let mut states = self.states.clone();
        if let Some(filter) = &self.filter {
            match filter.split_once('=') {
                Some(("status", state)) => states.push(state.to_string()),
                Some((key, _)) => return Err(Failure::usage(format!("unknown filter {key}"))),
                None => return Err(Failure::usage("arguments to --filter should be in form KEY=VAL")),
            }
        }
        Ok(states)
    }

    fn lists(&self, container: &ContainerObserved, states: &[String]) -> bool {
        let is_named = self.keys.is_empty() || self.keys.iter().any(|key| key == container.service());
        let is_up = matches!(
            container.state,
            State::Running { .. } | State::Paused { .. } | State::Restarting { .. }
        );
        let shown = match states.is_empty() {
            true => self.all || (is_up && !container.is_one_off()),
            false => states.iter().any(|s| s == state_word(&container.state)),
        };
        is_named && shown
    }

    fn text(&self, project: &str, containers: &[&ContainerObserved]) -> String {
        if self.quiet {
            return containers.iter().map(|c| format!("{}\n", c.id)).collect();
        }
        if self.services {
            let mut keys: Vec<&str> = containers.iter().map(|c| c.service()).collect();
            keys.dedup();
            return keys.iter().map(|key| format!("{key}\n")).collect();
        }
        let rows = containers.iter().map(|c| described(project, c, self.no_trunc));
        match self.format.as_str() {
            "table" => table(rows),
            "json" => rows.map(|row| format!("{row}\n")).collect(),
            other => template::render(other, rows),
        }
    }
}

fn table(rows: impl Iterator<Item = Value>) -> String {
    let mut table = Table::new(&HEADING);
    for row in rows {
        let cell = |key: &str| row[key].as_str().unwrap_or_default().to_string();
        table.row(["Name", "Image", "Command", "Service", "RunningFor", "Status", "Ports"].map(cell));
    }
    table.render()
}

/// The keys of `docker compose ps --format json`.
fn described(project: &str, container: &ContainerObserved, no_trunc: bool) -> Value {
    let id = if no_trunc { container.id.as_str() } else { short_id(&container.id) };
    let labels = container.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let mounts = mounts(container);
    json!({
        "Command": command(&container.spec.args, no_trunc),
        "CreatedAt": created_at(&container.created_at),
        "ExitCode": exit_code(container),
        "Health": health_word(container.health.status),
        "ID": id,
        "Image": container.spec.image,
        "Labels": labels,
        "LocalVolumes": mounts.1.to_string(),
        "Mounts": mounts.0,
        "Name": container.name,
        "Names": container.name,
        "Networks": networks(container),
        "OOMKilled": matches!(&container.state, State::Exited { exit } | State::Restarting { exit } if exit.oom_killed),
        "Ports": ports(container),
        "Project": project,
        "Publishers": publishers(container),
        "RunningFor": ago(&container.created_at),
        "Service": container.service(),
        "Size": "0B",
        "State": state_word(&container.state),
        "Status": status(container),
    })
}

/// `"docker-entrypoint.s…"`, quoted.
pub(super) fn command(args: &[String], no_trunc: bool) -> String {
    let text = args.join(" ");
    let is_long = text.chars().count() > 20 && !no_trunc;
    let shown: String = if is_long { text.chars().take(19).chain(['…']).collect() } else { text };
    format!("{shown:?}")
}

fn created_at(moment: &str) -> String {
    let time = moment.parse::<jiff::Timestamp>();
    time.map_or_else(|_| moment.to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}

/// -1: nobody saw it.
fn exit_code(container: &ContainerObserved) -> i32 {
    match (&container.state, &container.failed_start) {
        (State::Exited { exit } | State::Restarting { exit }, _) | (State::Created, Some(exit)) => {
            exit.code.unwrap_or(-1)
        }
        _ => 0,
    }
}

fn health_word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::None => "",
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}

pub(super) fn state_word(state: &State) -> &'static str {
    match state {
        State::Created => "created",
        State::Running { .. } => "running",
        State::Paused { .. } => "paused",
        State::Restarting { .. } => "restarting",
        State::Removing => "removing",
        State::Exited { .. } => "exited",
        State::Dead => "dead",
    }
}

/// `Up 3 minutes (healthy)`, `Exited (1) 2 seconds ago`.
pub(super) fn status(container: &ContainerObserved) -> String {
    let up = |started: &str| format!("Up {}", span(since(started)));
    let code = |code: Option<i32>| code.map_or_else(|| "unknown".to_string(), |c| c.to_string());
    match &container.state {
        State::Created => "Created".into(),
        State::Removing => "Removal In Progress".into(),
        State::Dead => "Dead".into(),
        State::Paused { started_at, .. } => format!("{} (Paused)", up(started_at)),
        State::Restarting { exit } => format!("Restarting ({}) {}", code(exit.code), ago(&exit.finished_at)),
        State::Exited { exit } => {
            let cause = if exit.oom_killed { " (out of memory)" } else { "" };
            format!("Exited ({}) {}{cause}", code(exit.code), ago(&exit.finished_at))
        }
        State::Running { started_at, .. } => match container.health.status {
            HealthStatus::None => up(started_at),
            HealthStatus::Starting => format!("{} (health: starting)", up(started_at)),
            other => format!("{} ({})", up(started_at), health_word(other)),
        },
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 443/tcp`.
fn ports(container: &ContainerObserved) -> String {
    let is_running = matches!(container.state, State::Running { .. } | State::Paused { .. });
    let mut published = container.published.clone();
    published.sort_by_key(|p| (p.target, p.host_ip.contains(':'), p.host_port));
    let mut parts: Vec<String> = published
        .iter()
        .map(|p| {
            let host = if p.host_ip.contains(':') { format!("[{}]", p.host_ip) } else { p.host_ip.clone() };
            format!("{host}:{}->{}/{}", p.host_port, p.target, protocol(p.protocol))
        })
        .collect();
    parts.extend(unpublished(container).filter(|_| is_running).map(str::to_string));
    parts.join(", ")
}

fn unpublished(container: &ContainerObserved) -> impl Iterator<Item = &str> {
    let is_published = |exposed: &str| {
        container.published.iter().any(|p| format!("{}/{}", p.target, protocol(p.protocol)) == exposed)
    };
    container.spec.exposed.iter().map(String::as_str).filter(move |e| !is_published(e))
}

fn publishers(container: &ContainerObserved) -> Vec<Value> {
    let mut published = container.published.clone();
    published.sort_by_key(|p| (p.target, p.host_ip.contains(':'), p.host_port));
    let bound = published.iter().map(|p| {
        json!({"URL": p.host_ip, "TargetPort": p.target, "PublishedPort": p.host_port, "Protocol": protocol(p.protocol)})
    });
    let exposed = unpublished(container).filter_map(|e| {
        let (port, protocol) = e.split_once('/')?;
        let port: u16 = port.parse().ok()?;
        Some(json!({"URL": "", "TargetPort": port, "PublishedPort": 0, "Protocol": protocol}))
    });
    let mut all: Vec<Value> = bound.chain(exposed).collect();
    all.sort_by_key(|p| p["TargetPort"].as_u64());
    all
}

fn networks(container: &ContainerObserved) -> String {
    match &container.spec.network {
        NetworkMode::Bridge(endpoints) => {
            endpoints.iter().map(|e| e.network.as_str()).collect::<Vec<_>>().join(",")
        }
        NetworkMode::Host => "host".into(),
        NetworkMode::None | NetworkMode::Container(_) | NetworkMode::Inherit => "none".into(),
    }
}

/// Sources, and how many of them are volumes.
fn mounts(container: &ContainerObserved) -> (String, usize) {
    let source = |kind: &MountKindSpec| match kind {
        MountKindSpec::Bind { source, .. } => Some(source.display().to_string()),
        MountKindSpec::Volume { name, .. } => Some(name.clone()),
        _ => None,
    };
    let sources: Vec<String> = container.spec.mounts.iter().filter_map(|m| source(&m.kind)).collect();
    let volumes =
        container.spec.mounts.iter().filter(|m| matches!(m.kind, MountKindSpec::Volume { .. })).count();
    (sources.join(","), volumes)
}

/// The project's working directory, for `ls`.
pub(super) fn config_files(container: &ContainerObserved) -> &str {
    label::of(&container.labels, label::CONFIG_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_and_cut() {
        let args = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert_eq!(command(&args("sh -c true"), false), "\"sh -c true\"");
        assert_eq!(command(&args("docker-entrypoint.sh postgres"), false), "\"docker-entrypoint.s…\"");
        assert_eq!(
            command(&args("docker-entrypoint.sh postgres"), true),
            "\"docker-entrypoint.sh postgres\""
        );
    }
}
