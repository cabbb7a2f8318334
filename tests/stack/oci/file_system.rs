//! The root, mounts with all their options, devices, masks.

use super::bed::bed;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

#[test]
fn a_read_only_root_and_paths_that_are_masked_or_read_only() {
    bed(|bed| {
        let mut bundle = bed.bundle("touch /x; cat /etc/passwd; ls -A /root; echo 1 > /proc/sys/kernel/hostname; touch /tmp/x || echo no");
        bundle.config["root"]["readonly"] = true.into();
        bundle.config["linux"]["maskedPaths"] = json!(["/etc/passwd", "/root", "/nowhere"]);
        bundle.config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/nowhere"]);
        fs::write(bed.dir.join("rootfs/root/secret"), "").unwrap();
        let said = bundle.run();
        assert_eq!(said.out, "no\n");
        assert_eq!(said.err.matches("Read-only file system").count(), 3, "{}", said.err);
    });
}

#[test]
fn binds_keep_their_options_to_themselves_unless_recursive() {
    bed(|bed| {
        let outer = bed.dir.join("outer");
        fs::create_dir_all(outer.join("inner")).unwrap();
        nix::mount::mount(
            Some("t"),
            &outer.join("inner"),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let script = "touch /mnt/x || echo outer; touch /mnt/inner/x || echo inner; rm -f /mnt/inner/x";
        let mut bundle = bed.bundle(script);
        bundle.mount("/mnt", "bind", &outer, &["rbind", "ro"]);
        assert_eq!(bundle.run().out, "outer\n");
        let mut bundle = bed.bundle(script);
        bundle.mount("/mnt", "none", &outer, &["rbind", "rro", "rnosuid", "rnoatime"]);
        assert_eq!(bundle.run().out, "outer\ninner\n");
        let mut bundle = bed.bundle("ls /mnt/inner/ | wc -l; grep ' /mnt' /proc/mounts | wc -l");
        fs::write(outer.join("inner/x"), "").unwrap();
        bundle.mount("/mnt", "bind", &outer, &["bind"]);
        assert_eq!(bundle.says(), "0\n1\n");
        nix::mount::umount(&outer.join("inner")).unwrap();
    });
}

#[test]
fn options_of_a_mount_reach_the_kernel() {
    bed(|bed| {
        let mut bundle = bed.bundle("grep -E ' /mnt | /tmp ' /proc/mounts | cut -d' ' -f2-4");
        bundle.mount(
            "/mnt",
            "tmpfs",
            "tmpfs",
            &["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow", "size=64k", "mode=0700"],
        );
        bundle.mount("/tmp", "tmpfs", "tmpfs", &["strictatime", "nodiratime", "sync"]);
        let said = bundle.says();
        assert!(
            said.contains("/mnt tmpfs ro,nosuid,nodev,noexec,noatime,nosymfollow,size=64k,mode=700"),
            "{said}"
        );
        assert!(said.contains("/tmp tmpfs rw,sync,nodiratime"), "{said}");
    });
}

#[test]
fn a_tmpfs_looks_like_what_it_covers_and_may_start_with_it() {
    bed(|bed| {
        let mut bundle = bed.bundle("stat -c %a /mnt /tmp; cat /mnt/sub/file; stat -c %u:%a /mnt/sub");
        let root = bundle.own_root();
        fs::create_dir(root.join("mnt/sub")).unwrap();
        fs::write(root.join("mnt/sub/file"), "copied\n").unwrap();
        fs::set_permissions(root.join("mnt"), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(root.join("mnt/sub"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1750)).unwrap();
        chown(root.join("mnt/sub"), Some(5), None).unwrap();
        bundle.mount("/mnt", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]);
        bundle.mount("/tmp", "tmpfs", "tmpfs", &["nosuid"]);
        assert_eq!(bundle.says(), "711\n1750\ncopied\n5:777\n");
    });
}

#[test]
fn owners_are_shown_as_the_mapping_says() {
    bed(|bed| {
        let dir = bed.dir.join("mapped");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        chown(dir.join("file"), Some(2000), Some(3000)).unwrap();
        let mut bundle = bed.bundle("stat -c %u:%g /mnt/file");
        bundle.config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/mnt", "type": "bind", "source": dir, "options": ["bind", "idmap"],
            "uidMappings": [{ "containerID": 2000, "hostID": 10, "size": 1 }],
            "gidMappings": [{ "containerID": 3000, "hostID": 20, "size": 1 }],
        }));
        let said = bundle.run();
        if said.err.contains("with other owners: Invalid argument") {
            eprintln!("SKIPPED: the file system of {} has no idmapped mounts", dir.display());
            return;
        }
        assert_eq!(said.out, "10:20\n", "{}", said.err);
    });
}

#[test]
fn propagation_from_and_to_the_host() {
    bed(|bed| {
        let dir = bed.dir.join("spread");
        fs::create_dir_all(dir.join("late")).unwrap();
        let slave = {
            let mut bundle =
                bed.bundle("while ! grep -q ' /mnt/late ' /proc/mounts; do sleep 0.05; done; echo seen");
            bundle.mount("/mnt", "bind", &dir, &["rbind", "rslave"]);
            bundle
        };
        slave.create();
        bed.ok(&["start", &slave.id]);
        nix::mount::mount(
            Some("t"),
            &dir.join("late"),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        bed.wait(&slave.id, "stopped");
        assert_eq!(slave.output(), "seen\n");
        nix::mount::umount(&dir.join("late")).unwrap();
        let mut private = bed.bundle("grep -c '/mnt.* \\(shared\\|master\\):' /proc/self/mountinfo");
        private.mount("/mnt", "bind", &dir, &["rbind", "rprivate"]);
        assert_eq!(private.run().out, "0\n");
        let mut shared = bed.bundle("grep ' / / \\| / rw\\| / ro' /proc/self/mountinfo | grep -c shared:; grep -c ' /mnt .* shared:' /proc/self/mountinfo");
        shared.config["linux"]["rootfsPropagation"] = "shared".into();
        shared.mount("/mnt", "bind", &dir, &["rbind", "rshared"]);
        assert_eq!(shared.says(), "1\n1\n");
    });
}

#[test]
fn devices_of_every_container_and_those_of_the_config() {
    bed(|bed| {
        let mut bundle = bed.bundle("for d in null zero full random urandom tty fuse0; do stat -c '%n %t:%T %a %u:%g' /dev/$d; done; readlink /dev/fd; readlink /dev/ptmx; echo > /dev/null && head -c 1 /dev/zero | wc -c; test -p /dev/pipe && echo pipe");
        bundle.config["linux"]["devices"] = json!([
            { "path": "/dev/fuse0", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4 },
            { "path": "/dev/pipe", "type": "p" },
        ]);
        let said = bundle.says();
        for line in [
            "null 1:3 666 0:0",
            "zero 1:5 666",
            "full 1:7 666",
            "random 1:8",
            "urandom 1:9",
            "tty 5:0",
            "fuse0 a:e5 640 3:4",
        ] {
            assert!(said.contains(&format!("/dev/{line}")), "{line} in {said}");
        }
        assert!(said.ends_with("/proc/self/fd\npts/ptmx\n1\npipe\n"), "{said}");
    });
}

#[test]
fn a_read_only_dev_has_its_devices() {
    bed(|bed| {
        let mut bundle = bed.bundle("ls /dev/null && touch /dev/x");
        bundle.config["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
        let said = bundle.run();
        assert!(
            said.out == "/dev/null\n" && said.err.contains("Read-only file system"),
            "{}{}",
            said.out,
            said.err
        );
    });
}

#[test]
fn links_in_the_image_lead_nowhere_outside() {
    bed(|bed| {
        let mut bundle = bed.bundle("cat /real/conf/file");
        let root = bundle.own_root();
        let outside = bed.dir.join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir_all(root.join("real")).unwrap();
        symlink("/real/conf", root.join("conf")).unwrap();
        symlink(&outside, root.join("escape")).unwrap();
        fs::write(bed.dir.join("file"), "inside\n").unwrap();
        bundle.mount("/conf/file", "bind", bed.dir.join("file"), &["bind"]);
        bundle.mount("/escape/made", "tmpfs", "tmpfs", &[]);
        assert_eq!(bundle.says(), "inside\n");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        fs::remove_dir(root.join("proc")).unwrap();
        symlink("/real", root.join("proc")).unwrap();
        let said = bundle.refused();
        assert!(said.contains("must be mounted on ordinary directory"), "{said}");
    });
}

#[test]
fn sources_are_relative_to_the_bundle_and_the_root_may_be_it() {
    bed(|bed| {
        let mut bundle = bed.bundle("cat /mnt/config.json | wc -l");
        bundle.mount("/mnt", "bind", ".", &["bind", "ro"]);
        assert_eq!(bundle.says(), "0\n");
    });
}

#[test]
fn a_root_that_cannot_be_put_away_is_covered() {
    bed(|bed| {
        let bundle = bed.bundle("ls /; test -e /proc/1/root/sys/firmware && echo host");
        bundle.write();
        let said = bed.oci(&["run", "--no-pivot", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
        assert!(said.out.contains("mnt\n") && !said.out.contains("home\n"), "{}{}", said.out, said.err);
    });
}

#[test]
fn without_a_mount_namespace_the_root_is_changed_all_the_same() {
    bed(|bed| {
        let mut bundle = bed.bundle("ls /etc");
        bundle.drop_namespace("mount");
        bundle.config["mounts"] = json!([]);
        bundle.own_root();
        let said = bundle.run();
        assert_eq!(said.out, "passwd\n", "{}", said.err);
        let inode = fs::metadata(bundle.dir.join("rootfs")).unwrap().ino();
        assert!(inode > 0);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(bundle.dir.to_str().unwrap()), "a mount is left on the host");
    });
}
