//! Weights and rates of block devices: `blkio` of version 1, `io` of version 2.

use super::limits::Writer;
use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};
use std::path::{Path, PathBuf};

pub(super) fn apply(writer: &mut Writer<'_>, resources: &LinuxResources) {
    let Some(wanted) = resources.block_io() else { return };
    match writer.legacy("blkio").map(Path::to_owned) {
        Some(dir) => legacy(writer, wanted, &dir),
        None => unified(writer, wanted),
    }
}

fn list<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// The name of the file depends on the kernel's scheduler.
fn existing(dir: &Path, names: [&str; 2]) -> PathBuf {
    let [first, second] = names.map(|name| dir.join(name));
    if first.exists() || !second.exists() { first } else { second }
}

fn at(device: (i64, i64), value: impl std::fmt::Display) -> String {
    format!("{}:{} {value}", device.0, device.1)
}

fn legacy(writer: &mut Writer<'_>, wanted: &LinuxBlockIo, dir: &Path) {
    if let Some(weight) = wanted.weight().filter(|weight| *weight != 0) {
        writer.write(
            "block I/O weight",
            &existing(dir, ["blkio.weight", "blkio.bfq.weight"]),
            &weight.to_string(),
        );
    }
    if let Some(weight) = wanted.leaf_weight().filter(|weight| *weight != 0) {
        writer.write("block I/O leaf weight", &dir.join("blkio.leaf_weight"), &weight.to_string());
    }
    for device in list(wanted.weight_device()) {
        let place = (device.major(), device.minor());
        if let Some(weight) = device.weight() {
            let file = existing(dir, ["blkio.weight_device", "blkio.bfq.weight_device"]);
            writer.write("block I/O weight", &file, &at(place, weight));
        }
        if let Some(weight) = device.leaf_weight() {
            writer.write("block I/O leaf weight", &dir.join("blkio.leaf_weight_device"), &at(place, weight));
        }
    }
    for (rates, _, file) in rates(wanted) {
        for rate in rates {
            let line = at((rate.major(), rate.minor()), rate.rate());
            writer.write("block I/O rate", &dir.join(file), &line);
        }
    }
}

/// Devices, version 2's key, version 1's file.
fn rates(wanted: &LinuxBlockIo) -> [(&[LinuxThrottleDevice], &'static str, &'static str); 4] {
    [
        (list(wanted.throttle_read_bps_device()), "rbps", "blkio.throttle.read_bps_device"),
        (list(wanted.throttle_write_bps_device()), "wbps", "blkio.throttle.write_bps_device"),
        (list(wanted.throttle_read_iops_device()), "riops", "blkio.throttle.read_iops_device"),
        (list(wanted.throttle_write_iops_device()), "wiops", "blkio.throttle.write_iops_device"),
    ]
}

fn unified(writer: &mut Writer<'_>, wanted: &LinuxBlockIo) {
    let Some(dir) = writer.group.unified_dir().map(Path::to_owned) else {
        return writer.warnings.push("block I/O limits are not applied: no io control group".to_owned());
    };
    let fair = dir.join("io.bfq.weight");
    if let Some(weight) = wanted.weight().filter(|weight| *weight != 0) {
        if fair.exists() {
            writer.write("block I/O weight", &fair, &weight.to_string());
        } else {
            writer.write("block I/O weight", &dir.join("io.weight"), &to_unified(weight).to_string());
        }
    }
    for device in list(wanted.weight_device()) {
        weight_of(writer, device, &dir);
    }
    for (rates, key, _) in rates(wanted) {
        for rate in rates {
            let line = at((rate.major(), rate.minor()), format!("{key}={}", rate.rate()));
            writer.write("block I/O rate", &dir.join("io.max"), &line);
        }
    }
}

fn weight_of(writer: &mut Writer<'_>, device: &LinuxWeightDevice, dir: &Path) {
    let Some(weight) = device.weight() else { return };
    let place = (device.major(), device.minor());
    let fair = dir.join("io.bfq.weight");
    match fair.exists() {
        true => writer.write("block I/O weight", &fair, &at(place, weight)),
        false => writer.write("block I/O weight", &dir.join("io.weight"), &at(place, to_unified(weight))),
    }
}

/// 10…1000 to 1…10000.
fn to_unified(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    #[test]
    fn weights_span_the_wider_range() {
        assert_eq!([10, 750, 1000].map(super::to_unified), [1, 7475, 10_000]);
    }
}
