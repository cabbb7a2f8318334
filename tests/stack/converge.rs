//! What becomes of containers that are there already: the same containers that the plan's laws speak of, for real.

use crate::common::{PATIENCE, Project, World, eventually};

fn with(key: &'static str, compose: &'static str, test: impl FnOnce(&Project<'_>) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let project = world.project(key, &[("compose.yaml", compose), ("go/.keep", "")]);
        test(&project);
    });
}

#[track_caller]
fn id(project: &Project<'_>, service: &str) -> String {
    project.stack(&["ps", "-aq", service]).ok().text().to_owned()
}

const PAIR: &str = r#"
x-stays: &stays { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
services:
  db: { <<: *stays, environment: { COLOUR: red } }
  api: { <<: *stays, depends_on: [db], environment: { COLOUR: red } }
"#;

#[test]
fn targets_and_what_they_need_have_policies_of_their_own() {
    with("policy", PAIR, |project| {
        let ids = || (id(project, "db"), id(project, "api"));
        project.stack(&["up", "-d"]).ok();
        let first = ids();
        project.stack(&["up", "-d", "--force-recreate", "api"]).ok();
        let second = ids();
        assert_eq!(second.0, first.0, "what it needs has not changed");
        assert_ne!(second.1, first.1);
        project.stack(&["up", "-d", "--always-recreate-deps", "api"]).ok();
        let third = ids();
        assert_ne!(third.0, second.0);
        assert_eq!(third.1, second.1, "the named one has not changed");
        project.write("compose.yaml", &PAIR.replace("red", "blue"));
        project.stack(&["up", "-d", "--no-recreate"]).ok();
        assert_eq!(ids(), third, "never means never");
        project.stack(&["up", "-d", "--no-deps", "api"]).ok();
        let fourth = ids();
        assert_eq!(fourth.0, third.0);
        assert_ne!(fourth.1, third.1);
        project.stack(&["up", "-d"]).ok();
        assert_ne!(id(project, "db"), third.0, "changed, and now asked for");
        assert_eq!(id(project, "api"), fourth.1);
    });
}

#[test]
fn a_successor_is_made_beside_the_old_one_and_takes_its_name_in_the_end() {
    let compose = r#"
services:
  web:
    image: "busybox:1"
    command: ["sh", "-c", "trap 'until test -e /go/now; do usleep 10000; done; exit 0' TERM; sleep 1000 & wait"]
    stop_grace_period: 100s
    volumes: ["./go:/go"]
    environment: { COLOUR: "${COLOUR:-red}" }
"#;
    with("steps", compose, |project| {
        project.stack(&["up", "-d"]).ok();
        let old = id(project, "web");
        let name = format!("{}-web-1", project.name);
        let up = project.spawn_with(&[("COLOUR", "blue")], &["up", "-d"]);
        // The old one does not end before it is told to: long enough to see both.
        let temporary = format!("{}_{name}", &old[..12]);
        let rows = eventually("both", || {
            let rows = project.ps();
            rows.iter().any(|row| row["Name"] == temporary.as_str()).then_some(rows)
        });
        let state = |wanted: &str| rows.iter().find(|row| row["Name"] == wanted).unwrap()["State"].clone();
        assert_eq!((state(&name), state(&temporary)), ("running".into(), "created".into()));
        project.write("go/now", "");
        up.wait(PATIENCE).ok();
        let rows = project.ps();
        assert_eq!((rows.len(), &rows[0]["Name"]), (1, &name.as_str().into()));
        assert_ne!(id(project, "web"), old);
        assert_eq!(project.stack(&["exec", "-T", "web", "sh", "-c", "echo $COLOUR"]).ok().text(), "blue");
    });
}

#[test]
fn anonymous_volumes_go_to_the_successor_unless_they_are_to_be_new() {
    let compose = r#"
services:
  web:
    build: { dockerfile_inline: "FROM busybox:1\nRUN mkdir /data && echo shipped > /data/file\nVOLUME /data" }
    command: [sleep, "1000"]
    stop_signal: SIGKILL
    volumes: [/anonymous]
    environment: { COLOUR: "${COLOUR:-red}" }
"#;
    with("anonymous", compose, |project| {
        let script = |script: &str| project.stack(&["exec", "-T", "web", "sh", "-c", script]).ok().stdout;
        project.stack(&["up", "-d"]).ok();
        assert_eq!(script("cat /data/file; ls /anonymous"), "shipped\n");
        script("echo mine > /data/file; echo mine > /anonymous/file");
        project.stack_with(&[("COLOUR", "blue")], &["up", "-d"]).ok();
        assert_eq!(script("echo $COLOUR; cat /data/file /anonymous/file"), "blue\nmine\nmine\n");
        project.stack_with(&[("COLOUR", "green")], &["up", "-d", "-V"]).ok();
        assert_eq!(script("echo $COLOUR; cat /data/file; ls /anonymous"), "green\nshipped\n");
    });
}

#[test]
fn what_ended_and_has_not_changed_is_started_and_not_made_anew() {
    with("ended", PAIR, |project| {
        project.stack(&["up", "-d"]).ok();
        let before = (id(project, "db"), id(project, "api"));
        project.stack(&["exec", "-T", "api", "sh", "-c", "echo mine > /mine"]).ok();
        project.stack(&["kill"]).ok();
        assert_eq!(project.ps_field("api", "State"), "exited");
        project.stack(&["up", "-d"]).ok();
        assert_eq!((id(project, "db"), id(project, "api")), before);
        assert_eq!(project.stack(&["exec", "-T", "api", "cat", "/mine"]).ok().text(), "mine");
    });
}

#[test]
fn scale_changes_the_numbers_of_the_named_services_alone() {
    let compose = r#"
x-stays: &stays { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
services:
  db: { <<: *stays }
  api: { <<: *stays, depends_on: [db] }
  other: { <<: *stays }
  built: { build: { dockerfile_inline: "FROM busybox:1" } }
"#;
    with("scaled", compose, |project| {
        let count = |service| project.ps().iter().filter(|row| row["Service"] == service).count();
        let counts = || (count("db"), count("api"), count("other"));
        project.stack(&["scale", "--no-deps", "api=2"]).ok();
        assert_eq!(counts(), (0, 2, 0));
        project.stack(&["scale", "api=3"]).ok();
        assert_eq!(counts(), (1, 3, 0), "what it needs comes along");
        project.stack(&["scale", "api=1", "db=2"]).ok();
        assert_eq!(counts(), (2, 1, 0));
        project.stack(&["scale", "built=1"]).code(1);
        for (wrong, why) in [
            ("api", "invalid scale specifier: api"),
            ("=1", "invalid scale specifier: =1"),
            ("api=x", "invalid scale specifier: can't parse replica value as int: api=x"),
            ("nobody=1", "no such service: nobody"),
        ] {
            project.stack(&["scale", wrong]).code(1).says(why);
        }
    });
}

#[test]
fn of_replicas_with_one_port_one_runs() {
    let compose = r#"
services:
  web: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL, scale: 3, ports: ["18080:80"] }
"#;
    with("clash", compose, |project| {
        project.stack(&["up", "-d"]).code(1).says("port 18080 is taken by");
        let mut states: Vec<_> = project.ps().iter().map(|row| row["State"].to_string()).collect();
        states.sort();
        assert_eq!(states, ["\"created\"", "\"created\"", "\"running\""]);
    });
}
