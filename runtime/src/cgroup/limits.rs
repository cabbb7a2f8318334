//! Limits written to the files of the controllers.

use super::hierarchy::Hierarchies;
use super::{Group, device};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use std::fs;
use std::path::Path;

/// Version 1 controllers that a container gets a group of: what tells and confines always, the rest when asked
/// for, since entering each costs milliseconds. A unified hierarchy freezes and counts time without controllers.
pub(super) fn controllers(resources: &LinuxResources, has_unified: bool) -> Vec<&'static str> {
    let mut wanted = vec!["memory", "devices"];
    if !has_unified {
        wanted.extend(["freezer", "cpuacct"]);
    }
    if resources.pids().is_some() {
        wanted.push("pids");
    }
    if let Some(cpu) = resources.cpu() {
        wanted.extend(cpu.quota().is_some().then_some("cpu").or(cpu.shares().map(|_| "cpu")));
        wanted.extend(cpu.cpus().is_some().then_some("cpuset"));
    }
    wanted
}

pub(super) fn apply(
    group: &Group,
    hierarchies: &Hierarchies,
    resources: &LinuxResources,
    warnings: &mut Vec<String>,
) {
    let mut writer = Writer { group, warnings };
    if let Some(memory) = resources.memory() {
        writer.memory(memory);
    }
    if let Some(cpu) = resources.cpu() {
        writer.cpu(cpu, hierarchies);
    }
    if let Some(pids) = resources.pids() {
        writer.set("pids limit", "pids", "pids.max", "pids.max", &pids.limit().to_string());
    }
    writer.devices(resources);
}

struct Writer<'a> {
    group: &'a Group,
    warnings: &'a mut Vec<String>,
}

impl Writer<'_> {
    /// Version 1 where that controller has a group, else version 2; else a warning.
    fn set(&mut self, what: &str, controller: &str, legacy: &str, unified: &str, value: &str) {
        let legacy_dir = self.legacy(controller);
        let file = match (legacy_dir, &self.group.unified) {
            (Some(dir), _) => dir.join(legacy),
            (None, Some(dir)) => dir.join(unified),
            (None, None) => {
                self.warnings.push(format!("{what} is not applied: no {controller} control group"));
                return;
            }
        };
        self.write(what, &file, value);
    }

    fn write(&mut self, what: &str, file: &Path, value: &str) {
        let missing = !file.exists();
        if let Err(e) = fs::write(file, value) {
            let reason = if missing { "its controller is not available".to_owned() } else { e.to_string() };
            self.warnings.push(format!("{what} is not applied: {reason} ({})", file.display()));
        }
    }

    fn legacy(&self, controller: &str) -> Option<&Path> {
        self.group.legacy.iter().find(|(name, _)| name == controller).map(|(_, dir)| dir.as_path())
    }

    fn memory(&mut self, memory: &LinuxMemory) {
        if let Some(limit) = memory.limit() {
            self.set("memory limit", "memory", "memory.limit_in_bytes", "memory.max", &limit.to_string());
        }
        if let Some(low) = memory.reservation() {
            self.set(
                "memory reservation",
                "memory",
                "memory.soft_limit_in_bytes",
                "memory.low",
                &low.to_string(),
            );
        }
        if let (Some(total), Some(limit)) = (memory.swap(), memory.limit()) {
            self.swap(total, limit);
        }
        if memory.disable_oom_killer() == Some(true) {
            match self.legacy("memory").map(|dir| dir.join("memory.oom_control")) {
                Some(file) => self.write("oom_kill_disable", &file, "1"),
                None => self
                    .warnings
                    .push("oom_kill_disable is not applied: cgroup v2 has no such switch".to_owned()),
            }
        }
    }

    /// Version 1 limits the sum, version 2 swap alone. A kernel without swap accounting has neither file; then
    /// the machine's swap is not limited, which only matters if it has any.
    fn swap(&mut self, total: i64, limit: i64) {
        let file = match (self.legacy("memory"), &self.group.unified) {
            (Some(dir), _) => dir.join("memory.memsw.limit_in_bytes"),
            (None, Some(dir)) => dir.join("memory.swap.max"),
            (None, None) => return,
        };
        let has_swap = fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
        if !file.exists() && !has_swap {
            return;
        }
        let value = match (self.legacy("memory"), total) {
            (None, -1) => "max".to_owned(),
            (None, total) => (total - limit).to_string(),
            (Some(_), total) => total.to_string(),
        };
        self.write("memory and swap limit", &file, &value);
    }

    fn cpu(&mut self, cpu: &LinuxCpu, hierarchies: &Hierarchies) {
        if let (Some(quota), Some(period)) = (cpu.quota(), cpu.period()) {
            match self.legacy("cpu").map(Path::to_owned) {
                Some(dir) => {
                    self.write("cpu limit", &dir.join("cpu.cfs_period_us"), &period.to_string());
                    self.write("cpu limit", &dir.join("cpu.cfs_quota_us"), &quota.to_string());
                }
                None => self.set("cpu limit", "cpu", "cpu.max", "cpu.max", &format!("{quota} {period}")),
            }
        }
        if let Some(shares) = cpu.shares() {
            match self.legacy("cpu").map(|dir| dir.join("cpu.shares")) {
                Some(file) => self.write("cpu shares", &file, &shares.to_string()),
                None => {
                    self.set("cpu shares", "cpu", "cpu.weight", "cpu.weight", &weight(shares).to_string())
                }
            }
        }
        if let Some(cpus) = cpu.cpus() {
            self.prepare_cpuset(hierarchies);
            self.set("cpuset", "cpuset", "cpuset.cpus", "cpuset.cpus", cpus);
        }
    }

    /// Version 1: a new group has no processors and no memory nodes, so nothing may run in it.
    fn prepare_cpuset(&mut self, hierarchies: &Hierarchies) {
        let Some(dir) = self.legacy("cpuset").map(Path::to_owned) else { return };
        let Some((_, mount)) = hierarchies.legacy.iter().find(|(name, _)| name == "cpuset") else { return };
        let mut chain: Vec<&Path> = dir.ancestors().take_while(|ancestor| ancestor != mount).collect();
        chain.reverse();
        for (group, file) in chain.iter().flat_map(|group| [(group, "cpuset.cpus"), (group, "cpuset.mems")]) {
            let own = fs::read_to_string(group.join(file)).unwrap_or_default();
            let parent = group.parent().and_then(|parent| fs::read_to_string(parent.join(file)).ok());
            if let Some(value) = parent.filter(|_| own.trim().is_empty()) {
                self.write("cpuset", &group.join(file), value.trim());
            }
        }
    }

    fn devices(&mut self, resources: &LinuxResources) {
        let Some(rules) = resources.devices().as_deref().filter(|rules| !rules.is_empty()) else { return };
        let applied = match (self.legacy("devices"), &self.group.unified) {
            (Some(dir), _) => device::write_legacy(dir, rules),
            // Without the privilege to make devices there is nothing to keep from.
            (None, Some(_)) if crate::rootless::is_active() => return,
            (None, Some(dir)) => device::attach(dir, rules),
            (None, None) => return,
        };
        if let Err(e) = applied {
            self.warnings.push(format!("device rules are not applied: {e}"));
        }
    }
}

/// Shares 2…262144 to weight 1…10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(super::weight), [1, 39, 10_000]);
    }
}
