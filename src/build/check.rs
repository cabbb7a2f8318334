//! `build --check`: findings about a Dockerfile, without building anything.
//!
//! All stages are read, or those of the target. Base images count as they are here; what an image that is not here
//! would set is not guessed, so variables on top of it are not looked at.

use super::context::ignore_file;
use super::failure::{BuildFailure, Result};
use super::inputs;
use super::request::{BuildEnv, BuildRequest};
use super::state::{Outside, State, Words};
use stack_runtime::image::{Image, Platform};
use stack_schema::dockerfile::lint::{self, Check, Finding};
use stack_schema::dockerfile::stages::{Reference, Selected};
use stack_schema::dockerfile::{Dockerfile, Instruction, Kind, Transfer, TransferSource};
use stack_schema::ignore::Patterns;
use std::collections::HashMap;
use std::sync::Mutex;

/// All findings that are wanted, in the order of the file. Reads files and blocks.
///
/// # Errors
/// What is wrong with the Dockerfile, its ignore file or the request.
pub fn check(env: &BuildEnv, request: &BuildRequest) -> Result<Checked> {
    let (file, path) = inputs::read(request)?;
    let outside = inputs::outside(&file, request)?;
    let ignore = ignore_file(&request.context, path.as_deref())?;
    let mut findings = static_findings(&file, &outside);
    let mut checker =
        Checker { env, request, file: &file, outside: &outside, ignore, states: HashMap::new() };
    let selection = match request.target {
        Some(_) => inputs::selection(&file, request, &outside)?.stages,
        None => inputs::all_stages(&file, request, &outside)?,
    };
    for selected in &selection {
        checker.stage(selected, &mut findings)?;
    }
    let wanted = wanted(&file, &outside)?;
    findings.retain(|finding| wanted.wants(finding.rule));
    findings.sort_by_key(|finding| finding.diagnostic.place.as_ref().map(|place| place.start));
    Ok(Checked { is_error: wanted.is_error && !findings.is_empty(), findings })
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// The Dockerfile wants findings to be errors, and there are some.
    pub is_error: bool,
}

/// What needs neither files nor images.
pub(super) fn static_findings(file: &Dockerfile, outside: &Outside) -> Vec<Finding> {
    let names: Vec<&str> = outside.globals.keys().map(String::as_str).collect();
    let bases = lint::check_bases(file, outside, &names);
    file.findings.iter().cloned().chain(bases).collect()
}

/// The directive, or the argument that replaces it.
pub(super) fn wanted(file: &Dockerfile, outside: &Outside) -> Result<Check> {
    match outside.given("BUILDKIT_DOCKERFILE_CHECK") {
        Some(text) => Check::parse(text).map_err(BuildFailure::new),
        None => Ok(file.check.clone()),
    }
}

/// The finding of a variable that nobody set. Names in scope may have been meant.
pub(super) fn unset(name: &str, state: &State, instruction: &Instruction) -> Finding {
    let message = format!("the variable `{name}` is not set");
    let hint = lint::nearest(name, &state.names())
        .unwrap_or_else(|| "Declare it with ARG or ENV before it is used.".into());
    Finding::new(lint::UNDEFINED_VAR, &instruction.place, message).hint(hint)
}

/// The finding of a base image for another platform.
pub(super) fn other_platform(name: &str, image: &Image, wanted: &Platform) -> String {
    let own = own_platform(image);
    format!("base image `{name}` is for {own}, the build is for {wanted}")
}

pub(super) fn own_platform(image: &Image) -> Platform {
    let variant = image.variant.clone();
    Platform { os: image.os.clone(), architecture: image.architecture.clone(), variant }
}

struct Checker<'a> {
    env: &'a BuildEnv,
    request: &'a BuildRequest,
    file: &'a Dockerfile,
    outside: &'a Outside,
    ignore: Patterns,
    /// Ends of stages, by their index; `None`: on an image that is not here.
    states: HashMap<usize, Option<State>>,
}

impl Checker<'_> {
    fn stage(&mut self, selected: &Selected, findings: &mut Vec<Finding>) -> Result<()> {
        let stage = &self.file.stages[selected.index];
        let wanted = selected.platform.as_ref().or(self.request.platform.as_ref());
        let platform = wanted.map(|text| Platform::parse(text)).transpose()?.unwrap_or_else(Platform::host);
        let mut state = match &selected.base {
            Reference::Scratch => Some(State::scratch(platform)),
            Reference::Stage(index) => self.states.get(index).cloned().flatten().map(|state| state.child()),
            Reference::Image(name) => self.image(name)?.map(|image| {
                if platform.fit(&own_platform(&image)).is_none() {
                    let message = other_platform(name, &image, &platform);
                    findings.push(Finding::new(lint::BASE_PLATFORM, &stage.place, message));
                }
                State::from_image(&image)
            }),
            Reference::Context(_) => None,
        };
        for instruction in &stage.instructions {
            if let Kind::Copy(transfer) | Kind::Add(transfer) = &instruction.kind {
                self.ignored(transfer, instruction, findings);
            }
            if let Some(state) = &mut state {
                self.words(state, instruction, findings)?;
            }
        }
        self.states.insert(selected.index, state);
        Ok(())
    }

    fn image(&self, name: &str) -> Result<Option<Image>> {
        let found = self.env.store.image(name);
        found.map_err(|e| BuildFailure::doing(format!("look up image {name}"), e))
    }

    /// Sources of the context that the ignore file leaves out; patterns may be taken back are not looked at.
    fn ignored(&self, transfer: &Transfer, instruction: &Instruction, findings: &mut Vec<Finding>) {
        if transfer.from.is_some() || self.ignore.takes_back() {
            return;
        }
        for source in &transfer.sources {
            let TransferSource::Path(path) = source else { continue };
            if !path.contains('$') && !path.contains("://") && self.ignore.matches(path) {
                let message = format!("`{path}` is left out by the .dockerignore file");
                findings.push(Finding::new(lint::COPY_IGNORED, &instruction.place, message));
            }
        }
    }

    fn words(&self, state: &mut State, instruction: &Instruction, findings: &mut Vec<Finding>) -> Result<()> {
        let unset = Mutex::default();
        let mut words = Words { escape: self.file.escape, unset: &unset };
        let before = state.clone();
        let applied = state.apply(&instruction.kind, &instruction.text, &mut words, self.outside);
        let expanded = applied.and_then(|was_applied| match &instruction.kind {
            _ if was_applied => Ok(()),
            Kind::Workdir(path) => {
                state.config.working_dir = state.absolute(&words.word(state, path)?);
                Ok(())
            }
            Kind::Copy(transfer) | Kind::Add(transfer) => expand(transfer, state, &words),
            _ => Ok(()),
        });
        expanded.map_err(|why| BuildFailure::new(why).at(&instruction.place))?;
        for name in before.undeclared(unset) {
            findings.push(self::unset(&name, &before, instruction));
        }
        Ok(())
    }
}

fn expand(transfer: &Transfer, state: &State, words: &Words<'_>) -> std::result::Result<(), String> {
    let options = transfer.chown.iter().chain(&transfer.chmod).chain(&transfer.excludes);
    for text in options.chain([&transfer.destination]) {
        words.word(state, text)?;
    }
    for source in &transfer.sources {
        match source {
            TransferSource::Path(path) => _ = words.word(state, path)?,
            TransferSource::Inline(heredoc) if heredoc.expand => _ = words.body(state, &heredoc.body())?,
            TransferSource::Inline(_) => {}
        }
    }
    Ok(())
}
