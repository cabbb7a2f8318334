//! A budget of bytes: what goes when the store has grown over it, and in which order.
//!
//! ```text
//! 1. what the builder keeps (records of steps, cache mounts)     least recently used first,
//! 2. images without a name                                        each kind to its end
//! 3. images that a registry is known to have                      before the next
//! ```
//!
//! Never goes what a container stands on, what the command at hand needs, or an image that only this machine has: it
//! was built or loaded, and nobody could fetch it again. So a budget may stay exceeded, and the caller says so.

use super::digest::Digest;
use super::error::{Doing, Result};
use super::prune::{self, InUse, Which};
use super::reference::Reference;
use super::store::{Image, Store, names_in};
use crate::home::{self, Home};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    bytes: u64,
}

fn path(home: &Home) -> PathBuf {
    home.data.join("budget.json")
}

/// The bytes that store and build cache may have on disk; `None`: as many as they want.
pub fn read(home: &Home) -> io::Result<Option<u64>> {
    Ok(home::read_json::<Record>(&path(home))?.map(|record| record.bytes))
}

pub fn write(home: &Home, bytes: Option<u64>) -> io::Result<()> {
    match bytes {
        Some(bytes) => home::replace_json(&path(home), &Record { bytes }),
        None => match fs::remove_file(path(home)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
    }
}

/// Something that the builder keeps and can do without.
#[derive(Debug, Clone)]
pub struct Spare {
    pub last_used: SystemTime,
    /// Of the layer that it stands on.
    pub chain: Option<String>,
    /// On disk, outside the store.
    pub bytes: u64,
}

/// Who needs what.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// By containers and the command at hand; not by the builder.
    pub in_use: InUse,
    pub spares: Vec<Spare>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fitted {
    pub before: u64,
    pub after: u64,
    /// Spares that went.
    pub spares: usize,
    pub images: Vec<Digest>,
    pub untagged: Vec<Reference>,
}

/// Removes until what is left fits, or nothing more may go. `demand` is asked for under the lock; `remove` ends a
/// spare, by its place in the demand. Blocks.
///
/// # Errors
/// [`super::Error::InUse`] while something is pulled or built; whoever does that looks after the budget next.
pub fn fit(
    store: &Store,
    budget: u64,
    demand: impl FnOnce() -> io::Result<Demand>,
    remove: impl Fn(usize) -> io::Result<()>,
) -> Result<Fitted> {
    let lock = prune::alone(store)?;
    let demand = demand().doing(|| "find out which images are in use".to_owned())?;
    let work = || -> io::Result<Fitted> {
        let bytes = measured(store)?;
        let all = bytes.values().chain(demand.spares.iter().map(|spare| &spare.bytes)).sum();
        let fits = |before| Fitted { before, after: before, ..Fitted::default() };
        // Without a look at who owns what: there is not even as much.
        if all <= budget {
            return Ok(fits(all));
        }
        let mut ledger = Ledger::new(store, &demand, bytes)?;
        let before = ledger.total;
        if before <= budget {
            return Ok(fits(before));
        }
        let chosen = ledger.choose(budget);
        let mut fitted = carry_out(store, &demand, &chosen, &remove, &lock)?;
        (fitted.before, fitted.after) = (before, ledger.total);
        Ok(fitted)
    };
    work().doing(|| "keep the budget".to_owned())
}

fn carry_out(
    store: &Store,
    demand: &Demand,
    chosen: &[Owner],
    remove: &impl Fn(usize) -> io::Result<()>,
    lock: &fs::File,
) -> io::Result<Fitted> {
    let mut fitted = Fitted::default();
    for owner in chosen {
        match owner {
            Owner::Spare(index) => {
                remove(*index)?;
                fitted.spares += 1;
            }
            Owner::Image(id) => {
                if let Some(image) = store.by_id(id.as_str())? {
                    fitted.untagged.extend(image.references);
                    store.remove(id.as_str(), true)?;
                    fitted.images.push(id.clone());
                }
            }
        }
    }
    // The rest of the builder keeps its layers.
    let mut in_use = demand.in_use.clone();
    let kept = demand.spares.iter().enumerate().filter(|(i, _)| !chosen.contains(&Owner::Spare(*i)));
    in_use.chains.extend(kept.filter_map(|(_, spare)| spare.chain.clone()));
    prune::free(store, &in_use, Which::Orphans, lock)?;
    Ok(fitted)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Spare(usize),
    Image(Digest),
}

/// Whoever may go: its turn, and what it holds.
struct Candidate {
    /// 0, 1, 2 as in the module's table, then by the last use.
    turn: (u8, SystemTime),
    owner: Owner,
    holds: BTreeSet<PathBuf>,
    own_bytes: u64,
}

/// How much everything takes and how many owners each file of the store has.
struct Ledger {
    bytes: BTreeMap<PathBuf, u64>,
    owners: BTreeMap<PathBuf, usize>,
    candidates: Vec<Candidate>,
    total: u64,
}

impl Ledger {
    fn new(store: &Store, demand: &Demand, bytes: BTreeMap<PathBuf, u64>) -> io::Result<Self> {
        let mut candidates = Vec::new();
        let mut fixed = BTreeSet::new();
        for image in store.images()? {
            let holds = held_by_image(store, &image);
            match turn(store, &image, demand) {
                Some(turn) => {
                    candidates.push(Candidate { turn, owner: Owner::Image(image.id), holds, own_bytes: 0 })
                }
                None => fixed.extend(holds),
            }
        }
        for chain in &demand.in_use.chains {
            fixed.extend(held_by_chain(store, chain));
        }
        for (index, spare) in demand.spares.iter().enumerate() {
            let holds = spare.chain.iter().flat_map(|chain| held_by_chain(store, chain)).collect();
            let (turn, owner) = ((0, spare.last_used), Owner::Spare(index));
            candidates.push(Candidate { turn, owner, holds, own_bytes: spare.bytes });
        }
        Ok(Self::of(bytes, candidates, &fixed))
    }

    fn of(bytes: BTreeMap<PathBuf, u64>, candidates: Vec<Candidate>, fixed: &BTreeSet<PathBuf>) -> Self {
        let mut owners: BTreeMap<PathBuf, usize> = fixed.iter().map(|path| (path.clone(), 1)).collect();
        let mut total = candidates.iter().map(|candidate| candidate.own_bytes).sum();
        for path in candidates.iter().flat_map(|candidate| &candidate.holds) {
            *owners.entry(path.clone()).or_default() += 1;
        }
        // What nobody owns goes with the next prune anyway.
        total += owners.keys().filter_map(|path| bytes.get(path)).sum::<u64>();
        // Without them there would be nothing more free.
        let frees = |c: &Candidate| c.own_bytes > 0 || c.holds.iter().any(|path| !fixed.contains(path));
        let mut candidates: Vec<_> = candidates.into_iter().filter(frees).collect();
        candidates.sort_by(|a, b| (a.turn, &a.owner).cmp(&(b.turn, &b.owner)));
        Self { bytes, owners, candidates, total }
    }

    /// Lets go of one after another until the rest fits.
    fn choose(&mut self, budget: u64) -> Vec<Owner> {
        let mut chosen = Vec::new();
        for candidate in std::mem::take(&mut self.candidates) {
            if self.total <= budget {
                break;
            }
            self.total -= candidate.own_bytes;
            for path in &candidate.holds {
                let owners = self.owners.get_mut(path).expect("every held path was counted");
                *owners -= 1;
                if *owners == 0 {
                    self.total -= self.bytes.get(path).copied().unwrap_or_default();
                }
            }
            chosen.push(candidate.owner);
        }
        chosen
    }
}

/// `None`: it stays whatever happens.
fn turn(store: &Store, image: &Image, demand: &Demand) -> Option<(u8, SystemTime)> {
    if demand.in_use.images.contains(image.id.as_str()) {
        return None;
    }
    let last_used = fs::metadata(store.record_path(&image.id)).and_then(|m| m.modified());
    let last_used = last_used.unwrap_or(SystemTime::UNIX_EPOCH);
    match (image.references.is_empty(), image.repo_digests.is_empty()) {
        (true, _) => Some((1, last_used)),
        (false, false) => Some((2, last_used)),
        (false, true) => None,
    }
}

fn held_by_image(store: &Store, image: &Image) -> BTreeSet<PathBuf> {
    let reached = prune::reach(store, std::slice::from_ref(image), &InUse::default());
    paths(store, &reached)
}

fn held_by_chain(store: &Store, chain: &str) -> BTreeSet<PathBuf> {
    let in_use = InUse { chains: [chain.to_owned()].into(), ..InUse::default() };
    paths(store, &prune::reach(store, &[], &in_use))
}

fn paths(store: &Store, reached: &prune::Reached) -> BTreeSet<PathBuf> {
    let blobs = reached.blobs.iter().map(|hex| store.root().join("blobs/sha256").join(hex));
    let layers = reached.chains.iter().map(|hex| store.snapshots().join(hex));
    blobs.chain(layers).collect()
}

/// On disk, of each blob and snapshot. A snapshot never changes, so it is walked through once, and its size is kept in
/// `sizes.json`: what a build costs does not grow with the store.
fn measured(store: &Store) -> io::Result<BTreeMap<PathBuf, u64>> {
    let path = store.root().join("sizes.json");
    let known: BTreeMap<String, u64> = home::read_json(&path).unwrap_or_default().unwrap_or_default();
    let mut now = BTreeMap::new();
    for name in names_in(&store.snapshots())? {
        let bytes = match known.get(&name) {
            Some(bytes) => *bytes,
            None => prune::disk_use(&store.snapshots().join(&name))?,
        };
        now.insert(name, bytes);
    }
    if now != known {
        home::replace_json(&path, &now)?;
    }
    let blobs = store.root().join("blobs/sha256");
    let mut bytes = BTreeMap::new();
    for name in names_in(&blobs)? {
        let path = blobs.join(name);
        bytes.insert(path.clone(), prune::disk_use(&path)?);
    }
    bytes.extend(now.into_iter().map(|(name, size)| (store.snapshots().join(name), size)));
    Ok(bytes)
}

impl Store {
    /// An image was used just now: the last to go when there is too much. Failing to note it is no failure.
    pub fn note_use(&self, id: &str) {
        let Ok(id) = Digest::parse(id) else { return };
        let file = fs::File::options().append(true).open(self.record_path(&id));
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_snapshot_is_measured_once() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home { data: directory.path().join("data"), run: directory.path().join("run") };
        home.prepare().unwrap();
        let store = Store::open(&home).unwrap();
        let snapshot = store.snapshots().join("a");
        fs::create_dir_all(snapshot.join("fs")).unwrap();
        fs::write(snapshot.join("fs/one"), vec![1; 100_000]).unwrap();
        let first = measured(&store).unwrap()[&snapshot];
        assert!(first >= 100_000);
        // Nothing changes a snapshot; what was put there all the same is not even seen.
        fs::write(snapshot.join("fs/two"), vec![1; 100_000]).unwrap();
        assert_eq!(measured(&store).unwrap()[&snapshot], first);
        fs::rename(&snapshot, store.snapshots().join("b")).unwrap();
        let after = measured(&store).unwrap();
        assert!(!after.contains_key(&snapshot) && after[&store.snapshots().join("b")] >= 2 * 100_000);
        // One that cannot be read is measured anew.
        fs::write(store.root().join("sizes.json"), "{").unwrap();
        assert_eq!(measured(&store).unwrap(), after);
    }

    fn candidate(kind: u8, day: u64, index: usize, holds: &[&str]) -> Candidate {
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400);
        let holds = holds.iter().map(PathBuf::from).collect();
        Candidate { turn: (kind, used), owner: Owner::Spare(index), holds, own_bytes: 0 }
    }

    fn chosen(budget: u64) -> (Vec<usize>, u64) {
        let bytes = ["base", "a", "b", "c", "d"].map(|name| (PathBuf::from(name), 10));
        let candidates = vec![
            candidate(2, 1, 0, &["base", "d"]),
            candidate(0, 3, 1, &["base", "a", "b"]),
            candidate(0, 2, 2, &["base", "a"]),
            candidate(0, 9, 3, &["base"]),
            candidate(1, 1, 4, &["c"]),
        ];
        let mut ledger = Ledger::of(bytes.into(), candidates, &[PathBuf::from("base")].into());
        let chosen = ledger.choose(budget);
        let index = |owner: Owner| match owner {
            Owner::Spare(index) => index,
            Owner::Image(_) => unreachable!("there is none"),
        };
        (chosen.into_iter().map(index).collect(), ledger.total)
    }

    #[test]
    fn the_builder_goes_first_and_the_oldest_of_each_kind() {
        assert_eq!(chosen(50), (vec![], 50));
        // The older one shares its layer with the younger: both have to go.
        assert_eq!(chosen(49), (vec![2, 1], 30));
        assert_eq!(chosen(29), (vec![2, 1, 4], 20));
        // One that stands on nothing but what stays is no help.
        assert_eq!(chosen(0), (vec![2, 1, 4, 0], 10));
    }
}
