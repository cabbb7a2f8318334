//! Copy-up: an empty volume gets what the image has at its mount point.

use super::path;
use crate::container::CopyUp;
use rustix::fs::OFlags;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// Copies once: a mark beside the volume tells a copy that was cut off, which is then made again.
pub(super) fn fill(root: impl AsFd, copy: &CopyUp) -> io::Result<()> {
    let target = Path::new(&copy.target);
    let source = match path::open(&root, target, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => fd,
        // Nothing there, or a file: nothing to copy.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        Err(e) => return Err(e),
    };
    let volume = File::open(&copy.volume)?;
    volume.lock()?;
    let mark = copy.volume.parent().map(|parent| parent.join(".copying"));
    let is_cut_off = mark.as_ref().is_some_and(|mark| mark.exists());
    if !is_cut_off && fs::read_dir(&copy.volume)?.next().is_some() {
        return Ok(());
    }
    if let Some(mark) = &mark {
        File::create(mark)?;
    }
    let source = format!("/proc/self/fd/{}/.", source.as_raw_fd());
    tree(Path::new(&source), &copy.volume)?;
    mark.map_or(Ok(()), fs::remove_file)
}

/// Copies a directory with owners, modes, times, attributes and special files; links are not followed.
fn tree(source: &Path, target: &Path) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let meta = fs::symlink_metadata(&from)?;
        let kind = meta.file_type();
        remove_other(&to, kind.is_dir())?;
        if kind.is_dir() {
            fs::create_dir_all(&to)?;
            tree(&from, &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_file() {
            fs::copy(&from, &to)?;
        } else if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
            let kind = rustix::fs::FileType::from_raw_mode(meta.mode());
            let mode = rustix::fs::Mode::from_raw_mode(meta.mode());
            rustix::fs::mknodat(rustix::fs::CWD, &to, kind, mode, meta.rdev())?;
        } else {
            continue;
        }
        attributes(&from, &to, &meta)?;
    }
    attributes(source, target, &fs::metadata(source)?)
}

/// A leftover of a copy that was cut off, of whatever kind.
fn remove_other(to: &Path, keep_directory: bool) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(meta) if meta.is_dir() && keep_directory => Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(to),
        Ok(_) => fs::remove_file(to),
        Err(_) => Ok(()),
    }
}

fn attributes(from: &Path, to: &Path, meta: &fs::Metadata) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
    lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    if !meta.is_symlink() {
        fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    extended(from, to)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn extended(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
    let mut names = vec![0u8; 64 << 10];
    let Ok(length) = llistxattr(from, &mut names) else { return Ok(()) };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // What overlayfs itself keeps is not the image's.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        let length = lgetxattr(from, name, &mut value)?;
        match lsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(rustix::io::Errno::OPNOTSUPP) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn image() -> (tempfile::TempDir, CopyUp) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/data/sub")).unwrap();
        fs::write(dir.path().join("root/data/sub/file"), "hello").unwrap();
        symlink("/etc/shadow", dir.path().join("root/data/link")).unwrap();
        fs::create_dir_all(dir.path().join("volume/_data")).unwrap();
        let volume = dir.path().join("volume/_data");
        (dir, CopyUp { target: "/data".into(), volume })
    }

    #[test]
    fn an_empty_volume_is_filled_once() {
        let (dir, copy) = image();
        let root = File::open(dir.path().join("root")).unwrap();
        fill(&root, &copy).unwrap();
        assert_eq!(fs::read_to_string(copy.volume.join("sub/file")).unwrap(), "hello");
        assert_eq!(fs::read_link(copy.volume.join("link")).unwrap(), Path::new("/etc/shadow"));
        fs::remove_file(copy.volume.join("sub/file")).unwrap();
        fill(&root, &copy).unwrap();
        assert!(!copy.volume.join("sub/file").exists());
    }

    #[test]
    fn a_copy_that_was_cut_off_is_made_again() {
        let (dir, copy) = image();
        let root = File::open(dir.path().join("root")).unwrap();
        fs::write(dir.path().join("volume/.copying"), "").unwrap();
        fs::write(copy.volume.join("sub"), "half").unwrap();
        fill(&root, &copy).unwrap();
        assert_eq!(fs::read_to_string(copy.volume.join("sub/file")).unwrap(), "hello");
        assert!(!dir.path().join("volume/.copying").exists());
    }
}
