//! Limits in OCI's form, checked as Docker checks them.

use crate::spec::ResourceSpec;
use oci_spec::runtime::{
    LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemory, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder,
};

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
    if limit.is_none() && reservation.is_none() && !spec.oom_kill_disable {
        return Ok(None);
    }
    let mut memory = LinuxMemoryBuilder::default()
        .disable_oom_killer(spec.oom_kill_disable)
        .build()
        .expect("no field is required");
    let swap = swap.or_else(|| limit.map(|bytes| bytes.saturating_mul(2)));
    memory.set_limit(limit).set_reservation(reservation).set_swap(swap);
    Ok(Some(memory))
}

fn cpu(spec: &ResourceSpec) -> Result<Option<LinuxCpu>, String> {
    let cpus = spec.cpus.filter(|cpus| *cpus != 0.0);
    let shares = spec.cpu_shares.filter(|shares| *shares > 0);
    let set = spec.cpuset_cpus.clone().filter(|set| !set.is_empty());
    if cpus.is_none() && shares.is_none() && set.is_none() {
        return Ok(None);
    }
    let mut cpu = LinuxCpuBuilder::default().build().expect("no field is required");
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
