//! The files a COPY or ADD means.
//!
//! [`pick`] matches the written sources in a tree, leaves out what is ignored or excluded, and lists every entry in
//! a fixed order; [`digest`] is the content's part of a cache key: names, types, modes, owners, link targets,
//! devices, content with extended attributes, never times.
//!
//! Errors: a plain source that does not exist (with a hint when it is ignored), a bad pattern, what the
//! operating system refuses, more than [`ENTRIES_MAX`] entries.

use super::failure::{BuildFailure, Doing, Result};
use super::key::Key;
use super::remote::Remote;
use super::tree::{self, Tree};
use rustix::fs::{FileType, Stat};
use stack_runtime::image::Digest;
use stack_schema::ignore::{Glob, Patterns, clean, has_wildcard};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most entries of one instruction.
const ENTRIES_MAX: usize = 2_000_000;
/// The deepest directory nesting, far above what paths allow in practice.
const DEPTH_MAX: usize = 512;

/// Where sources are taken from.
pub(super) struct Origin<'a> {
    pub(super) tree: &'a Tree,
    /// Of the context; empty for stages.
    pub(super) ignore: &'a Patterns,
    /// Files of a context belong to root in the image and keep only `user.` attributes.
    pub(super) is_context: bool,
    /// Content digests; stages need none while they are copied.
    pub(super) digests: &'a dyn Digests,
}

/// Gives the digest of a regular file's content and attributes.
pub(super) trait Digests {
    fn digest(
        &self,
        path: &Path,
        stat: &Stat,
        open: &dyn Fn() -> std::io::Result<File>,
    ) -> std::io::Result<Digest>;
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Directory,
    File(Digest),
    Link(OsString),
    /// Pipe, device, or a socket (which arrives as an empty file).
    Special,
    /// A heredoc's body.
    Inline(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Below the destination; empty for a single file.
    pub(super) to: PathBuf,
    /// In the origin's tree, without links.
    pub(super) from: PathBuf,
    /// `None`: made by us.
    pub(super) stat: Option<Stat>,
    pub(super) content: Content,
}

/// What one source (or one match of its pattern) brings.
#[derive(Debug, Clone)]
pub(super) struct Picked {
    /// The last name, for a file that goes into a directory.
    pub(super) name: OsString,
    /// Its contents go into the destination.
    pub(super) is_directory: bool,
    /// `--parents`: directories to make below the destination.
    pub(super) parents: PathBuf,
    pub(super) entries: Vec<Entry>,
    /// Where it comes from, if not from the origin.
    pub(super) tree: Option<Arc<Tree>>,
    /// What a server said about its time, in seconds since 1970.
    pub(super) modified: Option<i64>,
}

impl Picked {
    pub(super) fn remote(remote: &Remote) -> std::io::Result<Self> {
        let content = Content::File(remote.digest.clone());
        let stat = Some(super::remote::stat(remote)?);
        let entry = Entry { to: PathBuf::new(), from: remote.file.clone(), stat, content };
        let name = remote.name().into();
        let (tree, modified) = (Some(remote.tree.clone()), remote.modified);
        Ok(Self { name, is_directory: false, parents: PathBuf::new(), entries: vec![entry], tree, modified })
    }

    pub(super) fn inline(name: &str, body: String) -> Self {
        let content = Content::Inline(body.into_bytes());
        let entry = Entry { to: PathBuf::new(), from: PathBuf::new(), stat: None, content };
        Self {
            name: name.into(),
            is_directory: false,
            parents: PathBuf::new(),
            entries: vec![entry],
            tree: None,
            modified: None,
        }
    }
}

/// How sources are selected.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// Expanded.
    pub(super) sources: Vec<String>,
    pub(super) excludes: Patterns,
    pub(super) parents: bool,
}

pub(super) fn pick(origin: &Origin<'_>, selection: &Selection) -> Result<Vec<Picked>> {
    let mut picked = Vec::new();
    for source in &selection.sources {
        let mut picker = Picker { origin, selection, count: 0, source };
        for path in picker.matching()? {
            picked.extend(picker.take(&path)?);
        }
    }
    Ok(picked)
}

struct Picker<'a> {
    origin: &'a Origin<'a>,
    selection: &'a Selection,
    count: usize,
    source: &'a str,
}

impl Picker<'_> {
    fn matching(&self) -> Result<Vec<PathBuf>> {
        let path = clean(self.source);
        if !has_wildcard(&path) {
            return Ok(vec![unescape(&path).into()]);
        }
        let mut found = vec![PathBuf::new()];
        for part in path.split('/') {
            found = self.matching_names(&found, part)?;
        }
        found.retain(|path| !self.is_ignored(path) || self.may_contain_more(path));
        Ok(found)
    }

    fn matching_names(&self, directories: &[PathBuf], part: &str) -> Result<Vec<PathBuf>> {
        let glob = Glob::new(part)
            .map_err(|why| BuildFailure::new(format!("invalid pattern `{}`: {why}", self.source)))?;
        let mut found = Vec::new();
        for directory in directories {
            let real = self
                .origin
                .tree
                .resolve(directory, true)
                .doing(|| format!("look into `{}`", directory.display()))?;
            match self.origin.tree.names(&real) {
                Ok(names) => found.extend(
                    names.iter().filter(|n| glob.matches(&n.to_string_lossy())).map(|n| directory.join(n)),
                ),
                Err(e) if tree::is_absent(&e) => {}
                Err(e) => return Err(BuildFailure::doing(format!("look into `{}`", directory.display()), e)),
            }
        }
        Ok(found)
    }

    fn is_ignored(&self, path: &Path) -> bool {
        !self.origin.ignore.is_empty() && self.origin.ignore.matches(&path.to_string_lossy())
    }

    fn may_contain_more(&self, path: &Path) -> bool {
        self.origin.ignore.may_take_back_below(&path.to_string_lossy())
    }

    /// A path that exists, followed if it is a link.
    fn take(&mut self, path: &Path) -> Result<Option<Picked>> {
        let path = if path == Path::new(".") { Path::new("") } else { path };
        let shown = path.display();
        let real = self.origin.tree.resolve(path, true).doing(|| format!("find `{shown}`"))?;
        let stat = self.origin.tree.stat(&real).doing(|| format!("read `{shown}`"))?;
        let Some(stat) = stat else { return self.missing(path) };
        let is_directory = tree::is_directory(&stat);
        let is_root = real.as_os_str().is_empty();
        if !is_root && self.is_ignored(&real) && !(is_directory && self.may_contain_more(&real)) {
            return self.missing(path);
        }
        let name = path.file_name().unwrap_or_default().to_owned();
        let mut picked = Picked {
            name,
            is_directory,
            parents: self.parents_of(path, is_directory),
            entries: Vec::new(),
            tree: None,
            modified: None,
        };
        if is_directory {
            self.walk(&real, Path::new(""), &mut picked.entries, 0)?;
        } else if self.is_excluded(Path::new(&picked.name)) {
            return Ok(None);
        } else {
            picked.entries.push(self.entry(real, PathBuf::new(), stat)?);
        }
        Ok(Some(picked))
    }

    /// With `--parents` the source's directories, from its `/./` on if it has one.
    fn parents_of(&self, path: &Path, is_directory: bool) -> PathBuf {
        if !self.selection.parents {
            return PathBuf::new();
        }
        let skipped = self.source.split_once("/./").map_or(0, |(before, _)| match clean(before).as_str() {
            "." => 0,
            before => before.split('/').count(),
        });
        let kept: PathBuf = path.components().skip(skipped).collect();
        if is_directory { kept } else { kept.parent().map(Path::to_owned).unwrap_or_default() }
    }

    fn missing(&self, path: &Path) -> Result<Option<Picked>> {
        if has_wildcard(&clean(self.source)) {
            return Ok(None);
        }
        let failure = BuildFailure::new(format!("`{}` not found", self.source));
        if self.is_ignored(path) {
            return Err(failure.hint("A pattern of the .dockerignore file leaves it out."));
        }
        let from =
            if self.origin.is_context { "the build context" } else { "the stage or image it is copied from" };
        Err(failure.hint(format!("Paths are looked up in {from}.")))
    }

    fn is_excluded(&self, path: &Path) -> bool {
        !self.selection.excludes.is_empty() && self.selection.excludes.matches(&path.to_string_lossy())
    }

    /// Lists what is below a directory; true if there was anything.
    fn walk(&mut self, real: &Path, to: &Path, entries: &mut Vec<Entry>, depth: usize) -> Result<bool> {
        if depth > DEPTH_MAX {
            return Err(BuildFailure::new(format!("`{}` is nested too deeply", self.source)));
        }
        let before = entries.len();
        let listed = self.origin.tree.list(real).doing(|| format!("read directory `{}`", real.display()))?;
        for (name, stat) in listed {
            let (from, to) = (real.join(&name), to.join(&name));
            let out = self.is_ignored(&from) || self.is_excluded(&to);
            let is_directory = tree::is_directory(&stat);
            if out && !(is_directory && self.comes_back_below(&from, &to)) {
                continue;
            }
            let at = entries.len();
            entries.push(self.entry(from.clone(), to.clone(), stat)?);
            if is_directory && !self.walk(&from, &to, entries, depth + 1)? && out {
                entries.truncate(at);
            }
        }
        Ok(entries.len() > before)
    }

    fn comes_back_below(&self, from: &Path, to: &Path) -> bool {
        self.may_contain_more(from) || self.selection.excludes.may_take_back_below(&to.to_string_lossy())
    }

    fn entry(&mut self, from: PathBuf, to: PathBuf, stat: Stat) -> Result<Entry> {
        self.count += 1;
        if self.count > ENTRIES_MAX {
            return Err(BuildFailure::new(format!("`{}` has more than {ENTRIES_MAX} entries", self.source)));
        }
        let content = self.content(&from, &stat).doing(|| format!("read `{}`", from.display()))?;
        Ok(Entry { to, from, stat: Some(stat), content })
    }

    fn content(&self, from: &Path, stat: &Stat) -> std::io::Result<Content> {
        let tree = self.origin.tree;
        Ok(match tree::kind(stat) {
            FileType::Directory => Content::Directory,
            FileType::Symlink => Content::Link(tree.link(from)?),
            FileType::RegularFile => {
                Content::File(self.origin.digests.digest(from, stat, &|| tree.file(from))?)
            }
            _ => Content::Special,
        })
    }
}

/// A path without wildcards may still have escaped ones.
fn unescape(path: &str) -> String {
    let mut out = String::new();
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// Content and attributes of an open file.
pub(super) fn file_digest(file: &mut File, is_context: bool) -> std::io::Result<Digest> {
    let attributes = attributes(&*file, is_context)?;
    let content = Digest::of_reader(file)?;
    Ok(with_attributes(content, &attributes))
}

pub(super) fn with_attributes(content: Digest, attributes: &[(Vec<u8>, Vec<u8>)]) -> Digest {
    if attributes.is_empty() {
        return content;
    }
    let key = attributes
        .iter()
        .fold(Key::new("file"), |key, (name, value)| key.bytes("name", name).bytes("value", value));
    key.text("content", content.as_str()).finish()
}

/// Extended attributes that travel: `user.` ones, from stages also the others except overlayfs's own.
pub(super) fn attributes(file: impl AsFd, is_context: bool) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match attribute(|buffer| rustix::fs::flistxattr(&file, buffer)) {
        Ok(names) => names,
        // File systems without attributes.
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let travels = (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || (!is_context
                && !name.starts_with(b"trusted.overlay.")
                && !name.starts_with(b"user.overlay.")
                && !name.starts_with(b"security.selinux"));
        if travels {
            let key = std::ffi::OsStr::from_bytes(name);
            found.push((name.to_vec(), attribute(|buffer| rustix::fs::fgetxattr(&file, key, buffer))?));
        }
    }
    found.sort();
    Ok(found)
}

/// Most files have none or short ones; none is larger than 64 KiB.
fn attribute(
    read: impl Fn(&mut [u8]) -> std::result::Result<usize, rustix::io::Errno>,
) -> std::result::Result<Vec<u8>, rustix::io::Errno> {
    let mut small = [0; 256];
    match read(&mut small) {
        Err(rustix::io::Errno::RANGE) => {
            let mut large = vec![0; 64 << 10];
            let length = read(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        length => length.map(|length| small[..length].to_vec()),
    }
}

/// Part of a cache key. `own_owners`: the owners of the source matter.
pub(super) fn digest(picked: &[Picked], own_owners: bool) -> Digest {
    let mut key = Key::new("pick");
    for item in picked {
        key = key.bytes("name", item.name.as_bytes()).number("directory", u64::from(item.is_directory));
        key = key.bytes("parents", item.parents.as_os_str().as_bytes());
        if let Some(modified) = item.modified {
            key = key.number("modified", modified.cast_unsigned());
        }
        for entry in &item.entries {
            key = entry_key(key, entry, own_owners);
        }
    }
    key.finish()
}

fn entry_key(key: Key, entry: &Entry, own_owners: bool) -> Key {
    let mut key = key.bytes("to", entry.to.as_os_str().as_bytes());
    if let Some(stat) = &entry.stat {
        key = key.number("mode", u64::from(stat.st_mode));
        if own_owners {
            key = key.number("uid", u64::from(stat.st_uid)).number("gid", u64::from(stat.st_gid));
        }
        if matches!(entry.content, Content::Special) {
            key = key.number("device", stat.st_rdev);
        }
    }
    match &entry.content {
        Content::Directory => key.text("type", "directory"),
        Content::File(digest) => key.text("file", digest.as_str()),
        Content::Link(target) => key.bytes("link", target.as_bytes()),
        Content::Special => key.text("type", "special"),
        Content::Inline(bytes) => key.bytes("inline", bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Read;
    impl Digests for Read {
        fn digest(
            &self,
            _: &Path,
            _: &Stat,
            open: &dyn Fn() -> std::io::Result<File>,
        ) -> std::io::Result<Digest> {
            file_digest(&mut open()?, true)
        }
    }

    fn context() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        for path in ["src/deep", "node_modules/a", "logs"] {
            std::fs::create_dir_all(root.join(path)).expect("made");
        }
        for path in [
            "src/main.rs",
            "src/deep/x.txt",
            "node_modules/a/i.js",
            "logs/a.log",
            "logs/keep.log",
            "README.md",
            "b.md",
        ] {
            std::fs::write(root.join(path), path).expect("written");
        }
        symlink("src/main.rs", root.join("link")).expect("linked");
        symlink("/etc/passwd", root.join("out")).expect("linked");
        directory
    }

    fn picked(
        directory: &Path,
        ignore: &str,
        sources: &[&str],
        excludes: &[&str],
        parents: bool,
    ) -> Result<Vec<String>> {
        let tree = Tree::open(directory).expect("opened");
        let ignore = Patterns::parse(ignore).expect("valid");
        let origin = Origin { tree: &tree, ignore: &ignore, is_context: true, digests: &Read };
        let excludes = Patterns::from_list(excludes).expect("valid");
        let sources = sources.iter().map(|s| (*s).to_owned()).collect();
        let picked = pick(&origin, &Selection { sources, excludes, parents })?;
        let line = |p: &Picked| {
            let paths: Vec<String> = p.entries.iter().map(|e| e.to.display().to_string()).collect();
            let name = if p.is_directory { "/".into() } else { p.name.to_string_lossy().into_owned() };
            format!("{}{name}{}", p.parents.display(), paths.join(" "))
        };
        Ok(picked.iter().map(line).collect())
    }

    #[test]
    fn directories_bring_their_contents_without_what_is_ignored() {
        let context = context();
        let found = picked(context.path(), "node_modules\nlogs\n!logs/keep.log\n*.md", &["."], &[], false)
            .expect("found");
        assert_eq!(found, ["/link logs logs/keep.log out src src/deep src/deep/x.txt src/main.rs"]);
    }

    #[test]
    fn patterns_match_and_may_match_nothing() {
        let context = context();
        let found = |sources: &[&str]| picked(context.path(), "b.md", sources, &[], false);
        assert_eq!(found(&["*.md", "zz*"]).expect("found"), ["README.md"]);
        assert_eq!(found(&["s*/*.rs"]).expect("found"), ["main.rs"]);
        assert_eq!(found(&["/../src"]).expect("found"), ["/deep deep/x.txt main.rs"]);
        let error = found(&["b.md"]).expect_err("ignored");
        assert!(error.render().contains(".dockerignore"), "{}", error.render());
        assert!(found(&["nope"]).is_err());
        assert!(found(&["["]).is_err());
    }

    #[test]
    fn source_links_are_followed_inside_the_context_only() {
        let context = context();
        assert_eq!(picked(context.path(), "", &["link"], &[], false).expect("found"), ["link"]);
        assert!(picked(context.path(), "", &["out"], &[], false).is_err());
    }

    #[test]
    fn excludes_and_parents() {
        let context = context();
        let found = picked(context.path(), "", &["src"], &["*.rs"], false).expect("found");
        assert_eq!(found, ["/deep deep/x.txt"]);
        let found = picked(context.path(), "", &["src/deep/x.txt", "src/./deep"], &[], true).expect("found");
        assert_eq!(found, ["src/deepx.txt", "deep/x.txt"]);
    }

    #[test]
    fn the_digest_ignores_times_and_sees_the_rest() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("f");
        std::fs::write(&file, "a").expect("written");
        let digest = || {
            let tree = Tree::open(directory.path()).expect("opened");
            let origin =
                Origin { tree: &tree, ignore: &Patterns::default(), is_context: true, digests: &Read };
            let selection = Selection { sources: vec![".".into()], ..Selection::default() };
            super::digest(&pick(&origin, &selection).expect("picked"), false)
        };
        let first = digest();
        File::open(&file).and_then(|f| f.set_modified(std::time::SystemTime::UNIX_EPOCH)).expect("set");
        assert_eq!(digest(), first);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        let second = digest();
        assert_ne!(second, first);
        std::fs::write(&file, "b").expect("written");
        assert_ne!(digest(), second);
    }
}
