//! What a container reads about names: `hosts`, `hostname`, `resolv.conf`.
//!
//! The three are written into the container's folder at every start and bind-mounted from
//! there, so edits from inside last until the next start. They are written in place,
//! because a mounted file must stay the same file.

use crate::spec::{ContainerSpec, DnsSpec};
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// The parts of a `resolv.conf` that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolv {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Resolv {
    /// Never fails: lines that make no sense are passed over. The last `search` or `domain` wins.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().map(|l| l.split(['#', ';']).next().unwrap_or("")) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                // A zone (`fe80::1%eth0`) has no meaning in another namespace.
                Some("nameserver") => {
                    found.servers.extend(words.next().and_then(|a| a.parse::<IpAddr>().ok()))
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }

    /// The file at `path`; an unreadable one is empty.
    pub fn read(path: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            writeln!(text, "nameserver {server}").expect("a string takes everything");
        }
        for (key, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                writeln!(text, "{key} {}", words.join(" ")).expect("a string takes everything");
            }
        }
        text
    }
}

/// `resolv.conf` of a container on networks of its own: our resolver, the host's search
/// list unless the container has one, and `ndots:0` unless it says otherwise.
pub(super) fn embedded_resolv(dns: &DnsSpec, host: &Resolv) -> String {
    let mut options = dns.options.clone();
    if !options.iter().any(|o| o.starts_with("ndots:")) {
        options.push("ndots:0".into());
    }
    Resolv { servers: vec![super::RESOLVER.into()], search: search(dns, host), options }.render()
}

/// `resolv.conf` of a container that shares the host's network or has none: the host's, with the container's wishes in front.
pub(super) fn host_resolv(dns: &DnsSpec, host: &Resolv) -> String {
    let servers: Vec<IpAddr> = dns.servers.iter().filter_map(|s| s.parse().ok()).collect();
    Resolv {
        servers: if servers.is_empty() { host.servers.clone() } else { servers },
        search: search(dns, host),
        options: if dns.options.is_empty() { host.options.clone() } else { dns.options.clone() },
    }
    .render()
}

/// A lone `.` clears the list.
fn search(dns: &DnsSpec, host: &Resolv) -> Vec<String> {
    let wanted = if dns.search.is_empty() { &host.search } else { &dns.search };
    wanted.iter().filter(|s| *s != ".").cloned().collect()
}

/// The container's host name: its own, else the short id.
pub fn hostname<'a>(spec: &'a ContainerSpec, id: &'a str) -> &'a str {
    spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| short_id(id))
}

/// The first twelve digits.
pub fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// `hosts`: loopback names, own addresses, then the user's lines (already resolved).
pub(super) fn hosts(spec: &ContainerSpec, id: &str, own: &[IpAddr], extra: &[(String, String)]) -> String {
    let mut text = String::from(LOOPBACK);
    let names = own_names(spec, id);
    for address in own {
        writeln!(text, "{address}\t{names}").expect("a string takes everything");
    }
    append_hosts(&mut text, extra);
    text
}

/// The user's `extra_hosts`, one per line.
pub(super) fn append_hosts(text: &mut String, extra: &[(String, String)]) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (host, address) in extra {
        writeln!(text, "{address}\t{host}").expect("a string takes everything");
    }
}

/// `host.domain host`; a dotted host name is followed by its first part.
fn own_names(spec: &ContainerSpec, id: &str) -> String {
    let host = hostname(spec, id);
    match (spec.domainname.as_deref().filter(|d| !d.is_empty()), host.split_once('.')) {
        (Some(domain), _) => format!("{host}.{domain} {host}"),
        (None, Some((first, _))) => format!("{host} {first}"),
        (None, None) => host.to_owned(),
    }
}

pub(super) const LOOPBACK: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Writes the three files in place.
pub(super) fn write_all(dir: &Path, hosts: &str, hostname: &str, resolv: &str) -> io::Result<()> {
    std::fs::write(dir.join("hosts"), hosts)?;
    std::fs::write(dir.join("hostname"), format!("{hostname}\n"))?;
    std::fs::write(dir.join("resolv.conf"), resolv)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# made by hand\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\ndomain old\nsearch a.example b.example ; remark\noptions edns0\n";

    #[test]
    fn a_resolv_conf_is_read_and_the_junk_passed_over() {
        let found = Resolv::parse(HOST);
        assert_eq!(found.servers, ["10.0.0.53".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.search, ["a.example", "b.example"]);
        assert_eq!(found.options, ["edns0"]);
        assert_eq!(Resolv::parse("nameserver\n\0\nsearch"), Resolv::default());
    }

    #[test]
    fn the_embedded_resolver_comes_with_ndots() {
        let host = Resolv::parse(HOST);
        let text = embedded_resolv(&DnsSpec::default(), &host);
        assert_eq!(text, "nameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:0\n");
        let dns = DnsSpec { search: vec![".".into()], options: vec!["ndots:2".into()], ..DnsSpec::default() };
        assert_eq!(embedded_resolv(&dns, &host), "nameserver 127.0.0.11\noptions ndots:2\n");
    }

    #[test]
    fn the_hosts_copy_prefers_the_containers_servers() {
        let host = Resolv::parse(HOST);
        assert!(host_resolv(&DnsSpec::default(), &host).starts_with("nameserver 10.0.0.53\n"));
        let dns = DnsSpec { servers: vec!["1.2.3.4".into()], ..DnsSpec::default() };
        assert_eq!(
            host_resolv(&dns, &host),
            "nameserver 1.2.3.4\nsearch a.example b.example\noptions edns0\n"
        );
    }

    #[test]
    fn hosts_has_own_names_and_the_users_lines() {
        let id = "0123456789abcdef";
        let own = ["172.18.0.2".parse().unwrap()];
        let mut spec = ContainerSpec::default();
        let extra = [("db.test".to_owned(), "10.0.0.9".to_owned())];
        let text = hosts(&spec, id, &own, &extra);
        assert!(text.ends_with("172.18.0.2\t0123456789ab\n10.0.0.9\tdb.test\n"), "{text}");
        spec.hostname = Some("web.shop".into());
        assert!(hosts(&spec, id, &own, &[]).ends_with("172.18.0.2\tweb.shop web\n"));
        spec.hostname = Some("web".into());
        spec.domainname = Some("shop.test".into());
        assert!(hosts(&spec, id, &own, &[]).ends_with("172.18.0.2\tweb.shop.test web\n"));
    }
}
