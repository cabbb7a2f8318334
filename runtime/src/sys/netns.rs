//! Network namespaces: making one, and running small jobs inside one.
//!
//! A socket belongs to the namespace of the thread that made it and stays there, so a
//! [`Worker`] is one thread that enters a namespace, makes what is asked for and hands it
//! back; the async runtime's own threads never change namespace.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;

type Job = Box<dyn FnOnce() + Send>;

/// The namespace of the calling thread.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// A new namespace, without any process in it. It lives as long as the descriptor.
pub fn create() -> io::Result<OwnedFd> {
    let thread = std::thread::Builder::new().name("new-netns".into()).spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        current()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
}

/// The number of a namespace, its own for as long as it lives.
pub fn inode(namespace: &OwnedFd) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(namespace)?.st_ino)
}

/// A thread that lives in one namespace and visits others for single jobs, one at a time.
/// It ends when the value is dropped and its queue is empty.
#[derive(Debug)]
pub struct Worker {
    jobs: mpsc::Sender<Job>,
    home: Arc<OwnedFd>,
}

impl Worker {
    /// A worker that lives in `home`.
    pub fn start(name: &str, home: Arc<OwnedFd>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let namespace = home.clone();
        let (entered, outcome) = mpsc::channel();
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let result = enter(&namespace);
            let failed = result.is_err();
            if entered.send(result).is_err() || failed {
                return;
            }
            queue.into_iter().for_each(|job| job());
        })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Self { jobs, home })
    }

    /// The namespace the worker lives in.
    pub fn home(&self) -> &Arc<OwnedFd> {
        &self.home
    }

    /// Runs a job at home.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, result) = tokio::sync::oneshot::channel();
        // A caller that stopped waiting does not want the answer.
        self.send(Box::new(move || drop(answer.send(job()))))?;
        result.await.map_err(io::Error::other)?
    }

    /// As [`Worker::run`], blocking the caller.
    pub fn run_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, result) = mpsc::channel();
        self.send(Box::new(move || drop(answer.send(job()))))?;
        result.recv().map_err(io::Error::other)?
    }

    fn send(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).map_err(|_| io::Error::other("the namespace's thread has ended"))
    }
}

/// Runs `job` inside `namespace`, on a thread of its own: coming back is a privilege that an ordinary user's
/// process does not have over the host's namespace.
///
/// # Errors
/// Those of the job and of entering.
pub fn visit<T: Send>(namespace: &OwnedFd, job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("net-visit".into()).spawn_scoped(scope, || {
            enter(namespace)?;
            job()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    })
}

/// Moves the calling thread. It may stay where it is without any privilege.
pub fn enter(namespace: &OwnedFd) -> io::Result<()> {
    let (wanted, here) = (nix::sys::stat::fstat(namespace)?, nix::sys::stat::fstat(current()?)?);
    if (wanted.st_dev, wanted.st_ino) == (here.st_dev, here.st_ino) {
        return Ok(());
    }
    Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?)
}
