//! Standard streams and the program itself.

use super::{Context, Note, reaper};
use crate::container::DEFAULT_PATH;
use crate::sys::process;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fstat, major, minor, open};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;

/// Puts the streams at 0, 1, 2. Pipes and terminals of our own belong to the user, so that programs may open
/// `/dev/stdout` anew.
pub(super) fn streams(context: &mut Context<'_>, terminal: bool) -> io::Result<()> {
    // Now, since a filter may forbid it later. What we open from here on says so itself.
    process::close_on_exec_except(&context.preserved)?;
    let Some([input, output, error]) = context.streams.take() else {
        inherited(context)?;
        return replace_null();
    };
    if context.owns_streams {
        for stream in [&input, &output, &error] {
            own(stream, context, terminal)?;
        }
    }
    dup2_stdin(&input)?;
    dup2_stdout(&output)?;
    dup2_stderr(&error)?;
    if terminal {
        rustix::process::ioctl_tiocsctty(&input)?;
        return Ok(());
    }
    replace_null()
}

/// The `/dev/null` in here instead of the host's, whose mode root could change for everybody. What cannot be opened
/// or is something else (an image is hostile) replaces nothing.
fn replace_null() -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(own) = open("/dev/null", flags, Mode::empty()) else { return Ok(()) };
    if !is_null(&own) {
        return Ok(());
    }
    if is_null(io::stdin()) {
        dup2_stdin(&own)?;
    }
    if is_null(io::stdout()) {
        dup2_stdout(&own)?;
    }
    if is_null(io::stderr()) {
        dup2_stderr(&own)?;
    }
    Ok(())
}

/// Character device 1:3 (`null(4)`).
fn is_null(stream: impl AsFd) -> bool {
    fstat(stream).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
    })
}

/// Streams that came from whoever called us are where they belong. Their pipes become the user's as far as we may.
fn inherited(context: &Context<'_>) -> io::Result<()> {
    if !context.owns_streams {
        return Ok(());
    }
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [input.as_fd(), output.as_fd(), error.as_fd()] {
        if super::path::file_type(stream).is_ok_and(|kind| kind == FileType::Fifo) {
            let (uid, gid) = (Uid::from_raw(context.identity.uid), Gid::from_raw(context.identity.gid));
            let _ = fchown(stream, Some(uid), Some(gid));
        }
    }
    Ok(())
}

fn own(stream: &std::os::fd::OwnedFd, context: &Context<'_>, terminal: bool) -> io::Result<()> {
    let is_pipe = super::path::file_type(stream)? == FileType::Fifo;
    if !is_pipe && !terminal {
        return Ok(());
    }
    // A terminal keeps its group, by which others may write to it.
    let group = is_pipe.then(|| Gid::from_raw(context.identity.gid));
    Ok(fchown(stream, Some(Uid::from_raw(context.identity.uid)), group)?)
}

/// Becomes the program, or its reaper.
pub(super) fn execute(context: &mut Context<'_>, args: &[String], with_reaper: bool) -> io::Result<()> {
    if !context.environment.iter().any(|own| own.starts_with("HOME=")) {
        context.environment.push(format!("HOME={}", context.identity.home));
    }
    if with_reaper {
        reaper::stand_in_front()?;
    }
    context.link.send(&Note::Executing, &[])?;
    process::default_signals();
    // As a shell would have it: the last of several wins.
    let names: Vec<String> =
        context.environment.iter().map(|own| own.split('=').next().unwrap_or_default().to_owned()).collect();
    let mut index = 0;
    context.environment.retain(|_| {
        index += 1;
        !names[index..].contains(&names[index - 1])
    });
    let program = args.first().map_or("", String::as_str);
    let argv = args.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>()?;
    let env =
        context.environment.iter().map(|own| CString::new(own.as_str())).collect::<Result<Vec<_>, _>>()?;
    let mut denied = None;
    for candidate in candidates(program, &context.environment) {
        let Err(error) = nix::unistd::execve(&CString::new(candidate)?, &argv, &env);
        match error {
            nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR if !program.contains('/') => {}
            nix::errno::Errno::EACCES if !program.contains('/') => denied = Some(error),
            error => return Err(error.into()),
        }
    }
    Err(denied.map_or_else(not_found, io::Error::from))
}

/// What the user may not reach, root may; what root may not, the user perhaps. The place must be one of the
/// container's: a descriptor left open could lead out of it.
pub(super) fn change_directory(
    context: &mut Context<'_>,
    path: &std::path::Path,
    is_last: bool,
) -> io::Result<()> {
    if context.has_directory {
        return Ok(());
    }
    match rustix::process::chdir(path) {
        Err(e) if !is_last && e == rustix::io::Errno::ACCESS => return Ok(()),
        result => result?,
    }
    context.has_directory = true;
    match rustix::process::getcwd(Vec::new()) {
        Ok(real) if !real.as_bytes().starts_with(b"/") => {
            Err(io::Error::other("it is outside of the container"))
        }
        Err(rustix::io::Errno::NOENT) => Err(io::Error::other("it is outside of the container")),
        // A filter may forbid to ask.
        _ => Ok(()),
    }
}

/// Says early what `execve` would say. What cannot be known is left to it.
pub(super) fn find(context: &Context<'_>, args: &[String]) -> io::Result<()> {
    let program = args.first().map_or("", String::as_str);
    let mut denied = None;
    for candidate in candidates(program, &context.environment) {
        match crate::sys::task::may_execute(&CString::new(candidate)?) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                denied = denied.or_else(|| program.contains('/').then_some(e));
            }
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => denied = Some(e),
            _ => return Ok(()),
        }
    }
    Err(denied.unwrap_or_else(not_found))
}

fn not_found() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "executable file not found in $PATH")
}

/// Where the program may be, in the order of the container's own PATH.
fn candidates(program: &str, environment: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = environment.iter().rev().find_map(|own| own.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let dirs = path.split(':').filter(|_| !program.is_empty());
    dirs.map(|dir| if dir.is_empty() { format!("./{program}") } else { format!("{dir}/{program}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn the_containers_path_is_searched() {
        let environment = ["PATH=/a:/b".to_owned()];
        assert_eq!(candidates("sh", &environment), ["/a/sh", "/b/sh"]);
        assert_eq!(candidates("./sh", &environment), ["./sh"]);
        assert!(candidates("", &environment).is_empty());
    }
}
