//! Rows of `services.*.build`.

use super::form::*;
use super::*;

pub(super) const BUILD: &[Attribute] = &[
    row("services.*.build", STR | MAP, "How the image is built; a string is the context.")
        .short(Short::Build),
    row("services.*.build.context", STR, "The directory that is sent to the build.").kind(PathKind::Context),
    row("services.*.build.dockerfile", STR, "Relative to the context; `Dockerfile` unless written."),
    row("services.*.build.dockerfile_inline", STR, "The Dockerfile's text."),
    row("services.*.build.entitlements", LIST, "Privileges granted to the build.").not_yet(),
    row("services.*.build.entitlements[]", STR, "A privilege."),
    key_values("services.*.build.args", "Values for ARG; null takes the variable's value."),
    row("services.*.build.args.*", SCALAR | NULL, "One value."),
    row("services.*.build.provenance", STR | BOOL, "Provenance attestation; `stack build --push` makes it.")
        .cast(Cast::Text),
    row("services.*.build.sbom", STR | BOOL, "SBOM attestation; `stack build --push` makes it.")
        .cast(Cast::Text),
    row("services.*.build.ssh", MAP | LIST, "SSH agents and keys for RUN.")
        .short(Short::Ssh)
        .unique(Unique::Key),
    row("services.*.build.ssh.*", SCALAR | NULL, "A socket or key."),
    labels("services.*.build.labels", "Labels of the image."),
    row("services.*.build.labels.*", SCALAR | NULL, "One label."),
    row("services.*.build.cache_from", LIST, "Where cached layers come from."),
    row("services.*.build.cache_from[]", STR, "A source."),
    row("services.*.build.cache_to", LIST, "Where layers are exported to."),
    row("services.*.build.cache_to[]", STR, "A target."),
    boolean("services.*.build.no_cache", "Take nothing from the cache."),
    row("services.*.build.no_cache_filter", STR | LIST, "Stages that take nothing from the cache.")
        .short(Short::OneOrMore),
    row("services.*.build.no_cache_filter[]", STR, "A stage."),
    key_values(
        "services.*.build.additional_contexts",
        "Named contexts: a directory, `docker-image://…`, `service:…`.",
    ),
    row("services.*.build.additional_contexts.*", SCALAR | NULL, "A context.").kind(PathKind::Context),
    boolean("services.*.build.pull", "Resolve base images again."),
    row("services.*.build.extra_hosts", MAP | LIST, "Entries of /etc/hosts during RUN.")
        .short(Short::Hosts)
        .unique(Unique::Value)
        .like("services.*.extra_hosts"),
    row("services.*.build.isolation", STR, "For another platform.").inert(),
    row("services.*.build.network", STR, "`default`, `none` or `host`."),
    row("services.*.build.target", STR, "The stage to stop at."),
    row("services.*.build.secrets", LIST, "Secrets for RUN --mount.")
        .short(Short::Grant)
        .like("services.*.secrets"),
    bytes("services.*.build.shm_size", "Size of /dev/shm during RUN."),
    strings("services.*.build.tags", "Further tags."),
    row("services.*.build.tags[]", STR, "A tag."),
    row("services.*.build.ulimits", MAP, "Limits during RUN.").like("services.*.ulimits"),
    row("services.*.build.platforms", LIST, "Platforms to build for."),
    row("services.*.build.platforms[]", STR, "A platform."),
    boolean("services.*.build.privileged", "RUN without confinement.").not_yet(),
];
