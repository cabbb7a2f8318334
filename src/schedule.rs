//! A bounded parallel run of a graph: every node starts when what it depends on is done.
//!
//! Shape: `dependencies[n]` are the nodes that node `n` waits for; a number is a position. The result has one
//! [`Outcome`] per node, in the nodes' order. After a failure nothing new starts: nodes that depend on the
//! failed one are [`Outcome::Skipped`] with it as the reason; what runs already is, as the caller chooses, let
//! finish or dropped ([`AfterFailure`]).
//!
//! Errors: none of its own. A graph with a cycle leaves the cycle's nodes skipped; callers build graphs that
//! point backwards.

use futures_util::stream::{FuturesUnordered, StreamExt};
use std::future::Future;

/// How one node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T, E> {
    Done(T),
    Failed(E),
    /// Never started, or dropped while it ran, because that node failed.
    Skipped {
        because: usize,
    },
}

impl<T, E> Outcome<T, E> {
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// What becomes of the rest once a node failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Nodes that do not depend on the failed one still start.
    CarryOn,
    /// What runs is let finish, nothing starts.
    Finish,
    /// What runs is dropped at once.
    Drop,
}

/// Runs all nodes, at most `limit` at a time (at least one). Ready nodes start in their order.
pub async fn run<T, E, F, Fut>(
    dependencies: &[Vec<usize>],
    limit: usize,
    after_failure: AfterFailure,
    start: F,
) -> Vec<Outcome<T, E>>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut graph = Graph::new(dependencies);
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < limit.max(1) {
            let Some(node) = graph.take_ready() else { break };
            let work = start(node);
            running.push(async move { (node, work.await) });
        }
        let Some((node, result)) = running.next().await else { break };
        if graph.finish(node, result, after_failure) {
            break;
        }
    }
    graph.outcomes()
}

struct Graph<T, E> {
    /// How many dependencies are not done yet.
    waiting: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    /// Sorted downwards, so the next one is at the end.
    ready: Vec<usize>,
    outcomes: Vec<Option<Outcome<T, E>>>,
    first_failure: Option<usize>,
}

impl<T, E> Graph<T, E> {
    fn new(dependencies: &[Vec<usize>]) -> Self {
        let count = dependencies.len();
        let mut dependents = vec![Vec::new(); count];
        let mut waiting = vec![0; count];
        for (node, needs) in dependencies.iter().enumerate() {
            let mut needs = needs.clone();
            needs.sort_unstable();
            needs.dedup();
            debug_assert!(needs.iter().all(|need| *need < count), "a dependency outside the graph");
            waiting[node] = needs.len();
            needs.iter().for_each(|need| dependents[*need].push(node));
        }
        let ready = (0..count).rev().filter(|node| waiting[*node] == 0).collect();
        let outcomes = (0..count).map(|_| None).collect();
        Self { waiting, dependents, ready, outcomes, first_failure: None }
    }

    fn take_ready(&mut self) -> Option<usize> {
        self.ready.pop()
    }

    /// Records a result; true when the run has to end at once.
    fn finish(&mut self, node: usize, result: Result<T, E>, after_failure: AfterFailure) -> bool {
        match result {
            Ok(value) => {
                self.outcomes[node] = Some(Outcome::Done(value));
                self.release(node);
                false
            }
            Err(error) => {
                self.outcomes[node] = Some(Outcome::Failed(error));
                self.first_failure.get_or_insert(node);
                self.skip_dependents(node);
                if after_failure != AfterFailure::CarryOn {
                    self.ready.clear();
                    self.waiting.iter_mut().for_each(|count| *count = usize::MAX);
                }
                after_failure == AfterFailure::Drop
            }
        }
    }

    fn release(&mut self, node: usize) {
        for dependent in std::mem::take(&mut self.dependents[node]) {
            if self.waiting[dependent] == usize::MAX || self.outcomes[dependent].is_some() {
                continue;
            }
            self.waiting[dependent] -= 1;
            if self.waiting[dependent] == 0 {
                self.ready.push(dependent);
            }
        }
        self.ready.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn skip_dependents(&mut self, failed: usize) {
        let mut open = vec![failed];
        while let Some(node) = open.pop() {
            for dependent in self.dependents[node].clone() {
                if self.outcomes[dependent].is_none() {
                    self.outcomes[dependent] = Some(Outcome::Skipped { because: failed });
                    open.push(dependent);
                }
            }
        }
    }

    fn outcomes(self) -> Vec<Outcome<T, E>> {
        let because = self.first_failure.unwrap_or(0);
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Skipped { because })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// Runs a graph whose nodes note their order; `fails` fail.
    async fn order(
        dependencies: &[Vec<usize>],
        fails: &[usize],
        after: AfterFailure,
    ) -> (Vec<usize>, Vec<Outcome<(), usize>>) {
        let seen = RefCell::new(Vec::new());
        let outcomes = run(dependencies, 2, after, |node| {
            let seen = &seen;
            async move {
                // The first node ends before the others that run beside it.
                for _ in 0..=node.min(1) * 3 {
                    tokio::task::yield_now().await;
                }
                seen.borrow_mut().push(node);
                if fails.contains(&node) { Err(node) } else { Ok(()) }
            }
        })
        .await;
        (seen.into_inner(), outcomes)
    }

    #[tokio::test]
    async fn dependencies_come_first() {
        let graph = vec![vec![], vec![0], vec![0], vec![1, 2], vec![]];
        let (seen, outcomes) = order(&graph, &[], AfterFailure::Finish).await;
        assert!(outcomes.iter().all(Outcome::is_done));
        let at = |node: usize| seen.iter().position(|n| *n == node).expect("every node ran");
        assert!(at(0) < at(1) && at(1) < at(3) && at(2) < at(3));
    }

    #[tokio::test]
    async fn a_failure_skips_what_depends_on_it() {
        let graph = vec![vec![], vec![0], vec![1], vec![]];
        let (seen, outcomes) = order(&graph, &[0], AfterFailure::CarryOn).await;
        assert_eq!(outcomes[0], Outcome::Failed(0));
        assert_eq!(outcomes[1], Outcome::Skipped { because: 0 });
        assert_eq!(outcomes[2], Outcome::Skipped { because: 0 });
        assert_eq!(outcomes[3], Outcome::Done(()));
        assert!(!seen.contains(&1) && !seen.contains(&2));
    }

    #[tokio::test]
    async fn nothing_starts_after_a_failure_unless_asked() {
        let graph = vec![vec![], vec![], vec![1], vec![]];
        let (seen, outcomes) = order(&graph, &[0], AfterFailure::Finish).await;
        assert!(!seen.contains(&2) && !seen.contains(&3));
        assert_eq!(outcomes[1], Outcome::Done(()));
        assert_eq!(outcomes[3], Outcome::Skipped { because: 0 });
    }

    #[tokio::test]
    async fn never_more_than_the_limit() {
        let graph = vec![vec![]; 20];
        let (now, most) = (Cell::new(0), Cell::new(0));
        let outcomes: Vec<Outcome<(), ()>> = run(&graph, 3, AfterFailure::Finish, |_| {
            let (now, most) = (&now, &most);
            async move {
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                Ok(())
            }
        })
        .await;
        assert_eq!((outcomes.len(), most.get()), (20, 3));
    }

    proptest::proptest! {
        #[test]
        fn every_node_has_an_outcome(edges in proptest::collection::vec((0usize..12, 0usize..12), 0..30), fails in proptest::collection::vec(0usize..12, 0..3)) {
            let mut graph = vec![Vec::new(); 12];
            edges.iter().filter(|(a, b)| a > b).for_each(|(a, b)| graph[*a].push(*b));
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (_, outcomes) = runtime.block_on(order(&graph, &fails, AfterFailure::CarryOn));
            for (node, outcome) in outcomes.iter().enumerate() {
                let needs_done = graph[node].iter().all(|need| outcomes[*need].is_done());
                let expected = if needs_done { fails.contains(&node) == matches!(outcome, Outcome::Failed(_)) } else { matches!(outcome, Outcome::Skipped { .. }) };
                proptest::prop_assert!(expected);
            }
        }
    }
}
