//! User namespaces, namespaces that are joined, and clocks.

use super::bed::{Bed, Bundle, bed};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn mapped<'a>(bed: &'a Bed, script: &str) -> Bundle<'a> {
    let mut bundle = bed.bundle(script);
    let root = bundle.own_root();
    bundle.add_namespace(json!({ "type": "user" }));
    let map = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1000 }]);
    bundle.config["linux"]["uidMappings"] = map(100_000);
    bundle.config["linux"]["gidMappings"] = map(200_000);
    for dir in [&bed.dir, &bundle.dir] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    std::os::unix::fs::chown(root.join("tmp"), Some(100_000), Some(200_000)).unwrap();
    bundle
}

#[test]
fn ids_are_mapped_and_files_belong_to_whom_they_should() {
    bed(|bed| {
        let script = "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; touch /tmp/made; stat -c %u:%g /tmp/made; echo > /dev/null; cat /mnt/file; grep CapEff /proc/self/status";
        let mut bundle = mapped(bed, script);
        let secret = bed.dir.join("secret");
        fs::create_dir(&secret).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(secret.join("open")).unwrap();
        fs::write(secret.join("open/file"), "reached\n").unwrap();
        // Nobody of the container's may walk to it; its mount is there all the same.
        bundle.mount("/mnt", "bind", secret.join("open"), &["bind", "ro"]);
        let said = bundle.says();
        assert!(
            said.starts_with("0\n 0 100000 1000\n 0 200000 1000\n0:0\nreached\nCapEff:\t00000000080400e3"),
            "{said}"
        );
        let made = fs::metadata(bundle.dir.join("rootfs/tmp/made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (100_000, 200_000));
    });
}

#[test]
fn a_program_is_executed_in_the_users_of_the_container() {
    bed(|bed| {
        let bundle = mapped(bed, "sleep 1000");
        let id = bundle.detach();
        let said =
            bundle.exec(&["-u", "5:6", id, "sh", "-c", "id -u; id -g; cat /proc/self/uid_map | tr -s ' '"]);
        assert_eq!(said.out, "5\n6\n 0 100000 1000\n", "{}", said.err);
    });
}

#[test]
fn namespaces_of_another_container_are_joined() {
    bed(|bed| {
        let first = mapped(bed, "hostname first; sleep 1000");
        let id = first.detach();
        let state: serde_json::Value = serde_json::from_str(&bed.ok(&["state", id])).unwrap();
        let pid = state["pid"].as_i64().unwrap();
        let deadline = std::time::Instant::now() + crate::common::PATIENCE;
        while first.exec(&[id, "hostname"]).out != "bed\n" {
            assert!(std::time::Instant::now() < deadline);
        }
        let mut second = mapped(
            bed,
            "ps | grep -c '[s]leep 1000'; cat /proc/self/uid_map | tr -s ' '; for n in user pid net ipc uts; do readlink /proc/self/ns/$n; done",
        );
        for (kind, name) in
            [("user", "user"), ("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")]
        {
            second.add_namespace(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{name}") }));
        }
        let linux = second.config["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        second.config.as_object_mut().unwrap().remove("hostname");
        let said = second.says();
        assert!(said.starts_with("1\n 0 100000 1000\n"), "{said}");
        for name in ["user", "pid", "net", "ipc", "uts"] {
            let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
            assert!(said.contains(link.to_str().unwrap()), "{name} in {said}");
        }
    });
}

#[test]
fn a_path_of_another_kind_of_namespace_is_refused() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        bundle.add_namespace(json!({ "type": "ipc", "path": "/proc/self/ns/net" }));
        let said = bundle.refused();
        assert!(said.contains("join the namespace /proc/self/ns/net: invalid argument"), "{said}");
    });
}

#[test]
fn a_clock_of_its_own() {
    bed(|bed| {
        let mut bundle = bed.bundle("cut -d. -f1 /proc/uptime; sleep 1000");
        bundle.add_namespace(json!({ "type": "time" }));
        bundle.config["linux"]["timeOffsets"] =
            json!({ "boottime": { "secs": 10_000_000, "nanosecs": 5 }, "monotonic": { "secs": 1 } });
        let id = bundle.create().to_owned();
        bed.ok(&["start", &id]);
        let said = bundle.exec(&[&id, "cut", "-d.", "-f1", "/proc/uptime"]);
        assert!(said.out.trim().parse::<u64>().unwrap() > 10_000_000, "{}{}", said.out, said.err);
        assert!(bundle.output().trim().parse::<u64>().unwrap() > 10_000_000);
    });
}

#[test]
fn devices_that_the_host_has_not_are_made_for_a_user_namespace() {
    bed(|bed| {
        let mut bundle = mapped(
            bed,
            "stat -c '%n %t:%T %a %u:%g' /dev/of-its-own /dev/null; head -c 1 /dev/of-its-own | wc -c",
        );
        bundle.config["linux"]["devices"] = json!([
            { "path": "/dev/of-its-own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444, "uid": 10, "gid": 11 },
        ]);
        let said = bundle.says();
        assert!(said.starts_with("/dev/of-its-own 1:5 444 10:11\n/dev/null 1:3 666"), "{said}");
        assert!(said.ends_with("\n1\n"), "{said}");
    });
}
