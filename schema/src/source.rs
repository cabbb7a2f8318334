//! A source is a file as read, with its origin; a place is a span of bytes in one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The bytes of one file (or standard input) and the name under which the user knows it.
#[derive(Debug)]
pub struct Source {
    /// As shown in diagnostics, e.g. `compose.yaml` or `../shared/base.yaml`.
    pub name: String,
    /// The absolute path, if the source is a file.
    pub path: Option<PathBuf>,
    /// The text. Non-UTF-8 input is refused before a `Source` is made.
    pub text: String,
}

/// A span of bytes in a source. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Place {
    pub source: Arc<Source>,
    /// Byte offsets into `source.text`, `start <= end <= text.len()`, on character boundaries.
    pub start: usize,
    pub end: usize,
}

impl Place {
    /// 1-based line and column (columns count characters).
    pub fn line_column(&self) -> (usize, usize) {
        self.line_column_at(self.start)
    }

    /// The same for the end.
    pub fn end_line_column(&self) -> (usize, usize) {
        self.line_column_at(self.end)
    }

    /// The first and the last line, from 1.
    pub fn lines(&self) -> (usize, usize) {
        (self.line_column().0, self.end_line_column().0)
    }

    fn line_column_at(&self, at: usize) -> (usize, usize) {
        let before = &self.source.text[..at.min(self.source.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        (line, column)
    }
}

impl Place {
    /// Whether the place holds exactly this, so that a scalar there has no quotes.
    pub fn is_text(&self, text: &str) -> bool {
        self.source.text.get(self.start..self.end) == Some(text)
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.start == other.start && self.end == other.end
    }
}

/// How the crate reads files: the real disk in production, a map in tests.
pub trait Files {
    /// The whole file. Errors are the operating system's.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    fn is_file(&self, path: &Path) -> bool;
    fn is_dir(&self, path: &Path) -> bool;
    /// Where a symbolic link leads in the end; `None` for what is none, or leads nowhere.
    fn followed(&self, _path: &Path) -> Option<PathBuf> {
        None
    }
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

/// No text that people write is larger.
pub const MAX_BYTES: u64 = 64 << 20;

/// All bytes of a text, if they are not more than [`MAX_BYTES`]: a device or a disk image named by mistake must not fill the memory.
pub fn read_bounded(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(from, MAX_BYTES + 1), &mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("it is larger than {} MiB", MAX_BYTES >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

impl Files for Disk {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        read_bounded(std::fs::File::open(path)?)
    }
    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }
    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }
    fn followed(&self, path: &Path) -> Option<PathBuf> {
        path.is_symlink().then(|| path.canonicalize().ok()).flatten()
    }
}
