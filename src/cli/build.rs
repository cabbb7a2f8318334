//! `stack build`, and how a service's build becomes a request to the builder.

mod bake;

use super::image::of_image;
use super::{Context, Hushed};
use crate::build::{
    self, Attest, BuildEnv, BuildEvent, BuildRequest, CacheFrom, CacheTo, Checked, DockerfileSource, Network,
    Output, Secret,
};
use crate::event::{Event, Sink};
use crate::failure::{Failure, Kind, Result, failed};
use crate::obtain::Registries;
use crate::plan::Plan;
use crate::plan::intent::{self, BuildWishes, Intent};
use crate::plan::label;
use crate::plan::step::{Action, Building, Step};
use crate::ui::human;
use indexmap::IndexMap;
use stack_runtime::home::Home;
use stack_runtime::image::{Platform, Reference, Store};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Build, FileContent, Grant, Project, Service};
use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not use the cache
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Set a build argument; may be repeated
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// Print nothing unless it fails
    #[arg(short, long)]
    quiet: bool,
    /// Push the images afterwards
    #[arg(long)]
    push: bool,
    /// Also build what the services depend on
    #[arg(long)]
    with_dependencies: bool,
    /// Look the Dockerfiles over without building
    #[arg(long)]
    check: bool,
    /// Say of each step that is executed which of its inputs changed first
    #[arg(long)]
    explain: bool,
    /// Print what is to be built as a bake file, and build nothing
    #[arg(long)]
    print: bool,
    /// A statement about how the images were built; it travels with --push
    #[arg(long, value_name = "true|false|mode=max")]
    provenance: Option<String>,
    /// A statement about what is in the images; it travels with --push
    #[arg(long, value_name = "true|false")]
    sbom: Option<String>,
    /// Forward an ssh agent to the build: default, or ID=SOCKET; may be repeated
    #[arg(long, value_name = "ID[=SOCKET]")]
    ssh: Vec<String>,
    #[arg(short, long, value_name = "BYTES", hide = true)]
    memory: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    builder: Option<String>,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    no_rm: bool,
    #[arg(long = "in-parallel", alias = "parallel", hide = true)]
    parallel: bool,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    if args.quiet {
        context.hush(Hushed::All);
    }
    let request = context.request(|r| r.services = args.services.clone())?;
    let value = |key: &str| request.environment.get(key).map(str::to_string);
    let build_args = args.build_args.iter().map(|text| argument(text, &value)).collect();
    let scene = context.scene(&args.services).await?;
    let wishes = BuildWishes {
        no_cache: args.no_cache,
        pull: args.pull,
        args: build_args,
        quiet: args.quiet,
        ssh: args.ssh,
        explain: args.explain,
        all_platforms: true,
        push: args.push,
        provenance: args.provenance,
        sbom: args.sbom,
    };
    let services = args.services.clone();
    let intent = intent::Build { services, dependencies: args.with_dependencies, wishes };
    let plan = context.plan(&scene, &Intent::Build(intent))?;
    if args.print {
        context.ui.data(&bake::text(&scene.project, &plan)?);
        return Ok(());
    }
    let ignored = [("memory", &args.memory), ("builder", &args.builder)];
    for (flag, _) in ignored.iter().filter(|(_, value)| value.is_some()) {
        context.ui.emit(Event::warning(format!(
            "--{flag} has no effect: builds here have no builder to choose or limit"
        )));
    }
    if plan.is_empty() {
        context.ui.remark("No services to build");
    }
    if args.check {
        return check(context, &scene.project, &plan);
    }
    context.apply(&scene, &plan).await?;
    if args.push && !context.dry_run {
        super::pull::push_services(context, &scene, &args.services, (false, &travels_as_index(&plan)))
            .await?;
    }
    Ok(())
}

/// Findings are warnings, unless a Dockerfile wants them to be errors.
fn check(context: &Context, project: &Project, plan: &Plan) -> Result<()> {
    let store = Store::open(&context.home).map_err(failed("open the image store"))?;
    let env = BuildEnv::new(context.home.clone(), store);
    let builds = plan.steps().filter_map(|(_, step)| match &step.action {
        Action::Build(building) => Some(building),
        _ => None,
    });
    let checked = builds.map(|building| Ok(build::check(&env, &request(project, building)?)?));
    tell_findings(context, checked.collect::<Result<_>>()?)
}

/// Of the Dockerfiles that were looked over.
pub(super) fn tell_findings(context: &Context, all: Vec<Checked>) -> Result<()> {
    let (mut count, mut is_error) = (0, false);
    for checked in all {
        count += checked.findings.len();
        is_error |= checked.is_error;
        let diagnostics: Vec<_> = checked.findings.into_iter().map(|finding| finding.diagnostic).collect();
        context.ui.diagnostics(&diagnostics);
    }
    let found = match count {
        0 => "no warnings found".to_string(),
        1 => "1 warning has been found".to_string(),
        count => format!("{count} warnings have been found"),
    };
    if is_error {
        return Err(Failure::new(Kind::Build, format!("check complete, {found}")));
    }
    context.ui.remark(&format!("Check complete, {found}."));
    Ok(())
}

/// `KEY` alone takes the value that interpolation would see.
pub(super) fn argument(text: &str, value: &impl Fn(&str) -> Option<String>) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_string(), Some(value.to_string())),
        None => (text.to_string(), value(text)),
    }
}

/// Builds a service's image.
pub(super) async fn build(
    (home, store, registries): (&Home, Store, Registries),
    project: &Project,
    building: &Building,
    events: &dyn Sink,
) -> Result<()> {
    let mut request = BuildRequest { registries, ..request(project, building)? };
    let env = BuildEnv::new(home.clone(), store);
    let parent = format!("Image {}", building.reference);
    let wishes = &building.wishes;
    let report = |event: BuildEvent| tell(events, &parent, wishes.quiet, event);
    let platforms = platforms(building);
    if wishes.push && is_index(building) {
        request.outputs = vec![Output::Image { names: Vec::new(), push: true }];
    } else if !request.attest.is_none() {
        let key = &building.service.key;
        let why = "an image of this machine's store has no attestations; `stack build --push` makes them";
        events.emit(Event::warning(format!("services.{key}.build: {why}")));
        request.attest = Attest::default();
    }
    build::build_for(&env, &request, &platforms, &report).await.map(drop).map_err(Failure::from)
}

/// Finds services whose images the Dockerfiles of others name. One that cannot be read is left to its build.
pub(super) fn find_bases(project: &mut Project) {
    let all = project.services.values().chain(project.disabled.values());
    let made: Vec<(String, Reference)> = all
        .filter(|service| service.build.is_some())
        .filter_map(|service| {
            let name = Reference::parse(&label::image_of(project, service)).ok()?;
            Some((service.key.clone(), name))
        })
        .collect();
    if made.len() < 2 {
        return;
    }
    for service in project.services.values_mut().chain(project.disabled.values_mut()) {
        let key = service.key.clone();
        let Some(build) = &mut service.build else { continue };
        let names = images(build).into_iter().filter_map(|name| Reference::parse(&name).ok());
        let names: BTreeSet<Reference> = names.collect();
        let is_base = |(other, name): &&(String, Reference)| *other != key && names.contains(name);
        build.bases = made.iter().filter(is_base).map(|(other, _)| other.clone()).collect();
    }
}

fn images(build: &Build) -> Vec<String> {
    if !build.context.is_dir() {
        return Vec::new();
    }
    let request = BuildRequest {
        context: build.context.clone(),
        dockerfile: dockerfile(build),
        args: build.args.clone(),
        target: build.target.clone(),
        additional_contexts: build.additional_contexts.clone(),
        ..BuildRequest::default()
    };
    build::images(&request).unwrap_or_default()
}

fn dockerfile(build: &Build) -> DockerfileSource {
    match &build.dockerfile_inline {
        Some(text) => DockerfileSource::Inline(text.clone()),
        None => DockerfileSource::Path(build.dockerfile.clone()),
    }
}

/// All that the file names; for what is only to run here the service's, this machine's or the first.
fn platforms(building: &Building) -> Vec<String> {
    let written = building.service.build.as_ref().map_or(&[][..], |build| &build.platforms);
    match building.wishes.all_platforms && written.len() > 1 {
        true => written.to_vec(),
        false => Vec::new(),
    }
}

/// The store has one image under a name: several platforms, and statements, exist where it is pushed to.
fn is_index(building: &Building) -> bool {
    let is_attested = building
        .service
        .build
        .as_ref()
        .is_some_and(|build| attest(build, building).is_ok_and(|attest| !attest.is_none()));
    building.service.image.is_some() && (platforms(building).len() > 1 || is_attested)
}

/// Services that their builds push.
fn travels_as_index(plan: &Plan) -> BTreeSet<String> {
    let key = |step: &Step| match &step.action {
        Action::Build(building) => is_index(building).then(|| building.service.key.clone()),
        _ => None,
    };
    plan.steps().filter_map(|(_, step)| key(step)).collect()
}

/// What the command line says about a kind of statement wins over the file.
fn attest(build: &Build, building: &Building) -> Result<Attest> {
    let mut attest = Attest::default();
    let (wishes, service) = (&building.wishes, &building.service.key);
    let wanted = [
        ("provenance", wishes.provenance.as_ref().or(build.provenance.as_ref())),
        ("sbom", wishes.sbom.as_ref().or(build.sbom.as_ref())),
    ];
    for (kind, value) in wanted {
        let Some(value) = value else { continue };
        let added = attest.add(&format!("type={kind},{value}"));
        added.map_err(|why| Diagnostic::error(why).key(format!("services.{service}.build.{kind}")))?;
    }
    Ok(attest)
}

fn request(project: &Project, building: &Building) -> Result<BuildRequest> {
    let service = &building.service;
    let none = || Failure::new(Kind::Project, format!("service {:?} has no build", service.key));
    let build = service.build.as_ref().ok_or_else(none)?;
    let mut args = build.args.clone();
    args.extend(building.wishes.args.iter().cloned());
    // As its specification asks of everything that builds.
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        args.entry("SOURCE_DATE_EPOCH".to_string()).or_insert(Some(epoch));
    }
    if !build.context.is_dir() && !build::is_address(&build.context.to_string_lossy()) {
        let message = format!(
            "the build context {} of service `{}` does not exist",
            build.context.display(),
            service.key
        );
        return Err(Diagnostic::error(message).key(format!("services.{}.build.context", service.key)).into());
    }
    Ok(BuildRequest {
        context: build.context.clone(),
        dockerfile: dockerfile(build),
        dockerfile_name: None,
        args,
        target: build.target.clone(),
        labels: labels(project, building, build),
        tags: tags(building, build)?,
        platform: service.platform.clone().or_else(|| own_or_first(&build.platforms)),
        no_cache: building.wishes.no_cache || build.no_cache,
        pull: building.wishes.pull || build.pull,
        network: network(build)?,
        secrets: build.secrets.iter().map(|grant| secret(project, grant)).collect::<Result<_>>()?,
        extra_hosts: build.extra_hosts.clone(),
        additional_contexts: build
            .additional_contexts
            .iter()
            .map(|(k, v)| (k.clone(), named(project, v)))
            .collect(),
        whole_contexts: BTreeSet::new(),
        shm_size: build.shm_size.and_then(|size| u64::try_from(size.0).ok()),
        ulimits: build.ulimits.iter().map(|(name, limit)| (name.clone(), (limit.soft, limit.hard))).collect(),
        no_cache_filter: build.no_cache_filter.clone(),
        ssh: agents(build, building)?,
        explain: building.wishes.explain,
        attest: attest(build, building)?,
        cache_from: caches(service, "cache_from", &build.cache_from, CacheFrom::parse)?,
        cache_to: caches(service, "cache_to", &build.cache_to, CacheTo::parse)?,
        ..BuildRequest::default()
    })
}

/// The store has one image under a name: of several platforms this machine's.
fn own_or_first(platforms: &[String]) -> Option<String> {
    let host = Platform::host();
    let is_own = |text: &&String| Platform::parse(text).is_ok_and(|platform| host.fit(&platform).is_some());
    platforms.iter().find(is_own).or(platforms.first()).cloned()
}

/// Relative paths begin where the user is, as docker's do.
fn caches<T>(
    service: &Service,
    attribute: &str,
    lines: &[String],
    parse: fn(&str, &Path) -> std::result::Result<T, String>,
) -> Result<Vec<T>> {
    let here = std::env::current_dir().map_err(failed("find the current directory"))?;
    let parsed = |(index, line): (usize, &String)| {
        let key = format!("services.{}.build.{attribute}[{index}]", service.key);
        parse(line, &here).map_err(|why| Failure::from(Diagnostic::error(why).key(key)))
    };
    lines.iter().enumerate().map(parsed).collect()
}

/// Those of the file, and whose image it is.
fn labels(project: &Project, building: &Building, build: &Build) -> label::Map {
    let mut labels = build.labels.clone();
    let own = [(label::PROJECT, project.name.as_str()), (label::SERVICE, building.service.key.as_str())];
    labels.extend(own.map(|(key, value)| (key.to_string(), value.to_string())));
    labels.insert(label::VERSION.to_string(), label::TOOL_VERSION.to_string());
    labels
}

fn tags(building: &Building, build: &Build) -> Result<Vec<Reference>> {
    let names = std::iter::once(&building.reference).chain(&build.tags);
    names.map(|name| Reference::parse(name).map_err(of_image)).collect()
}

fn network(build: &Build) -> Result<Network> {
    match build.network.as_deref() {
        None | Some("") => Ok(Network::Default),
        Some(name) => Network::parse(name)
            .ok_or_else(|| Failure::new(Kind::Project, format!("build network {name:?} is not supported"))),
    }
}

/// Another service's image is a named context by its name.
fn named(project: &Project, context: &str) -> String {
    let key = context.strip_prefix("service:");
    let service = key.and_then(|key| project.services.get(key).or_else(|| project.disabled.get(key)));
    match service {
        Some(service) => format!("docker-image://{}", label::image_of(project, service)),
        None => context.to_string(),
    }
}

/// Sockets of agents; those of the command line win.
fn agents(build: &Build, building: &Building) -> Result<IndexMap<String, PathBuf>> {
    let asked = building.wishes.ssh.iter().map(|text| match text.split_once('=') {
        Some((id, path)) => (id.to_string(), Some(path.to_string())),
        None => (text.clone(), None),
    });
    let all: IndexMap<_, _> = build.ssh.clone().into_iter().chain(asked).collect();
    all.into_iter().map(|(id, path)| Ok((id.clone(), agent(&id, path)?))).collect()
}

pub(super) fn agent(id: &str, path: Option<String>) -> Result<PathBuf> {
    let refuse = |why: String| Failure::new(Kind::Project, why);
    let path = path.or_else(|| std::env::var("SSH_AUTH_SOCK").ok()).filter(|path| !path.is_empty());
    let path =
        path.ok_or_else(|| refuse("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".into()))?;
    let file = std::fs::metadata(&path).map_err(|e| refuse(format!("ssh agent {id:?}: {path}: {e}")))?;
    if !file.file_type().is_socket() {
        let failure = refuse(format!("ssh agent {id:?}: {path} is a key, and only sockets can be forwarded"));
        return Err(failure.hint("Add the key to an agent with `ssh-add`, and forward that."));
    }
    Ok(path.into())
}

fn secret(project: &Project, grant: &Grant) -> Result<(String, Secret)> {
    let refuse = |why: &str| Failure::new(Kind::Project, format!("secret {:?} {why}", grant.source));
    let secret = match project.secrets.get(&grant.source).map(|s| &s.content) {
        Some(FileContent::File(path)) => Secret::File(path.clone()),
        Some(FileContent::Inline(text)) => Secret::Bytes(text.clone().into_bytes()),
        Some(FileContent::Unset(name)) => {
            return Err(refuse(&format!("comes from {name}, which is not set")));
        }
        Some(FileContent::External) => return Err(refuse("is external, which is not supported")),
        None => return Err(refuse("is not defined")),
    };
    let id = if grant.target.is_empty() { &grant.source } else { &grant.target };
    Ok((id.clone(), secret))
}

pub(super) fn tell(events: &dyn Sink, parent: &str, quiet: bool, event: BuildEvent) {
    let line = match event {
        BuildEvent::Warning(finding) => return events.emit(Event::warning(finding.message)),
        BuildEvent::Explained { name, why, .. } => {
            return events.emit(Event::info(format!("{name}: {why}")));
        }
        BuildEvent::Pulling { reference, done, total } => {
            return events.emit(Event::part(reference, parent, "Pulling", (done, total)));
        }
        BuildEvent::Started { name, .. } => name,
        BuildEvent::Cached { name, .. } => format!("{name} CACHED"),
        BuildEvent::Output { line, .. } => line,
        BuildEvent::Done { name, took, .. } => format!("{name} DONE {:.1}s", took.as_secs_f64()),
        BuildEvent::Failed { name, .. } => format!("{name} ERROR"),
        BuildEvent::Note { text, .. } => text,
        BuildEvent::Exported { image_id, .. } => format!("exported {}", human::short_id(&image_id)),
    };
    if !quiet {
        events.emit(Event::Output { parent: parent.to_string(), line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_platforms_this_machines_is_built() {
        let own = Platform::host().to_string();
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(own_or_first(&list(&["linux/mips64le", &own])), Some(own));
        assert_eq!(
            own_or_first(&list(&["linux/mips64le", "linux/s390x"])).as_deref(),
            Some("linux/mips64le")
        );
        assert_eq!(own_or_first(&[]), None);
    }
}
