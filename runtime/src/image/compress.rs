//! Compression: found by magic bytes, whatever a media type says, and bounded.
//!
//! gzip layers may have several members (pigz, eStargz), so the multi-member decoder is used.
//! A decoder stops with an error after more than [`bound`] bytes: a small file must not fill
//! the disk.

use flate2::read::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::sync::mpsc::{self, Receiver};

/// gzip expands at most about 1,032 times.
const RATIO_MAX: u64 = 1_100;
/// Never less than this, so that small well-packed archives pass.
const FLOOR: u64 = 4 << 30;

/// How many bytes an archive of a compressed size may expand to.
pub fn bound(compressed: u64) -> u64 {
    compressed.saturating_mul(RATIO_MAX).max(FLOOR)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // Frames, and the skippable frames that may come first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The plain bytes of a stream that may be compressed; at most `max` of them.
///
/// # Errors
/// Of the stream; damaged compressed data is `InvalidData` or `InvalidInput` when read.
pub fn decode<'a>(reader: impl Read + 'a, max: u64) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let mut start = [0; 4];
    let count = read_start(&mut reader, &mut start)?;
    let compression = Compression::of(&start[..count]);
    let whole = Cursor::new(start).take(count as u64).chain(reader);
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => {
            Box::new(Bounded { inner: MultiGzDecoder::new(BufReader::new(whole)), left: max })
        }
        Compression::Zstd => Box::new(Bounded { inner: zstd(whole)?, left: max }),
    })
}

/// Gives `work` the plain bytes of a stream, which another thread decodes ahead of it: most of the time of an unpacking
/// goes into one of the two. See [`decode`] for `max`.
pub(crate) fn decoded_ahead<T>(
    reader: impl Read + Send,
    max: u64,
    work: impl FnOnce(&mut dyn Read) -> T,
) -> T {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        scope.spawn(move || {
            let mut plain = match decode(reader, max) {
                Ok(plain) => plain,
                Err(e) => return drop(sender.send(Err(e))),
            };
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let read = (&mut plain).take(PIECE as u64).read_to_end(&mut piece);
                let is_last = !matches!(read, Ok(1..));
                // Whoever works may want no more of it.
                if sender.send(read.map(|_| piece)).is_err() || is_last {
                    return;
                }
            }
        });
        work(&mut Ahead { receiver, piece: Vec::new(), at: 0 })
    })
}

/// What is decoded and not yet worked on: so many pieces of so many bytes.
const AHEAD: usize = 8;
const PIECE: usize = 256 << 10;

struct Ahead {
    receiver: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            // A thread that is gone has sent its end.
            self.piece = self.receiver.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            self.at = 0;
        }
        let count = (&self.piece[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

fn read_start(reader: &mut impl BufRead, start: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < start.len() {
        match reader.read(&mut start[count..])? {
            0 => break,
            read => count += read,
        }
    }
    Ok(count)
}

fn zstd<'a>(reader: impl Read + 'a) -> io::Result<impl Read + 'a> {
    let mut decoder = zstd::stream::read::Decoder::new(reader)?;
    // 128 MiB, what the command-line tool takes without being asked.
    decoder.window_log_max(27)?;
    Ok(decoder)
}

/// An error, not an end, after `left` bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "compressed data expands to more than is plausible")
        })?;
        Ok(count)
    }
}

/// A gzip writer whose output depends on the input only (no time, no name).
pub fn gzip<W: Write>(to: W) -> flate2::write::GzEncoder<W> {
    flate2::GzBuilder::new().mtime(0).write(to, flate2::Compression::new(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decode(bytes, bound(0))?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut writer = gzip(Vec::new());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn each_form() {
        assert_eq!(plain(b"").unwrap(), b"");
        assert_eq!(plain(b"ab").unwrap(), b"ab");
        assert_eq!(plain(b"plain text").unwrap(), b"plain text");
        assert_eq!(plain(&gzipped(b"abc")).unwrap(), b"abc");
        assert_eq!(plain(&zstd::encode_all(&b"abc"[..], 1).unwrap()).unwrap(), b"abc");
    }

    #[test]
    fn ahead_is_the_same_with_its_errors() {
        let bytes: Vec<u8> = (0..3 * PIECE + 7).map(|n| (n % 253) as u8).collect();
        let whole = |packed: &[u8], max| {
            let mut out = Vec::new();
            decoded_ahead(packed, max, |plain| plain.read_to_end(&mut out)).map(|_| out)
        };
        for bytes in [&bytes[..], &bytes[..PIECE], b""] {
            assert_eq!(whole(&gzipped(bytes), u64::MAX).unwrap(), bytes);
        }
        assert!(whole(&gzipped(&bytes), 1000).unwrap_err().to_string().contains("plausible"));
        let mut damaged = gzipped(&bytes);
        damaged.truncate(damaged.len() / 2);
        assert!(whole(&damaged, u64::MAX).is_err());
        // Half of it is enough for some.
        assert_eq!(
            decoded_ahead(&gzipped(&bytes)[..], u64::MAX, |plain| plain.read(&mut [0; 5]).unwrap()),
            5
        );
    }

    #[test]
    fn several_members() {
        assert_eq!(plain(&[gzipped(b"aaa"), gzipped(b"bbb")].concat()).unwrap(), b"aaabbb");
        let two = [zstd::encode_all(&b"a"[..], 1).unwrap(), zstd::encode_all(&b"b"[..], 1).unwrap()].concat();
        assert_eq!(plain(&two).unwrap(), b"ab");
    }

    #[test]
    fn a_bomb_is_an_error() {
        let bomb = zstd::encode_all(io::repeat(0).take(10 << 20), 1).unwrap();
        let mut reader = decode(&bomb[..], 1 << 20).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("plausible"), "{error}");
    }

    #[test]
    fn damage_is_an_error() {
        let mut bytes = gzipped(&[7; 5000]);
        bytes.truncate(bytes.len() - 9);
        assert!(plain(&bytes).is_err());
        assert!(plain(&[0x1f, 0x8b, 0, 0, 0]).is_err());
    }
}
