//! A boot, as far as a stack can tell: no process, nothing in `run`, no control groups, records of another boot.

use super::{World, eventually};
use nix::mount::{MsFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl World {
    /// The power goes, and comes back. Of a world in root's tests.
    pub fn reboot(&self) {
        eventually("everything is dead", || {
            let running = self.processes();
            for (pid, _) in &running {
                let _ = Pid::from_raw(*pid).map(|pid| kill_process(pid, Signal::KILL));
            }
            running.is_empty().then_some(())
        });
        let _ = fs::remove_dir_all(self.home.join("run"));
        for (name, _) in self.projects.borrow().iter() {
            eventually("the control groups are gone", || {
                remove_groups(Path::new("/sys/fs/cgroup"), name, 0).then_some(())
            });
        }
        self.age();
    }

    /// What was written in this boot was written in another. (With a mount below `/proc` the kernel would let no
    /// ordinary user mount another one.)
    fn age(&self) {
        let this = fs::read_to_string(BOOT_ID).unwrap().trim().replace('-', "");
        let stacks = fs::read_dir(self.home.join("stacks")).unwrap().flatten();
        let containers =
            stacks.flat_map(|stack| fs::read_dir(stack.path().join("containers")).into_iter().flatten());
        for container in containers.flatten() {
            let file = container.path().join("supervision.json");
            let Ok(text) = fs::read_to_string(&file) else { continue };
            fs::write(&file, text.replace(&this, &"0".repeat(32))).unwrap();
        }
    }

    /// The kernel says that it is another boot; nothing else changes. Only this world's mount namespace sees it.
    pub fn new_boot_id(&self) -> BootId {
        let file = self.root.join(super::unique("boot"));
        let digits =
            super::unique("").bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(257) + u64::from(byte));
        fs::write(&file, format!("{digits:08x}-0000-4000-8000-{:012x}\n", std::process::id())).unwrap();
        mount(Some(&file), BOOT_ID, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("root may mount");
        BootId(file)
    }
}

/// See [`World::new_boot_id`]. It stays unless it is taken back.
pub struct BootId(PathBuf);

impl BootId {
    pub fn take_back(self) {
        nix::mount::umount2(BOOT_ID, nix::mount::MntFlags::MNT_DETACH).unwrap();
        let _ = fs::remove_file(self.0);
    }
}

/// Whether nothing of that name is left.
fn remove_groups(directory: &Path, project: &str, depth: u32) -> bool {
    if depth > 6 {
        return true;
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut is_clean = true;
    for entry in folders {
        is_clean &= match entry.file_name().to_string_lossy().contains(project) {
            true => remove_tree(&entry.path()),
            false => remove_groups(&entry.path(), project, depth + 1),
        };
    }
    is_clean
}

fn remove_tree(group: &Path) -> bool {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    fs::remove_dir(group).is_ok()
}
