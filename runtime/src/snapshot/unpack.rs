//! Unpacking a layer archive into a directory that overlayfs can use as it is.
//!
//! The archive is hostile until proven otherwise. Names are split into components; `..` is
//! refused; the parent of every entry is opened beneath the layer's root without following
//! any link, and the entry itself is made anew in it. Links of this layer and of the layers
//! below that lie on the way are followed by us, on names, inside the root.
//!
//! | in the archive | becomes |
//! |---|---|
//! | `.wh.NAME` | character device 0:0 `NAME` |
//! | `.wh..wh..opq` | `trusted.overlay.opaque=y` on its directory |
//! | a parent that the archive does not mention | a copy of the directory below, else root:root 0755 |

use super::below::{Below, Found, c_name};
use super::tree::{self, Attributes, opaque};
use crate::image::tar_read::{Entry, Kind, Reader};
use crate::sys::user_namespace;
use rustix::fs::{self, AtFlags, FileType, Mode, XattrFlags};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const LINKS_MAX: usize = 40;
const BUFFER: usize = 128 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// Writes the archive's entries into `root`; returns the bytes of file content.
pub(super) fn extract(archive: impl Read, root: OwnedFd, below: Below) -> io::Result<u64> {
    let mut unpacker = Unpacker {
        root,
        below,
        directory_times: BTreeMap::new(),
        parent: None,
        size: 0,
        buffer: vec![0; BUFFER],
    };
    tree::apply(&unpacker.root, &unpacker.below.root()?)?;
    let mut reader = Reader::new(archive);
    while let Some(entry) = reader.entry()? {
        unpacker.entry(&entry, &mut reader).map_err(|e| named(&entry, e))?;
    }
    // The digest covers what follows the end, too.
    io::copy(&mut reader.into_inner(), &mut io::sink())?;
    unpacker.finish()
}

/// As `std::io::copy`, in larger pieces.
fn copy(from: &mut impl Read, to: &mut File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                copied += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn named(entry: &Entry, error: io::Error) -> io::Error {
    let path: String = String::from_utf8_lossy(&entry.path).chars().take(200).collect();
    io::Error::new(error.kind(), format!("entry `{path}`: {error}"))
}

fn refuse<T>(reason: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

struct Unpacker {
    root: OwnedFd,
    below: Below,
    /// Set at the end, since making entries changes them.
    directory_times: BTreeMap<PathBuf, (i64, u32)>,
    /// The directory used last: entries come in order.
    parent: Option<(Vec<OsString>, PathBuf, OwnedFd)>,
    size: u64,
    /// Content goes through it.
    buffer: Vec<u8>,
}

/// An entry's place: its open parent directory and its name.
struct Place {
    parent: OwnedFd,
    path: PathBuf,
    name: CString,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        let mut components = components(&entry.path)?;
        let Some(name) = components.pop() else {
            return self.root_entry(entry);
        };
        let (path, parent) = self.parent(components)?;
        let place = Place { parent, path: path.join(&name), name: c_name(&name)? };
        match name.as_bytes() {
            OPAQUE_MARK => set_opaque(&place.parent),
            // Marks of other union file systems.
            mark if mark.starts_with(b".wh..wh.") => Ok(()),
            mark => match mark.strip_prefix(WHITEOUT) {
                Some(b"" | b"." | b"..") => refuse("it is a whiteout of nothing"),
                Some(removed) => self.whiteout(&place, &c_name(OsStr::from_bytes(removed))?),
                None => self.make(entry, &place, content),
            },
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> io::Result<()> {
        if entry.kind != Kind::Directory {
            return refuse("the root must be a directory");
        }
        tree::apply(&self.root, &attributes(entry))?;
        self.directory_times.insert(PathBuf::new(), entry.mtime);
        Ok(())
    }

    /// Opens the directory, making what is missing; links on the way are followed.
    fn parent(&mut self, components: Vec<OsString>) -> io::Result<(PathBuf, OwnedFd)> {
        if let Some((known, path, fd)) = &self.parent
            && *known == components
        {
            return Ok((path.clone(), fd.try_clone()?));
        }
        let path: PathBuf = components.iter().collect();
        let (path, fd) = match tree::open_beneath(&self.root, &path) {
            Ok(fd) => (path, fd),
            Err(_) => {
                let path = self.resolve(components.iter().cloned().collect())?;
                let fd = tree::open_beneath(&self.root, &path)?;
                (path, fd)
            }
        };
        self.parent = Some((components, path.clone(), fd.try_clone()?));
        Ok((path, fd))
    }

    fn resolve(&mut self, mut ahead: VecDeque<OsString>) -> io::Result<PathBuf> {
        let mut path = PathBuf::new();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                path.pop();
                continue;
            }
            let next = path.join(&name);
            let Some(target) = self.step(&path, &c_name(&name)?, &next)? else {
                path = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return refuse("too many symbolic links lead to it");
            }
            if target.first() == Some(&b'/') {
                path = PathBuf::new();
            }
            for part in split(&target).rev() {
                ahead.push_front(part);
            }
        }
        Ok(path)
    }

    /// One component: a directory afterwards (`None`), or the target of a link to follow.
    fn step(&mut self, parent: &Path, name: &CString, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let parent = tree::open_beneath(&self.root, parent)?;
        match tree::stat(&parent, name)? {
            Some(stat) if tree::is_whiteout(&stat) => {
                fs::unlinkat(&parent, name, AtFlags::empty())?;
                self.make_parent(&parent, name, path, &Attributes::plain_directory())?;
                set_opaque(tree::open_directory(&parent, name)?)?;
            }
            Some(stat) => match tree::kind(&stat) {
                FileType::Directory => {}
                FileType::Symlink => {
                    return Ok(Some(fs::readlinkat(&parent, name, Vec::new())?.into_bytes()));
                }
                _ => return refuse("a part of its path is not a directory"),
            },
            None => match self.below_unless_opaque(&parent, path)? {
                Some(Found::Symlink(target)) => return Ok(Some(target)),
                Some(Found::Directory(attributes)) => self.make_parent(&parent, name, path, &attributes)?,
                _ => self.make_parent(&parent, name, path, &Attributes::plain_directory())?,
            },
        }
        Ok(None)
    }

    /// An opaque directory of this layer hides what is below it.
    fn below_unless_opaque(&self, parent: &OwnedFd, path: &Path) -> io::Result<Option<Found>> {
        if super::below::is_opaque(parent)? { Ok(None) } else { self.below.lookup(path) }
    }

    fn make_parent(
        &mut self,
        parent: &OwnedFd,
        name: &CString,
        path: &Path,
        attributes: &Attributes,
    ) -> io::Result<()> {
        fs::mkdirat(parent, name, Mode::RWXU)?;
        tree::apply(tree::open_directory(parent, name)?, attributes)?;
        self.directory_times.insert(path.to_owned(), attributes.mtime);
        Ok(())
    }

    /// A whiteout hides what is below; what this layer itself has at the name stays.
    fn whiteout(&mut self, place: &Place, removed: &CString) -> io::Result<()> {
        match tree::stat(&place.parent, removed)? {
            Some(stat) if tree::kind(&stat) == FileType::Directory => {
                set_opaque(tree::open_directory(&place.parent, removed)?)
            }
            Some(_) => Ok(()),
            None => Ok(fs::mknodat(&place.parent, removed, FileType::CharacterDevice, Mode::empty(), 0)?),
        }
    }

    fn make(&mut self, entry: &Entry, place: &Place, content: &mut impl Read) -> io::Result<()> {
        if entry.kind == Kind::Directory {
            return self.make_directory(entry, place);
        }
        if tree::stat(&place.parent, &place.name)?.is_some() {
            tree::remove(place.parent.as_fd(), &place.name)?;
            // The removed directory may be the one remembered.
            self.parent = None;
        }
        match entry.kind {
            Kind::HardLink => self.make_hard_link(entry, place),
            Kind::File => self.make_file(entry, place, content),
            _ => make_special(entry, place),
        }
    }

    fn make_directory(&mut self, entry: &Entry, place: &Place) -> io::Result<()> {
        let (parent, name) = (&place.parent, &place.name);
        let mut opaque = false;
        match tree::stat(parent, name)? {
            Some(stat) if tree::kind(&stat) == FileType::Directory => {}
            existing => {
                if let Some(stat) = existing {
                    opaque = tree::is_whiteout(&stat);
                    fs::unlinkat(parent, name, AtFlags::empty())?;
                }
                fs::mkdirat(parent, name, Mode::RWXU)?;
            }
        }
        let directory = tree::open_directory(parent, name)?;
        tree::apply(&directory, &attributes(entry))?;
        self.directory_times.insert(place.path.clone(), entry.mtime);
        if opaque { set_opaque(directory) } else { Ok(()) }
    }

    fn make_file(&mut self, entry: &Entry, place: &Place, content: &mut impl Read) -> io::Result<()> {
        let mut file = File::from(tree::create_file(&place.parent, &place.name)?);
        self.size += copy(content, &mut file, &mut self.buffer)?;
        tree::apply(&file, &attributes(entry))
    }

    /// The target must be of this layer and is never followed.
    fn make_hard_link(&mut self, entry: &Entry, place: &Place) -> io::Result<()> {
        let mut components = components(&entry.link)?;
        let Some(name) = components.pop() else {
            return refuse("it is a hard link to the root");
        };
        let directory: PathBuf = components.iter().collect();
        let directory = match tree::open_beneath(&self.root, &directory) {
            Ok(fd) => fd,
            Err(_) => {
                let directory = self.resolve(components.into())?;
                tree::open_beneath(&self.root, &directory)?
            }
        };
        let name = c_name(&name)?;
        match tree::stat(&directory, &name)? {
            None => refuse("it is a hard link to a file that its layer does not have"),
            Some(stat) if tree::kind(&stat) == FileType::Directory => {
                refuse("it is a hard link to a directory")
            }
            Some(_) => Ok(fs::linkat(&directory, &name, &place.parent, &place.name, AtFlags::empty())?),
        }
    }

    fn finish(self) -> io::Result<u64> {
        for (path, mtime) in &self.directory_times {
            // It may have been replaced by a later entry.
            if let Ok(directory) = tree::open_beneath(&self.root, path) {
                fs::futimens(directory, &tree::times(*mtime))?;
            }
        }
        Ok(self.size)
    }
}

fn make_special(entry: &Entry, place: &Place) -> io::Result<()> {
    let (parent, name) = (&place.parent, &place.name);
    let device = fs::makedev(entry.device.0, entry.device.1);
    match entry.kind {
        Kind::Symlink if entry.link.is_empty() => return refuse("it is a symbolic link to nothing"),
        Kind::Symlink => fs::symlinkat(entry.link.as_slice(), parent, name)?,
        Kind::Fifo => fs::mknodat(parent, name, FileType::Fifo, Mode::empty(), 0)?,
        Kind::Character if device == 0 => return refuse("it is the mark of a whiteout"),
        // Nobody in a user namespace could open it, or make it.
        Kind::Character | Kind::Block if !user_namespace::is_initial() => return Ok(()),
        Kind::Character => fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), device)?,
        _ => fs::mknodat(parent, name, FileType::BlockDevice, Mode::empty(), device)?,
    }
    tree::apply_at(parent.as_fd(), name, &attributes(entry), entry.kind == Kind::Symlink)
}

fn set_opaque(directory: impl AsFd) -> io::Result<()> {
    Ok(fs::fsetxattr(directory, opaque(), b"y", XattrFlags::empty())?)
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.clone(),
    }
}

/// Relative, without `.`; `..` is refused.
fn components(path: &[u8]) -> io::Result<Vec<OsString>> {
    if path.contains(&0) {
        return refuse("its name contains a zero byte");
    }
    let parts: Vec<OsString> = split(path).collect();
    if parts.iter().any(|p| p == "..") {
        return refuse("its name leads upwards");
    }
    Ok(parts)
}

fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").map(|p| OsString::from_vec(p.to_vec()))
}
