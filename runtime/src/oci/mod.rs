//! Containers by the OCI runtime command line: a bundle on disk, a state directory, no owner that stays.
//!
//! ```text
//! create ─ config ─► Bundle ─► init::birth ─► … ─► waits on exec.fifo        (its parent is whoever called us)
//! start  ─ opens the fifo, hears whether the program runs
//! exec   ─ joins the namespaces, same operations
//! delete ─ control groups, state, poststop hooks
//! ```
//!
//! The way from [`Bundle`](crate::container::Bundle) to the program is the one of every container; what is left
//! out is the monitor: engines that call an OCI runtime are the parent of what it starts and wait for it.
//!
//! | file in `ROOT/ID` | |
//! |---|---|
//! | `state.json` | [`Record`]: who it is, where it runs |
//! | `bundle.json` | the bundle as it was created, with later updates of its limits |
//! | `exec.fifo` | there until the start |

mod config;
mod console;
mod create;
mod exec;
mod features;
mod foreground;
mod hooks;
mod inspect;
mod life;
mod notify;
mod start;
mod store;
mod template;
mod update;

pub use create::CreateOptions;
pub use exec::ExecOptions;
pub use features::features;
pub(crate) use hooks::run as run_hooks;
pub(crate) use store::oci_status;
pub use store::{Record, Status};
pub use template::template;
pub use update::Update;

use crate::launch::LaunchError;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, LaunchError>;

/// One root directory with its containers.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
}

impl Runtime {
    /// `None`: the default, `/run/stack/oci` or `$XDG_RUNTIME_DIR/stack/oci`.
    pub fn new(root: Option<PathBuf>) -> Self {
        Self { root: root.map_or_else(default_root, absolute) }
    }
}

fn default_root() -> PathBuf {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    of_user.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("stack/oci")
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Executes the running program again from where no container can write to it. Returns when it is there already,
/// or where that cannot be had (an ordinary user's containers cannot write to it either).
///
/// # Errors
/// The operating system's.
pub fn seal(args: &[std::ffi::OsString]) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() || is_sealed() {
        return Ok(());
    }
    let Ok(sealed) = crate::launch::sealed(Path::new("/proc/self/exe")) else { return Ok(()) };
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&sealed));
    let mut command = std::process::Command::new(path);
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    Err(command.exec())
}

/// On a read-only mount, or in a sealed memory file, which has no links.
fn is_sealed() -> bool {
    use std::os::unix::fs::MetadataExt;
    let read_only = rustix::fs::statvfs("/proc/self/exe")
        .is_ok_and(|at| at.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    read_only || std::fs::metadata("/proc/self/exe").is_ok_and(|meta| meta.nlink() == 0)
}
