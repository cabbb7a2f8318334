//! Containers without root: an ordinary user is root in a user namespace.
//!
//! Every command of the user that touches containers or the store enters the same user namespace first, while it is
//! single-threaded; from there on the code is the one that root runs. The namespace has no keeper: it lives as long
//! as a process is in it (a supervisor, a monitor, another command), and the next command finds such a process by the
//! number in `run/namespace.json`. When nobody is left a new one is made, with the same mapping, so files keep their
//! owners.
//!
//! | mapping | when | means |
//! |---|---|---|
//! | subordinate ids | `newuidmap` is installed and `/etc/subuid`, `/etc/subgid` have a range of the user | 0 is the caller, 1… the range |
//! | single id | otherwise | 0 is the caller; every file is theirs, a container can only be root |

mod mapping;
mod outside;

pub(crate) use mapping::{HELPERS, ranges};
pub use mapping::{Mapping, Range};
pub(crate) use outside::holder;

use crate::boot;
use crate::home::{self, Home};
use crate::sys::user_namespace;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;

/// In the run directory.
const RECORD: &str = "namespace.json";
const LOCK: &str = "namespace.lock";

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Inode number of the namespace.
    namespace: u64,
    /// The boot that gave it.
    #[serde(default)]
    boot: String,
}

/// Whether this process is root only for an ordinary user.
pub fn is_active() -> bool {
    user_namespace::owner().is_some()
}

/// Makes an ordinary user root in their user namespace. Does nothing for root. Call it before the first thread.
///
/// # Errors
/// `PermissionDenied` when the kernel or the system's settings forbid it.
pub fn enter() -> io::Result<()> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    let home = Home::from_env();
    home.prepare_run()?;
    outside::leave_behind()?;
    let _one_at_a_time = home::lock(&home.run.join(LOCK))?;
    let record = home.run.join(RECORD);
    let known = home::read_json::<Record>(&record).ok().flatten();
    match known.filter(|known| known.boot == boot::id()).and_then(|known| find(known.namespace)) {
        Some(namespace) => user_namespace::join(namespace)?,
        None => {
            let mapping = Mapping::of_user();
            user_namespace::create(|pid| mapping.write(pid))?;
            home::replace_json(&record, &Record { namespace: own_namespace()?, boot: boot::id().into() })?;
        }
    }
    user_namespace::become_root(uid.as_raw())
}

fn own_namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self/ns/user")?.ino())
}

/// The namespace with this number, by any process in it that we may look at.
fn find(number: u64) -> Option<File> {
    let wanted = format!("user:[{number}]");
    let own = fs::read_link("/proc/self/ns/user").ok();
    // The number may have been given to the namespace we are in after its own had gone.
    if own.is_some_and(|own| own.as_os_str() == wanted.as_str()) {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let numbered =
        processes.filter(|e| e.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit));
    for process in numbered {
        let link = process.path().join("ns/user");
        if fs::read_link(&link).is_ok_and(|target| target.as_os_str() == wanted.as_str())
            && let Ok(namespace) = File::open(&link)
        {
            return Some(namespace);
        }
    }
    None
}
