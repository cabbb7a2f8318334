//! Whether the kernel makes what a stack's network consists of, tried in the calling thread's namespace, which is new.

use super::{firewall, link};
use crate::sys::netns;
use std::io;

const BRIDGE: &str = "trial";
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A bridge, and a veth pair with one end on it.
pub(crate) fn links() -> io::Result<()> {
    link::ensure_bridge(BRIDGE, MAC, &[], None)?;
    let plan = link::LinkPlan {
        host_link: "near".into(),
        bridge: BRIDGE.into(),
        interface: "far".into(),
        mac: MAC,
        addresses: Vec::new(),
        mtu: None,
    };
    link::plug(&netns::current()?, &[plan])
}

/// The rules that let containers out.
pub(crate) fn rules() -> io::Result<()> {
    firewall::make_rules()
}
