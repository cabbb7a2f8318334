//! What is mounted: the service's volumes, tmpfs, secrets and configs, then those of other containers
//! (`volumes_from`) and the image's VOLUMEs where nothing is.

use super::{Around, ImageView, borrowed};
use crate::plan::step::Creation;
use stack_runtime::spec::{MountKindSpec, MountSpec};
use stack_runtime::volume::anonymous_name;
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{FileContent, FileObject, Grant, Mount, MountKind, Project};

type Result<T> = std::result::Result<T, Diagnostic>;

pub(super) fn mounts(
    project: &Project,
    creation: &Creation,
    image: &ImageView,
    around: &dyn Around,
) -> Result<Vec<MountSpec>> {
    let service = &creation.service;
    let mut mounts = Vec::new();
    for mount in &service.volumes {
        mounts.push(written(project, creation, mount, around)?);
    }
    mounts.extend(service.tmpfs.iter().map(|(target, options)| tmpfs(target, options)));
    for grant in &service.secrets {
        mounts.push(granted(project.secrets.get(&grant.source), grant, "secret")?);
    }
    for grant in &service.configs {
        mounts.push(granted(project.configs.get(&grant.source), grant, "config")?);
    }
    mounts.extend(borrowed::mounts(project, service, &mounts, around)?);
    let declared = image.config.volumes.iter().map(|target| clean(target));
    let missing: Vec<String> = declared.filter(|t| !mounts.iter().any(|m| clean(&m.target) == *t)).collect();
    mounts.extend(missing.iter().map(|target| anonymous(creation, target, false, false)));
    mounts.sort_by_key(|m| clean(&m.target).matches('/').count());
    Ok(mounts)
}

fn written(project: &Project, creation: &Creation, mount: &Mount, around: &dyn Around) -> Result<MountSpec> {
    let source = mount.source.clone().unwrap_or_default();
    let kind = match mount.kind {
        MountKind::Bind => {
            let propagation = mount.propagation.clone();
            let (create, recursive) = (mount.create_host_path, mount.recursive.clone());
            MountKindSpec::Bind { source: source.into(), create, propagation, recursive }
        }
        MountKind::Volume if source.is_empty() => {
            return Ok(anonymous(creation, &mount.target, mount.read_only, mount.nocopy));
        }
        MountKind::Volume => {
            let name = project.volumes.get(&source).map_or(source, |v| v.name.clone());
            let (nocopy, subpath) = (mount.nocopy, mount.subpath.clone());
            MountKindSpec::Volume { name, nocopy, subpath, anonymous: false }
        }
        MountKind::Tmpfs => {
            let size = mount.tmpfs_size.and_then(|size| u64::try_from(size.0).ok());
            MountKindSpec::Tmpfs { size, mode: mount.tmpfs_mode, options: String::new() }
        }
        MountKind::Image => {
            let missing =
                || Diagnostic::error(format!("image {source} to mount at {} not found", mount.target));
            let chain_id = around.image(&source).ok_or_else(missing)?;
            MountKindSpec::Image { chain_id, subpath: mount.subpath.clone() }
        }
    };
    Ok(MountSpec { kind, target: mount.target.clone(), read_only: mount.read_only })
}

/// Taken over from the replaced container where it had one at the same place.
fn anonymous(creation: &Creation, target: &str, read_only: bool, nocopy: bool) -> MountSpec {
    let inherited = creation.inherited.iter().find(|(old, _)| clean(old) == clean(target));
    let name = inherited.map_or_else(anonymous_name, |(_, name)| name.clone());
    let kind = MountKindSpec::Volume { name, nocopy, subpath: None, anonymous: true };
    MountSpec { kind, target: target.to_string(), read_only }
}

fn tmpfs(target: &str, options: &str) -> MountSpec {
    let kind = MountKindSpec::Tmpfs { size: None, mode: None, options: options.to_string() };
    let read_only = options.split(',').any(|option| option == "ro");
    MountSpec { kind, target: target.to_string(), read_only }
}

/// A file of the host is bound as it is; text is placed as a file with the granted owner and mode.
fn granted(object: Option<&FileObject>, grant: &Grant, what: &str) -> Result<MountSpec> {
    let refuse = |why: &str| Err(Diagnostic::error(format!("{what} {:?} {why}", grant.source)));
    let kind = match object.map(|o| &o.content) {
        None => return refuse("is not defined"),
        Some(FileContent::External) => {
            return refuse("is external, which needs a store that stack does not have");
        }
        Some(FileContent::Unset(variable)) => {
            return refuse(&format!("comes from the variable {variable}, which is not set"));
        }
        Some(FileContent::File(path)) => {
            MountKindSpec::Bind { source: path.clone(), create: false, propagation: None, recursive: None }
        }
        Some(FileContent::Inline(content)) => {
            let number = |id: &Option<String>| id.as_deref().and_then(|id| id.parse().ok()).unwrap_or(0);
            let (uid, gid) = (number(&grant.uid), number(&grant.gid));
            MountKindSpec::Content { content: content.clone(), mode: grant.mode.unwrap_or(0o444), uid, gid }
        }
    };
    Ok(MountSpec { kind, target: grant.target.clone(), read_only: true })
}

/// Without a trailing slash, so that `/data/` and `/data` are the same place.
fn clean(target: &str) -> String {
    let trimmed = target.trim_end_matches('/');
    if trimmed.is_empty() { "/".into() } else { trimmed.to_string() }
}
