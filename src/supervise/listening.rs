//! Is a TCP port listened on at an address that others can reach? Rows of `/proc/PID/net/tcp{,6}`.
//!
//! Images of databases first run a private server that answers their usual health check, stops, and is followed by
//! the real one. That first server listens on a socket file or on loopback; an early success of a health check is
//! believed only when an exposed port is listened on elsewhere.

use std::path::Path;

/// State `TCP_LISTEN` in the table's fourth column.
const LISTEN: &str = "0A";

/// Whether one of the TCP ports is listened on beyond loopback in the network namespace of `pid`. True without ports:
/// there is nothing to look for.
pub fn reaches_any(pid: i32, ports: &[u16]) -> bool {
    ports.is_empty()
        || ["tcp", "tcp6"].iter().any(|table| {
            let path = Path::new("/proc").join(pid.to_string()).join("net").join(table);
            std::fs::read_to_string(path).is_ok_and(|rows| has_listener(&rows, ports))
        })
}

/// The TCP ports of `80/tcp`, `53/udp`, `8000-8002/tcp`, `9000`; what cannot be read is left out.
pub fn tcp_ports(exposed: &[String]) -> Vec<u16> {
    exposed.iter().flat_map(|text| tcp_range(text)).collect()
}

fn tcp_range(text: &str) -> std::ops::RangeInclusive<u16> {
    #[allow(clippy::reversed_empty_ranges)]
    let none = 1..=0;
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !protocol.eq_ignore_ascii_case("tcp") {
        return none;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) => first..=last,
        _ => none,
    }
}

fn has_listener(rows: &str, ports: &[u16]) -> bool {
    rows.lines()
        .skip(1)
        .filter_map(listener)
        .any(|(address, port)| ports.contains(&port) && !is_loopback(address))
}

/// Address and port of a row that is a listener.
fn listener(row: &str) -> Option<(&str, u16)> {
    let mut columns = row.split_ascii_whitespace().skip(1);
    let (address, port) = columns.next()?.split_once(':')?;
    let state = columns.nth(1)?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN).then_some((address, port))
}

/// The kernel prints each 32-bit word in host order: `127.0.0.1` is `0100007F` on a little-endian machine.
fn is_loopback(address: &str) -> bool {
    let last_word = address.get(address.len().saturating_sub(8)..).unwrap_or(address);
    let front = &address[..address.len() - last_word.len()];
    let is_v4 = front.is_empty() || front.eq_ignore_ascii_case(&mapped_front());
    if is_v4 {
        first_byte(last_word) == Some(127)
    } else {
        front.bytes().all(|b| b == b'0') && word(last_word) == Some(1)
    }
}

fn mapped_front() -> String {
    format!("0000000000000000{:08X}", u32::from_ne_bytes([0, 0, 0xff, 0xff]))
}

/// The word in network order.
fn word(hex: &str) -> Option<u32> {
    u32::from_str_radix(hex, 16).ok().map(|printed| u32::from_be_bytes(printed.to_ne_bytes()))
}

fn first_byte(hex: &str) -> Option<u8> {
    word(hex).map(|w| w.to_be_bytes()[0])
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn row(address: &str, state: &str) -> String {
        format!(
            "{HEAD}   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
        )
    }

    #[test]
    fn loopback_does_not_count() {
        for loopback in [
            "0100007F:1538",
            "0B00007F:1538",
            "00000000000000000000000001000000:1538",
            "0000000000000000FFFF00000100007F:1538",
        ] {
            assert!(!has_listener(&row(loopback, "0A"), &[5432]), "{loopback}");
        }
    }

    #[test]
    fn any_other_address_counts() {
        for reachable in [
            "00000000:1538",
            "020011AC:1538",
            "00000000000000000000000000000000:1538",
            "0000000000000000FFFF0000020011AC:1538",
            "000080FE00000000FF005450B6AD1DFE:1538",
        ] {
            assert!(has_listener(&row(reachable, "0A"), &[5432]), "{reachable}");
        }
    }

    #[test]
    fn other_ports_and_connections_do_not_count() {
        assert!(!has_listener(&row("00000000:1539", "0A"), &[5432]));
        assert!(!has_listener(&row("00000000:1538", "01"), &[5432]));
        assert!(!has_listener("", &[5432]));
        assert!(!has_listener("x\ny z\n", &[5432]));
    }

    #[test]
    fn exposed_ports_are_read_leniently() {
        let exposed = ["80/tcp", "53/udp", "8000-8002/TCP", "9000", "x/tcp", "9-1/tcp"].map(String::from);
        assert_eq!(tcp_ports(&exposed), [80, 8000, 8001, 8002, 9000]);
    }

    #[test]
    fn without_ports_there_is_nothing_to_wait_for() {
        assert!(reaches_any(1, &[]));
    }
}
