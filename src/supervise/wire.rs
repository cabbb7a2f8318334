//! Frames with file descriptors over a unix stream socket (see [`super::protocol`]).
//!
//! Errors are the operating system's, and `InvalidData` for a frame that is too long, is not JSON or has another version.

use super::protocol::{Frame, LONGEST_FRAME_BYTES, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;

const LENGTH_BYTES: usize = 4;
/// Standard input, output and error, and one to spare.
const MOST_FDS: usize = 4;

/// One end of a connection. Its halves work at the same time.
#[derive(Debug)]
pub struct Wire {
    pub sender: Sender,
    pub receiver: Receiver,
}

#[derive(Debug)]
pub struct Sender(Arc<UnixStream>);

#[derive(Debug)]
pub struct Receiver {
    stream: Arc<UnixStream>,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Wire {
    /// Takes the stream if the other end belongs to the same user or to root.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?.uid();
        if peer != 0 && peer != nix::unistd::geteuid().as_raw() {
            let message = format!("the other end belongs to user {peer}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let stream = Arc::new(stream);
        let receiver = Receiver { stream: stream.clone(), received: Vec::new(), fds: Vec::new() };
        Ok(Self { sender: Sender(stream), receiver })
    }

    pub async fn send<T: Serialize>(&self, body: T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.sender.send(body, fds).await
    }

    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receiver.receive().await
    }
}

/// Tells whether the other end is still there, without reading.
#[derive(Debug, Clone)]
pub struct Line(Arc<UnixStream>);

impl Line {
    pub fn is_cut(&self) -> bool {
        let flags = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut fds = [PollFd::new(&self.0, flags)];
        // What cannot be looked at counts as there: it ends by itself.
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|_| fds[0].revents().intersects(flags))
    }
}

impl Sender {
    pub fn line(&self) -> Line {
        Line(self.0.clone())
    }

    pub async fn send<T: Serialize>(&self, body: T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let json = serde_json::to_vec(&Frame { v: VERSION, body })?;
        let length = u32::try_from(json.len()).map_err(|_| invalid("frame too long"))?;
        let bytes = [length.to_be_bytes().as_slice(), &json].concat();
        let mut sent = self.send_some(&bytes, fds).await?;
        while sent < bytes.len() {
            sent += self.send_some(&bytes[sent..], &[]).await?;
        }
        Ok(())
    }

    async fn send_some(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                Ok(sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
            })
            .await
    }
}

impl Receiver {
    /// The next frame and what came with it; `None` when the other end is gone. Nothing is lost when it is cancelled.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        while !self.has_frame()? {
            if self.receive_some().await? == 0 {
                let is_between_frames = self.received.is_empty();
                return if is_between_frames { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        let end = LENGTH_BYTES + self.length();
        let frame = decode(&self.received[LENGTH_BYTES..end])?;
        self.received.drain(..end);
        Ok(Some((frame, std::mem::take(&mut self.fds))))
    }

    fn length(&self) -> usize {
        let prefix = self.received.first_chunk::<LENGTH_BYTES>().copied().unwrap_or_default();
        u32::from_be_bytes(prefix) as usize
    }

    fn has_frame(&self) -> io::Result<bool> {
        if self.received.len() < LENGTH_BYTES {
            return Ok(false);
        }
        if self.length() > LONGEST_FRAME_BYTES {
            return Err(invalid("frame too long"));
        }
        Ok(self.received.len() >= LENGTH_BYTES + self.length())
    }

    async fn receive_some(&mut self) -> io::Result<usize> {
        let Self { stream, received, fds } = self;
        stream
            .async_io(Interest::READABLE, || {
                let mut bytes = [0; 8192];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let slices = &mut [IoSliceMut::new(&mut bytes)];
                let count = recvmsg(&*stream, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(arrived) = message {
                        fds.extend(arrived);
                    }
                }
                received.extend_from_slice(&bytes[..count]);
                Ok(count)
            })
            .await
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = serde_json::from_slice(bytes)?;
    if v != VERSION {
        return Err(invalid(format!(
            "the other end speaks version {v} of the protocol, this end version {VERSION}"
        )));
    }
    Ok(serde_json::from_slice::<Frame<T>>(bytes)?.body)
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::protocol::Request;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use tokio::io::AsyncWriteExt;

    fn pair() -> (Wire, Wire) {
        let (a, b) = UnixStream::pair().expect("pair");
        (Wire::new(a).expect("own user"), Wire::new(b).expect("own user"))
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order() {
        let (a, mut b) = pair();
        let long = "x".repeat(300_000);
        let sending = async {
            a.send(Request::Ping, &[]).await.expect("send");
            a.send(Request::Start { id: long.clone(), attach: None }, &[]).await.expect("send");
            drop(a);
        };
        let receiving = async {
            let first = b.receive::<Request>().await.expect("read").expect("frame");
            let second = b.receive::<Request>().await.expect("read").expect("frame");
            let end = b.receive::<Request>().await.expect("read");
            (first.0, second.0, end.is_none())
        };
        let ((), (first, second, is_end)) = tokio::join!(sending, receiving);
        assert_eq!(first, Request::Ping);
        assert_eq!(second, Request::Start { id: long.clone(), attach: None });
        assert!(is_end);
    }

    #[tokio::test]
    async fn file_descriptors_ride_along() {
        let (a, mut b) = pair();
        let (mut reader, writer) = io::pipe().expect("pipe");
        a.send(Request::Ping, &[writer.as_fd()]).await.expect("send");
        drop(writer);
        let (_, mut fds) = b.receive::<Request>().await.expect("read").expect("frame");
        let mut file = std::fs::File::from(fds.pop().expect("one"));
        file.write_all(b"hello").expect("write");
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn foreign_bytes_are_refused_by_name() {
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), "too long"),
            ([4u32.to_be_bytes().to_vec(), b"{}{}".to_vec()].concat(), "trailing"),
            ([16u32.to_be_bytes().to_vec(), br#"{"v":9,"body":1}"#.to_vec()].concat(), "version 9"),
        ] {
            let (mut a, b) = UnixStream::pair().expect("pair");
            a.write_all(&bytes).await.expect("write");
            let mut wire = Wire::new(b).expect("own user");
            let error = wire.receive::<Request>().await.expect_err("not a frame").to_string();
            assert!(error.contains(expected) || error.contains("missing field"), "{error}");
        }
    }

    #[tokio::test]
    async fn half_a_frame_is_an_error() {
        let (mut a, b) = UnixStream::pair().expect("pair");
        a.write_all(&[0, 0, 0, 9, b'{']).await.expect("write");
        drop(a);
        let mut wire = Wire::new(b).expect("own user");
        let error = wire.receive::<Request>().await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
