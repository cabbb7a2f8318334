//! `stack config`: the line up to the project.

use super::Context;
use crate::failure::{Failure, Result, failed};
use crate::plan::label::image_of;
use stack_schema::load::{LoadRequest, Loaded, render};
use stack_schema::project::{MountKind, Project};
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// yaml or json
    #[arg(long, default_value = "yaml", value_name = "FORMAT")]
    format: String,
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
    /// All profiles of the file
    #[arg(long)]
    profiles: bool,
    /// Fingerprints of services: * or a comma list
    #[arg(long, value_name = "SERVICES")]
    hash: Option<String>,
    /// The variables that interpolation sees
    #[arg(long)]
    environment: bool,
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

pub(super) fn run(args: Args, context: &Context) -> Result<()> {
    let request = context.request(|request| args.adjust(request))?;
    if args.environment {
        let line =
            |(name, variable): (&str, &stack_schema::env::Variable)| format!("{name}={}\n", variable.value);
        return args.write(context, &sorted(request.environment.iter().map(line)));
    }
    let loaded = context.load(&request)?;
    let text = args.text(&loaded)?;
    if args.quiet { Ok(()) } else { args.write(context, &text) }
}

impl Args {
    fn adjust(&self, request: &mut LoadRequest) {
        request.services = self.keys.clone();
        request.no_interpolate = self.no_interpolate;
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
            () if self.images => lines(&mut project.services.values().map(|s| image_of(project, s))),
            () if self.profiles => lines(&mut profiles(project).into_iter()),
            () if self.hash.is_some() => self.hashes(project)?,
            () if self.format == "json" => render::json(loaded),
            () if self.format == "yaml" => render::yaml(loaded),
            () => return Err(Failure::usage(format!("unsupported format {:?}", self.format))),
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
