//! Who has a port: the kernel's socket tables give the socket, `/proc/*/fd` its process.

use crate::network::listening::rows;
use crate::spec::Protocol;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    /// Its short name.
    pub command: String,
}

/// The process that holds a port of the calling thread's namespace. `None` when nobody
/// does, when the process may not be looked at, or when its socket is bound without listening.
pub fn holder(protocol: Protocol, address: IpAddr, port: u16) -> Option<Holder> {
    let inodes = sockets(protocol, address, port);
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    processes().find(|pid| has_open(*pid, &links)).map(|pid| Holder { pid, command: command(pid) })
}

/// Inodes of the sockets that stand in the way: the port is the same, and the addresses
/// are the same or one of them is "all".
fn sockets(protocol: Protocol, address: IpAddr, port: u16) -> Vec<u64> {
    let name = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    let mut found = Vec::new();
    for family in ["", "6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{name}{family}")).unwrap_or_default();
        let in_the_way = |other: IpAddr| {
            let other = other.to_canonical();
            other == address || other.is_unspecified() || address.is_unspecified()
        };
        let hits = rows(&text).filter(|r| r.local.port() == port && r.inode != 0 && in_the_way(r.local.ip()));
        // A listening socket before a connection of it.
        let mut hits: Vec<_> = hits.collect();
        hits.sort_by_key(|r| r.state != 0x0a);
        found.extend(hits.into_iter().map(|r| r.inode));
    }
    found
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn has_open(pid: i32, links: &[String]) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let target = |path: &Path| fs::read_link(path).ok().and_then(|t| t.into_os_string().into_string().ok());
    entries.filter_map(|e| target(&e.path())).any(|t| links.contains(&t))
}

fn command(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}
