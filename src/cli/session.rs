//! A session at a container's own streams: `run` and `attach`.

use super::detach::{DetachKeys, Typed};
use super::terminal::size;
use super::{Context, Scene};
use crate::failure::{Failure, Kind, Result, failed};
use crate::supervise::protocol::{Reply, Request};
use stack_runtime::engine::{Engine, Until, Waited};
use stack_runtime::logs::Stream;
use stack_runtime::monitor::Attachment;
use stack_runtime::observed::Exit;
use std::io::Read;
use tokio::sync::mpsc;

/// See the module.
pub(super) struct Session<'a> {
    pub(super) context: &'a Context,
    pub(super) scene: &'a Scene,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) tty: bool,
    pub(super) input: Input,
    /// Signals that we get are passed on.
    pub(super) proxies: bool,
    pub(super) keys: DetachKeys,
}

/// What becomes of our standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    None,
    /// Its end is the end of the container's, which nobody else will speak to.
    Whole,
    /// The container's stays open: others may attach later.
    Part,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// With the container.
    Ended,
    /// By the keys; the container runs on.
    Detached,
}

impl Session<'_> {
    /// Carries input and output until one of the two ends it.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn carry(&mut self, attachment: &Attachment) -> Result<Left> {
        let (mut typed, mut is_open) = (typed(self.input != Input::None), self.input != Input::None);
        let mut signals = Signals::new(self.tty, self.proxies)?;
        self.resize(attachment).await;
        loop {
            tokio::select! {
                piece = attachment.output() => match piece.map_err(failed("read the container's output"))? {
                    None => return Ok(Left::Ended),
                    Some((Stream::Stdout, bytes)) => self.context.ui.bytes(&bytes),
                    Some((Stream::Stderr, bytes)) => self.context.ui.bytes_err(&bytes),
                },
                bytes = typed.recv(), if is_open => {
                    let bytes = bytes.unwrap_or_default();
                    is_open = !bytes.is_empty();
                    if self.pass_on(attachment, bytes).await {
                        return Ok(Left::Detached);
                    }
                }
                signal = signals.next() => match signal {
                    None => self.resize(attachment).await,
                    Some(name) => {
                        drop(self.scene.engine.signal(&self.scene.project.name, self.id, name).await);
                    }
                },
            }
        }
    }

    /// Whether it was the keys that detach. A program that has ended takes nothing, which its output tells.
    async fn pass_on(&mut self, attachment: &Attachment, bytes: Vec<u8>) -> bool {
        if bytes.is_empty() {
            if self.input == Input::Whole {
                drop(attachment.close_input().await);
            }
            return false;
        }
        let Typed { bytes, detaches } = match self.tty {
            true => self.keys.take(&bytes),
            false => Typed { bytes, detaches: false },
        };
        drop(attachment.input(&bytes).await);
        detaches
    }

    async fn resize(&self, attachment: &Attachment) {
        if let Some(size) = size().filter(|_| self.tty) {
            drop(attachment.resize(size.ws_row, size.ws_col).await); // it may have ended
        }
    }

    /// How the container ended.
    ///
    /// # Errors
    /// The supervisor's.
    pub(super) async fn exit(&self) -> Result<Exit> {
        let client = self.scene.engine.client(&self.scene.project.name).await?;
        let request = Request::Wait { id: self.id.into(), until: Until::Exited };
        match client.ask(request).await? {
            Reply::Waited(Waited::Exited(exit)) => Ok(exit),
            other => Err(crate::supervise::unexpected(&other).into()),
        }
    }

    /// The container's code becomes ours.
    ///
    /// # Errors
    /// Any but 0.
    pub(super) fn report(&self, exit: &Exit) -> Result<()> {
        if let Some(error) = exit.error.as_ref() {
            return Err(Failure::new(Kind::Service, error.clone()));
        }
        if exit.oom_killed {
            let text = format!("container {} was killed because it used more memory than it may", self.name);
            return Err(Failure::new(Kind::Service, text).exit_code(137));
        }
        match exit.code {
            Some(code) => super::exec::exit(code),
            None => Err(Failure::other(format!("container {} ended, and nobody saw how", self.name))),
        }
    }
}

/// Standard input in pieces, an empty one for its end. A thread, since reading a terminal cannot be cancelled.
fn typed(interactive: bool) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    if interactive {
        std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            loop {
                let count = std::io::stdin().lock().read(&mut buffer).unwrap_or(0);
                if sender.blocking_send(buffer[..count].to_vec()).is_err() || count == 0 {
                    return;
                }
            }
        });
    }
    receiver
}

/// Signals to pass on; with a terminal only its new size, since the keys travel as input.
struct Signals {
    /// `None`: they do to us what they do to any program.
    of: Option<[(tokio::signal::unix::Signal, &'static str); 4]>,
    size: tokio::signal::unix::Signal,
    tty: bool,
}

impl Signals {
    fn new(tty: bool, proxies: bool) -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind: SignalKind| signal(kind).map_err(failed("listen for signals"));
        let of = || {
            Ok::<_, Failure>([
                (listen(SignalKind::interrupt())?, "SIGINT"),
                (listen(SignalKind::terminate())?, "SIGTERM"),
                (listen(SignalKind::hangup())?, "SIGHUP"),
                (listen(SignalKind::quit())?, "SIGQUIT"),
            ])
        };
        let of = proxies.then(of).transpose()?;
        Ok(Self { of, size: listen(SignalKind::window_change())?, tty })
    }

    /// The name of a signal to pass on; `None`: the terminal has another size.
    async fn next(&mut self) -> Option<&'static str> {
        let Self { of, size, tty } = self;
        tokio::select! {
            name = first(of.as_mut()) => Some(name),
            _ = size.recv(), if *tty => None,
        }
    }
}

async fn first(of: Option<&mut [(tokio::signal::unix::Signal, &'static str); 4]>) -> &'static str {
    let Some([(a, an), (b, bn), (c, cn), (d, dn)]) = of else { return std::future::pending().await };
    tokio::select! {
        _ = a.recv() => an,
        _ = b.recv() => bn,
        _ = c.recv() => cn,
        _ = d.recv() => dn,
    }
}
