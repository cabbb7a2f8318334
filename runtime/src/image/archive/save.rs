//! Saving: images of the store as one archive that every tool reads.
//!
//! Layers go in as they are in the store: an image that was pulled keeps its manifest and so
//! its digest; layers that were built here go in plain.

use super::{DockerImage, IMAGE_NAME, REF_NAME};
use crate::image::digest::Digest;
use crate::image::error::{Doing, Error, Result};
use crate::image::manifest::{
    self, Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Parsed,
};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{Image, LayerRecord, Record, Store};
use crate::image::tar_read::Entry;
use crate::image::tar_write::Writer;
use crate::snapshot;
use crate::spec::Map;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};

/// Writes an archive that `docker load`, `podman load` and [`super::load`] read. Images are
/// named by reference (only this name goes along) or by id (no name goes along).
pub fn save(store: &Store, images: &[String], to: impl Write) -> Result<()> {
    let named = images.iter().map(|text| {
        let image = store.image(text)?.ok_or_else(|| Error::NoSuchImage(text.clone()))?;
        let name = Reference::parse(text).ok().filter(|r| image.references.contains(r));
        Ok((image, name))
    });
    save_named(store, named, to)
}

/// As [`save`], one image with names that the store need not know.
pub fn save_as(store: &Store, id: &Digest, names: &[Reference], to: impl Write) -> Result<()> {
    let image = store.by_id(id.as_str())?.ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
    let names: Vec<Option<Reference>> =
        if names.is_empty() { vec![None] } else { names.iter().cloned().map(Some).collect() };
    save_named(store, names.into_iter().map(|name| Ok((image.clone(), name))), to)
}

fn save_named(
    store: &Store,
    images: impl Iterator<Item = Result<(Image, Option<Reference>)>>,
    to: impl Write,
) -> Result<()> {
    let _lease = store.lease().doing(|| "lock the image store".to_owned())?;
    let mut saver = Saver { store, writer: Writer::new(to), written: BTreeSet::new() };
    let mut index = Vec::new();
    let mut docker: Vec<DockerImage> = Vec::new();
    for named in images {
        let (image, name) = named?;
        saver.image(&image, name.as_ref(), &mut index, &mut docker)?;
    }
    saver.json("oci-layout", &serde_json::json!({ "imageLayoutVersion": "1.0.0" }))?;
    let whole =
        Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: index, annotations: Map::new() };
    saver.json("index.json", &whole)?;
    saver.json("manifest.json", &docker)?;
    saver.writer.finish().and_then(|mut to| to.flush()).doing(|| "write the archive".to_owned())
}

struct Saver<'a, W: Write> {
    store: &'a Store,
    writer: Writer<W>,
    /// Equal layers of several images go in once.
    written: BTreeSet<Digest>,
}

impl<W: Write> Saver<'_, W> {
    fn image(
        &mut self,
        image: &Image,
        name: Option<&Reference>,
        index: &mut Vec<Descriptor>,
        docker: &mut Vec<DockerImage>,
    ) -> Result<()> {
        let record = self.store.record(&image.id)?.ok_or_else(|| Error::NoSuchImage(image.id.to_string()))?;
        let (bytes, manifest) = self.manifest(&record)?;
        for (layer, descriptor) in record.layers.iter().zip(&manifest.layers) {
            self.layer(layer, descriptor)?;
        }
        self.blob(&record.id, &self.store.read_blob(&record.id)?)?;
        let digest = Digest::of(&bytes);
        self.blob(&digest, &bytes)?;
        index.push(descriptor(image, &manifest, digest, bytes.len() as u64, name));
        add_docker(docker, &record.id, &manifest, name);
        Ok(())
    }

    /// The manifest the image came with, if it still describes what is here; else a new one.
    fn manifest(&self, record: &Record) -> Result<(Vec<u8>, Manifest)> {
        if let Some(digest) = &record.manifest
            && let Ok(bytes) = self.store.read_blob(digest)
            && let Ok(Parsed::Manifest(manifest)) = manifest::parse(&bytes, "the image")
            && manifest.layers.iter().all(|l| self.store.has_blob(&l.digest))
        {
            return Ok((bytes, manifest));
        }
        let size = self.store.read_blob(&record.id)?.len() as u64;
        let config = Descriptor::new(OCI_CONFIG, record.id.clone(), size);
        let layers = record.layers.iter().map(|l| self.describe(l)).collect::<Result<_>>()?;
        let manifest = Manifest::new(config, layers);
        let bytes = serde_json::to_vec(&manifest).doing(|| "write a manifest".to_owned())?;
        Ok((bytes, manifest))
    }

    fn describe(&self, layer: &LayerRecord) -> Result<Descriptor> {
        if let Some(blob) = snapshot::blob(self.store, layer.chain_id.as_str())?
            && self.store.has_blob(&blob.digest)
        {
            return Ok(Descriptor::new(&blob.media_type, blob.digest, blob.size));
        }
        let mut count = Count(0);
        snapshot::archive(self.store, layer.chain_id.as_str(), &mut count)?;
        Ok(Descriptor::new(OCI_LAYER, layer.diff_id.clone(), count.0))
    }

    fn layer(&mut self, layer: &LayerRecord, descriptor: &Descriptor) -> Result<()> {
        if !self.written.insert(descriptor.digest.clone()) {
            return Ok(());
        }
        let doing = || format!("write layer {}", descriptor.digest);
        let entry = Entry { size: descriptor.size, ..Entry::file(&blob_name(&descriptor.digest), 0o644) };
        if self.store.has_blob(&descriptor.digest) {
            let file = File::open(self.store.blob_path(&descriptor.digest)).doing(doing)?;
            return self.writer.append(&entry, file).doing(doing);
        }
        // An archive is written, a tar entry read: a file in between.
        let mut file = tempfile::tempfile_in(self.store.tmp()).doing(doing)?;
        snapshot::archive(self.store, layer.chain_id.as_str(), &mut file)?;
        io::Seek::rewind(&mut file).doing(doing)?;
        self.writer.append(&entry, file).doing(doing)
    }

    fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        self.writer.append_bytes(&blob_name(digest), bytes).doing(|| format!("write blob {digest}"))
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let doing = || format!("write {name}");
        let bytes = serde_json::to_vec(value).doing(doing)?;
        self.writer.append_bytes(name, &bytes).doing(doing)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn descriptor(
    image: &Image,
    manifest: &Manifest,
    digest: Digest,
    size: u64,
    name: Option<&Reference>,
) -> Descriptor {
    let media_type = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
    let mut descriptor = Descriptor::new(media_type, digest, size);
    descriptor.platform = Some(Platform {
        os: image.os.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
    });
    if let Some(name) = name {
        descriptor.annotations.insert(IMAGE_NAME.into(), name.to_string());
        descriptor.annotations.insert(REF_NAME.into(), name.tag().unwrap_or_default().to_owned());
    }
    descriptor
}

/// Two names of one image are one entry.
fn add_docker(docker: &mut Vec<DockerImage>, id: &Digest, manifest: &Manifest, name: Option<&Reference>) {
    let names = || name.map(Reference::familiar);
    let config = blob_name(id);
    if let Some(known) = docker.iter_mut().find(|d| d.config == config) {
        known.repo_tags.get_or_insert_default().extend(names());
        return;
    }
    let layers = manifest.layers.iter().map(|l| blob_name(&l.digest)).collect();
    docker.push(DockerImage {
        config,
        repo_tags: name.map(|_| names().into_iter().collect()),
        layers: Some(layers),
    });
}

struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
