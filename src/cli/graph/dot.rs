//! For Graphviz.

use super::needs::{Needs, Standing};
use petgraph::visit::EdgeRef;

pub(super) fn text(project: &str, needs: &Needs) -> String {
    let mut out = format!("digraph \"{project}\" {{\n    node [shape=box];\n");
    for service in needs.graph.node_weights() {
        let style = match service.standing {
            Standing::There => String::new(),
            _ => format!(" [style=dashed, label=\"{}\\n{}\"]", quoted(&service.key), service.remark()),
        };
        out.push_str(&format!("    \"{}\"{style};\n", quoted(&service.key)));
    }
    for edge in needs.graph.edge_references() {
        let need = edge.weight();
        let attributes = [
            (!need.remark.is_empty()).then(|| format!("label=\"{}\"", need.remark)),
            need.is_optional.then(|| "style=dashed".to_owned()),
            need.is_circular.then(|| "color=red".to_owned()),
        ];
        let attributes: Vec<String> = attributes.into_iter().flatten().collect();
        let attributes =
            if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        let (from, to) = (quoted(needs.key(edge.source())), quoted(needs.key(edge.target())));
        out.push_str(&format!("    \"{from}\" -> \"{to}\"{attributes};\n"));
    }
    out + "}\n"
}

/// A service that does not exist may be called anything.
fn quoted(key: &str) -> String {
    key.replace('\\', "\\\\").replace('"', "\\\"")
}
