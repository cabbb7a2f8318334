//! Why a service failed: how it ended, its last probe with its output, its last lines, and where the file says so.

use super::{Context, Scene};
use crate::failure::{Failure, Kind};
use crate::plan::label::Labelled;
use stack_runtime::engine::Engine;
use stack_runtime::logs::Options;
use stack_runtime::observed::{ContainerObserved, Exit, Health, State};

const LAST_LINES: usize = 20;

/// The failure of a step, with the evidence that its container left.
pub(super) async fn explain(
    context: &Context,
    scene: &Scene,
    mut failure: Failure,
    container: Option<&str>,
) -> Failure {
    for finding in &mut failure.diagnostics {
        if finding.place.is_none() && !finding.key_path.is_empty() {
            finding.place = scene.project.places.of(&finding.key_path);
        }
    }
    // One that is merely in the wrong state has said all there is to say.
    let Some(id) = container.filter(|_| failure.kind != Kind::Conflict) else { return failure };
    let Ok(observed) = scene.engine.observe(&scene.project.name, &[]).await else { return failure };
    match observed.containers.iter().find(|c| c.id == id) {
        Some(container) => with_evidence(context, scene, failure, container).await,
        None => failure,
    }
}

async fn with_evidence(
    context: &Context,
    scene: &Scene,
    mut failure: Failure,
    container: &ContainerObserved,
) -> Failure {
    if let Some(ending) = ending(container).filter(|ending| !failure.message.contains(ending)) {
        failure = failure.evidence(ending);
    }
    if failure.kind == Kind::Service {
        failure.evidence.extend(probe(&container.health));
    }
    let lines = last_lines(context, scene, container).await;
    if !lines.is_empty() {
        failure = failure.evidence(format!("its last lines (stack logs {}):", container.service()));
        failure.evidence.extend(lines.into_iter().map(|line| format!("| {line}")));
    }
    failure
}

/// `None` while it runs.
fn ending(container: &ContainerObserved) -> Option<String> {
    match &container.state {
        State::Exited { exit } | State::Restarting { exit } => Some(in_words(exit)),
        _ => container.failed_start.as_ref().map(in_words),
    }
}

/// How a program ended, in words.
pub(super) fn in_words(exit: &Exit) -> String {
    if let Some(error) = &exit.error {
        return error.clone();
    }
    match (exit.oom_killed, exit.signal, exit.code) {
        (true, ..) => "it was killed because it used more memory than it may".into(),
        (false, Some(signal), _) => format!("it was ended by {}", signal_name(signal)),
        (false, None, Some(code)) => format!("it ended with exit code {code}"),
        (false, None, None) => "it ended, and nobody saw with which exit code".into(),
    }
}

fn signal_name(number: i32) -> String {
    let known = nix::sys::signal::Signal::try_from(number);
    known.map_or_else(|_| format!("signal {number}"), |signal| format!("signal {number} ({signal})"))
}

fn probe(health: &Health) -> Option<String> {
    let last = health.log.last()?;
    let result = match last.exit_code {
        0 => return None,
        -1 => "timed out or could not run".to_string(),
        code => format!("ended with exit code {code}"),
    };
    let output = last.output.trim_end();
    let output = if output.is_empty() { " and printed nothing".to_string() } else { format!(":\n{output}") };
    Some(format!("its last health probe {result}{output}"))
}

async fn last_lines(context: &Context, scene: &Scene, container: &ContainerObserved) -> Vec<String> {
    let directory = context.home.container(&scene.project.name, &container.id);
    let options = Options { tail: Some(LAST_LINES), ..Options::default() };
    let mut lines = Vec::new();
    let sources = vec![(container.name.clone(), directory, options)];
    match super::follow::merged(sources, |line| lines.push(line.text)).await {
        Ok(()) => lines.split_off(lines.len().saturating_sub(LAST_LINES)),
        Err(_) => Vec::new(), // the failure itself is what counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_in_words() {
        let signal = Exit { code: Some(137), signal: Some(9), ..Exit::default() };
        assert_eq!(in_words(&signal), "it was ended by signal 9 (SIGKILL)");
        assert_eq!(
            in_words(&Exit { oom_killed: true, ..signal }),
            "it was killed because it used more memory than it may"
        );
        assert_eq!(in_words(&Exit { code: Some(3), ..Exit::default() }), "it ended with exit code 3");
        assert_eq!(in_words(&Exit::default()), "it ended, and nobody saw with which exit code");
    }
}
