//! What happens in a stack, over the ends of its supervisors: one that was killed is followed by another.

use super::engine::HostEngine;
use crate::supervise::Client;
use crate::supervise::Notices;
use crate::supervise::protocol::{Notice, What};
use stack_runtime::engine::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A killed supervisor's launcher starts the next one at once; after this we do it.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// See the module. Keeps the supervisor alive.
pub struct Watching {
    engine: HostEngine,
    project: String,
    client: Arc<Client>,
    notices: Notices,
}

impl HostEngine {
    /// Notices from now on; starts a supervisor if none runs.
    ///
    /// # Errors
    /// When no supervisor can be reached.
    pub async fn watch(&self, project: &str) -> Result<Watching> {
        let client = self.client(project).await?;
        let notices = client.subscribe().await?;
        Ok(Watching { engine: self.clone(), project: project.to_owned(), client, notices })
    }
}

impl Watching {
    /// The supervisor that is asked now.
    pub fn client(&self) -> Arc<Client> {
        self.client.clone()
    }

    /// The next one, or [`What::Adopted`] when another supervisor carries on. `None`: nothing is left to supervise. May
    /// be dropped and called again at any time.
    ///
    /// # Errors
    /// When no supervisor can be reached.
    pub async fn next(&mut self) -> Result<Option<Notice>> {
        match self.notices.next().await? {
            Some(notice) => Ok(Some(notice)),
            None => self.go_on().await,
        }
    }

    async fn go_on(&mut self) -> Result<Option<Notice>> {
        let lost = Instant::now();
        self.engine.forget_client(&self.project, &self.client).await;
        let client = loop {
            if let Some(client) = self.engine.running_client(&self.project).await? {
                break client;
            }
            if !self.engine.has_active(&self.project) {
                return Ok(None);
            }
            if lost.elapsed() > PATIENCE {
                break self.engine.client(&self.project).await?;
            }
            tokio::time::sleep(PAUSE).await;
        };
        self.notices = client.subscribe().await?;
        self.client = client;
        let time = jiff::Timestamp::now().to_string();
        Ok(Some(Notice { id: String::new(), name: self.project.clone(), time, what: What::Adopted }))
    }
}
