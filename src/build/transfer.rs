//! COPY and ADD: what they mean, their key, and making their layer. Everything here blocks.

use super::context::Context;
use super::explain;
use super::failure::{BuildFailure, Doing, Result};
use super::git::{self, Repository};
use super::key::{Key, Part};
use super::owners::{self, Ids};
use super::pick::{self, Digests, Origin, Picked, Selection, file_digest, pick};
use super::place::{Chmod, Placement, place};
use super::remote::{self, Remote};
use super::shared::{Shared, blocking};
use super::state::{State, Words};
use super::tree::Tree;
use super::unpack;
use super::view::{Layers, Mounts, isolated};
use rustix::fs::Stat;
use stack_runtime::image::Digest;
use stack_runtime::snapshot::{self, Layer, Working};
use stack_schema::dockerfile::{Transfer, TransferSource};
use stack_schema::ignore::Patterns;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Where files come from.
#[derive(Clone)]
pub(super) enum Source {
    Context(Arc<Context>),
    /// Chain id; empty: nothing in it.
    Chain(String),
}

/// One COPY or ADD with all words expanded.
pub(super) struct Plan {
    keyword: &'static str,
    items: Vec<Item>,
    destination: String,
    into_directory: bool,
    chown: Option<String>,
    chmod: Option<Chmod>,
    chmod_text: Option<String>,
    link: bool,
    parents: bool,
    excludes: Vec<String>,
    unpack: bool,
    /// Downloads are only unpacked when that is written.
    unpack_remote: bool,
    checksum: Option<String>,
    /// What the addresses gave, in their order.
    remotes: Vec<Remote>,
    /// What the repositories hold, in their order.
    checkouts: Vec<Arc<Tree>>,
    from: Source,
    /// The latest time of what is copied.
    epoch: Option<i64>,
    created_by: String,
}

enum Item {
    Path(String),
    Inline { name: String, body: String },
    Remote(String),
    Repository(Repository),
}

type Text<T> = std::result::Result<T, String>;

/// # Errors
/// Sentences about the instruction's words.
pub(super) fn plan(
    transfer: &Transfer,
    keyword: &'static str,
    from: Source,
    state: &State,
    words: &Words<'_>,
    epoch: Option<i64>,
) -> Text<Plan> {
    let word = |text: &String| words.word(state, text);
    let chown = transfer.chown.as_ref().map(word).transpose()?.filter(|text| !text.is_empty());
    let chmod_text = transfer.chmod.as_ref().map(word).transpose()?.filter(|text| !text.is_empty());
    let checksum = transfer.checksum.as_ref().map(word).transpose()?.filter(|text| !text.is_empty());
    let paths = paths(transfer, state, words)?;
    let destination = word(&transfer.destination)?;
    let created_by = created_by(transfer, keyword, [&chown, &chmod_text], &paths, &destination);
    let mut paths = paths.into_iter();
    let items = transfer
        .sources
        .iter()
        .map(|source| item(source, &mut paths, keyword, state, words))
        .collect::<Text<Vec<_>>>()?;
    let into_directory = destination.ends_with('/') || destination == "." || destination.ends_with("/.");
    if checksum.is_some() && items.iter().filter(|item| !matches!(item, Item::Inline { .. })).count() != 1 {
        return Err("checksum can't be specified for multiple sources".into());
    }
    if checksum.is_some() && items.iter().any(|item| matches!(item, Item::Path(_))) {
        return Err("checksum can't be specified for sources that are not remote".into());
    }
    let items = items.into_iter().map(|item| match item {
        Item::Repository(repository) => {
            Item::Repository(repository.with(checksum.as_deref(), transfer.keep_git))
        }
        item => item,
    });
    let items = items.collect();
    Ok(Plan {
        keyword,
        items,
        destination: state.absolute(&destination),
        into_directory,
        chown,
        chmod: chmod_text.as_deref().map(Chmod::parse).transpose()?,
        // Links of the destination are followed when a mode is set, as in BuildKit.
        link: transfer.link && chmod_text.is_none(),
        chmod_text,
        parents: transfer.parents,
        excludes: transfer.excludes.clone(),
        unpack: keyword == "ADD" && transfer.unpack.unwrap_or(true),
        unpack_remote: transfer.unpack == Some(true),
        checksum,
        remotes: Vec::new(),
        checkouts: Vec::new(),
        from,
        epoch,
        created_by,
    })
}

fn paths(transfer: &Transfer, state: &State, words: &Words<'_>) -> Text<Vec<String>> {
    let paths = transfer.sources.iter().filter_map(|source| match source {
        TransferSource::Path(path) => Some(words.word(state, path)),
        TransferSource::Inline(_) => None,
    });
    paths.collect()
}

/// The line of the history: what ends in the image, not where it is from.
fn created_by(
    transfer: &Transfer,
    keyword: &str,
    [chown, chmod]: [&Option<String>; 2],
    paths: &[String],
    destination: &str,
) -> String {
    let mut parts = vec![keyword.to_owned()];
    parts.extend(transfer.parents.then(|| "--parents".to_owned()));
    parts.extend(chown.as_ref().map(|chown| format!("--chown={chown}")));
    parts.extend(chmod.as_ref().map(|chmod| format!("--chmod={chmod}")));
    parts.extend_from_slice(paths);
    parts.extend(transfer.sources.iter().filter_map(|source| match source {
        TransferSource::Inline(heredoc) => Some(format!("<<{}", heredoc.name)),
        TransferSource::Path(_) => None,
    }));
    parts.push(destination.to_owned());
    format!("{} # buildkit", parts.join(" "))
}

/// `paths`: those of the sources that are paths, expanded.
fn item(
    source: &TransferSource,
    paths: &mut dyn Iterator<Item = String>,
    keyword: &str,
    state: &State,
    words: &Words<'_>,
) -> Text<Item> {
    let path = match source {
        TransferSource::Inline(heredoc) => {
            let body = heredoc.body();
            let body = if heredoc.expand { words.body(state, &body)? } else { body };
            return Ok(Item::Inline { name: heredoc.name.clone(), body });
        }
        TransferSource::Path(_) => paths.next().expect("one for every source that is a path"),
    };
    match keyword {
        "ADD" if git::is_source(&path) => Repository::parse(&path).map(Item::Repository),
        "ADD" if remote::is_http(&path) => Ok(Item::Remote(path)),
        "COPY" if git::is_source(&path) => Err("the source of COPY can't be a git repository".into()),
        "COPY" if remote::is_http(&path) => Err("the source of COPY can't be a URL".into()),
        _ => Ok(Item::Path(path)),
    }
}

/// Everything in a checkout.
fn pick_all(tree: &Arc<Tree>, excludes: &Patterns) -> Result<Vec<Picked>> {
    let ignore = Patterns::default();
    let origin = Origin { tree, ignore: &ignore, is_context: true, digests: &ReadContextDigests };
    let selection = Selection { sources: vec![".".into()], excludes: excludes.clone(), parents: false };
    let mut picked = pick(&origin, &selection)?;
    picked.iter_mut().for_each(|item| item.tree = Some(tree.clone()));
    Ok(picked)
}

impl Plan {
    /// The instruction as history shows it.
    pub(super) fn created_by(&self) -> String {
        self.created_by.clone()
    }

    /// Sources in the context, or wherever it copies from.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.items.iter().filter_map(|item| match item {
            Item::Path(path) => Some(path.as_str()),
            _ => None,
        })
    }

    /// Its layer does not depend on what is below it, so it is made, and found, on nothing.
    pub(super) fn is_independent(&self) -> bool {
        self.link
    }

    /// What the layer is made on.
    fn base<'a>(&self, parent: &'a str) -> &'a str {
        if self.is_independent() { "" } else { parent }
    }

    fn keeps_owners(&self) -> bool {
        self.chown.is_none() && matches!(self.from, Source::Chain(_))
    }

    /// Downloads what has an address.
    pub(super) async fn obtain(&mut self, shared: &Arc<Shared>) -> Result<()> {
        for item in &self.items {
            match item {
                Item::Remote(url) => {
                    self.remotes.push(remote::obtain(shared, url, self.checksum.as_deref()).await?);
                }
                Item::Repository(repository) => {
                    let (shared, repository) = (shared.clone(), repository.clone());
                    let tree = blocking(move || {
                        let directory = git::directory(&shared.cache)?;
                        let meant = repository.check_out(&directory, &shared.request)?;
                        Tree::open(&meant).doing(|| "open a checkout")
                    });
                    self.checkouts.push(Arc::new(tree.await?));
                }
                Item::Path(_) | Item::Inline { .. } => {}
            }
        }
        Ok(())
    }

    fn pick(&self, origin: &Origin<'_>) -> Result<Vec<Picked>> {
        let excludes = Patterns::from_list(&self.excludes).map_err(|e| BuildFailure::new(e.to_string()))?;
        let mut picked = Vec::new();
        let mut remotes = self.remotes.iter();
        let mut checkouts = self.checkouts.iter();
        for item in &self.items {
            match item {
                Item::Inline { name, body } => picked.push(Picked::inline(name, body.clone())),
                Item::Remote(url) => {
                    let remote = remotes.next().expect("each address was obtained");
                    picked.push(Picked::remote(remote).doing(|| format!("read what {url} gave"))?);
                }
                Item::Repository(_) => {
                    let tree = checkouts.next().expect("each repository was checked out");
                    picked.extend(pick_all(tree, &excludes)?);
                }
                Item::Path(path) => {
                    let selection = Selection {
                        sources: vec![path.clone()],
                        excludes: excludes.clone(),
                        parents: self.parents,
                    };
                    picked.extend(pick(origin, &selection)?);
                }
            }
        }
        Ok(picked)
    }

    /// What selects the content, besides the origin.
    fn selection_key(&self, key: Key) -> Key {
        let key = self.items.iter().fold(key, |key, item| match item {
            Item::Path(path) => key.text("path", path),
            Item::Inline { name, body } => key.text("inline", name).text("body", body),
            Item::Remote(url) => key.text("url", url),
            Item::Repository(repository) => key.text("repository", &format!("{repository:?}")),
        });
        let key = key.list("excludes", self.excludes.iter().map(String::as_str));
        key.number("parents", u64::from(self.parents)).number("owners", u64::from(self.keeps_owners()))
    }

    /// Under what the digest of this selection of a chain's files is remembered.
    fn memo(&self, chain: &str) -> Digest {
        self.selection_key(Key::new("chain content").text("chain", chain)).finish()
    }

    fn key(&self, parent: &str, content: &Digest, owner: Option<Ids>) -> (Digest, Vec<Part>) {
        let key = Key::of_step("transfer").text("keyword", self.keyword).text("parent", self.base(parent));
        let key = key.text("content", content.as_str()).text("destination", &self.destination);
        let key =
            key.number("into directory", u64::from(self.into_directory)).number("link", u64::from(self.link));
        let key = key.optional("chmod", self.chmod_text.as_deref()).number("unpack", u64::from(self.unpack));
        let key = key.number("unpack remote", u64::from(self.unpack_remote));
        let key = match self.epoch {
            Some(epoch) => key.number("epoch", epoch.cast_unsigned()),
            None => key,
        };
        let key = match owner {
            Some(ids) => key.number("uid", ids.uid.into()).number("gid", ids.gid.into()),
            None => key.text("owner", "own"),
        };
        key.parts()
    }
}

/// A plan whose content is known.
pub(super) struct Keyed {
    pub(super) key: Digest,
    pub(super) parts: Vec<Part>,
    owner: Option<Ids>,
    /// Of a context; stages are picked again when they are copied.
    picked: Option<Vec<Picked>>,
}

/// Finds the files and the key.
pub(super) fn key(shared: &Shared, plan: &Plan, parent: &str) -> Result<Keyed> {
    let owner = owner(shared, plan, parent)?;
    let (content, picked) = match &plan.from {
        Source::Context(context) => {
            let picked = plan.pick(&context.origin())?;
            (explain::digest_and_list(&shared.cache, &picked, plan.keeps_owners()), Some(picked))
        }
        Source::Chain(chain) => (chain_digest(shared, plan, chain)?, None),
    };
    let (key, parts) = plan.key(parent, &content, owner);
    Ok(Keyed { key, parts, owner, picked })
}

/// The key, if it takes no more than looking up what was digested before.
pub(super) fn remembered_key(shared: &Shared, plan: &Plan, parent: &str) -> Option<Keyed> {
    let Source::Chain(chain) = &plan.from else { return None };
    let owner = match plan.chown.as_deref() {
        Some(text) => Some(owners::numeric(text)?),
        None => None,
    };
    let content = shared.cache.digest(&plan.memo(chain))?;
    let (key, parts) = plan.key(parent, &content, owner);
    Some(Keyed { key, parts, owner, picked: None })
}

fn owner(shared: &Shared, plan: &Plan, parent: &str) -> Result<Option<Ids>> {
    let Some(text) = &plan.chown else { return Ok(None) };
    if let Some(ids) = owners::numeric(text) {
        return Ok(Some(ids));
    }
    let layers = shared.view(parent)?;
    let looked_up =
        isolated(&shared.cache.tmp(), |mounts| mounts.open(&layers).map(|tree| owners::lookup(text, &tree)));
    Ok(Some(looked_up.and_then(|ids| ids).doing(|| "look up the owner in the stage")?))
}

/// Layers never change, so the digest of a part of them is remembered.
fn chain_digest(shared: &Shared, plan: &Plan, chain: &str) -> Result<Digest> {
    let memo = plan.memo(chain);
    if let Some(digest) = shared.cache.digest(&memo) {
        return Ok(digest);
    }
    let picked = with_chain(shared, chain, &ReadDigests, |origin| plan.pick(origin))?;
    let digest = explain::digest_and_list(&shared.cache, &picked, plan.keeps_owners());
    shared.cache.remember_digest(&memo, &digest);
    Ok(digest)
}

/// The content digest of one path of a source, for bind mounts.
pub(super) fn source_digest(shared: &Shared, from: &Source, path: &str) -> Result<Digest> {
    let selection = Selection { sources: vec![path.to_owned()], ..Selection::default() };
    match from {
        Source::Context(context) => {
            let picked = pick(&context.origin(), &selection)?;
            Ok(explain::digest_and_list(&shared.cache, &picked, false))
        }
        Source::Chain(chain) => {
            let memo = Key::new("chain path").text("chain", chain).text("path", path).finish();
            if let Some(digest) = shared.cache.digest(&memo) {
                return Ok(digest);
            }
            let picked = with_chain(shared, chain, &ReadDigests, |origin| pick(origin, &selection))?;
            let digest = explain::digest_and_list(&shared.cache, &picked, true);
            shared.cache.remember_digest(&memo, &digest);
            Ok(digest)
        }
    }
}

/// Whether a path of a chain is a directory, and the path without links.
pub(super) fn directory_in_chain(shared: &Shared, chain: &str, path: &str) -> Result<Option<String>> {
    with_chain(shared, chain, &NoDigests, |origin| {
        let look = || {
            let real = origin.tree.resolve(Path::new(path.trim_start_matches('/')), true)?;
            let is_directory = origin.tree.stat(&real)?.is_some_and(|stat| super::tree::is_directory(&stat));
            Ok::<_, io::Error>(is_directory.then(|| real.to_string_lossy().into_owned()))
        };
        look().doing(|| format!("look at `{path}`"))
    })
}

fn with_chain<T: Send>(
    shared: &Shared,
    chain: &str,
    digests: &(dyn Digests + Sync),
    work: impl FnOnce(&Origin<'_>) -> Result<T> + Send,
) -> Result<T> {
    let layers = shared.view(chain)?;
    let inner = |mounts: &Mounts| {
        let tree = mounts.open(&layers).doing(|| "mount the layers of the source")?;
        work(&Origin { tree: &tree, ignore: &Patterns::default(), is_context: false, digests })
    };
    isolated(&shared.cache.tmp(), inner).doing(|| "make a mount namespace")?
}

/// Copies all files of a chain into a directory, owned by the user.
pub(super) fn copy_out(shared: &Shared, chain: &str, directory: &Path) -> Result<()> {
    let doing = || format!("write to {}", directory.display());
    std::fs::create_dir_all(directory).doing(doing)?;
    let target = Tree::open(directory).doing(doing)?;
    let placement = Placement {
        destination: "/".into(),
        into_directory: true,
        owner: Some(Ids::default()),
        chmod: None,
        from_context: false,
        link: false,
    };
    with_chain(shared, chain, &NoDigests, |origin| {
        let selection = Selection { sources: vec!["/".into()], ..Selection::default() };
        place(origin.tree, &target, &mut pick(origin, &selection)?, &placement)
    })
}

/// Reads in the merged files of a chain.
pub(super) fn look<T: Send>(shared: &Shared, chain: &str, read: fn(&Tree) -> T) -> Result<T> {
    with_chain(shared, chain, &NoDigests, |origin| Ok(read(origin.tree)))
}

/// Writes all files of a chain as an archive.
pub(super) fn pack_out(shared: &Shared, chain: &str, to: &mut dyn io::Write) -> Result<()> {
    // Only the isolated thread sees the mounted layers; it has to hand over the bytes.
    let mut file = tempfile::tempfile_in(shared.cache.tmp()).doing(|| "make a file for an archive")?;
    let mut writer = io::BufWriter::new(&mut file);
    with_chain(shared, chain, &NoDigests, |origin| {
        let root = origin.tree.directory(Path::new("")).doing(|| "open the files of the image")?;
        snapshot::pack_tree(root, &mut writer).map(drop).doing(|| "archive the files of the image")
    })?;
    io::Write::flush(&mut writer).doing(|| "archive the files of the image")?;
    drop(writer);
    io::Seek::rewind(&mut file).doing(|| "read an archive")?;
    io::copy(&mut file, to).map(drop).doing(|| "write the archive")
}

/// Copies one path of a source to `name` in a plain directory, for mounts.
pub(super) fn materialise(
    shared: &Shared,
    from: &Source,
    path: &str,
    directory: &Path,
    name: &str,
) -> Result<()> {
    let target = Tree::open(directory).doing(|| "open a working directory")?;
    let selection = Selection { sources: vec![path.to_owned()], ..Selection::default() };
    let placement = Placement {
        destination: name.to_owned(),
        into_directory: false,
        owner: None,
        chmod: None,
        from_context: matches!(from, Source::Context(_)),
        link: false,
    };
    match from {
        Source::Context(context) => {
            let mut picked = pick(&context.origin(), &selection)?;
            place(&context.tree, &target, &mut picked, &placement)
        }
        Source::Chain(chain) => with_chain(shared, chain, &NoDigests, |origin| {
            let mut picked = pick(origin, &selection)?;
            place(origin.tree, &target, &mut picked, &placement)
        }),
    }
}

/// Makes the layer. The returned key is of what was really copied.
pub(super) fn execute(shared: &Shared, plan: &Plan, keyed: Keyed, parent: &str) -> Result<(Layer, Digest)> {
    let base = plan.base(parent);
    let working = Working::temporary(&shared.env.store, base).doing(|| "make a working layer")?;
    let target = shared.writable(base, &working)?;
    let source = match &plan.from {
        Source::Chain(chain) => Some(shared.view(chain)?),
        Source::Context(_) => None,
    };
    let work = |mounts: &Mounts| {
        let target = mounts.open(&target).doing(|| "mount the layers of the stage")?;
        copy(plan, keyed, source.as_ref(), &target, mounts, parent)
    };
    let key = isolated(&shared.cache.tmp(), work).doing(|| "make a mount namespace")??;
    // Times in an archive are content, those of a checkout are an accident.
    let all = matches!(plan.from, Source::Context(_)) && !plan.unpack;
    Ok((shared.commit(working, all)?, key))
}

fn copy(
    plan: &Plan,
    keyed: Keyed,
    source: Option<&Layers>,
    target: &Tree,
    mounts: &Mounts,
    parent: &str,
) -> Result<Digest> {
    match (&plan.from, source) {
        (Source::Context(context), _) => {
            let mut picked = keyed.picked.unwrap_or_default();
            put(plan, keyed.owner, &context.tree, target, &mut picked)?;
            let content = pick::digest(&picked, plan.keeps_owners());
            Ok(plan.key(parent, &content, keyed.owner).0)
        }
        (Source::Chain(_), Some(layers)) => {
            let tree = mounts.open(layers).doing(|| "mount the layers of the source")?;
            let origin =
                Origin { tree: &tree, ignore: &Patterns::default(), is_context: false, digests: &NoDigests };
            put(plan, keyed.owner, &tree, target, &mut plan.pick(&origin)?)?;
            Ok(keyed.key)
        }
        (Source::Chain(_), None) => unreachable!("a chain has a view"),
    }
}

fn put(plan: &Plan, owner: Option<Ids>, source: &Tree, target: &Tree, picked: &mut [Picked]) -> Result<()> {
    let placement = Placement {
        destination: plan.destination.clone(),
        into_directory: plan.into_directory,
        owner,
        chmod: plan.chmod.clone(),
        from_context: matches!(plan.from, Source::Context(_)),
        link: plan.link,
    };
    for item in picked {
        let tree = item.tree.clone();
        let source = tree.as_deref().unwrap_or(source);
        let may_unpack = if tree.is_some() { plan.unpack_remote } else { plan.unpack };
        if !(may_unpack && unpacked(&placement, source, target, item)?) {
            place(source, target, std::slice::from_mut(item), &placement)?;
        }
    }
    Ok(())
}

/// Unpacks a file that is an archive; false when it is none.
fn unpacked(placement: &Placement, source: &Tree, target: &Tree, item: &Picked) -> Result<bool> {
    let [pick::Entry { from, content: pick::Content::File(_), .. }] = item.entries.as_slice() else {
        return Ok(false);
    };
    if item.is_directory {
        return Ok(false);
    }
    let shown = || format!("read `{}`", from.display());
    let mut file = source.file(from).doing(shown)?;
    let Some(form) = unpack::form(&mut file).doing(shown)? else { return Ok(false) };
    let written = Path::new(placement.destination.trim_start_matches('/'));
    let base = target
        .resolve(written, true)
        .doing(|| format!("find the destination `{}`", placement.destination))?;
    unpack::unpack(&file, form, target, &base, placement.owner)?;
    Ok(true)
}

/// WORKDIR: its directory, owned by the stage's user.
pub(super) fn make_workdir(shared: &Shared, path: &str, user: &str, parent: &str) -> Result<Layer> {
    let working = Working::temporary(&shared.env.store, parent).doing(|| "make a working layer")?;
    let layers = shared.writable(parent, &working)?;
    let work = |mounts: &Mounts| {
        let target = mounts.open(&layers).doing(|| "mount the layers of the stage")?;
        let owner = if user.is_empty() { Ids::default() } else { owners::lookup(user, &target) };
        let real = target
            .resolve(Path::new(path.trim_start_matches('/')), true)
            .doing(|| format!("find `{path}`"))?;
        super::place::make_directories(&target, &real, owner)
    };
    isolated(&shared.cache.tmp(), work).doing(|| "make a mount namespace")??;
    shared.commit(working, false)
}

/// Reads every file.
struct ReadDigests;

impl Digests for ReadDigests {
    fn digest(&self, _: &Path, _: &Stat, open: &dyn Fn() -> io::Result<File>) -> io::Result<Digest> {
        file_digest(&mut open()?, false)
    }
}

/// The same for files that are not a stage's.
struct ReadContextDigests;

impl Digests for ReadContextDigests {
    fn digest(&self, _: &Path, _: &Stat, open: &dyn Fn() -> io::Result<File>) -> io::Result<Digest> {
        file_digest(&mut open()?, true)
    }
}

/// For copying what cannot change.
struct NoDigests;

impl Digests for NoDigests {
    fn digest(&self, _: &Path, _: &Stat, _: &dyn Fn() -> io::Result<File>) -> io::Result<Digest> {
        Ok(Digest::of(b""))
    }
}

impl Context {
    pub(super) fn origin(&self) -> Origin<'_> {
        Origin { tree: &self.tree, ignore: &self.ignore, is_context: true, digests: &self.digests }
    }
}
