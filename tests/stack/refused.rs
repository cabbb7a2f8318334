//! Bad input: each a clear error with its place, a code other than 0, and nothing half made.

use crate::common::{Project, Ran, World, free_port};
use std::net::UdpSocket;

/// The error, its place, code 1, and a project without containers, networks and volumes of its own.
#[track_caller]
fn refused(project: &Project<'_>, args: &[&str], error: &str, place: &str) -> Ran {
    let ran = project.stack(args).code(1);
    assert!(ran.stderr.contains(&format!("error: {error}")), "`{error}` is missing from {ran}");
    assert!(ran.stderr.contains(place), "`{place}` is missing from {ran}");
    assert_eq!(
        ran.stderr.matches(error).count() - ran.stderr.matches(&format!("Error {error}")).count(),
        1,
        "once: {ran}"
    );
    assert_nothing_made(project);
    ran
}

#[track_caller]
fn assert_nothing_made(project: &Project<'_>) {
    assert!(project.ps().is_empty(), "{:?}", project.ps());
    assert_eq!(project.world.stack(&["volume", "ls", "-q"]).ok().stdout, "");
    let networks = project.world.home.join("networks");
    let of_project = std::fs::read_dir(networks).into_iter().flatten().flatten();
    let left: Vec<_> =
        of_project.filter(|e| e.file_name().to_string_lossy().contains(&project.name)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_wrong_in_the_file_is_said_with_its_place_before_anything_is_done() {
    World::with_busybox().run(|world| {
        let cases: &[(&str, &str, &str)] = &[
            ("services:\n  web: [image: x\n", "not valid YAML: unclosed bracket '['", "compose.yaml:2:8"),
            ("services:\n  web:\n    imgae: x\n", "unknown attribute `imgae` in service `web`", "compose.yaml:3:5"),
            ("services:\n  web:\n    image: busybox:1\n    ports: 80\n", "`services.web.ports` must be a list, this is a number", "compose.yaml:4:12"),
            ("services:\n  a: {image: busybox:1, depends_on: [b]}\n  b: {image: busybox:1, depends_on: [a]}\n", "services depend on each other in a circle: a → b → a", "compose.yaml:2:38"),
            ("services:\n  a: {image: busybox:1, depends_on: [c]}\n", "service `a` depends on undefined service `c`", "compose.yaml:2:38"),
            ("services:\n  a: {image: busybox:1, networks: [c]}\n", "service `a` refers to undefined network `c`", "compose.yaml:2:36"),
            ("services:\n  a: {image: busybox:1, volumes: [\"c:/c\"]}\n", "service `a` refers to undefined volume `c`", "compose.yaml:2:35"),
            ("services:\n  a: {build: ./nowhere}\n", "the build context", "compose.yaml:2:14  services.a.build.context"),
            ("services: {}\n", "no service selected", ""),
            // Compose accepts these in `config`; nobody could make them.
            ("services:\n  a: {image: busybox:1, volumes: [{type: npipe, source: x, target: y}]}\n", "mounts of type `npipe` do not exist on Linux", "compose.yaml:2:35"),
            ("services:\n  a: {image: busybox:1, ports: [\"80:80/sctp\"], volumes: [\"v:/v\"]}\nvolumes: {v: {}}\n", "publishing sctp ports is not supported", "compose.yaml:2:32"),
            ("services:\n  a: {image: busybox:1, network_mode: weird}\n", "network mode \"weird\" is not supported", "compose.yaml:2:39"),
            ("services:\n  a: {image: busybox:1, networks: [n]}\nnetworks: {n: {external: true, name: nonet}}\n", "network nonet declared as external, but could not be found", "compose.yaml:3:12"),
            ("services:\n  a: {image: busybox:1, volumes: [\"v:/v\"]}\nvolumes: {v: {external: true, name: novol}}\n", "external volume \"novol\" not found", "compose.yaml:3:11"),
        ];
        for (index, (text, error, place)) in cases.iter().enumerate() {
            let project = world.project(&format!("bad{index}"), &[("compose.yaml", text)]);
            refused(&project, &["up", "-d"], error, place);
        }
    });
}

#[test]
fn an_image_that_is_not_to_be_had_is_named() {
    World::with_busybox().run(|world| {
        let compose = "services:\n  fine: {image: busybox:1, volumes: [\"v:/v\"]}\n  gone: {image: registry.invalid/gone:1}\nvolumes: {v: {}}\n";
        let project = world.project("gone", &[("compose.yaml", compose)]);
        refused(&project, &["up", "-d"], "registry registry.invalid cannot be reached", "");
        refused(&project, &["up", "-d", "--pull", "never"], "No such image: registry.invalid/gone:1", "compose.yaml:3:3");
        refused(&project, &["create"], "registry registry.invalid cannot be reached", "");
        refused(&project, &["run", "gone"], "registry registry.invalid cannot be reached", "");
    });
}

#[test]
fn a_failing_run_is_shown_with_its_line_and_output() {
    World::with_busybox().run(|world| {
        let compose = "services:\n  fine: {image: busybox:1}\n  made: {build: .}\n";
        let dockerfile = "FROM busybox:1\nRUN echo before it fails; exit 3\n";
        let project = world.project("run-fails", &[("compose.yaml", compose), ("Dockerfile", dockerfile)]);
        let ran = project.stack(&["up", "-d"]).code(1);
        let error = "error: [2/2] process `/bin/sh -c echo before it fails; exit 3` did not complete successfully: exit code: 3\n  --> Dockerfile:2:1\n    2 | RUN echo before it fails; exit 3\n      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  before it fails\n";
        assert!(ran.stderr.contains(error), "{ran}");
        assert_nothing_made(&project);
        // A service with both falls back to its build, and the fault is the build's.
        project.write("compose.yaml", "services: { made: { build: ., image: 'registry.invalid/made:1' } }\n");
        let ran = project.stack(&["up", "-d"]).code(1).says("it is built instead");
        assert!(ran.stderr.contains("did not complete successfully: exit code: 3"), "{ran}");
        assert!(!ran.stderr.contains("Pulled"), "{ran}");
        // A Dockerfile that cannot be read has its place, too.
        project.write("Dockerfile", "FROM busybox:1\nRUNN true\n");
        project.stack(&["build"]).code(1).says("Dockerfile:2:1").says("Did you mean `RUN`?");
    });
}

#[test]
fn taken_ports_are_named_with_their_holder() {
    World::with_busybox().run(|world| {
        let (tcp, udp) = (free_port(), free_port());
        let compose = format!(
            "services:\n  web:\n    image: busybox:1\n    command: [sleep, '1000']\n    stop_signal: SIGKILL\n    ports:\n      - \"{tcp}:80\"\n      - \"127.0.0.1:{udp}:53/udp\"\n"
        );
        let project = world.project("taken", &[("compose.yaml", &compose)]);
        let us = format!("is taken by process {}", std::process::id());
        let holder = std::net::TcpListener::bind(("127.0.0.1", tcp)).unwrap();
        refused(&project, &["up", "-d"], &format!("host port {tcp} {us}"), "compose.yaml:7:9");
        drop(holder);
        let holder = UdpSocket::bind(("127.0.0.1", udp)).unwrap();
        refused(&project, &["up", "-d"], &format!("host port 127.0.0.1:{udp} {us}"), "compose.yaml:8:9");
        drop(holder);
        // Held by another stack: the second is told, the first is not disturbed.
        project.stack(&["up", "-d"]).ok();
        let other = world.project("other", &[("compose.yaml", &compose)]);
        let ran = other.stack(&["up", "-d"]).code(1).says(&format!("host port {tcp} is taken"));
        assert!(ran.stderr.contains("compose.yaml:7:9"), "{ran}");
        assert!(other.ps().is_empty());
        assert_eq!(project.ps_field("web", "State"), "running");
        project.stack(&["down"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn a_program_that_cannot_start_is_named_and_the_others_run() {
    let compose = r#"
services:
  fine: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
  wrong: { image: "busybox:1", command: [no-such-program] }
"#;
    World::with_busybox().run(move |world| {
        let project = world.project("wrong", &[("compose.yaml", compose)]);
        let ran = project.stack(&["up", "-d"]).code(1);
        assert!(
            ran.stderr.contains(&format!("error: failed to start container {}-wrong-1", project.name)),
            "{ran}"
        );
        assert!(ran.stderr.contains("no-such-program"), "{ran}");
        assert_eq!(project.ps_field("fine", "State"), "running");
        project.stack(&["run", "--rm", "-T", "wrong"]).code(1).says("no-such-program");
        project.stack(&["down"]).ok();
        world.assert_no_leak();
    });
}

/// As an ordinary user: the reason and a way out, and nothing else.
#[test]
fn without_privileges_it_says_what_is_missing() {
    World::with_busybox().run(|world| {
        let project = world.project("nobody", &[("compose.yaml", "services: { a: { image: 'busybox:1' } }")]);
        for args in [&["up", "-d"][..], &["create"], &["run", "a"]] {
            let ran = project.as_nobody(args);
            assert_eq!(ran.status.code(), Some(1), "{ran}");
            assert!(
                ran.stderr
                    .starts_with("error: failed to make a user namespace, which running without root needs"),
                "{ran}"
            );
            assert!(ran.stderr.contains("\nhint: "), "{ran}");
        }
        assert_nothing_made(&project);
    });
}
