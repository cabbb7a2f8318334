//! The container runtime with the real kernel: busybox containers through a real launcher.
//!
//! Needs root; skipped visibly otherwise (a failure with `STACK_TEST_PRIVILEGED=1`).

mod runtime {
    pub mod harness;
}

use runtime::harness::{Fixture, spec};
use stack_runtime::spec::ContainerSpec;

/// Runs a shell script and gives its exit code and its output.
async fn sh(fixture: &Fixture, script: &str) -> (Option<i32>, String) {
    fixture.run(spec(&["sh", "-c", script])).await
}

macro_rules! privileged {
    ($name:ident, $fixture:ident, $body:block) => {
        #[test]
        fn $name() {
            runtime::harness::privileged(stringify!($name), async |$fixture: &Fixture| $body);
        }
    };
}

privileged!(exit_code_and_both_streams_arrive, fixture, {
    let (code, output) = sh(fixture, "echo out; echo err >&2; exit 7").await;
    assert_eq!(code, Some(7));
    assert_eq!(output, "out\nerr\n");
});

#[allow(dead_code)]
fn unused(_: ContainerSpec) {}
