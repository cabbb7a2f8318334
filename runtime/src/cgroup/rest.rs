//! Huge pages, network classes, RDMA, and version 2's files by name.

use super::limits::Writer;
use oci_spec::runtime::LinuxResources;
use std::path::Path;

pub(super) fn apply(writer: &mut Writer<'_>, resources: &LinuxResources) {
    for page in resources.hugepage_limits().iter().flatten() {
        let (size, limit) = (page.page_size(), page.limit().to_string());
        let names = |part: &str| {
            (format!("hugetlb.{size}{part}.limit_in_bytes"), format!("hugetlb.{size}{part}.max"))
        };
        let (legacy, unified) = names("");
        writer.set("huge page limit", "hugetlb", &legacy, &unified, &limit);
        let (legacy, unified) = names(".rsvd");
        if exists(writer, "hugetlb", &legacy, &unified) {
            writer.set("huge page limit", "hugetlb", &legacy, &unified, &limit);
        }
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            only_legacy(writer, "network class", "net_cls", "net_cls.classid", &class.to_string());
        }
        for priority in network.priorities().iter().flatten() {
            let line = format!("{} {}", priority.name(), priority.priority());
            only_legacy(writer, "network priority", "net_prio", "net_prio.ifpriomap", &line);
        }
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let part =
            |key: &str, value: Option<u32>| value.map(|value| format!(" {key}={value}")).unwrap_or_default();
        let parts = part("hca_handle", limit.hca_handles()) + &part("hca_object", limit.hca_objects());
        writer.set("RDMA limit", "rdma", "rdma.max", "rdma.max", &format!("{device}{parts}"));
    }
    unified(writer, resources);
}

fn exists(writer: &Writer<'_>, controller: &str, legacy: &str, unified: &str) -> bool {
    match (writer.legacy(controller), writer.group.unified_dir()) {
        (Some(dir), _) => dir.join(legacy).exists(),
        (None, Some(dir)) => dir.join(unified).exists(),
        (None, None) => false,
    }
}

/// Version 2 leaves these to programs in the packets' way.
fn only_legacy(writer: &mut Writer<'_>, what: &str, controller: &str, file: &str, value: &str) {
    match writer.legacy(controller).map(|dir| dir.join(file)) {
        Some(file) => writer.write(what, &file, value),
        None => writer.warnings.push(format!("{what} is not applied: no {controller} control group")),
    }
}

fn unified(writer: &mut Writer<'_>, resources: &LinuxResources) {
    let Some(files) = resources.unified().as_ref().filter(|files| !files.is_empty()) else { return };
    let Some(dir) = writer.group.unified_dir().map(Path::to_owned) else {
        return writer.warnings.push("unified limits are not applied: this host has no cgroup v2".to_owned());
    };
    for (file, value) in files {
        for line in value.lines() {
            writer.write(file, &dir.join(file), line);
        }
    }
}
