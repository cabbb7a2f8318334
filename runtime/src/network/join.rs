//! A container joins its networks: addresses, links, files, names and ports, in this order.

use super::address::{Addresses, Assigned, NetFile, gateways, mac};
use super::dns::{Member, Server, Upstream, server::Sockets};
use super::files::{self, Resolv};
use super::foreign::{Reached, refuse_overlap};
use super::link::{self, LinkPlan};
use super::listening::ListenTable;
use super::records::{self, NetworkRecord};
use super::stack::{
    ConnectRequest, Connected, HOST_GATEWAY, Joined, Purpose, StackNetwork, failed, host_address,
};
use super::{RESOLVER, firewall};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::home;
use crate::observed::PublishedPort;
use crate::spec::{ContainerSpec, EndpointSpec, NetworkMode, PortSpec};
use crate::sys::netns::visit;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// A container's file with its addresses and ports, in its folder.
const NET_FILE: &str = "net.json";

/// Containers on bridges.
impl StackNetwork {
    pub(super) async fn join_bridges(
        &self,
        request: &ConnectRequest<'_>,
        endpoints: &[EndpointSpec],
        purpose: Purpose,
    ) -> Result<Connected> {
        let records = self.records(endpoints).await?;
        if purpose == Purpose::Start {
            refuse_overlap(&records)?;
        }
        let mut warnings = Vec::new();
        let reached = self.reach_all(&records, purpose, &mut warnings).await?;
        let before = read_before(request.dir);
        let joined: Vec<(&NetworkRecord, &EndpointSpec)> = records.iter().zip(endpoints).collect();
        let endpoints = self.assign(request, &joined, &before, purpose, &reached);
        let endpoints = endpoints.inspect_err(|_| self.withdraw(request.id))?;
        match self.bring_up(request, &joined, endpoints, &before, purpose, reached).await {
            Ok(mut connected) => {
                connected.warnings.splice(..0, warnings);
                Ok(connected)
            }
            Err(error) => {
                self.disconnect(request.id).await;
                Err(error)
            }
        }
    }

    /// The records of the networks, the bridges of our own made.
    async fn records(&self, endpoints: &[EndpointSpec]) -> Result<Vec<NetworkRecord>> {
        let mut found = Vec::new();
        for endpoint in endpoints {
            let name = &endpoint.network;
            let known = self.bridges.lock().await.get(name).cloned();
            let record = match known {
                Some(record) => record,
                None => records::read(&self.home, name)?.ok_or_else(|| {
                    EngineError::new(ErrorKind::NotFound, format!("network {name} not found"))
                })?,
            };
            if !self.is_foreign(&record) {
                self.ensure(&record).await?;
            }
            found.push(record);
        }
        Ok(found)
    }

    /// The container has another name: it is found by the new one at once, and no longer by the old one.
    ///
    /// # Errors
    /// When the other stacks on a shared network cannot be told.
    pub fn rename(&self, id: &str, spec: &ContainerSpec) -> Result<()> {
        let state = self.state.lock().expect("no holder panics");
        let Some(joined) = state.members.get(id) else { return Ok(()) };
        let members = members(id, spec, &joined.endpoints);
        self.zone.insert(id, &members, &spec.links);
        let _lock = if state.shared.is_empty() { None } else { Some(self.registry()?) };
        let mut shared = members.into_iter().filter(|member| state.shared.contains(&member.network));
        shared.try_for_each(|member| self.register(id, member, &joined.reached))
    }

    fn assign(
        &self,
        request: &ConnectRequest<'_>,
        joined: &[(&NetworkRecord, &EndpointSpec)],
        before: &NetFile,
        purpose: Purpose,
        reached: &Reached,
    ) -> Result<Vec<Assigned>> {
        let mut state = self.state.lock().expect("no holder panics");
        let networks: Vec<_> =
            joined.iter().map(|(r, _)| r.name()).filter(|n| state.shared.contains(*n)).collect();
        let _lock = if networks.is_empty() { None } else { Some(self.registry()?) };
        if purpose == Purpose::Start {
            networks.iter().try_for_each(|network| self.learn_others(&mut state, network))?;
        }
        let assigned = assign_all(&mut state.addresses, request.id, joined, before, purpose);
        let assigned = assigned.and_then(|assigned| {
            let members = members(request.id, request.spec, &assigned);
            let mut shared = members.into_iter().filter(|m| state.shared.contains(&m.network));
            shared.try_for_each(|member| self.register(request.id, member, reached))?;
            Ok(assigned)
        });
        assigned.inspect_err(|_| state.addresses.release(request.id))
    }

    async fn bring_up(
        &self,
        request: &ConnectRequest<'_>,
        joined: &[(&NetworkRecord, &EndpointSpec)],
        endpoints: Vec<Assigned>,
        before: &NetFile,
        purpose: Purpose,
        reached: Reached,
    ) -> Result<Connected> {
        let netns =
            Arc::new(request.netns.try_clone().map_err(|e| failed("keep the container's namespace", e))?);
        let mut warnings = Vec::new();
        if purpose == Purpose::Start {
            self.make_links(joined, &endpoints, &netns, &reached).await?;
            self.write_files(request, &endpoints, &mut warnings).await?;
        }
        let redirect = serves_names(request.spec);
        let (sockets, table) = self.open_inside(&netns, redirect).await?;
        self.insert(request, joined, &endpoints, table.clone(), reached);
        self.start_resolver(request, joined, netns, sockets, &mut warnings);
        self.zone.insert(request.id, &members(request.id, request.spec, &endpoints), &request.spec.links);
        // As in Docker, ports of a container that nobody outside can reach are accepted and not bound.
        let published = if joined.iter().all(|(r, _)| r.observed.internal) {
            Vec::new()
        } else {
            self.publish_all(request, before, purpose, &mut warnings).await?
        };
        let file = NetFile { endpoints, published };
        home::replace_json(&request.dir.join(NET_FILE), &file)
            .map_err(|e| failed("record the container's network", e))?;
        let addresses =
            file.endpoints.iter().filter_map(|e| Some((e.network.clone(), e.first()?.to_string()))).collect();
        Ok(Connected { addresses, published: file.published, warnings })
    }

    async fn make_links(
        &self,
        joined: &[(&NetworkRecord, &EndpointSpec)],
        endpoints: &[Assigned],
        netns: &Arc<OwnedFd>,
        reached: &Reached,
    ) -> Result<()> {
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
        let mut own = Vec::new();
        for (plan, endpoint) in plans.iter().zip(endpoints) {
            match reached.get(&endpoint.network) {
                Some(foreign) => foreign.plug(plan.clone(), netns.clone()).await?,
                None => own.push(plan.clone()),
            }
        }
        let netns = netns.clone();
        let made = self.links.run(move || {
            let made = link::plug(&netns, &own).and_then(|()| link::set_up(&netns, &plans, &routes));
            made.inspect_err(|_| undo(&own))
        });
        made.await.map_err(|e| failed("connect the container", e))
    }

    async fn write_files(
        &self,
        request: &ConnectRequest<'_>,
        endpoints: &[Assigned],
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let own: Vec<IpAddr> = endpoints.iter().flat_map(|e| e.addresses.iter().map(|(a, _)| *a)).collect();
        let extra = self.extra_hosts(request.spec, warnings).await;
        let hosts = files::hosts(request.spec, request.id, &own, &extra);
        let resolv = files::embedded_resolv(&request.spec.dns, &Resolv::read(&self.resolv_conf));
        let hostname = files::hostname(request.spec, request.id);
        files::write_all(request.dir, &hosts, hostname, &resolv)
            .map_err(|e| failed("write the container's hosts files", e))
    }

    /// The user's lines with `host-gateway` made an address.
    pub(super) async fn extra_hosts(
        &self,
        spec: &ContainerSpec,
        warnings: &mut Vec<String>,
    ) -> Vec<(String, String)> {
        let mut lines = spec.extra_hosts.clone();
        if lines.iter().any(|(_, address)| address == HOST_GATEWAY) {
            match self.host.run(host_address).await {
                Ok(host) => {
                    let wanted = lines.iter_mut().filter(|(_, a)| a == HOST_GATEWAY);
                    wanted.for_each(|(_, a)| *a = host.to_string());
                }
                Err(_) => {
                    lines.retain(|(_, a)| a != HOST_GATEWAY);
                    warnings.push(
                        "`host-gateway` is left out of `extra_hosts`: this host has no address of its own"
                            .into(),
                    );
                }
            }
        }
        lines
    }

    /// Opens the resolver's sockets and the TCP tables inside the container's namespace.
    /// A container that serves port 53 itself keeps it: ours get another port, and packets to
    /// the resolver's port 53 are turned to it.
    async fn open_inside(
        &self,
        netns: &Arc<OwnedFd>,
        redirect: bool,
    ) -> Result<(io::Result<Sockets>, Arc<ListenTable>)> {
        let netns = netns.clone();
        let opened = self.sockets.run(move || {
            visit(&netns, || {
                let sockets = if redirect { redirected_sockets() } else { Sockets::bind(RESOLVER, 53) };
                Ok((sockets, Arc::new(ListenTable::open()?)))
            })
        });
        opened.await.map_err(|e| failed("enter the container's network", e))
    }

    fn insert(
        &self,
        request: &ConnectRequest<'_>,
        joined: &[(&NetworkRecord, &EndpointSpec)],
        endpoints: &[Assigned],
        table: Arc<ListenTable>,
        reached: Reached,
    ) {
        let foreign =
            joined.iter().filter(|(r, _)| self.is_foreign(r)).map(|(r, _)| r.name().to_owned()).collect();
        let endpoints = endpoints.to_vec();
        let joined = Joined { endpoints, table: Some(table), foreign, reached, ..Joined::default() };
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
                if let Some(joined) = self.state.lock().expect("no holder panics").members.get_mut(request.id)
                {
                    joined.resolver = Some(server);
                }
            }
            Err(error) => warnings.push(format!("names do not resolve in {}: {error}", request.spec.name)),
        }
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

/// The record of the previous run; a damaged one is as good as none.
fn read_before(dir: &Path) -> NetFile {
    home::read_json(&dir.join(NET_FILE)).ok().flatten().unwrap_or_default()
}

/// A container's names and addresses, by network.
fn members(id: &str, spec: &ContainerSpec, endpoints: &[Assigned]) -> Vec<Member> {
    let own = [spec.name.as_str(), files::short_id(id), files::hostname(spec, id)];
    let wanted: &[EndpointSpec] = match &spec.network {
        NetworkMode::Bridge(wanted) => wanted,
        _ => &[],
    };
    let member = |assigned: &Assigned| {
        let aliases = wanted.iter().filter(|e| e.network == assigned.network).flat_map(|e| e.aliases.clone());
        Member {
            network: assigned.network.clone(),
            addresses: assigned.addresses.iter().map(|(a, _)| *a).collect(),
            names: own.iter().map(|n| (*n).to_owned()).chain(aliases).collect(),
        }
    };
    endpoints.iter().map(member).collect()
}

fn assign_all(
    addresses: &mut Addresses,
    id: &str,
    joined: &[(&NetworkRecord, &EndpointSpec)],
    before: &NetFile,
    purpose: Purpose,
) -> Result<Vec<Assigned>> {
    if purpose == Purpose::Adopt {
        for endpoint in &before.endpoints {
            endpoint.addresses.iter().for_each(|(a, _)| addresses.hold(&endpoint.network, *a, id));
        }
        return Ok(before.endpoints.clone());
    }
    addresses.release(id);
    let one = |(index, (record, endpoint)): (usize, &(&NetworkRecord, &EndpointSpec))| {
        assign_one(addresses, id, index, record, endpoint, before)
    };
    joined.iter().enumerate().map(one).collect()
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
