//! Links, addresses and routes: what the kernel is asked to make.
//!
//! All functions block for a moment and act on the calling thread's namespace, which is the
//! stack's: they run on its [`crate::sys::netns::Worker`]. A veth pair is made in one
//! request with its other end born inside the container's namespace; made outside and moved
//! there it takes ten times as long. Nothing here deletes a link of a container: it goes with its namespace.

use super::netlink::Batch;
use crate::sys::netns::visit;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// An address with the prefix of its subnet.
pub type Address = (IpAddr, u8);

/// One end of a container on one network.
#[derive(Debug, Clone)]
pub struct LinkPlan {
    /// The end in the stack's namespace.
    pub host_link: String,
    pub bridge: String,
    /// The end in the container, `eth0`.
    pub interface: String,
    pub mac: [u8; 6],
    pub addresses: Vec<Address>,
    pub mtu: Option<u32>,
}

/// Makes a bridge with its gateway addresses; an existing one is left as it is.
pub fn ensure_bridge(name: &str, mac: [u8; 6], gateways: &[Address], mtu: Option<u32>) -> io::Result<()> {
    if if_nametoindex(name).is_ok() {
        return Ok(());
    }
    let mut bridge = LinkBridge::new(name).address(mac.to_vec());
    if let Some(mtu) = mtu {
        bridge = bridge.mtu(mtu);
    }
    let mut batch = Batch::default();
    batch.add_link(format!("add bridge {name}"), bridge.build());
    batch.send()?;
    let index = if_nametoindex(name)?;
    let mut batch = Batch::default();
    for address in gateways {
        batch.add_address(
            format!("add gateway {} to bridge {name}", address.0),
            address_message(index, address),
        );
    }
    batch.send()
}

/// Removes a link of the calling thread's namespace; a missing one is fine.
pub fn remove(name: &str) -> io::Result<()> {
    let Ok(index) = if_nametoindex(name) else { return Ok(()) };
    let mut batch = Batch::default();
    batch.remove_link(format!("remove link {name}"), LinkUnspec::new_with_index(index).build());
    batch.send()
}

/// Makes the links of a container to bridges in the calling thread's namespace.
pub fn plug(netns: &OwnedFd, links: &[LinkPlan]) -> io::Result<()> {
    let mut batch = Batch::default();
    for link in links {
        let bridge = if_nametoindex(link.bridge.as_str())?;
        batch.add_link(format!("add interface {}", link.interface), veth(link, bridge, netns));
    }
    batch.send()
}

/// Gives a container's interfaces their addresses and default routes; loopback comes up too.
pub fn set_up(netns: &OwnedFd, links: &[LinkPlan], gateways: &[IpAddr]) -> io::Result<()> {
    visit(netns, || inside(links, gateways))
}

/// [`plug`], then [`set_up`].
pub fn attach(netns: &OwnedFd, links: &[LinkPlan], gateways: &[IpAddr]) -> io::Result<()> {
    plug(netns, links)?;
    set_up(netns, links, gateways)
}

/// Only loopback.
pub fn loopback(netns: &OwnedFd) -> io::Result<()> {
    visit(netns, || inside(&[], &[]))
}

/// The far end stays down here: the kernel would bring it up before it knows its peer.
fn veth(link: &LinkPlan, bridge: u32, netns: &OwnedFd) -> rtnetlink::packet_route::link::LinkMessage {
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(link.interface.clone())
        .address(link.mac.to_vec())
        .setns_by_fd(netns.as_raw_fd());
    let mut near = LinkVeth::new(&link.host_link, "").controller(bridge).up();
    if let Some(mtu) = link.mtu {
        peer = peer.mtu(mtu);
        near = near.mtu(mtu);
    }
    near.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build()
}

/// The part that happens in the container's namespace.
fn inside(links: &[LinkPlan], gateways: &[IpAddr]) -> io::Result<()> {
    let mut batch = Batch::default();
    batch.set_link("bring up loopback", LinkUnspec::new_with_index(1).up().build());
    for link in links {
        let index = if_nametoindex(link.interface.as_str())?;
        if !link.addresses.iter().any(|(a, _)| a.is_ipv6()) {
            without_ipv6(&link.interface);
        }
        batch
            .set_link(format!("bring up {}", link.interface), LinkUnspec::new_with_index(index).up().build());
        for address in &link.addresses {
            batch.add_address(
                format!("add {} to {}", address.0, link.interface),
                address_message(index, address),
            );
        }
    }
    for gateway in gateways {
        batch.add_route(format!("add default route by {gateway}"), default_route(*gateway));
    }
    batch.send()
}

/// An interface of a network without IPv6 makes itself no link-local address. A kernel
/// without IPv6 has no such file, and nothing to switch off.
fn without_ipv6(interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    if let Err(error) = std::fs::write(path, "1") {
        tracing::debug!(interface, %error, "IPv6 stays as it is");
    }
}

fn address_message(index: u32, (address, prefix): &Address) -> AddressMessage {
    match address {
        IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(*v4, *prefix).build(),
        IpAddr::V6(v6) => {
            let mut message =
                AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(*v6, *prefix).build();
            // Usable at once: we gave the address out, so nobody else has it.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            message
        }
    }
}

fn default_route(gateway: IpAddr) -> rtnetlink::packet_route::route::RouteMessage {
    match gateway {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build(),
    }
}
