//! ADD of a local archive: tar, plain or compressed with gzip, zstd, bzip2 or xz, told by its content.
//!
//! Entries land below the destination, links of the image are followed inside it only; a name with `..` is
//! refused. Owners and modes are the archive's unless `--chown` says otherwise. bzip2 and xz are read through the
//! programs of the same names.

use super::failure::{BuildFailure, Doing, Result};
use super::owners::Ids;
use super::place::make_directories;
use super::tree::{self, Spot, Tree};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use stack_runtime::image::compress;
use stack_runtime::image::tar_read::{Entry, Kind, Reader};
use stack_runtime::sys::user_namespace::is_initial;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};

const BLOCK: usize = 512;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Plain, gzip or zstd.
    Own,
    Program(&'static str),
}

/// The form of a file that is an archive; `None` when it is something else. Leaves the file at its start.
pub(super) fn form(file: &mut File) -> io::Result<Option<Form>> {
    let start = head(&mut *file)?;
    file.rewind()?;
    let program = match start.as_slice() {
        [0x42, 0x5a, 0x68, ..] => Some("bzip2"),
        [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, ..] => Some("xz"),
        _ => None,
    };
    let form = program.map_or(Form::Own, Form::Program);
    let mut stream = match open(file, form) {
        Ok(stream) => stream,
        // Not knowing what is inside is worth an error only if it was meant to be unpacked.
        Err(e) if program.is_some() => return Err(e),
        Err(_) => return Ok(None),
    };
    // What does not even decompress is no archive.
    let is_archive = head(&mut stream).is_ok_and(|block| is_header(&block));
    drop(stream);
    file.rewind()?;
    Ok(is_archive.then_some(form))
}

fn head(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    stream.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block)
}

/// A tar header carries the sum of its own bytes.
fn is_header(block: &[u8]) -> bool {
    if block.len() < BLOCK {
        return false;
    }
    let written = String::from_utf8_lossy(&block[148..156]);
    let written = u32::from_str_radix(written.trim_matches(['\0', ' ']), 8);
    let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    written == Ok(sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..BLOCK]))
}

/// The archive's plain bytes.
fn open(file: &File, form: Form) -> io::Result<Stream<'_>> {
    let size = file.metadata()?.len();
    match form {
        Form::Own => Ok(Stream { inner: compress::decode(file, compress::bound(size))?, child: None }),
        Form::Program(name) => {
            let mut child = Command::new(name)
                .arg("-dc")
                .stdin(file.try_clone()?)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|e| {
                    io::Error::new(
                        e.kind(),
                        format!(
                            "it is compressed with {name}, and the program `{name}` cannot be started: {e}"
                        ),
                    )
                })?;
            let out = child.stdout.take().expect("it was asked for");
            Ok(Stream { inner: Box::new(out.take(compress::bound(size))), child: Some(child) })
        }
    }
}

struct Stream<'a> {
    inner: Box<dyn Read + 'a>,
    child: Option<Child>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Unpacks below `base` (a path without links), which is made if it is missing.
pub(super) fn unpack(file: &File, form: Form, target: &Tree, base: &Path, owner: Option<Ids>) -> Result<()> {
    make_directories(target, base, owner.unwrap_or_default())?;
    let mut reader = Reader::new(open(file, form).doing(|| "open the archive")?);
    let mut times = Vec::new();
    while let Some(entry) = reader.entry().doing(|| "read the archive")? {
        let shown = || format!("unpack `{}`", String::from_utf8_lossy(&entry.path));
        let path = below(&entry.path).doing(shown)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        let unpacker = Unpacker { target, base, owner };
        let place = unpacker.place(&path)?;
        unpacker.make(&entry, &place, &mut reader).doing(shown)?;
        if entry.kind == Kind::Directory {
            times.push((place, timestamps(&entry)));
        }
    }
    for (path, times) in times.iter().rev() {
        let _ = target.directory(path).map(|directory| fs::futimens(directory, times));
    }
    Ok(())
}

/// A relative path; `..` is refused.
fn below(name: &[u8]) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its name leads upwards"));
            }
            _ => {}
        }
    }
    Ok(path)
}

struct Unpacker<'a> {
    target: &'a Tree,
    base: &'a Path,
    owner: Option<Ids>,
}

impl Unpacker<'_> {
    /// The path in the target, with the directories above it made.
    fn place(&self, path: &Path) -> Result<PathBuf> {
        let name =
            path.file_name().ok_or_else(|| BuildFailure::new("an entry of the archive has no name"))?;
        let parent = self.base.join(path.parent().unwrap_or(Path::new("")));
        let parent = self.target.resolve(&parent, true).doing(|| format!("find `/{}`", parent.display()))?;
        make_directories(self.target, &parent, self.owner.unwrap_or_default())?;
        Ok(parent.join(name))
    }

    fn make(&self, entry: &Entry, path: &Path, content: &mut impl Read) -> io::Result<()> {
        let spot = self.target.spot(path)?;
        let existing = spot.stat()?;
        if entry.kind == Kind::Directory {
            return self.directory(
                entry,
                path,
                &spot,
                existing.is_some_and(|stat| tree::is_directory(&stat)),
            );
        }
        if existing.is_some() {
            tree::remove(&spot.directory, &spot.name)?;
        }
        match entry.kind {
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file =
                    File::from(fs::openat(&spot.directory, &spot.name, flags, Mode::RUSR | Mode::WUSR)?);
                io::copy(content, &mut file)?;
                self.apply(&file, entry)?;
                Ok(fs::futimens(&file, &timestamps(entry))?)
            }
            Kind::HardLink => {
                let target = self.target.resolve(&self.base.join(below(&entry.link)?), false)?;
                let from = self.target.spot(&target)?;
                Ok(fs::linkat(&from.directory, &from.name, &spot.directory, &spot.name, AtFlags::empty())?)
            }
            Kind::Symlink => {
                fs::symlinkat(OsStr::from_bytes(&entry.link), &spot.directory, &spot.name)?;
                self.apply_at(entry, &spot)
            }
            _ => self.special(entry, &spot),
        }
    }

    fn directory(&self, entry: &Entry, path: &Path, spot: &Spot, exists: bool) -> io::Result<()> {
        if !exists {
            tree::remove(&spot.directory, &spot.name)?;
            fs::mkdirat(&spot.directory, &spot.name, Mode::RWXU)?;
        }
        self.apply(&File::from(self.target.directory(path)?), entry)
    }

    fn special(&self, entry: &Entry, spot: &Spot) -> io::Result<()> {
        let kind = match entry.kind {
            Kind::Fifo => FileType::Fifo,
            Kind::Character => FileType::CharacterDevice,
            _ => FileType::BlockDevice,
        };
        let device = if kind == FileType::Fifo { 0 } else { fs::makedev(entry.device.0, entry.device.1) };
        if kind != FileType::Fifo && !is_initial() {
            // Nobody in a user namespace could open it, or make it.
            return Ok(());
        }
        fs::mknodat(&spot.directory, &spot.name, kind, Mode::empty(), device)?;
        self.apply_at(entry, spot)
    }

    fn ids(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let ids = self.owner.unwrap_or(Ids { uid: entry.uid, gid: entry.gid });
        stack_runtime::snapshot::owner(ids.uid, ids.gid)
    }

    fn apply(&self, file: &File, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.ids(entry);
        fs::fchown(file, uid, gid)?;
        fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| !name.starts_with(b"trusted.overlay.")) {
            match fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn apply_at(&self, entry: &Entry, spot: &Spot) -> io::Result<()> {
        let (uid, gid) = self.ids(entry);
        fs::chownat(&spot.directory, &spot.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            fs::chmodat(&spot.directory, &spot.name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        Ok(fs::utimensat(&spot.directory, &spot.name, &timestamps(entry), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn timestamps(entry: &Entry) -> Timestamps {
    let mtime = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: mtime, last_modification: mtime }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn own() -> Option<Ids> {
        Some(Ids { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() })
    }

    fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().expect("gnu").name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o640);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1000);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("appended");
        }
        builder.into_inner().expect("finished")
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file.rewind().expect("rewound");
        file
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut writer = compress::gzip(Vec::new());
        writer.write_all(bytes).expect("written");
        writer.finish().expect("finished")
    }

    #[test]
    fn archives_are_told_by_their_content() {
        let plain = archive(&[("a", "x")]);
        assert_eq!(form(&mut file(&plain)).expect("read"), Some(Form::Own));
        assert_eq!(form(&mut file(&packed(&plain))).expect("read"), Some(Form::Own));
        assert_eq!(form(&mut file(&packed(b"no archive"))).expect("read"), None);
        assert_eq!(form(&mut file(b"text")).expect("read"), None);
        assert_eq!(form(&mut file(b"")).expect("read"), None);
        assert_eq!(form(&mut file(&[0; 2048])).expect("read"), None);
    }

    #[test]
    fn entries_land_below_the_destination() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink("/real", directory.path().join("link")).expect("linked");
        let tree = Tree::open(directory.path()).expect("opened");
        let source = file(&archive(&[("./d/a", "A"), ("/link/b", "B")]));
        unpack(&source, Form::Own, &tree, Path::new(""), own()).expect("unpacked");
        assert_eq!(std::fs::read(directory.path().join("d/a")).expect("there"), b"A");
        assert_eq!(std::fs::read(directory.path().join("real/b")).expect("there"), b"B");
        let source = file(&archive(&[("../up", "x")]));
        assert!(unpack(&source, Form::Own, &tree, Path::new("x"), own()).is_err());
        assert!(!directory.path().join("up").exists());
    }
}
