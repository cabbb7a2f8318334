//! `stack config`: the line up to the project.

mod digests;
mod variables;

use super::Context;
use crate::failure::{Failure, Result, failed};
use crate::plan::label::image_of;
use stack_schema::diagnostic::{Diagnostic, Severity};
use stack_schema::env::Origin;
use stack_schema::load::{LoadRequest, Loaded, render};
use stack_schema::project::{MountKind, Project};
use stack_schema::yaml::Node;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// yaml or json; with json the findings on standard error are data too, one object a line
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only say whether it is valid
    #[arg(short, long)]
    quiet: bool,
    /// Write to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names of services
    #[arg(long)]
    services: bool,
    /// Keys of volumes
    #[arg(long)]
    volumes: bool,
    /// Keys of networks
    #[arg(long)]
    networks: bool,
    /// Image of each service
    #[arg(long)]
    images: bool,
    /// References of the models that are used
    #[arg(long)]
    models: bool,
    /// All profiles of the file
    #[arg(long)]
    profiles: bool,
    /// Fingerprints of services: * or a comma list
    #[arg(long, value_name = "SERVICES")]
    hash: Option<String>,
    /// The variables that interpolation sees
    #[arg(long)]
    environment: bool,
    /// The variables that the files name
    #[arg(long)]
    variables: bool,
    /// Pin images to the digests that their registries give them now
    #[arg(long)]
    resolve_image_digests: bool,
    /// An override file with nothing but pinned images
    #[arg(long)]
    lock_image_digests: bool,
    /// Leave ${…} as it is
    #[arg(long)]
    no_interpolate: bool,
    /// Keep relative paths
    #[arg(long)]
    no_path_resolution: bool,
    /// No defaults
    #[arg(long)]
    no_normalize: bool,
    /// No checks of references
    #[arg(long)]
    no_consistency: bool,
    /// Leave env files alone
    #[arg(long)]
    no_env_resolution: bool,
    #[arg(value_name = "SERVICE")]
    keys: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let mut request = context.request(|request| args.adjust(request))?;
    // The flag only: the variable joins names and leaves the model whole.
    request.no_normalize |= context.compatibility();
    let as_data = args.format.as_deref() == Some("json");
    let mut loaded = if as_data { context.load_as_data(&request)? } else { context.load(&request)? };
    let refusals = refusals(&loaded);
    if as_data {
        context.ui.findings(&refusals)
    } else {
        context.ui.diagnostics(&refusals)
    }
    if args.resolve_image_digests || args.lock_image_digests {
        context.needs_network("resolving digests")?;
        digests::pin(&mut loaded).await?;
    }
    if args.lock_image_digests {
        digests::only_images(&mut loaded);
    }
    let text = if args.environment { environment(&request, &loaded) } else { args.text(&loaded)? };
    if args.quiet { Ok(()) } else { args.write(context, &text) }
}

/// What the verbs that create containers will refuse: here it is a warning.
fn refusals(loaded: &Loaded) -> Vec<Diagnostic> {
    let refusals = loaded.project.iter().flat_map(|project| &project.refusals);
    refusals.map(|refusal| Diagnostic { severity: Severity::Warning, ..refusal.clone() }).collect()
}

/// What interpolation sees: the project's name too.
fn environment(request: &LoadRequest, loaded: &Loaded) -> String {
    let mut environment = request.environment.clone();
    if let Some(project) = &loaded.project {
        environment.set("COMPOSE_PROJECT_NAME", &project.name, Origin::Given("the project's name".into()));
    }
    sorted(environment.iter().map(|(name, variable)| format!("{name}={}\n", variable.value)))
}

impl Args {
    fn adjust(&self, request: &mut LoadRequest) {
        request.services = self.keys.clone();
        request.no_interpolate = self.no_interpolate || self.variables;
        request.no_path_resolution = self.no_path_resolution;
        request.no_normalize = self.no_normalize;
        request.no_consistency = self.no_consistency;
        request.no_env_resolution = self.no_env_resolution;
    }

    fn text(&self, loaded: &Loaded) -> Result<String> {
        let project = loaded.project.as_ref();
        let project = project.ok_or_else(|| Failure::other("the project could not be loaded"))?;
        let lines = |keys: &mut dyn Iterator<Item = String>| keys.map(|k| k + "\n").collect::<String>();
        Ok(match () {
            () if self.services => lines(&mut project.services.keys().cloned()),
            () if self.volumes => lines(&mut used_volumes(project).into_iter()),
            () if self.networks => lines(&mut project.networks.keys().cloned()),
            () if self.images => lines(&mut images(loaded, project)),
            () if self.profiles => lines(&mut profiles(project).into_iter()),
            () if self.models => models(loaded),
            () if self.hash.is_some() => self.hashes(project)?,
            () if self.variables => variables::text(loaded, self.format.as_deref())?,
            () => match self.format.as_deref() {
                Some("json") => render::json(loaded),
                Some("yaml") | None => render::yaml(loaded),
                Some(other) => return Err(unsupported(other)),
            },
        })
    }

    fn hashes(&self, project: &Project) -> Result<String> {
        let wanted = self.hash.as_deref().unwrap_or_default();
        let keys: Vec<&str> = match wanted {
            "*" => project.services.keys().map(String::as_str).collect(),
            list => list.split(',').collect(),
        };
        let line = |key: &str| match project.services.get(key) {
            Some(service) => Ok(format!("{key} {}\n", service.fingerprint)),
            None => Err(Failure::no_such_service(key)),
        };
        keys.into_iter().map(line).collect()
    }

    fn write(&self, context: &Context, text: &str) -> Result<()> {
        match &self.output {
            Some(path) => {
                let path = context.current_directory().join(path);
                std::fs::write(&path, text).map_err(failed(&format!("write {}", path.display())))
            }
            None => {
                context.ui.data(text);
                Ok(())
            }
        }
    }
}

fn unsupported(format: &str) -> Failure {
    Failure::usage(format!("unsupported format {format:?}"))
}

/// The references, not the keys.
fn models(loaded: &Loaded) -> String {
    let models = loaded.tree.as_ref().and_then(|tree| tree.get("models")).and_then(Node::as_map);
    let references = models.into_iter().flat_map(|models| models.iter());
    sorted(references.filter_map(|(_, entry)| Some(format!("{}\n", entry.node.get("model")?.as_str()?))))
}

/// Each service's own, and behind it those of the hooks that run before it.
fn images(loaded: &Loaded, project: &Project) -> impl Iterator<Item = String> {
    let services = loaded.tree.as_ref().and_then(|tree| tree.get("services"));
    project.services.values().flat_map(move |service| {
        let hooks = services.and_then(|services| services.get(&service.key)?.get("pre_start")?.as_seq());
        let hooks = hooks.unwrap_or_default().iter().filter_map(|hook| hook.get("image")?.as_str());
        std::iter::once(image_of(project, service)).chain(hooks.map(str::to_owned))
    })
}

fn used_volumes(project: &Project) -> Vec<String> {
    let named = |kind: MountKind| kind == MountKind::Volume;
    let mounts = project.services.values().flat_map(|s| &s.volumes);
    let used: BTreeSet<&str> = mounts.filter(|m| named(m.kind)).filter_map(|m| m.source.as_deref()).collect();
    project.volumes.keys().filter(|key| used.contains(key.as_str())).cloned().collect()
}

/// Active or not.
fn profiles(project: &Project) -> BTreeSet<String> {
    let services = project.services.values().chain(project.disabled.values());
    services.flat_map(|s| s.profiles.iter().cloned()).collect()
}

fn sorted(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<BTreeSet<_>>().into_iter().collect()
}
