//! Limits, capabilities, the system call filter, and becoming the user.

use super::{Context, Note};
use crate::container::{capability, seccomp as filter};
use crate::sys::{self, user_namespace::is_single_id};
use oci_spec::runtime::{LinuxSeccomp, PosixRlimit};
use rustix::fs::{Gid, Uid};
use rustix::process::Signal;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::cell::OnceCell;
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Forgotten by the kernel when the user changes, so it is set again then.
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

pub(super) fn affinity(processors: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    processors
        .iter()
        .filter(|number| **number < rustix::thread::CpuSet::MAX_CPU)
        .for_each(|number| set.set(*number));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Writes to a file of this process in `/proc`, which may be the container's by now: what is mounted over it, or is no
/// `/proc` at all, must not get what is meant for the kernel (CVE-2025-52881).
fn write_own(file: &str, text: &str) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat2};
    const ROOT_OF_PROC: u64 = 1;
    let proc = open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if fstatfs(&proc)?.f_type != rustix::fs::PROC_SUPER_MAGIC || fstat(&proc)?.st_ino != ROOT_OF_PROC {
        return Err(io::Error::other("/proc is something else"));
    }
    let path = format!("thread-self/{file}");
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS | ResolveFlags::BENEATH;
    let opened = openat2(&proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(&opened, text.as_bytes())?;
    Ok(())
}

/// Lowering needs CAP_SYS_RESOURCE, which root may lack.
pub(super) fn oom_score(context: &Context<'_>, score: i32) -> io::Result<()> {
    match write_own("oom_score_adj", &score.to_string()) {
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

/// A filter that asks somebody else: the monitor fetches the listener by its number, since no call is sure to
/// pass from the moment on when the filter is there.
pub(super) fn seccomp(context: &Context<'_>, wanted: &LinuxSeccomp) -> io::Result<()> {
    let mut flags = wanted.flags().iter().flatten().fold(0, |all, flag| all | filter::flag_bit(*flag));
    if filter::has_listener(wanted) {
        flags |= sys::seccomp::NEW_LISTENER;
        // One thread: the next descriptor is the lowest that is free.
        let next = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?.as_raw_fd();
        context.link.send(&Note::Listener(next), &[])?;
    }
    let listener = DEFAULT_FILTER.with(|cell| match cell.get() {
        Some((default, program)) if default == wanted => sys::seccomp::install(program, flags),
        _ => sys::seccomp::install(&filter::compile(wanted), flags),
    })?;
    // Closed by execve.
    let _ = listener.map(std::os::fd::IntoRawFd::into_raw_fd);
    Ok(())
}

/// The sets of a process, as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
    /// Only root keeps them, as when a program of Docker's starts.
    pub root_only: bool,
}

/// Groups, group, user, then exactly these capabilities; what we lack ourselves cannot be given.
pub(super) fn identity(context: &Context<'_>, wanted: Sets) -> io::Result<()> {
    let identity = &context.identity;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    match set_thread_groups(&groups) {
        // A user namespace with a single id has no other groups to take or to leave (user_namespaces(7)).
        Err(rustix::io::Errno::PERM) if is_single_id() => {}
        result => result?,
    }
    set_keep_capabilities(true)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // Old kernels have no ambient set; then there is nothing to clear.
    let _ = clear_ambient_capability_set();
    let is_kept = !wanted.root_only || identity.uid == 0;
    let held = capabilities(None)?.permitted.bits();
    let set = |mask: u64| CapabilitySet::from_bits_retain(if is_kept { mask & held } else { 0 });
    let sets = CapabilitySets {
        effective: set(wanted.effective),
        permitted: set(wanted.permitted),
        inheritable: set(wanted.inheritable),
    };
    set_capabilities(None, sets)?;
    let ambient = wanted.ambient & sets.permitted.bits() & sets.inheritable.bits();
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)?;
    }
    Ok(set_keep_capabilities(false)?)
}

/// Root of a user namespace, or whoever is first in it. Others must not look into us meanwhile, but for a new
/// namespace, in which there is nobody else and whose `/proc` would not be ours otherwise.
pub(super) fn enter_user_namespace(context: &Context<'_>, ids: (u32, u32), is_new: bool) -> io::Result<()> {
    if is_new {
        context.link.wait();
    }
    let (uid, gid) = (Uid::from_raw(ids.0), Gid::from_raw(ids.1));
    // Not allowed where the groups were fixed before the map was written.
    let _ = set_thread_groups(&[]);
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    if is_new {
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
    }
    Ok(())
}

/// The label of the program: a profile of AppArmor, a context of SELinux.
pub(super) fn label(label: &Label) -> io::Result<()> {
    let missing = |module: &str| io::Error::other(format!("this host has no {module}"));
    match label {
        Label::AppArmor(profile) => {
            let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
            if enabled.first() != Some(&b'Y') {
                return Err(missing("AppArmor"));
            }
            let text = format!("exec {profile}");
            match write_own("attr/apparmor/exec", &text) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => write_own("attr/exec", &text),
                result => result,
            }
        }
        Label::SeLinux(context) if Path::new("/sys/fs/selinux/enforce").exists() => {
            write_own("attr/exec", context)
        }
        Label::SeLinux(_) => Err(missing("SELinux")),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Label {
    AppArmor(String),
    SeLinux(String),
}

/// The session keyring of whoever started us is not the container's business. Quotas may keep us from a new one.
pub(super) fn session_keyring(context: &Context<'_>, id: &str) -> io::Result<()> {
    let name = CString::new(format!("_ses.{id}"))?;
    match sys::task::join_session_keyring(&name) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EDQUOT | libc::EPERM)) => {
            context.warn(format!("the container has no session keyring of its own: {e}"));
            Ok(())
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_lies_over_a_file_of_ours_gets_nothing() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("STACK_TEST_PRIVILEGED").is_none(), "this test needs root");
            eprintln!("SKIPPED: needs root");
            return;
        }
        let thread = std::thread::spawn(|| {
            use nix::mount::{MsFlags, mount};
            let none = None::<&str>;
            crate::sys::process::unshare(libc::CLONE_FS | libc::CLONE_NEWNS).unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            super::write_own("oom_score_adj", "500").unwrap();
            assert_eq!(std::fs::read_to_string("/proc/thread-self/oom_score_adj").unwrap(), "500\n");
            let decoy = tempfile::NamedTempFile::new().unwrap();
            let own = std::fs::canonicalize("/proc/thread-self/oom_score_adj").unwrap();
            mount(Some(decoy.path()), &own, none, MsFlags::MS_BIND, none).unwrap();
            super::write_own("oom_score_adj", "600").unwrap_err();
            assert_eq!(std::fs::read_to_string(decoy.path()).unwrap(), "");
            mount(Some("tmpfs"), "/proc", Some("tmpfs"), MsFlags::empty(), none).unwrap();
            super::write_own("oom_score_adj", "600").unwrap_err();
        });
        thread.join().unwrap();
    }
}
