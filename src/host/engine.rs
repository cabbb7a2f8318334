//! [`Engine`] over `home`, the image store and the supervisor of the stack.
//!
//! What is only a file (create, rename, networks, volumes, removing what does not run) is done here; what runs is the
//! supervisor's. It is started by the first effect that needs it, and asked again when it is replaced in between.

use super::{create, journal, names, observe, record, remove};
use crate::supervise::protocol::{Attach, Reply, Request, Warned};
use crate::supervise::{self, Client};
use stack_runtime::engine::{Engine, EngineError, ErrorKind, Result, Until, Waited};
use stack_runtime::home::Home;
use stack_runtime::image::{self, Progress, Reference, Store};
use stack_runtime::monitor::Attachment;
use stack_runtime::network::{ports, records};
use stack_runtime::observed::{Observed, State};
use stack_runtime::spec::{ContainerSpec, NetworkSpec, PortSpec, VolumeSpec};
use stack_runtime::{monitor, volume};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// Longer than most grace periods, shorter than anybody's patience.
const CUT_OFF_PATIENCE: Duration = Duration::from_secs(60);

/// Told what a pull does: the reference and its progress.
pub type PullReport = Arc<dyn Fn(&str, Progress) + Send + Sync>;

/// Gets the output of containers that have no log: id and connection.
pub type Listener = mpsc::UnboundedSender<(String, Attachment)>;

/// See the module.
#[derive(Clone)]
pub struct HostEngine {
    home: Home,
    program: PathBuf,
    report: PullReport,
    /// Who shows what is kept in no log.
    listener: Option<Listener>,
    clients: Arc<Mutex<HashMap<String, Arc<Client>>>>,
}

impl HostEngine {
    pub fn new(home: Home) -> Self {
        let clients = Arc::default();
        let report: PullReport = Arc::new(|_, _| {});
        Self { home, program: "/proc/self/exe".into(), report, listener: None, clients }
    }

    /// The `stack` program that supervisors are started from; needed where we are not `stack` ourselves (tests).
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    pub fn pull_report(mut self, report: PullReport) -> Self {
        self.report = report;
        self
    }

    /// Containers without a log are started with a connection to their output, which the listener gets.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    fn has_log(&self, project: &str, id: &str) -> bool {
        let record = record::ContainerDir::new(&self.home, project, id).record();
        !matches!(record, Ok(Some(record)) if record.spec.logging.driver == "none")
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The supervisor of a project, started if none runs. It does not end as long as this engine (or a clone) lives,
    /// unless [`Engine::release`] was called.
    pub async fn client(&self, project: &str) -> Result<Arc<Client>> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(project) {
            return Ok(client.clone());
        }
        let client = Arc::new(Client::connect_or_spawn_from(&self.program, &self.home, project).await?);
        clients.insert(project.into(), client.clone());
        Ok(client)
    }

    /// The supervisor of a project, if one runs.
    pub async fn running_client(&self, project: &str) -> Result<Option<Arc<Client>>> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(project) {
            return Ok(Some(client.clone()));
        }
        let client = Client::connect(&self.home, project).await?.map(Arc::new);
        clients.extend(client.clone().map(|client| (project.into(), client)));
        Ok(client)
    }

    /// Finishes what a command that was cut off left half done, so that nothing that is about to end is taken for
    /// running: its stops, its half-made directories, its one-offs that nobody will start. For commands that change
    /// the stack, under the project's lock, before they observe it. `grace` is that of the containers unless given.
    /// Gives up after [`CUT_OFF_PATIENCE`]: a container may
    /// have an endless grace period.
    pub async fn finish_cut_off(&self, project: &str, grace: Option<Duration>) -> Result<()> {
        match tokio::time::timeout(CUT_OFF_PATIENCE, self.finish(project, grace)).await {
            Ok(finished) => finished,
            Err(_) => Err(self.still_stopping(project)),
        }
    }

    fn still_stopping(&self, project: &str) -> EngineError {
        let ids = record::container_ids(&self.home, project).unwrap_or_default();
        let dirs = ids.iter().map(|id| record::ContainerDir::new(&self.home, project, id));
        let stopping = dirs.filter(|dir| dir.supervision().is_ok_and(|s| s.stopping.is_some()));
        let names: Vec<String> = stopping.filter_map(|dir| Some(dir.record().ok()??.spec.name)).collect();
        let seconds = CUT_OFF_PATIENCE.as_secs();
        let message = match names.is_empty() {
            true => format!("an earlier command on project {project} is not done after {seconds} s"),
            false => format!(
                "an earlier command told {} to stop, which has not ended after {seconds} s",
                names.join(", ")
            ),
        };
        EngineError::new(ErrorKind::Conflict, message)
            .hint("Try again later, end it with `stack kill`, or give `stack down` a `--timeout`.")
    }

    async fn finish(&self, project: &str, grace: Option<Duration>) -> Result<()> {
        if self.running_client(project).await?.is_some() {
            self.tell(project, Request::Settle).await?;
        }
        let ids =
            record::container_ids(&self.home, project).map_err(|e| failed("find the containers", &e))?;
        let of = |id: &String| record::ContainerDir::new(&self.home, project, id);
        let is_stopping =
            |id: &&String| of(id).supervision().is_ok_and(|supervision| supervision.stopping.is_some());
        let stops = ids.iter().filter(is_stopping).map(|id| self.stop(project, id, grace));
        futures_util::future::join_all(stops).await.into_iter().collect::<Result<()>>()?;
        for id in ids.iter().filter(|id| of(id).is_abandoned()) {
            self.remove(project, id, true).await?;
        }
        let (home, project) = (self.home.clone(), project.to_owned());
        blocking("tidy up", move || remove::sweep(&home, &project)).await
    }

    /// What is stopped from now on comes back with the next boot, as its restart policy says.
    ///
    /// # Errors
    /// Of the supervisor; none runs where nothing does.
    pub async fn set_aside(&self, project: &str) -> Result<()> {
        match self.running_client(project).await? {
            Some(_) => self.tell(project, Request::SetAside).await,
            None => Ok(()),
        }
    }

    /// Whether all ports can be had now; asked before anything is created.
    ///
    /// # Errors
    /// `PortTaken`, with the holder's process id and command where they can be seen.
    pub fn check_ports(&self, wanted: &[PortSpec]) -> Result<()> {
        ports::check(wanted).map_err(|taken| {
            let holder = taken.holder.as_ref();
            let by = holder.map_or_else(String::new, |h| format!(" by process {} ({})", h.pid, h.command));
            EngineError::new(ErrorKind::PortTaken, format!("host port {} is taken{by}", taken.port))
                .hint("Stop that program, or publish another port.")
        })
    }

    /// Starts a container and gives its streams, from the first byte.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub async fn start_attached(&self, project: &str, id: &str, attach: Attach) -> Result<Attachment> {
        let start = |client: Arc<Client>| async move { client.start_attached(id, attach).await };
        self.with_client(project, start).await
    }

    async fn ask(&self, project: &str, request: Request) -> Result<Reply> {
        let request = &request;
        self.with_client(project, |client| async move { client.ask(request.clone()).await }).await
    }

    /// Asks the supervisor; asks the next one when this one is killed meanwhile. Requests are idempotent.
    async fn with_client<T, F>(&self, project: &str, ask: impl Fn(Arc<Client>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        const ATTEMPTS: u32 = 4;
        for _ in 1..ATTEMPTS {
            match ask(self.client(project).await?).await {
                Err(e) if e.kind == ErrorKind::Unreachable => drop(self.clients.lock().await.remove(project)),
                answer => return answer,
            }
        }
        ask(self.client(project).await?).await
    }

    async fn tell(&self, project: &str, request: Request) -> Result<()> {
        self.ask(project, request).await.map(drop)
    }

    /// What the running containers asked for and could not be had; of the `whole` stack, also what it lacks.
    pub async fn warnings(&self, project: &str, whole: bool) -> Result<Vec<Warned>> {
        if self.running_client(project).await?.is_none() {
            return Ok(Vec::new());
        }
        match self.ask(project, Request::Warnings { whole }).await? {
            Reply::Warnings(warnings) => Ok(warnings),
            other => Err(supervise::unexpected(&other)),
        }
    }

    /// The next request finds another supervisor, if this client was the one in use.
    pub(super) async fn forget_client(&self, project: &str, client: &Arc<Client>) {
        let mut clients = self.clients.lock().await;
        if clients.get(project).is_some_and(|known| Arc::ptr_eq(known, client)) {
            clients.remove(project);
        }
    }

    /// Some container of the project needs a supervisor.
    pub fn has_active(&self, project: &str) -> bool {
        let ids = record::container_ids(&self.home, project).unwrap_or_default();
        ids.iter().any(|id| self.is_active(project, id))
    }

    /// Something for a supervisor to look after: it runs, or is between two attempts of its restart policy.
    fn is_active(&self, project: &str, id: &str) -> bool {
        let dir = record::ContainerDir::new(&self.home, project, id);
        let is_running = matches!(monitor::observe(dir.path()), Ok(State::Running { .. }));
        is_running || dir.supervision().is_ok_and(|supervision| supervision.is_waiting || supervision.is_up)
    }
}

impl Engine for HostEngine {
    async fn observe(&self, project: &str, images: &[String]) -> Result<Observed> {
        let (home, project, images) = (self.home.clone(), project.to_owned(), images.to_vec());
        blocking("observe the stack", move || observe::observe(&home, &project, &images)).await
    }

    async fn pull(&self, reference: &str) -> Result<String> {
        let store = Store::open(&self.home).map_err(|e| failed("open the image store", &e))?;
        let parsed = Reference::parse(reference).map_err(EngineError::from)?;
        let report = |progress| (self.report)(reference, progress);
        Ok(image::pull::pull(&store, &parsed, None, &report).await?.id.to_string())
    }

    async fn create_network(&self, project: &str, spec: &NetworkSpec) -> Result<()> {
        let (home, project, spec) = (self.home.clone(), project.to_owned(), spec.clone());
        blocking_result("create the network", move || {
            records::create_record(&home, &project, &spec).map(drop)
        })
        .await
    }

    async fn remove_network(&self, project: &str, name: &str) -> Result<()> {
        if self.running_client(project).await?.is_some() {
            self.tell(project, Request::RemoveNetwork { name: name.into() }).await?;
        }
        let (home, name) = (self.home.clone(), name.to_owned());
        blocking_result("remove the network", move || records::remove_record(&home, &name)).await
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<()> {
        let (home, spec) = (self.home.clone(), spec.clone());
        let name = spec.name.clone();
        blocking(&format!("create volume {name}"), move || volume::create(&home, &spec, false).map(drop))
            .await
    }

    async fn remove_volume(&self, name: &str) -> Result<()> {
        let (home, volume) = (self.home.clone(), name.to_owned());
        blocking_result(&format!("remove volume {name}"), move || remove::volume(&home, &volume).map(drop))
            .await
    }

    async fn create(&self, project: &str, spec: &ContainerSpec) -> Result<String> {
        let (home, project, spec) = (self.home.clone(), project.to_owned(), spec.clone());
        blocking_result("create the container", move || create::create(&home, &project, spec)).await
    }

    async fn rename(&self, project: &str, id: &str, name: &str) -> Result<()> {
        let (home, owner, own, new) = (self.home.clone(), project.to_owned(), id.to_owned(), name.to_owned());
        let renamed =
            blocking("rename the container", move || names::rename(&home, &owner, &own, &new)).await?;
        renamed.map_err(|holder| create::name_taken(name, &holder))?;
        if let Ok(Some(record)) = record::ContainerDir::new(&self.home, project, id).record() {
            journal::note(&self.home, &record, "rename", &[]);
        }
        if self.running_client(project).await?.is_some() {
            self.tell(project, Request::Renamed { id: id.into() }).await?;
        }
        Ok(())
    }

    async fn start(&self, project: &str, id: &str) -> Result<()> {
        if let Some(listener) = self.listener.as_ref().filter(|_| !self.has_log(project, id)) {
            let attachment = self.start_attached(project, id, Attach { size: None }).await?;
            // Nobody shows anything any more.
            let _ = listener.send((id.to_owned(), attachment));
            return Ok(());
        }
        self.tell(project, Request::Start { id: id.into(), attach: None }).await
    }

    async fn wait(&self, project: &str, id: &str, until: Until) -> Result<Waited> {
        match self.ask(project, Request::Wait { id: id.into(), until }).await? {
            Reply::Waited(waited) => Ok(waited),
            other => Err(supervise::unexpected(&other)),
        }
    }

    async fn stop(&self, project: &str, id: &str, grace: Option<Duration>) -> Result<()> {
        if self.running_client(project).await?.is_none() && !self.is_active(project, id) {
            return Ok(());
        }
        match self.tell(project, Request::Stop { id: id.into(), signal: None, grace }).await {
            Err(e) if e.kind == ErrorKind::NotFound => Ok(()),
            told => told,
        }
    }

    async fn signal(&self, project: &str, id: &str, signal: &str) -> Result<()> {
        self.tell(project, Request::Signal { id: id.into(), signal: signal.into() }).await
    }

    async fn pause(&self, project: &str, id: &str) -> Result<()> {
        self.tell(project, Request::Pause { id: id.into() }).await
    }

    async fn resume(&self, project: &str, id: &str) -> Result<()> {
        self.tell(project, Request::Resume { id: id.into() }).await
    }

    async fn remove(&self, project: &str, id: &str, volumes: bool) -> Result<()> {
        if self.running_client(project).await?.is_some() || self.is_active(project, id) {
            let request = Request::Remove { id: id.into(), volumes };
            return match self.tell(project, request).await {
                Err(e) if e.kind == ErrorKind::NotFound => Ok(()),
                told => told,
            };
        }
        let (home, project, id) = (self.home.clone(), project.to_owned(), id.to_owned());
        blocking("remove the container", move || {
            let dir = record::ContainerDir::new(&home, &project, &id);
            dir.record()?.map_or(Ok(()), |record| remove::container(&home, &record, volumes))
        })
        .await
    }

    async fn release(&self, project: &str) -> Result<()> {
        let client = self.clients.lock().await.remove(project);
        if let Some(client) = client {
            // Somebody else's containers may run by now; then it stays.
            drop(client.shutdown().await);
        }
        supervise::gone(&self.home, project).await;
        let (home, project) = (self.home.clone(), project.to_owned());
        blocking("tidy up", move || remove::stack(&home, &project)).await
    }
}

/// File work off the async threads.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| failed(what, &e))?;
    done.map_err(|e| failed(what, &e))
}

async fn blocking_result<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| failed(what, &e))?
}

fn failed(what: &str, reason: &dyn std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("failed to {what}: {reason}"))
}
