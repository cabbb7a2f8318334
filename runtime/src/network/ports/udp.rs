//! UDP: one socket towards the service per client, forgotten when idle.

use crate::sys::netns::Worker;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, JoinSet};

/// A client silent for so long, and not answered either, is forgotten.
const IDLE: Duration = Duration::from_secs(90);
/// Clients remembered per socket; beyond, the longest silent one is forgotten.
const MAX_SESSIONS: usize = 2048;
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// Runs until it is aborted.
pub(super) async fn forward(sockets: Vec<(SocketAddr, OwnedFd)>, target: SocketAddr, stack: Arc<Worker>) {
    let mut all = JoinSet::new();
    for (address, socket) in sockets {
        match UdpSocket::from_std(StdUdpSocket::from(socket)) {
            Ok(socket) => drop(all.spawn(one_socket(Arc::new(socket), target, stack.clone()))),
            Err(error) => tracing::warn!(%address, %error, "a published port is dead"),
        }
    }
    while all.join_next().await.is_some() {}
}

struct Session {
    service: Arc<UdpSocket>,
    last: Arc<Clock>,
    replies: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.replies.abort();
    }
}

/// When something last went either way.
struct Clock {
    start: Instant,
    millis: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(now, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }
}

async fn one_socket(public: Arc<UdpSocket>, target: SocketAddr, stack: Arc<Worker>) {
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    let mut sweep = tokio::time::interval(IDLE / 3);
    loop {
        tokio::select! {
            received = public.recv_from(&mut buffer) => match received {
                Ok((length, client)) => {
                    if let Err(error) = pass(&mut sessions, &public, client, &buffer[..length], target, &stack).await {
                        tracing::debug!(%client, %error, "a datagram was lost");
                    }
                }
                // ICMP of an earlier answer.
                Err(error) => tracing::debug!(%error, "published UDP socket"),
            },
            _ = sweep.tick() => sessions.retain(|_, s| s.last.idle() < IDLE),
        }
    }
}

async fn pass(
    sessions: &mut HashMap<SocketAddr, Session>,
    public: &Arc<UdpSocket>,
    client: SocketAddr,
    datagram: &[u8],
    target: SocketAddr,
    stack: &Arc<Worker>,
) -> io::Result<()> {
    if !sessions.contains_key(&client) {
        make_room(sessions);
        sessions.insert(client, session(public.clone(), client, target, stack).await?);
    }
    if let Some(session) = sessions.get(&client) {
        session.last.touch();
        // Refused the last time (ICMP) says nothing about this time.
        if session.service.send(datagram).await.is_err() {
            session.service.send(datagram).await?;
        }
    }
    Ok(())
}

fn make_room(sessions: &mut HashMap<SocketAddr, Session>) {
    if sessions.len() < MAX_SESSIONS {
        return;
    }
    let oldest = sessions.iter().max_by_key(|(_, s)| s.last.idle()).map(|(client, _)| *client);
    oldest.and_then(|client| sessions.remove(&client));
}

async fn session(
    public: Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    stack: &Arc<Worker>,
) -> io::Result<Session> {
    let make = move || {
        let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = StdUdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(target)?;
        Ok(socket)
    };
    let service = Arc::new(UdpSocket::from_std(stack.run(make).await?)?);
    let last = Arc::new(Clock::new());
    let replies = tokio::spawn(answer(service.clone(), public, client, last.clone()));
    Ok(Session { service, last, replies })
}

async fn answer(service: Arc<UdpSocket>, public: Arc<UdpSocket>, client: SocketAddr, last: Arc<Clock>) {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        match service.recv(&mut buffer).await {
            Ok(length) => {
                last.touch();
                if let Err(error) = public.send_to(&buffer[..length], client).await {
                    tracing::debug!(%client, %error, "an answer was lost");
                }
            }
            // Nobody listens inside yet.
            Err(error) => {
                tracing::debug!(%error, "published UDP service");
                tokio::task::yield_now().await;
            }
        }
    }
}
