//! Who has a port: the kernel's socket tables give the socket, `/proc/*/fd` its process.

use crate::network::listening::rows;
use crate::spec::Protocol;
use rustix::net::sockopt::socket_type;
use rustix::net::{SocketType, getsockname};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: i32,
    /// Its short name.
    pub command: String,
}

/// The process that holds a port of the calling thread's namespace. `None` when nobody
/// does or when the process may not be looked at.
pub fn holder(protocol: Protocol, address: IpAddr, port: u16) -> Option<Holder> {
    look(protocol, address, port).or_else(|| crate::rootless::holder(protocol, address, port))
}

/// As [`holder`], by this process alone.
pub(crate) fn look(protocol: Protocol, address: IpAddr, port: u16) -> Option<Holder> {
    let inodes = sockets(protocol, address, port);
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let listed = processes().find(|pid| has_open(*pid, &links));
    let pid = listed.or_else(|| processes().find(|pid| has_bound(*pid, protocol, address, port)))?;
    Some(Holder { pid, command: command(pid) })
}

/// Inodes of the sockets that stand in the way: the port is the same, and the addresses
/// are the same or one of them is "all".
fn sockets(protocol: Protocol, address: IpAddr, port: u16) -> Vec<u64> {
    let name = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    let mut found = Vec::new();
    for family in ["", "6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{name}{family}")).unwrap_or_default();
        let hits = rows(&text).filter(|r| r.inode != 0 && in_the_way(r.local, address, port));
        // A listening socket before a connection of it.
        let mut hits: Vec<_> = hits.collect();
        hits.sort_by_key(|r| r.state != 0x0a);
        found.extend(hits.into_iter().map(|r| r.inode));
    }
    found
}

fn in_the_way(other: SocketAddr, address: IpAddr, port: u16) -> bool {
    let ip = other.ip().to_canonical();
    other.port() == port && (ip == address || ip.is_unspecified() || address.is_unspecified())
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn has_open(pid: i32, links: &[String]) -> bool {
    descriptors(pid).any(|(_, target)| links.contains(&target))
}

/// A socket that is bound but does not listen is in no table: another stack holds its ports
/// so until its service is up. Such a socket can only be asked itself, by a copy of it.
fn has_bound(pid: i32, protocol: Protocol, address: IpAddr, port: u16) -> bool {
    let Some(pidfd) = Pid::from_raw(pid).and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok()) else {
        return false;
    };
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let holds = |number: i32| {
        let copy = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok()?;
        let local = SocketAddr::try_from(getsockname(&copy).ok()?).ok()?;
        (socket_type(&copy).ok()? == kind).then(|| in_the_way(local, address, port))
    };
    descriptors(pid)
        .filter(|(_, target)| target.starts_with("socket:"))
        .any(|(number, _)| holds(number) == Some(true))
}

/// Numbers and targets of a process's descriptors.
fn descriptors(pid: i32) -> impl Iterator<Item = (i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|e| {
        let number = e.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(e.path()).ok()?.into_os_string().into_string().ok()?;
        Some((number, target))
    })
}

fn command(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}
