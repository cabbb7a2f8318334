//! What a group uses, in the form of runc's `events`.

use super::Group;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// The `data` of a `stats` event.
pub(crate) fn stats(group: &Group) -> Value {
    json!({
        "cpu": cpu(group),
        "cpuset": {},
        "memory": memory(group),
        "pids": pids(group),
        "blkio": blocks(group),
        "hugetlb": huge_pages(group),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// `max` is as much as fits.
fn number(dir: &Path, file: &str) -> u64 {
    match text(dir, file).trim() {
        "max" => u64::MAX,
        digits => digits.parse().unwrap_or(0),
    }
}

/// Lines of a name and a number.
fn fields(dir: &Path, file: &str) -> Map<String, Value> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse::<u64>().ok()?.into()))
    };
    text(dir, file).lines().filter_map(pair).collect()
}

fn of(fields: &Map<String, Value>, name: &str) -> u64 {
    fields.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn cpu(group: &Group) -> Value {
    const TICK_NANOSECONDS: u64 = 10_000_000;
    if let Some(dir) = group.directory("cpuacct") {
        let times = fields(dir, "cpuacct.stat");
        let each = text(dir, "cpuacct.usage_percpu");
        let each: Vec<u64> = each.split_whitespace().filter_map(|part| part.parse().ok()).collect();
        let throttled = group.directory("cpu").map(|dir| fields(dir, "cpu.stat")).unwrap_or_default();
        return json!({
            "usage": {
                "total": number(dir, "cpuacct.usage"),
                "percpu": each,
                "kernel": of(&times, "system") * TICK_NANOSECONDS,
                "user": of(&times, "user") * TICK_NANOSECONDS,
            },
            "throttling": throttling(&throttled, of(&throttled, "throttled_time")),
        });
    }
    let Some(dir) = group.unified_dir() else { return json!({ "usage": {}, "throttling": {} }) };
    let times = fields(dir, "cpu.stat");
    json!({
        "usage": {
            "total": of(&times, "usage_usec") * 1000,
            "kernel": of(&times, "system_usec") * 1000,
            "user": of(&times, "user_usec") * 1000,
        },
        "throttling": throttling(&times, of(&times, "throttled_usec") * 1000),
    })
}

fn throttling(times: &Map<String, Value>, nanoseconds: u64) -> Value {
    json!({
        "periods": of(times, "nr_periods"),
        "throttledPeriods": of(times, "nr_throttled"),
        "throttledTime": nanoseconds,
    })
}

fn memory(group: &Group) -> Value {
    if let Some(dir) = group.directory("memory") {
        let entry = |part: &str| {
            json!({
                "limit": number(dir, &format!("memory.{part}limit_in_bytes")),
                "usage": number(dir, &format!("memory.{part}usage_in_bytes")),
                "max": number(dir, &format!("memory.{part}max_usage_in_bytes")),
                "failcnt": number(dir, &format!("memory.{part}failcnt")),
            })
        };
        let raw = fields(dir, "memory.stat");
        return json!({
            "cache": of(&raw, "cache"),
            "usage": entry(""),
            "swap": entry("memsw."),
            "kernel": entry("kmem."),
            "kernelTCP": entry("kmem.tcp."),
            "raw": raw,
        });
    }
    let Some(dir) = group.unified_dir() else { return json!({}) };
    let (used, swapped) = (number(dir, "memory.current"), number(dir, "memory.swap.current"));
    let (limit, swap_limit) = (number(dir, "memory.max"), number(dir, "memory.swap.max"));
    let raw = fields(dir, "memory.stat");
    json!({
        "cache": of(&raw, "file"),
        "usage": { "limit": limit, "usage": used, "max": number(dir, "memory.peak"), "failcnt": 0 },
        "swap": { "limit": limit.saturating_add(swap_limit), "usage": used + swapped, "failcnt": 0 },
        "kernel": { "failcnt": 0, "usage": of(&raw, "kernel") },
        "kernelTCP": { "failcnt": 0, "usage": of(&raw, "sock") },
        "raw": raw,
    })
}

fn pids(group: &Group) -> Value {
    let Some(dir) = group.directory("pids").or(group.unified_dir()) else { return json!({}) };
    let limit = Some(number(dir, "pids.max")).filter(|limit| *limit != u64::MAX);
    let mut pids = json!({ "current": number(dir, "pids.current") });
    if let Some(limit) = limit {
        pids["limit"] = limit.into();
    }
    pids
}

/// Entries of device, operation and value.
fn blocks(group: &Group) -> Value {
    let entry = |device: &str, op: &str, value: &str| {
        let (major, minor) = device.split_once(':')?;
        let value: u64 = value.trim().parse().ok()?;
        let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
        Some(json!({ "major": major, "minor": minor, "op": op, "value": value }))
    };
    if let Some(dir) = group.directory("blkio") {
        let parse = |file: &str| -> Vec<Value> {
            let parts = |line: &str| {
                let parts: Vec<&str> = line.split_whitespace().collect();
                entry(parts.first()?, parts.get(1)?, parts.get(2)?)
            };
            text(dir, file).lines().filter_map(parts).collect()
        };
        return json!({
            "ioServiceBytesRecursive": parse("blkio.throttle.io_service_bytes_recursive"),
            "ioServicedRecursive": parse("blkio.throttle.io_serviced_recursive"),
        });
    }
    let Some(dir) = group.unified_dir() else { return json!({}) };
    let mut lists: [Vec<Value>; 2] = Default::default();
    for line in text(dir, "io.stat").lines() {
        let Some((device, rest)) = line.split_once(' ') else { continue };
        for (key, value) in rest.split_whitespace().filter_map(|part| part.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (0, "Read"),
                "wbytes" => (0, "Write"),
                "dbytes" => (0, "Discard"),
                "rios" => (1, "Read"),
                "wios" => (1, "Write"),
                "dios" => (1, "Discard"),
                _ => continue,
            };
            lists[list].extend(entry(device, op, value));
        }
    }
    let [bytes, counts] = lists;
    json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": counts })
}

fn huge_pages(group: &Group) -> Value {
    let Some(dir) = group.directory("hugetlb").or(group.unified_dir()) else { return json!({}) };
    let sizes = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        let rest = name.strip_prefix("hugetlb.")?;
        let size = rest.strip_suffix(".usage_in_bytes").or(rest.strip_suffix(".current"))?;
        (!size.contains('.')).then(|| (size.to_owned(), json!({ "usage": number(dir, &name), "failcnt": 0 })))
    });
    Value::Object(sizes.collect())
}
