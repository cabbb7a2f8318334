//! A reaping pid 1 in front of the program: forwards signals to it, reaps orphans, ends with its code.

use crate::sys::process::{self, Fork};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::io;

/// Returns in the child, which becomes the program; the parent stays here until the end.
pub(super) fn stand_in_front() -> io::Result<()> {
    let all: Vec<i32> = (1..=64).collect();
    process::block(&all);
    match process::fork()? {
        Fork::Child => {
            // In front of its terminal, if there is one, as the group that gets its signals.
            rustix::process::setpgid(None, None)?;
            let _ = rustix::termios::tcsetpgrp(std::io::stdin(), rustix::process::getpid());
            Ok(())
        }
        Fork::Parent(pid) => {
            let _ = rustix::thread::set_name(c"stack-init");
            let _ = process::close_all_except(&[]);
            process::exit(reap(pid, &all))
        }
    }
}

fn reap(program: i32, signals: &[i32]) -> i32 {
    let program = Pid::from_raw(program).expect("fork gives a pid above zero");
    loop {
        let Ok(signal) = process::wait_signal(signals) else { continue };
        if signal == libc::SIGCHLD {
            if let Some(code) = reap_all(program) {
                return code;
            }
        } else if let Some(signal) = Signal::from_named_raw(signal) {
            // It may have ended by now; then its code comes next.
            let _ = kill_process(program, signal);
        }
    }
}

/// The program's code, if it was among those that ended.
fn reap_all(program: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        }
    }
    code
}
