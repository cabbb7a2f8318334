//! Digests of a context's files by their inode data, so that a build where nothing changed reads no file.
//!
//! A file is the one that was hashed when device, inode, size and both times of change agree. Its next change could
//! leave the same times if it comes within one tick of the file system's clock, so the digest of a file that
//! changed just before it was read is not kept: it is read again by the next build. Every change sets the time of
//! the inode's change, which nobody can set back.
//!
//! `contexts/KEY` holds a line with the version, a checksum of the rest, and records of [`RECORD`] bytes, ordered
//! by device and inode: they are searched where they lie. A damaged file counts as absent.

use super::cache::Cache;
use super::key::Key;
use super::pick::{self, Digests};
use rustix::fs::Stat;
use stack_runtime::image::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const VERSION: &[u8] = b"stack-stats-1\n";
const CHECKSUM: usize = 8;
const RECORD: usize = 80;
/// How old a change has to be when the file is read: far more than a tick where times have nanoseconds, …
const TICK: Duration = Duration::from_millis(100);
/// … and where they seem to be whole seconds (or two, as in FAT).
const TICK_OF_SECONDS: Duration = Duration::from_secs(3);
/// Records of files that no build looks at any more are dropped when they are so many times those in use.
const UNUSED_RATIO: usize = 4;

/// Orders records.
type Inode = (u64, u64);

/// Size, inode and times of a file, with the digest it had.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    inode: Inode,
    size: i64,
    modified: (i64, u32),
    changed: (i64, u32),
    digest: [u8; 32],
}

/// See the module.
pub(super) struct StatDigests {
    key: Digest,
    before: Table,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    known: BTreeMap<Inode, Known>,
    has_new: bool,
}

impl StatDigests {
    pub(super) fn load(directory: &Path, cache: &Cache) -> Self {
        let key = Key::new("context").bytes("path", directory.as_os_str().as_bytes()).finish();
        let before = cache.read_context(&key).and_then(Table::new).unwrap_or_default();
        Self { key, before, seen: Mutex::default() }
    }

    /// Keeps what was seen; records of files that this build did not look at stay while they are not too many.
    pub(super) fn save(&self, cache: &Cache) {
        let seen = self.seen.lock().expect("never poisoned: nothing panics while it is held");
        if !seen.has_new {
            return;
        }
        let mut all = seen.known.clone();
        if self.before.len() <= UNUSED_RATIO * seen.known.len() + 1000 {
            for known in self.before.iter() {
                all.entry(known.inode).or_insert(known);
            }
        }
        cache.write_context(&self.key, &encode(all.values()));
    }

    fn note(&self, known: Known, is_new: bool) {
        let mut seen = self.seen.lock().expect("never poisoned: nothing panics while it is held");
        seen.has_new |= is_new;
        seen.known.insert(known.inode, known);
    }
}

impl Digests for StatDigests {
    fn digest(&self, _: &Path, stat: &Stat, open: &dyn Fn() -> io::Result<File>) -> io::Result<Digest> {
        if let Some(known) = self.before.find((stat.st_dev, stat.st_ino)).filter(|known| known.is(stat)) {
            let digest = Digest::from_bytes(&known.digest);
            self.note(known, false);
            return Ok(digest);
        }
        let mut file = open()?;
        // What was opened may be newer than what was seen.
        let stat = rustix::fs::fstat(&file)?;
        let began = SystemTime::now();
        let digest = pick::file_digest(&mut file, true)?;
        if is_settled(&stat, began) {
            self.note(Known::new(&stat, digest.bytes()), true);
        }
        Ok(digest)
    }
}

/// Whether a change after `read` cannot leave the times that the file has now.
pub(super) fn is_settled(stat: &Stat, read: SystemTime) -> bool {
    let is_old = |seconds: i64, nanoseconds: u64| {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(seconds), u32::try_from(nanoseconds)) else {
            return false;
        };
        let tick = if nanoseconds == 0 { TICK_OF_SECONDS } else { TICK };
        UNIX_EPOCH + Duration::new(seconds, nanoseconds) + tick < read
    };
    is_old(stat.st_ctime, stat.st_ctime_nsec) && is_old(stat.st_mtime, stat.st_mtime_nsec)
}

/// Whether two looks at a file saw the same inode with the same content, if it [was settled](is_settled).
pub(super) fn is_same(one: &Stat, other: &Stat) -> bool {
    Known::new(one, [0; 32]) == Known::new(other, [0; 32])
}

impl Known {
    fn new(stat: &Stat, digest: [u8; 32]) -> Self {
        // A count of nanoseconds fits.
        let nanoseconds = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self {
            inode: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
            digest,
        }
    }

    fn is(&self, stat: &Stat) -> bool {
        *self == Self::new(stat, self.digest)
    }

    fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.inode.0.to_le_bytes());
        to.extend(self.inode.1.to_le_bytes());
        to.extend(self.size.to_le_bytes());
        to.extend(self.modified.0.to_le_bytes());
        to.extend(self.changed.0.to_le_bytes());
        to.extend(self.modified.1.to_le_bytes());
        to.extend(self.changed.1.to_le_bytes());
        to.extend(self.digest);
    }

    fn decode(record: &[u8]) -> Self {
        let long = |at: usize| u64::from_le_bytes(array(&record[at..]));
        let short = |at: usize| u32::from_le_bytes(array(&record[at..]));
        Self {
            inode: (long(0), long(8)),
            size: long(16).cast_signed(),
            modified: (long(24).cast_signed(), short(40)),
            changed: (long(32).cast_signed(), short(44)),
            digest: array(&record[48..]),
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().expect("the slice has that length")
}

/// A file of records as it was read.
#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
}

impl Table {
    /// `None` when it is not what [`encode`] wrote.
    fn new(mut bytes: Vec<u8>) -> Option<Self> {
        let rest = bytes.strip_prefix(VERSION)?;
        let (sum, records) = rest.split_at_checked(CHECKSUM)?;
        if checksum(records).to_le_bytes() != sum || !records.len().is_multiple_of(RECORD) {
            return None;
        }
        bytes.drain(..VERSION.len() + CHECKSUM);
        Some(Self { bytes })
    }

    fn len(&self) -> usize {
        self.bytes.len() / RECORD
    }

    fn record(&self, index: usize) -> &[u8] {
        &self.bytes[index * RECORD..][..RECORD]
    }

    fn iter(&self) -> impl Iterator<Item = Known> {
        self.bytes.chunks_exact(RECORD).map(Known::decode)
    }

    fn find(&self, wanted: Inode) -> Option<Known> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.record(middle);
            let inode = (u64::from_le_bytes(array(record)), u64::from_le_bytes(array(&record[8..])));
            match inode.cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(Known::decode(record)),
            }
        }
        None
    }
}

fn encode<'a>(ordered: impl Iterator<Item = &'a Known>) -> Vec<u8> {
    let mut records = Vec::new();
    ordered.for_each(|known| known.encode(&mut records));
    let mut bytes = VERSION.to_vec();
    bytes.extend(checksum(&records).to_le_bytes());
    bytes.append(&mut records);
    bytes
}

/// Against blocks that a power cut left empty, not against people: whoever can write here can do anything.
fn checksum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let fold =
        |sum: u64, word: &[u8]| (sum ^ u64::from_le_bytes(array(word))).wrapping_mul(PRIME).rotate_left(29);
    let words = bytes.chunks_exact(8);
    words.fold(0xcbf2_9ce4_8422_2325 ^ bytes.len() as u64, fold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_runtime::home::Home;
    use std::cell::Cell;

    struct Bed {
        directory: tempfile::TempDir,
        cache: Cache,
        reads: Cell<usize>,
    }

    impl Bed {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let home = Home { data: directory.path().join("data"), run: directory.path().join("run") };
            let cache = Cache::open(&home).expect("a cache");
            let bed = Self { directory, cache, reads: Cell::new(0) };
            bed.write("one");
            bed
        }

        fn write(&self, text: &str) {
            std::fs::write(self.directory.path().join("f"), text).expect("written");
        }

        fn load(&self) -> StatDigests {
            StatDigests::load(self.directory.path(), &self.cache)
        }

        /// The digest of the file as one build sees it, and whether it was read for it.
        fn ask(&self, digests: &StatDigests) -> (Digest, bool) {
            let before = self.reads.get();
            let path = self.directory.path().join("f");
            let open = || {
                self.reads.set(self.reads.get() + 1);
                File::open(&path)
            };
            let stat = rustix::fs::stat(&path).expect("stat");
            let digest = digests.digest(Path::new("f"), &stat, &open).expect("read");
            (digest, self.reads.get() > before)
        }

        /// Until a change would leave other times.
        fn settle(&self) {
            let path = self.directory.path().join("f");
            while !is_settled(&rustix::fs::stat(&path).expect("stat"), SystemTime::now()) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[test]
    fn settled_files_are_read_once() {
        let bed = Bed::new();
        bed.settle();
        let first = bed.load();
        let (digest, was_read) = bed.ask(&first);
        assert!(was_read);
        first.save(&bed.cache);
        assert_eq!(bed.ask(&bed.load()), (digest.clone(), false));
        bed.write("two");
        let (changed, was_read) = bed.ask(&bed.load());
        assert!(was_read && changed != digest);
    }

    #[test]
    fn a_file_that_changed_just_now_is_read_again() {
        let bed = Bed::new();
        let path = bed.directory.path().join("f");
        let stat = rustix::fs::stat(&path).expect("stat");
        // Whenever the change was, the build that reads within its tick must not remember it.
        let changed = UNIX_EPOCH
            + Duration::new(stat.st_ctime.cast_unsigned(), u32::try_from(stat.st_ctime_nsec).expect("fits"));
        assert!(!is_settled(&stat, changed) && !is_settled(&stat, changed + TICK));
        let mut whole = stat;
        (whole.st_ctime_nsec, whole.st_mtime_nsec) = (0, 0);
        assert!(!is_settled(&whole, changed + Duration::from_secs(1)));
        assert!(is_settled(&whole, changed + Duration::from_secs(5)));
    }

    #[test]
    fn another_size_time_or_inode_is_another_file() {
        let bed = Bed::new();
        let stat = rustix::fs::stat(bed.directory.path().join("f")).expect("stat");
        let known = Known::new(&stat, [7; 32]);
        assert!(known.is(&stat));
        let changes: [fn(&mut Stat); 7] = [
            |s| s.st_size += 1,
            |s| s.st_ino += 1,
            |s| s.st_dev += 1,
            |s| s.st_mtime += 1,
            |s| s.st_mtime_nsec ^= 1,
            |s| s.st_ctime += 1,
            |s| s.st_ctime_nsec ^= 1,
        ];
        for change in changes {
            let mut other = stat;
            change(&mut other);
            assert!(!known.is(&other));
        }
    }

    fn known(inode: u64) -> Known {
        Known { inode: (1, inode), size: 5, modified: (-2, 9), changed: (3, 4), digest: [inode as u8; 32] }
    }

    #[test]
    fn records_are_found_and_damage_is_noticed() {
        let all: Vec<Known> = (0..100).map(|n| known(n * 3)).collect();
        let bytes = encode(all.iter());
        let table = Table::new(bytes.clone()).expect("whole");
        assert!(all.iter().all(|one| table.find(one.inode).as_ref() == Some(one)));
        assert_eq!(table.find((1, 4)), None);
        assert_eq!(table.find((2, 3)), None);
        assert_eq!(Table::default().find((1, 0)), None);
        for at in [0, VERSION.len(), VERSION.len() + CHECKSUM + 50, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Table::new(damaged).is_none(), "{at}");
        }
        assert!(Table::new(bytes[..bytes.len() - RECORD].to_vec()).is_none());
        assert!(Table::new(Vec::new()).is_none());
    }

    #[test]
    fn records_of_files_that_are_gone_do_not_pile_up() {
        let bed = Bed::new();
        bed.settle();
        let first = bed.load();
        let key = first.key.clone();
        let many: Vec<Known> = (0..5000).map(known).collect();
        bed.cache.write_context(&key, &encode(many.iter()));
        let second = bed.load();
        assert_eq!(second.before.len(), 5000);
        bed.ask(&second);
        second.save(&bed.cache);
        assert_eq!(bed.load().before.len(), 1);
    }
}
