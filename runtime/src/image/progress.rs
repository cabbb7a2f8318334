//! What a pull, push or load tells while it works.

use super::digest::Digest;

/// Called from several threads; must not block.
pub type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The manifest is known; its layers follow.
    Resolved { digest: Digest, layers: usize, size: u64 },
    /// A layer, named by its blob's digest. Bytes of the blob.
    Layer { digest: Digest, phase: Phase, done: u64, total: u64 },
    /// A mirror could not give it; the next one, or the registry itself, is asked.
    Elsewhere { mirror: String, reason: String },
    /// A transfer broke and is tried again.
    Retrying { what: String, reason: String, attempt: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    /// Nothing to do, it is there.
    Exists,
    Downloading,
    Unpacking,
    /// A pushed layer is made from its snapshot.
    Packing,
    Uploading,
    Done,
}

/// For callers that want silence.
pub fn silent(_: Progress) {}
