//! Reading: a file that is missing means that what it tells about is.

use super::{
    Disk, Distribution, GroupVersion, Groups, Identities, Kernel, Module, Restrictions, Session, Tun, Uplink,
    User,
};
use crate::cgroup;
use crate::rootless;
use rustix::fs::{Access, access, statfs, statvfs};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

pub(super) fn kernel() -> Kernel {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let has = |kind: &str| Path::new("/proc/self/ns").join(kind).exists();
    Kernel {
        namespaces: NAMESPACES.iter().filter(|kind| has(kind)).map(ToString::to_string).collect(),
        overlay: overlay(&release),
        has_seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        release,
    }
}

fn overlay(release: &str) -> Module {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return Module::Present;
    }
    let modules = fs::read_to_string(format!("/lib/modules/{release}/modules.dep")).unwrap_or_default();
    match modules.lines().any(|line| is_module(line, "overlay")) {
        true => Module::Loadable,
        false => Module::Absent,
    }
}

/// `kernel/fs/overlayfs/overlay.ko.zst: …`
fn is_module(line: &str, name: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".ko"))
}

pub(super) fn restrictions() -> Restrictions {
    let setting = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Restrictions {
        apparmor: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1),
        clone_is_forbidden: setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0),
        most_user_namespaces: setting("/proc/sys/user/max_user_namespaces"),
        profile: profile(),
        refused: None,
    }
}

/// `unprivileged_userns (enforce)` without the mode. Other security modules have the older file for themselves.
fn profile() -> Option<String> {
    let text = fs::read_to_string("/proc/self/attr/apparmor/current").ok()?;
    Some(text.trim().split(" (").next()?.to_owned())
}

pub(super) fn disk(home: &Path) -> Disk {
    let existing = existing(home);
    let (kind, room) = (statfs(existing), statvfs(existing));
    let inodes = room.as_ref().ok().filter(|room| room.f_files > 0).map(|room| room.f_favail);
    Disk {
        home: home.to_owned(),
        file_system: kind.map_or_else(|_| "unknown".into(), |kind| file_system(kind.f_type)),
        free_bytes: room.map_or(0, |room| room.f_bavail.saturating_mul(room.f_frsize)),
        free_inodes: inodes,
        is_writable: access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
    }
}

/// The folder itself, or where it will be made.
pub(super) fn existing(home: &Path) -> &Path {
    home.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

/// Names of magic numbers (statfs(2)).
#[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)] // a magic number is 32 bits, whatever the field is
fn file_system(magic: impl Into<i64>) -> String {
    let magic = magic.into() as u32;
    let known = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0xf2f5_2010 => "f2fs",
        0x2fc1_2fc1 => "zfs",
        0xca45_1a4e => "bcachefs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xff53_4d42 => "cifs",
        0xfe53_4d42 => "smb2",
        0x0102_1997 => "9p",
        0x6573_5546 => "fuse",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        0x5346_544e | 0x7366_746e => "ntfs",
        0xf15f => "ecryptfs",
        0x00c0_ffee => "hostfs",
        _ => return format!("{magic:#x}"),
    };
    known.to_owned()
}

pub(super) fn distribution() -> Distribution {
    let text =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| fs::read_to_string(path).ok());
    os_release(&text.unwrap_or_default())
}

fn os_release(text: &str) -> Distribution {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let like = value("ID_LIKE").split_whitespace().map(ToOwned::to_owned).collect();
    Distribution { id: value("ID"), like }
}

pub(super) fn user(uid: u32) -> User {
    let found = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    User { uid, name: found.map_or_else(|| uid.to_string(), |user| user.name) }
}

pub(super) fn identities(user: &User) -> Identities {
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (users, groups) = (text("/etc/subuid"), text("/etc/subgid"));
    let of_user =
        |text: &str| rootless::ranges(text, &user.name, user.uid).iter().map(|r| u64::from(r.count)).sum();
    let found = rootless::HELPERS.map(|helper| (helper, on_path(helper)));
    Identities {
        users: of_user(&users),
        groups: of_user(&groups),
        next: next_id(&[&users, &groups]),
        lacking: found
            .iter()
            .filter(|(_, path)| path.is_none())
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        powerless: found.into_iter().filter_map(|(_, path)| path.filter(|path| !may_map(path))).collect(),
    }
}

/// Where useradd(8) begins, or behind all that somebody has.
fn next_id(files: &[&str]) -> u64 {
    const FIRST: u64 = 100_000;
    let end = |line: &str| {
        let mut fields = line.trim().split(':').skip(1);
        let (start, count): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(start + count)
    };
    files.iter().flat_map(|text| text.lines().filter_map(end)).max().unwrap_or(FIRST).max(FIRST)
}

/// By its owner, or by a capability of the file.
fn may_map(helper: &Path) -> bool {
    const SET_USER_ID: u32 = 0o4000;
    let by_owner = fs::metadata(helper).is_ok_and(|meta| meta.mode() & SET_USER_ID != 0 && meta.uid() == 0);
    by_owner || rustix::fs::getxattr(helper, "security.capability", &mut [0_u8; 64]).is_ok()
}

pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

pub(super) fn groups(user: &User) -> Groups {
    let mounted = cgroup::mounted().unwrap_or_default();
    let unified = mounted.unified.as_deref();
    let of_unified = unified.map_or_else(Vec::new, |mount| words(&mount.join("cgroup.controllers")));
    let legacy = mounted.legacy.iter().filter(|(name, _)| name != "systemd");
    let version = match (unified, legacy.clone().next()) {
        (Some(_), None) => GroupVersion::Unified,
        (Some(_), Some(_)) => GroupVersion::Hybrid,
        (None, Some(_)) => GroupVersion::Legacy,
        (None, None) => GroupVersion::None,
    };
    let mut mounts = unified.into_iter().chain(legacy.clone().map(|(_, mount)| mount.as_path()));
    Groups {
        version,
        is_writable: mounts.all(|mount| access(mount, Access::WRITE_OK).is_ok()),
        session: (!user.is_root()).then(|| session(user, unified)),
        controllers: of_unified.into_iter().chain(legacy.map(|(name, _)| name.clone())).collect(),
    }
}

fn session(user: &User, unified: Option<&Path>) -> Session {
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).unwrap_or_default();
    let uid = user.uid;
    let handed = |mount: &Path| {
        words(&mount.join(format!("user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers")))
    };
    Session {
        has_systemd: Path::new("/run/systemd/system").is_dir(),
        is_running: run.join("systemd/private").exists(),
        lingers: Path::new("/var/lib/systemd/linger").join(&user.name).exists(),
        delegated: unified.map_or_else(Vec::new, handed),
    }
}

fn words(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

pub(super) fn uplink() -> Uplink {
    let device = Path::new("/dev/net/tun");
    let tun = match fs::symlink_metadata(device) {
        Err(_) => Tun::Absent,
        Ok(_) if access(device, Access::READ_OK | Access::WRITE_OK).is_ok() => Tun::Usable,
        Ok(_) => Tun::Forbidden,
    };
    Uplink { pasta: on_path("pasta"), tun }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_an_identity_and_a_family() {
        let text =
            "PRETTY_NAME=\"Linux Mint 22\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID='22'\n";
        let expected = Distribution { id: "linuxmint".into(), like: vec!["ubuntu".into(), "debian".into()] };
        assert_eq!(os_release(text), expected);
        assert_eq!(os_release(""), Distribution::default());
    }

    #[test]
    fn the_next_range_is_behind_all_others() {
        assert_eq!(next_id(&["", "# nobody\n"]), 100_000);
        assert_eq!(next_id(&["a:100000:65536\nb:231072:65536\n", "a:100000:65536\n"]), 296_608);
        assert_eq!(next_id(&["a:1:2\n"]), 100_000);
    }

    #[test]
    fn modules_may_be_compressed() {
        assert!(is_module("kernel/fs/overlayfs/overlay.ko.zst: kernel/x.ko", "overlay"));
        assert!(is_module("kernel/fs/overlayfs/overlay.ko:", "overlay"));
        assert!(!is_module("kernel/fs/overlayfs/overlay_test.ko: kernel/fs/overlayfs/overlay.ko", "overlay"));
    }

    #[test]
    fn file_systems_have_their_usual_names() {
        assert_eq!(file_system(0xef53_i64), "ext4");
        assert_eq!(file_system(0x1234_5678_i64), "0x12345678");
    }

    #[test]
    fn a_home_that_is_not_there_yet_is_where_it_will_be() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(existing(&here.path().join("a/b")), here.path());
        let disk = disk(&here.path().join("a/b"));
        assert!(disk.is_writable && disk.free_bytes > 0, "{disk:?}");
    }
}
