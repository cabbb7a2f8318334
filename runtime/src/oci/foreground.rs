//! Staying in front of a process: its terminal, our signals for it, its exit code.

use crate::init::Child;
use crate::sys::tty;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::process::{WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Until it ends; 128 + n for signal n.
pub(super) fn attend(child: &Child, terminal: Option<OwnedFd>) -> io::Result<i32> {
    let mut signals = SigSet::all();
    for own in [Signal::SIGCHLD, Signal::SIGURG, Signal::SIGPIPE, Signal::SIGTTIN, Signal::SIGTTOU] {
        signals.remove(own);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let _raw = terminal.as_ref().map(|_| Raw::new());
    if let Some(terminal) = &terminal {
        resize(terminal);
    }
    let mut proxy = Proxy { terminal, has_input: true };
    while !proxy.turn(child, &signals)? {}
    proxy.drain();
    let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    let status = status.ok_or_else(|| io::Error::other("it has no status"))?;
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    Ok(status.exit_status().or(signal).unwrap_or(255))
}

/// Our own terminal passes everything on while this lives.
struct Raw(Option<Termios>);

impl Raw {
    fn new() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(mut raw) = before.clone() {
            raw.make_raw();
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Lines for a file or a pipe end as the program ended them; a terminal of ours wants what one of its own gets.
pub(super) fn keep_lines(terminal: &OwnedFd) {
    if rustix::termios::isatty(io::stdout()) {
        return;
    }
    if let Ok(mut modes) = tcgetattr(terminal) {
        modes.output_modes.remove(rustix::termios::OutputModes::ONLCR);
        let _ = tcsetattr(terminal, OptionalActions::Now, &modes);
    }
}

fn resize(terminal: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        let _ = tty::resize(terminal, size.ws_row, size.ws_col);
    }
}

struct Proxy {
    terminal: Option<OwnedFd>,
    has_input: bool,
}

impl Proxy {
    /// True when the process has ended.
    fn turn(&mut self, child: &Child, signals: &SignalFd) -> io::Result<bool> {
        let input = io::stdin();
        let mut fds = vec![PollFd::new(&child.pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(terminal) = &self.terminal {
            fds.push(PollFd::new(terminal, PollFlags::IN));
            if self.has_input {
                fds.push(PollFd::new(&input, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(false),
            count => count?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[1] {
            self.pass_signals(child, signals);
        }
        if ready.get(2) == Some(&true) && !self.output() {
            self.terminal = None;
        }
        if ready.get(3) == Some(&true) {
            self.input();
        }
        Ok(ready[0])
    }

    fn pass_signals(&self, child: &Child, signals: &SignalFd) {
        while let Ok(Some(info)) = signals.read_signal() {
            let number = info.ssi_signo.cast_signed();
            match (&self.terminal, number) {
                (Some(terminal), libc::SIGWINCH) => resize(terminal),
                _ => {
                    // It may have ended by now.
                    let signal = rustix::process::Signal::from_named_raw(number);
                    let _ = signal.map(|signal| pidfd_send_signal(&child.pidfd, signal));
                }
            }
        }
    }

    /// One piece; false when nobody has the other side any more.
    fn output(&self) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        let mut chunk = [0; 16 * 1024];
        match read(terminal, &mut chunk) {
            Ok(0) => false,
            Ok(length) => write_all(io::stdout(), &chunk[..length]).is_ok(),
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    fn input(&mut self) {
        const END_OF_TRANSMISSION: &[u8] = &[4];
        let Some(terminal) = &self.terminal else { return };
        let mut chunk = [0; 4096];
        match read(io::stdin(), &mut chunk) {
            Ok(length) if length > 0 => self.has_input = write_all(terminal, &chunk[..length]).is_ok(),
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => {
                let _ = write_all(terminal, END_OF_TRANSMISSION);
                self.has_input = false;
            }
        }
    }

    /// What was written before the end.
    fn drain(&self) {
        let Some(terminal) = &self.terminal else { return };
        let _ = rustix::io::ioctl_fionbio(terminal, true);
        let mut chunk = [0; 16 * 1024];
        while let Ok(length) = read(terminal, &mut chunk) {
            if length == 0 || write_all(io::stdout(), &chunk[..length]).is_err() {
                return;
            }
        }
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match write(&to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
