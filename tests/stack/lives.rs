//! How containers of a stack live: what outlives what, who probes whom, what the outside sees.

use crate::common::{PATIENCE, Project, World, eventually, free_port, get};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn one(attributes: &str) -> String {
    format!("services:\n  web: {{ image: 'busybox:1', stop_grace_period: 0s, {attributes} }}\n")
}

const IDLE: &str = "command: [sleep, '1000']";

fn sh(project: &Project<'_>, script: &str) -> String {
    project.stack(&["exec", "-T", "web", "sh", "-c", script]).ok().text().to_owned()
}

/// A file of the only container, parsed.
fn file(project: &Project<'_>, name: &str) -> serde_json::Value {
    let id = project.stack(&["ps", "-aq", "web"]).ok().text().to_owned();
    let dir = project.world.home.join("stacks").join(&project.name).join("containers").join(id);
    let bytes = std::fs::read(dir.join(name)).unwrap_or_else(|_| b"null".to_vec());
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn the_writable_layer_lives_as_long_as_its_container() {
    World::with_busybox().run(|world| {
        let project = world.project("layer", &[("compose.yaml", &one(IDLE))]);
        project.stack(&["up", "-d"]).ok();
        sh(&project, "echo mine > /mine");
        project.stack(&["restart"]).ok();
        assert_eq!(sh(&project, "cat /mine"), "mine");
        project.stack(&["up", "-d", "--force-recreate"]).ok();
        assert_eq!(sh(&project, "ls /mine 2>/dev/null || echo gone"), "gone");
    });
}

#[test]
fn names_and_terminal_are_in_the_environment() {
    World::with_busybox().run(|world| {
        let attributes = "tty: true, command: [sh, -c, 'echo $$TERM $$HOME $$(hostname) $$(cat /etc/hostname) $$HOSTNAME']";
        let project = world.project("named", &[("compose.yaml", &one(attributes))]);
        project.stack(&["up", "-d"]).ok();
        let id = project.stack(&["ps", "-aq", "web"]).ok().text()[..12].to_owned();
        let wanted = format!("xterm /root {id} {id} {id}");
        let logged = || project.stack(&["logs", "--no-log-prefix"]).text().trim().to_owned();
        eventually("it says so", || (logged() == wanted).then_some(()));
    });
}

#[test]
fn a_probe_runs_as_its_container_does_and_restarts_nothing() {
    World::with_busybox().run(|world| {
        let attributes = "user: '65534', working_dir: /var/spool, environment: { A: seen }, restart: always, \
            command: [sleep, '1000'], healthcheck: { test: 'echo $$(id -u) $$(pwd) $$A; exit 1', interval: 200ms, retries: 2 }";
        let project = world.project("probed", &[("compose.yaml", &one(attributes))]);
        project.stack(&["up", "-d"]).ok();
        eventually("it is unhealthy", || (project.ps_field("web", "Health") == "unhealthy").then_some(()));
        let log = file(&project, "health.json")["log"].clone();
        assert_eq!(log[0]["output"], "65534 /var/spool seen\n");
        assert_eq!(log[0]["exit_code"], 1);
        let pid = || file(&project, "run.json")["pid"].clone();
        let (before, probes) = (pid(), log.clone());
        eventually("more probes", || (file(&project, "health.json")["log"] != probes).then_some(()));
        assert_eq!(pid(), before);
        assert_eq!(project.ps_field("web", "State"), "running");
    });
}

#[test]
fn binds_make_directories_and_refuse_what_does_not_fit() {
    World::with_busybox().run(|world| {
        let attributes = format!("{IDLE}, volumes: ['./made/deep:/dir', './conf:/etc/app/conf']");
        let project = world.project("bound", &[("compose.yaml", &one(&attributes)), ("conf", "text\n")]);
        project.stack(&["up", "-d"]).ok();
        let made = std::fs::metadata(project.directory.join("made/deep")).unwrap();
        assert_eq!((made.uid(), made.gid(), made.permissions().mode() & 0o7777), (0, 0, 0o755));
        assert_eq!(sh(&project, "cat /etc/app/conf"), "text");
        project.edit("compose.yaml", "'./conf:/etc/app/conf'", "'./conf:/tmp'");
        project.stack(&["up", "-d"]).code(1).says("/tmp");
    });
}

#[test]
fn two_ups_at_once_agree() {
    World::with_busybox().run(|world| {
        let replicas = format!("{IDLE}, deploy: {{ replicas: 3 }}");
        let project = world.project("both", &[("compose.yaml", &one(&replicas))]);
        let ups: Vec<_> = (0..3).map(|_| project.spawn(&["up", "-d"])).collect();
        for up in ups {
            up.wait(PATIENCE).ok();
        }
        let names: std::collections::BTreeSet<String> =
            project.ps().iter().map(|row| row["Name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        project.stack(&["up", "-d"]).ok().says("Running");
    });
}

fn connects(address: &str, port: u16) -> Option<TcpStream> {
    TcpStream::connect((address.parse::<IpAddr>().unwrap(), port)).ok()
}

const SERVE: &str = "command: [sh, -c, 'mkdir /w; echo page > /w/index.html; exec httpd -f -p 80 -h /w']";

#[test]
fn a_port_is_open_where_it_was_published_and_shows_the_gateway() {
    World::with_busybox().run(|world| {
        let added =
            std::process::Command::new("ip").args(["addr", "add", "192.0.2.9/32", "dev", "lo"]).status();
        assert!(added.unwrap().success());
        let (open, own) = (free_port(), free_port());
        let attributes = format!("{SERVE}, ports: ['{open}:80', '127.0.0.1:{own}:80']");
        let project = world.project("ports", &[("compose.yaml", &one(&attributes))]);
        project.stack(&["up", "-d"]).ok();
        for port in [open, own] {
            assert_eq!(get(port, "/"), "page\n");
        }
        assert!(connects("::1", open).is_some(), "both families");
        assert!(connects("192.0.2.9", own).is_none(), "only loopback");
        // As behind Docker's proxy: the service sees the gateway of its network, not the client.
        let held = connects("192.0.2.9", open).expect("any address");
        let gateway = sh(&project, "ip route | awk '/^default/ { print $3 }'");
        let peers = || sh(&project, "netstat -tn | awk '$4 ~ /:80$/ { print $5 }'");
        eventually("the service sees the connection", || {
            peers().contains(&format!("{gateway}:")).then_some(())
        });
        drop(held);
        project.stack(&["stop"]).ok();
        assert!(connects("127.0.0.1", open).is_none(), "free when it is stopped");
    });
}

#[test]
fn what_was_stopped_by_hand_stays_so_under_the_next_supervisor() {
    World::with_busybox().run(|world| {
        let text = format!(
            "{}  other: {{ image: 'busybox:1', {IDLE}, restart: always, stop_grace_period: 0s }}\n  \
             third: {{ image: 'busybox:1', {IDLE}, stop_grace_period: 0s }}\n",
            one(&format!("{IDLE}, restart: unless-stopped"))
        );
        let project = world.project("stopped", &[("compose.yaml", &text)]);
        project.stack(&["up", "-d"]).ok();
        project.stack(&["stop", "web", "other"]).ok();
        project.kill_supervisor();
        project.stack(&["exec", "-T", "third", "true"]).ok();
        for service in ["web", "other"] {
            assert_eq!(project.ps_field(service, "State"), "exited");
        }
        project.stack(&["start", "web"]).ok();
        let pid = file(&project, "run.json")["pid"].as_i64().unwrap();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        eventually("it is started again", || {
            (file(&project, "supervision.json")["restarts"]["count"] == 1).then_some(())
        });
    });
}

#[test]
fn an_exec_ends_with_its_container() {
    World::with_busybox().run(|world| {
        let project = world.project("exec", &[("compose.yaml", &one(IDLE))]);
        project.stack(&["up", "-d"]).ok();
        let exec = project.spawn(&["exec", "-T", "web", "sh", "-c", "echo begun; exec sleep 1000"]);
        eventually("it runs", || exec.stdout().contains("begun").then_some(()));
        project.stack(&["kill"]).ok();
        exec.wait(PATIENCE).code(137);
    });
}

#[test]
fn an_exec_reads_and_writes_files_whole_and_in_order() {
    World::with_busybox().run(|world| {
        let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        let project = world.project("files", &[("compose.yaml", &one(IDLE)), ("input", &text)]);
        project.stack(&["up", "-d"]).ok();
        let exec = |script: &str| project.reading("input", &["exec", "-T", "web", "sh", "-c", script]);
        assert!(exec("cat").ok().stdout == text, "the whole file, and nothing else");
        assert_eq!(exec("read -r first; cat >&2; exit 4").code(4).stderr.lines().count(), 19_999);
        // Whoever stays behind with the streams is not waited for, and what was said before is there.
        let ran = exec("sleep 1000 & echo last words").ok();
        assert_eq!(ran.text(), "last words");
    });
}

#[test]
fn each_run_of_a_container_can_be_shown() {
    World::with_busybox().run(|world| {
        let command = "command: [sh, -c, 'cat /n 2>/dev/null; echo run; echo x >> /n; exec sleep 1000']";
        let project = world.project("runs", &[("compose.yaml", &one(command))]);
        let logs = |run: &str| project.stack(&["logs", "--no-log-prefix", "--run", run]).ok().stdout;
        project.stack(&["up", "-d"]).ok();
        eventually("the first run", || (logs("0") == "run\n").then_some(()));
        assert_eq!(logs("-1"), "", "there was none before");
        project.stack(&["restart", "web"]).ok();
        eventually("the second run", || (logs("0") == "x\nrun\n").then_some(()));
        // A supervisor that takes over counts no run twice.
        project.kill_supervisor();
        project.stack(&["restart", "web"]).ok();
        eventually("the third run", || (logs("0") == "x\nx\nrun\n").then_some(()));
        assert_eq!((logs("-1"), logs("-2"), logs("-3")), ("x\nrun\n".into(), "run\n".into(), String::new()));
        assert_eq!(
            project.stack(&["logs", "--no-log-prefix", "--run", "-1", "--tail", "1"]).ok().stdout,
            "run\n"
        );
        project.stack(&["logs", "--run", "1"]).ok();
        project.stack(&["logs", "-f", "--run", "0"]).code(1);
    });
}

#[test]
fn a_million_lines_are_all_kept_in_order_and_followed() {
    World::with_busybox().run(|world| {
        let command = "command: [sh, -c, 'until test -e /go/now; do sleep 0.02; done; exec seq 1 1000000'], volumes: ['./go:/go']";
        let project = world.project("million", &[("compose.yaml", &one(command))]);
        project.stack(&["up", "-d"]).ok();
        let followed = project.spawn(&["logs", "-f", "--no-log-prefix"]);
        project.write("go/now", "");
        // An end that is told twice, or too early, would show as a line too few.
        let kept = |text: &str| text.lines().enumerate().all(|(at, line)| line == (at + 1).to_string());
        let ran = followed.wait(3 * PATIENCE).ok();
        assert!(kept(&ran.stdout), "followed out of order");
        assert_eq!(ran.stdout.lines().count(), 1_000_000);
        let ran = project.stack_with_patience(&[], &["logs", "--no-log-prefix"], 3 * PATIENCE).ok();
        assert!(kept(&ran.stdout) && ran.stdout.lines().count() == 1_000_000, "read out of order");
    });
}

#[test]
fn a_reader_that_stands_still_holds_nobody_up() {
    World::with_busybox().run(|world| {
        let command = "command: [sh, -c, 'until test -e /go/now; do sleep 0.02; done; exec seq 1 50000'], volumes: ['./go:/go']";
        let project = world.project("still", &[("compose.yaml", &one(command))]);
        project.stack(&["up", "-d"]).ok();
        let reader = project.spawn(&["logs", "-f", "--no-log-prefix"]);
        reader.signal(Signal::STOP);
        project.write("go/now", "");
        eventually("it ends all the same", || (project.ps_field("web", "State") == "exited").then_some(()));
        reader.signal(Signal::CONT);
        let ran = reader.wait(PATIENCE).ok();
        assert_eq!(ran.stdout.lines().count(), 50_000);
    });
}
