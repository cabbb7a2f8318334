//! One repository of one registry over HTTP: the distribution API, version 2.
//!
//! Requests go out without credentials first; a 401 says how to get a token, which is then
//! kept. Registries on loopback addresses, and those configured as insecure ([`super::registries`]),
//! may speak plain HTTP or show a certificate that nobody signed, as with Docker. No answer at all is [`Error::Unreachable`], so that callers
//! can tell "nobody there" from "not here" and "not for you".
//!
//! Automatic decompression stays off everywhere: digests are of the bytes as they travel.

use super::auth::{self, Credentials};
use super::digest::Digest;
use super::error::{Error, Result};
use super::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::reference::Reference;
use super::registries::{Config, Endpoint};
use super::store::DOCUMENT_MAX;
use base64::Engine;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::OnceCell;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

pub(crate) struct Registry {
    client: Client,
    /// `https://host`.
    base: String,
    /// As the user wrote it.
    name: String,
    repository: String,
    access: Access,
    credentials: Credentials,
    /// What the helper said, if the credentials are one's.
    helped: OnceCell<Credentials>,
    /// The `Authorization` header that worked last.
    authorization: Mutex<Option<String>>,
}

/// One place to pull from.
pub(crate) struct Source {
    endpoint: Endpoint,
    reference: Reference,
}

impl Source {
    pub(crate) fn name(&self) -> &str {
        &self.endpoint.name
    }

    pub(crate) async fn open(&self) -> Result<Registry> {
        let credentials = auth::credentials(&self.endpoint.name);
        Registry::at(self.endpoint.clone(), &self.reference, Access::Pull, credentials).await
    }
}

impl Registry {
    pub(crate) async fn open(reference: &Reference, access: Access) -> Result<Self> {
        Self::with(reference, access, auth::credentials(reference.registry())).await
    }

    /// Mirrors first, then the registry itself: each is to be asked for what those before it could not give.
    pub(crate) fn sources(reference: &Reference) -> Result<Vec<Source>> {
        let config = Config::read()?;
        let registry = config.registry(reference.registry());
        let mirrors = config.mirrors(reference.registry()).into_iter();
        Ok(mirrors
            .chain([registry])
            .map(|endpoint| Source { endpoint, reference: reference.clone() })
            .collect())
    }

    pub(super) async fn with(
        reference: &Reference,
        access: Access,
        credentials: Credentials,
    ) -> Result<Self> {
        let endpoint = Config::read()?.registry(reference.registry());
        Self::at(endpoint, reference, access, credentials).await
    }

    async fn at(
        endpoint: Endpoint,
        reference: &Reference,
        access: Access,
        credentials: Credentials,
    ) -> Result<Self> {
        let Endpoint { name, host, base, is_insecure } = endpoint;
        let client = client_for(&host, is_insecure).map_err(|e| unreachable(&name, &e))?;
        let base = match base {
            Some(base) => base,
            None => local_base(&client, &host).await,
        };
        Ok(Self {
            client,
            base,
            repository: reference.path().to_owned(),
            access,
            credentials,
            helped: OnceCell::new(),
            authorization: Mutex::new(None),
            name,
        })
    }

    /// Whether the registry lets us in.
    pub(super) async fn check(&self) -> Result<()> {
        let what = format!("registry {}", self.name);
        let url = Url::parse(&format!("{}/v2/", self.base)).map_err(|e| Error::invalid(&what, e))?;
        let response = self.send(&what, || self.client.get(url.clone())).await?;
        self.expect_success(response, &what).await.map(|_| ())
    }

    /// The bytes of a manifest or index; checked against the digest if asked for by digest.
    pub(crate) async fn manifest(&self, version: &str) -> Result<Vec<u8>> {
        let accept = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let what = self.named(version);
        let url = self.url(&format!("manifests/{version}"))?;
        let response = self.send(&what, || self.client.get(url.clone()).header(ACCEPT, &accept)).await?;
        let response = self.expect_success(response, &what).await?;
        let claimed = header(&response, "docker-content-digest").and_then(|d| Digest::parse(&d).ok());
        let bytes = self.body(response, DOCUMENT_MAX as usize, &what).await?;
        let found = Digest::of(&bytes);
        let expected = Digest::parse(version).ok().or(claimed);
        match expected {
            Some(expected) if expected != found => {
                Err(Error::Digest { what: format!("the manifest of {what}"), expected, found })
            }
            _ => Ok(bytes),
        }
    }

    /// A blob from an offset on. The answer may be 200 (from the start) or 206.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<Response> {
        let what = format!("blob {} of {}", digest.short(), self.named(""));
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self
            .send(&what, || match offset {
                0 => self.client.get(url.clone()),
                offset => self.client.get(url.clone()).header(RANGE, format!("bytes={offset}-")),
            })
            .await?;
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
            _ => self.expect_success(response, &what).await,
        }
    }

    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let what = format!("blob {} of {}", digest.short(), self.named(""));
        let url = self.url(&format!("blobs/{digest}"))?;
        let response = self.send(&what, || self.client.head(url.clone())).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.expect_success(response, &what).await.map(|_| true),
        }
    }

    /// Uploads a blob in one piece; `body` is asked for again when the upload is repeated.
    pub(crate) async fn upload(&self, digest: &Digest, size: u64, body: impl Fn() -> Body) -> Result<()> {
        let what = format!("blob {} of {}", digest.short(), self.named(""));
        let url = self.url("blobs/uploads/")?;
        let begun = self.send(&what, || self.client.post(url.clone()).header(CONTENT_LENGTH, 0)).await?;
        let begun = self.expect_success(begun, &what).await?;
        let mut target = self.location(&begun, &what)?;
        target.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = || {
            let put = self.client.put(target.clone()).header(CONTENT_TYPE, "application/octet-stream");
            put.header(CONTENT_LENGTH, size).body(body())
        };
        let response = self.send(&what, request).await?;
        self.expect_success(response, &what).await.map(|_| ())
    }

    pub(crate) async fn put_manifest(&self, version: &str, media_type: &str, bytes: Vec<u8>) -> Result<()> {
        let what = self.named(version);
        let url = self.url(&format!("manifests/{version}"))?;
        let request = || self.client.put(url.clone()).header(CONTENT_TYPE, media_type).body(bytes.clone());
        let response = self.send(&what, request).await?;
        self.expect_success(response, &what).await.map(|_| ())
    }

    pub(crate) fn named(&self, version: &str) -> String {
        let separator = match version {
            "" => "",
            version if version.contains(':') => "@",
            _ => ":",
        };
        format!("{}{separator}{version}", self.repository)
    }

    /// A failure of a body that is being read.
    pub(crate) fn broken(&self, error: &reqwest::Error) -> Error {
        unreachable(&self.name, error)
    }

    fn url(&self, rest: &str) -> Result<Url> {
        let text = format!("{}/v2/{}/{rest}", self.base, self.repository);
        Url::parse(&text).map_err(|e| Error::invalid(text, e))
    }

    /// Where an upload goes: absolute, or relative to the registry.
    fn location(&self, response: &Response, what: &str) -> Result<Url> {
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let location =
            location.ok_or_else(|| Error::invalid(format!("the answer for {what}"), "it has no location"))?;
        response.url().join(location).map_err(|e| Error::invalid(format!("the answer for {what}"), e))
    }

    /// Sends, and once more with authorisation when the registry asks for it.
    async fn send(&self, what: &str, request: impl Fn() -> RequestBuilder) -> Result<Response> {
        let known = self.authorization.lock().expect("nobody panics with the lock").clone();
        let response = self.send_with(request(), known.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(authorization) = self.authorize(&response, what).await? else {
            return Ok(response);
        };
        *self.authorization.lock().expect("nobody panics with the lock") = Some(authorization.clone());
        self.send_with(request(), Some(&authorization)).await
    }

    async fn send_with(&self, request: RequestBuilder, authorization: Option<&str>) -> Result<Response> {
        let (client, request) = request.build_split();
        let mut request = request.map_err(|e| unreachable(&self.name, &e))?;
        // An upload may be sent to another host, which must not learn the token.
        if let Some(value) = authorization.filter(|_| self.is_ours(request.url()))
            && let Ok(value) = value.parse()
        {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        client.execute(request).await.map_err(|e| unreachable(&self.name, &e))
    }

    fn is_ours(&self, url: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|base| base.origin() == url.origin())
    }

    /// The `Authorization` header that answers the challenges; `None`: there is no way.
    async fn authorize(&self, response: &Response, what: &str) -> Result<Option<String>> {
        for value in response.headers().get_all(WWW_AUTHENTICATE) {
            let Some((scheme, parameters)) = value.to_str().ok().and_then(parse_challenge) else { continue };
            match scheme.as_str() {
                "bearer" => return self.token(&parameters, what).await.map(Some),
                "basic" => {
                    if let Credentials::Password { user, password } = self.credentials(what).await? {
                        return Ok(Some(basic(user, password)));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Asks the helper once.
    async fn credentials(&self, what: &str) -> Result<&Credentials> {
        let Credentials::Helper(helper) = &self.credentials else { return Ok(&self.credentials) };
        let ask = || async {
            let (name, registry) = (helper.clone(), self.name.clone());
            let asked = tokio::task::spawn_blocking(move || auth::ask_helper(&name, &registry)).await;
            asked.unwrap_or_else(|e| Err(e.to_string())).map_err(|why| Error::Unauthorised {
                what: what.to_owned(),
                registry: self.name.clone(),
                reason: format!("the credential helper `{helper}` failed: {why}"),
            })
        };
        self.helped.get_or_try_init(ask).await
    }

    async fn token(&self, challenge: &Parameters, what: &str) -> Result<String> {
        let invalid =
            |reason: &str| Error::invalid(format!("the challenge of registry {}", self.name), reason);
        let realm = parameter(challenge, "realm").ok_or_else(|| invalid("it names no token server"))?;
        let mut url = Url::parse(realm).map_err(|e| invalid(&e.to_string()))?;
        if url.scheme() != "https" && self.base.starts_with("https:") {
            return Err(invalid("its token server is not encrypted"));
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        let service = parameter(challenge, "service").unwrap_or_default();
        let credentials = self.credentials(what).await?;
        let response = self.token_request(&mut url, service, &scope, credentials).send().await;
        let response = response.map_err(|e| unreachable(url.host_str().unwrap_or(&self.name), &e))?;
        let response = self.expect_success(response, what).await?;
        let bytes = self.body(response, ANSWER_MAX, "the token").await?;
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|e| invalid(&format!("its token is malformed: {e}")))?;
        let token =
            token.token.or(token.access_token).ok_or_else(|| invalid("its token server gave no token"))?;
        Ok(format!("Bearer {token}"))
    }

    fn token_request(
        &self,
        url: &mut Url,
        service: &str,
        scope: &str,
        credentials: &Credentials,
    ) -> RequestBuilder {
        if let Credentials::Identity(token) = credentials {
            let mut form = url.clone();
            form.query_pairs_mut().clear().extend_pairs([
                ("grant_type", "refresh_token"),
                ("service", service),
                ("scope", scope),
                ("client_id", "stack"),
                ("refresh_token", token),
            ]);
            let body = form.query().unwrap_or_default().to_owned();
            return self
                .client
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body);
        }
        url.query_pairs_mut().append_pair("service", service).append_pair("scope", scope);
        let request = self.client.request(Method::GET, url.clone());
        match credentials {
            Credentials::Password { user, password } => request.header(AUTHORIZATION, basic(user, password)),
            _ => request,
        }
    }

    async fn expect_success(&self, response: Response, what: &str) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let (what, registry) = (what.to_owned(), self.name.clone());
        let limit = header(&response, "ratelimit-limit").map(|limit| spoken_limit(&limit));
        let reason = self.reason(response).await;
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => Error::TooMany { what, registry, limit, reason },
            StatusCode::NOT_FOUND => Error::NotFound { what, registry },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::Unauthorised { what, registry, reason }
            }
            _ => Error::Registry { what, registry, status: status.as_u16(), reason },
        })
    }

    /// The registry's own words, or what would have been needed.
    async fn reason(&self, response: Response) -> String {
        let status = response.status();
        let bytes = self.body(response, ANSWER_MAX, "the answer").await.unwrap_or_default();
        let said = serde_json::from_slice::<Answer>(&bytes).ok().and_then(|a| a.errors.into_iter().next());
        let said =
            said.map(|e| if e.message.is_empty() { e.code } else { e.message }).filter(|m| !m.is_empty());
        let said =
            said.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_lowercase());
        said.chars().take(500).collect()
    }

    async fn body(&self, mut response: Response, max: usize, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(&e))? {
            if bytes.len() + chunk.len() > max {
                return Err(Error::invalid(what, format!("it is larger than {max} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errors: Vec<AnswerError>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct AnswerError {
    code: String,
    message: String,
}

pub(super) fn client(is_local: bool) -> reqwest::Result<Client> {
    made_client(is_local, is_local)
}

fn client_for(host: &str, is_insecure: bool) -> reqwest::Result<Client> {
    made_client(is_loopback(host), is_insecure)
}

fn made_client(is_local: bool, is_insecure: bool) -> reqwest::Result<Client> {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let agent = concat!("stack/", env!("CARGO_PKG_VERSION"));
        let builder =
            Client::builder().user_agent(agent).connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT);
        // A proxy is never between us and ourselves; others are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
        let builder = if is_local { builder.no_proxy() } else { builder };
        if is_insecure { builder.tls_danger_accept_invalid_certs(true) } else { builder }
    };
    // The machine's own store first; a machine without one gets the public authorities.
    builder().build().or_else(|_| builder().tls_backend_preconfigured(public_authorities()).build())
}

fn public_authorities() -> rustls::ClientConfig {
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

pub(super) fn is_loopback(host: &str) -> bool {
    let url = Url::parse(&format!("http://{host}"));
    let Some(name) = url.as_ref().ok().and_then(Url::host_str) else { return false };
    let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|a| a.is_loopback())
}

/// HTTPS if it answers to that, else HTTP.
async fn local_base(client: &Client, host: &str) -> String {
    let secure = format!("https://{host}");
    match client.get(format!("{secure}/v2/")).send().await {
        Ok(_) => secure,
        Err(_) => format!("http://{host}"),
    }
}

/// The innermost cause says it best.
pub(super) fn unreachable(registry: &str, error: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let reason = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    Error::Unreachable { registry: registry.into(), reason }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn header(response: &Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// `100;w=21600`: so many in so many seconds.
fn spoken_limit(text: &str) -> String {
    let (count, window) = text.split_once(";w=").unwrap_or((text, ""));
    match window.parse::<u64>() {
        Ok(seconds) if seconds % 3600 == 0 => format!("{count} in {} h", seconds / 3600),
        Ok(seconds) if seconds % 60 == 0 => format!("{count} in {} min", seconds / 60),
        Ok(seconds) => format!("{count} in {seconds} s"),
        Err(_) => count.to_owned(),
    }
}

type Parameters = Vec<(String, String)>;

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// `Bearer realm="…",service="…"`: the scheme in lower case and its parameters.
fn parse_challenge(text: &str) -> Option<(String, Parameters)> {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut parameters = Vec::new();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.push((key, value.to_owned()));
        rest = after;
    }
    Some((scheme.to_ascii_lowercase(), parameters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push", error=invalid_token"#;
        let (scheme, parameters) = parse_challenge(text).unwrap();
        assert_eq!(scheme, "bearer");
        assert_eq!(parameter(&parameters, "realm"), Some("https://auth.docker.io/token"));
        assert_eq!(parameter(&parameters, "scope"), Some("repository:a/b:pull,push"));
        assert_eq!(parameter(&parameters, "error"), Some("invalid_token"));
        assert_eq!(parse_challenge("Basic realm=x").unwrap().0, "basic");
        assert_eq!(parse_challenge("Basic").unwrap().1, []);
    }

    #[test]
    fn limits_are_spoken() {
        for (text, spoken) in [("100;w=21600", "100 in 6 h"), ("5;w=90", "5 in 90 s"), ("7", "7")] {
            assert_eq!(spoken_limit(text), spoken);
        }
    }

    #[test]
    fn loopback_hosts() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "10.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn challenges_never_panic(text in "\\PC{0,60}") {
            let _ = parse_challenge(&text);
        }
    }
}
