//! After a boot: what comes back, and what does not. A boot is simulated as far as it can be (`common::boot`); the real
//! thing, with systemd, is in `tests/vm/reboot`.

use crate::common::{Project, World, eventually, free_port, get, skip};
use nix::mount::{MsFlags, mount};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const COMPOSE: &str = r#"
x-idle: &idle { image: "busybox:1", stop_signal: SIGKILL, command: [sleep, "1000"] }
services:
  web:
    <<: *idle
    restart: always
    command: ["sh", "-c", "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 80 -h /www"]
    hostname: webhost
    ports: ["PORT:80"]
    volumes: ["data:/data"]
  helper: { <<: *idle, restart: unless-stopped, depends_on: [web] }
  stopped-always: { <<: *idle, restart: always }
  stopped-unless: { <<: *idle, restart: unless-stopped }
  failing: { <<: *idle, restart: on-failure }
  once: { <<: *idle }
volumes: { data: {} }
"#;

fn compose() -> (u16, String) {
    let port = free_port();
    (port, COMPOSE.replace("PORT", &port.to_string()))
}

/// It says so where not.
fn may_simulate_a_boot() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("only root simulates a boot; the real thing is in tests/vm/reboot");
    }
    is_root
}

/// Services in this state, by name.
fn in_state(project: &Project<'_>, state: &str) -> Vec<String> {
    let rows = project.ps();
    let mut names: Vec<String> = rows
        .iter()
        .filter(|row| row["State"] == state)
        .map(|row| row["Service"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Network, names and volumes are there again.
#[track_caller]
fn assert_whole(project: &Project<'_>, port: u16) {
    assert_eq!(get(port, "/").trim(), "webhost");
    let asked = project.stack(&["exec", "-T", "helper", "wget", "-qO-", "http://web/"]).ok();
    assert_eq!(asked.text(), "webhost");
    assert_eq!(project.stack(&["exec", "-T", "web", "cat", "/data/kept"]).ok().text(), "kept");
}

fn comes_back(world: &World) {
    let (port, compose) = compose();
    let project = world.project("boot", &[("compose.yaml", &compose)]);
    project.stack(&["up", "-d"]).ok();
    project.stack(&["exec", "-T", "web", "sh", "-c", "echo kept > /data/kept"]).ok();
    project.stack(&["stop", "stopped-always", "stopped-unless"]).ok();
    world.reboot();

    assert_eq!(in_state(&project, "running"), [""; 0]);
    let row = project.ps().into_iter().find(|row| row["Service"] == "web").unwrap();
    assert_ne!(row["ExitCode"], 0, "nobody saw its end: {row}");
    // From anywhere, without the files, as the unit does.
    let due = ["-p", &project.name, "start", "--due"];
    let shown = world.stack(&[&due[..], &["--dry-run"]].concat()).ok();
    assert!(shown.stdout.contains("start web-1 (due after a boot)"), "{shown}");
    assert!(!shown.stdout.contains("once"), "{shown}");
    world.stack(&due).ok();
    assert_eq!(in_state(&project, "running"), ["helper", "stopped-always", "web"]);
    assert_eq!(in_state(&project, "exited"), ["failing", "once", "stopped-unless"]);
    assert_whole(&project, port);

    // Once is enough.
    let before = project.stack(&["ps", "-q"]).ok().stdout;
    // Empty while it is down.
    let started = |service: &str| project.stack(&["exec", "-T", service, "cat", "/proc/1/stat"]).stdout;
    let first = started("web");
    assert_ne!(first, "");
    world.stack(&due).ok();
    assert_eq!(project.stack(&["ps", "-q"]).ok().stdout, before);
    assert_eq!(started("web"), first);
    // And the policy goes on from there: the next exit is none of the user's.
    let id = project.stack(&["ps", "-q", "web"]).ok();
    let root = world.container_root(id.text());
    let pid = root.iter().nth(2).and_then(|pid| pid.to_str()?.parse().ok()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    eventually("the server is there again", || {
        let now = started("web");
        (!now.is_empty() && now != first).then_some(())
    });
    project.stack(&["down", "-v"]).ok();
    world.stack(&due).ok();
    world.assert_no_leak();
}

#[test]
fn after_a_boot_what_is_due_comes_back_and_nothing_else() {
    World::with_busybox().run(|world| {
        if may_simulate_a_boot() {
            comes_back(world);
        }
    });
}

#[test]
fn after_a_boot_an_ordinary_users_stack_comes_back() {
    World::with_busybox().as_ordinary_user().run(|world| {
        if may_simulate_a_boot() {
            comes_back(world);
        }
    });
}

/// Going down in order is not the user's stop; and a stop by hand stays one.
#[test]
fn what_goes_down_with_the_machine_comes_back_with_it() {
    World::with_busybox().run(|world| {
        if !may_simulate_a_boot() {
            return;
        }
        let (port, compose) = compose();
        let project = world.project("aside", &[("compose.yaml", &compose)]);
        project.stack(&["up", "-d"]).ok();
        project.stack(&["exec", "-T", "web", "sh", "-c", "echo kept > /data/kept"]).ok();
        project.stack(&["stop", "stopped-always", "stopped-unless"]).ok();
        let (aside, due) =
            (["-p", &project.name, "stop", "--keep-due"], ["-p", &project.name, "start", "--due"]);
        world.stack(&aside).ok();
        assert_eq!(in_state(&project, "running"), [""; 0]);
        // The unit was stopped and started: the user's stop of this boot counts, also for `always`.
        world.stack(&due).ok();
        assert_eq!(in_state(&project, "running"), ["helper", "web"]);
        world.stack(&aside).ok();
        world.reboot();
        world.stack(&due).ok();
        assert_eq!(in_state(&project, "running"), ["helper", "stopped-always", "web"]);
        assert_whole(&project, port);
        // What the user stops is not taken for the machine's stop before.
        project.stack(&["stop", "helper"]).ok();
        world.reboot();
        world.stack(&due).ok();
        assert_eq!(in_state(&project, "running"), ["stopped-always", "web"]);
    });
}

/// The same process ids and start times in another boot are other processes.
#[test]
fn nothing_of_an_earlier_boot_is_taken_for_alive() {
    World::with_busybox().run(|world| {
        if !may_simulate_a_boot() {
            return;
        }
        let compose =
            "services: { a: { image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL } }";
        let project = world.project("stale", &[("compose.yaml", compose)]);
        project.stack(&["up", "-d"]).ok();
        let boot = world.new_boot_id();
        assert_eq!(in_state(&project, "exited"), ["a"]);
        let said = project.stack(&["exec", "-T", "a", "true"]).code(1);
        assert!(said.stderr.contains("not running"), "{said}");
        boot.take_back();
        assert_eq!(in_state(&project, "running"), ["a"]);
        project.stack(&["down"]).ok();
    });
}

/// systemd seems to run this machine, for this world's mount namespace: the folders, and a `systemctl` that notes what
/// it is told.
struct Pretended {
    path: String,
    said: PathBuf,
}

impl Pretended {
    fn new(world: &World) -> Self {
        let none = None::<&str>;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::create_dir_all("/run/systemd/system").unwrap();
        for name in ["etc-upper", "etc-work"] {
            std::fs::create_dir(world.root.join(name)).unwrap();
        }
        let root = world.root.display();
        let options = format!("lowerdir=/etc,upperdir={root}/etc-upper,workdir={root}/etc-work");
        mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let bin = world.root.join("bin");
        std::fs::create_dir(&bin).unwrap();
        let said = world.root.join("systemctl.log");
        std::fs::write(&said, "").unwrap();
        std::fs::set_permissions(&said, PermissionsExt::from_mode(0o666)).unwrap();
        let script = bin.join("systemctl");
        std::fs::write(&script, format!("#!/bin/sh\necho \"$*\" >> {}\n", said.display())).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Self { path, said }
    }

    /// What was said since the last time.
    fn heard(&self) -> String {
        let text = std::fs::read_to_string(&self.said).unwrap();
        std::fs::write(&self.said, "").unwrap();
        text
    }
}

/// Values of a key of the unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// As systemd would: nothing but the unit's own environment.
fn run_as_unit(unit: &str, key: &str) {
    let command = values(unit, key)[0];
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env_clear();
    for variable in values(unit, "Environment") {
        let (name, value) = variable.trim_matches('"').split_once('=').unwrap();
        shell.env(name, value);
    }
    let ended = shell.current_dir("/").status().unwrap();
    assert!(ended.success(), "{command}: {ended}");
}

#[test]
fn an_enabled_stack_has_a_unit_whose_commands_bring_it_back() {
    World::with_busybox().run(|world| {
        if !may_simulate_a_boot() {
            return;
        }
        let systemd = Pretended::new(world);
        let (port, compose) = compose();
        let project = world.project("unit", &[("compose.yaml", &compose)]);
        project.stack(&["up", "-d"]).ok();
        project.stack(&["exec", "-T", "web", "sh", "-c", "echo kept > /data/kept"]).ok();
        let env = [("PATH", systemd.path.as_str())];
        let name = format!("stack-{}.service", project.name);
        let file = Path::new("/etc/systemd/system").join(&name);
        let link = Path::new("/etc/systemd/system/multi-user.target.wants").join(&name);

        let shown = project.stack_with(&env, &["--dry-run", "enable"]).ok();
        assert!(!file.exists(), "a dry run writes nothing");
        project.stack_with(&env, &["enable"]).ok().says("is enabled");
        let unit = std::fs::read_to_string(&file).unwrap();
        assert_eq!(unit, shown.stdout);
        assert_eq!(std::fs::read_link(&link).unwrap(), file);
        assert_eq!(systemd.heard(), format!("daemon-reload\nstart {name}\n"));
        project.stack_with(&env, &["enable"]).ok();

        // In the same boot there is nothing to do for it.
        run_as_unit(&unit, "ExecStart");
        run_as_unit(&unit, "ExecStop");
        assert_eq!(in_state(&project, "running"), [""; 0]);
        world.reboot();
        run_as_unit(&unit, "ExecStart");
        assert_eq!(in_state(&project, "running"), ["helper", "stopped-always", "stopped-unless", "web"]);
        assert_whole(&project, port);

        systemd.heard();
        project.stack_with(&env, &["disable"]).ok().says("is disabled");
        assert!(!file.exists() && link.symlink_metadata().is_err());
        assert_eq!(systemd.heard(), "daemon-reload\n");
        project.stack_with(&env, &["disable"]).ok().says("is not enabled");
        assert_eq!(in_state(&project, "running").len(), 4, "what runs is left alone");
        project.stack(&["down", "-v"]).ok();
    });
}

#[test]
fn an_ordinary_users_unit_is_their_own() {
    World::empty().as_ordinary_user().run(|world| {
        if !may_simulate_a_boot() {
            return;
        }
        let systemd = Pretended::new(world);
        let project = world.project("mine", &[]);
        let env = [("PATH", systemd.path.as_str())];
        let name = format!("stack-{}.service", project.name);
        let units = world.home.join(".config/systemd/user");
        let ran = project.stack_with(&env, &["enable"]).ok();
        let user = nix::unistd::User::from_uid(1000.into()).unwrap().map_or("1000".into(), |user| user.name);
        let lingers = Path::new("/var/lib/systemd/linger").join(user).exists();
        assert_eq!(ran.stderr.contains("loginctl enable-linger"), !lingers, "{ran}");
        let unit = std::fs::read_to_string(units.join(&name)).unwrap();
        assert_eq!(values(&unit, "WantedBy"), ["default.target"]);
        assert!(units.join("default.target.wants").join(&name).exists());
        assert_eq!(systemd.heard(), format!("--user daemon-reload\n--user start {name}\n"));
        project.stack_with(&env, &["disable"]).ok();
        assert!(!units.join(&name).exists());
    });
}

#[test]
fn without_systemd_the_commands_are_named() {
    World::empty().run(|world| {
        if !may_simulate_a_boot() {
            return;
        }
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let project = world.project("none", &[]);
        let ran = project.stack(&["enable"]).code(1);
        assert!(ran.stderr.starts_with("error: systemd does not run this machine"), "{ran}");
        assert!(ran.stderr.contains("start --due") && ran.stderr.contains("stop --keep-due"), "{ran}");
    });
}
