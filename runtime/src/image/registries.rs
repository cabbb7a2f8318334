//! How registries are reached: mirrors, and which of them may do without a certificate that somebody signed.
//!
//! ```json
//! {
//!   "registry-mirrors": ["https://mirror.example"],
//!   "mirrors": { "ghcr.io": ["https://mirror.example/ghcr"] },
//!   "insecure-registries": ["registry.lan:5000", "10.0.0.0/8"]
//! }
//! ```
//!
//! `registry-mirrors` are those of docker.io, as in Docker's `daemon.json`. The first of these files that exists counts:
//! `$STACK_REGISTRIES`, `$XDG_CONFIG_HOME/stack/registries.json` (`~/.config/…`), `/etc/stack/registries.json`, and where
//! nobody wrote one of ours `/etc/docker/daemon.json`, so that what Docker was told holds here, too.
//!
//! A mirror is asked before the registry, for reading only; whatever it cannot give comes from the next one.

use super::error::{Error, Result};
use super::registry::is_loopback;
use reqwest::Url;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Config {
    registry_mirrors: Vec<String>,
    mirrors: BTreeMap<String, Vec<String>>,
    insecure_registries: Vec<String>,
}

/// Where requests for a registry may go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Endpoint {
    /// As messages and `config.json` name it.
    pub(super) name: String,
    pub(super) host: String,
    /// With a scheme, perhaps with a path; `None`: HTTPS if it answers to that, else HTTP.
    pub(super) base: Option<String>,
    /// Any certificate will do.
    pub(super) is_insecure: bool,
}

impl Config {
    /// # Errors
    /// A file that is not what it has to be, by its name.
    pub(super) fn read() -> Result<Self> {
        places().iter().find_map(|path| Self::read_file(path)).unwrap_or_else(|| Ok(Self::default()))
    }

    fn read_file(path: &Path) -> Option<Result<Self>> {
        let text = std::fs::read(path).ok()?;
        let read = serde_json::from_slice::<Self>(&text).map_err(|e| e.to_string());
        let checked = read.and_then(|config| config.checked());
        Some(checked.map_err(|why| Error::invalid(format!("the file {}", path.display()), why)))
    }

    fn checked(self) -> std::result::Result<Self, String> {
        let mirrors = self.registry_mirrors.iter().chain(self.mirrors.values().flatten());
        for mirror in mirrors {
            let url = Url::parse(mirror).ok();
            if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some()) {
                return Err(format!("the mirror `{mirror}` is no address, as https://mirror.example is one"));
            }
        }
        let is_wrong = |text: &&String| text.contains('/') && Network::parse(text).is_none();
        match self.insecure_registries.iter().find(is_wrong) {
            Some(wrong) => {
                Err(format!("the insecure registry `{wrong}` is neither HOST[:PORT] nor a network"))
            }
            None => Ok(self),
        }
    }

    /// The registry itself.
    pub(super) fn registry(&self, name: &str) -> Endpoint {
        let host = if name == "docker.io" { "registry-1.docker.io" } else { name };
        let is_insecure = self.is_insecure(host);
        let base = (!is_insecure).then(|| format!("https://{host}"));
        Endpoint { name: name.to_owned(), host: host.to_owned(), base, is_insecure }
    }

    /// Those to ask before it, in order.
    pub(super) fn mirrors(&self, name: &str) -> Vec<Endpoint> {
        let own = self.mirrors.get(name).into_iter().flatten();
        let docker = self.registry_mirrors.iter().filter(|_| name == "docker.io");
        own.chain(docker).filter_map(|mirror| self.mirror(mirror)).collect()
    }

    fn mirror(&self, text: &str) -> Option<Endpoint> {
        let url = Url::parse(text).ok()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = format!("{}{port}", url.host_str()?);
        let base = Some(text.trim_end_matches('/').to_owned());
        Some(Endpoint { name: host.clone(), is_insecure: self.is_insecure(&host), host, base })
    }

    /// Loopback addresses count as configured, as in Docker.
    fn is_insecure(&self, host: &str) -> bool {
        is_loopback(host) || self.insecure_registries.iter().any(|insecure| insecure == host) || {
            let networks: Vec<Network> =
                self.insecure_registries.iter().filter_map(|text| Network::parse(text)).collect();
            !networks.is_empty()
                && addresses(host).iter().any(|ip| networks.iter().any(|network| network.has(*ip)))
        }
    }
}

/// `10.0.0.0/8`: every registry with an address in it, as in Docker.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let network = Self { address: address.parse().ok()?, prefix: prefix.parse().ok()? };
        (network.prefix <= if network.address.is_ipv4() { 32 } else { 128 }).then_some(network)
    }

    fn has(self, ip: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            let shift = width - self.prefix;
            // A shift by the whole width keeps nothing, and all is equal.
            one.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => same(network.to_bits().into(), ip.to_bits().into(), 32),
            (IpAddr::V6(network), IpAddr::V6(ip)) => same(network.to_bits(), ip.to_bits(), 128),
            _ => false,
        }
    }
}

/// Of `HOST[:PORT]`; a name that nobody knows has none.
fn addresses(host: &str) -> Vec<IpAddr> {
    let Ok(url) = Url::parse(&format!("https://{host}")) else { return Vec::new() };
    let found = url.socket_addrs(|| None).unwrap_or_default();
    found.into_iter().map(|address| address.ip()).collect()
}

fn places() -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = set("STACK_REGISTRIES") {
        return vec![path];
    }
    let own = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let own = own.map(|directory| directory.join("stack/registries.json"));
    let shared = ["/etc/stack/registries.json", "/etc/docker/daemon.json"];
    own.into_iter().chain(shared.map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str::<Config>(text).unwrap().checked().unwrap()
    }

    #[test]
    fn mirrors_are_of_their_registry() {
        let config = config(
            r#"{"registry-mirrors":["https://a.io/"],"mirrors":{"ghcr.io":["http://b.io:5000/ghcr"],"docker.io":["https://c.io"]},
            "insecure-registries":["b.io:5000"],"log-level":"debug"}"#,
        );
        let bases = |name: &str| -> Vec<String> {
            config.mirrors(name).into_iter().filter_map(|mirror| mirror.base).collect()
        };
        assert_eq!(bases("docker.io"), ["https://c.io", "https://a.io"]);
        assert_eq!(bases("ghcr.io"), ["http://b.io:5000/ghcr"]);
        assert!(bases("quay.io").is_empty());
        let mirror = &config.mirrors("ghcr.io")[0];
        assert_eq!((mirror.name.as_str(), mirror.is_insecure), ("b.io:5000", true));
        assert_eq!(config.registry("docker.io").base.unwrap(), "https://registry-1.docker.io");
        assert_eq!(config.registry("b.io:5000").base, None);
        assert_eq!(config.registry("127.0.0.1:5000").base, None);
    }

    #[test]
    fn networks_are_insecure_as_a_whole() {
        let config = config(r#"{"insecure-registries":["10.1.0.0/16","fd00::/8","192.0.2.7/32"]}"#);
        for host in ["10.1.2.3", "10.1.255.255:5000", "[fd12::1]:5000", "192.0.2.7"] {
            assert_eq!(config.registry(host).base, None, "{host}");
        }
        for host in ["10.2.0.1", "10.0.255.255:5000", "[fe80::1]:5000", "192.0.2.8", "nobody.invalid:5000"] {
            assert_eq!(config.registry(host).base.as_deref(), Some(format!("https://{host}").as_str()));
        }
        let has = |network: &str, ip: &str| Network::parse(network).unwrap().has(ip.parse().unwrap());
        assert!(has("0.0.0.0/0", "203.0.113.1") && !has("0.0.0.0/0", "::1") && has("::/0", "2001:db8::1"));
        assert!(Network::parse("10.0.0.0/33").is_none() && Network::parse("host/8").is_none());
    }

    #[test]
    fn files_that_are_wrong_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.json");
        assert!(Config::read_file(&path).is_none());
        for text in [
            "{",
            r#"{"registry-mirrors":["mirror.example"]}"#,
            r#"{"mirrors":{"a":["ftp://x"]}}"#,
            r#"{"insecure-registries":["10.0.0.0/40"]}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Config::read_file(&path).unwrap().unwrap_err().to_string();
            assert!(error.contains("registries.json"), "{error}");
        }
    }
}
