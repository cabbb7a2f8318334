//! Who has which address on which network.
//!
//! Held by the supervisor in memory and written to each container's `net.json`, from which
//! another supervisor reads it again. A container that starts again gets the address it had
//! before when that is free, else the lowest free one. Interface addresses are made from
//! the IPv4 address, so that neighbours who remember the previous owner are right anyway.

use super::records::{NetworkRecord, PoolRecord};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::observed::PublishedPort;
use crate::spec::EndpointSpec;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// A container's place on one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assigned {
    /// Full network name.
    pub network: String,
    /// IPv4 before IPv6, each with the prefix of its subnet.
    pub addresses: Vec<(IpAddr, u8)>,
    /// `eth0`, or the user's name.
    pub interface: String,
    pub mac: [u8; 6],
    /// The other end, in the stack's namespace.
    pub host_link: String,
}

impl Assigned {
    pub fn first(&self) -> Option<IpAddr> {
        self.addresses.first().map(|(a, _)| *a)
    }
}

/// `net.json` in a container's folder: what it has, for the next supervisor and for `ps`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetFile {
    pub endpoints: Vec<Assigned>,
    pub published: Vec<PublishedPort>,
}

/// Addresses in use, by network.
#[derive(Debug, Default)]
pub struct Addresses {
    taken: HashMap<String, HashMap<IpAddr, String>>,
    /// Given out by other stacks.
    elsewhere: HashMap<String, HashSet<IpAddr>>,
}

impl Addresses {
    /// Addresses for a container on a network; `before` is what it had the last time.
    ///
    /// # Errors
    /// A static address that is taken, outside, or on a network without a configured subnet; no address left.
    pub fn assign(
        &mut self,
        record: &NetworkRecord,
        endpoint: &EndpointSpec,
        id: &str,
        before: &[IpAddr],
    ) -> Result<Vec<(IpAddr, u8)>> {
        let mut given = Vec::new();
        for ipv4 in [true, false] {
            let fixed = if ipv4 { &endpoint.ipv4 } else { &endpoint.ipv6 };
            let Some(pool) = record.pool(ipv4) else {
                if let Some(text) = fixed {
                    return Err(refuse(
                        record,
                        format!("no configured subnet or ip-range contain the IP address {text}"),
                    ));
                }
                continue;
            };
            let address = match fixed {
                Some(text) => self.fixed(record, text)?,
                None => self.dynamic(record, pool, before)?,
            };
            given.push((address, pool.subnet.prefix()));
        }
        for (address, _) in &given {
            self.hold(record.name(), *address, id);
        }
        Ok(given)
    }

    /// Marks an address as used (adoption).
    pub fn hold(&mut self, network: &str, address: IpAddr, id: &str) {
        self.taken.entry(network.to_owned()).or_default().insert(address, id.to_owned());
    }

    /// Everything of this container is free again.
    pub fn release(&mut self, id: &str) {
        for users in self.taken.values_mut() {
            users.retain(|_, user| user != id);
        }
    }

    /// What other stacks have on a network; replaces what was known.
    pub fn learn(&mut self, network: &str, elsewhere: HashSet<IpAddr>) {
        self.elsewhere.insert(network.to_owned(), elsewhere);
    }

    /// Our containers on a network and their addresses.
    pub fn of(&self, network: &str) -> Vec<(String, Vec<IpAddr>)> {
        let mut users: HashMap<&String, Vec<IpAddr>> = HashMap::new();
        for (address, user) in self.taken.get(network).into_iter().flatten() {
            users.entry(user).or_default().push(*address);
        }
        users.into_iter().map(|(user, addresses)| (user.clone(), addresses)).collect()
    }

    fn is_taken(&self, network: &str, address: IpAddr) -> bool {
        self.taken.get(network).is_some_and(|users| users.contains_key(&address))
            || self.elsewhere.get(network).is_some_and(|users| users.contains(&address))
    }

    fn fixed(&self, record: &NetworkRecord, text: &str) -> Result<IpAddr> {
        let address: IpAddr = text.parse().map_err(|_| refuse(record, format!("invalid address {text}")))?;
        if !record.configured {
            let why = "user specified IP address is supported only when connecting to networks with user configured subnets";
            return Err(refuse(record, why));
        }
        if !record.pools.iter().any(|p| p.subnet.contains(address)) {
            return Err(refuse(
                record,
                format!("no configured subnet or ip-range contain the IP address {text}"),
            ));
        }
        if record.pools.iter().any(|p| p.gateway == address) || self.is_taken(record.name(), address) {
            return Err(refuse(record, format!("address {address} already in use")));
        }
        Ok(address)
    }

    fn dynamic(&self, record: &NetworkRecord, pool: &PoolRecord, before: &[IpAddr]) -> Result<IpAddr> {
        let block = pool.range.unwrap_or(pool.subnet);
        let free = |a: &IpAddr| {
            *a != pool.gateway && !pool.reserved.contains(a) && !self.is_taken(record.name(), *a)
        };
        let again = before.iter().copied().find(|a| block.contains(*a) && free(a));
        let lowest = || block.hosts().take(1 << 20).find(free);
        again.or_else(lowest).ok_or_else(|| refuse(record, format!("no available address in {block}")))
    }
}

fn refuse(record: &NetworkRecord, why: impl std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::Conflict, format!("failed to connect to network {}: {why}", record.name()))
}

/// The interface's hardware address: the user's, or one made from the first address.
pub fn mac(endpoint: &EndpointSpec, addresses: &[(IpAddr, u8)]) -> Result<[u8; 6]> {
    if let Some(text) = &endpoint.mac {
        return parse_mac(text)
            .ok_or_else(|| EngineError::new(ErrorKind::Other, format!("invalid MAC address {text}")));
    }
    let tail = match addresses.first().map(|(a, _)| a) {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => v6.octets()[12..].try_into().expect("four of sixteen bytes"),
        None => [0; 4],
    };
    Ok([0x02, 0x42, tail[0], tail[1], tail[2], tail[3]])
}

/// Six bytes in hexadecimal; group addresses are refused.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let byte = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
    let mac: [u8; 6] = bytes?.try_into().ok()?;
    (mac[0] & 1 == 0).then_some(mac)
}

/// The gateways of the default routes, one per family: highest `gw_priority`, then networks
/// with both families, then the name. Internal networks lead nowhere.
pub fn gateways(joined: &[(&NetworkRecord, i32)]) -> Vec<IpAddr> {
    let mut order: Vec<_> = joined.iter().filter(|(r, _)| !r.observed.internal).collect();
    order.sort_by_key(|(r, priority)| (-i64::from(*priority), r.pools.len() < 2, r.name().to_owned()));
    let of = |ipv4| order.iter().find_map(|(r, _)| r.pool(ipv4).map(|p| p.gateway));
    [of(true), of(false)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::NetworkObserved;

    fn record(name: &str, subnet: &str, configured: bool) -> NetworkRecord {
        let subnet: crate::network::cidr::Cidr = subnet.parse().unwrap();
        let gateway = subnet.hosts().next().unwrap();
        NetworkRecord {
            observed: NetworkObserved { name: name.into(), ..NetworkObserved::default() },
            project: "p".into(),
            bridge: format!("br-{name}"),
            pools: vec![PoolRecord { subnet, gateway, range: None, reserved: vec![] }],
            configured,
            mtu: None,
        }
    }

    fn given(
        addresses: &mut Addresses,
        record: &NetworkRecord,
        ipv4: Option<&str>,
        id: &str,
        before: &[IpAddr],
    ) -> Result<String> {
        let endpoint = EndpointSpec { ipv4: ipv4.map(Into::into), ..EndpointSpec::default() };
        addresses.assign(record, &endpoint, id, before).map(|g| g[0].0.to_string())
    }

    #[test]
    fn lowest_free_address_and_the_same_one_again() {
        let (mut all, net) = (Addresses::default(), record("n", "10.0.0.0/29", false));
        assert_eq!(given(&mut all, &net, None, "a", &[]).unwrap(), "10.0.0.2");
        assert_eq!(given(&mut all, &net, None, "b", &[]).unwrap(), "10.0.0.3");
        all.release("a");
        let had = ["10.0.0.5".parse().unwrap()];
        assert_eq!(given(&mut all, &net, None, "c", &had).unwrap(), "10.0.0.5");
        assert_eq!(given(&mut all, &net, None, "d", &had).unwrap(), "10.0.0.2");
        assert_eq!(given(&mut all, &net, None, "e", &[]).unwrap(), "10.0.0.4");
        assert_eq!(given(&mut all, &net, None, "f", &[]).unwrap(), "10.0.0.6");
        let full = given(&mut all, &net, None, "g", &[]).unwrap_err();
        assert!(full.message.contains("no available address"), "{full}");
    }

    #[test]
    fn what_other_stacks_gave_out_is_taken() {
        let (mut all, net) = (Addresses::default(), record("n", "10.0.0.0/24", true));
        all.learn("n", ["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()].into());
        assert_eq!(given(&mut all, &net, None, "a", &[]).unwrap(), "10.0.0.4");
        assert!(given(&mut all, &net, Some("10.0.0.3"), "b", &[]).is_err());
        all.learn("n", ["10.0.0.3".parse().unwrap()].into());
        assert_eq!(given(&mut all, &net, None, "c", &[]).unwrap(), "10.0.0.2");
        let mut ours = all.of("n");
        ours.sort();
        let addresses: Vec<_> = ours.iter().map(|(id, a)| format!("{id} {}", a[0])).collect();
        assert_eq!(addresses, ["a 10.0.0.4", "c 10.0.0.2"]);
    }

    #[test]
    fn static_addresses_follow_the_rules() {
        let (mut all, net) = (Addresses::default(), record("n", "10.0.0.0/24", true));
        assert_eq!(given(&mut all, &net, Some("10.0.0.9"), "a", &[]).unwrap(), "10.0.0.9");
        let taken = given(&mut all, &net, Some("10.0.0.9"), "b", &[]).unwrap_err();
        assert!(taken.message.ends_with("already in use"), "{taken}");
        let outside = given(&mut all, &net, Some("10.1.0.9"), "b", &[]).unwrap_err();
        assert!(outside.message.contains("no configured subnet"), "{outside}");
        assert!(given(&mut all, &net, Some("10.0.0.1"), "b", &[]).is_err());
        let plain = record("m", "10.9.0.0/24", false);
        assert!(
            given(&mut all, &plain, Some("10.9.0.9"), "b", &[])
                .unwrap_err()
                .message
                .contains("user configured")
        );
    }

    #[test]
    fn hardware_addresses() {
        let auto = mac(&EndpointSpec::default(), &[("172.18.0.2".parse().unwrap(), 16)]).unwrap();
        assert_eq!(auto, [2, 0x42, 172, 18, 0, 2]);
        assert_eq!(parse_mac("02:42:ac:11:65:43"), Some([2, 0x42, 0xac, 0x11, 0x65, 0x43]));
        for wrong in ["", "02:42:ac:11:65", "01:42:ac:11:65:43", "02:42:ac:11:65:4g", "+2:42:ac:11:65:43"] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_default_route_follows_priority_then_name() {
        let (a, b) = (record("a", "10.1.0.0/24", false), record("b", "10.2.0.0/24", false));
        let mut inside = record("0", "10.3.0.0/24", false);
        inside.observed.internal = true;
        let text = |list: &[(&NetworkRecord, i32)]| {
            gateways(list).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(text(&[(&b, 0), (&a, 0), (&inside, 9)]), ["10.1.0.1"]);
        assert_eq!(text(&[(&b, 1), (&a, 0)]), ["10.2.0.1"]);
        assert!(text(&[(&inside, 0)]).is_empty());
    }
}
