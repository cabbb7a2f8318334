//! For Mermaid, which Markdown viewers draw. Keys would clash with its words (`end`), so that numbers stand for them.

use super::needs::{Needs, Standing};
use petgraph::visit::EdgeRef;

pub(super) fn text(needs: &Needs) -> String {
    let mut out = String::from("flowchart TD\n");
    for (number, service) in needs.graph.node_weights().enumerate() {
        let remark = service.remark();
        let gap = if remark.is_empty() { "" } else { "<br/>" };
        out.push_str(&format!("    s{number}[\"{}{gap}{remark}\"]\n", escaped(&service.key)));
        if service.standing != Standing::There {
            out.push_str(&format!("    style s{number} stroke-dasharray: 4 4\n"));
        }
    }
    for (number, edge) in needs.graph.edge_references().enumerate() {
        let need = edge.weight();
        let arrow = if need.is_optional { "-.->" } else { "-->" };
        let label = if need.remark.is_empty() { String::new() } else { format!("|{}|", need.remark) };
        out.push_str(&format!("    s{} {arrow}{label} s{}\n", edge.source().index(), edge.target().index()));
        if need.is_circular {
            out.push_str(&format!("    linkStyle {number} stroke:red\n"));
        }
    }
    out
}

/// A service that does not exist may be called anything.
fn escaped(key: &str) -> String {
    let escapes = [('&', "&amp;"), ('"', "&quot;"), ('<', "&lt;"), ('\n', " ")];
    escapes.iter().fold(key.to_owned(), |key, (plain, escape)| key.replace(*plain, escape))
}
