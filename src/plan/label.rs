//! Labels and names: how a container, network or volume says what it belongs to. Compose's own keys.

use stack_runtime::observed::{ContainerObserved, NetworkObserved, Observed, VolumeObserved};
pub use stack_runtime::spec::Map;
use stack_schema::project::{Condition, Dependency, Endpoint, Network, Project, Service, Volume};
use std::time::Duration;

pub const PROJECT: &str = "com.docker.compose.project";
pub const SERVICE: &str = "com.docker.compose.service";
pub const NUMBER: &str = "com.docker.compose.container-number";
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
pub const IMAGE: &str = "com.docker.compose.image";
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
pub const NETWORK: &str = "com.docker.compose.network";
pub const VOLUME: &str = "com.docker.compose.volume";
pub const VERSION: &str = "com.docker.compose.version";
pub const SLUG: &str = "com.docker.compose.slug";
/// Digests of the service's attributes, so that a later plan can say which one changed.
pub const PARTS: &str = "dev.stack.service-parts";

/// The tool's version, as in the labels.
pub const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn of<'a>(labels: &'a Map, key: &str) -> &'a str {
    labels.get(key).map_or("", String::as_str)
}

/// What a container of the project calls itself.
pub trait Labelled {
    fn labels(&self) -> &Map;

    fn service(&self) -> &str {
        of(self.labels(), SERVICE)
    }
    /// 0 for a run container.
    fn number(&self) -> u32 {
        of(self.labels(), NUMBER).parse().unwrap_or(0)
    }
    fn is_one_off(&self) -> bool {
        of(self.labels(), ONE_OFF).eq_ignore_ascii_case("true")
    }
}

impl Labelled for ContainerObserved {
    fn labels(&self) -> &Map {
        &self.labels
    }
}

/// `shop-web-1`, or the name the user fixed.
pub fn container_name(project: &Project, service: &Service, number: u32) -> String {
    let made_up = || joined(project, &[&project.name, &service.key, &number.to_string()]);
    service.container_name.clone().unwrap_or_else(made_up)
}

/// A made-up name: `shop-web-run-1f2e`, `shop_web_run_1f2e`.
pub fn joined(project: &Project, parts: &[&str]) -> String {
    parts.join(project.separator().encode_utf8(&mut [0; 4]))
}

/// The image a service runs: its own, or the one its build is named.
pub fn image_of(project: &Project, service: &Service) -> String {
    service.image.clone().unwrap_or_else(|| joined(project, &[&project.name, &service.key]))
}

/// `db:service_healthy:false,cache:service_started:true`.
pub fn depends_on(service: &Service) -> String {
    let entry = |(key, d): (&String, &Dependency)| format!("{key}:{}:{}", condition(d.condition), d.restart);
    service.depends_on.iter().map(entry).collect::<Vec<_>>().join(",")
}

fn condition(condition: Condition) -> &'static str {
    match condition {
        Condition::ServiceStarted => "service_started",
        Condition::ServiceHealthy => "service_healthy",
        Condition::ServiceCompletedSuccessfully => "service_completed_successfully",
    }
}

/// The other way round; what cannot be read is left out.
fn parse_depends_on(text: &str) -> impl Iterator<Item = (String, Dependency)> + '_ {
    text.split(',').filter(|e| !e.is_empty()).map(|entry| {
        let mut parts = entry.split(':');
        let key = parts.next().unwrap_or_default().to_string();
        let condition = match parts.next() {
            Some("service_healthy") => Condition::ServiceHealthy,
            Some("service_completed_successfully") => Condition::ServiceCompletedSuccessfully,
            _ => Condition::ServiceStarted,
        };
        (key, Dependency { condition, restart: parts.next() == Some("true"), required: false })
    })
}

/// Rebuilds as much of a project as its labels tell, for verbs that are given only `-p`.
pub fn project_of(name: &str, observed: &Observed) -> Project {
    let mut project = Project { name: name.to_string(), ..Project::default() };
    for network in observed.networks.iter().filter(|n| of(&n.labels, PROJECT) == name) {
        let network = network_of(network);
        project.networks.insert(network.key.clone(), network);
    }
    for volume in observed.volumes.iter().filter(|v| of(&v.labels, PROJECT) == name && !v.anonymous) {
        let volume = volume_of(volume);
        project.volumes.insert(volume.key.clone(), volume);
    }
    for container in observed.containers.iter().filter(|c| !c.is_one_off()) {
        add_service(&mut project, container);
    }
    project
}

fn add_service(project: &mut Project, container: &ContainerObserved) {
    if let Some(known) = project.services.get_mut(container.service()) {
        known.scale += 1;
        return;
    }
    let service = Service {
        key: container.service().to_string(),
        image: Some(container.spec.image.clone()),
        depends_on: parse_depends_on(of(&container.labels, DEPENDS_ON)).collect(),
        networks: project.networks.keys().map(|key| (key.clone(), Endpoint::default())).collect(),
        stop_grace_period: container.spec.stop_grace.or(Some(Duration::from_secs(10))),
        fingerprint: of(&container.labels, CONFIG_HASH).to_string(),
        scale: 1,
        attach: true,
        ..Service::default()
    };
    project.services.insert(service.key.clone(), service);
}

fn network_of(observed: &NetworkObserved) -> Network {
    let key = of(&observed.labels, NETWORK).to_string();
    Network { key, name: observed.name.clone(), ..Network::default() }
}

fn volume_of(observed: &VolumeObserved) -> Volume {
    let key = of(&observed.labels, VOLUME).to_string();
    Volume { key, name: observed.name.clone(), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_survive_their_label() {
        let service = Service {
            depends_on: [(
                "db".to_string(),
                Dependency { condition: Condition::ServiceHealthy, restart: true, required: true },
            )]
            .into_iter()
            .collect(),
            ..Service::default()
        };
        let text = depends_on(&service);
        assert_eq!(text, "db:service_healthy:true");
        let (key, dependency) = parse_depends_on(&text).next().expect("one");
        assert_eq!(
            (key.as_str(), dependency.condition, dependency.restart),
            ("db", Condition::ServiceHealthy, true)
        );
        assert_eq!(parse_depends_on("").count(), 0);
    }
}
