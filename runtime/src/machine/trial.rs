//! Trying: each in a process of its own, whose namespaces go with it.

use super::{Trials, Tried, User, read};
use crate::network::trial as network;
use crate::rootless::Mapping;
use crate::sys::process::{self, Fork};
use crate::sys::user_namespace;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, unmount};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) fn all(user: &User, home: &Path) -> Trials {
    let apart = |trial: &dyn Fn() -> io::Result<()>| {
        apart(|| {
            become_root(user)?;
            trial()
        })
    };
    let user_namespace = (!user.is_root()).then(|| apart(&|| Ok(())));
    if let Some(Err(why)) = &user_namespace {
        // Nothing else can be tried.
        let same = || Err(why.clone());
        return Trials {
            user_namespace: Some(same()),
            namespaces: same(),
            proc: same(),
            overlay: same(),
            bridge: same(),
            nftables: same(),
        };
    }
    Trials {
        user_namespace,
        namespaces: apart(&|| process::unshare(NAMESPACES)),
        proc: apart(&mount_proc),
        overlay: apart(&|| mount_overlay(read::existing(home))),
        bridge: apart(&|| {
            process::unshare(libc::CLONE_NEWNET)?;
            network::links()
        }),
        nftables: apart(&|| {
            process::unshare(libc::CLONE_NEWNET)?;
            network::rules()
        }),
    }
}

const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Of a user namespace like that of all commands, which nobody else will enter.
fn become_root(user: &User) -> io::Result<()> {
    if user.is_root() {
        return Ok(());
    }
    let mapping = Mapping::of_user();
    user_namespace::create(|pid| mapping.write(pid))?;
    user_namespace::become_root(user.uid)
}

/// In a child, which tells how it went.
fn apart(trial: impl FnOnce() -> io::Result<()>) -> Tried {
    let (mut said, mut tell) = pipe().map_err(|e| e.to_string())?;
    match process::fork().map_err(|e| e.to_string())? {
        Fork::Child => {
            let words = trial().err().map_or_else(|| DONE.to_owned(), |e| e.to_string());
            let _ = tell.write_all(words.as_bytes()); // a short word means failure, too
            process::exit(0)
        }
        Fork::Parent(child) => {
            drop(tell);
            let mut words = String::new();
            let read = said.read_to_string(&mut words);
            let _ = waitpid(Pid::from_raw(child), WaitOptions::empty());
            read.map_err(|e| e.to_string())?;
            match words.as_str() {
                DONE => Ok(()),
                "" => Err("the trial was killed".into()),
                _ => Err(words),
            }
        }
    }
}

const DONE: &str = "done";

fn pipe() -> io::Result<(File, File)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read.into(), write.into()))
}

fn own_mounts() -> io::Result<()> {
    process::unshare(libc::CLONE_NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// A new `/proc` over the old one, by the first process of a new pid namespace.
fn mount_proc() -> io::Result<()> {
    own_mounts()?;
    process::unshare(libc::CLONE_NEWPID)?;
    let mounted = apart(|| Ok(mount("proc", "/proc", "proc", MountFlags::empty(), None)?));
    mounted.map_err(io::Error::other)
}

/// With a file removed that is in the lower layer, which needs more of the upper file system than a mount does.
fn mount_overlay(beside: &Path) -> io::Result<()> {
    own_mounts()?;
    let dir = tempfile::Builder::new().prefix(".stack-doctor-").tempdir_in(beside)?;
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| dir.path().join(name));
    for made in [&lower, &upper, &work, &merged] {
        fs::create_dir(made)?;
    }
    fs::write(lower.join("file"), "x")?;
    let mut options = Vec::new();
    for (key, path) in [("lowerdir=", &lower), (",upperdir=", &upper), (",workdir=", &work)] {
        options.extend_from_slice(key.as_bytes());
        options.extend(path.as_os_str().as_bytes().iter().flat_map(|byte| escaped(*byte)));
    }
    if !user_namespace::is_initial() {
        options.extend_from_slice(b",userxattr");
    }
    let options = CString::new(options)?;
    mount("overlay", &merged, "overlay", MountFlags::empty(), Some(options.as_c_str()))?;
    let used = fs::remove_file(merged.join("file")).and_then(|()| fs::write(merged.join("other"), "x"));
    unmount(&merged, rustix::mount::UnmountFlags::DETACH)?;
    used
}

/// Overlay splits its options at these.
fn escaped(byte: u8) -> Vec<u8> {
    match byte {
        b',' | b':' | b'\\' => vec![b'\\', byte],
        _ => vec![byte],
    }
}
