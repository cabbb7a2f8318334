//! What all parts of a supervisor share: the stack's launcher and network, its containers, its clients.

use super::keeper::{self, Order, Status};
use super::life::Phase;
use super::protocol::{Notice, Warned, Watched, What};
use super::wire::Line;
use crate::host::record::ContainerDir;
use crate::host::{names, observe};
use stack_runtime::engine::{EngineError, ErrorKind, Result};
use stack_runtime::home::Home;
use stack_runtime::launch::Launcher;
use stack_runtime::monitor::RunRecord;
use stack_runtime::network::{StackNetwork, UplinkState, shared};
use stack_runtime::observed::Exit;
use stack_runtime::spec::ContainerSpec;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

/// Notices a slow subscriber may fall behind before it misses some.
const NOTICES: usize = 1024;
/// How long an uplink may take until its process runs.
const UPLINK_START: Duration = Duration::from_secs(2);
/// Ends of removed containers that somebody may still ask for.
const REMEMBERED_ENDS: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Stack {
    pub home: Home,
    pub project: String,
    pub network: StackNetwork,
    pub notices: broadcast::Sender<Notice>,
    /// Told whenever the supervisor may have become idle.
    pub changed: Notify,
    inner: Mutex<Inner>,
    /// The machine goes down: stops are not the user's.
    aside: AtomicBool,
    /// Replaced when it is killed.
    launcher: watch::Sender<Arc<Launcher>>,
}

#[derive(Debug, Default)]
struct Inner {
    keepers: HashMap<String, Keeper>,
    /// Id and end of containers that removed themselves, oldest first.
    ends: VecDeque<(String, Exit)>,
    /// By a number of their own.
    clients: HashMap<u64, Line>,
    clients_so_far: u64,
}

/// The way to a container's keeper.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    pub orders: mpsc::Sender<Order>,
    pub status: watch::Receiver<Status>,
}

/// A running container whose namespaces another one joins.
#[derive(Debug)]
pub(super) struct Donor {
    pub pid: i32,
    pub dir: ContainerDir,
    pub spec: ContainerSpec,
}

/// An open connection; the supervisor does not end before it is dropped.
#[derive(Debug)]
pub(super) struct Lease(Arc<Stack>, u64);

impl Stack {
    pub(super) fn new(home: Home, project: String, launcher: Launcher, network: StackNetwork) -> Arc<Self> {
        let (notices, _) = broadcast::channel(NOTICES);
        let inner = Mutex::default();
        let launcher = watch::Sender::new(Arc::new(launcher));
        let (changed, aside) = (Notify::new(), AtomicBool::new(false));
        Arc::new(Self { home, project, launcher, network, notices, changed, inner, aside })
    }

    /// From now on, until this supervisor ends, no stop is taken for the user's.
    pub(super) fn set_aside(&self) {
        self.aside.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set_aside(&self) -> bool {
        self.aside.load(Ordering::Relaxed)
    }

    pub(super) fn launcher(&self) -> Arc<Launcher> {
        self.launcher.borrow().clone()
    }

    pub(super) fn replace_launcher(&self, launcher: Launcher) {
        self.launcher.send_replace(Arc::new(launcher));
    }

    /// The one after `killed`; the same one if none comes.
    pub(super) async fn next_launcher(&self, killed: &Launcher) -> Arc<Launcher> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut current = self.launcher.subscribe();
        let another = current.wait_for(|launcher| launcher.pid() != killed.pid());
        match tokio::time::timeout(PATIENCE, another).await {
            Ok(Ok(launcher)) => launcher.clone(),
            _ => self.launcher(),
        }
    }

    pub(super) fn lease(self: &Arc<Self>, line: Line) -> Lease {
        let mut inner = self.inner();
        inner.clients_so_far += 1;
        let number = inner.clients_so_far;
        inner.clients.insert(number, line);
        Lease(self.clone(), number)
    }

    /// Until what was asked for by clients who are gone has been done; for stops, until they are under way.
    pub(super) async fn settled(self: &Arc<Self>) {
        const PAUSE: Duration = Duration::from_millis(1);
        while self.inner().clients.values().any(Line::is_cut) {
            tokio::time::sleep(PAUSE).await;
        }
        let ids: Vec<String> = self.inner().keepers.keys().cloned().collect();
        for id in ids {
            // One that is gone has done what it was told.
            drop(self.order(&id, Order::CaughtUp).await);
        }
    }

    /// When nobody has asked for anything for a moment, what only the asking needed is given back.
    fn trim_later(self: &Arc<Self>) {
        const MOMENT: Duration = Duration::from_secs(1);
        let (stack, Ok(runtime)) = (self.clone(), tokio::runtime::Handle::try_current()) else { return };
        let so_far = stack.inner().clients_so_far;
        runtime.spawn(async move {
            tokio::time::sleep(MOMENT).await;
            let is_quiet = {
                let inner = stack.inner();
                inner.clients.is_empty() && inner.clients_so_far == so_far
            };
            if is_quiet {
                stack_runtime::sys::memory::trim();
            }
        });
    }

    /// Nobody is connected, nothing runs or is about to.
    pub(super) fn is_idle(&self) -> bool {
        let inner = self.inner();
        inner.clients.is_empty()
            && !inner.keepers.values().any(|keeper| keeper.status.borrow().phase.is_active())
    }

    /// Containers of other stacks are on networks of this one.
    pub(super) fn has_guests(&self) -> bool {
        shared::has_guests(&self.home, &self.project)
    }

    pub(super) fn clients(&self) -> usize {
        self.inner().clients.len()
    }

    /// Something runs or is about to.
    pub(super) fn is_active(&self) -> bool {
        self.inner().keepers.values().any(|keeper| keeper.status.borrow().phase.is_active())
    }

    /// The keeper of a container, made when it is first asked for.
    ///
    /// # Errors
    /// `NotFound` without such a container.
    pub(super) fn keeper(self: &Arc<Self>, id: &str) -> Result<Keeper> {
        let mut inner = self.inner();
        if let Some(keeper) = inner.keepers.get(id) {
            return Ok(keeper.clone());
        }
        let dir = ContainerDir::new(&self.home, &self.project, id);
        let record = dir
            .record()
            .map_err(|e| EngineError::new(ErrorKind::Other, format!("failed to read container {id}: {e}")))?;
        let record = record.ok_or_else(|| no_such_container(id))?;
        let keeper = keeper::spawn(self.clone(), dir, record);
        inner.keepers.insert(id.into(), keeper.clone());
        Ok(keeper)
    }

    /// Gives an order and waits until it is carried out.
    pub(super) async fn order<T>(
        self: &Arc<Self>,
        id: &str,
        order: impl FnOnce(oneshot::Sender<Result<T>>) -> Order,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| no_such_container(id);
        self.keeper(id)?.orders.send(order(reply)).await.map_err(|_| no_such_container(id))?;
        answer.await.map_err(gone)?
    }

    /// The keeper has ended; what it last knew stays for those who wait.
    pub(super) fn forget(&self, id: &str, end: Option<Exit>) {
        let mut inner = self.inner();
        inner.keepers.remove(id);
        if let Some(end) = end {
            inner.ends.push_back((id.into(), end));
            let surplus = inner.ends.len().saturating_sub(REMEMBERED_ENDS);
            inner.ends.drain(..surplus);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// How a container ended that has removed itself.
    pub(super) fn end_of(&self, id: &str) -> Option<Exit> {
        self.inner().ends.iter().find(|(known, _)| known == id).map(|(_, exit)| exit.clone())
    }

    /// A running container of that name, whose namespaces another one joins: of this stack, else of any other.
    ///
    /// # Errors
    /// `NotFound` without one, `Conflict` when it does not run.
    pub(super) fn donor(&self, name: &str) -> Result<Donor> {
        let own = self.inner().keepers.iter().find_map(|(id, keeper)| {
            let status = keeper.status.borrow();
            let is_it = status.name == name && status.phase != Phase::Starting;
            status.pid.filter(|_| is_it).map(|pid| (id.clone(), pid))
        });
        let found = match own {
            Some((id, pid)) => Some((ContainerDir::new(&self.home, &self.project, &id), pid)),
            None => abroad(&self.home, name),
        };
        let known = found.and_then(|(dir, pid)| Some(Donor { spec: dir.record().ok()??.spec, dir, pid }));
        known.ok_or_else(|| self.no_donor(name))
    }

    fn no_donor(&self, name: &str) -> EngineError {
        let projects = observe::projects(&self.home).unwrap_or_default();
        let exists = |project: &String| names::holder(&self.home, project, name).is_ok_and(|id| id.is_some());
        if projects.iter().any(exists) {
            let message = format!("cannot join network of a non running container: {name}");
            return EngineError::new(ErrorKind::Conflict, message);
        }
        EngineError::new(ErrorKind::NotFound, format!("No such container: {name}"))
    }

    pub(super) fn watched(&self) -> Vec<Watched> {
        let inner = self.inner();
        let mut all: Vec<_> =
            inner.keepers.iter().map(|(id, keeper)| keeper.status.borrow().to_watched(id)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What is not as asked for. Of the `whole` stack it waits for an uplink that is being started, which is a matter
    /// of milliseconds.
    pub(super) async fn warned(&self, whole: bool) -> Vec<Warned> {
        let mut all = self.container_warnings();
        if whole && let Some(text) = self.uplink_failure().await {
            all.push(Warned { container: None, text });
        }
        all
    }

    async fn uplink_failure(&self) -> Option<String> {
        let mut uplink = self.network.uplink();
        let begun = uplink.wait_for(|state| *state != UplinkState::Starting);
        match &*tokio::time::timeout(UPLINK_START, begun).await.ok()?.ok()? {
            UplinkState::Failed(why) => Some(why.clone()),
            _ => None,
        }
    }

    fn container_warnings(&self) -> Vec<Warned> {
        let inner = self.inner();
        let mut all: Vec<Warned> = Vec::new();
        for keeper in inner.keepers.values() {
            let status = keeper.status.borrow();
            let warned = |text: &String| Warned { container: Some(status.name.clone()), text: text.clone() };
            all.extend(status.warnings.iter().map(warned));
        }
        all.sort_by(|a, b| a.container.cmp(&b.container));
        all
    }

    pub(super) fn tell(&self, id: &str, name: &str, what: What) {
        let time = jiff::Timestamp::now().to_string();
        // Nobody listening is fine.
        let _ = self.notices.send(Notice { id: id.into(), name: name.into(), time, what });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no one panics while holding it")
    }
}

impl Lease {
    pub(super) fn number(&self) -> u64 {
        self.1
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        tracing::debug!(client = self.1, "gone");
        self.0.inner().clients.remove(&self.1);
        self.0.changed.notify_one();
        self.0.trim_later();
    }
}

/// Of whatever stack; its record tells whether it runs.
fn abroad(home: &Home, name: &str) -> Option<(ContainerDir, i32)> {
    observe::projects(home).ok()?.iter().find_map(|project| {
        let id = names::holder(home, project, name).ok()??;
        let dir = ContainerDir::new(home, project, &id);
        let run = RunRecord::read(dir.path()).ok()??;
        run.is_alive().then_some((dir, run.pid))
    })
}

pub(super) fn no_such_container(id: &str) -> EngineError {
    EngineError::new(ErrorKind::NotFound, format!("no such container: {id}"))
}
