//! Where a container stands in the network: endpoints in interface order, names, published ports.

use super::owner;
use crate::plan::label;
use crate::plan::step::Creation;
use stack_runtime::image::ImageConfig;
use stack_runtime::spec::{DnsSpec, EndpointSpec, NetworkMode, PortSpec, Protocol};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Endpoint, Port, Project, Service};

type Result<T> = std::result::Result<T, Diagnostic>;

pub(super) fn mode(project: &Project, creation: &Creation) -> Result<NetworkMode> {
    let service = &creation.service;
    match service.network_mode.as_deref() {
        None if service.networks.is_empty() => Ok(NetworkMode::None),
        None => Ok(NetworkMode::Bridge(endpoints(project, creation))),
        Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some("bridge" | "default") => Ok(NetworkMode::Bridge(endpoints(project, creation))),
        Some(other) => owner(project, other).map(NetworkMode::Container).ok_or_else(|| {
            let key = format!("services.{}.network_mode", service.key);
            Diagnostic::error(format!("network mode {other:?} is not supported")).key(key)
        }),
    }
}

/// Higher priority first, then by key, as Compose connects them.
fn endpoints(project: &Project, creation: &Creation) -> Vec<EndpointSpec> {
    let mut places: Vec<(&String, &Endpoint)> = creation.service.networks.iter().collect();
    places.sort_by(|a, b| b.1.priority.cmp(&a.1.priority).then_with(|| a.0.cmp(b.0)));
    places.into_iter().map(|(key, place)| endpoint(project, creation, key, place)).collect()
}

fn endpoint(project: &Project, creation: &Creation, key: &str, place: &Endpoint) -> EndpointSpec {
    EndpointSpec {
        network: project.networks.get(key).map_or_else(|| key.to_string(), |n| n.name.clone()),
        aliases: aliases(creation, place),
        ipv4: place.ipv4_address.clone(),
        ipv6: place.ipv6_address.clone(),
        mac: place.mac_address.clone(),
        gw_priority: place.gw_priority,
        interface: place.interface_name.clone(),
    }
}

/// A run container answers only to its own name, unless asked for the service's.
fn aliases(creation: &Creation, place: &Endpoint) -> Vec<String> {
    let mut aliases = vec![creation.name.clone()];
    if creation.one_off.as_ref().is_none_or(|o| o.use_aliases) {
        aliases.push(creation.service.key.clone());
        aliases.extend(place.aliases.iter().cloned());
    }
    let mut seen = std::collections::HashSet::new();
    aliases.retain(|alias| seen.insert(alias.clone()));
    aliases
}

/// Names that only this container knows: alias and what it stands for. A link to a service also names its containers
/// `service-1` and so on, as Compose does.
pub(super) fn links(project: &Project, service: &Service) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for text in &service.links {
        let (key, alias) = text.split_once(':').unwrap_or((text, text));
        links.push((alias.to_string(), key.to_string()));
        let Some(other) = project.services.get(key) else { continue };
        let numbered = |n| (format!("{key}-{n}"), label::container_name(project, other, n));
        links.extend((1..=other.scale).map(numbered));
    }
    let external = service.external_links.iter().map(|text| text.split_once(':').unwrap_or((text, text)));
    links.extend(external.map(|(name, alias)| (alias.to_string(), name.to_string())));
    links.retain(|(alias, name)| alias != name);
    links
}

pub(super) fn dns(service: &Service) -> DnsSpec {
    DnsSpec {
        servers: service.dns.clone(),
        search: service.dns_search.clone(),
        options: service.dns_opt.clone(),
    }
}

pub(super) fn ports(service: &Service) -> Result<Vec<PortSpec>> {
    service.ports.iter().map(|port| published(service, port)).collect()
}

fn published(service: &Service, port: &Port) -> Result<PortSpec> {
    let refuse = |why: String| Diagnostic::error(why).key(format!("services.{}.ports", service.key));
    let protocol = match port.protocol.as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(refuse(format!("publishing {other} ports is not supported"))),
    };
    let range =
        range(&port.published).ok_or_else(|| refuse(format!("invalid port range {:?}", port.published)))?;
    Ok(PortSpec { host_ip: port.host_ip.clone(), published: range, target: port.target, protocol })
}

/// Empty and `0` are ephemeral.
fn range(text: &str) -> Option<(u16, u16)> {
    if text.is_empty() {
        return Some((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// `80/tcp`, of image and service, ranges spread, sorted.
pub(super) fn exposed(service: &Service, image: &ImageConfig) -> Vec<String> {
    let of_ports = service.ports.iter().map(|p| format!("{}/{}", p.target, p.protocol));
    let written = image.exposed_ports.iter().chain(&service.expose).flat_map(|text| spread(text));
    let mut all: Vec<String> = of_ports.chain(written).collect();
    all.sort();
    all.dedup();
    all
}

fn spread(text: &str) -> Vec<String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match range(ports) {
        Some((first, last)) => (first..=last).map(|port| format!("{port}/{protocol}")).collect(),
        None => Vec::new(),
    }
}
