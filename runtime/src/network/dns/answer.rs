//! From a query to the bytes of its answer.

use super::zone::{Known, Zone};
use simple_dns::rdata::{A, AAAA, OPT, PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Seconds an answer may be kept, as in Docker.
const TTL_SECONDS: u32 = 600;
/// What a client without EDNS takes over UDP.
const PLAIN_UDP_BYTES: u16 = 512;
/// What we say we take.
const OUR_UDP_BYTES: u16 = 4096;

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send these bytes.
    Reply(Vec<u8>),
    /// Ask the servers outside.
    Forward,
    /// Not a query we can even answer with an error.
    Drop,
}

/// Decides about one query of container `asking`. `limit` bounds the answer (UDP); `None` is TCP.
pub fn decide(zone: &Zone, asking: &str, query: &[u8], over_udp: bool) -> Verdict {
    let Ok(packet) = Packet::parse(query) else { return malformed(query) };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Verdict::Drop;
    }
    let [question] = packet.questions.as_slice() else { return failure(query, RCODE::FormatError) };
    if packet.opcode() != OPCODE::StandardQuery {
        return failure(query, RCODE::NotImplemented);
    }
    let name = question.qname.to_string();
    let limit = over_udp.then(|| udp_limit(&packet));
    match question.qtype {
        QTYPE::TYPE(TYPE::A) => addresses(&packet, zone.lookup(asking, &name), IpAddr::is_ipv4, limit),
        QTYPE::TYPE(TYPE::AAAA) => addresses(&packet, zone.lookup(asking, &name), IpAddr::is_ipv6, limit),
        QTYPE::TYPE(TYPE::MX) => addresses(&packet, zone.lookup(asking, &name), |_| false, limit),
        QTYPE::TYPE(TYPE::PTR) => reverse(&packet, zone, asking, &name, limit),
        _ => Verdict::Forward,
    }
}

/// The query's answer as an error with this code.
pub fn failure(query: &[u8], code: RCODE) -> Verdict {
    match Packet::parse(query) {
        Ok(packet) => finish(reply_to(&packet, code), None),
        Err(_) => malformed(query),
    }
}

/// SERVFAIL for this query, if it can be answered at all.
pub fn servfail(query: &[u8]) -> Option<Vec<u8>> {
    match failure(query, RCODE::ServerFailure) {
        Verdict::Reply(bytes) => Some(bytes),
        _ => None,
    }
}

/// Bytes that do not parse: FORMERR when at least the head of a query is there.
fn malformed(query: &[u8]) -> Verdict {
    match query {
        [id0, id1, flags, _, ..] if query.len() >= 12 && flags & 0x80 == 0 => {
            let mut reply = Packet::new_reply(u16::from_be_bytes([*id0, *id1]));
            *reply.rcode_mut() = RCODE::FormatError;
            finish(reply, None)
        }
        _ => Verdict::Drop,
    }
}

fn udp_limit(packet: &Packet<'_>) -> usize {
    packet.opt().map_or(PLAIN_UDP_BYTES, |o| o.udp_packet_size.clamp(PLAIN_UDP_BYTES, OUR_UDP_BYTES)).into()
}

fn addresses(
    packet: &Packet<'_>,
    known: Known,
    wanted: fn(&IpAddr) -> bool,
    limit: Option<usize>,
) -> Verdict {
    let Known::Yes(found) = known else { return Verdict::Forward };
    let name = packet.questions[0].qname.clone().into_owned();
    let mut reply = reply_to(packet, RCODE::NoError);
    for address in found.into_iter().filter(wanted) {
        let data = match address {
            IpAddr::V4(v4) => RData::A(A { address: v4.to_bits() }),
            IpAddr::V6(v6) => RData::AAAA(AAAA { address: v6.to_bits() }),
        };
        reply.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, TTL_SECONDS, data));
    }
    finish(reply, limit)
}

fn reverse(packet: &Packet<'_>, zone: &Zone, asking: &str, name: &str, limit: Option<usize>) -> Verdict {
    let Some(target) = reverse_address(name).and_then(|address| zone.reverse(asking, address)) else {
        return Verdict::Forward;
    };
    let Ok(target) = Name::new(&target) else { return Verdict::Forward };
    let mut reply = reply_to(packet, RCODE::NoError);
    let owner = packet.questions[0].qname.clone();
    reply.answers.push(ResourceRecord::new(owner, CLASS::IN, TTL_SECONDS, RData::PTR(PTR(target))));
    finish(reply, limit)
}

/// `2.0.18.172.in-addr.arpa` or 32 nibbles under `ip6.arpa`.
fn reverse_address(name: &str) -> Option<IpAddr> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = digits.rsplit('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    let nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    let whole = nibbles.len() == 32 && nibbles.iter().all(|n| n.len() == 1);
    let bits = whole.then(|| u128::from_str_radix(&nibbles.concat(), 16).ok()).flatten()?;
    Some(Ipv6Addr::from_bits(bits).into())
}

fn reply_to<'a>(packet: &Packet<'a>, code: RCODE) -> Packet<'a> {
    let mut reply = Packet::new_reply(packet.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if packet.opt().is_some() {
        *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: OUR_UDP_BYTES, version: 0 });
    }
    *reply.rcode_mut() = code;
    reply.questions = packet.questions.clone();
    reply
}

/// Bytes of the reply; answers that do not fit are left out and the truncation bit says so.
fn finish(mut reply: Packet<'_>, limit: Option<usize>) -> Verdict {
    loop {
        let Ok(bytes) = reply.build_bytes_vec_compressed() else { return Verdict::Drop };
        match limit {
            Some(limit) if bytes.len() > limit && !reply.answers.is_empty() => {
                reply.set_flags(PacketFlag::TRUNCATION);
                let keep = reply.answers.len() * limit / bytes.len();
                reply.answers.truncate(keep.min(reply.answers.len() - 1));
            }
            _ => return Verdict::Reply(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::zone::Member;
    use super::*;
    use simple_dns::{QCLASS, Question};

    fn zone(replicas: u8) -> Zone {
        let zone = Zone::default();
        for n in 0..replicas {
            let member = Member {
                network: "net".into(),
                addresses: vec![IpAddr::from([10, 0, 0, n + 2])],
                names: vec![format!("p-web-{n}"), "web".into()],
            };
            zone.insert(&n.to_string(), &[member], &[]);
        }
        zone
    }

    fn query(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(77);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(
            Name::new(name).unwrap(),
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.build_bytes_vec().unwrap()
    }

    fn reply(verdict: Verdict) -> Vec<u8> {
        let Verdict::Reply(bytes) = verdict else { panic!("{verdict:?}") };
        bytes
    }

    #[test]
    fn a_known_name_has_its_family_or_no_data() {
        let zone = zone(2);
        let bytes = reply(decide(&zone, "0", &query("WeB", TYPE::A), true));
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.id(), packet.answers.len(), packet.rcode()), (77, 2, RCODE::NoError));
        assert!(packet.answers.iter().all(|a| a.ttl == TTL_SECONDS));
        assert!(packet.has_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED));
        for kind in [TYPE::AAAA, TYPE::MX] {
            let bytes = reply(decide(&zone, "0", &query("web", kind), true));
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.answers.len(), packet.rcode()), (0, RCODE::NoError));
        }
    }

    #[test]
    fn the_unknown_is_forwarded() {
        let zone = zone(1);
        assert_eq!(decide(&zone, "0", &query("example.org", TYPE::A), true), Verdict::Forward);
        assert_eq!(decide(&zone, "0", &query("web", TYPE::TXT), true), Verdict::Forward);
        assert_eq!(decide(&zone, "0", &query("9.9.9.9.in-addr.arpa", TYPE::PTR), true), Verdict::Forward);
    }

    #[test]
    fn reverse_names() {
        let zone = zone(1);
        let bytes = reply(decide(&zone, "0", &query("2.0.0.10.in-addr.arpa", TYPE::PTR), true));
        let packet = Packet::parse(&bytes).unwrap();
        let RData::PTR(PTR(name)) = &packet.answers[0].rdata else { panic!("{packet:?}") };
        assert_eq!(name.to_string(), "p-web-0.net");
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse_address(nibbles), Some("fd00::1".parse().unwrap()));
        assert_eq!(reverse_address("1.2.3.in-addr.arpa"), None);
        assert_eq!(reverse_address("300.2.3.4.in-addr.arpa"), None);
    }

    #[test]
    fn too_long_for_udp_is_truncated_and_whole_over_tcp() {
        let zone = zone(100);
        let bytes = reply(decide(&zone, "0", &query("web", TYPE::A), true));
        let packet = Packet::parse(&bytes).unwrap();
        assert!(bytes.len() <= 512 && packet.has_flags(PacketFlag::TRUNCATION));
        assert!(packet.answers.len() > 20);
        let whole = reply(decide(&zone, "0", &query("web", TYPE::A), false));
        assert_eq!(Packet::parse(&whole).unwrap().answers.len(), 100);
        let mut packet = Packet::new_query(1);
        let parsed = query("web", TYPE::A);
        packet.questions = Packet::parse(&parsed).unwrap().questions;
        *packet.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: 4096, version: 0 });
        let big = reply(decide(&zone, "0", &packet.build_bytes_vec().unwrap(), true));
        let big = Packet::parse(&big).unwrap();
        assert_eq!((big.answers.len(), big.opt().is_some()), (100, true));
    }

    #[test]
    fn junk_never_panics_and_answers_are_not_answered() {
        let zone = zone(1);
        let good = query("web", TYPE::A);
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(decide(&zone, "0", &response, true), Verdict::Drop);
        assert_eq!(decide(&zone, "0", &[], true), Verdict::Drop);
        for cut in 0..good.len() {
            decide(&zone, "0", &good[..cut], true);
        }
        let mut seed = 1u32;
        for _ in 0..2000 {
            let mut bytes = good.clone();
            for byte in &mut bytes {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if seed >> 28 == 0 {
                    *byte = (seed >> 16) as u8;
                }
            }
            decide(&zone, "0", &bytes, true);
        }
    }
}
