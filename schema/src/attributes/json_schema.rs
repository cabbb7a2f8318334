//! The table as a JSON Schema, for editors and other tools.
//!
//! It says what one file may hold: forms, members, allowed words, ranges. A word with a `$` in it is always allowed, because
//! nobody knows yet what it will be. What several places say together (references, exclusions) is the loader's business.

use super::{Attribute, Cast, Shape, Unique, form, root};
use serde_json::{Map, Value, json};

/// The schema of a Compose file (draft 2020-12).
pub fn json_schema() -> Value {
    let mut schema = of(root());
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Compose file".into();
    schema["type"] = "object".into();
    schema
}

fn of(shape: &Shape) -> Value {
    let mut forms: Vec<Value> = Vec::new();
    let attribute = shape.attribute;
    let accepts = |bit: u8| attribute.is_none_or(|attribute| attribute.accepts(bit));
    let is_known = attribute.is_some();
    if is_known && accepts(form::NULL) {
        forms.push(json!({ "type": "null" }));
    }
    if is_known && accepts(form::BOOL) {
        forms.push(json!({ "type": "boolean" }));
    }
    if let Some(attribute) = attribute.filter(|attribute| attribute.accepts(form::INT)) {
        forms.push(number(attribute));
    }
    if let Some(attribute) = attribute.filter(|attribute| attribute.accepts(form::STR)) {
        forms.push(string(attribute));
    }
    if accepts(form::LIST) && (is_known || shape.item.is_some()) {
        forms.push(list(shape));
    }
    if accepts(form::MAP) {
        forms.push(mapping(shape));
    }
    let mut schema = match forms.len() {
        1 => forms.remove(0),
        _ => json!({ "anyOf": forms }),
    };
    if let Some(attribute) = attribute {
        schema["description"] = attribute.doc.into();
    }
    schema
}

fn number(attribute: &Attribute) -> Value {
    let is_whole = !attribute.accepts(form::FLOAT & !form::INT);
    let mut schema = json!({ "type": if is_whole { "integer" } else { "number" } });
    if let Some((low, high)) = attribute.range {
        schema["minimum"] = low.into();
        schema["maximum"] = high.into();
    }
    schema
}

fn string(attribute: &Attribute) -> Value {
    let open = json!({ "type": "string", "pattern": "\\$" });
    if !attribute.one_of.is_empty() {
        return json!({ "anyOf": [{ "enum": attribute.one_of }, open] });
    }
    let pattern = match attribute.cast {
        Cast::Bool => {
            "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy]|[Nn]|[Yy][Ee][Ss]|[Nn][Oo]|[Oo][Nn]|[Oo][Ff][Ff])$"
        }
        Cast::Int => "^[-+]?[0-9]+$",
        Cast::Float => "^[-+]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][-+]?[0-9]+)?$",
        Cast::Octal => "^[0-7]+$",
        Cast::Count => "^(all|[-+]?[0-9]+)$",
        Cast::None | Cast::Bytes | Cast::Duration | Cast::Text => return json!({ "type": "string" }),
    };
    json!({ "anyOf": [{ "type": "string", "pattern": pattern }, open] })
}

fn list(shape: &Shape) -> Value {
    let mut schema = json!({ "type": "array" });
    match &shape.item {
        Some(item) => schema["items"] = of(item),
        // The short form of a mapping: names, or `K=V`.
        None => schema["items"] = json!({ "type": "string" }),
    }
    if shape.attribute.is_some_and(|attribute| attribute.unique == Unique::Strict) {
        schema["uniqueItems"] = true.into();
    }
    schema
}

fn mapping(shape: &Shape) -> Value {
    let mut schema = json!({ "type": "object" });
    let named: Map<String, Value> =
        shape.members.iter().map(|(name, below)| ((*name).to_owned(), of(below))).collect();
    let is_open = named.is_empty() && shape.any.is_none();
    if !named.is_empty() {
        schema["properties"] = named.into();
    }
    if !shape.is_user_keyed() && !is_open {
        schema["patternProperties"] = json!({ "^x-": {} });
    }
    match &shape.any {
        Some(any) => schema["additionalProperties"] = of(any),
        None if is_open => {}
        None => schema["additionalProperties"] = false.into(),
    }
    if let Some(attribute) = shape.attribute {
        if attribute.names {
            schema["propertyNames"] = json!({ "pattern": "^[a-zA-Z0-9._-]+$" });
        }
        if !attribute.needs.is_empty() {
            schema["required"] = attribute.needs.into();
        }
    }
    schema
}
