//! Which host addresses and numbers a wish becomes.

use super::holder::{Holder, holder};
use crate::engine::{EngineError, ErrorKind};
use crate::observed::PublishedPort;
use crate::spec::{PortSpec, Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// How often a free number for both families is looked for.
const ATTEMPTS: usize = 32;

/// A host port that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The wish, e.g. `127.0.0.1:8080` or `8000-8010`.
    pub port: String,
    pub protocol: Protocol,
    pub holder: Option<Holder>,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    InUse,
    RangeInUse,
    /// A number below 1024 without the privilege.
    Forbidden,
    Other(String),
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let port = &self.port;
        match (&self.reason, &self.holder) {
            (Reason::InUse, Some(holder)) => {
                write!(f, "port {port} is taken by pid {} ({})", holder.pid, holder.command)
            }
            (Reason::InUse, None) => write!(f, "port {port} is already allocated"),
            (Reason::RangeInUse, _) => write!(f, "all ports of {port} are allocated"),
            (Reason::Forbidden, _) => write!(
                f,
                "port {port} may not be opened: numbers below 1024 need root or CAP_NET_BIND_SERVICE"
            ),
            (Reason::Other(why), _) => write!(f, "port {port} cannot be opened: {why}"),
        }
    }
}

impl std::error::Error for Taken {}

impl From<Taken> for EngineError {
    fn from(taken: Taken) -> Self {
        let kind = match taken.reason {
            Reason::InUse | Reason::RangeInUse => ErrorKind::PortTaken,
            Reason::Forbidden => ErrorKind::PermissionDenied,
            Reason::Other(_) => ErrorKind::Other,
        };
        let error = EngineError::new(kind, taken.to_string());
        match kind {
            ErrorKind::PortTaken => error.hint("Stop what holds it, or publish another host port."),
            ErrorKind::PermissionDenied => error.hint(
                "Publish a port from 1024 on, or let everybody open lower ones: `sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80`.",
            ),
            _ => error,
        }
    }
}

/// A wish that came true: one socket per address, all with the same number.
#[derive(Debug)]
pub struct Bound {
    pub spec: PortSpec,
    pub sockets: Vec<(SocketAddr, OwnedFd)>,
}

impl Bound {
    pub fn published(&self) -> impl Iterator<Item = PublishedPort> + '_ {
        self.sockets.iter().map(|(address, _)| PublishedPort {
            host_ip: address.ip().to_string(),
            host_port: address.port(),
            target: self.spec.target,
            protocol: self.spec.protocol,
        })
    }
}

/// Whether all ports can be had now, in the calling thread's namespace. To be asked before
/// anything is created; nothing stays bound.
///
/// # Errors
/// The first port that cannot be had, with its holder when that can be seen.
pub fn check(ports: &[PortSpec]) -> Result<(), Taken> {
    bind_all(ports).map(drop)
}

/// Binds every wish, or nothing.
pub(super) fn bind_all(ports: &[PortSpec]) -> Result<Vec<Bound>, Taken> {
    ports.iter().map(bind_one).collect()
}

fn bind_one(spec: &PortSpec) -> Result<Bound, Taken> {
    let addresses = addresses(spec).map_err(|why| taken(spec, None, Reason::Other(why)))?;
    let sockets = match spec.published {
        (0, _) => ephemeral(spec, &addresses)?,
        (low, high) if high > low => first_free(spec, &addresses, low..=high)?,
        (port, _) => {
            bind_number(&addresses, port, spec.protocol).map_err(|e| explain(spec, &addresses, port, &e))?
        }
    };
    Ok(Bound { spec: spec.clone(), sockets })
}

/// Both families when the wish names no address.
fn addresses(spec: &PortSpec) -> Result<Vec<IpAddr>, String> {
    match spec.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
        None => Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
        Some(text) => {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            bare.parse().map(|ip| vec![ip]).map_err(|_| format!("invalid ip address: {text}"))
        }
    }
}

fn first_free(
    spec: &PortSpec,
    addresses: &[IpAddr],
    range: std::ops::RangeInclusive<u16>,
) -> Result<Vec<(SocketAddr, OwnedFd)>, Taken> {
    for port in range {
        match bind_number(addresses, port, spec.protocol) {
            Ok(sockets) => return Ok(sockets),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(explain(spec, addresses, port, &error)),
        }
    }
    Err(taken(spec, None, Reason::RangeInUse))
}

/// The kernel picks a number for the first address; the others must have it free too.
fn ephemeral(spec: &PortSpec, addresses: &[IpAddr]) -> Result<Vec<(SocketAddr, OwnedFd)>, Taken> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..ATTEMPTS {
        match bind_number(addresses, 0, spec.protocol) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => last = error,
        }
    }
    Err(explain(spec, addresses, 0, &last))
}

/// One socket per address; a family that the host does not have is left out unless it is the only one.
fn bind_number(
    addresses: &[IpAddr],
    mut port: u16,
    protocol: Protocol,
) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
    let mut sockets: Vec<(SocketAddr, OwnedFd)> = Vec::new();
    for address in addresses {
        match bind_address(SocketAddr::new(*address, port), protocol) {
            Ok((address, socket)) => {
                port = address.port();
                sockets.push((address, socket));
            }
            Err(error) if address.is_ipv6() && !sockets.is_empty() && lacks_family(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

fn lacks_family(error: &io::Error) -> bool {
    let absent = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    absent.iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

/// A bound socket that does not listen. The address may be reused while old connections
/// fade (set before binding), but by nobody else afterwards (cleared after it).
fn bind_address(address: SocketAddr, protocol: Protocol) -> io::Result<(SocketAddr, OwnedFd)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    let shared = protocol == Protocol::Tcp;
    sockopt::set_socket_reuseaddr(&socket, shared)?;
    bind(&socket, &address)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((address, socket))
}

fn explain(spec: &PortSpec, addresses: &[IpAddr], port: u16, error: &io::Error) -> Taken {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let found = addresses.iter().find_map(|a| holder(spec.protocol, *a, port));
            taken(spec, found, Reason::InUse)
        }
        io::ErrorKind::PermissionDenied => taken(spec, None, Reason::Forbidden),
        _ => taken(spec, None, Reason::Other(error.to_string())),
    }
}

fn taken(spec: &PortSpec, holder: Option<Holder>, reason: Reason) -> Taken {
    let number = match spec.published {
        (low, high) if high > low => format!("{low}-{high}"),
        (port, _) => port.to_string(),
    };
    let host = spec.host_ip.as_deref().filter(|ip| !ip.is_empty());
    let port = host.map_or_else(
        || number.clone(),
        |ip| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") },
    );
    Taken { port, protocol: spec.protocol, holder, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn wish(published: (u16, u16), protocol: Protocol) -> PortSpec {
        PortSpec { host_ip: Some("127.0.0.1".into()), published, target: 80, protocol }
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check(&[wish((port, port), Protocol::Tcp)]).unwrap_err();
        let holder = error.holder.clone().unwrap();
        assert_eq!(holder.pid, i32::try_from(std::process::id()).unwrap());
        let text = format!("port 127.0.0.1:{port} is taken by pid {} ({})", holder.pid, holder.command);
        assert_eq!(error.to_string(), text);
        drop(listener);
        check(&[wish((port, port), Protocol::Tcp)]).unwrap();
    }

    #[test]
    fn a_taken_udp_port_is_named_too() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let error = check(&[wish((port, port), Protocol::Udp)]).unwrap_err();
        assert_eq!(error.holder.map(|h| h.pid), i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn a_range_gives_its_first_free_port_and_ends() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let Some(next) = port.checked_add(1) else { return };
        let got = bind_all(&[wish((port, next), Protocol::Tcp)]);
        let Ok(got) = got else { return };
        assert_eq!(got[0].sockets[0].0.port(), next);
        let error = check(&[wish((port, next), Protocol::Tcp)]).unwrap_err();
        assert_eq!(error.to_string(), format!("all ports of 127.0.0.1:{port}-{next} are allocated"));
    }

    #[test]
    fn an_ephemeral_port_is_the_same_in_both_families() {
        let spec = PortSpec { host_ip: None, published: (0, 0), target: 80, protocol: Protocol::Tcp };
        let bound = bind_all(&[spec]).unwrap();
        let ports: Vec<PublishedPort> = bound[0].published().collect();
        assert!(ports.iter().all(|p| p.host_port == ports[0].host_port && p.host_port != 0));
        assert_eq!(ports[0].host_ip, "0.0.0.0");
    }

    #[test]
    fn a_bound_port_refuses_and_cannot_be_shared() {
        let bound = bind_all(&[wish((0, 0), Protocol::Tcp)]).unwrap();
        let address = bound[0].sockets[0].0;
        let error = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(TcpListener::bind(address).is_err());
        let error = check(&[wish((address.port(), address.port()), Protocol::Tcp)]).unwrap_err();
        assert_eq!(error.holder.map(|h| h.pid), i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn nonsense_addresses_are_refused() {
        let spec = PortSpec { host_ip: Some("foo".into()), ..wish((1, 1), Protocol::Tcp) };
        assert!(check(&[spec]).unwrap_err().to_string().contains("invalid ip address: foo"));
    }
}
