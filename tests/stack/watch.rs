//! Watch with the real thing: what is edited on the host is what the container has.

use crate::common::{Background, Project, World, eventually, note};
use std::time::{Duration, Instant};

const SERVICE: &str = r#"
services:
  web:
    image: busybox:1
    command: ["sh", "-c", "echo started; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
    develop:
      watch:
        - { action: sync, path: ./src, target: /app, ignore: ["*.log"] }
        - { action: sync+restart, path: ./conf, target: /etc/conf }
        - { action: restart, path: ./flag }
  other:
    image: busybox:1
    command: ["sleep", "1000"]
"#;

fn watch(project: &Project<'_>) -> Background {
    let watch = project.spawn(&["watch", "--no-up"]);
    eventually("the watch to begin", || {
        (watch.stdout() + &watch.stderr()).contains("Watch enabled").then_some(())
    });
    watch
}

/// What the container has at a path; `None`: nothing.
fn inside(project: &Project<'_>, path: &str) -> Option<String> {
    let ran = project.stack(&["exec", "-T", "web", "cat", path]);
    ran.status.success().then_some(ran.stdout)
}

fn until_inside(project: &Project<'_>, path: &str, text: &str) {
    eventually(&format!("`{text}` in {path}"), || {
        (inside(project, path).as_deref() == Some(text)).then_some(())
    });
}

#[test]
fn edits_arrive_and_removals_too() {
    World::with_busybox().run(|world| {
        let project = world.project("sync", &[("compose.yaml", SERVICE), ("src/a", "one")]);
        project.stack(&["up", "-d"]).ok();
        let _watch = watch(&project);
        project.write("src/a", "two");
        until_inside(&project, "/app/a", "two");
        project.write("src/new/deep/b", "made");
        until_inside(&project, "/app/new/deep/b", "made");
        project.write("src/x.log", "ignored");
        std::fs::remove_dir_all(project.directory.join("src/new")).unwrap();
        eventually("the removal", || inside(&project, "/app/new/deep/b").is_none().then_some(()));
        assert_eq!(inside(&project, "/app/x.log"), None);
    });
}

/// The goal is 100 ms on an idle machine; the best of a few stands for it.
#[test]
fn a_saved_file_is_there_within_100_ms() {
    World::with_busybox().run(|world| {
        let project = world.project("latency", &[("compose.yaml", SERVICE), ("src/a", "")]);
        project.stack(&["up", "-d"]).ok();
        let root = world.container_root(&project.stack(&["ps", "-q", "web"]).ok().text().to_owned());
        let _watch = watch(&project);
        let took: Vec<Duration> = (0..10)
            .map(|round| {
                let text = format!("round {round}");
                project.write("src/a", &text);
                let written = Instant::now();
                while std::fs::read_to_string(root.join("app/a")).ok().as_deref() != Some(&text) {
                    assert!(written.elapsed() < crate::common::PATIENCE, "the edit never arrived");
                    std::thread::sleep(Duration::from_millis(1));
                }
                written.elapsed()
            })
            .collect();
        note(&format!("{took:?}"));
        assert!(took.iter().min().unwrap() < &Duration::from_millis(100), "{took:?}");
    });
}

#[test]
fn a_restart_restarts_only_its_service_and_sync_comes_first() {
    World::with_busybox().run(|world| {
        let project = world.project("restart", &[("compose.yaml", SERVICE), ("conf/a", ""), ("flag", "")]);
        project.stack(&["up", "-d"]).ok();
        let starts = |service: &str| {
            project.stack(&["logs", "--no-log-prefix", service]).ok().stdout.matches("started").count()
        };
        let other = project.ps_field("other", "ID");
        let _watch = watch(&project);
        project.write("conf/a", "new");
        eventually("the first restart", || (starts("web") == 2).then_some(()));
        assert_eq!(inside(&project, "/etc/conf/a").as_deref(), Some("new"));
        project.write("flag", "x");
        eventually("the second restart", || (starts("web") == 3).then_some(()));
        assert_eq!(project.ps_field("other", "ID"), other);
    });
}

const BUILT: &str = r#"
services:
  web:
    build: .
    command: ["sleep", "1000"]
    develop:
      watch:
        - { action: rebuild, path: ./list }
"#;

#[test]
fn a_failed_rebuild_keeps_the_old_container_and_the_next_one_replaces_it() {
    World::with_busybox().run(|world| {
        let dockerfile = "FROM busybox:1\nCOPY list /list\nRUN grep -q good /list\n";
        let project = world
            .project("rebuild", &[("compose.yaml", BUILT), ("Dockerfile", dockerfile), ("list", "good 1")]);
        project.stack(&["up", "-d"]).ok();
        let before = project.ps_field("web", "ID");
        let watch = watch(&project);
        project.write("list", "bad");
        eventually("the failure", || {
            (watch.stdout() + &watch.stderr()).contains("Build failed").then_some(())
        });
        assert_eq!(project.ps_field("web", "ID"), before);
        project.write("list", "good 2");
        eventually("the new container", || {
            let rows = project.ps();
            rows.iter()
                .any(|row| row["ID"].as_str() != Some(&before) && row["State"] == "running")
                .then_some(())
        });
        until_inside(&project, "/list", "good 2");
    });
}

#[test]
fn nothing_to_watch_is_an_error() {
    World::with_busybox().run(|world| {
        let compose = "services:\n  web:\n    image: busybox:1\n    command: [sleep, '1000']\n";
        let project = world.project("nothing", &[("compose.yaml", compose)]);
        project
            .stack(&["watch", "--no-up"])
            .code(1)
            .says("none of the selected services is configured for watch");
    });
}

const FRAGILE: &str = r#"
services:
  web:
    image: busybox:1
    command: ["sh", "-c", "grep -q good /conf/a || exit 3; sleep 1000"]
    develop:
      watch:
        - { action: sync+restart, path: ./conf, target: /conf, initial_sync: true }
"#;

/// An edit that stops the program must not be the last one that arrives.
#[test]
fn a_stopped_container_gets_the_edit_that_mends_it() {
    World::with_busybox().run(|world| {
        let project = world.project("mend", &[("compose.yaml", FRAGILE), ("conf/a", "bad")]);
        project.stack(&["up", "-d"]).ok();
        let state =
            |wanted: &str| eventually(wanted, || (project.ps_field("web", "State") == wanted).then_some(()));
        state("exited");
        let _watch = watch(&project);
        project.write("conf/a", "good");
        state("running");
        assert_eq!(inside(&project, "/conf/a").as_deref(), Some("good"));
    });
}
