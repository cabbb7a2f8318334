//! nftables over netlink, without the `nft` program: just the bytes we need.
//!
//! A [`Transaction`] is tables, chains and rules that appear together or not at all. A rule
//! is a list of [`Expression`]s: each loads a value into a register,
//! compares it (a mismatch ends the rule) or gives the verdict. Numbers are those of
//! `linux/netfilter/nf_tables.h`; attribute values are big-endian, register contents are
//! in network order for packet fields and in the machine's order for kernel values.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
/// The 16-byte register that every expression here uses.
const REGISTER: u32 = 1;
/// A second value, where an expression takes two.
const SECOND_REGISTER: u32 = 2;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    Ipv4 = 2,
}

/// Where a chain is asked. All of them accept what no rule decides, but for the policy.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    pub name: &'a str,
    /// `filter` or `nat`.
    pub kind: &'a str,
    pub hook: Hook,
    pub priority: i32,
    pub accept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Input = 1,
    Forward = 2,
    Output = 3,
    PostRouting = 4,
}

/// One step of a rule.
#[derive(Debug, Clone)]
pub enum Expression {
    /// The packet came in by an interface whose name begins so (`exact`: is so).
    InputInterface {
        name: String,
        exact: bool,
    },
    OutputInterface {
        name: String,
        exact: bool,
    },
    /// Connection tracking has one of these states.
    State(u32),
    /// Transport protocol number.
    Protocol(u8),
    /// IPv4 destination.
    Destination([u8; 4]),
    DestinationPort(u16),
    Drop,
    Accept,
    /// Leave with the address of the outgoing interface.
    Masquerade,
    /// To this address and port instead.
    Rewrite {
        address: [u8; 4],
        port: u16,
    },
}

/// Bits of [`Expression::State`].
pub const INVALID: u32 = 1;
pub const ESTABLISHED: u32 = 2;
pub const RELATED: u32 = 4;

/// Changes that happen together.
#[derive(Debug)]
pub struct Transaction {
    family: Family,
    table: String,
    bytes: Vec<u8>,
    requests: u32,
}

impl Transaction {
    /// Begins with an empty table: one that exists is replaced. (It is made, removed and made
    /// again, because removing one that does not exist is an error.)
    pub fn new(family: Family, table: &str) -> Self {
        let mut new = Self { family, table: table.into(), bytes: Vec::new(), requests: 0 };
        new.message(BATCH_BEGIN, REQUEST, 10, &[]);
        let name = text(1, table);
        new.request(NEW_TABLE, CREATE, &name);
        new.request(DELETE_TABLE, 0, &name);
        new.request(NEW_TABLE, CREATE, &name);
        new
    }

    pub fn chain(mut self, chain: &Chain<'_>) -> Self {
        let hook = [number(1, chain.hook as u32), number(2, chain.priority.cast_unsigned())].concat();
        let attributes = [
            text(1, &self.table),
            text(3, chain.name),
            nested(4, &hook),
            number(5, u32::from(chain.accept)),
            text(7, chain.kind),
        ];
        self.request(NEW_CHAIN, CREATE, &attributes.concat());
        self
    }

    pub fn rule(mut self, chain: &str, expressions: &[Expression]) -> Self {
        let list: Vec<u8> = expressions.iter().flat_map(Expression::encode).collect();
        let attributes = [text(1, &self.table), text(2, chain), nested(4, &list)];
        self.request(NEW_RULE, CREATE | APPEND, &attributes.concat());
        self
    }

    /// Makes it so in the calling thread's namespace.
    ///
    /// # Errors
    /// The first refusal; nothing was changed then. A kernel without nftables refuses all.
    pub fn commit(mut self) -> io::Result<()> {
        self.message(BATCH_END, REQUEST, 10, &[]);
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.send_to(&self.bytes, &SocketAddr::new(0, 0), 0)?;
        let mut open = self.requests;
        while open > 0 {
            let (answer, _) = socket.recv_from_full()?;
            for (_, code) in crate::network::acknowledgements(&answer) {
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                open = open.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn request(&mut self, kind: u16, flags: u16, attributes: &[u8]) {
        self.requests += 1;
        self.message(kind, REQUEST | ACKNOWLEDGE | flags, 0, attributes);
    }

    fn message(&mut self, kind: u16, flags: u16, resource: u16, attributes: &[u8]) {
        let family = if resource == 0 { self.family as u8 } else { 0 };
        let length = (16 + 4 + attributes.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.requests.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(attributes);
    }
}

impl Expression {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::InputInterface { name, exact } => [meta(6), equals(&interface(name, *exact))].concat(),
            Self::OutputInterface { name, exact } => [meta(7), equals(&interface(name, *exact))].concat(),
            Self::State(bits) => state(*bits),
            Self::Protocol(protocol) => [meta(16), equals(&[*protocol])].concat(),
            Self::Destination(address) => [payload(1, 16, 4), equals(address)].concat(),
            Self::DestinationPort(port) => [payload(2, 2, 2), equals(&port.to_be_bytes())].concat(),
            Self::Drop => verdict(0),
            Self::Accept => verdict(1),
            Self::Masquerade => expression("masq", &[]),
            Self::Rewrite { address, port } => {
                let target = [number(1, 1), number(2, 2), number(3, REGISTER), number(5, SECOND_REGISTER)];
                let load = [immediate(REGISTER, address), immediate(SECOND_REGISTER, &port.to_be_bytes())];
                [load.concat(), expression("nat", &target.concat())].concat()
            }
        }
    }
}

/// A kernel value (6 and 7: interface names, 16: transport protocol) into the register.
fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(1, REGISTER), number(2, key)].concat())
}

/// Bytes of the packet into the register; base 1 is the network header, 2 the transport header.
fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression(
        "payload",
        &[number(1, REGISTER), number(2, base), number(3, offset), number(4, length)].concat(),
    )
}

fn immediate(register: u32, value: &[u8]) -> Vec<u8> {
    expression("immediate", &[number(1, register), nested(2, &attribute(1, value))].concat())
}

fn equals(value: &[u8]) -> Vec<u8> {
    compare(0, value)
}

fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, operation), nested(3, &attribute(1, value))].concat())
}

/// Load the state, keep the bits asked for, and go on when any is left.
fn state(bits: u32) -> Vec<u8> {
    let load = expression("ct", &[number(2, 0), number(1, REGISTER)].concat());
    let mask = [
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, 4),
        nested(4, &attribute(1, &bits.to_ne_bytes())),
        nested(5, &attribute(1, &[0; 4])),
    ];
    [load, expression("bitwise", &mask.concat()), compare(1, &[0; 4])].concat()
}

fn verdict(code: u32) -> Vec<u8> {
    let data = nested(2, &nested(2, &number(1, code)));
    // Register 0 is the verdict.
    expression("immediate", &[number(1, 0), data].concat())
}

/// A whole name is 16 bytes with zeros behind it; the beginning of one is just its bytes.
fn interface(name: &str, exact: bool) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.truncate(15);
    if exact {
        bytes.resize(16, 0);
    }
    bytes
}

fn expression(name: &str, attributes: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, attributes)].concat())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, value)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}
