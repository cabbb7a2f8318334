//! Warnings about text that works and surprises. `# check=skip=Name` silences one, `skip=all` all.

use super::lines::Check;
use super::{Command, Dockerfile, Instruction, Kind, Stage};
use crate::diagnostic::Diagnostic;

pub(super) fn check(file: &mut Dockerfile, check: &Check) {
    let skipped = |rule: &str| check.skip.iter().any(|name| name.eq_ignore_ascii_case(rule) || name == "all");
    let mut found: Vec<(&str, Diagnostic)> = Vec::new();
    stage_names(&file.stages, &mut found);
    for stage in &file.stages {
        repeated(stage, &mut found);
        shell_forms(stage, &mut found);
    }
    let all = file.globals.iter().chain(file.stages.iter().flat_map(|stage| &stage.instructions));
    all.for_each(|instruction| secrets(instruction, &mut found));
    file.warnings.extend(found.into_iter().filter(|(rule, _)| !skipped(rule)).map(|(_, warning)| warning));
}

fn stage_names(stages: &[Stage], found: &mut Vec<(&str, Diagnostic)>) {
    for (index, stage) in stages.iter().enumerate() {
        let Some(name) = &stage.name else { continue };
        if ["scratch", "context"].contains(&name.as_str()) {
            let warning =
                Diagnostic::warning(format!("stage name `{name}` is reserved")).at(stage.place.clone());
            found.push(("ReservedStageName", warning));
        }
        if let Some(first) = stages[..index].iter().find(|other| other.name.as_ref() == Some(name)) {
            let warning =
                Diagnostic::warning(format!("stage name `{name}` is used twice")).at(stage.place.clone());
            found.push(("DuplicateStageName", warning.related(first.place.clone(), "first used here")));
        }
    }
}

/// Of several CMD, ENTRYPOINT or HEALTHCHECK of a stage only the last one counts.
fn repeated(stage: &Stage, found: &mut Vec<(&str, Diagnostic)>) {
    for keyword in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let mut same: Vec<&Instruction> =
            stage.instructions.iter().filter(|i| keyword_of(i) == keyword).collect();
        same.pop();
        for instruction in same {
            let message = format!("only the last {keyword} of a stage counts");
            found.push((
                "MultipleInstructionsDisallowed",
                Diagnostic::warning(message).at(instruction.place.clone()),
            ));
        }
    }
}

fn keyword_of(instruction: &Instruction) -> &str {
    instruction.text.split(' ').next().unwrap_or_default()
}

/// In shell form the shell is process 1 and may not pass signals on.
fn shell_forms(stage: &Stage, found: &mut Vec<(&str, Diagnostic)>) {
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Shell(_) => return,
            Kind::Cmd(Command::Shell(_)) | Kind::Entrypoint(Command::Shell(_)) => {
                let keyword = keyword_of(instruction);
                let message = format!("{keyword} in shell form may not pass signals to the program");
                let hint = format!("Write {keyword} as a JSON array of strings.");
                let warning = Diagnostic::warning(message).at(instruction.place.clone()).hint(hint);
                found.push(("JSONArgsRecommended", warning));
            }
            _ => {}
        }
    }
}

const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

fn secrets(instruction: &Instruction, found: &mut Vec<(&str, Diagnostic)>) {
    let names: Vec<&String> = match &instruction.kind {
        Kind::Arg(args) => args.iter().map(|(name, _)| name).collect(),
        Kind::Env(pairs) => pairs.iter().map(|(name, _)| name).collect(),
        _ => return,
    };
    for name in names {
        let lower = name.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
        if has(&SECRET_WORDS) && !has(&["public", "file", "version"]) {
            let message = format!("`{name}` looks like a secret and stays readable in the image");
            let hint = "Use RUN --mount=type=secret.";
            let warning = Diagnostic::warning(message).at(instruction.place.clone()).hint(hint);
            found.push(("SecretsUsedInArgOrEnv", warning));
        }
    }
}
