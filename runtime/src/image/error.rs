//! Why something about an image did not succeed.

use super::digest::Digest;
use crate::engine::{EngineError, ErrorKind};
use std::io;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid image reference `{text}`: {reason}")]
    Reference { text: String, reason: String },
    /// No answer at all: no such host, refused, no route, no time. A caller may fall back.
    #[error("registry {registry} cannot be reached: {reason}")]
    Unreachable { registry: String, reason: String },
    /// The registry answered that it has no such thing.
    #[error("{what} not found in registry {registry}")]
    NotFound { what: String, registry: String },
    /// Only what is here may be used.
    #[error("{0} is not here, and --offline keeps the network out")]
    Offline(String),
    #[error("no such image: {0}")]
    NoSuchImage(String),
    #[error("access to {what} denied by registry {registry}: {reason}")]
    Unauthorised { what: String, registry: String, reason: String },
    /// Any other refusal of the registry.
    #[error("registry {registry} answered {status} for {what}: {reason}")]
    Registry { what: String, registry: String, status: u16, reason: String },
    /// A registry's limit; a mirror may have none.
    #[error("registry {registry} allows no more requests now{}: {reason} (asked for {what})", .limit.as_ref().map(|l| format!(", its limit is {l}")).unwrap_or_default())]
    TooMany { what: String, registry: String, limit: Option<String>, reason: String },
    #[error("{what} needs at least {needed} bytes in {place}, which has {free} bytes free")]
    Space { what: String, place: String, needed: u64, free: u64 },
    #[error("{what} has digest {found}, expected {expected}")]
    Digest { what: String, expected: Digest, found: Digest },
    #[error("{what} has {found} bytes, expected {expected}")]
    Size { what: String, expected: u64, found: u64 },
    #[error("{what} is not valid: {reason}")]
    Invalid { what: String, reason: String },
    #[error("no image for platform {wanted} in {what} (it has {found})")]
    Platform { what: String, wanted: String, found: String },
    #[error("{0} is not supported yet")]
    NotYet(String),
    #[error("{0}")]
    InUse(String),
    #[error("failed to {doing}: {source}")]
    Io { doing: String, source: io::Error },
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Invalid { what: what.into(), reason: reason.to_string() }
    }

    /// Whether a caller may fall back on another source of the image.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether another registry may give what this one did not.
    pub(crate) fn is_of_registry(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NotFound { .. }
                | Self::Unauthorised { .. }
                | Self::Registry { .. }
                | Self::TooMany { .. }
                | Self::Digest { .. }
                | Self::Size { .. }
                | Self::Invalid { .. }
        )
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::Offline(_) | Self::NotFound { .. } | Self::NoSuchImage(_) | Self::Platform { .. } => {
                ErrorKind::NotFound
            }
            Self::Unauthorised { .. } => ErrorKind::PermissionDenied,
            Self::InUse(_) => ErrorKind::Conflict,
            _ => ErrorKind::Other,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unauthorised { .. } => {
                Some("The repository may not exist, or may need credentials in ~/.docker/config.json.")
            }
            Self::Unreachable { .. } => {
                Some("Check the name of the registry and the network, or load the image from an archive.")
            }
            Self::Offline(_) => Some("Run it once without `--offline`, or load the image from an archive."),
            Self::TooMany { .. } => Some(
                "Wait, sign in with `stack login`, or name a mirror of the registry in ~/.config/stack/registries.json.",
            ),
            Self::Space { .. } => Some(
                "Free some with `stack system prune`, or set STACK_HOME to a directory on a larger disk.",
            ),
            _ => None,
        }
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        let made = EngineError::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => made.hint(hint),
            None => made,
        }
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Io { doing: "use the image store".into(), source }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { source, doing } => {
                io::Error::new(source.kind(), format!("failed to {doing}: {source}"))
            }
            Error::NoSuchImage(_) | Error::NotFound { .. } => {
                io::Error::new(io::ErrorKind::NotFound, error.to_string())
            }
            other => io::Error::other(other.to_string()),
        }
    }
}

/// Names what was being done when the operating system refused.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { doing: what(), source: source.into() })
    }
}
