//! One run of a health check inside the container, with its output and its time limit.

mod grpc;
mod inside;

use super::stack::Stack;
use stack_runtime::launch::{ExecRequest, ExecStdio, LaunchError};
use stack_runtime::observed::ProbeResult;
use stack_runtime::spec::{ExecSpec, HealthSpec, Probe};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

const OUTPUT_BYTES: usize = 4096;
/// Could not run, or took too long.
const NO_CODE: i32 = -1;

/// A result and when it was found.
#[derive(Debug)]
pub(super) struct Probed {
    pub begun: Instant,
    pub ended: Instant,
    pub result: ProbeResult,
}

impl Probed {
    /// A probe that did not run at all.
    pub(super) fn failed(begun: Instant, reason: &dyn std::fmt::Display) -> Self {
        let now = jiff::Timestamp::now().to_string();
        let output = format!("OCI runtime exec failed: exec failed: {reason}");
        let result = ProbeResult { start: now.clone(), end: now, exit_code: NO_CODE, output };
        Self { begun, ended: Instant::now(), result }
    }
}

/// Runs the probe; killed after its timeout.
pub(super) async fn run(stack: Arc<Stack>, pid: i32, dir: PathBuf, spec: HealthSpec) -> Probed {
    let begun = Instant::now();
    let start = jiff::Timestamp::now().to_string();
    let found = match &spec.probe {
        Probe::Exec(args) => execute(&stack, pid, dir, args, spec.timeout).await,
        probe => Ok(asked(probe, pid, dir, spec.timeout).await),
    };
    match found {
        Err(e) => Probed::failed(begun, &e),
        Ok((exit_code, output)) => {
            let end = jiff::Timestamp::now().to_string();
            Probed { begun, ended: Instant::now(), result: ProbeResult { start, end, exit_code, output } }
        }
    }
}

async fn execute(
    stack: &Stack,
    pid: i32,
    dir: PathBuf,
    args: &[String],
    limit: Duration,
) -> Result<(i32, String), LaunchError> {
    let exec = ExecSpec { args: args.to_vec(), ..Default::default() };
    let (streams, mut output) = streams().map_err(|e| LaunchError::new("make the probe's pipe", e))?;
    let request = ExecRequest { pid, dir, exec, stdio: ExecStdio::Fds(streams) };
    let mut process = stack.launcher().exec(request).await?;
    let mut text = Vec::new();
    let finished = async {
        let (code, ()) = tokio::join!(process.wait(), collect(&mut output, &mut text));
        code
    };
    match tokio::time::timeout(limit, finished).await {
        Ok(code) => Ok((code?, shown(&text))),
        Err(_) => {
            process.kill()?;
            Ok((NO_CODE, format!("{}{}", exceeded(limit), after(&text))))
        }
    }
}

fn exceeded(limit: Duration) -> String {
    format!("Health check exceeded timeout ({limit:?})")
}

/// A built-in probe: 0 is well, 1 is not.
async fn asked(probe: &Probe, pid: i32, dir: PathBuf, limit: Duration) -> (i32, String) {
    let asking = async {
        match probe {
            Probe::Exec(_) => Err(io::ErrorKind::Unsupported.into()),
            Probe::Http(url) => inside::http(pid, url).await,
            Probe::Tcp(address) => inside::tcp(pid, address).await,
            Probe::Grpc { address, service } => inside::grpc(pid, address, service).await,
            Probe::Log { text, count } => inside::log(&dir, text, *count).await,
        }
    };
    match tokio::time::timeout(limit, asking).await {
        Ok(Ok((is_well, text))) => (i32::from(!is_well), text),
        Ok(Err(e)) => (1, e.to_string()),
        Err(_) => (NO_CODE, exceeded(limit)),
    }
}

/// Nothing to read, and one pipe for both outputs.
fn streams() -> io::Result<([OwnedFd; 3], pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let reader = OwnedFd::from(reader);
    rustix::io::ioctl_fionbio(&reader, true)?;
    let nothing = File::open("/dev/null")?;
    Ok(([nothing.into(), writer.try_clone()?.into(), writer.into()], pipe::Receiver::from_owned_fd(reader)?))
}

/// Reads to the end, keeps the beginning. A grandchild that keeps the pipe open is cut off by the timeout.
async fn collect(output: &mut pipe::Receiver, text: &mut Vec<u8>) {
    let mut buffer = [0; OUTPUT_BYTES];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let room = (OUTPUT_BYTES + 1).saturating_sub(text.len());
        text.extend_from_slice(&buffer[..count.min(room)]);
    }
}

fn shown(text: &[u8]) -> String {
    let kept = String::from_utf8_lossy(&text[..text.len().min(OUTPUT_BYTES)]).into_owned();
    if text.len() > OUTPUT_BYTES { kept + "..." } else { kept }
}

fn after(text: &[u8]) -> String {
    if text.is_empty() { String::new() } else { format!(": {}", shown(text)) }
}
