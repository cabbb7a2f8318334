//! Device nodes of a container and what its control group allows.

use crate::spec::DeviceSpec;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use rustix::fs::{major, minor};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

const NODES: [(&str, i64, i64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Directories of the host's `/dev` that a container has of its own.
const OWN: [&str; 6] = ["pts", "shm", "mqueue", "fd", "console", "ptmx"];

/// Every container's nodes.
pub(crate) fn default_nodes() -> Vec<LinuxDevice> {
    NODES.iter().map(|(path, major, minor)| node(path, LinuxDeviceType::C, *major, *minor, 0o666)).collect()
}

/// Deny all, then allow making nodes, using the default ones, consoles and pseudo terminals.
pub(super) fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    rules.extend(NODES.iter().map(|(_, major, minor)| character(*major, Some(*minor))));
    rules.extend([character(5, Some(1)), character(5, Some(2)), character(136, None)]);
    rules
}

/// What every container may use, whatever its own rules say: the above without the denial.
pub(crate) fn granted_rules() -> Vec<LinuxDeviceCgroup> {
    default_rules().split_off(1)
}

pub(super) fn allow_all() -> Vec<LinuxDeviceCgroup> {
    vec![rule(true, LinuxDeviceType::A, None, None, "rwm")]
}

/// The nodes and rules of one `devices` entry; a directory stands for all nodes below it.
pub(super) fn resolve(spec: &DeviceSpec) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), String> {
    let gathering = |e: String| {
        format!(
            "error gathering device information while adding custom device {:?}: {e}",
            spec.source.display()
        )
    };
    let meta = std::fs::metadata(&spec.source).map_err(|e| gathering(plain(&e)))?;
    let nodes = if meta.is_dir() {
        below(&spec.source, Path::new(&spec.target))
    } else {
        let found = from_host(&spec.source, Path::new(&spec.target));
        vec![found.ok_or_else(|| gathering("not a device node".into()))?]
    };
    let access = if spec.permissions.is_empty() { "rwm" } else { &spec.permissions };
    let nodes: Vec<LinuxDevice> = nodes.into_iter().map(|node| owned(node, spec)).collect();
    let rules = nodes
        .iter()
        .map(|node| rule(true, node.typ(), Some(node.major()), Some(node.minor()), access))
        .collect();
    Ok((nodes, rules))
}

/// `c 42:* rmw`.
pub(super) fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, String> {
    let invalid = || format!("invalid device cgroup rule format: '{text}'");
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = parts[..] else { return Err(invalid()) };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse::<u32>().map(|n| Some(i64::from(n))).map_err(|_| invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let is_access = (1..=3).contains(&access.len()) && access.chars().all(|c| "rwm".contains(c));
    match is_access {
        true => Ok(rule(true, kind, number(major)?, number(minor)?, access)),
        false => Err(invalid()),
    }
}

/// With the mode and the owner that were asked for.
fn owned(mut node: LinuxDevice, spec: &DeviceSpec) -> LinuxDevice {
    node.set_file_mode(spec.mode.or(node.file_mode()));
    let (uid, gid) = (spec.uid.or(node.uid()), spec.gid.or(node.gid()));
    node.set_uid(uid).set_gid(gid);
    node
}

/// All nodes of the host, for a privileged container.
pub(super) fn all_of_host() -> Vec<LinuxDevice> {
    below(Path::new("/dev"), Path::new("/dev"))
}

fn below(dir: &Path, target: &Path) -> Vec<LinuxDevice> {
    let mut nodes = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if dir == Path::new("/dev") && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let inner = target.join(&name);
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => nodes.extend(below(&path, &inner)),
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
                nodes.extend(from_host(&path, &inner))
            }
            _ => {}
        }
    }
    nodes
}

fn from_host(source: &Path, target: &Path) -> Option<LinuxDevice> {
    let meta = std::fs::metadata(source).ok()?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let mut device = node(
        target,
        kind,
        i64::from(major(meta.rdev())),
        i64::from(minor(meta.rdev())),
        meta.mode() & 0o7777,
    );
    device.set_uid(Some(meta.uid())).set_gid(Some(meta.gid()));
    Some(device)
}

fn node(path: impl AsRef<Path>, kind: LinuxDeviceType, major: i64, minor: i64, mode: u32) -> LinuxDevice {
    LinuxDeviceBuilder::default()
        .path(path.as_ref())
        .typ(kind)
        .major(major)
        .minor(minor)
        .file_mode(mode)
        .build()
        .expect("no field is required")
}

fn character(major: i64, minor: Option<i64>) -> LinuxDeviceCgroup {
    rule(true, LinuxDeviceType::C, Some(major), minor, "rwm")
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(kind)
        .access(access)
        .build()
        .expect("no field is required");
    rule.set_major(major).set_minor(minor);
    rule
}

/// The words of the operating system without the number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
