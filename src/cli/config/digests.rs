//! Images by digest: what a tag stands for in its registry now.

use crate::cli::image::of_image;
use crate::failure::Result;
use futures_util::future::try_join_all;
use stack_runtime::image::{Reference, pull};
use stack_schema::load::Loaded;
use stack_schema::yaml::{Map, Node, Value};
use std::sync::Arc;

/// Gives every image of the tree a digest, if it has none.
///
/// # Errors
/// A reference that is none, and what the registry says.
pub(super) async fn pin(loaded: &mut Loaded) -> Result<()> {
    let images = services(loaded).map(|service| service.get("image").and_then(Node::as_str));
    let images: Vec<String> = images.flatten().map(str::to_owned).collect();
    let pinned = try_join_all(images.iter().map(|image| digested(image))).await?;
    for service in services(loaded) {
        let Some(image) = service.get_mut("image") else { continue };
        let at = images.iter().position(|known| image.as_str() == Some(known));
        if let Some(at) = at {
            image.value = Value::Str(pinned[at].clone());
        }
    }
    Ok(())
}

/// The canonical name with tag and digest: `docker.io/library/redis:8@sha256:…`.
async fn digested(image: &str) -> Result<String> {
    let reference = Reference::parse(image).map_err(of_image)?;
    if let Some(digest) = reference.digest() {
        return Ok(reference.pinned(digest).to_string());
    }
    let digest = pull::resolve_digest(&reference).await.map_err(of_image)?;
    Ok(format!("{}:{}@{digest}", reference.name(), reference.version()))
}

/// What is left is an override file that pins the images.
pub(super) fn only_images(loaded: &mut Loaded) {
    let Some(tree) = loaded.tree.as_mut().map(Arc::make_mut).and_then(Node::as_map_mut) else { return };
    tree.retain(|key, _| key == "services");
    for service in services(loaded).filter_map(Node::as_map_mut) {
        service.retain(|key, _| key == "image");
    }
}

fn services(loaded: &mut Loaded) -> impl Iterator<Item = &mut Node> {
    let services = loaded
        .tree
        .as_mut()
        .and_then(|tree| Arc::make_mut(tree).get_mut("services"))
        .and_then(Node::as_map_mut);
    services.into_iter().flat_map(Map::iter_mut).map(|(_, entry)| &mut entry.node)
}
