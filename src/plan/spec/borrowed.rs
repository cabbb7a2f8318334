//! `volumes_from`: the mounts of another container, at the same places.
//!
//! As in Docker, binds and volumes are taken over, memory file systems and files that were written into the container
//! are not; what the service mounts itself at a place wins.

use super::Around;
use crate::plan::label;
use stack_runtime::spec::{MountKindSpec, MountSpec};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Project, Service};

/// One entry, read: `service[:ro]` or `container:name[:ro]`.
#[derive(Debug, PartialEq)]
pub(in crate::plan) struct Borrowed<'a> {
    pub(in crate::plan) of: Donor<'a>,
    read_only: bool,
}

#[derive(Debug, PartialEq)]
pub(in crate::plan) enum Donor<'a> {
    Service(&'a str),
    Container(&'a str),
}

impl<'a> Borrowed<'a> {
    pub(in crate::plan) fn parse(text: &'a str) -> Self {
        let (of, rest) = match text.strip_prefix("container:") {
            Some(rest) => (Donor::Container as fn(&'a str) -> Donor<'a>, rest),
            None => (Donor::Service as fn(&'a str) -> Donor<'a>, text),
        };
        let (name, mode) = rest.split_once(':').unwrap_or((rest, ""));
        Self { of: of(name), read_only: mode == "ro" }
    }

    /// The donor's container; of several the first.
    fn container(&self, project: &Project) -> String {
        match self.of {
            Donor::Service(key) => project.services.get(key).map(|s| label::container_name(project, s, 1)),
            Donor::Container(name) => Some(name.to_string()),
        }
        .unwrap_or_default()
    }
}

/// Those that are at no place of `own`.
pub(super) fn mounts(
    project: &Project,
    service: &Service,
    own: &[MountSpec],
    around: &dyn Around,
) -> Result<Vec<MountSpec>, Diagnostic> {
    let mut all: Vec<MountSpec> = Vec::new();
    for (index, text) in service.volumes_from.iter().enumerate() {
        let borrowed = Borrowed::parse(text);
        let name = borrowed.container(project);
        let missing = || {
            let key = format!("services.{}.volumes_from[{index}]", service.key);
            Diagnostic::error(format!("No such container: {name}")).key(key)
        };
        for mount in around.mounts(&name).ok_or_else(missing)?.into_iter().filter_map(lent) {
            if !own.iter().chain(&all).any(|other| other.target == mount.target) {
                all.push(MountSpec { read_only: mount.read_only || borrowed.read_only, ..mount });
            }
        }
    }
    Ok(all)
}

fn lent(mut mount: MountSpec) -> Option<MountSpec> {
    match &mut mount.kind {
        MountKindSpec::Volume { nocopy, .. } => *nocopy = true,
        MountKindSpec::Bind { .. } => {}
        _ => return None,
    }
    Some(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_a_service_or_a_container() {
        let cases = [
            ("db", Donor::Service("db"), false),
            ("db:ro", Donor::Service("db"), true),
            ("db:rw", Donor::Service("db"), false),
            ("container:other", Donor::Container("other"), false),
            ("container:other:ro", Donor::Container("other"), true),
        ];
        for (text, of, read_only) in cases {
            assert_eq!(Borrowed::parse(text), Borrowed { of, read_only }, "{text}");
        }
    }
}
