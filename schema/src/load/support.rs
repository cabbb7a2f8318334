//! One warning for each attribute that is accepted and has no effect yet.

use crate::attributes::{self, Shape, Support};
use crate::diagnostic::Diagnostic;
use crate::keypath::Trail;
use crate::yaml::{Node, Value};

pub(super) fn warn(tree: &Node, diagnostics: &mut Vec<Diagnostic>) {
    node(tree, attributes::root(), &Trail::Root, diagnostics);
    let services = tree.get("services").and_then(Node::as_map);
    for (key, entry) in services.into_iter().flat_map(|services| services.iter()) {
        service(key, &entry.node, diagnostics);
    }
}

fn node(node: &Node, shape: &Shape, path: &Trail<'_>, diagnostics: &mut Vec<Diagnostic>) {
    match &node.value {
        Value::Map(map) => {
            for (key, entry) in map.iter() {
                let is_extension = key.starts_with("x-") && !shape.is_user_keyed();
                let Some(below) = shape.member(key).filter(|_| !is_extension) else { continue };
                let path = path.key(key);
                match below.attribute.map(|attribute| attribute.support) {
                    Some(Support::NotYet) => {
                        let message = format!("`{path}` is accepted but not honoured yet");
                        diagnostics
                            .push(Diagnostic::warning(message).at(entry.key.clone()).key(path.to_string()));
                    }
                    _ => self::node(&entry.node, below, &path, diagnostics),
                }
            }
        }
        Value::Seq(items) => {
            let Some(below) = &shape.item else { return };
            for (index, item) in items.iter().enumerate() {
                self::node(item, below, &path.index(index), diagnostics);
            }
        }
        _ => {}
    }
}

/// What depends on the value and not only on the attribute.
fn service(key: &str, service: &Node, diagnostics: &mut Vec<Diagnostic>) {
    let policy = service.get("pull_policy").filter(|policy| {
        policy
            .as_str()
            .is_some_and(|text| matches!(text, "daily" | "weekly" | "refresh") || text.starts_with("every_"))
    });
    if let Some(policy) = policy {
        let message = format!(
            "the pull policy `{}` is accepted but works as `missing`",
            policy.as_str().unwrap_or_default()
        );
        let path = format!("services.{key}.pull_policy");
        diagnostics.push(Diagnostic::warning(message).at(policy.place.clone()).key(path));
    }
    if let (Some("host"), Some(ports)) =
        (service.get("network_mode").and_then(Node::as_str), service.get("ports"))
    {
        let message = format!("service `{key}` shares this machine's network, so its `ports` have no effect");
        diagnostics
            .push(Diagnostic::warning(message).at(ports.place.clone()).key(format!("services.{key}.ports")));
    }
}
