//! Findings about text that works and surprises, under the names that BuildKit gave the rules.
//!
//! The rules here need the text alone; [`from`] has those that need the values of global `ARG`s, and the builder
//! finds what takes files, images and the values inside of stages: [`UNDEFINED_VAR`], [`COPY_IGNORED`],
//! [`BASE_PLATFORM`].

mod from;

pub use super::instruction::nearest;
pub use from::check as check_bases;

use super::{Command, Dockerfile, Instruction, Kind, Stage};
use crate::diagnostic::Diagnostic;
use crate::source::Place;

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
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let names = |value: &str| value.split(',').map(|name| name.trim().to_owned()).collect();
            match option.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("skip", value)) => check.skip = names(value),
                Some(("experimental", value)) => check.experimental = names(value),
                Some(("error", "true" | "1")) => check.is_error = true,
                Some(("error", "false" | "0")) => check.is_error = false,
                _ => return Err(format!("invalid check option `{option}`")),
            }
        }
        Ok(check)
    }

    /// Whether findings of the rule are wanted.
    pub fn wants(&self, rule: &str) -> bool {
        let names =
            |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case(rule) || name == "all");
        !names(&self.skip) && (!EXPERIMENTAL.contains(&rule) || names(&self.experimental))
    }
}

pub(super) fn check(file: &Dockerfile) -> Vec<Finding> {
    let mut found = Vec::new();
    keyword_cases(file, &mut found);
    stage_names(&file.stages, &mut found);
    for (index, stage) in file.stages.iter().enumerate() {
        from_as(stage, &mut found);
        repeated(stage, &mut found);
        shell_forms(file, index, &mut found);
        relative_workdir(file, index, &mut found);
        described(file, &stage.place, stage.name.as_deref(), &mut found);
        stage.instructions.iter().for_each(|instruction| one(instruction, &mut found));
    }
    for instruction in &file.globals {
        if let Kind::Arg(args) = &instruction.kind {
            described(file, &instruction.place, args.first().map(|(name, _)| name.as_str()), &mut found);
        }
    }
    found
}

/// The keyword as it was written.
fn written(place: &Place) -> &str {
    place
        .source
        .text
        .get(place.start..place.end)
        .unwrap_or_default()
        .split_whitespace()
        .next()
        .unwrap_or_default()
}

fn is_lower(text: &str) -> bool {
    !text.chars().any(char::is_uppercase)
}

fn is_upper(text: &str) -> bool {
    !text.chars().any(char::is_lowercase)
}

/// All keywords after the first FROM have the case that most of them have.
fn keyword_cases(file: &Dockerfile, found: &mut Vec<Finding>) {
    let instructions =
        |stage: &'_ Stage| stage.instructions.iter().map(|i| i.place.clone()).collect::<Vec<_>>();
    let places: Vec<Place> = file
        .stages
        .iter()
        .flat_map(|stage| std::iter::once(stage.place.clone()).chain(instructions(stage)))
        .collect();
    let lower = places.iter().filter(|place| is_lower(written(place))).count();
    let upper = places.iter().filter(|place| is_upper(written(place))).count();
    let (is_right, name): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for place in places.iter().filter(|place| !is_right(written(place))) {
        let message = format!("`{}` is not written as most keywords here, which are {name}", written(place));
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
fn from_as(stage: &Stage, found: &mut Vec<Finding>) {
    let words: Vec<&str> = stage.text.split_whitespace().filter(|word| !word.starts_with("--")).collect();
    let [_, _, as_word, name] = words.as_slice() else { return };
    let keyword = written(&stage.place);
    let differs = (is_lower(keyword) && !is_lower(as_word)) || (is_upper(keyword) && !is_upper(as_word));
    if !is_lower(name) {
        let message = format!("stage name `{name}` should be lowercase");
        found.push(Finding::new("StageNameCasing", &stage.place, message));
    }
    if differs {
        let message = format!("`{as_word}` and `{keyword}` are written in different cases");
        found.push(Finding::new("FromAsCasing", &stage.place, message));
    }
}

/// Of several CMD, ENTRYPOINT or HEALTHCHECK of a stage only the last one counts.
fn repeated(stage: &Stage, found: &mut Vec<Finding>) {
    for keyword in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let mut same: Vec<&Instruction> =
            stage.instructions.iter().filter(|i| keyword_of(i) == keyword).collect();
        same.pop();
        for instruction in same {
            let message = format!("only the last {keyword} of a stage counts");
            found.push(Finding::new("MultipleInstructionsDisallowed", &instruction.place, message));
        }
    }
}

fn keyword_of(instruction: &Instruction) -> &str {
    instruction.text.split(' ').next().unwrap_or_default()
}

/// The stage that a stage is built on, if its name stands in the FROM as it is.
fn base(file: &Dockerfile, index: usize) -> Option<usize> {
    let wanted = file.stages[index].base.to_lowercase();
    file.stages[..index].iter().rposition(|stage| stage.name.as_ref() == Some(&wanted))
}

/// Whether the stage, up to an instruction, or one that it is built on, has an instruction of this kind.
fn has_before(file: &Dockerfile, index: usize, end: usize, wanted: fn(&Kind) -> bool) -> bool {
    let (mut index, mut end) = (index, end);
    loop {
        if file.stages[index].instructions[..end].iter().any(|i| wanted(&i.kind)) {
            return true;
        }
        match base(file, index) {
            Some(below) => (index, end) = (below, file.stages[below].instructions.len()),
            None => return false,
        }
    }
}

/// In shell form the shell is process 1 and may not pass signals on; who sets a shell knows.
fn shell_forms(file: &Dockerfile, index: usize, found: &mut Vec<Finding>) {
    for (at, instruction) in file.stages[index].instructions.iter().enumerate() {
        let (Kind::Cmd(Command::Shell(_)) | Kind::Entrypoint(Command::Shell(_))) = &instruction.kind else {
            continue;
        };
        if !has_before(file, index, at, |kind| matches!(kind, Kind::Shell(_))) {
            let keyword = keyword_of(instruction);
            let message = format!("{keyword} in shell form may not pass signals to the program");
            let hint = format!("Write {keyword} as a JSON array of strings.");
            found.push(Finding::new("JSONArgsRecommended", &instruction.place, message).hint(hint));
        }
    }
}

/// The first WORKDIR of a stage and those it is built on.
fn relative_workdir(file: &Dockerfile, index: usize, found: &mut Vec<Finding>) {
    for (at, instruction) in file.stages[index].instructions.iter().enumerate() {
        let Kind::Workdir(path) = &instruction.kind else { continue };
        let is_first = !has_before(file, index, at, |kind| matches!(kind, Kind::Workdir(_)));
        if is_first && !path.starts_with(['/', '$', '"', '\'']) {
            let message = format!("`{path}` lies below whatever directory the base image sets");
            found.push(Finding::new("WorkdirRelativePath", &instruction.place, message));
        }
    }
}

/// Rules about one instruction.
fn one(instruction: &Instruction, found: &mut Vec<Finding>) {
    let place = &instruction.place;
    match &instruction.kind {
        Kind::Maintainer(_) => {
            let hint = "Write LABEL org.opencontainers.image.authors=\"…\".";
            found.push(Finding::new("MaintainerDeprecated", place, "MAINTAINER is deprecated").hint(hint));
        }
        Kind::Env(_) | Kind::Label(_) if is_legacy_pair(instruction) => {
            let keyword = keyword_of(instruction);
            let message = format!("`{keyword} name value` is the old form");
            let hint = format!("Write {keyword} name=value.");
            found.push(Finding::new("LegacyKeyValueFormat", place, message).hint(hint));
        }
        Kind::Expose(ports) => ports.iter().for_each(|port| exposed(port, place, found)),
        _ => {}
    }
    match &instruction.kind {
        Kind::Arg(args) => args.iter().for_each(|(name, _)| secret(name, place, found)),
        Kind::Env(pairs) => pairs.iter().for_each(|(name, _)| secret(name, place, found)),
        _ => {}
    }
}

/// The first word after the keyword has no `=`.
fn is_legacy_pair(instruction: &Instruction) -> bool {
    instruction.text.split_whitespace().nth(1).is_some_and(|word| !word.contains('='))
}

fn exposed(port: &str, place: &Place, found: &mut Vec<Finding>) {
    if port.contains('$') {
        return;
    }
    if port.contains(':') {
        let message = format!("`{port}`: an address or a port of the host has no effect here");
        found.push(Finding::new("ExposeInvalidFormat", place, message));
    }
    if let Some((_, protocol)) = port.split_once('/').filter(|(_, protocol)| !is_lower(protocol)) {
        let message = format!("protocol `{protocol}` should be lowercase");
        found.push(Finding::new("ExposeProtoCasing", place, message));
    }
}

const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

fn secret(name: &str, place: &Place, found: &mut Vec<Finding>) {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    if has(&SECRET_WORDS) && !has(&["public", "file", "version"]) {
        let message = format!("`{name}` looks like a secret and stays readable in the image");
        let hint = "Use RUN --mount=type=secret.";
        found.push(Finding::new("SecretsUsedInArgOrEnv", place, message).hint(hint));
    }
}

/// A comment right above a stage or argument begins with its name.
fn described(file: &Dockerfile, place: &Place, name: Option<&str>, found: &mut Vec<Finding>) {
    let Some(name) = name else { return };
    let before = file.source.text.get(..place.start).unwrap_or_default();
    // The indentation of the line itself is before its place.
    let above = before.rsplit('\n').nth(1).map(str::trim).and_then(|line| line.strip_prefix('#'));
    let Some(comment) = above.map(str::trim).filter(|comment| !comment.is_empty()) else { return };
    let is_directive =
        ["syntax", "escape", "check"].iter().any(|key| comment.starts_with(&format!("{key}=")));
    if !is_directive && comment.split_whitespace().next() != Some(name) {
        let message = format!("the comment above does not begin with `{name}`");
        let hint = format!("Write `# {name} what it is`, or leave an empty line below the comment.");
        found.push(Finding::new("InvalidDefinitionDescription", place, message).hint(hint));
    }
}
