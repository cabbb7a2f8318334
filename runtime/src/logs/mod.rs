//! The log files of a container: `log.json`, and `log.json.1` … (or `log.json.1.gz` …) when rotated.
//!
//! One JSON object per line, as Docker's json-file driver writes: `{"log":"text\n","stream":"stdout","time":"…"}`.
//! A line longer than 16 KiB is several entries; all but the last lack the line feed.

mod compressed;
mod reader;
mod writer;

pub use reader::read;
pub(crate) use writer::Writer;

use crate::spec::Map;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// With its line feed, unless partial.
    pub log: String,
    pub stream: Stream,
    /// Labels, variables and the tag that the driver was told to add.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub attrs: Map,
    pub time: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only the last lines.
    pub tail: Option<usize>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Go on, over restarts, until the container's directory is removed or the receiver dropped.
    pub follow: bool,
}
