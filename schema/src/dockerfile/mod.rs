//! Dockerfiles: text to stages of typed instructions, with places.
//!
//! | module | does |
//! |---|---|
//! | `lines` | text → parser directives and logical lines (continuations, comments, heredocs) |
//! | `words` | splitting a line: flags, raw words, JSON arrays |
//! | [`expand`] | variables, quotes and escapes in a word, when the builder knows the values |
//! | `instruction` | one logical line → one [`Instruction`] |
//! | [`mount`] | the value of `RUN --mount` |
//! | [`stages`] | which stages a target needs, and what each of them refers to |
//! | [`lint`] | findings about text that works and surprises |
//!
//! Nothing is expanded while parsing, because values come from base images and the command line.
//! Source of the rules: the Dockerfile reference and the observed behaviour of BuildKit's frontend.

pub mod expand;
mod instruction;
mod lines;
pub mod lint;
pub mod mount;
pub mod stages;
mod words;

#[cfg(test)]
mod tests;

use crate::diagnostic::Diagnostic;
use crate::source::{Place, Source};
use std::sync::Arc;
use std::time::Duration;

/// Frontends whose language this parser speaks.
const OWN_FRONTENDS: [&str; 4] = [
    "docker/dockerfile",
    "docker/dockerfile-upstream",
    "docker.io/docker/dockerfile",
    "docker.io/docker/dockerfile-upstream",
];

/// A Dockerfile as written.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    pub source: Arc<Source>,
    /// The character of continuations and escapes.
    pub escape: char,
    /// `ARG`s before the first `FROM`.
    pub globals: Vec<Instruction>,
    /// Never empty.
    pub stages: Vec<Stage>,
    /// The `# syntax=` directive.
    pub frontend: Option<Frontend>,
    /// Lines of every instruction, the first and the last, from 1.
    pub lines: Vec<(usize, usize)>,
    /// What the `# check=` directive says about findings.
    pub check: lint::Check,
    /// Of the rules that need the text alone, whatever `check` says.
    pub findings: Vec<lint::Finding>,
}

/// The program that a file wants to be read by.
#[derive(Debug, Clone)]
pub struct Frontend {
    /// A reference, perhaps with more behind it.
    pub text: String,
    pub place: Place,
}

impl Frontend {
    /// The reference's frontend is served here, whatever its version; others would be programs to pull and run.
    ///
    /// # Errors
    /// It is another one.
    pub fn accept(&self) -> Result<(), Box<Diagnostic>> {
        let reference = self.text.split_whitespace().next().unwrap_or_default();
        let name = reference.split('@').next().unwrap_or_default();
        let name = match name.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => before,
            _ => name,
        };
        if OWN_FRONTENDS.contains(&name) {
            return Ok(());
        }
        let message = format!("the frontend `{reference}` is not supported");
        let hint = "Only the language of `docker/dockerfile` is built in; other frontends are not run.";
        Err(Box::new(Diagnostic::error(message).at(self.place.clone()).hint(hint)))
    }
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The keyword as written.
    pub keyword: String,
    /// Lower case.
    pub name: Option<String>,
    /// As written: image, stage or `scratch`, possibly with variables.
    pub base: String,
    pub platform: Option<String>,
    /// The `FROM` as one line, for people.
    pub text: String,
    pub place: Place,
    pub instructions: Vec<Instruction>,
}

/// One instruction after the first `FROM` (or a global `ARG`).
#[derive(Debug, Clone)]
pub struct Instruction {
    /// As written.
    pub keyword: String,
    /// The whole instruction as one line, without heredoc bodies, for people and history.
    pub text: String,
    pub place: Place,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Add(Transfer),
    Arg(Vec<(String, Option<String>)>),
    Cmd(Command),
    Copy(Transfer),
    Entrypoint(Command),
    Env(Pairs),
    /// Sorted.
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Pairs),
    Maintainer(String),
    /// The trigger as text, heredocs included.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// Names and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs {
    pub list: Vec<(String, String)>,
    /// `name value`, the old form of one pair.
    pub is_legacy: bool,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Exec(Vec<String>),
    Shell(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<mount::MountText>,
    /// `default`, `none`, `host`.
    pub network: Option<String>,
    /// `sandbox`, `insecure`.
    pub security: Option<String>,
}

/// What `COPY` and `ADD` share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transfer {
    pub sources: Vec<TransferSource>,
    pub destination: String,
    /// Stage, index, image or named context, as written.
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub link: bool,
    pub parents: bool,
    pub excludes: Vec<String>,
    pub checksum: Option<String>,
    /// ADD only: `None` unpacks what is an archive.
    pub unpack: Option<bool>,
    /// ADD of repositories: keep what git keeps.
    pub keep_git: Option<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TransferSource {
    Path(String),
    Inline(Heredoc),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Lines with their ends, tabs still there.
    pub content: String,
    /// `<<-`: drop leading tabs.
    pub strip_tabs: bool,
    /// The delimiter was not quoted.
    pub expand: bool,
}

impl Heredoc {
    /// Whether a command is nothing but the announcement of one.
    pub fn announced(command: &str) -> bool {
        lines::heredoc(command).is_some()
    }

    /// The body as it is meant: without leading tabs where `<<-` asks for it.
    pub fn body(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Unset fields keep the engine's defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", s]`.
    pub test: Vec<String>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
    pub retries: Option<u32>,
}

/// Reads a Dockerfile.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(source: Arc<Source>) -> Result<Dockerfile, Box<Diagnostic>> {
    let read = lines::read(&source)?;
    let mut file = Dockerfile {
        source: source.clone(),
        escape: read.escape,
        globals: Vec::new(),
        stages: Vec::new(),
        frontend: read.frontend,
        lines: read.lines.iter().map(|line| line.place.lines()).collect(),
        check: read.check,
        findings: read.findings,
    };
    for line in &read.lines {
        file.add(line)?;
    }
    if file.stages.is_empty() {
        let place = Place { source, start: 0, end: 0 };
        let hint = "Start with `FROM image`.";
        return Err(Box::new(Diagnostic::error("the Dockerfile has no build stage").at(place).hint(hint)));
    }
    lint::check(&mut file);
    Ok(file)
}

/// Reads one instruction that an image carries as a trigger (`ONBUILD`).
///
/// # Errors
/// What is wrong with it; the place is in a source that holds the trigger alone.
pub fn parse_trigger(text: &str, image: &str) -> Result<Instruction, Box<Diagnostic>> {
    let source = Arc::new(Source { name: format!("ONBUILD of {image}"), path: None, text: text.to_owned() });
    let read = lines::read(&source)?;
    let [line] = read.lines.as_slice() else {
        let place = Place { source, start: 0, end: 0 };
        return Err(Box::new(Diagnostic::error("a trigger has to be one instruction").at(place)));
    };
    instruction::parse(line, read.escape)
}

impl Dockerfile {
    fn add(&mut self, line: &lines::Line) -> Result<(), Box<Diagnostic>> {
        lint::line(line, &mut self.findings);
        if line.keyword() == "FROM" {
            let stage = instruction::parse_from(line)?;
            lint::described(line, stage.name.as_deref().as_slice(), &mut self.findings);
            self.stages.push(stage);
            return Ok(());
        }
        let instruction = instruction::parse(line, self.escape)?;
        if let Kind::Arg(args) = &instruction.kind {
            let names: Vec<&str> = args.iter().map(|(name, _)| name.as_str()).collect();
            lint::described(line, &names, &mut self.findings);
        }
        match self.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, Kind::Arg(_)) => self.globals.push(instruction),
            None => {
                let message = format!("{} comes before the first FROM", line.keyword());
                let hint = "Only ARG may stand before the first FROM.";
                return Err(Box::new(Diagnostic::error(message).at(instruction.place).hint(hint)));
            }
        }
        Ok(())
    }
}
