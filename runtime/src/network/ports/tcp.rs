//! TCP: listen while something listens inside, and forward.
//!
//! ```text
//! bound ──something listens inside──► listening ──connection refused inside──► bound …
//! ```

use super::pump;
use crate::network::listening::ListenTable;
use crate::sys::netns::Worker;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{Shutdown, listen, shutdown};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const BACKLOG: i32 = 4096;
/// A service on the stack's own bridge answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(10);

/// Runs until it is aborted; connections in progress end with it.
pub(super) async fn forward(
    sockets: Vec<(SocketAddr, OwnedFd)>,
    target: SocketAddr,
    table: Arc<ListenTable>,
    stack: Arc<Worker>,
    look: Arc<Notify>,
) {
    let sockets: Vec<OwnedFd> = sockets.into_iter().map(|(_, socket)| socket).collect();
    let mut connections = JoinSet::new();
    loop {
        until_answering(&table, target.port(), &look).await;
        let listeners = match sockets.iter().map(listener).collect::<io::Result<Vec<_>>>() {
            Ok(listeners) => listeners,
            Err(error) => {
                tracing::warn!(%target, %error, "a published port cannot listen");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        serve(&listeners, target, &table, &stack, &mut connections).await;
        drop(listeners);
        sockets.iter().for_each(pause);
    }
}

/// Looks often at first, when the program is starting, then twenty times a second, and
/// whenever somebody knows better.
async fn until_answering(table: &ListenTable, port: u16, look: &Notify) {
    let since = Instant::now();
    while !table.answers(port) {
        let pause = match since.elapsed().as_secs() {
            0 => 4,
            1..=9 => 15,
            _ => 50,
        };
        // Whichever comes first: the time, or the hint.
        drop(tokio::time::timeout(Duration::from_millis(pause), look.notified()).await);
    }
}

/// Another descriptor of the same socket, listening. The kernel asks for the port again, and connections of an
/// earlier run may still fade there; nobody else gets a port that is listened on.
fn listener(socket: &OwnedFd) -> io::Result<TcpListener> {
    set_socket_reuseaddr(socket, true)?;
    listen(socket, BACKLOG)?;
    TcpListener::from_std(socket.try_clone()?.into())
}

/// Stops listening; the port stays ours, and ours alone.
fn pause(socket: &OwnedFd) {
    let _ = set_socket_reuseaddr(socket, false);
    if let Err(error) = shutdown(socket, Shutdown::Read) {
        tracing::debug!(%error, "a published port goes on listening");
    }
}

/// Accepts until the service refuses and really has gone (a late refusal of an earlier
/// connection says nothing about the service that came back).
async fn serve(
    listeners: &[TcpListener],
    target: SocketAddr,
    table: &ListenTable,
    stack: &Arc<Worker>,
    connections: &mut JoinSet<bool>,
) {
    loop {
        tokio::select! {
            client = accept_any(listeners) => {
                let stack = stack.clone();
                connections.spawn(async move { connection(client, target, &stack).await });
            }
            Some(ended) = connections.join_next() => {
                if matches!(ended, Ok(false)) && !table.answers(target.port()) {
                    return;
                }
            }
        }
    }
}

async fn accept_any(listeners: &[TcpListener]) -> TcpStream {
    loop {
        let accepted = match listeners {
            [one] => one.accept().await,
            [one, other, ..] => tokio::select! { a = one.accept() => a, b = other.accept() => b },
            [] => std::future::pending().await,
        };
        match accepted {
            Ok((stream, _)) => {
                // The listener's own flag is cleared, and inherited: a connection that fades after the end of the
                // service would keep the port from the next one for a minute.
                if let Err(error) = set_socket_reuseaddr(&stream, true) {
                    tracing::debug!(%error, "a fading connection may keep its port");
                }
                return stream;
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed.
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Whether the service took the connection.
async fn connection(client: TcpStream, target: SocketAddr, stack: &Worker) -> bool {
    let service = match tokio::time::timeout(CONNECT, reach(target, stack)).await {
        Ok(Ok(service)) => service,
        failure => {
            pump::reset(&client);
            return !matches!(failure, Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused);
        }
    };
    for stream in [&client, &service] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small packets may wait");
        }
    }
    pump::run(client, service).await;
    true
}

async fn reach(target: SocketAddr, stack: &Worker) -> io::Result<TcpStream> {
    let make = move || if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    stack.run(make).await?.connect(target).await
}
