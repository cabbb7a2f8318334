//! Trees by directory descriptor: what unpacking, archiving and volumes share.
//!
//! Every step names one component beneath an open directory and follows no symbolic link, so
//! a tree that changes or lies cannot lead outside.

use crate::sys::user_namespace;
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The attribute that makes a directory hide what is below. A root of a user namespace may not write `trusted.` ones;
/// overlayfs reads these instead when it is mounted with `userxattr`.
pub fn opaque() -> &'static str {
    if user_namespace::is_initial() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}
const XATTRS_MAX: usize = 64 << 10;

pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Everything about an entry but its content.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    pub(crate) fn of(stat: &Stat, xattrs: Xattrs) -> Self {
        Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime: mtime(stat), xattrs }
    }

    /// What a directory gets that nobody described.
    pub(crate) fn plain_directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }
}

#[allow(clippy::unnecessary_cast)] // The fields' types differ between architectures.
pub(crate) fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime as i64, stat.st_mtime_nsec as u32)
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Overlayfs' mark of a removed name.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A directory at a relative path without any symbolic link, beneath `root`.
pub(crate) fn open_beneath(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(root, path, flags, Mode::empty(), resolve)
}

pub(crate) fn open_directory(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(fs::openat(parent, name, flags, Mode::empty())?)
}

/// A regular file, read-only; the caller has seen that it is one.
pub(crate) fn open_file(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(fs::openat(parent, name, flags, Mode::empty())?)
}

/// A new, empty, private file.
pub(crate) fn create_file(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Names without `.` and `..`, sorted by bytes.
pub(crate) fn names(directory: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// `None`: there is no such name.
pub(crate) fn stat(parent: impl AsFd, name: &CStr) -> io::Result<Option<Stat>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Removes a name with all beneath it.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    let directory = open_directory(parent, name)?;
    for child in names(&directory)? {
        remove(directory.as_fd(), &child)?;
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// A path that reaches an entry which cannot be opened (link, device) without following it.
fn through_proc(parent: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let directory = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
    directory.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// Extended attributes of an open file or directory.
pub(crate) fn xattrs_of(fd: impl AsFd) -> io::Result<Xattrs> {
    let fd = fd.as_fd();
    let list = growing(|buffer| fs::flistxattr(fd, buffer))?.unwrap_or_default();
    read_xattrs(&list, |name, value| fs::fgetxattr(fd, name, value))
}

/// Extended attributes of an entry that cannot be opened.
pub(crate) fn xattrs_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Xattrs> {
    let path = through_proc(parent, name);
    let list = growing(|buffer| fs::llistxattr(&path, buffer))?.unwrap_or_default();
    read_xattrs(&list, |name, value| fs::lgetxattr(&path, name, value))
}

fn read_xattrs(
    list: &[u8],
    mut get: impl FnMut(&CStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    let mut xattrs = Vec::new();
    for name in list.split_inclusive(|&b| b == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok()) {
        if let Some(value) = growing(|buffer| get(name, buffer))? {
            xattrs.push((name.to_bytes().to_vec(), value));
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Reads into a small buffer, then into the largest that there can be.
fn growing(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0; 256];
    match read(&mut small) {
        Err(Errno::RANGE) => {}
        result => return Ok(unless_unsupported(result)?.map(|length| small[..length].to_vec())),
    }
    let mut buffer = vec![0; XATTRS_MAX];
    let length = unless_unsupported(read(&mut buffer))?;
    Ok(length.map(|length| {
        buffer.truncate(length);
        buffer
    }))
}

/// A file system without attributes has none; one that went away is not there.
fn unless_unsupported<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::OPNOTSUPP | Errno::NODATA) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Attributes that describe the overlay or the machine, not the content.
pub(crate) fn is_portable(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.")
        && !name.starts_with(b"user.overlay.")
        && name != b"security.selinux"
}

pub(crate) fn set_xattrs(fd: impl AsFd, xattrs: &Xattrs) -> io::Result<()> {
    each_portable(xattrs, |name, value| fs::fsetxattr(fd.as_fd(), name, value, XattrFlags::empty()))
}

pub(crate) fn set_xattrs_at(parent: BorrowedFd<'_>, name: &CStr, xattrs: &Xattrs) -> io::Result<()> {
    let path = through_proc(parent, name);
    each_portable(xattrs, |name, value| fs::lsetxattr(&path, name, value, XattrFlags::empty()))
}

fn each_portable(
    xattrs: &Xattrs,
    mut set: impl FnMut(&CStr, &[u8]) -> rustix::io::Result<()>,
) -> io::Result<()> {
    for (name, value) in xattrs.iter().filter(|(name, _)| is_portable(name)) {
        let name =
            CString::new(name.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        match set(&name, value) {
            // A capability that is lost changes what the program may do; a remark does not.
            Err(Errno::OPNOTSUPP) if !name.to_bytes().starts_with(b"security.") => {}
            other => other?,
        }
    }
    Ok(())
}

/// What to ask chown(2) for. With a single id everything is its user's, whatever the layer says.
pub fn owner(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    let is_free = !user_namespace::is_single_id();
    (is_free.then(|| Uid::from_raw_unchecked(uid)), is_free.then(|| Gid::from_raw_unchecked(gid)))
}

pub(crate) fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives an open file or directory all attributes. The order matters: a change of owner
/// clears set-id bits and capabilities, and every change but the last touches the times.
pub(crate) fn apply(fd: impl AsFd, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = owner(attributes.uid, attributes.gid);
    fs::fchown(&fd, uid, gid)?;
    fs::fchmod(&fd, Mode::from_raw_mode(attributes.mode))?;
    set_xattrs(&fd, &attributes.xattrs)?;
    Ok(fs::futimens(&fd, &times(attributes.mtime))?)
}

/// The same for an entry that cannot be opened. A symbolic link has no mode of its own.
pub(crate) fn apply_at(
    parent: BorrowedFd<'_>,
    name: &CStr,
    attributes: &Attributes,
    is_link: bool,
) -> io::Result<()> {
    let (uid, gid) = owner(attributes.uid, attributes.gid);
    fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if !is_link {
        fs::chmodat(parent, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
    }
    set_xattrs_at(parent, name, &attributes.xattrs)?;
    Ok(fs::utimensat(parent, name, &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}
