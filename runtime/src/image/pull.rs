//! Pulling: a name in a registry becomes an image in the store.
//!
//! Manifest, config, then all layers at once (a few at a time), each unpacked as soon as it
//! and all below it are there. A layer whose snapshot exists is not fetched, unless its archive was lost. The name is
//! written last, so a pull that was cut leaves the old image in place.

use super::compress;
use super::config::Document;
use super::digest::{Digest, chain};
use super::error::{Doing, Error, Result};
use super::manifest::{self, Descriptor, Manifest, Parsed};
use super::platform::Platform;
use super::progress::{Phase, Progress, Report};
use super::reference::Reference;
use super::registry::{Registry, Source};
use super::store::{BlobRecord, DOCUMENT_MAX, Image, Lease, Store};
use super::transfer::{blocking, download, missing_bytes, repeated, report_layer};
use crate::snapshot;
use futures_util::future::{try_join, try_join_all};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};

const DOWNLOADS_AT_ONCE: usize = 4;
const INDEX_DEPTH_MAX: usize = 4;

/// Pulls for a platform (`None`: this machine's). What is there already is not fetched again.
///
/// # Errors
/// [`Error::Unreachable`] when the registry gave no answer at all; a caller may then fall back.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
    report: Report<'_>,
) -> Result<Image> {
    let owned = store.clone();
    let lease = Arc::new(blocking(move || owned.lease()).await.doing(|| "lock the image store".to_owned())?);
    let mut sources = Registry::sources(reference)?;
    let last = sources.pop().expect("the registry itself is one");
    for mirror in sources {
        let pulled = pull_from(store, reference, platform, &mirror, lease.clone(), report).await;
        match pulled {
            Err(error) if error.is_of_registry() => {
                let reason = error.to_string();
                report(Progress::Elsewhere { mirror: mirror.name().to_owned(), reason });
            }
            pulled => return pulled,
        }
    }
    pull_from(store, reference, platform, &last, lease, report).await
}

async fn pull_from(
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
    source: &Source,
    lease: Arc<Lease>,
    report: Report<'_>,
) -> Result<Image> {
    let registry = source.open().await?;
    let resolved = resolve(&registry, reference, platform, report).await?;
    let total = resolved.manifest.layers.iter().map(|l| l.size).sum();
    report(Progress::Resolved {
        digest: resolved.digest.clone(),
        layers: resolved.manifest.layers.len(),
        size: total,
    });
    let pull = Pull { store, registry: &registry, lease, report };
    let (config, document) = pull.config(&resolved.manifest, reference).await?;
    check_platform(&document, platform, reference)?;
    pull.check_space(&resolved.manifest.layers, &document.rootfs.diff_ids, reference)?;
    pull.layers(&resolved.manifest.layers, &document.rootfs.diff_ids).await?;
    finish(store, reference, &resolved, &config, &document)
}

/// What a name stands for.
struct Resolved {
    /// Of what the registry answered first: the index if there is one.
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
}

/// The digest that a name stands for in its registry now, without pulling it.
pub async fn resolve_digest(reference: &Reference) -> Result<Digest> {
    let ask = |source: Source| async move { source.open().await?.manifest(reference.version()).await };
    let mut sources = Registry::sources(reference)?;
    let last = sources.pop().expect("the registry itself is one");
    for mirror in sources {
        if let Ok(bytes) = ask(mirror).await {
            return Ok(Digest::of(&bytes));
        }
    }
    Ok(Digest::of(&ask(last).await?))
}

async fn resolve(
    registry: &Registry,
    reference: &Reference,
    platform: Option<&Platform>,
    report: Report<'_>,
) -> Result<Resolved> {
    let host = Platform::host();
    let what = reference.familiar();
    let fetch = |version: String| async move {
        repeated("the manifest", report, || registry.manifest(&version)).await
    };
    let mut bytes = fetch(reference.version().to_owned()).await?;
    let digest = Digest::of(&bytes);
    for _ in 0..INDEX_DEPTH_MAX {
        match manifest::parse(&bytes, &what)? {
            Parsed::Manifest(manifest) => return Ok(Resolved { digest, bytes, manifest }),
            Parsed::Index(index) => {
                let chosen = manifest::choose(&index, platform.unwrap_or(&host), &what)?;
                bytes = fetch(chosen.digest.to_string()).await?;
            }
        }
    }
    Err(Error::invalid(what, "its indexes are nested too deep"))
}

/// Only a platform that was asked for is insisted on.
fn check_platform(document: &Document, platform: Option<&Platform>, reference: &Reference) -> Result<()> {
    let Some(wanted) = platform else { return Ok(()) };
    let found = Platform {
        os: document.os.clone(),
        architecture: document.architecture.clone(),
        variant: document.variant.clone(),
    };
    match wanted.fit(&found) {
        Some(_) => Ok(()),
        None => Err(Error::Platform {
            what: reference.familiar(),
            wanted: wanted.to_string(),
            found: found.to_string(),
        }),
    }
}

fn finish(
    store: &Store,
    reference: &Reference,
    resolved: &Resolved,
    config: &[u8],
    document: &Document,
) -> Result<Image> {
    let manifest = store.write_blob(&resolved.bytes)?;
    let id = store.write_image_with(config, &document.rootfs.diff_ids, Some(manifest), &[])?;
    store.tag_as(&id, &reference.pinned(&resolved.digest), Some(resolved.digest.clone()))?;
    if reference.digest().is_none() {
        store.tag_as(&id, reference, Some(resolved.digest.clone()))?;
    }
    store.note_use(id.as_str());
    store.image(id.as_str())?.ok_or_else(|| Error::NoSuchImage(id.to_string()))
}

struct Pull<'a> {
    store: &'a Store,
    registry: &'a Registry,
    lease: Arc<Lease>,
    report: Report<'a>,
}

impl Pull<'_> {
    async fn config(&self, manifest: &Manifest, reference: &Reference) -> Result<(Vec<u8>, Document)> {
        let what = || format!("the config of {}", reference.familiar());
        if manifest.config.size > DOCUMENT_MAX {
            return Err(Error::invalid(what(), format!("it is larger than {DOCUMENT_MAX} bytes")));
        }
        download(self.store, self.registry, &manifest.config, self.report).await?;
        let bytes = self.store.read_blob(&manifest.config.digest)?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|e| Error::invalid(what(), e))?;
        let (layers, diff_ids) = (manifest.layers.len(), document.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(Error::invalid(what(), format!("it names {diff_ids} layers, the manifest {layers}")));
        }
        Ok((bytes, document))
    }

    /// Before the first layer's first byte: what is certain to be needed has to be free. Files take at least as much as
    /// their compressed archive, nearly always.
    fn check_space(&self, blobs: &[Descriptor], diff_ids: &[Digest], reference: &Reference) -> Result<()> {
        let mut parent = String::new();
        let mut needed = 0;
        for (blob, diff_id) in blobs.iter().zip(diff_ids) {
            parent = chain(&parent, diff_id).to_string();
            if !snapshot::exists(self.store, &parent) {
                needed += missing_bytes(self.store, blob) + blob.size;
            }
        }
        let place = self.store.root();
        let disk = rustix::fs::statvfs(place).doing(|| "ask for free space".to_owned())?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(Error::Space { what: reference.familiar(), place: place.display().to_string(), needed, free })
    }

    /// Downloads run side by side; unpacking follows them from the base up.
    async fn layers(&self, blobs: &[Descriptor], diff_ids: &[Digest]) -> Result<()> {
        let mut parents = vec![String::new()];
        for diff_id in diff_ids {
            parents.push(chain(parents.last().expect("it starts with one"), diff_id).to_string());
        }
        let at_once = Semaphore::new(DOWNLOADS_AT_ONCE);
        let mut downloads = Vec::new();
        let mut arrivals = Vec::new();
        for (blob, chain_id) in blobs.iter().zip(&parents[1..]) {
            let (arrived, arrival) = oneshot::channel();
            downloads.push(self.fetch(blob, chain_id, &at_once, arrived));
            arrivals.push(arrival);
        }
        let unpacking = async {
            for (index, arrival) in arrivals.into_iter().enumerate() {
                // A sender that is gone failed, and its error ends both.
                let Ok(is_needed) = arrival.await else { return Ok(()) };
                if is_needed {
                    self.unpack(&blobs[index], &parents[index], &diff_ids[index]).await?;
                }
            }
            Ok(())
        };
        try_join(try_join_all(downloads), unpacking).await.map(|_| ())
    }

    async fn fetch(
        &self,
        blob: &Descriptor,
        chain_id: &str,
        at_once: &Semaphore,
        arrived: oneshot::Sender<bool>,
    ) -> Result<()> {
        if snapshot::exists(self.store, chain_id) && snapshot::has_archive(self.store, chain_id) {
            report_layer(self.report, blob, Phase::Exists, blob.size);
            let _ = arrived.send(false);
            return Ok(());
        }
        report_layer(self.report, blob, Phase::Waiting, 0);
        let _permit = at_once.acquire().await.expect("the semaphore is never closed");
        report_layer(self.report, blob, Phase::Downloading, 0);
        download(self.store, self.registry, blob, self.report).await?;
        report_layer(self.report, blob, Phase::Downloading, blob.size);
        let _ = arrived.send(true);
        Ok(())
    }

    async fn unpack(&self, blob: &Descriptor, parent: &str, diff_id: &Digest) -> Result<()> {
        report_layer(self.report, blob, Phase::Unpacking, 0);
        let (store, blob_owned, parent, diff_id) =
            (self.store.clone(), blob.clone(), parent.to_owned(), diff_id.clone());
        let lease = self.lease.clone();
        let unpacked = tokio::task::spawn_blocking(move || {
            let result = unpack(&store, &blob_owned, &parent, &diff_id);
            // Held to the end even if nobody waits for it any more.
            drop(lease);
            result
        });
        unpacked.await.map_err(std::io::Error::other).doing(|| "unpack a layer".to_owned())??;
        report_layer(self.report, blob, Phase::Done, blob.size);
        Ok(())
    }
}

/// Makes the layer of a blob that is in the store, on top of `parent` (`""`: base), unless it is there. Blocks.
///
/// The caller holds a [`Lease`].
///
/// # Errors
/// [`Error::Digest`] when it is another layer; what is wrong with the archive.
pub fn unpack(store: &Store, blob: &Descriptor, parent: &str, diff_id: &Digest) -> Result<()> {
    let doing = || format!("open blob {}", blob.digest);
    let file = File::open(store.blob_path(&blob.digest)).doing(doing)?;
    let unpack = |plain: &mut dyn Read| snapshot::unpack(store, parent, plain, Some(diff_id));
    let layer = compress::decoded_ahead(file, compress::bound(blob.size), unpack)?;
    let record =
        BlobRecord { digest: blob.digest.clone(), size: blob.size, media_type: blob.media_type.clone() };
    snapshot::set_blob(store, layer.chain_id.as_str(), &record).doing(|| "record a layer's blob".to_owned())
}
