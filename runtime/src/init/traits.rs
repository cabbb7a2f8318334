//! Settings of a process that are one call each, from OCI's words to the kernel's numbers.

use super::Operation;
use super::options;
use crate::sys::mount::READ_ONLY;
use crate::sys::task::Scheduling;
use oci_spec::runtime::{
    IOPriorityClass, LinuxMemoryPolicy, LinuxNamespaceType as Kind, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy, MemoryPolicyFlagType,
    MemoryPolicyModeType as Mode, Mount, Process, Scheduler, Spec,
};

/// What the spec asks for and most do not.
pub(super) fn operations(spec: &Spec, process: &Process) -> Vec<Operation> {
    let linux = spec.linux().as_ref();
    let mut operations = Vec::new();
    operations.extend(process.scheduler().as_ref().map(scheduling));
    operations.extend(process.io_priority().map(|priority| {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        Operation::IoPriority(class << 13 | priority.priority() as i32)
    }));
    operations.extend(linux.and_then(|linux| linux.memory_policy().as_ref()).map(memory_policy));
    operations.extend(linux.and_then(|linux| linux.personality().as_ref()).map(personality));
    operations
}

fn personality(personality: &LinuxPersonality) -> Operation {
    Operation::Personality(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

fn scheduling(scheduler: &Scheduler) -> Operation {
    let policy = match scheduler.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let bit = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 1,
        Flag::SchedFlagReclaim => 2,
        Flag::SchedFlagDLOverrun => 4,
        Flag::SchedFlagKeepPolicy => 8,
        Flag::SchedFlagKeepParams => 16,
        Flag::SchedFlagUtilClampMin => 32,
        Flag::SchedFlagUtilClampMax => 64,
    };
    Operation::Scheduling(Scheduling {
        policy,
        flags: scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | bit(flag)),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().unwrap_or(0).cast_unsigned(),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..Scheduling::default()
    })
}

fn memory_policy(policy: &LinuxMemoryPolicy) -> Operation {
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let bit = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let mut nodes = Vec::new();
    for node in policy.nodes().as_deref().map(numbers).unwrap_or_default() {
        nodes.resize(nodes.len().max(node / 64 + 1), 0);
        nodes[node / 64] |= 1 << (node % 64);
    }
    Operation::MemoryPolicy {
        mode: policy.flags().iter().flatten().fold(mode, |mode, flag| mode | bit(flag)),
        nodes,
    }
}

/// `0-2,5`; what is no number is left out (it was checked before).
pub(crate) fn numbers(list: &str) -> Vec<usize> {
    const MAX: usize = 1 << 16;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse::<usize>().ok()?.min(MAX))
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Rows and columns.
pub(super) fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size().filter(|size| size.height() > 0 && size.width() > 0)?;
    Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?))
}

/// User and group 0 in the spec's user namespace, or the first that its maps have.
pub(crate) fn root_ids(spec: &Spec) -> (u32, u32) {
    let first = |maps: Option<&Vec<oci_spec::runtime::LinuxIdMapping>>| {
        maps.into_iter().flatten().map(oci_spec::runtime::LinuxIdMapping::container_id).min().unwrap_or(0)
    };
    let linux = spec.linux().as_ref();
    (
        first(linux.and_then(|l| l.uid_mappings().as_ref())),
        first(linux.and_then(|l| l.gid_mappings().as_ref())),
    )
}

/// A read-only tmpfs, which is made so last.
pub(super) fn is_read_only_memory(mount: &Mount) -> bool {
    let options = || options::parse(mount.options().as_deref().unwrap_or_default());
    mount.typ().as_deref() == Some("tmpfs") && !super::mounts::is_bind(mount) && {
        let options = options();
        (options.own.set | options.all.set) & READ_ONLY != 0
    }
}

/// A user namespace of its own or a joined one.
pub(crate) fn has_user_namespace(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == Kind::User)
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_processors() {
        assert_eq!(super::numbers("0-2,5, 7-7"), [0, 1, 2, 5, 7]);
        assert!(super::numbers("x,3-").is_empty());
    }
}
