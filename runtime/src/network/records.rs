//! Networks on disk: `data/networks/NAME.json`, written at create, read by everyone.
//!
//! A record is only a file: the bridge itself appears in the stack's namespace when the
//! supervisor first needs it. All records are made under one lock, so that two projects
//! never pick the same subnet. Default pools are those of Docker: 172.17.0.0/16 to
//! 172.31.0.0/16, then 192.168.0.0/16 in /20 steps, without what the host already routes.
//!
//! Every stack lives in a namespace of its own, so two projects may share a subnet without
//! harm. When the pools are used up by *other* projects, a subnet is used a second time;
//! only a project that needs more networks than there are pools is told "exhausted".

use super::cidr::Cidr;
use super::shared;
use crate::engine::{EngineError, ErrorKind, Result};
use crate::home::{self, Home};
use crate::observed::NetworkObserved;
use crate::spec::{NetworkSpec, PoolSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// A network as recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkRecord {
    #[serde(flatten)]
    pub observed: NetworkObserved,
    /// The project that made it.
    pub project: String,
    /// The bridge's name in the stack's namespace. Internal networks have another prefix,
    /// which is how the firewall tells them apart.
    pub bridge: String,
    /// At least one, IPv4 before IPv6.
    pub pools: Vec<PoolRecord>,
    /// The user named the subnet, so static addresses are allowed.
    pub configured: bool,
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolRecord {
    pub subnet: Cidr,
    pub gateway: IpAddr,
    /// Where dynamic addresses come from, when not the whole subnet.
    #[serde(default)]
    pub range: Option<Cidr>,
    /// Never given out.
    #[serde(default)]
    pub reserved: Vec<IpAddr>,
}

impl NetworkRecord {
    pub fn name(&self) -> &str {
        &self.observed.name
    }

    pub fn pool(&self, ipv4: bool) -> Option<&PoolRecord> {
        self.pools.iter().find(|p| p.subnet.is_ipv4() == ipv4)
    }
}

/// Makes the record, or returns the one that is there.
///
/// # Errors
/// `Conflict` when another project owns the name or a subnet overlaps one of the project's
/// own; `Other` for addresses that make no sense or when the pools are used up.
pub fn create_record(home: &Home, project: &str, spec: &NetworkSpec) -> Result<NetworkRecord> {
    let path = record_path(home, &spec.name)?;
    let _lock = home::lock(&lock_path(home)).map_err(|e| failed("create", &spec.name, e))?;
    if let Some(found) = home::read_json::<NetworkRecord>(&path).map_err(|e| failed("read", &spec.name, e))? {
        return owned_by(found, project);
    }
    let others = list(home).map_err(|e| failed("create", &spec.name, e))?;
    let record = draft(project, spec, &others, &host_blocks())?;
    home::replace_json(&path, &record).map_err(|e| failed("create", &spec.name, e))?;
    Ok(record)
}

/// Removes the record; a missing one is fine.
///
/// # Errors
/// `Conflict` while containers of other projects are on it.
pub fn remove_record(home: &Home, name: &str) -> Result<()> {
    let path = record_path(home, name)?;
    let _lock = home::lock(&lock_path(home)).map_err(|e| failed("remove", name, e))?;
    if let Some(record) = read(home, name)? {
        let guests = shared::guests(home, name, &record.project)?;
        if !guests.is_empty() {
            return Err(in_use(name, &guests));
        }
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", name, e)),
        _ => shared::unshare(home, name).map_err(|e| failed("remove", name, e)),
    }
}

pub(super) fn in_use(name: &str, users: &[String]) -> EngineError {
    let message = format!("network {name} has active endpoints ({})", users.join(", "));
    EngineError::new(ErrorKind::Conflict, message)
}

/// Held while a record is made or removed, and while an address of a shared network is given out.
pub(super) fn lock_path(home: &Home) -> PathBuf {
    home.networks().join(".lock")
}

/// The record of that name.
pub fn read(home: &Home, name: &str) -> Result<Option<NetworkRecord>> {
    home::read_json(&record_path(home, name)?).map_err(|e| failed("read", name, e))
}

/// All records, by name. Files that are no records are an error that names them.
pub fn list(home: &Home) -> std::io::Result<Vec<NetworkRecord>> {
    let entries = match std::fs::read_dir(home.networks()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            records.extend(home::read_json::<NetworkRecord>(&path)?);
        }
    }
    records.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(records)
}

fn owned_by(found: NetworkRecord, project: &str) -> Result<NetworkRecord> {
    if found.project == project {
        return Ok(found);
    }
    let message =
        format!("failed to create network {}: it belongs to project {}", found.name(), found.project);
    Err(EngineError::new(ErrorKind::Conflict, message)
        .hint("Declare it `external`, or give one of the two another name."))
}

/// The path of a record; names that could leave the folder are refused.
fn record_path(home: &Home, name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || name.len() > 200 || name.starts_with(['.', '-']) || !name.chars().all(plain) {
        let message =
            format!("invalid network name {name:?}: only letters, digits, `_`, `.` and `-` are allowed");
        return Err(EngineError::new(ErrorKind::Other, message));
    }
    Ok(home.networks().join(format!("{name}.json")))
}

pub(super) fn failed(verb: &str, name: &str, error: impl std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("failed to {verb} network {name}: {error}"))
}

fn draft(
    project: &str,
    spec: &NetworkSpec,
    others: &[NetworkRecord],
    host: &[Cidr],
) -> Result<NetworkRecord> {
    let mut pools = Vec::new();
    for pool in spec.pools.iter().filter(|p| p.subnet.is_some()) {
        pools.push(configured_pool(spec, pool)?);
    }
    let configured = !pools.is_empty();
    let own: Vec<Cidr> = blocks(others.iter().filter(|r| r.project == project));
    refuse_overlap(spec, &pools, &own)?;
    if !pools.iter().any(|p| p.subnet.is_ipv4()) {
        let all = blocks(others.iter());
        let subnet = free_block(&all, &own, host).ok_or_else(|| exhausted(spec))?;
        pools.push(plain_pool(subnet));
    }
    if spec.enable_ipv6 && !pools.iter().any(|p| !p.subnet.is_ipv4()) {
        pools.push(plain_pool(unique_local(&spec.name)));
    }
    pools.sort_by_key(|p| !p.subnet.is_ipv4());
    Ok(NetworkRecord {
        observed: observed(spec, &pools[0]),
        project: project.to_owned(),
        bridge: bridge_name(spec),
        pools,
        configured,
        mtu: spec.driver_opts.get("com.docker.network.driver.mtu").and_then(|v| v.parse().ok()),
    })
}

fn observed(spec: &NetworkSpec, pool: &PoolRecord) -> NetworkObserved {
    NetworkObserved {
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        fingerprint: spec.fingerprint.clone(),
        subnet: pool.subnet.to_string(),
        gateway: pool.gateway.to_string(),
        internal: spec.internal,
        guests: Vec::new(),
    }
}

fn blocks<'a>(records: impl Iterator<Item = &'a NetworkRecord>) -> Vec<Cidr> {
    records.flat_map(|r| r.pools.iter().map(|p| p.subnet)).collect()
}

fn exhausted(spec: &NetworkSpec) -> EngineError {
    failed("create", &spec.name, "all predefined address pools have been fully subnetted")
        .hint("Give the network a subnet of its own under `ipam.config`, or remove unused networks.")
}

fn refuse_overlap(spec: &NetworkSpec, pools: &[PoolRecord], own: &[Cidr]) -> Result<()> {
    for (index, pool) in pools.iter().enumerate() {
        let mut taken = own.iter().copied().chain(pools[..index].iter().map(|p| p.subnet));
        if let Some(other) = taken.find(|o| o.overlaps(&pool.subnet)) {
            let why = format!("subnet {} overlaps {other}, which the project already uses", pool.subnet);
            let mut error = failed("create", &spec.name, why);
            error.kind = ErrorKind::Conflict;
            return Err(error);
        }
    }
    Ok(())
}

/// A pool of the user: the gateway is theirs, or the first free address of the range or subnet.
fn configured_pool(spec: &NetworkSpec, pool: &PoolSpec) -> Result<PoolRecord> {
    let wrong = |why: String| failed("create", &spec.name, why);
    let subnet: Cidr = pool.subnet.as_deref().unwrap_or("").parse().map_err(|e| wrong(format!("{e}")))?;
    let range = match &pool.ip_range {
        Some(text) => Some(text.parse::<Cidr>().map_err(|e| wrong(format!("{e}")))?),
        None => None,
    };
    if let Some(range) = range.filter(|r| !subnet.contains(r.first()) || !subnet.contains(r.last())) {
        return Err(wrong(format!("ip_range {range} is not inside subnet {subnet}")));
    }
    let mut reserved = Vec::new();
    for text in &pool.reserved {
        reserved.push(text.parse().map_err(|_| wrong(format!("invalid auxiliary address {text}")))?);
    }
    let gateway = match &pool.gateway {
        Some(text) => given_gateway(text, &subnet).map_err(wrong)?,
        None => first_free(range.unwrap_or(subnet), &reserved)
            .ok_or_else(|| wrong(format!("subnet {subnet} has no room")))?,
    };
    Ok(PoolRecord { subnet, gateway, range, reserved })
}

fn given_gateway(text: &str, subnet: &Cidr) -> std::result::Result<IpAddr, String> {
    let gateway: IpAddr = text.parse().map_err(|_| format!("invalid gateway {text}"))?;
    if subnet.contains(gateway) {
        Ok(gateway)
    } else {
        Err(format!("no matching subnet for gateway {gateway}"))
    }
}

fn first_free(block: Cidr, reserved: &[IpAddr]) -> Option<IpAddr> {
    block.hosts().take(reserved.len() + 2).find(|a| !reserved.contains(a))
}

fn plain_pool(subnet: Cidr) -> PoolRecord {
    let gateway = subnet.hosts().next().unwrap_or(subnet.first());
    PoolRecord { subnet, gateway, range: None, reserved: Vec::new() }
}

/// Docker's default pools in Docker's order.
fn default_pools() -> impl Iterator<Item = Cidr> {
    let large = (17..=31).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let small = (0..16).map(|n| (Ipv4Addr::new(192, 168, n * 16, 0), 20));
    large.chain(small).filter_map(|(a, p)| Cidr::around(a.into(), p))
}

/// The first pool that nobody uses; failing that, the first that neither this project nor the host uses.
fn free_block(all: &[Cidr], own: &[Cidr], host: &[Cidr]) -> Option<Cidr> {
    let free = |block: &Cidr, used: &[Cidr]| !used.iter().chain(host).any(|u| u.overlaps(block));
    default_pools().find(|b| free(b, all)).or_else(|| default_pools().find(|b| free(b, own)))
}

/// A unique local /64 made from the network's name.
fn unique_local(name: &str) -> Cidr {
    let hash = Sha256::digest(name.as_bytes());
    let mut bytes = [0u8; 16];
    bytes[0] = 0xfd;
    bytes[1..8].copy_from_slice(&hash[..7]);
    Cidr::around(Ipv6Addr::from(bytes).into(), 64).expect("64 is a prefix of IPv6")
}

/// At most 15 bytes, as the kernel wants.
fn bridge_name(spec: &NetworkSpec) -> String {
    let prefix = if spec.internal { super::INTERNAL_PREFIX } else { super::BRIDGE_PREFIX };
    let hash = Sha256::digest(spec.name.as_bytes());
    let hex: String = hash[..5].iter().map(|b| format!("{b:02x}")).collect();
    format!("{prefix}{hex}")
}

/// What the host routes (but its default route) and the servers it asks for names.
fn host_blocks() -> Vec<Cidr> {
    let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = super::files::Resolv::parse(&resolv).servers;
    let servers = servers.into_iter().filter_map(|a| Cidr::around(a, if a.is_ipv4() { 32 } else { 128 }));
    routes.lines().filter_map(route_block).chain(servers).collect()
}

/// One row of the kernel's IPv4 route table: destination and mask are hexadecimal, in host byte order.
fn route_block(row: &str) -> Option<Cidr> {
    let columns: Vec<&str> = row.split_ascii_whitespace().collect();
    let hex = |index: usize| u32::from_str_radix(columns.get(index)?, 16).ok().map(u32::from_be);
    let (destination, mask) = (hex(1)?, hex(7)?);
    (mask != 0)
        .then(|| Cidr::around(Ipv4Addr::from_bits(destination).into(), mask.leading_ones() as u8))
        .flatten()
}

#[cfg(test)]
mod tests;
