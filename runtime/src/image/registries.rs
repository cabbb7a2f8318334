//! How registries are reached: mirrors, and which of them may do without a certificate that somebody signed.
//!
//! ```json
//! {
//!   "registry-mirrors": ["https://mirror.example"],
//!   "mirrors": { "ghcr.io": ["https://mirror.example/ghcr"] },
//!   "insecure-registries": ["registry.lan:5000"]
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
        Ok(self)
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
        is_loopback(host) || self.insecure_registries.iter().any(|insecure| insecure == host)
    }
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
    fn files_that_are_wrong_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.json");
        assert!(Config::read_file(&path).is_none());
        for text in ["{", r#"{"registry-mirrors":["mirror.example"]}"#, r#"{"mirrors":{"a":["ftp://x"]}}"#] {
            std::fs::write(&path, text).unwrap();
            let error = Config::read_file(&path).unwrap().unwrap_err().to_string();
            assert!(error.contains("registries.json"), "{error}");
        }
    }
}
