//! Rules about FROM, which need the values of global `ARG`s.

use super::super::Dockerfile;
use super::super::expand::{Expander, Variables};
use super::super::instruction::nearest;
use super::super::{Kind, Stage};
use super::Finding;
use std::cell::RefCell;
use std::collections::HashMap;

/// `variables`: global `ARG`s with the values of this build, and the platform's; `names`: what they are called,
/// for the hint.
pub fn check(file: &Dockerfile, variables: &dyn Variables, names: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    let defaults = defaults(file, variables);
    for stage in &file.stages {
        let base = expand(file, &stage.base, variables);
        let platform = stage.platform.as_deref().map(|text| expand(file, text, variables));
        let unset = base.iter().chain(platform.iter().flatten()).flat_map(|e| e.unset.iter());
        unset.for_each(|name| found.push(undeclared(stage, name, names)));
        if let Some(Some(expanded)) = platform {
            self::platform(stage, &expanded, variables, &mut found);
        }
        let by_default = expand(file, &stage.base, &|name: &str| defaults.get(name).cloned());
        if by_default.is_some_and(|expanded| !is_image_name(&expanded.value)) {
            let message = format!("`{}` is no image when its arguments are not given", stage.base);
            found.push(Finding::new("InvalidDefaultArgInFrom", &stage.place, message));
        }
    }
    found
}

struct Expanded {
    value: String,
    used: Vec<String>,
    unset: Vec<String>,
}

/// `None`: wrong in a way that is an error elsewhere.
fn expand(file: &Dockerfile, text: &str, variables: &dyn Variables) -> Option<Expanded> {
    let used = RefCell::new(Vec::new());
    let noting = |name: &str| {
        let value = variables.get(name);
        used.borrow_mut().extend(value.is_some().then(|| name.to_owned()));
        value
    };
    let expanded = Expander { escape: file.escape, variables: &noting }.word(text).ok()?;
    Some(Expanded { value: expanded.value, unset: expanded.unset, used: used.into_inner() })
}

fn undeclared(stage: &Stage, name: &str, names: &[&str]) -> Finding {
    let message = format!("the argument `{name}` of FROM is not declared");
    let hint = nearest(name, names)
        .unwrap_or_else(|| format!("Declare it with `ARG {name}` before the first FROM."));
    Finding::new("UndefinedArgInFrom", &stage.place, message).hint(hint)
}

fn platform(stage: &Stage, expanded: &Expanded, variables: &dyn Variables, found: &mut Vec<Finding>) {
    let Expanded { value, used, unset } = expanded;
    if !unset.is_empty() {
        return;
    }
    if used.as_slice() == ["TARGETPLATFORM"] && variables.get("TARGETPLATFORM").as_ref() == Some(value) {
        let message = "the target's platform is the default";
        found.push(Finding::new("RedundantTargetPlatform", &stage.place, message));
    }
    let mut parts = value.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let name = stage.name.as_deref().unwrap_or_default();
    let says_it = name.contains(os) || (!architecture.is_empty() && name.contains(architecture));
    if used.is_empty() && !os.is_empty() && !says_it {
        let message = format!("the platform is always `{value}`");
        let hint = "Use $BUILDPLATFORM or a stage name that says the platform.";
        found.push(Finding::new("FromPlatformFlagConstDisallowed", &stage.place, message).hint(hint));
    }
}

/// Values of global `ARG`s when nothing is given; the platform's variables always have one.
fn defaults(file: &Dockerfile, variables: &dyn Variables) -> HashMap<String, String> {
    let mut values: HashMap<String, String> = HashMap::new();
    for name in ["BUILD", "TARGET"]
        .iter()
        .flat_map(|side| ["PLATFORM", "OS", "ARCH", "VARIANT"].map(|part| format!("{side}{part}")))
    {
        values.extend(variables.get(&name).map(|value| (name, value)));
    }
    for instruction in &file.globals {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for (name, default) in args {
            let value = default
                .as_deref()
                .and_then(|text| expand(file, text, &|name: &str| values.get(name).cloned()));
            values.extend(value.map(|expanded| (name.clone(), expanded.value)));
        }
    }
    values
}

/// `[registry/]path[:tag][@digest]`, or the name of a stage.
fn is_image_name(text: &str) -> bool {
    let name = text.split('@').next().unwrap_or_default();
    let (name, tag) = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
        _ => (name, None),
    };
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c))
            && !part.ends_with(['.', '-', '_'])
    };
    let is_tag =
        |tag: &str| !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    name.split('/').all(is_part) && tag.is_none_or(is_tag)
}
