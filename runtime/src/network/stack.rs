//! The network of one running stack, owned by its supervisor.

use super::address::{Addresses, Assigned, NetFile, gateways, mac};
use super::dns::{Member, Server, Upstream, Zone, server::Sockets};
use super::files::{self, Resolv};
use super::link::{self, LinkPlan};
use super::listening::ListenTable;
use super::ports::{Publisher, Publishing};
use super::records::{self, NetworkRecord};
use super::uplink::{Uplink, UplinkState};
use super::{RESOLVER, firewall};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::home::{self, Home};
use crate::observed::PublishedPort;
use crate::spec::{ContainerSpec, EndpointSpec, NetworkMode, PortSpec};
use crate::sys::netns::{Worker, visit};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// A container's file with its addresses and ports, in its folder.
const NET_FILE: &str = "net.json";

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
    home: Home,
    project: String,
    resolv_conf: PathBuf,
    hosts: PathBuf,
    /// Makes links in the stack's namespace.
    links: Arc<Worker>,
    publisher: Publisher,
    /// Visits single containers to open sockets there.
    sockets: Arc<Worker>,
    host: Arc<Worker>,
    zone: Arc<Zone>,
    uplink: Uplink,
    state: Mutex<State>,
    /// Makes the bridges one after the other.
    bridges: tokio::sync::Mutex<HashMap<String, NetworkRecord>>,
}

#[derive(Debug, Default)]
struct State {
    addresses: Addresses,
    members: HashMap<String, Joined>,
}

/// A connected container. Dropping it ends its resolver and its ports.
#[derive(Debug, Default)]
struct Joined {
    endpoints: Vec<Assigned>,
    table: Option<Arc<ListenTable>>,
    resolver: Option<Server>,
    publishing: Vec<Publishing>,
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
enum Purpose {
    Start,
    Adopt,
}

impl StackNetwork {
    /// Takes the stack's namespace. Call it inside the async runtime; nothing is awaited
    /// and nothing is made but threads, so it costs well under a millisecond.
    pub fn open(home: &Home, project: &str, stack_netns: OwnedFd, host: Host) -> Result<Self> {
        many_descriptors();
        let (stack, outside) = (Arc::new(stack_netns), Arc::new(host.netns));
        let start = |name: &str, netns: &Arc<OwnedFd>| Worker::start(name, netns.clone()).map_err(|e| failed("open the stack's network", e));
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
        })
    }

    /// The bridge of a network, if it is not there yet. A network with a way out starts the uplink.
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
            NetworkMode::Bridge(endpoints) if endpoints.is_empty() => self.join_nothing(request, purpose).await,
            NetworkMode::Bridge(endpoints) => self.join_bridges(&request, endpoints, purpose).await,
            NetworkMode::None => self.join_nothing(request, purpose).await,
            NetworkMode::Host => self.share_host(&request, purpose),
            NetworkMode::Container(_) | NetworkMode::Inherit => Ok(Connected::default()),
        }
    }

    /// The container ended: its names, ports and addresses are free when this returns. Unknown ids are fine.
    pub async fn disconnect(&self, id: &str) {
        self.zone.remove(id);
        let left = self.state.lock().expect("no holder panics").members.remove(id);
        if let Some(joined) = left {
            joined.close().await;
        }
        self.state.lock().expect("no holder panics").addresses.release(id);
    }

    /// Publishes further ports of a connected container.
    pub async fn publish(&self, id: &str, ports: &[PortSpec]) -> Result<Vec<PublishedPort>> {
        let (target, table) = self.target(id)?;
        let publishing = self.publisher.publish(ports, target, table).await?;
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
        let users = self.users(name);
        if !users.is_empty() {
            let message = format!("network {name} has active endpoints ({})", users.join(", "));
            return Err(EngineError::new(ErrorKind::Conflict, message));
        }
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
            joined.close().await;
        }
        self.uplink.stop().await;
    }

    fn users(&self, network: &str) -> Vec<String> {
        let state = self.state.lock().expect("no holder panics");
        let on = |joined: &Joined| joined.endpoints.iter().any(|e| e.network == network);
        let mut users: Vec<String> = state.members.iter().filter(|(_, j)| on(j)).map(|(id, _)| files::short_id(id).to_owned()).collect();
        users.sort();
        users
    }

    /// Where a container is reached from the stack's namespace, and what listens in it.
    fn target(&self, id: &str) -> Result<(IpAddr, Arc<ListenTable>)> {
        let state = self.state.lock().expect("no holder panics");
        let joined = state.members.get(id);
        let found = joined.and_then(|j| Some((j.endpoints.first()?.first()?, j.table.clone()?)));
        found.ok_or_else(|| EngineError::new(ErrorKind::NotFound, format!("container {} is on no network", files::short_id(id))))
    }
}

/// Containers on bridges.
impl StackNetwork {
    async fn join_bridges(&self, request: &ConnectRequest<'_>, endpoints: &[EndpointSpec], purpose: Purpose) -> Result<Connected> {
        let records = self.records(endpoints).await?;
        let before = read_before(request.dir);
        let joined: Vec<(&NetworkRecord, &EndpointSpec)> = records.iter().zip(endpoints).collect();
        let endpoints = self.assign(request.id, &joined, &before, purpose)?;
        match self.bring_up(request, &joined, endpoints, &before, purpose).await {
            Ok(connected) => Ok(connected),
            Err(error) => {
                self.disconnect(request.id).await;
                Err(error)
            }
        }
    }

    /// The records of the networks, their bridges made.
    async fn records(&self, endpoints: &[EndpointSpec]) -> Result<Vec<NetworkRecord>> {
        let mut found = Vec::new();
        for endpoint in endpoints {
            let name = &endpoint.network;
            let known = self.bridges.lock().await.get(name).cloned();
            let record = match known {
                Some(record) => record,
                None => records::read(&self.home, name)?
                    .ok_or_else(|| EngineError::new(ErrorKind::NotFound, format!("network {name} not found")))?,
            };
            self.ensure(&record).await?;
            found.push(record);
        }
        Ok(found)
    }

    /// A network that another project made is, in this stack's namespace, a bridge of its own.
    fn foreign(&self, record: &NetworkRecord) -> Option<String> {
        (record.project != self.project).then(|| {
            let (name, owner) = (record.name(), &record.project);
            format!("network {name} belongs to project {owner}: containers of the two stacks do not reach each other on it yet")
        })
    }

    fn assign(&self, id: &str, joined: &[(&NetworkRecord, &EndpointSpec)], before: &NetFile, purpose: Purpose) -> Result<Vec<Assigned>> {
        let mut state = self.state.lock().expect("no holder panics");
        if purpose == Purpose::Adopt {
            for endpoint in &before.endpoints {
                endpoint.addresses.iter().for_each(|(a, _)| state.addresses.hold(&endpoint.network, *a, id));
            }
            return Ok(before.endpoints.clone());
        }
        state.addresses.release(id);
        let mut assigned = Vec::new();
        for (index, (record, endpoint)) in joined.iter().enumerate() {
            let result = assign_one(&mut state.addresses, id, index, record, endpoint, before);
            match result {
                Ok(one) => assigned.push(one),
                Err(error) => {
                    state.addresses.release(id);
                    return Err(error);
                }
            }
        }
        Ok(assigned)
    }

    async fn bring_up(
        &self,
        request: &ConnectRequest<'_>,
        joined: &[(&NetworkRecord, &EndpointSpec)],
        endpoints: Vec<Assigned>,
        before: &NetFile,
        purpose: Purpose,
    ) -> Result<Connected> {
        let netns = Arc::new(request.netns.try_clone().map_err(|e| failed("keep the container's namespace", e))?);
        let mut warnings: Vec<String> = joined.iter().filter_map(|(record, _)| self.foreign(record)).collect();
        if purpose == Purpose::Start {
            self.make_links(joined, &endpoints, &netns).await?;
            self.write_files(request, &endpoints, &mut warnings).await?;
        }
        let redirect = serves_names(request.spec);
        let (sockets, table) = self.open_inside(&netns, redirect).await?;
        self.insert(request, &endpoints, table.clone());
        self.start_resolver(request, joined, netns, sockets, &mut warnings);
        self.announce(request, joined, &endpoints);
        // As in Docker, ports of a container that nobody outside can reach are accepted and not bound.
        let published = if joined.iter().all(|(r, _)| r.observed.internal) {
            Vec::new()
        } else {
            self.publish_all(request, before, purpose, &mut warnings).await?
        };
        let file = NetFile { endpoints, published };
        home::replace_json(&request.dir.join(NET_FILE), &file).map_err(|e| failed("record the container's network", e))?;
        let addresses = file.endpoints.iter().filter_map(|e| Some((e.network.clone(), e.first()?.to_string()))).collect();
        Ok(Connected { addresses, published: file.published, warnings })
    }

    async fn make_links(&self, joined: &[(&NetworkRecord, &EndpointSpec)], endpoints: &[Assigned], netns: &Arc<OwnedFd>) -> Result<()> {
        let plan = |((record, _), e): (&(&NetworkRecord, &EndpointSpec), &Assigned)| LinkPlan {
            host_link: e.host_link.clone(),
            bridge: record.bridge.clone(),
            interface: e.interface.clone(),
            mac: e.mac,
            addresses: e.addresses.clone(),
            mtu: record.mtu,
        };
        let plans: Vec<LinkPlan> = joined.iter().zip(endpoints).map(plan).collect();
        let priorities: Vec<_> = joined.iter().map(|(r, e)| (*r, e.gw_priority)).collect();
        let routes = gateways(&priorities);
        let (home, netns) = (self.links.home().clone(), netns.clone());
        let made = self.links.run(move || {
            link::attach(&home, &netns, &plans, &routes).inspect_err(|_| undo(&plans))
        });
        made.await.map_err(|e| failed("connect the container", e))
    }

    async fn write_files(&self, request: &ConnectRequest<'_>, endpoints: &[Assigned], warnings: &mut Vec<String>) -> Result<()> {
        let own: Vec<IpAddr> = endpoints.iter().flat_map(|e| e.addresses.iter().map(|(a, _)| *a)).collect();
        let extra = self.extra_hosts(request.spec, warnings).await;
        let hosts = files::hosts(request.spec, request.id, &own, &extra);
        let resolv = files::embedded_resolv(&request.spec.dns, &Resolv::read(&self.resolv_conf));
        let hostname = files::hostname(request.spec, request.id);
        files::write_all(request.dir, &hosts, hostname, &resolv).map_err(|e| failed("write the container's hosts files", e))
    }

    /// The user's lines with `host-gateway` made an address.
    async fn extra_hosts(&self, spec: &ContainerSpec, warnings: &mut Vec<String>) -> Vec<(String, String)> {
        let mut lines = spec.extra_hosts.clone();
        if lines.iter().any(|(_, address)| address == HOST_GATEWAY) {
            match self.host.run(host_address).await {
                Ok(host) => {
                    let wanted = lines.iter_mut().filter(|(_, a)| a == HOST_GATEWAY);
                    wanted.for_each(|(_, a)| *a = host.to_string());
                }
                Err(_) => {
                    lines.retain(|(_, a)| a != HOST_GATEWAY);
                    warnings.push("`host-gateway` is left out of `extra_hosts`: this host has no address of its own".into());
                }
            }
        }
        lines
    }

    /// Opens the resolver's sockets and the TCP tables inside the container's namespace.
    /// A container that serves port 53 itself keeps it: ours get another port, and packets to
    /// the resolver's port 53 are turned to it.
    async fn open_inside(&self, netns: &Arc<OwnedFd>, redirect: bool) -> Result<(io::Result<Sockets>, Arc<ListenTable>)> {
        let (netns, home) = (netns.clone(), self.sockets.home().clone());
        let opened = self.sockets.run(move || {
            visit(&netns, &home, || {
                let sockets = if redirect { redirected_sockets() } else { Sockets::bind(RESOLVER, 53) };
                Ok((sockets, Arc::new(ListenTable::open()?)))
            })
        });
        opened.await.map_err(|e| failed("enter the container's network", e))
    }

    fn insert(&self, request: &ConnectRequest<'_>, endpoints: &[Assigned], table: Arc<ListenTable>) {
        let joined = Joined { endpoints: endpoints.to_vec(), table: Some(table), ..Joined::default() };
        self.state.lock().expect("no holder panics").members.insert(request.id.to_owned(), joined);
    }

    fn start_resolver(
        &self,
        request: &ConnectRequest<'_>,
        joined: &[(&NetworkRecord, &EndpointSpec)],
        netns: Arc<OwnedFd>,
        sockets: io::Result<Sockets>,
        warnings: &mut Vec<String>,
    ) {
        let servers: Vec<IpAddr> = request.spec.dns.servers.iter().filter_map(|s| s.parse().ok()).collect();
        let upstream = if !servers.is_empty() {
            Upstream::Own { worker: self.sockets.clone(), netns, servers }
        } else if joined.iter().all(|(r, _)| r.observed.internal) {
            Upstream::Nobody
        } else {
            Upstream::Host { worker: self.host.clone(), resolv_conf: self.resolv_conf.clone() }
        };
        let started = sockets.and_then(|s| Server::start(s, self.zone.clone(), request.id, upstream));
        match started {
            Ok(server) => {
                if let Some(joined) = self.state.lock().expect("no holder panics").members.get_mut(request.id) {
                    joined.resolver = Some(server);
                }
            }
            Err(error) => warnings.push(format!("names do not resolve in {}: {error}", request.spec.name)),
        }
    }

    fn announce(&self, request: &ConnectRequest<'_>, joined: &[(&NetworkRecord, &EndpointSpec)], endpoints: &[Assigned]) {
        let own = [request.spec.name.as_str(), files::short_id(request.id), files::hostname(request.spec, request.id)];
        let member = |((_, spec), assigned): (&(&NetworkRecord, &EndpointSpec), &Assigned)| Member {
            network: assigned.network.clone(),
            addresses: assigned.addresses.iter().map(|(a, _)| *a).collect(),
            names: own.iter().map(|n| (*n).to_owned()).chain(spec.aliases.iter().cloned()).collect(),
        };
        let members: Vec<Member> = joined.iter().zip(endpoints).map(member).collect();
        self.zone.insert(request.id, &members);
    }

    async fn publish_all(
        &self,
        request: &ConnectRequest<'_>,
        before: &NetFile,
        purpose: Purpose,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<PublishedPort>> {
        if request.spec.ports.is_empty() {
            return Ok(Vec::new());
        }
        if purpose == Purpose::Start {
            return self.publish(request.id, &request.spec.ports).await;
        }
        let mut published = Vec::new();
        for port in as_before(&before.published) {
            match self.publish(request.id, &[port]).await {
                Ok(ports) => published.extend(ports),
                Err(error) => warnings.push(error.message),
            }
        }
        Ok(published)
    }
}

/// Containers without bridges.
impl StackNetwork {
    async fn join_nothing(&self, request: ConnectRequest<'_>, purpose: Purpose) -> Result<Connected> {
        let (home, netns) = (self.links.home().clone(), request.netns);
        let up = self.links.run(move || link::loopback(&home, &netns));
        up.await.map_err(|e| failed("bring up loopback", e))?;
        let mut warnings = Vec::new();
        if purpose == Purpose::Start {
            let extra = self.extra_hosts(request.spec, &mut warnings).await;
            let hosts = files::hosts(request.spec, request.id, &[], &extra);
            self.write_host_files(request.spec, request.id, request.dir, &hosts, files::hostname(request.spec, request.id))?;
        }
        Ok(Connected { warnings, ..Connected::default() })
    }

    fn share_host(&self, request: &ConnectRequest<'_>, purpose: Purpose) -> Result<Connected> {
        let mut warnings = Vec::new();
        if !request.spec.ports.is_empty() {
            warnings.push("Published ports are discarded when using host network mode".into());
        }
        if purpose == Purpose::Start {
            let mut hosts = std::fs::read_to_string(&self.hosts).unwrap_or_else(|_| files::LOOPBACK.to_owned());
            let gateway = |(h, a): &(String, String)| (h.clone(), if a == HOST_GATEWAY { "127.0.0.1".into() } else { a.clone() });
            let extra: Vec<_> = request.spec.extra_hosts.iter().map(gateway).collect();
            files::append_hosts(&mut hosts, &extra);
            let own = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok());
            let name = request.spec.hostname.clone().or(own).unwrap_or_else(|| "localhost".into());
            self.write_host_files(request.spec, request.id, request.dir, &hosts, &name)?;
        }
        Ok(Connected { warnings, ..Connected::default() })
    }

    fn write_host_files(&self, spec: &ContainerSpec, id: &str, dir: &Path, hosts: &str, hostname: &str) -> Result<()> {
        let resolv = files::host_resolv(&spec.dns, &Resolv::read(&self.resolv_conf));
        let written = files::write_all(dir, hosts, hostname, &resolv);
        written.map_err(|e| failed(&format!("write the hosts files of {}", files::short_id(id)), e))
    }
}

/// The word that stands for the host's address in `extra_hosts`.
const HOST_GATEWAY: &str = "host-gateway";

/// Addresses the user wrote.
fn check_addresses(spec: &ContainerSpec) -> Result<()> {
    let wrong = |what: &str, text: &str| Err(EngineError::new(ErrorKind::Other, format!("invalid {what}: {text}")));
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
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("failed to {what}: {error}"))
}

/// The record of the previous run; a damaged one is as good as none.
fn read_before(dir: &Path) -> NetFile {
    home::read_json(&dir.join(NET_FILE)).ok().flatten().unwrap_or_default()
}

fn assign_one(
    addresses: &mut Addresses,
    id: &str,
    index: usize,
    record: &NetworkRecord,
    endpoint: &EndpointSpec,
    before: &NetFile,
) -> Result<Assigned> {
    let had = before.endpoints.iter().filter(|e| e.network == endpoint.network).flat_map(|e| &e.addresses);
    let had: Vec<IpAddr> = had.map(|(a, _)| *a).collect();
    let given = addresses.assign(record, endpoint, id, &had)?;
    let random = getrandom::u64().map_err(|e| failed("name an interface", e))?;
    Ok(Assigned {
        network: endpoint.network.clone(),
        mac: mac(endpoint, &given)?,
        addresses: given,
        interface: endpoint.interface.clone().unwrap_or_else(|| format!("eth{index}")),
        // Never reused: the link of an ended container may outlive it for a moment.
        host_link: format!("v{:012x}", random >> 16),
    })
}

fn undo(plans: &[LinkPlan]) {
    for plan in plans {
        if let Err(error) = link::remove(&plan.host_link) {
            tracing::debug!(%error, "a half-made link stays until its namespace goes");
        }
    }
}

/// Whether the container says it serves port 53 itself.
fn serves_names(spec: &ContainerSpec) -> bool {
    let exposed = |text: &String| text.split('/').next() == Some("53");
    spec.exposed.iter().any(exposed) || spec.ports.iter().any(|p| p.target == 53)
}

/// Sockets on a free port, with packets to port 53 turned to it.
fn redirected_sockets() -> io::Result<Sockets> {
    let sockets = Sockets::bind(RESOLVER, 0)?;
    firewall::redirect_names(RESOLVER, sockets.port()?)?;
    Ok(sockets)
}

/// The address from which this host speaks to others: nothing is sent to find it.
pub(super) fn host_address() -> io::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}

/// The wishes that lead to the same host ports again. A pair of both families is one wish.
fn as_before(published: &[PublishedPort]) -> Vec<PortSpec> {
    let mut wishes: Vec<PortSpec> = Vec::new();
    for port in published {
        let any = port.host_ip == "0.0.0.0" || port.host_ip == "::";
        let wish = PortSpec {
            host_ip: (!any).then(|| port.host_ip.clone()),
            published: (port.host_port, port.host_port),
            target: port.target,
            protocol: port.protocol,
        };
        if !wishes.contains(&wish) {
            wishes.push(wish);
        }
    }
    wishes
}
