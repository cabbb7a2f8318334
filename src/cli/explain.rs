//! `stack explain`: a value of the project, and the way on which it came there.

use super::Context;
use crate::failure::{Failure, Kind, Result};
use stack_schema::keypath::{KeyPath, Step};
use stack_schema::load::provenance::Step as Came;
use stack_schema::load::{Explanation, Loaded, render};
use stack_schema::source::Place;
use stack_schema::yaml::{Value, emit};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// text or json
    #[arg(long, default_value = "text", value_name = "FORMAT", value_parser = ["text", "json"])]
    format: String,
    /// Such as services.web.environment.DATABASE_URL or services.web.ports[0]
    #[arg(value_name = "KEYPATH")]
    key_path: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let request = context.request(|request| {
        request.all_resources = true;
        request.profiles = vec!["*".into()];
    })?;
    let loaded = context.load(&request)?;
    let explanation = loaded.explain(&args.key_path).ok_or_else(|| nothing(&loaded, &args.key_path))?;
    let text = match args.format.as_str() {
        "json" => json(&args.key_path, &explanation).to_string() + "\n",
        _ => text(&args.key_path, &explanation),
    };
    context.ui.data(&text);
    Ok(())
}

/// What is there instead, as far down as the path goes.
fn nothing(loaded: &Loaded, key_path: &str) -> Failure {
    let failure = Failure::new(Kind::NotFound, format!("the project has nothing at `{key_path}`"));
    let (Some(path), Some(mut node)) = (KeyPath::parse(key_path), loaded.tree.as_deref()) else {
        return failure.hint("A key path is written as in `services.web.ports[0]`.");
    };
    for step in path.steps() {
        let next = match step {
            Step::Key(key) => node.get(key),
            Step::Index(index) => node.as_seq().and_then(|items| items.get(*index)),
        };
        let Some(below) = next else { break };
        node = below;
    }
    match &node.value {
        Value::Map(map) if !map.is_empty() => {
            let keys: Vec<&str> = map.keys().collect();
            failure.hint(format!("There is: {}.", keys.join(", ")))
        }
        Value::Seq(items) => failure.hint(format!("The list has {} items, from [0] on.", items.len())),
        _ => failure,
    }
}

fn text(key_path: &str, explanation: &Explanation<'_>) -> String {
    let node = explanation.node;
    let mut out = match &node.value {
        Value::Map(_) | Value::Seq(_) => format!("{key_path}:\n{}", indented(&emit::emit(node))),
        _ => format!("{key_path}: {}\n", node.scalar_text().unwrap_or_else(|| "null".into())),
    };
    let made = if explanation.is_written { "" } else { "made from " };
    out.push_str(&format!("  {}  {made}{}\n", position(&node.place), excerpt(&node.place)));
    for (place, remark) in &explanation.trail {
        out.push_str(&match place {
            Some(place) if remark.starts_with('`') => format!("  ← {}  {remark}\n", position(place)),
            Some(place) => format!("  ← {}  {remark}: {}\n", position(place), excerpt(place)),
            None => format!("  ← {remark}\n"),
        });
    }
    out
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn position(place: &Place) -> String {
    let (line, column) = place.line_column();
    format!("{}:{line}:{column}", place.source.name)
}

/// The first line of the text there.
fn excerpt(place: &Place) -> String {
    let text = &place.source.text[place.start..place.end];
    let mut lines = text.lines();
    let first: String = lines.next().unwrap_or_default().chars().take(120).collect();
    if lines.next().is_some() { format!("{first} …") } else { first }
}

fn json(key_path: &str, explanation: &Explanation<'_>) -> serde_json::Value {
    serde_json::json!({
        "key_path": key_path,
        "value": render::to_json(explanation.node),
        "written": explanation.is_written,
        "place": placed(&explanation.node.place),
        "trail": explanation.trail.iter().map(step).collect::<Vec<_>>(),
    })
}

fn step((place, remark): &Came) -> serde_json::Value {
    let mut object = place.as_ref().map_or_else(|| serde_json::json!({}), placed);
    object["remark"] = remark.as_str().into();
    object
}

fn placed(place: &Place) -> serde_json::Value {
    let (line, column) = place.line_column();
    serde_json::json!({
        "file": place.source.name, "line": line, "column": column, "text": excerpt(place),
    })
}
