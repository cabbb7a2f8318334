//! Networks that another project made (`external: true`): their bridges are in the namespace of its stack.
//!
//! ```text
//!  stack `shop` (owner)                         stack `tool` (guest)
//!  supervisor ◄───── join X, keep alive ─────── supervisor
//!      │             namespace ──────────────►      │
//!  br-X ─veth─ shop-db-1                            │ makes the link in there
//!   └────veth──────────────────────────────── tool-cli-1
//! ```
//!
//! The guest's supervisor holds a lease on the owner's for as long as a container of its own is attached, so a network
//! outlives the owner's containers; the owner's supervisor is started where none runs. After a crash of the guest's
//! supervisor the attachments on disk ([`super::shared`]) keep the owner's.

use super::dns::Member;
use super::link::{self, LinkPlan};
use super::ports::Publisher;
use super::records::{self, NetworkRecord};
use super::shared::{self, Attachment, Others};
use super::stack::{Purpose, StackNetwork, State, failed};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::home::{self, Lock};
use crate::sys::netns::{self, Worker};
use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};

/// The way to the stacks of other projects.
pub trait Neighbours: Debug + Send + Sync {
    /// Makes sure that the bridge of `network`, which `project` made, is there and [`StackNetwork::share`]d.
    fn join<'a>(
        &'a self,
        project: &'a str,
        network: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Neighbour>> + Send + 'a>>;
}

/// Another stack, kept alive until the value is dropped.
pub struct Neighbour {
    /// Its network namespace.
    pub netns: OwnedFd,
    pub lease: Box<dyn Any + Send + Sync>,
}

/// The namespace of another stack, while a container of ours is on a network there.
pub(super) struct Foreign {
    /// Lives in that namespace.
    pub(super) links: Arc<Worker>,
    /// Its inode.
    pub(super) namespace: u64,
    _lease: Box<dyn Any + Send + Sync>,
}

impl Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Foreign({})", self.namespace)
    }
}

/// By network name. Containers share what they reach.
pub(super) type Reached = HashMap<String, Arc<Foreign>>;

/// As [`Reached`], while any container holds it.
#[derive(Debug, Default)]
pub(super) struct Abroad {
    neighbours: Option<Arc<dyn Neighbours>>,
    known: tokio::sync::Mutex<HashMap<String, Weak<Foreign>>>,
}

impl StackNetwork {
    /// Lets it join networks of other projects.
    pub fn neighbours(mut self, neighbours: Arc<dyn Neighbours>) -> Self {
        self.abroad.neighbours = Some(neighbours);
        self
    }

    pub(super) fn is_foreign(&self, record: &NetworkRecord) -> bool {
        record.project != self.project
    }

    /// The other stack's namespace, entered by the first container that needs it.
    pub(super) async fn reach(&self, record: &NetworkRecord) -> Result<Arc<Foreign>> {
        let mut known = self.abroad.known.lock().await;
        if let Some(foreign) = known.get(record.name()).and_then(Weak::upgrade) {
            return Ok(foreign);
        }
        let (network, owner) = (record.name(), &record.project);
        let neighbours = self.abroad.neighbours.as_ref().ok_or_else(|| {
            failed(&format!("join network {network}"), format!("project {owner} cannot be reached from here"))
        })?;
        let neighbour = neighbours.join(owner, network).await.map_err(|mut e| {
            e.message = format!("failed to join network {network} of project {owner}: {}", e.message);
            e
        })?;
        let foreign = Foreign::enter(neighbour).map_err(|e| failed(&format!("join network {network}"), e))?;
        let foreign = Arc::new(foreign);
        known.insert(network.to_owned(), Arc::downgrade(&foreign));
        Ok(foreign)
    }

    /// The namespaces of the stacks that the other networks belong to. A container that runs goes on without.
    pub(super) async fn reach_all(
        &self,
        records: &[NetworkRecord],
        purpose: Purpose,
        warnings: &mut Vec<String>,
    ) -> Result<Reached> {
        let mut reached = Reached::new();
        for record in records.iter().filter(|record| self.is_foreign(record)) {
            match self.reach(record).await {
                Ok(foreign) => drop(reached.insert(record.name().to_owned(), foreign)),
                Err(error) if purpose == Purpose::Adopt => warnings.push(error.message),
                Err(error) => return Err(error),
            }
            self.mark_shared(&mut self.state.lock().expect("no holder panics"), record.name());
        }
        Ok(reached)
    }

    /// From now on who is attached to the network stands on disk, for the other stacks to see.
    pub fn share(&self, network: &str) -> Result<()> {
        let failed = |e| failed(&format!("share network {network}"), e);
        let mut state = self.state.lock().expect("no holder panics");
        let _lock = self.registry()?;
        shared::share(&self.home, network).map_err(failed)?;
        for (id, addresses) in state.addresses.of(network) {
            let names = self.zone.names_of(&id, network);
            let attachment = self.attachment(&id, addresses, names, 0).map_err(failed)?;
            shared::write(&self.home, network, &attachment).map_err(failed)?;
        }
        self.mark_shared(&mut state, network);
        Ok(())
    }

    /// Remembers that the network is shared.
    pub(super) fn mark_shared(&self, state: &mut State, network: &str) {
        if state.shared.insert(network.to_owned()) {
            self.zone.share(network, Others::new(&self.home, network, &self.project));
        }
    }

    pub(super) fn unmark_shared(&self, network: &str) {
        self.state.lock().expect("no holder panics").shared.remove(network);
        self.zone.unshare(network);
    }

    /// Addresses that the other stacks gave out are taken. The network must still exist when they are looked at.
    pub(super) fn learn_others(&self, state: &mut State, network: &str) -> Result<()> {
        if records::read(&self.home, network)?.is_none() {
            return Err(EngineError::new(ErrorKind::NotFound, format!("network {network} not found")));
        }
        let others = shared::others(&self.home, network, &self.project);
        let others = others.map_err(|e| failed(&format!("look who is on network {network}"), e))?;
        state.addresses.learn(network, others.into_iter().flat_map(|a| a.addresses).collect());
        Ok(())
    }

    pub(super) fn registry(&self) -> Result<Lock> {
        home::lock(&records::lock_path(&self.home)).map_err(|e| failed("lock the networks", e))
    }

    pub(super) fn attachment(
        &self,
        id: &str,
        addresses: Vec<std::net::IpAddr>,
        names: Vec<String>,
        namespace: u64,
    ) -> std::io::Result<Attachment> {
        let names = names.into_iter().map(|n| n.to_ascii_lowercase()).collect();
        let supervisor = shared::this_supervisor()?;
        Ok(Attachment {
            id: id.into(),
            project: self.project.clone(),
            addresses,
            names,
            supervisor,
            namespace,
        })
    }

    /// For the other stacks on the network to see.
    pub(super) fn register(&self, id: &str, member: Member, reached: &Reached) -> Result<()> {
        let namespace = reached.get(&member.network).map_or(0, |foreign| foreign.namespace);
        let attachment = self.attachment(id, member.addresses, member.names, namespace);
        let written = attachment.and_then(|a| shared::write(&self.home, &member.network, &a));
        written.map_err(|e| failed(&format!("register on network {}", member.network), e))
    }

    /// It is on no network any more.
    pub(super) fn withdraw(&self, id: &str) {
        let shared: Vec<String> =
            self.state.lock().expect("no holder panics").shared.iter().cloned().collect();
        for network in shared {
            if let Err(error) = shared::remove(&self.home, &network, id) {
                tracing::warn!(network, %error, "an attachment stays until its supervisor ends");
            }
        }
    }

    /// Connects published ports from where a container can be reached.
    pub(super) fn publisher_by(&self, foreign: &Foreign) -> Publisher {
        Publisher::new(self.host.clone(), foreign.links.clone())
    }
}

impl Foreign {
    fn enter(neighbour: Neighbour) -> std::io::Result<Self> {
        let namespace = netns::inode(&neighbour.netns)?;
        let links = Arc::new(Worker::start("net-foreign", Arc::new(neighbour.netns))?);
        Ok(Self { links, namespace, _lease: neighbour.lease })
    }

    /// Makes one link to a bridge of another stack.
    pub(super) async fn plug(&self, plan: LinkPlan, netns: Arc<OwnedFd>) -> Result<()> {
        let made = self.links.run(move || link::plug(&netns, std::slice::from_ref(&plan)));
        made.await.map_err(|e| failed("connect the container to another stack's network", e))
    }
}

/// Networks of one project never overlap; with those of others they may, and no route could tell them apart.
pub(super) fn refuse_overlap(records: &[NetworkRecord]) -> Result<()> {
    let overlap = |a: &NetworkRecord, b: &NetworkRecord| {
        a.pools.iter().any(|pool| b.pools.iter().any(|other| pool.subnet.overlaps(&other.subnet)))
    };
    for (index, record) in records.iter().enumerate() {
        if let Some(other) = records[..index].iter().find(|other| overlap(record, other)) {
            let (one, two) = (other.name(), record.name());
            let message = format!("failed to join networks {one} and {two}: their subnets overlap");
            let hint = "Give one of the two another subnet under `ipam.config`.";
            return Err(EngineError::new(ErrorKind::Conflict, message).hint(hint));
        }
    }
    Ok(())
}
