//! Agents for `RUN --mount=type=ssh`.
//!
//! The container gets a socket of the build's own, with the owner and mode that the mount asks for; every connection
//! to it is joined to the agent of this machine. Keys never come near the build.

use super::failure::{BuildFailure, Doing, Result};
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use stack_schema::dockerfile::mount::Owner;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A listening socket; it ends when this is dropped.
pub(super) struct Forwarded {
    pub(super) socket: PathBuf,
    accepting: JoinHandle<()>,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Makes a socket in `directory` whose connections go to `agent`. Needs the async runtime around it.
pub(super) fn forward(agent: &Path, directory: &Path, owner: &Owner) -> Result<Forwarded> {
    let listen = || {
        let socket = directory.join("agent");
        let listener = bind(directory)?;
        let (uid, gid) = (owner.uid.unwrap_or(0), owner.gid.unwrap_or(0));
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(rustix::fs::CWD, &socket, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmod(&socket, Mode::from_raw_mode(owner.mode.unwrap_or(0o600)))?;
        Ok::<_, io::Error>((socket, listener))
    };
    let (socket, listener) = listen().doing(|| "make a socket for the ssh agent")?;
    let agent = agent.to_owned();
    let accepting = tokio::runtime::Handle::current().spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(join(client, agent.clone()));
        }
    });
    Ok(Forwarded { socket, accepting })
}

/// Below the directory's descriptor, because the path of a socket has at most 107 bytes.
fn bind(directory: &Path) -> io::Result<UnixListener> {
    let opened = std::fs::File::open(directory)?;
    let listener =
        std::os::unix::net::UnixListener::bind(format!("/proc/self/fd/{}/agent", opened.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    let _runtime = tokio::runtime::Handle::current().enter();
    UnixListener::from_std(listener)
}

/// A client that loses its agent reads the end; what went wrong is the agent's to say.
async fn join(mut client: UnixStream, agent: PathBuf) {
    if let Ok(mut agent) = UnixStream::connect(agent).await {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut agent).await;
    }
}

/// Why a required agent cannot be had.
pub(super) fn missing(id: &str) -> BuildFailure {
    BuildFailure::new(format!("unset ssh forward key {id}"))
        .hint(format!("Forward an agent with `build.ssh` or `stack build --ssh {id}`."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_reach_the_agent() {
        // Longer than the path of a socket may be.
        let directory = tempfile::Builder::new().prefix(&"x".repeat(150)).tempdir().expect("a directory");
        let agents = tempfile::tempdir().expect("a directory");
        let agent = UnixListener::bind(agents.path().join("a")).expect("an agent");
        let answering = tokio::spawn(async move {
            loop {
                let (mut client, _) = agent.accept().await.expect("a client");
                let mut question = [0; 4];
                client.read_exact(&mut question).await.expect("a question");
                client.write_all(b"keys").await.expect("an answer");
            }
        });
        let own = rustix::process::getuid().as_raw();
        let owner =
            Owner { mode: Some(0o640), uid: Some(own), gid: Some(rustix::process::getgid().as_raw()) };
        let forwarded = forward(&agents.path().join("a"), directory.path(), &owner).expect("forwarded");
        let meta = forwarded.socket.metadata().expect("there");
        assert_eq!((meta.permissions().mode() & 0o777, meta.uid()), (0o640, own));
        let link = agents.path().join("short");
        std::os::unix::fs::symlink(&forwarded.socket, &link).expect("linked");
        for _ in 0..2 {
            let mut client = UnixStream::connect(&link).await.expect("connected");
            client.write_all(b"list").await.expect("asked");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("answered");
            assert_eq!(answer, b"keys");
        }
        drop(forwarded);
        tokio::task::yield_now().await;
        answering.abort();
    }
}
