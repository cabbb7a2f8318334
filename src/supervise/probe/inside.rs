//! Built-in probes: asked by the supervisor itself from inside the container's network namespace, so that nothing is
//! started in the container and nothing has to be installed there.

use super::grpc;
use stack_runtime::logs::{self, Options};
use stack_runtime::monitor::RunRecord;
use stack_runtime::observed::{Health, HealthStatus};
use stack_runtime::sys::netns;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For the connection alone: somebody in the same namespace answers at once, or never.
const CONNECT: Duration = Duration::from_secs(10);
/// More than any status line.
const STATUS_BYTES: usize = 1024;

/// What a probe found: whether it is well, and in words.
pub(super) type Found = io::Result<(bool, String)>;

/// `GET`; any status from 200 to 399 is well.
pub(super) async fn http(pid: i32, url: &str) -> Found {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let mut stream = connect(pid, authority, 80).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: stack\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let line = status_line(&mut stream).await?;
    let code = line.strip_prefix("HTTP/").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
    Ok((code.is_some_and(|code| (200..400).contains(&code)), line))
}

async fn status_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.contains(&b'\n') && bytes.len() < STATUS_BYTES {
        let mut part = [0; 256];
        match stream.read(&mut part).await? {
            0 => break,
            length => bytes.extend_from_slice(&part[..length]),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim_end().to_owned())
}

/// Somebody accepts.
pub(super) async fn tcp(pid: i32, address: &str) -> Found {
    let stream = connect(pid, address, 0).await?;
    let peer = stream.peer_addr()?;
    Ok((true, format!("{peer} accepts connections")))
}

/// The health protocol of gRPC; `""` asks for the server as a whole.
pub(super) async fn grpc(pid: i32, address: &str, service: &str) -> Found {
    let mut stream = connect(pid, address, 0).await?;
    let status = grpc::check(&mut stream, address, service).await?;
    Ok((status == grpc::SERVING, format!("status {status} of service {service:?} ({})", grpc::name(status))))
}

/// As many lines of this run as asked for hold the text. What was once printed stays so, also when it is rotated away.
pub(super) async fn log(dir: &Path, text: &str, count: u32) -> Found {
    let known: Option<Health> = stack_runtime::home::read_json(&dir.join("health.json"))?;
    if known.is_some_and(|health| health.status == HealthStatus::Healthy) {
        return Ok((true, "seen before".into()));
    }
    let run = RunRecord::read(dir)?.ok_or(io::ErrorKind::NotFound)?;
    let since = run.started_at.parse().ok();
    let mut entries = logs::read(dir.to_owned(), Options { since, ..Options::default() });
    let mut found = 0;
    while let Some(entry) = entries.recv().await {
        found += u32::from(entry?.log.contains(text));
        if found >= count {
            return Ok((true, format!("{found} lines with {text:?}")));
        }
    }
    Ok((false, format!("{found} of {count} lines with {text:?}")))
}

/// `host:port`, or a port alone; the host is an address or `localhost`, in both families.
fn addresses(text: &str, default_port: u16) -> io::Result<Vec<SocketAddr>> {
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is not an address with a port"));
    if let Ok(port) = text.parse() {
        return Ok(local(port));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| invalid())?),
        None if default_port > 0 => (text, default_port),
        None => return Err(invalid()),
    };
    match host {
        "localhost" | "" => Ok(local(port)),
        _ => Ok(vec![SocketAddr::new(host.parse::<IpAddr>().map_err(|_| invalid())?, port)]),
    }
}

fn local(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

/// The first address that accepts.
async fn connect(pid: i32, address: &str, default_port: u16) -> io::Result<TcpStream> {
    let addresses = addresses(address, default_port)?;
    let namespace: OwnedFd = File::open(format!("/proc/{pid}/ns/net"))?.into();
    let connecting = move || netns::visit(&namespace, || connect_any(&addresses));
    let stream = tokio::task::spawn_blocking(connecting).await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn connect_any(addresses: &[SocketAddr]) -> io::Result<std::net::TcpStream> {
    let mut failure = None;
    for address in addresses {
        match std::net::TcpStream::connect_timeout(address, CONNECT) {
            Ok(stream) => return Ok(stream),
            // The first one tells more than the other family's.
            Err(e) => failure = failure.or(Some(io::Error::new(e.kind(), format!("{address}: {e}")))),
        }
    }
    Err(failure.unwrap_or_else(|| io::ErrorKind::InvalidInput.into()))
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn addresses_are_ports_hosts_or_both() {
        let read = |text: &str, port| {
            addresses(text, port).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(read("80", 0).unwrap(), "127.0.0.1:80 [::1]:80");
        assert_eq!(read("localhost:80", 0).unwrap(), "127.0.0.1:80 [::1]:80");
        assert_eq!(read("localhost", 80).unwrap(), "127.0.0.1:80 [::1]:80");
        assert_eq!(read("10.0.0.1:9", 0).unwrap(), "10.0.0.1:9");
        assert_eq!(read("[::1]:9", 0).unwrap(), "[::1]:9");
        for wrong in ["", "db:80", "localhost", "localhost:many"] {
            assert!(read(wrong, 0).is_err(), "{wrong}");
        }
    }
}
