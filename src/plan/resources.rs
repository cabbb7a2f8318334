//! Networks and volumes: what the selected services use, made where missing.

use super::intent::Up;
use super::label::{self, Labelled};
use super::step::{Action, Cause, Plan, StepId};
use super::survey::{Survey, existing, is_running, networks_of};
use sha2::{Digest, Sha256};
use stack_runtime::observed::{ContainerObserved, NetworkObserved};
use stack_runtime::spec::{Map, MountKindSpec, NetworkSpec, PoolSpec, VolumeSpec};
use stack_runtime::volume::local;
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{IpamPool, MountKind, Network, Project, Service, Volume};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Steps that others must wait for, and what had to go to let a network or volume change.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) ready: Vec<StepId>,
    /// Ids of containers that were removed because something they use is made anew, and what.
    pub(super) removed: BTreeMap<String, Removal>,
}

#[derive(Debug)]
pub(super) struct Removal {
    pub(super) cause: Cause,
    step: StepId,
}

/// What a decision about one resource needs.
struct Ground<'a> {
    project: &'a Project,
    survey: &'a Survey<'a>,
    up: &'a Up,
    /// Whose resources are converged.
    services: &'a [&'a Service],
    after: &'a [StepId],
}

pub(super) fn converge(
    plan: &mut Plan,
    project: &Project,
    survey: &Survey<'_>,
    services: &[&Service],
    after: &[StepId],
    up: &Up,
) -> Result<Resources, Vec<Diagnostic>> {
    check_externals(project, survey, services)?;
    let mut resources = Resources::default();
    let ground = Ground { project, survey, up, services, after };
    for network in used_networks(project, services).into_iter().filter(|n| is_ours(n)) {
        ground.converge_network(plan, network, &mut resources).map_err(|d| vec![d])?;
    }
    for volume in used_volumes(project, services).into_iter().filter(|v| !v.external) {
        ground.converge_volume(plan, volume, &mut resources).map_err(|d| vec![d])?;
    }
    Ok(resources)
}

/// `host` and `none` are no bridges of anybody.
fn is_ours(network: &Network) -> bool {
    !network.external && !matches!(network.driver.as_deref(), Some("host" | "none"))
}

fn check_externals(
    project: &Project,
    survey: &Survey<'_>,
    services: &[&Service],
) -> Result<(), Vec<Diagnostic>> {
    let has_network = |name: &str| survey.observed.networks.iter().any(|n| n.name == name);
    let has_volume = |name: &str| survey.observed.volumes.iter().any(|v| v.name == name);
    let networks =
        used_networks(project, services).into_iter().filter(|n| n.external && !has_network(&n.name));
    let networks = networks.map(missing_network);
    let volumes = used_volumes(project, services).into_iter().filter(|v| v.external && !has_volume(&v.name));
    let volumes = volumes.map(|v| {
        Diagnostic::error(format!("external volume {:?} not found", v.name)).key(format!("volumes.{}", v.key))
    });
    let findings: Vec<Diagnostic> = networks.chain(volumes).collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

fn missing_network(network: &Network) -> Diagnostic {
    let (name, key) = (&network.name, format!("networks.{}", network.key));
    if is_built_in(name) {
        let why = format!("network {name} cannot be joined by name: services would have aliases there");
        return Diagnostic::error(why).key(key).hint(format!("Set `network_mode: {name}` on the services."));
    }
    Diagnostic::error(format!("network {name} declared as external, but could not be found")).key(key)
}

/// Networks of Docker's that nobody makes.
fn is_built_in(name: &str) -> bool {
    matches!(name, "host" | "none" | "bridge")
}

impl Ground<'_> {
    fn converge_network(
        &self,
        plan: &mut Plan,
        network: &Network,
        resources: &mut Resources,
    ) -> Result<(), Diagnostic> {
        let spec = network_spec(self.project, network);
        let Some(known) = self.survey.observed.networks.iter().find(|n| n.name == spec.name) else {
            resources.ready.push(plan.add(Action::CreateNetwork(spec), Cause::Missing, self.after));
            return Ok(());
        };
        if is_foreign(plan, self.project, known)
            || known.fingerprint.is_empty()
            || known.fingerprint == spec.fingerprint
        {
            return Ok(());
        }
        if !known.guests.is_empty() {
            let (name, guests) = (&known.name, known.guests.join(", "));
            let why = format!(
                "network {name} changed and cannot be made anew while other projects use it ({guests})"
            );
            return Err(Diagnostic::error(why).key(format!("networks.{}", network.key)));
        }
        let attached = self.survey.everything().filter(|c| networks_of(c).contains(&spec.name.as_str()));
        let gone = self.clear(plan, attached, Cause::NetworkChanged(spec.name.clone()), resources);
        let action = Action::RemoveNetwork { name: spec.name.clone() };
        let removed = plan.add(action, Cause::Changed(vec!["configuration changed".into()]), &gone);
        resources.ready.push(plan.add(Action::CreateNetwork(spec), Cause::Replaced, &[removed]));
        Ok(())
    }

    fn converge_volume(
        &self,
        plan: &mut Plan,
        volume: &Volume,
        resources: &mut Resources,
    ) -> Result<(), Diagnostic> {
        let spec = volume_spec(self.project, volume);
        check_driver(volume)?;
        self.warn_of_options(plan, volume);
        let Some(known) = self.survey.observed.volumes.iter().find(|v| v.name == spec.name) else {
            resources.ready.push(plan.add(Action::CreateVolume(spec), Cause::Missing, self.after));
            return Ok(());
        };
        if label::of(&known.labels, label::PROJECT) != self.project.name {
            let (name, project) = (&known.name, &self.project.name);
            plan.warn(format!(
                "volume \"{name}\" already exists but was not created for project \"{project}\"; use `external: true` to use an existing volume"
            ));
        } else if !known.fingerprint.is_empty() && known.fingerprint != spec.fingerprint {
            if self.up.renew_volumes.contains(&spec.name) {
                return self.renew_volume(plan, volume, spec, resources);
            }
            plan.warn(format!(
                "volume \"{}\" exists but doesn't match the configuration in the compose file; it is kept as it is",
                known.name
            ));
            plan.kept_volumes.push(spec.name);
        }
        Ok(())
    }

    /// What the options ask for and is not had.
    fn warn_of_options(&self, plan: &mut Plan, volume: &Volume) {
        let key = &volume.key;
        for option in local::without_effect(&volume.driver_opts) {
            plan.warn(format!("volume `{key}`: the mount option {option:?} has no effect on a bind"));
        }
    }

    /// The user agreed to lose what is in it.
    fn renew_volume(
        &self,
        plan: &mut Plan,
        volume: &Volume,
        spec: VolumeSpec,
        resources: &mut Resources,
    ) -> Result<(), Diagnostic> {
        let is_selected = |c: &ContainerObserved| {
            !c.is_one_off() && self.services.iter().any(|service| service.key == c.service())
        };
        let users = || self.survey.everything().filter(|c| uses_volume(c, &spec.name));
        let others: Vec<&str> = users().filter(|c| !is_selected(c)).map(|c| c.name.as_str()).collect();
        if !others.is_empty() {
            let others = others.join(", ");
            let why = format!("volume {} cannot be made anew: volume is in use by {others}", spec.name);
            return Err(Diagnostic::error(why).key(format!("volumes.{}", volume.key)));
        }
        let gone = self.clear(plan, users(), Cause::VolumeChanged(spec.name.clone()), resources);
        let action = Action::RemoveVolume { name: spec.name.clone(), optional: false };
        let removed = plan.add(action, Cause::Changed(vec!["configuration changed".into()]), &gone);
        resources.ready.push(plan.add(Action::CreateVolume(spec), Cause::Replaced, &[removed]));
        Ok(())
    }

    /// Something can be made anew only when nobody uses it.
    fn clear<'c>(
        &self,
        plan: &mut Plan,
        users: impl Iterator<Item = &'c ContainerObserved>,
        cause: Cause,
        resources: &mut Resources,
    ) -> Vec<StepId> {
        let mut gone = self.after.to_vec();
        for container in users {
            match resources.removed.get(&container.id) {
                Some(known) => gone.push(known.step),
                None => {
                    let step = take_down(plan, container, cause.clone(), self.after, self.up.grace, false);
                    resources.removed.insert(container.id.clone(), Removal { cause: cause.clone(), step });
                    gone.push(step);
                }
            }
        }
        gone
    }
}

/// What no volume can be made of.
fn check_driver(volume: &Volume) -> Result<(), Diagnostic> {
    let at = |what: &str| format!("volumes.{}.{what}", volume.key);
    match volume.driver.as_deref() {
        None | Some("" | "local") => {}
        Some(other) => {
            let why = format!("error looking up volume plugin {other}: plugin {other:?} not found");
            return Err(Diagnostic::error(why).key(at("driver")).hint("Volumes are of the driver `local`."));
        }
    }
    local::check(&volume.driver_opts).map_err(|why| {
        let found = Diagnostic::error(format!("volume `{}`: {why}", volume.key)).key(at("driver_opts"));
        let is_mountable_elsewhere = why.ends_with("are not mounted by stack");
        match is_mountable_elsewhere {
            true => found.hint("Mount it on the host, and give the volume `type: none`, `o: bind` and that folder as `device`."),
            false => found,
        }
    })
}

fn uses_volume(container: &ContainerObserved, volume: &str) -> bool {
    let is_it = |kind: &MountKindSpec| matches!(kind, MountKindSpec::Volume { name, .. } if name == volume);
    container.spec.mounts.iter().any(|mount| is_it(&mount.kind))
}

/// Stop if it runs, then remove; the last of the two steps.
pub(super) fn take_down(
    plan: &mut Plan,
    container: &ContainerObserved,
    cause: Cause,
    after: &[StepId],
    grace: Option<Duration>,
    volumes: bool,
) -> StepId {
    let mut after = after.to_vec();
    if is_running(container) {
        let stop = Action::Stop { container: existing(container), grace };
        after = vec![plan.add(stop, cause.clone(), &after)];
    }
    plan.add(Action::Remove { container: existing(container), volumes }, cause, &after)
}

fn is_foreign(plan: &mut Plan, project: &Project, known: &NetworkObserved) -> bool {
    if label::of(&known.labels, label::PROJECT) == project.name {
        return false;
    }
    let name = &known.name;
    plan.warn(format!(
        "a network with name {name} exists but was not created for project \"{}\"; set `external: true` to use an existing network",
        project.name
    ));
    true
}

pub(super) fn used_networks<'a>(project: &'a Project, services: &[&Service]) -> Vec<&'a Network> {
    let keys: BTreeSet<&String> = services.iter().flat_map(|s| s.networks.keys()).collect();
    project.networks.iter().filter(|(key, _)| keys.contains(key)).map(|(_, network)| network).collect()
}

pub(super) fn used_volumes<'a>(project: &'a Project, services: &[&Service]) -> Vec<&'a Volume> {
    let of_service = |s: &&Service| s.volumes.clone();
    let keys: BTreeSet<String> = services
        .iter()
        .flat_map(of_service)
        .filter(|m| m.kind == MountKind::Volume)
        .filter_map(|m| m.source)
        .collect();
    project.volumes.iter().filter(|(key, _)| keys.contains(*key)).map(|(_, volume)| volume).collect()
}

fn network_spec(project: &Project, network: &Network) -> NetworkSpec {
    let meaning = serde_json::json!({
        "driver": network.driver.as_deref().unwrap_or("bridge"),
        "driver_opts": network.driver_opts,
        "internal": network.internal,
        "attachable": network.attachable,
        "ipv4": network.enable_ipv4,
        "ipv6": network.enable_ipv6,
        "ipam": network.ipam.iter().map(|p| (&p.subnet, &p.gateway, &p.ip_range, &p.aux_addresses)).collect::<Vec<_>>(),
        "labels": network.labels,
    });
    let fingerprint = fingerprint(&meaning);
    NetworkSpec {
        name: network.name.clone(),
        labels: labels(project, &network.labels, (label::NETWORK, &network.key), &fingerprint),
        internal: network.internal,
        enable_ipv6: network.enable_ipv6.unwrap_or(false),
        pools: network.ipam.iter().map(pool).collect(),
        driver_opts: network.driver_opts.clone(),
        fingerprint,
    }
}

fn pool(pool: &IpamPool) -> PoolSpec {
    PoolSpec {
        subnet: pool.subnet.clone(),
        gateway: pool.gateway.clone(),
        ip_range: pool.ip_range.clone(),
        reserved: pool.aux_addresses.values().cloned().collect(),
    }
}

fn volume_spec(project: &Project, volume: &Volume) -> VolumeSpec {
    let meaning = serde_json::json!({
        "driver": volume.driver.as_deref().unwrap_or("local"),
        "driver_opts": volume.driver_opts,
        "labels": volume.labels,
    });
    let fingerprint = fingerprint(&meaning);
    VolumeSpec {
        name: volume.name.clone(),
        labels: labels(project, &volume.labels, (label::VOLUME, &volume.key), &fingerprint),
        driver_opts: volume.driver_opts.clone(),
        fingerprint,
    }
}

fn labels(project: &Project, own: &Map, (key_label, key): (&str, &str), fingerprint: &str) -> Map {
    let mut labels = own.clone();
    let compose = [
        (label::CONFIG_HASH, fingerprint),
        (key_label, key),
        (label::PROJECT, project.name.as_str()),
        (label::VERSION, label::TOOL_VERSION),
    ];
    labels.extend(compose.map(|(key, value)| (key.to_string(), value.to_string())));
    labels
}

fn fingerprint(meaning: &serde_json::Value) -> String {
    Sha256::digest(meaning.to_string().as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}
