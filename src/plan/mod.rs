//! The plan: from what is wanted, what exists and what is asked for to an ordered graph of steps.
//!
//! Pure: the same project, observed and intent give byte for byte the same plan, and after a successful apply
//! the next one is empty. Nothing here asks the user, touches the disk or knows how a step is done.
//!
//! | module | does |
//! |---|---|
//! | [`intent`] | what the verb asks for |
//! | [`step`] | the graph: actions, causes, guards, the text |
//! | [`label`] | labels and names, and the project that can be rebuilt from them |
//! | [`spec`] | service + image + project → container spec |
//! | [`changes`] | which attribute of a service changed |
//! | `materials`, `resources`, `up`, `down`, `life` | one part of the decision each |

pub mod changes;
mod down;
pub mod intent;
pub mod label;
mod life;
mod materials;
mod order;
mod resources;
pub mod spec;
pub mod step;
mod survey;
mod up;
mod verdict;

use intent::Intent;
use stack_runtime::observed::Observed;
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::Project;
pub use step::Plan;

/// Decides.
///
/// # Errors
/// Findings about the project that make the intent impossible: an unknown service, a missing external network, and
/// for an intent that creates containers what the files may say but no engine can do ([`Project::refusals`]).
pub fn converge(project: &Project, observed: &Observed, intent: &Intent) -> Result<Plan, Vec<Diagnostic>> {
    let creates = matches!(intent, Intent::Up(_) | Intent::Run(_));
    if creates && !project.refusals.is_empty() {
        return Err(project.refusals.clone());
    }
    match intent {
        Intent::Up(intent) => up::up(project, observed, intent),
        Intent::Run(intent) => up::run(project, observed, intent),
        Intent::Down(intent) => down::down(project, observed, intent),
        Intent::Start { services, wait } => life::start(project, observed, services, *wait),
        Intent::Due => life::due(project, observed),
        Intent::Stop { services, grace } => life::stop(project, observed, services, *grace),
        Intent::Restart { services, grace, dependents } => {
            life::restart(project, observed, services, *grace, *dependents)
        }
        Intent::Kill { services, signal, orphans } => {
            life::kill(project, observed, services, signal, *orphans)
        }
        Intent::Pause { services } => life::pause(project, observed, services, true),
        Intent::Unpause { services } => life::pause(project, observed, services, false),
        Intent::Remove { services, stop, volumes } => {
            life::remove(project, observed, services, *stop, *volumes)
        }
        Intent::Pull(intent) => materials::pull_all(project, observed, intent),
        Intent::Build(intent) => materials::build_all(project, intent),
    }
}

/// The image names the plan of this project will ask about.
pub fn images_of(project: &Project) -> Vec<String> {
    let mut names: Vec<String> = project.services.values().map(|s| label::image_of(project, s)).collect();
    names.sort();
    names.dedup();
    names
}
