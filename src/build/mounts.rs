//! `RUN --mount`: from its meaning to what the container gets, and to its part of the key.
//!
//! | type | container gets | in the key |
//! |---|---|---|
//! | bind from a stage or image | its layers, read-only | content digest |
//! | bind from the context, or `rw` | a copy, thrown away afterwards | content digest |
//! | cache | `data/build/mounts/ID/data` | target, read-only |
//! | tmpfs | tmpfs | target, size |
//! | secret | a file outside the layers, or a variable | id and target, never content |
//! | ssh | a socket to an agent of this machine | id and target |

use super::cache::Cache;
use super::failure::{BuildFailure, Doing, Result};
use super::key::Key;
use super::request::Secret;
use super::state::State;
use rustix::fs::Mode;
use stack_runtime::spec::{MountKindSpec, MountSpec};
use stack_schema::dockerfile::mount::{Mount, MountKind, Owner, Sharing};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// As in BuildKit.
const SECRET_BYTES_MAX: u64 = 500 << 10;
/// More private caches of one id than this wait for each other.
const PRIVATE_MAX: usize = 64;

/// The absolute target of a mount. Secrets have a default place, unless they are only a variable.
pub(super) fn target(mount: &Mount, state: &State) -> Option<String> {
    match (&mount.target, &mount.kind) {
        (Some(target), _) => Some(state.absolute(target)),
        (None, MountKind::Secret { env: Some(_), .. }) => None,
        (None, MountKind::Secret { id, .. }) => Some(format!("/run/secrets/{}", id.replace('/', "_"))),
        (None, MountKind::Ssh { .. }) => None,
        (None, _) => Some(state.absolute(".")),
    }
}

/// The mount's part of RUN's key; `digest` is the content of a bind's or cache's source.
pub(super) fn key(key: Key, mount: &Mount, target: Option<&str>, digest: Option<&str>) -> Key {
    let key = key
        .optional("mount", target)
        .number("read only", u64::from(mount.read_only))
        .optional("source", digest);
    let owner = |key: Key, owner: &Owner| {
        let number = |n: Option<u32>| n.map_or(u64::MAX, u64::from);
        key.number("mode", number(owner.mode))
            .number("uid", number(owner.uid))
            .number("gid", number(owner.gid))
    };
    match &mount.kind {
        MountKind::Bind { .. } => key.text("type", "bind"),
        MountKind::Cache { .. } => key.text("type", "cache"),
        MountKind::Tmpfs { size } => key.text("type", "tmpfs").number("size", size.unwrap_or(0)),
        MountKind::Secret { id, env, owner: o, .. } => {
            owner(key.text("type", "secret").text("id", id).optional("env", env.as_deref()), o)
        }
        MountKind::Ssh { id, owner: o, .. } => owner(key.text("type", "ssh").text("id", id), o),
    }
}

/// A cache mount in use: the lock is held until it is dropped.
pub(super) struct CacheMount {
    pub(super) data: PathBuf,
    _lock: File,
}

/// The directory name of a cache; owner and source make it another one.
pub(super) fn cache_id(id: Option<&str>, target: &str, owner: &Owner, source: Option<&str>) -> String {
    let id = id.map_or_else(|| target.to_owned(), str::to_owned);
    let owner = if owner.is_default() { String::new() } else { format!("{owner:?}") };
    let key = Key::new("cache mount").text("id", &id).text("owner", &owner).optional("source", source);
    key.finish().hex()[..32].to_owned()
}

/// Makes a cache of what `fill` puts into a directory; false: there is one of that id.
pub(super) fn adopt(
    cache: &Cache,
    id: &str,
    label: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<bool> {
    let making = || format!("make the cache `{label}`");
    let directory = cache.mount(id);
    let lock = lock_file(&directory).doing(making)?;
    lock.lock().doing(making)?;
    let data = directory.join("data");
    if data.exists() {
        return Ok(false);
    }
    let wanted = Wanted { label, sharing: Sharing::Locked, owner: &Owner::default(), empty: false };
    make_cache(&directory, &data, &wanted, fill)?;
    Ok(true)
}

/// What a cache is to be when a RUN gets it.
pub(super) struct Wanted<'a> {
    pub(super) label: &'a str,
    pub(super) sharing: Sharing,
    pub(super) owner: &'a Owner,
    /// Without what it held, unless somebody uses it right now (as in BuildKit).
    pub(super) empty: bool,
}

/// Takes a cache for one RUN; `fill` puts initial content into one that was made just now.
/// Blocks while somebody else has a locked one.
pub(super) fn open_cache(
    cache: &Cache,
    id: &str,
    wanted: &Wanted<'_>,
    fill: impl Fn(&Path) -> Result<()>,
) -> Result<CacheMount> {
    let (label, private) = (wanted.label, wanted.sharing == Sharing::Private);
    let mut other = 0;
    loop {
        let name = if other == 0 { id.to_owned() } else { format!("{id}-{other}") };
        let directory = cache.mount(&name);
        let lock = lock_file(&directory).doing(|| format!("open the cache `{label}`"))?;
        let alone = match lock.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(e)) => return Err(e).doing(|| format!("lock the cache `{label}`")),
        };
        if !alone && private && other < PRIVATE_MAX {
            other += 1;
            continue;
        }
        if let Some(mount) = use_cache(directory, lock, alone, wanted, &fill)? {
            return Ok(mount);
        }
    }
}

fn lock_file(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    File::options().create(true).truncate(false).read(true).write(true).open(directory.join("lock"))
}

/// None: it was removed by a prune, or emptied by another build, before the lock was had.
fn use_cache(
    directory: PathBuf,
    lock: File,
    mut alone: bool,
    wanted: &Wanted<'_>,
    fill: &impl Fn(&Path) -> Result<()>,
) -> Result<Option<CacheMount>> {
    let doing = || format!("open the cache `{}`", wanted.label);
    let shared = wanted.sharing == Sharing::Shared;
    if !alone {
        if shared { lock.lock_shared() } else { lock.lock() }.doing(doing)?;
        alone = !shared;
    }
    if !is_still(&directory.join("lock"), &lock).doing(doing)? {
        return Ok(None);
    }
    let data = directory.join("data");
    if alone {
        make_cache(&directory, &data, wanted, fill)?;
        if shared {
            // Not atomic: somebody may have it in between.
            lock.lock_shared().doing(doing)?;
        }
    }
    if !is_still(&directory.join("lock"), &lock).doing(doing)? || !data.exists() {
        return Ok(None);
    }
    // Its last use, for pruning by age.
    File::open(&directory).and_then(|d| d.set_modified(std::time::SystemTime::now())).doing(doing)?;
    Ok(Some(CacheMount { data, _lock: lock }))
}

/// Whether the locked file is the one that others find there.
fn is_still(path: &Path, lock: &File) -> io::Result<bool> {
    let own = lock.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Only for who is alone with the cache. It gets its name when it is complete.
fn make_cache(
    directory: &Path,
    data: &Path,
    wanted: &Wanted<'_>,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let doing = || format!("open the cache `{}`", wanted.label);
    if !wanted.empty && data.exists() {
        return Ok(());
    }
    let new = directory.join("new");
    for old in [data, &new] {
        remove_tree(old).doing(doing)?;
    }
    fs::create_dir(&new).doing(doing)?;
    apply(&new, wanted.owner, 0o755).doing(doing)?;
    fill(&new)?;
    fs::write(directory.join("id"), wanted.label).doing(doing)?;
    fs::rename(&new, data).doing(doing)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

pub(super) fn apply(path: &Path, owner: &Owner, mode: u32) -> io::Result<()> {
    let file = File::open(path)?;
    let (uid, gid) = (owner.uid.unwrap_or(0), owner.gid.unwrap_or(0));
    let (uid, gid) = stack_runtime::snapshot::owner(uid, gid);
    rustix::fs::fchown(&file, uid, gid)?;
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(owner.mode.unwrap_or(mode)))?)
}

/// A secret's content.
pub(super) fn secret_bytes(id: &str, secret: &Secret) -> Result<Vec<u8>> {
    let bytes = match secret {
        Secret::Bytes(bytes) => bytes.clone(),
        Secret::File(path) => {
            let size = fs::metadata(path).doing(|| format!("read the secret `{id}`"))?.len();
            if size > SECRET_BYTES_MAX {
                return Err(BuildFailure::new(format!("the secret `{id}` is larger than 500 KiB")));
            }
            fs::read(path).doing(|| format!("read the secret `{id}`"))?
        }
    };
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(BuildFailure::new(format!("the secret `{id}` is larger than 500 KiB")));
    }
    Ok(bytes)
}

/// Writes a secret where only the container sees it: below the home's run directory.
pub(super) fn write_secret(
    directory: &Path,
    index: usize,
    bytes: &[u8],
    owner: &Owner,
) -> io::Result<PathBuf> {
    let path = directory.join(format!("secret-{index}"));
    fs::write(&path, bytes)?;
    apply(&path, owner, 0o400)?;
    Ok(path)
}

pub(super) fn bind(source: PathBuf, target: &str, read_only: bool) -> MountSpec {
    let kind = MountKindSpec::Bind { source, create: false, propagation: None, recursive: None };
    MountSpec { kind, target: target.to_owned(), read_only }
}

/// Removes from a layer what was only made to mount something on: empty directories and files that are not
/// in the layers below, and the directories above them where nothing else was changed.
pub(super) fn remove_mount_points(upper: &Path, lower: &[PathBuf], targets: &[String]) {
    const SYSTEM: [&str; 6] = ["/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
    let all = targets.iter().map(String::as_str).chain(SYSTEM);
    let mut paths: Vec<&Path> =
        all.flat_map(|target| Path::new(target.trim_start_matches('/')).ancestors()).collect();
    paths.retain(|path| !path.as_os_str().is_empty());
    // The deepest first, so that a parent is empty when its turn comes.
    paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    paths.dedup();
    for path in paths {
        let own = upper.join(path);
        let below = lower.iter().find_map(|layer| layer.join(path).symlink_metadata().ok());
        match (own.symlink_metadata(), below) {
            (Ok(meta), None) if meta.is_file() && meta.len() == 0 => _ = fs::remove_file(own),
            // Removes empty ones only.
            (Ok(meta), None) if meta.is_dir() => _ = fs::remove_dir(own),
            (Ok(meta), Some(below)) if is_only_copied_up(&own, &meta, &below) => _ = fs::remove_dir(own),
            _ => {}
        }
    }
}

/// A directory that is in the layer because something was made in it, and that has nothing of its own now.
fn is_only_copied_up(own: &Path, meta: &fs::Metadata, below: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = (meta.mode(), meta.uid(), meta.gid()) == (below.mode(), below.uid(), below.gid());
    let hides = rustix::fs::lgetxattr(own, stack_runtime::snapshot::opaque(), &mut [0u8; 8][..]).is_ok();
    meta.is_dir() && same && !hides
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_runtime::home::Home;

    #[test]
    fn mount_points_go_and_content_stays() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (upper, lower) = (directory.path().join("upper"), directory.path().join("lower"));
        for path in [
            "upper/run/secrets",
            "upper/cache/full",
            "upper/etc",
            "lower/etc",
            "upper/proc",
            "upper/srv/a",
            "lower/srv",
        ] {
            fs::create_dir_all(directory.path().join(path)).expect("made");
        }
        fs::write(upper.join("run/secrets/key"), "").expect("written");
        fs::write(upper.join("etc/hosts"), "").expect("written");
        fs::write(upper.join("etc/resolv.conf"), "own").expect("written");
        let targets = ["/run/secrets/key".to_owned(), "/cache".to_owned(), "/srv/a".to_owned()];
        remove_mount_points(&upper, &[lower], &targets);
        assert!(
            !upper.join("run").exists() && !upper.join("proc").exists() && !upper.join("etc/hosts").exists()
        );
        assert!(!upper.join("srv").exists());
        assert!(upper.join("cache/full").exists() && upper.join("etc/resolv.conf").exists());
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = Home { data: directory.path().join("data"), run: directory.path().join("run") };
        let cache = Cache::open(&home).expect("a cache");
        (directory, cache)
    }

    fn own() -> Owner {
        Owner {
            mode: None,
            uid: Some(nix::unistd::geteuid().as_raw()),
            gid: Some(nix::unistd::getegid().as_raw()),
        }
    }

    fn open(cache: &Cache, sharing: Sharing, empty: bool) -> CacheMount {
        let wanted = Wanted { label: "/c", sharing, owner: &own(), empty };
        let fill = |data: &Path| fs::write(data.join("initial"), "").doing(|| "fill it");
        open_cache(cache, "id", &wanted, fill).expect("opened")
    }

    #[test]
    fn private_caches_do_not_meet_and_shared_ones_do() {
        let (_directory, cache) = cache();
        let open = |sharing| open(&cache, sharing, false);
        let (a, b) = (open(Sharing::Private), open(Sharing::Private));
        assert_ne!(a.data, b.data);
        drop((a, b));
        let (a, b) = (open(Sharing::Shared), open(Sharing::Shared));
        assert_eq!(a.data, b.data);
    }

    #[test]
    fn a_locked_cache_has_one_user_at_a_time() {
        let (_directory, cache) = cache();
        let first = open(&cache, Sharing::Locked, false);
        let (tell, told) = std::sync::mpsc::channel();
        let other = cache.clone();
        let waiting = std::thread::spawn(move || {
            let second = open(&other, Sharing::Locked, false);
            tell.send(()).expect("somebody listens");
            second.data.join("x").exists()
        });
        // A user who does not wait would have told by now, or sees nothing.
        assert!(told.recv_timeout(std::time::Duration::from_millis(200)).is_err());
        fs::write(first.data.join("x"), "x").expect("written");
        drop(first);
        assert!(waiting.join().expect("ended"));
    }

    #[test]
    fn an_emptied_cache_has_its_initial_content() {
        let (_directory, cache) = cache();
        let open = |empty| open(&cache, Sharing::Locked, empty);
        let first = open(false);
        let names = |mount: &CacheMount| (mount.data.join("initial"), mount.data.join("x"));
        let (initial, x) = names(&first);
        assert!(initial.exists());
        fs::remove_file(&initial).expect("removed");
        fs::write(&x, "x").expect("written");
        drop(first);
        assert!(!initial.exists() && x.exists(), "it is filled once");
        drop(open(false));
        assert!(!initial.exists() && x.exists(), "it is filled once");
        drop(open(true));
        assert!(initial.exists() && !x.exists());
    }

    #[test]
    fn a_shared_cache_is_not_emptied_under_the_hands_of_its_users() {
        let (_directory, cache) = cache();
        std::thread::scope(|scope| {
            for own in 0..4 {
                let cache = &cache;
                scope.spawn(move || {
                    for round in 0..200 {
                        let mount = open(cache, Sharing::Shared, true);
                        let file = mount.data.join(format!("{own}-{round}"));
                        fs::write(&file, "").expect("written");
                        std::thread::yield_now();
                        assert!(file.exists() && mount.data.join("initial").exists());
                    }
                });
            }
        });
    }

    #[test]
    fn owner_and_source_make_another_cache() {
        let plain = cache_id(None, "/c", &Owner::default(), None);
        assert_eq!(plain, cache_id(Some("/c"), "/other", &Owner::default(), None));
        assert_ne!(plain, cache_id(None, "/c", &own(), None));
        assert_ne!(plain, cache_id(None, "/c", &Owner::default(), Some("base")));
    }

    #[test]
    fn secrets_are_bounded() {
        assert!(secret_bytes("s", &Secret::Bytes(vec![0; 600 << 10])).is_err());
        assert_eq!(secret_bytes("s", &Secret::Bytes(b"x".to_vec())).expect("read"), b"x");
        assert!(secret_bytes("s", &Secret::File("/nonexistent/secret".into())).is_err());
    }
}
