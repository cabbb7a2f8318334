//! Published ports.
//!
//! A port is bound on the host before the container starts, so that nobody else can take
//! it, but listens only while something listens inside: until then clients are refused, as
//! they would be by the program itself. Connections are made from inside the stack's
//! namespace; a service therefore sees the gateway's address as its client's.
//!
//! | module | does |
//! |---|---|
//! | [`bind`] | which addresses and numbers; ranges; both families |
//! | [`holder`] | who has a port that cannot be had |
//! | [`tcp`], [`udp`] | forwarding |

pub mod bind;
pub mod holder;
mod pump;
mod tcp;
mod udp;

pub use bind::{Taken, check};
pub use holder::{Holder, holder};

use super::listening::ListenTable;
use crate::engine::{EngineError, Result};
use crate::observed::PublishedPort;
use crate::spec::{PortSpec, Protocol};
use crate::sys::netns::Worker;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Publishes ports of one stack.
#[derive(Debug, Clone)]
pub struct Publisher {
    host: Arc<Worker>,
    stack: Arc<Worker>,
}

/// Published ports of one container; they are free again when the value goes.
#[derive(Debug)]
pub struct Publishing {
    ports: Vec<PublishedPort>,
    tasks: Vec<JoinHandle<()>>,
    look: Arc<Notify>,
}

impl Publishing {
    pub fn ports(&self) -> &[PublishedPort] {
        &self.ports
    }

    /// Something may listen inside now: looks at once.
    pub fn refresh(&self) {
        self.look.notify_waiters();
    }

    /// Ends it and waits until the ports are free.
    pub async fn close(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Aborted, as asked for.
            drop(task.await);
        }
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Publisher {
    pub fn new(host: Arc<Worker>, stack: Arc<Worker>) -> Self {
        Self { host, stack }
    }

    /// Binds all ports, or none.
    pub async fn publish(
        &self,
        ports: &[PortSpec],
        target: IpAddr,
        table: Arc<ListenTable>,
    ) -> Result<Publishing> {
        let wishes = ports.to_vec();
        let bound = self.host.run(move || Ok(bind::bind_all(&wishes))).await;
        let bound = bound.map_err(|e| {
            EngineError::new(crate::engine::ErrorKind::Other, format!("failed to publish ports: {e}"))
        })??;
        let look = Arc::new(Notify::new());
        let mut publishing = Publishing { ports: Vec::new(), tasks: Vec::new(), look: look.clone() };
        for one in bound {
            publishing.ports.extend(one.published());
            let target = SocketAddr::new(target, one.spec.target);
            let task = match one.spec.protocol {
                Protocol::Tcp => tokio::spawn(tcp::forward(
                    one.sockets,
                    target,
                    table.clone(),
                    self.stack.clone(),
                    look.clone(),
                )),
                Protocol::Udp => tokio::spawn(udp::forward(one.sockets, target, self.stack.clone())),
            };
            publishing.tasks.push(task);
        }
        Ok(publishing)
    }
}
