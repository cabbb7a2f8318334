//! The monitor's side: lines of two streams to one rotated file. A full disk loses lines, never the container.

use super::{Entry, Stream, compressed};
use crate::spec::{LogSpec, Map};
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A longer line becomes several entries.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    /// `None`: nothing is kept.
    file: Option<File>,
    written: u64,
    max_size: Option<u64>,
    max_file: u32,
    compress: bool,
    attrs: Map,
    pending: [Vec<u8>; 2],
}

impl Writer {
    pub(crate) fn open(dir: &Path, spec: &LogSpec) -> io::Result<Self> {
        let path = dir.join("log.json");
        let file = match spec.driver.as_str() {
            "none" => None,
            _ => Some(File::options().create(true).append(true).open(&path)?),
        };
        let written = file.as_ref().map_or(0, |file| file.metadata().map_or(0, |meta| meta.len()));
        let pending = [Vec::new(), Vec::new()];
        Ok(Self {
            path,
            file,
            written,
            max_size: spec.max_size,
            max_file: spec.max_file.max(1),
            compress: spec.compress,
            attrs: spec.attrs.clone(),
            pending,
        })
    }

    /// Takes what a stream has given; whole lines (and parts of too long ones) go to the file.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        pending.extend_from_slice(bytes);
        let mut rest = pending.as_slice();
        let mut lines = Vec::new();
        while let Some(length) = next_entry(rest) {
            append(&mut lines, stream, &rest[..length], &self.attrs);
            rest = &rest[length..];
        }
        self.pending[stream as usize] = rest.to_vec();
        self.write(&lines);
    }

    /// What is left of a last line without line feed.
    pub(crate) fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.pending[stream as usize]);
            if !rest.is_empty() {
                let mut lines = Vec::new();
                append(&mut lines, stream, &rest, &self.attrs);
                self.write(&lines);
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else { return };
        if file.write_all(lines).is_ok() {
            self.written += lines.len() as u64;
        }
        if self.max_size.is_some_and(|max| self.written >= max) {
            // Without a new file the old one goes on.
            let _ = self.rotate();
        }
    }

    /// `log.json` becomes `log.json.1` (or `log.json.1.gz`), that `log.json.2`, …; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| self.path.with_file_name(format!("log.json.{number}"));
        for number in (1..self.max_file.saturating_sub(1)).rev() {
            let (from, to) = (numbered(number), numbered(number + 1));
            for (from, to) in [(compressed::name(&from), compressed::name(&to)), (from, to)] {
                match fs::rename(from, to) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        match self.max_file {
            1 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, numbered(1))?,
        }
        self.file = Some(File::options().create(true).append(true).open(&self.path)?);
        self.written = 0;
        if self.compress {
            compressed::compress(&numbered(1))?;
        }
        Ok(())
    }
}

/// The length of the next entry: a line, or as much of a long one as one entry holds.
fn next_entry(bytes: &[u8]) -> Option<usize> {
    let window = &bytes[..bytes.len().min(MAX_LINE_BYTES)];
    if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
        return Some(end + 1);
    }
    if window.len() < MAX_LINE_BYTES {
        return None;
    }
    // Not inside a character.
    let cut = (0..4)
        .map(|back| MAX_LINE_BYTES - back)
        .find(|at| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80));
    Some(cut.unwrap_or(MAX_LINE_BYTES))
}

fn append(lines: &mut Vec<u8>, stream: Stream, bytes: &[u8], attrs: &Map) {
    let log = String::from_utf8_lossy(bytes).into_owned();
    let entry = Entry { log, stream, attrs: attrs.clone(), time: Timestamp::now() };
    // Writing to memory, of a type that always has a JSON form.
    let _ = serde_json::to_writer(&mut *lines, &entry);
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(max_size: Option<u64>, max_file: u32) -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let spec = LogSpec { max_size, max_file, ..LogSpec::default() };
        let writer = Writer::open(dir.path(), &spec).unwrap();
        (dir, writer)
    }

    fn logs(dir: &Path, name: &str) -> Vec<String> {
        let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str::<Entry>(line).unwrap().log).collect()
    }

    #[test]
    fn lines_are_joined_over_reads_and_streams_kept_apart() {
        let (dir, mut writer) = writer(None, 1);
        writer.take(Stream::Stdout, b"one\ntw");
        writer.take(Stream::Stderr, b"error\n");
        writer.take(Stream::Stdout, b"o\nlast");
        writer.finish();
        assert_eq!(logs(dir.path(), "log.json"), ["one\n", "error\n", "two\n", "last"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let (dir, mut writer) = writer(None, 1);
        let line = format!("{}ä{}\n", "x".repeat(MAX_LINE_BYTES - 1), "y".repeat(10));
        writer.take(Stream::Stdout, line.as_bytes());
        let parts = logs(dir.path(), "log.json");
        assert_eq!(parts.len(), 2);
        assert_eq!(parts.concat(), line);
    }

    #[test]
    fn rotation_keeps_as_many_files_as_asked() {
        let (dir, mut writer) = writer(Some(1), 3);
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            writer.take(Stream::Stdout, line.as_bytes());
        }
        let names = ["log.json", "log.json.1", "log.json.2", "log.json.3"];
        let found: Vec<Vec<String>> = names.iter().map(|name| logs(dir.path(), name)).collect();
        assert_eq!(found, [vec![], vec!["d\n".to_owned()], vec!["c\n".to_owned()], vec![]]);
    }

    #[test]
    fn attributes_stand_in_each_entry() {
        let dir = tempfile::tempdir().unwrap();
        let attrs: Map = [("team".to_owned(), "red".to_owned())].into();
        let spec = LogSpec { attrs, ..LogSpec::default() };
        let mut writer = Writer::open(dir.path(), &spec).unwrap();
        writer.take(Stream::Stdout, b"one\n");
        let text = fs::read_to_string(dir.path().join("log.json")).unwrap();
        assert!(
            text.starts_with(r#"{"log":"one\n","stream":"stdout","attrs":{"team":"red"},"time":""#),
            "{text}"
        );
    }
}
