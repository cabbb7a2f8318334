//! Home: every path on disk, who writes it and who reads it.
//!
//! Root uses `/var/lib/stack` (data) and `/run/stack` (run); a user `$XDG_DATA_HOME/stack` and
//! `$XDG_RUNTIME_DIR/stack`. `STACK_HOME` overrides both: data in it, run in `$STACK_HOME/run`.
//!
//! | path | written by | read by |
//! |---|---|---|
//! | `data/format` | whoever first makes the home | everyone: refuses another major |
//! | `data/store/blobs/sha256/HEX` | image pull, load, build | image, snapshot |
//! | `data/store/images/HEX.json` | image pull, build, load: one per image id | everyone |
//! | `data/store/references/ENCODED.json` | image tag, pull, build, load: one per name | everyone |
//! | `data/store/snapshots/HEX/{fs,meta.json,blob.json}` | snapshot commit, unpack | container, build |
//! | `data/store/pending/HEX.KIND.BOOT` | image, snapshot: what may not have reached the disk | whoever opens the store |
//! | `data/store/tmp/` | blobs and snapshots being made, partial downloads; swept by prune | - |
//! | `data/store/locks/` | flock: `gc` (shared by whoever makes something), one per blob and chain being made | - |
//! | `data/build/` | builder: cache records, cache mounts | builder |
//! | `data/volumes/NAME/{volume.json,_data/}` | volume | container |
//! | `data/volumes/NAME/.copying` | container's init, while the image's content comes in | the next such init |
//! | `data/networks/{NAME.json,.lock}` | network create | network, planner |
//! | `data/networks/NAME.d/ID.json` | supervisors, for containers on a network that several projects use | the others' supervisors, planner |
//! | `data/stacks/PROJECT/lock` | flock: one changing command per project at a time; goes with `down` | - |
//! | `data/stacks/PROJECT/names/NAME` | create, rename: a link to the id | create |
//! | `data/stacks/PROJECT/containers/.ID`, `….removed` | being made, being removed; swept | - |
//! | `data/stacks/PROJECT/containers/ID/config.json` | create, rename | everyone |
//! | `…/ID/run.json` | monitor, before the program starts | everyone |
//! | `…/ID/exit.json` | monitor, before it reaps | everyone |
//! | `…/ID/health.json`, `…/ID/supervision.json` | supervisor | everyone |
//! | `…/ID/log.json` (and `.1`, …) | monitor | logs |
//! | `…/ID/oci.json` | monitor, at create | exec |
//! | `…/ID/attach.sock` | monitor, while the program runs | attached clients |
//! | `…/ID/root` | monitor: where the container mounts its root, in its own mount namespace | - |
//! | `…/ID/{upper,work}` | snapshot prepare | container's own mount namespace |
//! | `…/ID/{hosts,hostname,resolv.conf}` | supervisor at start | the container, bind-mounted |
//! | `run/PROJECT/supervisor.{sock,json,lock,log}` | supervisor | command line |
//! | `…/ID/net.json` | supervisor at start: addresses and host ports | the next supervisor, `ps` |
//! | `run/namespace.{json,lock}` | an ordinary user's command: the number of their user namespace | the next command |
//! | `run/PROJECT/uplink.{json,log,starting}` | supervisor: its `pasta` process and what that says | the next supervisor, `down` |
//!
//! Every JSON file is replaced atomically (write to a temporary file, fsync where a power cut matters, rename).

use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Written to `data/format`; another value is refused.
pub const FORMAT: &str = "1";

/// The two roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub data: PathBuf,
    pub run: PathBuf,
}

impl Home {
    /// From the environment as described above. Nothing is created yet.
    pub fn from_env() -> Self {
        if let Some(home) = std::env::var_os("STACK_HOME").filter(|v| !v.is_empty()) {
            let data =
                std::path::absolute(PathBuf::from(home)).unwrap_or_else(|_| PathBuf::from("/var/lib/stack"));
            return Self { run: data.join("run"), data };
        }
        // Inside a user namespace the user looks like root.
        let uid = crate::sys::user_namespace::owner().unwrap_or_else(|| nix::unistd::geteuid().as_raw());
        if uid == 0 {
            return Self { data: "/var/lib/stack".into(), run: "/run/stack".into() };
        }
        let user_home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let data =
            std::env::var_os("XDG_DATA_HOME").map_or_else(|| user_home.join(".local/share"), PathBuf::from);
        let run = std::env::var_os("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
        Self { data: data.join("stack"), run: run.join("stack") }
    }

    /// Makes the roots (0700 run, 0711 data) and checks the format version.
    ///
    /// # Errors
    /// `InvalidData` when the home has another format; otherwise the operating system's.
    pub fn prepare(&self) -> io::Result<()> {
        let format = self.data.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text.trim() == FORMAT => {}
            Ok(text) => {
                let found = text.trim();
                let message =
                    format!("{} has format {found}, this stack reads format {FORMAT}", self.data.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.data)?;
                set_mode(&self.data, 0o711)?;
                replace(&format, FORMAT.as_bytes())?;
            }
            Err(e) => return Err(e),
        }
        self.prepare_run()
    }

    /// Only the run directory.
    pub(crate) fn prepare_run(&self) -> io::Result<()> {
        if !self.run.is_dir() {
            fs::create_dir_all(&self.run)?;
            set_mode(&self.run, 0o700)?;
        }
        Ok(())
    }

    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }
    pub fn build(&self) -> PathBuf {
        self.data.join("build")
    }
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }
    pub fn networks(&self) -> PathBuf {
        self.data.join("networks")
    }
    pub fn stacks(&self) -> PathBuf {
        self.data.join("stacks")
    }
    pub fn stack(&self, project: &str) -> PathBuf {
        self.stacks().join(project)
    }
    pub fn containers(&self, project: &str) -> PathBuf {
        self.stack(project).join("containers")
    }
    pub fn container(&self, project: &str, id: &str) -> PathBuf {
        self.containers(project).join(id)
    }
    pub fn run_of(&self, project: &str) -> PathBuf {
        self.run.join(project)
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Replaces a file atomically: readers see the old bytes or the new ones.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    temporary.write_all(bytes)?;
    temporary.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// As [`replace`], and on disk before it returns.
pub fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

/// [`replace`] with JSON.
pub fn replace_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?)
}

/// `None` when the file does not exist; a damaged file is an error that names it.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display())))
}

/// An exclusive lock held until dropped (flock on a file, which stays unless its holder removes it).
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Lets go of it with its file, and with its directory if that is empty then. Who waits for it makes them anew.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        if let Some(dir) = self.path.parent() {
            // Not empty: somebody was faster.
            let _ = fs::remove_dir(dir);
        }
        Ok(())
    }

    /// Whether the file is still there: whoever had the lock before may have removed it.
    fn is_current(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?.ino();
        match fs::metadata(&self.path) {
            Ok(now) => Ok(now.ino() == ours),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Waits for the lock.
pub fn lock(path: &Path) -> io::Result<Lock> {
    loop {
        let lock = open_lock(path)?;
        lock.file.lock()?;
        if lock.is_current()? {
            return Ok(lock);
        }
    }
}

/// `None` when somebody else holds it.
pub fn try_lock(path: &Path) -> io::Result<Option<Lock>> {
    loop {
        let lock = open_lock(path)?;
        match lock.file.try_lock() {
            Ok(()) if lock.is_current()? => return Ok(Some(lock)),
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
    }
}

fn open_lock(path: &Path) -> io::Result<Lock> {
    let dir = path.parent().unwrap_or(Path::new("."));
    loop {
        fs::create_dir_all(dir)?;
        match File::options().create(true).truncate(false).write(true).read(true).open(path) {
            // The directory went with the lock of somebody else.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !dir.is_dir() => {}
            file => return Ok(Lock { file: file?, path: path.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_lock_that_is_removed_makes_it_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("project/lock");
        let first = lock(&path).unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lock(&path).unwrap());
            first.remove().unwrap();
            let second = waiting.join().unwrap();
            assert!(try_lock(&path).unwrap().is_none(), "it is held, and by the file that is there now");
            second.remove().unwrap();
        });
        assert!(!dir.path().join("project").exists());
    }
}
