//! Built-in probes: from the supervisor into the container's network, with nothing started in the container.

use crate::common::{Project, World, eventually};

fn project<'w>(world: &'w World, key: &str, command: &str, test: &str) -> Project<'w> {
    let file = format!(
        "services:\n  web:\n    image: busybox:1\n    stop_grace_period: 0s\n    command: [sh, -c, '{command}']\n    \
         healthcheck: {{ test: {test}, interval: 200ms, retries: 2 }}\n"
    );
    world.project(key, &[("compose.yaml", &file)])
}

fn health(project: &Project<'_>) -> String {
    project.ps_field("web", "Health")
}

fn last_output(project: &Project<'_>) -> String {
    let health: serde_json::Value = serde_json::from_str(&probes(project)).unwrap_or_default();
    let log = health["log"].as_array().cloned().unwrap_or_default();
    log.last().map(|last| last["output"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

fn probes(project: &Project<'_>) -> String {
    let id = project.stack(&["ps", "-aq", "web"]).ok().text().to_owned();
    let dir = project.world.home.join("stacks").join(&project.name).join("containers").join(id);
    std::fs::read_to_string(dir.join("health.json")).unwrap_or_default()
}

fn exec(project: &Project<'_>, script: &str) -> String {
    project.stack(&["exec", "-T", "web", "sh", "-c", script]).ok().text().to_owned()
}

/// Process ids that one exec takes.
fn exec_cost(project: &Project<'_>) -> u32 {
    let last_pid = || exec(project, "cat /proc/sys/kernel/ns_last_pid").parse::<u32>().unwrap();
    let first = last_pid();
    last_pid() - first
}

const SERVE: &str = "mkdir /w; echo well > /w/health; exec httpd -f -p 127.0.0.1:8000 -h /w";

#[test]
fn http_is_asked_from_inside() {
    World::with_busybox().run(|world| {
        let project = project(world, "http", SERVE, r#"[HTTP, "http://localhost:8000/health"]"#);
        project.stack(&["up", "-d", "--wait"]).ok();
        assert!(last_output(&project).contains(" 200 "), "{}", last_output(&project));
        project.stack(&["exec", "-T", "web", "rm", "/w/health"]).ok();
        eventually("it is unhealthy", || (health(&project) == "unhealthy").then_some(()));
        assert!(last_output(&project).contains(" 404 "), "{}", last_output(&project));
    });
}

#[test]
fn a_connection_is_enough_for_tcp() {
    World::with_busybox().run(|world| {
        let command = "while ! test -e /go; do sleep 0.05; done; exec httpd -f -p 8000 -h /";
        let project = project(world, "tcp", command, r#"[TCP, "8000"]"#);
        project.stack(&["up", "-d"]).ok();
        eventually("it is refused", || last_output(&project).contains("refused").then_some(()));
        project.stack(&["exec", "-T", "web", "touch", "/go"]).ok();
        eventually("it is healthy", || (health(&project) == "healthy").then_some(()));
    });
}

#[test]
fn a_line_counts_in_this_run_only() {
    World::with_busybox().run(|world| {
        let command =
            "echo ready; while ! test -e /go; do sleep 0.05; done; rm /go; echo now ready; exec sleep 1000";
        let project = project(world, "log", command, r#"[LOG, ready, "2"]"#);
        project.stack(&["up", "-d"]).ok();
        eventually("one is not enough", || last_output(&project).contains("1 of 2 lines").then_some(()));
        assert_ne!(health(&project), "healthy");
        project.stack(&["exec", "-T", "web", "touch", "/go"]).ok();
        eventually("it is healthy", || (health(&project) == "healthy").then_some(()));
        let last_pid = || exec(&project, "cat /proc/sys/kernel/ns_last_pid").parse::<u32>().unwrap();
        let before = last_pid();
        for _ in 0..3 {
            let seen = probes(&project);
            eventually("another probe", || (probes(&project) != seen).then_some(()));
        }
        assert_eq!(last_pid(), before + exec_cost(&project), "nothing but our own exec came in between");
        project.stack(&["restart"]).ok();
        eventually("it counts anew", || last_output(&project).contains("1 of 2 lines").then_some(()));
        assert_ne!(health(&project), "healthy");
    });
}

#[test]
fn a_server_that_is_no_grpc_is_not_well() {
    World::with_busybox().run(|world| {
        let project = project(world, "grpc", SERVE, r#"[GRPC, "localhost:8000", shop]"#);
        project.stack(&["up", "-d"]).ok();
        eventually("it is unhealthy", || (health(&project) == "unhealthy").then_some(()));
    });
}

#[test]
fn a_wrong_form_is_refused_with_its_place() {
    World::empty().run(|world| {
        let cases = [
            (r#"[HTTP, "https://localhost/"]"#, "a built-in probe has the form `[HTTP"),
            (r#"[TCP, "db:5432"]"#, "a built-in probe has the form `[TCP"),
            (r#"[LOG, ready, none]"#, "a built-in probe has the form `[LOG"),
            (r#"[PING]"#, "begins with `CMD`"),
        ];
        for (index, (test, expected)) in cases.into_iter().enumerate() {
            let project = project(world, &format!("wrong{index}"), "true", test);
            project.stack(&["config", "-q"]).code(1).says(expected).says("compose.yaml:6");
        }
    });
}
