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
    /// It was made just now, so initial content belongs in it.
    pub(super) fresh: bool,
    _lock: File,
}

/// The directory name of a cache; owner and source make it another one.
pub(super) fn cache_id(id: Option<&str>, target: &str, owner: &Owner, source: Option<&str>) -> String {
    let id = id.map_or_else(|| target.to_owned(), str::to_owned);
    let owner = if owner.is_default() { String::new() } else { format!("{owner:?}") };
    let key = Key::new("cache mount").text("id", &id).text("owner", &owner).optional("source", source);
    key.finish().hex()[..32].to_owned()
}

/// Takes a cache for one RUN. Blocks while somebody else has a locked one.
pub(super) fn open_cache(
    cache: &Cache,
    id: &str,
    label: &str,
    sharing: Sharing,
    owner: &Owner,
    empty: bool,
) -> io::Result<CacheMount> {
    for attempt in 0.. {
        let name = if attempt == 0 { id.to_owned() } else { format!("{id}-{attempt}") };
        let directory = cache.mount(&name);
        fs::create_dir_all(&directory)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join("lock"))?;
        match sharing {
            Sharing::Shared => lock.lock_shared()?,
            Sharing::Private if attempt < PRIVATE_MAX => match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(e),
            },
            _ => lock.lock()?,
        }
        // A prune may have removed the directory between making and locking it.
        if directory.join("lock").exists() {
            return use_cache(directory, label, lock, owner, empty);
        }
    }
    unreachable!("the loop ends by returning")
}

fn use_cache(
    directory: PathBuf,
    label: &str,
    lock: File,
    owner: &Owner,
    empty: bool,
) -> io::Result<CacheMount> {
    let data = directory.join("data");
    if empty && data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let fresh = match fs::create_dir(&data) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(e),
    };
    if fresh {
        fs::write(directory.join("id"), label)?;
        apply(&data, owner, 0o755)?;
    }
    // Its last use, for pruning by age.
    File::open(&directory)?.set_modified(std::time::SystemTime::now())?;
    Ok(CacheMount { data, fresh, _lock: lock })
}

fn apply(path: &Path, owner: &Owner, mode: u32) -> io::Result<()> {
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

    #[test]
    fn private_caches_do_not_meet_and_shared_ones_do() {
        let (_directory, cache) = cache();
        let open = |sharing| open_cache(&cache, "id", "/c", sharing, &own(), false).expect("opened");
        let (a, b) = (open(Sharing::Private), open(Sharing::Private));
        assert_ne!(a.data, b.data);
        drop((a, b));
        let (a, b) = (open(Sharing::Shared), open(Sharing::Shared));
        assert_eq!(a.data, b.data);
        assert!(!b.fresh);
    }

    #[test]
    fn a_locked_cache_has_one_user_at_a_time() {
        let (_directory, cache) = cache();
        let first = open_cache(&cache, "id", "/c", Sharing::Locked, &own(), false).expect("opened");
        let (tell, told) = std::sync::mpsc::channel();
        let other = cache.clone();
        let waiting = std::thread::spawn(move || {
            let second = open_cache(&other, "id", "/c", Sharing::Locked, &own(), false).expect("opened");
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
    fn an_emptied_cache_is_fresh() {
        let (_directory, cache) = cache();
        let open = |empty| open_cache(&cache, "id", "/c", Sharing::Locked, &own(), empty).expect("opened");
        let first = open(false);
        assert!(first.fresh);
        fs::write(first.data.join("x"), "x").expect("written");
        drop(first);
        assert!(!open(false).fresh);
        let emptied = open(true);
        assert!(emptied.fresh && !emptied.data.join("x").exists());
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
