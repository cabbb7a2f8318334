//! Directories that COPY, ADD and bind mounts take from: the build context and named ones.
//!
//! Ignore files: `<Dockerfile>.dockerignore` beside the Dockerfile wins over `.dockerignore` in the context.
//!
//! Digests of files are remembered by path, inode, size and times of change, so that a build where nothing
//! changed reads no file. A file that changed within the last two seconds is read again next time, since its
//! next change may leave the same times.

use super::cache::Cache;
use super::failure::{BuildFailure, Result};
use super::key::Key;
use super::pick::{self, Digests};
use super::tree::Tree;
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};
use stack_runtime::image::Digest;
use stack_schema::diagnostic::Diagnostic;
use stack_schema::ignore::Patterns;
use stack_schema::source::{Place, Source};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest ignore file that is read.
const IGNORE_BYTES_MAX: u64 = 1 << 20;
const SETTLED_SECONDS: i64 = 2;

pub(super) struct Context {
    pub(super) tree: Tree,
    pub(super) ignore: Patterns,
    pub(super) digests: StatDigests,
}

impl Context {
    /// `dockerfile`: the absolute path of the Dockerfile, for its own ignore file.
    pub(super) fn open(directory: &Path, dockerfile: Option<&Path>, cache: &Cache) -> Result<Self> {
        let tree = Tree::open(directory).map_err(|e| {
            let hint = "`build.context` has to be a directory.";
            BuildFailure::new(format!("failed to open the build context {}: {e}", directory.display()))
                .hint(hint)
        })?;
        let ignore = ignore_file(directory, dockerfile)?;
        Ok(Self { tree, ignore, digests: StatDigests::load(directory, cache) })
    }
}

fn ignore_file(directory: &Path, dockerfile: Option<&Path>) -> Result<Patterns> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([directory.join(".dockerignore")]) {
        match read_bounded(&path) {
            Ok(text) => return parse_ignore(&path, text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(BuildFailure::doing(format!("read {}", path.display()), e)),
        }
    }
    Ok(Patterns::default())
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if file.metadata()?.len() > IGNORE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB"));
    }
    io::read_to_string(file)
}

fn parse_ignore(path: &Path, text: String) -> Result<Patterns> {
    Patterns::parse(&text).map_err(|error| {
        let start = text.split_inclusive('\n').take(error.line - 1).map(str::len).sum();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = Source { name, path: Some(path.to_owned()), text: text.clone() };
        Diagnostic::error(error.to_string()).at(Place { source: Arc::new(source), start, end: start }).into()
    })
}

/// Size, inode and times of a file, with the digest it had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    inode: (u64, u64),
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
    digest: Digest,
}

type Table = BTreeMap<String, Known>;

/// See the module.
pub(super) struct StatDigests {
    key: Digest,
    before: Table,
    now: Mutex<Table>,
}

impl StatDigests {
    fn load(directory: &Path, cache: &Cache) -> Self {
        let key = Key::new("context").bytes("path", directory.as_os_str().as_bytes()).finish();
        let before = cache.read_context(&key).unwrap_or_default();
        Self { key, before, now: Mutex::default() }
    }

    /// Keeps what was seen; entries of files that this build did not look at stay.
    pub(super) fn save(&self, cache: &Cache) {
        let now = self.now.lock().expect("never poisoned: nothing panics while it is held");
        if now.iter().all(|(path, known)| self.before.get(path) == Some(known)) {
            return;
        }
        let mut table = self.before.clone();
        table.extend(now.iter().map(|(path, known)| (path.clone(), known.clone())));
        cache.write_context(&self.key, &table);
    }
}

impl Digests for StatDigests {
    fn digest(&self, path: &Path, stat: &Stat, open: &dyn Fn() -> io::Result<File>) -> io::Result<Digest> {
        let text = path.to_string_lossy().into_owned();
        if let Some(known) = self.before.get(&text).filter(|known| known.is(stat)) {
            return Ok(known.digest.clone());
        }
        let mut file = open()?;
        // What was opened may be newer than what was seen.
        let stat = rustix::fs::fstat(&file)?;
        let digest = pick::file_digest(&mut file, true)?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs().cast_signed());
        if stat.st_ctime < seconds - SETTLED_SECONDS
            && stat.st_mtime < seconds - SETTLED_SECONDS
            && path.to_str().is_some()
        {
            let known = Known::new(&stat, digest.clone());
            self.now.lock().expect("never poisoned: nothing panics while it is held").insert(text, known);
        }
        Ok(digest)
    }
}

impl Known {
    fn new(stat: &Stat, digest: Digest) -> Self {
        Self {
            inode: (stat.st_dev, stat.st_ino),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
            digest,
        }
    }

    fn is(&self, stat: &Stat) -> bool {
        *self == Self::new(stat, self.digest.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_runtime::home::Home;
    use std::cell::Cell;

    #[test]
    fn the_own_ignore_file_wins_and_errors_have_places() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("written");
        let dockerfile = directory.path().join("x.Dockerfile");
        let ignored = |path: &str| ignore_file(directory.path(), Some(&dockerfile)).map(|p| p.matches(path));
        assert!(!ignored("a").expect("none"));
        write(".dockerignore", "a");
        assert!(ignored("a").expect("read"));
        write("x.Dockerfile.dockerignore", "");
        assert!(!ignored("a").expect("read"));
        write("x.Dockerfile.dockerignore", "ok\n[");
        assert!(ignored("a").expect_err("bad").render().contains("x.Dockerfile.dockerignore:2:1"));
    }

    #[test]
    fn unchanged_files_are_not_read_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = Home { data: directory.path().join("data"), run: directory.path().join("run") };
        let cache = Cache::open(&home).expect("a cache");
        let file = File::create(directory.path().join("f")).expect("made");
        let reads = Cell::new(0);
        let mut stat = rustix::fs::fstat(&file).expect("stat");
        stat.st_ctime -= 100;
        let ask = |digests: &StatDigests, stat: &Stat| {
            let open = || {
                reads.set(reads.get() + 1);
                File::open(directory.path().join("f"))
            };
            digests.digest(Path::new("f"), stat, &open).expect("read")
        };
        let first = StatDigests::load(directory.path(), &cache);
        let digest = ask(&first, &stat);
        // Too fresh to be trusted; remember it by hand as a settled one.
        first.now.lock().expect("held by nobody").insert("f".into(), Known::new(&stat, digest.clone()));
        first.save(&cache);
        let second = StatDigests::load(directory.path(), &cache);
        assert_eq!(ask(&second, &stat), digest);
        assert_eq!(reads.get(), 1);
        stat.st_size += 1;
        ask(&second, &stat);
        assert_eq!(reads.get(), 2);
    }
}
