//! The lists of operations: for a container's init and for a further program in it.

use super::Operation;
use crate::container::{Bundle, capability};
use crate::spec::ExecSpec;
use oci_spec::runtime::{Linux, LinuxNamespaceType as Kind, Process, Spec};
use std::path::{Path, PathBuf};

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Everything from the first mount to the program.
pub(crate) fn container(bundle: &Bundle) -> Vec<Operation> {
    let spec = &bundle.spec;
    let mut operations = vec![Operation::DieWithParent, Operation::NewSession];
    operations.extend(namespaces(spec));
    operations.extend(file_system(bundle));
    operations.push(Operation::AwaitGo);
    operations.extend(settings(bundle));
    operations.push(Operation::Pivot);
    if let Some(process) = spec.process() {
        operations.push(Operation::WorkingDirectory(process.cwd().clone()));
        if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
            operations.push(Operation::ReadOnlyRoot);
        }
        operations.extend(program(spec, process, &bundle.extras.group_add, bundle.extras.init));
    }
    operations
}

/// The namespaces are joined already; the container's process with another program, user, directory.
pub(crate) fn exec(
    bundle: &Bundle,
    exec: &ExecSpec,
    tty: Option<(u16, u16)>,
) -> (Vec<Operation>, Vec<String>) {
    let mut spec = bundle.spec.clone();
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(exec.args.clone())).set_terminal(Some(tty.is_some()));
    if let Some(user) = &exec.user {
        process.user_mut().set_username(Some(user.clone()));
    }
    if let Some(dir) = exec.working_dir.as_ref().filter(|dir| !dir.is_empty()) {
        process.set_cwd(process.cwd().join(dir));
    }
    if exec.privileged {
        let all = Some(capability::to_oci(&capability::all()));
        let mut sets = process.capabilities().clone().unwrap_or_default();
        sets.set_bounding(all.clone()).set_effective(all.clone()).set_permitted(all);
        process.set_capabilities(Some(sets));
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(None);
        }
    }
    let mut operations = vec![Operation::NewSession];
    if tty.is_some() {
        operations.push(Operation::Terminal { console: false, size: tty });
    }
    operations.extend(program(&spec, &process, &bundle.extras.group_add, false));
    (operations, environment(&process, exec, tty.is_some()))
}

fn environment(process: &Process, exec: &ExecSpec, tty: bool) -> Vec<String> {
    let mut environment = process.env().clone().unwrap_or_default();
    let has =
        |environment: &[String], key: &str| environment.iter().any(|own| own.split('=').next() == Some(key));
    if tty && !has(&environment, "TERM") {
        environment.push("TERM=xterm".into());
    }
    environment.retain(|own| !exec.env.iter().any(|(key, _)| own.split('=').next() == Some(key)));
    environment.extend(exec.env.iter().map(|(key, value)| format!("{key}={value}")));
    environment
}

/// New namespaces were made by the clone, that of pids was joined before it.
fn namespaces(spec: &Spec) -> Vec<Operation> {
    let mut operations = Vec::new();
    for namespace in spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten()
    {
        match (namespace.typ(), namespace.path()) {
            (Kind::Pid, _) => {}
            (_, Some(path)) => operations.push(Operation::JoinNamespace(path.clone())),
            (Kind::Network, None) => operations.push(Operation::Loopback),
            _ => {}
        }
    }
    operations
}

fn file_system(bundle: &Bundle) -> Vec<Operation> {
    let (spec, extras) = (&bundle.spec, &bundle.extras);
    let mut operations = vec![Operation::PrivateMounts, root(bundle)];
    operations.extend(extras.copy_ups.iter().cloned().map(Operation::CopyUp));
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let brings_devices = mounts
        .iter()
        .any(|mount| mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("bind"));
    // Nodes come right after /dev: a mount of the user may lie on one of them.
    let mut is_placed = false;
    for mount in mounts {
        if mount.typ().as_deref() == Some("cgroup") && !std::mem::replace(&mut is_placed, true) {
            operations.extend(control_groups(spec));
        }
        operations.push(Operation::Mount(mount.clone()));
        if mount.destination() == Path::new("/dev") && !brings_devices {
            operations.extend(devices(spec));
        }
    }
    if !is_placed {
        operations.extend(control_groups(spec));
    }
    operations.extend(extras.shm_of.map(Operation::SharedMemory));
    operations.extend(extras.images.iter().cloned().map(Operation::Image));
    operations.extend(extras.contents.iter().cloned().map(Operation::Content));
    if terminal(spec) {
        operations.push(Operation::Terminal { console: !brings_devices, size: None });
    }
    if let Some(linux) = spec.linux() {
        let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect::<Vec<_>>();
        operations.extend(paths(linux.masked_paths()).into_iter().map(Operation::Mask));
        operations.extend(paths(linux.readonly_paths()).into_iter().map(Operation::ReadOnly));
    }
    operations
}

/// As late as possible: until then the monitor places us in the groups, while we mount.
fn control_groups(spec: &Spec) -> Vec<Operation> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let is_new = namespaces.into_iter().flatten().any(|n| n.typ() == Kind::Cgroup && n.path().is_none());
    let mut operations = vec![Operation::AwaitPlacement];
    operations.extend(is_new.then_some(Operation::NewCgroupNamespace));
    operations
}

fn root(bundle: &Bundle) -> Operation {
    Operation::Root {
        lower_dirs: bundle.extras.lower_dirs.clone(),
        upper: bundle.dir.join("upper"),
        work: bundle.dir.join("work"),
        at: bundle.dir.join("root"),
        volatile: bundle.ephemeral,
    }
}

fn devices(spec: &Spec) -> Vec<Operation> {
    let nodes = spec.linux().as_ref().and_then(|linux| linux.devices().clone()).unwrap_or_default();
    let mut operations: Vec<Operation> = nodes.into_iter().map(Operation::Device).collect();
    operations.extend(LINKS.map(|(path, target)| Operation::Link { path, target }));
    if Path::new("/proc/kcore").exists() {
        operations.push(Operation::Link { path: "/dev/core", target: "/proc/kcore" });
    }
    operations
}

/// What must wait until the owner has set up the network and written the files.
fn settings(bundle: &Bundle) -> Vec<Operation> {
    let (spec, files) = (&bundle.spec, &bundle.extras.files);
    let read_only = spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true);
    let mounted = |target: &str| {
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        mounts.iter().any(|mount| mount.destination() == Path::new(target))
    };
    let bind = |target: &'static str, source: &Option<PathBuf>| {
        let source = source.clone().filter(|_| !mounted(target))?;
        Some(Operation::BindFile { source, target, read_only })
    };
    let mut operations = Vec::new();
    operations.extend(bind("/etc/hosts", &files.hosts));
    operations.extend(bind("/etc/hostname", &files.hostname));
    operations.extend(bind("/etc/resolv.conf", &files.resolv_conf));
    let score = spec.process().as_ref().and_then(Process::oom_score_adj);
    operations.extend(score.map(Operation::OomScore));
    operations.extend(spec.hostname().clone().map(Operation::Hostname));
    operations.extend(spec.domainname().clone().map(Operation::Domainname));
    let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().clone()).unwrap_or_default();
    operations.extend(sysctls.into_iter().map(|(key, value)| Operation::Sysctl { key, value }));
    operations
}

/// From limits to `execve`. The filter comes before the capabilities go, because installing it needs one.
fn program(spec: &Spec, process: &Process, group_add: &[String], reaper: bool) -> Vec<Operation> {
    let sets = process.capabilities().as_ref();
    let numbers = |set: Option<&oci_spec::runtime::Capabilities>| {
        set.map(capability::from_oci).unwrap_or_default().into_iter().collect::<Vec<u8>>()
    };
    let mut operations: Vec<Operation> =
        process.rlimits().iter().flatten().map(|limit| Operation::Rlimit(*limit)).collect();
    operations.push(Operation::User {
        user: process.user().username().clone().unwrap_or_default(),
        group_add: group_add.to_vec(),
    });
    operations.push(Operation::Streams { terminal: process.terminal() == Some(true) });
    operations.push(Operation::Bounding(numbers(sets.and_then(|sets| sets.bounding().as_ref()))));
    if process.no_new_privileges() == Some(true) {
        operations.push(Operation::NoNewPrivileges);
    }
    let filter = spec.linux().as_ref().and_then(|linux: &Linux| linux.seccomp().clone());
    operations.extend(filter.map(|filter| Operation::Seccomp(Box::new(filter))));
    operations
        .push(Operation::Identity { capabilities: numbers(sets.and_then(|sets| sets.permitted().as_ref())) });
    operations.push(Operation::DieWithParent);
    operations.push(Operation::ChangeDirectory(process.cwd().clone()));
    operations.push(Operation::Execute { args: process.args().clone().unwrap_or_default(), reaper });
    operations
}

fn terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(Process::terminal) == Some(true)
}
