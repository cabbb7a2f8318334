//! Compose's words for a step: what is shown while it is done and when it is done.

use crate::plan::step::{Action, Cause, Reached, Step};

/// The thing and its two words; `None`: nothing is shown.
pub(super) fn words(step: &Step) -> Option<(String, &'static str, &'static str)> {
    let (replaced, restart) = (step.cause == Cause::Replaced, step.cause == Cause::Restart);
    let container = |name: &str| format!("Container {name}");
    Some(match &step.action {
        // Whether it did is told when it is known.
        Action::Pull { reference, optional: true, .. } => (format!("Image {reference}"), "Pulling", ""),
        Action::Pull { reference, .. } => (format!("Image {reference}"), "Pulling", "Pulled"),
        Action::Build(b) => (format!("Image {}", b.reference), "Building", "Built"),
        Action::RemoveImage { reference } => (format!("Image {reference}"), "Removing", "Removed"),
        Action::CreateNetwork(spec) => (format!("Network {}", spec.name), "Creating", "Created"),
        Action::RemoveNetwork { name } => (format!("Network {name}"), "Removing", "Removed"),
        Action::CreateVolume(spec) => (format!("Volume {}", spec.name), "Creating", "Created"),
        Action::RemoveVolume { name, .. } => (format!("Volume {name}"), "Removing", "Removed"),
        Action::Create(c) if c.temporary.is_some() => (container(&c.name), "Recreate", ""),
        Action::Create(c) => (container(&c.name), "Creating", "Created"),
        Action::Rename { name, .. } => (container(name), "", "Recreated"),
        Action::Stop { .. } | Action::Remove { .. } if replaced => return None,
        Action::Start { container: target } if restart => (container(target.name()), "Restarting", "Started"),
        Action::Stop { container: target, .. } if restart => (container(target.name()), "Restarting", ""),
        Action::Start { container: target } => (container(target.name()), "Starting", "Started"),
        Action::Stop { container: target, .. } => (container(target.name()), "Stopping", "Stopped"),
        Action::Signal { container: target, .. } => (container(target.name()), "Killing", "Killed"),
        Action::Pause { container: target } => (container(target.name()), "Pausing", "Paused"),
        Action::Unpause { container: target } => (container(target.name()), "Unpausing", "Unpaused"),
        Action::Remove { container: target, .. } => (container(target.name()), "Removing", "Removed"),
        Action::Wait { .. } | Action::Release => return None,
    })
}

/// A wait is shown on each of its containers.
pub(super) fn reached(until: Reached) -> &'static str {
    match until {
        Reached::Healthy | Reached::Up { .. } => "Healthy",
        Reached::Completed => "Exited",
    }
}
