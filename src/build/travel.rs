//! The whole cache in a directory, for another machine.
//!
//! The directory is a layout as [`exchange`](super::exchange) writes it, which a `cache_from` of type `local` reads
//! as well; its manifest has everything else, too: the layers below those of the records, the images they belong to
//! with their names, cache mounts, and downloads. Digests of contexts stay: they are of this machine's inodes.
//!
//! What is here already stays as it is: an import only adds.

use super::cache::{Cache, is_mount_id};
use super::exchange::{self, Extra, Record, Records};
use super::failure::{BuildFailure, Doing, Result};
use super::mounts;
use super::shared::blocking;
use super::state::Made;
use super::tree::Tree;
use super::unpack;
use serde::{Deserialize, Serialize};
use stack_runtime::home::{self, Home};
use stack_runtime::image::artifact::{Found, Place, Version};
use stack_runtime::image::compress;
use stack_runtime::image::digest::{Hashing, chain};
use stack_runtime::image::manifest::{Descriptor, Manifest, OCI_CONFIG};
use stack_runtime::image::progress::silent;
use stack_runtime::image::{Digest, Image, Reference, Store, pull, push};
use stack_runtime::snapshot;
use stack_schema::dockerfile::mount::Owner;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const MOUNT: &str = "application/vnd.stack.cachemount.v1.tar+gzip";
const DOWNLOAD: &str = "application/vnd.stack.download.v1";

/// How much went into a directory, or came out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Travelled {
    pub steps: usize,
    pub images: usize,
    pub mounts: usize,
    /// Of all that, what was there before.
    pub known: usize,
}

/// A layer that no record names, below one that a record names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Below {
    diff_id: Digest,
    parent: String,
    layer: Descriptor,
}

/// An image that steps begin with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Base {
    config: Descriptor,
    layers: Vec<Digest>,
    names: Vec<Reference>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mounted {
    id: String,
    /// What the Dockerfile calls it.
    label: String,
    mode: u32,
    uid: u32,
    gid: u32,
    archive: Descriptor,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Download {
    key: Digest,
    /// What the server said.
    record: serde_json::Value,
    file: Descriptor,
}

/// Writes the cache into a directory; what an earlier export left there and nothing names any more goes.
///
/// # Errors
/// What cannot be read or written.
pub async fn export(home: &Home, store: &Store, directory: &Path) -> Result<Travelled> {
    let _lease = store.lease().doing(|| "use the image store")?;
    let cache = Cache::open(home).doing(|| "open the build cache")?;
    let (owned, to) = (store.clone(), directory.to_owned());
    let (manifest, travelled) = blocking(move || gathered(&cache, &owned, &to)).await?;
    let place = Place::Layout { directory: directory.to_owned(), version: Version::Any };
    place.put(store, &manifest, &silent).await?;
    let kept = directory.to_owned();
    blocking(move || sweep(&kept, &manifest).doing(|| format!("clear {} up", kept.display()))).await?;
    Ok(travelled)
}

fn gathered(cache: &Cache, store: &Store, directory: &Path) -> Result<(Manifest, Travelled)> {
    let writing = || format!("write to {}", directory.display());
    fs::create_dir_all(directory.join("blobs/sha256")).doing(writing)?;
    let mut layers = BTreeMap::new();
    let mut add = |layer: &Descriptor| drop(layers.insert(layer.digest.clone(), layer.clone()));
    let (mut records, mut chains) = (Vec::new(), BTreeSet::new());
    for (key, made, created_by) in cache.records(store) {
        let meta = snapshot::meta(store, made.chain_id.as_str()).doing(|| "read a layer")?;
        let step = exchange::Step { key, parent: meta.parent, made, created_by };
        let layer = push::packed(store, &step.made.chain_id, &step.made.diff_id)?;
        add(&layer);
        chains.insert(step.made.chain_id.to_string());
        records.push(step.record(Some(layer)));
    }
    let mut extra = Extra { below: below(store, &mut chains)?, ..Extra::default() };
    extra.below.iter().for_each(|below| add(&below.layer));
    for image in bases(store, &records)? {
        let bytes = store.read_blob(&image.id)?;
        let config = Descriptor::new(OCI_CONFIG, image.id, bytes.len() as u64);
        add(&config);
        extra.images.push(Base { config, layers: image.layers, names: image.references });
    }
    extra.mounts = cache.each_mount(|id, path| mount(id, path, directory)).doing(|| "pack a cache mount")?;
    extra.mounts.iter().for_each(|mount| add(&mount.archive));
    extra.downloads = downloads(cache, directory).doing(writing)?;
    extra.downloads.iter().for_each(|download| add(&download.file));
    let (images, mounts) = (extra.images.len(), extra.mounts.len());
    let travelled = Travelled { steps: records.len(), images, mounts, known: 0 };
    let config = exchange::config(store, &Records::new(records, extra))?;
    Ok((Manifest::new(config, layers.into_values().collect()), travelled))
}

/// Layers below these chains that are none of them; afterwards `chains` has them all.
fn below(store: &Store, chains: &mut BTreeSet<String>) -> Result<Vec<Below>> {
    let mut found = Vec::new();
    for chain in chains.clone() {
        let mut next = snapshot::meta(store, &chain).doing(|| "read a layer")?.parent;
        while !next.is_empty() && chains.insert(next.clone()) {
            let meta = snapshot::meta(store, &next).doing(|| "read a layer")?;
            let layer = push::packed(store, &Digest::parse(&next)?, &meta.diff_id)?;
            next.clone_from(&meta.parent);
            found.push(Below { diff_id: meta.diff_id, parent: meta.parent, layer });
        }
    }
    Ok(found)
}

/// Images that some step was made on, directly or with others in between.
fn bases(store: &Store, records: &[Record]) -> Result<Vec<Image>> {
    let mut under = BTreeSet::new();
    for record in records {
        let mut next = record.parent.clone();
        while !next.is_empty() && under.insert(next.clone()) {
            next = snapshot::meta(store, &next).doing(|| "read a layer")?.parent;
        }
    }
    let mut images = store.images().doing(|| "list images")?;
    images.retain(|image| under.contains(&image.chain_id) && !image.references.is_empty());
    Ok(images)
}

/// Packs a mount into the layout. The caller has its lock.
fn mount(id: &str, path: &Path, layout: &Path) -> io::Result<Mounted> {
    let data = File::open(path.join("data"))?;
    let meta = data.metadata()?;
    let label = fs::read_to_string(path.join("id")).unwrap_or_default();
    let archive = blob(layout, MOUNT, |to| {
        let mut gzip = compress::gzip(to);
        snapshot::pack_tree(&data, &mut gzip)?;
        gzip.finish().map(drop)
    })?;
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    Ok(Mounted { id: id.to_owned(), label, mode, uid, gid, archive })
}

fn downloads(cache: &Cache, layout: &Path) -> io::Result<Vec<Download>> {
    let mut found = Vec::new();
    for (key, record) in cache.downloads() {
        let mut content = File::open(cache.remote(&key))?;
        let file = blob(layout, DOWNLOAD, |to| io::copy(&mut content, to).map(drop))?;
        found.push(Download { key, record, file });
    }
    Ok(found)
}

/// A blob of the layout that is in no store.
fn blob(
    layout: &Path,
    media_type: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Descriptor> {
    let blobs = layout.join("blobs/sha256");
    let mut to = Hashing::new(BufWriter::new(tempfile::NamedTempFile::new_in(&blobs)?));
    write(&mut to)?;
    let Hashing { inner, hasher } = to;
    let file = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    let (size, digest) = (hasher.length, hasher.finish());
    file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    file.persist(blobs.join(digest.hex())).map_err(|e| e.error)?;
    Ok(Descriptor::new(media_type, digest, size))
}

/// Removes blobs that the one manifest does not name; a layout that somebody else uses too is left alone.
fn sweep(directory: &Path, manifest: &Manifest) -> io::Result<()> {
    let index: Option<stack_runtime::image::manifest::Index> =
        home::read_json(&directory.join("index.json"))?;
    let Some([only]) = index.as_ref().map(|index| index.manifests.as_slice()) else { return Ok(()) };
    let named = manifest.layers.iter().chain([&manifest.config, only]);
    let named: BTreeSet<&str> = named.map(|blob| blob.digest.hex()).collect();
    for entry in fs::read_dir(directory.join("blobs/sha256"))? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Brings what [`export`] wrote into this cache.
///
/// # Errors
/// What cannot be read or written, and what is not what its digest says.
pub async fn import(home: &Home, store: &Store, directory: &Path) -> Result<Travelled> {
    let _lease = store.lease().doing(|| "use the image store")?;
    let cache = Cache::open(home).doing(|| "open the build cache")?;
    let place = Place::Layout { directory: directory.to_owned(), version: Version::Any };
    let found = place.find(store, None, &silent).await?;
    let read = exchange::read(&found);
    let records = read.map_err(|why| BuildFailure::doing(format!("read {}", directory.display()), why))?;
    let mut travelled = Travelled::default();
    layers(store, &found, &records).await?;
    for base in &records.extra.images {
        found.fetch(store, &base.config, &silent).await?;
        travelled.known += usize::from(image(store, base)?);
        travelled.images += 1;
    }
    for record in &records.records {
        travelled.known += usize::from(step(&cache, store, record)?);
        travelled.steps += 1;
    }
    let (layout, extra) = (directory.to_owned(), records.extra);
    blocking(move || {
        for mount in &extra.mounts {
            let is_known = unpacked(&cache, mount, &layout);
            travelled.known += usize::from(is_known.doing(|| format!("unpack the cache `{}`", mount.label))?);
            travelled.mounts += 1;
        }
        let copy = |download| fetched(&cache, download, &layout).doing(|| "keep a download");
        extra.downloads.iter().try_for_each(copy)?;
        Ok(travelled)
    })
    .await
}

/// Layers that are missing, each after the one below it.
async fn layers(store: &Store, found: &Found, records: &Records) -> Result<()> {
    let of_steps = records.records.iter().filter_map(|r| Some((&r.parent, &r.diff_id, r.layer.as_ref()?)));
    let of_bases = records.extra.below.iter().map(|b| (&b.parent, &b.diff_id, &b.layer));
    let mut waiting: HashMap<&str, Vec<(&Digest, &Descriptor)>> = HashMap::new();
    for (parent, diff_id, layer) in of_steps.chain(of_bases) {
        waiting.entry(parent).or_default().push((diff_id, layer));
    }
    let mut ready = vec![String::new()];
    while let Some(parent) = ready.pop() {
        for (diff_id, layer) in waiting.remove(parent.as_str()).unwrap_or_default() {
            let chain_id = chain(&parent, diff_id).to_string();
            if !snapshot::exists(store, &chain_id) {
                found.fetch(store, layer, &silent).await?;
                let (store, layer) = (store.clone(), layer.clone());
                let (parent, diff_id) = (parent.clone(), diff_id.clone());
                blocking(move || Ok(pull::unpack(&store, &layer, &parent, &diff_id)?)).await?;
            }
            ready.push(chain_id);
        }
    }
    Ok(())
}

/// True: it was here. A name that is taken stays where it is.
fn image(store: &Store, base: &Base) -> Result<bool> {
    let is_known = store.record(&base.config.digest).doing(|| "read an image")?.is_some();
    let mut free = Vec::new();
    for name in &base.names {
        if store.reference(name).doing(|| format!("look up {name}"))?.is_none() {
            free.push(name.clone());
        }
    }
    store.write_image(&store.read_blob(&base.config.digest)?, &base.layers, &free)?;
    Ok(is_known)
}

/// True: it was here.
fn step(cache: &Cache, store: &Store, record: &Record) -> Result<bool> {
    if cache.find(store, &record.key).is_some() {
        return Ok(true);
    }
    let made = Made {
        diff_id: record.diff_id.clone(),
        chain_id: chain(&record.parent, &record.diff_id),
        created: record.created.clone(),
    };
    cache.record(&record.key, &made, &record.created_by).doing(|| "record a step in the cache")?;
    Ok(false)
}

/// True: it was here.
fn unpacked(cache: &Cache, mount: &Mounted, layout: &Path) -> Result<bool> {
    if !is_mount_id(&mount.id) {
        return Err(BuildFailure::new(format!("{:?} is no name of a cache mount", mount.id)));
    }
    let owner = Owner { mode: Some(mount.mode), uid: Some(mount.uid), gid: Some(mount.gid) };
    mounts::adopt(cache, &mount.id, &mount.label, |data| {
        let archive = verified(layout, &mount.archive).doing(|| "open its archive")?;
        let tree = Tree::open(data).doing(|| "open its directory")?;
        unpack::unpack(&archive, unpack::Form::Own, &tree, Path::new(""), None)?;
        mounts::apply(data, &owner, mount.mode).doing(|| "set its owner")
    })
    .map(|is_new| !is_new)
}

fn fetched(cache: &Cache, download: &Download, layout: &Path) -> io::Result<()> {
    let path = cache.remote(&download.key);
    if path.exists() {
        return Ok(());
    }
    let made = tempfile::NamedTempFile::new_in(path.parent().expect("it is below the cache"))?;
    io::copy(&mut verified(layout, &download.file)?, &mut made.as_file())?;
    made.persist(&path).map_err(|e| e.error)?;
    home::replace_json(&path.with_extension("json"), &download.record)
}

/// A blob of a layout, at its beginning, if it is what its digest says.
fn verified(layout: &Path, blob: &Descriptor) -> io::Result<File> {
    let path = layout.join("blobs/sha256").join(blob.digest.hex());
    let mut file = File::open(path)?;
    if Digest::of_reader(&mut file)? != blob.digest {
        let message = format!("{} is not what its digest says", blob.digest);
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    io::Seek::rewind(&mut file)?;
    Ok(file)
}
