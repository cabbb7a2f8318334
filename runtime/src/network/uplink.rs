//! uplink
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// How the way out of a stack is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkState {
    /// No network with a way out was asked for yet.
    Idle,
    Starting,
    Ready,
    /// A sentence for the user; everything but the way out works.
    Failed(String),
}

#[derive(Debug)]
pub struct Uplink {
    state: watch::Sender<UplinkState>,
}

impl Uplink {
    pub(super) fn new(_run: PathBuf, _stack: Arc<OwnedFd>, _host: Arc<OwnedFd>) -> Self {
        Self { state: watch::channel(UplinkState::Idle).0 }
    }
    pub(super) fn start(&self) {}
    pub(super) fn state(&self) -> watch::Receiver<UplinkState> {
        self.state.subscribe()
    }
    pub(super) async fn stop(&self) {}
}
