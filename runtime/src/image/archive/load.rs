//! Loading: the images of an archive come into the store, with their names.

use super::received::{Content, Received};
use super::{DockerImage, IMAGE_NAME, REF_NAME, parse_names};
use crate::image::compress::{self, Compression};
use crate::image::config::Document;
use crate::image::digest::Digest;
use crate::image::error::{Doing, Error, Result};
use crate::image::manifest::{self, Descriptor, Manifest, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Parsed};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{BlobRecord, Store};
use crate::snapshot;
use std::fs::File;
use std::io::Read;
use std::path::Path;

const INDEX_DEPTH_MAX: usize = 4;

/// One image of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub id: Digest,
    /// Empty: the archive has no name for it.
    pub references: Vec<Reference>,
}

/// Loads `docker save` and OCI archives, plain, gzip or zstd.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::Digest`] are the archive's fault; the store is as before.
pub fn load(store: &Store, archive: impl Read) -> Result<Vec<Loaded>> {
    let _lease = store.lease().doing(|| "lock the image store".to_owned())?;
    let plain = compress::decode(archive, u64::MAX).doing(|| "read the image archive".to_owned())?;
    load_received(store, &Received::from_tar(store, plain)?)
}

/// As [`load`], from a file or an OCI layout directory.
pub fn load_path(store: &Store, path: &Path) -> Result<Vec<Loaded>> {
    if path.is_dir() {
        let _lease = store.lease().doing(|| "lock the image store".to_owned())?;
        return load_received(store, &Received::from_directory(store, path)?);
    }
    let doing = || format!("open {}", path.display());
    let file = File::open(path).doing(doing)?;
    let bound = compress::bound(file.metadata().doing(doing)?.len());
    let _lease = store.lease().doing(|| "lock the image store".to_owned())?;
    let plain = compress::decode(file, bound).doing(|| format!("read {}", path.display()))?;
    load_received(store, &Received::from_tar(store, plain)?)
}

fn load_received(store: &Store, received: &Received) -> Result<Vec<Loaded>> {
    if received.has("manifest.json") {
        return load_docker(store, received);
    }
    if received.has("index.json") {
        return load_oci(store, received);
    }
    Err(Error::invalid("the image archive", "it has neither manifest.json nor index.json"))
}

fn load_docker(store: &Store, received: &Received) -> Result<Vec<Loaded>> {
    let bytes = received.document("manifest.json")?;
    let images: Vec<DockerImage> =
        serde_json::from_slice(&bytes).map_err(|e| Error::invalid("manifest.json", e))?;
    images.iter().map(|image| load_docker_image(store, received, image)).collect()
}

fn load_docker_image(store: &Store, received: &Received, image: &DockerImage) -> Result<Loaded> {
    let config = received.document(&image.config)?;
    let layers = image.layers.iter().flatten().map(|name| received.get(name)).collect::<Result<Vec<_>>>()?;
    let references = parse_names(image.repo_tags.iter().flatten().map(String::as_str));
    load_image(store, &config, &layers, None, references)
}

fn load_oci(store: &Store, received: &Received) -> Result<Vec<Loaded>> {
    let bytes = received.document("index.json")?;
    let Parsed::Index(index) = manifest::parse(&bytes, "the archive")? else {
        return Err(Error::invalid("index.json", "it is not an index"));
    };
    let host = Platform::host();
    let mut loaded = Vec::new();
    for descriptor in index.manifests.iter().filter(|d| !manifest::is_attestation(d)) {
        let others = index.manifests.len() > 1;
        if others && descriptor.platform.as_ref().is_some_and(|p| host.fit(p).is_none()) {
            continue;
        }
        loaded.push(load_descriptor(store, received, descriptor)?);
    }
    if loaded.is_empty() {
        // Says which platforms there are.
        manifest::choose(&index, &host, "the archive")?;
    }
    Ok(loaded)
}

fn load_descriptor(store: &Store, received: &Received, descriptor: &Descriptor) -> Result<Loaded> {
    let (digest, manifest) = find_manifest(received, descriptor)?;
    let config = received.blob(&manifest.config.digest)?.bytes("the image config")?;
    let layers = manifest.layers.iter().map(|l| received.blob(&l.digest)).collect::<Result<Vec<_>>>()?;
    received.blob(&digest)?.keep(store)?;
    load_image(store, &config, &layers, Some(digest), names_of(descriptor))
}

/// Through nested indexes to the manifest of this machine's platform.
fn find_manifest(received: &Received, descriptor: &Descriptor) -> Result<(Digest, Manifest)> {
    let mut digest = descriptor.digest.clone();
    for _ in 0..INDEX_DEPTH_MAX {
        let bytes = received.blob(&digest)?.bytes("a manifest")?;
        match manifest::parse(&bytes, "the archive")? {
            Parsed::Manifest(manifest) => return Ok((digest, manifest)),
            Parsed::Index(index) => {
                digest = manifest::choose(&index, &Platform::host(), "the archive")?.digest.clone();
            }
        }
    }
    Err(Error::invalid("the image archive", "its indexes are nested too deep"))
}

/// The reference annotation is often the tag alone, which names nothing.
fn names_of(descriptor: &Descriptor) -> Vec<Reference> {
    let whole = |name: &&String| name.contains(['/', ':']);
    let name =
        descriptor.annotations.get(IMAGE_NAME).or_else(|| descriptor.annotations.get(REF_NAME).filter(whole));
    parse_names(name.map(String::as_str))
}

fn load_image(
    store: &Store,
    config: &[u8],
    layers: &[&Content],
    manifest: Option<Digest>,
    references: Vec<Reference>,
) -> Result<Loaded> {
    let document: Document =
        serde_json::from_slice(config).map_err(|e| Error::invalid("the image config", e))?;
    let diff_ids = &document.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        let reason = format!("its config names {} layers, its manifest {}", diff_ids.len(), layers.len());
        return Err(Error::invalid("the image", reason));
    }
    let mut parent = String::new();
    for (diff_id, content) in diff_ids.iter().zip(layers) {
        let unpack = |plain: &mut dyn Read| snapshot::unpack(store, &parent, plain, Some(diff_id));
        let layer = compress::decoded_ahead(content.open()?, compress::bound(content.size), unpack)?;
        parent = layer.chain_id.to_string();
        keep_blob(store, &parent, content, manifest.is_some())?;
    }
    let id = store.write_image_with(config, diff_ids, manifest, &references)?;
    Ok(Loaded { id, references })
}

/// A plain archive that the snapshot reproduces need not be kept twice.
fn keep_blob(store: &Store, chain_id: &str, content: &Content, needed: bool) -> Result<()> {
    let doing = || format!("record the blob of layer {chain_id}");
    let known = snapshot::blob(store, chain_id).doing(doing)?.is_some_and(|b| store.has_blob(&b.digest));
    let media_type = media_type(content)?;
    if needed || !known {
        if !needed && media_type == OCI_LAYER && snapshot::archive(store, chain_id, std::io::sink()).is_ok() {
            return Ok(());
        }
        content.keep(store)?;
        let record =
            BlobRecord { digest: content.digest.clone(), size: content.size, media_type: media_type.into() };
        snapshot::set_blob(store, chain_id, &record).doing(doing)?;
    }
    Ok(())
}

fn media_type(content: &Content) -> Result<&'static str> {
    let mut start = Vec::new();
    content.open()?.take(4).read_to_end(&mut start).doing(|| "read a layer".to_owned())?;
    Ok(match Compression::of(&start) {
        Compression::None => OCI_LAYER,
        Compression::Gzip => OCI_LAYER_GZIP,
        Compression::Zstd => OCI_LAYER_ZSTD,
    })
}
