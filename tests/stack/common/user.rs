//! An ordinary user in root's tests: uid 1000, whatever the machine's accounts are.

use super::{Images, World};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const UID: u32 = 1000;

/// Gives the home to the user, and returns a copy of the program that they can reach. Their machine lets everybody
/// open `/dev/net/tun`, which `pasta` needs.
pub(super) fn prepare(root: &Path, home: &Path) -> PathBuf {
    std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
    chown(home, Some(UID), Some(UID)).unwrap();
    let program = root.join("stack");
    std::fs::copy(env!("CARGO_BIN_EXE_stack"), &program).unwrap();
    let node = root.join("tun");
    let script = "mknod -m 666 \"$1\" c 10 200 && mkdir -p /dev/net && touch /dev/net/tun && mount --bind \"$1\" /dev/net/tun";
    let bound = Command::new("sh").args(["-c", script, "tun"]).arg(&node).status().unwrap();
    assert!(bound.success(), "cannot make the device of pasta");
    program
}

/// What is in the store is the user's own, so they load it themselves.
pub(super) fn provide(world: &World, images: Images) {
    let Some(archive) = images.archive() else { return };
    let copy = world.root.join("images.tar");
    std::fs::copy(archive, &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o644)).unwrap();
    world.stack(&["image", "load", "--input", copy.to_str().unwrap()]).ok();
}

/// The same command, run by the user.
pub(super) fn wrapped(world: &World, command: Command) -> Command {
    let Some(program) = &world.program else { return command };
    let mut wrapped = Command::new("setpriv");
    wrapped.args([&format!("--reuid={UID}"), &format!("--regid={UID}"), "--clear-groups", "--"]);
    wrapped.arg(program).args(command.get_args()).env_clear().stdin(Stdio::null());
    wrapped.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped.env_remove("XDG_RUNTIME_DIR");
    wrapped
}
