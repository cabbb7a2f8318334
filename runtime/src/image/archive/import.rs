//! Importing: a root file system becomes an image of one layer.

use crate::image::compress;
use crate::image::config::{Document, History, ImageConfig, RootFs};
use crate::image::digest::Digest;
use crate::image::error::{Doing, Result};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{Store, now};
use crate::snapshot;
use std::io::Read;

/// Makes an image of one layer from a root file system archive (plain, gzip or zstd). The
/// layer is archived anew, so that it need not be kept beside its snapshot.
pub fn import(
    store: &Store,
    rootfs: impl Read,
    config: ImageConfig,
    references: &[Reference],
) -> Result<Digest> {
    let _lease = store.lease().doing(|| "lock the image store".to_owned())?;
    let plain = compress::decode(rootfs, u64::MAX).doing(|| "read the archive".to_owned())?;
    let layer = snapshot::import(store, plain)?;
    let document = document(config, layer.diff_id.clone());
    let bytes = serde_json::to_vec(&document).doing(|| "write the image config".to_owned())?;
    store.write_image(&bytes, &[layer.diff_id], references)
}

fn document(config: ImageConfig, diff_id: Digest) -> Document {
    let Platform { os, architecture, variant } = Platform::host();
    let created = Some(now());
    let history =
        History { created: created.clone(), comment: Some("imported".into()), ..Default::default() };
    Document {
        created,
        architecture,
        os,
        variant,
        config,
        rootfs: RootFs { diff_ids: vec![diff_id], ..Default::default() },
        history: vec![history],
        ..Default::default()
    }
}
