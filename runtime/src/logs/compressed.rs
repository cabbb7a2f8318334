//! Rotated files as gzip. The header keeps which file it was, so that a follower who has the plain one open knows it.

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A plain file that is written no more: inode and time of its last change in nanoseconds. (An inode alone is given to
/// another file when the plain one is gone.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) inode: u64,
    modified: i64,
}

impl Mark {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let modified = meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec());
        Ok(Self { inode: meta.ino(), modified })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (inode, modified) = std::str::from_utf8(text).ok()?.split_once('.')?;
        Some(Self { inode: inode.parse().ok()?, modified: modified.parse().ok()? })
    }
}

/// `log.json.1` becomes `log.json.1.gz`.
pub(super) fn name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Puts the compressed file in the place of the plain one. Cut in between, the plain one stays.
pub(super) fn compress(path: &Path) -> io::Result<()> {
    let mut plain = File::open(path)?;
    let Mark { inode, modified } = Mark::of(&plain)?;
    let making = path.with_extension("making");
    let mut gzip = GzBuilder::new()
        .filename(format!("{inode}.{modified}"))
        .write(File::create(&making)?, Compression::fast());
    io::copy(&mut plain, &mut gzip)?;
    gzip.finish()?;
    std::fs::rename(&making, name(path))?;
    std::fs::remove_file(path)
}

/// An opened one: which plain file it was, and its content.
pub(super) struct Opened {
    pub(super) mark: Option<Mark>,
    decoder: GzDecoder<BufReader<File>>,
}

pub(super) fn open(path: &Path) -> io::Result<Opened> {
    let mut decoder = GzDecoder::new(BufReader::new(File::open(path)?));
    // The header is read with the first byte.
    io::Read::read(&mut decoder, &mut [])?;
    let mark = decoder.header().and_then(|header| header.filename()).and_then(Mark::parse);
    Ok(Opened { mark, decoder })
}

impl Opened {
    /// In a file without a name.
    pub(super) fn content(mut self) -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut self.decoder, &mut file)?;
        file.rewind()?;
        Ok(file)
    }
}
