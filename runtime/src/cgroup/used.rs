//! What a container uses, summed up.

use super::{Group, stats};
use rustix::param::{clock_ticks_per_second, page_size};
use std::fs;
use std::io;

/// At one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Since its start.
    pub cpu_nanoseconds: u64,
    /// Without what the kernel would give up at once.
    pub memory_bytes: u64,
    /// `None`: as much as the machine has.
    pub memory_limit_bytes: Option<u64>,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub processes: u64,
}

/// What the processes of a group use. What no controller counts (a version 1 machine has groups only for limits) is
/// added up from its processes.
///
/// # Errors
/// The operating system's.
pub fn used(path: &str) -> io::Result<Used> {
    let group = Group::find(path)?;
    let counted = stats(&group);
    let number = |pointer: &str| counted.pointer(pointer).and_then(serde_json::Value::as_u64);
    let processes = group.processes()?;
    let of_processes = || processes.iter().map(|pid| of_process(*pid)).fold(Used::default(), add);
    let mut used = of_processes();
    used.processes = u64::try_from(processes.len()).unwrap_or(0);
    if let Some(all) = number("/pids/current").filter(|all| *all > 0) {
        used.processes = all;
    }
    if let Some(cpu) = number("/cpu/usage/total") {
        used.cpu_nanoseconds = cpu;
    }
    if let Some(usage) = number("/memory/usage/usage").filter(|usage| *usage > 0) {
        let idle = number("/memory/raw/total_inactive_file").or_else(|| number("/memory/raw/inactive_file"));
        used.memory_bytes = usage.saturating_sub(idle.unwrap_or(0));
        used.memory_limit_bytes = number("/memory/usage/limit");
    }
    if let Some(list) = counted.pointer("/blkio/ioServiceBytesRecursive").and_then(|list| list.as_array()) {
        let sum = |op: &str| {
            list.iter().filter(|entry| entry["op"] == op).filter_map(|entry| entry["value"].as_u64()).sum()
        };
        (used.read_bytes, used.written_bytes) = (sum("Read"), sum("Write"));
    }
    Ok(used)
}

fn add(sum: Used, one: Used) -> Used {
    Used {
        cpu_nanoseconds: sum.cpu_nanoseconds + one.cpu_nanoseconds,
        memory_bytes: sum.memory_bytes + one.memory_bytes,
        read_bytes: sum.read_bytes + one.read_bytes,
        written_bytes: sum.written_bytes + one.written_bytes,
        ..sum
    }
}

/// One that has ended uses nothing. Memory that several share counts for none of them but its own.
fn of_process(pid: i32) -> Used {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
    let stat = read("stat");
    // The name may hold spaces and brackets; the fields begin behind the last one. With what it has waited for.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields.split(' ').skip(11).take(4).map(number).sum();
    let memory = read("statm");
    let page = |index: usize| memory.split(' ').nth(index).map_or(0, number);
    let pages = page(1).saturating_sub(page(2));
    let io = read("io");
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)).map_or(0, number);
    Used {
        cpu_nanoseconds: ticks * (1_000_000_000 / clock_ticks_per_second().max(1)),
        memory_bytes: pages * u64::try_from(page_size()).unwrap_or(4096),
        read_bytes: field("read_bytes:"),
        written_bytes: field("write_bytes:"),
        ..Used::default()
    }
}
