//! Ctrl-C and SIGTERM, counted, so that none is lost between two waits and everybody who waits is told.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Listens from the first wait on; before that a signal ends the program as ever.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    count: OnceLock<watch::Receiver<u32>>,
    /// So many have been acted upon.
    heeded: AtomicU32,
}

impl Interrupts {
    /// The user wants it ended, since the last [`Interrupts::heed`].
    pub(super) async fn next(&self) {
        let mut count = self.count.get_or_init(listen).clone();
        let heeded = self.heeded.load(Ordering::Relaxed);
        if count.wait_for(|count| *count > heeded).await.is_err() {
            std::future::pending().await // nobody listens any more
        }
    }

    /// What came so far has been acted upon; only another one counts from now on.
    pub(super) fn heed(&self) {
        if let Some(count) = self.count.get() {
            self.heeded.store(*count.borrow(), Ordering::Relaxed);
        }
    }
}

fn listen() -> watch::Receiver<u32> {
    let (sender, receiver) = watch::channel(0);
    let listening = signal(SignalKind::interrupt()).and_then(|a| Ok((a, signal(SignalKind::terminate())?)));
    // Without a handler a signal ends the program.
    let Ok((mut interrupt, mut terminate)) = listening else { return receiver };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            sender.send_modify(|count| *count += 1);
        }
    });
    receiver
}
