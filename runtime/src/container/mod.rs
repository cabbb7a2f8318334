//! One container as the launcher gets it: the OCI runtime spec and what OCI has no word for.
//!
//! [`crate::spec::ContainerSpec`] → `oci_spec::runtime::Spec` + [`Extras`] = [`Bundle`] → operations of
//! [`crate::init`]. Everything that can be refused with a good sentence is refused here, before a process exists.

pub(crate) mod capability;
mod device;
mod mount;
mod oci;
mod resources;
mod rest;
pub(crate) mod seccomp;
mod signal;

pub(crate) use device::{default_nodes as default_devices, granted_rules as default_device_rules};
pub use mount::{ContentFile, CopyUp, ImageMount};
pub(crate) use oci::DEFAULT_PATH;
pub use rest::{ids_of, root_at_rest, root_to_read};
pub(crate) use seccomp::names as seccomp_names;
pub use signal::{catches_signal, signal_number};

use crate::launch::{BindFiles, LaunchError, LaunchRequest, LaunchStdio};
use crate::spec::{ExecSpec, LogSpec, NamespaceMode};
use oci_spec::runtime::{Spec, State, StateBuilder};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// An order to create a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
    pub spec: Spec,
    pub extras: Extras,
    pub log: LogSpec,
    /// Path below the cgroup root; empty: none of its own.
    pub cgroup: String,
    pub ephemeral: bool,
}

impl Bundle {
    /// What hooks are told, and where they find the OCI runtime spec.
    pub(crate) fn state(&self, status: &str) -> State {
        let bundle = self.extras.direct.as_ref().map_or_else(|| self.hooks_dir(), |d| d.bundle.clone());
        let mut state = StateBuilder::default()
            .version(self.spec.version().as_str())
            .id(self.id.as_str())
            .status(crate::oci::oci_status(status))
            .bundle(bundle)
            .build()
            .expect("no field is required");
        state.set_annotations(self.spec.annotations().clone());
        state
    }

    /// An OCI bundle beside our own record of the container, made where it has hooks.
    pub(crate) fn hooks_dir(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// The program gets a terminal of its own.
    pub(crate) fn has_terminal(&self) -> bool {
        self.spec.process().as_ref().and_then(|process| process.terminal()) == Some(true)
    }
}

/// What a container needs beyond the OCI runtime spec.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Top first.
    pub lower_dirs: Vec<PathBuf>,
    pub files: BindFiles,
    pub contents: Vec<ContentFile>,
    pub images: Vec<ImageMount>,
    pub copy_ups: Vec<CopyUp>,
    /// `user[:group]` is in the spec's `process.user.username`; these come on top.
    pub group_add: Vec<String>,
    /// Put a reaping pid 1 in front of the program.
    pub init: bool,
    /// Keep stdin open for clients of the attach socket.
    pub stdin_open: bool,
    /// Init process whose `/dev/shm` is shared.
    pub shm_of: Option<i32>,
    /// The order brings the standard streams along.
    pub has_streams: bool,
    pub privileged: bool,
    /// It is removed when it ends, so its files need not be on disk by then: else the end waits until all that anybody
    /// has written to that disk is.
    pub volatile: bool,
    /// The spec is somebody else's `config.json`.
    pub direct: Option<Direct>,
}

/// What an OCI command asks for: the root is the directory of the spec, users are numbers, the program awaits its
/// start on a pipe and outlives whoever created it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Direct {
    pub bundle: PathBuf,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
}

/// An order to run a program in a running container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecPlan {
    pub pid: i32,
    pub dir: PathBuf,
    pub exec: ExecSpec,
    /// Rows and columns of the terminal to make.
    pub tty: Option<(u16, u16)>,
}

/// A bundle, the streams that go with it, and warnings.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub bundle: Bundle,
    pub streams: Vec<OwnedFd>,
    pub warnings: Vec<String>,
}

/// Checks what cannot be checked later with a good message, and splits off the streams.
pub(crate) fn prepare(request: LaunchRequest) -> Result<Prepared, LaunchError> {
    let mut extras = extras(&request);
    let spec = oci::resolve(&request, &mut extras)
        .map_err(|reason| LaunchError::new("create the container", reason).code(128))?;
    let warnings = warnings(&request);
    let LaunchRequest { id, dir, spec: own, cgroup, ephemeral, stdio, .. } = request;
    let streams = match stdio {
        LaunchStdio::Logged => Vec::new(),
        LaunchStdio::Fds(fds) => Vec::from(fds),
    };
    let bundle = Bundle { id, dir, spec, extras, log: own.logging, cgroup, ephemeral };
    Ok(Prepared { bundle, streams, warnings })
}

fn extras(request: &LaunchRequest) -> Extras {
    let spec = &request.spec;
    Extras {
        lower_dirs: request.lower_dirs.clone(),
        files: request.files.clone(),
        group_add: spec.group_add.clone(),
        // With a shared pid namespace there is no pid 1 to be.
        init: spec.init && matches!(spec.pid_mode, NamespaceMode::Private | NamespaceMode::Shareable),
        stdin_open: spec.stdin_open,
        shm_of: request.join.ipc.filter(|_| matches!(spec.ipc_mode, NamespaceMode::Container(_))),
        has_streams: matches!(request.stdio, LaunchStdio::Fds(_)),
        privileged: spec.privileged,
        volatile: spec.auto_remove,
        ..Extras::default()
    }
}

/// What is accepted and not honoured, by name.
fn warnings(request: &LaunchRequest) -> Vec<String> {
    let mut warnings = Vec::new();
    for option in &request.spec.security_opt {
        let confining = option.starts_with("apparmor") || option.starts_with("label");
        if confining && !option.ends_with("unconfined") && !option.ends_with("disable") {
            warnings.push(format!("security_opt {option:?} is not applied: no such security module is used"));
        }
    }
    if request.spec.userns.as_deref().is_some_and(|mode| !matches!(mode, "" | "host")) {
        warnings.push("userns_mode is not applied: containers share the user namespace".to_owned());
    }
    warnings
}

/// Running containers needs root today.
pub(crate) fn check_privileges() -> io::Result<()> {
    const SYS_ADMIN: u64 = 1 << 21;
    let permitted = rustix::thread::capabilities(None)?.effective.bits();
    let missing = if !rustix::process::geteuid().is_root() {
        "running containers needs root (rootless mode is not available yet): run it with sudo"
    } else if permitted & SYS_ADMIN == 0 {
        "running containers needs the capability CAP_SYS_ADMIN, which this root lacks"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, missing))
}
