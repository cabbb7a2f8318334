//! Hooks: programs that get the container's state on their standard input.

use oci_spec::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What a hook says beyond this is not repeated.
const MAX_WORDS: u64 = 16 * 1024;

/// Runs them in order; the first failure ends it. `dir`: where they run, if not here.
pub(crate) fn run(hooks: &[Hook], state: &State, dir: Option<&Path>) -> io::Result<()> {
    let state = serde_json::to_vec(state)?;
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, &state, dir).map_err(|e| {
            let path = hook.path().display();
            io::Error::other(format!("error running hook #{index} ({path}): {e}"))
        })?;
    }
    Ok(())
}

/// All of them, whatever becomes of the others; failures are warnings, as the specification has it for what comes
/// after the start.
pub(super) fn each(hooks: &[Hook], state: &State, dir: &Path) -> Vec<String> {
    let failed = |hook| run(std::slice::from_ref(hook), state, Some(dir)).err();
    hooks.iter().filter_map(failed).map(|e| e.to_string()).collect()
}

fn one(hook: &Hook, state: &[u8], dir: Option<&Path>) -> io::Result<()> {
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    // One that says nothing about its environment has ours, as other runtimes do it.
    if hook.env().is_some() {
        command.env_clear();
    }
    command.envs(hook.env().iter().flatten().map(|pair| pair.split_once('=').unwrap_or((pair, ""))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read it.
        let _ = input.write_all(state);
    }
    let timeout =
        hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let (status, words) = attend(&mut child, timeout.map(Duration::from_secs))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(ended(status) + &words)) }
}

/// Reads what it says until it ends. Children that it leaves behind may hold the streams open: nobody waits for them.
fn attend(child: &mut Child, timeout: Option<Duration>) -> io::Result<(ExitStatus, String)> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a child has a pid above zero");
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    let (mut output, mut error) = (child.stdout.take(), child.stderr.take());
    let mut words = Vec::new();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let wait =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(&end, PollFlags::IN)];
        fds.extend(output.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(error.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let count = match poll(&mut fds, wait.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            count => count?,
        };
        if count == 0 {
            // With what it started: nobody else would end that.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            let _ = child.wait();
            return Err(io::Error::other("it did not end in time"));
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let has_output = output.is_some();
        if has_output && ready[1] {
            output = output.take().and_then(|pipe| hear(pipe, &mut words));
        }
        if error.is_some() && ready[1 + usize::from(has_output)] {
            error = error.take().and_then(|pipe| hear(pipe, &mut words));
        }
        if ready[0] && count == 1 {
            let said = String::from_utf8_lossy(&words).trim().to_owned();
            let said = if said.is_empty() { said } else { format!(": {said}") };
            return Ok((child.wait()?, said));
        }
    }
}

/// The pipe again, unless it is at its end.
fn hear<P: Read>(mut pipe: P, words: &mut Vec<u8>) -> Option<P> {
    let mut chunk = [0; 4096];
    match pipe.read(&mut chunk) {
        Ok(0) | Err(_) => None,
        Ok(length) => {
            if (words.len() as u64) < MAX_WORDS {
                words.extend(&chunk[..length]);
            }
            Some(pipe)
        }
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(libc::SIGSYS)) => "signal: bad system call".to_owned(),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn shell(script: &str, timeout: Option<i64>) -> Vec<Hook> {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let mut hook = HookBuilder::default().path("/bin/sh").args(args).build().unwrap();
        hook.set_timeout(timeout).set_env(Some(vec!["WORD=spoken".into()]));
        vec![hook]
    }

    #[test]
    fn a_hook_gets_state_and_environment_and_its_words_are_in_the_error() {
        let script = "read state; echo $WORD $state $PATH; exit 3";
        let error = run(&shell(script, None), &State::default(), None).unwrap_err().to_string();
        assert!(error.contains("hook #0 (/bin/sh): exit status 3: spoken {\"ociVersion\":"), "{error}");
    }

    #[test]
    fn a_hook_that_hangs_is_ended() {
        let error = run(&shell("sleep 1000 & sleep 1000", Some(1)), &State::default(), None).unwrap_err();
        assert!(error.to_string().contains("did not end in time"), "{error}");
    }

    #[test]
    fn a_child_that_a_hook_leaves_behind_holds_nobody_up() {
        let begun = Instant::now();
        let directory = tempfile::tempdir().unwrap();
        run(&shell("sleep 1000 & echo $! >child", None), &State::default(), Some(directory.path())).unwrap();
        let child = std::fs::read_to_string(directory.path().join("child")).unwrap();
        let child = Pid::from_raw(child.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(900));
    }
}
