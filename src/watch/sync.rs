//! Puts files of the host into a running container, and takes them out.
//!
//! The container's root is entered through `/proc/PID/root`, so what is mounted inside (volumes) is met as the
//! program meets it. Everything below is resolved by the kernel with that directory as the root
//! (`openat2`, `RESOLVE_IN_ROOT`): no link in the container leads out of it, also not one that changes meanwhile.
//!
//! A file is replaced by renaming a complete one over it: a program that reads sees the old bytes or the new
//! ones. What cannot be renamed over (a file that is itself a mount) is written in place.
//!
//! Owner (as Compose's sync): the host's ids where the container runs as root, else the container's user.
//! Mode and time of change are the host's; links stay links; sockets and devices are left out.

mod remove;
mod root;
mod tree;

pub use root::{Found, Root};
pub use tree::{copy_children, copy_tree};

use super::decide::Copy;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// A running container of a service.
#[derive(Debug)]
pub struct Replica {
    pub name: String,
    pub root: Root,
    /// `None`: the host's.
    pub owner: Option<(u32, u32)>,
}

/// When the same bytes are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equal {
    /// Written all the same: the user saved the file, and whoever watches inside is to notice.
    Replace,
    Keep,
}

/// Brings all copies into one replica; the first error ends it.
///
/// # Errors
/// The operating system's, naming the path in the container.
pub fn copy_into(replica: &Replica, copies: &[Copy], equal: Equal) -> io::Result<()> {
    copies.iter().try_for_each(|copy| {
        one(replica, copy, equal).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", copy.to)))
    })
}

fn one(replica: &Replica, copy: &Copy, equal: Equal) -> io::Result<()> {
    let Some((above, name)) = split(&copy.to) else { return Ok(()) };
    let stat = match rustix::fs::statat(CWD, &copy.from, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return remove::remove_place(&replica.root, above, name),
        Err(e) => return Err(e.into()),
    };
    let directory = replica.root.directory(above, replica.owner)?;
    let place = Place { directory, name: OsStr::new(name), owner: replica.owner };
    match place.put(&copy.from, &stat, equal) {
        // Gone since: its own event follows.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        put => put.map(drop),
    }
}

/// Directory and name; `None` for the root itself and for what is no name.
fn split(path: &str) -> Option<(&str, &str)> {
    let (above, name) = path.trim_end_matches('/').rsplit_once('/')?;
    (!matches!(name, "" | "." | "..")).then_some((above, name))
}

/// A name in an open directory of the container.
struct Place<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
    owner: Option<(u32, u32)>,
}

impl Place<'_> {
    /// Whether it is something that is copied: not a device, a pipe or a socket.
    fn put(&self, from: &Path, stat: &Stat, equal: Equal) -> io::Result<bool> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.put_directory(stat)?,
            FileType::Symlink => self.put_link(from, stat)?,
            FileType::RegularFile => self.put_file(File::open(from)?, equal)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn put_directory(&self, stat: &Stat) -> io::Result<()> {
        let mode = Mode::from_raw_mode(stat.st_mode);
        match rustix::fs::mkdirat(&self.directory, self.name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.is_directory()? => return Ok(()),
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&self.directory, self.name, AtFlags::empty())?;
                rustix::fs::mkdirat(&self.directory, self.name, mode)?;
            }
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.directory, self.name, flags, Mode::empty())?;
        own(made.as_fd(), stat, self.owner)
    }

    fn is_directory(&self) -> io::Result<bool> {
        let stat = rustix::fs::statat(&self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn put_link(&self, from: &Path, stat: &Stat) -> io::Result<()> {
        let target = rustix::fs::readlinkat(CWD, from, Vec::new())?;
        let temporary = temporary_name();
        rustix::fs::symlinkat(target.as_c_str(), &self.directory, &temporary)?;
        let (uid, gid) = ids(stat, self.owner);
        let owned = rustix::fs::chownat(&self.directory, &temporary, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        self.rename(&temporary, owned.map_err(io::Error::from)).map(drop)
    }

    fn put_file(&self, mut source: File, equal: Equal) -> io::Result<()> {
        if equal == Equal::Keep && self.holds(&mut source)? {
            return Ok(());
        }
        let stat = rustix::fs::fstat(&source)?;
        let temporary = temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let filled = io::copy(&mut source, &mut file).and_then(|_| own(file.as_fd(), &stat, self.owner));
        drop(file);
        match self.rename(&temporary, filled)? {
            Renamed::Done => Ok(()),
            Renamed::Mounted => self.write_in_place(source),
        }
    }

    /// Puts a finished temporary in its place; an unfinished one is removed.
    fn rename(&self, temporary: &str, finished: io::Result<()>) -> io::Result<Renamed> {
        let renamed = finished.and_then(|()| match self.try_rename(temporary) {
            Err(Errno::ISDIR) => {
                remove::remove_below(self.directory.as_fd(), self.name)?;
                Ok(self.try_rename(temporary).map(|()| Renamed::Done)?)
            }
            Err(Errno::BUSY) => Ok(Renamed::Mounted),
            other => Ok(other.map(|()| Renamed::Done)?),
        });
        if !matches!(renamed, Ok(Renamed::Done)) {
            let _ = rustix::fs::unlinkat(&self.directory, temporary, AtFlags::empty());
        }
        renamed
    }

    fn try_rename(&self, temporary: &str) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.directory, temporary, &self.directory, self.name)
    }

    fn write_in_place(&self, mut source: File) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.directory, self.name, flags, Mode::empty())?);
        io::Seek::rewind(&mut source)?;
        io::copy(&mut source, &mut file).map(drop)
    }

    /// Whether the container's file has the same bytes. Leaves the source at its start.
    fn holds(&self, source: &mut File) -> io::Result<bool> {
        // NONBLOCK: what stands there may be a pipe that nobody writes to.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(file) = rustix::fs::openat(&self.directory, self.name, flags, Mode::empty()) else {
            return Ok(false);
        };
        let file = File::from(file);
        let meta = file.metadata()?;
        let same = meta.is_file() && meta.len() == source.metadata()?.len() && same_bytes(&file, source)?;
        io::Seek::rewind(source)?;
        Ok(same)
    }
}

enum Renamed {
    Done,
    /// Something is mounted on the name.
    Mounted,
}

fn same_bytes(mut a: &File, mut b: &File) -> io::Result<bool> {
    let (mut left, mut right) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let read = a.read(&mut left)?;
        if read == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        if b.read_exact(&mut right[..read]).is_err() || left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// The owner before the mode: changing it clears the bits that lend rights.
fn own(file: BorrowedFd<'_>, stat: &Stat, owner: Option<(u32, u32)>) -> io::Result<()> {
    let (uid, gid) = ids(stat, owner);
    rustix::fs::fchown(file, uid, gid)?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode as RawMode))?;
    let changed = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: changed, last_modification: changed })?)
}

fn ids(stat: &Stat, owner: Option<(u32, u32)>) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = owner.unwrap_or((stat.st_uid, stat.st_gid));
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Hidden and with the mark of editors' temporary files, so that reloaders inside do not take it for source.
fn temporary_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(".stack-sync-{}-{}~", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
