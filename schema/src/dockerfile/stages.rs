//! Which stages a target needs.
//!
//! [`Selection`] holds the reachable stages in the file's order with what each refers to, all names
//! resolved: a stage, a named context of the request, or an image. Needs only global `ARG`s.
//!
//! Errors: a target, stage or index that does not exist, use before definition, a base that comes out empty.

use super::expand::{Expander, Variables};
use super::{Dockerfile, Instruction, Kind, Stage};
use crate::diagnostic::Diagnostic;
use crate::source::Place;
use std::collections::BTreeSet;

/// What a `FROM` or `from=` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Scratch,
    /// Index into [`Dockerfile::stages`].
    Stage(usize),
    /// A named context of the request, by name.
    Context(String),
    Image(String),
}

/// The stages to build.
#[derive(Debug, Clone)]
pub struct Selection {
    pub target: usize,
    /// Reachable stages, in the file's order.
    pub stages: Vec<Selected>,
}

#[derive(Debug, Clone)]
pub struct Selected {
    pub index: usize,
    pub base: Reference,
    pub platform: Option<String>,
    /// What instructions copy or mount from: instruction index and meaning, in order.
    pub uses: Vec<(usize, Reference)>,
}

/// What a reference may mean besides a stage.
pub struct Names<'a> {
    /// Named contexts of the request.
    pub contexts: &'a dyn Fn(&str) -> bool,
    /// Global `ARG`s and the platform's variables.
    pub variables: &'a dyn Variables,
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// Finds the target (by name; none: the last stage) and what it needs.
///
/// # Errors
/// As the module says.
pub fn select(file: &Dockerfile, target: Option<&str>, names: &Names<'_>) -> Result<Selection> {
    let target = target_of(file, target)?;
    let mut wanted = BTreeSet::from([target]);
    let mut stages = Vec::new();
    // References only ever point backwards, so one pass from the end finds them all.
    while let Some(index) = wanted.pop_last() {
        let selected = selected(file, index, names)?;
        let refers = selected.uses.iter().map(|(_, reference)| reference).chain([&selected.base]);
        wanted.extend(refers.filter_map(|reference| match reference {
            Reference::Stage(stage) => Some(*stage),
            _ => None,
        }));
        stages.push(selected);
    }
    stages.reverse();
    Ok(Selection { target, stages })
}

/// All stages of the file, reachable or not.
///
/// # Errors
/// As [`select`].
pub fn every(file: &Dockerfile, names: &Names<'_>) -> Result<Vec<Selected>> {
    (0..file.stages.len()).map(|index| selected(file, index, names)).collect()
}

fn target_of(file: &Dockerfile, target: Option<&str>) -> Result<usize> {
    let Some(target) = target.filter(|t| !t.is_empty()) else { return Ok(file.stages.len() - 1) };
    let wanted = target.to_lowercase();
    file.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&wanted)).ok_or_else(|| {
        let known: Vec<&str> = file.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let place = Place { source: file.source.clone(), start: 0, end: 0 };
        let mut diagnostic =
            Diagnostic::error(format!("target stage `{target}` could not be found")).at(place);
        if !known.is_empty() {
            diagnostic = diagnostic.hint(format!("The stages are: {}.", known.join(", ")));
        }
        Box::new(diagnostic)
    })
}

fn selected(file: &Dockerfile, index: usize, names: &Names<'_>) -> Result<Selected> {
    let stage = &file.stages[index];
    let expander = Expander { escape: file.escape, variables: names.variables };
    let expand = |text: &str| {
        expander
            .word(text)
            .map(|e| e.value)
            .map_err(|e| Box::new(Diagnostic::error(e.to_string()).at(stage.place.clone())))
    };
    let base = expand(&stage.base)?;
    if base.is_empty() {
        let message = format!("base name `{}` is empty", stage.base);
        let hint = "Only an ARG before the first FROM can be used here; give it a default or a value.";
        return Err(Box::new(Diagnostic::error(message).at(stage.place.clone()).hint(hint)));
    }
    let platform = stage.platform.as_deref().map(expand).transpose()?.filter(|p| !p.is_empty());
    Ok(Selected {
        index,
        base: base_reference(file, index, &base, names),
        platform,
        uses: uses(file, index, names)?,
    })
}

/// `FROM name`: the nearest stage of that name before this one, else a context, else an image.
fn base_reference(file: &Dockerfile, index: usize, base: &str, names: &Names<'_>) -> Reference {
    if base == "scratch" {
        return Reference::Scratch;
    }
    if let Some(context) = context_of(base, names) {
        return Reference::Context(context);
    }
    let name = base.to_lowercase();
    let before = &file.stages[..index];
    match before.iter().rposition(|stage| stage.name.as_deref() == Some(&name)) {
        Some(stage) => Reference::Stage(stage),
        None => Reference::Image(base.to_owned()),
    }
}

fn context_of(name: &str, names: &Names<'_>) -> Option<String> {
    (names.contexts)(name).then(|| name.to_owned())
}

fn uses(file: &Dockerfile, index: usize, names: &Names<'_>) -> Result<Vec<(usize, Reference)>> {
    let stage = &file.stages[index];
    let mut found = Vec::new();
    for (at, instruction) in stage.instructions.iter().enumerate() {
        for from in froms(&instruction.kind) {
            found.push((at, use_of(file, index, instruction, from, names)?));
        }
    }
    Ok(found)
}

/// Every `--from=` and `--mount=from=` of an instruction.
pub fn froms(kind: &Kind) -> Vec<&str> {
    match kind {
        Kind::Copy(transfer) => transfer.from.as_deref().into_iter().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
        _ => Vec::new(),
    }
}

fn use_of(
    file: &Dockerfile,
    index: usize,
    by: &Instruction,
    from: &str,
    names: &Names<'_>,
) -> Result<Reference> {
    let fail = |message: String, hint: &str| {
        Err(Box::new(Diagnostic::error(message).at(by.place.clone()).hint(hint)))
    };
    if from == "scratch" {
        return Ok(Reference::Scratch);
    }
    let is_copy = matches!(by.kind, Kind::Copy(_));
    if let (true, Ok(number)) = (is_copy, from.parse::<usize>()) {
        if number < index {
            return Ok(Reference::Stage(number));
        }
        let message = format!("invalid stage index {number}");
        return fail(message, "An index counts the stages before this one, from 0.");
    }
    if let Some(context) = context_of(from, names) {
        return Ok(Reference::Context(context));
    }
    let name = from.to_lowercase();
    match file.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&name)) {
        None => Ok(Reference::Image(from.to_owned())),
        Some(stage) if stage < index => Ok(Reference::Stage(stage)),
        Some(stage) if stage == index => fail(
            format!("circular dependency detected on stage `{name}`"),
            "A stage cannot take files from itself.",
        ),
        Some(_) => {
            let current = label(&file.stages[index], index);
            let message = format!("stage `{name}` needs to be defined before current stage `{current}`");
            fail(message, "Move the stage up in the file.")
        }
    }
}

/// The name people know a stage by.
pub fn label(stage: &Stage, index: usize) -> String {
    stage.name.clone().unwrap_or_else(|| format!("stage-{index}"))
}
