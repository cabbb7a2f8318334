//! Short forms: the little languages inside strings. Each parser takes the text and returns the meaning or a [`ShortError`]
//! that completes "… is not valid:". The rules are docker compose's.

mod duration;
mod port;
mod size;
mod volume;
mod words;

pub use duration::{canonical_duration, format_duration, parse_duration};
pub use port::{PortSpec, parse_port};
pub use size::{parse_bytes, parse_mode};
pub use volume::{VolumeSpec, clean_path, is_path, parse_volume};
pub use words::{Words, split_words, words};

/// What is wrong with a short form: a clause without a full stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShortError(pub String);

fn error<T>(message: impl Into<String>) -> Result<T, ShortError> {
    Err(ShortError(message.into()))
}
