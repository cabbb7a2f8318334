//! Control groups of an ordinary user: what systemd delegates to a transient scope (systemd.resource-control(5),
//! "Delegate="). The supervisor of a stack is started in such a scope, moves itself into a leaf of it, and makes the
//! containers' groups beside that (no group has both processes and children with controllers, cgroups(7)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The leaf of the supervisor, its launcher and the monitors.
const LEAF: &str = "supervisor";
const PREFIX: &str = "stack-";
const PROGRAM: &str = "systemd-run";

/// A command line that runs what is appended to it in a delegated scope, where the user has a service manager.
pub fn scope(project: &str) -> Option<Command> {
    let run = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    if !crate::rootless::is_active() || !run.join("systemd/private").exists() {
        return None;
    }
    let unit = format!("--unit={PREFIX}{project}-{}", std::process::id());
    // When the user's manager ends, the unit of an enabled stack stops the containers first.
    let order = format!("--property=Before={PREFIX}{project}.service");
    let mut command = Command::new(PROGRAM);
    let delegate = "--property=Delegate=yes";
    command.args(["--user", "--scope", "--quiet", "--collect", &unit, delegate, &order, "--"]);
    Some(command)
}

/// Moves this process into the leaf of its scope; does nothing where there is none.
pub fn settle() -> io::Result<()> {
    let Some(own) = own_group()? else { return Ok(()) };
    if !is_scope(&own) {
        return Ok(());
    }
    let leaf = own.join(LEAF);
    fs::create_dir_all(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), "0")
}

/// The scope that this process's containers belong below.
pub(super) fn base(mount: &Path) -> Option<PathBuf> {
    let own = group_in(mount).ok()??;
    let scope = own.parent()?;
    (own.ends_with(LEAF) && is_scope(scope)).then(|| scope.to_owned())
}

/// The scopes of all supervisors of this user.
pub(super) fn scopes(mount: &Path) -> impl Iterator<Item = PathBuf> {
    let uid = crate::sys::user_namespace::owner().unwrap_or_default();
    let slice = mount.join(format!("user.slice/user-{uid}.slice/user@{uid}.service/app.slice"));
    let entries = fs::read_dir(slice).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| is_scope(path))
}

fn is_scope(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(PREFIX) && name.ends_with(".scope")
}

fn own_group() -> io::Result<Option<PathBuf>> {
    let found = super::hierarchy::unified_mount()?;
    found.map_or(Ok(None), |mount| group_in(&mount))
}

/// This process's group of the unified hierarchy.
fn group_in(mount: &Path) -> io::Result<Option<PathBuf>> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(path.map(|path| mount.join(path)))
}
