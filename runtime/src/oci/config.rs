//! `config.json`: read, checked, and completed with what every container has.

use super::Result;
use super::create::{CreateOptions, inherited};
use crate::container::{default_device_rules, default_devices};
use crate::launch::{LaunchError, Named};
use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxNamespaceType as Kind, LinuxSeccomp, LinuxSeccompAction as Action, Mount,
    Process, Spec,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A config larger than this is refused.
const MAX_BYTES: u64 = 32 << 20;

/// The spec with absolute paths, and warnings.
pub(super) fn load(options: &CreateOptions) -> Result<(Spec, Vec<String>)> {
    if options.systemd {
        // A group beside the one that systemd was asked for would be limited by nobody.
        return Err(LaunchError::new(
            "make the control group",
            "the systemd cgroup driver is not supported, only cgroupfs is",
        ));
    }
    let path = options
        .config
        .as_ref()
        .map_or_else(|| options.bundle.join("config.json"), |path| options.bundle.join(path));
    let (spec, warnings) = read(&path)?;
    check(&spec).map_err(|reason| {
        LaunchError::new(format!("use {}", path.display()), format!("invalid configuration: {reason}"))
    })?;
    complete(spec, &options.bundle, warnings)
}

fn read(path: &Path) -> Result<(Spec, Vec<String>)> {
    let reading = || format!("read {}", path.display());
    if fs::metadata(path).named(reading())?.len() > MAX_BYTES {
        return Err(LaunchError::new(reading(), "it is too large"));
    }
    let mut value: Value = serde_json::from_slice(&fs::read(path).named(reading())?).named(reading())?;
    let warnings = tidy(&mut value);
    Ok((serde_json::from_value(value).named(reading())?, warnings))
}

/// As Go reads it: null and the empty path of a namespace are nothing.
pub(super) fn tidy(value: &mut Value) -> Vec<String> {
    drop_nulls(value);
    let namespaces = value.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten().filter_map(Value::as_object_mut) {
        if namespace.get("path").and_then(Value::as_str) == Some("") {
            namespace.shift_remove("path");
        }
    }
    // An old spelling that Go's reader takes too.
    let pages = value.pointer_mut("/linux/resources/hugepageLimits").and_then(Value::as_array_mut);
    for page in pages.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(size) = page.shift_remove("pagesize") {
            page.insert("pageSize".into(), size);
        }
    }
    // What is missing is said in our own words later.
    if let Some(root) = value.as_object_mut() {
        root.entry("ociVersion").or_insert_with(|| Value::String(String::new()));
    }
    value.get_mut("process").map(tidy_process).unwrap_or_default()
}

/// Without a user it is root's; a missing directory is said later. Capabilities that nobody knows cannot be granted,
/// which is no reason to fail: their names.
pub(super) fn tidy_process(value: &mut Value) -> Vec<String> {
    drop_nulls(value);
    let mut unknown = Vec::new();
    for set in value
        .pointer_mut("/capabilities")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|sets| sets.values_mut())
    {
        let Some(names) = set.as_array_mut() else { continue };
        names.retain(|name| {
            let name = name.as_str().unwrap_or_default();
            let is_known = crate::container::capability::is_known(name);
            if !is_known && !unknown.iter().any(|other| other == name) {
                unknown.push(name.to_owned());
            }
            is_known
        });
    }
    if let Some(process) = value.as_object_mut() {
        process.entry("user").or_insert_with(|| Value::Object(serde_json::Map::new()));
        process.entry("cwd").or_insert_with(|| Value::String(String::new()));
    }
    unknown.iter().map(|name| format!("unknown capability {name:?} is ignored")).collect()
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

type Check = std::result::Result<(), String>;

fn check(spec: &Spec) -> Check {
    check_version(spec.version())?;
    let root = spec.root().as_ref().ok_or("root is missing")?;
    if root.path().as_os_str().is_empty() {
        return Err("root.path is empty".into());
    }
    let linux = spec.linux().as_ref().ok_or("linux is missing")?;
    if let Some(process) = spec.process() {
        check_process(process)?;
    }
    for mount in spec.mounts().iter().flatten() {
        check_mount(mount)?;
    }
    check_namespaces(spec, linux)?;
    check_sysctls(linux)?;
    if let Some(filter) = linux.seccomp() {
        check_filter(filter)?;
    }
    if linux.intel_rdt().is_some() {
        return Err("linux.intelRdt is not supported".into());
    }
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err("linux.netDevices is not supported".into());
    }
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or("rslave");
    if crate::init::propagation(propagation).is_none() {
        return Err(format!(
            "linux.rootfsPropagation {propagation:?} is none of shared, slave, private, unbindable or their recursive forms"
        ));
    }
    check_resources(linux)?;
    check_hooks(spec)
}

fn check_version(version: &str) -> Check {
    let numbers: Vec<&str> = version.split(['-', '+']).next().unwrap_or_default().split('.').collect();
    match numbers.as_slice() {
        [major, minor, patch] if [major, minor, patch].iter().all(|part| part.parse::<u32>().is_ok()) => {
            match *major {
                "1" => Ok(()),
                _ => Err(format!("ociVersion {version} is not supported, only 1.x is")),
            }
        }
        _ => Err(format!("ociVersion {version:?} is no version of the form 1.2.3")),
    }
}

fn check_process(process: &Process) -> Check {
    if process.args().as_ref().is_none_or(|args| args.is_empty()) {
        return Err("process.args is empty".into());
    }
    if process.cwd().as_os_str().is_empty() {
        return Err("process.cwd is empty".into());
    }
    if !process.cwd().is_absolute() {
        return Err(format!("process.cwd {:?} is not an absolute path", process.cwd()));
    }
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if limit.soft() > limit.hard() {
            return Err(format!(
                "{}: soft limit {} is above the hard limit {}",
                limit.typ(),
                limit.soft(),
                limit.hard()
            ));
        }
        if seen.contains(&limit.typ()) {
            return Err(format!("process.rlimits has {} twice", limit.typ()));
        }
        seen.push(limit.typ());
    }
    match process.oom_score_adj() {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(format!("process.oomScoreAdj {score} is not within -1000 and 1000"))
        }
        _ => Ok(()),
    }
}

fn check_mount(mount: &Mount) -> Check {
    let target = mount.destination();
    if target.as_os_str().is_empty() {
        return Err("a mount has no destination".into());
    }
    if crate::init::is_bind(mount) && mount.source().is_none() {
        return Err(format!("the bind mount at {} has no source", target.display()));
    }
    let both = mount.uid_mappings().is_some() == mount.gid_mappings().is_some();
    if both {
        Ok(())
    } else {
        Err(format!("the mount at {}: uidMappings and gidMappings belong together", target.display()))
    }
}

fn check_namespaces(spec: &Spec, linux: &Linux) -> Check {
    let mut seen = Vec::new();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        if seen.contains(&kind) {
            return Err(format!("linux.namespaces has {kind} twice"));
        }
        seen.push(kind);
        match namespace.path() {
            Some(path) if !path.is_absolute() => {
                return Err(format!("the path {path:?} of the {kind} namespace is not absolute"));
            }
            Some(path) if fs::symlink_metadata(path).is_err() => {
                return Err(format!("the path {} of the {kind} namespace does not exist", path.display()));
            }
            _ => {}
        }
    }
    if spec.hostname().as_ref().is_some_and(|name| !name.is_empty()) && !seen.contains(&Kind::Uts) {
        return Err("unable to set hostname without a private UTS namespace".into());
    }
    if spec.domainname().as_ref().is_some_and(|name| !name.is_empty()) && !seen.contains(&Kind::Uts) {
        return Err("unable to set domainname without a private UTS namespace".into());
    }
    let has_paths = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|paths| !paths.is_empty());
    if (has_paths(linux.masked_paths()) || has_paths(linux.readonly_paths())) && !seen.contains(&Kind::Mount)
    {
        return Err("unable to restrict sys entries without a private MNT namespace".into());
    }
    check_users(linux, &seen)
}

fn check_users(linux: &Linux, seen: &[Kind]) -> Check {
    let count = |maps: &Option<Vec<LinuxIdMapping>>| maps.as_ref().map_or(0, Vec::len);
    let (uids, gids) = (count(linux.uid_mappings()), count(linux.gid_mappings()));
    let joins = linux.namespaces().iter().flatten().any(|n| n.typ() == Kind::User && n.path().is_some());
    if !seen.contains(&Kind::User) {
        return if uids + gids == 0 {
            Ok(())
        } else {
            Err("user namespace mappings specified, but user namespace isn't enabled in the config".into())
        };
    }
    if !joins && (uids == 0 || gids == 0) {
        return Err("a new user namespace needs uidMappings and gidMappings".into());
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !seen.contains(&Kind::Time)
    {
        return Err("time offsets need a time namespace".into());
    }
    Ok(())
}

/// Those that belong to a namespace of the container.
fn check_sysctls(linux: &Linux) -> Check {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let has = |kind| linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind);
    for key in linux.sysctl().iter().flatten().map(|(key, _)| key) {
        let is_path = key.find('/').is_some_and(|slash| key.find('.').is_none_or(|dot| slash < dot));
        let name = if is_path { key.replace('/', ".") } else { key.clone() };
        if name.split(['.', '/']).any(|part| part.is_empty()) {
            return Err(format!("sysctl {key:?} is no name"));
        }
        let missing = |kind: &str| Err(format!("sysctl {key:?} is not allowed in the host {kind} namespace"));
        match name.as_str() {
            name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => {
                if !has(Kind::Ipc) {
                    return missing("ipc");
                }
            }
            name if name.starts_with("net.") => {
                if !has(Kind::Network) {
                    return missing("network");
                }
            }
            "kernel.domainname" if has(Kind::Uts) => {}
            "kernel.hostname" => return Err(format!("sysctl {key:?} is the config's hostname")),
            name if name.starts_with("user.") && has(Kind::User) => {}
            _ => return Err(format!("sysctl {key:?} is not in a separate kernel namespace")),
        }
    }
    Ok(())
}

/// A question to an agent needs one, and init must be able to say that it asks.
fn check_filter(filter: &LinuxSeccomp) -> Check {
    if filter.default_action() == Action::ScmpActNotify {
        return Err("SCMP_ACT_NOTIFY cannot be used as default action".into());
    }
    let asking = || filter.syscalls().iter().flatten().filter(|call| call.action() == Action::ScmpActNotify);
    if asking().any(|call| call.names().iter().any(|name| name == "write")) {
        return Err("SCMP_ACT_NOTIFY cannot be used for the write syscall".into());
    }
    let has_path = filter.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    if asking().next().is_some() && !has_path {
        return Err("SCMP_ACT_NOTIFY needs a seccomp listenerPath".into());
    }
    match filter
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|call| call.args().iter().flatten())
        .find(|arg| arg.index() > 5)
    {
        Some(arg) => Err(format!("seccomp compares argument {}, a call has six", arg.index())),
        None => Ok(()),
    }
}

fn check_resources(linux: &Linux) -> Check {
    let Some(resources) = linux.resources() else { return Ok(()) };
    if resources.unified().as_ref().is_some_and(|files| !files.is_empty())
        && !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
    {
        return Err("linux.resources.unified needs cgroup v2".into());
    }
    match resources.unified().iter().flatten().find(|(file, _)| file.contains('/') || !file.contains('.')) {
        Some((file, _)) => Err(format!("linux.resources.unified: {file:?} is no file of a control group")),
        None => Ok(()),
    }
}

#[allow(deprecated)]
fn check_hooks(spec: &Spec) -> Check {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let lists = [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    for hook in lists.into_iter().flatten().flatten() {
        if !hook.path().is_absolute() {
            return Err(format!("the hook path {:?} is not absolute", hook.path()));
        }
        if hook.timeout().is_some_and(|seconds| seconds <= 0) {
            return Err(format!("the hook {} has a timeout that is not above zero", hook.path().display()));
        }
    }
    Ok(())
}

/// Paths from the bundle, the devices and rules that every container has.
fn complete(mut spec: Spec, bundle: &Path, mut warnings: Vec<String>) -> Result<(Spec, Vec<String>)> {
    if let Some(root) = spec.root_mut() {
        let path = bundle.join(root.path());
        root.set_path(
            fs::canonicalize(&path).named(format!("find the root file system {}", path.display()))?,
        );
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if !mount.destination().is_absolute() {
            warnings.push(format!("the mount destination {:?} is not absolute", mount.destination()));
            mount.set_destination(Path::new("/").join(mount.destination()));
        }
        if crate::init::is_bind(mount) {
            let source = bundle.join(mount.source().clone().unwrap_or_default());
            mount.set_source(Some(source));
        }
    }
    complete_linux(&mut spec);
    Ok((spec, warnings))
}

fn complete_linux(spec: &mut Spec) {
    let label = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.mount_label().clone())
        .filter(|_| Path::new("/sys/fs/selinux/enforce").exists());
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if let (Some(label), Some("tmpfs" | "mqueue" | "devpts")) = (&label, mount.typ().as_deref()) {
            let mut options = mount.options().clone().unwrap_or_default();
            options.push(format!("context={label}"));
            mount.set_options(Some(options));
        }
    }
    let Some(linux) = spec.linux_mut() else { return };
    let mut devices = default_devices();
    let own = linux.devices().clone().unwrap_or_default();
    devices.retain(|device| !own.iter().any(|other| other.path() == device.path()));
    devices.extend(own);
    linux.set_devices(Some(devices));
    let mut resources = linux.resources().clone().unwrap_or_default();
    // Without a rule of its own a container is as free as the group it is in.
    if let Some(mut rules) = resources.devices().clone().filter(|rules| !rules.is_empty()) {
        rules.extend(default_device_rules());
        resources.set_devices(Some(rules));
    }
    linux.set_resources(Some(resources));
}

/// Descriptors of socket activation come before those that are preserved by wish.
pub(super) fn listening(mut spec: Spec, preserved: u32) -> Result<(Spec, Vec<i32>)> {
    let count =
        std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<u32>().ok()).unwrap_or(0).min(1024);
    if let Some(process) = spec.process_mut().as_mut().filter(|_| count > 0) {
        let mut environment = process.env().clone().unwrap_or_default();
        environment.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(environment));
    }
    Ok((spec, inherited(count + preserved)))
}

/// The path of the groups: the spec's below the root of each hierarchy, or one of ours.
pub(super) fn cgroup(spec: &Spec, id: &str) -> String {
    let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let clean: PathBuf = asked
        .iter()
        .flat_map(|path| path.components())
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect();
    match clean.to_str() {
        Some(path) if !path.is_empty() => path.to_owned(),
        // One level: each group of a parent would cost a group in every hierarchy.
        _ => format!("stack-oci-{id}"),
    }
}

/// The maps of a user namespace that is made for the container.
pub(super) fn new_maps(spec: &Spec) -> Option<(&[LinuxIdMapping], &[LinuxIdMapping])> {
    let linux = spec.linux().as_ref()?;
    linux.namespaces().iter().flatten().find(|n| n.typ() == Kind::User && n.path().is_none())?;
    Some((linux.uid_mappings().as_deref()?, linux.gid_mappings().as_deref()?))
}

/// Whether owners are shown as others, and if so for all that is mounted below.
pub(super) fn is_mapped(mount: &Mount) -> Option<bool> {
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |word: &str| options.iter().any(|option| option == word);
    let asked =
        has("idmap") || has("ridmap") || mount.uid_mappings().as_ref().is_some_and(|maps| !maps.is_empty());
    asked.then(|| has("ridmap"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(change: impl FnOnce(&mut Value)) -> Check {
        let mut value = json!({
            "ociVersion": "1.0.0",
            "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "capabilities": null },
            "root": { "path": "rootfs" },
            "linux": { "namespaces": [{ "type": "mount", "path": "" }, { "type": "pid" }] },
        });
        change(&mut value);
        drop(tidy(&mut value));
        let spec: Spec = serde_json::from_value(value).map_err(|e| e.to_string())?;
        check(&spec)
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Value), words: &str) {
        let error = verdict(change).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_plain_config_is_fine() {
        verdict(|_| {}).unwrap();
        verdict(|v| v["ociVersion"] = "1.0.2-dev".into()).unwrap();
    }

    #[test]
    fn what_is_wrong_is_said() {
        refused(|v| v["ociVersion"] = "2.0.0".into(), "ociVersion 2.0.0 is not supported");
        refused(|v| v["ociVersion"] = "one".into(), "no version");
        refused(|v| drop(v.as_object_mut().unwrap().remove("ociVersion")), "no version");
        refused(|v| drop(v.as_object_mut().unwrap().remove("root")), "root is missing");
        refused(|v| v["root"]["path"] = "".into(), "root.path is empty");
        refused(|v| v["process"]["cwd"] = "tmp".into(), "is not an absolute path");
        refused(|v| v["process"]["args"] = json!([]), "process.args is empty");
        refused(|v| v["process"]["oomScoreAdj"] = 1001.into(), "not within");
        refused(|v| v["hostname"] = "web".into(), "without a private UTS namespace");
        refused(|v| v["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "pid" }]), "pid twice");
        refused(|v| v["linux"]["namespaces"] = json!([{ "type": "planet" }]), "unknown variant `planet`");
        refused(|v| v["linux"]["namespaces"] = json!([{ "type": "pid", "path": "x" }]), "not absolute");
        refused(
            |v| v["linux"]["namespaces"] = json!([{ "type": "user" }]),
            "needs uidMappings and gidMappings",
        );
        refused(|v| v["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" }), "host network namespace");
        refused(|v| v["linux"]["sysctl"] = json!({ "kernel/shmmax": "1" }), "host ipc namespace");
        refused(
            |v| v["linux"]["sysctl"] = json!({ "vm.swappiness": "1" }),
            "not in a separate kernel namespace",
        );
        refused(|v| v["linux"]["intelRdt"] = json!({ "closID": "x" }), "intelRdt is not supported");
        refused(|v| v["linux"]["rootfsPropagation"] = "sideways".into(), "rootfsPropagation");
        refused(|v| v["hooks"] = json!({ "poststop": [{ "path": "true" }] }), "hook path");
        let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 });
        refused(|v| v["process"]["rlimits"] = json!([limit, limit]), "RLIMIT_NOFILE twice");
        let asks = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]);
        refused(
            |v| v["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": asks }),
            "listenerPath",
        );
    }
}
