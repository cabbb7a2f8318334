//! What owner, launcher, monitor and init say to each other. JSON in packets; orders in memory files.

use super::LaunchError;
use crate::container::{Bundle, ExecPlan};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

/// An order larger than this is refused (a bundle of ordinary size has some 20 KiB).
const MAX_ORDER_BYTES: u64 = 64 << 20;

/// First packet on the control socket; with [`NetnsKind::Join`] the namespace comes along.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub netns: NetnsKind,
    pub respawn: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NetnsKind {
    New,
    Join,
    Current,
}

/// A further packet from the owner: descriptors are `[memory file, reply socket, streams…]`, none for `Shutdown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Order,
    Shutdown,
}

impl Request {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Order => b'o',
            Self::Shutdown => b's',
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'o' => Some(Self::Order),
            b's' => Some(Self::Shutdown),
            _ => None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Create(Box<Bundle>),
    Exec(Box<ExecPlan>),
}

impl Order {
    pub(crate) fn to_memory(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("order", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(file.into())
    }

    pub(crate) fn from_memory(fd: OwnedFd) -> io::Result<Self> {
        let mut file = File::from(fd);
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(MAX_ORDER_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// Monitor (or the parent of an exec) to owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// With `[network namespace, pidfd of the monitor]`.
    Created {
        pid: i32,
        monitor_pid: i32,
        warnings: Vec<String>,
    },
    Started {
        warnings: Vec<String>,
    },
    /// With the terminal, if one was asked for.
    Executing {
        pid: i32,
    },
    /// An exec ended.
    Ended {
        code: i32,
    },
    Failed(LaunchError),
}

/// Owner to monitor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Command {
    Go,
    Signal(i32),
}
