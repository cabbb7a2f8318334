//! `stack image build`: one Dockerfile, without a Compose file, in the words of `docker build`.

use super::super::Context;
use super::super::build::{agent, argument, tell};
use super::of_image;
use crate::build::{
    self, Attest, BuildEnv, BuildEvent, BuildRequest, BuildResult, CacheFrom, CacheTo, DockerfileSource,
    Network, Output, Secret, csv,
};
use crate::event::Sink;
use crate::failure::{Failure, Result, failed};
use indexmap::IndexMap;
use serde_json::json;
use stack_runtime::image::{Reference, Store};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The Dockerfile; - is standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Name of the image; may be repeated
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The stage to stop at
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set a build argument; may be repeated
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// Set a label of the image; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Add an annotation to the image's manifest; may be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Look the Dockerfile over without building
    #[arg(long)]
    check: bool,
    /// The platform of the image [default: this machine's]; several with commas between them
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM", hide_env = true)]
    platform: Option<String>,
    /// Do not use the cache
    #[arg(long)]
    no_cache: bool,
    /// A stage that takes nothing from the cache; may be repeated
    #[arg(long, value_name = "STAGE")]
    no_cache_filter: Vec<String>,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Say of each step that is executed which of its inputs changed first
    #[arg(long)]
    explain: bool,
    /// A further context: a directory, an address, docker-image://NAME or oci-layout://DIR; may be repeated
    #[arg(long = "build-context", value_name = "NAME=WHERE")]
    contexts: Vec<String>,
    /// Network of RUN: default, none or host
    #[arg(long, default_value = "default")]
    network: String,
    /// An entry of /etc/hosts during RUN; may be repeated
    #[arg(long = "add-host", value_name = "HOST:IP")]
    hosts: Vec<String>,
    /// A secret for RUN: id=ID[,src=FILE|env=VARIABLE]; may be repeated
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// Forward an ssh agent: default, or ID=SOCKET; may be repeated
    #[arg(long, value_name = "ID[=SOCKET]")]
    ssh: Vec<String>,
    /// Size of /dev/shm during RUN
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// A limit during RUN; may be repeated
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
    /// A cache to take layers from: a name, type=registry,ref=NAME or type=local,src=DIR; may be repeated
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Where layers are exported to: as above with dest=DIR, or type=inline; may be repeated
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// What becomes of it: DIR, -, type=local|tar|oci|docker|image|registry,…; may be repeated
    #[arg(short, long = "output", value_name = "OUTPUT")]
    outputs: Vec<String>,
    /// Short for --output type=registry
    #[arg(long)]
    push: bool,
    /// Short for --output type=docker
    #[arg(long)]
    load: bool,
    /// A statement about the image: type=provenance[,mode=max] or type=sbom; may be repeated
    #[arg(long = "attest", value_name = "STATEMENT")]
    attest: Vec<String>,
    /// Short for --attest type=provenance,…
    #[arg(long, value_name = "true|false|mode=max", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    provenance: Option<String>,
    /// Short for --attest type=sbom,…
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sbom: Option<String>,
    /// Write the id of the image there
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write what was built there, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Only the id of the image
    #[arg(short, long)]
    quiet: bool,
    /// A directory, an archive, an address, or - for standard input
    #[arg(value_name = "CONTEXT")]
    context: String,
}

pub(in crate::cli) async fn run(args: Args, context: &Context) -> Result<()> {
    if context.dry_run {
        return Ok(());
    }
    context.may_change()?;
    let store = Store::open(&context.home).map_err(failed("open the image store"))?;
    let (request, _stdin) = request(&args, context)?;
    let names: Vec<String> = request.tags.iter().map(Reference::familiar).collect();
    let env = BuildEnv::new(context.home.clone(), store);
    if args.check {
        return super::super::build::tell_findings(context, vec![build::check(&env, &request)?]);
    }
    let sink: &dyn Sink = context.ui.as_ref();
    let parent = format!("Image {}", names.first().map_or("without a name", String::as_str));
    let report = |event: BuildEvent| tell(sink, &parent, args.quiet, event);
    let platforms: Vec<String> =
        args.platform.iter().flat_map(|text| text.split(',')).map(Into::into).collect();
    let result = build::build_for(&env, &request, &platforms, &report);
    let result = tokio::select! {
        result = result => result.map_err(Failure::from)?,
        () = context.interrupts.next() => return Err(Failure::interrupted()),
    };
    super::super::system::keep_budget(context, &[result.image_id.to_string()]);
    context.ui.settle();
    record(&args, &result)?;
    if args.quiet {
        context.ui.data(&format!("{}\n", result.image_id));
    }
    Ok(())
}

/// The request, and what keeps standard input until the build is done.
fn request(args: &Args, context: &Context) -> Result<(BuildRequest, Option<TempDir>)> {
    let here = context.current_directory();
    let value = |key: &str| context.variable(key).map(str::to_string);
    if args.context == "-" && args.file.as_deref() == Some("-") {
        return Err(Failure::usage("can't use stdin for both build context and dockerfile"));
    }
    let stdin = if args.context == "-" { Some(kept_stdin()?) } else { None };
    let place = match &stdin {
        Some(directory) => directory.path().join(build::STDIN),
        None if build::is_address(&args.context) => PathBuf::from(&args.context),
        None => std::fs::canonicalize(here.join(&args.context))
            .map_err(failed(&format!("find the build context {}", args.context)))?,
    };
    let mut build_args: IndexMap<_, _> = args.build_args.iter().map(|text| argument(text, &value)).collect();
    if let Some(epoch) = value("SOURCE_DATE_EPOCH") {
        build_args.entry("SOURCE_DATE_EPOCH".into()).or_insert(Some(epoch));
    }
    let request = BuildRequest {
        context: place,
        dockerfile: dockerfile(args, here)?,
        args: build_args,
        target: args.target.clone(),
        labels: args.labels.iter().map(|text| pair(text)).collect(),
        annotations: args.annotations.iter().map(|text| annotation(text)).collect::<Result<_>>()?,
        tags: args.tags.iter().map(|name| Reference::parse(name).map_err(of_image)).collect::<Result<_>>()?,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        pull: args.pull,
        explain: args.explain,
        network: Network::parse(&args.network)
            .ok_or_else(|| Failure::usage(format!("build network {:?} is not supported", args.network)))?,
        secrets: args.secrets.iter().map(|text| secret(text, here, &value)).collect::<Result<_>>()?,
        ssh: args.ssh.iter().map(|text| forwarded(text)).collect::<Result<_>>()?,
        extra_hosts: args.hosts.iter().map(|text| host(text)).collect::<Result<_>>()?,
        additional_contexts: args.contexts.iter().map(|text| named(text, here)).collect::<Result<_>>()?,
        shm_size: args.shm_size.as_deref().map(bytes).transpose()?,
        ulimits: args.ulimits.iter().map(|text| limit(text)).collect::<Result<_>>()?,
        cache_from: parsed(&args.cache_from, here, CacheFrom::parse)?,
        cache_to: parsed(&args.cache_to, here, CacheTo::parse)?,
        outputs: outputs(args, here)?,
        attest: attest(args).map_err(Failure::usage)?,
        registries: context.registries(),
        ..BuildRequest::default()
    };
    Ok((request, stdin))
}

/// Standard input as a file of the name that the builder knows.
fn kept_stdin() -> Result<TempDir> {
    let keep = || {
        let directory = tempfile::tempdir()?;
        let mut file = File::create(directory.path().join(build::STDIN))?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
        Ok(directory)
    };
    keep().map_err(|e: std::io::Error| failed("read the build context from standard input")(e))
}

/// A path of the command line is relative to where the user is; in an address it is in there.
fn dockerfile(args: &Args, here: &Path) -> Result<DockerfileSource> {
    let is_elsewhere = build::is_address(&args.context) || args.context == "-";
    match args.file.as_deref() {
        None => Ok(DockerfileSource::default()),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(failed("read standard input"))?;
            Ok(DockerfileSource::Inline(text))
        }
        Some(path) if is_elsewhere => Ok(DockerfileSource::Path(path.into())),
        Some(path) => Ok(DockerfileSource::Path(here.join(path))),
    }
}

fn attest(args: &Args) -> std::result::Result<Attest, String> {
    let mut attest = Attest::default();
    let short = [("provenance", &args.provenance), ("sbom", &args.sbom)];
    let short = short.iter().filter_map(|(kind, value)| Some(format!("type={kind},{}", value.as_ref()?)));
    args.attest.iter().cloned().chain(short).try_for_each(|line| attest.add(&line))?;
    Ok(attest)
}

fn outputs(args: &Args, here: &Path) -> Result<Vec<Output>> {
    let mut outputs = parsed(&args.outputs, here, Output::parse)?;
    let image = |push| Output::Image { names: Vec::new(), push };
    outputs.extend(args.push.then(|| image(true)));
    outputs.extend(args.load.then(|| image(false)));
    Ok(outputs)
}

fn parsed<T>(
    lines: &[String],
    here: &Path,
    parse: fn(&str, &Path) -> std::result::Result<T, String>,
) -> Result<Vec<T>> {
    lines.iter().map(|line| parse(line, here).map_err(Failure::usage)).collect()
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_string(), value.to_string())
}

/// `[manifest:]KEY=VALUE`; other things that can be annotated are refused by name.
fn annotation(text: &str) -> Result<(String, String)> {
    let (kinds, rest) = match text.split_once(':') {
        Some((kinds, rest)) if !kinds.contains('=') && rest.contains('=') => (kinds, rest),
        _ => ("manifest", text),
    };
    let (key, value) =
        rest.split_once('=').ok_or_else(|| Failure::usage(format!("invalid annotation {text:?}")))?;
    match kinds {
        "manifest" => Ok((key.to_string(), value.to_string())),
        other => {
            Err(Failure::usage(format!("annotations of `{other}` are not supported, only of the manifest")))
        }
    }
}

fn bytes(text: &str) -> Result<u64> {
    let bytes = stack_schema::short::parse_bytes(text).ok().and_then(|bytes| u64::try_from(bytes.0).ok());
    bytes.ok_or_else(|| Failure::usage(format!("invalid size {text:?}")))
}

fn forwarded(text: &str) -> Result<(String, PathBuf)> {
    let (id, path) = text.split_once('=').map_or((text, None), |(id, path)| (id, Some(path.to_string())));
    Ok((id.to_string(), agent(id, path)?))
}

fn host(text: &str) -> Result<(String, String)> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let wrong = || Failure::usage(format!("invalid host {text:?}: it has to be HOST:IP"));
    split.map(|(host, ip)| (host.to_string(), ip.to_string())).ok_or_else(wrong)
}

/// A directory is relative to where the user is.
fn named(text: &str, here: &Path) -> Result<(String, String)> {
    let wrong = || Failure::usage(format!("invalid context {text:?}: it has to be NAME=WHERE"));
    let (name, place) = text.split_once('=').ok_or_else(wrong)?;
    let place = match place.strip_prefix("oci-layout://") {
        Some(path) => format!("oci-layout://{}", here.join(path).display()),
        None if build::is_address(place) => place.to_string(),
        None => here.join(place).display().to_string(),
    };
    Ok((name.to_string(), place))
}

fn limit(text: &str) -> Result<(String, (i64, i64))> {
    let wrong = || Failure::usage(format!("invalid limit {text:?}: it has to be NAME=SOFT[:HARD]"));
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    Ok((name.to_string(), (number(soft)?, number(hard)?)))
}

fn secret(text: &str, here: &Path, value: &impl Fn(&str) -> Option<String>) -> Result<(String, Secret)> {
    let fields: IndexMap<String, String> = csv::fields(text).map_err(Failure::usage)?.into_iter().collect();
    let id = fields.get("id").ok_or_else(|| Failure::usage(format!("the secret {text:?} has no id")))?;
    let variable = fields.get("env").cloned();
    let path = fields.get("src").or_else(|| fields.get("source"));
    let secret = match (path, variable) {
        (Some(path), _) => Secret::File(here.join(path)),
        (None, Some(name)) => Secret::Bytes(value(&name).unwrap_or_default().into_bytes()),
        // As docker: the variable of that name, else the file.
        (None, None) => match value(id) {
            Some(text) => Secret::Bytes(text.into_bytes()),
            None => Secret::File(here.join(id)),
        },
    };
    Ok((id.clone(), secret))
}

/// For scripts.
fn record(args: &Args, result: &BuildResult) -> Result<()> {
    if let Some(path) = &args.iidfile {
        std::fs::write(path, result.image_id.as_str()).map_err(failed("write the file of --iidfile"))?;
    }
    let Some(path) = &args.metadata_file else { return Ok(()) };
    let names: Vec<String> = result.tags.iter().map(ToString::to_string).collect();
    // Without a manifest the image goes by its configuration, as in docker's own store.
    let digest = result.pushed.as_ref().unwrap_or(&result.image_id);
    let document = json!({
        "containerimage.config.digest": result.image_id,
        "containerimage.digest": digest,
        "image.name": names.join(","),
    });
    let text = serde_json::to_string_pretty(&document).map_err(failed("describe the image"))? + "\n";
    std::fs::write(path, text).map_err(failed("write the file of --metadata-file"))
}
