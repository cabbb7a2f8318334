//! The network of a build: one namespace with loopback, names and a way out.

use super::dns::{Server, Upstream, Zone, server::Sockets};
use super::files::{LOOPBACK, Resolv, embedded_resolv};
use super::pasta::Pasta;
use super::stack::Host;
use super::{RESOLVER, link};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::spec::DnsSpec;
use crate::sys::aside::Life;
use crate::sys::netns::{self, Worker, visit};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Lives as long as the value; its `pasta` dies with the value or with the process.
///
/// Names are answered at 127.0.0.11 as in a stack and asked from the host's namespace, so
/// it does not matter whether the host's own server is on its loopback.
#[derive(Debug)]
pub struct BuildNetwork {
    /// The namespace the RUN containers share.
    pub netns: OwnedFd,
    /// Content of `/etc/resolv.conf` in it.
    pub resolv_conf: String,
    /// Content of `/etc/hosts` in it; `extra_hosts` of the build go below.
    pub hosts: String,
    /// The host's address as a RUN reaches it (`host-gateway`), if the host has one.
    pub host_gateway: Option<std::net::IpAddr>,
    _resolver: Server,
    uplink: JoinHandle<()>,
    state: watch::Receiver<Option<std::result::Result<(), String>>>,
    /// Dropping it lets the thread go that `pasta` dies with.
    _life: mpsc::Sender<()>,
}

impl BuildNetwork {
    /// Makes the namespace and starts the uplink without waiting for it. Call it inside the async runtime.
    pub fn start() -> Result<Self> {
        let host = Host::here().map_err(failed)?;
        Self::start_on(host)
    }

    /// As [`BuildNetwork::start`], with another world outside.
    pub fn start_on(host: Host) -> Result<Self> {
        let netns = Arc::new(netns::create().map_err(failed)?);
        let outside = Arc::new(host.netns);
        let worker = Arc::new(Worker::start("net-build", outside.clone()).map_err(failed)?);
        let served = netns.clone();
        let (sockets, host_gateway) = worker.run_blocking(move || inside(&served)).map_err(failed)?;
        let upstream = Upstream::Host { worker, resolv_conf: host.resolv_conf.clone() };
        let resolver = Server::start(sockets, Arc::new(Zone::default()), "", upstream).map_err(failed)?;
        let (life, end) = mpsc::channel();
        let (tell, state) = watch::channel(None);
        Ok(Self {
            netns: netns.try_clone().map_err(failed)?,
            resolv_conf: embedded_resolv(&DnsSpec::default(), &Resolv::read(&host.resolv_conf)),
            hosts: LOOPBACK.to_owned(),
            host_gateway,
            _resolver: resolver,
            uplink: tokio::spawn(way_out(outside, netns, end, tell)),
            state,
            _life: life,
        })
    }

    /// Waits until the way out is configured; the error is a sentence for the user.
    pub async fn ready(&self) -> Result<()> {
        let mut state = self.state.clone();
        let outcome = state.wait_for(Option::is_some).await.ok().and_then(|s| s.clone());
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(EngineError::new(ErrorKind::Unreachable, why)),
            None => Err(EngineError::new(ErrorKind::Unreachable, "the build's network has ended")),
        }
    }
}

impl Drop for BuildNetwork {
    fn drop(&mut self) {
        self.uplink.abort();
    }
}

fn failed(error: io::Error) -> EngineError {
    EngineError::new(ErrorKind::Other, format!("failed to make the build's network: {error}"))
}

/// Loopback and the resolver's sockets; on the way, the host's address.
fn inside(netns: &OwnedFd) -> io::Result<(Sockets, Option<std::net::IpAddr>)> {
    let gateway = super::stack::host_address().ok();
    link::loopback(netns)?;
    let sockets = visit(netns, || Sockets::bind(RESOLVER, 53))?;
    Ok((sockets, gateway))
}

/// Starts `pasta`, tells when it is configured, and keeps it until its end.
async fn way_out(
    host: Arc<OwnedFd>,
    netns: Arc<OwnedFd>,
    end: mpsc::Receiver<()>,
    tell: watch::Sender<Option<std::result::Result<(), String>>>,
) {
    let outcome = async {
        let log = tempfile::NamedTempFile::new().map_err(|e| format!("failed to start pasta: {e}"))?;
        let pasta = Pasta::start(&host, &netns, log.path(), Life::Until(end))?;
        pasta.configured(log.path()).await?;
        Ok(pasta)
    };
    match outcome.await {
        Ok(pasta) => {
            tell.send_replace(Some(Ok(())));
            pasta.ended().await;
            tell.send_replace(Some(Err("`pasta` ended during the build".into())));
        }
        Err(why) => drop(tell.send_replace(Some(Err(why)))),
    }
}
