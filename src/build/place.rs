//! Putting picked files into a layer.
//!
//! The destination is a [`Tree`] (merged layers, mounted): its links are followed inside it, an existing file is
//! replaced and never written through, so a device or link of the image cannot lead a COPY elsewhere.

use super::failure::{BuildFailure, Doing, Result};
use super::owners::Ids;
use super::pick::{self, Content, Entry, Picked};
use super::stats;
use super::tree::{self, Spot, Tree};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use stack_runtime::image::digest::Hashing;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::SystemTime;

/// Fewer files than this are not worth a thread.
const FILES_PER_THREAD: usize = 100;
const THREADS_MAX: usize = 4;
const BUFFER: usize = 128 << 10;

/// Where and how.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    /// Absolute, without variables.
    pub(super) destination: String,
    /// It was written with a slash at the end, or as `.`.
    pub(super) into_directory: bool,
    /// `None`: of the source (stages) or root (context).
    pub(super) owner: Option<Ids>,
    pub(super) chmod: Option<Chmod>,
    pub(super) from_context: bool,
    /// Do not follow links of the destination.
    pub(super) link: bool,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chmod {
    Octal(u32),
    /// `u=rwX,go=rX`, checked.
    Symbolic(String),
}

pub(super) fn place(
    source: &Tree,
    target: &Tree,
    picked: &mut [Picked],
    placement: &Placement,
) -> Result<()> {
    for item in picked {
        let mut placer = Placer { source, target, placement, linked: HashMap::new(), times: Vec::new() };
        placer.item(item)?;
        placer.set_times();
    }
    Ok(())
}

struct Placer<'a> {
    source: &'a Tree,
    target: &'a Tree,
    placement: &'a Placement,
    /// Hard links of this item: source inode → where it was put.
    linked: HashMap<(u64, u64), PathBuf>,
    /// Directories' times, set when nothing changes them any more.
    times: Vec<(PathBuf, Timestamps)>,
}

impl Placer<'_> {
    fn item(&mut self, item: &mut Picked) -> Result<()> {
        let base = self.base()?;
        let base = base.join(&item.parents);
        let is_existing_directory = self.is_directory(&base)?;
        if item.is_directory {
            self.make_directories(&base)?;
            let mut lone = Vec::new();
            for entry in &mut item.entries {
                let path = base.join(&entry.to);
                match is_lone_file(entry) {
                    true => lone.push((entry, path)),
                    false => self.entry(entry, &path)?,
                }
            }
            return self.lone_files(lone);
        }
        let inside =
            self.placement.into_directory || is_existing_directory || !item.parents.as_os_str().is_empty();
        let path = if inside { base.join(&item.name) } else { base };
        self.make_directories(path.parent().unwrap_or(Path::new("")))?;
        let entry = item.entries.first_mut().expect("a file is one entry");
        self.entry(entry, &path)
    }

    fn base(&self) -> Result<PathBuf> {
        let written = Path::new(self.placement.destination.trim_matches('/'));
        if self.placement.link {
            return Ok(written.to_owned());
        }
        self.target
            .resolve(written, true)
            .doing(|| format!("find the destination `{}`", self.placement.destination))
    }

    fn is_directory(&self, path: &Path) -> Result<bool> {
        let stat = self.target.stat(path).doing(|| format!("look at `/{}`", path.display()))?;
        Ok(stat.is_some_and(|stat| tree::is_directory(&stat)))
    }

    /// Missing ones become root's (or the asked owner's) with mode 0755.
    fn make_directories(&self, path: &Path) -> Result<()> {
        make_directories(self.target, path, self.placement.owner.unwrap_or_default())
    }

    fn entry(&mut self, entry: &mut Entry, path: &Path) -> Result<()> {
        let shown = format!("copy to `/{}`", path.display());
        if matches!(entry.content, Content::Directory) {
            return self.directory(entry, path);
        }
        let spot = self.clear(path)?;
        self.make(entry, path, &spot).doing(|| &shown)
    }

    /// A place for a file, without what was there.
    fn clear(&self, path: &Path) -> Result<Spot> {
        let shown = || format!("copy to `/{}`", path.display());
        let spot = self.target.spot(path).doing(shown)?;
        match spot.stat().doing(shown)? {
            Some(stat) if tree::is_directory(&stat) => {
                let message = format!("cannot replace directory `/{}` with a file", path.display());
                return Err(BuildFailure::new(message));
            }
            Some(_) => tree::remove(&spot.directory, &spot.name).doing(shown)?,
            None => {}
        }
        Ok(spot)
    }

    /// Files whose directories are there, on several processors.
    fn lone_files(&self, mut files: Vec<(&mut Entry, PathBuf)>) -> Result<()> {
        let processors = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let threads = (files.len() / FILES_PER_THREAD).clamp(1, processors);
        let copy = |files: &mut [(&mut Entry, PathBuf)]| {
            let mut buffer = vec![0; BUFFER];
            files.iter_mut().try_for_each(|(entry, path)| {
                let spot = self.clear(path)?;
                self.file(entry, &spot, &mut buffer).doing(|| format!("copy to `/{}`", path.display()))
            })
        };
        if threads == 1 {
            return copy(&mut files);
        }
        let share = files.len().div_ceil(threads);
        thread::scope(|scope| {
            let parts: Vec<_> = files.chunks_mut(share).map(|part| scope.spawn(|| copy(part))).collect();
            let join = |part: thread::ScopedJoinHandle<'_, Result<()>>| {
                part.join()
                    .unwrap_or_else(|_| Err(BuildFailure::new("a thread that copies files broke down")))
            };
            parts.into_iter().try_for_each(join)
        })
    }

    fn directory(&mut self, entry: &Entry, path: &Path) -> Result<()> {
        // A link to a directory of the image takes what goes below it.
        let path = &self
            .target
            .resolve(path, !self.placement.link)
            .doing(|| format!("find `/{}`", path.display()))?;
        make_directories(self.target, path, Ids::default())?;
        let stat = entry.stat.as_ref().expect("directories have one");
        let apply = || {
            let directory = self.target.directory(path)?;
            let attributes =
                pick::attributes(self.source.directory(&entry.from)?, self.placement.from_context)?;
            self.apply(&File::from(directory), entry, &attributes)
        };
        apply().doing(|| format!("set the owner and mode of `/{}`", path.display()))?;
        self.times.push((path.clone(), times(stat)));
        Ok(())
    }

    fn make(&mut self, entry: &mut Entry, path: &Path, spot: &Spot) -> io::Result<()> {
        if let Some(stat) =
            entry.stat.filter(|stat| stat.st_nlink > 1 && matches!(entry.content, Content::File(_)))
        {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                let first = self.target.spot(first)?;
                return Ok(fs::linkat(
                    &first.directory,
                    &first.name,
                    &spot.directory,
                    &spot.name,
                    AtFlags::empty(),
                )?);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match &entry.content {
            Content::Link(target) => {
                fs::symlinkat(target, &spot.directory, &spot.name)?;
                self.apply_at(entry, spot)
            }
            Content::Special => self.special(entry, spot),
            Content::Inline(bytes) => {
                let mut file = create(spot)?;
                io::Write::write_all(&mut file, bytes)?;
                self.apply(&file, entry, &[])
            }
            Content::File(_) => self.file(entry, spot, &mut vec![0; BUFFER]),
            Content::Directory => Ok(()),
        }
    }

    /// Copies the content; what a context's file was when it was copied is known, or it is hashed on the way, so that
    /// the key tells what was really copied.
    fn file(&self, entry: &mut Entry, spot: &Spot, buffer: &mut [u8]) -> io::Result<()> {
        let mut from = self.source.file(&entry.from)?;
        let mut to = create(spot)?;
        let attributes = pick::attributes(&from, self.placement.from_context)?;
        let is_copied = self.copy_known(entry, &mut from, &mut to)?;
        if !is_copied {
            from.rewind()?;
            to.rewind()?;
            to.set_len(0)?;
            let mut hashing = Hashing::new(&mut from);
            copy(&mut hashing, &mut to, buffer)?;
            entry.content = Content::File(pick::with_attributes(hashing.hasher.finish(), &attributes));
        }
        self.apply(&to, entry, &attributes)?;
        let stat = entry.stat.as_ref().expect("files have one");
        Ok(fs::futimens(&to, &times(stat))?)
    }

    /// Copies a file whose digest holds: files of layers never change, one of a context has not since it was picked.
    fn copy_known(&self, entry: &Entry, from: &mut File, to: &mut File) -> io::Result<bool> {
        if !self.placement.from_context {
            return io::copy(from, to).map(|_| true);
        }
        let Some(picked) = entry.stat.filter(|stat| stats::is_settled(stat, SystemTime::now())) else {
            return Ok(false);
        };
        if !stats::is_same(&fs::fstat(&*from)?, &picked) {
            return Ok(false);
        }
        io::copy(from, to)?;
        Ok(stats::is_same(&fs::fstat(&*from)?, &picked))
    }

    fn special(&self, entry: &Entry, spot: &Spot) -> io::Result<()> {
        let stat = entry.stat.as_ref().expect("special files have one");
        match tree::kind(stat) {
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                fs::mknodat(&spot.directory, &spot.name, kind, Mode::empty(), stat.st_rdev)?;
                self.apply_at(entry, spot)
            }
            _ => self.apply(&create(spot)?, entry, &[]),
        }
    }

    fn owner(&self, entry: &Entry) -> Ids {
        match (&self.placement.owner, &entry.stat) {
            (Some(ids), _) => *ids,
            (None, Some(stat)) if !self.placement.from_context => Ids { uid: stat.st_uid, gid: stat.st_gid },
            _ => Ids::default(),
        }
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let own = entry.stat.map_or(0o644, |stat| stat.st_mode & 0o7777);
        let is_directory = matches!(entry.content, Content::Directory);
        Mode::from_raw_mode(match &self.placement.chmod {
            None => own,
            Some(Chmod::Octal(mode)) => *mode,
            Some(Chmod::Symbolic(text)) => symbolic(text, own, is_directory).unwrap_or(own),
        })
    }

    /// Owner first: changing it clears set-id bits.
    fn apply(&self, file: &File, entry: &Entry, attributes: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        let ids = self.owner(entry);
        let (uid, gid) = stack_runtime::snapshot::owner(ids.uid, ids.gid);
        fs::fchown(file, uid, gid)?;
        fs::fchmod(file, self.mode(entry))?;
        for (name, value) in attributes {
            match fs::fsetxattr(file, std::ffi::OsStr::from_bytes(name), value, XattrFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn apply_at(&self, entry: &Entry, spot: &Spot) -> io::Result<()> {
        let ids = self.owner(entry);
        let (uid, gid) = stack_runtime::snapshot::owner(ids.uid, ids.gid);
        fs::chownat(&spot.directory, &spot.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(entry.content, Content::Link(_)) {
            fs::chmodat(&spot.directory, &spot.name, self.mode(entry), AtFlags::empty())?;
        }
        let stat = entry.stat.as_ref().expect("links and special files have one");
        Ok(fs::utimensat(&spot.directory, &spot.name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_times(&self) {
        // The deepest last pushed comes first; a time is nothing to fail for.
        for (path, times) in self.times.iter().rev() {
            let _ = self.target.directory(path).map(|directory| fs::futimens(directory, times));
        }
    }
}

/// One that shares its inode with nothing else, so that it can be copied by itself.
fn is_lone_file(entry: &Entry) -> bool {
    matches!(entry.content, Content::File(_)) && entry.stat.is_some_and(|stat| stat.st_nlink == 1)
}

fn copy(from: &mut impl io::Read, to: &mut impl io::Write, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn create(spot: &Spot) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(&spot.directory, &spot.name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn times(stat: &Stat) -> Timestamps {
    let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
    Timestamps { last_access: mtime, last_modification: mtime }
}

/// Makes the missing directories of a path without links.
pub(super) fn make_directories(target: &Tree, path: &Path, owner: Ids) -> Result<()> {
    let mut done = PathBuf::new();
    for name in path.components() {
        done.push(name);
        let shown = || format!("make directory `/{}`", done.display());
        match target.stat(&done).doing(shown)? {
            Some(stat) if tree::is_directory(&stat) => {}
            Some(_) => {
                return Err(BuildFailure::new(format!("cannot copy to non-directory: /{}", done.display())));
            }
            None => make_directory(target, &done, owner).doing(shown)?,
        }
    }
    Ok(())
}

fn make_directory(target: &Tree, path: &Path, owner: Ids) -> io::Result<()> {
    let spot = target.spot(path)?;
    fs::mkdirat(&spot.directory, &spot.name, Mode::RWXU)?;
    let directory = target.directory(path)?;
    let (uid, gid) = stack_runtime::snapshot::owner(owner.uid, owner.gid);
    fs::fchown(&directory, uid, gid)?;
    Ok(fs::fchmod(&directory, Mode::from_raw_mode(0o755))?)
}

impl Chmod {
    /// # Errors
    /// A sentence.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                )),
            };
        }
        match symbolic(text, 0, false) {
            Some(_) => Ok(Self::Symbolic(text.to_owned())),
            None => Err(format!("invalid chmod parameter: '{text}'")),
        }
    }
}

/// Applies `[ugoa…][+-=][rwxXst…],…` to a mode.
fn symbolic(text: &str, mode: u32, is_directory: bool) -> Option<u32> {
    text.split(',').try_fold(mode, |mode, clause| {
        let at = clause.find(['+', '-', '='])?;
        let (who, rest) = clause.split_at(at);
        let mut classes = 0;
        for c in who.chars() {
            classes |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let classes = if who.is_empty() { 0o7777 } else { classes };
        let bits = permission_bits(&rest[1..], mode, is_directory)? & classes;
        Some(match rest.as_bytes()[0] {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            _ => (mode & !(classes & 0o777)) | bits,
        })
    })
}

fn permission_bits(letters: &str, mode: u32, is_directory: bool) -> Option<u32> {
    letters.chars().try_fold(0, |bits, c| {
        Some(
            bits | match c {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_directory || mode & 0o111 != 0 => 0o111,
                'X' => 0,
                's' => 0o6000,
                't' => 0o1000,
                _ => return None,
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::pick::{Digests, Origin, Selection, file_digest, pick};
    use super::*;
    use stack_runtime::image::Digest;
    use stack_schema::ignore::Patterns;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    struct Read;
    impl Digests for Read {
        fn digest(&self, _: &Path, _: &Stat, open: &dyn Fn() -> io::Result<File>) -> io::Result<Digest> {
            file_digest(&mut open()?, true)
        }
    }

    fn own() -> Ids {
        Ids { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    fn placement(destination: &str) -> Placement {
        let into_directory = destination.ends_with('/');
        Placement {
            destination: destination.into(),
            into_directory,
            owner: Some(own()),
            chmod: None,
            from_context: true,
            link: false,
        }
    }

    struct Bench {
        _directory: tempfile::TempDir,
        from: PathBuf,
        to: PathBuf,
    }

    fn bench() -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::create_dir_all(from.join("d/e")).expect("made");
        std::fs::create_dir_all(to.join("usr/lib")).expect("made");
        std::fs::write(from.join("a"), "A").expect("written");
        std::fs::write(from.join("d/e/x"), "X").expect("written");
        std::fs::hard_link(from.join("d/e/x"), from.join("d/y")).expect("linked");
        symlink("usr/lib", to.join("lib")).expect("linked");
        Bench { _directory: directory, from, to }
    }

    fn copy(bench: &Bench, sources: &[&str], placement: &Placement) -> Result<()> {
        let (source, target) =
            (Tree::open(&bench.from).expect("opened"), Tree::open(&bench.to).expect("opened"));
        let origin = Origin { tree: &source, ignore: &Patterns::default(), is_context: true, digests: &Read };
        let sources = sources.iter().map(|s| (*s).to_owned()).collect();
        let mut picked = pick(&origin, &Selection { sources, ..Selection::default() })?;
        place(&source, &target, &mut picked, placement)
    }

    #[test]
    fn files_and_directories_find_their_place() {
        let bench = bench();
        copy(&bench, &["a"], &placement("/new/name")).expect("copied");
        copy(&bench, &["a"], &placement("/new/dir/")).expect("copied");
        copy(&bench, &["a"], &placement("/usr")).expect("copied");
        copy(&bench, &["d"], &placement("/tree")).expect("copied");
        for path in ["new/name", "new/dir/a", "usr/a", "tree/e/x", "tree/y"] {
            assert!(bench.to.join(path).is_file(), "{path}");
        }
        let inode = |path: &str| std::fs::metadata(bench.to.join(path)).expect("there").ino();
        assert_eq!(inode("tree/e/x"), inode("tree/y"));
        assert_eq!(
            std::fs::metadata(bench.to.join("new")).expect("there").permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn links_of_the_destination_stay_inside() {
        let bench = bench();
        copy(&bench, &["a"], &placement("/lib/")).expect("copied");
        assert!(bench.to.join("usr/lib/a").is_file());
        symlink("/../../from", bench.to.join("escape")).expect("linked");
        copy(&bench, &["a"], &placement("/escape/b")).expect("copied");
        assert!(bench.to.join("from/b").is_file());
        assert!(!bench.from.join("b").exists());
        // A link at the last name inside a directory is replaced, not written through.
        symlink("/usr/lib/a", bench.to.join("usr/a")).expect("linked");
        copy(&bench, &["d/y"], &placement("/usr/lib/a")).expect("copied");
        copy(&bench, &["a"], &placement("/usr/")).expect("copied");
        assert!(bench.to.join("usr/a").symlink_metadata().expect("there").is_file());
    }

    #[test]
    fn conflicts_are_errors() {
        let bench = bench();
        std::fs::write(bench.to.join("file"), "").expect("written");
        assert!(
            copy(&bench, &["d"], &placement("/file")).expect_err("no").to_string().contains("non-directory")
        );
        std::fs::create_dir_all(bench.to.join("x/a")).expect("made");
        assert!(
            copy(&bench, &["a"], &placement("/x/")).expect_err("no").to_string().contains("cannot replace")
        );
    }

    #[test]
    fn times_and_modes_travel() {
        let bench = bench();
        let when = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        File::open(bench.from.join("a")).and_then(|f| f.set_modified(when)).expect("set");
        copy(&bench, &["a"], &Placement { chmod: Some(Chmod::Octal(0o640)), ..placement("/b") })
            .expect("copied");
        let meta = std::fs::metadata(bench.to.join("b")).expect("there");
        assert_eq!((meta.modified().expect("a time"), meta.permissions().mode() & 0o7777), (when, 0o640));
    }

    #[test]
    fn symbolic_modes() {
        assert_eq!(symbolic("u=rwX,go=rX", 0o600, true), Some(0o755));
        assert_eq!(symbolic("u=rwX,go=rX", 0o600, false), Some(0o644));
        assert_eq!(symbolic("+x", 0o644, false), Some(0o755));
        assert_eq!(symbolic("go-rwx,u+s", 0o755, false), Some(0o4700));
        assert_eq!(symbolic("u", 0, false), None);
        assert!(Chmod::parse("8").is_err() && Chmod::parse("17777").is_err() && Chmod::parse("q+x").is_err());
        assert_eq!(Chmod::parse("0755"), Ok(Chmod::Octal(0o755)));
    }
}
