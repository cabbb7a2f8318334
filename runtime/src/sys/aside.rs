//! Starting a helper program beside the runtime, in a mount namespace of its own.
//!
//! `pasta` opens the network namespace it serves by path, and distributions confine it to
//! `/run/user/UID/netns`. So the namespace is bound to such a path on a `/run` that only the
//! helper sees: the host's mounts and folders stay untouched and nothing is left behind.

use super::netns::enter;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use tokio::io::unix::AsyncFd;

/// Whether the helper outlives this process.
#[derive(Debug)]
pub enum Life {
    Own,
    /// It is killed when the sender's other end goes, or with this process.
    Until(mpsc::Receiver<()>),
}

/// Starts `command` in namespace `netns`, with `served` bound to the path [`place`] gives,
/// and returns its number. It has a process group of its own, so that a key press in the
/// terminal does not reach it. A thread stays with it and collects it when it has ended.
///
/// # Errors
/// `NotFound` when the program is not installed; otherwise the operating system's.
pub fn spawn(mut command: Command, netns: &OwnedFd, served: &OwnedFd, life: Life) -> io::Result<i32> {
    let (netns, served) = (netns.try_clone()?, served.try_clone()?);
    let (started, outcome) = mpsc::channel();
    command.process_group(0);
    std::thread::Builder::new().name("aside".into()).spawn(move || {
        if let Life::Until(_) = &life {
            die_with_parent(&mut command);
        }
        let child = prepare(&netns, &served).and_then(|()| command.spawn());
        drop((netns, served));
        match child {
            Ok(child) => accompany(child, &started, life),
            // The receiver is waiting below.
            Err(error) => drop(started.send(Err(error))),
        }
    })?;
    outcome.recv().map_err(io::Error::other)?
}

/// The helper's parent is this thread, so it stays as long as the helper may.
fn accompany(mut child: Child, started: &mpsc::Sender<io::Result<i32>>, life: Life) {
    drop(started.send(Ok(child.id().cast_signed())));
    if let Life::Until(end) = life {
        // Nothing is ever sent: this returns when the other end is dropped.
        let Err(mpsc::RecvError) = end.recv() else { return };
        drop(child.kill());
    }
    drop(child.wait());
}

/// The path at which the helper finds the namespace.
pub fn place() -> PathBuf {
    Path::new("/run/user").join(nix::unistd::geteuid().to_string()).join("netns/stack")
}

/// Gives the calling thread its own view of the file system.
fn prepare(netns: &OwnedFd, served: &OwnedFd) -> io::Result<()> {
    enter(netns)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    // Slave: unmounting on the host is not held up by this copy.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)?;
    mount(Some("stack"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=64k"))?;
    let place = place();
    fs::create_dir_all(place.parent().expect("the path has a folder"))?;
    fs::write(&place, "")?;
    let source = format!("/proc/thread-self/fd/{}", served.as_raw_fd());
    Ok(mount(Some(source.as_str()), &place, nothing, MsFlags::MS_BIND, nothing)?)
}

/// Lets the async runtime watch a descriptor that nobody else closes.
pub fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the value owns its descriptor, gives the same one every time, and closes it
    // only when it is dropped, which is after it has left the runtime.
    #[allow(unsafe_code)]
    let watched = unsafe { AsyncFd::register(descriptor) };
    watched.map_err(io::Error::from)
}

fn die_with_parent(command: &mut Command) {
    let die = || Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?);
    // SAFETY: the closure runs between fork and exec and makes one system call; it
    // neither allocates nor takes a lock.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(die);
    }
}
