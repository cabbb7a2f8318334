//! `stack build --print`: what would be built, in the words of a bake file.

use super::{labels, named};
use crate::failure::{Failure, Kind, Result, failed};
use crate::plan::Plan;
use crate::plan::step::{Action, Building};
use serde_json::{Map, Value, json};
use stack_schema::project::{Build, FileContent, Grant, Project, Ulimit};
use std::path::PathBuf;

pub(super) fn text(project: &Project, plan: &Plan) -> Result<String> {
    let mut targets = Map::new();
    for (_, step) in plan.steps() {
        let Action::Build(building) = &step.action else { continue };
        targets.insert(building.service.key.clone(), target(project, building)?);
    }
    targets.sort_keys();
    let names: Vec<&String> = targets.keys().collect();
    let file = json!({ "group": { "default": { "targets": names } }, "target": targets });
    Ok(serde_json::to_string_pretty(&file).map_err(failed("describe the build"))? + "\n")
}

/// What is not said is left out.
fn target(project: &Project, building: &Building) -> Result<Value> {
    let none = || Failure::new(Kind::Project, format!("service {:?} has no build", building.service.key));
    let build = building.service.build.as_ref().ok_or_else(none)?;
    let wishes = &building.wishes;
    let args = build.args.clone().into_iter().chain(wishes.args.iter().cloned());
    let args = args.filter_map(|(name, value)| Some((name, value?)));
    let mut tags = build.tags.clone();
    tags.push(building.reference.clone());
    let contexts =
        build.additional_contexts.iter().map(|(name, what)| (name.clone(), context(project, what)));
    let secrets: Vec<String> = build.secrets.iter().filter_map(|grant| secret(project, grant)).collect();
    let agents: Vec<String> = build.ssh.iter().map(|(id, path)| agent(id, path.as_deref())).collect();
    let ulimits: Vec<String> = build.ulimits.iter().map(|(name, limit)| ulimit(name, limit)).collect();
    let all = [
        ("context", json!(build.context)),
        ("contexts", map(contexts)),
        ("dockerfile", dockerfile(build)),
        ("dockerfile-inline", json!(build.dockerfile_inline)),
        ("args", map(args)),
        ("labels", json!(labels(project, building, build))),
        ("tags", json!(tags)),
        ("cache-from", json!(build.cache_from)),
        ("cache-to", json!(build.cache_to)),
        ("target", json!(build.target)),
        ("secret", json!(secrets)),
        ("ssh", json!(agents)),
        ("platforms", json!(build.platforms)),
        ("pull", set(wishes.pull || build.pull)),
        ("no-cache", set(wishes.no_cache || build.no_cache)),
        ("network", json!(build.network)),
        ("shm-size", json!(build.shm_size.map(|size| size.0.to_string()))),
        ("ulimits", json!(ulimits)),
        ("extra-hosts", map(build.extra_hosts.iter().cloned())),
        ("output", json!([output(build, wishes.push)])),
        ("attest", json!(statements(build, building))),
    ];
    let is_said = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    let said = all.into_iter().filter(|(_, value)| is_said(value));
    Ok(said.map(|(key, value)| (key.to_string(), value)).collect::<Map<_, _>>().into())
}

fn map(pairs: impl Iterator<Item = (String, String)>) -> Value {
    pairs.map(|(key, value)| (key, Value::from(value))).collect::<Map<_, _>>().into()
}

fn agent(id: &str, path: Option<&str>) -> String {
    format!("{id}={}", path.unwrap_or_default())
}

fn set(flag: bool) -> Value {
    if flag { true.into() } else { Value::Null }
}

/// Another service is a target of the same file.
fn context(project: &Project, value: &str) -> String {
    match value.strip_prefix("service:") {
        Some(service) => format!("target:{service}"),
        None => named(project, value),
    }
}

/// Absolute, except in a repository.
fn dockerfile(build: &Build) -> Value {
    match build.dockerfile_inline {
        Some(_) => Value::Null,
        None if crate::build::is_address(&build.context.to_string_lossy()) => json!(build.dockerfile),
        None => json!(build.context.join(&build.dockerfile) as PathBuf),
    }
}

fn output(build: &Build, is_pushed: bool) -> &'static str {
    match (is_pushed, build.platforms.len() > 1) {
        (true, _) => "type=registry",
        (false, true) => "type=image,push=false",
        (false, false) => "type=docker",
    }
}

fn secret(project: &Project, grant: &Grant) -> Option<String> {
    let id = if grant.target.is_empty() { &grant.source } else { &grant.target };
    match &project.secrets.get(&grant.source)?.content {
        FileContent::File(path) => Some(format!("id={id},type=file,src={}", path.display())),
        // The variable's name is not kept with its value, which is not printed.
        FileContent::Inline(_) => Some(format!("id={id}")),
        FileContent::Unset(name) => Some(format!("id={id},type=env,env={name}")),
        FileContent::External => None,
    }
}

fn ulimit(name: &str, limit: &Ulimit) -> String {
    match limit.soft == limit.hard {
        true => format!("{name}={}", limit.soft),
        false => format!("{name}={}:{}", limit.soft, limit.hard),
    }
}

fn statements(build: &Build, building: &Building) -> Vec<String> {
    let wishes = &building.wishes;
    let wanted = [
        ("provenance", wishes.provenance.as_ref().or(build.provenance.as_ref())),
        ("sbom", wishes.sbom.as_ref().or(build.sbom.as_ref())),
    ];
    let line = |(kind, value): (&str, Option<&String>)| match value.map(String::as_str) {
        None => None,
        Some("true") => Some(format!("type={kind}")),
        Some("false") => Some(format!("type={kind},disabled=true")),
        Some(other) => Some(format!("type={kind},{other}")),
    };
    wanted.into_iter().filter_map(line).collect()
}
