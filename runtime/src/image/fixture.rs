//! Images made on the spot, for tests of every crate of the workspace. Not for products.
//!
//! Needs a static busybox (`apt-get install busybox-static`).

use super::archive::{Loaded, load};
use super::config::{Document, ImageConfig, RootFs};
use super::digest::Digest;
use super::error::{Doing, Result};
use super::manifest::{Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use super::platform::Platform;
use super::store::Store;
use super::tar_read::Entry;
use super::tar_write::Writer;
use crate::spec::Map;
use std::io;
use std::process::Command;

/// Where a static busybox may be.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// A root file system with busybox, `/etc/passwd` (root, app 1000, nobody), `/tmp`.
pub fn busybox_rootfs() -> io::Result<Vec<u8>> {
    let path = BUSYBOX.iter().find(|p| std::path::Path::new(p).exists());
    let path = path.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "busybox is not installed (package busybox-static)")
    })?;
    let program = std::fs::read(path)?;
    let applets = Command::new(path).arg("--list").output()?.stdout;
    let mut writer = Writer::new(Vec::new());
    for (directory, mode) in [
        ("bin/", 0o755),
        ("etc/", 0o755),
        ("root/", 0o700),
        ("tmp/", 0o1777),
        ("var/", 0o755),
        ("dev/", 0o755),
        ("proc/", 0o755),
        ("sys/", 0o755),
    ] {
        writer.append(&Entry::directory(directory, mode), io::empty())?;
    }
    writer.append(
        &Entry { size: program.len() as u64, ..Entry::file("bin/busybox", 0o755) },
        program.as_slice(),
    )?;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|a| *a != "busybox" && !a.contains('/')) {
        writer.append(&Entry::symlink(&format!("bin/{applet}"), "busybox"), io::empty())?;
    }
    writer.append_bytes("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")?;
    writer.append_bytes("etc/group", b"root:x:0:\napp:x:1000:\nextra:x:1001:app\nnogroup:x:65534:\n")?;
    writer.finish()
}

/// `PATH` and `sh`, as the public busybox image has them.
pub fn busybox_config() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        cmd: Some(vec!["sh".into()]),
        ..Default::default()
    }
}

/// The config document of an image with these layers.
pub fn document(config: ImageConfig, layers: &[Vec<u8>]) -> Vec<u8> {
    let Platform { os, architecture, variant } = Platform::host();
    let diff_ids = layers.iter().map(|l| Digest::of(l)).collect();
    let document = Document {
        created: Some("2026-01-02T03:04:05Z".into()),
        os,
        architecture,
        variant,
        config,
        rootfs: RootFs { diff_ids, ..Default::default() },
        ..Default::default()
    };
    serde_json::to_vec(&document).expect("a document is plain data")
}

/// What `docker save` wrote for years: `manifest.json`, a config and plain layers.
pub fn docker_archive(names: &[&str], config: ImageConfig, layers: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let document = document(config, layers);
    let mut writer = Writer::new(Vec::new());
    let mut paths = Vec::new();
    for layer in layers {
        let path = format!("{}/layer.tar", Digest::of(layer).hex());
        writer.append_bytes(&path, layer)?;
        paths.push(path);
    }
    writer.append_bytes("config.json", &document)?;
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": names, "Layers": paths }]);
    writer.append_bytes("manifest.json", manifest.to_string().as_bytes())?;
    writer.finish()
}

/// An OCI layout as an archive.
pub fn oci_archive(name: &str, config: ImageConfig, layers: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let document = document(config, layers);
    let mut writer = Writer::new(Vec::new());
    let mut blob = |bytes: &[u8], media_type: &str| -> io::Result<Descriptor> {
        let digest = Digest::of(bytes);
        writer.append_bytes(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    };
    let described = layers.iter().map(|l| blob(l, OCI_LAYER)).collect::<io::Result<_>>()?;
    let manifest = Manifest::new(blob(&document, OCI_CONFIG)?, described);
    let mut descriptor = blob(&serde_json::to_vec(&manifest)?, OCI_MANIFEST)?;
    descriptor.annotations.insert("io.containerd.image.name".into(), name.into());
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX.into(),
        manifests: vec![descriptor],
        annotations: Map::new(),
    };
    writer.append_bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    writer.append_bytes("index.json", &serde_json::to_vec(&index)?)?;
    writer.finish()
}

/// `busybox:latest` in a store.
pub fn load_busybox(store: &Store) -> Result<Loaded> {
    let doing = || "make a busybox image".to_owned();
    let rootfs = busybox_rootfs().doing(doing)?;
    let archive = docker_archive(&["busybox:latest"], busybox_config(), &[rootfs]).doing(doing)?;
    Ok(load(store, archive.as_slice())?.remove(0))
}
