//! What one container has of another's: namespaces, files, mounts, names.

use crate::common::{Project, World};

const DONOR: &str = "image: 'busybox:1', stop_grace_period: 0s, hostname: donor, extra_hosts: ['far:192.0.2.7'], \
    volumes: ['/data', 'named:/named', './bound:/bound'], tmpfs: [/memory], ipc: shareable, \
    command: [sh, -c, 'echo note > /dev/shm/note; echo kept > /data/file; exec sleep 1000']";
const IDLE: &str = "image: 'busybox:1', stop_grace_period: 0s, command: [sleep, '1000']";

fn sh(project: &Project<'_>, service: &str, script: &str) -> String {
    project.stack(&["exec", "-T", service, "sh", "-c", script]).ok().text().to_owned()
}

fn namespace(project: &Project<'_>, service: &str, kind: &str) -> String {
    sh(project, service, &format!("readlink /proc/self/ns/{kind}"))
}

/// Of this test.
fn own_namespace(kind: &str) -> String {
    std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap().display().to_string()
}

fn id(project: &Project<'_>, service: &str) -> String {
    project.stack(&["ps", "-aq", service]).ok().text().to_owned()
}

/// A donor and these services.
fn with_donor<'w>(world: &'w World, services: &[(&str, &str)]) -> Project<'w> {
    let mut file = format!("volumes:\n  named: {{}}\nservices:\n  db: {{ {DONOR} }}\n");
    for (key, attributes) in services {
        file += &format!("  {key}: {{ {IDLE}, {attributes} }}\n");
    }
    world.project("sharing", &[("compose.yaml", &file)])
}

#[test]
fn the_network_of_another_container_comes_with_its_files() {
    World::with_busybox().run(|world| {
        let project =
            with_donor(world, &[("side", "network_mode: 'service:db'"), ("alone", "network_mode: none")]);
        project.stack(&["up", "-d"]).ok();
        let file =
            format!("services:\n  guest: {{ {IDLE}, network_mode: 'container:{}-db-1' }}\n", project.name);
        let guest = world.project("guest", &[("compose.yaml", &file)]);
        guest.stack(&["up", "-d"]).ok();
        for (project, service) in [(&project, "side"), (&guest, "guest")] {
            let files = sh(project, service, "cat /etc/hosts /etc/resolv.conf; cat /etc/hostname; hostname");
            for line in ["192.0.2.7\tfar", "nameserver 127.0.0.11"] {
                assert!(files.contains(line), "{line}: {files}");
            }
            assert!(files.ends_with("\ndonor\ndonor"), "{files}");
        }
        let network = namespace(&project, "db", "net");
        assert_eq!(namespace(&project, "side", "net"), network);
        assert_eq!(namespace(&guest, "guest", "net"), network);
        assert_eq!(sh(&project, "alone", "ls /sys/class/net"), "lo");
        assert_ne!(namespace(&project, "alone", "net"), network);
    });
}

#[test]
fn a_network_that_is_not_there_cannot_be_joined() {
    World::with_busybox().run(|world| {
        let project = with_donor(world, &[("lost", "network_mode: 'container:nobody'")]);
        project.stack(&["up", "-d", "lost"]).code(1).says("No such container: nobody");
        let late =
            format!("services:\n  late: {{ {IDLE}, network_mode: 'container:{}-db-1' }}\n", project.name);
        let late = world.project("late", &[("compose.yaml", &late)]);
        project.stack(&["create", "db"]).ok();
        late.stack(&["up", "-d"]).code(1).says("cannot join network of a non running container");
    });
}

#[test]
fn processes_and_memory_are_shared_when_asked() {
    World::with_busybox().run(|world| {
        let services = [
            ("side", "pid: 'service:db', ipc: 'service:db'"),
            ("private", ""),
            ("wary", "ipc: 'service:private'"),
        ];
        let project = with_donor(world, &services);
        project.stack(&["up", "-d"]).code(1).says("non-shareable IPC");
        for kind in ["pid", "ipc"] {
            assert_eq!(namespace(&project, "side", kind), namespace(&project, "db", kind), "{kind}");
        }
        assert_eq!(
            sh(&project, "side", "cat /dev/shm/note; tr '\\0' ' ' < /proc/1/cmdline"),
            "note\nsleep 1000"
        );
    });
}

#[test]
fn the_hosts_namespaces_are_kept_when_asked() {
    World::with_busybox().run(|world| {
        let project = with_donor(world, &[("open", "network_mode: host, pid: host, ipc: host, uts: host")]);
        project.stack(&["up", "-d", "open"]).ok();
        for kind in ["net", "pid", "ipc", "uts"] {
            assert_eq!(namespace(&project, "open", kind), own_namespace(kind), "{kind}");
        }
    });
}

#[test]
fn mounts_of_another_service_are_taken_over_and_follow_it() {
    World::with_busybox().run(|world| {
        let project = with_donor(world, &[("side", "volumes_from: ['db:ro'], tmpfs: [/named]")]);
        project.stack(&["up", "-d"]).ok();
        assert_eq!(sh(&project, "side", "cat /data/file"), "kept");
        assert_eq!(
            sh(&project, "side", "touch /bound/x 2>&1 || true"),
            "touch: /bound/x: Read-only file system"
        );
        let mounts = sh(&project, "side", "cat /proc/mounts");
        assert!(mounts.contains("tmpfs /named tmpfs rw"), "its own mount wins: {mounts}");
        assert!(!mounts.contains(" /memory "), "{mounts}");
        project.stack(&["up", "-d"]).ok().says("Running");
        let before = id(&project, "side");
        project.edit("compose.yaml", "hostname: donor", "hostname: other");
        project.stack(&["up", "-d"]).ok();
        assert_ne!(id(&project, "side"), before, "replaced with its donor");
        assert_eq!(sh(&project, "side", "cat /data/file"), "kept", "the anonymous volume went along");
        project.stack(&["rm", "-fsv", "side"]).ok();
        assert_eq!(sh(&project, "db", "cat /data/file"), "kept", "the donor's volume stays");
    });
}

#[test]
fn links_are_names_for_one_service_alone() {
    World::with_busybox().run(|world| {
        let services = [
            ("web", "links: ['db:database'], external_links: ['${COMPOSE_PROJECT_NAME}-db-1:far']"),
            ("other", ""),
        ];
        let project = with_donor(world, &services);
        project.stack(&["up", "-d"]).ok();
        let address = sh(&project, "db", "hostname -i");
        for name in ["database", "db-1", "db", "far"] {
            let answer = sh(&project, "web", &format!("nslookup -type=a {name} 127.0.0.11"));
            assert!(answer.contains(&format!("Address: {address}")), "{name}: {answer}");
        }
        let answer = project.stack(&["exec", "-T", "other", "nslookup", "-type=a", "database", "127.0.0.11"]);
        assert!(!answer.stdout.contains(&format!("Address: {address}")), "{answer}");
    });
}
