//! Rows of the top level and of networks, volumes, secrets, configs and models.

use super::form::*;
use super::*;

pub(super) const PROJECT: &[Attribute] = &[
    row("version", STR, "Obsolete; ignored with a warning.").inert(),
    row("name", STR, "The project's name; `-p` and COMPOSE_PROJECT_NAME win."),
    row("include", LIST | NULL, "Other Compose files, each loaded as a project of its own."),
    row("include[]", NULL | STR | MAP, "A path, or a path with its own base and environment.").open(),
    row("include[].path", STR | LIST, "One file, or files that override each other."),
    row("include[].path[]", STR, "A file."),
    row(
        "include[].env_file",
        STR | LIST,
        "Env files for interpolation in place of the included project's `.env`.",
    ),
    row("include[].env_file[]", STR, "An env file."),
    row("include[].project_directory", STR, "The base of relative paths in the included files."),
    row("services", MAP, "The services by key.").names(),
];

pub(super) const RESOURCES: &[Attribute] = &[
    row("networks", MAP, "The networks by key."),
    row("networks.*", MAP | NULL, "A network; null takes every default."),
    row("networks.*.name", STR, "The network's own name instead of `<project>_<key>`."),
    row("networks.*.driver", STR, "`bridge` unless written."),
    row("networks.*.driver_opts", MAP, "Options of the driver.").short(Short::Strings),
    row("networks.*.driver_opts.*", FLOAT | STR, "One option.").cast(Cast::Text),
    row("networks.*.ipam", MAP, "Addresses of the network."),
    row("networks.*.ipam.driver", STR, "The driver that gives addresses.").inert(),
    row("networks.*.ipam.config", LIST, "Address pools.").merge(Merge::Pools),
    row("networks.*.ipam.config[]", MAP, "A pool."),
    row("networks.*.ipam.config[].subnet", STR, "In CIDR notation."),
    row("networks.*.ipam.config[].gateway", STR, "The gateway's address."),
    row("networks.*.ipam.config[].ip_range", STR, "Where containers get their addresses from."),
    row("networks.*.ipam.config[].aux_addresses", MAP, "Addresses that are not given away."),
    row("networks.*.ipam.config[].aux_addresses.*", STR, "An address."),
    row("networks.*.ipam.options", MAP, "Options of the address driver.").inert(),
    row("networks.*.ipam.options.*", STR, "One option."),
    row("networks.*.external", BOOL | STR | MAP, "The network must exist already.")
        .cast(Cast::Bool)
        .short(Short::External),
    row("networks.*.external.name", STR, "Old spelling of the network's `name`."),
    boolean("networks.*.internal", "No way out of the network."),
    boolean("networks.*.attachable", "For Swarm.").inert(),
    labels("networks.*.labels", "Labels of the network."),
    row("networks.*.labels.*", SCALAR | NULL, "One label."),
    boolean("networks.*.enable_ipv4", "Whether containers get IPv4 addresses.").keep_zero(),
    boolean("networks.*.enable_ipv6", "Whether containers get IPv6 addresses.").keep_zero(),
    row("volumes", MAP, "The named volumes by key.").names(),
    row("volumes.*", MAP | NULL, "A volume; null takes every default."),
    row("volumes.*.name", STR, "The volume's own name instead of `<project>_<key>`."),
    row("volumes.*.driver", STR, "`local` unless written."),
    row("volumes.*.driver_opts", MAP, "Options of the driver: `type`, `o`, `device`.").short(Short::Strings),
    row("volumes.*.driver_opts.*", FLOAT | STR, "One option.").cast(Cast::Text),
    row("volumes.*.external", BOOL | STR | MAP, "The volume must exist already.")
        .cast(Cast::Bool)
        .short(Short::External),
    row("volumes.*.external.name", STR, "Old spelling of the volume's `name`."),
    labels("volumes.*.labels", "Labels of the volume."),
    row("volumes.*.labels.*", SCALAR | NULL, "One label."),
    row("secrets", MAP, "The secrets by key.").names(),
    row("secrets.*", MAP, "A secret, from a file or a variable."),
    row("secrets.*.name", STR, "The name for a lookup."),
    row("secrets.*.file", STR, "The file that holds it.").kind(PathKind::Foreign),
    row("secrets.*.environment", STR, "The variable that holds it."),
    row("secrets.*.external", BOOL | STR | MAP, "Kept elsewhere; refused when a service uses it.")
        .cast(Cast::Bool)
        .short(Short::External),
    row("secrets.*.external.name", STR, "Old spelling of the secret's `name`."),
    labels("secrets.*.labels", "Labels of the secret.").inert(),
    row("secrets.*.labels.*", SCALAR | NULL, "One label."),
    row("secrets.*.driver", STR, "For Swarm.").not_yet(),
    row("secrets.*.driver_opts", MAP, "For Swarm.").short(Short::Strings).inert(),
    row("secrets.*.driver_opts.*", FLOAT | STR, "One option.").cast(Cast::Text),
    row("secrets.*.template_driver", STR, "For Swarm.").not_yet(),
    row("configs", MAP, "The configs by key.").names(),
    row("configs.*", MAP, "A config, from a file, text or a variable."),
    row("configs.*.name", STR, "The name for a lookup."),
    row("configs.*.file", STR, "The file that holds it.").kind(PathKind::Foreign),
    row("configs.*.environment", STR, "The variable that holds it."),
    row("configs.*.content", STR, "The text itself."),
    row("configs.*.external", BOOL | STR | MAP, "Kept elsewhere; refused when a service uses it.")
        .cast(Cast::Bool)
        .short(Short::External),
    row("configs.*.external.name", STR, "Old spelling of the config's `name`."),
    labels("configs.*.labels", "Labels of the config.").inert(),
    row("configs.*.labels.*", SCALAR | NULL, "One label."),
    row("configs.*.template_driver", STR, "For Swarm.").not_yet(),
    row("models", MAP, "AI models by key.").not_yet(),
    row("models.*", MAP, "A model.").needs(&["model"]),
    row("models.*.name", STR, "A label for people."),
    row("models.*.model", STR, "The model's reference."),
    row("models.*.context_size", INT, "The number of tokens of context."),
    row("models.*.runtime_flags", LIST, "Flags for the inference engine."),
    row("models.*.runtime_flags[]", STR, "A flag."),
];
