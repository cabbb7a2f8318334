//! Mounts, devices and files inside the new root. Targets are resolved inside it, see [`super::path`].

use super::options::{self, Attributes, Options};
use super::path::{self, Kind};
use super::{Context, Note, root};
use crate::container::{ContentFile, ImageMount};
use crate::sys::mount::{NO_DEV, NO_EXEC, NO_SUID, READ_ONLY, set_attributes, set_propagation};
use crate::sys::user_namespace::{is_initial, is_single_id};
use crate::volume::copy_tree;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, makedev, mknodat, openat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(super) fn mount(context: &mut Context<'_>, index: usize, mount: &Mount) -> io::Result<()> {
    let options = options::parse(mount.options().as_deref().unwrap_or_default());
    let source = mount.source().as_deref().unwrap_or(Path::new("none"));
    let target = mount.destination();
    let tree =
        context.trees.iter().position(|(at, _)| *at == index).map(|at| context.trees.swap_remove(at).1);
    match (tree, mount.typ().as_deref()) {
        (Some(tree), _) => attach_bind(context, &tree, target, &options),
        (None, _) if options.remount => change(&path::open(context.root()?, target, OFlags::PATH)?, &options),
        (None, Some("bind")) => bind(context, source, target, &options),
        (None, _) if options.bind => bind(context, source, target, &options),
        (None, Some("cgroup" | "cgroup2")) => control_groups(context, target, &options),
        (None, Some(kind)) => match shared(&options)? {
            Some(tree) => {
                // Whether it may be written here is no business of who has it already.
                set_attributes(&tree, 0, READ_ONLY, false)?;
                change(&tree, &options)?;
                attach(context, &tree, target, Kind::Directory)
            }
            None => attach_new(context, kind, source, target, &options),
        },
        (None, None) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no type")),
    }
}

/// A new file system at its place.
fn attach_new(
    context: &Context<'_>,
    kind: &str,
    source: &Path,
    target: &Path,
    options: &Options,
) -> io::Result<()> {
    let covered = path::open(context.root()?, target, OFlags::RDONLY | OFlags::DIRECTORY).ok();
    if matches!(kind, "proc" | "sysfs") {
        refuse_link(context, target)?;
    }
    if covered.is_none() && kind == "tmpfs" {
        // At the next start it is covered, and must not look like a choice of the image.
        let made = path::make(context.root()?, target, Kind::Directory)?;
        std::fs::set_permissions(
            format!("/proc/thread-self/fd/{}", made.as_raw_fd()),
            std::fs::Permissions::from_mode(0o1777),
        )?;
    }
    let mode = covered.as_ref().map(rustix::fs::fstat).transpose()?.map(|stat| stat.st_mode & 0o7777);
    let tree = match file_system(kind, source, options, mode.filter(|_| kind == "tmpfs")) {
        // Only who owns the network namespace may mount a new one.
        Err(e) if kind == "sysfs" && e.kind() == io::ErrorKind::PermissionDenied => {
            let all = Options { all: options.own, recursive: true, ..Options::default() };
            return bind(context, Path::new("/sys"), target, &all);
        }
        tree => tree?,
    };
    if let Some(covered) = covered.filter(|_| options.copy_up) {
        let inner = openat(&tree, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        copy_tree(covered.as_fd(), inner.as_fd())?;
    }
    spread(&tree, options)?;
    attach(context, &tree, target, Kind::Directory)
}

/// A link would put the kernel's files where nobody looks for them.
fn refuse_link(context: &Context<'_>, target: &Path) -> io::Result<()> {
    match path::open(context.root()?, target, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(fd) if path::file_type(&fd)? == FileType::Directory => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::other("must be mounted on ordinary directory")),
    }
}

/// A detached new file system. A tmpfs is made read-only later, when all is in it that shall be.
fn file_system(kind: &str, source: &Path, options: &Options, mode: Option<u32>) -> io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", source)?;
    let has_mode = options.data.iter().any(|(key, _)| key == "mode");
    if let Some(mode) = mode.filter(|_| !has_mode) {
        fsconfig_set_string(&fs, "mode", format!("{mode:o}"))?;
    }
    // With a single id the group of terminals is not mapped.
    let is_unmapped = |key: &str| kind == "devpts" && key == "gid" && is_single_id();
    for (key, value) in options.data.iter().filter(|(key, _)| !is_unmapped(key)) {
        let set = match value {
            Some(value) => fsconfig_set_string(&fs, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&fs, key.as_str()),
        };
        set.map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("option {key}: {}", io::Error::from(e)))
        })?;
    }
    fsconfig_create(&fs)?;
    let tree = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let writable = if kind == "tmpfs" { !READ_ONLY } else { !0 };
    let own = Attributes { set: options.own.set & writable, ..options.own };
    let all = Attributes { set: options.all.set & writable, ..options.all };
    change(&tree, &Options { own, all, ..Options::default() })?;
    Ok(tree)
}

fn change(mount: &OwnedFd, options: &Options) -> io::Result<()> {
    for (attributes, recursive) in [(options.own, false), (options.all, true)] {
        if !attributes.is_empty() {
            // The kernel wants a new time mode to come with all the old one's bits cleared.
            let changes_time = (attributes.set | attributes.clear) & libc::MOUNT_ATTR__ATIME != 0;
            let time = if changes_time { libc::MOUNT_ATTR__ATIME } else { 0 };
            set_attributes(mount, attributes.set, attributes.clear | time, recursive)?;
        }
    }
    Ok(())
}

fn spread(mount: &OwnedFd, options: &Options) -> io::Result<()> {
    options.propagation.iter().try_for_each(|p| set_propagation(mount, p.flag, p.recursive))
}

fn attach(context: &Context<'_>, tree: &OwnedFd, target: &Path, kind: Kind) -> io::Result<()> {
    let target = path::make(context.root()?, target, kind)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", target, "", flags)?)
}

fn bind(context: &Context<'_>, source: &Path, target: &Path, options: &Options) -> io::Result<()> {
    attach_bind(context, &bind_tree(source, options)?, target, options)
}

/// A detached copy of what is at `source`.
fn bind_tree(source: &Path, options: &Options) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let Some(dir) = &options.inside else { return Ok(open_tree(CWD, source, flags)?) };
    let inner = source.strip_prefix(dir).map_err(|_| Errno::INVAL)?;
    let dir = File::open(dir)?;
    let source = path::open(&dir, inner, OFlags::PATH)?;
    Ok(open_tree(source, "", flags | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// The tree of a bind mount before there is an init: of files that its user namespace may not reach, and for
/// those that are shown with other owners.
pub(crate) fn prepare_bind(mount: &Mount) -> io::Result<OwnedFd> {
    let options = options::parse(mount.options().as_deref().unwrap_or_default());
    bind_tree(mount.source().as_deref().unwrap_or(Path::new("none")), &options)
}

/// Whether the options make it one, whatever its type.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || options::parse(mount.options().as_deref().unwrap_or_default()).bind
}

fn attach_bind(context: &Context<'_>, tree: &OwnedFd, target: &Path, options: &Options) -> io::Result<()> {
    for (word, _) in &options.data {
        context.warn(format!("the bind mount at {} has no use for the option {word:?}", target.display()));
    }
    change(tree, options)?;
    let kind = if path::file_type(tree)? == FileType::Directory { Kind::Directory } else { Kind::File };
    if options.propagation.is_empty() {
        set_propagation(tree, libc::MS_PRIVATE, options.recursive)?;
    }
    spread(tree, options)?;
    attach(context, tree, target, kind)
}

/// Version 2: a mount of the namespace's own view. Version 1: a directory per controller with the
/// container's group as its root.
fn control_groups(context: &Context<'_>, target: &Path, options: &Options) -> io::Result<()> {
    let groups = context.group.legacy();
    if groups.is_empty() {
        let kind = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "cgroup2" } else { "tmpfs" };
        let plain = Options { own: options.own, all: options.all, ..Options::default() };
        return match file_system(kind, Path::new("cgroup"), &plain, None) {
            // Without a namespace of its own there is one instance, which others have mounted.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EBUSY)) => {
                let dir = context.group.unified_dir().unwrap_or(Path::new("/sys/fs/cgroup"));
                bind(context, dir, target, &plain)
            }
            tree => attach(context, &tree?, target, Kind::Directory),
        };
    }
    let outer = Attributes { set: NO_SUID | NO_DEV | NO_EXEC, clear: 0 };
    let outer = Options { own: outer, ..Options::default() };
    attach(
        context,
        &file_system("tmpfs", Path::new("tmpfs"), &outer, Some(0o755))?,
        target,
        Kind::Directory,
    )?;
    let unified = context.group.unified_dir().map(|dir| ("unified", dir));
    for (name, dir) in groups.iter().map(|(name, dir)| (name.as_str(), dir.as_path())).chain(unified) {
        let plain = Options { own: options.own, ..Options::default() };
        bind(context, dir, &target.join(name), &plain)?;
    }
    change(&path::open(context.root()?, target, OFlags::PATH)?, options)
}

pub(super) fn image(context: &Context<'_>, image: &ImageMount) -> io::Result<()> {
    let tree = match image.lower_dirs.as_slice() {
        [] => return Err(io::Error::other("the image has no layers")),
        [only] => open_tree(CWD, only, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?,
        layers => root::overlay(layers, None, false, &context.scratch)?,
    };
    set_attributes(&tree, READ_ONLY | NO_DEV, 0, false)?;
    let target = Path::new(&image.target);
    let Some(inner) = &image.subpath else { return attach(context, &tree, target, Kind::Directory) };
    // A part of a mount can be taken only where the mount is attached: at the target itself.
    attach(context, &tree, target, Kind::Directory)?;
    let whole = path::open(context.root()?, target, OFlags::PATH)?;
    let part = path::open(&whole, Path::new(inner), OFlags::PATH)?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let part = open_tree(part, "", flags)?;
    drop(whole);
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&part, "", path::open(context.root()?, target, OFlags::PATH)?, "", flags)?)
}

/// The mount of another container that is to be shared; `None` when all that had it have ended.
fn shared(options: &Options) -> io::Result<Option<OwnedFd>> {
    for (pid, path) in &options.shared_with {
        match taken(*pid, path) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            tree => return tree.map(Some),
        }
    }
    Ok(None)
}

pub(super) fn shared_memory(context: &Context<'_>, pid: i32) -> io::Result<()> {
    let path = Path::new("/dev/shm");
    attach(context, &taken(pid, path)?, path, Kind::Directory)
}

/// Takes a mount from the other container's mount namespace, and comes back.
fn taken(pid: i32, path: &Path) -> io::Result<OwnedFd> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let own = File::open("/proc/self/ns/mnt")?;
    let other = File::open(format!("/proc/{pid}/ns/mnt"))?;
    move_into_link_name_space(other.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags);
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))?;
    Ok(tree?)
}

pub(super) fn device(context: &Context<'_>, device: &LinuxDevice) -> io::Result<()> {
    if let Some((_, node)) = context.devices.iter().find(|(path, _)| path == device.path()) {
        return attach(context, node, device.path(), Kind::File);
    }
    let (dir, name) = path::parent(context.root()?, device.path())?;
    match make_node(&dir, &name, device) {
        Err(Errno::PERM) if !is_initial() => host_device(context, device),
        // A user namespace makes no devices; it may show the host's.
        Err(Errno::PERM) => bind(context, device.path(), device.path(), &Options::default()),
        Err(Errno::EXIST) => {
            unlinkat(&dir, &name, AtFlags::empty())?;
            Ok(make_node(&dir, &name, device)?)
        }
        result => Ok(result?),
    }
}

fn file_type(device: &LinuxDevice) -> FileType {
    match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        _ => FileType::CharacterDevice,
    }
}

fn number(device: &LinuxDevice) -> u64 {
    makedev(device.major() as u32, device.minor() as u32)
}

fn make_node(dir: &OwnedFd, name: &std::ffi::OsStr, device: &LinuxDevice) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o666));
    mknodat(dir, name, file_type(device), mode, number(device))?;
    // Whatever the umask is.
    chmodat(dir, name, mode, AtFlags::empty())?;
    let owner = device.uid().map(Uid::from_raw);
    chownat(dir, name, owner, device.gid().map(Gid::from_raw), AtFlags::SYMLINK_NOFOLLOW)
}

/// The nodes that the host does not have just so: a user namespace can show some, but make none.
pub(crate) fn prepare_devices(devices: &[LinuxDevice]) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
    let missing: Vec<&LinuxDevice> = devices.iter().filter(|device| !is_on_host(device)).collect();
    if missing.is_empty() || !is_initial() || !rustix::process::geteuid().is_root() {
        return Ok(Vec::new());
    }
    let place = file_system("tmpfs", Path::new("tmpfs"), &Options::default(), Some(0o755))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let make = |(index, device): (usize, &&LinuxDevice)| {
        let name = std::ffi::OsString::from(index.to_string());
        make_node(&place, &name, device)?;
        Ok((device.path().clone(), open_tree(&place, &name, flags)?))
    };
    missing.iter().enumerate().map(make).collect()
}

fn is_on_host(device: &LinuxDevice) -> bool {
    let Ok(stat) = rustix::fs::stat(device.path()) else { return false };
    let is_it = FileType::from_raw_mode(stat.st_mode) == file_type(device) && stat.st_rdev == number(device);
    let as_asked = |asked: Option<u32>, own: u32| asked.is_none_or(|asked| asked == own);
    is_it
        && as_asked(device.file_mode(), stat.st_mode & 0o7777)
        && as_asked(device.uid(), stat.st_uid)
        && as_asked(device.gid(), stat.st_gid)
}

/// In a user namespace no node can be made; the host's own is bound instead.
fn host_device(context: &Context<'_>, device: &LinuxDevice) -> io::Result<()> {
    let class = if device.typ() == LinuxDeviceType::B { "block" } else { "char" };
    let by_number = format!("/dev/{class}/{}:{}", device.major(), device.minor());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // By the usual name first: some containers' hosts have no links by number.
    let tree = open_tree(CWD, device.path(), flags).or_else(|_| open_tree(CWD, by_number, flags))?;
    attach(context, &tree, device.path(), Kind::File)
}

pub(super) fn link(context: &Context<'_>, link: &str, target: &str) -> io::Result<()> {
    let (dir, name) = path::parent(context.root()?, Path::new(link))?;
    match symlinkat(target, dir, name) {
        Err(Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

pub(super) fn content(context: &Context<'_>, file: &ContentFile) -> io::Result<()> {
    let (dir, name) = path::parent(context.root()?, Path::new(&file.target))?;
    let _ = unlinkat(&dir, &name, AtFlags::empty());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut made = File::from(openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
    made.write_all(file.content.as_bytes())?;
    rustix::fs::fchown(&made, Some(Uid::from_raw(file.uid)), Some(Gid::from_raw(file.gid)))?;
    made.set_permissions(std::fs::Permissions::from_mode(file.mode & 0o7777))
}

/// A file shows nothing, a directory is empty; what is not there needs no mask.
pub(super) fn mask(context: &Context<'_>, masked: &Path) -> io::Result<()> {
    let target = match path::open(context.root()?, masked, OFlags::PATH) {
        Err(e) if is_missing(&e) => return Ok(()),
        result => result?,
    };
    let tree = if path::file_type(&target)? == FileType::Directory {
        let tree = file_system("tmpfs", Path::new("tmpfs"), &Options::default(), Some(0o755))?;
        set_attributes(&tree, READ_ONLY | NO_SUID | NO_DEV | NO_EXEC, 0, false)?;
        tree
    } else {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, "/dev/null", flags)?;
        // It is the host's: whoever is root in here must not change its mode or owner.
        set_attributes(&tree, READ_ONLY | NO_SUID | NO_EXEC, 0, false)?;
        tree
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&tree, "", target, "", flags)?)
}

/// Says so for a mount as it is.
pub(super) fn read_only_mount(context: &Context<'_>, at: &Path) -> io::Result<()> {
    set_attributes(path::open(context.root()?, at, OFlags::PATH)?, READ_ONLY, 0, false)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

pub(super) fn read_only(context: &Context<'_>, at: &Path) -> io::Result<()> {
    let target = match path::open(context.root()?, at, OFlags::PATH) {
        Err(e) if is_missing(&e) => return Ok(()),
        result => result?,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&target, "", flags)?;
    set_attributes(&tree, READ_ONLY, 0, true)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(&tree, "", target, "", flags)?)
}

pub(super) fn bind_file(
    context: &Context<'_>,
    source: &Path,
    target: &str,
    read_only: bool,
) -> io::Result<()> {
    let own = Attributes { set: if read_only { READ_ONLY } else { 0 }, clear: 0 };
    bind(context, source, Path::new(target), &Options { own, ..Options::default() })
}

/// A terminal of the container's own devpts. The monitor (or the owner of an exec) gets the master side.
pub(super) fn terminal(context: &mut Context<'_>, console: bool, size: Option<(u16, u16)>) -> io::Result<()> {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
    let ours = File::open("/")?;
    let root = context.root().unwrap_or(ours.as_fd());
    let master = path::open(root, Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)?;
    if rustix::fs::fstatfs(&master)?.f_type != libc::DEVPTS_SUPER_MAGIC {
        return Err(io::Error::other("/dev/pts is not a devpts"));
    }
    unlockpt(&master)?;
    if let Some((rows, cols)) = size {
        crate::sys::tty::resize(&master, rows, cols)?;
    }
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if console {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, format!("/proc/self/fd/{}", slave.as_raw_fd()), flags);
        // The terminal lies in a mount that is not reachable by the host's procfs on old kernels.
        if let Ok(tree) = tree {
            attach(context, &tree, Path::new("/dev/console"), Kind::File)?;
        }
    }
    context.link.send(&Note::Terminal, &[master.as_fd()])?;
    context.streams = Some([slave.try_clone()?, slave.try_clone()?, slave]);
    context.owns_streams = true;
    Ok(())
}
