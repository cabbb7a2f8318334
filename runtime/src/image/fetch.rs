//! Single files over HTTP, for the builder. Redirects are followed; proxies and authorities are those of [`super::pull`].

use super::digest::{Digest, Hasher};
use super::error::{Doing, Error, Result};
use super::registry::{client, is_loopback, unreachable};
use reqwest::header::{AUTHORIZATION, ETAG, HeaderName, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Response, StatusCode, Url};
use std::fs::File;
use std::io::Write;

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub digest: Digest,
    pub etag: Option<String>,
    /// `Last-Modified` in seconds since 1970.
    pub modified: Option<i64>,
}

/// Downloads into `to`, which is empty. `known`: the entity tag of what is already here; `None` means that this is
/// still what the server has.
///
/// # Errors
/// [`Error::Unreachable`] without an answer; another answer than the file.
pub async fn fetch(
    url: &str,
    known: Option<&str>,
    authorization: Option<&str>,
    to: &mut File,
) -> Result<Option<Fetched>> {
    let invalid = |reason: String| Error::invalid(format!("the address `{url}`"), reason);
    let parsed = Url::parse(url).map_err(|e| invalid(e.to_string()))?;
    let host = parsed.host_str().unwrap_or_default().to_owned();
    let client = client(is_loopback(&host)).map_err(|e| unreachable(&host, &e))?;
    let mut request = client.get(parsed);
    for (name, value) in [(IF_NONE_MATCH, known), (AUTHORIZATION, authorization)] {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    let response = request.send().await.map_err(|e| unreachable(&host, &e))?;
    match response.status() {
        StatusCode::NOT_MODIFIED if known.is_some() => Ok(None),
        status if status.is_success() => save(response, url, to).await.map(Some),
        status => {
            let error = std::io::Error::other(format!("the server answered {status}"));
            Err(error).doing(|| format!("download {url}"))
        }
    }
}

async fn save(mut response: Response, url: &str, to: &mut File) -> Result<Fetched> {
    let doing = || format!("download {url}");
    let text = |name: HeaderName| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (etag, modified) = (text(ETAG), text(LAST_MODIFIED));
    let mut hasher = Hasher::default();
    while let Some(chunk) = response.chunk().await.map_err(std::io::Error::other).doing(doing)? {
        hasher.update(&chunk);
        to.write_all(&chunk).doing(doing)?;
    }
    let seconds = |text: String| Some(jiff::fmt::rfc2822::parse(&text).ok()?.timestamp().as_second());
    Ok(Fetched { digest: hasher.finish(), etag, modified: modified.and_then(seconds) })
}
