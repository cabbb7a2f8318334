//! How an init comes to be: what must be joined before the clone, the clone, and the ids of its user namespace.
//!
//! Usually one clone makes all new namespaces. A pid or user namespace to join, and a clock to set, decide about
//! children only; so a stage process does that first, clones init as its sibling, and is gone.

use super::Link;
use crate::cgroup::Group;
use crate::launch::{LaunchError, Named};
use crate::sys::packet;
use crate::sys::process::{self, Clone, Fork};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Kind, Spec};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

/// An init and the monitor's end of its socket.
#[derive(Debug)]
pub(crate) struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub link: OwnedFd,
}

/// Makes the namespaces and runs `init` in them, which never returns.
pub(crate) fn birth(spec: &Spec, group: &Group, init: impl FnOnce(Link)) -> Result<Child, LaunchError> {
    let (ours, theirs) = packet::pair().named("make a socket pair")?;
    let flags = flags(spec);
    if is_staged(spec) {
        let (pid, pidfd) = stage(spec, flags, || init(Link::new(theirs))).named("clone init")?;
        group.enter(pid).named("enter the control group")?;
        return Ok(Child { pid, pidfd, link: ours });
    }
    match clone(flags, group).named("clone init")? {
        Clone::Child => never_back(|| init(Link::new(theirs))),
        Clone::Parent { pid, pidfd } => Ok(Child { pid, pidfd, link: ours }),
    }
}

/// Into the unified group at once where the kernel can, else the pid is written to it.
pub(crate) fn clone(flags: u64, group: &Group) -> io::Result<Clone> {
    let unified = group.unified()?;
    match process::clone(flags, unified.as_ref().map(AsFd::as_fd)) {
        Err(_) if unified.is_some() => {
            let cloned = process::clone(flags, None)?;
            if let Clone::Parent { pid, .. } = &cloned {
                group.enter(*pid)?;
            }
            Ok(cloned)
        }
        result => result,
    }
}

/// A child must not run what is its parent's.
fn never_back(init: impl FnOnce()) -> ! {
    init();
    process::exit(0)
}

fn namespaces(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
}

/// Of the new namespaces, but for that of control groups, which is made when init is in its group, and a clock
/// that is set before.
fn flags(spec: &Spec) -> u64 {
    let made_later = |kind| kind == Kind::Cgroup || kind == Kind::Time && !offsets(spec).is_empty();
    let new = namespaces(spec).iter().filter(|n| n.path().is_none() && !made_later(n.typ()));
    new.fold(0, |flags, namespace| flags | namespace.typ() as u64)
}

/// Whether init finds itself in all namespaces that have a path (but for those of mounts and control groups).
pub(super) fn is_staged(spec: &Spec) -> bool {
    let joins = |kind| namespaces(spec).iter().any(|n| n.typ() == kind && n.path().is_some());
    let has_users = namespaces(spec).iter().any(|n| n.typ() == Kind::User);
    joins(Kind::Pid)
        || joins(Kind::User)
        || !offsets(spec).is_empty()
        || has_users && [Kind::Network, Kind::Ipc, Kind::Uts, Kind::Time].into_iter().any(joins)
}

/// `/proc/PID/timens_offsets`, line by line.
fn offsets(spec: &Spec) -> String {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    let line = |(clock, offset): (&String, &oci_spec::runtime::LinuxTimeOffset)| {
        format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
    };
    offsets.into_iter().flatten().map(line).collect()
}

fn stage(spec: &Spec, flags: u64, init: impl FnOnce()) -> io::Result<(i32, OwnedFd)> {
    let (report, theirs) = packet::pair()?;
    match process::fork()? {
        Fork::Child => {
            drop(report);
            let sibling = flags | libc::CLONE_PARENT as u64;
            let made = join_all(spec).and_then(|()| process::clone(sibling, None));
            let _ = match made {
                Ok(Clone::Child) => never_back(init),
                Ok(Clone::Parent { pid, pidfd }) => {
                    packet::send(&theirs, &pid.to_ne_bytes(), &[pidfd.as_fd()])
                }
                Err(e) => packet::send(&theirs, e.to_string().as_bytes(), &[]),
            };
            process::exit(0)
        }
        Fork::Parent(stage) => {
            drop(theirs);
            let (bytes, mut fds) = packet::receive(&report)?;
            let _ = waitpid(Pid::from_raw(stage), WaitOptions::empty());
            match (fds.pop(), <[u8; 4]>::try_from(bytes.as_slice())) {
                (Some(pidfd), Ok(pid)) => Ok((i32::from_ne_bytes(pid), pidfd)),
                _ => Err(io::Error::other(String::from_utf8_lossy(&bytes).into_owned())),
            }
        }
    }
}

/// What belongs to the user namespace can be joined only after it, the rest only before.
fn join_all(spec: &Spec) -> io::Result<()> {
    let path = |n: &LinuxNamespace| Some((n.typ(), n.path().clone()?));
    let joined = namespaces(spec).iter().filter_map(path);
    let (users, others): (Vec<_>, Vec<_>) = joined
        .filter(|(kind, _)| !matches!(kind, Kind::Mount | Kind::Cgroup))
        .map(|(kind, path)| Ok((kind, File::open(&path).map_err(|e| about(&path, &e))?, path)))
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .partition(|(kind, ..)| *kind == Kind::User);
    let mut refused = Vec::new();
    for (kind, file, path) in others {
        match join(kind, &file) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !users.is_empty() => {
                refused.push((kind, file, path));
            }
            result => result.map_err(|e| about(&path, &e))?,
        }
    }
    for (kind, file, path) in users.into_iter().chain(refused) {
        join(kind, &file).map_err(|e| about(&path, &e))?;
    }
    match offsets(spec) {
        none if none.is_empty() => Ok(()),
        offsets => {
            process::unshare(libc::CLONE_NEWTIME)?;
            fs::write("/proc/self/timens_offsets", offsets)
                .map_err(|e| io::Error::new(e.kind(), format!("time offsets: {e}")))
        }
    }
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("join the namespace {}: {error}", path.display()))
}

/// A file of another kind of namespace is `EINVAL`.
pub(super) fn join(kind: Kind, namespace: &File) -> io::Result<()> {
    Ok(setns(namespace.as_fd(), CloneFlags::from_bits_retain(kind as i32))?)
}

/// Ids of a user namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps<'a> {
    pub uids: &'a [LinuxIdMapping],
    pub gids: &'a [LinuxIdMapping],
}

impl Maps<'_> {
    /// Ours if we may, else by the helpers that know the subordinate ids.
    pub(crate) fn write(&self, pid: i32) -> io::Result<()> {
        match self.write_all(pid) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => self.ask(pid),
            result => result,
        }
    }

    fn write_all(&self, pid: i32) -> io::Result<()> {
        fs::write(format!("/proc/{pid}/uid_map"), lines(self.uids))?;
        match fs::write(format!("/proc/{pid}/gid_map"), lines(self.gids)) {
            // One group of one's own is allowed once nobody can drop groups any more.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && self.gids.len() == 1 => {
                fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
                fs::write(format!("/proc/{pid}/gid_map"), lines(self.gids))
            }
            result => result,
        }
    }

    fn ask(&self, pid: i32) -> io::Result<()> {
        for (helper, maps, file) in [("newuidmap", self.uids, "uid_map"), ("newgidmap", self.gids, "gid_map")]
        {
            if fs::read_to_string(format!("/proc/{pid}/{file}")).is_ok_and(|map| !map.is_empty()) {
                continue;
            }
            let text = lines(maps);
            let run = Command::new(helper).arg(pid.to_string()).args(text.split_whitespace()).output();
            let run = run.map_err(|e| io::Error::new(e.kind(), format!("{helper}: {e}")))?;
            if !run.status.success() {
                let said = String::from_utf8_lossy(&run.stderr).trim().to_owned();
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{helper}: {said}")));
            }
        }
        Ok(())
    }
}

fn lines(maps: &[LinuxIdMapping]) -> String {
    let line = |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
    maps.iter().map(line).collect()
}

/// A user namespace of these ids with nobody in it, for mounts that show other owners.
pub(crate) fn map_namespace(maps: Maps<'_>) -> io::Result<OwnedFd> {
    match process::clone(libc::CLONE_NEWUSER as u64, None)? {
        Clone::Child => loop {
            rustix::event::pause();
        },
        Clone::Parent { pid, .. } => {
            let namespace = maps.write(pid).and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
            let child = Pid::from_raw(pid).expect("clone gives a pid above zero");
            let _ = kill_process(child, Signal::KILL);
            let _ = waitpid(Some(child), WaitOptions::empty());
            Ok(namespace?.into())
        }
    }
}
