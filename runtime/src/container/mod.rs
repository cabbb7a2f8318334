//! One container as the launcher gets it: the OCI runtime spec and what OCI has no word for.

use crate::launch::{BindFiles, LaunchError, LaunchRequest};
use crate::spec::{ExecSpec, LogSpec};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// An order to create a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
    pub spec: Spec,
    pub extras: Extras,
    pub log: LogSpec,
    /// Path below the cgroup root.
    pub cgroup: String,
    pub ephemeral: bool,
}

/// What a container needs beyond the OCI runtime spec.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Extras {
    /// Top first.
    pub lower_dirs: Vec<PathBuf>,
    pub files: BindFiles,
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

/// Checks what cannot be checked later with a good message, and splits off the streams.
pub(crate) fn bundle(_request: LaunchRequest) -> Result<(Bundle, Vec<OwnedFd>), LaunchError> {
    Err(LaunchError::new("create the container", "not built yet"))
}

/// Running containers needs root today.
pub(crate) fn check_privileges() -> io::Result<()> {
    Ok(())
}
