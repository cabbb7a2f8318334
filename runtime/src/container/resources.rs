//! Limits in OCI's form, checked as Docker checks them.

use crate::spec::ResourceSpec;
use oci_spec::runtime::{
    LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemory, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder,
};

use std::collections::BTreeSet;

const MIN_MEMORY_BYTES: i64 = 6 << 20;
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;

pub(super) fn resolve(
    spec: &ResourceSpec,
    devices: Vec<LinuxDeviceCgroup>,
) -> Result<LinuxResources, String> {
    let mut resources =
        LinuxResourcesBuilder::default().devices(devices).build().expect("no field is required");
    resources.set_memory(memory(spec)?).set_cpu(cpu(spec)?);
    if let Some(limit) = spec.pids.filter(|limit| *limit > 0) {
        let pids = LinuxPidsBuilder::default().limit(limit).build().expect("no field is required");
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

fn memory(spec: &ResourceSpec) -> Result<Option<LinuxMemory>, String> {
    let positive = |value: Option<i64>| value.filter(|bytes| *bytes > 0);
    let (limit, reservation) = (positive(spec.memory), positive(spec.memory_reservation));
    let swap = spec.memory_swap.filter(|bytes| *bytes != 0);
    if limit.is_some_and(|bytes| bytes < MIN_MEMORY_BYTES) {
        return Err("Minimum memory limit allowed is 6MB".into());
    }
    if reservation.is_some_and(|bytes| bytes < MIN_MEMORY_BYTES) {
        return Err("Minimum memory reservation allowed is 6MB".into());
    }
    match (limit, swap) {
        (None, Some(bytes)) if bytes > 0 => {
            return Err(
                "You should always set the Memory limit when using Memoryswap limit, see usage".into()
            );
        }
        (Some(limit), Some(swap)) if swap > 0 && swap < limit => {
            return Err("Minimum memoryswap limit should be larger than memory limit, see usage".into());
        }
        (Some(limit), _) if reservation.is_some_and(|bytes| bytes > limit) => {
            return Err(
                "Minimum memory limit can not be less than memory reservation limit, see usage".into()
            );
        }
        _ => {}
    }
    let swappiness = swappiness(spec)?;
    if limit.is_none() && reservation.is_none() && swappiness.is_none() && !spec.oom_kill_disable {
        return Ok(None);
    }
    let mut memory = LinuxMemoryBuilder::default()
        .disable_oom_killer(spec.oom_kill_disable)
        .build()
        .expect("no field is required");
    let swap = swap.or_else(|| limit.map(|bytes| bytes.saturating_mul(2)));
    memory.set_limit(limit).set_reservation(reservation).set_swap(swap).set_swappiness(swappiness);
    Ok(Some(memory))
}

/// -1 is as good as nothing.
fn swappiness(spec: &ResourceSpec) -> Result<Option<u64>, String> {
    match spec.memory_swappiness {
        None | Some(-1) => Ok(None),
        Some(number) if (0..=100).contains(&number) => Ok(Some(number.cast_unsigned())),
        Some(number) => Err(format!("invalid value: {number}, valid memory swappiness range is 0-100")),
    }
}

/// In Docker's words.
fn check_cpus(text: &str) -> Result<(), String> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let wanted = numbers(text).ok_or_else(|| format!("Invalid value {text} for cpuset cpus"))?;
    // Where the kernel does not tell, it decides by itself.
    let Some(there) = numbers(online.trim()).filter(|there| !there.is_empty()) else { return Ok(()) };
    match wanted.is_subset(&there) {
        true => Ok(()),
        false => {
            Err(format!("Requested CPUs are not available - requested {text}, available: {}", online.trim()))
        }
    }
}

/// `0-2,7`.
fn numbers(text: &str) -> Option<BTreeSet<u32>> {
    const MOST: u32 = 8192;
    let mut all = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > MOST {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// In Docker's words.
fn check_quota(spec: &ResourceSpec) -> Result<(), String> {
    let (period, quota) = (spec.cpu_period.unwrap_or(0), spec.cpu_quota.unwrap_or(0));
    let has_cpus = spec.cpus.is_some_and(|cpus| cpus != 0.0);
    if has_cpus && period != 0 {
        return Err("Conflicting options: Nano CPUs and CPU Period cannot both be set.".into());
    }
    if has_cpus && quota != 0 {
        return Err("Conflicting options: Nano CPUs and CPU Quota cannot both be set.".into());
    }
    if period != 0 && !(1000..=1_000_000).contains(&period) {
        return Err(
            "CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)".into()
        );
    }
    match quota {
        1..1000 => Err("CPU cfs quota cannot be less than 1ms (i.e. 1000)".into()),
        _ => Ok(()),
    }
}

fn cpu(spec: &ResourceSpec) -> Result<Option<LinuxCpu>, String> {
    let cpus = spec.cpus.filter(|cpus| *cpus != 0.0);
    let shares = spec.cpu_shares.filter(|shares| *shares > 0);
    let set = spec.cpuset_cpus.clone().filter(|set| !set.is_empty());
    check_quota(spec)?;
    set.as_deref().map_or(Ok(()), check_cpus)?;
    let set_to = |value: Option<i64>| value.filter(|number| *number != 0);
    let unsigned = |value: Option<i64>| set_to(value).and_then(|number| u64::try_from(number).ok());
    let (period, quota) = (unsigned(spec.cpu_period), set_to(spec.cpu_quota));
    let (rt_period, rt_runtime) = (unsigned(spec.cpu_rt_period), set_to(spec.cpu_rt_runtime));
    let is_asked = cpus.is_some() || shares.is_some() || set.is_some() || period.is_some() || quota.is_some();
    if !is_asked && rt_period.is_none() && rt_runtime.is_none() {
        return Ok(None);
    }
    let mut cpu = LinuxCpuBuilder::default().build().expect("no field is required");
    cpu.set_period(period).set_quota(quota).set_realtime_period(rt_period).set_realtime_runtime(rt_runtime);
    if let Some(cpus) = cpus {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if !(0.01..=count as f64).contains(&cpus) {
            return Err(format!(
                "range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
            ));
        }
        let quota = (cpus * CPU_PERIOD_MICROSECONDS as f64).round() as i64;
        cpu.set_quota(Some(quota.max(1000))).set_period(Some(CPU_PERIOD_MICROSECONDS));
    }
    cpu.set_shares(shares).set_cpus(set);
    Ok(Some(cpu))
}
