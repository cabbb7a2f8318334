//! `stack commit`: an image of what a container changed.

use super::Context;
use crate::build::{Commit, commit};
use crate::event::{Event, Sink};
use crate::failure::{Failure, Result, failed};
use stack_runtime::engine::Engine;
use stack_runtime::image::config::ImageConfig;
use stack_runtime::image::{Image, Reference, Store};
use stack_runtime::observed::{ContainerObserved, State};
use stack_runtime::spec::ContainerSpec;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// Instruction of a Dockerfile to apply, such as 'CMD ["sh"]'; may be repeated
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Which container of the service
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// A note
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
    service: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let tag = args.reference.as_deref().map(Reference::parse).transpose();
    let tag = tag.map_err(|e| Failure::usage(e.to_string()))?;
    let scene = context.existing(std::slice::from_ref(&args.service)).await?;
    let project = scene.project.name.as_str();
    let container = super::exec::chosen(&args.service, args.index, &scene.observed.containers)?;
    if context.dry_run {
        context.ui.data(&format!("commit {}\n", container.name));
        return Ok(());
    }
    let store = Store::open(&context.home).map_err(failed("open the store"))?;
    let image = image_of(&store, container)?;
    let thing = format!("Container {}", container.name);
    context.ui.emit(Event::working(&thing, "Committing"));
    let freezes = args.pause && matches!(container.state, State::Running { .. });
    if freezes {
        scene.engine.pause(project, &container.id).await?;
    }
    let upper = context.home.container(project, &container.id).join("upper");
    let committed = commit(
        &store,
        Commit {
            config: config(&image, &container.spec),
            image: &image,
            upper: &upper,
            created_by: container.spec.args.join(" "),
            author: args.author,
            message: args.message,
            changes: &args.changes,
            tag,
        },
    );
    if freezes {
        scene.engine.resume(project, &container.id).await?;
    }
    let id = committed.map_err(failed(&format!("commit container {}", container.name)))?;
    context.ui.emit(Event::done(&thing, "Committed"));
    context.ui.data(&format!("{id}\n"));
    Ok(())
}

fn image_of(store: &Store, container: &ContainerObserved) -> Result<Image> {
    let id = container.spec.image_id.trim_start_matches("sha256:");
    let image = store.by_id(id).map_err(failed("read the container's image"))?;
    image.ok_or_else(|| Failure::other(format!("the image of container {} is gone", container.name)))
}

/// The image's, as the container was started with it.
fn config(image: &Image, spec: &ContainerSpec) -> ImageConfig {
    let mut config = image.config.clone();
    config.env = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let entry = config.entrypoint.clone().unwrap_or_default();
    config.cmd = match spec.args.strip_prefix(entry.as_slice()) {
        Some(command) => Some(command.to_vec()),
        None => {
            config.entrypoint = None;
            Some(spec.args.clone())
        }
    };
    config.working_dir.clone_from(&spec.working_dir);
    config.user.clone_from(&spec.user);
    config.labels = spec.labels.clone();
    config.exposed_ports.extend(spec.exposed.iter().cloned());
    config.stop_signal.clone_from(&spec.stop_signal);
    config
}
