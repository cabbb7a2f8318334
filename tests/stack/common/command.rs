//! Runs the program and keeps what it printed. Output goes to files: a descriptor that a detached supervisor kept
//! would hold a pipe open for ever.

use super::World;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ran {
    /// Ended with 0, or the test fails showing everything.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Said this, on either stream.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "`{text}` is missing from {self}");
        self
    }

    /// Standard output without the last line feed.
    pub fn text(&self) -> &str {
        self.stdout.trim_end()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}) from {self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "`stack {}`: {}, after {:?}", self.command, self.status, self.took)?;
        writeln!(f, "--- stdout\n{}", self.stdout)?;
        write!(f, "--- stderr\n{}", self.stderr)
    }
}

/// A run that goes on beside the test; killed when dropped.
pub struct Background {
    child: Child,
    command: String,
    started: Instant,
    captured: Captured,
}

impl Background {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// What it printed so far.
    pub fn stdout(&self) -> String {
        self.captured.stdout()
    }
    pub fn stderr(&self) -> String {
        self.captured.stderr()
    }

    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process(pid_of(&self.child), signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self, patience: Duration) -> Ran {
        let ended = wait(&mut self.child, patience);
        let status = ended.unwrap_or_else(|| {
            panic!(
                "`stack {}` did not end in {patience:?}:\n{}\n{}",
                self.command,
                self.stdout(),
                self.stderr()
            )
        });
        self.captured.ran(&self.command, status, self.started.elapsed())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

struct Captured(PathBuf);

impl Captured {
    fn new(world: &World) -> Self {
        let directory = world.root.join(super::unique("output"));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }
    fn file(&self, name: &str) -> File {
        File::create(self.0.join(name)).unwrap()
    }
    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.0.join(name)).unwrap_or_default()).into_owned()
    }
    fn stdout(&self) -> String {
        self.read("stdout")
    }
    fn stderr(&self) -> String {
        self.read("stderr")
    }
    fn ran(&self, command: &str, status: ExitStatus, took: Duration) -> Ran {
        Ran { command: command.to_owned(), status, stdout: self.stdout(), stderr: self.stderr(), took }
    }
}

/// The program with this world's environment and nothing of the developer's own.
pub(super) fn program(home: &Path, directory: &Path, env: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
    command.args(args).current_dir(directory).env_clear();
    command.env("STACK_HOME", home).env("HOME", home).env("LANG", "C.UTF-8");
    for kept in ["PATH", "RUST_BACKTRACE", "STACK_LOG", "XDG_RUNTIME_DIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.envs(env.iter().copied()).stdin(Stdio::null());
    command
}

pub(super) fn spawn(world: &World, directory: &Path, env: &[(&str, &str)], args: &[&str]) -> Background {
    start(world, super::user::wrapped(world, program(&world.home, directory, env, args)), args)
}

fn start(world: &World, mut command: Command, args: &[&str]) -> Background {
    let captured = Captured::new(world);
    command.stdout(captured.file("stdout")).stderr(captured.file("stderr"));
    let started = Instant::now();
    let child = command.spawn().expect("the program was built");
    Background { child, command: args.join(" "), started, captured }
}

/// As [`run`], by a program that becomes ours.
#[track_caller]
pub(super) fn run_in(world: &World, directory: &Path, by: &[&str], args: &[&str], patience: Duration) -> Ran {
    let stack = program(&world.home, directory, &[], args);
    let mut command = Command::new(by[0]);
    command.args(&by[1..]).arg(stack.get_program()).args(stack.get_args()).current_dir(directory).env_clear();
    command.envs(stack.get_envs().filter_map(|(key, value)| Some((key, value?)))).stdin(Stdio::null());
    start(world, command, args).wait(patience)
}

#[track_caller]
pub(super) fn run(
    world: &World,
    directory: &Path,
    env: &[(&str, &str)],
    args: &[&str],
    patience: Duration,
) -> Ran {
    spawn(world, directory, env, args).wait(patience)
}

/// `None` when it did not end in time; it is killed then.
pub(super) fn try_run(
    world: &World,
    directory: &Path,
    env: &[(&str, &str)],
    args: &[&str],
    patience: Duration,
) -> Option<Ran> {
    let mut background = spawn(world, directory, env, args);
    let status = wait(&mut background.child, patience)?;
    Some(background.captured.ran(&background.command, status, background.started.elapsed()))
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not zero")
}

/// Through a pidfd, so that nothing is added to the times measured.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let pidfd = pidfd_open(pid_of(child), PidfdFlags::empty()).expect("our own child");
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => return Some(child.wait().expect("our own child")),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll: {e}"),
        }
    }
}
