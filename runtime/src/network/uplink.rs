//! The way out of a stack: rules in its namespace and one `pasta` process, kept running.
//!
//! Nobody waits for it: it is started beside the containers and reports by a channel. The
//! process is recorded in the run folder (`uplink.json`) and outlives a supervisor that is
//! killed; the next one finds it there. It ends with the stack.

use super::firewall;
use super::pasta::{Pasta, Record, stop_recorded, unrecorded};
use crate::home;
use crate::sys::aside::Life;
use crate::sys::netns::Worker;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between attempts: the host may get a network, or the user may install the program, while the stack runs.
const RETRY: Duration = Duration::from_secs(15);

/// How the way out of a stack is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkState {
    /// No network with a way out was asked for yet.
    Idle,
    Starting,
    /// Its process runs; it takes a moment to configure the namespace.
    Configuring,
    Ready,
    /// A sentence for the user; everything but the way out works.
    Failed(String),
}

/// A supervisor that was killed between the start of a process and its record left a mark.
fn stop_unrecorded(run: &Path) -> io::Result<()> {
    if !run.join(STARTING).exists() {
        return Ok(());
    }
    for pid in unrecorded(&run.join(LOG)) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    std::fs::remove_file(run.join(STARTING))
}

const RECORD: &str = "uplink.json";
const LOG: &str = "uplink.log";
/// There from before a process is started until it is recorded.
const STARTING: &str = "uplink.starting";

/// The way out of one stack.
#[derive(Debug)]
pub struct Uplink {
    place: Arc<Place>,
    state: watch::Sender<UplinkState>,
    stop: watch::Sender<bool>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// Where it is: files and namespaces.
#[derive(Debug)]
struct Place {
    run: PathBuf,
    /// Lives in the stack's namespace.
    links: Arc<Worker>,
    host: Arc<OwnedFd>,
}

impl Uplink {
    pub(super) fn new(run: PathBuf, links: Arc<Worker>, host: Arc<OwnedFd>) -> Self {
        let place = Arc::new(Place { run, links, host });
        Self {
            place,
            state: watch::channel(UplinkState::Idle).0,
            stop: watch::channel(false).0,
            keeper: Mutex::default(),
        }
    }

    /// Starts it, or finds it again. The second time nothing happens.
    pub(super) fn start(&self) {
        let mut keeper = self.keeper.lock().expect("no holder panics");
        if keeper.is_none() {
            self.state.send_replace(UplinkState::Starting);
            *keeper = Some(tokio::spawn(keep(self.place.clone(), self.state.clone(), self.stop.subscribe())));
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<UplinkState> {
        self.state.subscribe()
    }

    /// Ends it, and waits for that.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        let keeper = self.keeper.lock().expect("no holder panics").take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::warn!(%error, "the uplink's keeper broke");
        }
        // A supervisor that came after a killed one may have had no reason to look for its process.
        if let Err(error) = self.place.stop_left_over() {
            tracing::warn!(%error, "the uplink of an earlier supervisor is still there");
        }
        self.place.forget();
    }
}

/// A supervisor that goes without `stop` leaves the process running for the next one.
impl Drop for Uplink {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().expect("no holder panics").take() {
            keeper.abort();
        }
    }
}

impl Place {
    /// The recorded process or a new one, with the rules made before. It blocks a little.
    fn bring_up(&self) -> Result<Pasta, String> {
        let (path, stack) = (self.run.join(RECORD), self.links.home());
        let recorded = home::read_json::<Record>(&path).ok().flatten();
        if let Some(found) = recorded.and_then(|record| Pasta::find(record, stack)) {
            return Ok(found);
        }
        let failed = |e: io::Error| format!("failed to record the uplink: {e}");
        stop_unrecorded(&self.run).map_err(failed)?;
        std::fs::write(self.run.join(STARTING), "").map_err(failed)?;
        let pasta = Pasta::start(&self.host, stack, &self.run.join(LOG), Life::Own)?;
        home::replace_json(&path, &pasta.record).map_err(failed)?;
        std::fs::remove_file(self.run.join(STARTING)).map_err(failed)?;
        Ok(pasta)
    }

    /// On the thread that makes the links: beside it, the two would wait for the kernel's
    /// one lock in turns, and a `sysctl` waits for it by trying without end.
    async fn open_rules(&self) -> Result<(), String> {
        let rules = || if is_open() { Ok(()) } else { firewall::open_way_out() };
        let made = self.links.run(rules).await;
        made.map_err(|e| {
            format!("containers reach nothing outside: the rules of the way out could not be made: {e}")
        })
    }

    fn stop_left_over(&self) -> io::Result<()> {
        stop_unrecorded(&self.run)?;
        stop_recorded(&self.run.join(RECORD))
    }

    fn forget(&self) {
        for file in [RECORD, LOG, STARTING] {
            match std::fs::remove_file(self.run.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(file, %error, "a file stays")
                }
                _ => {}
            }
        }
    }
}

/// Forwarding is switched on after the rules, so it tells that they are there.
fn is_open() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|t| t.trim() == "1")
}

/// Keeps a process running until told to stop.
async fn keep(place: Arc<Place>, state: watch::Sender<UplinkState>, mut stop: watch::Receiver<bool>) {
    if let Err(why) = place.open_rules().await {
        state.send_replace(UplinkState::Failed(why));
        return;
    }
    loop {
        let why = match start(&place).await {
            Ok(pasta) => match accompany(&pasta, &place, &state, &mut stop).await {
                Some(why) => why,
                None => return pasta.terminate().await,
            },
            Err(why) => why,
        };
        state.send_replace(UplinkState::Failed(why));
        if tokio::time::timeout(RETRY, stop.wait_for(|told| *told)).await.is_ok() {
            return;
        }
    }
}

/// A start that was begun is always finished, so that its process is known.
async fn start(place: &Arc<Place>) -> Result<Pasta, String> {
    let (place, runtime) = (place.clone(), tokio::runtime::Handle::current());
    let started = tokio::task::spawn_blocking(move || {
        let _inside = runtime.enter();
        place.bring_up()
    });
    started.await.unwrap_or_else(|e| Err(format!("failed to start the uplink: {e}")))
}

/// Until the process has ended (then the reason) or the stop was told (then nothing).
async fn accompany(
    pasta: &Pasta,
    place: &Place,
    state: &watch::Sender<UplinkState>,
    stop: &mut watch::Receiver<bool>,
) -> Option<String> {
    let log = place.run.join(LOG);
    state.send_replace(UplinkState::Configuring);
    let life = async {
        match pasta.configured(&log).await {
            Ok(()) => state.send_replace(UplinkState::Ready),
            Err(why) => state.send_replace(UplinkState::Failed(why)),
        };
        pasta.ended().await;
        match &*state.borrow() {
            // The reason found at the start is better than "it ended".
            UplinkState::Failed(why) => why.clone(),
            _ => "`pasta` ended; containers reach nothing outside until it runs again".into(),
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|told| *told) => None,
        why = life => Some(why),
    }
}
