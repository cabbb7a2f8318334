//! From the container's spec to the OCI runtime spec.

use super::{Extras, capability, device, mount, resources, seccomp};
use crate::launch::LaunchRequest;
use crate::spec::{ContainerSpec, HookSpec, NamespaceMode, NetworkMode};
use oci_spec::runtime::{
    Hook, HookBuilder, Hooks, Linux, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType as Kind, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, ProcessBuilder, Root, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use std::collections::HashMap;

pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What `security_opt` says.
#[derive(Debug, Default)]
struct Security {
    no_new_privileges: bool,
    seccomp: Option<String>,
    unconfined_paths: bool,
}

pub(super) fn resolve(request: &LaunchRequest, extras: &mut Extras) -> Result<Spec, String> {
    let spec = &request.spec;
    let security = security(&spec.security_opt)?;
    let capabilities = capability::resolve(&spec.cap_add, &spec.cap_drop, spec.privileged)?;
    let mounts = mount::resolve(request, extras)?;
    let mut oci = SpecBuilder::default()
        .version("1.2.0")
        .root(root(request))
        .mounts(mounts)
        .process(process(spec, &capabilities, &security, &hostname(request))?)
        .linux(linux(request, &capabilities, &security)?)
        .build()
        .map_err(|e| e.to_string())?;
    oci.set_hooks(hooks(&spec.hooks)?);
    if !spec.annotations.is_empty() {
        oci.set_annotations(Some(spec.annotations.clone().into_iter().collect()));
    }
    if !spec.uts_host {
        oci.set_hostname(Some(hostname(request)));
        oci.set_domainname(spec.domainname.clone().filter(|name| !name.is_empty()));
    }
    Ok(oci)
}

#[allow(deprecated)] // devices still bring hooks of the kind `prestart`
fn hooks(specs: &[HookSpec]) -> Result<Option<Hooks>, String> {
    if specs.is_empty() {
        return Ok(None);
    }
    let of = |kind: &str| -> Result<Vec<Hook>, String> {
        specs.iter().filter(|spec| spec.kind == kind).map(hook).collect()
    };
    let mut hooks = Hooks::default();
    hooks
        .set_prestart(Some(of("prestart")?))
        .set_create_runtime(Some(of("createRuntime")?))
        .set_create_container(Some(of("createContainer")?))
        .set_start_container(Some(of("startContainer")?));
    Ok(Some(hooks))
}

fn hook(spec: &HookSpec) -> Result<Hook, String> {
    let mut hook = HookBuilder::default()
        .path(&spec.path)
        .args(spec.args.clone())
        .env(spec.env.clone())
        .build()
        .map_err(|e| e.to_string())?;
    hook.set_timeout(spec.timeout);
    Ok(hook)
}

fn root(request: &LaunchRequest) -> Root {
    RootBuilder::default()
        .path(request.dir.join("root"))
        .readonly(request.spec.read_only)
        .build()
        .expect("no field is required")
}

/// The asked one, or the first twelve digits of the id; with the host's network the host's.
fn hostname(request: &LaunchRequest) -> String {
    if let Some(name) = request.spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    if request.spec.network == NetworkMode::Host || request.spec.uts_host {
        return rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
    request.id.chars().take(12).collect()
}

fn process(
    spec: &ContainerSpec,
    capabilities: &capability::Set,
    security: &Security,
    hostname: &str,
) -> Result<Process, String> {
    if spec.args.is_empty() {
        return Err("no command specified".into());
    }
    let cwd = if spec.working_dir.is_empty() { "/" } else { &spec.working_dir };
    let user = UserBuilder::default().username(spec.user.as_str()).build().expect("no field is required");
    let mut process = ProcessBuilder::default()
        .terminal(spec.tty)
        .user(user)
        .args(spec.args.clone())
        .env(environment(spec, hostname))
        .cwd(cwd)
        .capabilities(sets(capabilities))
        .rlimits(rlimits(spec)?)
        .no_new_privileges(security.no_new_privileges)
        .build()
        .map_err(|e| e.to_string())?;
    if let Some(score) = spec.oom_score_adj {
        if !(-1000..=1000).contains(&score) {
            return Err(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]."));
        }
        process.set_oom_score_adj(Some(score));
    }
    Ok(process)
}

/// Defaults first, so that the user's win; HOME is added when the user is known.
fn environment(spec: &ContainerSpec, hostname: &str) -> Vec<String> {
    let mut defaults = vec![("PATH", DEFAULT_PATH), ("HOSTNAME", hostname)];
    if spec.tty {
        defaults.push(("TERM", "xterm"));
    }
    defaults.retain(|(key, _)| !spec.env.iter().any(|(own, _)| own == key));
    let own = spec.env.iter().map(|(key, value)| format!("{key}={value}"));
    defaults.into_iter().map(|(key, value)| format!("{key}={value}")).chain(own).collect()
}

fn sets(capabilities: &capability::Set) -> LinuxCapabilities {
    let set = capability::to_oci(capabilities);
    let mut sets = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .build()
        .expect("no field is required");
    sets.set_inheritable(None).set_ambient(None);
    sets
}

fn rlimits(spec: &ContainerSpec) -> Result<Vec<PosixRlimit>, String> {
    let limit = |value: i64| if value < 0 { u64::MAX } else { value.cast_unsigned() };
    let resolve = |(name, (soft, hard)): (&String, &(i64, i64))| {
        let kind: PosixRlimitType = serde_json::from_value(format!("RLIMIT_{}", name.to_uppercase()).into())
            .map_err(|_| format!("invalid ulimit type: {name}"))?;
        if limit(*soft) > limit(*hard) {
            return Err(format!("ulimit {name}: soft limit {soft} is above the hard limit {hard}"));
        }
        let built = PosixRlimitBuilder::default().typ(kind).soft(limit(*soft)).hard(limit(*hard)).build();
        Ok(built.expect("no field is required"))
    };
    spec.ulimits.iter().map(resolve).collect()
}

fn linux(
    request: &LaunchRequest,
    capabilities: &capability::Set,
    security: &Security,
) -> Result<Linux, String> {
    let spec = &request.spec;
    let (nodes, rules) = devices(spec)?;
    let masks = !spec.privileged && !security.unconfined_paths;
    let paths =
        |list: &[&str]| if masks { list.iter().map(|path| (*path).to_owned()).collect() } else { vec![] };
    let mut masked: Vec<String> = paths(&MASKED);
    if masks {
        masked.extend(thermal_throttles());
    }
    let mut linux = LinuxBuilder::default()
        .sysctl(sysctls(spec)?)
        .resources(resources::resolve(&spec.resources, rules)?)
        .cgroups_path(request.cgroup.as_str())
        .namespaces(namespaces(request)?)
        .devices(nodes)
        .masked_paths(masked)
        .readonly_paths(paths(&READ_ONLY))
        .build()
        .map_err(|e| e.to_string())?;
    let filter =
        if spec.privileged { None } else { seccomp::resolve(security.seccomp.as_deref(), capabilities)? };
    linux.set_seccomp(filter);
    Ok(linux)
}

fn devices(
    spec: &ContainerSpec,
) -> Result<(Vec<oci_spec::runtime::LinuxDevice>, Vec<oci_spec::runtime::LinuxDeviceCgroup>), String> {
    let (mut nodes, mut rules) = if spec.privileged {
        (device::all_of_host(), device::allow_all())
    } else {
        (device::default_nodes(), device::default_rules())
    };
    for asked in &spec.devices {
        let (more_nodes, more_rules) = device::resolve(asked)?;
        nodes.extend(more_nodes);
        rules.extend(more_rules);
    }
    for text in &spec.device_rules {
        rules.push(device::parse_rule(text)?);
    }
    Ok((nodes, rules))
}

fn thermal_throttles() -> Vec<String> {
    let cpus = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let paths = cpus.map(|cpu| cpu.path().join("thermal_throttle")).filter(|path| path.exists());
    paths.map(|path| path.to_string_lossy().into_owned()).collect()
}

/// New ones without a path, joined ones with; what is missing is the launcher's.
fn namespaces(request: &LaunchRequest) -> Result<Vec<LinuxNamespace>, String> {
    let spec = &request.spec;
    let mut namespaces = vec![new(Kind::Mount)];
    if !spec.cgroup_host {
        namespaces.push(new(Kind::Cgroup));
    }
    if !spec.uts_host {
        namespaces.push(new(Kind::Uts));
    }
    let shared = |mode: &NamespaceMode, kind, name, pid: Option<i32>| match mode {
        NamespaceMode::Private | NamespaceMode::Shareable => Ok(Some(new(kind))),
        NamespaceMode::Host => Ok(None),
        NamespaceMode::Container(of) => join(kind, name, of, pid).map(Some),
    };
    namespaces.extend(shared(&spec.pid_mode, Kind::Pid, "pid", request.join.pid)?);
    namespaces.extend(shared(&spec.ipc_mode, Kind::Ipc, "ipc", request.join.ipc)?);
    match &spec.network {
        NetworkMode::Bridge(_) | NetworkMode::None => namespaces.push(new(Kind::Network)),
        NetworkMode::Container(of) => namespaces.push(join(Kind::Network, "net", of, request.join.network)?),
        // The owner is in the host's; the launcher need not be.
        NetworkMode::Host => {
            namespaces.push(join(Kind::Network, "net", "the host", Some(std::process::id().cast_signed()))?);
        }
        NetworkMode::Inherit => {}
    }
    Ok(namespaces)
}

fn new(kind: Kind) -> LinuxNamespace {
    LinuxNamespaceBuilder::default().typ(kind).build().expect("no field is required")
}

fn join(kind: Kind, name: &str, of: &str, pid: Option<i32>) -> Result<LinuxNamespace, String> {
    let pid = pid.ok_or_else(|| match kind {
        Kind::Network => format!("cannot join network of a non running container: {of}"),
        _ => format!("cannot join {name} namespace of a non running container: {of}"),
    })?;
    let path = format!("/proc/{pid}/ns/{name}");
    Ok(LinuxNamespaceBuilder::default().typ(kind).path(path).build().expect("no field is required"))
}

/// The kernel takes only groups that are mapped.
fn highest_group() -> u32 {
    crate::sys::user_namespace::groups().map_or(2_147_483_647, |count| count.saturating_sub(1))
}

/// The user's, and ports and pings for everybody in a network namespace of its own.
fn sysctls(spec: &ContainerSpec) -> Result<HashMap<String, String>, String> {
    let mut all = HashMap::new();
    if matches!(spec.network, NetworkMode::Bridge(_) | NetworkMode::None) {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {}", highest_group()));
    }
    for (key, value) in &spec.sysctls {
        check_sysctl(key, spec)?;
        all.insert(key.clone(), value.clone());
    }
    Ok(all)
}

fn check_sysctl(key: &str, spec: &ContainerSpec) -> Result<(), String> {
    const IPC: [&str; 6] =
        ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"];
    if key.contains('/') || key.contains("..") {
        return Err(format!("invalid sysctl name {key:?}"));
    }
    let own_ipc = IPC.contains(&key)
        || ["kernel.shmmni", "kernel.shm_rmid_forced"].contains(&key)
        || key.starts_with("fs.mqueue.");
    let host = |name: &str| Err(format!("sysctl {key:?} not allowed in host {name} namespace"));
    match key {
        _ if own_ipc && spec.ipc_mode == NamespaceMode::Host => host("ipc"),
        _ if own_ipc => Ok(()),
        _ if key.starts_with("net.") && spec.network == NetworkMode::Host => host("network"),
        _ if key.starts_with("net.") => Ok(()),
        "kernel.hostname" | "kernel.domainname" if spec.uts_host => host("UTS"),
        "kernel.hostname" | "kernel.domainname" => Ok(()),
        _ => Err(format!("sysctl {key:?} is not in a separate kernel namespace")),
    }
}

fn security(options: &[String]) -> Result<Security, String> {
    let mut security = Security::default();
    for option in options {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", value) => security.seccomp = Some(value.to_owned()),
            ("systempaths", "unconfined") => security.unconfined_paths = true,
            ("apparmor" | "label" | "writable-cgroups", _) => {}
            _ => return Err(format!("invalid --security-opt: {option:?}")),
        }
    }
    Ok(security)
}
