//! What a container reads about names: `hosts`, `hostname`, `resolv.conf`.

use std::net::IpAddr;

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
            let key = words.next();
            match key {
                // A zone (`fe80::1%eth0`) has no meaning in another namespace.
                Some("nameserver") => found.servers.extend(words.next().and_then(|a| a.parse::<IpAddr>().ok())),
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }
}
