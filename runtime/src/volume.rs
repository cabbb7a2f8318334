//! Volumes: `data/volumes/NAME/{volume.json,_data/}`.
//!
//! `volume.json` is a [`VolumeObserved`]. A named volume lives until it is removed by name; an
//! anonymous one (64 hex digits) goes with its container. What is in the image at the target
//! is copied into an empty volume by [`copy_tree`], called by the container's init between
//! mounting the root and mounting the volume.

pub mod local;

use crate::home::{self, Home};
use crate::observed::VolumeObserved;
use crate::snapshot::tree::{self, Attributes};
use crate::spec::VolumeSpec;
use rustix::fs::{self, AtFlags, FileType, Mode, Stat};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// The directory that is mounted.
pub fn data_dir(home: &Home, name: &str) -> PathBuf {
    home.volume(name).join("_data")
}

/// What a container mounts: the volume's directory, or what the options of its driver put in its place.
///
/// # Errors
/// `NotFound` with Docker's words, when there is no such directory or device.
pub fn place(home: &Home, name: &str) -> io::Result<local::Place> {
    let options = inspect(home, name)?.map(|volume| volume.driver_opts).unwrap_or_default();
    let place = local::place(data_dir(home, name), &options);
    let outside = match &place {
        local::Place::Directory { path, .. } => Some(path.clone()),
        local::Place::FileSystem { device, .. } => {
            Some(PathBuf::from(device)).filter(|path| path.is_absolute())
        }
    };
    match outside.filter(|path| !options.is_empty() && !path.exists()) {
        Some(path) => {
            let message =
                format!("failed to mount local volume {name}: {}: no such file or directory", path.display());
            Err(io::Error::new(io::ErrorKind::NotFound, message))
        }
        None => Ok(place),
    }
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
    std::fs::create_dir_all(data_dir(home, &spec.name))?;
    // The record last: a volume without it does not exist yet.
    home::replace_json(&home.volume(&spec.name).join("volume.json"), &volume)?;
    Ok(volume)
}

/// All volumes by name.
pub fn list(home: &Home) -> io::Result<Vec<VolumeObserved>> {
    let entries = match std::fs::read_dir(home.volumes()) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut volumes = Vec::new();
    for entry in entries {
        volumes.extend(
            home::read_json::<VolumeObserved>(&entry?.path().join("volume.json")).or_else(not_a_directory)?,
        );
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
    match std::fs::remove_file(directory.join("volume.json")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    std::fs::remove_dir_all(&directory)?;
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
/// extended attributes, links and device nodes. Follows no symbolic link and stays in the
/// mounted file system. `to` itself gets the attributes of `from`. Does nothing unless `to`
/// is empty, and says whether it copied.
///
/// Needs nothing but the two descriptors (which must be readable), so that a container's init
/// can call it before `/proc` is there.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<bool> {
    if !tree::names(to)?.is_empty() {
        return Ok(false);
    }
    let stat = fs::fstat(from)?;
    let mut copier = Copier { device: stat.st_dev, linked: HashMap::new() };
    copier.content(from, to)?;
    tree::apply(to, &Attributes::of(&stat, tree::xattrs_of(from)?))?;
    Ok(true)
}

struct Copier {
    device: u64,
    /// Inodes with several names: where the first copy is.
    linked: HashMap<(u64, u64), (OwnedFd, CString)>,
}

impl Copier {
    fn content(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        for name in tree::names(from)? {
            match tree::stat(from, &name)? {
                // Gone in between, or a mark of overlayfs that a merged view never shows.
                None => {}
                Some(stat) if tree::is_whiteout(&stat) => {}
                Some(stat) => self.entry(from, to, &name, &stat).map_err(|e| named(&name, e))?,
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        match tree::kind(stat) {
            FileType::Directory => self.directory(from, to, name, stat),
            FileType::Socket => Ok(()),
            _ if self.link(to, name, stat)? => Ok(()),
            FileType::RegularFile => file(from, to, name, stat),
            _ => special(from, to, name, stat),
        }
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        fs::mkdirat(to, name, Mode::RWXU)?;
        let (source, target) = (tree::open_directory(from, name)?, tree::open_directory(to, name)?);
        // Overlayfs gives files of different layers different devices, but directories its own.
        if stat.st_dev == self.device {
            self.content(source.as_fd(), target.as_fd())?;
        }
        tree::apply(&target, &Attributes::of(stat, tree::xattrs_of(&source)?))
    }

    fn link(&mut self, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        if let Some((directory, first)) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
            fs::linkat(directory, first, to, name, AtFlags::empty())?;
            return Ok(true);
        }
        self.linked.insert((stat.st_dev, stat.st_ino), (to.try_clone_to_owned()?, name.to_owned()));
        Ok(false)
    }
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let mut source = File::from(tree::open_file(from, name)?);
    let mut target = File::from(tree::create_file(to, name)?);
    io::copy(&mut source, &mut target)?;
    tree::apply(&target, &Attributes::of(stat, tree::xattrs_of(&source)?))
}

fn special(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let kind = tree::kind(stat);
    match kind {
        FileType::Symlink => fs::symlinkat(fs::readlinkat(from, name, Vec::new())?, to, name)?,
        _ => fs::mknodat(to, name, kind, Mode::empty(), stat.st_rdev)?,
    }
    // Links and devices hardly ever have attributes, and without /proc they cannot be read.
    tree::apply_at(to, name, &Attributes::of(stat, Vec::new()), kind == FileType::Symlink)
}

fn named(name: &CStr, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn home() -> (tempfile::TempDir, Home) {
        let root = tempfile::tempdir().unwrap();
        let home = Home { data: root.path().join("data"), run: root.path().join("run") };
        (root, home)
    }

    fn spec(name: &str) -> VolumeSpec {
        VolumeSpec { name: name.into(), fingerprint: "f".into(), ..Default::default() }
    }

    #[test]
    fn life_of_a_volume() {
        let (_root, home) = home();
        assert!(list(&home).unwrap().is_empty());
        let made = create(&home, &spec("shop_data"), false).unwrap();
        assert_eq!(create(&home, &spec("shop_data"), false).unwrap(), made);
        let mode = data_dir(&home, "shop_data").metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);
        create(&home, &spec(&anonymous_name()), true).unwrap();
        assert_eq!(list(&home).unwrap().iter().filter(|v| v.anonymous).count(), 1);
        assert!(remove(&home, "shop_data").unwrap());
        assert!(!remove(&home, "shop_data").unwrap());
        assert_eq!(inspect(&home, "shop_data").unwrap(), None);
        assert_eq!(list(&home).unwrap().len(), 1);
    }

    #[test]
    fn names_stay_inside() {
        let (_root, home) = home();
        for name in ["", "..", "a/b", "/a", ".lock", "a b", "-a"] {
            assert!(create(&home, &spec(name), false).is_err(), "{name}");
            assert!(remove(&home, name).is_err(), "{name}");
        }
        assert_eq!(anonymous_name().len(), 64);
    }

    fn copy(from: &Path, to: &Path) -> io::Result<bool> {
        copy_tree(File::open(from)?.as_fd(), File::open(to)?.as_fd())
    }

    #[test]
    fn copies_everything_once() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("sub/file"), "abc").unwrap();
        std::fs::set_permissions(from.join("sub/file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o1777)).unwrap();
        std::fs::hard_link(from.join("sub/file"), from.join("zlink")).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        rustix::fs::setxattr(from.join("sub"), "user.k", b"v", rustix::fs::XattrFlags::empty()).unwrap();

        assert!(copy(&from, &to).unwrap());
        assert_eq!(std::fs::read(to.join("zlink")).unwrap(), b"abc");
        let (file, link) = (to.join("sub/file").metadata().unwrap(), to.join("zlink").metadata().unwrap());
        assert_eq!((file.ino(), file.mode() & 0o7777), (link.ino(), 0o640));
        assert_eq!(file.mtime(), from.join("sub/file").metadata().unwrap().mtime());
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(to.metadata().unwrap().mode() & 0o7777, 0o1777);
        let mut value = [0; 8];
        assert_eq!(rustix::fs::getxattr(to.join("sub"), "user.k", &mut value[..]).unwrap(), 1);
        // Not empty any more.
        assert!(!copy(&from, &to).unwrap());
    }
}
