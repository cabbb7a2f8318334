//! The root file system: an overlay of the image's layers and the container's own, mounted inside the
//! container's mount namespace only, so nothing of it can leak.

use super::Context;
use super::options::Propagation;
use crate::sys::mount::{READ_ONLY, set_attributes, set_propagation};
use crate::sys::user_namespace::is_initial;
use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Features that a layer must not depend on.
const PLAIN: [&str; 3] = ["index", "redirect_dir", "metacopy"];

/// Under systemd `/` is shared: what we mount would appear on the host. Slave: its later mounts appear here.
pub(super) const SLAVE: Propagation = Propagation { flag: libc::MS_SLAVE, recursive: true };

pub(super) fn spread(at: &str, propagation: Propagation) -> io::Result<()> {
    let recursive = if propagation.recursive { libc::MS_REC } else { 0 };
    let flags = MountPropagationFlags::from_bits_retain((propagation.flag | recursive) as _);
    Ok(mount_change(at, flags)?)
}

/// A directory of the host with all that is mounted in it, as a mount of its own at the same place.
pub(super) fn directory(context: &mut Context<'_>, path: &Path) -> io::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = match context.root_tree.take() {
        Some(tree) => tree,
        None => open_tree(CWD, path, flags)?,
    };
    // A shared mount cannot become the root, nor may our mount on a shared one appear on the host.
    set_propagation(&tree, libc::MS_PRIVATE, false)?;
    if context.shares_mounts {
        mount_change(&mount_point(path)?, MountPropagationFlags::PRIVATE)?;
    }
    let place = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    // Where only others can name it, any place will do until it is the root.
    let place =
        place.or_else(|_| open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", place, "", flags)?;
    context.scratch = path.to_owned();
    context.root =
        Some(openat(&tree, ".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    Ok(())
}

/// Without a mount namespace of ours nothing is mounted: it would be seen by all.
pub(super) fn plain(context: &mut Context<'_>, path: &Path) -> io::Result<()> {
    context.root = Some(open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    Ok(())
}

/// For a root in memory, which cannot be put away: what would show the host is taken off, then ours covers it.
pub(super) fn move_root(context: &mut Context<'_>) -> io::Result<()> {
    let root = context.root.take().ok_or_else(|| io::Error::other("there is no root"))?;
    let own = context.scratch.clone();
    for point in kernel_mounts()?.iter().filter(|point| !point.starts_with(&own)) {
        let _ = mount_change(point, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
        if unmount(point, UnmountFlags::DETACH).is_err() {
            rustix::mount::mount("tmpfs", point, "tmpfs", MountFlags::RDONLY, None)?;
        }
    }
    rustix::process::fchdir(&root)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// Where the mount is that holds `path`.
fn mount_point(path: &Path) -> io::Result<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4).map(PathBuf::from));
    Ok(points
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.as_os_str().len())
        .unwrap_or("/".into()))
}

/// Where procfs and sysfs are mounted, innermost first.
fn kernel_mounts() -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let point = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let is_kernels = right.starts_with("proc ") || right.starts_with("sysfs ");
        is_kernels.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    let mut points: Vec<PathBuf> = table.lines().filter_map(point).collect();
    points.reverse();
    Ok(points)
}

/// Without a mount namespace there is nothing to put away.
pub(super) fn change_root(context: &mut Context<'_>) -> io::Result<()> {
    let root = context.root.take().ok_or_else(|| io::Error::other("there is no root"))?;
    rustix::process::fchdir(&root)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// Mounts the root at `at` and returns it.
pub(super) fn mount(
    lower_dirs: &[PathBuf],
    upper: &Path,
    work: &Path,
    at: &Path,
    volatile: bool,
) -> io::Result<OwnedFd> {
    let tree = match lower_dirs {
        // An image without layers: the container's own is all there is.
        [] => open_tree(CWD, upper, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?,
        _ => overlay(lower_dirs, Some((upper, work)), volatile, at)?,
    };
    // A slave of nothing: private.
    set_propagation(&tree, libc::MS_PRIVATE, false)?;
    move_mount(&tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(open(at, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A detached overlay; without upper directory it is read-only. `scratch` is a directory to mount at where
/// the kernel cannot do without. Paths go through descriptors: an option of
/// the mount interface has at most 256 bytes, and colons in paths mean nothing there.
pub(crate) fn overlay(
    lower_dirs: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    volatile: bool,
    scratch: &Path,
) -> io::Result<OwnedFd> {
    let opened = |path: &Path| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let lower = lower_dirs
        .iter()
        .map(|dir| opened(dir).map_err(|e| about(dir, e)))
        .collect::<io::Result<Vec<_>>>()?;
    let upper = upper.map(|(upper, work)| Ok::<_, io::Error>((opened(upper)?, opened(work)?))).transpose()?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for dir in &lower {
        match fsconfig_set_string(&context, "lowerdir+", magic(dir)) {
            Err(Errno::INVAL) => return overlay_before_6_5(&lower, upper.as_ref(), volatile, scratch),
            result => result?,
        }
    }
    if let Some((upper, work)) = &upper {
        fsconfig_set_string(&context, "upperdir", magic(upper))?;
        fsconfig_set_string(&context, "workdir", magic(work))?;
    }
    // An index would tie the upper directory to these very lower ones, and redirects or metadata-only copies would
    // make it unreadable as a layer; kernels without them need no switch.
    if is_initial() {
        for feature in PLAIN {
            let _ = fsconfig_set_string(&context, feature, "off");
        }
    } else {
        // The marks of a layer are in names that such a root may write, and those features are off by themselves
        // (overlayfs, "User xattr").
        fsconfig_set_flag(&context, "userxattr")?;
    }
    if volatile && upper.is_some() {
        fsconfig_set_flag(&context, "volatile")?;
    }
    fsconfig_create(&context).map_err(|e| explain(&context, e))?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The old call mounts at a place: do it at the scratch directory, take the tree, and clear the place again.
fn overlay_before_6_5(
    lower: &[OwnedFd],
    upper: Option<&(OwnedFd, OwnedFd)>,
    volatile: bool,
    scratch: &Path,
) -> io::Result<OwnedFd> {
    let mut data = format!("lowerdir={}", lower.iter().map(magic).collect::<Vec<_>>().join(":"));
    if let Some((upper, work)) = upper {
        data += &format!(",upperdir={},workdir={}", magic(upper), magic(work));
        data += if is_initial() { ",index=off,redirect_dir=off,metacopy=off" } else { "" };
        data += if volatile { ",volatile" } else { "" };
    }
    data += if is_initial() { "" } else { ",userxattr" };
    let data = std::ffi::CString::new(data)?;
    rustix::mount::mount("overlay", scratch, "overlay", MountFlags::empty(), Some(data.as_c_str()))?;
    let tree = open_tree(CWD, scratch, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    unmount(scratch, UnmountFlags::DETACH)?;
    Ok(tree?)
}

fn magic(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn about(path: &Path, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The kernel's own words, where it left some.
fn explain(context: &OwnedFd, error: Errno) -> io::Error {
    let mut text = [0; 512];
    let said = context.as_fd().try_clone_to_owned().map(File::from).and_then(|mut file| file.read(&mut text));
    match said {
        Ok(length) if length > 2 => {
            let words = String::from_utf8_lossy(&text[2..length]).trim().to_owned();
            io::Error::new(io::Error::from(error).kind(), format!("{words}: {}", io::Error::from(error)))
        }
        _ => error.into(),
    }
}

/// The new root becomes `/`; the old one is gone from here.
pub(super) fn pivot(context: &mut Context<'_>) -> io::Result<()> {
    let root = context.root.take().ok_or_else(|| io::Error::other("there is no root"))?;
    let old = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    // The host keeps its mounts.
    mount_change(".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

pub(super) fn make_read_only() -> io::Result<()> {
    let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    set_attributes(root, READ_ONLY, 0, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a mount namespace of this thread alone; visible skip without root.
    fn in_own_mounts(test: impl FnOnce(&Path) + Send + 'static) {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("STACK_TEST_PRIVILEGED").is_none(), "this test needs root");
            eprintln!("SKIPPED: needs root");
            return;
        }
        let thread = std::thread::spawn(|| {
            crate::sys::process::unshare(libc::CLONE_FS | libc::CLONE_NEWNS).unwrap();
            spread("/", SLAVE).unwrap();
            let dir = tempfile::tempdir().unwrap();
            for name in ["a", "b", "upper", "work", "scratch"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
                std::fs::write(dir.path().join(name).join(format!("from-{name}")), "").unwrap();
            }
            test(dir.path());
        });
        thread.join().unwrap();
    }

    fn names(tree: &OwnedFd) -> Vec<String> {
        let listed = std::fs::read_dir(format!("/proc/thread-self/fd/{}", tree.as_raw_fd())).unwrap();
        let mut names: Vec<String> = listed.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn old_kernels_get_the_same_overlay_in_one_string() {
        in_own_mounts(|dir| {
            let open_dir = |name: &str| {
                open(dir.join(name), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .unwrap()
            };
            let lower = [open_dir("a"), open_dir("b")];
            let upper = (open_dir("upper"), open_dir("work"));
            let scratch = dir.join("scratch");
            let old = overlay_before_6_5(&lower, Some(&upper), false, &scratch).unwrap();
            assert_eq!(names(&old), ["from-a", "from-b", "from-upper"]);
            assert!(scratch.join("from-scratch").exists(), "the scratch directory is free again");
            drop(old);
            let new = overlay(&[dir.join("a"), dir.join("b")], None, false, &scratch).unwrap();
            assert_eq!(names(&new), ["from-a", "from-b"]);
        });
    }

    #[test]
    fn a_missing_layer_is_named() {
        in_own_mounts(|dir| {
            let error = overlay(&[dir.join("gone")], None, false, &dir.join("scratch")).unwrap_err();
            assert!(error.to_string().contains("/gone: "), "{error}");
        });
    }
}
