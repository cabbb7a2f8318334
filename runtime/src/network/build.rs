//! The network of a build: one namespace with loopback, names and a way out.

use crate::engine::Result;
use crate::sys::netns;
use std::os::fd::OwnedFd;

/// Lives as long as the value; its `pasta` dies with the value or with the process.
#[derive(Debug)]
pub struct BuildNetwork {
    /// The namespace the RUN containers share.
    pub netns: OwnedFd,
    /// Content of `/etc/resolv.conf` in it.
    pub resolv_conf: String,
    /// Content of `/etc/hosts` in it; `extra_hosts` of the build go below.
    pub hosts: String,
}

impl BuildNetwork {
    /// Makes the namespace and starts the uplink without waiting for it. Call it inside the async runtime.
    pub fn start() -> Result<Self> {
        let _ = netns::create();
        unimplemented!("network slice")
    }

    /// Waits until the way out is configured; the error is a sentence for the user.
    pub async fn ready(&self) -> Result<()> {
        unimplemented!("network slice")
    }
}
