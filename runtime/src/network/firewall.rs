//! Rules inside namespaces of ours. Nothing here touches the host.
//!
//! The stack's rules never change after they are made: they know networks by the first
//! letters of their bridges' names, not by subnet.
//!
//! - forwarding happens only between a network with a way out and the uplink, so networks
//!   are isolated from each other and internal ones from everything;
//! - what leaves by the uplink does so with the stack's address;
//! - packets that connection tracking calls invalid are dropped before the stack's own
//!   TCP answers them with a reset: older `pasta` acknowledges with segments without
//!   flags, and such a reset ended every connection behind masquerade.

use super::{BRIDGE_PREFIX, UPLINK};
use crate::sys::nft::{Chain, ESTABLISHED, Expression, Family, Hook, INVALID, RELATED, Transaction};
use std::io;
use std::net::Ipv4Addr;

const TABLE: &str = "stack";
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: i32 = 100;
/// `NF_IP_PRI_NAT_DST`.
const DESTINATION_NAT: i32 = -100;

/// Makes the rules and, only then, lets the calling thread's namespace forward packets.
pub(super) fn open_way_out() -> io::Result<()> {
    stack_rules().commit()?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    bridged_frames_pass();
    Ok(())
}

/// Only for stacks that use IPv6: the switch waits for a lock of the kernel's by trying
/// without end. Kernels without IPv6 have no such file.
pub(super) fn forward_ipv6() {
    if let Err(error) = std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1") {
        tracing::debug!(%error, "IPv6 is not forwarded");
    }
}

/// Only the rules.
pub(super) fn make_rules() -> io::Result<()> {
    stack_rules().commit()
}

fn stack_rules() -> Transaction {
    let filter = |name, hook, accept| Chain { name, kind: "filter", hook, priority: 0, accept };
    let from_bridge = Expression::InputInterface { name: BRIDGE_PREFIX.into(), exact: false };
    let from_uplink = Expression::InputInterface { name: UPLINK.into(), exact: true };
    let to_uplink = Expression::OutputInterface { name: UPLINK.into(), exact: true };
    let nat = Chain {
        name: "postrouting",
        kind: "nat",
        hook: Hook::PostRouting,
        priority: SOURCE_NAT,
        accept: true,
    };
    Transaction::new(Family::Inet, TABLE)
        .chain(&filter("input", Hook::Input, true))
        .rule("input", &[Expression::State(INVALID), Expression::Drop])
        .chain(&filter("forward", Hook::Forward, false))
        .rule("forward", &[from_uplink, Expression::State(ESTABLISHED | RELATED), Expression::Accept])
        .rule("forward", &[from_bridge, to_uplink.clone(), Expression::Accept])
        .chain(&nat)
        .rule("postrouting", &[to_uplink, Expression::Masquerade])
}

/// Where `br_netfilter` is loaded (Docker loads it), frames between containers of one bridge
/// would be asked about in the forward chain too. They are none of its business.
fn bridged_frames_pass() {
    for file in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        if let Err(error) = std::fs::write(format!("/proc/sys/net/bridge/{file}"), "0") {
            tracing::debug!(file, %error, "bridged frames were not filtered anyway");
        }
    }
}

/// Turns packets for port 53 of the resolver to another port of it, in the calling thread's
/// namespace. (`redirect` would not do: it sends local packets to 127.0.0.1.)
pub(super) fn redirect_names(resolver: Ipv4Addr, port: u16) -> io::Result<()> {
    let chain =
        Chain { name: "names", kind: "nat", hook: Hook::Output, priority: DESTINATION_NAT, accept: true };
    let rule = |protocol| {
        [
            Expression::Destination(resolver.octets()),
            Expression::Protocol(protocol),
            Expression::DestinationPort(53),
            Expression::Rewrite { address: resolver.octets(), port },
        ]
    };
    Transaction::new(Family::Ipv4, TABLE)
        .chain(&chain)
        .rule("names", &rule(UDP))
        .rule("names", &rule(TCP))
        .commit()
}
