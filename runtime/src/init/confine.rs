//! Limits, capabilities, the system call filter, and becoming the user.

use super::Context;
use crate::container::{capability, seccomp as filter};
use crate::sys::{self, user_namespace::is_single_id};
use oci_spec::runtime::{LinuxSeccomp, PosixRlimit};
use rustix::fs::{Gid, Uid};
use rustix::process::Signal;
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Forgotten by the kernel when the user changes, so it is set again then.
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

pub(super) fn join_namespace(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    let kind = match path.file_name().and_then(|name| name.to_str()) {
        Some("net") => Some(LinkNameSpaceType::Network),
        Some("ipc") => Some(LinkNameSpaceType::InterProcessCommunication),
        Some("uts") => Some(LinkNameSpaceType::HostNameAndNISDomainName),
        _ => None,
    };
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?)
}

/// Lowering needs CAP_SYS_RESOURCE, which root may lack.
pub(super) fn oom_score(context: &Context<'_>, score: i32) -> io::Result<()> {
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            context.warn(format!("oom_score_adj {score} is not applied: {e}"));
            Ok(())
        }
        result => result,
    }
}

pub(super) fn rlimit_name(limit: &PosixRlimit) -> String {
    serde_json::to_value(limit.typ())
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// A hard limit above our own needs CAP_SYS_RESOURCE; without it, as high as we may, and say so.
pub(super) fn rlimit(context: &Context<'_>, limit: &PosixRlimit) -> io::Result<()> {
    use nix::sys::resource::{getrlimit, setrlimit};
    let name = rlimit_name(limit);
    let Some(resource) = resource(&name) else { return Err(io::Error::other("unknown limit")) };
    match setrlimit(resource, limit.soft(), limit.hard()) {
        Err(nix::errno::Errno::EPERM) => {
            let (_, most) = getrlimit(resource)?;
            context.warn(format!(
                "{name} {}:{} is more than the {most} allowed here",
                limit.soft(),
                limit.hard()
            ));
            Ok(setrlimit(resource, limit.soft().min(most), limit.hard().min(most))?)
        }
        result => Ok(result?),
    }
}

fn resource(name: &str) -> Option<nix::sys::resource::Resource> {
    use nix::sys::resource::Resource;
    Some(match name.strip_prefix("RLIMIT_")? {
        "AS" => Resource::RLIMIT_AS,
        "CORE" => Resource::RLIMIT_CORE,
        "CPU" => Resource::RLIMIT_CPU,
        "DATA" => Resource::RLIMIT_DATA,
        "FSIZE" => Resource::RLIMIT_FSIZE,
        "LOCKS" => Resource::RLIMIT_LOCKS,
        "MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "NICE" => Resource::RLIMIT_NICE,
        "NOFILE" => Resource::RLIMIT_NOFILE,
        "NPROC" => Resource::RLIMIT_NPROC,
        "RSS" => Resource::RLIMIT_RSS,
        "RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RTTIME" => Resource::RLIMIT_RTTIME,
        "SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "STACK" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// Drops everything else from the bounding set; what we lack ourselves cannot be given.
pub(super) fn bounding(context: &Context<'_>, wanted: &[u8]) -> io::Result<()> {
    for number in 0..64u8 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // The kernel's last capability is where this starts to fail.
        let Ok(is_there) = capability_is_in_bounding_set(one) else { break };
        if !wanted.contains(&number) && is_there {
            remove_capability_from_bounding_set(one)?;
        } else if wanted.contains(&number) && !is_there && wanted.len() < capability::all().len() {
            context.warn(format!("{} is not given: stack itself lacks it", capability::name(number)));
        }
    }
    Ok(())
}

thread_local! {
    /// The filter of most containers, compiled once by the launcher and inherited by its forks.
    static DEFAULT_FILTER: OnceCell<(LinuxSeccomp, Vec<sys::seccomp::Instruction>)> = const { OnceCell::new() };
}

/// Compiles the default filter before it is needed.
pub(crate) fn prepare_default_filter() {
    DEFAULT_FILTER.with(|cell| {
        cell.get_or_init(|| {
            let default = filter::default(&capability::resolve(&[], &[], false).unwrap_or_default());
            let program = filter::compile(&default);
            (default, program)
        });
    });
}

pub(super) fn seccomp(wanted: &LinuxSeccomp) -> io::Result<()> {
    DEFAULT_FILTER.with(|cell| match cell.get() {
        Some((default, program)) if default == wanted => sys::seccomp::install(program, 0),
        _ => sys::seccomp::install(&filter::compile(wanted), 0),
    })
}

/// Groups, group, user, then exactly these capabilities: none but for root, none inheritable or ambient.
pub(super) fn identity(context: &Context<'_>, wanted: &[u8]) -> io::Result<()> {
    let identity = &context.identity;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    match set_thread_groups(&groups) {
        // A user namespace with a single id has no other groups to take or to leave (user_namespaces(7)).
        Err(rustix::io::Errno::PERM) if is_single_id() => {}
        result => result?,
    }
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // Old kernels have no ambient set; then there is nothing to clear.
    let _ = clear_ambient_capability_set();
    let mask = wanted.iter().fold(0u64, |mask, number| mask | 1 << number);
    let kept = capabilities(None)?.permitted & CapabilitySet::from_bits_retain(mask);
    let kept = if identity.uid == 0 { kept } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
