//! Which hierarchies this machine has, and making groups in them.

use super::delegated;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Somebody may remove a parent that has just become empty while we make a group below it.
const ATTEMPTS: usize = 20;

/// Where the hierarchies are mounted.
#[derive(Debug, Default)]
pub(crate) struct Hierarchies {
    pub unified: Option<PathBuf>,
    /// Version 1: controller and mount point.
    pub legacy: Vec<(String, PathBuf)>,
}

impl Hierarchies {
    /// An ordinary user has no groups but those that the service manager delegated.
    pub(super) fn read() -> io::Result<Self> {
        let found = Self::parse(&fs::read_to_string("/proc/self/mountinfo")?);
        Ok(if crate::rootless::is_active() {
            Self { unified: found.unified.and_then(|mount| delegated::base(&mount)), legacy: Vec::new() }
        } else {
            found
        })
    }

    /// Where an existing group is. Of an ordinary user's stacks each supervisor may have had a scope of its own.
    pub(super) fn unified_existing(&self, path: &str) -> io::Result<Option<PathBuf>> {
        let existing = |mount: &Path| Some(mount.join(path)).filter(|dir| dir.is_dir());
        if let Some(dir) = self.unified.as_deref().and_then(existing) {
            return Ok(Some(dir));
        }
        if !crate::rootless::is_active() {
            return Ok(None);
        }
        Ok(unified_mount()?.and_then(|mount| delegated::scopes(&mount).find_map(|scope| existing(&scope))))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) if found.unified.is_none() => found.unified = Some(point),
                (Some("cgroup"), Some(options)) => {
                    let named =
                        options.split(',').map(|option| option.strip_prefix("name=").unwrap_or(option));
                    for controller in named.filter(|name| CONTROLLERS.contains(name)) {
                        if !found.legacy.iter().any(|(name, _)| name == controller) {
                            found.legacy.push((controller.to_owned(), point.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Makes the unified group and hands controllers down to it as far as the kernel lets.
    pub(super) fn unified_group(&self, path: &str) -> io::Result<Option<PathBuf>> {
        let Some(mount) = &self.unified else { return Ok(None) };
        let dir = mount.join(path);
        make(&dir)?;
        let mut parent = mount.clone();
        for part in Path::new(path) {
            delegate(&parent);
            parent.push(part);
        }
        Ok(Some(dir))
    }

    /// Makes version 1 groups for the wanted controllers; one that cannot be made is a warning.
    pub(super) fn legacy_groups(
        &self,
        path: &str,
        wanted: &[String],
        warnings: &mut Vec<String>,
    ) -> io::Result<Vec<(String, PathBuf)>> {
        let mut groups: Vec<(String, PathBuf)> = Vec::new();
        for controller in wanted {
            let Some((name, mount)) = self.legacy.iter().find(|(name, _)| name == controller) else {
                continue;
            };
            let dir = mount.join(path);
            match make(&dir) {
                Ok(()) => groups.push((name.clone(), dir)),
                Err(e) => warnings.push(format!("no {controller} control group: {}: {e}", dir.display())),
            }
        }
        Ok(groups)
    }
}

/// Where the unified hierarchy is mounted.
pub(super) fn unified_mount() -> io::Result<Option<PathBuf>> {
    Ok(mounted()?.unified)
}

/// Where all are mounted, whether this user may use them or not.
pub(crate) fn mounted() -> io::Result<Hierarchies> {
    Ok(Hierarchies::parse(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// And systemd's hierarchy, which limits nothing.
const CONTROLLERS: [&str; 15] = [
    "memory",
    "cpu",
    "cpuacct",
    "cpuset",
    "pids",
    "devices",
    "freezer",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
    "systemd",
];

fn make(dir: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        result = fs::create_dir_all(dir);
        match &result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            _ => return result,
        }
    }
    result
}

/// Each controller on its own: one that a parent refuses must not keep back the others.
fn delegate(parent: &Path) {
    let read = |file: &str| fs::read_to_string(parent.join(file)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    for controller in read("cgroup.controllers").split_whitespace() {
        if !enabled.split_whitespace().any(|name| name == controller) {
            // Whether it worked is seen by the limit that needs it.
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_mounts_are_told_apart() {
        let found = Hierarchies::parse(
            "30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             31 20 0:27 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n\
             32 20 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             33 20 0:29 / /proc rw - proc proc rw\n",
        );
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let names: Vec<&str> = found.legacy.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["cpu", "cpuacct", "systemd"]);
    }
}
