//! ADD of files over HTTP.
//!
//! `remote/KEY` holds what an address gave, `remote/KEY.json` what the server said about it. An entity tag asks whether it
//! is still so; without one it is downloaded again. With a checksum that fits, nobody is asked.

use super::failure::{BuildFailure, Doing, Result};
use super::key::Key;
use super::request::Secret;
use super::shared::{Shared, blocking};
use super::tree::Tree;
use crate::obtain::Registries;
use serde::{Deserialize, Serialize};
use stack_runtime::home;
use stack_runtime::image::{Digest, fetch};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// A downloaded file, as a name in a directory of this build.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) url: String,
    pub(super) tree: Arc<Tree>,
    pub(super) file: PathBuf,
    pub(super) digest: Digest,
    /// `Last-Modified`, which becomes the file's time.
    pub(super) modified: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    digest: Digest,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    modified: Option<i64>,
}

impl Remote {
    /// The last name of the address's path.
    pub(super) fn name(&self) -> String {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| rest);
        match path.split_once('/').and_then(|(_, path)| path.rsplit('/').next()) {
            None | Some("") => "__unnamed__".into(),
            Some(name) => decoded(name),
        }
    }
}

/// `%41` is `A`; what is no text then stays as it is.
fn decoded(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) if byte != b'/' && byte != 0 => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

pub(super) fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// The content of an address; it is what `checksum` says.
pub(super) async fn obtain(shared: &Arc<Shared>, url: &str, checksum: Option<&str>) -> Result<Remote> {
    let expected = checksum.map(Digest::parse).transpose()?;
    let key = Key::new("remote").text("url", url).finish();
    let _lock = {
        let (shared, key) = (shared.clone(), key.clone());
        blocking(move || shared.cache.lock(&key).doing(|| "lock a download")).await?
    };
    let path = shared.cache.remote(&key);
    let known = home::read_json::<Record>(&path.with_extension("json")).unwrap_or(None);
    let known = known.filter(|_| path.is_file());
    let is_offline = shared.request.registries == Registries::Offline;
    let record = match known {
        Some(record) if expected.as_ref() == Some(&record.digest) => record,
        Some(record) if is_offline => record,
        _ if is_offline => return Err(kept_out(url)),
        known => download(shared, url, &path, known).await?,
    };
    if let Some(expected) = expected.filter(|expected| *expected != record.digest) {
        let failure = BuildFailure::new(format!("digest mismatch {}: {expected}", record.digest));
        return Err(failure.hint("The file is not what --checksum says."));
    }
    let (shared, url) = (shared.clone(), url.to_owned());
    blocking(move || take(&shared, &path, record, url).doing(|| "keep a download")).await
}

/// `--offline`.
pub(super) fn kept_out(address: &str) -> BuildFailure {
    let failure = BuildFailure::new(format!("{address} is not here, and --offline keeps the network out"));
    failure.hint("Run it once without `--offline`.")
}

async fn download(shared: &Shared, url: &str, path: &Path, known: Option<Record>) -> Result<Record> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).doing(|| "make a file for a download")?;
    let etag = known.as_ref().and_then(|record| record.etag.as_deref());
    let authorization = authorization(shared, url)?;
    let fetched = fetch::fetch(url, etag, authorization.as_deref(), file.as_file_mut()).await?;
    let (fetched, record) = match (fetched, known) {
        (None, Some(record)) => return Ok(record),
        (None, None) => return Err(BuildFailure::new(format!("failed to download {url}: no content"))),
        (Some(fetched), _) => {
            let record = Record {
                digest: fetched.digest.clone(),
                etag: fetched.etag.clone(),
                modified: fetched.modified,
            };
            (fetched, record)
        }
    };
    let keep = || {
        // 0600, and the time that the server said.
        let time = u64::try_from(fetched.modified.unwrap_or(0)).unwrap_or(0);
        file.as_file().set_permissions(PermissionsExt::from_mode(0o600))?;
        file.as_file().set_modified(UNIX_EPOCH + Duration::from_secs(time))?;
        // The record of other content must not outlive it.
        let _ = fs::remove_file(path.with_extension("json"));
        file.persist(path).map_err(|e| e.error)?;
        home::replace_json(&path.with_extension("json"), &record)
    };
    keep().doing(|| format!("keep what {url} gave"))?;
    Ok(record)
}

/// Another name for the file, which nobody prunes while this build lives.
fn take(shared: &Shared, path: &Path, record: Record, url: String) -> io::Result<Remote> {
    let directory = tempfile::Builder::new().prefix("remote-").tempdir_in(shared.cache.tmp())?.keep();
    fs::hard_link(path, directory.join("content"))?;
    let tree = Arc::new(Tree::open(&directory)?);
    Ok(Remote { url, tree, file: "content".into(), digest: record.digest, modified: record.modified })
}

/// `HTTP_AUTH_HEADER_host` or `HTTP_AUTH_TOKEN_host` of the build's secrets.
fn authorization(shared: &Shared, url: &str) -> Result<Option<String>> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let host = rest.split(['/', ':', '?', '#']).next().unwrap_or_default();
    let secret = |kind: &str| -> Option<(&str, &Secret)> {
        let id = format!("HTTP_AUTH_{kind}_{host}");
        shared.request.secrets.get_key_value(&id).map(|(id, secret)| (id.as_str(), secret))
    };
    let text = |(id, secret): (&str, &Secret)| {
        let bytes = super::mounts::secret_bytes(id, secret)?;
        Ok::<_, BuildFailure>(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    if let Some(header) = secret("HEADER") {
        return text(header).map(Some);
    }
    secret("TOKEN").map(|token| Ok(format!("Bearer {}", text(token)?))).transpose()
}

/// The file's inode data.
pub(super) fn stat(remote: &Remote) -> io::Result<rustix::fs::Stat> {
    let file: File = remote.tree.file(&remote.file)?;
    Ok(rustix::fs::fstat(&file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_path() {
        let directory = tempfile::tempdir().expect("a directory");
        let name = |url: &str| {
            let tree = Arc::new(Tree::open(directory.path()).expect("opened"));
            Remote { url: url.into(), tree, file: "f".into(), digest: Digest::of(b""), modified: None }.name()
        };
        assert_eq!(name("https://a.io/x/y.tar.gz?z=1#w"), "y.tar.gz");
        assert_eq!(name("https://a.io/x/a%20b%2Fc%zz"), "a b%2Fc%zz");
        assert_eq!(name("https://a.io/x/"), "__unnamed__");
        assert_eq!(name("https://a.io"), "__unnamed__");
    }
}
