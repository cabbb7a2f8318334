//! Address blocks: parsing, containment, and counting inside them, for both families alike.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block such as `172.18.0.0/16`; the address is always the block's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: IpAddr,
    prefix: u8,
}

/// The text is no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid subnet {0}: invalid CIDR block notation")]
pub struct NotACidr(pub String);

impl Cidr {
    /// The block of this prefix that holds `address`; `None` when the prefix is too long.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let width = width(address);
        if prefix > width {
            return None;
        }
        let shift = u32::from(width - prefix);
        let first = number(address).checked_shr(shift).unwrap_or(0).checked_shl(shift).unwrap_or(0);
        Some(Self { first: like(address, first), prefix })
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// The highest address of the block.
    pub fn last(&self) -> IpAddr {
        let shift = u32::from(width(self.first) - self.prefix);
        let hosts = 1u128.checked_shl(shift).map_or(u128::MAX, |n| n - 1);
        like(self.first, number(self.first) | hosts)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Self::around(address, self.prefix).is_some_and(|block| block.first == self.first)
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The address `offset` above the first one, while it is in the block.
    pub fn at(&self, offset: u128) -> Option<IpAddr> {
        let wanted = number(self.first).checked_add(offset)?;
        (wanted <= number(self.last())).then(|| like(self.first, wanted))
    }

    /// Addresses a host may have, lowest first: without network and broadcast address in
    /// IPv4 (blocks of one or two addresses have neither), without the all-zero one in IPv6.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let size = number(self.last()) - number(self.first);
        let ends = size > 1;
        let low = number(self.first) + u128::from(ends);
        let high = number(self.last()) - u128::from(ends && self.is_ipv4());
        let family = self.first;
        (low..=high).map(move |n| like(family, n))
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A number as an address of the family of `family`; bits beyond IPv4 are dropped.
fn like(family: IpAddr, number: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::from_bits((number & u128::from(u32::MAX)) as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let wrong = || NotACidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        Self::around(address, prefix).ok_or_else(wrong)
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_is_normalised_and_bounded() {
        assert_eq!(cidr("172.18.3.4/16").to_string(), "172.18.0.0/16");
        assert_eq!(cidr("fd00::1/64").to_string(), "fd00::/64");
        assert_eq!(cidr("0.0.0.0/0").last(), IpAddr::from([255; 4]));
        assert_eq!(cidr("::/0").last(), IpAddr::from([0xffffu16; 8]));
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn overlap_is_symmetric_and_keeps_families_apart() {
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.1.0.0/16")));
        assert!(cidr("10.1.0.0/16").overlaps(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/16").overlaps(&cidr("10.1.0.0/16")));
        assert!(!cidr("0.0.0.0/0").overlaps(&cidr("::/0")));
    }

    #[test]
    fn hosts_leave_out_the_ends() {
        let hosts: Vec<_> = cidr("10.0.0.0/30").hosts().map(|a| a.to_string()).collect();
        assert_eq!(hosts, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(cidr("10.0.0.0/32").hosts().count(), 1);
        assert_eq!(cidr("fd00::/64").hosts().next().unwrap().to_string(), "fd00::1");
    }
}
