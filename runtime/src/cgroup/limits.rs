//! Limits written to the files of the controllers: memory, processors, processes; the others' in their own files.

use super::hierarchy::Hierarchies;
use super::{Group, device, input_output, rest};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use std::fs;
use std::path::Path;

/// Version 1 controllers that a container gets a group of: what tells and confines always, the rest when asked
/// for, since entering each costs milliseconds. A unified hierarchy freezes and counts time without controllers.
pub(super) fn controllers(resources: &LinuxResources, has_unified: bool) -> Vec<String> {
    let mut wanted = vec!["memory", "devices"];
    if !has_unified {
        wanted.extend(["freezer", "cpuacct"]);
    }
    wanted.extend(resources.pids().is_some().then_some("pids"));
    if let Some(cpu) = resources.cpu() {
        wanted.extend(cpu.quota().is_some().then_some("cpu").or(cpu.shares().map(|_| "cpu")));
        wanted.extend(cpu.cpus().is_some().then_some("cpuset"));
    }
    wanted.into_iter().map(str::to_owned).collect()
}

/// What a new group needs before anybody may be in it.
pub(super) fn prepare(group: &Group, hierarchies: &Hierarchies, warnings: &mut Vec<String>) {
    Writer { group, warnings }.prepare_cpuset(hierarchies);
}

pub(super) fn apply(group: &Group, resources: &LinuxResources, warnings: &mut Vec<String>) {
    let mut writer = Writer { group, warnings };
    if let Some(memory) = resources.memory() {
        writer.memory(memory);
    }
    if let Some(cpu) = resources.cpu() {
        writer.cpu(cpu);
    }
    if let Some(pids) = resources.pids() {
        writer.set("pids limit", "pids", "pids.max", "pids.max", &or_max(pids.limit()));
    }
    input_output::apply(&mut writer, resources);
    rest::apply(&mut writer, resources);
    writer.devices(resources);
}

/// Version 2, and both for processes: no limit is a word.
fn or_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// Writes to a group, and warns.
pub(super) struct Writer<'a> {
    pub group: &'a Group,
    pub warnings: &'a mut Vec<String>,
}

impl Writer<'_> {
    /// Version 1 where that controller has a group, else version 2; else a warning.
    pub(super) fn set(&mut self, what: &str, controller: &str, legacy: &str, unified: &str, value: &str) {
        let file = match (self.legacy(controller), &self.group.unified) {
            (Some(dir), _) => dir.join(legacy),
            (None, Some(dir)) => dir.join(unified),
            (None, None) => {
                self.warnings.push(format!("{what} is not applied: no {controller} control group"));
                return;
            }
        };
        self.write(what, &file, value);
    }

    pub(super) fn write(&mut self, what: &str, file: &Path, value: &str) {
        let missing = !file.exists();
        if let Err(e) = fs::write(file, value) {
            let reason = if missing { "its controller is not available".to_owned() } else { e.to_string() };
            self.warnings.push(format!("{what} is not applied: {reason} ({})", file.display()));
        }
    }

    pub(super) fn legacy(&self, controller: &str) -> Option<&Path> {
        self.group.directory(controller)
    }

    fn memory(&mut self, memory: &LinuxMemory) {
        if self.legacy("memory").is_some() {
            self.memory_legacy(memory);
        } else {
            self.memory_unified(memory);
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

    /// The sum of memory and swap may never be below memory alone, so the order depends on where it goes.
    fn memory_legacy(&mut self, memory: &LinuxMemory) {
        let Some(dir) = self.legacy("memory").map(Path::to_owned) else { return };
        let total = memory
            .swap()
            .filter(|total| *total != 0 && self.has_swap(&dir.join("memory.memsw.limit_in_bytes")));
        let limit = memory.limit().filter(|limit| *limit != 0);
        let now = fs::read_to_string(dir.join("memory.memsw.limit_in_bytes")).ok();
        let now = now.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(i64::MAX);
        let grows = total.is_some_and(|total| total == -1 || total >= now);
        let of_limit = limit.map(|bytes| ("memory limit", "memory.limit_in_bytes", bytes));
        let of_total = total.map(|bytes| ("memory and swap limit", "memory.memsw.limit_in_bytes", bytes));
        let ordered = if grows { [of_total, of_limit] } else { [of_limit, of_total] };
        for (what, file, bytes) in ordered.into_iter().flatten() {
            self.write(what, &dir.join(file), &bytes.to_string());
        }
        if let Some(low) = memory.reservation().filter(|low| *low != 0) {
            self.write("memory reservation", &dir.join("memory.soft_limit_in_bytes"), &low.to_string());
        }
        #[allow(deprecated)]
        let kernel = memory.kernel_tcp().filter(|bytes| *bytes != 0);
        if let Some(bytes) = kernel {
            self.write(
                "kernel TCP memory limit",
                &dir.join("memory.kmem.tcp.limit_in_bytes"),
                &bytes.to_string(),
            );
        }
        if let Some(swappiness) = memory.swappiness() {
            self.write("swappiness", &dir.join("memory.swappiness"), &swappiness.to_string());
        }
        if let Some(hierarchical) = memory.use_hierarchy() {
            self.write(
                "memory hierarchy",
                &dir.join("memory.use_hierarchy"),
                if hierarchical { "1" } else { "0" },
            );
        }
    }

    fn memory_unified(&mut self, memory: &LinuxMemory) {
        let set =
            |writer: &mut Self, what, file, bytes| writer.set(what, "memory", file, file, &or_max(bytes));
        if let Some(total) = memory.swap().filter(|total| *total != 0) {
            let limit = memory.limit().unwrap_or(0);
            let has_file =
                self.group.unified.as_ref().is_none_or(|dir| self.has_swap(&dir.join("memory.swap.max")));
            // Version 2 limits swap alone.
            match total {
                _ if !has_file => {}
                -1 => set(self, "memory and swap limit", "memory.swap.max", -1),
                total if limit > 0 && total >= limit => {
                    set(self, "memory and swap limit", "memory.swap.max", total - limit);
                }
                _ => self
                    .warnings
                    .push("memory and swap limit is not applied: it needs a lower memory limit".into()),
            }
        }
        if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
            set(self, "memory limit", "memory.max", limit);
        }
        if let Some(low) = memory.reservation().filter(|low| *low != 0) {
            set(self, "memory reservation", "memory.low", low);
        }
        if memory.swappiness().is_some() {
            self.warnings.push("swappiness is not applied: cgroup v2 has no such setting".to_owned());
        }
    }

    /// A kernel without swap accounting has no file for it; then the machine's swap is not limited, which only
    /// matters if it has any.
    fn has_swap(&self, file: &Path) -> bool {
        file.exists() || fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
    }

    fn cpu(&mut self, cpu: &LinuxCpu) {
        match self.legacy("cpu").map(Path::to_owned) {
            Some(dir) => self.cpu_time_legacy(cpu, &dir),
            None => self.cpu_time_unified(cpu),
        }
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            match self.legacy("cpu").map(|dir| dir.join("cpu.shares")) {
                Some(file) => self.write("cpu shares", &file, &shares.to_string()),
                None => {
                    self.set("cpu shares", "cpu", "cpu.weight", "cpu.weight", &weight(shares).to_string())
                }
            }
        }
        if let Some(idle) = cpu.idle() {
            self.set("cpu idle", "cpu", "cpu.idle", "cpu.idle", &idle.to_string());
        }
        for (list, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.set("cpuset", "cpuset", file, file, list);
            }
        }
    }

    fn cpu_time_legacy(&mut self, cpu: &LinuxCpu, dir: &Path) {
        let text =
            |number: Option<i64>| number.filter(|number| *number != 0).map(|number| number.to_string());
        let unsigned =
            |number: Option<u64>| number.filter(|number| *number != 0).map(|number| number.to_string());
        let real_time = (unsigned(cpu.realtime_period()), text(cpu.realtime_runtime()));
        self.share("real-time limit", dir, ["cpu.rt_period_us", "cpu.rt_runtime_us"], real_time);
        let usual = (unsigned(cpu.period()), text(cpu.quota()));
        self.share("cpu limit", dir, ["cpu.cfs_period_us", "cpu.cfs_quota_us"], usual);
        if let Some(burst) = cpu.burst() {
            self.write("cpu burst", &dir.join("cpu.cfs_burst_us"), &burst.to_string());
        }
    }

    /// A period and a part of it, which together may not exceed the parent's: if the new period is refused beside the
    /// old part, it may be right beside the new one.
    fn share(
        &mut self,
        what: &str,
        dir: &Path,
        files: [&str; 2],
        (period, part): (Option<String>, Option<String>),
    ) {
        let [of_period, of_part] = files.map(|file| dir.join(file));
        let again = match &period {
            Some(period) if part.is_some() => fs::write(&of_period, period).is_err(),
            Some(period) => {
                self.write(what, &of_period, period);
                false
            }
            None => false,
        };
        if let Some(part) = &part {
            self.write(what, &of_part, part);
        }
        if let Some(period) = period.filter(|_| again) {
            self.write(what, &of_period, &period);
        }
    }

    /// One file for both; what is not given stays. A burst may not exceed the quota, whichever grows first.
    fn cpu_time_unified(&mut self, cpu: &LinuxCpu) {
        let burst = cpu.burst().map(|burst| burst.to_string());
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let period = cpu.period().filter(|period| *period != 0);
        if quota.is_none() && period.is_none() {
            return burst
                .into_iter()
                .for_each(|burst| self.set("cpu burst", "cpu", "", "cpu.max.burst", &burst));
        }
        let now = self.group.unified.as_ref().and_then(|dir| fs::read_to_string(dir.join("cpu.max")).ok());
        let now = now.unwrap_or_else(|| "max 100000".to_owned());
        let quota = quota.map_or_else(|| now.split(' ').next().unwrap_or("max").to_owned(), or_max);
        let value = match period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        self.set("cpu limit", "cpu", "cpu.max", "cpu.max", &value);
        burst.into_iter().for_each(|burst| self.set("cpu burst", "cpu", "", "cpu.max.burst", &burst));
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
