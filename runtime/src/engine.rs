//! The seam between deciding and doing: observe, and one method per effect.
//!
//! The production engine lives in the `stack` crate (it talks to the supervisor of the
//! stack); a fake exists only for tests of the planner. Methods take the full names of
//! [`crate::spec`]; each is idempotent: asked for what already is, it succeeds.

use crate::observed::{Exit, Observed};
use crate::spec::{ContainerSpec, NetworkSpec, VolumeSpec};
use std::future::Future;
use std::time::Duration;

/// A failed effect: what was attempted and why it failed, in words for the user.
#[derive(Debug, Clone, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{message}")]
pub struct EngineError {
    pub kind: ErrorKind,
    /// "failed to …: reason", lower case, no full stop.
    pub message: String,
    /// A sentence that helps.
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    NotFound,
    Conflict,
    PermissionDenied,
    PortTaken,
    NoSuchProgram,
    Unreachable,
    Other,
}

impl EngineError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub type Result<T> = std::result::Result<T, EngineError>;

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    Running,
    Healthy,
    /// Ended, whatever the code.
    Exited,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waited {
    Reached,
    Exited(Exit),
    Unhealthy,
}

/// See the module. Containers are named by id.
pub trait Engine: Send + Sync {
    fn observe(&self, project: &str, images: &[String]) -> impl Future<Output = Result<Observed>> + Send;
    /// Returns the image id.
    fn pull(&self, reference: &str) -> impl Future<Output = Result<String>> + Send;
    fn create_network(&self, project: &str, spec: &NetworkSpec) -> impl Future<Output = Result<()>> + Send;
    fn remove_network(&self, project: &str, name: &str) -> impl Future<Output = Result<()>> + Send;
    fn create_volume(&self, spec: &VolumeSpec) -> impl Future<Output = Result<()>> + Send;
    fn remove_volume(&self, name: &str) -> impl Future<Output = Result<()>> + Send;
    /// Returns the new container's id.
    fn create(&self, project: &str, spec: &ContainerSpec) -> impl Future<Output = Result<String>> + Send;
    fn rename(&self, project: &str, id: &str, name: &str) -> impl Future<Output = Result<()>> + Send;
    fn start(&self, project: &str, id: &str) -> impl Future<Output = Result<()>> + Send;
    fn wait(&self, project: &str, id: &str, until: Until) -> impl Future<Output = Result<Waited>> + Send;
    /// Stop signal, grace, then SIGKILL; a manual stop, so no restart follows.
    fn stop(
        &self,
        project: &str,
        id: &str,
        grace: Option<Duration>,
    ) -> impl Future<Output = Result<()>> + Send;
    fn signal(&self, project: &str, id: &str, signal: &str) -> impl Future<Output = Result<()>> + Send;
    /// Freezes all its processes.
    fn pause(&self, project: &str, id: &str) -> impl Future<Output = Result<()>> + Send;
    fn resume(&self, project: &str, id: &str) -> impl Future<Output = Result<()>> + Send;
    /// Removes a stopped container, its writable layer and, if asked, its anonymous volumes.
    fn remove(&self, project: &str, id: &str, volumes: bool) -> impl Future<Output = Result<()>> + Send;
    /// Ends the supervisor when no container of the project is left.
    fn release(&self, project: &str) -> impl Future<Output = Result<()>> + Send;
}
