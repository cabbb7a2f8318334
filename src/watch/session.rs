//! The loop of `watch` and `up --watch`.

use super::decide::{self, Copy, Step, decide};
use super::rule::Rules;
use super::sync::{Equal, Replica, copy_into};
use super::tree::Tree;
use crate::failure::Failure;
use std::future::Future;

/// What a session needs done. Services are named by key.
pub trait Doer: Send + Sync {
    /// The running containers of a service.
    fn replicas(&self, service: &str) -> impl Future<Output = Result<Vec<Replica>, Failure>> + Send;
    /// Builds the images again and replaces the containers of these services alone.
    fn rebuild(&self, services: &[String]) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Restarts them, and the services that depend on them with `restart: true`.
    fn restart(&self, services: &[String]) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Runs the command in every running container of the service.
    fn exec(&self, service: &str, command: &[String]) -> impl Future<Output = Result<(), Failure>> + Send;
    /// One line for the user.
    fn say(&self, line: &str);
    /// A step that did not succeed; the session goes on.
    fn complain(&self, failure: &Failure);
}

/// See the module.
pub struct Session<D> {
    tree: Tree,
    doer: D,
}

impl<D: Doer> Session<D> {
    /// Edits made after this returned are not missed, so it may be called before the stack is up.
    ///
    /// # Errors
    /// inotify's limits.
    pub fn open(rules: Rules, doer: D) -> Result<Self, Failure> {
        for warning in &rules.warnings {
            doer.say(warning);
        }
        Ok(Self { tree: Tree::open(rules)?, doer })
    }

    /// Watches until an error of the watcher itself; drop it to stop.
    ///
    /// # Errors
    /// inotify's limits.
    pub async fn run(&mut self) -> Result<(), Failure> {
        self.doer.say("Watch enabled");
        let first = decide::first_sync(self.tree.rules(), &self.tree.present());
        self.follow(first, Equal::Keep).await;
        loop {
            let changed = self.tree.changed().await?;
            let steps = decide(self.tree.rules(), &changed);
            self.follow(steps, Equal::Replace).await;
        }
    }

    /// The first failure drops the rest.
    async fn follow(&self, steps: Vec<Step>, equal: Equal) {
        for step in steps {
            if let Err(failure) = self.take(step, equal).await {
                return self.doer.complain(&failure);
            }
        }
    }

    async fn take(&self, step: Step, equal: Equal) -> Result<(), Failure> {
        match step {
            Step::Rebuild { services } => {
                self.doer.say(&format!(
                    "Rebuilding service(s) {} after changes were detected...",
                    quoted(&services)
                ));
                if let Err(failure) = self.doer.rebuild(&services).await {
                    self.doer.say(&format!("Build failed. Error: {}", failure.message));
                    return Err(failure);
                }
                self.doer.say(&format!("service(s) {} successfully built", quoted(&services)));
                Ok(())
            }
            Step::Sync { service, copies } => self.sync(&service, copies, equal).await,
            Step::Restart { services } => {
                self.doer.restart(&services).await?;
                self.doer.say(&format!("service(s) {} restarted", quoted(&services)));
                Ok(())
            }
            Step::Exec { service, command } => self.doer.exec(&service, &command).await,
        }
    }

    async fn sync(&self, service: &str, copies: Vec<Copy>, equal: Equal) -> Result<(), Failure> {
        let replicas = self.doer.replicas(service).await?;
        let count = copies.len();
        let failed = |name: &str, why: String| {
            Failure::other(format!("failed to synchronise files into {name}: {why}"))
        };
        let copied = tokio::task::spawn_blocking(move || {
            replicas.iter().try_for_each(|replica| {
                copy_into(replica, &copies, equal).map_err(|e| failed(&replica.name, e.to_string()))
            })
        });
        copied.await.map_err(|e| failed(service, e.to_string()))??;
        self.doer.say(&format!("Syncing service \"{service}\" after {count} changes were detected"));
        Ok(())
    }
}

/// `["a" "b"]`.
fn quoted(services: &[String]) -> String {
    let names: Vec<String> = services.iter().map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", names.join(" "))
}

#[cfg(test)]
mod tests;
