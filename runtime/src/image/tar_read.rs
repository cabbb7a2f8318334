//! Reading tar: ustar, GNU and PAX headers, one entry at a time, everything bounded.
//!
//! Only fields are decoded by the `tar` crate; the walk is ours, because long names and PAX
//! records come from strangers and must not grow without limit, and because PAX values
//! (capabilities) are binary. Damaged input is an `InvalidData` error, never a panic.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Long names and PAX records of one entry.
const EXTENSION_MAX: u64 = 1 << 20;
/// More entries than this in one archive are refused.
const ENTRIES_MAX: u64 = 10_000_000;
/// In both forms, old GNU and PAX.
const SPARSE: &str = "sparse archives are not supported yet";
/// No file system has larger files.
const SIZE_MAX: u64 = 1 << 62;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Character,
    Block,
    Fifo,
}

/// One entry; its content is then read from the [`Reader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As in the archive: may be absolute or hostile.
    pub path: Vec<u8>,
    /// Target of a link, else empty.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub struct Reader<R> {
    inner: R,
    /// Unread bytes of the current entry, and the padding after them.
    remaining: u64,
    padding: u64,
    entries: u64,
    global: Records,
    finished: bool,
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What the headers before an entry say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, remaining: 0, padding: 0, entries: 0, global: Vec::new(), finished: false }
    }

    /// Behind the end of the archive.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry; what is unread of the last one is skipped.
    pub fn entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(invalid(format!("it has more than {ENTRIES_MAX} entries")));
            }
            let size = header.entry_size().map_err(|_| invalid("an entry's size is not a number"))?;
            match header.entry_type().as_byte() {
                b'x' => extensions.records = self.records(size)?,
                b'g' => self.global = self.records(size)?,
                b'L' => extensions.path = Some(until_nul(self.extension(size)?)),
                b'K' => extensions.link = Some(until_nul(self.extension(size)?)),
                _ => {
                    if let Some(entry) = self.complete(&header, size, std::mem::take(&mut extensions))? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
        Ok(None)
    }

    fn complete(
        &mut self,
        header: &tar::Header,
        size: u64,
        extensions: Extensions,
    ) -> io::Result<Option<Entry>> {
        if header.entry_type().as_byte() == b'S' {
            return Err(invalid(SPARSE));
        }
        let kind = kind(header);
        let mut entry = Entry {
            path: extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions
                .link
                .or_else(|| header.link_name_bytes().map(|l| l.into_owned()))
                .unwrap_or_default(),
            kind: kind.unwrap_or(Kind::File),
            mode: header.mode().map_err(|_| invalid("an entry's mode is not a number"))? & 0o7777,
            uid: id(field(&header.as_old().uid, header.uid()))?,
            gid: id(field(&header.as_old().gid, header.gid()))?,
            size,
            mtime: (header.mtime().ok().and_then(|m| i64::try_from(m).ok()).unwrap_or(0), 0),
            device: device(header),
            xattrs: Vec::new(),
        };
        apply_records(&mut entry, self.global.iter().chain(&extensions.records))?;
        // Old archives mark directories by a slash alone.
        if kind == Some(Kind::File) && entry.path.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        // Links carry no content, whatever the size field says; POSIX allows it to be set.
        if matches!(entry.kind, Kind::HardLink | Kind::Symlink | Kind::Directory) && kind != Some(Kind::File)
        {
            entry.size = 0;
        }
        if entry.size > SIZE_MAX {
            return Err(invalid("an entry's size is out of range"));
        }
        self.begin(entry.size);
        Ok(kind.map(|_| entry))
    }

    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn header(&mut self) -> io::Result<Option<tar::Header>> {
        if self.finished {
            return Ok(None);
        }
        self.skip()?;
        let mut block = [0; BLOCK];
        // An archive without the closing zero blocks is common enough to accept.
        if !read_block(&mut self.inner, &mut block)? || block.iter().all(|&b| b == 0) {
            self.finished = true;
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        check_sum(&header, &block)?;
        Ok(Some(header))
    }

    fn skip(&mut self) -> io::Result<()> {
        let wanted = self.remaining + self.padding;
        let skipped = io::copy(&mut (&mut self.inner).take(wanted), &mut io::sink())?;
        (self.remaining, self.padding) = (0, 0);
        if skipped < wanted { Err(truncated()) } else { Ok(()) }
    }

    fn records(&mut self, size: u64) -> io::Result<Records> {
        parse_records(&self.extension(size)?)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_MAX {
            return Err(invalid("an extended header is larger than 1 MiB"));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The content of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(truncated());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of an entry")
}

/// `false`: the stream is at its end.
fn read_block(reader: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut count = 0;
    while count < BLOCK {
        match reader.read(&mut block[count..])? {
            0 if count == 0 => return Ok(false),
            0 => return Err(truncated()),
            read => count += read,
        }
    }
    Ok(true)
}

fn check_sum(header: &tar::Header, block: &[u8; BLOCK]) -> io::Result<()> {
    let around = block[..148].iter().chain(&block[156..]);
    let sum = around.map(|&b| u32::from(b)).sum::<u32>() + 8 * u32::from(b' ');
    match header.cksum() {
        Ok(found) if found == sum => Ok(()),
        _ => Err(invalid("it is not a tar archive, or a header is damaged")),
    }
}

/// `None`: a type that means nothing here (volume labels, multi-volume parts).
fn kind(header: &tar::Header) -> Option<Kind> {
    Some(match header.entry_type().as_byte() {
        0 | b'0' | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

/// A field left blank means 0, as GNU tar and Go read it.
fn field(bytes: &[u8], value: io::Result<u64>) -> io::Result<u64> {
    if bytes.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(0) } else { value }
}

fn id(value: io::Result<u64>) -> io::Result<u32> {
    let value = value.map_err(|_| invalid("an entry's owner is not a number"))?;
    // The last number means "unchanged" to the kernel.
    u32::try_from(value)
        .ok()
        .filter(|&v| v != u32::MAX)
        .ok_or_else(|| invalid("an entry's owner is out of range"))
}

fn device(header: &tar::Header) -> (u32, u32) {
    let number = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
    (number(header.device_major()), number(header.device_minor()))
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// `LENGTH KEY=VALUE\n`, the length counting itself; values may hold any byte.
fn parse_records(mut bytes: &[u8]) -> io::Result<Records> {
    let malformed = || invalid("a PAX record is malformed");
    let mut records = Vec::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().take(20).position(|&b| b == b' ').ok_or_else(malformed)?;
        let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|t| t.parse::<usize>().ok());
        let length = length.filter(|&l| l > space + 1 && l <= bytes.len()).ok_or_else(malformed)?;
        let record = bytes[space + 1..length].strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(malformed)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn apply_records<'a>(
    entry: &mut Entry,
    records: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>,
) -> io::Result<()> {
    for (key, value) in records {
        // An empty value deletes a global record.
        match key.as_slice() {
            _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {}
            b"path" => entry.path = value.clone(),
            b"linkpath" => entry.link = value.clone(),
            b"size" => entry.size = number(value)?,
            b"uid" => entry.uid = id(number(value))?,
            b"gid" => entry.gid = id(number(value))?,
            b"mtime" => entry.mtime = time(value)?,
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(invalid(SPARSE));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    entry.xattrs.retain(|(n, _)| n != name);
                    entry.xattrs.push((name.to_vec(), value.clone()));
                }
            }
        }
    }
    Ok(())
}

fn number(value: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|t| t.parse().ok()).ok_or_else(|| invalid("a PAX record is not a number"))
}

/// `1700000000.25`, possibly negative.
fn time(value: &[u8]) -> io::Result<(i64, u32)> {
    let malformed = || invalid("a PAX time is malformed");
    let text = std::str::from_utf8(value).map_err(|_| malformed())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| malformed())?;
    let seconds: i64 = seconds.parse().map_err(|_| malformed())?;
    // A negative time counts its fraction downwards.
    Ok(match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1).ok_or_else(malformed)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}
