//! Who is attached to a network that several stacks use: `data/networks/NAME.d/ID.json`.
//!
//! The folder appears when the first container of another project joins, and goes with the network's record. While it
//! is there, every supervisor with a container on the network writes an [`Attachment`] when it connects one and removes
//! it when it disconnects it, the owner's supervisor too. Addresses are given out under the lock of all records, so
//! two supervisors never give the same one twice; names of the other stacks' containers are answered from the files.
//!
//! A file counts while its container runs or while the supervisor that wrote it lives (between connect and start no
//! program runs yet). What counts for neither was left by a crash and is as good as absent.

use super::records::{self, failed};
use crate::engine::Result;
use crate::home::{self, Home};
use crate::monitor::{self, RunRecord};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// One container on a shared network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub id: String,
    pub project: String,
    pub addresses: Vec<IpAddr>,
    /// Container name first; lower case.
    pub names: Vec<String>,
    /// Who wrote it: process id and start time.
    pub supervisor: (i32, u64),
    /// Inode of the namespace with the bridge, which that supervisor keeps alive; 0 when it does not.
    pub namespace: u64,
}

impl Attachment {
    /// See the module.
    fn counts(&self, home: &Home) -> bool {
        let is_running = || {
            RunRecord::read(&home.container(&self.project, &self.id))
                .ok()
                .flatten()
                .is_some_and(|r| r.is_alive())
        };
        self.has_supervisor() || is_running()
    }

    fn has_supervisor(&self) -> bool {
        monitor::start_time(self.supervisor.0).is_ok_and(|start| start == self.supervisor.1)
    }
}

/// This process, as attachments name it.
pub(super) fn this_supervisor() -> io::Result<(i32, u64)> {
    let pid = std::process::id().cast_signed();
    Ok((pid, monitor::start_time(pid)?))
}

fn folder(home: &Home, network: &str) -> PathBuf {
    home.networks().join(format!("{network}.d"))
}

pub(super) fn is_shared(home: &Home, network: &str) -> bool {
    folder(home, network).is_dir()
}

/// Makes the folder. Under the lock.
pub(super) fn share(home: &Home, network: &str) -> io::Result<()> {
    match fs::create_dir(folder(home, network)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Removes the folder with what crashes left in it. Under the lock.
pub(super) fn unshare(home: &Home, network: &str) -> io::Result<()> {
    gone_is_fine(fs::remove_dir_all(folder(home, network)))
}

/// Under the lock.
pub(super) fn write(home: &Home, network: &str, attachment: &Attachment) -> io::Result<()> {
    home::replace_json(&folder(home, network).join(format!("{}.json", attachment.id)), attachment)
}

/// A missing one is fine.
pub(super) fn remove(home: &Home, network: &str, id: &str) -> io::Result<()> {
    gone_is_fine(fs::remove_file(folder(home, network).join(format!("{id}.json"))))
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The containers of projects other than this one, by id.
pub(super) fn others(home: &Home, network: &str, project: &str) -> io::Result<Vec<Attachment>> {
    let mut all = read_all(&folder(home, network))?;
    all.retain(|a| a.project != project && a.counts(home));
    Ok(all)
}

/// Containers of other projects on a network of this one, `PROJECT/NAME`, sorted.
///
/// # Errors
/// Files that cannot be read.
pub fn guests(home: &Home, network: &str, owner: &str) -> Result<Vec<String>> {
    let others = others(home, network, owner).map_err(|e| failed("look at", network, e))?;
    let shown = |a: Attachment| format!("{}/{}", a.project, a.names.first().unwrap_or(&a.id));
    let mut guests: Vec<String> = others.into_iter().map(shown).collect();
    guests.sort();
    Ok(guests)
}

/// Whether another project has a container on any network of this one.
pub fn has_guests(home: &Home, owner: &str) -> bool {
    owned(home, owner)
        .iter()
        .any(|network| others(home, network, owner).is_ok_and(|others| !others.is_empty()))
}

/// The shared networks that a project made.
fn owned(home: &Home, owner: &str) -> Vec<String> {
    let entries = fs::read_dir(home.networks()).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".d")?.to_owned()));
    let is_owned =
        |name: &String| records::read(home, name).is_ok_and(|r| r.is_some_and(|r| r.project == owner));
    names.filter(is_owned).collect()
}

/// The namespace with a project's bridges, where another stack's supervisor is all that keeps it.
pub fn kept_namespace(home: &Home, owner: &str) -> Option<std::os::fd::OwnedFd> {
    let networks = owned(home, owner);
    let guests = networks.iter().filter_map(|network| others(home, network, owner).ok()).flatten();
    guests.filter(|guest| guest.namespace != 0).find_map(|guest| {
        let tasks = fs::read_dir(format!("/proc/{}/task", guest.supervisor.0)).ok()?;
        let found = tasks.flatten().find_map(|task| open_if(&task.path().join("ns/net"), guest.namespace));
        // Opened first, compared second.
        found.filter(|_| guest.has_supervisor())
    })
}

fn open_if(path: &Path, inode: u64) -> Option<std::os::fd::OwnedFd> {
    let file = fs::File::open(path).ok()?;
    (file.metadata().ok()?.ino() == inode).then(|| file.into())
}

fn read_all(folder: &Path) -> io::Result<Vec<Attachment>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all: Vec<Attachment> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            all.extend(home::read_json::<Attachment>(&path)?);
        }
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

/// The other stacks' containers on one network, as names are asked for.
#[derive(Debug)]
pub struct Others {
    home: Home,
    network: String,
    project: String,
    /// What the folder held when it was last changed.
    seen: Mutex<Option<(SystemTime, Arc<Vec<Attachment>>)>>,
}

impl Others {
    pub(super) fn new(home: &Home, network: &str, project: &str) -> Self {
        Self { home: home.clone(), network: network.into(), project: project.into(), seen: Mutex::default() }
    }

    /// Addresses of the containers that have the name (in lower case).
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let all = self.read();
        let named = all.iter().filter(|a| a.names.iter().any(|n| n == name) && a.counts(&self.home));
        named.flat_map(|a| a.addresses.clone()).collect()
    }

    /// The name of the container that has the address.
    pub(super) fn name(&self, address: IpAddr) -> Option<String> {
        let all = self.read();
        let owner = all.iter().find(|a| a.addresses.contains(&address) && a.counts(&self.home))?;
        owner.names.first().cloned()
    }

    fn read(&self) -> Arc<Vec<Attachment>> {
        // Two changes closer than this may leave the folder with the same time.
        const TICK: Duration = Duration::from_millis(100);
        let folder = folder(&self.home, &self.network);
        let Ok(changed) = fs::metadata(&folder).and_then(|m| m.modified()) else { return Arc::default() };
        let mut seen = self.seen.lock().expect("no holder panics");
        if let Some((at, all)) = &*seen
            && *at == changed
        {
            return all.clone();
        }
        let mut all = read_all(&folder).unwrap_or_else(|error| {
            tracing::warn!(network = self.network, %error, "names of other stacks are not known");
            Vec::new()
        });
        all.retain(|a| a.project != self.project);
        let all = Arc::new(all);
        let is_settled = changed.elapsed().is_ok_and(|age| age > TICK);
        *seen = is_settled.then(|| (changed, all.clone()));
        all
    }
}

#[cfg(test)]
mod tests;
