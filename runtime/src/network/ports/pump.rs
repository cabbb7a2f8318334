//! Bytes from one connection to the other, without copying them through this process.
//!
//! Each direction has a pipe: the kernel moves pages from a socket into it and out to the
//! other socket. The end of one direction is passed on as such, and the other goes on.
//! Moving into a connection that has ended raises SIGPIPE, which a Rust program ignores
//! unless it is told otherwise: whoever runs this must leave it so.

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Moved at a time: the size of a pipe.
const CHUNK_BYTES: usize = 64 << 10;

/// Until both directions have ended, or one has broken: then the other end sees a reset.
pub(super) async fn run(client: TcpStream, service: TcpStream) {
    let both = async { tokio::try_join!(one_way(&client, &service), one_way(&service, &client)) };
    if let Err(error) = both.await {
        tracing::debug!(%error, "a published connection broke");
        reset(&client);
        reset(&service);
    }
}

/// Closing will send a reset.
pub(super) fn reset(stream: &TcpStream) {
    if let Err(error) = sockopt::set_socket_linger(stream, Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection ends without a reset");
    }
}

async fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    loop {
        let moved = from.async_io(Interest::READABLE, || fill(from, &into)).await?;
        if moved == 0 {
            return finish(to);
        }
        let mut left = moved;
        while left > 0 {
            left -= to.async_io(Interest::WRITABLE, || drain(&out, to, left)).await?;
        }
    }
}

/// The pipe is empty here, so "would block" speaks of the socket.
fn fill(from: &TcpStream, into: &OwnedFd) -> io::Result<usize> {
    Ok(splice(from, None, into, None, CHUNK_BYTES, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

/// The pipe holds `left` bytes here, so "would block" speaks of the socket.
fn drain(out: &OwnedFd, to: &TcpStream, left: usize) -> io::Result<usize> {
    Ok(splice(out, None, to, None, left, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

/// A peer that has gone already needs no end.
fn finish(to: &TcpStream) -> io::Result<()> {
    match shutdown(to, Shutdown::Write) {
        Err(Errno::NOTCONN) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
