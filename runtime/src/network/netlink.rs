//! Requests to the kernel's routing side, many in one write.
//!
//! The messages are those of `rtnetlink`; the transport is one blocking socket per batch,
//! because a batch runs on a namespace's own thread and the kernel answers at once.

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Requests in order, each with words for the error.
#[derive(Debug, Default)]
pub(super) struct Batch {
    requests: Vec<(String, NetlinkMessage<RouteNetlinkMessage>)>,
}

impl Batch {
    pub(super) fn add_link(&mut self, what: impl Into<String>, link: LinkMessage) {
        self.push(what, RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
    }

    pub(super) fn set_link(&mut self, what: impl Into<String>, link: LinkMessage) {
        self.push(what, RouteNetlinkMessage::NewLink(link), 0);
    }

    pub(super) fn remove_link(&mut self, what: impl Into<String>, link: LinkMessage) {
        self.push(what, RouteNetlinkMessage::DelLink(link), 0);
    }

    pub(super) fn add_address(&mut self, what: impl Into<String>, address: AddressMessage) {
        self.push(what, RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL);
    }

    pub(super) fn add_route(&mut self, what: impl Into<String>, route: RouteMessage) {
        self.push(what, RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL);
    }

    fn push(&mut self, what: impl Into<String>, message: RouteNetlinkMessage, flags: u16) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.requests.len() as u32 + 1;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        self.requests.push((what.into(), message));
    }

    /// Sends all from the calling thread's namespace.
    ///
    /// # Errors
    /// The first request the kernel refused, with its words; later ones were still tried.
    pub(super) fn send(self) -> io::Result<()> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.send_to(&self.bytes(), &SocketAddr::new(0, 0), 0)?;
        self.collect(&socket)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (_, message) in &self.requests {
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        bytes
    }

    fn collect(&self, socket: &Socket) -> io::Result<()> {
        let mut first = Ok(());
        let mut open = self.requests.len();
        while open > 0 {
            let (bytes, _) = socket.recv_from_full()?;
            for (sequence, code) in acknowledgements(&bytes) {
                open = open.saturating_sub(1);
                if code != 0 && first.is_ok() {
                    first = Err(self.refused(sequence, code));
                }
            }
        }
        first
    }

    fn refused(&self, sequence: u32, code: i32) -> io::Error {
        let reason = io::Error::from_raw_os_error(-code);
        let request = (sequence as usize).checked_sub(1).and_then(|i| self.requests.get(i));
        let what = request.map_or("change the network", |(what, _)| what);
        io::Error::new(reason.kind(), format!("{what}: {reason}"))
    }
}

/// Sequence number and error code (0: done) of each answer in a datagram.
pub(crate) fn acknowledgements(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    const ERROR: u16 = 2;
    let mut found = Vec::new();
    while let Some((length, kind, sequence)) = head(bytes) {
        if kind == ERROR && length >= 20 {
            let code = bytes[16..20].try_into().map_or(0, i32::from_ne_bytes);
            found.push((sequence, code));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Length, type and sequence number of the message that `bytes` begin with.
fn head(bytes: &[u8]) -> Option<(usize, u16, u32)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    (length >= 16 && length <= bytes.len()).then_some((length, kind, sequence))
}
