//! Rows of `services.*.deploy`.

use super::form::*;
use super::*;

pub(super) const DEPLOY: &[Attribute] = &[
    row("services.*.deploy", MAP | NULL, "Replicas, limits and restarts."),
    row("services.*.deploy.mode", STR, "For Swarm.").inert(),
    integer("services.*.deploy.replicas", "The number of containers, as `scale`.").keep_zero(),
    labels("services.*.deploy.labels", "For Swarm.").inert(),
    row("services.*.deploy.labels.*", SCALAR | NULL, "One label."),
    row("services.*.deploy.update_config", MAP, "For Swarm.").inert(),
    integer("services.*.deploy.update_config.parallelism", "For Swarm.").keep_zero(),
    duration("services.*.deploy.update_config.delay", "For Swarm."),
    row("services.*.deploy.update_config.failure_action", STR, "For Swarm."),
    duration("services.*.deploy.update_config.monitor", "For Swarm."),
    row("services.*.deploy.update_config.max_failure_ratio", FLOAT | STR, "For Swarm.").cast(Cast::Float),
    row("services.*.deploy.update_config.order", STR, "For Swarm.").one_of(&["start-first", "stop-first"]),
    row("services.*.deploy.rollback_config", MAP, "For Swarm.")
        .like("services.*.deploy.update_config")
        .inert(),
    row("services.*.deploy.resources", MAP, "Limits and reservations."),
    row("services.*.deploy.resources.limits", MAP, "What a container may use at most."),
    row("services.*.deploy.resources.limits.cpus", FLOAT | STR, "Processors, as `cpus`.").cast(Cast::Float),
    row("services.*.deploy.resources.limits.memory", STR, "Memory, as `mem_limit`.").cast(Cast::Bytes),
    integer("services.*.deploy.resources.limits.pids", "Processes, as `pids_limit`."),
    row("services.*.deploy.resources.reservations", MAP, "What a container asks for."),
    row("services.*.deploy.resources.reservations.cpus", FLOAT | STR, "For Swarm.").cast(Cast::Float).inert(),
    row("services.*.deploy.resources.reservations.memory", STR, "Memory, as `mem_reservation`.")
        .cast(Cast::Bytes),
    row("services.*.deploy.resources.reservations.devices", LIST, "Requests for devices such as GPUs."),
    row("services.*.deploy.resources.reservations.devices[]", MAP, "A request."),
    row(
        "services.*.deploy.resources.reservations.devices[].capabilities",
        LIST,
        "What the device must offer.",
    )
    .unique(Unique::Strict),
    row("services.*.deploy.resources.reservations.devices[].capabilities[]", STR, "A capability."),
    row("services.*.deploy.resources.reservations.devices[].driver", STR, "The driver."),
    row(
        "services.*.deploy.resources.reservations.devices[].count",
        STR | INT,
        "How many; `all` is every one.",
    )
    .cast(Cast::Count),
    row("services.*.deploy.resources.reservations.devices[].device_ids", LIST, "Which ones.")
        .unique(Unique::Strict),
    row("services.*.deploy.resources.reservations.devices[].device_ids[]", STR, "An id."),
    labels("services.*.deploy.resources.reservations.devices[].options", "Options of the driver."),
    row("services.*.deploy.resources.reservations.devices[].options.*", SCALAR | NULL, "One option."),
    row("services.*.deploy.resources.reservations.generic_resources", LIST, "For Swarm.").inert(),
    row("services.*.deploy.resources.reservations.generic_resources[]", MAP, "For Swarm."),
    row(
        "services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec",
        MAP,
        "For Swarm.",
    ),
    row(
        "services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.kind",
        STR,
        "For Swarm.",
    )
    .keep_zero(),
    row(
        "services.*.deploy.resources.reservations.generic_resources[].discrete_resource_spec.value",
        FLOAT | STR,
        "For Swarm.",
    )
    .cast(Cast::Int)
    .keep_zero(),
    row("services.*.deploy.restart_policy", MAP, "When a container is started again; wins over `restart`."),
    row(
        "services.*.deploy.restart_policy.condition",
        STR,
        "`none`, `on-failure`, `any`, `always` or `unless-stopped`.",
    ),
    duration("services.*.deploy.restart_policy.delay", "For Swarm.").inert().keep_zero(),
    integer("services.*.deploy.restart_policy.max_attempts", "How often, with `on-failure`.")
        .range(0, i64::MAX)
        .keep_zero(),
    duration("services.*.deploy.restart_policy.window", "For Swarm.").inert().keep_zero(),
    row("services.*.deploy.placement", MAP, "For Swarm.").inert(),
    row("services.*.deploy.placement.constraints", LIST, "For Swarm."),
    row("services.*.deploy.placement.constraints[]", STR, "For Swarm."),
    row("services.*.deploy.placement.preferences", LIST, "For Swarm."),
    row("services.*.deploy.placement.preferences[]", MAP, "For Swarm."),
    row("services.*.deploy.placement.preferences[].spread", STR, "For Swarm."),
    integer("services.*.deploy.placement.max_replicas_per_node", "For Swarm.").range(0, i64::MAX),
    row("services.*.deploy.endpoint_mode", STR, "For Swarm.").inert(),
];
