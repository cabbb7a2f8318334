//! The log files of a container: `log.json`, and `log.json.1` … (or `log.json.1.gz` …) when rotated.
//!
//! One JSON object per line, as Docker's json-file driver writes: `{"log":"text\n","stream":"stdout","time":"…"}`.
//! A line longer than 16 KiB is several entries; all but the last lack the line feed.

mod buffer;
mod compressed;
mod reader;
mod writer;

pub use reader::read;
pub(crate) use writer::Writer;

use crate::spec::LogSpec;
use buffer::Buffer;
use std::io;
use std::path::Path;

/// Where a program's output goes.
#[derive(Debug)]
pub(crate) enum Log {
    Direct(Writer),
    Buffered(Buffer),
}

impl Log {
    pub(crate) fn open(dir: &Path, spec: &LogSpec) -> io::Result<Self> {
        let writer = Writer::open(dir, spec)?;
        Ok(match spec.buffer_bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(max_bytes) => Self::Buffered(Buffer::new(writer, max_bytes)),
            None => Self::Direct(writer),
        })
    }

    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        match self {
            Self::Direct(writer) => writer.take(stream, bytes),
            Self::Buffered(buffer) => buffer.take(stream, bytes),
        }
    }

    /// The program has ended.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Direct(writer) => writer.finish(),
            Self::Buffered(buffer) => buffer.finish(),
        }
    }
}

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
