//! Paths inside a root that is not ours: never followed out of it, whatever links an image contains.

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// Opens what is at `path`, with the root as `/`.
pub(crate) fn open(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, relative(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Names what is at `path` (`O_PATH`), making it and missing parents (0755) first.
pub(crate) fn make(root: impl AsFd, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    match open(&root, path, OFlags::PATH) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let mut pending = components(path);
    let mut real = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            real.pop();
            continue;
        }
        let candidate = real.join(&name);
        match open(&root, &candidate, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) if file_type(&fd)? == FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let link = PathBuf::from(OsString::from_vec(readlinkat(&fd, "", Vec::new())?.into_bytes()));
                if link.is_absolute() {
                    real = "/".into();
                }
                pending.extend(components(&link));
            }
            Ok(_) => real = candidate,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = open(&root, &real, OFlags::PATH | OFlags::DIRECTORY)?;
                let last = if pending.is_empty() { kind } else { Kind::Directory };
                create(parent, &name, last)?;
                real = candidate;
            }
            Err(e) => return Err(e),
        }
    }
    open(root, &real, OFlags::PATH)
}

/// The directory that holds `path`, made if missing, and the last name.
pub(crate) fn parent(root: impl AsFd, path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
    Ok((make(root, path.parent().unwrap_or(Path::new("/")), Kind::Directory)?, name))
}

pub(crate) fn file_type(fd: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

fn create(parent: OwnedFd, name: &OsString, kind: Kind) -> io::Result<()> {
    let made = match kind {
        Kind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        // Somebody else, who shares the directory, was faster.
        Err(Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

/// Last first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

/// `openat2` wants a path that is not empty; below a directory an absolute one means the same with `IN_ROOT`.
fn relative(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_and_missing_parts_are_made() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        symlink("/run", root.join("var")).unwrap();
        symlink("../../../escaped", root.join("up")).unwrap();
        let fd = std::fs::File::open(&root).unwrap();
        make(&fd, Path::new("/var/lock/file"), Kind::File).unwrap();
        make(&fd, Path::new("/up/inner"), Kind::Directory).unwrap();
        assert!(root.join("run/lock/file").is_file());
        assert!(root.join("escaped/inner").is_dir());
        assert!(!outside.path().join("escaped").exists());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        let error = make(&fd, Path::new("/a/x"), Kind::File).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
