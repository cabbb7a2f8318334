//! `stack cp`: files between the containers of a service and this machine, as `docker cp` does it.
//!
//! Both ends are roots with a path: every link is resolved inside its own root. A running container is entered as its
//! program sees it; of one that does not run, what is mounted is found by the text of the path.

use super::{Context, Scene};
use crate::event::{Event, Sink};
use crate::failure::{Failure, Result, failed};
use crate::host::process::ProcessMark;
use crate::plan::label::Labelled;
use crate::watch::sync::{Found, Root, copy_children, copy_tree};
use rustix::fs::{Mode, OFlags};
use stack_runtime::container::{ids_of, root_at_rest, root_to_read};
use stack_runtime::image::Store;
use stack_runtime::monitor::RunRecord;
use stack_runtime::observed::{ContainerObserved, State};
use stack_runtime::spec::{MountKindSpec, MountSpec};
use stack_runtime::volume::{self, local::Place};
use stack_runtime::{home::Home, snapshot};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also containers of `run`
    #[arg(long)]
    all: bool,
    /// What is copied into a container belongs to the container's user
    #[arg(short, long)]
    archive: bool,
    /// Follow SOURCE if it is a link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Which container of the service
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// SERVICE:PATH, PATH, or - for an archive on standard input
    source: String,
    /// SERVICE:PATH, PATH, or - for an archive on standard output
    destination: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    match (in_container(&args.source), in_container(&args.destination)) {
        (Some(_), Some(_)) => Err(Failure::usage("copying between services is not supported")),
        (None, None) => Err(Failure::usage("unknown copy direction")),
        (Some((service, path)), None) => {
            let scene = context.existing(&[service.to_owned()]).await?;
            let from = args.chosen(&scene, service)?;
            args.out_of(context, &scene, from[0], path)
        }
        (None, Some((service, path))) => {
            let scene = context.existing(&[service.to_owned()]).await?;
            let input = args.input()?;
            args.chosen(&scene, service)?
                .into_iter()
                .try_for_each(|c| args.bring(context, &scene, c, path, &input))
        }
    }
}

/// `SERVICE:PATH`; what begins like a path is one of this machine.
fn in_container(text: &str) -> Option<(&str, &str)> {
    let (service, path) = text.split_once(':')?;
    (!service.is_empty() && !service.starts_with(['/', '.'])).then_some((service, path))
}

/// What goes into containers.
enum Input {
    Path(PathBuf),
    /// An archive that was unpacked.
    Unpacked(snapshot::Working),
}

impl Args {
    /// Lowest number first, at least one.
    fn chosen<'a>(&self, scene: &'a Scene, service: &str) -> Result<Vec<&'a ContainerObserved>> {
        let is_meant = |c: &&ContainerObserved| {
            c.service() == service
                && (self.all || !c.is_one_off())
                && self.index.is_none_or(|n| !c.is_one_off() && c.number() == n)
        };
        let mut found: Vec<_> = scene.observed.containers.iter().filter(is_meant).collect();
        found.sort_by_key(|c| (c.is_one_off(), c.number()));
        match (found.is_empty(), self.index) {
            (false, _) => Ok(found),
            (true, Some(n)) => Err(Failure::other(format!("service {service:?} has no container #{n}"))),
            (true, None) => Err(Failure::other(format!("no container found for service {service:?}"))),
        }
    }

    fn input(&self) -> Result<Input> {
        if self.source != "-" {
            return Ok(Input::Path(absolute(&self.source)?));
        }
        let store = Store::open(&Home::from_env()).map_err(failed("open the store"))?;
        let unpacked = snapshot::unpacked(&store, io::stdin().lock());
        Ok(Input::Unpacked(unpacked.map_err(failed("read the archive on standard input"))?))
    }

    fn out_of(
        &self,
        context: &Context,
        scene: &Scene,
        container: &ContainerObserved,
        path: &str,
    ) -> Result<()> {
        let what = format!("copy {}:{path} to {}", container.name, self.destination);
        if context.dry_run {
            context.ui.data(&format!("{what}\n"));
            return Ok(());
        }
        let side = match clean(path) == Path::new("/") {
            // What is mounted there is the kernel's, for the most part.
            true => Side::whole(context, scene, container)?,
            false => Side::of(context, scene, container, path)?,
        };
        let source = Source::find(&side.root, &side.path, path, self.follow_link);
        let source = source.map_err(|e| missing(&e, path, container))?;
        if self.destination == "-" {
            return source.pack(io::stdout().lock()).map_err(failed(&what));
        }
        let root = Root::of_directory(Path::new("/")).map_err(failed(&what))?;
        let target = absolute(&self.destination)?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let target = Target { root: &root, path: &target, text: &self.destination, owner: Some(own) };
        self.tell(context, container, &what, || source.copy_to(&target))
    }

    fn bring(
        &self,
        context: &Context,
        scene: &Scene,
        container: &ContainerObserved,
        path: &str,
        input: &Input,
    ) -> Result<()> {
        let what = format!("copy {} to {}:{path}", self.source, container.name);
        if context.dry_run {
            context.ui.data(&format!("{what}\n"));
            return Ok(());
        }
        let side = Side::of(context, scene, container, path)?;
        side.check_writable().map_err(Failure::other)?;
        let owner = match self.archive {
            true => side.user(&container.spec.user).map_err(failed(&what))?,
            false => None,
        };
        let target = Target { root: &side.root, path: &side.path, text: path, owner };
        self.tell(context, container, &what, || match input {
            Input::Path(from) => {
                let root = Root::of_directory(Path::new("/"))?;
                Source::find(&root, from, &self.source, self.follow_link)?.copy_to(&target)
            }
            Input::Unpacked(working) => target.fill(&working.upper),
        })
    }

    /// As the other verbs show their steps.
    fn tell(
        &self,
        context: &Context,
        container: &ContainerObserved,
        what: &str,
        copy: impl FnOnce() -> io::Result<Vec<PathBuf>>,
    ) -> Result<()> {
        let thing = format!("Container {}", container.name);
        context.ui.emit(Event::working(&thing, "Copying"));
        let skipped = copy().map_err(failed(what))?;
        context.ui.emit(Event::done(&thing, "Copied"));
        for path in skipped {
            let text = format!("{} is not copied: it is a device, a pipe or a socket", path.display());
            context.ui.emit(Event::warning(text));
        }
        Ok(())
    }
}

fn missing(error: &io::Error, path: &str, container: &ContainerObserved) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::other(format!("could not find the file {path} in container {}", container.name))
        }
        _ => Failure::other(format!("failed to read {path} in container {}: {error}", container.name)),
    }
}

fn absolute(text: &str) -> Result<PathBuf> {
    std::path::absolute(text).map_err(failed("find the current directory"))
}

/// A container as one end of a copy.
struct Side<'a> {
    root: Root,
    /// In the root.
    path: PathBuf,
    container: &'a ContainerObserved,
    /// What is mounted where the path leads.
    mount: Option<&'a MountSpec>,
}

impl<'a> Side<'a> {
    fn of(context: &Context, scene: &Scene, container: &'a ContainerObserved, path: &str) -> Result<Self> {
        let path = clean(path);
        let covering = container.spec.mounts.iter().filter(|m| path.starts_with(clean(&m.target)));
        let mount = covering.max_by_key(|m| clean(&m.target).components().count());
        let directory = context.home.container(&scene.project.name, &container.id);
        let doing = format!("open the files of container {}", container.name);
        if matches!(container.state, State::Running { .. } | State::Paused { .. })
            && let Some(run) = RunRecord::read(&directory).map_err(failed(&doing))?
        {
            let root = Root::of_process(ProcessMark { pid: run.pid, start: run.start_time });
            return Ok(Self { root: root.map_err(failed(&doing))?, path, container, mount });
        }
        let (root, path) = at_rest(context, container, &directory, mount, path).map_err(failed(&doing))?;
        Ok(Self { root, path, container, mount })
    }

    fn whole(context: &Context, scene: &Scene, container: &'a ContainerObserved) -> Result<Self> {
        let directory = context.home.container(&scene.project.name, &container.id);
        let root = root_to_read(&context.home, &container.spec.chain_id, &directory);
        let root = root.map_err(failed(&format!("open the files of container {}", container.name)))?;
        Ok(Self { root: Root::of(root), path: "/".into(), container, mount: None })
    }

    /// In Docker's words.
    fn check_writable(&self) -> std::result::Result<(), String> {
        match self.mount {
            Some(mount) if mount.read_only => Err("mounted volume is marked read-only".into()),
            None if self.container.spec.read_only => Err("container rootfs is marked read-only".into()),
            _ => Ok(()),
        }
    }

    /// `None`: the ids stay as they are.
    fn user(&self, user: &str) -> io::Result<Option<(u32, u32)>> {
        if user.is_empty() {
            return Ok(None);
        }
        ids_of(self.root.existing("/")?, user).map(Some)
    }
}

/// A container that does not run: what is mounted where the path leads, else its own files.
fn at_rest(
    context: &Context,
    container: &ContainerObserved,
    directory: &Path,
    mount: Option<&MountSpec>,
    path: PathBuf,
) -> io::Result<(Root, PathBuf)> {
    if let Some(mount) = mount
        && let Some(source) = source_of(&context.home, &mount.kind)?
    {
        if matches!(mount.kind, MountKindSpec::Bind { create: true, .. }) && !source.exists() {
            // As its first start would do.
            std::fs::create_dir_all(&source)?;
        }
        return beside(&source, &path, &clean(&mount.target));
    }
    let root = root_at_rest(&context.home, &container.spec.chain_id, directory)?;
    Ok((Root::of(root), path))
}

/// What a mount shows of this machine.
fn source_of(home: &Home, kind: &MountKindSpec) -> io::Result<Option<PathBuf>> {
    Ok(match kind {
        MountKindSpec::Bind { source, .. } | MountKindSpec::Directory { source } => Some(source.clone()),
        MountKindSpec::Volume { name, subpath, .. } => match volume::place(home, name)? {
            Place::Directory { path, .. } => Some(subpath.iter().fold(path, |path, inner| path.join(inner))),
            Place::FileSystem { .. } => None,
        },
        _ => None,
    })
}

/// The path below a mount's target is one below its source, which may be a file.
fn beside(source: &Path, path: &Path, target: &Path) -> io::Result<(Root, PathBuf)> {
    let rest = path.strip_prefix(target).unwrap_or(Path::new(""));
    match (source.is_dir(), source.parent(), source.file_name()) {
        (false, Some(above), Some(name)) => Ok((Root::of_directory(above)?, Path::new("/").join(name))),
        _ => Ok((Root::of_directory(source)?, Path::new("/").join(rest))),
    }
}

/// Absolute, by the text alone.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// What is copied.
struct Source {
    found: Found,
    /// Of a directory, only what is in it.
    contents: bool,
}

impl Source {
    /// `text` is the path as it was typed: its end tells what is meant.
    fn find(root: &Root, path: &Path, text: &str, follow: bool) -> io::Result<Self> {
        let follows = follow || text.ends_with('/') || text.ends_with("/.");
        let found = root.find(path, follows)?;
        if found.stat.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{text}: no such file or directory"),
            ));
        }
        let contents = text == "." || text.ends_with("/.") || found.name == ".";
        Ok(Self { found, contents })
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.found.directory, &self.found.name, flags, Mode::empty())?)
    }

    fn pack(&self, to: impl io::Write) -> io::Result<()> {
        match self.contents && self.found.is_directory() {
            true => snapshot::pack_tree(self.open()?, to).map(drop),
            false => snapshot::pack_entry(&self.found.directory, &self.found.name, to).map(drop),
        }
    }

    fn copy_to(&self, target: &Target<'_>) -> io::Result<Vec<PathBuf>> {
        let place = target.root.find(target.path, true)?;
        let is_directory = self.found.is_directory();
        match &place.stat {
            Some(_) if place.is_directory() && is_directory && self.contents => {
                copy_children(self.open()?.as_fd(), target.open(&place)?.as_fd(), target.owner)
            }
            Some(_) if place.is_directory() => self.put(target.open(&place)?, &self.found.name, target),
            Some(_) if is_directory => Err(refused("cannot copy a directory to a file")),
            Some(_) if target.text.ends_with('/') => Err(refused("the destination is not a directory")),
            None if target.text.ends_with('/') && !is_directory => {
                Err(refused("the destination directory must exist"))
            }
            _ => self.put(place.directory, &place.name, target),
        }
    }

    fn put(&self, directory: OwnedFd, name: &OsStr, target: &Target<'_>) -> io::Result<Vec<PathBuf>> {
        let from: (_, &OsStr) = (self.found.directory.as_fd(), &self.found.name);
        copy_tree(from, (directory.as_fd(), name), target.owner)
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Where it goes.
struct Target<'a> {
    root: &'a Root,
    path: &'a Path,
    /// As typed.
    text: &'a str,
    owner: Option<(u32, u32)>,
}

impl Target<'_> {
    fn open(&self, place: &Found) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&place.directory, &place.name, flags, Mode::empty())?)
    }

    /// With all that is in a directory.
    fn fill(&self, from: &Path) -> io::Result<Vec<PathBuf>> {
        let place = self.root.find(self.path, true)?;
        if !place.is_directory() {
            return Err(refused("the destination of an archive must be a directory"));
        }
        let source: OwnedFd = std::fs::File::open(from)?.into();
        copy_children(source.as_fd(), self.open(&place)?.as_fd(), self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_a_path_is_no_service() {
        assert_eq!(in_container("web:/tmp"), Some(("web", "/tmp")));
        assert_eq!(in_container("web:"), Some(("web", "")));
        for local in ["/a:b", "./a:b", "../a:b", ":x", "plain", "-"] {
            assert_eq!(in_container(local), None, "{local}");
        }
    }
}
