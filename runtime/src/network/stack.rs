//! The network of one running stack, owned by its supervisor.

use super::records::NetworkRecord;
use super::uplink::UplinkState;
use crate::engine::Result;
use crate::home::Home;
use crate::observed::PublishedPort;
use crate::spec::{ContainerSpec, PortSpec};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// The world outside the stack: where published ports are bound and names are asked for.
#[derive(Debug)]
pub struct Host {
    pub netns: OwnedFd,
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
}

impl Host {
    /// The namespace of the calling thread and the files of `/etc`.
    pub fn here() -> io::Result<Self> {
        let netns = crate::sys::netns::current()?;
        Ok(Self { netns, resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() })
    }
}

/// A container that is about to start (or, for `adopt`, runs already).
#[derive(Debug)]
pub struct ConnectRequest<'a> {
    pub id: &'a str,
    pub spec: &'a ContainerSpec,
    /// Its network namespace. For host and shared modes: whatever it will run in.
    pub netns: OwnedFd,
    /// Its folder in `home`; `hosts`, `hostname`, `resolv.conf` and `net.json` are written there.
    pub dir: &'a Path,
}

/// What a container got.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Connected {
    /// Network name and address, in interface order.
    pub addresses: Vec<(String, String)>,
    pub published: Vec<PublishedPort>,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub struct StackNetwork {}

impl StackNetwork {
    /// Takes the stack's namespace. Call it inside the async runtime; nothing is awaited
    /// and nothing is made but two threads, so it costs well under a millisecond.
    pub fn open(home: &Home, project: &str, stack_netns: OwnedFd, host: Host) -> Result<Self> {
        let _ = (home, project, stack_netns, host);
        unimplemented!("network slice")
    }

    /// The bridge of a network, if it is not there yet. A network with a way out starts the uplink.
    pub async fn ensure(&self, record: &NetworkRecord) -> Result<()> {
        let _ = record;
        unimplemented!("network slice")
    }

    /// Addresses, links, files, names and ports of a container, before its program starts.
    /// Missing bridges are made from the records. On error nothing is left.
    pub async fn connect(&self, request: ConnectRequest<'_>) -> Result<Connected> {
        let _ = request;
        unimplemented!("network slice")
    }

    /// After a supervisor's crash: names and the same ports again for a container that runs.
    pub async fn adopt(&self, request: ConnectRequest<'_>) -> Result<Connected> {
        let _ = request;
        unimplemented!("network slice")
    }

    /// The container ended: its names, ports and addresses are free. Unknown ids are fine.
    pub async fn disconnect(&self, id: &str) {
        let _ = id;
    }

    /// Publishes further ports of a connected container.
    pub async fn publish(&self, id: &str, ports: &[PortSpec]) -> Result<Vec<PublishedPort>> {
        let _ = (id, ports);
        unimplemented!("network slice")
    }

    /// TCP sockets that listen inside a connected container, loopback included.
    pub fn listening(&self, id: &str) -> Vec<SocketAddr> {
        let _ = id;
        Vec::new()
    }

    /// Removes a bridge; refused while a running container is on it.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let _ = name;
        unimplemented!("network slice")
    }

    /// How the way out is doing. Nothing waits for it; a warning is to be shown once.
    pub fn uplink(&self) -> watch::Receiver<UplinkState> {
        unimplemented!("network slice")
    }

    /// The end of the stack: ports, names and the uplink go. Not called in a crash.
    pub async fn close(&self) {}
}
