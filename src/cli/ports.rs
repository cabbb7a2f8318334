//! Host ports are looked at before anything is created: a taken one is named with who holds it and where the
//! file asks for it.

use super::Scene;
use crate::failure::{Failure, Result};
use crate::plan::Plan;
use crate::plan::label::Labelled;
use crate::plan::step::{Action, Target};
use stack_runtime::observed::ContainerObserved;
use stack_runtime::spec::{PortSpec, Protocol};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Port, Service};
use std::collections::BTreeSet;

/// # Errors
/// The first port that somebody else holds, or that two services want.
pub(super) fn check(scene: &Scene, plan: &Plan) -> Result<()> {
    let ours: BTreeSet<(u16, Protocol)> = scene.observed.containers.iter().flat_map(held).collect();
    for service in starting(scene, plan) {
        for (index, port) in service.ports.iter().enumerate() {
            let Some(spec) = fixed(port) else { continue };
            if ours.contains(&(spec.published.0, spec.protocol)) {
                continue;
            }
            if let Err(taken) = scene.engine.check_ports(&[spec]) {
                let key = format!("services.{}.ports[{index}]", service.key);
                return Err(placed(scene, &key, Failure::from(taken)));
            }
        }
    }
    Ok(())
}

fn held(container: &ContainerObserved) -> Vec<(u16, Protocol)> {
    container.published.iter().map(|p| (p.host_port, p.protocol)).collect()
}

/// Services of which a container is started.
fn starting<'a>(scene: &'a Scene, plan: &Plan) -> Vec<&'a Service> {
    let mut keys = BTreeSet::new();
    for (_, step) in plan.steps() {
        match &step.action {
            Action::Create(creation) if creation.one_off.is_none() => {
                keys.insert(creation.service.key.clone());
            }
            Action::Start { container: Target::Existing { id, .. } } => {
                let known = scene.observed.containers.iter().find(|c| c.id == *id);
                keys.extend(known.map(|c| c.service().to_string()));
            }
            _ => {}
        }
    }
    keys.iter().filter_map(|key| scene.project.services.get(key)).collect()
}

/// One port at one number; ranges and ephemeral ones find a free one by themselves.
fn fixed(port: &Port) -> Option<PortSpec> {
    let number: u16 = port.published.parse().ok().filter(|n| *n != 0)?;
    let protocol = if port.protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
    Some(PortSpec {
        host_ip: port.host_ip.clone(),
        published: (number, number),
        target: port.target,
        protocol,
    })
}

fn placed(scene: &Scene, key: &str, failure: Failure) -> Failure {
    let Some(place) = scene.project.places.of(key) else { return failure };
    let mut finding = Diagnostic::error(failure.message).at(place).key(key);
    finding.hint = failure.hint;
    let placed = Failure::from(finding);
    Failure { kind: failure.kind, ..placed }
}
