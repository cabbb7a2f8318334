//! The verbs that change a stack, with the real thing: what they leave alone counts as much as what they do.

use crate::common::{Project, World, eventually, free_port, get, registry};
use rustix::process::Signal;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

fn with(key: &'static str, compose: &'static str, test: impl FnOnce(&Project<'_>) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let project = world.project(key, &[("compose.yaml", compose), ("go/.keep", "")]);
        test(&project);
        project.stack(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        world.assert_no_leak();
    });
}

/// Position of a line of progress.
#[track_caller]
fn at(progress: &str, line: &str) -> usize {
    progress.find(line).unwrap_or_else(|| panic!("`{line}` is missing from\n{progress}"))
}

const WAITS: &str = r#"
x-stays: &stays { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
services:
  plain: { <<: *stays }
  sick: { <<: *stays, healthcheck: { test: [CMD-SHELL, "echo not today; exit 9"], interval: 100ms, retries: 2 }, profiles: [sick] }
  late: { <<: *stays, volumes: ["./go:/go"], healthcheck: { test: [CMD, test, -e, /go/now], interval: 1s, retries: 1000 }, profiles: [late] }
  after: { <<: *stays, depends_on: { late: { condition: service_healthy } }, profiles: [late] }
  once: { image: "busybox:1", command: ["sh", "-c", "exit 0"], profiles: [once] }
  fails: { image: "busybox:1", command: ["sh", "-c", "exit 5"], profiles: [fails] }
  job: { image: "busybox:1", command: ["sh", "-c", "exit 0"], profiles: [job] }
  needs-job: { <<: *stays, depends_on: { job: { condition: service_completed_successfully } }, profiles: [job] }
  unchecked: { <<: *stays, depends_on: { plain: { condition: service_healthy } }, profiles: [unchecked] }
"#;

#[test]
fn up_waits_for_what_it_is_asked_to() {
    with("waits", WAITS, |project| {
        let name = |service: &str| format!("container {}-{service}-1", project.name);
        project.stack(&["up", "-d", "--wait"]).ok();
        assert_eq!(project.ps_field("plain", "State"), "running");
        // Healthy where there is a check.
        let up = project.spawn(&["up", "--wait", "late"]);
        eventually("the wait", || up.stderr().contains("late-1 Waiting").then_some(()));
        assert_eq!(project.ps_field("late", "Health"), "starting");
        project.write("go/now", "");
        up.wait(PATIENCE).ok().says("late-1 Healthy");
        assert_eq!(project.ps_field("late", "Health"), "healthy");
        project
            .stack(&["up", "-d", "--wait", "sick"])
            .code(1)
            .says(&format!("error: {} is unhealthy", name("sick")));
        // An end is no success, unless somebody waits for it.
        project
            .stack(&["up", "-d", "--wait", "once"])
            .code(1)
            .says(&format!("error: {} exited (0)", name("once")));
        project
            .stack(&["up", "-d", "--wait", "fails"])
            .code(1)
            .says(&format!("error: {} exited (5)", name("fails")));
        project.stack(&["up", "-d", "--wait", "needs-job"]).ok();
        project.stack(&["up", "-d", "unchecked"]).code(1).says("has no healthcheck configured");
    });
}

#[test]
fn a_wait_that_takes_too_long_says_for_what() {
    with("too-long", WAITS, |project| {
        let ran = project.stack(&["up", "-d", "--wait", "--wait-timeout", "1", "late"]).code(1);
        assert!(ran.stderr.contains("error: application not healthy after 1s\n"), "{ran}");
        assert!(
            ran.stderr.contains(&format!("container {}-late-1 was still waited for", project.name)),
            "{ran}"
        );
        let ran = project.stack(&["up", "-d", "--wait", "--wait-timeout", "1", "after"]).code(1);
        assert!(ran.stderr.contains("error: timeout waiting for dependencies\n"), "{ran}");
        assert_eq!(project.ps_field("after", "State"), "created");
        project.write("go/now", "");
        project.stack(&["up", "-d", "--wait", "--wait-timeout", "100", "after"]).ok();
    });
}

#[test]
fn a_detached_up_returns_when_dependencies_are_satisfied() {
    with("detached", WAITS, |project| {
        let up = project.spawn(&["up", "-d", "after"]);
        eventually("the wait", || up.stderr().contains("late-1 Waiting").then_some(()));
        assert_eq!(project.ps_field("after", "State"), "created");
        project.write("go/now", "");
        let ran = up.wait(PATIENCE).ok();
        assert!(at(&ran.stderr, "late-1 Healthy") < at(&ran.stderr, "after-1 Starting"));
        assert_eq!((ran.stdout.as_str(), project.ps_field("after", "State").as_str()), ("", "running"));
        // A detached one that is interrupted stops waiting, and nothing else.
        std::fs::remove_file(project.directory.join("go/now")).unwrap();
        project.stack(&["down", "-t", "0"]).ok();
        let up = project.spawn(&["up", "-d", "after"]);
        eventually("the wait", || up.stderr().contains("late-1 Waiting").then_some(()));
        up.signal(Signal::INT);
        up.wait(PATIENCE).code(130);
        assert_eq!(project.ps_field("late", "State"), "running");
    });
}

const LIFE: &str = r#"
x-stays: &stays { image: "busybox:1", command: ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"] }
services:
  db: { <<: *stays }
  web: { <<: *stays, depends_on: [db], environment: { COLOUR: red } }
"#;

#[test]
fn stop_start_restart_kill_and_rm() {
    with("life", LIFE, |project| {
        let state = |service: &str| project.ps_field(service, "State");
        let start = project.world.stack_in(&project.directory, &[], &["start"]);
        start.code(1).says("service \"db\" has no container to start");
        project.stack(&["create"]).ok();
        assert_eq!((state("db"), state("web")), ("created".into(), "created".into()));
        // What they need comes along.
        project.stack(&["start", "web"]).ok();
        assert_eq!((state("db"), state("web")), ("running".into(), "running".into()));
        let stopped = project.stack(&["stop"]).ok().stderr;
        assert!(at(&stopped, "web-1 Stopped") < at(&stopped, "db-1 Stopping"), "dependents first: {stopped}");
        assert_eq!((state("db"), state("web")), ("exited".into(), "exited".into()));
        project.stack(&["start"]).ok();
        project.stack(&["stop", "web"]).ok();
        assert_eq!((state("db"), state("web")), ("running".into(), "exited".into()), "the named one only");

        // The same container as it was made, running anew.
        let before = project.ps_field("web", "ID");
        project.edit("compose.yaml", "red", "blue");
        let restarted = project.stack(&["restart"]).ok().stderr;
        assert!(at(&restarted, "web-1 Restarting") < at(&restarted, "web-1 Started"), "{restarted}");
        assert_eq!((state("web"), project.ps_field("web", "ID")), ("running".into(), before));
        assert_eq!(project.stack(&["exec", "-T", "web", "sh", "-c", "echo $COLOUR"]).ok().text(), "red");

        project.stack(&["rm", "-f"]).ok().says("No stopped containers");
        project.stack(&["kill", "-s", "SIGNONE", "web"]).code(1).says("invalid signal: SIGNONE");
        project.stack(&["kill", "-s", "TERM", "web"]).ok();
        eventually("its end", || (state("web") == "exited").then_some(()));
        assert_eq!(project.ps().iter().find(|r| r["Service"] == "web").unwrap()["ExitCode"], 0);
        project.stack(&["kill", "db"]).ok();
        eventually("its end", || (state("db") == "exited").then_some(()));
        assert_eq!(project.ps().iter().find(|r| r["Service"] == "db").unwrap()["ExitCode"], 137);
        project.stack(&["kill"]).ok().says("No container to kill");
        // Nobody answers: no.
        let asked = project.stack(&["rm", "web"]).ok();
        assert!(asked.stderr.contains(&format!("Going to remove {}-web-1", project.name)), "{asked}");
        assert_eq!(project.ps().len(), 2);
        project.stack(&["rm", "-f", "web"]).ok();
        assert_eq!(project.ps().len(), 1);
        project.stack(&["up", "-d"]).ok();
        project.stack(&["rm", "-f", "-s"]).ok();
        assert!(project.ps().is_empty());
    });
}

#[test]
fn orphans_are_told_of_and_removed_when_asked() {
    with("strays", LIFE, |project| {
        project.stack(&["up", "-d"]).ok();
        project.write(
            "compose.yaml",
            "services: { db: { image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL } }",
        );
        let orphan = format!("{}-web-1", project.name);
        let told = project.stack(&["up", "-d"]).ok();
        assert_eq!(told.stderr.matches(&format!("found orphan containers ({orphan})")).count(), 1, "{told}");
        assert!(told.stderr.contains("--remove-orphans"), "{told}");
        assert_eq!(project.ps_field("web", "State"), "running");
        let quiet = project.stack_with(&[("COMPOSE_IGNORE_ORPHANS", "1")], &["up", "-d"]).ok();
        assert!(!quiet.stderr.contains("found orphan"), "{quiet}");
        project.stack(&["up", "-d", "--remove-orphans"]).ok().says(&format!("Container {orphan} Removed"));
        assert_eq!(project.ps().len(), 1);
        let alone = std::fs::read_to_string(project.directory.join("compose.yaml")).unwrap();
        project.write("compose.yaml", LIFE);
        project.stack(&["up", "-d"]).ok();
        project.write("compose.yaml", &alone);
        project
            .stack_with(&[("COMPOSE_REMOVE_ORPHANS", "1")], &["up", "-d"])
            .ok()
            .says(&format!("Container {orphan} Removed"));
    });
}

#[test]
fn down_takes_what_is_its_own() {
    let compose = r#"
services:
  db: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL, volumes: ["data:/data", "kept:/kept", "/anonymous"] }
  old: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
volumes: { data: {}, kept: { external: true, name: kept-by-me } }
"#;
    with("down", compose, |project| {
        let volumes = || project.stack(&["volume", "ls", "-q"]).ok().stdout;
        // A volume of somebody else's.
        let owner = project.world.project("owner", &[("compose.yaml", "services: { a: { image: 'busybox:1', volumes: ['v:/v'] } }\nvolumes: { v: { name: kept-by-me } }\n")]);
        owner.stack(&["create"]).ok();
        project.stack(&["up", "-d"]).ok();
        project.stack(&["run", "-d", "db", "sleep", "1000"]).ok();
        assert_eq!(volumes().lines().count(), 4, "data, kept, two anonymous ones: {}", volumes());
        project.edit(
            "compose.yaml",
            "  old: { image: \"busybox:1\", command: [sleep, \"1000\"], stop_signal: SIGKILL }\n",
            "",
        );
        let file = project.directory.join("compose.yaml");
        let down = |args: &[&str]| {
            project.stack(&[&["-f", file.to_str().unwrap(), "down", "-t", "0"], args].concat()).ok().stderr
        };
        // What the file does not have and what `run` started stays, and so does its network.
        let told = down(&[]);
        assert!(told.contains("Resource is still in use"), "{told}");
        let left: Vec<_> =
            project.ps().iter().map(|row| row["Service"].as_str().unwrap().to_owned()).collect();
        assert_eq!(left, ["db", "old"], "the run and the orphan");
        let told = down(&["--remove-orphans"]);
        assert!(told.contains(&format!("Network {}_default Removed", project.name)), "{told}");
        assert!(project.ps().is_empty());
        assert!(volumes().contains(&format!("{}_data\n", project.name)), "volumes are kept");
        project.stack(&["up", "-d"]).ok();
        down(&["-v"]);
        assert!(!volumes().contains("_data") && volumes().contains("kept-by-me\n"), "{}", volumes());
        assert_eq!(down(&[]), "");
        project.stack(&["down"]).ok().says("No resource found to remove");
        owner.stack(&["down", "-v"]).ok();
    });
}

#[test]
fn down_leaves_services_of_inactive_profiles_running() {
    let compose = r#"
x-stays: &stays { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
services:
  usual: { <<: *stays }
  extra: { <<: *stays, profiles: [x] }
"#;
    with("profiles", compose, |project| {
        let file = ["-f", "compose.yaml"];
        project.stack(&["--profile", "x", "up", "-d"]).ok();
        assert_eq!(project.ps().len(), 2);
        let told = project.stack(&[&file[..], &["down", "-t", "0"]].concat()).ok().stderr;
        assert!(told.contains("Resource is still in use"), "{told}");
        assert_eq!((project.ps().len(), project.ps_field("extra", "State").as_str()), (1, "running"));
        project.stack(&[&file[..], &["--profile", "x", "down", "-t", "0"]].concat()).ok();
        assert!(project.ps().is_empty());
    });
}

#[test]
fn without_a_file_everything_comes_from_labels() {
    with("labels", LIFE, |project| {
        project.stack(&["up", "-d"]).ok();
        project.write("compose.yaml", "this: is [no compose file");
        for args in [
            &["ps"][..],
            &["logs"],
            &["stop", "-t", "5"],
            &["start"],
            &["restart", "web"],
            &["exec", "-T", "web", "true"],
            &["top"],
            &["kill", "web"],
            &["rm", "-f"],
        ] {
            project.stack(args).ok();
        }
        // A name alone in the environment: the file counts, labels only where it cannot be loaded.
        let env = [("COMPOSE_PROJECT_NAME", project.name.as_str())];
        let unnamed = |args: &[&str]| project.world.stack_in(&project.directory, &env, args);
        assert!(unnamed(&["ps"]).ok().stdout.contains("-db-1"));
        let told = project.stack(&["down", "-t", "0"]).ok().stderr;
        assert!(told.contains("db-1 Removed") && told.contains("_default Removed"), "{told}");
    });
}

const RUNS: &str = r#"
services:
  db:
    image: busybox:1
    command: ["sh", "-c", "sleep 0.3; touch /ready; sleep 1000"]
    stop_signal: SIGKILL
    healthcheck: { test: [CMD, test, -e, /ready], interval: 1s }
  web:
    image: busybox:1
    environment: { FROM_FILE: f, BOTH: f }
    ports: ["PORT:80"]
    restart: always
    volumes: [/anonymous]
    depends_on: { db: { condition: service_healthy } }
"#;

#[test]
fn run_is_the_service_once() {
    World::with_busybox().run(|world| {
        let port = free_port();
        let project = world.project("runs", &[("compose.yaml", &RUNS.replace("PORT", &port.to_string()))]);
        let run = |args: &[&str]| project.stack_with(&[("MINE", "m")], &[&["run", "-T"], args].concat());
        let ran = run(&[
            "--rm",
            "-e",
            "BOTH=c",
            "-e",
            "MINE",
            "-e",
            "UNSET",
            "web",
            "sh",
            "-c",
            "echo $FROM_FILE $BOTH $MINE ${UNSET-none}",
        ])
        .ok();
        assert_eq!(ran.text(), "f c m none");
        assert!(
            at(&ran.stderr, "db-1 Healthy") < at(&ran.stderr, "-web-run-"),
            "what it needs comes first: {ran}"
        );
        assert_eq!(project.ps_field("db", "Health"), "healthy");
        assert_eq!(project.stack(&["volume", "ls", "-q"]).ok().stdout, "", "anonymous volumes go with --rm");
        assert_eq!(project.ps().len(), 1);
        // Not published, unless asked for; not restarted; named by a token.
        let id = run(&["-d", "web", "sleep", "1000"]).ok().stdout;
        assert_eq!(id.trim().len(), 64);
        let row = project.ps().into_iter().find(|row| row["Service"] == "web").unwrap();
        let (name, token) = (row["Name"].as_str().unwrap(), format!("{}-web-run-", project.name));
        assert!(name.strip_prefix(&token).is_some_and(|rest| rest.len() == 12), "{name}");
        assert_eq!(row["Ports"], "");
        let serve = "mkdir /www; echo run > /www/index.html; exec httpd -f -p 80 -h /www";
        run(&["-d", "--rm", "--name", "served", "--service-ports", "web", "sh", "-c", serve]).ok();
        assert_eq!(get(port, "/").trim(), "run");
        let out =
            run(&["--rm", "--entrypoint", "echo from 'the entry point'", "--no-deps", "web"]).ok().stdout;
        assert_eq!(out, "from the entry point\n");
        let set = [
            "--rm",
            "-u",
            "nobody",
            "-w",
            "/tmp",
            "-v",
            "./go:/go",
            "-l",
            "a=b",
            "web",
            "sh",
            "-c",
            "echo $(id -u) $PWD; ls -d /go",
        ];
        assert_eq!(run(&set).ok().stdout, "65534 /tmp\n/go\n");
        // Typed in, passed on.
        run(&["--rm", "web", "sh", "-c", "sh -c 'kill -KILL $$'; exit $?"]).code(137);
        let stopped = project.spawn(&[
            "run",
            "--rm",
            "-T",
            "--name",
            "stopped",
            "web",
            "sh",
            "-c",
            "trap 'exit 12' TERM; echo begun; sleep 1000 & wait",
        ]);
        eventually("its first line", || stopped.stdout().contains("begun").then_some(()));
        stopped.signal(Signal::TERM);
        stopped.wait(PATIENCE).code(12);
        project.stack(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn images_come_from_and_go_to_a_registry() {
    let _ = registry::program(); // while there still is a way out
    World::with_busybox().run(|world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Some(server) = runtime.block_on(registry::Server::start(free_port(), false)) else { return };
        let (library, own) = (server.name("library/tool:1"), server.name("team/made:2"));
        let compose = format!(
            "services:\n  a: {{image: '{library}', command: [sleep, '1000'], stop_signal: SIGKILL}}\n  b: {{image: '{library}', command: [sleep, '1000'], stop_signal: SIGKILL}}\n  c: {{image: '{own}', build: ., command: [sleep, '1000'], stop_signal: SIGKILL}}\n"
        );
        let project = world.project("registry", &[("compose.yaml", &compose), ("Dockerfile", "FROM busybox:1\nRUN echo made > /made\n")]);
        world.stack(&["image", "tag", "busybox:1", &library]).ok();
        world.stack(&["image", "push", &library]).ok();
        project.stack(&["build"]).ok();
        // Only what is built here is pushed.
        let pushed = project.stack(&["push"]).ok().stderr;
        assert!(pushed.contains(&format!("Image {own} Pushed")) && pushed.contains(&format!("Image {library} Skipped")), "{pushed}");
        for name in [&library, &own] {
            world.stack(&["image", "rm", name]).ok();
        }
        let pulled = project.stack(&["pull"]).ok();
        assert_eq!(pulled.stdout, "");
        assert_eq!(pulled.stderr.matches(&format!("Image {library} Pulling\n")).count(), 1, "once for both: {pulled}");
        assert!(pulled.stderr.contains(&format!("Image {own} Pulled\n")), "{pulled}");
        world.stack(&["image", "rm", &library]).ok();
        // What is missing is pulled, what can be pulled is not built.
        let up = project.stack(&["up", "-d"]).ok();
        assert!(up.stderr.contains(&format!("Image {library} Pulled\n")) && !up.stderr.contains("Building"), "{up}");
        assert_eq!(project.stack(&["exec", "-T", "c", "cat", "/made"]).ok().text(), "made");
        assert!(!project.stack(&["up", "-d"]).ok().stderr.contains("Pull"));
        assert!(project.stack(&["up", "-d", "--pull", "always"]).ok().stderr.contains("Pulled"));
        project.edit("compose.yaml", "library/tool:1", "library/none:1");
        project.edit("compose.yaml", "team/made:2", "team/unmade:2");
        let failed = project.stack(&["pull"]).code(1);
        assert!(failed.stderr.contains("library/none:1"), "{failed}");
        assert!(failed.stderr.contains("must be built from source by running:\n    stack build c\n"), "{failed}");
        project.stack(&["pull", "--ignore-pull-failures"]).ok();
        project.stack(&["down", "-t", "0"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn without_a_registry_what_is_here_does() {
    let _ = registry::program(); // while there still is a way out
    World::with_busybox().run(|world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Some(server) = runtime.block_on(registry::Server::start(free_port(), false)) else { return };
        let (library, other) = (server.name("library/tool:1"), server.name("library/other:1"));
        let compose = format!(
            "services:\n  a: {{image: '{library}', command: [sleep, '1000'], stop_signal: SIGKILL}}\n  b: {{build: ., command: [sleep, '1000'], stop_signal: SIGKILL}}\n"
        );
        let dockerfile = format!("FROM {library}\nRUN echo made > /made\n");
        let project = world.project("offline", &[("compose.yaml", &compose), ("Dockerfile", &dockerfile)]);
        for name in [&library, &other] {
            world.stack(&["image", "tag", "busybox:1", name]).ok();
            world.stack(&["image", "push", name]).ok();
            world.stack(&["image", "rm", name]).ok();
        }
        // Not even one that would answer.
        project.stack(&["--offline", "up", "-d"]).code(1).says("--offline keeps the network out");
        project.stack(&["pull"]).ok();
        let digest = world.stack(&["image", "inspect", &library]).ok().json()[0]["RepoDigests"][0].clone();
        let digest = digest.as_str().unwrap().rsplit('@').next().unwrap().to_owned();
        drop(server);

        let up = project.stack(&["up", "-d", "--pull", "always", "a"]).ok();
        assert!(up.stderr.contains("cannot be reached") && up.stderr.contains(&digest), "{up}");
        let built = project.stack(&["build", "--pull"]).ok();
        assert!(built.stderr.contains("cannot be reached") && built.stderr.contains(&digest), "{built}");
        // Who asks for a pull wants one.
        project.stack(&["pull", "a"]).code(1).says("cannot be reached");
        world.stack(&["image", "pull", &library]).code(1).says("cannot be reached");
        let offline = [("STACK_OFFLINE", "1")];
        let quiet = world.stack_in(&project.directory, &offline, &["up", "-d", "--pull", "always"]).ok();
        assert!(!quiet.stderr.contains("cannot be reached"), "{quiet}");
        project.stack(&["pull", "--offline", "a"]).ok();
        world.stack_in(&project.directory, &[("STACK_OFFLINE", "0")], &["pull", "a"]).code(1);
        world.stack(&["--offline", "image", "pull", &other]).code(1).says("library/other:1 is not here");
        for refused in [vec!["push"], vec!["config", "--resolve-image-digests"], vec!["image", "push", &library]] {
            let args = [vec!["--offline"], refused].concat();
            project.stack(&args).code(1).says("needs the network");
        }
        project.stack(&["down", "-t", "0"]).ok();
        world.assert_no_leak();
    });
}

/// Else the end of each waits for all that anybody has written to the disk.
#[test]
fn only_what_is_removed_at_its_end_need_not_be_on_disk_by_then() {
    World::with_busybox().run(|world| {
        let compose =
            "services: { web: { image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL } }";
        let project = world.project("volatile", &[("compose.yaml", compose)]);
        let look = ["web", "grep", " / / ", "/proc/self/mountinfo"];
        let ran = project.stack(&[&["run", "--rm", "-T"][..], &look].concat()).ok();
        assert!(ran.text().contains("volatile"), "{ran}");
        project.stack(&["up", "-d"]).ok();
        let ran = project.stack(&[&["exec", "-T"][..], &look].concat()).ok();
        assert!(ran.text().contains("overlay") && !ran.text().contains("volatile"), "{ran}");
    });
}

#[test]
fn an_image_goes_with_the_last_who_uses_it_and_dangles_when_its_name_moves_on() {
    World::with_busybox().run(|world| {
        let service = |rest: &str| {
            format!("services: {{ web: {{ image: 'shop/own:1', command: [sleep, '1000'], stop_grace_period: 0s, {rest} }} }}")
        };
        let built = [("compose.yaml", &*service("build: .")), ("Dockerfile", "FROM busybox:1\nRUN echo one > /n\n")];
        let first = world.project("first", &built);
        first.stack(&["up", "-d"]).ok();
        let second = world.project("second", &[("compose.yaml", &service("pull_policy: never"))]);
        second.stack(&["up", "-d"]).ok();
        first.stack(&["-f", "compose.yaml", "down", "--rmi", "all"]).ok().says("Image shop/own:1 Resource is still in use");
        world.stack(&["image", "rm", "shop/own:1"]).code(1).says("is used by a container");
        let listed = || world.stack(&["image", "ls"]).ok().stdout;
        assert!(!listed().contains("<none>"), "{}", listed());
        first.write("Dockerfile", "FROM busybox:1\nRUN echo two > /n\n");
        first.stack(&["build"]).ok();
        assert!(listed().contains("<none>"), "{}", listed());
        assert_eq!(second.stack(&["exec", "-T", "web", "cat", "/n"]).ok().text(), "one", "its image stays");
        second.stack(&["down"]).ok();
        first.stack(&["-f", "compose.yaml", "down", "--rmi", "all"]).ok().says("Image shop/own:1 Removed");
        assert!(!listed().contains("shop/own"), "{}", listed());
    });
}
