//! What listens inside a container: rows of the kernel's TCP tables.
//!
//! The files are opened once inside the namespace and stay bound to it, so reading them
//! again costs neither a change of namespace nor a process of the container to ask about.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileExt;

/// The state of a listening socket.
const LISTEN: u8 = 0x0a;
/// Tables longer than this are read up to here only.
const MAX_BYTES: usize = 4 << 20;

/// The TCP tables of one namespace.
#[derive(Debug)]
pub struct ListenTable {
    files: Vec<File>,
}

/// One socket of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub local: SocketAddr,
    pub state: u8,
    pub inode: u64,
}

impl ListenTable {
    /// Those of the calling thread's namespace. A kernel without IPv6 has one table.
    pub fn open() -> io::Result<Self> {
        let mut files = vec![File::open("/proc/thread-self/net/tcp")?];
        files.extend(File::open("/proc/thread-self/net/tcp6").ok());
        Ok(Self { files })
    }

    /// Addresses listened on. A table that cannot be read counts as empty.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let text: String = self.files.iter().filter_map(|f| read(f).ok()).collect();
        rows(&text).filter(|r| r.state == LISTEN).map(|r| r.local).collect()
    }

    /// Whether a connection to `port` at an address of the container would find somebody:
    /// sockets on loopback only do not count.
    pub fn answers(&self, port: u16) -> bool {
        self.listening().iter().any(|a| a.port() == port && !a.ip().to_canonical().is_loopback())
    }
}

fn read(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 16 << 10];
    while bytes.len() < MAX_BYTES {
        match file.read_at(&mut chunk, bytes.len() as u64)? {
            0 => break,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The rows of `/proc/net/{tcp,udp}{,6}`; heads and damaged rows are passed over.
pub fn rows(text: &str) -> impl Iterator<Item = Row> + '_ {
    text.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(Row {
            local: socket_address(columns.get(1)?)?,
            state: u8::from_str_radix(columns.get(3)?, 16).ok()?,
            inode: columns.get(9)?.parse().ok()?,
        })
    })
}

/// `0100007F:1F90`: words of four bytes in the machine's order, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| u32::from_str_radix(address.get(i * 8..i * 8 + 8)?, 16).ok().map(u32::from_be);
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from_bits(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Ipv6Addr::from_bits(words.iter().fold(0, |all, w| all << 32 | u128::from(*w))).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_both_families() {
        let text = "  sl  local_address rem_address   st\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 123 1 0\n\
            1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1\n\
            2: 0000000000000000FFFF00000100007F:0051 0:0 0A 0:0 0:0 0 0 0 78 1\n\
            broken: row";
        let found: Vec<Row> = rows(text).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], Row { local: "127.0.0.1:8080".parse().unwrap(), state: LISTEN, inode: 123 });
        assert_eq!(found[1].local, "[::]:80".parse().unwrap());
        assert!(found[2].local.ip().to_canonical().is_loopback());
    }

    #[test]
    fn a_listening_socket_of_this_namespace_is_seen() {
        let table = ListenTable::open().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(table.listening().contains(&address));
        assert!(!table.answers(address.port()), "loopback does not count");
        drop(listener);
        assert!(!table.listening().contains(&address));
    }
}
