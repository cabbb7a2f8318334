//! Creating a container: a directory that is complete before anybody sees it.
//!
//! ```text
//! containers/.ID/          made here: upper, work, config.json
//! names/NAME → ID          taken; a conflict undoes the above
//! containers/.ID → ID      and with that the container exists
//! ```

use super::record::{self, ContainerDir, ContainerRecord};
use super::{journal, names};
use stack_runtime::engine::{EngineError, ErrorKind, Result};
use stack_runtime::home::{self, Home};
use stack_runtime::image::Store;
use stack_runtime::spec::{ContainerSpec, MountKindSpec, NetworkMode, VolumeSpec};
use stack_runtime::{snapshot, volume};
use std::fs;
use std::io;
use std::path::Path;

/// Returns the id.
///
/// # Errors
/// `Conflict` when the project has a container of that name.
pub(super) fn create(home: &Home, project: &str, spec: ContainerSpec) -> Result<String> {
    let (id, name) = (new_id(), spec.name.clone());
    let hidden = names::making(home, project, &id);
    let wanted = spec.clone();
    let made = make(home, project, &id, spec, &hidden);
    match made
        .map_err(|e| EngineError::new(ErrorKind::Other, format!("failed to create container {name}: {e}")))
    {
        Ok(Ok(())) => {
            journal::note_of(home, project, &id, &wanted, "create", &[]);
            Ok(id)
        }
        Ok(Err(holder)) => Err(abandon(home, project, &name, &id, &hidden, name_taken(&name, &holder))),
        Err(e) => Err(abandon(home, project, &name, &id, &hidden, e)),
    }
}

pub(super) fn name_taken(name: &str, holder: &str) -> EngineError {
    let short = holder.get(..12).unwrap_or(holder);
    EngineError::new(ErrorKind::Conflict, format!("the container name {name} is in use by container {short}"))
        .hint("Remove or rename that container.")
}

fn make(
    home: &Home,
    project: &str,
    id: &str,
    spec: ContainerSpec,
    hidden: &Path,
) -> io::Result<std::result::Result<(), String>> {
    fs::create_dir_all(hidden)?;
    let making = home::lock(&hidden.join(names::MAKING))?;
    if let Err(holder) = names::take(home, project, &spec.name, id)? {
        return Ok(Err(holder));
    }
    let spec = completed(home, id, spec)?;
    let store = Store::open(home)?;
    // A prune that begins after this sees the record; one before it is waited for, and prepare tells what it took.
    let _lease = store.lease()?;
    store.note_use(&spec.image_id);
    snapshot::prepare(&store, &spec.chain_id, hidden)?.keep();
    let created_at = jiff::Timestamp::now().to_string();
    let record =
        ContainerRecord { format: record::FORMAT, id: id.into(), project: project.into(), created_at, spec };
    let dir = ContainerDir::at(hidden.to_owned());
    if record.spec.auto_remove {
        dir.write_creator()?;
    }
    dir.write_record(&record)?;
    fs::rename(hidden, home.container(project, id))?;
    fs::remove_file(home.container(project, id).join(names::MAKING))?;
    drop(making);
    Ok(Ok(()))
}

/// What only the id can tell: a host name, an alias, the anonymous volumes.
fn completed(home: &Home, id: &str, mut spec: ContainerSpec) -> io::Result<ContainerSpec> {
    let short = &id[..12];
    if let NetworkMode::Bridge(endpoints) = &mut spec.network {
        for endpoint in endpoints {
            endpoint.aliases.push(short.into());
        }
    }
    let has_own_name =
        !spec.uts_host && !matches!(spec.network, NetworkMode::Host | NetworkMode::Container(_));
    if spec.hostname.is_none() && has_own_name {
        spec.hostname = Some(short.into());
    }
    if let Some(tag) = spec.logging.attrs.get("tag") {
        let tag = tag_of(tag, id, &spec);
        spec.logging.attrs.insert("tag".into(), tag);
    }
    for mount in &mut spec.mounts {
        if let MountKindSpec::Volume { name, anonymous: true, .. } = &mut mount.kind {
            if name.is_empty() {
                *name = volume::anonymous_name();
            }
            volume::create(home, &VolumeSpec { name: name.clone(), ..Default::default() }, true)?;
        }
    }
    Ok(spec)
}

/// A tag of log entries: Docker's template with what is known of the container.
fn tag_of(template: &str, id: &str, spec: &ContainerSpec) -> String {
    let image_id = spec.image_id.trim_start_matches("sha256:");
    let values = [
        ("Name", spec.name.as_str()),
        ("ID", &id[..12]),
        ("FullID", id),
        ("ImageName", &spec.image),
        ("ImageID", image_id.get(..12).unwrap_or(image_id)),
        ("ImageFullID", &spec.image_id),
        ("DaemonName", "stack"),
    ];
    values
        .iter()
        .fold(template.to_owned(), |text, (key, value)| text.replace(&format!("{{{{.{key}}}}}"), value))
}

/// The failure that led here is the one to tell; what cannot be undone now is swept later.
fn abandon(
    home: &Home,
    project: &str,
    name: &str,
    id: &str,
    hidden: &Path,
    error: EngineError,
) -> EngineError {
    let _ = names::free(home, project, name, id);
    let _ = fs::remove_dir_all(hidden);
    error
}

fn new_id() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).expect("the kernel's random source works after boot");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
