//! The graph itself: services, and what each must have before it starts.

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use stack_schema::project::{Condition, Dependency, Project};
use std::collections::HashMap;

/// Whether there is such a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    There,
    /// In a profile that is not active.
    Inactive,
    Undefined,
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) key: String,
    pub(super) standing: Standing,
}

#[derive(Debug)]
pub(super) struct Need {
    /// What is waited for; empty when the start is enough.
    pub(super) remark: String,
    pub(super) is_optional: bool,
    /// Part of a circle.
    pub(super) is_circular: bool,
}

/// An edge from a service to each one it needs, in the order of the file.
#[derive(Debug)]
pub(super) struct Needs {
    pub(super) graph: DiGraph<Service, Need>,
}

impl Needs {
    pub(super) fn of(project: &Project) -> Self {
        let mut graph = DiGraph::new();
        let mut known: HashMap<&str, NodeIndex> = HashMap::new();
        for key in project.services.keys() {
            let service = Service { key: key.clone(), standing: Standing::There };
            known.insert(key, graph.add_node(service));
        }
        for (key, service) in &project.services {
            for (name, dependency) in &service.depends_on {
                let to = *known.entry(name).or_insert_with(|| graph.add_node(absent(name, project)));
                graph.add_edge(known[key.as_str()], to, Need::of(dependency));
            }
        }
        let mut needs = Self { graph };
        needs.mark_circles();
        needs
    }

    fn mark_circles(&mut self) {
        let mut group = vec![0; self.graph.node_count()];
        for (number, members) in tarjan_scc(&self.graph).into_iter().enumerate() {
            members.into_iter().for_each(|member| group[member.index()] = number);
        }
        for edge in self.graph.edge_indices() {
            let ends = self.graph.edge_endpoints(edge);
            // A group of several, or a service that needs itself: either way both ends are in it.
            let is_circular = ends.is_some_and(|(from, to)| group[from.index()] == group[to.index()]);
            self.graph[edge].is_circular = is_circular;
        }
    }

    /// What a service needs, in the order of the file.
    pub(super) fn below(&self, service: NodeIndex) -> Vec<(NodeIndex, &Need)> {
        let mut below: Vec<_> =
            self.graph.edges(service).map(|edge| (edge.target(), edge.weight())).collect();
        // petgraph tells the last one first.
        below.reverse();
        below
    }

    pub(super) fn key(&self, service: NodeIndex) -> &str {
        &self.graph[service].key
    }
}

impl Need {
    fn of(dependency: &Dependency) -> Self {
        let awaited = match dependency.condition {
            Condition::ServiceStarted => "",
            Condition::ServiceHealthy => "healthy",
            Condition::ServiceCompletedSuccessfully => "completed",
        };
        let optional = if dependency.required { "" } else { "optional" };
        let words: Vec<&str> = [awaited, optional].into_iter().filter(|word| !word.is_empty()).collect();
        Self { remark: words.join(", "), is_optional: !dependency.required, is_circular: false }
    }
}

impl Service {
    /// What is to be said beside the key.
    pub(super) fn remark(&self) -> &'static str {
        match self.standing {
            Standing::There => "",
            Standing::Inactive => "inactive",
            Standing::Undefined => "undefined",
        }
    }
}

fn absent(name: &str, project: &Project) -> Service {
    let is_known = project.disabled.contains_key(name);
    let standing = if is_known { Standing::Inactive } else { Standing::Undefined };
    Service { key: name.to_owned(), standing }
}
