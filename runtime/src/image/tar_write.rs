//! Writing tar: ustar headers with PAX records where a value does not fit, and nothing that
//! depends on anything but the entries. The same entries give the same bytes for ever, since
//! their digest is a layer's identity.

use super::tar_read::{Entry, Kind};
use std::io::{self, Read, Write};

const BLOCK: usize = 512;
const NAME_MAX: usize = 100;
/// Seven octal digits.
const ID_MAX: u32 = 0o7_777_777;
/// Eleven octal digits.
const NUMBER_MAX: u64 = 0o77_777_777_777;

/// Content is read in pieces of this size.
const BUFFER: usize = 128 << 10;

pub struct Writer<W: Write> {
    to: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to, buffer: vec![0; BUFFER] }
    }

    /// Writes an entry and exactly `entry.size` bytes of content.
    pub fn append(&mut self, entry: &Entry, content: impl Read) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            self.block(&header(b'x', b"PaxHeaders/entry", records.len() as u64)?)?;
            self.to.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.block(&entry_header(entry)?)?;
        self.content(entry, content)?;
        self.pad(entry.size)
    }

    fn content(&mut self, entry: &Entry, mut content: impl Read) -> io::Result<()> {
        let mut left = entry.size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            match content.read(&mut self.buffer[..wanted]) {
                Ok(0) => {
                    let path = String::from_utf8_lossy(&entry.path);
                    let message = format!("`{path}` became shorter while it was read");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                Ok(count) => {
                    self.to.write_all(&self.buffer[..count])?;
                    left -= count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// A regular file of root's with content in memory.
    pub fn append_bytes(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.append(&Entry { size: bytes.len() as u64, ..Entry::file(path, 0o644) }, bytes)
    }

    /// Writes the end of the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn block(&mut self, header: &tar::Header) -> io::Result<()> {
        self.to.write_all(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.to.write_all(&[0; BLOCK][..padding])
    }
}

impl Entry {
    pub fn new(path: &str, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.as_bytes().to_vec(),
            link: Vec::new(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    pub fn file(path: &str, mode: u32) -> Self {
        Self::new(path, Kind::File, mode)
    }

    pub fn directory(path: &str, mode: u32) -> Self {
        Self::new(path, Kind::Directory, mode)
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self { link: target.as_bytes().to_vec(), ..Self::new(path, Kind::Symlink, 0o777) }
    }

    pub fn hard_link(path: &str, target: &str) -> Self {
        Self { link: target.as_bytes().to_vec(), ..Self::new(path, Kind::HardLink, 0o644) }
    }
}

fn header(kind: u8, path: &[u8], size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    let name = &mut header.as_ustar_mut().ok_or_else(|| io::Error::other("not a ustar header"))?.name;
    let length = path.len().min(NAME_MAX);
    name[..length].copy_from_slice(&path[..length]);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size.min(NUMBER_MAX));
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

fn entry_header(entry: &Entry) -> io::Result<tar::Header> {
    let mut header = header(type_byte(entry.kind), &entry.path, entry.size)?;
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(u64::from(entry.uid.min(ID_MAX)));
    header.set_gid(u64::from(entry.gid.min(ID_MAX)));
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or(0).min(NUMBER_MAX));
    if matches!(entry.kind, Kind::Character | Kind::Block) {
        header.set_device_major(entry.device.0)?;
        header.set_device_minor(entry.device.1)?;
    }
    let field = &mut header.as_ustar_mut().ok_or_else(|| io::Error::other("not a ustar header"))?.linkname;
    let length = entry.link.len().min(NAME_MAX);
    field[..length].copy_from_slice(&entry.link[..length]);
    header.set_cksum();
    Ok(header)
}

fn type_byte(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Character => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// Only what a ustar header cannot hold; extended attributes sorted by name.
fn records(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    if entry.path.len() > NAME_MAX {
        push_record(&mut out, b"path", &entry.path);
    }
    if entry.link.len() > NAME_MAX {
        push_record(&mut out, b"linkpath", &entry.link);
    }
    for (key, value) in [("uid", entry.uid), ("gid", entry.gid)] {
        if value > ID_MAX {
            push_record(&mut out, key.as_bytes(), value.to_string().as_bytes());
        }
    }
    if entry.size > NUMBER_MAX {
        push_record(&mut out, b"size", entry.size.to_string().as_bytes());
    }
    if !(0..=NUMBER_MAX as i64).contains(&entry.mtime.0) {
        push_record(&mut out, b"mtime", entry.mtime.0.to_string().as_bytes());
    }
    let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
    xattrs.sort();
    for (name, value) in xattrs {
        push_record(&mut out, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    out
}

/// The length counts its own digits.
fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::tar_read::Reader;
    use super::*;
    use proptest::prelude::*;

    fn written(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, content) in entries {
            writer.append(entry, content.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.entry()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            entries.push((entry, content));
        }
        Ok(entries)
    }

    #[test]
    fn an_empty_layer_has_the_well_known_digest() {
        let digest = super::super::Digest::of(&written(&[]));
        assert_eq!(
            digest.as_str(),
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
    }

    #[test]
    fn record_length_counts_itself() {
        for size in [0, 85, 86, 87, 88, 980, 985, 990, 995] {
            let mut out = Vec::new();
            push_record(&mut out, b"path", &vec![b'a'; size]);
            let text = String::from_utf8(out.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), out.len());
        }
    }

    #[test]
    fn other_readers_agree() {
        let entries = vec![
            (
                Entry {
                    size: 3,
                    uid: 3_000_000,
                    mtime: (1_700_000_000, 0),
                    ..Entry::file(&"d/".repeat(80), 0o4755)
                },
                b"abc".to_vec(),
            ),
            (Entry::symlink("link", &"t".repeat(150)), vec![]),
        ];
        // A trailing slash would make it a directory.
        let mut entries = entries;
        entries[0].0.path.push(b'f');
        let bytes = written(&entries);
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.path_bytes().to_vec(), e.header().mode().unwrap()))
            .collect();
        assert_eq!(found, [(entries[0].0.path.clone(), 0o4755), (b"link".to_vec(), 0o777)]);
        assert_eq!(read(&bytes).unwrap(), entries);
    }

    #[test]
    fn oversized_extensions_are_refused() {
        let mut bytes = header(b'L', b"x", 1 << 30).unwrap().as_bytes().to_vec();
        bytes.extend(vec![b'a'; 4096]);
        assert!(read(&bytes).unwrap_err().to_string().contains("1 MiB"));
    }

    #[test]
    fn truncation_is_an_error() {
        let bytes = written(&[(Entry { size: 600, ..Entry::file("f", 0o644) }, vec![1; 600])]);
        assert!(read(&bytes[..700]).is_err());
        assert!(read(&bytes[..100]).is_err());
        // Without the closing blocks it is complete.
        assert_eq!(read(&bytes[..512 + 1024]).unwrap().len(), 1);
    }

    prop_compose! {
        fn any_entry()(
            path in proptest::collection::vec(1u8..=255, 1..200),
            content in proptest::collection::vec(any::<u8>(), 0..1200),
            mode in 0u32..0o10000, uid in 0..u32::MAX, gid in 0..u32::MAX, mtime in -1_000_000_000i64..5_000_000_000,
            xattrs in proptest::collection::btree_map(proptest::collection::vec(b'a'..=b'z', 1..9), proptest::collection::vec(any::<u8>(), 0..40), 0..3),
        ) -> (Entry, Vec<u8>) {
            let mut path = path;
            path.retain(|&b| b != b'/');
            path.push(b'f');
            let xattrs = xattrs.into_iter().collect();
            let size = content.len() as u64;
            (Entry { path, link: vec![], kind: Kind::File, mode, uid, gid, size, mtime: (mtime, 0), device: (0, 0), xattrs }, content)
        }
    }

    #[test]
    fn a_blank_owner_is_root() {
        let mut header = tar::Header::new_gnu();
        header.set_path("file").unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.as_old_mut().uid = [0; 8];
        header.as_old_mut().gid = [b' '; 8];
        header.set_cksum();
        let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        let entries = read(&bytes).unwrap();
        assert_eq!((entries[0].0.uid, entries[0].0.gid), (0, 0));
    }

    proptest! {
        #[test]
        fn round_trips(entries in proptest::collection::vec(any_entry(), 0..4)) {
            prop_assert_eq!(read(&written(&entries)).unwrap(), entries);
        }

        #[test]
        fn reader_never_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = read(&bytes);
        }

        #[test]
        fn reader_never_panics_on_damage(entries in proptest::collection::vec(any_entry(), 1..3), at: usize, value: u8, fix: bool) {
            let mut bytes = written(&entries);
            let at = at % bytes.len();
            bytes[at] = value;
            if fix {
                // A right check sum lets the damage through to the fields.
                let start = at / 512 * 512;
                let mut block = tar::Header::from_byte_slice(&bytes[start..start + 512]).clone();
                block.set_cksum();
                bytes[start..start + 512].copy_from_slice(block.as_bytes());
            }
            let _ = read(&bytes);
        }
    }
}
