//! `stack top`: the processes of running containers, from /proc and their control groups.

use super::Context;
use crate::failure::Result;
use crate::plan::label::Labelled;
use crate::ui::table::Table;
use stack_runtime::observed::{ContainerObserved, State};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let scene = context.existing(&args.services).await?;
    let is_meant =
        |c: &&ContainerObserved| args.services.is_empty() || args.services.iter().any(|s| s == c.service());
    let mut table = Table::new(&["SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let all = processes();
    for container in scene.observed.containers.iter().filter(is_meant) {
        let (State::Running { pid, .. } | State::Paused { pid, .. }) = container.state else { continue };
        let number = if container.is_one_off() { String::new() } else { container.number().to_string() };
        for process in family(&all, pid) {
            let head = [container.service().to_string(), number.clone()];
            table.row(head.into_iter().chain(process.cells()));
        }
    }
    context.ui.data(&table.render());
    Ok(())
}

/// One row of /proc.
#[derive(Debug, Clone)]
struct Process {
    pid: i32,
    parent: i32,
    user: u32,
    /// Clock ticks.
    busy: u64,
    started: u64,
    command: String,
}

/// Everything in the pid namespace of the container's first process: it and what descends from it, and what an
/// exec brought in.
fn family(all: &BTreeMap<i32, Process>, first: i32) -> Vec<&Process> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(first);
    all.values().filter(|p| own.is_some() && namespace(p.pid) == own).collect()
}

fn processes() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: i32) -> Option<Process> {
    let directory = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
    // The name may hold spaces and brackets; the fields begin behind the last one.
    let (name, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    use std::os::unix::fs::MetadataExt;
    let user = fs::metadata(&directory).ok()?.uid();
    let parent = fields.get(1)?.parse().ok()?;
    let name = name.split_once('(').map_or("", |(_, n)| n);
    let command = command(Path::new(&directory)).unwrap_or_else(|| format!("[{name}]"));
    Some(Process { pid, parent, user, busy: number(11) + number(12), started: number(19), command })
}

fn command(directory: &Path) -> Option<String> {
    let bytes = fs::read(directory.join("cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
    (!text.is_empty()).then_some(text)
}

impl Process {
    fn cells(&self) -> [String; 8] {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let ticks = u64::try_from(ticks).unwrap_or(100).max(1);
        let time = Duration::from_secs(self.busy / ticks).as_secs();
        let time = format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
        let started = started_at(self.started / ticks);
        let (user, pid, parent) = (self.user.to_string(), self.pid.to_string(), self.parent.to_string());
        [user, pid, parent, "0".into(), started, "?".into(), time, self.command.clone()]
    }
}

/// Hour and minute of a moment given in seconds since boot.
fn started_at(seconds: u64) -> String {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let uptime = uptime.and_then(|t| t.split('.').next()?.parse::<u64>().ok()).unwrap_or(seconds);
    let age = jiff::SignedDuration::from_secs(i64::try_from(uptime.saturating_sub(seconds)).unwrap_or(0));
    let moment = jiff::Timestamp::now().checked_sub(age).unwrap_or_default();
    moment.strftime("%H:%M").to_string()
}
