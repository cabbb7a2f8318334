//! Mounts beyond volumes by name: parts of volumes, order, propagation, memory, secrets, images, files of the network.

use crate::common::{Project, World, eventually};
use nix::mount::{MsFlags, mount, umount};

const IDLE: &str = "image: 'busybox:1', command: [sleep, '1000'], stop_grace_period: 0s";

fn sh(project: &Project<'_>, service: &str, script: &str) -> String {
    project.stack(&["exec", "-T", service, "sh", "-c", script]).ok().text().to_owned()
}

/// One service `web` with these attributes, and further top-level text.
fn one<'w>(world: &'w World, key: &str, attributes: &str, rest: &str) -> Project<'w> {
    world.project(key, &[("compose.yaml", &format!("services:\n  web: {{ {IDLE}, {attributes} }}\n{rest}"))])
}

#[test]
fn a_part_of_a_volume_is_mounted_and_nothing_outside_of_it() {
    World::with_busybox().run(|world| {
        let part = |path: &str| format!("{{ {IDLE}, volumes: [{{ type: volume, source: data, target: /part, volume: {{ subpath: '{path}' }} }}] }}");
        let file = format!(
            "services:\n  whole: {{ {IDLE}, volumes: ['data:/data'] }}\n  inner: {}\n  file: {}\n  gone: {}\n  up: {}\n  link: {}\nvolumes: {{ data: {{}} }}\n",
            part("a/b"), part("a/b/file"), part("gone"), part("../data"), part("trap")
        );
        let project = world.project("subpath", &[("compose.yaml", &file)]);
        project.stack(&["up", "-d", "whole"]).ok();
        sh(&project, "whole", "mkdir -p /data/a/b; echo part > /data/a/b/file; ln -s /etc /data/trap; ln -s ../../../.. /data/trap2");
        project.stack(&["up", "-d", "inner", "file"]).ok();
        assert_eq!(sh(&project, "inner", "ls /part; echo more > /part/more"), "file");
        assert_eq!(sh(&project, "file", "cat /part"), "part");
        assert_eq!(sh(&project, "whole", "cat /data/a/b/more"), "more");
        project.stack(&["up", "-d", "gone"]).code(1).says("no such file or directory");
        project.stack(&["up", "-d", "up"]).code(1).says("subpath must be a relative path within the volume");
        // In the volume there is no /etc, wherever the link means to lead.
        project.stack(&["up", "-d", "link"]).code(1).says("no such file or directory");
    });
}

#[test]
fn nested_mounts_come_outer_first_and_make_their_places() {
    World::with_busybox().run(|world| {
        let project = one(
            world,
            "order",
            "volumes: ['./in/file:/a/b/c/file', 'data:/a/b', './out:/a', '/a/b/d']",
            "volumes: { data: {} }\n",
        );
        project.write("in/file", "deep");
        project.write("out/seen", "outer");
        project.stack(&["up", "-d"]).ok();
        assert_eq!(
            sh(&project, "web", "cat /a/b/c/file /a/seen; ls /a /a/b"),
            "deepouter/a:\nb\nseen\n\n/a/b:\nc\nd"
        );
        assert!(
            project.directory.join("out/b").is_dir(),
            "the place of the inner mount is made in the outer one"
        );
    });
}

/// Whether a mount that is made while the container runs is seen on the other side.
#[test]
fn binds_pass_on_later_mounts_as_far_as_they_are_told_to() {
    World::with_busybox().run(|world| {
        let bind = |name: &str| format!("{{ type: bind, source: ./outer, target: /{name}, bind: {{ propagation: {name} }} }}");
        let binds = ["rprivate", "rslave", "rshared"].map(bind).join(", ");
        let project = one(world, "spread", &format!("privileged: true, volumes: [{binds}, './outer:/default']"), "");
        project.write("outer/from-host/.keep", "");
        project.write("outer/from-inside/.keep", "");
        project.stack(&["up", "-d"]).ok();
        let place = project.directory.join("outer/from-host");
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(place.join("seen"), "").unwrap();
        let seen = ["rprivate", "default", "rslave", "rshared"].map(|name| sh(&project, "web", &format!("ls /{name}/from-host")));
        sh(&project, "web", "for d in rprivate rslave rshared; do mount -t tmpfs $d /$d/from-inside; done; echo x > /rshared/from-inside/x");
        let inside = project.directory.join("outer/from-inside/x").exists();
        sh(&project, "web", "umount /rshared/from-inside");
        umount(&place).unwrap();
        assert_eq!(seen, ["", "", "seen", "seen"]);
        assert!(inside, "what is mounted below a shared bind is seen outside");
        assert!(!project.directory.join("outer/from-inside/x").exists());
        // What takes no part in it passes nothing on.
        let apart = project.directory.join("apart");
        std::fs::create_dir_all(&apart).unwrap();
        mount(Some("tmpfs"), &apart, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(None::<&str>, &apart, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        project.write("compose.yaml", &format!("services:\n  web: {{ {IDLE}, volumes: [{{ type: bind, source: ./apart, target: /x, bind: {{ propagation: rslave }} }}] }}\n"));
        let ran = project.stack(&["up", "-d"]);
        umount(&apart).unwrap();
        ran.code(1).says(&format!("path {0} is mounted on {0} but it is not a shared or slave mount", apart.display()));
    });
}

#[test]
fn a_bound_file_is_the_file_that_was_bound() {
    World::with_busybox().run(|world| {
        let project = one(world, "inode", "volumes: ['./conf:/conf']", "");
        project.write("conf", "one");
        project.stack(&["up", "-d"]).ok();
        project.write("conf", "two");
        assert_eq!(sh(&project, "web", "cat /conf"), "two");
        // As editors do that write a new file and rename it.
        project.write("conf.new", "three");
        std::fs::rename(project.directory.join("conf.new"), project.directory.join("conf")).unwrap();
        assert_eq!(sh(&project, "web", "cat /conf"), "two");
        project.stack(&["restart", "web"]).ok();
        assert_eq!(sh(&project, "web", "cat /conf"), "three");
    });
}

#[test]
fn memory_has_dockers_options_and_is_lost_on_stop() {
    World::with_busybox().run(|world| {
        let attributes = "tmpfs: [/new, '/chosen:size=1m,uid=7,gid=8,mode=0700,exec', /home], \
                          volumes: [{ type: tmpfs, target: /long, tmpfs: { size: 2097152, mode: 0o1750 } }]";
        let project = one(world, "memory", attributes, "");
        let look = || {
            let options =
                |at: &str| sh(&project, "web", &format!("grep ' {at} ' /proc/mounts | cut -d' ' -f4"));
            for at in ["/new", "/home", "/long"] {
                assert!(options(at).starts_with("rw,nosuid,nodev,noexec"), "{at}: {}", options(at));
            }
            assert!(options("/chosen").contains("size=1024k") && !options("/chosen").contains("noexec"));
            assert!(options("/long").contains("size=2048k"));
            sh(&project, "web", "stat -c '%a %u:%g' /new /chosen /home /long; ls /home")
        };
        project.stack(&["up", "-d"]).ok();
        let first = look();
        // A place that the image has keeps its mode, what was in it is hidden.
        assert_eq!(first, "1777 0:0\n700 7:8\n755 0:0\n1750 0:0");
        sh(&project, "web", "touch /new/x /home/x");
        project.stack(&["restart", "web"]).ok();
        assert_eq!(look(), first);
    });
}

#[test]
fn a_volume_in_memory_is_one_for_all_who_run() {
    World::with_busybox().run(|world| {
        let service = format!("{{ {IDLE}, volumes: ['data:/data'], scale: 3 }}");
        let file = format!("services:\n  web: {service}\n  other: {{ {IDLE}, volumes: ['data:/else:ro'] }}\nvolumes:\n  data: {{ driver_opts: {{ type: tmpfs, device: tmpfs, o: 'size=2m,mode=0750' }} }}\n");
        let project = world.project("shared", &[("compose.yaml", &file)]);
        project.stack(&["up", "-d"]).ok();
        sh(&project, "web", "echo shared > /data/x");
        for index in ["2", "3"] {
            assert_eq!(project.stack(&["exec", "-T", "--index", index, "web", "cat", "/data/x"]).ok().text(), "shared");
        }
        assert_eq!(sh(&project, "other", "cat /else/x; grep ' /else ' /proc/mounts | cut -c1-20"), "shared\ntmpfs /else tmpfs ro");
        project.stack(&["exec", "-T", "other", "touch", "/else/y"]).code(1);
        project.stack(&["restart", "web"]).ok();
        assert_eq!(sh(&project, "web", "cat /data/x"), "shared", "as long as one has it");
        project.stack(&["stop"]).ok();
        project.stack(&["start"]).ok();
        assert_eq!(sh(&project, "web", "ls /data"), "", "and no longer");
    });
}

#[test]
fn secrets_and_configs_are_files_with_owner_and_mode() {
    World::with_busybox().run(|world| {
        let attributes = "secrets: [file, { source: env, target: /run/env, uid: '7', gid: '8', mode: 0o440 }], configs: [{ source: inline, target: /inline }], environment: { SECRET: other }";
        let rest = "secrets: { file: { file: ./secret }, env: { environment: SECRET } }\nconfigs: { inline: { content: 'hello ${SECRET}' } }\n";
        let project = one(world, "secrets", attributes, rest);
        project.write("secret", "of a file");
        let env = [("SECRET", "of the environment")];
        project.stack_with(&env, &["up", "-d"]).ok();
        assert_eq!(sh(&project, "web", "cat /run/secrets/file; echo; cat /run/env; echo; cat /inline"), "of a file\nof the environment\nhello of the environment");
        assert_eq!(sh(&project, "web", "stat -c '%a %u:%g' /run/env /inline"), "440 7:8\n444 0:0");
        project.stack(&["exec", "-T", "web", "sh", "-c", "echo no > /run/secrets/file"]).code(1).says("Read-only file system");
        // A file is the host's: a new text is seen, and nothing of it is copied.
        project.write("secret", "changed");
        assert_eq!(sh(&project, "web", "cat /run/secrets/file"), "changed");
        project.stack_with(&env, &["down"]).ok();
        let ran = project.stack(&["up", "-d"]).code(1);
        assert!(ran.stderr.contains("SECRET, which is not set"), "{ran}");
    });
}

#[test]
fn another_image_is_mounted_read_only() {
    World::with_busybox().run(|world| {
        let attributes = "volumes: [{ type: image, source: 'busybox:1', target: /whole }, { type: image, source: 'busybox:1', target: /part, image: { subpath: etc } }]";
        let project = one(world, "images", attributes, "");
        project.stack(&["up", "-d"]).ok();
        assert_eq!(sh(&project, "web", "ls /part/passwd /whole/etc/passwd"), "/part/passwd\n/whole/etc/passwd");
        for place in ["/part/x", "/whole/x"] {
            project.stack(&["exec", "-T", "web", "touch", place]).code(1).says("Read-only file system");
        }
    });
}

#[test]
fn files_of_the_network_are_written_anew_at_every_start() {
    World::with_busybox().run(|world| {
        let project = one(world, "files", "hostname: named", "");
        project.stack(&["up", "-d"]).ok();
        let all = "cat /etc/hosts /etc/hostname /etc/resolv.conf";
        let first = sh(&project, "web", all);
        assert_eq!(sh(&project, "web", "grep -cE ' /etc/(hosts|hostname|resolv.conf) ' /proc/mounts"), "3");
        for file in ["hosts", "hostname", "resolv.conf"] {
            sh(&project, "web", &format!("echo edited >> /etc/{file}"));
        }
        assert_eq!(sh(&project, "web", all).matches("edited").count(), 3);
        project.stack(&["restart", "web"]).ok();
        assert_eq!(sh(&project, "web", all), first);
    });
}

#[test]
fn ports_and_pings_are_for_everybody_unless_the_user_says_otherwise() {
    World::with_busybox().run(|world| {
        let file = format!(
            "services:\n  web: {{ {IDLE} }}\n  own: {{ {IDLE}, sysctls: {{ net.ipv4.ip_unprivileged_port_start: 90 }} }}\n  host: {{ {IDLE}, network_mode: host }}\n"
        );
        let project = world.project("sysctls", &[("compose.yaml", &file)]);
        project.stack(&["up", "-d"]).ok();
        let start = |service: &str| sh(&project, service, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
        assert_eq!((start("web"), start("own")), ("0".into(), "90".into()));
        assert_eq!(sh(&project, "web", "cat /proc/sys/net/ipv4/ping_group_range").split_whitespace().collect::<Vec<_>>(), ["0", "2147483647"]);
        assert_ne!(start("host"), "0", "the host's is left alone");
    });
}

#[test]
fn a_probe_that_cannot_be_run_is_a_failure() {
    World::with_busybox().run(|world| {
        let project = one(
            world,
            "noprobe",
            "healthcheck: { test: [CMD, /no/such/probe], interval: 100ms, retries: 2 }",
            "",
        );
        project.stack(&["up", "-d"]).ok();
        eventually("unhealthy", || (project.ps_field("web", "Health") == "unhealthy").then_some(()));
        let id = project.stack(&["ps", "-q", "web"]).ok().text().to_owned();
        let file =
            world.home.join("stacks").join(&project.name).join("containers").join(id).join("health.json");
        let health: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let last = health["log"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["exit_code"], -1, "{last}");
        assert!(last["output"].as_str().unwrap().contains("/no/such/probe"), "{last}");
    });
}
