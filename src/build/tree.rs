//! A directory tree that nothing leads out of.
//!
//! [`Tree`] is an open directory taken as `/`: links in it are followed inside it only, absolute ones too.
//! Every opening below goes through `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` on a path whose
//! links were resolved here before, so a link that is planted in between ends in an error, never outside.
//!
//! Paths are relative to the tree, without `.` and `..`; the empty path is the tree itself.

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// As the kernel's own limit.
const LINKS_MAX: usize = 40;

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// A name in an open directory.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self { root: fs::open(path, flags, Mode::empty())? })
    }

    /// The tree that a descriptor (also one only for paths) stands for.
    pub(super) fn of(directory: impl AsFd) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self { root: fs::openat(directory, ".", flags, Mode::empty())? })
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::DIRECTORY | OFlags::RDONLY)
    }

    /// A regular file for reading; never blocks on a pipe that took its place.
    pub(super) fn file(&self, path: &Path) -> io::Result<std::fs::File> {
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
        match kind(&fs::fstat(&fd)?) {
            FileType::RegularFile => Ok(fd.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// The directory of a path and its last name. The root itself has none.
    pub(super) fn spot(&self, path: &Path) -> io::Result<Spot> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        Ok(Spot { directory: self.directory(path.parent().unwrap_or(Path::new("")))?, name })
    }

    /// What is at a path itself, links not followed; `None`: nothing.
    pub(super) fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(fs::fstat(&self.root)?));
        }
        match self.spot(path) {
            Ok(spot) => spot.stat(),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn link(&self, path: &Path) -> io::Result<OsString> {
        let spot = self.spot(path)?;
        Ok(OsString::from_vec(fs::readlinkat(&spot.directory, &spot.name, Vec::new())?.into_bytes()))
    }

    /// Names in a directory, sorted.
    pub(super) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::new(self.directory(path)?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// What is in a directory, by name, links not followed.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<(OsString, Stat)>> {
        let directory = self.directory(path)?;
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.push((OsString::from_vec(name.to_bytes().to_vec()), stat)),
                // Gone since it was listed.
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    /// Follows all links of a path inside the tree (the last one only with `last`); the result has none, and
    /// its end may not exist.
    pub(super) fn resolve(&self, path: &Path, last: bool) -> io::Result<PathBuf> {
        let mut done = PathBuf::new();
        let mut todo = parts(path);
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&name);
            if todo.is_empty() && !last {
                return Ok(next);
            }
            match self.link(&next) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    let target = PathBuf::from(target);
                    if target.is_absolute() {
                        done.clear();
                    }
                    let mut ahead = parts(&target);
                    ahead.append(&mut todo);
                    todo = ahead;
                }
                // Not a link, or nothing there yet.
                Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) || is_absent(&e) => {
                    done = next
                }
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

impl Spot {
    pub(super) fn stat(&self) -> io::Result<Option<Stat>> {
        match fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Nothing there, or a part of the way is no directory.
pub(super) fn is_absent(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::NOENT.raw_os_error()) || code == Some(Errno::NOTDIR.raw_os_error())
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    kind(stat) == FileType::Directory
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

/// Removes what is at a spot, a directory with all below it, without leaving the file system.
pub(super) fn remove(directory: impl AsFd, name: &OsString) -> io::Result<()> {
    match fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = fs::openat(&directory, name, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(&inner)? {
        names.push(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
    }
    for name in names.iter().filter(|name| *name != "." && *name != "..") {
        remove(&inner, name)?;
    }
    Ok(fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).expect("made");
        std::fs::write(root.join("a/b/file"), "x").expect("written");
        std::fs::write(directory.path().join("outside"), "secret").expect("written");
        symlink("/a/b", root.join("absolute")).expect("linked");
        symlink("../../../outside", root.join("a/up")).expect("linked");
        symlink("loop", root.join("loop")).expect("linked");
        symlink("/not/yet", root.join("dangling")).expect("linked");
        let tree = Tree::open(&root).expect("opened");
        (directory, tree)
    }

    #[test]
    fn links_are_followed_inside_only() {
        let (_directory, tree) = tree();
        let resolve = |path: &str| tree.resolve(Path::new(path), true).map_err(|e| e.to_string());
        assert_eq!(resolve("absolute/file"), Ok("a/b/file".into()));
        assert_eq!(resolve("a/up"), Ok("outside".into()));
        assert_eq!(resolve("../../a/../x"), Ok("x".into()));
        assert_eq!(resolve("dangling/z"), Ok("not/yet/z".into()));
        assert!(resolve("loop").is_err());
        assert_eq!(tree.resolve(Path::new("absolute"), false).expect("kept"), Path::new("absolute"));
    }

    #[test]
    fn unresolved_links_are_refused() {
        let (_directory, tree) = tree();
        assert!(tree.file(Path::new("a/up")).is_err());
        assert!(tree.directory(Path::new("absolute")).is_err());
        assert!(tree.file(Path::new("a/b/file")).is_ok());
        assert!(tree.directory(Path::new("..")).is_err());
        assert!(tree.stat(Path::new("nope/x")).expect("absent").is_none());
    }

    #[test]
    fn a_pipe_does_not_block() {
        let (directory, tree) = tree();
        let path = directory.path().join("root/pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("made");
        assert!(tree.file(Path::new("pipe")).is_err());
    }

    #[test]
    fn removing_takes_what_is_below_and_no_link_target() {
        let (directory, tree) = tree();
        symlink("/", directory.path().join("root/a/root")).expect("linked");
        remove(tree.directory(Path::new("")).expect("root"), &"a".into()).expect("removed");
        assert_eq!(tree.names(Path::new("")).expect("names"), ["absolute", "dangling", "loop"]);
        assert!(directory.path().join("outside").exists());
    }
}
