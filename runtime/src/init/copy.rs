//! Copy-up: an empty volume gets what the image has at its mount point.

use super::path;
use crate::container::CopyUp;
use crate::volume::copy_tree;
use rustix::fs::OFlags;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
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
    // Only in a directory of ours: a volume may be any directory of the host.
    let own = copy.volume.parent().filter(|parent| parent.join("volume.json").exists());
    let mark = own.map(|parent| parent.join(".copying"));
    let is_cut_off = mark.as_ref().is_some_and(|mark| mark.exists());
    if !is_cut_off && fs::read_dir(&copy.volume)?.next().is_some() {
        return Ok(());
    }
    if let Some(mark) = &mark {
        File::create(mark)?;
    }
    if is_cut_off {
        clear(&copy.volume)?;
    }
    copy_tree(source.as_fd(), volume.as_fd())?;
    mark.map_or(Ok(()), fs::remove_file)
}

fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()? {
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
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
        fs::write(dir.path().join("volume/volume.json"), "{}").unwrap();
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
