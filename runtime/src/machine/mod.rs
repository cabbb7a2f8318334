//! What this machine offers, as plain data: read from the kernel's files, and found out by trying.
//!
//! [`Machine::glance`] reads what costs a few dozen system calls, for a look before anything is made.
//! [`Machine::look`] reads everything and tries the mounts and links that containers need, each in a process of its own
//! that is gone afterwards. Nothing is judged here.

mod read;
mod trial;

use crate::home::Home;
use std::path::PathBuf;

/// See the module. What was not looked at is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub user: User,
    pub kernel: Kernel,
    pub restrictions: Restrictions,
    pub disk: Disk,
    pub distribution: Option<Distribution>,
    /// Of an ordinary user.
    pub identities: Option<Identities>,
    pub groups: Option<Groups>,
    pub uplink: Option<Uplink>,
    pub trials: Option<Trials>,
}

/// Who runs `stack`, whatever user namespace this process is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    /// The number where there is no name, or where it was not looked up.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// Kinds of namespaces, as in `/proc/self/ns`.
    pub namespaces: Vec<String>,
    pub overlay: Module,
    /// System calls can be filtered.
    pub has_seccomp: bool,
}

/// A part of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// Built in or loaded.
    Present,
    /// Loaded when it is first used.
    Loadable,
    Absent,
}

/// Settings that keep ordinary users from making user namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub apparmor: bool,
    /// `kernel.unprivileged_userns_clone` is there and 0.
    pub clone_is_forbidden: bool,
    /// `user.max_user_namespaces`.
    pub most_user_namespaces: Option<u64>,
    /// The AppArmor profile of this process.
    pub profile: Option<String>,
    /// What the kernel said when one was asked for.
    pub refused: Option<String>,
}

/// Where the home is, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub home: PathBuf,
    /// `ext4`, or its number where it has no known name.
    pub file_system: String,
    pub free_bytes: u64,
    /// File systems without a fixed number have `None`.
    pub free_inodes: Option<u64>,
    pub is_writable: bool,
}

/// From os-release(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    pub id: String,
    /// Those it is like.
    pub like: Vec<String>,
}

/// What an ordinary user may map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    /// How many ids `/etc/subuid` and `/etc/subgid` give the user.
    pub users: u64,
    pub groups: u64,
    /// The first id that no range of either file has.
    pub next: u64,
    /// Those of `newuidmap` and `newgidmap` that are not installed.
    pub lacking: Vec<String>,
    /// Those that are installed without the right to map.
    pub powerless: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    pub version: GroupVersion,
    /// Of the whole machine.
    pub controllers: Vec<String>,
    pub is_writable: bool,
    /// Of an ordinary user.
    pub session: Option<Session>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupVersion {
    Unified,
    /// Controllers in version 1, and a version 2 hierarchy beside them.
    Hybrid,
    Legacy,
    None,
}

/// What the service manager does for an ordinary user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// systemd is PID 1.
    pub has_systemd: bool,
    /// The user's own service manager answers.
    pub is_running: bool,
    /// It goes on when the user has logged out.
    pub lingers: bool,
    /// Controllers handed to it.
    pub delegated: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    pub pasta: Option<PathBuf>,
    pub tun: Tun,
}

/// `/dev/net/tun`, which `pasta` opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tun {
    Usable,
    /// For root only.
    Forbidden,
    Absent,
}

/// What happened when it was tried; the error is the operating system's.
pub type Tried = Result<(), String>;

/// Each as this user would have it: in a user namespace for an ordinary one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trials {
    /// Making one and being root in it; `None` for root.
    pub user_namespace: Option<Tried>,
    pub namespaces: Tried,
    pub proc: Tried,
    /// In the home's file system.
    pub overlay: Tried,
    pub bridge: Tried,
    pub nftables: Tried,
}

impl Machine {
    /// Without what costs time; also for a process that has other threads, or is in a user namespace already.
    pub fn glance(home: &Home) -> Self {
        let uid = crate::sys::user_namespace::owner().unwrap_or_else(|| nix::unistd::geteuid().as_raw());
        Self {
            user: User { uid, name: uid.to_string() },
            kernel: read::kernel(),
            restrictions: read::restrictions(),
            disk: read::disk(&home.data),
            distribution: None,
            identities: None,
            groups: None,
            uplink: None,
            trials: None,
        }
    }

    /// Everything. Callers are single-threaded, and in no user namespace of ours.
    pub fn look(home: &Home) -> Self {
        let glance = Self::glance(home);
        let user = read::user(glance.user.uid);
        let identities = (!user.is_root()).then(|| read::identities(&user));
        Self {
            distribution: Some(read::distribution()),
            identities,
            groups: Some(read::groups(&user)),
            uplink: Some(read::uplink()),
            trials: Some(trial::all(&user, &home.data)),
            user,
            ..glance
        }
    }

    /// What is asked of the distribution, for a finding of a glance.
    pub fn with_names(self) -> Self {
        Self { distribution: Some(read::distribution()), user: read::user(self.user.uid), ..self }
    }
}

impl User {
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}
