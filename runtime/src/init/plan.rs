//! The lists of operations: for a container's init and for a further program in it.

use super::confine::{Label, Sets};
use super::options::propagation;
use super::root::SLAVE;
use super::{Operation, birth, traits};
use crate::container::{Bundle, Direct, capability};
use crate::spec::ExecSpec;
use oci_spec::runtime::{
    Capabilities, Hook, Hooks, Linux, LinuxNamespace, LinuxNamespaceType as Kind, Process, Spec,
};
use std::path::{Path, PathBuf};

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Podman's way to say that a container shares the groups of who starts it.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Everything from the first mount to the program.
pub(crate) fn container(bundle: &Bundle) -> Vec<Operation> {
    let (spec, direct) = (&bundle.spec, bundle.extras.direct.as_ref());
    let mut operations = Vec::new();
    operations.extend(direct.is_none().then_some(Operation::DieWithParent));
    operations.extend(user_namespace(spec));
    operations.push(Operation::NewSession);
    operations.extend(keyring(bundle));
    operations.extend(namespaces(spec));
    operations.extend(file_system(bundle));
    match direct {
        None => {
            operations.push(Operation::AwaitGo);
            operations.extend(hooks(bundle, "createContainer", Hooks::create_container, true));
        }
        Some(_) => operations.extend(hooks_before_entry(bundle)),
    }
    operations.extend(settings(bundle));
    operations.push(entry(spec, direct));
    operations.extend(rest_of_root(bundle));
    if let Some(process) = spec.process() {
        operations.push(Operation::WorkingDirectory(process.cwd().clone()));
        operations.extend(read_only(spec).then_some(Operation::ReadOnlyRoot));
        operations.extend(program(bundle, process));
        operations.extend(direct.is_some().then_some(Operation::AwaitStart));
        operations.extend(hooks(bundle, "startContainer", Hooks::start_container, false));
        operations.push(execute(process, bundle.extras.init));
    } else {
        // It can be created, and that is all.
        operations.push(Operation::AwaitStart);
    }
    operations
}

/// The namespaces are joined already; the container's process with another program, user, directory.
pub(crate) fn exec(
    bundle: &Bundle,
    exec: &ExecSpec,
    tty: Option<(u16, u16)>,
) -> (Vec<Operation>, Vec<String>) {
    let mut bundle = bundle.clone();
    let mut process = bundle.spec.process().clone().unwrap_or_default();
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
        if let Some(linux) = bundle.spec.linux_mut() {
            linux.set_seccomp(None);
        }
    }
    let mut operations = vec![Operation::NewSession];
    if tty.is_some() {
        operations.push(Operation::Terminal { console: false, size: tty });
    }
    operations.extend(program(&bundle, &process));
    operations.push(execute(&process, false));
    (operations, environment(&process, exec, tty.is_some()))
}

/// As [`exec`], for a process that is complete. `users`: the ids to take in a user namespace that was joined.
pub(crate) fn process(bundle: &Bundle, process: &Process, users: Option<(u32, u32)>) -> Vec<Operation> {
    let mut operations = Vec::new();
    operations.extend(users.map(|ids| Operation::UserNamespace { ids, is_new: false }));
    operations.push(Operation::NewSession);
    operations.extend(keyring(bundle));
    let affinity = process.exec_cpu_affinity().as_ref();
    let list = |list: &Option<String>| list.as_deref().map(traits::numbers).map(Operation::Affinity);
    operations.extend(affinity.and_then(|affinity| list(affinity.initial())));
    if process.terminal() == Some(true) {
        operations.push(Operation::Terminal { console: false, size: traits::console_size(process) });
    }
    operations.extend(process.oom_score_adj().map(Operation::OomScore));
    operations.extend(program(bundle, process));
    operations.extend(affinity.and_then(|affinity| list(affinity.cpu_affinity_final())));
    operations.push(execute(process, false));
    operations
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

fn namespaces_of(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
}

/// Root of it, or whom its map names first.
fn user_namespace(spec: &Spec) -> Option<Operation> {
    let namespace = namespaces_of(spec).iter().find(|namespace| namespace.typ() == Kind::User)?;
    Some(Operation::UserNamespace { ids: traits::root_ids(spec), is_new: namespace.path().is_none() })
}

fn keyring(bundle: &Bundle) -> Option<Operation> {
    let is_kept = bundle.extras.direct.as_ref().is_some_and(|direct| direct.no_new_keyring);
    (!is_kept).then(|| Operation::SessionKeyring(bundle.id.clone()))
}

/// New namespaces were made by the clone, and some may have been joined before it.
fn namespaces(spec: &Spec) -> Vec<Operation> {
    let mut operations = Vec::new();
    let staged = birth::is_staged(spec);
    for namespace in namespaces_of(spec) {
        match (namespace.typ(), namespace.path()) {
            (kind @ (Kind::Mount | Kind::Cgroup), Some(path)) => {
                operations.push(Operation::JoinNamespace(kind, path.clone()));
            }
            (kind, Some(path)) if !staged => operations.push(Operation::JoinNamespace(kind, path.clone())),
            (Kind::Network, None) => operations.push(Operation::Loopback),
            _ => {}
        }
    }
    operations
}

fn file_system(bundle: &Bundle) -> Vec<Operation> {
    let (spec, extras) = (&bundle.spec, &bundle.extras);
    let mut operations = Vec::new();
    if has_mounts_of_its_own(spec) {
        let asked =
            spec.linux().as_ref().and_then(|linux| propagation(linux.rootfs_propagation().as_deref()?));
        // What cannot be bound cannot be the root either, before it is.
        let asked = asked.filter(|asked| asked.flag != libc::MS_UNBINDABLE);
        operations.extend(shared_trees(bundle));
        operations.push(Operation::PrivateMounts(asked.unwrap_or(SLAVE)));
    }
    operations.push(root(bundle));
    operations.extend(extras.copy_ups.iter().cloned().map(Operation::CopyUp));
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let at_dev = |path: &Path| path == Path::new("/dev");
    let brings_devices =
        mounts.iter().any(|mount| at_dev(mount.destination()) && super::mounts::is_bind(mount));
    if !mounts.iter().any(|mount| at_dev(mount.destination())) {
        operations.extend(devices(spec));
    }
    // Nodes come right after /dev: a mount of the user may lie on one of them.
    let mut is_placed = false;
    for (index, mount) in mounts.iter().enumerate() {
        if is_control_groups(mount.typ()) && !std::mem::replace(&mut is_placed, true) {
            operations.extend(control_groups(spec));
        }
        operations.push(Operation::Mount(index, mount.clone()));
        if at_dev(mount.destination()) && !brings_devices {
            operations.extend(devices(spec));
        }
    }
    if !is_placed {
        operations.extend(control_groups(spec));
    }
    operations.extend(extras.shm_of.map(Operation::SharedMemory));
    operations.extend(extras.images.iter().cloned().map(Operation::Image));
    operations.extend(extras.contents.iter().cloned().map(Operation::Content));
    if let Some(process) = spec.process().as_ref().filter(|process| process.terminal() == Some(true)) {
        let size = traits::console_size(process);
        operations.push(Operation::Terminal { console: !brings_devices, size });
    }
    let read_only = |mount: &&oci_spec::runtime::Mount| traits::is_read_only_memory(mount);
    operations.extend(
        mounts.iter().filter(read_only).map(|mount| Operation::ReadOnlyMount(mount.destination().clone())),
    );
    if let Some(linux) = spec.linux() {
        let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect::<Vec<_>>();
        operations.extend(paths(linux.masked_paths()).into_iter().map(Operation::Mask));
        operations.extend(paths(linux.readonly_paths()).into_iter().map(Operation::ReadOnly));
    }
    operations
}

/// What is to stay one with the host's mounts is taken while ours still are. (A bundle says it of its whole root.)
fn shared_trees(bundle: &Bundle) -> Option<Operation> {
    let is_shared = |mount: &oci_spec::runtime::Mount| {
        mount.options().iter().flatten().any(|option| option == "shared" || option == "rshared")
    };
    let mounts = bundle.spec.mounts().iter().flatten().cloned().enumerate();
    let shared: Vec<_> =
        mounts.filter(|(_, mount)| is_shared(mount) && super::mounts::is_bind(mount)).collect();
    (bundle.extras.direct.is_none() && !shared.is_empty()).then_some(Operation::TakeTrees(shared))
}

fn is_control_groups(kind: &Option<String>) -> bool {
    matches!(kind.as_deref(), Some("cgroup" | "cgroup2"))
}

fn has_mounts_of_its_own(spec: &Spec) -> bool {
    namespaces_of(spec).iter().any(|namespace| namespace.typ() == Kind::Mount)
}

/// As late as possible: until then the monitor places us in the groups, while we mount.
fn control_groups(spec: &Spec) -> Vec<Operation> {
    let is_new = namespaces_of(spec).iter().any(|n| n.typ() == Kind::Cgroup && n.path().is_none());
    let mut operations = vec![Operation::AwaitPlacement];
    operations.extend(is_new.then_some(Operation::NewCgroupNamespace));
    operations
}

fn root(bundle: &Bundle) -> Operation {
    if bundle.extras.direct.is_some() {
        let root = bundle.spec.root().as_ref().map(|root| root.path().clone());
        let is_mounted = has_mounts_of_its_own(&bundle.spec);
        return Operation::Directory { path: root.unwrap_or_default(), is_mounted };
    }
    Operation::Root {
        lower_dirs: bundle.extras.lower_dirs.clone(),
        upper: bundle.dir.join("upper"),
        work: bundle.dir.join("work"),
        at: bundle.dir.join("root"),
        volatile: bundle.ephemeral || bundle.extras.volatile,
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

fn hooks(
    bundle: &Bundle,
    kind: &'static str,
    of: impl Fn(&Hooks) -> &Option<Vec<Hook>>,
    in_root: bool,
) -> Option<Operation> {
    let hooks =
        bundle.spec.hooks().as_ref().and_then(|hooks| of(hooks).clone()).filter(|hooks| !hooks.is_empty())?;
    let state = bundle.state(if in_root { "creating" } else { "created" });
    Some(Operation::Hooks { kind, hooks, state: Box::new(state), in_root })
}

/// Those of the runtime run outside, while we wait.
#[allow(deprecated)]
fn hooks_before_entry(bundle: &Bundle) -> Vec<Operation> {
    let of = |list: &Option<Vec<Hook>>| list.as_ref().is_some_and(|hooks| !hooks.is_empty());
    let outside =
        bundle.spec.hooks().as_ref().is_some_and(|hooks| of(hooks.prestart()) || of(hooks.create_runtime()));
    let mut operations = Vec::new();
    if outside {
        operations.extend([Operation::Prepared, Operation::AwaitGo]);
    }
    operations.extend(hooks(bundle, "createContainer", Hooks::create_container, true));
    operations
}

/// What must wait until the owner has set up the network and written the files.
fn settings(bundle: &Bundle) -> Vec<Operation> {
    let (spec, files) = (&bundle.spec, &bundle.extras.files);
    let read_only = read_only(spec);
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
    // The score of a bundle's init is set from outside, where it may also be lowered.
    let score = spec.process().as_ref().and_then(Process::oom_score_adj);
    operations.extend(score.filter(|_| bundle.extras.direct.is_none()).map(Operation::OomScore));
    operations.extend(spec.hostname().clone().map(Operation::Hostname));
    operations.extend(spec.domainname().clone().map(Operation::Domainname));
    let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().clone()).unwrap_or_default();
    operations.extend(sysctls.into_iter().map(|(key, value)| Operation::Sysctl { key, value }));
    operations
}

fn entry(spec: &Spec, direct: Option<&Direct>) -> Operation {
    match direct {
        _ if !has_mounts_of_its_own(spec) => Operation::ChangeRoot,
        Some(direct) if direct.no_pivot => Operation::MoveRoot,
        _ => Operation::Pivot,
    }
}

/// What can be said of the root only when it is one.
fn rest_of_root(bundle: &Bundle) -> Option<Operation> {
    let linux = bundle.spec.linux().as_ref().filter(|_| has_mounts_of_its_own(&bundle.spec))?;
    bundle.extras.direct.as_ref()?;
    propagation(linux.rootfs_propagation().as_deref()?).map(Operation::RootPropagation)
}

fn read_only(spec: &Spec) -> bool {
    spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true)
}

/// From limits to what is left before `execve`. A process that may gain privileges needs one to install the
/// filter, so it gets it before it loses them; any other as late as possible.
fn program(bundle: &Bundle, process: &Process) -> Vec<Operation> {
    let spec = &bundle.spec;
    let is_direct = bundle.extras.direct.is_some();
    let mut operations: Vec<Operation> =
        process.rlimits().iter().flatten().map(|limit| Operation::Rlimit(*limit)).collect();
    operations.push(user(bundle, process));
    operations.push(Operation::Streams { terminal: process.terminal() == Some(true) });
    operations.extend(
        process
            .apparmor_profile()
            .clone()
            .filter(|p| !p.is_empty())
            .map(|p| Operation::Label(Label::AppArmor(p))),
    );
    operations.extend(
        process
            .selinux_label()
            .clone()
            .filter(|l| !l.is_empty())
            .map(|l| Operation::Label(Label::SeLinux(l))),
    );
    operations.extend(traits::operations(spec, process));
    operations.push(Operation::Umask(process.user().umask().unwrap_or(0o022)));
    let sets = process.capabilities().as_ref();
    let bounding =
        sets.and_then(|sets| sets.bounding().as_ref()).map(capability::from_oci).unwrap_or_default();
    operations.push(Operation::Bounding(bounding.into_iter().collect()));
    let cannot_gain = process.no_new_privileges() == Some(true);
    operations.extend(cannot_gain.then_some(Operation::NoNewPrivileges));
    let filter = spec.linux().as_ref().and_then(|linux: &Linux| linux.seccomp().clone());
    let mut filter = filter.map(|filter| Operation::Seccomp(Box::new(filter)));
    let directory = |is_last| Operation::ChangeDirectory { path: process.cwd().clone(), is_last };
    operations.push(directory(false));
    operations.extend(filter.take_if(|_| !cannot_gain));
    operations.push(Operation::Identity(capability_sets(process, is_direct)));
    operations.extend((!is_direct).then_some(Operation::DieWithParent));
    operations.push(directory(true));
    if is_direct {
        operations.push(Operation::Find(process.args().clone().unwrap_or_default()));
    }
    operations.extend(filter);
    operations
}

fn user(bundle: &Bundle, process: &Process) -> Operation {
    let user = process.user();
    if bundle.extras.direct.is_some() {
        let keeps = |notes: &std::collections::HashMap<_, _>| notes.contains_key(KEEP_GROUPS);
        let is_kept = bundle.spec.annotations().as_ref().is_some_and(keeps);
        let groups = (!is_kept).then(|| user.additional_gids().clone().unwrap_or_default());
        return Operation::Ids { uid: user.uid(), gid: user.gid(), groups };
    }
    Operation::User {
        user: user.username().clone().unwrap_or_default(),
        group_add: bundle.extras.group_add.clone(),
    }
}

fn capability_sets(process: &Process, is_direct: bool) -> Sets {
    let Some(sets) = process.capabilities() else { return Sets::default() };
    let mask = |set: &Option<Capabilities>| {
        let numbers = set.as_ref().map(capability::from_oci).unwrap_or_default();
        numbers.into_iter().fold(0u64, |mask, number| mask | 1 << number)
    };
    Sets {
        effective: mask(sets.effective()),
        permitted: mask(sets.permitted()),
        inheritable: mask(sets.inheritable()),
        ambient: mask(sets.ambient()),
        root_only: !is_direct,
    }
}

fn execute(process: &Process, reaper: bool) -> Operation {
    Operation::Execute { args: process.args().clone().unwrap_or_default(), reaper }
}
