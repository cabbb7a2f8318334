//! The network of one running stack, owned by its supervisor.

use super::address::{Addresses, Assigned, mac};
use super::dns::{Server, Zone};
use super::files::{self, Resolv};
use super::firewall;
use super::foreign::{Abroad, Reached};
use super::link;
use super::listening::ListenTable;
use super::ports::{Publisher, Publishing};
use super::records::{self, NetworkRecord};
use super::shared;
use super::uplink::{Uplink, UplinkState};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::home::Home;
use crate::observed::PublishedPort;
use crate::spec::{ContainerSpec, EndpointSpec, NetworkMode, PortSpec};
use crate::sys::netns::Worker;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
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

/// See the module. Methods may be called from many tasks at once.
#[derive(Debug)]
pub struct StackNetwork {
    pub(super) home: Home,
    pub(super) project: String,
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
    /// Makes links in the stack's namespace.
    pub(super) links: Arc<Worker>,
    pub(super) publisher: Publisher,
    /// Visits single containers to open sockets there.
    pub(super) sockets: Arc<Worker>,
    pub(super) host: Arc<Worker>,
    pub(super) zone: Arc<Zone>,
    pub(super) uplink: Uplink,
    pub(super) state: Mutex<State>,
    /// Makes the bridges one after the other.
    pub(super) bridges: tokio::sync::Mutex<HashMap<String, NetworkRecord>>,
    pub(super) abroad: Abroad,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) addresses: Addresses,
    pub(super) members: HashMap<String, Joined>,
    /// Networks that several projects use.
    pub(super) shared: HashSet<String>,
}

/// A connected container. Dropping it ends its resolver and its ports.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) endpoints: Vec<Assigned>,
    pub(super) table: Option<Arc<ListenTable>>,
    pub(super) resolver: Option<Server>,
    pub(super) publishing: Vec<Publishing>,
    /// Networks of other projects that it is on.
    pub(super) foreign: HashSet<String>,
    /// Those whose namespace could be entered: all, but after a crash of everybody who held one.
    pub(super) reached: Reached,
}

impl Joined {
    /// Its ports are free when this returns.
    async fn close(self) {
        for publishing in self.publishing {
            publishing.close().await;
        }
    }
}

/// Whether links are made (start) or found (adoption).
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Purpose {
    Start,
    Adopt,
}

impl StackNetwork {
    /// Takes the stack's namespace. Call it inside the async runtime; nothing is awaited
    /// and nothing is made but threads, so it costs well under a millisecond.
    pub fn open(home: &Home, project: &str, stack_netns: OwnedFd, host: Host) -> Result<Self> {
        many_descriptors();
        let (stack, outside) = (Arc::new(stack_netns), Arc::new(host.netns));
        let start = |name: &str, netns: &Arc<OwnedFd>| {
            Worker::start(name, netns.clone()).map_err(|e| failed("open the stack's network", e))
        };
        let links = Arc::new(start("net-links", &stack)?);
        let (inner, outer) = (Arc::new(start("net-stack", &stack)?), Arc::new(start("net-host", &outside)?));
        Ok(Self {
            home: home.clone(),
            project: project.to_owned(),
            resolv_conf: host.resolv_conf,
            hosts: host.hosts,
            links: links.clone(),
            publisher: Publisher::new(outer.clone(), inner.clone()),
            sockets: inner,
            host: outer,
            zone: Arc::default(),
            uplink: Uplink::new(home.run_of(project), links, outside),
            state: Mutex::default(),
            bridges: tokio::sync::Mutex::default(),
            abroad: Abroad::default(),
        })
    }

    /// The bridge of a network of this project, if it is not there yet. A network with a way out starts the uplink.
    pub async fn ensure(&self, record: &NetworkRecord) -> Result<()> {
        let mut bridges = self.bridges.lock().await;
        if bridges.contains_key(record.name()) {
            return Ok(());
        }
        let (name, mtu) = (record.bridge.clone(), record.mtu);
        let gateways: Vec<_> = record.pools.iter().map(|p| (p.gateway, p.subnet.prefix())).collect();
        let mac = mac(&EndpointSpec::default(), &gateways)?;
        let ipv6 = !record.observed.internal && record.pool(false).is_some();
        let made = self.links.run(move || {
            link::ensure_bridge(&name, mac, &gateways, mtu)?;
            if ipv6 {
                firewall::forward_ipv6();
            }
            Ok(())
        });
        let made = made.await;
        made.map_err(|e| failed(&format!("make network {}", record.name()), e))?;
        bridges.insert(record.name().to_owned(), record.clone());
        if shared::is_shared(&self.home, record.name()) {
            self.mark_shared(&mut self.state.lock().expect("no holder panics"), record.name());
        }
        if !record.observed.internal {
            self.uplink.start();
        }
        Ok(())
    }

    /// Addresses, links, files, names and ports of a container, before its program starts.
    /// Missing bridges are made from the records. On error nothing is left.
    pub async fn connect(&self, request: ConnectRequest<'_>) -> Result<Connected> {
        self.join(request, Purpose::Start).await
    }

    /// After a supervisor's crash: names and the same ports again for a container that runs.
    /// A port that somebody took in between is a warning, not an error.
    pub async fn adopt(&self, request: ConnectRequest<'_>) -> Result<Connected> {
        self.join(request, Purpose::Adopt).await
    }

    async fn join(&self, request: ConnectRequest<'_>, purpose: Purpose) -> Result<Connected> {
        if purpose == Purpose::Start {
            check_addresses(request.spec)?;
            // What is left of an earlier run must not stand in the way of this one.
            self.disconnect(request.id).await;
        }
        match &request.spec.network {
            NetworkMode::Bridge(endpoints) if endpoints.is_empty() => {
                self.join_nothing(request, purpose).await
            }
            NetworkMode::Bridge(endpoints) => self.join_bridges(&request, endpoints, purpose).await,
            NetworkMode::None => self.join_nothing(request, purpose).await,
            NetworkMode::Host => self.share_host(&request, purpose),
            NetworkMode::Container(_) | NetworkMode::Inherit => Ok(Connected::default()),
        }
    }

    /// The container ended: its names, ports and addresses are free when this returns. Unknown ids are fine.
    pub async fn disconnect(&self, id: &str) {
        self.zone.remove(id);
        self.withdraw(id);
        let left = self.state.lock().expect("no holder panics").members.remove(id);
        if let Some(joined) = left {
            joined.close().await;
        }
        self.state.lock().expect("no holder panics").addresses.release(id);
    }

    /// Publishes further ports of a connected container.
    pub async fn publish(&self, id: &str, ports: &[PortSpec]) -> Result<Vec<PublishedPort>> {
        let (publisher, target, table) = self.target(id)?;
        let publishing = publisher.publish(ports, target, table).await?;
        let published = publishing.ports().to_vec();
        if let Some(joined) = self.state.lock().expect("no holder panics").members.get_mut(id) {
            joined.publishing.push(publishing);
        }
        Ok(published)
    }

    /// A container has just become healthy: its published ports listen without waiting for
    /// the next look.
    pub fn refresh(&self, id: &str) {
        let state = self.state.lock().expect("no holder panics");
        state.members.get(id).into_iter().flat_map(|j| &j.publishing).for_each(Publishing::refresh);
    }

    /// TCP sockets that listen inside a connected container, loopback included.
    pub fn listening(&self, id: &str) -> Vec<SocketAddr> {
        let state = self.state.lock().expect("no holder panics");
        let table = state.members.get(id).and_then(|j| j.table.clone());
        drop(state);
        table.map(|t| t.listening()).unwrap_or_default()
    }

    /// Removes a bridge; refused while a running container is on it.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let mut bridges = self.bridges.lock().await;
        let mut users = self.users(name);
        users.extend(shared::guests(&self.home, name, &self.project)?);
        if !users.is_empty() {
            return Err(records::in_use(name, &users));
        }
        self.unmark_shared(name);
        let known = match bridges.remove(name) {
            Some(record) => Some(record),
            None => records::read(&self.home, name)?,
        };
        let Some(record) = known else { return Ok(()) };
        let removed = self.links.run(move || link::remove(&record.bridge)).await;
        removed.map_err(|e| failed(&format!("remove network {name}"), e))
    }

    /// How the way out is doing. Nothing waits for it; a warning is to be shown once.
    pub fn uplink(&self) -> watch::Receiver<UplinkState> {
        self.uplink.state()
    }

    /// The end of the stack: ports, names and the uplink go. Not called in a crash.
    pub async fn close(&self) {
        let members = std::mem::take(&mut self.state.lock().expect("no holder panics").members);
        for (id, joined) in members {
            self.zone.remove(&id);
            self.withdraw(&id);
            joined.close().await;
        }
        self.uplink.stop().await;
    }

    fn users(&self, network: &str) -> Vec<String> {
        let state = self.state.lock().expect("no holder panics");
        let on = |joined: &Joined| joined.endpoints.iter().any(|e| e.network == network);
        let mut users: Vec<String> = state
            .members
            .iter()
            .filter(|(_, j)| on(j))
            .map(|(id, _)| files::short_id(id).to_owned())
            .collect();
        users.sort();
        users
    }

    /// From where a container is reached at which address, and what listens in it. A network of this stack first.
    fn target(&self, id: &str) -> Result<(Publisher, IpAddr, Arc<ListenTable>)> {
        let state = self.state.lock().expect("no holder panics");
        let joined = state.members.get(id);
        let found = joined.and_then(|joined| {
            let is_foreign = |e: &&Assigned| joined.foreign.contains(&e.network);
            let own = joined.endpoints.iter().find(|e| !is_foreign(e));
            let abroad = || joined.endpoints.iter().find(|e| joined.reached.contains_key(&e.network));
            let endpoint = own.or_else(abroad)?;
            let foreign = joined.reached.get(&endpoint.network);
            let publisher = foreign.map_or_else(|| self.publisher.clone(), |f| self.publisher_by(f));
            Some((publisher, endpoint.first()?, joined.table.clone()?))
        });
        found.ok_or_else(|| {
            EngineError::new(
                ErrorKind::NotFound,
                format!("container {} is on no network", files::short_id(id)),
            )
        })
    }
}

/// Containers without bridges.
impl StackNetwork {
    async fn join_nothing(&self, request: ConnectRequest<'_>, purpose: Purpose) -> Result<Connected> {
        let netns = request.netns;
        let up = self.links.run(move || link::loopback(&netns));
        up.await.map_err(|e| failed("bring up loopback", e))?;
        let mut warnings = Vec::new();
        if purpose == Purpose::Start {
            let extra = self.extra_hosts(request.spec, &mut warnings).await;
            let hosts = files::hosts(request.spec, request.id, &[], &extra);
            self.write_host_files(
                request.spec,
                request.id,
                request.dir,
                &hosts,
                files::hostname(request.spec, request.id),
            )?;
        }
        Ok(Connected { warnings, ..Connected::default() })
    }

    fn share_host(&self, request: &ConnectRequest<'_>, purpose: Purpose) -> Result<Connected> {
        let mut warnings = Vec::new();
        if !request.spec.ports.is_empty() {
            warnings.push("Published ports are discarded when using host network mode".into());
        }
        if purpose == Purpose::Start {
            let mut hosts =
                std::fs::read_to_string(&self.hosts).unwrap_or_else(|_| files::LOOPBACK.to_owned());
            let gateway = |(h, a): &(String, String)| {
                (h.clone(), if a == HOST_GATEWAY { "127.0.0.1".into() } else { a.clone() })
            };
            let extra: Vec<_> = request.spec.extra_hosts.iter().map(gateway).collect();
            files::append_hosts(&mut hosts, &extra);
            let own = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok());
            let name = request.spec.hostname.clone().or(own).unwrap_or_else(|| "localhost".into());
            self.write_host_files(request.spec, request.id, request.dir, &hosts, &name)?;
        }
        Ok(Connected { warnings, ..Connected::default() })
    }

    fn write_host_files(
        &self,
        spec: &ContainerSpec,
        id: &str,
        dir: &Path,
        hosts: &str,
        hostname: &str,
    ) -> Result<()> {
        let resolv = files::host_resolv(&spec.dns, &Resolv::read(&self.resolv_conf));
        let written = files::write_all(dir, hosts, hostname, &resolv);
        written.map_err(|e| failed(&format!("write the hosts files of {}", files::short_id(id)), e))
    }
}

/// The word that stands for the host's address in `extra_hosts`.
pub(super) const HOST_GATEWAY: &str = "host-gateway";

/// Addresses the user wrote.
fn check_addresses(spec: &ContainerSpec) -> Result<()> {
    let wrong =
        |what: &str, text: &str| Err(EngineError::new(ErrorKind::Other, format!("invalid {what}: {text}")));
    if let Some(server) = spec.dns.servers.iter().find(|s| s.parse::<IpAddr>().is_err()) {
        return wrong("DNS address", server);
    }
    let is_address = |text: &str| text == HOST_GATEWAY || text.parse::<IpAddr>().is_ok();
    match spec.extra_hosts.iter().find(|(_, address)| !is_address(address)) {
        Some((host, address)) => wrong("IP address in extra_hosts", &format!("{host}={address}")),
        None => Ok(()),
    }
}

/// A published connection takes six descriptors, and the usual soft limit is 1,024 of them.
fn many_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

pub(super) fn failed(what: &str, error: impl std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("failed to {what}: {error}"))
}

/// The address from which this host speaks to others: nothing is sent to find it.
pub(super) fn host_address() -> io::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}
