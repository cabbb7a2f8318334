//! The same layer on top of another chain.

use super::tree::{self, Attributes};
use super::{Layer, Meta, directory, find, make_fs, meta, publish};
use crate::image::digest::chain;
use crate::image::{Doing, Result, Store};
use rustix::fs::{AtFlags, FileType, Mode};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Puts the layer at the top of `chain_id` on `parent`, without copying: the files of both are the same inodes.
/// For layers that do not depend on what is below them. Blocks.
///
/// The caller holds a [`crate::image::Lease`].
///
/// # Errors
/// When there is no such snapshot, or the operating system refuses.
pub fn rebase(store: &Store, chain_id: &str, parent: &str) -> Result<Layer> {
    let doing = || format!("put layer {chain_id} on another one");
    let meta = meta(store, chain_id).doing(doing)?;
    let wanted = chain(parent, &meta.diff_id);
    let _lock = store.lock("chain", &wanted).doing(doing)?;
    if let Some(layer) = find(store, &wanted) {
        return Ok(layer);
    }
    let made = tempfile::Builder::new().prefix("rebase-").tempdir_in(store.tmp()).doing(doing)?;
    let fs = make_fs(made.path()).doing(doing)?;
    let from = directory(store, chain_id).doing(doing)?.join("fs");
    let link = || link(tree::open_root(&from)?.as_fd(), tree::open_root(&fs)?.as_fd());
    link().doing(doing)?;
    publish(store, made.path(), Meta { parent: parent.to_owned(), ..meta })
}

/// Directories are made anew, everything else gets another name.
fn link(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for name in tree::names(from)? {
        let Some(stat) = tree::stat(from, &name)? else { continue };
        if tree::kind(&stat) == FileType::Directory {
            rustix::fs::mkdirat(to, &name, Mode::RWXU)?;
            link(tree::open_directory(from, &name)?.as_fd(), tree::open_directory(to, &name)?.as_fd())?;
        } else {
            rustix::fs::linkat(from, &name, to, &name, AtFlags::empty())?;
        }
    }
    // Last, because what is made in it changes its time.
    let attributes = Attributes::of(&rustix::fs::fstat(from)?, tree::xattrs_of(from)?);
    tree::apply(to, &attributes)
}
