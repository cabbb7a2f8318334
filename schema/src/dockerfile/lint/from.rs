//! Rules about FROM, which need the values of global `ARG`s.

use super::super::Dockerfile;
use super::super::expand::{Expander, Variables};
use super::super::instruction::nearest;
use super::super::stages::Names;
use super::super::{Kind, Stage};
use super::Finding;
use std::cell::RefCell;
use std::collections::HashMap;

/// `names`: what global `ARG`s are called, for the hint.
pub fn check(file: &Dockerfile, names: &Names<'_>, known: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    by_default(file, names, &mut found);
    let declared = declared(file);
    for stage in &file.stages {
        let base = expand(file, &stage.base, names.variables);
        let platform = stage.platform.as_deref().map(|text| expand(file, text, names.variables));
        let unset = base.iter().chain(platform.iter().flatten()).flat_map(|e| e.unset.iter());
        let unset = unset.filter(|name| !declared.contains(&name.as_str()));
        unset.for_each(|name| found.push(undeclared(stage, name, known)));
        if let Some(Some(expanded)) = platform {
            self::platform(stage, &expanded, names.variables, &mut found);
        }
    }
    found
}

fn declared(file: &Dockerfile) -> Vec<&str> {
    let args = file.globals.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Arg(args) => Some(args),
        _ => None,
    });
    args.flatten().map(|(name, _)| name.as_str()).collect()
}

/// What FROM names when no arguments are given can be an image. Nothing is said when that is an error elsewhere.
fn by_default(file: &Dockerfile, names: &Names<'_>, found: &mut Vec<Finding>) {
    let Some(defaults) = defaults(file, names.variables) else { return };
    for stage in &file.stages {
        let Some(base) = expand(file, &stage.base, &|name: &str| defaults.get(name).cloned()) else { return };
        if (names.image)(&base.value).is_err() {
            let message = format!("`{}` is no image when its arguments are not given", stage.base);
            found.push(Finding::new("InvalidDefaultArgInFrom", &stage.place, message));
        }
    }
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
    if used.iter().all(|name| name == "TARGETPLATFORM")
        && !used.is_empty()
        && variables.get("TARGETPLATFORM").as_ref() == Some(value)
    {
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

/// Values of global `ARG`s when nothing is given; the platform's variables always have one. `None`: one of them is wrong.
fn defaults(file: &Dockerfile, variables: &dyn Variables) -> Option<HashMap<String, String>> {
    let mut values: HashMap<String, String> = HashMap::new();
    for name in ["BUILD", "TARGET"].iter().flat_map(|side| {
        ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"].map(|part| format!("{side}{part}"))
    }) {
        values.extend(variables.get(&name).map(|value| (name, value)));
    }
    for instruction in &file.globals {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for (name, default) in args {
            let Some(text) = default else { continue };
            let value = expand(file, text, &|name: &str| values.get(name).cloned())?.value;
            values.insert(name.clone(), value);
        }
    }
    Some(values)
}
