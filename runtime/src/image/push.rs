//! Pushing: an image of the store goes to the registry of its name.
//!
//! An image that was pulled goes out with the manifest it came with, so its digest is the
//! same there. Layers that were built here are archived and compressed once; the blob stays.

use super::compress;
use super::digest::{Digest, Hashing};
use super::error::{Doing, Error, Result};
use super::manifest::{
    self, Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST, Parsed,
};
use super::progress::{Phase, Progress, Report};
use super::reference::Reference;
use super::registry::{Access, Registry};
use super::store::{BlobRecord, LayerRecord, Lease, Record, Store};
use super::transfer::{blocking, repeated, upload};
use crate::snapshot;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::fs::File;
use std::io;
use std::sync::Arc;

const UPLOADS_AT_ONCE: usize = 4;

/// Pushes the image that `reference` names; returns the manifest's digest, which the store
/// then knows as the name's.
pub async fn push(store: &Store, reference: &Reference, report: Report<'_>) -> Result<Digest> {
    if reference.tag().is_none() {
        return Err(Error::invalid(reference.familiar(), "a push needs a tag"));
    }
    let owned = store.clone();
    let lease = Arc::new(blocking(move || owned.lease()).await.doing(|| "lock the image store".to_owned())?);
    let known = store.reference(reference)?.ok_or_else(|| Error::NoSuchImage(reference.familiar()))?;
    let record = store.record(&known.id)?.ok_or_else(|| Error::NoSuchImage(reference.familiar()))?;
    let registry = Registry::open(reference, Access::Push).await?;
    let (bytes, manifest) = prepared_manifest(store, &record, lease, report).await?;
    let digest = Digest::of(&bytes);
    let size = manifest.layers.iter().map(|l| l.size).sum();
    report(Progress::Resolved { digest: digest.clone(), layers: manifest.layers.len(), size });
    let blobs = manifest.layers.iter().chain([&manifest.config]);
    stream::iter(blobs.map(Ok))
        .try_for_each_concurrent(UPLOADS_AT_ONCE, |blob| upload(store, &registry, blob, report))
        .await?;
    let media_type = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
    let version = reference.tag().unwrap_or_default();
    repeated("the manifest", report, || registry.put_manifest(version, media_type, bytes.clone())).await?;
    remember(store, record, reference, &bytes)
}

fn remember(store: &Store, record: Record, reference: &Reference, manifest: &[u8]) -> Result<Digest> {
    let digest = store.write_blob(manifest)?;
    let id = record.id.clone();
    store.write_record(&Record { manifest: Some(digest.clone()), ..record })?;
    store.tag_as(&id, reference, Some(digest.clone()))?;
    store.tag_as(&id, &reference.pinned(&digest), Some(digest.clone()))?;
    Ok(digest)
}

/// The manifest the image came with if all its blobs are here, else one of what is here.
async fn prepared_manifest(
    store: &Store,
    record: &Record,
    lease: Arc<Lease>,
    report: Report<'_>,
) -> Result<(Vec<u8>, Manifest)> {
    if let Some(known) = known_manifest(store, record) {
        return Ok(known);
    }
    let config = store.read_blob(&record.id)?;
    let config = Descriptor::new(OCI_CONFIG, record.id.clone(), config.len() as u64);
    let layers = record.layers.iter().cloned();
    // Compressing uses a processor each.
    let layers = stream::iter(layers).map(|layer| describe(store, layer, lease.clone(), report)).buffered(2);
    let manifest = Manifest::new(config, layers.try_collect().await?);
    let bytes = serde_json::to_vec(&manifest).doing(|| "write a manifest".to_owned())?;
    Ok((bytes, manifest))
}

fn known_manifest(store: &Store, record: &Record) -> Option<(Vec<u8>, Manifest)> {
    let bytes = store.read_blob(record.manifest.as_ref()?).ok()?;
    let Ok(Parsed::Manifest(manifest)) = manifest::parse(&bytes, "the image") else { return None };
    manifest.layers.iter().all(|l| store.has_blob(&l.digest)).then_some((bytes, manifest))
}

async fn describe(
    store: &Store,
    layer: LayerRecord,
    lease: Arc<Lease>,
    report: Report<'_>,
) -> Result<Descriptor> {
    report(Progress::Layer { digest: layer.diff_id.clone(), phase: Phase::Packing, done: 0, total: 0 });
    let store = store.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let blob = packed_blob(&store, &layer);
        drop(lease);
        blob
    });
    let blob = packed.await.map_err(io::Error::other).doing(|| "compress a layer".to_owned())??;
    Ok(Descriptor::new(&blob.media_type, blob.digest, blob.size))
}

/// The layer of a chain as a compressed blob of the store, made if it is missing. Blocks.
///
/// The caller holds a [`Lease`].
///
/// # Errors
/// That there is no such layer; the operating system's.
pub fn packed(store: &Store, chain_id: &Digest, diff_id: &Digest) -> Result<Descriptor> {
    let layer = LayerRecord { diff_id: diff_id.clone(), chain_id: chain_id.clone() };
    let blob = packed_blob(store, &layer)?;
    Ok(Descriptor::new(&blob.media_type, blob.digest, blob.size))
}

/// The layer's compressed blob, made if it is missing.
fn packed_blob(store: &Store, layer: &LayerRecord) -> Result<BlobRecord> {
    let doing = || format!("compress layer {}", layer.diff_id);
    let chain_id = layer.chain_id.as_str();
    let known = snapshot::blob(store, chain_id)?.filter(|b| store.has_blob(&b.digest));
    if let Some(blob) = known.as_ref().filter(|b| b.media_type != OCI_LAYER) {
        return Ok(blob.clone());
    }
    let mut file = tempfile::NamedTempFile::new_in(store.tmp()).doing(doing)?;
    let mut gzip = compress::gzip(Hashing::new(&mut file));
    match known {
        // It came plain: its bytes are the layer's identity, not ours.
        Some(plain) => {
            io::copy(&mut File::open(store.blob_path(&plain.digest)).doing(doing)?, &mut gzip)
                .doing(doing)?;
        }
        None => snapshot::archive(store, chain_id, &mut gzip)?,
    }
    let hasher = gzip.finish().doing(doing)?.hasher;
    let (size, digest) = (hasher.length, hasher.finish());
    super::pending::mark(store, super::pending::Kind::Blob, &digest).doing(doing)?;
    file.persist(store.blob_path(&digest)).map_err(|e| e.error).doing(doing)?;
    let blob = BlobRecord { digest, size, media_type: OCI_LAYER_GZIP.into() };
    snapshot::set_blob(store, chain_id, &blob).doing(doing)?;
    Ok(blob)
}
