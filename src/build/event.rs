//! What happens during a build, as data. The terminal's writer makes lines of it.

use stack_schema::diagnostic::Diagnostic;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// `step` counts from 0 in the order of the Dockerfile; `name` is `[stage 2/5] RUN make`.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    Warning(Diagnostic),
    Started {
        step: usize,
        name: String,
    },
    Cached {
        step: usize,
        name: String,
    },
    /// One line without its end; at most 64 KiB.
    Output {
        step: usize,
        name: String,
        stream: Stream,
        line: String,
    },
    Done {
        step: usize,
        name: String,
        took: Duration,
    },
    Failed {
        step: usize,
        name: String,
    },
    /// Why it is executed, where that was asked for.
    Explained {
        step: usize,
        name: String,
        why: String,
    },
    /// A base image is fetched; bytes done and to do.
    Pulling {
        reference: String,
        done: u64,
        total: u64,
    },
    /// A remark of the runtime, e.g. a limit that cannot be set.
    Note {
        step: usize,
        text: String,
    },
    /// The image is in the store.
    Exported {
        image_id: String,
        tags: Vec<String>,
    },
}
