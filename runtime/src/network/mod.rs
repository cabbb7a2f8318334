//! The network of a stack: bridges, addresses, names, published ports, the way out.
//!
//! Every stack has one network namespace that owns its bridges; every container has one
//! with an end of a veth pair per network (`eth0`, `eth1`, …). Dropping the namespaces
//! removes everything, so nothing of this exists on the host but listening sockets and one
//! `pasta` process.
//!
//! ```text
//!  host namespace        stack namespace                      container namespaces
//!  listen 0.0.0.0:8080 ──connect──► br-… 172.18.0.1/16 ──veth── eth0 172.18.0.2
//!  pasta ◄────────────── uplink ◄─ masquerade ─┘                127.0.0.11:53 ◄─ names
//!  upstream DNS ◄─────────────────────────────────────────────────── unknown names
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`records`] | networks on disk; subnets from the pools |
//! | [`link`] | the kernel's links, addresses and routes |
//! | [`address`] | who has which address on which network |
//! | [`files`] | a container's `hosts`, `hostname` and `resolv.conf` |
//! | [`dns`] | names of containers, everything else forwarded |
//! | [`StackNetwork`] | all of it for one running stack |
//! | [`foreign`], [`shared`] | networks that another project made, and who is on them |
//! | [`ports`] | published ports: check, hold, forward |
//! | [`firewall`] | isolation and masquerade in the stack's namespace |
//! | [`uplink`] | the `pasta` process of a stack |
//! | [`build`] | a network for the builder |
//! | `trial` | whether the kernel makes links and rules |

pub mod address;
pub mod build;
pub mod cidr;
pub mod dns;
pub mod files;
pub mod firewall;
pub mod foreign;
mod join;
pub mod link;
pub mod listening;
mod netlink;
mod pasta;
pub mod ports;
pub mod records;
pub mod shared;
mod stack;
pub(crate) mod trial;
pub mod uplink;

pub use build::BuildNetwork;
pub use foreign::{Neighbour, Neighbours};
pub use records::{NetworkRecord, create_record, list, remove_record};
pub use stack::{ConnectRequest, Connected, Host, StackNetwork};
pub use uplink::UplinkState;

pub(crate) use netlink::acknowledgements;

/// Bridges of networks with a way out begin so; the firewall knows them by it.
pub(crate) const BRIDGE_PREFIX: &str = "br-";
/// Bridges of internal networks begin so.
pub(crate) const INTERNAL_PREFIX: &str = "in-";
/// The interface of `pasta` in the stack's namespace.
pub(crate) const UPLINK: &str = "uplink";
/// Where a container asks for names.
pub const RESOLVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);
