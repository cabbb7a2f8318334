//! What a command line and the supervisor of a stack say to each other.
//!
//! A unix stream socket, `run/PROJECT/supervisor.sock`, mode 0600; the peer's user id is checked on both sides.
//! One connection carries one request at a time; file descriptors ride along by `SCM_RIGHTS`. Each frame is a length
//! (four bytes, big endian) and that many bytes of JSON, `{"v": 1, "body": …}`; another version is refused by name.
//!
//! | request | replies |
//! |---|---|
//! | `ping` | `pong` |
//! | `exec` + stdin, stdout, stderr (without a terminal) | `exec_started` (+ the terminal's master), `exec_ended` |
//! | `subscribe` | `notice` … until the connection ends |
//! | `inspect` | `containers` |
//! | `warnings` | `warnings` |
//! | `wait` | `waited` |
//! | `start` with `attach` | `done` (+ a connection to the attach socket) |
//! | `join_network` | `done` (+ the stack's network namespace) |
//! | any other | `done` |
//!
//! Every request may be answered by `failed`. A supervisor does not end while a connection is open.

use serde::{Deserialize, Serialize};
use stack_runtime::engine::{EngineError, Until, Waited};
use stack_runtime::observed::{Exit, HealthStatus};
use stack_runtime::spec::ExecSpec;
use std::time::Duration;

/// Raised when a frame of this version could not be understood by the one before.
pub const VERSION: u32 = 1;

/// Far above any frame; a longer one is somebody else's protocol.
pub const LONGEST_FRAME_BYTES: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame<T> {
    pub v: u32,
    pub body: T,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    Ping,
    /// Make the bridge of a network that has a record in `data/networks`.
    EnsureNetwork {
        name: String,
    },
    /// Makes the bridge of a network of this stack, for the containers of another stack; its supervisor asks.
    JoinNetwork {
        name: String,
    },
    RemoveNetwork {
        name: String,
    },
    Start {
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attach: Option<Attach>,
    },
    /// The container's stop signal unless another is named, then KILL after the grace period (its own unless given).
    Stop {
        id: String,
        signal: Option<String>,
        grace: Option<Duration>,
    },
    Signal {
        id: String,
        signal: String,
    },
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    /// The record has another name now: names are resolved anew.
    Renamed {
        id: String,
    },
    /// Forgets a container that is not running, and removes it.
    Remove {
        id: String,
        volumes: bool,
    },
    Wait {
        id: String,
        until: Until,
    },
    Exec {
        id: String,
        spec: ExecSpec,
        /// Rows and columns of its terminal, if it has one.
        size: (u16, u16),
    },
    Subscribe,
    Inspect,
    /// What the running containers asked for and could not be had; of the `whole` stack, also what it lacks.
    Warnings {
        whole: bool,
    },
    /// Answered when everything is done that clients asked for who are gone by now; stops at least under way.
    Settle,
    /// Ends the supervisor if nothing runs.
    Shutdown,
}

/// The asker wants the container's streams, from the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Rows and columns of its terminal, if it has one.
    pub size: Option<(u16, u16)>,
}

impl Request {
    /// Changes something; what has none may be broken off. A stop goes on without anybody who waits for it.
    pub fn has_effect(&self) -> bool {
        !matches!(
            self,
            Self::Ping
                | Self::Stop { .. }
                | Self::Wait { .. }
                | Self::Exec { .. }
                | Self::Subscribe
                | Self::Inspect
                | Self::Warnings { .. }
                | Self::Settle
        )
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Reply {
    Pong { pid: u32 },
    Done,
    Waited(Waited),
    ExecStarted,
    ExecEnded { code: i32 },
    Notice(Notice),
    Containers(Vec<Watched>),
    Warnings(Vec<Warned>),
    Failed(EngineError),
}

/// Something that is not as asked for, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// The container's name; `None`: the whole stack.
    pub container: Option<String>,
    pub text: String,
}

/// Something that just happened to a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub id: String,
    pub name: String,
    /// RFC 3339.
    pub time: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum What {
    Started,
    Exited(Exit),
    Restarting {
        attempt: u32,
        delay: Duration,
    },
    Health(HealthStatus),
    Paused,
    Resumed,
    Removed,
    /// A sentence for the user; of the whole stack when the notice has no id.
    Warning(String),
    /// Another supervisor carries on: what happened in between is to be looked up. Never sent; a watcher sees it.
    Adopted,
}

/// A container in the supervisor's eye.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    pub id: String,
    pub name: String,
    pub phase: String,
    pub pid: Option<i32>,
    pub health: HealthStatus,
    pub restart_count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_flat_json() {
        let frame = Frame { v: VERSION, body: Request::Start { id: "ab".into(), attach: None } };
        let text = serde_json::to_string(&frame).expect("plain data");
        assert_eq!(text, r#"{"v":1,"body":{"type":"start","id":"ab"}}"#);
        assert_eq!(serde_json::from_str::<Frame<Request>>(&text).expect("own text"), frame);
    }

    #[test]
    fn every_reply_survives_the_wire() {
        let exit = Exit { code: Some(3), ..Default::default() };
        let notice =
            Notice { id: "i".into(), name: "n".into(), time: "t".into(), what: What::Exited(exit.clone()) };
        for reply in
            [Reply::Pong { pid: 1 }, Reply::Done, Reply::Waited(Waited::Exited(exit)), Reply::Notice(notice)]
        {
            let text = serde_json::to_string(&reply).expect("plain data");
            let again: Reply = serde_json::from_str(&text).expect("own text");
            assert_eq!(serde_json::to_string(&again).expect("plain data"), text);
        }
    }
}
