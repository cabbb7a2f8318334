//! The content store: what is on disk and how it is named.
//!
//! | path under `data/store` | holds |
//! |---|---|
//! | `blobs/sha256/HEX` | configs, manifests, layers as they came (compressed or not) |
//! | `images/HEX.json` | one record per image id: its layers with chain ids |
//! | `references/ENCODED.json` | one file per name: which image id, which manifest digest |
//! | `snapshots/HEX/{fs,meta.json,blob.json}` | one unpacked layer, `HEX` of the chain id; the blob it came as |
//! | `pending/HEX.KIND.BOOT` | empty: this blob or snapshot may not have reached the disk ([`super::pending`]) |
//! | `tmp/` | what is being made, partial downloads |
//! | `locks/` | `gc` and one per chain or blob being made |
//!
//! Everything is content-addressed and appears by rename, so readers take no lock. A writer
//! holds a [`Lease`] from before it writes its first blob until a reference or record names it;
//! [`super::prune`] needs all leases gone.

use super::config::{Document, ImageConfig};
use super::digest::{Digest, Hashing, chain, is_hex};
use super::error::{Doing, Error, Result};
use super::pending;
use super::reference::Reference;
use crate::home::{self, Home};
use crate::spec::Map;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A config or manifest larger than this is refused.
pub const DOCUMENT_MAX: u64 = 8 << 20;
/// More layers than this are refused: overlayfs takes at most 500 lower directories.
pub const LAYERS_MAX: usize = 400;

/// Cheap to clone; holds paths only.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// Keeps [`super::prune`] out while something is being made or about to be used.
#[derive(Debug)]
pub struct Lease(#[allow(dead_code)] File);

/// One image, complete.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the config.
    pub id: Digest,
    /// Of this platform's manifest; `None` for an image that was built here and never pushed or saved.
    pub manifest_digest: Option<Digest>,
    /// Names with tags, canonical, sorted; empty: dangling.
    pub references: Vec<Reference>,
    /// Names with digests, as registries know the image.
    pub repo_digests: Vec<Reference>,
    /// RFC 3339, from the config; empty if it has none.
    pub created: String,
    pub architecture: String,
    pub os: String,
    pub variant: Option<String>,
    /// Bytes of file content in all layers.
    pub size: u64,
    /// Diff ids, base first.
    pub layers: Vec<Digest>,
    /// Chain ids, base first, in step with `layers`.
    pub chain_ids: Vec<Digest>,
    /// Of the top layer; empty for an image without layers.
    pub chain_id: String,
    pub labels: Map,
    pub config: ImageConfig,
    pub document: Document,
}

/// `images/HEX.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: Digest,
    #[serde(default)]
    pub manifest: Option<Digest>,
    pub layers: Vec<LayerRecord>,
    /// RFC 3339: when it came into this store.
    #[serde(default)]
    pub stored_at: String,
}

/// A layer of a record, base first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    pub diff_id: Digest,
    pub chain_id: Digest,
}

/// `snapshots/HEX/blob.json`: the blob in `blobs/` that holds a layer's archive as it came or
/// was pushed. A layer without it was built here and can be archived from its snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlobRecord {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

/// `references/ENCODED.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReferenceRecord {
    pub reference: Reference,
    pub id: Digest,
    /// What the registry answered for the name: the index if there is one.
    #[serde(default)]
    pub manifest: Option<Digest>,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq)]
pub enum Removed {
    Untagged(Reference),
    Deleted(Digest),
}

impl Store {
    /// Makes the directories if they are missing.
    pub fn open(home: &Home) -> io::Result<Self> {
        let store = Self { root: home.store() };
        // Setuid programs in images must not be reachable for ordinary users.
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        for part in ["blobs/sha256", "images", "references", "snapshots", "pending", "tmp", "locks"] {
            private.create(store.root.join(part))?;
        }
        pending::discard_lost(&store)?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
    pub(crate) fn record_path(&self, id: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", id.hex()))
    }
    pub(crate) fn reference_path(&self, reference: &Reference) -> PathBuf {
        self.root.join("references").join(format!("{}.json", encode(&reference.to_string())))
    }

    /// Waits while a prune runs.
    pub fn lease(&self) -> io::Result<Lease> {
        let file = self.open_gc_lock()?;
        file.lock_shared()?;
        Ok(Lease(file))
    }

    pub(crate) fn open_gc_lock(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).read(true).write(true).open(self.root.join("locks/gc"))
    }

    /// One at a time for the maker of a chain or a blob.
    pub(crate) fn lock(&self, kind: &str, digest: &Digest) -> io::Result<home::Lock> {
        home::lock(&self.root.join("locks").join(format!("{kind}-{}", digest.hex())))
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// A small blob whole; a larger one than [`DOCUMENT_MAX`] is an error.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let doing = || format!("read blob {digest}");
        let file = File::open(self.blob_path(digest)).doing(doing)?;
        read_bounded(file, DOCUMENT_MAX, digest.as_str())
    }

    /// Stores bytes under their digest.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has_blob(&digest) {
            pending::mark(self, pending::Kind::Blob, &digest).doing(|| format!("write blob {digest}"))?;
            home::replace(&self.blob_path(&digest), bytes).doing(|| format!("write blob {digest}"))?;
        }
        Ok(digest)
    }

    /// Stores a stream under its digest; returns digest and size.
    pub fn write_blob_from(&self, reader: impl Read) -> Result<(Digest, u64)> {
        let doing = || "write a blob".to_owned();
        let mut file = tempfile::NamedTempFile::new_in(self.tmp()).doing(doing)?;
        let mut hashing = Hashing::new(reader);
        let size = io::copy(&mut hashing, &mut file).doing(doing)?;
        let digest = hashing.hasher.finish();
        pending::mark(self, pending::Kind::Blob, &digest).doing(doing)?;
        file.persist(self.blob_path(&digest)).map_err(|e| e.error).doing(doing)?;
        Ok((digest, size))
    }

    /// By name, or by id or a prefix of it (with or without `sha256:`); names win.
    pub fn image(&self, text: &str) -> io::Result<Option<Image>> {
        match self.resolve(text)? {
            Some(id) => self.image_by_digest(&id),
            None => Ok(None),
        }
    }

    /// The image id alone, as [`Store::image`] finds it: one small file is read.
    pub fn resolve(&self, text: &str) -> io::Result<Option<Digest>> {
        if let Ok(reference) = Reference::parse(text)
            && let Some(record) = self.reference(&reference)?
        {
            return Ok(Some(record.id).filter(|id| self.record_path(id).exists()));
        }
        self.id_of_prefix(text)
    }

    /// The record of a name. A name with tag and digest is looked up by its digest.
    pub fn reference(&self, reference: &Reference) -> io::Result<Option<ReferenceRecord>> {
        let reference = match reference.digest() {
            Some(digest) => &reference.pinned(digest),
            None => reference,
        };
        home::read_json(&self.reference_path(reference))
    }

    /// By id or a prefix of it.
    ///
    /// # Errors
    /// `InvalidInput` when the prefix fits several images.
    pub fn by_id(&self, prefix: &str) -> io::Result<Option<Image>> {
        match self.id_of_prefix(prefix)? {
            Some(id) => self.image_by_digest(&id),
            None => Ok(None),
        }
    }

    fn id_of_prefix(&self, prefix: &str) -> io::Result<Option<Digest>> {
        let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if hex.is_empty() || hex.len() > 64 || !is_hex(hex, hex.len()) {
            return Ok(None);
        }
        let mut fitting = self.ids()?.into_iter().filter(|id| id.hex().starts_with(hex));
        match (fitting.next(), fitting.next()) {
            (only, None) => Ok(only),
            _ => {
                let message = format!("image id prefix `{prefix}` fits more than one image");
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }

    fn image_by_digest(&self, id: &Digest) -> io::Result<Option<Image>> {
        match self.record(id)? {
            Some(record) => self.complete(record, &self.references()?).map(Some),
            None => Ok(None),
        }
    }

    /// All images, newest first.
    pub fn images(&self) -> io::Result<Vec<Image>> {
        let references = self.references()?;
        let mut images = Vec::new();
        for id in self.ids()? {
            if let Some(record) = self.record(&id)? {
                images.push(self.complete(record, &references)?);
            }
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    pub fn record(&self, id: &Digest) -> io::Result<Option<Record>> {
        home::read_json(&self.record_path(id))
    }

    pub(crate) fn write_record(&self, record: &Record) -> io::Result<()> {
        home::replace_durably(&self.record_path(&record.id), &serde_json::to_vec(record)?)
    }

    pub(crate) fn ids(&self) -> io::Result<Vec<Digest>> {
        let names = names_in(&self.root.join("images"))?;
        Ok(names.iter().filter_map(|n| Digest::from_hex(n.strip_suffix(".json")?).ok()).collect())
    }

    /// All names, sorted.
    pub fn references(&self) -> io::Result<Vec<ReferenceRecord>> {
        let directory = self.root.join("references");
        let mut records = Vec::new();
        for name in names_in(&directory)?.iter().filter(|n| n.ends_with(".json")) {
            // Gone between listing and reading is not an error.
            records.extend(home::read_json::<ReferenceRecord>(&directory.join(name))?);
        }
        records.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(records)
    }

    fn complete(&self, record: Record, references: &[ReferenceRecord]) -> io::Result<Image> {
        let document: Document = serde_json::from_slice(&self.read_blob(&record.id)?).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("config of image {}: {e}", record.id))
        })?;
        let ours = || references.iter().filter(|r| r.id == record.id).map(|r| r.reference.clone());
        let chain_ids: Vec<Digest> = record.layers.iter().map(|l| l.chain_id.clone()).collect();
        Ok(Image {
            references: ours().filter(|r| r.digest().is_none()).collect(),
            repo_digests: ours().filter(|r| r.digest().is_some()).collect(),
            created: document.created.clone().unwrap_or_default(),
            architecture: document.architecture.clone(),
            os: document.os.clone(),
            variant: document.variant.clone(),
            size: chain_ids.iter().map(|c| crate::snapshot::size(self, c.as_str())).sum(),
            layers: record.layers.iter().map(|l| l.diff_id.clone()).collect(),
            chain_id: chain_ids.last().map(|c| c.to_string()).unwrap_or_default(),
            chain_ids,
            labels: document.config.labels.clone(),
            config: document.config.clone(),
            id: record.id,
            manifest_digest: record.manifest,
            document,
        })
    }

    /// Makes an image of layers whose snapshots exist. The config must be a [`Document`] with
    /// exactly these diff ids, base first.
    ///
    /// # Errors
    /// When config and layers disagree or a snapshot is missing.
    pub fn write_image(&self, config: &[u8], layers: &[Digest], references: &[Reference]) -> Result<Digest> {
        self.write_image_with(config, layers, None, references)
    }

    pub(crate) fn write_image_with(
        &self,
        config: &[u8],
        layers: &[Digest],
        manifest: Option<Digest>,
        references: &[Reference],
    ) -> Result<Digest> {
        check_config(config, layers)?;
        let id = self.write_blob(config)?;
        let known = self.record(&id)?;
        let stored_at = known.as_ref().map_or_else(now, |r| r.stored_at.clone());
        let manifest = manifest.or_else(|| known.as_ref()?.manifest.clone());
        let mut record = Record { id: id.clone(), manifest, layers: Vec::new(), stored_at };
        let mut parent = String::new();
        for diff_id in layers {
            let chain_id = chain(&parent, diff_id);
            if !crate::snapshot::exists(self, chain_id.as_str()) {
                return Err(Error::invalid(format!("image {id}"), format!("snapshot {chain_id} is missing")));
            }
            parent = chain_id.to_string();
            record.layers.push(LayerRecord { diff_id: diff_id.clone(), chain_id });
        }
        // A build that changed nothing writes nothing.
        if known.as_ref() != Some(&record) {
            let recorded = pending::settle(self).and_then(|()| self.write_record(&record));
            recorded.doing(|| format!("record image {id}"))?;
        }
        for reference in references {
            self.tag(&id, reference)?;
        }
        Ok(id)
    }

    /// Points a name at an image; another image that had it keeps its other names or dangles.
    pub fn tag(&self, id: &Digest, reference: &Reference) -> Result<()> {
        let record = self.record(id)?.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        self.tag_as(id, reference, record.manifest)
    }

    pub(crate) fn tag_as(&self, id: &Digest, reference: &Reference, manifest: Option<Digest>) -> Result<()> {
        let record = ReferenceRecord { reference: reference.clone(), id: id.clone(), manifest };
        let (path, doing) = (self.reference_path(reference), || format!("tag {reference}"));
        if home::read_json::<ReferenceRecord>(&path).is_ok_and(|known| known.as_ref() == Some(&record)) {
            return Ok(());
        }
        let json = serde_json::to_vec(&record).expect("a record serialises");
        home::replace_durably(&path, &json).doing(doing)
    }

    /// Removes a name only; the image may dangle. `false`: there was none.
    pub fn untag(&self, reference: &Reference) -> io::Result<bool> {
        match fs::remove_file(self.reference_path(reference)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes as `docker rmi` does: a name is untagged, and the image goes with its last name;
    /// an id goes with all its names, which needs `force` when there are several. Its layers
    /// are freed by the next prune. The caller knows which images are in use.
    pub fn remove(&self, text: &str, force: bool) -> Result<Vec<Removed>> {
        let image = self.image(text)?.ok_or_else(|| Error::NoSuchImage(text.to_owned()))?;
        let by_name = Reference::parse(text)
            .ok()
            .filter(|r| image.references.contains(r) || image.repo_digests.contains(r));
        let repositories = count_repositories(&image.references);
        let names: Vec<Reference> = match by_name {
            Some(name) if image.references.iter().any(|r| *r != name) => self.names_with(&image, &name),
            None if repositories > 1 && !force => {
                let message =
                    format!("image {} has several names; removing it by id must be forced", image.id.short());
                return Err(Error::InUse(message));
            }
            _ => return self.delete(&image),
        };
        self.untag_all(names)
    }

    /// A tag, and with the last tag of its repository the digests of that repository.
    fn names_with(&self, image: &Image, name: &Reference) -> Vec<Reference> {
        let mut names = vec![name.clone()];
        if !image.references.iter().any(|r| r != name && r.name() == name.name()) {
            names
                .extend(image.repo_digests.iter().filter(|d| d.name() == name.name() && *d != name).cloned());
        }
        names
    }

    fn untag_all(&self, names: Vec<Reference>) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for name in names {
            if self.untag(&name).doing(|| format!("untag {name}"))? {
                removed.push(Removed::Untagged(name));
            }
        }
        Ok(removed)
    }

    fn delete(&self, image: &Image) -> Result<Vec<Removed>> {
        let mut removed =
            self.untag_all(image.references.iter().chain(&image.repo_digests).cloned().collect())?;
        fs::remove_file(self.record_path(&image.id)).doing(|| format!("remove image {}", image.id))?;
        removed.push(Removed::Deleted(image.id.clone()));
        Ok(removed)
    }
}

fn count_repositories(references: &[Reference]) -> usize {
    let mut names: Vec<String> = references.iter().map(Reference::name).collect();
    names.sort();
    names.dedup();
    names.len()
}

fn check_config(config: &[u8], layers: &[Digest]) -> Result<()> {
    let document: Document = serde_json::from_slice(config).map_err(|e| Error::invalid("image config", e))?;
    if layers.len() > LAYERS_MAX {
        return Err(Error::invalid(
            "image",
            format!("it has {} layers, at most {LAYERS_MAX} are possible", layers.len()),
        ));
    }
    if document.rootfs.diff_ids != layers {
        return Err(Error::invalid("image config", "its diff ids are not those of the layers"));
    }
    Ok(())
}

/// A file name for a reference: readable where it fits, else its digest.
fn encode(reference: &str) -> String {
    let name = reference.replace('/', "%2F").replace(':', "%3A");
    if name.len() <= 200 { name } else { Digest::of(reference.as_bytes()).hex().to_owned() }
}

pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// File names of a directory that are UTF-8, sorted.
pub(crate) fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Reads a stream that must not be longer than `max`.
pub(crate) fn read_bounded(reader: impl Read, max: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(max + 1).read_to_end(&mut bytes).doing(|| format!("read {what}"))?;
    if bytes.len() as u64 > max {
        return Err(Error::invalid(what, format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}
