//! What follows from a description of a machine.

use super::mend::{Mend, Package};
use super::{Finding, State};
use crate::ui::human::size;
use stack_runtime::machine::{
    Disk, GroupVersion, Groups, Identities, Kernel, Machine, Module, Session, Trials, Tun, Uplink, User,
};

/// `mount_setattr` and `close_range` with close-on-exec, without which no container starts; overlays in user namespaces
/// are a release older.
const OLDEST_KERNEL: (u32, u32) = (5, 12);
const NAMESPACES: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];
/// Layers cannot be written here, or overlays not be mounted.
const UNFIT: [&str; 10] =
    ["overlay", "nfs", "cifs", "smb2", "9p", "vfat", "exfat", "ntfs", "ecryptfs", "hostfs"];
const MEMORY_ONLY: [&str; 2] = ["tmpfs", "ramfs"];
const MIB: u64 = 1 << 20;
/// Not even records can be relied on.
const LEAST_BYTES: u64 = 16 * MIB;
const LEAST_INODES: u64 = 256;
/// An image or two.
const FEW_BYTES: u64 = 1024 * MIB;
const FEW_INODES: u64 = 20_000;
/// What images commonly have users up to (65534 is `nobody`).
const ENOUGH_IDS: u64 = 65_535;
/// Those behind memory, CPU and process limits.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// In the order in which things are needed.
pub fn findings(machine: &Machine) -> Vec<Finding> {
    let mend = Mend::of(machine);
    let mut all = vec![kernel(&machine.kernel, mend), namespaces(machine)];
    all.push(overlay(machine, mend));
    all.push(seccomp(&machine.kernel));
    if !machine.user.is_root() {
        all.push(user_namespaces(machine, mend));
    }
    all.extend(machine.identities.as_ref().map(|ids| identities(ids, &machine.user, mend)));
    if let Some(trials) = tried(machine) {
        all.push(links(trials, mend));
        all.push(firewall(trials, mend));
    }
    all.extend(machine.groups.as_ref().map(|groups| control_groups(groups, &machine.user, mend)));
    all.extend(machine.uplink.as_ref().map(|found| uplink(found, mend)));
    all.push(home(&machine.disk, &machine.user, mend));
    all.push(room(&machine.disk));
    all
}

fn good(check: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(check, State::Good, text)
}

fn warning(check: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(check, State::Warning, text)
}

fn missing(check: &'static str, text: impl Into<String>) -> Finding {
    Finding::new(check, State::Missing, text)
}

fn kernel(kernel: &Kernel, mend: Mend) -> Finding {
    let release = &kernel.release;
    let (major, minor) = OLDEST_KERNEL;
    match version(release) {
        Some(found) if found < OLDEST_KERNEL => {
            let text = format!("the kernel is Linux {release}; {major}.{minor} is needed");
            missing("kernel", text).mend(mend.newer_kernel())
        }
        // A name that says nothing forbids nothing.
        _ => good("kernel", format!("Linux {release}")),
    }
}

/// `6.1.0-18-amd64` is 6.1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn namespaces(machine: &Machine) -> Finding {
    let check = "namespaces";
    let has = |kind: &&str| machine.kernel.namespaces.iter().any(|known| known == kind);
    let lacking: Vec<&str> = NAMESPACES.iter().copied().filter(|kind| !has(kind)).collect();
    if !lacking.is_empty() {
        return missing(check, format!("the kernel is built without {} namespaces", lacking.join(", ")));
    }
    let Some(trials) = tried(machine) else { return good(check, NAMESPACES.join(", ")) };
    if let Err(why) = &trials.namespaces {
        let text = format!("new namespaces are refused: {why}; in a container, that needs to be privileged");
        return missing(check, text);
    }
    if let Err(why) = &trials.proc {
        let text = format!(
            "/proc cannot be mounted in a new pid namespace: {why}; in a container, its masked paths forbid it"
        );
        return missing(check, text);
    }
    good(check, NAMESPACES.join(", "))
}

/// Without a user namespace nothing can be told from the rest.
fn tried(machine: &Machine) -> Option<&Trials> {
    machine.trials.as_ref().filter(|trials| !matches!(trials.user_namespace, Some(Err(_))))
}

fn overlay(machine: &Machine, mend: Mend) -> Finding {
    let check = "overlayfs";
    if machine.kernel.overlay == Module::Absent {
        return missing(check, "the kernel has no overlayfs, which layers of images are stacked with")
            .mend(mend.module("overlay"));
    }
    match tried(machine).map(|trials| &trials.overlay) {
        Some(Err(why)) => {
            let place = &machine.disk;
            let text = format!(
                "an overlay cannot be mounted at {} ({}): {why}",
                place.home.display(),
                place.file_system
            );
            let can_load = machine.kernel.overlay == Module::Loadable;
            let command = if can_load { mend.module("overlay") } else { elsewhere() };
            missing(check, text).mend(command)
        }
        Some(Ok(())) if !machine.user.is_root() => good(check, "mounts in a user namespace (userxattr)"),
        _ => good(check, "layers of images are stacked with it"),
    }
}

/// A home on another file system.
fn elsewhere() -> String {
    "export STACK_HOME=/a/folder/on/ext4/xfs/or/btrfs".into()
}

fn seccomp(kernel: &Kernel) -> Finding {
    match kernel.has_seccomp {
        true => good("seccomp", "system calls are filtered"),
        false => missing("seccomp", "the kernel is built without seccomp filters, which confine containers"),
    }
}

fn user_namespaces(machine: &Machine, mend: Mend) -> Finding {
    let check = "user namespaces";
    let found = &machine.restrictions;
    let has_kind = machine.kernel.namespaces.iter().any(|kind| kind == "user");
    let tried = machine.trials.as_ref().and_then(|trials| trials.user_namespace.as_ref());
    let refused = match tried {
        Some(Err(why)) => Some(why.as_str()),
        _ => found.refused.as_deref(),
    };
    // Where it worked, whatever the settings say does not apply to us.
    let works = matches!(tried, Some(Ok(())));
    let is_confined = found.profile.as_deref() == Some("unprivileged_userns");
    let forbidden = |text: String, setting: &str| missing(check, text).mend(mend.sysctl(setting));
    match () {
        () if works => good(check, "an ordinary user is root in one"),
        () if !has_kind => missing(check, "the kernel is built without user namespaces, which running without root needs"),
        () if found.most_user_namespaces == Some(0) => forbidden(
            "user namespaces, which running without root needs, are switched off (user.max_user_namespaces is 0)".into(),
            "user.max_user_namespaces=15000",
        ),
        () if found.clone_is_forbidden => forbidden(
            "user namespaces, which running without root needs, are for root only (kernel.unprivileged_userns_clone is 0)".into(),
            "kernel.unprivileged_userns_clone=1",
        ),
        () if found.apparmor && (refused.is_some() || is_confined) => forbidden(
            "AppArmor takes the rights in user namespaces away, which running without root needs (kernel.apparmor_restrict_unprivileged_userns is 1)".into(),
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        () => match refused {
            Some(why) => missing(check, format!("failed to make a user namespace, which running without root needs: {why}"))
                .mend("sudo stack"),
            None => good(check, "allowed"),
        },
    }
}

fn identities(found: &Identities, user: &User, mend: Mend) -> Finding {
    let check = "subordinate ids";
    let one = "containers have one user id, and every file in them is yours";
    if !found.lacking.is_empty() {
        let names = names(&found.lacking);
        let text = format!("{names} not installed: {one}");
        return warning(check, text).mend(mend.install(Package::IdMaps));
    }
    if found.users == 0 || found.groups == 0 {
        let files = [("/etc/subuid", found.users), ("/etc/subgid", found.groups)];
        let empty: Vec<&str> = files.iter().filter(|(_, count)| *count == 0).map(|(file, _)| *file).collect();
        let text = format!("no range of {} in {}: {one}", user.name, empty.join(", "));
        let line = format!("{}:{}:65536", user.name, found.next);
        return warning(check, text)
            .mend(format!("echo {line} | {}", mend.root(&format!("tee -a {}", empty.join(" ")))));
    }
    if let Some(powerless) = found.powerless.first() {
        // Then mapping fails, and the user is left without the single id, too.
        let text = format!("{} has lost its right to map ids", powerless.display());
        return missing(check, text).mend(mend.reinstall(Package::IdMaps));
    }
    let least = found.users.min(found.groups);
    if least < ENOUGH_IDS {
        let text = format!("{} has {least}: images with users above that do not unpack", user.name);
        let line = format!("{}:{}:65536", user.name, found.next);
        let tee = mend.root("tee -a /etc/subuid /etc/subgid");
        return warning(check, text).mend(format!("echo {line} | {tee}"));
    }
    good(check, format!("{} users and {} groups of {}", found.users, found.groups, user.name))
}

fn names(programs: &[String]) -> String {
    let verb = if programs.len() == 1 { "is" } else { "are" };
    format!("`{}` {verb}", programs.join("` and `"))
}

fn links(trials: &Trials, mend: Mend) -> Finding {
    match &trials.bridge {
        Ok(()) => good("network", "bridge and veth"),
        Err(why) => missing("network", format!("no bridge or veth for the network of a stack: {why}"))
            .mend(format!("{} && {}", mend.module("bridge"), mend.module("veth"))),
    }
}

fn firewall(trials: &Trials, mend: Mend) -> Finding {
    match &trials.nftables {
        Ok(()) => good("nftables", "masquerade and isolation"),
        Err(why) => {
            let text = format!("no rules can be made, so containers reach nothing outside: {why}");
            let modules = ["nf_tables", "nft_masq", "nft_ct"].map(|name| mend.module(name));
            warning("nftables", text).mend(modules.join(" && "))
        }
    }
}

fn control_groups(groups: &Groups, user: &User, mend: Mend) -> Finding {
    let check = "control groups";
    if groups.version == GroupVersion::None {
        return warning(check, "none are mounted: limits are not applied").mend(mend.mount_groups());
    }
    match &groups.session {
        Some(session) => of_user(groups.version, session, user, mend),
        None => of_root(groups, mend),
    }
}

fn of_root(groups: &Groups, mend: Mend) -> Finding {
    let check = "control groups";
    if !groups.is_writable {
        return warning(check, "mounted read-only: limits are not applied")
            .mend(mend.root("mount -o remount,rw /sys/fs/cgroup"));
    }
    let lacking = lacking(&groups.controllers);
    if lacking.is_empty() {
        return good(check, format!("{}: {}", version_words(groups.version), groups.controllers.join(" ")));
    }
    let text = format!("the kernel has no {} controller: such limits are not applied", lacking.join(", "));
    let found = warning(check, text);
    // Raspberry Pi OS switches it off.
    if lacking == ["memory"] { found.mend(mend.kernel_argument("cgroup_enable=memory")) } else { found }
}

fn of_user(version: GroupVersion, session: &Session, user: &User, mend: Mend) -> Finding {
    let check = "control groups";
    let none = "limits are not applied";
    if !session.has_systemd {
        return warning(check, format!("no systemd, which would delegate groups to {}: {none}", user.name))
            .mend("sudo stack");
    }
    if version != GroupVersion::Unified {
        let text = format!("version 1, which is not delegated to users: {none}");
        return warning(check, text).mend(mend.kernel_argument("systemd.unified_cgroup_hierarchy=1"));
    }
    if !session.is_running {
        let text = format!("no service manager of {} answers: {none}", user.name);
        let linger = mend.root(&format!("loginctl enable-linger {}", user.name));
        return warning(check, text)
            .mend(format!("{linger} && export XDG_RUNTIME_DIR=/run/user/{}", user.uid));
    }
    let lacking = lacking(&session.delegated);
    if !lacking.is_empty() {
        let text = format!(
            "systemd delegates no {} controller to {}: such limits are not applied",
            lacking.join(", "),
            user.name
        );
        return warning(check, text).mend(delegate(user, mend));
    }
    good(check, format!("version 2, delegated: {}", session.delegated.join(" ")))
}

fn delegate(user: &User, mend: Mend) -> String {
    let sudo = |command: &str| mend.root(command);
    let dir = "/etc/systemd/system/user@.service.d";
    format!(
        "{} && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | {} && {} && {}",
        sudo(&format!("mkdir -p {dir}")),
        sudo(&format!("tee {dir}/delegate.conf")),
        sudo("systemctl daemon-reload"),
        sudo(&format!("systemctl restart user@{}.service", user.uid)),
    )
}

fn lacking(controllers: &[String]) -> Vec<&'static str> {
    CONTROLLERS.into_iter().filter(|wanted| !controllers.iter().any(|known| known == wanted)).collect()
}

fn version_words(version: GroupVersion) -> &'static str {
    match version {
        GroupVersion::Unified => "version 2",
        GroupVersion::Hybrid => "hybrid",
        GroupVersion::Legacy => "version 1",
        GroupVersion::None => "none",
    }
}

fn uplink(found: &Uplink, mend: Mend) -> Finding {
    let none = "containers reach each other and their published ports, nothing outside";
    match (&found.pasta, found.tun) {
        (None, _) => warning("pasta", format!("not installed: {none}")).mend(mend.install(Package::Pasta)),
        (_, Tun::Absent) => {
            warning("pasta", format!("there is no /dev/net/tun: {none}")).mend(mend.module("tun"))
        }
        (_, Tun::Forbidden) => warning("pasta", format!("/dev/net/tun is for root only: {none}"))
            .mend(mend.root("chmod 666 /dev/net/tun")),
        (Some(path), Tun::Usable) => good("pasta", path.display().to_string()),
    }
}

fn home(disk: &Disk, user: &User, mend: Mend) -> Finding {
    let (check, place, kind) = ("home", disk.home.display(), &disk.file_system);
    if !disk.is_writable {
        let owner = mend.root(&format!("install -d -o {} {place}", user.name));
        return missing(check, format!("{place} cannot be written to")).mend(owner);
    }
    if UNFIT.contains(&kind.as_str()) {
        let text = format!("{place} is on {kind}, which cannot hold the layers of containers");
        return missing(check, text).mend(elsewhere());
    }
    if MEMORY_ONLY.contains(&kind.as_str()) {
        let text =
            format!("{place} is on {kind}: images and volumes are in memory and lost at the next boot");
        return warning(check, text).mend(elsewhere());
    }
    good(check, format!("{place} ({kind})"))
}

fn room(disk: &Disk) -> Finding {
    let check = "disk space";
    let (free, inodes) = (size(disk.free_bytes), disk.free_inodes);
    let mend = "stack system prune --all";
    let few = |limit: u64| inodes.is_some_and(|inodes| inodes < limit);
    let files = inodes.map_or_else(String::new, |inodes| format!(" and {inodes} files"));
    let text = format!("{free}{files} free for {}", disk.home.display());
    match () {
        () if disk.free_bytes < LEAST_BYTES => missing(check, format!("only {text}")).mend(mend),
        () if few(LEAST_INODES) => missing(check, format!("only {text}")).mend(mend),
        () if disk.free_bytes < FEW_BYTES || few(FEW_INODES) => {
            warning(check, format!("only {text}")).mend(mend)
        }
        () => good(check, text),
    }
}
