//! Credentials: what `docker login` left in `config.json`.
//!
//! `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`. Inline `auths` are used; a credential helper
//! (the program `docker-credential-NAME`) is asked only when the registry refuses without it, since public
//! images need no credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

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

/// A setting of the same file, e.g. `detachKeys`.
pub fn configured(name: &str) -> Option<String> {
    let bytes = std::fs::read(path()?).ok()?;
    let file: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    file.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

pub(super) fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let directory = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(directory.join("config.json"))
}

/// Whether a key of the file is about the registry.
pub(super) fn fits(key: &str, registry: &str) -> bool {
    let wanted = if registry == "docker.io" { HUB_KEY } else { registry };
    host(key) == wanted || key == registry
}

/// The key that a registry gets in the file.
pub(super) fn key(registry: &str) -> String {
    if registry == "docker.io" { format!("https://{HUB_KEY}/v1/") } else { registry.to_owned() }
}

/// The program that keeps the registry's password, if one does.
pub(super) fn helper(registry: &str) -> Option<String> {
    let text = path().and_then(|p| std::fs::read(p).ok());
    let config = text.and_then(|t| serde_json::from_slice::<ConfigFile>(&t).ok()).unwrap_or_default();
    let own = config.cred_helpers.iter().find(|(key, _)| fits(key, registry)).map(|(_, name)| name.clone());
    own.or(Some(config.creds_store)).filter(|name| !name.is_empty())
}

/// What a helper knows about a registry. Blocks.
///
/// # Errors
/// A sentence: it cannot be run, or fails for another reason than knowing nothing.
pub(super) fn ask_helper(helper: &str, registry: &str) -> Result<Credentials, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Known {
        username: String,
        secret: String,
    }
    let answer = match run_helper(helper, "get", key(registry).as_bytes()) {
        Ok(answer) => answer,
        Err(why) if why.contains("credentials not found") => return Ok(Credentials::None),
        Err(why) => return Err(why),
    };
    let known: Known =
        serde_json::from_slice(&answer).map_err(|e| format!("its answer is malformed: {e}"))?;
    Ok(match known.username.as_str() {
        "<token>" => Credentials::Identity(known.secret),
        user => Credentials::Password { user: user.to_owned(), password: known.secret },
    })
}

/// Runs `docker-credential-NAME VERB` with `input`; gives what it prints. Blocks.
pub(super) fn run_helper(helper: &str, verb: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    // A name of a program, not a way to one.
    if helper.contains('/') {
        return Err("its name has a slash".into());
    }
    let mut command = Command::new(format!("docker-credential-{helper}"));
    let command = command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot run docker-credential-{helper}: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why it failed.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // Errors come on standard output.
    let said = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&said).trim().chars().take(300).collect())
}

fn find(config: &ConfigFile, registry: &str) -> Credentials {
    let fits = |key: &str| fits(key, registry);
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
