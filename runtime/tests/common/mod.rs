//! What several test programs share. Each uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr)]

pub(crate) mod http;
pub(crate) mod registry;

use stack_runtime::home::Home;
use stack_runtime::image::Store;

/// `false`, said aloud, when not root; a failure where root is promised.
pub(crate) fn is_privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    skip("needs root");
    false
}

pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("STACK_TEST_PRIVILEGED").is_none(), "this test must not be skipped: {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// A root file system, if the machine has a static busybox.
pub(crate) fn busybox() -> Option<Vec<u8>> {
    match stack_runtime::image::fixture::busybox_rootfs() {
        Ok(rootfs) => Some(rootfs),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

pub(crate) fn store_in(root: &std::path::Path) -> Store {
    let home = Home { data: root.join("data"), run: root.join("run") };
    Store::open(&home).expect("a temporary directory is writable")
}

/// Runs a test in a network namespace of its thread's own, with loopback up.
pub(crate) fn in_private_network<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    // While there still is an internet; `Server::start` says so if it is missing.
    let _ = registry::program();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    // One thread: its sockets and children belong to the namespace.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
        tokio::spawn(connection);
        let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
        handle.link().set(up).execute().await.expect("loopback comes up");
        test().await;
    });
}
