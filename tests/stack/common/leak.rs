//! What a stack may have left behind, found from outside: by the paths of its home and the names of its projects.

use super::World;
use std::fs;
use std::path::Path;

/// Kernel settings of the world's network namespace that an uplink might touch.
const SYSCTLS: [&str; 3] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
    "/proc/sys/net/ipv4/conf/all/route_localnet",
];

/// What was there before the test.
pub(super) struct Before {
    links: Vec<String>,
    sysctls: Vec<String>,
    tables: String,
}

impl Before {
    pub(super) fn look() -> Self {
        Self { links: links(), sysctls: sysctls(), tables: tables() }
    }
}

/// One line for each thing left.
pub(super) fn find(world: &World) -> Vec<String> {
    let home = world.home.to_string_lossy();
    let projects: Vec<String> = world.projects.borrow().iter().map(|(name, _)| name.clone()).collect();
    let mut found: Vec<String> =
        processes(&home).into_iter().map(|(pid, what)| format!("process {pid}: {what}")).collect();
    found.extend(mounts(&home));
    found.extend(
        links()
            .into_iter()
            .filter(|link| !world.before.links.contains(link))
            .map(|link| format!("link {link}")),
    );
    if sysctls() != world.before.sysctls {
        found.push(format!("sysctls {:?} became {:?}", world.before.sysctls, sysctls()));
    }
    if tables() != world.before.tables {
        found.push(format!("firewall tables: {}", tables()));
    }
    found.extend(build_groups(&world.home).into_iter().map(|group| format!("cgroup {group}")));
    for project in &projects {
        cgroups(Path::new("/sys/fs/cgroup"), project, 0, &mut found);
        found.extend(files(&world.home.join("run").join(project)));
    }
    found
}

/// Ends what a failed test left, and only that.
pub(super) fn sweep(world: &World) {
    for (pid, _) in processes(&world.home.to_string_lossy()) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Processes that name the home: in the command line, the environment, or (containers) the mounts of another namespace.
pub(super) fn processes(home: &str) -> Vec<(i32, String)> {
    let own = fs::read_link("/proc/thread-self/ns/mnt").ok();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let path = entry.path();
        let names = |file: &str| {
            fs::read(path.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(home))
        };
        let elsewhere = fs::read_link(path.join("ns/mnt")).ok() != own;
        if names("cmdline") || names("environ") || (elsewhere && names("mountinfo")) {
            let line = fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " ");
            found.push((pid, line));
        }
    }
    found
}

fn mounts(home: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(home)).map(|line| format!("mount {line}")).collect()
}

/// Names of the links of this thread's network namespace.
fn links() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

fn sysctls() -> Vec<String> {
    SYSCTLS.iter().map(|path| fs::read_to_string(path).unwrap_or_default().trim().to_owned()).collect()
}

/// Empty where nft is not installed.
fn tables() -> String {
    let output = std::process::Command::new("nft").args(["list", "tables"]).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// Groups of build steps whose working directories are in this home: of builds that were killed.
fn build_groups(home: &Path) -> Vec<String> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let builds: Vec<_> = entries(&home.join("build/tmp")).collect();
    let steps: Vec<_> = builds.iter().flat_map(|build| entries(build)).collect();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies: Vec<_> = entries(root).chain([root.to_owned()]).collect();
    let group = |step: &Path, hierarchy: &Path| Some(hierarchy.join("stack/build").join(step.file_name()?));
    let groups = steps.iter().flat_map(|step| hierarchies.iter().filter_map(|at| group(step, at)));
    groups.filter(|path| path.is_dir()).map(|path| path.display().to_string()).collect()
}

fn cgroups(directory: &Path, project: &str, depth: u32, found: &mut Vec<String>) {
    if depth > 6 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(project) {
            found.push(format!("cgroup {}", entry.path().display()));
        } else {
            cgroups(&entry.path(), project, depth + 1, found);
        }
    }
}

/// Sockets, pid files: anything but the folder itself and a lock, which may stay to be locked.
fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let kept = |path: &Path| path.extension().is_some_and(|e| e == "lock");
    entries
        .map(|e| e.path())
        .filter(|path| !kept(path))
        .map(|path| format!("file {}", path.display()))
        .collect()
}
