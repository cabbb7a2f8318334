//! A profile file in moby's form: groups of calls with conditions on capabilities and architectures.

use super::{Set, native, profile};
use crate::container::capability;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSyscallBuilder,
};
use serde::Deserialize;
use std::path::Path;

/// A profile larger than this is refused.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<ArchFamily>,
    #[serde(default)]
    syscalls: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchFamily {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: Action,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    caps: Vec<String>,
    arches: Vec<String>,
}

pub(super) fn read(path: &Path, capabilities: &Set) -> Result<LinuxSeccomp, String> {
    let failed = |e: String| format!("opening seccomp profile ({}) failed: {e}", path.display());
    let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(failed("it is too large".into()));
    }
    let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let profile: Profile = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
    Ok(bind(profile, capabilities))
}

fn bind(file: Profile, capabilities: &Set) -> LinuxSeccomp {
    let ours = native();
    let family = file.arch_map.into_iter().find(|family| ours.first() == Some(&family.architecture));
    let architectures = match family {
        Some(family) => {
            std::iter::once(family.architecture).chain(family.sub_architectures.unwrap_or_default()).collect()
        }
        None if file.architectures.is_empty() => ours,
        None => file.architectures,
    };
    let groups = file.syscalls.into_iter().filter(|group| applies(group, capabilities));
    profile(file.default_action, file.default_errno_ret, architectures, groups.map(to_oci).collect())
}

fn applies(group: &Group, capabilities: &Set) -> bool {
    let has = |name: &String| {
        capability::resolve(std::slice::from_ref(name), &["ALL".into()], false)
            .is_ok_and(|set| set.is_subset(capabilities))
    };
    let included = group.includes.caps.iter().all(has)
        && (group.includes.arches.is_empty() || group.includes.arches.iter().any(is_native));
    included && !group.excludes.caps.iter().any(has) && !group.excludes.arches.iter().any(is_native)
}

fn is_native(name: &String) -> bool {
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    name == ours
}

fn to_oci(group: Group) -> oci_spec::runtime::LinuxSyscall {
    let mut names = group.names;
    names.extend(group.name);
    let mut call = LinuxSyscallBuilder::default()
        .names(names)
        .action(group.action)
        .build()
        .expect("no field is required");
    call.set_errno_ret(group.errno_ret).set_args(group.args);
    call
}
