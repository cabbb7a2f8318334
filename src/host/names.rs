//! Names of containers, unique in a project: `data/stacks/PROJECT/names/NAME` is a symbolic link to the id.
//!
//! A link whose container does not exist, or has another name, was left by a command that was cut off, and is replaced.
//! All changes are made under `names/.lock`.

use super::record::ContainerDir;
use stack_runtime::home::{self, Home};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

fn dir(home: &Home, project: &str) -> PathBuf {
    home.stack(project).join("names")
}

/// Held by whoever makes a container, in the directory that it is made in.
pub const MAKING: &str = "making";

fn lock(home: &Home, project: &str) -> io::Result<home::Lock> {
    let dir = dir(home, project);
    fs::create_dir_all(&dir)?;
    home::lock(&dir.join(".lock"))
}

/// Gives the name to the container; `Err` with the id of the one that has it.
pub fn take(home: &Home, project: &str, name: &str, id: &str) -> io::Result<Result<(), String>> {
    let _lock = lock(home, project)?;
    link(home, project, name, id)
}

fn link(home: &Home, project: &str, name: &str, id: &str) -> io::Result<Result<(), String>> {
    check(name)?;
    match holder(home, project, name)? {
        Some(holder) if holder != id => return Ok(Err(holder)),
        Some(_) => return Ok(Ok(())),
        None => {}
    }
    let link = dir(home, project).join(name);
    match fs::remove_file(&link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(id, link).map(Ok)
}

/// Gives the name back, if the container has it.
pub fn free(home: &Home, project: &str, name: &str, id: &str) -> io::Result<()> {
    let link = dir(home, project).join(name);
    match fs::read_link(&link) {
        Ok(holder) if holder.as_os_str() == id => match fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The container that has the name.
pub fn holder(home: &Home, project: &str, name: &str) -> io::Result<Option<String>> {
    let Ok(target) = fs::read_link(dir(home, project).join(name)) else { return Ok(None) };
    let Some(id) = target.to_str() else { return Ok(None) };
    // One that is being made has its name already, but no record yet.
    let is_being_made = is_being_made(home, project, id)?;
    let record = ContainerDir::new(home, project, id).record()?;
    let is_its_own = record.is_some_and(|record| record.spec.name == name);
    Ok((is_being_made || is_its_own).then(|| id.into()))
}

fn is_being_made(home: &Home, project: &str, id: &str) -> io::Result<bool> {
    is_held(&making(home, project, id))
}

/// The maker holds a lock in the hidden directory; one that died does not.
pub fn is_held(hidden: &Path) -> io::Result<bool> {
    let lock = hidden.join(MAKING);
    Ok(lock.exists() && home::try_lock(&lock)?.is_none())
}

/// Where a container is made, until it is complete.
pub fn making(home: &Home, project: &str, id: &str) -> PathBuf {
    home.containers(project).join(format!(".{id}"))
}

/// Changes a container's name and record; `Err` with the id of the one that has the name.
pub fn rename(home: &Home, project: &str, id: &str, name: &str) -> io::Result<Result<(), String>> {
    let container = ContainerDir::new(home, project, id);
    let Some(mut record) = container.record()? else { return Err(io::ErrorKind::NotFound.into()) };
    let old = std::mem::replace(&mut record.spec.name, name.into());
    if old == name {
        return Ok(Ok(()));
    }
    {
        // The record changes under the same lock: in between, the new name would look left over.
        let _lock = lock(home, project)?;
        if let Err(holder) = link(home, project, name, id)? {
            return Ok(Err(holder));
        }
        container.write_record(&record)?;
    }
    free(home, project, &old, id)?;
    Ok(Ok(()))
}

/// Docker's rule; it also keeps a name one path component that is no lock.
fn check(name: &str) -> io::Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= 255 {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{shown}` is not a valid container name")))
}
