//! Control groups, version 1 (also hybrid) and 2.
//!
//! Every container has a group at the same path, e.g. `stack/PROJECT/ID`, in each hierarchy that is needed:
//! the unified one (kill, freeze, and all controllers it has) and those of version 1 that hold the others.
//! A limit whose controller is missing is a warning by name, never an error.

pub mod delegated;
mod device;
mod hierarchy;
mod input_output;
mod limits;
mod rest;
mod stats;
mod used;

pub(crate) use hierarchy::mounted;
pub(crate) use stats::stats;
pub use used::{Used, used};

use hierarchy::Hierarchies;
use oci_spec::runtime::LinuxResources;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes of a killed group are gone within this, also on a loaded machine.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// The groups of one container, one per hierarchy.
#[derive(Debug, Default)]
pub(crate) struct Group {
    unified: Option<PathBuf>,
    /// Version 1: controller and directory.
    legacy: Vec<(String, PathBuf)>,
    /// Parents that become empty go with it.
    removes_parents: bool,
}

/// The first directory of the groups that we name ourselves.
const OURS: &str = "stack/";

/// Which version 1 hierarchies a container gets a group of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Those that its limits need.
    Needed,
    /// All: others will look for it there.
    All,
}

impl Group {
    /// Makes the groups and sets the limits; what could not be applied is told in the warnings.
    pub(crate) fn create(path: &str, resources: &LinuxResources) -> io::Result<(Self, Vec<String>)> {
        Self::create_in(path, resources, Extent::Needed)
    }

    pub(crate) fn create_in(
        path: &str,
        resources: &LinuxResources,
        extent: Extent,
    ) -> io::Result<(Self, Vec<String>)> {
        if path.is_empty() {
            return Ok((Self::default(), Vec::new()));
        }
        let hierarchies = Hierarchies::read()?;
        let mut warnings = Vec::new();
        let wanted = match extent {
            Extent::Needed => limits::controllers(resources, hierarchies.unified.is_some()),
            Extent::All => hierarchies.legacy.iter().map(|(name, _)| name.clone()).collect(),
        };
        let group = Self {
            unified: hierarchies.unified_group(path)?,
            legacy: hierarchies.legacy_groups(path, &wanted, &mut warnings)?,
            removes_parents: true,
        };
        limits::prepare(&group, &hierarchies, &mut warnings);
        warnings.extend(group.limit(resources));
        Ok((group, warnings))
    }

    /// Sets the limits that are given; what could not be applied is told.
    pub(crate) fn limit(&self, resources: &LinuxResources) -> Vec<String> {
        let mut warnings = Vec::new();
        limits::apply(self, resources, &mut warnings);
        warnings
    }

    /// The existing groups at a path.
    pub(crate) fn find(path: &str) -> io::Result<Self> {
        let hierarchies = Hierarchies::read()?;
        let existing = |mount: &PathBuf| Some(mount.join(path)).filter(|dir| dir.is_dir());
        let legacy = hierarchies.legacy.iter();
        Ok(Self {
            unified: hierarchies.unified_existing(path)?,
            legacy: legacy.filter_map(|(name, mount)| Some((name.clone(), existing(mount)?))).collect(),
            removes_parents: true,
        })
    }

    /// The parents of a path that somebody else chose are his.
    pub(crate) fn chosen_by_others(mut self, path: &str) -> Self {
        self.removes_parents = path.starts_with(OURS);
        self
    }

    /// Where a process is.
    pub(crate) fn of_process(pid: i32) -> io::Result<Self> {
        let hierarchies = Hierarchies::read()?;
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mut group = Self::default();
        for line in table.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else { continue };
            let path = path.trim_start_matches('/');
            if names.is_empty() {
                group.unified =
                    hierarchies.unified.as_ref().map(|mount| mount.join(path)).filter(|dir| dir.is_dir());
            }
            for name in names.split(',').map(|name| name.strip_prefix("name=").unwrap_or(name)) {
                let mount = hierarchies.legacy.iter().find(|(found, _)| found == name);
                group.legacy.extend(mount.map(|(_, mount)| (name.to_owned(), mount.join(path))));
            }
        }
        Ok(group)
    }

    /// The group below, of one controller or of all; it must be there.
    pub(crate) fn descend(&mut self, controller: Option<&str>, path: &str) -> io::Result<()> {
        let inside = |dir: &Path| match dir.join(path) {
            inner if inner.is_dir() => Ok(inner),
            inner => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{}: no such file or directory", inner.join("cgroup.procs").display()),
            )),
        };
        let is_meant = |name: &str| controller.is_none_or(|only| only == name);
        for (_, dir) in self.legacy.iter_mut().filter(|(name, _)| is_meant(name)) {
            *dir = inside(dir)?;
        }
        if let Some(dir) = self.unified.as_mut().filter(|_| controller.is_none()) {
            match inside(dir) {
                // Beside version 1 the container has not seen this hierarchy, so it has made no group in it.
                Err(_) if !self.legacy.is_empty() => {}
                inner => *dir = inner?,
            }
        }
        self.removes_parents = false;
        Ok(())
    }

    pub(crate) fn has_controller(&self, name: &str) -> bool {
        self.directory(name).is_some()
    }

    /// Processes in it and below, lowest number first.
    pub(crate) fn processes(&self) -> io::Result<Vec<i32>> {
        let dir = self
            .legacy
            .iter()
            .find(|(name, _)| name == "devices")
            .or(self.legacy.first())
            .map(|(_, dir)| dir);
        let Some(dir) = self.unified.as_ref().or(dir) else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        gather(dir, &mut pids)?;
        pids.sort_unstable();
        Ok(pids)
    }

    /// Moves a process into the unified group.
    pub(crate) fn enter(&self, pid: i32) -> io::Result<()> {
        self.unified.as_ref().map_or(Ok(()), |dir| fs::write(dir.join("cgroup.procs"), pid.to_string()))
    }

    /// Where others would look for it: in version 1's freezer, if there is a group in it. Both are thawed, whoever froze.
    pub(crate) fn freeze(&self, frozen: bool) -> io::Result<()> {
        let legacy = self.directory("freezer").map(|dir| dir.join("freezer.state"));
        if legacy.is_none() && self.unified.is_none() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no freezer control group"));
        }
        if let Some(dir) = self.unified.as_ref().filter(|_| legacy.is_none() || !frozen) {
            fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
            settle(|| Ok(field(&dir.join("cgroup.events"), "frozen") == Some(u64::from(frozen))))?;
        }
        let Some(file) = legacy else { return Ok(()) };
        let state = if frozen { "FROZEN" } else { "THAWED" };
        settle(|| {
            fs::write(&file, state)?;
            Ok(fs::read_to_string(&file)?.trim() == state)
        })
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let read = |file: PathBuf| fs::read_to_string(file).unwrap_or_default();
        let legacy = self.directory("freezer").map(|dir| read(dir.join("freezer.state")));
        let unified = self.unified.as_ref().map(|dir| read(dir.join("cgroup.freeze")));
        legacy.is_some_and(|state| state.trim() != "THAWED")
            || unified.is_some_and(|state| state.trim() == "1")
    }

    /// The directory of a version 1 controller.
    fn directory(&self, controller: &str) -> Option<&Path> {
        self.legacy.iter().find(|(name, _)| name == controller).map(|(_, dir)| dir.as_path())
    }

    /// To be cloned into.
    pub(crate) fn unified(&self) -> io::Result<Option<OwnedFd>> {
        self.unified.as_ref().map(|dir| Ok(File::open(dir)?.into())).transpose()
    }

    /// Directories and the names under which a container sees them; version 1 only.
    pub(crate) fn legacy(&self) -> &[(String, PathBuf)] {
        &self.legacy
    }

    /// Moves a process into the groups that cannot be cloned into.
    pub(crate) fn place(&self, pid: i32) -> io::Result<()> {
        self.legacy.iter().try_for_each(|(_, dir)| fs::write(dir.join("cgroup.procs"), pid.to_string()))
    }

    /// The kernel has killed somebody in it for lack of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        self.oom_kills() > 0
    }

    /// How often it did.
    pub(crate) fn oom_kills(&self) -> u64 {
        let legacy = self
            .legacy
            .iter()
            .filter(|(name, _)| name == "memory")
            .map(|(_, dir)| dir.join("memory.oom_control"));
        let unified = self.unified.iter().map(|dir| dir.join("memory.events"));
        legacy.chain(unified).find_map(|file| field(&file, "oom_kill")).unwrap_or(0)
    }

    pub(crate) fn unified_dir(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    pub(crate) fn kill(&self) -> io::Result<()> {
        if let Some(dir) = &self.unified {
            return fs::write(dir.join("cgroup.kill"), "1");
        }
        self.legacy.first().map_or(Ok(()), |(_, dir)| kill_each(dir))
    }

    /// Kills what is left and removes the groups, then parents that have become empty.
    pub(crate) fn remove(&self) -> io::Result<()> {
        // The unified one last: it kills.
        let dirs = self.legacy.iter().map(|(_, dir)| dir).chain(&self.unified);
        let removed: Vec<io::Result<()>> = dirs.map(|dir| self.remove_one(dir)).collect();
        removed.into_iter().collect()
    }

    /// A process that has just ended, and been reaped, may still keep its groups busy for a moment.
    fn remove_one(&self, dir: &Path) -> io::Result<()> {
        let deadline = Instant::now() + EMPTY_WITHIN;
        while let Err(e) = remove_tree(dir) {
            if e.raw_os_error() != Some(libc::EBUSY) || Instant::now() > deadline {
                return Err(e);
            }
            // Whether it worked is seen by the next attempt.
            let _ = self.kill();
            std::thread::sleep(Duration::from_millis(2));
        }
        if !self.removes_parents {
            return Ok(());
        }
        // Fails while another container of the project is there, which is right.
        let _ = dir.ancestors().skip(1).take(2).try_for_each(fs::remove_dir);
        Ok(())
    }
}

/// Kills everything in the group, at once.
pub fn kill(group: &str) -> io::Result<()> {
    Group::find(group)?.kill()
}

/// Freezes or thaws everything in the group.
pub fn freeze(group: &str, frozen: bool) -> io::Result<()> {
    Group::find(group)?.freeze(frozen)
}

/// The kernel freezes one process after the other; asks again until it is done.
fn settle(mut is_done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    while !is_done()? {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the processes do not follow"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn gather(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    let listed = fs::read_to_string(dir.join("cgroup.procs"));
    // A group of threads has none of its own.
    pids.extend(listed.unwrap_or_default().lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in
        fs::read_dir(dir)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        gather(&entry.path(), pids)?;
    }
    Ok(())
}

/// Kills what is left in the group and removes it in every hierarchy; missing is fine.
pub fn remove(group: &str) -> io::Result<()> {
    Group::find(group)?.remove()
}

/// Processor time (nanoseconds) and memory (bytes) used by the group, where they are counted.
pub fn usage(group: &str) -> io::Result<(Option<u64>, Option<u64>)> {
    let found = Group::find(group)?;
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let legacy =
        |name: &str| found.legacy.iter().find(|(found, _)| found == name).map(|(_, dir)| dir.clone());
    let unified = found.unified.as_ref();
    let cpu = unified.and_then(|dir| field(&dir.join("cpu.stat"), "usage_usec")).map(|micros| micros * 1000);
    let memory = unified.and_then(|dir| number(dir.join("memory.current")));
    let cpu = legacy("cpuacct").and_then(|dir| number(dir.join("cpuacct.usage"))).or(cpu);
    Ok((cpu, memory.or_else(|| number(legacy("memory")?.join("memory.usage_in_bytes")))))
}

/// The number after `name ` in a file of such lines.
fn field(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn kill_each(dir: &Path) -> io::Result<()> {
    let procs = fs::read_to_string(dir.join("cgroup.procs"))?;
    for pid in procs.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
        // Already gone is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    Ok(())
}

/// Removes a group and what a container may have made below it.
fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
            for entry in
                fs::read_dir(dir)?.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            {
                remove_tree(&entry.path())?;
            }
            fs::remove_dir(dir)
        }
        result => result,
    }
}
