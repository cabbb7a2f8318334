//! Digests: `sha256:` and 64 lower-case hex digits, the name of every blob, image and layer.

use super::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

/// A checked `sha256:…`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// # Errors
    /// When the text is not a sha256 digest; other algorithms are named in the message.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::invalid(format!("digest `{}`", shorten(text)), reason);
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| invalid("it has no algorithm"))?;
        if algorithm == "sha512" {
            return Err(Error::NotYet("a sha512 digest".into()));
        }
        if algorithm != "sha256" {
            return Err(invalid("its algorithm is not sha256"));
        }
        if !is_hex(hex, 64) {
            return Err(invalid("it needs 64 lower-case hex digits"));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Hashes a stream to its end.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        io::copy(&mut reader, &mut hasher)?;
        Ok(hasher.finish())
    }

    /// From 64 hex digits.
    pub fn from_hex(hex: &str) -> Result<Self> {
        Self::parse(&format!("sha256:{hex}"))
    }

    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble is below 16"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble is below 16"));
        }
        Self(text)
    }

    /// What the hex digits say.
    pub fn bytes(&self) -> [u8; 32] {
        let nibble = |digit: u8| if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
        let hex = self.hex().as_bytes();
        std::array::from_fn(|at| nibble(hex[2 * at]) << 4 | nibble(hex[2 * at + 1]))
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 hex digits, as tables show it.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `text` is exactly `length` lower-case hex digits.
pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Digest {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A running sha256 with a byte count.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    pub length: u64,
}

impl Hasher {
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    pub fn finish(self) -> Digest {
        Digest::from_bytes(&self.state.finalize().into())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes bytes through and hashes them.
pub struct Hashing<T> {
    pub inner: T,
    pub hasher: Hasher,
}

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, hasher: Hasher::default() }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes what is written on a thread of its own, so that whoever reads files and whoever hashes them work beside
/// each other.
pub struct Beside {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    open: Vec<u8>,
    hashing: JoinHandle<Hasher>,
}

/// Of a buffer, and how many there are.
const BESIDE: (usize, usize) = (256 << 10, 4);

impl Default for Beside {
    fn default() -> Self {
        let (full, filled) = mpsc::sync_channel::<Vec<u8>>(BESIDE.1);
        let (back, empty) = mpsc::sync_channel(BESIDE.1 + 1);
        let hashing = std::thread::spawn(move || {
            let mut hasher = Hasher::default();
            for mut buffer in filled {
                hasher.update(&buffer);
                buffer.clear();
                // Nobody may want it any more.
                let _ = back.try_send(buffer);
            }
            hasher
        });
        Self { full, empty, open: Vec::with_capacity(BESIDE.0), hashing }
    }
}

impl Beside {
    fn hand_over(&mut self) -> io::Result<()> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BESIDE.0));
        let full = std::mem::replace(&mut self.open, next);
        self.full.send(full).map_err(|_| io::Error::other("the thread that hashes is gone"))
    }

    /// # Errors
    /// That its thread broke down.
    pub fn finish(mut self) -> io::Result<Digest> {
        self.hand_over()?;
        drop(self.full);
        self.hashing
            .join()
            .map(Hasher::finish)
            .map_err(|_| io::Error::other("the thread that hashes is gone"))
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BESIDE.0 - self.open.len());
        self.open.extend_from_slice(&bytes[..count]);
        if self.open.len() == BESIDE.0 {
            self.hand_over()?;
        }
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The chain id of a layer on top of a chain (`""` below the first), as the OCI image
/// specification defines it.
pub fn chain(parent: &str, diff_id: &Digest) -> Digest {
    match parent {
        "" => diff_id.clone(),
        parent => Digest::of(format!("{parent} {diff_id}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_beside_gives_the_same() {
        for length in [0, 1, BESIDE.0, BESIDE.0 * 9 + 7] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut beside = Beside::default();
            bytes.chunks(1000).for_each(|chunk| beside.write_all(chunk).unwrap());
            assert_eq!(beside.finish().unwrap(), Digest::of(&bytes));
        }
    }

    #[test]
    fn known_digest() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(Digest::parse(digest.as_str()).unwrap(), digest);
        assert_eq!(Digest::from_bytes(&digest.bytes()), digest);
    }

    #[test]
    fn rejects_other_texts() {
        for text in [
            "",
            "sha256:",
            "sha256:ABC",
            "md5:00",
            "sha256",
            &format!("sha256:{}", "g".repeat(64)),
            &format!("sha256:{}", "A".repeat(64)),
        ] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
        assert!(
            Digest::parse(&format!("sha512:{}", "0".repeat(128)))
                .unwrap_err()
                .to_string()
                .contains("not supported yet")
        );
    }

    #[test]
    fn chain_of_one_is_its_diff() {
        let one = Digest::of(b"1");
        let two = Digest::of(b"2");
        assert_eq!(chain("", &one), one);
        assert_eq!(chain(one.as_str(), &two), Digest::of(format!("{one} {two}").as_bytes()));
    }
}
