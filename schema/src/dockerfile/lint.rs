//! Findings about text that works and surprises, under the names that BuildKit gave the rules.
//!
//! The rules here need the text alone; [`from`] has those that need the values of global `ARG`s, and the builder
//! finds what takes files, images and the values inside of stages.

mod from;

pub use super::instruction::nearest;
pub use from::check as check_bases;

use super::lines::Line;
use super::{Dockerfile, Stage, words};
use crate::diagnostic::Diagnostic;
use crate::source::Place;
use std::collections::BTreeSet;

pub const UNDEFINED_VAR: &str = "UndefinedVar";
pub const COPY_IGNORED: &str = "CopyIgnoredFile";
pub const BASE_PLATFORM: &str = "InvalidBaseImagePlatform";
/// Has to be asked for.
const EXPERIMENTAL: [&str; 1] = ["InvalidDefinitionDescription"];

/// One finding of one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub rule: &'static str,
    /// Its message begins with the rule's name.
    pub diagnostic: Diagnostic,
}

impl Finding {
    pub fn new(rule: &'static str, place: &Place, message: impl std::fmt::Display) -> Self {
        Self { rule, diagnostic: Diagnostic::warning(format!("{rule}: {message}")).at(place.clone()) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.hint(hint);
        self
    }
}

/// The `# check=` directive: `skip=A,B;error=true;experimental=C`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Check {
    skip: Vec<String>,
    experimental: Vec<String>,
    /// Findings make the build fail.
    pub is_error: bool,
}

impl Check {
    /// # Errors
    /// An option that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut check = Self::default();
        if text.trim().is_empty() {
            return Ok(check);
        }
        for option in text.trim().splitn(3, ';') {
            let names = |value: &str| value.split(',').map(|name| name.trim().to_owned()).collect();
            match option.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("skip", value)) => check.skip = names(value),
                Some(("experimental", value)) => check.experimental = names(value),
                Some(("error", "true" | "1" | "t" | "T" | "TRUE" | "True")) => check.is_error = true,
                Some(("error", "false" | "0" | "f" | "F" | "FALSE" | "False")) => check.is_error = false,
                _ => return Err(format!("invalid check option `{option}`")),
            }
        }
        Ok(check)
    }

    /// Where findings are to be errors, there may be none of those that are wanted.
    ///
    /// # Errors
    /// Which rules they are of, at the first of them.
    pub fn verdict(&self, wanted: &[Finding]) -> Result<(), Box<Diagnostic>> {
        let Some(first) = wanted.first().filter(|_| self.is_error) else { return Ok(()) };
        let rules: BTreeSet<&str> = wanted.iter().map(|finding| finding.rule).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        let mut failure = Diagnostic::error(format!("lint violation found for rules: {}", rules.join(", ")));
        failure.place.clone_from(&first.diagnostic.place);
        Err(Box::new(failure))
    }

    /// Whether findings of the rule are wanted. What has to be asked for cannot be skipped.
    pub fn wants(&self, rule: &str) -> bool {
        let names = |list: &[String]| list == ["all"] || list.iter().any(|name| name == rule);
        if EXPERIMENTAL.contains(&rule) { names(&self.experimental) } else { !names(&self.skip) }
    }
}

/// Rules about the whole file.
pub(super) fn check(file: &mut Dockerfile) {
    let mut found = Vec::new();
    stage_names(&file.stages, &mut found);
    keyword_cases(file, &mut found);
    file.findings.extend(found);
}

/// Rules about one line as it is written.
pub(super) fn line(line: &Line, found: &mut Vec<Finding>) {
    match line.keyword().as_str() {
        "FROM" => from_as(line, found),
        "MAINTAINER" => {
            let hint = "Write LABEL org.opencontainers.image.authors=\"…\".";
            let finding = Finding::new("MaintainerDeprecated", &line.place, "MAINTAINER is deprecated");
            found.push(finding.hint(hint));
        }
        _ => {}
    }
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

/// All keywords after the first FROM have the case that most of them have.
fn keyword_cases(file: &Dockerfile, found: &mut Vec<Finding>) {
    let of_stage = |stage: &'_ Stage| {
        let first = (stage.keyword.clone(), stage.place.clone());
        let rest = stage.instructions.iter().map(|i| (i.keyword.clone(), i.place.clone()));
        std::iter::once(first).chain(rest).collect::<Vec<_>>()
    };
    let keywords: Vec<(String, Place)> = file.stages.iter().flat_map(of_stage).collect();
    let lower = keywords.iter().filter(|(keyword, _)| is_lower(keyword)).count();
    let upper = keywords.iter().filter(|(keyword, _)| is_upper(keyword)).count();
    let (is_right, name): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for (keyword, place) in keywords.iter().filter(|(keyword, _)| !is_right(keyword)) {
        let message = format!("`{keyword}` is not written as most keywords here, which are {name}");
        found.push(Finding::new("ConsistentInstructionCasing", place, message));
    }
}

fn stage_names(stages: &[Stage], found: &mut Vec<Finding>) {
    for (index, stage) in stages.iter().enumerate() {
        let Some(name) = &stage.name else { continue };
        if ["scratch", "context"].contains(&name.as_str()) {
            let message = format!("stage name `{name}` is reserved");
            found.push(Finding::new("ReservedStageName", &stage.place, message));
        }
        if let Some(first) = stages[..index].iter().find(|other| other.name.as_ref() == Some(name)) {
            let message = format!("stage name `{name}` is used twice");
            let mut finding = Finding::new("DuplicateStageName", &stage.place, message);
            finding.diagnostic = finding.diagnostic.related(first.place.clone(), "first used here");
            found.push(finding);
        }
    }
}

/// `AS` in FROM's case, the name in lower case.
fn from_as(line: &Line, found: &mut Vec<Finding>) {
    let words = words::blank_separated(&line.arguments);
    let [_, as_word, name] = words.as_slice() else { return };
    let keyword = line.keyword.as_str();
    let differs = (is_lower(keyword) && !is_lower(as_word)) || (is_upper(keyword) && !is_upper(as_word));
    if !is_lower(name) {
        let message = format!("stage name `{name}` should be lowercase");
        found.push(Finding::new("StageNameCasing", &line.place, message));
    }
    if differs {
        let message = format!("`{as_word}` and `{keyword}` are written in different cases");
        found.push(Finding::new("FromAsCasing", &line.place, message));
    }
}

/// A comment above a stage or argument begins with its name.
pub(super) fn described(line: &Line, names: &[&str], found: &mut Vec<Finding>) {
    let (Some(comment), Some(first)) = (line.comments.last(), names.first()) else { return };
    let word = comment.split(' ').next().unwrap_or_default();
    if !names.contains(&word) {
        let message = format!("the comment above does not begin with `{first}`");
        let hint = format!("Write `# {first} what it is`, or put an empty comment below the comment.");
        found.push(Finding::new("InvalidDefinitionDescription", &line.place, message).hint(hint));
    }
}
