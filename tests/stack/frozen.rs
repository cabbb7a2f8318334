//! `pause`, `unpause`, `wait`, `stats`: what is done with containers that run.

use crate::common::{Background, World, eventually};

#[test]
fn paused_containers_do_nothing_until_they_are_thawed() {
    World::with_busybox().run(|world| {
        let compose = r#"
services:
  web: { image: "busybox:1", stop_grace_period: 0s, command: [sh, -c, "while :; do date +%s%N > /now; sleep 0.05; done"], healthcheck: { test: "true", interval: 100ms } }
  other: { image: "busybox:1", stop_grace_period: 0s, command: [sleep, "1000"] }
"#;
        let project = world.project("pausing", &[("compose.yaml", compose)]);
        project.stack(&["up", "-d", "--wait"]).ok();
        let dry = project.stack(&["--dry-run", "pause", "web"]).ok();
        assert_eq!(dry.text(), "pause web-1 (asked for)");
        project.stack(&["pause", "web"]).ok().says("Paused");
        assert_eq!((project.ps_field("web", "State"), project.ps_field("other", "State")), ("paused".into(), "running".into()));
        // Nothing asks a frozen one how it is; Docker says unhealthy meanwhile.
        assert_eq!(project.ps_field("web", "Health"), "unhealthy");
        let copy = || {
            project.stack(&["cp", "web:/now", "now"]).ok();
            std::fs::read_to_string(project.directory.join("now")).unwrap()
        };
        let frozen = copy();
        project.stack(&["exec", "-T", "web", "true"]).code(1).says("is paused, unpause the container before exec");
        let again = project.stack(&["pause", "web"]).code(1).says("is already paused");
        assert!(!again.stderr.contains("last lines"), "{again}");
        assert_eq!(copy(), frozen);
        project.stack(&["unpause"]).code(1).says("other-1 is not paused");
        assert_eq!(project.ps_field("web", "State"), "running");
        eventually("it goes on", || (copy() != frozen).then_some(()));
        eventually("it is well again", || (project.ps_field("web", "Health") == "healthy").then_some(()));
        // A paused one is stopped, and comes back.
        project.stack(&["pause", "web"]).ok();
        project.stack(&["restart", "web"]).ok();
        assert_eq!(project.ps_field("web", "State"), "running");
        let events = project.stack(&["events", "--json", "--since", "1h", "--until", "0s", "web"]).ok();
        assert!(events.stdout.contains("\"action\":\"pause\"") && events.stdout.contains("\"action\":\"unpause\""), "{events}");
    });
}

/// Until so many connections to the supervisor stand: its lease, and one for each container that is waited for.
fn connected(waiting: &Background, count: usize) {
    eventually("its connections", || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", waiting.pid())).into_iter().flatten().flatten();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let sockets = links.filter(|link| link.to_string_lossy().starts_with("socket:")).count();
        (sockets >= count).then_some(())
    });
}

#[test]
fn wait_ends_with_the_last_of_its_containers() {
    World::with_busybox().run(|world| {
        let compose = r#"
services:
  job: { image: "busybox:1", command: [sh, -c, "until test -e /go/job; do sleep 0.02; done; exit 7"], volumes: ["./go:/go"] }
  long: { image: "busybox:1", command: [sh, -c, "until test -e /go/long; do sleep 0.02; done; exit 3"], volumes: ["./go:/go"] }
  other: { image: "busybox:1", command: [sleep, "1000"], stop_grace_period: 0s }
"#;
        let project = world.project("waiting", &[("compose.yaml", compose)]);
        project.stack(&["wait", "job"]).code(1).says(&format!("no containers for project \"{}\"", project.name));
        project.stack(&["up", "-d"]).ok();
        let id = |service: &str| project.stack(&["ps", "-q", service]).ok().text().to_owned();
        let (job, long) = (id("job"), id("long"));
        let waiting = project.spawn(&["wait", "job", "long"]);
        project.write("go/job", "");
        connected(&waiting, 3);
        let first = format!("container \"{job}\" exited with status code 7\n");
        eventually("the first end", || (waiting.stdout() == first).then_some(()));
        project.write("go/long", "");
        let ran = waiting.wait(crate::common::PATIENCE).code(3);
        assert_eq!(ran.stdout, format!("{first}container \"{long}\" exited with status code 3\n"));
        project.stack(&["wait", "job"]).code(1).says("no containers for project");
        project.stack(&["wait"]).code(1);
        // What is removed while it is waited for has ended as well.
        let waiting = project.spawn(&["wait", "other"]);
        connected(&waiting, 2);
        project.stack(&["rm", "-sf", "other"]).ok();
        waiting.wait(crate::common::PATIENCE).code(137);
        std::fs::remove_dir_all(project.directory.join("go")).unwrap();
        project.stack(&["up", "-d"]).ok();
        let waiting = project.spawn(&["wait", "--down-project", "job"]);
        connected(&waiting, 2);
        project.write("go/job", "");
        waiting.wait(crate::common::PATIENCE).code(7);
        assert!(project.ps().is_empty(), "the project is down");
    });
}

#[test]
fn stats_show_what_is_used() {
    World::with_busybox().run(|world| {
        let compose = r#"
services:
  busy: { image: "busybox:1", stop_grace_period: 0s, command: [sh, -c, "while :; do :; done"], mem_limit: 64m }
  idle: { image: "busybox:1", stop_grace_period: 0s, command: [sh, -c, "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; sleep 1000 & exec sleep 1000"], mem_limit: 32m }
  done: { image: "busybox:1", command: "true" }
"#;
        let project = world.project("stats", &[("compose.yaml", compose)]);
        project.stack(&["up", "-d"]).ok();
        let row = |service: &str| -> serde_json::Value {
            let ran = project.stack(&["stats", "--no-stream", "--format", "json", service]).ok();
            serde_json::from_str(ran.text()).unwrap_or_else(|e| panic!("{e}: {ran}"))
        };
        let percent = |row: &serde_json::Value| row["CPUPerc"].as_str().unwrap().trim_end_matches('%').parse::<f64>().unwrap();
        eventually("it is seen to be busy", || (percent(&row("busy")) > 5.0).then_some(()));
        let idle = eventually("its memory", || {
            Some(row("idle")).filter(|row| row["MemUsage"].as_str().is_some_and(|text| text.contains("MiB / 32MiB")))
        });
        assert_eq!((idle["Name"].as_str().unwrap(), idle["PIDs"].as_str().unwrap()), (format!("{}-idle-1", project.name).as_str(), "2"));
        assert!(percent(&idle) < 5.0, "{idle}");
        let table = project.stack(&["stats", "--no-stream"]).ok();
        let heading: Vec<&str> = table.stdout.lines().next().unwrap().split("   ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(heading, ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]);
        assert_eq!(table.stdout.lines().count(), 3, "{table}");
        let all = project.stack(&["stats", "-a", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}", "done"]).ok();
        assert_eq!(all.text(), format!("{}-done-1 --", project.name));
        let stream = project.spawn(&["stats", "--format", "{{.Name}}", "idle"]);
        eventually("several samples", || (stream.stdout().lines().count() >= 2).then_some(()));
    });
}
