//! Which stages a target needs.
//!
//! [`Selection`] holds the reachable stages in the file's order with what each refers to, all names
//! resolved: a stage, a named context of the request, or an image. Needs only global `ARG`s.
//!
//! Errors: a target, stage or index that does not exist, use before definition, stages that need each other, a base or
//! platform that comes out empty, a name that no image can have. Only what a target needs has to be defined before
//! its use; everything else counts in stages that nobody needs, too.

use super::expand::{Expander, Variables};
use super::{Dockerfile, Instruction, Kind, Stage, parse_trigger};
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
    /// The same of the triggers that the stage below it carries.
    pub triggers: Vec<Reference>,
}

impl Selected {
    /// Everything that has to be there for this stage.
    fn refers(&self) -> impl Iterator<Item = &Reference> {
        self.uses.iter().map(|(_, reference)| reference).chain(&self.triggers).chain([&self.base])
    }
}

/// What a reference may mean besides a stage.
pub struct Names<'a> {
    /// Named contexts of the request.
    pub contexts: &'a dyn Fn(&str) -> bool,
    /// Global `ARG`s and the platform's variables.
    pub variables: &'a dyn Variables,
    /// Whether a text can be a platform; if not, why.
    pub platform: &'a dyn Fn(&str) -> std::result::Result<(), String>,
    /// Whether a text can name an image; if not, why.
    pub image: &'a dyn Fn(&str) -> std::result::Result<(), String>,
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// Finds the target (by name; none: the last stage) and what it needs.
///
/// # Errors
/// As the module says.
pub fn select(file: &Dockerfile, target: Option<&str>, names: &Names<'_>) -> Result<Selection> {
    let target = target_of(file, target)?;
    let all = resolved(file, names)?;
    let mut wanted = BTreeSet::from([target]);
    let mut stages = Vec::new();
    // What it may refer to stands before it, so one pass from the end finds them all.
    while let Some(index) = wanted.pop_last() {
        let selected = &all[index];
        all_in_order(file, selected)?;
        wanted.extend(selected.refers().filter_map(stage_of));
        stages.push(selected.clone());
    }
    stages.reverse();
    Ok(Selection { target, stages })
}

/// All stages of the file, reachable or not.
///
/// # Errors
/// As [`select`].
pub fn every(file: &Dockerfile, names: &Names<'_>) -> Result<Vec<Selected>> {
    let all = resolved(file, names)?;
    all.iter().try_for_each(|selected| all_in_order(file, selected))?;
    Ok(all)
}

fn resolved(file: &Dockerfile, names: &Names<'_>) -> Result<Vec<Selected>> {
    let all = (0..file.stages.len()).map(|index| selected(file, index, names)).collect::<Result<Vec<_>>>()?;
    let mut seen = BTreeSet::new();
    (0..all.len()).try_for_each(|index| without_circle(file, &all, index, &mut Vec::new(), &mut seen))?;
    Ok(all)
}

fn stage_of(reference: &Reference) -> Option<usize> {
    match reference {
        Reference::Stage(stage) => Some(*stage),
        _ => None,
    }
}

/// Nothing that a stage copies or mounts from leads back to it. `path`: the stages that led here.
fn without_circle(
    file: &Dockerfile,
    all: &[Selected],
    index: usize,
    path: &mut Vec<usize>,
    seen: &mut BTreeSet<usize>,
) -> Result<()> {
    if !seen.insert(index) {
        return Ok(());
    }
    path.push(index);
    for (at, reference) in &all[index].uses {
        let Some(stage) = stage_of(reference) else { continue };
        if path.contains(&stage) {
            let name = label(&file.stages[stage], stage);
            let message = format!("circular dependency detected on stage `{name}`");
            let place = file.stages[index].instructions[*at].place.clone();
            let hint = "A stage cannot take files from itself, nor from one that needs it.";
            return Err(Box::new(Diagnostic::error(message).at(place).hint(hint)));
        }
        without_circle(file, all, stage, path, seen)?;
    }
    path.pop();
    Ok(())
}

/// What a needed stage uses comes before it.
fn all_in_order(file: &Dockerfile, selected: &Selected) -> Result<()> {
    let stage = &file.stages[selected.index];
    for (at, reference) in &selected.uses {
        in_order(file, selected.index, &stage.instructions[*at].place, reference)?;
    }
    selected.triggers.iter().try_for_each(|reference| in_order(file, selected.index, &stage.place, reference))
}

fn in_order(file: &Dockerfile, index: usize, place: &Place, reference: &Reference) -> Result<()> {
    let Some(stage) = stage_of(reference).filter(|stage| *stage >= index) else { return Ok(()) };
    let name = label(&file.stages[stage], stage);
    let current = label(&file.stages[index], index);
    let message = format!("stage `{name}` needs to be defined before current stage `{current}`");
    Err(Box::new(Diagnostic::error(message).at(place.clone()).hint("Move the stage up in the file.")))
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
    let platform = stage.platform.as_deref().map(expand).transpose()?;
    if let (Some(""), Some(written)) = (platform.as_deref(), &stage.platform) {
        let message = format!("empty platform value from expression `{written}`");
        return Err(Box::new(Diagnostic::error(message).at(stage.place.clone())));
    }
    if let Some(platform) = &platform {
        let wrong = |why| Box::new(Diagnostic::error(why).at(stage.place.clone()));
        (names.platform)(platform).map_err(wrong)?;
    }
    let base = base_reference(file, index, &base, names);
    image_of(&base, &stage.place, names)?;
    let triggers = triggers(file, &base, names);
    Ok(Selected { index, base, platform, uses: uses(file, index, names)?, triggers })
}

/// `FROM name`: the nearest stage of that very name before this one, else a context, else an image.
fn base_reference(file: &Dockerfile, index: usize, base: &str, names: &Names<'_>) -> Reference {
    let before = &file.stages[..index];
    let stage = before.iter().rposition(|stage| stage.name.as_deref() == Some(base));
    match (context_of(base, names), stage) {
        (Some(context), _) if base != "scratch" => Reference::Context(context),
        (_, Some(stage)) => Reference::Stage(stage),
        _ if base == "scratch" => Reference::Scratch,
        _ => Reference::Image(base.to_owned()),
    }
}

fn image_of(reference: &Reference, place: &Place, names: &Names<'_>) -> Result<()> {
    let Reference::Image(name) = reference else { return Ok(()) };
    let wrong = |why| {
        Box::new(Diagnostic::error(format!("failed to parse image name `{name}`: {why}")).at(place.clone()))
    };
    (names.image)(name).map_err(wrong)
}

fn context_of(name: &str, names: &Names<'_>) -> Option<String> {
    (names.contexts)(name).then(|| name.to_owned())
}

fn uses(file: &Dockerfile, index: usize, names: &Names<'_>) -> Result<Vec<(usize, Reference)>> {
    let stage = &file.stages[index];
    let mut found = Vec::new();
    for (at, instruction) in stage.instructions.iter().enumerate() {
        for from in froms(&instruction.kind) {
            let reference = use_of(file, instruction, from, names)?;
            image_of(&reference, &instruction.place, names)?;
            found.push((at, reference));
        }
    }
    Ok(found)
}

/// What the triggers of the stage below copy or mount from. What is wrong with one is told where it runs.
fn triggers(file: &Dockerfile, base: &Reference, names: &Names<'_>) -> Vec<Reference> {
    let Reference::Stage(below) = base else { return Vec::new() };
    let stage = &file.stages[*below];
    let texts = stage.instructions.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Onbuild(text) => Some(text),
        _ => None,
    });
    let triggers = texts.filter_map(|text| parse_trigger(text, &label(stage, *below)).ok());
    let uses = triggers.flat_map(|trigger| {
        let uses = froms(&trigger.kind).into_iter().map(|from| use_of(file, &trigger, from, names));
        uses.filter_map(Result::ok).collect::<Vec<_>>()
    });
    uses.collect()
}

/// Every `--from=` and `--mount=from=` of an instruction.
pub fn froms(kind: &Kind) -> Vec<&str> {
    match kind {
        Kind::Copy(transfer) => transfer.from.as_deref().into_iter().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
        _ => Vec::new(),
    }
}

fn use_of(file: &Dockerfile, by: &Instruction, from: &str, names: &Names<'_>) -> Result<Reference> {
    let fail = |message: String, hint: &str| {
        Err(Box::new(Diagnostic::error(message).at(by.place.clone()).hint(hint)))
    };
    if matches!(by.kind, Kind::Copy(_)) {
        let expander = Expander { escape: file.escape, variables: &|_: &str| None };
        if !expander.word(from).is_ok_and(|expanded| expanded.value == from) {
            let hint = "Define a new stage with FROM using an ARG from before the first FROM, and copy from that stage.";
            return fail("variable expansion is not supported for --from".into(), hint);
        }
        if let Ok(number) = from.parse::<i64>() {
            return match usize::try_from(number).ok().filter(|number| *number < file.stages.len()) {
                Some(stage) => Ok(Reference::Stage(stage)),
                None => {
                    let hint = "An index counts the stages before this one, from 0.";
                    fail(format!("invalid stage index {number}"), hint)
                }
            };
        }
    }
    if let Some(context) = context_of(from, names).filter(|_| from != "scratch") {
        return Ok(Reference::Context(context));
    }
    let name = from.to_lowercase();
    match file.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&name)) {
        Some(stage) => Ok(Reference::Stage(stage)),
        None if from == "scratch" => Ok(Reference::Scratch),
        None => Ok(Reference::Image(from.to_owned())),
    }
}

/// The name people know a stage by.
pub fn label(stage: &Stage, index: usize) -> String {
    stage.name.clone().unwrap_or_else(|| format!("stage-{index}"))
}
