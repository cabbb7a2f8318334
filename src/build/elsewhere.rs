//! Contexts that are not directories here: archives, text, addresses, images in OCI layouts.
//!
//! ```text
//! context         http(s)://…      a file, downloaded
//!                 a file           an archive is unpacked; other content is the Dockerfile, alone in its context
//!                 …/-              standard input, kept by the caller: as a file, but without itself in the context
//! named context   http(s)://…      a directory with one file `context`, never unpacked
//!                 oci-layout://D   the image of a layout, `:TAG` or `@DIGEST` if it has several
//! ```

use super::cache::Cache;
use super::failure::{BuildFailure, Doing, Result};
use super::git;
use super::remote::{is_http, kept_out};
use super::request::{BuildEnv, BuildRequest, DockerfileSource};
use super::shared::blocking;
use super::tree::Tree;
use super::unpack;
use crate::obtain::Registries;
use stack_runtime::image::artifact::{Found, Place, Version};
use stack_runtime::image::config::Document;
use stack_runtime::image::digest::chain;
use stack_runtime::image::progress::silent;
use stack_runtime::image::{Digest, Platform, Store, fetch, pull};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The file in which a caller keeps standard input that is to be the context.
pub const STDIN: &str = "-";
/// What a download is called in a context of its own.
const DOWNLOADED: &str = "context";

/// Makes directories and images of the request's contexts.
///
/// # Errors
/// What cannot be downloaded or unpacked; an image that is not in its layout.
pub(super) async fn contexts(
    env: &BuildEnv,
    cache: &Cache,
    mut request: BuildRequest,
) -> Result<BuildRequest> {
    let text = request.context.to_string_lossy().into_owned();
    if is_download(&text) {
        let directory = download(cache, &request, &text).await?;
        request.context = directory.join(DOWNLOADED);
        request.dockerfile_name.get_or_insert(text);
    }
    for (name, text) in request.additional_contexts.clone() {
        let value = if is_download(&text) {
            let directory = download(cache, &request, &text).await?;
            request.whole_contexts.insert(name.clone());
            directory.to_string_lossy().into_owned()
        } else if let Some(layout) = text.strip_prefix("oci-layout://") {
            let image = of_layout(&env.store, &request, layout).await;
            let image =
                image.map_err(|why| BuildFailure::doing(format!("read the context `{name}`"), why))?;
            format!("docker-image://{image}")
        } else {
            continue;
        };
        request.additional_contexts.insert(name, value);
    }
    let cache = cache.clone();
    blocking(move || opened(&cache, git::contexts(&cache, request)?)).await
}

fn is_download(text: &str) -> bool {
    is_http(text) && !git::is_git(text)
}

/// A directory that holds nothing but the file.
async fn download(cache: &Cache, request: &BuildRequest, url: &str) -> Result<PathBuf> {
    if request.registries == Registries::Offline {
        return Err(kept_out(url));
    }
    let directory = new_directory(cache)?;
    let path = directory.join(DOWNLOADED);
    let doing = || format!("keep what {url} gave");
    let mut file = File::create(&path).doing(doing)?;
    let fetched = fetch::fetch(url, None, None, &mut file).await;
    fetched.map_err(|e| BuildFailure::doing(format!("download {url}"), e))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).doing(doing)?;
    Ok(directory)
}

fn new_directory(cache: &Cache) -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix("context-").tempdir_in(cache.tmp());
    Ok(made.doing(|| "make a directory for a context")?.keep())
}

/// A context that is a file. Blocks.
fn opened(cache: &Cache, mut request: BuildRequest) -> Result<BuildRequest> {
    if !request.context.is_file() {
        return Ok(request);
    }
    let path = request.context.clone();
    let doing = || "read the build context";
    let mut file = File::open(&path).doing(doing)?;
    request.whole_contexts.insert(String::new());
    if let Some(form) = unpack::form(&mut file).doing(doing)? {
        let directory = new_directory(cache)?;
        let tree = Tree::open(&directory).doing(doing)?;
        unpack::unpack(&file, form, &tree, Path::new(""), None)?;
        request.context = directory;
        return Ok(request);
    }
    let is_stdin = path.file_name().is_some_and(|name| name == STDIN);
    let text = fs::read_to_string(&path).map_err(|_| {
        BuildFailure::new("the build context is neither an archive nor a Dockerfile")
            .hint("Archives are tar, plain or compressed with gzip, zstd, bzip2 or xz.")
    })?;
    request.dockerfile = DockerfileSource::Inline(text);
    request.context = match (is_stdin, path.parent()) {
        (false, Some(directory)) => directory.to_owned(),
        _ => new_directory(cache)?,
    };
    Ok(request)
}

/// Brings an image of a layout into the store; gives its id.
async fn of_layout(store: &Store, request: &BuildRequest, text: &str) -> Result<Digest> {
    let (path, version) = split(text)?;
    let place = Place::Layout { directory: request.context.join(path), version };
    let platform = request.platform.as_deref().map(Platform::parse).transpose()?;
    let found = place.find(store, platform.as_ref(), &silent).await?;
    for layer in &found.manifest.layers {
        found.fetch(store, layer, &silent).await?;
    }
    let store = store.clone();
    blocking(move || unpacked(&store, &found)).await
}

fn split(text: &str) -> Result<(&str, Version)> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        return Ok((path, Version::Digest(Digest::parse(digest)?)));
    }
    let name = text.rsplit('/').next().unwrap_or(text);
    match name.rsplit_once(':') {
        Some((_, tag)) => Ok((&text[..text.len() - tag.len() - 1], Version::Tag(tag.to_owned()))),
        None => Ok((text, Version::Any)),
    }
}

fn unpacked(store: &Store, found: &Found) -> Result<Digest> {
    let document: Document = serde_json::from_slice(&found.config)
        .map_err(|e| BuildFailure::new(format!("it is not an image: {e}")))?;
    let diff_ids = &document.rootfs.diff_ids;
    if diff_ids.len() != found.manifest.layers.len() {
        return Err(BuildFailure::new("its config and its manifest name different layers"));
    }
    let mut parent = String::new();
    for (layer, diff_id) in found.manifest.layers.iter().zip(diff_ids) {
        pull::unpack(store, layer, &parent, diff_id)?;
        parent = chain(&parent, diff_id).to_string();
    }
    Ok(store.write_image(&found.config, diff_ids, &[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_name_one_of_their_images() {
        let split = |text: &'static str| split(text).expect(text);
        assert_eq!(split("dir/x"), ("dir/x", Version::Any));
        assert_eq!(split("/a:b/x:1.2"), ("/a:b/x", Version::Tag("1.2".into())));
        let digest = Digest::of(b"x");
        let text: &'static str = format!("dir@{digest}").leak();
        assert_eq!(split(text), ("dir", Version::Digest(digest)));
        assert!(super::split("dir@sha256:x").is_err());
    }
}
