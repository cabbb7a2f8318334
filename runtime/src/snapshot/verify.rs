//! Whether a layer in the store is still what its chain id names.
//!
//! A layer that was built here is the archive that its files make. One that was pulled came as an archive that nobody
//! can make again from the files, so its blob is unpacked beside it and both trees are compared as archives.

use super::{below, directory, layer_error, make_fs, meta, pack, tree, unpack};
use crate::image::digest::{Hasher, Hashing, chain};
use crate::image::store::BlobRecord;
use crate::image::{Digest, Store, compress};
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

/// What is wrong, as a sentence's end; `None`: nothing. Reads every file of the layer. Blocks.
pub(crate) fn damage(store: &Store, chain_id: &Digest) -> Option<String> {
    verify(store, chain_id).err()
}

fn verify(store: &Store, chain_id: &Digest) -> Result<(), String> {
    let meta = meta(store, chain_id.as_str()).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "its record is missing".to_owned(),
        _ => "its record cannot be read".to_owned(),
    })?;
    if chain(&meta.parent, &meta.diff_id) != *chain_id {
        return Err("its record is another layer's".into());
    }
    if !meta.parent.is_empty() && !super::exists(store, &meta.parent) {
        return Err("the layer below it is missing".into());
    }
    let blob = super::blob(store, chain_id.as_str()).map_err(|_| "its archive's record cannot be read")?;
    let unreadable = |e: io::Error| format!("its files cannot be read: {e}");
    let fs = directory(store, chain_id.as_str()).map_err(unreadable)?.join("fs");
    let found = packed(&fs).map_err(unreadable)?;
    match blob {
        _ if found == meta.diff_id => Ok(()),
        None => Err("its files are not those that it was made of".into()),
        Some(blob) => compare(store, &meta, &blob, &found),
    }
}

fn compare(store: &Store, meta: &super::Meta, blob: &BlobRecord, found: &Digest) -> Result<(), String> {
    if !store.has_blob(&blob.digest) {
        return Err(format!(
            "its archive {} is missing, so its files cannot be verified",
            blob.digest.short()
        ));
    }
    let (diff_id, expected) =
        unpacked(store, &meta.parent, blob).map_err(|why| format!("its archive: {why}"))?;
    if diff_id != meta.diff_id {
        return Err("its archive is another layer's".into());
    }
    if expected != *found {
        return Err("its files are not those of its archive".into());
    }
    Ok(())
}

/// What a tree is as an archive.
fn packed(fs: &Path) -> io::Result<Digest> {
    let mut hasher = BufWriter::with_capacity(64 << 10, Hasher::default());
    pack::pack(fs, &mut hasher)?;
    Ok(hasher.into_inner().map_err(|e| e.into_error())?.finish())
}

/// The digest of a blob's archive, and what its tree is as an archive of ours.
fn unpacked(store: &Store, parent: &str, blob: &BlobRecord) -> Result<(Digest, Digest), String> {
    let text = |e: io::Error| e.to_string();
    let made = tempfile::Builder::new().prefix("verify-").tempdir_in(store.tmp()).map_err(text)?;
    let fs = make_fs(made.path()).map_err(text)?;
    let file = File::open(store.blob_path(&blob.digest)).map_err(text)?;
    let plain = compress::decode(file, compress::bound(blob.size)).map_err(text)?;
    let below = below::Below::open(store, parent).map_err(text)?;
    let mut hashing = Hashing::new(plain);
    let root = tree::open_root(&fs).map_err(text)?;
    unpack::extract(&mut hashing, root, below).map_err(|e| layer_error(e).to_string())?;
    Ok((hashing.hasher.finish(), packed(&fs).map_err(text)?))
}
