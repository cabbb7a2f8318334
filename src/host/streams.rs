//! Our own standard streams for a program in a container.
//!
//! Pipes, sockets and `/dev/null` go in as they are. Of anything else the program gets a pipe, and we copy: with a file
//! of the host it could do more than read or write it here (open it anew through `/proc`, leave by a directory).

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Stat, fstat, major, minor};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

/// The program's side, and who copies.
pub(crate) struct Streams {
    sides: [OwnedFd; 3],
    /// Its other end tells that the program has ended.
    running: OwnedFd,
    outputs: Vec<JoinHandle<()>>,
}

impl Streams {
    /// For what is read from `input`, and our own output.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn open(input: BorrowedFd<'_>) -> io::Result<Self> {
        let (ended, running) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut outputs = Vec::new();
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let output = output_side(stdout.as_fd(), &ended, &mut outputs)?;
        // One pipe for one file, so that what is said first comes first.
        let error = match is_same(&fstat(&stdout)?, &fstat(&stderr)?) {
            true => output.try_clone()?,
            false => output_side(stderr.as_fd(), &ended, &mut outputs)?,
        };
        Ok(Self { sides: [input_side(input)?, output, error], running, outputs })
    }

    pub(crate) fn sides(&self) -> [BorrowedFd<'_>; 3] {
        let [input, output, error] = &self.sides;
        [input.as_fd(), output.as_fd(), error.as_fd()]
    }

    /// The program has ended: returns when all that it printed is out. What it left running is not waited for.
    pub(crate) async fn finish(self) {
        let Self { sides, running, outputs } = self;
        drop((sides, running));
        let joined =
            tokio::task::spawn_blocking(|| outputs.into_iter().for_each(|output| drop(output.join())));
        drop(joined.await);
    }
}

fn input_side(ours: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let ours = ours.try_clone_to_owned()?;
    if goes_in(&fstat(&ours)?) {
        return Ok(ours);
    }
    let (side, to) = pipe_with(PipeFlags::CLOEXEC)?;
    // Nobody waits for it: what is still to be read when the program ends is not for it.
    std::thread::spawn(move || copy(File::from(ours), File::from(to)));
    Ok(side)
}

fn output_side(
    ours: BorrowedFd<'_>,
    ended: &OwnedFd,
    outputs: &mut Vec<JoinHandle<()>>,
) -> io::Result<OwnedFd> {
    let ours = ours.try_clone_to_owned()?;
    if goes_in(&fstat(&ours)?) {
        return Ok(ours);
    }
    let (from, side) = pipe_with(PipeFlags::CLOEXEC)?;
    let ended = ended.try_clone()?;
    outputs.push(std::thread::spawn(move || copy_until(&ended, File::from(from), File::from(ours))));
    Ok(side)
}

fn goes_in(stat: &Stat) -> bool {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::Socket => true,
        // The runtime opens the container's own instead.
        FileType::CharacterDevice => (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3),
        _ => false,
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// To the end of `from`; a reader or writer that is gone ends it, too.
pub(crate) fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// To the end of `from`, or when it has nothing more to give after the end was told.
fn copy_until(ended: &OwnedFd, mut from: File, mut to: File) {
    let mut buffer = [0; 16 << 10];
    loop {
        let mut fds = [PollFd::new(&from, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if fds[0].revents().is_empty() => return,
            Ok(_) => {}
        }
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) if to.write_all(&buffer[..count]).is_err() => return,
            Ok(_) => {}
        }
    }
}
