//! `stack image …`, and the images that plans work on: the local store, pulls and builds.

mod build;

use super::Context;
use crate::apply::images::Images;
use crate::event::{Event, Sink};
use crate::failure::{Failure, Kind, Result, failed};
use crate::obtain::{Registries, obtain};
use crate::plan::spec::ImageView;
use crate::plan::step::Building;
use crate::ui::human;
use crate::ui::table::Table;
use stack_runtime::engine::EngineError;
use stack_runtime::home::Home;
use stack_runtime::image::store::Removed;
use stack_runtime::image::{self, Image, Phase, Platform, Progress, Reference, Store, archive};
use stack_schema::project::Project;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// The images of this machine.
pub(super) struct Local {
    home: Home,
    registries: Registries,
}

impl Local {
    pub(super) fn new(context: &Context) -> Self {
        Self { home: context.home.clone(), registries: context.registries() }
    }

    fn store(&self) -> Result<Store> {
        Store::open(&self.home).map_err(failed("open the image store"))
    }
}

impl Images for Local {
    fn view(&self, reference: &str) -> Result<Option<ImageView>> {
        let image = self.store()?.image(reference).map_err(failed("read an image"))?;
        Ok(image.map(|i| ImageView { id: i.id.to_string(), chain_id: i.chain_id, config: i.config }))
    }

    fn remove(&self, reference: &str) -> Result<()> {
        let store = self.store()?;
        refuse_used(&self.home, &store, reference)?;
        store.remove(reference, false).map(drop).map_err(of_image)
    }

    async fn pull(&self, reference: &str, platform: Option<&str>, events: &dyn Sink) -> Result<()> {
        let parsed = Reference::parse(reference).map_err(of_image)?;
        let platform = platform.map(Platform::parse).transpose().map_err(of_image)?;
        let parent = format!("Image {reference}");
        let report = |progress| tell(events, &parent, &progress);
        let store = self.store()?;
        let obtained = obtain(&store, &parsed, platform.as_ref(), self.registries, &report).await;
        if let Some(notice) = obtained.map_err(of_image)?.notice {
            events.emit(Event::warning(notice));
        }
        Ok(())
    }

    async fn build(&self, project: &Project, building: &Building, events: &dyn Sink) -> Result<()> {
        let place = (&self.home, self.store()?, self.registries);
        super::build::build(place, project, building, events).await
    }
}

/// The store's errors know their kind and hint.
pub(super) fn of_image(error: image::Error) -> Failure {
    EngineError::from(error).into()
}

/// A layer's progress, as a part of its image.
pub(super) fn tell(events: &dyn Sink, parent: &str, progress: &Progress) {
    match progress {
        Progress::Resolved { .. } => {}
        Progress::Layer { digest, phase, done, total } => {
            let id = human::short_id(digest.as_ref()).to_string();
            events.emit(Event::part(id, parent, word(*phase), (*done, *total)));
        }
        Progress::Elsewhere { mirror, reason } => {
            events.emit(Event::warning(format!("mirror {mirror} is of no help: {reason}")));
        }
        Progress::Retrying { what, reason, attempt } => {
            events.emit(Event::info(format!("retrying {what} (attempt {attempt}): {reason}")));
        }
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "Waiting",
        Phase::Exists => "Already exists",
        Phase::Downloading => "Downloading",
        Phase::Unpacking => "Extracting",
        Phase::Packing => "Preparing",
        Phase::Uploading => "Pushing",
        Phase::Done => "Done",
    }
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List images
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Build an image from a Dockerfile, as `docker build` does
    Build(Box<build::Args>),
    /// Pull an image
    Pull(NamesArgs),
    /// Push an image
    Push(NamesArgs),
    /// Load images from an archive or an OCI layout
    Load(LoadArgs),
    /// Save images to an archive
    Save(SaveArgs),
    /// Remove images
    Rm(RemoveArgs),
    /// Give an image another name
    Tag {
        /// Name or id
        image: String,
        /// The new name
        name: String,
    },
    /// Show images as JSON
    Inspect(NamesArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct LsArgs {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// table or json
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct NamesArgs {
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// Archive or directory [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Only errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SaveArgs {
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// Also when it has several names, or none of it is there
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<()> {
    if matches!(verb, Verb::Pull(_)) {
        context.insist();
    }
    let local = Local::new(context);
    match verb {
        Verb::Ls(args) => list(&args, context, &local),
        Verb::Build(args) => build::run(*args, context).await,
        Verb::Pull(args) => pull(args, context, &local).await,
        Verb::Push(args) => push(args, context, &local).await,
        Verb::Load(args) => load(args, context, local).await,
        Verb::Save(args) => save(args, local).await,
        Verb::Rm(args) => remove(&args, context, &local),
        Verb::Tag { image, name } => tag(&image, &name, context, &local),
        Verb::Inspect(args) => inspect(&args, context, &local),
    }
}

fn list(args: &LsArgs, context: &Context, local: &Local) -> Result<()> {
    let images = local.store()?.images().map_err(failed("list images"))?;
    let id = |image: &Image| match args.no_trunc {
        true => image.id.to_string(),
        false => human::short_id(image.id.as_ref()).to_string(),
    };
    let text = match (args.quiet, args.format.as_str()) {
        (true, _) => images.iter().map(|i| id(i) + "\n").collect(),
        (false, "json") => images.iter().flat_map(|i| rows(i, id(i))).map(|row| row.json() + "\n").collect(),
        (false, "table") => table(images.iter().flat_map(|i| rows(i, id(i)))),
        (false, other) => return Err(Failure::usage(format!("unsupported format {other:?}"))),
    };
    context.ui.data(&text);
    Ok(())
}

struct Row {
    repository: String,
    tag: String,
    id: String,
    created: String,
    size: u64,
    origin: String,
}

/// Images that the set-up made in place of a registry's say so with this label.
const MADE_HERE: &str = "dev.stack.image.origin";

/// One per name.
fn rows(image: &Image, id: String) -> Vec<Row> {
    let origin = image.labels.get(MADE_HERE).cloned().unwrap_or_default();
    let row = |repository: String, tag: String| Row {
        repository,
        tag,
        id: id.clone(),
        created: image.created.clone(),
        size: image.size,
        origin: origin.clone(),
    };
    let named = |r: &Reference| row(r.familiar_name(), r.tag().unwrap_or("<none>").to_string());
    match image.references.as_slice() {
        [] => vec![row("<none>".into(), "<none>".into())],
        references => references.iter().map(named).collect(),
    }
}

impl Row {
    fn json(&self) -> String {
        serde_json::json!({
            "Repository": self.repository, "Tag": self.tag, "ID": self.id, "CreatedAt": self.created,
            "CreatedSince": age(&self.created), "Size": human::size(self.size), "Origin": self.origin,
        })
        .to_string()
    }
}

fn age(created: &str) -> String {
    if created.is_empty() { "N/A".into() } else { human::ago(created) }
}

fn table(rows: impl Iterator<Item = Row>) -> String {
    let rows: Vec<Row> = rows.collect();
    let with_origin = rows.iter().any(|r| !r.origin.is_empty());
    let mut heading = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    heading.extend(with_origin.then_some("ORIGIN"));
    let mut table = Table::new(&heading);
    for row in rows {
        let mut cells = vec![row.repository, row.tag, row.id, age(&row.created), human::size(row.size)];
        cells.extend(with_origin.then_some(row.origin));
        table.row(cells);
    }
    table.render()
}

async fn pull(args: NamesArgs, context: &Context, local: &Local) -> Result<()> {
    context.may_change()?;
    for name in &args.names {
        let thing = format!("Image {name}");
        let sink: &dyn Sink = if args.quiet { &crate::event::Silent } else { context.ui.as_ref() };
        sink.emit(Event::working(&thing, "Pulling"));
        local.pull(name, None, sink).await?;
        sink.emit(Event::done(&thing, "Pulled"));
    }
    super::system::keep_budget(context, &args.names);
    context.ui.settle();
    context.ui.data(&args.names.iter().map(|n| format!("{}\n", full(n))).collect::<String>());
    Ok(())
}

fn full(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_string(), |r| r.to_string())
}

async fn push(args: NamesArgs, context: &Context, local: &Local) -> Result<()> {
    context.needs_network("a push")?;
    for name in &args.names {
        let sink: &dyn Sink = if args.quiet { &crate::event::Silent } else { context.ui.as_ref() };
        push_one(local, name, sink).await?;
    }
    Ok(())
}

pub(super) async fn push_one(local: &Local, name: &str, events: &dyn Sink) -> Result<()> {
    let reference = Reference::parse(name).map_err(of_image)?;
    let thing = format!("Image {name}");
    events.emit(Event::working(&thing, "Pushing"));
    let report = |progress| tell(events, &thing, &progress);
    match image::push::push(&local.store()?, &reference, &report).await {
        Ok(_) => events.emit(Event::done(&thing, "Pushed")),
        Err(error) => {
            events.emit(Event::failed(&thing, error.to_string()));
            return Err(of_image(error));
        }
    }
    Ok(())
}

async fn load(args: LoadArgs, context: &Context, local: Local) -> Result<()> {
    context.may_change()?;
    if args.input.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::usage("requested load from stdin, but stdin is empty"));
    }
    let store = local.store()?;
    let work = move || match args.input {
        Some(path) => archive::load_path(&store, &path),
        None => archive::load(&store, std::io::stdin().lock()),
    };
    let loaded = tokio::task::spawn_blocking(work).await.map_err(failed("load"))?.map_err(of_image)?;
    let line = |l: &archive::Loaded| match l.references.first() {
        Some(_) => l.references.iter().map(|r| format!("Loaded image: {}\n", r.familiar())).collect(),
        None => format!("Loaded image ID: {}\n", l.id),
    };
    if !args.quiet {
        context.ui.data(&loaded.iter().map(line).collect::<String>());
    }
    Ok(())
}

async fn save(args: SaveArgs, local: Local) -> Result<()> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("cowardly refusing to save to a terminal")
            .hint("Name a file with `-o`, or redirect standard output."));
    }
    let store = local.store()?;
    let work = move || -> Result<()> {
        match args.output {
            Some(path) => save_to(&store, &args.names, &path),
            None => archive::save(&store, &args.names, std::io::stdout().lock()).map_err(of_image),
        }
    };
    tokio::task::spawn_blocking(work).await.map_err(failed("save"))?
}

/// Appears whole or not at all.
fn save_to(store: &Store, names: &[String], path: &std::path::Path) -> Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let writing = || format!("write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed(&writing()))?;
    let mut to = std::io::BufWriter::new(file.as_file_mut());
    archive::save(store, names, &mut to).map_err(of_image)?;
    to.flush().map_err(failed(&writing()))?;
    drop(to);
    file.persist(path).map(|_: File| ()).map_err(|e| failed(&writing())(e.error))
}

fn remove(args: &RemoveArgs, context: &Context, local: &Local) -> Result<()> {
    context.may_change()?;
    let store = local.store()?;
    let mut first = None;
    for name in &args.names {
        let refused = if args.force { Ok(()) } else { refuse_used(&context.home, &store, name) };
        match refused.and_then(|()| store.remove(name, args.force).map_err(of_image)) {
            Ok(removed) => context.ui.data(&removed.iter().map(removed_line).collect::<String>()),
            Err(failure) if args.force && failure.kind == Kind::NotFound => {}
            Err(failure) => drop(first.get_or_insert(failure)),
        }
    }
    first.map_or(Ok(()), Err)
}

/// The last name of an image stays while a container, of whatever project, is made of it.
fn refuse_used(home: &Home, store: &Store, name: &str) -> Result<()> {
    let image = store.image(name).map_err(failed("read an image"))?;
    let Some(image) = image.filter(|image| image.references.len() < 2) else { return Ok(()) };
    match super::system::in_use(home)?.images.contains(&image.id.to_string()) {
        true => Err(Failure::new(Kind::Conflict, format!("image {name} is used by a container"))),
        false => Ok(()),
    }
}

fn removed_line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(reference) => format!("Untagged: {}\n", reference.familiar()),
        Removed::Deleted(id) => format!("Deleted: {id}\n"),
    }
}

fn tag(image: &str, name: &str, context: &Context, local: &Local) -> Result<()> {
    context.may_change()?;
    let store = local.store()?;
    let reference = Reference::parse(name).map_err(of_image)?;
    let found = store.image(image).map_err(failed("read an image"))?;
    let found = found.ok_or_else(|| Failure::new(Kind::NotFound, format!("No such image: {image}")))?;
    store.tag(&found.id, &reference).map_err(of_image)
}

fn inspect(args: &NamesArgs, context: &Context, local: &Local) -> Result<()> {
    let store = local.store()?;
    let mut all = Vec::new();
    for name in &args.names {
        let image = store.image(name).map_err(failed("read an image"))?;
        let image = image.ok_or_else(|| Failure::new(Kind::NotFound, format!("No such image: {name}")))?;
        all.push(described(&image)?);
    }
    let text = serde_json::to_string_pretty(&all).map_err(failed("describe the image"))?;
    context.ui.data(&(text + "\n"));
    Ok(())
}

/// As `docker image inspect` names things.
fn described(image: &Image) -> Result<serde_json::Value> {
    let names = |list: &[Reference]| list.iter().map(Reference::familiar).collect::<Vec<_>>();
    let config = serde_json::to_value(&image.config).map_err(failed("describe the image"))?;
    Ok(serde_json::json!({
        "Id": image.id.to_string(),
        "RepoTags": names(&image.references),
        "RepoDigests": names(&image.repo_digests),
        "Created": image.created,
        "Architecture": image.architecture,
        "Variant": image.variant,
        "Os": image.os,
        "Size": image.size,
        "RootFS": { "Type": "layers", "Layers": image.layers.iter().map(ToString::to_string).collect::<Vec<_>>() },
        "Config": config,
    }))
}
