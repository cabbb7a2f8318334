//! `stack debug`: what the readers of Dockerfiles and ignore files understood, as JSON, to compare it with what
//! BuildKit understands.

use super::Context;
use crate::build::{Understood, understand};
use crate::failure::{Failure, Kind, Result, failed};
use serde::Deserialize;
use serde_json::{Value, json};
use stack_runtime::image::config::{Document, ImageConfig};
use stack_schema::dockerfile::expand::Expander;
use stack_schema::dockerfile::lint::Finding;
use stack_schema::dockerfile::{Instruction, Stage};
use stack_schema::ignore::{self, Patterns};
use std::collections::HashMap;
use std::io::BufRead;
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print what a Dockerfile says, on one base image
    Dockerfile(FileArgs),
    /// Answer questions about words and patterns, a line each on standard input
    Rows(RowsArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct FileArgs {
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// An image config in JSON, or a file of it, that stands for every image
    #[arg(value_name = "BASE")]
    base: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct RowsArgs {}

pub(super) fn run(verb: &Verb, context: &Context) -> Result<()> {
    match verb {
        Verb::Dockerfile(args) => {
            let understood = understand(&args.file, &base(&args.base)?)?;
            context.ui.data(&format!("{}\n", shown(&understood)));
            Ok(())
        }
        Verb::Rows(_) => rows(context),
    }
}

/// The document itself, or a file that holds it.
fn base(text: &str) -> Result<Document> {
    let bytes = if text.trim_start().starts_with('{') {
        text.as_bytes().to_vec()
    } else {
        std::fs::read(text).map_err(failed("read the image config"))?
    };
    let wrong = |e| Failure::new(Kind::Project, format!("{text} is no image config: {e}"));
    let value: Value = serde_json::from_slice(&bytes).map_err(wrong)?;
    serde_json::from_value(whole(value)).map_err(wrong)
}

/// Its `config` alone (`{"Env": […]}`) will do: names of the document are in lower case, those of its part are not.
fn whole(value: Value) -> Value {
    let is_part = |object: &serde_json::Map<String, Value>| {
        !object.is_empty() && object.keys().all(|key| key.starts_with(char::is_uppercase))
    };
    match &value {
        Value::Object(object) if is_part(object) => json!({ "config": value }),
        _ => value,
    }
}

fn shown(understood: &Understood) -> Value {
    let file = &understood.file;
    let lines = |(first, last): (usize, usize)| json!([first, last]);
    json!({
        "escape": file.escape,
        "lines": file.lines.iter().copied().map(lines).collect::<Vec<_>>(),
        "meta_args": file.globals.iter().flat_map(args).collect::<Vec<_>>(),
        "stages": file.stages.iter().map(stage).collect::<Vec<_>>(),
        "images": understood.images,
        "config": config(&understood.config),
        "history": understood.history,
        "lint": understood.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn args(instruction: &Instruction) -> Vec<Value> {
    let stack_schema::dockerfile::Kind::Arg(args) = &instruction.kind else { return Vec::new() };
    args.iter().map(|(name, value)| json!({ "Key": name, "Value": value })).collect()
}

fn stage(stage: &Stage) -> Value {
    let command = |instruction: &Instruction| {
        let (first, last) = instruction.place.lines();
        json!({ "name": instruction.keyword, "lines": [first, last] })
    };
    json!({
        "name": stage.name.as_deref().unwrap_or_default(),
        "base": stage.base,
        "platform": stage.platform.as_deref().unwrap_or_default(),
        "commands": stage.instructions.iter().map(command).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    let (first, last) =
        finding.diagnostic.place.as_ref().map(stack_schema::source::Place::lines).unwrap_or_default();
    json!({ "rule": finding.rule, "lines": [first, last] })
}

/// The fields that BuildKit knows; empty ones are not there.
fn config(config: &ImageConfig) -> Value {
    let some = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    let known = ImageConfig {
        entrypoint: some(&config.entrypoint),
        cmd: some(&config.cmd),
        shell: some(&config.shell),
        stop_signal: config.stop_signal.clone().filter(|signal| !signal.is_empty()),
        stop_timeout: None,
        other: serde_json::Map::new(),
        ..config.clone()
    };
    json!(known)
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Row {
    Word(Words),
    Words(Words),
    Ignore { patterns: Vec<String>, path: String },
    Ignorefile { text: String },
}

#[derive(Deserialize)]
struct Words {
    word: String,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    escape: Option<String>,
}

fn rows(context: &Context) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(failed("read standard input"))?;
        if line.trim().is_empty() {
            continue;
        }
        let row: Row = serde_json::from_str(&line)
            .map_err(|e| Failure::new(Kind::Project, format!("a row that is none: {e}")))?;
        let answer = answer(row).unwrap_or_else(|| json!({ "error": true }));
        context.ui.data(&format!("{answer}\n"));
    }
    Ok(())
}

/// `None`: an error.
fn answer(row: Row) -> Option<Value> {
    Some(match row {
        Row::Word(words) => json!({ "word": words.expand(|expander, text| Ok(expander.word(text)?.value))? }),
        Row::Words(words) => {
            json!({ "words": words.expand(|expander, text| Ok(expander.words(text)?.value))? })
        }
        Row::Ignore { patterns, path } => {
            json!({ "match": Patterns::read(&patterns).ok()?.decide(&path).ok()? })
        }
        Row::Ignorefile { text } => {
            let patterns: Vec<String> =
                ignore::lines(&text).ok()?.into_iter().map(|(_, text)| text).collect();
            json!({ "patterns": patterns })
        }
    })
}

type Expanded<T> = std::result::Result<T, stack_schema::dockerfile::expand::ExpandError>;

impl Words {
    fn expand<T>(&self, with: impl Fn(&Expander<'_>, &str) -> Expanded<T>) -> Option<T> {
        let pairs = self.env.iter().flatten().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let env: HashMap<&str, &str> = pairs.collect();
        let variables = |name: &str| env.get(name).map(ToString::to_string);
        let escape = self.escape.as_deref().and_then(|text| text.chars().next()).unwrap_or('\\');
        with(&Expander { escape, variables: &variables }, &self.word).ok()
    }
}
