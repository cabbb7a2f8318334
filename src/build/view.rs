//! Merged layers, mounted where nobody else sees them.
//!
//! [`isolated`] runs work on a thread that has a mount namespace of its own; [`Mounts::open`] mounts an overlay
//! there and gives the open tree. When the thread ends, the kernel drops the namespace with all its mounts, also
//! when the process is killed. No process is started and nothing on the host changes.

use super::tree::Tree;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use stack_runtime::sys::user_namespace::is_initial;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// mount(2) takes one page of options.
const OPTIONS_BYTES_MAX: usize = 4000;

/// What to merge. Without `lower` the upper directory is the tree.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    /// Top first.
    pub(super) lower: Vec<PathBuf>,
    /// Upper and work directory; `None`: read-only.
    pub(super) upper: Option<(PathBuf, PathBuf)>,
}

/// Proof of being on an isolated thread.
pub(super) struct Mounts {
    /// Where mount points are made.
    tmp: PathBuf,
    made: std::cell::RefCell<Vec<tempfile::TempDir>>,
}

/// Runs `work` on a thread with its own mounts and waits for it. Blocks.
///
/// # Errors
/// When the namespace cannot be made (no privilege).
pub(super) fn isolated<T: Send>(tmp: &Path, work: impl FnOnce(&Mounts) -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // CLONE_FS: the working directory of the other threads stays theirs.
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            let mounts = Mounts { tmp: tmp.to_owned(), made: Vec::new().into() };
            Ok(work(&mounts))
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Mounts {
    /// The merged tree.
    ///
    /// # Errors
    /// Of the mount.
    pub(super) fn open(&self, layers: &Layers) -> io::Result<Tree> {
        match (layers.lower.as_slice(), &layers.upper) {
            ([], Some((upper, _))) => Tree::open(upper),
            // Overlayfs wants two lower directories when there is no upper one.
            ([one], None) => Tree::open(one),
            ([], None) => Tree::open(self.point()?.as_path()),
            _ => self.overlay(layers),
        }
    }

    fn point(&self) -> io::Result<PathBuf> {
        let directory = tempfile::Builder::new().prefix("view-").tempdir_in(&self.tmp)?;
        let path = directory.path().to_owned();
        self.made.borrow_mut().push(directory);
        Ok(path)
    }

    fn overlay(&self, layers: &Layers) -> io::Result<Tree> {
        let base = common_directory(&layers.lower);
        let options = options(layers, &base);
        if options.len() > OPTIONS_BYTES_MAX {
            long_overlay(layers)
        } else {
            self.short_overlay(&base, &options)
        }
    }

    fn short_overlay(&self, base: &Path, options: &[u8]) -> io::Result<Tree> {
        let point = self.point()?;
        // Relative paths keep the options of long chains within a page.
        let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
        nix::unistd::chdir(base)?;
        let options = Some(OsStr::from_bytes(options));
        let result = mount(Some("overlay"), &point, Some("overlay"), MsFlags::MS_NODEV, options);
        nix::unistd::chdir(&here)?;
        result?;
        Tree::open(&point)
    }
}

/// Any number of layers, one option each; needs Linux 6.7.
fn long_overlay(layers: &Layers) -> io::Result<Tree> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let too_old = |e: rustix::io::Errno| match e {
        rustix::io::Errno::INVAL => {
            io::Error::new(io::ErrorKind::Unsupported, "so many layers need Linux 6.7 or newer")
        }
        e => e.into(),
    };
    for lower in &layers.lower {
        fsconfig_set_string(context.as_fd(), "lowerdir+", lower).map_err(too_old)?;
    }
    if let Some((upper, work)) = &layers.upper {
        fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
        fsconfig_set_string(context.as_fd(), "workdir", work)?;
        fsconfig_set_flag(context.as_fd(), "volatile")?;
    }
    if !is_initial() {
        fsconfig_set_flag(context.as_fd(), "userxattr")?;
    }
    fsconfig_create(context.as_fd())?;
    let made = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    Tree::of(&made)
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for directory in self.made.get_mut() {
            // The open trees are gone by now; a detached mount lets the directory be removed.
            let _ = umount2(directory.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// The deepest directory above all of them.
fn common_directory(paths: &[PathBuf]) -> PathBuf {
    let mut common = paths[0].parent().unwrap_or(Path::new("/")).to_owned();
    while !paths.iter().all(|path| path.starts_with(&common)) && common.pop() {}
    common
}

fn options(layers: &Layers, base: &Path) -> Vec<u8> {
    let mut options = b"lowerdir=".to_vec();
    for (index, lower) in layers.lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        options.extend(escaped(lower.strip_prefix(base).unwrap_or(lower)));
    }
    if let Some((upper, work)) = &layers.upper {
        options.extend(b",upperdir=");
        options.extend(escaped(upper));
        options.extend(b",workdir=");
        options.extend(escaped(work));
        // The store sees to it that a layer is on disk before anything names it; unmounting need not wait for that.
        options.extend(b",volatile");
    }
    if !is_initial() {
        options.extend(b",userxattr");
    }
    options
}

fn escaped(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if b":,\\".contains(byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_relative_and_escaped() {
        let layers = Layers {
            lower: vec!["/s/snapshots/b/fs".into(), "/s/snapshots/a/fs".into()],
            upper: Some(("/t/x,y:z/upper".into(), "/t/work".into())),
        };
        let base = common_directory(&layers.lower);
        assert_eq!(base, Path::new("/s/snapshots"));
        let options = String::from_utf8(options(&layers, &base)).expect("text");
        assert_eq!(options, "lowerdir=b/fs:a/fs,upperdir=/t/x\\,y\\:z/upper,workdir=/t/work,volatile");
    }
}
