//! The verdict on one container: is it as wanted, must it be replaced, or does a pull or build of this plan decide?

use super::changes;
use super::intent::{Recreate, Up};
use super::label::{self, image_of};
use super::materials::{Materials, image_id};
use super::resources::Resources;
use super::step::{Cause, Guard};
use super::survey::{Survey, image_label, networks_of, owners};
use stack_runtime::observed::ContainerObserved;
use stack_runtime::spec::MountKindSpec;
use stack_schema::project::{MountKind, Project, Service};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Keep,
    Replace(Cause),
    /// Replaced if the guard holds.
    Maybe(Cause, Guard),
    /// Already taken down for its network or volume; only to be created again.
    Again(Cause),
}

impl Verdict {
    pub(super) fn guard(&self) -> Option<&Guard> {
        match self {
            Self::Maybe(_, guard) => Some(guard),
            _ => None,
        }
    }
    pub(super) fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// What a verdict looks at.
pub(super) struct Judge<'a> {
    pub(super) project: &'a Project,
    pub(super) survey: &'a Survey<'a>,
    pub(super) up: &'a Up,
    pub(super) materials: &'a Materials,
    pub(super) resources: &'a Resources,
}

impl Judge<'_> {
    /// `replaced`: the verdicts on services that come before, as the strongest one of each.
    pub(super) fn judge(
        &self,
        service: &Service,
        container: &ContainerObserved,
        replaced: &BTreeMap<String, Verdict>,
    ) -> Verdict {
        if let Some(removal) = self.resources.removed.get(&container.id) {
            return Verdict::Again(removal.cause.clone());
        }
        let is_named = self.up.services.is_empty() || self.up.services.contains(&service.key);
        let policy = if is_named { self.up.recreate } else { self.up.recreate_dependencies };
        match policy {
            Recreate::Never => Verdict::Keep,
            Recreate::Always => Verdict::Replace(Cause::Asked),
            Recreate::Diverged if is_named && self.up.renew_anonymous_volumes => {
                Verdict::Replace(Cause::Asked)
            }
            Recreate::Diverged => self.diverged(service, container, replaced),
        }
    }

    fn diverged(
        &self,
        service: &Service,
        container: &ContainerObserved,
        replaced: &BTreeMap<String, Verdict>,
    ) -> Verdict {
        let hash = label::of(&container.labels, label::CONFIG_HASH);
        if !hash.is_empty() && hash != service.fingerprint {
            return Verdict::Replace(Cause::Changed(changes::between(&container.labels, service)));
        }
        if let Some(change) = self.detached(service, container) {
            return Verdict::Replace(Cause::Changed(vec![change]));
        }
        self.by_owner(service, replaced).unwrap_or_else(|| self.by_image(service, container))
    }

    /// A network or volume that the service names now and the container does not have.
    fn detached(&self, service: &Service, container: &ContainerObserved) -> Option<String> {
        let attached = networks_of(container);
        let missing = |key: &String| {
            let name = &self.project.networks.get(key)?.name;
            (service.network_mode.is_none() && !attached.contains(&name.as_str()))
                .then(|| format!("network {name} added"))
        };
        service.networks.keys().find_map(missing).or_else(|| self.other_volume(service, container))
    }

    fn other_volume(&self, service: &Service, container: &ContainerObserved) -> Option<String> {
        let named = service.volumes.iter().filter(|m| m.kind == MountKind::Volume);
        named.filter_map(|m| Some((m, self.project.volumes.get(m.source.as_ref()?)?))).find_map(
            |(mount, volume)| {
                let old = container.spec.mounts.iter().find(|m| m.target == mount.target)?;
                match &old.kind {
                    MountKindSpec::Volume { name, .. } if *name == volume.name => None,
                    _ => Some(format!("volume at {} changed", mount.target)),
                }
            },
        )
    }

    fn by_owner(&self, service: &Service, replaced: &BTreeMap<String, Verdict>) -> Option<Verdict> {
        let owner = owners(service).find_map(|key| Some((key, replaced.get(key)?)));
        let (key, verdict) = owner?;
        let cause = Cause::DependencyReplaced(key.to_string());
        Some(match verdict.guard() {
            Some(guard) => Verdict::Maybe(cause, guard.clone()),
            None => Verdict::Replace(cause),
        })
    }

    fn by_image(&self, service: &Service, container: &ContainerObserved) -> Verdict {
        let reference = image_of(self.project, service);
        let from = image_label(container).to_string();
        if self.materials.contains_key(&reference) {
            return Verdict::Maybe(Cause::ImageMayChange, Guard::ImageDiffers { reference, from });
        }
        match image_id(self.survey.observed, &reference) {
            Some(id) if id != from => Verdict::Replace(Cause::ImageChanged),
            _ => Verdict::Keep,
        }
    }
}
