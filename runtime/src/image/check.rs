//! Verifying the store: every digest is computed again, and every record is compared with what it names.
//!
//! | thing | is damaged when | repair |
//! |---|---|---|
//! | blob | its content has another digest | removes it |
//! | image | its record or config is unreadable or false, or a layer is missing | removes the record and its names |
//! | image | only its manifest is missing | forgets the manifest; a push makes another |
//! | name | its record is unreadable, or the image is not here | removes it |
//! | layer | its record or files are not what its chain id says, or its archive is gone | unpacks its archive again; without one removes it, what stands on it and their images |
//!
//! What is removed is fetched by the next pull or made by the next build. A layer that a container stands on is kept,
//! whatever is wrong with it, and said to be. An image's record may go under a container: that needs only layers.

use super::config::Document;
use super::digest::{Digest, chain};
use super::error::{Doing, Error, Result};
use super::reference::Reference;
use super::store::{Record, ReferenceRecord, Store, names_in};
use super::{compress, prune};
use crate::{home, snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;

/// What stands on the store from outside.
#[derive(Debug, Clone, Default)]
pub struct Users {
    pub containers: Vec<User>,
    /// Chain ids of the build cache.
    pub cache: BTreeSet<String>,
}

/// A container.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub image_id: String,
    pub chain_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Blob,
    Layer,
    Image,
    Name,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Image => "image",
            Self::Name => "name",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Only looked at.
    None,
    Removed,
    /// Made anew from what was whole.
    Mended,
    /// Containers stand on it.
    Kept(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub kind: Kind,
    /// A digest, or the name of an image.
    pub name: String,
    pub problem: String,
    /// `image app:1`, `container shop-web-1`, `the build cache`.
    pub needed_by: Vec<String>,
    /// Layers and images that stood on it and went with it.
    pub went: Vec<String>,
    pub repair: Repair,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    pub blobs: usize,
    pub layers: usize,
    pub images: usize,
    pub names: usize,
    pub damages: Vec<Damage>,
}

impl Checked {
    /// Whether something is wrong still.
    pub fn is_damaged(&self) -> bool {
        self.damages.iter().any(|d| matches!(d.repair, Repair::None | Repair::Kept(_)))
    }
}

/// Reads everything. Blocks. Nothing is pruned meanwhile.
///
/// # Errors
/// The operating system's, listing the store.
pub fn check(store: &Store, users: &Users) -> Result<Checked> {
    let _lease = store.lease().doing(|| "lock the image store".to_owned())?;
    Look::new(store, users).and_then(|look| look.checked()).doing(|| "check the image store".to_owned())
}

/// As [`check`], and removes or makes anew what is damaged. `users` is asked for under the lock.
///
/// # Errors
/// As [`prune::prune`].
pub fn repair(store: &Store, users: impl FnOnce() -> io::Result<Users>) -> Result<Checked> {
    let _lock = prune::alone(store)?;
    let doing = || "repair the image store".to_owned();
    let users = users().doing(|| "find out which images are in use".to_owned())?;
    let look = Look::new(store, &users).doing(doing)?;
    let checked = look.checked().doing(doing)?;
    look.repair(checked).doing(doing)
}

/// The store as it was found.
struct Look<'a> {
    store: &'a Store,
    users: &'a Users,
    records: BTreeMap<Digest, io::Result<Record>>,
    /// By file name.
    names: BTreeMap<String, io::Result<ReferenceRecord>>,
    /// Below each layer, as far as its record can be read.
    parents: BTreeMap<Digest, Option<Digest>>,
    blobs: Vec<Digest>,
}

impl<'a> Look<'a> {
    fn new(store: &'a Store, users: &'a Users) -> io::Result<Self> {
        let missing = |what: String| io::Error::new(io::ErrorKind::NotFound, what);
        let records = store.ids()?.into_iter().map(|id| {
            let record = store.record(&id).and_then(|r| r.ok_or_else(|| missing(id.to_string())));
            (id, record)
        });
        let directory = store.root().join("references");
        let names = names_in(&directory)?.into_iter().filter(|name| name.ends_with(".json"));
        let names = names.map(|name| {
            let record = home::read_json(&directory.join(&name));
            (name.clone(), record.and_then(|r| r.ok_or_else(|| missing(name))))
        });
        let layers = digests(&store.snapshots())?.into_iter().map(|layer| {
            let parent = snapshot::meta(store, layer.as_str()).ok().map(|meta| meta.parent);
            (layer, parent.and_then(|parent| Digest::parse(&parent).ok()))
        });
        Ok(Self {
            store,
            users,
            records: records.collect(),
            names: names.collect(),
            parents: layers.collect(),
            blobs: digests(&store.root().join("blobs/sha256"))?,
        })
    }

    fn checked(&self) -> io::Result<Checked> {
        let mut damages = Vec::new();
        let mut damage = |kind, name: String, problem: String, needed_by| {
            damages.push(Damage { kind, name, problem, needed_by, went: Vec::new(), repair: Repair::None });
        };
        let mut bad_blobs = BTreeSet::new();
        for blob in &self.blobs {
            if let Some(problem) = blob_damage(self.store, blob) {
                bad_blobs.insert(blob);
                damage(Kind::Blob, blob.to_string(), problem, self.users_of_blob(blob));
            }
        }
        for layer in self.parents.keys() {
            if let Some(problem) = snapshot::damage(self.store, layer) {
                damage(Kind::Layer, layer.to_string(), problem, self.users_of_layer(layer));
            }
        }
        for (id, record) in &self.records {
            let verified = match bad_blobs.contains(id) {
                true => Err("its configuration is damaged".into()),
                false => self.verify_image(id, record),
            };
            if let Err(problem) = verified {
                damage(Kind::Image, id.to_string(), problem, self.users_of_image(id));
            }
        }
        for (file, record) in &self.names {
            if let Err(problem) = self.verify_name(file, record) {
                damage(Kind::Name, shown_name(file, record), problem, Vec::new());
            }
        }
        Ok(Checked {
            blobs: self.blobs.len(),
            layers: self.parents.len(),
            images: self.records.len(),
            names: self.names.len(),
            damages,
        })
    }

    fn verify_image(&self, id: &Digest, record: &io::Result<Record>) -> std::result::Result<(), String> {
        let record = record.as_ref().map_err(|_| "its record cannot be read")?;
        if record.id != *id {
            return Err("its record is another image's".into());
        }
        let mut below = String::new();
        for layer in &record.layers {
            let expected = chain(&below, &layer.diff_id);
            if layer.chain_id != expected {
                return Err("its record has a layer in a wrong place".into());
            }
            if !self.parents.contains_key(&expected) {
                return Err(format!("its layer {} is missing", layer.diff_id.short()));
            }
            below = expected.to_string();
        }
        let config = self.store.read_blob(id).map_err(|_| "its configuration is missing")?;
        let document: Document =
            serde_json::from_slice(&config).map_err(|_| "its configuration cannot be read")?;
        if !document.rootfs.diff_ids.iter().eq(record.layers.iter().map(|l| &l.diff_id)) {
            return Err("its record and its configuration name different layers".into());
        }
        match &record.manifest {
            Some(manifest) if !self.store.has_blob(manifest) => Err(MANIFEST_MISSING.into()),
            _ => Ok(()),
        }
    }

    fn verify_name(
        &self,
        file: &str,
        record: &io::Result<ReferenceRecord>,
    ) -> std::result::Result<(), String> {
        let record = record.as_ref().map_err(|_| "its record cannot be read")?;
        if self.store.reference_path(&record.reference).file_name().is_none_or(|name| name != file) {
            return Err("its record is another name's".into());
        }
        if !self.records.contains_key(&record.id) {
            return Err(format!("its image {} is not here", record.id.short()));
        }
        Ok(())
    }

    /// A layer with all below it, as far as records can be read.
    fn with_all_below(&self, chain_id: &str) -> BTreeSet<Digest> {
        let mut all = BTreeSet::new();
        let mut next = Digest::parse(chain_id).ok();
        while let Some(layer) = next.filter(|layer| !all.contains(layer)) {
            next = self.parents.get(&layer).cloned().flatten();
            all.insert(layer);
        }
        // An image knows its layers, too.
        for record in self.records.values().flatten() {
            let place = record.layers.iter().position(|l| l.chain_id.as_str() == chain_id);
            if let Some(place) = place {
                all.extend(record.layers[..=place].iter().map(|l| l.chain_id.clone()));
            }
        }
        all
    }

    fn holders(&self, layer: &Digest) -> Vec<String> {
        let stands = |user: &&User| self.with_all_below(&user.chain_id).contains(layer);
        self.users.containers.iter().filter(stands).map(|user| user.name.clone()).collect()
    }

    fn users_of_layer(&self, layer: &Digest) -> Vec<String> {
        let mut users: Vec<String> = self.images_with(layer).iter().map(|id| self.shown_image(id)).collect();
        users.extend(self.holders(layer).iter().map(|name| format!("container {name}")));
        if self.users.cache.iter().any(|top| self.with_all_below(top).contains(layer)) {
            users.push("the build cache".into());
        }
        users
    }

    fn images_with(&self, layer: &Digest) -> Vec<Digest> {
        let has = |record: &Record| record.layers.iter().any(|l| l.chain_id == *layer);
        let known = self.records.iter().filter(|(_, r)| r.as_ref().is_ok_and(has));
        known.map(|(id, _)| id.clone()).collect()
    }

    fn users_of_image(&self, id: &Digest) -> Vec<String> {
        let names = self.names.values().flatten().filter(|r| r.id == *id);
        let names = names.filter(|r| r.reference.digest().is_none());
        let mut users: Vec<String> = names.map(|r| format!("name {}", r.reference.familiar())).collect();
        let containers = self.users.containers.iter().filter(|user| user.image_id == id.as_str());
        users.extend(containers.map(|user| format!("container {}", user.name)));
        users
    }

    fn users_of_blob(&self, blob: &Digest) -> Vec<String> {
        let is_of = |(id, record): &(&Digest, &io::Result<Record>)| {
            *id == blob || record.as_ref().is_ok_and(|r| r.manifest.as_ref() == Some(blob))
        };
        let images = self.records.iter().filter(is_of);
        let mut users: Vec<String> = images.map(|(id, _)| self.shown_image(id)).collect();
        for layer in self.parents.keys() {
            let record = snapshot::blob(self.store, layer.as_str()).ok().flatten();
            if record.is_some_and(|record| record.digest == *blob) {
                users.extend(self.users_of_layer(layer));
            }
        }
        users.sort();
        users.dedup();
        users
    }

    fn shown_image(&self, id: &Digest) -> String {
        let mut names =
            self.names.values().flatten().filter(|r| r.id == *id && r.reference.digest().is_none());
        let name = names.next().map_or_else(|| id.short().to_owned(), |r| r.reference.familiar());
        format!("image {name}")
    }

    fn repair(&self, mut checked: Checked) -> io::Result<Checked> {
        let mut gone = BTreeSet::new();
        // Blobs first: what is unpacked again must come from whole ones. Layers from the base up.
        let depth = |damage: &Damage| match damage.kind {
            Kind::Layer => self.with_all_below(&damage.name).len(),
            _ => 0,
        };
        checked.damages.sort_by_key(|damage| (damage.kind, depth(damage)));
        for damage in &mut checked.damages {
            damage.repair = match damage.kind {
                Kind::Blob => self.remove_blob(&damage.name)?,
                Kind::Layer => self.repair_layer(damage, &mut gone)?,
                Kind::Image => self.repair_image(damage)?,
                Kind::Name => self.remove_name(&damage.name)?,
            };
        }
        self.forget_manifests()?;
        Ok(checked)
    }

    fn remove_blob(&self, name: &str) -> io::Result<Repair> {
        let digest = Digest::parse(name).map_err(io::Error::from)?;
        gone_is_fine(fs::remove_file(self.store.blob_path(&digest)))?;
        Ok(Repair::Removed)
    }

    fn repair_layer(&self, damage: &mut Damage, gone: &mut BTreeSet<Digest>) -> io::Result<Repair> {
        let layer = Digest::parse(&damage.name).map_err(io::Error::from)?;
        if gone.contains(&layer) {
            return Ok(Repair::Removed);
        }
        // What was wrong with it may have been what is below.
        if snapshot::damage(self.store, &layer).is_none() {
            return Ok(Repair::Mended);
        }
        let holders = self.holders(&layer);
        if !holders.is_empty() {
            return Ok(Repair::Kept(holders));
        }
        if self.unpack_again(&layer).is_ok() {
            return Ok(Repair::Mended);
        }
        for above in self.parents.keys().filter(|above| self.with_all_below(above.as_str()).contains(&layer))
        {
            if !gone.insert(above.clone()) {
                continue;
            }
            prune::remove_snapshot(self.store, &self.store.snapshots().join(above.hex()))?;
            if *above != layer {
                damage.went.push(format!("layer {}", above.short()));
            }
            for id in self.images_with(above).into_iter().filter(|id| self.store.record_path(id).exists()) {
                damage.went.push(self.shown_image(&id));
                self.remove_image(&id)?;
            }
        }
        Ok(Repair::Removed)
    }

    /// From its archive, if that is here and whole.
    fn unpack_again(&self, layer: &Digest) -> Result<()> {
        let meta = snapshot::meta(self.store, layer.as_str())?;
        let unknown = || Error::invalid(format!("layer {layer}"), "it has no archive");
        if chain(&meta.parent, &meta.diff_id) != *layer {
            return Err(unknown());
        }
        let blob = snapshot::blob(self.store, layer.as_str())?.ok_or_else(unknown)?;
        let plain =
            compress::decode(File::open(self.store.blob_path(&blob.digest))?, compress::bound(blob.size))?;
        let place = self.store.snapshots().join(layer.hex());
        let aside = tempfile::Builder::new().prefix("damaged-").tempdir_in(self.store.tmp())?;
        fs::rename(&place, aside.path().join("snapshot"))?;
        match snapshot::unpack(self.store, &meta.parent, plain, Some(&meta.diff_id)) {
            Ok(_) => Ok(snapshot::set_blob(self.store, layer.as_str(), &blob)?),
            Err(error) => {
                fs::rename(aside.path().join("snapshot"), place)?;
                Err(error)
            }
        }
    }

    fn repair_image(&self, damage: &Damage) -> io::Result<Repair> {
        let id = Digest::parse(&damage.name).map_err(io::Error::from)?;
        if damage.problem == MANIFEST_MISSING {
            // With the others at the end.
            return Ok(Repair::Mended);
        }
        self.remove_image(&id)?;
        Ok(Repair::Removed)
    }

    /// The record with all names; its layers stay for whoever stands on them.
    fn remove_image(&self, id: &Digest) -> io::Result<()> {
        for record in self.names.values().flatten().filter(|r| r.id == *id) {
            self.store.untag(&record.reference)?;
        }
        gone_is_fine(fs::remove_file(self.store.record_path(id)))
    }

    fn remove_name(&self, name: &str) -> io::Result<Repair> {
        let directory = self.store.root().join("references");
        for (file, _) in self.names.iter().filter(|(file, record)| shown_name(file, record) == name) {
            gone_is_fine(fs::remove_file(directory.join(file)))?;
        }
        Ok(Repair::Removed)
    }

    /// Images whose manifest is gone do without.
    fn forget_manifests(&self) -> io::Result<()> {
        for id in self.store.ids()? {
            let Ok(Some(record)) = self.store.record(&id) else { continue };
            if record.manifest.as_ref().is_some_and(|manifest| !self.store.has_blob(manifest)) {
                self.store.write_record(&Record { manifest: None, ..record })?;
            }
        }
        Ok(())
    }
}

const MANIFEST_MISSING: &str = "its manifest is missing";

fn blob_damage(store: &Store, blob: &Digest) -> Option<String> {
    let read = File::open(store.blob_path(blob)).and_then(Digest::of_reader);
    match read {
        Ok(found) if found == *blob => None,
        Ok(found) => Some(format!("its content has digest {found}")),
        Err(e) => Some(format!("it cannot be read: {e}")),
    }
}

fn shown_name(file: &str, record: &io::Result<ReferenceRecord>) -> String {
    let decoded = || file.trim_end_matches(".json").replace("%2F", "/").replace("%3A", ":");
    let familiar = || Reference::parse(&decoded()).map_or_else(|_| decoded(), |r| r.familiar());
    record.as_ref().map_or_else(|_| familiar(), |r| r.reference.familiar())
}

/// Entries that are named by a digest; what is just being made is not.
fn digests(directory: &std::path::Path) -> io::Result<Vec<Digest>> {
    Ok(names_in(directory)?.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
