//! From what the user wrote to what the kernel gets: service, project and image together make one complete
//! [`ContainerSpec`]. Pure, except that names of new anonymous volumes are random.
//!
//! Rules are Docker's and Compose's (features.md `RT-cmd-merge`, `SVC-*`, `CONV-anon-inherit`):
//! an entry point of the service discards the image's command, a command alone keeps the image's entry point; the
//! service's variables win over the image's and a null one removes it; image VOLUMEs become anonymous volumes unless
//! something is mounted there.

mod borrowed;
mod health;
pub(super) mod logging;
mod mounts;
mod network;
mod resources;

use super::label;
use super::step::Creation;
pub(super) use borrowed::{Borrowed, Donor};
pub use resources::{device_requests, is_qualified};
use stack_runtime::image::ImageConfig;
use stack_runtime::spec::{ContainerSpec, Map, MountSpec, NamespaceMode, RestartSpec};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Project, RestartPolicy, Service};

/// An image as the store knows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageView {
    /// `sha256:…` of the config.
    pub id: String,
    /// Of the top layer; empty without layers.
    pub chain_id: String,
    pub config: ImageConfig,
}

/// What a creation takes from other images and containers.
pub trait Around {
    /// The chain id of an image to mount.
    fn image(&self, reference: &str) -> Option<String>;
    /// The mounts of a container of the project, by its final name.
    fn mounts(&self, container: &str) -> Option<Vec<MountSpec>>;
}

/// Completes a creation.
///
/// # Errors
/// What Docker refuses at create: no command, an external secret, an unknown namespace owner or donor of mounts.
pub fn container_spec(
    project: &Project,
    creation: &Creation,
    image: &ImageView,
    around: &dyn Around,
) -> Result<ContainerSpec, Diagnostic> {
    let service = &creation.service;
    check_names(service)?;
    let (labels, env) = (labels(project, creation, image), environment(service, &image.config));
    Ok(ContainerSpec {
        name: creation.temporary.clone().unwrap_or_else(|| creation.name.clone()),
        image: creation.reference.clone(),
        image_id: image.id.clone(),
        chain_id: image.chain_id.clone(),
        args: args(service, &image.config)?,
        working_dir: chosen(service.working_dir.as_ref(), &image.config.working_dir),
        user: chosen(service.user.as_ref(), &image.config.user),
        group_add: service.group_add.clone(),
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        annotations: service.annotations.clone(),
        tty: service.tty,
        stdin_open: service.stdin_open,
        init: service.init,
        read_only: service.read_only,
        privileged: service.privileged,
        cap_add: service.cap_add.clone(),
        cap_drop: service.cap_drop.clone(),
        security_opt: service.security_opt.clone(),
        mounts: mounts::mounts(project, creation, image, around)?,
        devices: resources::devices(service),
        device_rules: service.device_rules.clone(),
        device_requests: resources::device_requests(service),
        hooks: Vec::new(),
        ulimits: service
            .ulimits
            .iter()
            .map(|(name, limit)| (name.clone(), (limit.soft, limit.hard)))
            .collect(),
        sysctls: service.sysctls.clone(),
        shm_size: service.shm_size.and_then(|size| u64::try_from(size.0).ok()).filter(|size| *size > 0),
        resources: resources::resources(&service.resources),
        oom_score_adj: service.oom_score_adj,
        network: network::mode(project, creation)?,
        dns: network::dns(service),
        extra_hosts: service.extra_hosts.clone(),
        links: network::links(project, service),
        ports: network::ports(service)?,
        exposed: network::exposed(service, &image.config),
        pid_mode: namespace(project, service, service.pid.as_deref(), "pid")?,
        ipc_mode: namespace(project, service, service.ipc.as_deref(), "ipc")?,
        cgroup_host: service.cgroup.as_deref() == Some("host"),
        uts_host: service.uts.as_deref() == Some("host"),
        userns: service.userns_mode.clone(),
        health: health::health(service.healthcheck.as_ref(), &image.config),
        restart: restart(creation),
        stop_signal: service.stop_signal.clone().or_else(|| image.config.stop_signal.clone()),
        stop_grace: service.stop_grace_period,
        logging: logging::logging(service, &labels, &env)?,
        env,
        labels,
        auto_remove: creation.one_off.as_ref().is_some_and(|o| o.auto_remove),
    })
}

/// Names of its own need a namespace of its own.
fn check_names(service: &Service) -> Result<(), Diagnostic> {
    let names = [("hostname", &service.hostname), ("domainname", &service.domainname)];
    match names.into_iter().find(|(_, name)| name.is_some()) {
        Some((key, _)) if service.uts.as_deref() == Some("host") => {
            Err(Diagnostic::error(format!("conflicting options: {key} and the UTS mode"))
                .key(format!("services.{}.{key}", service.key)))
        }
        _ => Ok(()),
    }
}

fn args(service: &Service, image: &ImageConfig) -> Result<Vec<String>, Diagnostic> {
    let of_image = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let command = service.command.clone().filter(|c| !c.is_empty());
    let (entrypoint, default) = match &service.entrypoint {
        None => (of_image(&image.entrypoint), of_image(&image.cmd)),
        Some(written) if written.is_empty() => (Vec::new(), of_image(&image.cmd)),
        Some(written) => (written.clone(), Vec::new()),
    };
    let args: Vec<String> = entrypoint.into_iter().chain(command.unwrap_or(default)).collect();
    if args.is_empty() {
        return Err(Diagnostic::error("no command specified")
            .key(format!("services.{}", service.key))
            .hint("The image has no default command; give the service a `command`."));
    }
    Ok(args)
}

/// The image's variables in their order, then the service's own.
fn environment(service: &Service, image: &ImageConfig) -> Vec<(String, String)> {
    let wanted = &service.environment;
    let inherited = image.environment().filter(|(name, _)| !wanted.contains_key(*name));
    let inherited = inherited.map(|(name, value)| (name.to_string(), value.to_string()));
    let own = wanted.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    inherited.chain(own).collect()
}

fn chosen(own: Option<&String>, image: &str) -> String {
    own.cloned().unwrap_or_else(|| image.to_string())
}

fn labels(project: &Project, creation: &Creation, image: &ImageView) -> Map {
    let service = &creation.service;
    let mut labels = image.config.labels.clone();
    labels.extend(service.labels.clone());
    let files = project.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(",");
    let compose = [
        (label::CONFIG_HASH, service.fingerprint.clone()),
        (label::NUMBER, creation.number.to_string()),
        (label::DEPENDS_ON, label::depends_on(service)),
        (label::IMAGE, image.id.clone()),
        (label::ONE_OFF, if creation.one_off.is_some() { "True" } else { "False" }.to_string()),
        (label::PROJECT, project.name.clone()),
        (label::CONFIG_FILES, files),
        (label::WORKING_DIR, project.directory.display().to_string()),
        (label::SERVICE, service.key.clone()),
        (label::VERSION, label::TOOL_VERSION.to_string()),
        (label::PARTS, super::changes::label_of(service)),
    ];
    labels.extend(compose.into_iter().map(|(key, value)| (key.to_string(), value)));
    if let Some(one_off) = &creation.one_off {
        labels.insert(label::SLUG.to_string(), one_off.slug.clone());
    }
    labels
}

/// `host`, `private`, `shareable`, `service:x`, `container:x`.
fn namespace(
    project: &Project,
    service: &Service,
    text: Option<&str>,
    key: &str,
) -> Result<NamespaceMode, Diagnostic> {
    match text {
        None | Some("" | "private") => Ok(NamespaceMode::Private),
        Some("host") => Ok(NamespaceMode::Host),
        Some("shareable") => Ok(NamespaceMode::Shareable),
        Some(other) => match owner(project, other) {
            Some(name) => Ok(NamespaceMode::Container(name)),
            None => Err(Diagnostic::error(format!("`{key}: {other}` is not supported"))
                .key(format!("services.{}.{key}", service.key))),
        },
    }
}

/// The container name behind `service:x` or `container:x`.
fn owner(project: &Project, text: &str) -> Option<String> {
    match text.split_once(':')? {
        ("service", key) => project.services.get(key).map(|s| label::container_name(project, s, 1)),
        ("container", name) => Some(name.to_string()),
        _ => None,
    }
}

/// A run container is not restarted.
fn restart(creation: &Creation) -> RestartSpec {
    if creation.one_off.is_some() {
        return RestartSpec::No;
    }
    match creation.service.restart {
        RestartPolicy::No => RestartSpec::No,
        RestartPolicy::Always => RestartSpec::Always,
        RestartPolicy::OnFailure(times) => RestartSpec::OnFailure(times),
        RestartPolicy::UnlessStopped => RestartSpec::UnlessStopped,
    }
}

#[cfg(test)]
mod tests;
