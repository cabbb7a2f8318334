//! Volumes whose definition changed: they keep their data, unless the user agrees to lose it.

use super::{Context, Scene, terminal};
use crate::failure::Result;
use crate::plan::converge;
use crate::plan::intent::{Intent, Up};
use std::collections::BTreeSet;
use std::io::IsTerminal;

/// Completes the intent. Asks where somebody is there to answer.
///
/// # Errors
/// When the answer cannot be read.
pub(super) fn settled(context: &Context, scene: &Scene, mut up: Up) -> Result<Up> {
    let Ok(plan) = converge(&scene.project, &scene.observed, &Intent::Up(up.clone())) else {
        // What is wrong is said when the plan is made in earnest.
        return Ok(up);
    };
    let is_answered =
        context.is_agreed() || (std::io::stdin().is_terminal() && std::io::stderr().is_terminal());
    let mut renewed = BTreeSet::new();
    for name in plan.kept_volumes.into_iter().filter(|_| is_answered) {
        let question = format!(
            "Volume {name:?} exists but doesn't match configuration in compose file. Recreate (data will be lost)"
        );
        if terminal::agrees(context, &question)? {
            renewed.insert(name);
        }
    }
    up.renew_volumes = renewed;
    Ok(up)
}
