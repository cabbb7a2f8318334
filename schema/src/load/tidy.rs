//! Values that say nothing (false, 0, empty) are dropped where the table does not say that they mean something.

use crate::attributes::{self, Shape};
use crate::yaml::{Node, Value};

pub(super) fn tidy(tree: &mut Node) {
    node(tree, attributes::root());
}

fn node(node: &mut Node, shape: &Shape) {
    match &mut node.value {
        Value::Map(map) => {
            let is_user_keyed = shape.is_user_keyed();
            for (key, entry) in map.iter_mut() {
                let is_extension = key.starts_with("x-") && !is_user_keyed;
                if let Some(below) = shape.member(key).filter(|_| !is_extension) {
                    self::node(&mut entry.node, below);
                }
            }
            if !is_user_keyed {
                // `services: {}` says that there are none.
                let is_root = shape.members.contains_key("services");
                map.retain(|key, entry| {
                    key.starts_with("x-")
                        || (is_root && key == "services")
                        || !(is_silent(&entry.node, shape.members.get(key)) || is_forgotten(key, shape))
                });
            }
        }
        Value::Seq(items) => {
            if let Some(below) = &shape.item {
                items.iter_mut().for_each(|item| self::node(item, below));
            }
            if shape.attribute.is_some_and(|attribute| attribute.path == "services.*.dns") {
                items.retain(|item| item.as_str() != Some(""));
            }
        }
        _ => {}
    }
}

/// docker compose reads it and keeps nothing of it.
fn is_forgotten(key: &str, shape: &Shape) -> bool {
    let path = shape.members.get(key).and_then(|below| below.attribute).map(|attribute| attribute.path);
    path == Some("services.*.pull_refresh_after")
}

fn is_silent(node: &Node, shape: Option<&Shape>) -> bool {
    let keeps_zero = shape.and_then(|shape| shape.attribute).is_some_and(|attribute| attribute.keep_zero);
    match &node.value {
        // A hook says that it has no command of its own.
        Value::Null => {
            shape.and_then(|s| s.attribute).is_none_or(|a| a.path != "services.*.post_start[].command")
        }
        _ if keeps_zero => false,
        Value::Bool(is) => !is,
        Value::Int(number) => *number == 0,
        Value::Float(number) => *number == 0.0,
        Value::Str(text) => text.is_empty() || (text == "0" && shape.is_some_and(is_size)),
        Value::Seq(items) => items.is_empty(),
        Value::Map(map) => map.is_empty() && shape.is_some_and(Shape::is_user_keyed),
    }
}

fn is_size(shape: &Shape) -> bool {
    shape.attribute.is_some_and(|attribute| attribute.cast == attributes::Cast::Bytes)
}
