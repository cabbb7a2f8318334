//! `stack events`: what happened, from a journal that needs nobody to run.

use crate::common::{Project, Ran, World, eventually};
use serde_json::Value;

/// Of one service, as far as it happened until now.
fn actions(project: &Project<'_>, service: &str) -> Vec<String> {
    let ran = project.stack(&["events", "--json", "--since", "1h", "--until", "0s", service]).ok();
    rows(&ran).iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect()
}

fn rows(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const COMPOSE: &str = r#"
services:
  web:
    image: busybox:1
    command: ["sh", "-c", "trap 'exit 3' TERM; trap : HUP; while :; do sleep 0.1; done"]
    labels: { team: red }
  other: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
"#;

#[test]
fn a_life_is_told_in_order() {
    World::with_busybox().run(|world| {
        let project = world.project("told", &[("compose.yaml", COMPOSE)]);
        project.stack(&["up", "-d"]).ok();
        project.stack(&["exec", "-T", "web", "sh", "-c", "exit 4"]).code(4);
        project.stack(&["kill", "-s", "HUP", "web"]).ok();
        project.stack(&["run", "--rm", "-T", "web", "true"]).ok();
        project.stack(&["restart", "web"]).ok();
        let life = [
            "create",
            "start",
            "exec_create: sh -c exit 4",
            "exec_start: sh -c exit 4",
            "exec_die",
            "kill",
            "kill",
            "die",
            "stop",
            "start",
            "restart",
        ];
        assert_eq!(actions(&project, "web"), life);
        project.stack(&["stop", "web"]).ok();
        project.stack(&["down"]).ok();
        // The history outlives the stack; what its containers were is still known.
        let ran = project.stack(&["events", "--json", "--since", "1h", "--until", "0s"]).ok();
        let all = rows(&ran);
        let of = |action: &str| {
            all.iter().rfind(|row| row["service"] == "web" && row["action"] == action).unwrap()
        };
        assert_eq!(of("die")["attributes"]["exitCode"], "3");
        assert_eq!(of("exec_die")["attributes"]["exitCode"], "4");
        assert_eq!(of("kill")["attributes"]["signal"], "15");
        let destroyed = of("destroy");
        assert_eq!(destroyed["type"], "container");
        assert_eq!(destroyed["attributes"]["name"], format!("{}-web-1", project.name));
        assert_eq!(destroyed["attributes"]["team"], "red");
        let attributes = destroyed["attributes"].as_object().unwrap();
        assert!(attributes.keys().all(|key| !key.starts_with("com.docker.compose")), "{destroyed}");
        assert!(all.iter().any(|row| row["service"] == "other" && row["action"] == "destroy"), "{ran}");
    });
}

#[test]
fn events_are_followed_and_shown_as_text() {
    World::with_busybox().run(|world| {
        let project = world.project("followed", &[("compose.yaml", COMPOSE)]);
        // Nothing is there yet: neither containers nor a supervisor.
        let follow = project.spawn(&["events", "--since", "0", "other"]);
        project.stack(&["up", "-d"]).ok();
        let id = project.stack(&["ps", "-q", "other"]).ok();
        let line = format!(" container start {}", id.text());
        let text = eventually("the start", || Some(follow.stdout()).filter(|text| text.contains(&line)));
        let start = text.lines().find(|row| row.contains(&line)).unwrap();
        assert_eq!(start.as_bytes()[26], b' ', "a time with microseconds: {start}");
        assert!(start.contains("image=busybox:1") && start.ends_with(')'), "{start}");
        assert!(text.ends_with(")\n\n") && !text.contains("-web-1"), "{text}");
        project.stack(&["down", "-t", "0"]).ok();
        eventually("the end", || follow.stdout().contains(" container destroy ").then_some(()));
    });
}

#[test]
fn health_is_told_when_it_changes() {
    World::with_busybox().run(|world| {
        let compose = "services: { web: { image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL, healthcheck: { test: 'test -e /ok', interval: 100ms, retries: 1 } } }";
        let project = world.project("health", &[("compose.yaml", compose)]);
        project.stack(&["up", "-d"]).ok();
        let told = |word: &str| actions(&project, "web").contains(&format!("health_status: {word}"));
        eventually("unhealthy", || told("unhealthy").then_some(()));
        project.stack(&["exec", "-T", "web", "touch", "/ok"]).ok();
        eventually("healthy", || told("healthy").then_some(()));
        project.stack(&["down"]).ok();
    });
}

#[test]
fn a_service_without_a_log_says_so_and_its_run_is_shown() {
    World::with_busybox().run(|world| {
        let compose =
            "services: { quiet: { image: 'busybox:1', command: [echo, said], logging: { driver: none } } }";
        let project = world.project("quiet", &[("compose.yaml", compose)]);
        project.stack(&["up", "-d"]).ok();
        let ran = project.stack(&["logs"]).ok();
        let warning = format!(
            "Can't retrieve logs for \"{}-quiet-1\": configured logging driver does not support reading",
            project.name
        );
        assert!(ran.stderr.contains(&warning), "{ran}");
        assert_eq!(ran.stdout, "");
        assert_eq!(project.stack(&["run", "--rm", "-T", "quiet"]).ok().text(), "said");
        project.stack(&["down"]).ok();
        // Attached, it is heard from its first byte to its last, also by a restart policy.
        let up = project.stack(&["up", "--no-color"]).ok();
        assert_eq!(up.stdout.matches("quiet-1  | said\n").count(), 1, "{up}");
        project.edit(
            "compose.yaml",
            "[echo, said]",
            "[sh, -c, 'echo said; echo more; printf end; exit 3'], restart: 'on-failure:1'",
        );
        let up = project.stack(&["up", "--no-color"]).ok();
        let end = up.stdout.find("quiet-1  | end\n").unwrap_or_else(|| panic!("{up}"));
        let code = up.stdout.find("quiet-1 exited with code 3").unwrap_or_else(|| panic!("{up}"));
        assert!(up.stdout.starts_with("quiet-1  | said\nquiet-1  | more\n") && end < code, "{up}");
        let attached = actions(&project, "quiet").iter().filter(|action| *action == "attach").count();
        assert!(attached >= 2, "{:?}", actions(&project, "quiet"));
        project.stack(&["down"]).ok();
    });
}
