//! Directories that COPY, ADD and bind mounts take from: the build context and named ones.
//!
//! Ignore files: `<Dockerfile>.dockerignore` beside the Dockerfile wins over `.dockerignore` in the context.

use super::cache::Cache;
use super::failure::{BuildFailure, Result};
use super::stats::StatDigests;
use super::tree::Tree;
use stack_schema::diagnostic::Diagnostic;
use stack_schema::ignore::Patterns;
use stack_schema::source::{Place, Source};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest ignore file that is read.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

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

/// The patterns of the ignore file that counts.
pub(super) fn ignore_file(directory: &Path, dockerfile: Option<&Path>) -> Result<Patterns> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
