//! The survey: what was observed, sorted by what it is to the project.

use super::label::{self, Labelled};
use super::spec::{Borrowed, Donor};
use super::step::Target;
use stack_runtime::observed::{ContainerObserved, Observed, State};
use stack_runtime::spec::{MountKindSpec, NetworkMode};
use stack_schema::project::{Project, Service};
use std::collections::{BTreeMap, HashSet};

pub(super) struct Survey<'a> {
    pub(super) observed: &'a Observed,
    services: BTreeMap<&'a str, Vec<&'a ContainerObserved>>,
    /// Run containers, in the order of their names.
    pub(super) one_offs: Vec<&'a ContainerObserved>,
    /// Replacements that never took their predecessor's place.
    pub(super) leftovers: Vec<&'a ContainerObserved>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(observed: &'a Observed) -> Self {
        let (one_offs, regular): (Vec<_>, Vec<_>) =
            sorted(observed).into_iter().partition(|c| c.is_one_off());
        let named: HashSet<&str> = regular.iter().map(|c| c.name.as_str()).collect();
        let (leftovers, regular): (Vec<_>, Vec<_>) =
            regular.into_iter().partition(|c| final_name(c) != c.name && named.contains(final_name(c)));
        let mut services: BTreeMap<&str, Vec<&ContainerObserved>> = BTreeMap::new();
        for container in regular {
            services.entry(container.service()).or_default().push(container);
        }
        Self { observed, services, one_offs, leftovers }
    }

    /// The containers of a service by number.
    pub(super) fn containers(&self, key: &str) -> &[&'a ContainerObserved] {
        self.services.get(key).map_or(&[], Vec::as_slice)
    }

    /// Containers of services that the files do not have, and run containers that ended.
    pub(super) fn orphans(&self, project: &Project) -> Vec<&'a ContainerObserved> {
        let is_known = |key: &str| project.services.contains_key(key) || project.disabled.contains_key(key);
        let unknown =
            self.services.iter().filter(|(key, _)| !is_known(key)).flat_map(|(_, list)| list.iter().copied());
        let ended = self.one_offs.iter().copied().filter(|c| !is_running(c) && c.state != State::Created);
        unknown.chain(ended).collect()
    }

    /// Anything of the project, run containers and leftovers too.
    pub(super) fn everything(&self) -> impl Iterator<Item = &'a ContainerObserved> + use<'a> {
        sorted(self.observed).into_iter()
    }

    /// Does another container use one of its anonymous volumes?
    pub(super) fn shares_volumes(&self, container: &ContainerObserved) -> bool {
        let own: Vec<_> = anonymous_volumes(container).into_iter().map(|(_, name)| name).collect();
        let others = self.observed.containers.iter().filter(|c| c.id != container.id);
        others.flat_map(anonymous_volumes).any(|(_, name)| own.contains(&name))
    }
}

fn sorted(observed: &Observed) -> Vec<&ContainerObserved> {
    let mut all: Vec<_> = observed.containers.iter().collect();
    all.sort_by(|a, b| (a.service(), a.number(), &a.name).cmp(&(b.service(), b.number(), &b.name)));
    all
}

/// A replacement is called `<twelve digits of the old id>_<final name>` until its predecessor is gone.
pub(super) fn final_name(container: &ContainerObserved) -> &str {
    match container.name.split_at_checked(12) {
        Some((id, rest)) if rest.starts_with('_') && id.bytes().all(|b| b.is_ascii_hexdigit()) => &rest[1..],
        _ => &container.name,
    }
}

pub(super) fn temporary_name(old: &ContainerObserved, name: &str) -> String {
    format!("{}_{name}", old.id.get(..12).unwrap_or(&old.id))
}

pub(super) fn existing(container: &ContainerObserved) -> Target {
    Target::Existing { name: final_name(container).to_string(), id: container.id.clone() }
}

pub(super) fn is_running(container: &ContainerObserved) -> bool {
    matches!(container.state, State::Running { .. } | State::Paused { .. } | State::Restarting { .. })
}

/// Target and name of each.
pub(super) fn anonymous_volumes(container: &ContainerObserved) -> Vec<(String, String)> {
    let volume = |m: &stack_runtime::spec::MountSpec| match &m.kind {
        MountKindSpec::Volume { name, anonymous: true, .. } => Some((m.target.clone(), name.clone())),
        _ => None,
    };
    container.spec.mounts.iter().filter_map(volume).collect()
}

/// Full names of the networks it is attached to.
pub(super) fn networks_of(container: &ContainerObserved) -> Vec<&str> {
    match &container.spec.network {
        NetworkMode::Bridge(endpoints) => endpoints.iter().map(|e| e.network.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// Services whose namespaces or mounts this one shares.
pub(super) fn owners(service: &Service) -> impl Iterator<Item = &str> {
    let modes = [&service.network_mode, &service.ipc, &service.pid];
    let namespaces = modes.into_iter().flatten().filter_map(|mode| mode.strip_prefix("service:"));
    namespaces.chain(donors(service))
}

/// Services whose mounts this one takes over (`volumes_from`).
pub(super) fn donors(service: &Service) -> impl Iterator<Item = &str> {
    service.volumes_from.iter().filter_map(|text| match Borrowed::parse(text) {
        Borrowed { of: Donor::Service(key), .. } => Some(key),
        _ => None,
    })
}

pub(super) fn image_label(container: &ContainerObserved) -> &str {
    match label::of(&container.labels, label::IMAGE) {
        "" => &container.spec.image_id,
        id => id,
    }
}
