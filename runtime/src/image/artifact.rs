//! Manifests that lie somewhere else than in the store: under a name in a registry, or in a directory that is an OCI
//! layout. Images, and what travels as one (a build cache).

use super::digest::Digest;
use super::error::{Doing, Error, Result};
use super::manifest::{self, Descriptor, Index, Manifest, OCI_INDEX, OCI_MANIFEST, Parsed};
use super::platform::Platform;
use super::progress::Report;
use super::reference::Reference;
use super::registry::{Access, Registry};
use super::store::{DOCUMENT_MAX, LAYERS_MAX, Store, read_bounded};
use super::transfer::{blocking, download, repeated, upload};
use crate::home;
use crate::spec::Map;
use futures_util::stream::{self, TryStreamExt};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const UPLOADS_AT_ONCE: usize = 4;
const INDEX_DEPTH_MAX: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where a manifest is, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Registry(Reference),
    Layout { directory: PathBuf, version: Version },
}

/// Which of the manifests of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Version {
    /// The only one, else the one tagged `latest`.
    #[default]
    Any,
    Tag(String),
    Digest(Digest),
}

/// What an index names.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub platform: Platform,
    pub manifest: Manifest,
    pub annotations: Map,
}

/// A manifest that was found; its layers are fetched one by one, when they are needed.
pub struct Found {
    pub manifest: Manifest,
    pub digest: Digest,
    /// The document that the manifest calls its config.
    pub config: Vec<u8>,
    from: From,
}

enum From {
    Registry(Box<Registry>),
    Layout(PathBuf),
}

impl Place {
    /// Through indexes to the manifest for a platform (`None`: this machine's).
    ///
    /// # Errors
    /// That there is none; what the registry or the operating system says.
    pub async fn find(
        &self,
        store: &Store,
        platform: Option<&Platform>,
        report: Report<'_>,
    ) -> Result<Found> {
        let what = self.to_string();
        let (from, mut bytes) = match self {
            Self::Registry(reference) => {
                let registry = Registry::open(reference, Access::Pull).await?;
                let ask = || registry.manifest(reference.version());
                let bytes = repeated("the manifest", report, ask).await?;
                (From::Registry(Box::new(registry)), bytes)
            }
            Self::Layout { directory, version } => {
                let bytes = layout_manifest(directory, version)?;
                (From::Layout(directory.clone()), bytes)
            }
        };
        let host = Platform::host();
        for _ in 0..INDEX_DEPTH_MAX {
            match parsed(&bytes, &what)? {
                Parsed::Index(index) => {
                    let chosen = manifest::choose(&index, platform.unwrap_or(&host), &what)?.digest.clone();
                    bytes = from.manifest(&chosen, report).await?;
                }
                Parsed::Manifest(manifest) => {
                    from.fetch(store, &manifest.config, report).await?;
                    let config = store.read_blob(&manifest.config.digest)?;
                    return Ok(Found { digest: Digest::of(&bytes), manifest, config, from });
                }
            }
        }
        Err(Error::invalid(what, "its indexes are nested too deep"))
    }

    /// Puts a manifest with its blobs, which are in the store, there; gives its digest.
    ///
    /// # Errors
    /// What the registry or the operating system says.
    pub async fn put(&self, store: &Store, manifest: &Manifest, report: Report<'_>) -> Result<Digest> {
        let bytes = serde_json::to_vec(manifest).doing(|| "write a manifest".to_owned())?;
        match self {
            Self::Registry(reference) => {
                let registry = Registry::open(reference, Access::Push).await?;
                let blobs = manifest.layers.iter().chain([&manifest.config]);
                stream::iter(blobs.map(Ok))
                    .try_for_each_concurrent(UPLOADS_AT_ONCE, |blob| upload(store, &registry, blob, report))
                    .await?;
                let put = || registry.put_manifest(reference.version(), &manifest.media_type, bytes.clone());
                repeated("the manifest", report, put).await?;
                Ok(Digest::of(&bytes))
            }
            Self::Layout { directory, version } => {
                let (store, directory, version) = (store.clone(), directory.clone(), version.clone());
                let blobs: Vec<Digest> =
                    manifest.layers.iter().chain([&manifest.config]).map(|b| b.digest.clone()).collect();
                let doing = format!("write the layout {}", directory.display());
                blocking(move || write_layout(&store, &directory, &version, &blobs, (OCI_MANIFEST, &bytes)))
                    .await
                    .doing(|| doing)
            }
        }
    }
}

impl Place {
    /// Puts the images of several platforms there, as one index; gives its digest. Their blobs are in the store.
    ///
    /// # Errors
    /// As [`Place::put`].
    pub async fn put_index(&self, store: &Store, members: &[Member], report: Report<'_>) -> Result<Digest> {
        let doing = || "write an index".to_owned();
        let mut index = new_index();
        for Member { platform, manifest, annotations } in members {
            let bytes = serde_json::to_vec(manifest).doing(doing)?;
            // For whoever uploads or copies it from there.
            let digest = store.write_blob(&bytes)?;
            let mut descriptor = Descriptor::new(OCI_MANIFEST, digest, bytes.len() as u64);
            descriptor.platform = Some(platform.clone());
            descriptor.annotations = annotations.clone();
            index.manifests.push(descriptor);
        }
        let bytes = serde_json::to_vec(&index).doing(doing)?;
        let layers = members.iter().flat_map(|member| &member.manifest.layers);
        let blobs = layers.chain(members.iter().map(|member| &member.manifest.config));
        match self {
            Self::Registry(reference) => {
                let registry = Registry::open(reference, Access::Push).await?;
                stream::iter(blobs.map(Ok))
                    .try_for_each_concurrent(UPLOADS_AT_ONCE, |blob| upload(store, &registry, blob, report))
                    .await?;
                for manifest in &index.manifests {
                    let child = store.read_blob(&manifest.digest)?;
                    let put = || {
                        registry.put_manifest(manifest.digest.as_str(), &manifest.media_type, child.clone())
                    };
                    repeated("the manifest", report, put).await?;
                }
                let put = || registry.put_manifest(reference.version(), OCI_INDEX, bytes.clone());
                repeated("the index", report, put).await?;
                Ok(Digest::of(&bytes))
            }
            Self::Layout { directory, version } => {
                let (store, directory, version) = (store.clone(), directory.clone(), version.clone());
                let blobs = blobs.chain(&index.manifests).map(|b| b.digest.clone()).collect::<Vec<_>>();
                let doing = format!("write the layout {}", directory.display());
                blocking(move || write_layout(&store, &directory, &version, &blobs, (OCI_INDEX, &bytes)))
                    .await
                    .doing(|| doing)
            }
        }
    }
}

fn new_index() -> Index {
    Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: Vec::new(), annotations: Map::new() }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Layout { directory, .. } => write!(f, "{}", directory.display()),
        }
    }
}

impl Found {
    /// Brings a blob of it into the store.
    ///
    /// # Errors
    /// A blob that is missing or not what its digest says.
    pub async fn fetch(&self, store: &Store, blob: &Descriptor, report: Report<'_>) -> Result<()> {
        self.from.fetch(store, blob, report).await
    }
}

impl From {
    async fn manifest(&self, digest: &Digest, report: Report<'_>) -> Result<Vec<u8>> {
        match self {
            Self::Registry(registry) => {
                repeated("the manifest", report, || registry.manifest(digest.as_str())).await
            }
            Self::Layout(directory) => layout_document(directory, digest),
        }
    }

    async fn fetch(&self, store: &Store, blob: &Descriptor, report: Report<'_>) -> Result<()> {
        if store.has_blob(&blob.digest) {
            return Ok(());
        }
        match self {
            Self::Registry(registry) => download(store, registry, blob, report).await,
            Self::Layout(directory) => {
                let (store, path, wanted) =
                    (store.clone(), blob_path(directory, &blob.digest), blob.digest.clone());
                let copied = tokio::task::spawn_blocking(move || {
                    let doing = || format!("open {}", path.display());
                    store.write_blob_from(File::open(&path).doing(doing)?)
                });
                let (found, _) = copied.await.map_err(io::Error::other)??;
                match found == wanted {
                    true => Ok(()),
                    false => {
                        Err(Error::Digest { what: "a blob of the layout".into(), expected: wanted, found })
                    }
                }
            }
        }
    }
}

/// Whatever its config is.
fn parsed(bytes: &[u8], what: &str) -> Result<Parsed> {
    let invalid = |reason: &dyn std::fmt::Display| Error::invalid(format!("the manifest of {what}"), reason);
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| invalid(&e))?;
    if value.get("manifests").is_some() {
        return serde_json::from_value(value).map(Parsed::Index).map_err(|e| invalid(&e));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|e| invalid(&e))?;
    if manifest.layers.len() > LAYERS_MAX * 10 || manifest.config.size > DOCUMENT_MAX {
        return Err(invalid(&"it is too large"));
    }
    Ok(Parsed::Manifest(manifest))
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

fn layout_document(directory: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let path = blob_path(directory, digest);
    let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
    let bytes = read_bounded(file, DOCUMENT_MAX, digest.as_str())?;
    match Digest::of(&bytes) {
        found if found == *digest => Ok(bytes),
        found => Err(Error::Digest { what: "a blob of the layout".into(), expected: digest.clone(), found }),
    }
}

fn layout_index(directory: &Path) -> Result<Index> {
    let path = directory.join("index.json");
    let file = File::open(&path).doing(|| format!("open {}", path.display()))?;
    let bytes = read_bounded(file, DOCUMENT_MAX, "index.json")?;
    serde_json::from_slice(&bytes).map_err(|e| Error::invalid(path.display().to_string(), e))
}

fn layout_manifest(directory: &Path, version: &Version) -> Result<Vec<u8>> {
    let index = layout_index(directory)?;
    let tagged = |tag: &str| {
        let is_it = |d: &&Descriptor| d.annotations.get(REF_NAME).is_some_and(|name| name == tag);
        index.manifests.iter().find(is_it).map(|d| d.digest.clone())
    };
    let digest = match version {
        Version::Digest(digest) => Some(digest.clone()),
        Version::Tag(tag) => tagged(tag),
        Version::Any => match index.manifests.as_slice() {
            [only] => Some(only.digest.clone()),
            _ => tagged("latest"),
        },
    };
    let what = || match version {
        Version::Tag(tag) => format!("tag {tag}"),
        _ => "tag latest".to_owned(),
    };
    let missing = || Error::NoSuchImage(format!("{} in the layout {}", what(), directory.display()));
    layout_document(directory, &digest.ok_or_else(missing)?)
}

fn write_layout(
    store: &Store,
    directory: &Path,
    version: &Version,
    blobs: &[Digest],
    (media_type, manifest): (&str, &[u8]),
) -> io::Result<Digest> {
    fs::create_dir_all(directory.join("blobs/sha256"))?;
    for blob in blobs {
        let to = blob_path(directory, blob);
        if !to.exists() {
            let made = tempfile::NamedTempFile::new_in(to.parent().expect("it is below the directory"))?;
            io::copy(&mut File::open(store.blob_path(blob))?, &mut made.as_file())?;
            made.persist(&to).map_err(|e| e.error)?;
        }
    }
    let digest = Digest::of(manifest);
    home::replace(&blob_path(directory, &digest), manifest)?;
    home::replace(&directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let tag = match version {
        Version::Tag(tag) => tag.as_str(),
        _ => "latest",
    };
    let mut index = layout_index(directory).unwrap_or_else(|_| new_index());
    index.manifests.retain(|known| known.annotations.get(REF_NAME).is_none_or(|name| name != tag));
    let mut descriptor = Descriptor::new(media_type, digest.clone(), manifest.len() as u64);
    descriptor.annotations.insert(REF_NAME.into(), tag.to_owned());
    index.manifests.push(descriptor);
    home::replace_json(&directory.join("index.json"), &index)?;
    Ok(digest)
}
