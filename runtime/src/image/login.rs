//! Signing in to registries, as `docker login` and `docker logout` do: what they leave in `config.json` is
//! [`super::auth`]'s and other tools' to read.
//!
//! With `credsStore` or a fitting entry of `credHelpers` the helper program keeps the password; otherwise it is written
//! into the file, which only its owner may read. Everything else in the file stays as it is.

use super::auth::{self, Credentials};
use super::error::{Doing, Error, Result};
use super::reference::Reference;
use super::registry::{Access, Registry};
use crate::home;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where the password was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Readable for whoever can read this file.
    File(std::path::PathBuf),
    Helper(String),
}

/// Asks the registry whether the password is right and keeps it.
///
/// # Errors
/// [`Error::Unauthorised`] for a wrong one; the file or the helper that refuses it.
pub async fn login(registry: &str, user: &str, password: &str) -> Result<Kept> {
    let credentials = Credentials::Password { user: user.to_owned(), password: password.to_owned() };
    Registry::with(&server(registry)?, Access::Pull, credentials).await?.check().await?;
    keep(registry, user, password)
}

/// Forgets the password; `false`: there was none.
///
/// # Errors
/// The file or the helper that refuses it.
pub fn logout(registry: &str) -> Result<bool> {
    let path = auth::path().ok_or_else(no_place)?;
    let mut config = read(&path)?;
    if let Some(helper) = auth::helper(registry) {
        auth::run_helper(&helper, "erase", auth::key(registry).as_bytes())
            .map_err(|why| Error::invalid(format!("the credential helper `{helper}`"), why))?;
    }
    let auths = config.get_mut("auths").and_then(Value::as_object_mut);
    let Some(auths) = auths else { return Ok(false) };
    let before = auths.len();
    auths.retain(|key, _| !auth::fits(key, registry));
    let is_removed = auths.len() < before;
    if is_removed {
        write(&path, &config)?;
    }
    Ok(is_removed)
}

/// Any repository of the registry stands for it.
fn server(registry: &str) -> Result<Reference> {
    Reference::parse(&format!("{registry}/login")).map_err(|_| {
        Error::invalid(format!("registry `{registry}`"), "it has to be a host, with a port if need be")
    })
}

fn keep(registry: &str, user: &str, password: &str) -> Result<Kept> {
    let path = auth::path().ok_or_else(no_place)?;
    let mut config = read(&path)?;
    let key = auth::key(registry);
    let helper = auth::helper(registry);
    let entry = match &helper {
        Some(helper) => {
            let secret = json!({"ServerURL": key, "Username": user, "Secret": password}).to_string();
            auth::run_helper(helper, "store", secret.as_bytes())
                .map_err(|why| Error::invalid(format!("the credential helper `{helper}`"), why))?;
            json!({})
        }
        None => json!({"auth": STANDARD.encode(format!("{user}:{password}"))}),
    };
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    let Some(auths) = auths.as_object_mut() else {
        return Err(Error::invalid(path.display().to_string(), "its `auths` is no object"));
    };
    auths.insert(key, entry);
    write(&path, &config)?;
    Ok(helper.map_or(Kept::File(path), Kept::Helper))
}

fn no_place() -> Error {
    Error::invalid("the environment", "neither DOCKER_CONFIG nor HOME is set")
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(e) => return Err(e).doing(|| format!("read {}", path.display())),
    };
    serde_json::from_slice(&bytes).map_err(|e| Error::invalid(path.display().to_string(), e))
}

/// New files are private from the start, since they are made by a private temporary one.
fn write(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).doing(doing)?;
    let mode = path.metadata().map_or(0o600, |meta| meta.permissions().mode() & 0o600);
    // Where the file is a link, what it leads to is replaced.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let text = serde_json::to_vec_pretty(config).map_err(|e| Error::invalid("the configuration", e))?;
    home::replace(&real, &text).doing(doing)?;
    std::fs::set_permissions(&real, PermissionsExt::from_mode(mode)).doing(doing)
}
