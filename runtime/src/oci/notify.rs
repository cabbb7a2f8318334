//! Handing the system call filter's questions to the agent that answers them.

use super::store::{Record, Status};
use crate::launch::{LaunchError, Named};
use crate::sys::{packet, task};
use oci_spec::runtime::{ContainerProcessStateBuilder, LinuxSeccomp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The name by which an agent knows the descriptor.
const LISTENER: &str = "seccompFd";

/// Takes the listener from init, which is about to have it at `number`, and sends it to the agent.
pub(super) fn hand_over(
    filter: &LinuxSeccomp,
    child: &crate::init::Child,
    number: i32,
    record: &Record,
    status: Status,
) -> Result<(), LaunchError> {
    let Some(listener) = fetch(child, number).named("fetch the listener of the system call filter")? else {
        // Init has failed before; it says so itself.
        return Ok(());
    };
    let mut state = ContainerProcessStateBuilder::default()
        .version(record.oci_version.as_str())
        .fds(vec![LISTENER.to_owned()])
        .pid(child.pid)
        .state(record.state(status))
        .build()
        .expect("no field is required");
    state.set_metadata(filter.listener_metadata().clone());
    let bytes = serde_json::to_vec(&state).named("encode the state")?;
    let path = filter.listener_path().clone().unwrap_or_default();
    let agent = connect_to(&path).map_err(|e| {
        LaunchError::new(
            "talk to the seccomp agent",
            format!("failed to connect with seccomp agent: {}: {e}", path.display()),
        )
    })?;
    packet::send(&agent, &bytes, &[listener.as_fd()]).named("talk to the seccomp agent")
}

/// It is there a moment after init has announced it; unless init fails.
fn fetch(child: &crate::init::Child, number: i32) -> io::Result<Option<OwnedFd>> {
    let pause = Timespec { tv_sec: 0, tv_nsec: 500_000 };
    loop {
        match task::take_descriptor(child.pidfd.as_fd(), number) {
            Ok(listener) => return Ok(Some(listener)),
            Err(e) if e.raw_os_error() != Some(libc::EBADF) => return Err(e),
            Err(_) => {}
        }
        let mut fds = [PollFd::new(&child.link, PollFlags::IN), PollFd::new(&child.pidfd, PollFlags::IN)];
        if poll(&mut fds, Some(&pause))? > 0 {
            // Between our question and its word it may have come.
            return Ok(task::take_descriptor(child.pidfd.as_fd(), number).ok());
        }
    }
}

/// A stream socket's other end. An address has 108 bytes, a path may have more.
pub(super) fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let dir = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => std::fs::File::open(".")?,
        Some(parent) => std::fs::File::open(parent)?,
        None => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let short = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&dir).to_string()).join(name);
    let address = SocketAddrUnix::new(path).or_else(|_| SocketAddrUnix::new(short))?;
    connect(&socket, &address)?;
    Ok(socket)
}
