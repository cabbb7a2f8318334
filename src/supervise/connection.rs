//! The supervisor's end of a connection: one request after the other, until the other end is gone.

use super::keeper::{Order, Status};
use super::launch::kind_of;
use super::life::Phase;
use super::protocol::{Attach, Reply, Request};
use super::stack::{Lease, Stack, no_such_container};
use super::wire::{Receiver, Sender, Wire};
use crate::host::{record, signal};
use stack_runtime::engine::{EngineError, ErrorKind, Result, Until, Waited};
use stack_runtime::launch::{ExecProcess, ExecRequest, ExecStdio, LaunchError};
use stack_runtime::network::records;
use stack_runtime::observed::HealthStatus;
use stack_runtime::spec::ExecSpec;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

/// Serves one connection. The lease keeps the supervisor alive as long.
pub(super) async fn serve(stack: Arc<Stack>, wire: Wire, lease: Lease) {
    let Wire { sender, mut receiver } = wire;
    loop {
        let (request, fds) = match receiver.receive::<Request>().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(e) => {
                let refusal =
                    EngineError::new(ErrorKind::Other, format!("the supervisor did not understand: {e}"));
                drop(sender.send(Reply::Failed(refusal), &[]).await);
                return;
            }
        };
        tracing::debug!(client = lease.number(), ?request);
        let answering = answer(&stack, &sender, request.clone(), fds);
        if request.has_effect() {
            // Done to its end, also when the asker is gone: the next one finds it done, not half done.
            if answering.await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            // First, so that a stop is ordered even when its asker has gone already.
            biased;
            answered = answering => if answered.is_err() { return },
            // An asker that goes away no longer waits.
            () = silence(&mut receiver) => return,
        }
    }
}

/// Nothing is said while a request is answered: anything but silence ends the connection.
async fn silence(receiver: &mut Receiver) {
    drop(receiver.receive::<Request>().await);
}

async fn answer(stack: &Arc<Stack>, sender: &Sender, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
    match request {
        Request::Subscribe => return subscribe(stack, sender).await,
        Request::Start { id, attach } => return start(stack, sender, &id, attach).await,
        Request::JoinNetwork { name } => return join_network(stack, sender, &name).await,
        Request::Exec { id, spec, size } => return exec(stack, sender, &id, spec, size, fds).await,
        _ => {}
    }
    let reply = reply(stack, request).await.unwrap_or_else(Reply::Failed);
    sender.send(reply, &[]).await
}

async fn reply(stack: &Arc<Stack>, request: Request) -> Result<Reply> {
    match request {
        Request::Ping => return Ok(Reply::Pong { pid: std::process::id() }),
        Request::Inspect => return Ok(Reply::Containers(stack.watched())),
        Request::Warnings { whole } => return Ok(Reply::Warnings(stack.warned(whole).await)),
        Request::Wait { id, until } => return wait(stack, &id, until).await.map(Reply::Waited),
        Request::EnsureNetwork { name } => ensure_network(stack, &name).await?,
        Request::RemoveNetwork { name } => stack.network.remove_network(&name).await?,
        Request::Stop { id, signal, grace } => {
            let signal = signal.as_deref().map(parse_signal).transpose()?;
            stack.order(&id, |answer| Order::Stop { signal, grace, answer }).await?;
        }
        Request::Signal { id, signal } => {
            let signal = parse_signal(&signal)?;
            stack.order(&id, |answer| Order::Signal { signal, answer }).await?;
        }
        Request::Pause { id } => stack.order(&id, Order::Pause).await?,
        Request::Resume { id } => stack.order(&id, Order::Resume).await?,
        Request::Renamed { id } => stack.order(&id, Order::Renamed).await?,
        Request::Remove { id, volumes } => {
            stack.order(&id, |answer| Order::Remove { volumes, answer }).await?
        }
        Request::Settle => stack.settled().await,
        Request::Shutdown => shutdown(stack)?,
        Request::Start { .. } | Request::Exec { .. } | Request::Subscribe | Request::JoinNetwork { .. } => {}
    }
    Ok(Reply::Done)
}

fn parse_signal(text: &str) -> Result<i32> {
    signal::number(text).ok_or_else(|| EngineError::new(ErrorKind::Other, format!("invalid signal: {text}")))
}

/// It ends by itself as soon as it is idle; here one only learns whether it will.
fn shutdown(stack: &Stack) -> Result<()> {
    // The asker's lease and this very connection.
    const ASKER: usize = 2;
    if stack.is_active() {
        let message = format!("containers of `{}` are running", stack.project);
        return Err(EngineError::new(ErrorKind::Conflict, message).hint("Stop them first."));
    }
    if stack.has_guests() {
        let message = format!("containers of other stacks are on a network of `{}`", stack.project);
        return Err(EngineError::new(ErrorKind::Conflict, message).hint("Take those stacks down first."));
    }
    if stack.clients() > ASKER {
        let message = format!("another command is busy with `{}`", stack.project);
        return Err(EngineError::new(ErrorKind::Other, message));
    }
    Ok(())
}

async fn ensure_network(stack: &Stack, name: &str) -> Result<()> {
    let record = records::read(&stack.home, name)?
        .ok_or_else(|| EngineError::new(ErrorKind::NotFound, format!("no such network: {name}")))?;
    stack.network.ensure(&record).await
}

async fn start(stack: &Arc<Stack>, sender: &Sender, id: &str, attach: Option<Attach>) -> io::Result<()> {
    match stack.order(id, |answer| Order::Start { attach, answer }).await {
        Ok(attached) => {
            let fds: Vec<_> = attached.iter().map(AsFd::as_fd).collect();
            sender.send(Reply::Done, &fds).await
        }
        Err(e) => sender.send(Reply::Failed(e), &[]).await,
    }
}

/// Another stack's supervisor asks; whether the connection is its lease is its own business.
async fn join_network(stack: &Stack, sender: &Sender, name: &str) -> io::Result<()> {
    match shared_namespace(stack, name).await {
        Ok(netns) => sender.send(Reply::Done, &[netns.as_fd()]).await,
        Err(e) => sender.send(Reply::Failed(e), &[]).await,
    }
}

async fn shared_namespace(stack: &Stack, name: &str) -> Result<OwnedFd> {
    ensure_network(stack, name).await?;
    stack.network.share(name)?;
    stack.launcher().netns().map_err(|e| {
        EngineError::new(
            ErrorKind::Other,
            format!("failed to open the namespace of `{}`: {e}", stack.project),
        )
    })
}

async fn wait(stack: &Arc<Stack>, id: &str, until: Until) -> Result<Waited> {
    let keeper = match stack.keeper(id) {
        Err(gone) => return stack.end_of(id).map(Waited::Exited).ok_or(gone),
        keeper => keeper?,
    };
    let mut status = keeper.status;
    loop {
        if let Some(waited) = waited(&status.borrow_and_update(), until) {
            return Ok(waited);
        }
        if status.changed().await.is_err() {
            return stack.end_of(id).map(Waited::Exited).ok_or_else(|| no_such_container(id));
        }
    }
}

/// `None`: go on waiting. A container between two attempts of its restart policy is still trying.
fn waited(status: &Status, until: Until) -> Option<Waited> {
    let is_running = matches!(status.phase, Phase::Up | Phase::Stopping) && status.pid.is_some();
    match (until, status.health) {
        _ if status.phase == Phase::Down => Some(Waited::Exited(status.exit.clone().unwrap_or_default())),
        (Until::Running, _) if is_running => Some(Waited::Reached),
        (Until::Healthy, HealthStatus::Healthy | HealthStatus::None) if is_running => Some(Waited::Reached),
        (Until::Healthy, HealthStatus::Unhealthy) if is_running && !status.is_paused => {
            Some(Waited::Unhealthy)
        }
        _ => None,
    }
}

async fn subscribe(stack: &Stack, sender: &Sender) -> io::Result<()> {
    let mut notices = stack.notices.subscribe();
    sender.send(Reply::Done, &[]).await?;
    loop {
        match notices.recv().await {
            Ok(notice) => sender.send(Reply::Notice(notice), &[]).await?,
            // Files tell the present state; a slow reader only misses how it came about.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn exec(
    stack: &Arc<Stack>,
    sender: &Sender,
    id: &str,
    spec: ExecSpec,
    size: (u16, u16),
    fds: Vec<OwnedFd>,
) -> io::Result<()> {
    let mut process = match started(stack, id, spec, size, fds).await {
        Ok(process) => process,
        Err(e) => return sender.send(Reply::Failed(e), &[]).await,
    };
    let terminal = process.pty.take();
    let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    sender.send(Reply::ExecStarted, &fds).await?;
    drop(terminal);
    let reply = match process.wait().await {
        Ok(code) => Reply::ExecEnded { code },
        Err(e) => Reply::Failed(exec_error(&e)),
    };
    sender.send(reply, &[]).await
}

async fn started(
    stack: &Arc<Stack>,
    id: &str,
    spec: ExecSpec,
    size: (u16, u16),
    fds: Vec<OwnedFd>,
) -> Result<ExecProcess> {
    let status = stack.keeper(id)?.status.borrow().clone();
    let conflict =
        |what: &str| EngineError::new(ErrorKind::Conflict, format!("container {} {what}", status.name));
    let pid = status.pid.ok_or_else(|| conflict("is not running"))?;
    if status.is_paused {
        return Err(conflict("is paused, unpause the container before exec"));
    }
    let stdio = match (spec.tty, <[OwnedFd; 3]>::try_from(fds)) {
        (true, _) => ExecStdio::Tty { rows: size.0, cols: size.1 },
        (false, Ok(streams)) => ExecStdio::Fds(streams),
        (false, Err(_)) => return Err(EngineError::new(ErrorKind::Other, "exec without its three streams")),
    };
    let dir = record::ContainerDir::new(&stack.home, &stack.project, id).path().to_owned();
    let request = ExecRequest { pid, dir, exec: spec, stdio };
    stack.launcher().exec(request).await.map_err(|e| exec_error(&e))
}

fn exec_error(error: &LaunchError) -> EngineError {
    EngineError::new(kind_of(error.code), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_runtime::observed::Exit;

    fn status(phase: Phase, health: HealthStatus) -> Status {
        let pid = matches!(phase, Phase::Up | Phase::Stopping).then_some(7);
        let exit = Some(Exit { code: Some(3), ..Default::default() });
        Status { phase, health, pid, exit, ..Default::default() }
    }

    #[test]
    fn what_ends_a_wait() {
        let exited = Some(Waited::Exited(Exit { code: Some(3), ..Default::default() }));
        let table = [
            (Phase::Up, HealthStatus::Starting, Some(Waited::Reached), None, None),
            (Phase::Up, HealthStatus::None, Some(Waited::Reached), Some(Waited::Reached), None),
            (Phase::Up, HealthStatus::Healthy, Some(Waited::Reached), Some(Waited::Reached), None),
            (Phase::Up, HealthStatus::Unhealthy, Some(Waited::Reached), Some(Waited::Unhealthy), None),
            (Phase::Starting, HealthStatus::None, None, None, None),
            (Phase::Waiting, HealthStatus::Unhealthy, None, None, None),
            (Phase::Down, HealthStatus::Unhealthy, exited.clone(), exited.clone(), exited.clone()),
        ];
        for (phase, health, running, healthy, ended) in table {
            let status = status(phase, health);
            assert_eq!(waited(&status, Until::Running), running, "{phase:?} {health:?}");
            assert_eq!(waited(&status, Until::Healthy), healthy, "{phase:?} {health:?}");
            assert_eq!(waited(&status, Until::Exited), ended, "{phase:?} {health:?}");
        }
    }
}
