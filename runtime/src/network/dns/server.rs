//! The sockets of one container's resolver.

use super::answer::{Verdict, decide, servfail};
use super::forward::{Upstream, read_message, write_message};
use super::zone::Zone;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Questions and connections in progress per container; more are turned away.
const MAX_PENDING: usize = 256;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(10);

/// Bound sockets, not yet served. Made inside the container's namespace.
#[derive(Debug)]
pub struct Sockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
}

impl Sockets {
    /// Binds both on `port` of the resolver's address; 0 takes the same free port for both.
    ///
    /// # Errors
    /// Those of binding: somebody in the container has the port.
    pub fn bind(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let udp = StdUdpSocket::bind((address, port))?;
        let tcp = StdTcpListener::bind((address, udp.local_addr()?.port()))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    pub fn port(&self) -> io::Result<u16> {
        Ok(self.udp.local_addr()?.port())
    }
}

/// A running resolver; it ends with the value.
#[derive(Debug)]
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
}

struct Context {
    zone: Arc<Zone>,
    asking: String,
    upstream: Upstream,
    pending: Arc<Semaphore>,
}

impl Server {
    /// Serves container `asking`. Call it inside the async runtime.
    pub fn start(sockets: Sockets, zone: Arc<Zone>, asking: &str, upstream: Upstream) -> io::Result<Self> {
        let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
        let tcp = TcpListener::from_std(sockets.tcp)?;
        let pending = Arc::new(Semaphore::new(MAX_PENDING));
        let context = Arc::new(Context { zone, asking: asking.to_owned(), upstream, pending });
        let tasks =
            vec![tokio::spawn(datagrams(udp, context.clone())), tokio::spawn(connections(tcp, context))];
        Ok(Self { tasks })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn datagrams(socket: Arc<UdpSocket>, context: Arc<Context>) {
    let mut buffer = vec![0; 4096];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => datagram(&socket, &context, &buffer[..length], from).await,
            // An earlier answer found nobody any more (ICMP); the socket itself is fine.
            Err(error) => {
                tracing::debug!(%error, "resolver socket");
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Own names are answered at once; forwarded ones must not hold up the next question.
async fn datagram(socket: &Arc<UdpSocket>, context: &Arc<Context>, query: &[u8], from: SocketAddr) {
    match decide(&context.zone, &context.asking, query, true) {
        Verdict::Reply(bytes) => send(socket, &bytes, from).await,
        Verdict::Drop => {}
        Verdict::Forward => {
            let Ok(permit) = context.pending.clone().try_acquire_owned() else {
                return send_failure(socket, query, from).await;
            };
            let (socket, context, query) = (socket.clone(), context.clone(), query.to_vec());
            tokio::spawn(async move {
                match context.upstream.ask(&query, true).await {
                    Some(answer) => send(&socket, &answer, from).await,
                    None => send_failure(&socket, &query, from).await,
                }
                drop(permit);
            });
        }
    }
}

async fn send_failure(socket: &UdpSocket, query: &[u8], to: SocketAddr) {
    if let Some(bytes) = servfail(query) {
        send(socket, &bytes, to).await;
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%error, "an answer could not be sent");
    }
}

async fn connections(listener: TcpListener, context: Arc<Context>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: wait for some to be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = context.pending.clone().try_acquire_owned() else { continue };
        let context = context.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &context).await {
                tracing::debug!(%error, "resolver connection");
            }
            drop(permit);
        });
    }
}

async fn connection(mut stream: TcpStream, context: &Context) -> io::Result<()> {
    while let Ok(query) = tokio::time::timeout(IDLE, read_message(&mut stream)).await {
        let query = query?;
        let answer = match decide(&context.zone, &context.asking, &query, false) {
            Verdict::Reply(bytes) => Some(bytes),
            Verdict::Forward => context.upstream.ask(&query, false).await.or_else(|| servfail(&query)),
            Verdict::Drop => None,
        };
        let Some(answer) = answer else { return Ok(()) };
        write_message(&mut stream, &answer).await?;
    }
    Ok(())
}
