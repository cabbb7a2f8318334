//! Credentials: what `docker login` left in `config.json`.
//!
//! `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. Inline `auths` are used; where a
//! credential helper would be asked, that is said only if the registry refuses without it,
//! since public images need no credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The key under which Docker Hub's credentials are kept.
const HUB_KEY: &str = "index.docker.io";

#[derive(Clone, PartialEq)]
pub(crate) enum Credentials {
    None,
    Password {
        user: String,
        password: String,
    },
    /// A refresh token for the token server.
    Identity(String),
    /// Kept by a helper program of this name.
    Helper(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ConfigFile {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// For a registry as it is named in references. A file that cannot be read has no credentials;
/// one that is damaged is reported in the error of the request that needed it.
pub(crate) fn credentials(registry: &str) -> Credentials {
    let text = path().and_then(|p| std::fs::read(p).ok());
    let config = text.and_then(|t| serde_json::from_slice::<ConfigFile>(&t).ok()).unwrap_or_default();
    find(&config, registry)
}

fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let directory = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(directory.join("config.json"))
}

fn find(config: &ConfigFile, registry: &str) -> Credentials {
    let wanted = if registry == "docker.io" { HUB_KEY } else { registry };
    let fits = |key: &str| host(key) == wanted || key == registry;
    if let Some((_, helper)) = config.cred_helpers.iter().find(|(key, _)| fits(key)) {
        return Credentials::Helper(helper.clone());
    }
    let inline =
        config.auths.iter().find(|(key, _)| fits(key)).map_or(Credentials::None, |(_, entry)| inline(entry));
    match inline {
        Credentials::None if !config.creds_store.is_empty() => {
            Credentials::Helper(config.creds_store.clone())
        }
        inline => inline,
    }
}

/// Keys may be URLs with a path.
fn host(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

fn inline(entry: &Entry) -> Credentials {
    if !entry.identitytoken.is_empty() {
        return Credentials::Identity(entry.identitytoken.clone());
    }
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
    if let Some((user, password)) = decoded.as_deref().and_then(|t| t.split_once(':')) {
        // Docker pads with zero bytes.
        return Credentials::Password { user: user.into(), password: password.trim_end_matches('\0').into() };
    }
    if entry.username.is_empty() {
        return Credentials::None;
    }
    Credentials::Password { user: entry.username.clone(), password: entry.password.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(text: &str, registry: &str) -> Credentials {
        find(&serde_json::from_str(text).unwrap(), registry)
    }

    fn is_password(credentials: Credentials, expected: (&str, &str)) -> bool {
        matches!(credentials, Credentials::Password { user, password } if (user.as_str(), password.as_str()) == expected)
    }

    #[test]
    fn inline_forms() {
        // u:p
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"ghcr.io":{"username":"a","password":"b"},"x.io":{"identitytoken":"t","auth":"dTpw"}}}"#;
        assert!(is_password(find_in(text, "docker.io"), ("u", "p")));
        assert!(is_password(find_in(text, "ghcr.io"), ("a", "b")));
        assert!(find_in(text, "x.io") == Credentials::Identity("t".into()));
        assert!(find_in(text, "other.io") == Credentials::None);
        assert!(find_in(r#"{"auths":{"a.io":{"auth":"%%"}}}"#, "a.io") == Credentials::None);
    }

    #[test]
    fn helpers_are_named() {
        let text = r#"{"auths":{"a.io":{}},"credsStore":"desktop","credHelpers":{"b.io":"ecr-login"}}"#;
        assert!(find_in(text, "a.io") == Credentials::Helper("desktop".into()));
        assert!(find_in(text, "b.io") == Credentials::Helper("ecr-login".into()));
    }
}
