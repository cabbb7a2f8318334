//! Asking servers outside about names that are not ours.
//!
//! The query goes on byte by byte, with another identity, and so does the answer. At most
//! three servers are asked, four seconds each; one that fails or refuses is followed by the
//! next, and when none answers the client gets SERVFAIL.

use super::super::files::Resolv;
use crate::sys::netns::{Worker, visit};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

const MAX_SERVERS: usize = 3;
const PER_SERVER: Duration = Duration::from_secs(4);
const PORT: u16 = 53;

/// Where questions of one container go.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// Nowhere: only internal networks and no servers of its own.
    Nobody,
    /// The host's servers, read again for every question, asked from the host's namespace.
    Host { worker: Arc<Worker>, resolv_conf: PathBuf },
    /// The container's own servers, asked from its namespace.
    Own { worker: Arc<Worker>, netns: Arc<OwnedFd>, servers: Vec<IpAddr> },
}

impl Upstream {
    /// The first useful answer, or `None`.
    pub async fn ask(&self, query: &[u8], over_udp: bool) -> Option<Vec<u8>> {
        let mut refused = None;
        for server in self.servers().into_iter().take(MAX_SERVERS) {
            let address = SocketAddr::new(server, PORT);
            let asked = tokio::time::timeout(PER_SERVER, self.ask_one(address, query, over_udp)).await;
            match asked {
                Ok(Ok(answer)) if is_useful(&answer) => return Some(answer),
                Ok(Ok(answer)) => refused = Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server could not be asked"),
                Err(_) => tracing::debug!(%server, "a name server did not answer"),
            }
        }
        refused
    }

    fn servers(&self) -> Vec<IpAddr> {
        match self {
            Self::Nobody => Vec::new(),
            Self::Host { resolv_conf, .. } => Resolv::read(resolv_conf).servers,
            Self::Own { servers, .. } => servers.clone(),
        }
    }

    async fn ask_one(&self, server: SocketAddr, query: &[u8], over_udp: bool) -> io::Result<Vec<u8>> {
        let mut renamed = query.to_vec();
        let identity = (getrandom::u32().map_err(io::Error::other)? as u16).to_be_bytes();
        let original: [u8; 2] =
            query.get(..2).and_then(|b| b.try_into().ok()).ok_or(io::ErrorKind::InvalidData)?;
        renamed[..2].copy_from_slice(&identity);
        let mut answer = if over_udp {
            over_datagrams(self.udp(server).await?, &renamed).await?
        } else {
            over_stream(self.tcp(server).await?, &renamed).await?
        };
        if answer.get(..2) != Some(&identity) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer[..2].copy_from_slice(&original);
        Ok(answer)
    }

    async fn udp(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        let make = move || {
            let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = StdUdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            Ok(socket)
        };
        UdpSocket::from_std(self.inside(make).await?)
    }

    async fn tcp(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let make = move || if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        self.inside(make).await?.connect(server).await
    }

    /// Makes a socket in the namespace to ask from.
    async fn inside<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Nobody => Err(io::ErrorKind::Unsupported.into()),
            Self::Host { worker, .. } => worker.run(make).await,
            Self::Own { worker, netns, .. } => {
                let netns = netns.clone();
                worker.run(move || visit(&netns, make)).await
            }
        }
    }
}

/// Not a failure of the server (2) and not a refusal (5).
fn is_useful(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| !matches!(flags & 0x0f, 2 | 5))
}

async fn over_datagrams(socket: UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(query).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // A late answer to somebody else's question is not ours.
        if buffer[..length].get(..2) == query.get(..2) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_stream(mut stream: TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    write_message(&mut stream, query).await?;
    read_message(&mut stream).await
}

/// One message with its length in front.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
