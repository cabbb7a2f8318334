//! The attach socket: `attach.sock` in the container's directory, one packet per frame.
//!
//! | to the monitor | | to the client | |
//! |---|---|---|---|
//! | `i` bytes | input | `o` bytes | standard output, or the terminal |
//! | `c` | end of input | `e` bytes | standard error |
//! | `r` rows, columns (16 bits each, big-endian) | resize | | |
//!
//! The end of the connection is the end of the program.

use crate::logs::Stream;
use crate::sys::packet;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Output waiting for one client beyond this holds the program up.
const MAX_QUEUE_BYTES: usize = 1 << 20;
const MAX_INPUT_BYTES: usize = 16 * 1024;

pub(super) enum Input {
    Bytes(Vec<u8>),
    Close,
    Resize { rows: u16, cols: u16 },
}

/// A socket's address has 108 bytes, a path may have more: go through the open directory.
fn address(dir: &File) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/attach.sock", dir.as_raw_fd()))?)
}

pub(super) fn listen(dir: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(dir.join("attach.sock")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    bind(&socket, &address(&File::open(dir)?)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// The monitor's side of one connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    queue: VecDeque<Vec<u8>>,
    is_gone: bool,
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, queue: VecDeque::new(), is_gone: false }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.iter().map(Vec::len).sum::<usize>() > MAX_QUEUE_BYTES
    }

    pub(super) fn interest(&self, may_read: bool) -> PollFlags {
        let input = if may_read { PollFlags::IN } else { PollFlags::empty() };
        if self.queue.is_empty() { input } else { input | PollFlags::OUT }
    }

    pub(super) fn send(&mut self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Stdout => b'o',
            Stream::Stderr => b'e',
        };
        self.queue.push_back([&[kind], bytes].concat());
        self.flush();
    }

    /// As much as the client takes now.
    pub(super) fn flush(&mut self) {
        while let Some(frame) = self.queue.front() {
            match packet::send(&self.socket, frame, &[]) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_gone = true;
                    self.queue.clear();
                }
            }
        }
    }

    /// The program has ended: the last output, unless the client does not take it.
    pub(super) fn flush_blocking(&mut self) {
        let patience = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        self.flush();
        while !self.queue.is_empty() {
            let mut fds = [rustix::event::PollFd::new(&self.socket, PollFlags::OUT)];
            if !matches!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1)) {
                return;
            }
            self.flush();
        }
    }

    pub(super) fn receive(&mut self) -> Option<Input> {
        match packet::receive(&self.socket) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Ok((bytes, _)) => match bytes.as_slice() {
                [b'i', input @ ..] => Some(Input::Bytes(input.to_vec())),
                [b'c'] => Some(Input::Close),
                [b'r', a, b, c, d] => Some(Input::Resize {
                    rows: u16::from_be_bytes([*a, *b]),
                    cols: u16::from_be_bytes([*c, *d]),
                }),
                _ => self.lose(),
            },
            Err(_) => self.lose(),
        }
    }

    fn lose(&mut self) -> Option<Input> {
        self.is_gone = true;
        None
    }
}

/// The client's side, for use within a tokio runtime. May be shared: one task reads, another writes.
#[derive(Debug)]
pub struct Attachment(AsyncFd<OwnedFd>);

/// Connects to the monitor of a created or running container. Who connects before the start misses nothing; `size`
/// (rows, columns) is what its terminal then has from the beginning.
pub fn connect_to(dir: &Path, size: Option<(u16, u16)>) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &address(&File::open(dir)?)?)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    if let Some((rows, columns)) = size {
        packet::send(&socket, &resize(rows, columns), &[])?;
    }
    Ok(socket)
}

fn resize(rows: u16, columns: u16) -> [u8; 5] {
    let ([a, b], [c, d]) = (rows.to_be_bytes(), columns.to_be_bytes());
    [b'r', a, b, c, d]
}

impl Attachment {
    /// Takes over a connection made by [`connect_to`].
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(crate::sys::watch(socket)?))
    }

    /// Sends input; waits while the program does not read.
    pub async fn input(&self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(MAX_INPUT_BYTES) {
            self.send(&[b"i", part].concat()).await?;
        }
        Ok(())
    }

    pub async fn close_input(&self) -> io::Result<()> {
        self.send(b"c").await
    }

    pub async fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        self.send(&resize(rows, cols)).await
    }

    /// The next piece of output; `None` when the program has ended.
    pub async fn output(&self) -> io::Result<Option<(Stream, Vec<u8>)>> {
        let bytes = loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|fd| packet::receive(fd.get_ref())) {
                break match result {
                    // The monitor ended with input of ours unread.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => continue,
                    result => result?.0,
                };
            }
        };
        match bytes.split_first() {
            None => Ok(None),
            Some((b'e', rest)) => Ok(Some((Stream::Stderr, rest.to_vec()))),
            Some((_, rest)) => Ok(Some((Stream::Stdout, rest.to_vec()))),
        }
    }

    async fn send(&self, frame: &[u8]) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(result) = ready.try_io(|fd| packet::send(fd.get_ref(), frame, &[])) {
                return result;
            }
        }
    }
}
