//! The mounts of a container, in the order in which they are made: the system's, then the user's by depth.
//!
//! A mount of the user replaces the system's mount at the same path.

use super::Extras;
use crate::launch::LaunchRequest;
use crate::spec::{ContainerSpec, MountKindSpec, MountSpec, NamespaceMode};
use oci_spec::runtime::{Mount, MountBuilder};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// Docker's size of `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

/// A file whose content the order brings along.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContentFile {
    pub target: String,
    pub content: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Layers of another image, mounted read-only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageMount {
    pub target: String,
    /// Top first.
    pub lower_dirs: Vec<PathBuf>,
    pub subpath: Option<String>,
}

/// A volume that gets what the image has at its path while it is empty.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CopyUp {
    pub target: String,
    pub volume: PathBuf,
}

/// All mounts but the root; what OCI has no word for goes to `extras`.
pub(super) fn resolve(request: &LaunchRequest, extras: &mut Extras) -> Result<Vec<Mount>, String> {
    let spec = &request.spec;
    let mut own = Vec::new();
    for mount in &spec.mounts {
        own.extend(user_mount(mount, request, extras)?);
    }
    own.sort_by_key(|mount| depth(mount.destination()));
    let mut mounts = system_mounts(spec);
    mounts.retain(|system| !own.iter().any(|mount| mount.destination() == system.destination()));
    mounts.extend(own);
    Ok(mounts)
}

fn system_mounts(spec: &ContainerSpec) -> Vec<Mount> {
    let sys = if spec.privileged { "rw" } else { "ro" };
    let writable_groups = spec.security_opt.iter().any(|option| option == "writable-cgroups=true");
    let groups = if spec.privileged || writable_groups { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", groups]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    if !matches!(spec.ipc_mode, NamespaceMode::Host | NamespaceMode::Container(_)) {
        let bytes = spec.shm_size.filter(|bytes| *bytes > 0).unwrap_or(SHM_BYTES);
        let size = format!("size={bytes}");
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    if spec.ipc_mode == NamespaceMode::Host {
        mounts.push(mount("/dev/shm", "bind", "/dev/shm", &["bind", "nosuid", "noexec", "nodev"]));
    }
    mounts
}

fn user_mount(
    mount: &MountSpec,
    request: &LaunchRequest,
    extras: &mut Extras,
) -> Result<Option<Mount>, String> {
    let target = mount.target.as_str();
    if !target.starts_with('/') || clean(Path::new(target)) == Path::new("/") {
        return Err(format!("invalid mount path {target:?}: it must be absolute and not the root"));
    }
    match &mount.kind {
        MountKindSpec::Bind { source, create, propagation, recursive } => {
            if *create && !source.exists() {
                std::fs::create_dir_all(source)
                    .map_err(|e| format!("cannot make the bind source {}: {e}", source.display()))?;
            }
            bind(source, mount, propagation.as_deref(), recursive.as_deref()).map(Some)
        }
        MountKindSpec::Directory { source } => bind(source, mount, None, None).map(Some),
        MountKindSpec::Volume { name, nocopy, subpath, .. } => {
            let volume =
                request.volumes.get(target).ok_or_else(|| format!("volume {name} has no directory"))?;
            volume_mount(volume, mount, *nocopy, subpath.as_deref(), extras).map(Some)
        }
        MountKindSpec::Tmpfs { size, mode, options } => Ok(Some(tmpfs(mount, *size, *mode, options))),
        MountKindSpec::FileSystem { kind, device, options } => {
            let options = options.iter().map(String::as_str).chain(mount.read_only.then_some("ro"));
            let options: Vec<&str> = options.collect();
            Ok(Some(self::mount(target, kind, device, &options)))
        }
        MountKindSpec::Content { content, mode, uid, gid } => {
            let (content, target) = (content.clone(), target.to_owned());
            extras.contents.push(ContentFile { target, content, mode: *mode, uid: *uid, gid: *gid });
            Ok(None)
        }
        MountKindSpec::Image { subpath, .. } => {
            let lower_dirs = request.images.get(target).cloned().unwrap_or_default();
            extras.images.push(ImageMount {
                target: target.to_owned(),
                lower_dirs,
                subpath: subpath.clone(),
            });
            Ok(None)
        }
    }
}

fn bind(
    source: &Path,
    mount_spec: &MountSpec,
    propagation: Option<&str>,
    recursive: Option<&str>,
) -> Result<Mount, String> {
    if !source.exists() {
        return Err(format!("bind source path does not exist: {}", source.display()));
    }
    let propagation = propagation.filter(|word| !word.is_empty()).unwrap_or("rprivate");
    check_propagation(source, propagation)?;
    let (kind, access) = match recursive {
        Some("disabled") => ("bind", access(mount_spec)),
        Some(word @ ("writable" | "readonly")) if !mount_spec.read_only => {
            return Err(format!(
                "option 'bind-recursive={word}' requires 'readonly' to be specified in conjunction"
            ));
        }
        Some("readonly") if propagation != "rprivate" => {
            return Err("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate'".into());
        }
        Some("writable") => ("rbind", access(mount_spec)),
        _ => ("rbind", access_to_all(mount_spec)),
    };
    Ok(mount(&mount_spec.target, "bind", source, &[kind, propagation, access]))
}

/// What is mounted later is passed on only by a mount that itself takes part in that.
fn check_propagation(source: &Path, propagation: &str) -> Result<(), String> {
    let (needs_shared, wanted) = match propagation {
        "shared" | "rshared" => (true, "a shared mount"),
        "slave" | "rslave" => (false, "a shared or slave mount"),
        _ => return Ok(()),
    };
    let source = source.canonicalize().map_err(|e| format!("{}: {e}", source.display()))?;
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").map_err(|e| e.to_string())?;
    let rows = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        Some((Path::new(*fields.get(4)?), fields.get(6..)?.to_vec()))
    });
    // Of several at one place the last one is seen.
    let holder = rows
        .filter(|(point, _)| source.starts_with(point))
        .max_by_key(|(point, _)| point.components().count());
    let Some((point, marks)) = holder.map(|(point, marks)| (point.to_owned(), marks)) else { return Ok(()) };
    let marks: Vec<&str> = marks.into_iter().take_while(|mark| *mark != "-").collect();
    let has = |kind: &str| marks.iter().any(|mark| mark.starts_with(kind));
    match has("shared:") || (!needs_shared && has("master:")) {
        true => Ok(()),
        false => {
            let (source, point) = (source.display(), point.display());
            Err(format!("path {source} is mounted on {point} but it is not {wanted}"))
        }
    }
}

fn volume_mount(
    volume: &Path,
    mount_spec: &MountSpec,
    nocopy: bool,
    subpath: Option<&str>,
    extras: &mut Extras,
) -> Result<Mount, String> {
    let source = match subpath {
        None => volume.to_owned(),
        Some(inner) if Path::new(inner).components().all(|part| matches!(part, Component::Normal(_))) => {
            volume.join(inner)
        }
        Some(inner) => {
            return Err(format!("{inner:?}: subpath must be a relative path within the volume"));
        }
    };
    if !nocopy && subpath.is_none() {
        extras.copy_ups.push(CopyUp { target: mount_spec.target.clone(), volume: volume.to_owned() });
    }
    let options = ["rbind", "rprivate", access_to_all(mount_spec)];
    let inside = subpath.map(|_| format!("inside={}", volume.display()));
    let options: Vec<&str> = options.into_iter().chain(inside.as_deref()).collect();
    Ok(mount(&mount_spec.target, "bind", source, &options))
}

fn tmpfs(mount_spec: &MountSpec, size: Option<u64>, mode: Option<u32>, options: &str) -> Mount {
    let mut all: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    all.push(access(mount_spec).to_owned());
    // Without one it is the mode of what is covered, else 1777.
    all.extend(mode.map(|mode| format!("mode={mode:o}")));
    all.extend(size.map(|bytes| format!("size={bytes}")));
    all.extend(options.split(',').filter(|option| !option.is_empty()).map(str::to_owned));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    mount(&mount_spec.target, "tmpfs", "tmpfs", &all)
}

fn access(mount: &MountSpec) -> &'static str {
    if mount.read_only { "ro" } else { "rw" }
}

/// As Docker does it: what is mounted below is read-only too.
fn access_to_all(mount: &MountSpec) -> &'static str {
    if mount.read_only { "rro" } else { "rw" }
}

fn mount(target: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    MountBuilder::default()
        .destination(clean(Path::new(target)))
        .typ(kind)
        .source(source.as_ref())
        .options(options)
        .build()
        .expect("no field is required")
}

/// Without `.`, `..`, doubled and trailing slashes, by the text alone.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

fn depth(path: &Path) -> usize {
    path.components().count()
}
