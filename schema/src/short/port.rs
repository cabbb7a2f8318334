//! `[[ip:][host]:]container[/protocol]`, with ranges.

use super::{ShortError, error};
use std::net::IpAddr;

/// One published port of a short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    pub host_ip: Option<String>,
    /// Empty: any free port. `8080`, or `8000-8010` for one target.
    pub published: String,
    pub target: u16,
    pub protocol: String,
}

/// The published ports of a short form; container ranges are spread. In docker compose's order.
pub fn parse_port(text: &str) -> Result<Vec<PortSpec>, ShortError> {
    let (address, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return error(format!("`{protocol}` is no protocol; it is `tcp`, `udp` or `sctp`"));
    }
    let (front, container) = address.rsplit_once(':').map_or((None, address), |(f, c)| (Some(f), c));
    if container.is_empty() {
        return error("the container's port is missing");
    }
    let (ip, host) =
        match front.map(|front| front.rsplit_once(':').map_or((None, front), |(ip, h)| (Some(ip), h))) {
            None => (None, ""),
            Some((ip, host)) => (ip, host),
        };
    let host_ip = ip.filter(|ip| !ip.is_empty()).map(host_address).transpose()?;
    let targets = range(container)?;
    if targets.0 == 0 {
        return error("the container's port cannot be 0");
    }
    let published = if host.is_empty() { None } else { Some(range(host)?) };
    let mut ports = spread(targets, published, host)?
        .into_iter()
        .map(|(target, published)| PortSpec {
            host_ip: host_ip.clone(),
            published,
            target,
            protocol: protocol.clone(),
        })
        .collect::<Vec<_>>();
    ports.sort_by_key(|port| port.target.to_string());
    Ok(ports)
}

fn host_address(ip: &str) -> Result<String, ShortError> {
    let bare = match ip.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|bare| bare.contains(':')),
        None => Some(ip).filter(|bare| !bare.contains(':')),
    };
    match bare {
        Some(bare) if bare.parse::<IpAddr>().is_ok() => Ok(bare.to_owned()),
        Some(_) => error(format!("`{ip}` is no IP address")),
        None => error(format!("`{ip}` is no IP address; an IPv6 address stands in brackets")),
    }
}

type Range = (u16, u16);

fn range(text: &str) -> Result<Range, ShortError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return error(format!("the range `{text}` ends before it begins"));
    }
    Ok((first, last))
}

fn number(text: &str) -> Result<u16, ShortError> {
    match text.parse::<u16>() {
        Ok(number) => Ok(number),
        Err(_) if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) => {
            error(format!("the port {text} is larger than 65535"))
        }
        Err(_) => error(format!("`{text}` is no port number")),
    }
}

/// Pairs of target and published port.
fn spread(targets: Range, published: Option<Range>, host: &str) -> Result<Vec<(u16, String)>, ShortError> {
    let Some((first, last)) = published else {
        return Ok((targets.0..=targets.1).map(|target| (target, String::new())).collect());
    };
    if targets.0 == targets.1 {
        let published = if first == last { first.to_string() } else { host.to_owned() };
        return Ok(vec![(targets.0, published)]);
    }
    if last - first != targets.1 - targets.0 {
        return error(format!("the ranges {host} and {}-{} differ in length", targets.0, targets.1));
    }
    Ok((targets.0..=targets.1).zip(first..=last).map(|(target, port)| (target, port.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |p: PortSpec| {
            format!("{}|{}|{}|{}", p.host_ip.unwrap_or_default(), p.published, p.target, p.protocol)
        };
        parse_port(text).expect(text).into_iter().map(show).collect()
    }

    #[test]
    fn reads_every_form() {
        for (text, ports) in [
            ("80", vec!["||80|tcp"]),
            ("8080:80", vec!["|8080|80|tcp"]),
            (":80", vec!["||80|tcp"]),
            ("127.0.0.1:8080:80/udp", vec!["127.0.0.1|8080|80|udp"]),
            ("127.0.0.1::80", vec!["127.0.0.1||80|tcp"]),
            ("[::1]:6001:6001", vec!["::1|6001|6001|tcp"]),
            ("3000-3001", vec!["||3000|tcp", "||3001|tcp"]),
            ("9-10:99-100/TCP", vec!["|10|100|tcp", "|9|99|tcp"]),
            ("8000-8010:80", vec!["|8000-8010|80|tcp"]),
        ] {
            assert_eq!(shown(text), ports, "{text}");
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        for (text, reason) in [
            ("", "the container's port is missing"),
            ("80:", "the container's port is missing"),
            ("a:80", "`a` is no port number"),
            ("70000", "the port 70000 is larger than 65535"),
            ("80/foo", "`foo` is no protocol; it is `tcp`, `udp` or `sctp`"),
            ("1-3:1-2", "the ranges 1-3 and 1-2 differ in length"),
            ("5-3", "the range `5-3` ends before it begins"),
            ("::1:80:80", "`::1` is no IP address; an IPv6 address stands in brackets"),
            ("x.y:80:80", "`x.y` is no IP address"),
        ] {
            assert_eq!(parse_port(text), Err(ShortError(reason.into())), "{text}");
        }
    }
}
