//! The stacks that own networks which this one joins: their supervisors, started where none runs.

use super::Client;
use stack_runtime::engine::Result;
use stack_runtime::home::Home;
use stack_runtime::network::{Neighbour, Neighbours};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

#[derive(Debug)]
struct Supervisors(Home);

pub(super) fn of(home: &Home) -> Arc<dyn Neighbours> {
    Arc::new(Supervisors(home.clone()))
}

impl Neighbours for Supervisors {
    fn join<'a>(
        &'a self,
        project: &'a str,
        network: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Neighbour>> + Send + 'a>> {
        Box::pin(async move {
            let client = Client::connect_or_spawn(&self.0, project).await?;
            let netns = client.join_network(network).await?;
            Ok(Neighbour { netns, lease: Box::new(client) })
        })
    }
}
