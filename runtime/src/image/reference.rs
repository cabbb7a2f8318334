//! Image references: `[REGISTRY/]PATH[:TAG][@DIGEST]`, normalised as Docker does.
//!
//! `redis` means `docker.io/library/redis:latest`. The part before the first slash is a registry
//! when it has a dot or a colon, is `localhost`, or has an upper-case letter. A digest wins over
//! a tag; the tag is then only shown. Source of the rules: the grammar that the registry
//! specification and Docker's own client document.

use super::digest::{Digest, is_hex};
use super::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const DEFAULT_REGISTRY: &str = "docker.io";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A complete, checked reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// # Errors
    /// [`Error::Reference`] with the reason in words.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).map_err(|reason| Error::Reference { text: text.chars().take(300).collect(), reason })
    }

    /// Host and optional port, `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }
    /// The repository inside the registry: `library/redis`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// Registry and path: `docker.io/library/redis`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn version(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The same name pinned to a digest, without a tag.
    pub fn pinned(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same name with another tag, without a digest.
    ///
    /// # Errors
    /// When the tag is malformed.
    pub fn tagged(&self, tag: &str) -> Result<Self> {
        Self::parse(&format!("{}:{tag}", self.name()))
    }

    /// The short name that people know: `redis`, `grafana/grafana`, `ghcr.io/a/b`.
    pub fn familiar_name(&self) -> String {
        let ambiguous = self.path.split_once('/').is_some_and(|(first, _)| names_registry(first));
        if self.registry != DEFAULT_REGISTRY || ambiguous {
            return self.name();
        }
        match self.path.strip_prefix("library/") {
            // Without the prefix `library/a/b` would be read as another repository.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The short form with tag and digest: `redis:8`.
    pub fn familiar(&self) -> String {
        with_version(self.familiar_name(), self)
    }
}

fn with_version(mut name: String, reference: &Reference) -> String {
    if let Some(tag) = &reference.tag {
        name.push(':');
        name.push_str(tag);
    }
    if let Some(digest) = &reference.digest {
        name.push('@');
        name.push_str(digest.as_str());
    }
    name
}

/// The canonical form: `docker.io/library/redis:8`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_version(self.name(), self))
    }
}

impl std::str::FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

type Parsed<T> = std::result::Result<T, String>;

fn parse(text: &str) -> Parsed<Reference> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if is_hex(text, 64) {
        return Err("64 hex digits are an image id, not a name".into());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|e| e.to_string())?)),
        None => (text, None),
    };
    let (name, tag) = split_tag(rest);
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, path) = split_registry(name);
    check_registry(&registry)?;
    check_path(&path)?;
    if registry.len() + 1 + path.len() > NAME_MAX {
        return Err(format!("its name is longer than {NAME_MAX} characters"));
    }
    let tag = match (tag, &digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { registry, path, tag, digest })
}

/// A colon after the last slash starts the tag; one before it belongs to the registry's port.
fn split_tag(rest: &str) -> (&str, Option<&str>) {
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    match rest[last..].split_once(':') {
        Some((component, tag)) => (&rest[..last + component.len()], Some(tag)),
        None => (rest, None),
    }
}

fn split_registry(name: &str) -> (String, String) {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if names_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !path.contains('/') {
        return (registry.to_owned(), format!("library/{path}"));
    }
    (registry.to_owned(), path.to_owned())
}

fn names_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Parsed<()> {
    let invalid = || format!("`{registry}` is not a registry's host name");
    let (host, port) = split_port(registry).ok_or_else(invalid)?;
    if let Some(port) = port
        && port.parse::<u16>().is_err()
    {
        return Err(format!("`{port}` is not a port"));
    }
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().map(|_| ()).map_err(|_| invalid());
    }
    if host.split('.').all(is_host_label) { Ok(()) } else { Err(invalid()) }
}

fn split_port(registry: &str) -> Option<(&str, Option<&str>)> {
    if registry.starts_with('[') {
        let end = registry.find(']')? + 1;
        return match &registry[end..] {
            "" => Some((registry, None)),
            rest => Some((&registry[..end], Some(rest.strip_prefix(':')?))),
        };
    }
    match registry.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((registry, None)),
    }
}

fn is_host_label(label: &str) -> bool {
    let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    alphanumeric(label.bytes().next())
        && alphanumeric(label.bytes().last())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn check_path(path: &str) -> Parsed<()> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository name must be lower case".into());
    }
    match path.split('/').find(|component| !is_path_component(component)) {
        None => Ok(()),
        Some("") => Err("a part of its name is empty".into()),
        Some(bad) => Err(format!("`{bad}` is not a valid part of a name")),
    }
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(|&b| alphanumeric(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

fn check_tag(tag: &str) -> Parsed<()> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if valid { Ok(()) } else { Err(format!("`{tag}` is not a valid tag")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_like_docker() {
        for (text, canonical, familiar) in [
            ("redis", "docker.io/library/redis:latest", "redis:latest"),
            ("redis:8", "docker.io/library/redis:8", "redis:8"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest", "grafana/grafana:latest"),
            ("docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
            ("index.docker.io/library/redis", "docker.io/library/redis:latest", "redis:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("[::1]/a", "[::1]/a:latest", "[::1]/a:latest"),
            ("GHCR/a", "GHCR/a:latest", "GHCR/a:latest"),
            ("ghcr.io/A-b".to_lowercase().as_str(), "ghcr.io/a-b:latest", "ghcr.io/a-b:latest"),
            ("a__b/c---d", "docker.io/a__b/c---d:latest", "a__b/c---d:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(Reference::parse(canonical).unwrap(), reference);
        }
    }

    #[test]
    fn digest_wins_over_tag() {
        let reference = Reference::parse(&format!("redis:8@sha256:{HEX}")).unwrap();
        assert_eq!(reference.version(), format!("sha256:{HEX}"));
        assert_eq!(reference.familiar(), format!("redis:8@sha256:{HEX}"));
        assert_eq!(Reference::parse(&format!("redis@sha256:{HEX}")).unwrap().tag(), None);
    }

    #[test]
    fn rejects_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("Redis", "lower case"),
            ("ghcr.io/Foo/bar", "lower case"),
            ("a//b", "empty"),
            ("/a", "empty"),
            ("a/", "empty"),
            ("a:", "tag"),
            ("a:-x", "tag"),
            ("a___b", "valid part"),
            ("a..b", "valid part"),
            ("-a", "valid part"),
            ("a:b:c", "tag"),
            ("host:port/a", "port"),
            ("ex_ample.com/a", "host name"),
            ("a@sha256:00", "64"),
            ("a@", "algorithm"),
            (HEX, "image id"),
            ("a b", "valid part"),
            ("ü", "valid part"),
        ] {
            let error = Reference::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Reference::parse(&"a".repeat(256)).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_is_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference.clone());
                prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }

        #[test]
        fn likely_texts(text in "[a-z0-9.:/@_\\[\\]-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference.clone());
                prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
