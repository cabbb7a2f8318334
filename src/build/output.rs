//! What becomes of a build: an image in the store, and whatever else was asked for.
//!
//! | written | gives |
//! |---|---|
//! | nothing, `type=image`, `type=docker` | the image in the store, with its names |
//! | `type=image,push=true`, `type=registry` | that, and every name pushed |
//! | `type=docker,dest=F`, `type=oci,dest=F` | an archive that docker, podman and `stack image load` read |
//! | `type=oci,dest=D,tar=false` | a directory that is an OCI layout |
//! | `type=local,dest=D`, `D` | the files of the image, owned by the user |
//! | `type=tar,dest=F`, `-` | the files of the image as an archive |
//! | `type=cacheonly` | nothing |
//!
//! `dest=-` is standard output. Several are written one after another, from one build.

use super::attest::{self, Statement};
use super::csv;
use super::failure::{BuildFailure, Doing, Result};
use super::request::BuildRequest;
use super::shared::{Shared, blocking};
use super::state::State;
use super::transfer;
use stack_runtime::image::artifact::{Place, Version};
use stack_runtime::image::manifest::{Descriptor, Manifest, OCI_CONFIG};
use stack_runtime::image::progress::silent;
use stack_runtime::image::{Digest, Platform, Reference, Store, archive, push};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// In the store, under these names, too.
    Image {
        names: Vec<Reference>,
        push: bool,
    },
    /// An archive of the image.
    Archive {
        dest: Dest,
        /// Docker reads no index of several platforms.
        is_docker: bool,
    },
    Layout(PathBuf),
    Files(PathBuf),
    Tar(Dest),
    Nothing,
    /// Its manifest, with all blobs in the store: a part of an index.
    Part,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    File(PathBuf),
    Stdout,
}

type Text<T> = std::result::Result<T, String>;

impl Output {
    /// `base`: where relative paths begin.
    ///
    /// # Errors
    /// A sentence about what was written.
    pub fn parse(text: &str, base: &Path) -> Text<Self> {
        let fields = csv::fields(text)?;
        if let [(key, path)] = fields.as_slice()
            && key.is_empty()
        {
            return Ok(match path.as_str() {
                "-" => Self::Tar(Dest::Stdout),
                path => Self::Files(base.join(path)),
            });
        }
        let find =
            |wanted: &str| fields.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
        let kind = find("type").ok_or_else(|| format!("the output `{text}` has no type"))?;
        known_fields(kind, &fields)?;
        let dest = |exporter: &str| {
            find("dest")
                .map(|dest| Dest::of(dest, base))
                .ok_or_else(|| format!("dest is required for {exporter} exporter"))
        };
        let flag = |key: &str| find(key).map(|value| csv::flag(key, value)).transpose();
        if flag("oci-mediatypes")? == Some(false) {
            return Err("oci-mediatypes=false is not supported: images have the media types of OCI".into());
        }
        match kind {
            "image" | "registry" => Ok(Self::Image {
                names: names(find("name"))?,
                push: kind == "registry" || flag("push")?.unwrap_or(false),
            }),
            "docker" if find("dest").is_none() => {
                Ok(Self::Image { names: names(find("name"))?, push: false })
            }
            "docker" => dest("docker").map(|dest| Self::Archive { dest, is_docker: true }),
            "oci" => match (dest("OCI")?, flag("tar")?.unwrap_or(true)) {
                (dest, true) => Ok(Self::Archive { dest, is_docker: false }),
                (Dest::File(directory), false) => Ok(Self::Layout(directory)),
                (Dest::Stdout, false) => Err("a layout has to be a directory".into()),
            },
            "local" => match dest("local")? {
                Dest::File(directory) => Ok(Self::Files(directory)),
                Dest::Stdout => Err("dest of the local exporter has to be a directory".into()),
            },
            "tar" => dest("tar").map(Self::Tar),
            "cacheonly" => Ok(Self::Nothing),
            other => Err(format!("output type `{other}` is not supported")),
        }
    }

    /// Whether the image is to be in the store.
    fn keeps(&self) -> bool {
        matches!(self, Self::Image { .. })
    }
}

impl Dest {
    fn of(text: &str, base: &Path) -> Self {
        if text == "-" { Self::Stdout } else { Self::File(base.join(text)) }
    }
}

/// What would be ignored silently is an error.
fn known_fields(kind: &str, fields: &[(String, String)]) -> Text<()> {
    let known: &[&str] = match kind {
        "image" | "registry" => &["type", "name", "push", "oci-mediatypes"],
        "docker" => &["type", "name", "dest", "oci-mediatypes"],
        "oci" => &["type", "dest", "tar", "oci-mediatypes"],
        _ => &["type", "dest"],
    };
    match fields.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, value)) => {
            let field = if key.is_empty() { value } else { key };
            Err(format!("`{field}` of output type `{kind}` is not supported"))
        }
        None => Ok(()),
    }
}

fn names(text: Option<&str>) -> Text<Vec<Reference>> {
    let names = text.into_iter().flat_map(|text| text.split(',')).filter(|name| !name.is_empty());
    names.map(|name| Reference::parse(name).map_err(|e| e.to_string())).collect()
}

/// What was written.
pub(super) struct Written {
    pub(super) image_id: Digest,
    pub(super) tags: Vec<Reference>,
    pub(super) is_kept: bool,
    /// Of the manifest that was pushed.
    pub(super) pushed: Option<Digest>,
    pub(super) part: Option<Part>,
}

/// A member of an index, and the statements about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) manifest: Manifest,
    pub(super) statements: Option<Manifest>,
}

/// The image of a stage.
struct Made {
    document: Vec<u8>,
    layers: Vec<Digest>,
    chain: String,
    tags: Vec<Reference>,
    platform: Platform,
    statements: Vec<Statement>,
}

/// `bases`: names of base images and their digests.
///
/// # Errors
/// The first output that cannot be written.
pub(super) async fn write(
    shared: &Arc<Shared>,
    state: &State,
    document: Vec<u8>,
    bases: Vec<(String, Digest)>,
) -> Result<Written> {
    check_annotations(&shared.request)?;
    let statements = {
        let (shared, state) = (shared.clone(), state.clone());
        blocking(move || attest::statements(&shared, &state, &bases)).await?
    };
    let outputs = shared.request.outputs.clone();
    let mut tags = shared.request.tags.clone();
    for output in &outputs {
        if let Output::Image { names, .. } = output {
            tags.extend(names.iter().filter(|name| !shared.request.tags.contains(name)).cloned());
        }
    }
    let is_kept = outputs.is_empty() || outputs.iter().any(Output::keeps);
    let (layers, chain) = (state.diff_ids.clone(), state.chain.clone());
    let platform = state.platform.clone();
    let made = Arc::new(Made { document, layers, chain, tags, platform, statements });
    let image_id = match is_kept {
        true => {
            let (shared, made) = (shared.clone(), made.clone());
            let work = move || Ok(shared.env.store.write_image(&made.document, &made.layers, &made.tags)?);
            blocking(work).await?
        }
        false => Digest::of(&made.document),
    };
    let (mut pushed, mut part) = (None, None);
    for output in outputs {
        if output == Output::Part {
            let (shared, made) = (shared.clone(), made.clone());
            part = Some(blocking(move || part_of(&shared, &made)).await?);
        }
        if let Some(digest) = one(shared, &made, output).await? {
            pushed = Some(digest);
        }
    }
    let tags = if is_kept { made.tags.clone() } else { Vec::new() };
    Ok(Written { image_id, tags, is_kept, pushed, part })
}

async fn one(shared: &Arc<Shared>, made: &Arc<Made>, output: Output) -> Result<Option<Digest>> {
    let (owned, image) = (shared.clone(), made.clone());
    match output {
        Output::Image { push: true, .. } => return pushed(shared, made).await.map(Some),
        Output::Image { .. } | Output::Nothing | Output::Part => {}
        Output::Layout(directory) => layout(shared, made, directory).await?,
        Output::Archive { dest, .. } => blocking(move || archived(&owned.env.store, &image, &dest)).await?,
        Output::Files(directory) => {
            let work = move || {
                transfer::copy_out(&owned, &image.chain, &directory)?;
                attest::write_files(&directory, &image.statements, &image.tags, &image.platform)
            };
            blocking(work).await?;
        }
        Output::Tar(dest) => {
            let work = move || dest.write(|to| transfer::pack_out(&owned, &image.chain, to));
            blocking(work).await?;
        }
    }
    Ok(None)
}

async fn pushed(shared: &Arc<Shared>, made: &Arc<Made>) -> Result<Digest> {
    let (owned, image) = (shared.clone(), made.clone());
    // The store's own manifest of an image has none.
    let annotated = match shared.request.annotations.is_empty() {
        true => None,
        false => Some(blocking(move || described(&owned, &image)).await?),
    };
    let store = &shared.env.store;
    let mut digest = None;
    for tag in &made.tags {
        let done = match &annotated {
            None => push::push(store, tag, &silent).await,
            Some(manifest) => Place::Registry(tag.clone()).put(store, manifest, &silent).await,
        };
        digest = Some(done.map_err(|e| BuildFailure::doing(format!("push {}", tag.familiar()), e))?);
    }
    digest.ok_or_else(|| BuildFailure::new("tag is needed when pushing to registry"))
}

/// Annotations are of manifests, which not every output has.
fn check_annotations(request: &BuildRequest) -> Result<()> {
    let holds = |output: &Output| {
        matches!(output, Output::Image { push: true, .. } | Output::Layout(_) | Output::Part)
    };
    if request.annotations.is_empty() || request.outputs.iter().any(holds) {
        return Ok(());
    }
    let failure = BuildFailure::new("annotations are not supported for images of this machine's store");
    Err(failure.hint("Push the image, or write it to a directory: -o type=oci,dest=DIR,tar=false."))
}

/// The image is in the store for as long as it takes.
fn archived(store: &Store, made: &Made, dest: &Dest) -> Result<()> {
    let is_known = store.record(&Digest::of(&made.document)).doing(|| "read an image")?.is_some();
    let id = store.write_image(&made.document, &made.layers, &[])?;
    let saved = dest.write(|to| Ok(archive::save_as(store, &id, &made.tags, to)?));
    if !is_known {
        store.remove(id.as_str(), true)?;
    }
    saved
}

async fn layout(shared: &Arc<Shared>, made: &Arc<Made>, directory: PathBuf) -> Result<()> {
    let (owned, image) = (shared.clone(), made.clone());
    let manifest = blocking(move || described(&owned, &image)).await?;
    let version = made.tags.first().map_or(Version::Any, |tag| Version::Tag(tag.version().to_owned()));
    let place = Place::Layout { directory, version };
    place.put(&shared.env.store, &manifest, &silent).await?;
    Ok(())
}

fn part_of(shared: &Shared, made: &Made) -> Result<Part> {
    let store = &shared.env.store;
    let manifest = described(shared, made)?;
    let names = &shared.request.names;
    let statements = match made.statements.is_empty() {
        true => None,
        false => Some(attest::manifest(store, &made.statements, &manifest, names, &made.platform)?),
    };
    Ok(Part { manifest, statements })
}

fn described(shared: &Shared, made: &Made) -> Result<Manifest> {
    let store = &shared.env.store;
    let config = store.write_blob(&made.document)?;
    let mut layers = Vec::new();
    let mut parent = String::new();
    for diff_id in &made.layers {
        let chain_id = stack_runtime::image::digest::chain(&parent, diff_id);
        layers.push(push::packed(store, &chain_id, diff_id)?);
        parent = chain_id.to_string();
    }
    let config = Descriptor::new(OCI_CONFIG, config, made.document.len() as u64);
    Ok(Manifest { annotations: shared.request.annotations.clone(), ..Manifest::new(config, layers) })
}

impl Dest {
    /// A directory as an archive there.
    pub(super) fn pack(&self, directory: &Path) -> Result<()> {
        let open = || File::open(directory);
        let packed = |to: &mut dyn Write| {
            open()
                .and_then(|root| stack_runtime::snapshot::pack_tree(root, to))
                .map(drop)
                .doing(|| "write an archive")
        };
        self.write(packed)
    }

    /// A file appears whole or not at all.
    fn write(&self, work: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let Self::File(path) = self else {
            let mut stdout = BufWriter::new(io::stdout().lock());
            work(&mut stdout)?;
            return stdout.flush().doing(|| "write to standard output");
        };
        let doing = || format!("write {}", path.display());
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).doing(doing)?;
        let mut file = tempfile::NamedTempFile::new_in(directory).doing(doing)?;
        let mut to = BufWriter::new(file.as_file_mut());
        work(&mut to)?;
        to.flush().doing(doing)?;
        drop(to);
        file.persist(path).map(|_: File| ()).map_err(|e| e.error).doing(doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read() {
        let base = Path::new("/base");
        let parse = |text: &str| Output::parse(text, base);
        let file = |name: &str| Dest::File(Path::new("/base").join(name));
        assert_eq!(parse("out"), Ok(Output::Files("/base/out".into())));
        assert_eq!(parse("-"), Ok(Output::Tar(Dest::Stdout)));
        assert_eq!(parse("type=local,dest=out"), parse("out"));
        assert_eq!(parse("type=tar,dest=f.tar"), Ok(Output::Tar(file("f.tar"))));
        assert_eq!(parse("type=oci,dest=f"), Ok(Output::Archive { dest: file("f"), is_docker: false }));
        assert_eq!(parse("type=oci,dest=f,tar=false"), Ok(Output::Layout("/base/f".into())));
        assert_eq!(parse("type=docker,dest=-"), Ok(Output::Archive { dest: Dest::Stdout, is_docker: true }));
        assert_eq!(parse("type=docker"), Ok(Output::Image { names: Vec::new(), push: false }));
        assert_eq!(parse("type=cacheonly"), Ok(Output::Nothing));
        assert_eq!(parse("type=oci,dest=f,oci-mediatypes=true"), parse("type=oci,dest=f"));
        let Ok(Output::Image { names, push: true }) = parse(r#"type=image,"name=a:1,b:2",push=true"#) else {
            panic!("an image");
        };
        assert_eq!(names.len(), 2);
        for (text, why) in [
            ("type=local", "dest is required for local exporter"),
            ("type=oci", "dest is required for OCI exporter"),
            ("type=what,dest=x", "`what` is not supported"),
            ("type=image,compression=estargz", "`compression` of output type `image`"),
            ("dest=x,name=y", "has no type"),
            ("type=image,oci-mediatypes=false", "media types of OCI"),
            ("type=image,annotation.k=v", "`annotation.k` of output type `image`"),
        ] {
            assert!(parse(text).unwrap_err().contains(why), "{text}");
        }
    }
}
