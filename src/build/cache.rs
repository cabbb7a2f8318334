//! The records of the layer cache, digests of parts of layers, and freeing them.
//!
//! The files are described in the module above. A damaged or unreadable record counts as absent: the worst
//! that happens is that a step is executed again.

use super::state::Made;
use serde::{Deserialize, Serialize};
use stack_runtime::home::{self, Home};
use stack_runtime::image::{Digest, Store};
use stack_runtime::snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Whole outputs of RUNs, whatever their size.
const LOGS_MAX: usize = 200;

/// `cache/KEY.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    diff_id: Digest,
    chain_id: Digest,
    /// RFC 3339: when the layer was made.
    created: String,
    /// The instruction, for people.
    #[serde(default)]
    created_by: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct DigestRecord {
    digest: Digest,
}

#[derive(Debug, Clone)]
pub(super) struct Cache {
    root: PathBuf,
    scratch: Arc<Scratch>,
}

/// Working directories of one build: below `data/build/tmp`, and for secrets below `run/build`, under one name.
/// The lock tells other builds that it is alive; what a killed build left goes with the next one.
#[derive(Debug)]
struct Scratch {
    tmp: PathBuf,
    secrets: PathBuf,
    _lock: File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.secrets);
        let _ = fs::remove_dir_all(&self.tmp);
    }
}

impl Scratch {
    fn new(home: &Home) -> io::Result<Self> {
        loop {
            let made =
                tempfile::Builder::new().prefix("").rand_bytes(16).tempdir_in(home.build().join("tmp"))?;
            let lock =
                File::options().create(true).truncate(false).write(true).open(made.path().join("lock"))?;
            lock.lock()?;
            let tmp = made.keep();
            // A sweep may have come in between.
            if tmp.join("lock").exists() {
                let secrets = Self::secrets(home, tmp.file_name().expect("it has a random one"));
                return Ok(Self { tmp, secrets, _lock: lock });
            }
        }
    }

    fn secrets(home: &Home, name: &OsStr) -> PathBuf {
        home.run.join("build").join(name)
    }

    /// Removes what killed builds left.
    fn sweep(home: &Home) {
        for entry in entries(&home.build().join("tmp")) {
            let is_abandoned = match File::open(entry.path.join("lock")) {
                Ok(lock) => lock.try_lock().is_ok(),
                // Killed before its lock was made.
                Err(_) => entry.unused_for() > Duration::from_secs(60),
            };
            if is_abandoned {
                Self::remove_groups(&entry.path);
                let _ = fs::remove_dir_all(Self::secrets(home, entry.path.file_name().unwrap_or_default()));
                let _ = fs::remove_dir_all(&entry.path);
            }
        }
    }

    /// The monitor that would have removed a step's control group was killed together with the build.
    fn remove_groups(tmp: &Path) {
        for step in entries(tmp).iter().filter_map(|entry| entry.path.file_name()?.to_str()) {
            let _ = stack_runtime::cgroup::remove(&super::run::group(step));
        }
    }
}

/// Removes what killed builds left, control groups too. Costs one look into an empty directory when there is nothing.
pub fn sweep(home: &Home) {
    Scratch::sweep(home);
}

impl Cache {
    /// Makes the directories.
    pub(super) fn open(home: &Home) -> io::Result<Self> {
        let root = home.build();
        for part in ["cache", "digests", "contexts", "explain", "logs", "remote", "mounts", "locks", "tmp"] {
            fs::create_dir_all(root.join(part))?;
        }
        // Cache mounts and working directories hold what images hold, setuid programs too.
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Scratch::sweep(home);
        Ok(Self { root, scratch: Arc::new(Scratch::new(home)?) })
    }

    /// For working directories of this build.
    pub(super) fn tmp(&self) -> PathBuf {
        self.scratch.tmp.clone()
    }

    /// For secrets while a RUN uses them: readable by nobody else, never on a disk where `run` is in memory.
    pub(super) fn secrets(&self) -> io::Result<PathBuf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.scratch.secrets)?;
        Ok(self.scratch.secrets.clone())
    }

    pub(super) fn mount(&self, id: &str) -> PathBuf {
        self.root.join("mounts").join(id)
    }

    fn record_path(&self, key: &Digest) -> PathBuf {
        self.root.join("cache").join(format!("{}.json", key.hex()))
    }

    /// The layer made under this key, if it is still in the store. Counts as a use.
    pub(super) fn find(&self, store: &Store, key: &Digest) -> Option<Made> {
        let path = self.record_path(key);
        let record: Record = home::read_json(&path).ok()??;
        if !snapshot::exists(store, record.chain_id.as_str()) {
            return None;
        }
        touch(&path);
        Some(Made { diff_id: record.diff_id, chain_id: record.chain_id, created: record.created })
    }

    pub(super) fn record(&self, key: &Digest, made: &Made, created_by: &str) -> io::Result<()> {
        let record = Record {
            diff_id: made.diff_id.clone(),
            chain_id: made.chain_id.clone(),
            created: made.created.clone(),
            created_by: created_by.chars().take(500).collect(),
        };
        home::replace_json(&self.record_path(key), &record)
    }

    /// Key, layer and instruction of every record whose layer is in the store.
    pub(super) fn records(&self, store: &Store) -> Vec<(Digest, Made, String)> {
        let read = |entry: Entry| {
            let key = Digest::from_hex(entry.path.file_stem()?.to_str()?).ok()?;
            let record: Record = home::read_json(&entry.path).ok()??;
            let Record { diff_id, chain_id, created, created_by } = record;
            let is_there = snapshot::exists(store, chain_id.as_str());
            is_there.then_some((key, Made { diff_id, chain_id, created }, created_by))
        };
        let mut found: Vec<_> = entries(&self.root.join("cache")).into_iter().filter_map(read).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Visits the directory of each cache mount, by id, while nobody uses it. Blocks.
    pub(super) fn each_mount<T>(&self, visit: impl Fn(&str, &Path) -> io::Result<T>) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for Entry { path, .. } in entries(&self.root.join("mounts")) {
            let Some(id) = path.file_name().and_then(OsStr::to_str).filter(|id| is_mount_id(id)) else {
                continue;
            };
            let _held = home::lock(&path.join("lock"))?;
            if path.join("data").is_dir() {
                found.push(visit(id, &path)?);
            }
        }
        Ok(found)
    }

    /// Keys of downloads, and what their servers said.
    pub(super) fn downloads(&self) -> Vec<(Digest, serde_json::Value)> {
        let read = |entry: Entry| {
            let key = Digest::from_hex(entry.path.file_name()?.to_str()?).ok()?;
            let record = home::read_json(&entry.path.with_extension("json")).ok()??;
            Some((key, record))
        };
        entries(&self.root.join("remote")).into_iter().filter_map(read).collect()
    }

    /// Held while a key is executed. Blocks.
    pub(super) fn lock(&self, key: &Digest) -> io::Result<home::Lock> {
        home::lock(&self.root.join("locks").join(key.hex()))
    }

    /// A digest that was computed before.
    pub(super) fn digest(&self, key: &Digest) -> Option<Digest> {
        let path = self.root.join("digests").join(format!("{}.json", key.hex()));
        let record: DigestRecord = home::read_json(&path).ok()??;
        touch(&path);
        Some(record.digest)
    }

    /// Remembering is an optimisation, so failing to is none.
    pub(super) fn remember_digest(&self, key: &Digest, digest: &Digest) {
        let path = self.root.join("digests").join(format!("{}.json", key.hex()));
        let _ = home::replace_json(&path, &DigestRecord { digest: digest.clone() });
    }

    /// What an address gave; its record is beside it.
    pub(super) fn remote(&self, key: &Digest) -> PathBuf {
        self.root.join("remote").join(key.hex())
    }

    fn context_path(&self, key: &Digest) -> PathBuf {
        self.root.join("contexts").join(key.hex())
    }

    /// A new file for what a RUN prints; of those before, the latest stay.
    pub(super) fn log(&self) -> io::Result<(PathBuf, File)> {
        let logs = self.root.join("logs");
        let mut before = entries(&logs);
        before.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        for entry in before.iter().skip(LOGS_MAX - 1) {
            let _ = fs::remove_file(&entry.path);
        }
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S-").to_string();
        let made = tempfile::Builder::new().prefix(&now).suffix(".log").append(true).tempfile_in(&logs)?;
        let (file, path) = made.keep()?;
        Ok((path, file))
    }

    fn explain_path(&self, key: &Digest) -> PathBuf {
        self.root.join("explain").join(key.hex())
    }

    /// What was kept to explain a later build.
    pub(super) fn explained(&self, key: &Digest) -> Option<Vec<u8>> {
        fs::read(self.explain_path(key)).ok()
    }

    pub(super) fn has_explained(&self, key: &Digest) -> bool {
        self.explain_path(key).exists()
    }

    /// Failing to keep it costs an explanation, no build.
    pub(super) fn explain(&self, key: &Digest, bytes: &[u8]) {
        let _ = home::replace(&self.explain_path(key), bytes);
    }

    pub(super) fn read_context(&self, key: &Digest) -> Option<Vec<u8>> {
        fs::read(self.context_path(key)).ok()
    }

    pub(super) fn write_context(&self, key: &Digest, bytes: &[u8]) {
        let _ = home::replace(&self.context_path(key), bytes);
    }
}

/// As [`Cache::mount`] gets them: a hash, with a number behind it if it is one of several private ones.
pub(super) fn is_mount_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Sets the time of change to now: when it was last used.
fn touch(path: &Path) {
    let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

struct Entry {
    path: PathBuf,
    used: SystemTime,
}

impl Entry {
    fn unused_for(&self) -> Duration {
        self.used.elapsed().unwrap_or_default()
    }
}

fn entries(directory: &Path) -> Vec<Entry> {
    let Ok(read) = fs::read_dir(directory) else { return Vec::new() };
    let entry = |entry: fs::DirEntry| {
        let used = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        Entry { path: entry.path(), used }
    };
    read.flatten().map(entry).collect()
}

/// Chain ids that the cache stands on: what a prune of the store must keep.
pub fn chains_in_use(home: &Home) -> BTreeSet<String> {
    let records = entries(&home.build().join("cache")).into_iter();
    records
        .filter_map(|entry| home::read_json::<Record>(&entry.path).ok()?)
        .map(|r| r.chain_id.to_string())
        .collect()
}

/// Something that the builder keeps and a later build can do without: it costs a step to make it again.
#[derive(Debug, Clone)]
pub struct Kept {
    path: PathBuf,
    pub last_used: SystemTime,
    /// The layer that a record names.
    pub chain: Option<String>,
    /// Bytes in a cache mount.
    pub bytes: u64,
}

/// Records and cache mounts. A mount that nobody used since it was measured has the size that it had then.
pub fn kept(home: &Home) -> Vec<Kept> {
    let path = home.build().join("sizes.json");
    let known: BTreeMap<PathBuf, (SystemTime, u64)> =
        home::read_json(&path).unwrap_or_default().unwrap_or_default();
    let mut now = BTreeMap::new();
    let records = entries(&home.build().join("cache")).into_iter().map(|entry| {
        let chain = home::read_json::<Record>(&entry.path).ok().flatten().map(|r| r.chain_id.to_string());
        Kept { path: entry.path, last_used: entry.used, chain, bytes: 0 }
    });
    let mounts = entries(&home.build().join("mounts")).into_iter().map(|entry| {
        let before = known.get(&entry.path).filter(|(used, _)| *used == entry.used);
        let bytes = before.map_or_else(|| blocks(&entry.path), |(_, bytes)| *bytes);
        // A build that is at it right now may still change it.
        if home::try_lock(&entry.path.join("lock")).is_ok_and(|lock| lock.is_some()) {
            now.insert(entry.path.clone(), (entry.used, bytes));
        }
        Kept { path: entry.path, last_used: entry.used, chain: None, bytes }
    });
    let all = records.chain(mounts).collect();
    if now != known {
        // Then they are measured again.
        let _ = home::replace_json(&path, &now);
    }
    all
}

impl Kept {
    /// A mount that a build uses right now stays.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove(&self) -> io::Result<()> {
        match self.chain {
            Some(_) => fs::remove_file(&self.path),
            None if self.path.is_dir() => remove_mount(&self.path).map(drop),
            None => fs::remove_file(&self.path),
        }
    }
}

/// On disk.
fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let below = if meta.is_dir() { entries(path).iter().map(|entry| blocks(&entry.path)).sum() } else { 0 };
    meta.blocks() * 512 + below
}

/// How much the builder keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub records: usize,
    /// Bytes of layers that no image has.
    pub layers: u64,
    /// Bytes in cache mounts.
    pub mounts: u64,
}

impl Usage {
    pub fn total(&self) -> u64 {
        self.layers + self.mounts
    }
}

/// Blocks.
///
/// # Errors
/// The operating system's, reading the images.
pub fn usage(home: &Home, store: &Store) -> io::Result<Usage> {
    let of_images = chains_of_images(store)?;
    let chains = chains_in_use(home);
    let mut counted = BTreeSet::new();
    let layers = chains.iter().map(|chain| own_size(store, chain, &of_images, &mut counted)).sum();
    let mounts = entries(&home.build().join("mounts")).iter().map(|entry| disk_size(&entry.path)).sum();
    Ok(Usage { records: entries(&home.build().join("cache")).len(), layers, mounts })
}

fn chains_of_images(store: &Store) -> io::Result<BTreeSet<String>> {
    Ok(store.images()?.iter().flat_map(|image| image.chain_ids.iter().map(ToString::to_string)).collect())
}

/// Bytes of the layers of a chain that are neither an image's nor counted before.
fn own_size(store: &Store, chain: &str, of_images: &BTreeSet<String>, counted: &mut BTreeSet<String>) -> u64 {
    let (mut bytes, mut next) = (0, chain.to_owned());
    while !next.is_empty() && !of_images.contains(&next) && counted.insert(next.clone()) {
        let Ok(meta) = snapshot::meta(store, &next) else { break };
        bytes += meta.size;
        next = meta.parent;
    }
    bytes
}

fn disk_size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if meta.is_dir() { entries(path).iter().map(|entry| disk_size(&entry.path)).sum() } else { meta.len() }
}

/// What a prune did. The layers themselves are freed by the next prune of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    pub records: usize,
    pub mounts: usize,
    /// Bytes that are free, or will be once the store is pruned.
    pub bytes: u64,
}

/// Drops records and cache mounts that were not used for `unused_for`. Without `all`, records of layers that
/// an image has stay, since they cost nothing. Blocks.
///
/// # Errors
/// The operating system's; what was removed until then stays removed.
pub fn prune(home: &Home, store: &Store, all: bool, unused_for: Duration) -> io::Result<Pruned> {
    let before = usage(home, store)?;
    let of_images = chains_of_images(store)?;
    let mut pruned = Pruned::default();
    for entry in old(&home.build().join("cache"), unused_for) {
        let record: Option<Record> = home::read_json(&entry.path).unwrap_or(None);
        if all || !record.is_some_and(|r| of_images.contains(r.chain_id.as_str())) {
            fs::remove_file(&entry.path)?;
            pruned.records += 1;
        }
    }
    for part in ["digests", "contexts", "explain", "logs", "remote", "locks"] {
        for entry in old(&home.build().join(part), unused_for) {
            remove_unless_locked(&entry.path)?;
        }
    }
    for entry in old(&home.build().join("mounts"), unused_for) {
        pruned.mounts += usize::from(remove_mount(&entry.path)?);
    }
    pruned.bytes = before.total().saturating_sub(usage(home, store)?.total());
    Ok(pruned)
}

fn old(directory: &Path, unused_for: Duration) -> Vec<Entry> {
    entries(directory).into_iter().filter(|entry| entry.unused_for() >= unused_for).collect()
}

fn remove_unless_locked(path: &Path) -> io::Result<()> {
    match home::try_lock(path)? {
        Some(_held) => fs::remove_file(path),
        None => Ok(()),
    }
}

/// A mount that a build uses right now stays: every user holds its lock, shared or not.
fn remove_mount(path: &Path) -> io::Result<bool> {
    let Some(_held) = home::try_lock(&path.join("lock"))? else { return Ok(false) };
    fs::remove_dir_all(path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Home, Store, Cache) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = Home { data: directory.path().join("data"), run: directory.path().join("run") };
        home.prepare().expect("a home");
        let store = Store::open(&home).expect("a store");
        let cache = Cache::open(&home).expect("a cache");
        (directory, home, store, cache)
    }

    fn made() -> Made {
        Made { diff_id: Digest::of(b"d"), chain_id: Digest::of(b"c"), created: "2026-01-01T00:00:00Z".into() }
    }

    #[test]
    fn a_record_without_its_layer_is_not_found() {
        let (_directory, home, store, cache) = cache();
        let key = Digest::of(b"k");
        cache.record(&key, &made(), "RUN x").expect("recorded");
        assert_eq!(cache.find(&store, &key), None);
        assert_eq!(chains_in_use(&home).len(), 1);
    }

    #[test]
    fn damaged_records_count_as_absent() {
        let (_directory, home, store, cache) = cache();
        let key = Digest::of(b"k");
        fs::write(home.build().join(format!("cache/{}.json", key.hex())), b"{").expect("written");
        assert_eq!(cache.find(&store, &key), None);
        assert!(chains_in_use(&home).is_empty());
    }

    #[test]
    fn pruning_removes_records_and_mounts_by_age() {
        let (_directory, home, store, cache) = cache();
        cache.record(&Digest::of(b"k"), &made(), "RUN x").expect("recorded");
        fs::create_dir_all(cache.mount("m").join("data")).expect("made");
        fs::write(cache.mount("m").join("data/file"), b"12345").expect("written");
        let pruned = prune(&home, &store, true, Duration::from_secs(3600)).expect("pruned");
        assert_eq!(pruned, Pruned::default());
        let pruned = prune(&home, &store, true, Duration::ZERO).expect("pruned");
        assert_eq!((pruned.records, pruned.mounts, pruned.bytes), (1, 1, 5));
        assert_eq!(usage(&home, &store).expect("measured"), Usage::default());
    }

    #[test]
    fn a_mount_is_measured_again_when_it_was_used() {
        let (_directory, home, _store, cache) = cache();
        let mount = cache.mount("m");
        fs::create_dir_all(mount.join("data")).expect("made");
        fs::write(mount.join("lock"), "").expect("written");
        let bytes = || kept(&home)[0].bytes;
        let empty = bytes();
        fs::write(mount.join("data/file"), vec![1; 50_000]).expect("written");
        assert_eq!(bytes(), empty);
        // While somebody has it, what is found is not kept.
        let used = home::lock(&mount.join("lock")).expect("locked");
        File::open(&mount).and_then(|mount| mount.set_modified(SystemTime::UNIX_EPOCH)).expect("used");
        let during = bytes();
        fs::write(mount.join("data/more"), vec![1; 50_000]).expect("written");
        drop(used);
        assert!(bytes() >= during + 50_000);
        fs::write(mount.join("data/yet"), vec![1; 50_000]).expect("written");
        File::open(&mount).and_then(|mount| mount.set_modified(SystemTime::now())).expect("used");
        assert!(bytes() >= empty + 150_000);
    }

    #[test]
    fn what_a_killed_build_left_goes_with_the_next_one() {
        let (_directory, home, _store, cache) = cache();
        let killed = home.build().join("tmp/killed");
        fs::create_dir_all(killed.join("run-x")).expect("made");
        fs::write(killed.join("lock"), "").expect("written");
        fs::create_dir_all(home.run.join("build/killed")).expect("made");
        let second = Cache::open(&home).expect("a cache");
        assert!(!killed.exists() && !home.run.join("build/killed").exists());
        assert!(cache.tmp().exists() && second.tmp() != cache.tmp());
        let tmp = second.tmp();
        drop(second);
        assert!(!tmp.exists());
    }

    #[test]
    fn digests_are_remembered() {
        let (_directory, _home, _store, cache) = cache();
        assert_eq!(cache.digest(&Digest::of(b"k")), None);
        cache.remember_digest(&Digest::of(b"k"), &Digest::of(b"v"));
        assert_eq!(cache.digest(&Digest::of(b"k")), Some(Digest::of(b"v")));
    }
}
