//! The variables that the files name, with what stands in for them.

use super::unsupported;
use crate::failure::Result;
use crate::ui::table::Table;
use stack_schema::interpolate::{self, Reference};
use stack_schema::load::Loaded;
use stack_schema::yaml::{Node, Value};
use std::collections::BTreeMap;

type Variables = BTreeMap<String, Reference>;

/// As a table, or in the `format` that was asked for.
pub(super) fn text(loaded: &Loaded, format: Option<&str>) -> Result<String> {
    let mut variables = Variables::new();
    if let Some(tree) = &loaded.tree {
        collect(tree, &mut variables);
    }
    match format {
        None | Some("table" | "pretty") => Ok(table(&variables)),
        Some("json") => Ok(json(&variables)),
        Some("yaml") => Ok(yaml(&variables)),
        Some(other) => Err(unsupported(other)),
    }
}

fn collect(node: &Node, variables: &mut Variables) {
    match &node.value {
        Value::Str(text) => {
            let mut found = Vec::new();
            interpolate::references(text, &mut found);
            variables.extend(found.into_iter().map(|reference| (reference.name.clone(), reference)));
        }
        Value::Seq(items) => items.iter().for_each(|item| collect(item, variables)),
        Value::Map(map) => map.iter().for_each(|(_, entry)| collect(&entry.node, variables)),
        _ => {}
    }
}

fn table(variables: &Variables) -> String {
    let mut table = Table::new(&["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"]);
    for reference in variables.values() {
        let required = reference.required.to_string();
        table.row([reference.name.as_str(), &required, &reference.default, &reference.alternate]);
    }
    table.render()
}

fn json(variables: &Variables) -> String {
    let object = |(name, reference): (&String, &Reference)| {
        let value = serde_json::json!({
            "Name": reference.name,
            "DefaultValue": reference.default,
            "PresenceValue": reference.alternate,
            "Required": reference.required,
        });
        (name.clone(), value)
    };
    let object: serde_json::Map<String, serde_json::Value> = variables.iter().map(object).collect();
    format!("{:#}\n", serde_json::Value::Object(object))
}

fn yaml(variables: &Variables) -> String {
    let text = stack_schema::yaml::emit::text;
    let entry = |(name, reference): (&String, &Reference)| {
        format!(
            "{}:\n    name: {}\n    defaultvalue: {}\n    presencevalue: {}\n    required: {}\n",
            text(name),
            text(&reference.name),
            quoted(&reference.default),
            quoted(&reference.alternate),
            reference.required
        )
    };
    variables.iter().map(entry).collect()
}

fn quoted(value: &str) -> String {
    if value.is_empty() { "\"\"".into() } else { stack_schema::yaml::emit::text(value) }
}
