//! The canonical tree as a typed [`Project`]. Everything was checked before: what does not fit here is left out.

use super::fingerprint::fingerprint;
use super::{Session, paths};
use crate::env::Origin;
use crate::project::*;
use crate::short;
use crate::yaml::{Map as NodeMap, Node, Value};
use indexmap::IndexMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

impl<'r> Session<'r> {
    pub(super) fn bind(&self, tree: &Arc<Node>, disabled: NodeMap, name: String) -> Project {
        let services: IndexMap<String, Service> = members(tree.get("services"))
            .map(|(key, node)| (key.to_owned(), self.service(key, node)))
            .collect();
        let mut project = Project {
            name,
            compatibility: self.request.compatibility,
            directory: self.request.project_directory.clone(),
            files: self.request.files.clone(),
            env_files: self.env_files_of_environment(),
            disabled: disabled
                .iter()
                .map(|(key, entry)| (key.to_owned(), self.service(key, &entry.node)))
                .collect(),
            networks: members(tree.get("networks"))
                .map(|(key, node)| (key.to_owned(), network(key, node)))
                .collect(),
            volumes: members(tree.get("volumes"))
                .map(|(key, node)| (key.to_owned(), volume(key, node)))
                .collect(),
            secrets: self.file_objects(tree, "secrets"),
            configs: self.file_objects(tree, "configs"),
            profiles: self.request.profiles.clone(),
            refusals: self.refusals.clone(),
            places: Places::new(tree.clone()),
            services,
        };
        forget_absent(&mut project);
        project
    }

    /// Of services that name none. It is no attribute: `config` does not show it.
    pub(super) fn default_platform(&self) -> Option<&'r str> {
        let platform = self.request.environment.get("DOCKER_DEFAULT_PLATFORM");
        platform.filter(|platform| !platform.is_empty())
    }

    fn env_files_of_environment(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        for (_, variable) in self.request.environment.iter() {
            let Origin::File(place) = &variable.origin else { continue };
            files.extend(
                place.source.path.iter().filter(|path| !files.contains(path)).cloned().collect::<Vec<_>>(),
            );
        }
        files
    }

    fn file_objects(&self, tree: &Node, section: &str) -> IndexMap<String, FileObject> {
        let object = |(key, node): (&str, &Node)| {
            let content = self.content(section, key, node);
            (
                key.to_owned(),
                FileObject { key: key.to_owned(), name: text(node, "name").unwrap_or_default(), content },
            )
        };
        members(tree.get(section)).map(object).collect()
    }

    fn content(&self, section: &str, key: &str, node: &Node) -> FileContent {
        if flag(node, "external") {
            return FileContent::External;
        }
        if let Some(file) = text(node, "file") {
            return FileContent::File(PathBuf::from(file));
        }
        if let Some(variable) = text(node, "environment") {
            return match self.contents.get(&(section.to_owned(), key.to_owned())) {
                Some(value) => FileContent::Inline(value.clone()),
                None => FileContent::Unset(variable),
            };
        }
        text(node, "content").map_or(FileContent::External, FileContent::Inline)
    }

    fn service(&self, key: &str, node: &Node) -> Service {
        Service {
            key: key.to_owned(),
            image: text(node, "image"),
            build: node.get("build").map(|build| self.build(build)),
            pull_policy: pull_policy(node),
            platform: text(node, "platform").or_else(|| self.default_platform().map(str::to_owned)),
            command: words(node, "command"),
            entrypoint: words(node, "entrypoint"),
            environment: optional_strings(node.get("environment")),
            user: text(node, "user"),
            group_add: list(node, "group_add"),
            working_dir: text(node, "working_dir"),
            container_name: text(node, "container_name"),
            hostname: text(node, "hostname"),
            domainname: text(node, "domainname"),
            labels: strings(node.get("labels")),
            annotations: strings(node.get("annotations")),
            profiles: list(node, "profiles"),
            depends_on: members(node.get("depends_on"))
                .map(|(name, node)| (name.to_owned(), dependency(node)))
                .collect(),
            healthcheck: node.get("healthcheck").map(healthcheck),
            restart: restart(node),
            stop_signal: text(node, "stop_signal"),
            stop_grace_period: duration(node, "stop_grace_period"),
            ports: items(node, "ports").filter_map(port).collect(),
            expose: list(node, "expose"),
            volumes: items(node, "volumes").filter_map(mount).collect(),
            tmpfs: list(node, "tmpfs").iter().map(|item| split(item, ':')).collect(),
            networks: endpoints(node),
            network_mode: text(node, "network_mode"),
            dns: list(node, "dns"),
            dns_search: list(node, "dns_search"),
            dns_opt: list(node, "dns_opt"),
            extra_hosts: hosts(node),
            links: list(node, "links"),
            external_links: list(node, "external_links"),
            volumes_from: list(node, "volumes_from"),
            secrets: items(node, "secrets").filter_map(|grant| self::grant(grant, "/run/secrets/")).collect(),
            configs: items(node, "configs").filter_map(|grant| self::grant(grant, "/")).collect(),
            scale: scale(node),
            resources: resources(node),
            ulimits: ulimits(node),
            sysctls: strings(node.get("sysctls")),
            shm_size: bytes(node, "shm_size"),
            cap_add: list(node, "cap_add"),
            cap_drop: list(node, "cap_drop"),
            privileged: flag(node, "privileged"),
            read_only: flag(node, "read_only"),
            init: flag(node, "init"),
            tty: flag(node, "tty"),
            stdin_open: flag(node, "stdin_open"),
            security_opt: list(node, "security_opt"),
            devices: items(node, "devices").filter_map(device).collect(),
            device_rules: list(node, "device_cgroup_rules"),
            device_requests: device_requests(node),
            ipc: text(node, "ipc"),
            pid: text(node, "pid"),
            uts: text(node, "uts"),
            userns_mode: text(node, "userns_mode"),
            cgroup: text(node, "cgroup"),
            oom_score_adj: int(node, "oom_score_adj").map(|score| score as i32),
            logging: node.get("logging").map(logging),
            attach: node.get("attach").and_then(Node::as_bool).unwrap_or(true),
            develop: node
                .get("develop")
                .map(|develop| items(develop, "watch").filter_map(watch_rule).collect())
                .unwrap_or_default(),
            fingerprint: fingerprint(node),
        }
    }

    fn build(&self, node: &Node) -> Build {
        let base = &self.request.project_directory;
        let context = text(node, "context").unwrap_or_else(|| ".".into());
        let context = if paths::is_remote(&context) { context } else { paths::join(&context, base) };
        Build {
            context: PathBuf::from(context),
            dockerfile: PathBuf::from(text(node, "dockerfile").unwrap_or_else(|| "Dockerfile".into())),
            dockerfile_inline: text(node, "dockerfile_inline"),
            args: optional_strings(node.get("args")),
            target: text(node, "target"),
            labels: strings(node.get("labels")),
            tags: list(node, "tags"),
            no_cache: flag(node, "no_cache"),
            pull: flag(node, "pull"),
            network: text(node, "network"),
            shm_size: bytes(node, "shm_size"),
            ulimits: ulimits(node),
            no_cache_filter: list(node, "no_cache_filter"),
            cache_from: list(node, "cache_from"),
            cache_to: list(node, "cache_to"),
            ssh: list(node, "ssh").iter().map(|item| agent(item)).collect(),
            extra_hosts: hosts(node),
            secrets: items(node, "secrets").filter_map(build_grant).collect(),
            additional_contexts: strings(node.get("additional_contexts")),
            platforms: list(node, "platforms"),
            bases: Vec::new(),
            provenance: text(node, "provenance"),
            sbom: text(node, "sbom"),
        }
    }
}

/// Optional dependencies on services that are not part of the project mean nothing.
fn forget_absent(project: &mut Project) {
    let keys: Vec<String> = project.services.keys().cloned().collect();
    for service in project.services.values_mut() {
        service.depends_on.retain(|name, dependency| dependency.required || keys.contains(name));
    }
}

fn members(node: Option<&Node>) -> impl Iterator<Item = (&str, &Node)> {
    node.and_then(Node::as_map).into_iter().flat_map(|map| map.iter().map(|(key, entry)| (key, &entry.node)))
}

fn items<'n>(node: &'n Node, key: &str) -> impl Iterator<Item = &'n Node> {
    node.get(key).and_then(Node::as_seq).unwrap_or_default().iter()
}

fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key).and_then(Node::scalar_text).filter(|text| !text.is_empty())
}

fn list(node: &Node, key: &str) -> Vec<String> {
    items(node, key).filter_map(Node::scalar_text).filter(|text| !text.is_empty()).collect()
}

/// A command: written empty is not the same as not written.
fn words(node: &Node, key: &str) -> Option<Vec<String>> {
    node.get(key).and_then(Node::as_seq).map(|words| words.iter().filter_map(Node::scalar_text).collect())
}

fn flag(node: &Node, key: &str) -> bool {
    node.get(key).and_then(Node::as_bool).unwrap_or(false)
}

fn int(node: &Node, key: &str) -> Option<i64> {
    match node.get(key)?.value {
        Value::Int(number) => Some(number),
        _ => None,
    }
}

fn float(node: &Node, key: &str) -> Option<f64> {
    match node.get(key)?.value {
        Value::Int(number) => Some(number as f64),
        Value::Float(number) => Some(number),
        _ => None,
    }
}

fn bytes(node: &Node, key: &str) -> Option<Bytes> {
    short::parse_bytes(&text(node, key)?).ok()
}

fn duration(node: &Node, key: &str) -> Option<Duration> {
    short::parse_duration(&text(node, key)?).ok()
}

fn strings(node: Option<&Node>) -> Map {
    members(node).map(|(key, node)| (key.to_owned(), node.scalar_text().unwrap_or_default())).collect()
}

fn optional_strings(node: Option<&Node>) -> IndexMap<String, Option<String>> {
    members(node).map(|(key, node)| (key.to_owned(), node.scalar_text())).collect()
}

/// Names and addresses; white space around either says nothing.
fn hosts(node: &Node) -> Vec<(String, String)> {
    let split = |item: &String| split(item, '=');
    let trim = |(name, address): (String, String)| (name.trim().to_owned(), address.trim().to_owned());
    list(node, "extra_hosts").iter().map(split).map(trim).collect()
}

fn split(item: &str, at: char) -> (String, String) {
    let (head, tail) = item.split_once(at).unwrap_or((item, ""));
    (head.to_owned(), tail.to_owned())
}

fn pull_policy(node: &Node) -> PullPolicy {
    match text(node, "pull_policy").as_deref() {
        Some("always") => PullPolicy::Always,
        Some("never") => PullPolicy::Never,
        Some("build") => PullPolicy::Build,
        _ => PullPolicy::Missing,
    }
}

fn dependency(node: &Node) -> Dependency {
    let condition = match text(node, "condition").as_deref() {
        Some("service_healthy") => Condition::ServiceHealthy,
        Some("service_completed_successfully") => Condition::ServiceCompletedSuccessfully,
        _ => Condition::ServiceStarted,
    };
    let required = node.get("required").and_then(Node::as_bool).unwrap_or(true);
    Dependency { condition, restart: flag(node, "restart"), required }
}

fn healthcheck(node: &Node) -> Healthcheck {
    let test = words(node, "test").filter(|test| !test.is_empty());
    Healthcheck {
        disable: flag(node, "disable") || test.as_deref().is_some_and(|test| test[0] == "NONE"),
        test,
        interval: duration(node, "interval"),
        timeout: duration(node, "timeout"),
        retries: int(node, "retries").and_then(|retries| u32::try_from(retries).ok()),
        start_period: duration(node, "start_period"),
        start_interval: duration(node, "start_interval"),
    }
}

fn restart(node: &Node) -> RestartPolicy {
    let policy = node.get("deploy").and_then(|deploy| deploy.get("restart_policy"));
    if let Some(policy) = policy {
        let attempts = int(policy, "max_attempts").and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        return match text(policy, "condition").as_deref() {
            Some("any" | "always") => RestartPolicy::Always,
            Some("on-failure") => RestartPolicy::OnFailure(attempts),
            Some("unless-stopped") => RestartPolicy::UnlessStopped,
            _ => RestartPolicy::No,
        };
    }
    let written = text(node, "restart").unwrap_or_default();
    let (word, count) = split(&written, ':');
    match word.as_str() {
        "always" => RestartPolicy::Always,
        "on-failure" => RestartPolicy::OnFailure(count.parse().unwrap_or(0)),
        "unless-stopped" => RestartPolicy::UnlessStopped,
        _ => RestartPolicy::No,
    }
}

fn port(node: &Node) -> Option<Port> {
    Some(Port {
        host_ip: text(node, "host_ip"),
        published: text(node, "published").unwrap_or_default(),
        target: u16::try_from(int(node, "target")?).ok()?,
        protocol: text(node, "protocol").unwrap_or_else(|| "tcp".into()),
        mode: text(node, "mode").unwrap_or_else(|| "ingress".into()),
        name: text(node, "name"),
    })
}

fn mount(node: &Node) -> Option<Mount> {
    let kind = match text(node, "type")?.as_str() {
        "bind" => MountKind::Bind,
        "volume" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        "image" => MountKind::Image,
        _ => return None,
    };
    let none = Node::map(node.place.clone());
    let part = |key: &str| node.get(key).unwrap_or(&none);
    let (bind, volume, tmpfs) = (part("bind"), part("volume"), part("tmpfs"));
    Some(Mount {
        kind,
        source: text(node, "source"),
        target: short::clean_path(&text(node, "target")?),
        read_only: flag(node, "read_only"),
        create_host_path: bind.get("create_host_path").and_then(Node::as_bool).unwrap_or(true),
        propagation: text(bind, "propagation"),
        recursive: text(bind, "recursive"),
        nocopy: flag(volume, "nocopy"),
        subpath: text(volume, "subpath").or_else(|| text(part("image"), "subpath")),
        tmpfs_size: bytes(tmpfs, "size"),
        tmpfs_mode: int(tmpfs, "mode").and_then(|mode| u32::try_from(mode).ok()),
    })
}

fn endpoints(node: &Node) -> IndexMap<String, Endpoint> {
    if text(node, "network_mode").is_some() {
        return IndexMap::new();
    }
    let endpoint = |node: &Node| Endpoint {
        aliases: list(node, "aliases"),
        ipv4_address: text(node, "ipv4_address"),
        ipv6_address: text(node, "ipv6_address"),
        mac_address: text(node, "mac_address"),
        priority: int(node, "priority").unwrap_or(0) as i32,
        gw_priority: int(node, "gw_priority").unwrap_or(0) as i32,
        interface_name: text(node, "interface_name"),
    };
    members(node.get("networks")).map(|(key, node)| (key.to_owned(), endpoint(node))).collect()
}

fn grant(node: &Node, prefix: &str) -> Option<Grant> {
    let source = text(node, "source")?;
    let target = text(node, "target").unwrap_or_else(|| source.clone());
    let target = if target.starts_with('/') { target } else { format!("{prefix}{target}") };
    Some(Grant { target, ..build_grant(node)? })
}

/// The target of a build's secret is its id.
fn build_grant(node: &Node) -> Option<Grant> {
    let source = text(node, "source")?;
    Some(Grant {
        target: text(node, "target").unwrap_or_else(|| source.clone()),
        uid: text(node, "uid"),
        gid: text(node, "gid"),
        mode: text(node, "mode").and_then(|mode| short::parse_mode(&mode).ok()),
        source,
    })
}

fn scale(node: &Node) -> u32 {
    let replicas = node.get("deploy").and_then(|deploy| int(deploy, "replicas"));
    let count = int(node, "scale").or(replicas).unwrap_or(1);
    u32::try_from(count).unwrap_or(0)
}

fn resources(node: &Node) -> Resources {
    let none = Node::map(node.place.clone());
    let deployed = node.get("deploy").and_then(|deploy| deploy.get("resources")).unwrap_or(&none);
    let (limits, reservations) =
        (deployed.get("limits").unwrap_or(&none), deployed.get("reservations").unwrap_or(&none));
    Resources {
        memory: bytes(node, "mem_limit").or_else(|| bytes(limits, "memory")),
        memory_reservation: bytes(node, "mem_reservation").or_else(|| bytes(reservations, "memory")),
        memory_swap: bytes(node, "memswap_limit"),
        cpus: float(node, "cpus").or_else(|| float(limits, "cpus")),
        cpu_shares: int(node, "cpu_shares").and_then(|shares| u64::try_from(shares).ok()),
        cpuset: text(node, "cpuset"),
        cpu_period: int(node, "cpu_period"),
        cpu_quota: int(node, "cpu_quota"),
        cpu_rt_period: int(node, "cpu_rt_period"),
        cpu_rt_runtime: int(node, "cpu_rt_runtime"),
        memory_swappiness: bytes(node, "mem_swappiness").map(|number| number.0),
        pids: int(node, "pids_limit").or_else(|| int(limits, "pids")),
        oom_kill_disable: flag(node, "oom_kill_disable"),
    }
}

fn ulimits(node: &Node) -> IndexMap<String, Ulimit> {
    let limits = members(node.get("ulimits"));
    limits.filter_map(|(name, node)| Some((name.to_owned(), ulimit(node)?))).collect()
}

/// `id` or `id=path`.
fn agent(item: &str) -> (String, Option<String>) {
    let (id, path) = split(item, '=');
    (id, Some(path).filter(|path| !path.is_empty()))
}

fn ulimit(node: &Node) -> Option<Ulimit> {
    match node.value {
        Value::Int(both) => Some(Ulimit { soft: both, hard: both }),
        _ => Some(Ulimit { soft: int(node, "soft")?, hard: int(node, "hard")? }),
    }
}

/// A GPU need not be said to be one.
fn device_requests(node: &Node) -> Vec<DeviceRequest> {
    let mut gpus: Vec<DeviceRequest> = items(node, "gpus").map(device_request).collect();
    for request in gpus.iter_mut().filter(|request| !request.capabilities.iter().any(|c| c == "gpu")) {
        request.capabilities.push("gpu".into());
    }
    let deployed = node.get("deploy").and_then(|node| node.get("resources")?.get("reservations"));
    gpus.extend(deployed.into_iter().flat_map(|node| items(node, "devices")).map(device_request));
    gpus
}

fn device_request(node: &Node) -> DeviceRequest {
    DeviceRequest {
        driver: text(node, "driver").unwrap_or_default(),
        count: int(node, "count").unwrap_or(0),
        device_ids: list(node, "device_ids"),
        capabilities: list(node, "capabilities"),
    }
}

fn device(node: &Node) -> Option<String> {
    let source = text(node, "source")?;
    let target = text(node, "target").unwrap_or_else(|| source.clone());
    Some(format!("{source}:{target}:{}", text(node, "permissions").unwrap_or_else(|| "rwm".into())))
}

fn logging(node: &Node) -> Logging {
    Logging {
        driver: text(node, "driver").unwrap_or_else(|| "json-file".into()),
        options: strings(node.get("options")),
    }
}

fn watch_rule(node: &Node) -> Option<WatchRule> {
    let action = match text(node, "action")?.as_str() {
        "sync" => WatchAction::Sync,
        "rebuild" => WatchAction::Rebuild,
        "restart" => WatchAction::Restart,
        "sync+restart" => WatchAction::SyncRestart,
        "sync+exec" => WatchAction::SyncExec,
        _ => return None,
    };
    Some(WatchRule {
        action,
        path: Path::new(&text(node, "path")?).to_owned(),
        target: text(node, "target"),
        ignore: list(node, "ignore"),
        include: list(node, "include"),
        initial_sync: flag(node, "initial_sync"),
        exec: node.get("exec").and_then(|exec| words(exec, "command")),
    })
}

fn network(key: &str, node: &Node) -> Network {
    let pool = |node: &Node| IpamPool {
        subnet: text(node, "subnet"),
        gateway: text(node, "gateway"),
        ip_range: text(node, "ip_range"),
        aux_addresses: strings(node.get("aux_addresses")).into_iter().collect(),
    };
    Network {
        key: key.to_owned(),
        name: text(node, "name").unwrap_or_default(),
        external: flag(node, "external"),
        driver: text(node, "driver"),
        driver_opts: strings(node.get("driver_opts")),
        internal: flag(node, "internal"),
        attachable: flag(node, "attachable"),
        enable_ipv4: node.get("enable_ipv4").and_then(Node::as_bool),
        enable_ipv6: node.get("enable_ipv6").and_then(Node::as_bool),
        ipam: node.get("ipam").map(|ipam| items(ipam, "config").map(pool).collect()).unwrap_or_default(),
        labels: strings(node.get("labels")),
    }
}

fn volume(key: &str, node: &Node) -> Volume {
    Volume {
        key: key.to_owned(),
        name: text(node, "name").unwrap_or_default(),
        external: flag(node, "external"),
        driver: text(node, "driver"),
        driver_opts: strings(node.get("driver_opts")),
        labels: strings(node.get("labels")),
    }
}
