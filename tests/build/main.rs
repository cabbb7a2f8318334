//! The builder with the real kernel: layers, cache, RUN, mounts, failures.
//!
//! Needs root; skipped visibly without it, unless `STACK_TEST_PRIVILEGED=1` makes that a failure. Everything runs in
//! mount, process, network and ipc namespaces of its own, with `/` mounted shared as on machines with systemd; when
//! the process ends, so does everything in it.

#![allow(clippy::print_stderr)] // a skip is said where everybody sees it

mod bases;
mod bed;
mod cases;
mod copying;
mod exchange;
mod explain;
mod killed;
mod outputs;
#[path = "../../runtime/tests/common/registry.rs"]
#[allow(clippy::unwrap_used, dead_code)]
mod registry;
mod remote;
mod rules;
mod running;

use libtest_mimic::{Arguments, Trial};
use std::process::{Command, ExitCode};

const INSIDE: &str = "STACK_TEST_INSIDE";

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        return outside();
    }
    bed::prepare_namespaces();
    let arguments = Arguments::from_args();
    let cases = [
        cases::ALL,
        copying::ALL,
        running::ALL,
        rules::ALL,
        bases::ALL,
        remote::ALL,
        exchange::ALL,
        explain::ALL,
        outputs::ALL,
        killed::ALL,
    ]
    .concat();
    let trials = cases.into_iter().map(|(name, case)| Trial::test(name, move || bed::run(case))).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Says aloud why a test shows nothing; a failure where all has to be there.
fn skip(reason: &str) {
    assert!(std::env::var_os("STACK_TEST_PRIVILEGED").is_none(), "this test must not be skipped: {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Runs this program again in namespaces of its own.
fn outside() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        let is_promised = std::env::var_os("STACK_TEST_PRIVILEGED").is_some_and(|value| value == "1");
        eprintln!("build: skipped, these tests need root");
        return if is_promised { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    // While there still is an internet; the test that needs it says so if it is missing.
    let _ = registry::program();
    let own = std::env::current_exe().expect("the test's own path");
    let namespaces = ["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc"];
    let status = Command::new("unshare")
        .args(namespaces)
        .args(["--propagation", "shared"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .expect("unshare is part of util-linux");
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
