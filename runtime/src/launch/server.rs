//! The launcher process itself: receives requests, forks, and forgets.

use super::message::{Hello, NetnsKind, Order, Reply, Request};
use super::{LaunchError, message};
use crate::sys::packet;
use crate::sys::process::{self, Fork};
use crate::{init, monitor};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::DumpableBehavior;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

/// The hidden entry `__launch`: single-threaded, control socket on stdin.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let words = format!("stack starts this by itself, it is not a command ({e})\n");
            // Nobody may be there to read it.
            let _ = io::stderr().write_all(words.as_bytes());
            ExitCode::from(125)
        }
    }
}

fn serve() -> io::Result<()> {
    let control = settle()?;
    let (hello, fds) = packet::receive(&control)?;
    let hello: Hello = serde_json::from_slice(&hello)?;
    let netns = match netns(hello.netns, fds) {
        Ok(netns) => netns,
        Err(e) => {
            return packet::send(&control, format!("cannot make the network namespace: {e}").as_bytes(), &[]);
        }
    };
    packet::send(&control, b"ready", &[netns.as_fd()])?;
    // While the owner does other things: nearly every container needs it.
    init::prepare_default_filter();
    if listen(&control, &netns)? {
        Ok(())
    } else {
        hello.respawn.map_or(Ok(()), |args| respawn(&args, netns))
    }
}

/// Nobody else's session, not to be looked into, children reaped by the kernel.
fn settle() -> io::Result<OwnedFd> {
    let control = std::io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
    let _ = rustix::process::setsid();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_name(c"stack-launch")?;
    // Files of containers' directories get the modes that are asked for.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    process::reset_signals();
    process::ignore_signals(&[libc::SIGCHLD, libc::SIGHUP, libc::SIGINT, libc::SIGPIPE]);
    Ok(control)
}

/// The namespace of the containers. We stay outside, where our owner and its replacement are: an ordinary user's
/// process could not come back.
fn netns(kind: NetnsKind, fds: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    match (kind, fds.into_iter().next()) {
        (NetnsKind::Current, _) => Ok(File::open("/proc/self/ns/net")?.into()),
        (NetnsKind::New, _) => new_netns(),
        (NetnsKind::Join, Some(fd)) => Ok(fd),
        (NetnsKind::Join, None) => Err(io::Error::other("no namespace came along")),
    }
}

/// Made by a child, which sends it and is gone.
fn new_netns() -> io::Result<OwnedFd> {
    let (ours, theirs) = packet::pair()?;
    if let Fork::Child = process::fork()? {
        let made = process::unshare(libc::CLONE_NEWNET).and_then(|()| process::loopback_up());
        let sent =
            made.and_then(|()| packet::send(&theirs, b"n", &[File::open("/proc/self/ns/net")?.as_fd()]));
        process::exit(i32::from(sent.is_err()));
    }
    drop(theirs);
    let (_, fds) = packet::receive(&ours)?;
    fds.into_iter().next().ok_or_else(|| io::Error::other("the kernel refused one"))
}

/// Until the owner says goodbye (true) or is gone without (false).
fn listen(control: &OwnedFd, netns: &OwnedFd) -> io::Result<bool> {
    loop {
        let (bytes, fds) = match packet::receive(control) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            result => result?,
        };
        match bytes.first().map(|byte| Request::from_byte(*byte)) {
            None => return Ok(false),
            Some(Some(Request::Shutdown)) => return Ok(true),
            Some(Some(Request::Order)) => fork_for(fds, netns),
            Some(None) => {}
        }
    }
}

/// The child reads the order itself, so that the next one need not wait for it.
fn fork_for(fds: Vec<OwnedFd>, netns: &OwnedFd) {
    let mut fds = fds.into_iter();
    let (Some(memory), Some(reply)) = (fds.next(), fds.next()) else { return };
    match process::fork() {
        Ok(Fork::Parent(_)) => {}
        Ok(Fork::Child) => {
            let kept: Vec<i32> =
                fds.as_slice().iter().chain([&memory, &reply]).map(AsRawFd::as_raw_fd).collect();
            let entered = enter(netns);
            let _ = process::close_all_except(&kept);
            if let Err(e) = entered {
                fail(&reply, &LaunchError::new("enter the stack's network namespace", e));
                process::exit(1)
            }
            obey(memory, reply, fds.collect())
        }
        Err(e) => fail(&reply, &LaunchError::new("fork a monitor", e)),
    }
}

fn obey(memory: OwnedFd, reply: OwnedFd, streams: Vec<OwnedFd>) -> ! {
    match Order::from_memory(memory) {
        Ok(message::Order::Create(bundle)) => monitor::run(*bundle, reply, streams),
        Ok(message::Order::Exec(plan)) => monitor::exec(*plan, reply, streams),
        Err(e) => fail(&reply, &LaunchError::new("read the order", e)),
    }
    process::exit(0)
}

fn fail(reply: &OwnedFd, error: &LaunchError) {
    let reply_bytes = serde_json::to_vec(&Reply::Failed(error.clone())).unwrap_or_default();
    let _ = packet::send(reply, &reply_bytes, &[]);
}

/// Only into another one: staying needs no privilege.
fn enter(netns: &OwnedFd) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let there = rustix::fs::fstat(netns)?.st_ino;
    if std::fs::metadata("/proc/self/ns/net")?.ino() == there {
        return Ok(());
    }
    Ok(move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The owner's replacement, of the very program that runs here. The containers' network namespace, which may be in
/// nobody else's hands, is its standard input.
fn respawn(args: &[String], netns: OwnedFd) -> io::Result<()> {
    process::reset_signals();
    std::process::Command::new("/proc/self/exe").arg0("stack").args(args).stdin(netns).spawn().map(drop)
}
