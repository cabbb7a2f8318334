//! For people: each service that nobody needs, with what it needs below it.

use super::needs::{Need, Needs};
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use std::collections::HashSet;

pub(super) fn text(needs: &Needs) -> String {
    let mut tree = Tree { needs, out: String::new(), shown: HashSet::new(), path: Vec::new() };
    let is_top =
        |service: &NodeIndex| needs.graph.neighbors_directed(*service, Direction::Incoming).next().is_none();
    for service in needs.graph.node_indices().filter(is_top) {
        tree.top(service);
    }
    // What is left is needed only from within a circle.
    for service in needs.graph.node_indices() {
        if !tree.shown.contains(&service) {
            tree.top(service);
        }
    }
    tree.out
}

struct Tree<'n> {
    needs: &'n Needs,
    out: String,
    shown: HashSet<NodeIndex>,
    /// From the top to here.
    path: Vec<NodeIndex>,
}

impl Tree<'_> {
    fn top(&mut self, service: NodeIndex) {
        self.out.push_str(&format!("{}\n", self.needs.key(service)));
        self.below(service, "");
    }

    fn below(&mut self, service: NodeIndex, indent: &str) {
        self.shown.insert(service);
        self.path.push(service);
        let below = self.needs.below(service);
        for (position, (other, need)) in below.iter().enumerate() {
            let (branch, further) =
                if position + 1 < below.len() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
            let line = self.line(*other, need);
            self.out.push_str(&format!("{indent}{branch}{line}\n"));
            if !self.shown.contains(other) {
                self.below(*other, &format!("{indent}{further}"));
            }
        }
        self.path.pop();
    }

    /// `db (healthy)`; `…` where what is below was shown already; a circle as `↻ a → b → a`.
    fn line(&self, service: NodeIndex, need: &Need) -> String {
        let remarks = [need.remark.as_str(), self.needs.graph[service].remark()];
        let remarks: Vec<&str> = remarks.into_iter().filter(|remark| !remark.is_empty()).collect();
        let mut line = self.needs.key(service).to_owned();
        if !remarks.is_empty() {
            line.push_str(&format!(" ({})", remarks.join(", ")));
        }
        if let Some(start) = self.path.iter().position(|seen| *seen == service) {
            let circle = self.path[start..].iter().chain([&service]).map(|member| self.needs.key(*member));
            line.push_str(&format!(" ↻ {}", circle.collect::<Vec<_>>().join(" → ")));
        } else if self.shown.contains(&service) && !self.needs.below(service).is_empty() {
            line.push_str(" …");
        }
        line
    }
}
