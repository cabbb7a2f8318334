//! Volumes: `data/volumes/NAME/{volume.json,_data/}`.
//!
//! `volume.json` is a [`VolumeObserved`]. A named volume lives until it is removed by name; an
//! anonymous one (64 hex digits) goes with its container. What is in the image at the target
//! is copied into an empty volume by [`copy_tree`], called by the container's init between
//! mounting the root and mounting the volume.

use crate::home::{self, Home};
use crate::observed::VolumeObserved;
use crate::spec::VolumeSpec;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

/// The directory that is mounted.
pub fn data_dir(home: &Home, name: &str) -> PathBuf {
    home.volume(name).join("_data")
}

/// Makes the volume, or finds it as it is.
pub fn create(home: &Home, spec: &VolumeSpec, anonymous: bool) -> io::Result<VolumeObserved> {
    check_name(&spec.name)?;
    if let Some(existing) = inspect(home, &spec.name)? {
        return Ok(existing);
    }
    let _lock = home::lock(&home.volumes().join(".lock"))?;
    if let Some(existing) = inspect(home, &spec.name)? {
        return Ok(existing);
    }
    let volume = VolumeObserved {
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        driver_opts: spec.driver_opts.clone(),
        fingerprint: spec.fingerprint.clone(),
        created_at: jiff::Timestamp::now().to_string(),
        anonymous,
    };
    fs::create_dir_all(data_dir(home, &spec.name))?;
    // The record last: a volume without it does not exist yet.
    home::replace_json(&home.volume(&spec.name).join("volume.json"), &volume)?;
    Ok(volume)
}

/// All volumes by name.
pub fn list(home: &Home) -> io::Result<Vec<VolumeObserved>> {
    let entries = match fs::read_dir(home.volumes()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut volumes = Vec::new();
    for entry in entries {
        volumes.extend(home::read_json::<VolumeObserved>(&entry?.path().join("volume.json")).or_else(not_a_directory)?);
    }
    volumes.sort_by(|a: &VolumeObserved, b| a.name.cmp(&b.name));
    Ok(volumes)
}

fn not_a_directory(error: io::Error) -> io::Result<Option<VolumeObserved>> {
    match error.kind() {
        io::ErrorKind::NotADirectory => Ok(None),
        _ => Err(error),
    }
}

pub fn inspect(home: &Home, name: &str) -> io::Result<Option<VolumeObserved>> {
    check_name(name)?;
    home::read_json(&home.volume(name).join("volume.json"))
}

/// Removes a volume with its content; `false`: there was none. The caller knows that no
/// container refers to it.
pub fn remove(home: &Home, name: &str) -> io::Result<bool> {
    check_name(name)?;
    let _lock = home::lock(&home.volumes().join(".lock"))?;
    let directory = home.volume(name);
    if !directory.exists() {
        return Ok(false);
    }
    // The record first: cut in between, `create` starts afresh from what is left.
    match fs::remove_file(directory.join("volume.json")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::remove_dir_all(&directory)?;
    Ok(true)
}

/// A new anonymous volume's name.
pub fn anonymous_name() -> String {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).expect("the kernel's random source works after boot");
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Docker's rule for names; it also keeps them one path component.
fn check_name(name: &str) -> io::Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= 255 {
        return Ok(());
    }
    let message = format!("`{}` is not a valid volume name", name.chars().take(100).collect::<String>());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Copies what is in the directory `from` into the directory `to` with owner, mode, times,
/// extended attributes, links and device nodes. Follows no symbolic link. `to` itself gets
/// the owner and mode of `from`. Does nothing unless `to` is empty.
pub fn copy_tree(_from: BorrowedFd<'_>, _to: BorrowedFd<'_>) -> io::Result<bool> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
