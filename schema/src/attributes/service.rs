//! Rows of `services.*`.

use super::form::*;
use super::*;

const HOOK: &str = "services.*.post_start[]";

/// Up to `build`.
pub(super) const BEFORE_BUILD: &[Attribute] = &[
    row("services.*", MAP, "A service."),
    strings("services.*.profiles", "The service is there only when one of these profiles is active."),
    row("services.*.profiles[]", STR, "A profile."),
    labels("services.*.annotations", "OCI annotations."),
    row("services.*.annotations.*", SCALAR | NULL, "One annotation."),
    boolean("services.*.attach", "False keeps its logs out of an attached `up`.").keep_zero(),
];

/// Between `build` and `deploy`.
pub(super) const BEFORE_DEPLOY: &[Attribute] = &[
    row("services.*.develop", MAP | NULL, "What happens while you edit."),
    row("services.*.develop.watch", LIST, "Rules of hot reloading."),
    row("services.*.develop.watch[]", MAP, "A rule.").needs(&["path", "action"]),
    row("services.*.develop.watch[].path", STR, "What is watched.").kind(PathKind::Local),
    row("services.*.develop.watch[].action", STR, "What a change does.").one_of(&[
        "rebuild",
        "sync",
        "restart",
        "sync+restart",
        "sync+exec",
    ]),
    row("services.*.develop.watch[].target", STR, "Where the files go in the container."),
    row("services.*.develop.watch[].exec", MAP, "What runs after `sync+exec`.")
        .like(HOOK)
        .needs(&["command"]),
    row("services.*.develop.watch[].include", STR | LIST, "Patterns of files that count.")
        .short(Short::OneOrMore)
        .unique(Unique::Strict),
    row("services.*.develop.watch[].include[]", STR, "A pattern."),
    row("services.*.develop.watch[].ignore", STR | LIST, "Patterns of files that do not count.")
        .short(Short::OneOrMore)
        .unique(Unique::Strict),
    row("services.*.develop.watch[].ignore[]", STR, "A pattern."),
    row("services.*.develop.watch[].initial_sync", BOOL, "Sync everything when the watch begins."),
    row("services.*.blkio_config", MAP, "Weights and limits of block devices.").not_yet(),
    row("services.*.blkio_config.weight", INT, "The service's weight.").cast(Cast::Int),
    row("services.*.blkio_config.weight_device", LIST, "Weights per device."),
    row("services.*.blkio_config.weight_device[]", MAP, "A device."),
    row("services.*.blkio_config.weight_device[].path", STR, "The device."),
    row("services.*.blkio_config.weight_device[].weight", INT, "Its weight.").cast(Cast::Int).keep_zero(),
    row("services.*.blkio_config.device_read_bps", LIST, "Bytes read per second."),
    row("services.*.blkio_config.device_read_bps[]", MAP, "A device."),
    row("services.*.blkio_config.device_read_bps[].path", STR, "The device."),
    row("services.*.blkio_config.device_read_bps[].rate", INT | STR, "The limit.")
        .cast(Cast::Bytes)
        .keep_zero(),
    row("services.*.blkio_config.device_read_iops", LIST, "Reads per second.")
        .like("services.*.blkio_config.device_read_bps"),
    row("services.*.blkio_config.device_write_bps", LIST, "Bytes written per second.")
        .like("services.*.blkio_config.device_read_bps"),
    row("services.*.blkio_config.device_write_iops", LIST, "Writes per second.")
        .like("services.*.blkio_config.device_read_bps"),
    strings("services.*.cap_add", "Capabilities added."),
    row("services.*.cap_add[]", STR, "A capability, `CAP_` may be left out."),
    strings("services.*.cap_drop", "Capabilities dropped."),
    row("services.*.cap_drop[]", STR, "A capability, `CAP_` may be left out."),
    row("services.*.cgroup_parent", STR, "The cgroup above the container's.").not_yet(),
    row("services.*.cgroup", STR, "The cgroup namespace.").one_of(&["host", "private"]),
    row("services.*.cpu_count", INT | STR, "For another platform.")
        .cast(Cast::Int)
        .range(0, i64::MAX)
        .inert(),
    row("services.*.cpu_percent", INT | STR, "For another platform.").cast(Cast::Float).range(0, 100).inert(),
    row("services.*.cpu_period", FLOAT | STR, "The period of the quota in microseconds.").cast(Cast::Int),
    row("services.*.cpu_quota", FLOAT | STR, "The quota in microseconds.").cast(Cast::Int),
    row("services.*.cpu_rt_period", FLOAT | STR, "The real-time period in microseconds.").cast(Cast::Int),
    row("services.*.cpu_rt_runtime", FLOAT | STR, "The real-time share in microseconds.").cast(Cast::Int),
    row("services.*.cpus", FLOAT | STR, "How many processors the container may use.").cast(Cast::Float),
    row("services.*.cpuset", STR, "Which processors."),
    row("services.*.cpu_shares", FLOAT | STR, "The weight among containers.").cast(Cast::Int),
    row("services.*.command", NULL | STR | LIST, "What runs, in place of the image's command.")
        .merge(Merge::Replace)
        .short(Short::Words)
        .keep_zero(),
    row("services.*.command[]", STR, "A word."),
    row("services.*.configs", LIST, "Configs the service gets.")
        .short(Short::Grant)
        .unique(Unique::Target("/")),
    row("services.*.configs[]", STR | MAP, "A key of `configs`, or where and how it is put."),
    row("services.*.configs[].source", STR, "The key."),
    row("services.*.configs[].target", STR, "The path in the container."),
    row("services.*.configs[].uid", STR, "The file's user."),
    row("services.*.configs[].gid", STR, "The file's group."),
    row("services.*.configs[].mode", FLOAT | STR, "The file's mode.").cast(Cast::Octal).keep_zero(),
    row("services.*.container_name", STR, "A fixed name for the one container."),
    row("services.*.credential_spec", MAP, "For another platform.").inert(),
    row("services.*.credential_spec.config", STR, "For another platform."),
    row("services.*.credential_spec.file", STR, "For another platform."),
    row("services.*.credential_spec.registry", STR, "For another platform."),
    row("services.*.depends_on", MAP | LIST, "Services that must be there first.")
        .short(Short::DependsOn)
        .unique(Unique::Strict)
        .names(),
    row("services.*.depends_on.*", MAP, "A service and what it must have reached.").needs(&["condition"]),
    row("services.*.depends_on.*.condition", STR, "What is waited for.").one_of(&[
        "service_started",
        "service_healthy",
        "service_completed_successfully",
    ]),
    boolean("services.*.depends_on.*.restart", "Restart with the dependency."),
    row("services.*.depends_on.*.required", BOOL, "False: only a warning when it is missing.")
        .cast(Cast::Bool)
        .keep_zero(),
];

/// After `deploy`.
pub(super) const AFTER_DEPLOY: &[Attribute] = &[
    row("services.*.device_cgroup_rules", LIST, "Rules about devices.").unique(Unique::Strict),
    row("services.*.device_cgroup_rules[]", STR, "A rule."),
    row("services.*.devices", LIST, "Device nodes the container gets.")
        .short(Short::Device)
        .unique(Unique::Member("target")),
    row("services.*.devices[]", STR | MAP, "`host[:container[:rwm]]`, or the long form.").needs(&["source"]),
    row("services.*.devices[].source", STR, "The node outside."),
    row("services.*.devices[].target", STR, "The node inside."),
    row("services.*.devices[].permissions", STR, "`r`, `w`, `m`."),
    row("services.*.dns", STR | LIST, "Name servers behind the embedded one.")
        .short(Short::OneOrMore)
        .unique(Unique::Key),
    row("services.*.dns[]", STR, "An address."),
    row("services.*.dns_opt", LIST, "Options of resolv.conf.").unique(Unique::Key),
    row("services.*.dns_opt[]", STR, "An option."),
    row("services.*.dns_search", STR | LIST, "Search domains.").short(Short::OneOrMore).unique(Unique::Key),
    row("services.*.dns_search[]", STR, "A domain."),
    row("services.*.domainname", STR, "The NIS domain."),
    row("services.*.entrypoint", NULL | STR | LIST, "What runs, in place of the image's entry point.")
        .merge(Merge::Replace)
        .short(Short::Words)
        .keep_zero(),
    row("services.*.entrypoint[]", STR, "A word."),
    row("services.*.provider", MAP, "A program that runs the service.").needs(&["type"]).not_yet(),
    row("services.*.provider.type", STR, "The program."),
    row("services.*.provider.options", MAP, "Its options."),
    row("services.*.provider.options.*", SCALAR | LIST, "One option.").short(Short::Texts),
    row("services.*.provider.options.*[]", SCALAR, "One of its values."),
    key_values("services.*.environment", "Variables of the container; null takes the value from outside."),
    row("services.*.environment.*", SCALAR | NULL, "One variable."),
    row("services.*.env_file", STR | LIST, "Files with variables of the container.")
        .short(Short::EnvFile)
        .unique(Unique::Member("path")),
    row("services.*.env_file[]", STR | MAP, "A path, or the long form.").needs(&["path"]),
    row("services.*.env_file[].path", STR, "The file.").kind(PathKind::Local),
    row("services.*.env_file[].required", BOOL | STR, "False: the file may be missing.")
        .cast(Cast::Bool)
        .keep_zero(),
    row("services.*.env_file[].format", STR, "`raw`: values as they stand.").one_of(&["raw"]),
    row("services.*.expose", LIST, "Ports the container listens on.").unique(Unique::Value),
    row("services.*.expose[]", INT | STR, "A port or range.").cast(Cast::Text),
    row("services.*.extends", STR | MAP, "A service this one begins with.").needs(&["service"]).open(),
    row("services.*.extends.service", STR, "Its key."),
    row("services.*.extends.file", NULL | STR, "The file that has it."),
    row("services.*.external_links", LIST, "Names for containers outside the project.")
        .unique(Unique::Strict),
    row("services.*.external_links[]", STR, "A container."),
    row("services.*.extra_hosts", MAP | LIST, "Entries of /etc/hosts; `host-gateway` is this machine.")
        .short(Short::Hosts)
        .unique(Unique::Value),
    row("services.*.extra_hosts.*", STR | LIST, "An address, or several."),
    row("services.*.extra_hosts.*[]", STR, "An address."),
    row("services.*.group_add", LIST, "Further groups of the process.").unique(Unique::Strict),
    row("services.*.group_add[]", INT | STR, "A name or number.").cast(Cast::Text),
    row("services.*.gpus", STR | LIST, "GPUs the container gets.").one_of(&["all"]).short(Short::Gpus),
    row("services.*.gpus[]", MAP, "A request.").like("services.*.deploy.resources.reservations.devices[]"),
    row("services.*.hostname", STR, "The name the container knows itself by."),
    row("services.*.healthcheck", MAP, "How to tell whether the service works."),
    row("services.*.healthcheck.test", STR | LIST, "The probe.")
        .merge(Merge::Replace)
        .short(Short::HealthTest),
    row("services.*.healthcheck.test[]", STR, "A word."),
    duration("services.*.healthcheck.timeout", "How long a probe may take.").keep_zero(),
    duration("services.*.healthcheck.interval", "The time between probes.").keep_zero(),
    row("services.*.healthcheck.retries", FLOAT | STR, "Failures in a row that count as unhealthy.")
        .cast(Cast::Int)
        .range(0, i64::MAX)
        .keep_zero(),
    duration("services.*.healthcheck.start_period", "The time in which failures do not count.").keep_zero(),
    duration("services.*.healthcheck.start_interval", "The time between probes within the start period.")
        .keep_zero(),
    boolean("services.*.healthcheck.disable", "Take no probe, not even the image's."),
    row("services.*.image", STR, "The image to run, or the tag of what is built."),
    boolean("services.*.init", "A tiny init as PID 1.").keep_zero(),
    row("services.*.ipc", STR, "The IPC namespace."),
    row("services.*.isolation", STR, "For another platform.").inert(),
    labels("services.*.labels", "Labels of the containers."),
    row("services.*.labels.*", SCALAR | NULL, "One label."),
    row("services.*.label_file", STR | LIST, "Files with labels.").short(Short::OneOrMore),
    row("services.*.label_file[]", STR, "A file.").kind(PathKind::Local),
    row("services.*.links", LIST, "Names for other services, for this one only.").unique(Unique::Value),
    row("services.*.links[]", STR, "`service[:alias]`."),
    row("services.*.logging", MAP, "Where the output goes.").merge(Merge::SameDriver),
    row("services.*.logging.driver", STR, "The driver."),
    row("services.*.logging.options", MAP, "Its options.").short(Short::Strings),
    row("services.*.logging.options.*", FLOAT | STR | NULL, "One option.").cast(Cast::Text),
    bytes("services.*.mem_limit", "The memory a container may use."),
    row("services.*.mem_reservation", INT | STR, "The memory a container is meant to keep to.")
        .cast(Cast::Bytes),
    bytes("services.*.memswap_limit", "Memory and swap together; -1: no limit."),
    row("services.*.mem_swappiness", INT | STR, "How readily memory is swapped.").cast(Cast::Bytes),
    row("services.*.mac_address", STR, "The address on the primary network."),
    row("services.*.models", MAP | LIST, "Models the service uses.").short(Short::Names).not_yet(),
    row("services.*.models.*", MAP | NULL, "The names of the variables it gets."),
    row("services.*.models.*.endpoint_var", STR, "The variable with the endpoint."),
    row("services.*.models.*.model_var", STR, "The variable with the model's name."),
    row("services.*.network_mode", STR, "`none`, `host`, `service:…`, `container:…`."),
    row("services.*.networks", MAP | LIST, "The networks it joins; `default` unless written.")
        .short(Short::Names)
        .unique(Unique::Strict)
        .names(),
    row("services.*.networks.*", MAP | NULL, "Its place on the network."),
    strings("services.*.networks.*.aliases", "Further names on this network."),
    row("services.*.networks.*.aliases[]", STR, "A name."),
    row("services.*.networks.*.driver_opts", MAP, "Options of the endpoint.").short(Short::Strings).not_yet(),
    row("services.*.networks.*.driver_opts.*", FLOAT | STR, "One option.").cast(Cast::Text),
    row("services.*.networks.*.gw_priority", FLOAT, "The highest one gives the default gateway.")
        .cast(Cast::Int),
    row("services.*.networks.*.interface_name", STR, "The name of the interface."),
    row("services.*.networks.*.ipv4_address", STR, "A fixed address."),
    row("services.*.networks.*.ipv6_address", STR, "A fixed IPv6 address."),
    strings("services.*.networks.*.link_local_ips", "Link-local addresses.").not_yet(),
    row("services.*.networks.*.link_local_ips[]", STR, "An address."),
    row("services.*.networks.*.mac_address", STR, "The hardware address."),
    row("services.*.networks.*.priority", FLOAT, "The highest one is the primary network.").cast(Cast::Int),
    boolean("services.*.oom_kill_disable", "Do not kill it when memory runs out."),
    row("services.*.oom_score_adj", INT | STR, "How likely it is killed when memory runs out.")
        .cast(Cast::Int)
        .range(-1000, 1000),
    row("services.*.pid", STR | NULL, "The PID namespace."),
    row("services.*.pids_limit", FLOAT | STR, "How many processes it may have.").cast(Cast::Int),
    row("services.*.platform", STR, "The platform of the image."),
    row("services.*.ports", LIST, "Ports published on this machine.").short(Short::Port).unique(Unique::Port),
    row("services.*.ports[]", FLOAT | STR | MAP, "`[[ip:]host:]container[/protocol]`, or the long form."),
    row("services.*.ports[].name", STR, "A label for people.").inert(),
    row("services.*.ports[].mode", STR, "For Swarm.").inert(),
    row("services.*.ports[].host_ip", STR, "The address it is published on."),
    row("services.*.ports[].target", INT | STR, "The port inside.").cast(Cast::Int),
    row("services.*.ports[].published", INT | STR, "The port outside, or a range to pick from.")
        .cast(Cast::Text),
    row("services.*.ports[].protocol", STR, "`tcp` unless written."),
    row("services.*.ports[].app_protocol", STR, "A label for tools.").inert(),
    boolean("services.*.privileged", "No confinement."),
    row("services.*.pull_policy", STR, "When the image is pulled or built."),
    row("services.*.pull_refresh_after", STR, "Never read by anything.").inert(),
    boolean("services.*.read_only", "The root file system cannot be written."),
    row("services.*.restart", STR, "When a container is started again."),
    row("services.*.runtime", STR, "Another OCI runtime.").not_yet(),
    integer("services.*.scale", "The number of containers.").keep_zero(),
    row("services.*.secrets", LIST, "Secrets the service gets.")
        .short(Short::Grant)
        .unique(Unique::Target("/run/secrets/")),
    row("services.*.secrets[]", STR | MAP, "A key of `secrets`, or where and how it is put."),
    row("services.*.secrets[].source", STR, "The key."),
    row("services.*.secrets[].target", STR, "The path in the container."),
    row("services.*.secrets[].uid", STR, "The file's user."),
    row("services.*.secrets[].gid", STR, "The file's group."),
    row("services.*.secrets[].mode", FLOAT | STR, "The file's mode.").cast(Cast::Octal).keep_zero(),
    row("services.*.security_opt", LIST, "Changes of the confinement.").unique(Unique::Strict),
    row("services.*.security_opt[]", STR, "`no-new-privileges`, `seccomp=…`, …."),
    bytes("services.*.shm_size", "The size of /dev/shm."),
    boolean("services.*.stdin_open", "Keep standard input open."),
    duration("services.*.stop_grace_period", "The time between the stop signal and SIGKILL.").keep_zero(),
    row("services.*.stop_signal", STR, "The signal that stops it."),
    row("services.*.storage_opt", MAP, "Options of the root file system.").short(Short::Strings).not_yet(),
    row("services.*.storage_opt.*", INT | STR | NULL, "One option.").cast(Cast::Text),
    labels("services.*.sysctls", "Kernel parameters of its namespaces."),
    row("services.*.sysctls.*", SCALAR | NULL, "One parameter."),
    row("services.*.tmpfs", STR | LIST, "Memory file systems: `path[:options]`.")
        .short(Short::OneOrMore)
        .unique(Unique::Key),
    row("services.*.tmpfs[]", STR, "One of them."),
    boolean("services.*.tty", "A pseudo-terminal."),
    row("services.*.ulimits", MAP, "Limits of its processes."),
    row("services.*.ulimits.*", INT | STR | MAP, "One limit.")
        .cast(Cast::Int)
        .merge(Merge::Replace)
        .needs(&["soft", "hard"])
        .keep_zero(),
    integer("services.*.ulimits.*.soft", "The limit that holds.").keep_zero(),
    integer("services.*.ulimits.*.hard", "How far it may be raised.").keep_zero(),
    row("services.*.use_api_socket", BOOL, "The engine's socket inside the container.").not_yet(),
    row("services.*.user", STR, "Who the process runs as."),
    row("services.*.userns_mode", STR, "The user namespace."),
    row("services.*.uts", STR, "The UTS namespace."),
    row("services.*.volumes", LIST, "What is mounted where.")
        .short(Short::Volume)
        .unique(Unique::Member("target")),
    row("services.*.volumes[]", STR | MAP, "`[source:]target[:options]`, or the long form.").needs(&["type"]),
    row("services.*.volumes[].type", STR, "The kind of mount.")
        .one_of(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]),
    row("services.*.volumes[].source", STR, "A path, a key of `volumes`, or an image."),
    row("services.*.volumes[].target", STR, "The path in the container."),
    boolean("services.*.volumes[].read_only", "It cannot be written."),
    row("services.*.volumes[].consistency", STR, "For another platform.").inert(),
    row("services.*.volumes[].bind", MAP, "For binds."),
    row("services.*.volumes[].bind.selinux", STR, "A label for SELinux.").one_of(&["z", "Z"]).inert(),
    row("services.*.volumes[].bind.propagation", STR, "How mounts below it travel."),
    boolean("services.*.volumes[].bind.create_host_path", "Make a missing source.").keep_zero(),
    row("services.*.volumes[].bind.recursive", STR, "Mounts below the source.")
        .one_of(&["enabled", "disabled", "writable", "readonly"]),
    row("services.*.volumes[].volume", MAP, "For volumes."),
    labels("services.*.volumes[].volume.labels", "Labels of an anonymous volume."),
    row("services.*.volumes[].volume.labels.*", SCALAR | NULL, "One label."),
    boolean("services.*.volumes[].volume.nocopy", "Do not copy the image's files into an empty volume."),
    row("services.*.volumes[].volume.subpath", STR, "A directory in the volume."),
    row("services.*.volumes[].tmpfs", MAP, "For memory file systems."),
    row("services.*.volumes[].tmpfs.size", INT | STR, "Its size.").cast(Cast::Bytes),
    row("services.*.volumes[].tmpfs.mode", FLOAT, "Its mode, as a number.").cast(Cast::Int),
    row("services.*.volumes[].image", MAP, "For images."),
    row("services.*.volumes[].image.subpath", STR, "A directory in the image."),
    row("services.*.volumes_from", LIST, "All mounts of another service.").unique(Unique::Strict),
    row("services.*.volumes_from[]", STR, "`service[:ro]` or `container:name`."),
    row("services.*.working_dir", STR, "Where the process starts."),
    row("services.*.pre_start", LIST, "Containers that run before the first replica.").not_yet(),
    row("services.*.pre_start[]", MAP, "A hook.").like(HOOK),
    row("services.*.pre_start[].image", STR, "Its image; the service's unless written."),
    boolean("services.*.pre_start[].per_replica", "Once for each container."),
    row("services.*.post_start", LIST, "Commands after each start.").not_yet(),
    row("services.*.post_start[]", MAP, "A hook.").needs(&["command"]),
    row("services.*.post_start[].command", NULL | STR | LIST, "What runs.").short(Short::Words).keep_zero(),
    row("services.*.post_start[].command[]", STR, "A word."),
    row("services.*.post_start[].user", STR, "Who it runs as."),
    boolean("services.*.post_start[].privileged", "Without confinement."),
    row("services.*.post_start[].working_dir", STR, "Where it starts."),
    key_values("services.*.post_start[].environment", "Its variables."),
    row("services.*.post_start[].environment.*", SCALAR | NULL, "One variable."),
    row("services.*.pre_stop", LIST, "Commands before each stop.").not_yet(),
    row("services.*.pre_stop[]", MAP, "A hook.").needs(&["command"]).like(HOOK),
];
