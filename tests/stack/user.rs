//! An ordinary user, without anything prepared for them: one id, no delegated control groups.
//!
//! What they have on a machine with subordinate ids and a service manager, `tests/vm/run` shows: the other tests of
//! this program, run by such a user.

use crate::common::{World, free_port, get};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const SERVE: &str = "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www";

#[test]
fn a_stack_runs_with_a_single_id() {
    World::with_busybox().as_ordinary_user().run(|world| {
        let port = free_port();
        let compose = format!(
            r#"
services:
  web:
    image: busybox:1
    hostname: webhost
    command: ["sh", "-c", "{SERVE}"]
    ports: ["{port}:80"]
    mem_limit: 64m
    volumes: ["./shared:/shared", "data:/data"]
  other:
    image: busybox:1
    command: ["sleep", "1000"]
    depends_on: [web]
volumes: {{ data: {{}} }}
"#
        );
        let project = world.project("single", &[("compose.yaml", &compose)]);
        let shared = project.directory.join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();

        let up = project.stack(&["up", "-d"]).ok();
        up.says("memory limit is not applied");
        assert_eq!(get(port, "/").trim(), "webhost");
        assert_eq!(project.stack(&["exec", "-T", "web", "id", "-u"]).ok().text(), "0");
        let asked = project.stack(&["exec", "-T", "other", "wget", "-qO-", "http://web/"]).ok();
        assert_eq!(asked.text(), "webhost");
        project.stack(&["exec", "-T", "web", "sh", "-c", "echo x > /shared/made; echo y > /data/kept"]).ok();
        let made = std::fs::metadata(shared.join("made")).unwrap();
        let caller = if nix::unistd::geteuid().is_root() { 1000 } else { nix::unistd::geteuid().as_raw() };
        assert_eq!(made.uid(), caller, "what a container makes in a bind mount is the caller's");
        let ran = project.stack(&["run", "--rm", "-T", "other", "sh", "-c", "exit 7"]);
        ran.code(7);
        let limited = project.stack(&["run", "--rm", "-T", "web", "sleep", "0.5"]).ok();
        limited.says("memory limit is not applied");

        project.stack(&["down"]).ok();
        assert!(project.stack(&["volume", "ls", "-q"]).ok().text().contains("data"));
        project.stack(&["down", "-v"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn a_build_runs_with_a_single_id() {
    World::with_busybox().as_ordinary_user().run(|world| {
        let dockerfile = "FROM busybox:1\nRUN mkdir /made && echo built > /made/file && chmod 600 /made/file\nRUN rm -r /tmp && mkdir /tmp\nCMD [\"cat\", \"/made/file\"]\n";
        let compose = "services:\n  built:\n    build: { context: ., network: none }\n";
        let project = world.project("build", &[("compose.yaml", compose), ("Dockerfile", dockerfile)]);
        project.stack(&["build"]).ok();
        assert_eq!(project.stack(&["run", "--rm", "-T", "built"]).ok().text(), "built");
        project.stack(&["down", "-v"]).ok();
        world.assert_no_leak();
    });
}
