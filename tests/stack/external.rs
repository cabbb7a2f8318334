//! `external: true`: a stack on a network that another stack made.

use crate::common::{Project, World, eventually, free_port, get};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SERVE: &str = r#"["sh", "-c", "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"]"#;

/// Makes the network `shared`, as the full name says, unlike its own default one.
fn owner<'w>(world: &'w World, key: &str, network: &str) -> Project<'w> {
    let file = format!(
        "services:\n  web: {{ image: 'busybox:1', command: {SERVE}, networks: [shared], stop_grace_period: 0s }}\n\
         networks:\n  shared: {{ name: {network} }}\n"
    );
    world.project(key, &[("compose.yaml", &file)])
}

/// On that network only, or on its own too, publishing a port.
fn guest<'w>(world: &'w World, key: &str, network: &str, extra: &str) -> Project<'w> {
    let file = format!(
        "services:\n  cli: {{ image: 'busybox:1', command: {SERVE}, stop_grace_period: 0s, networks: [shared{extra}], \
         ports: ['${{PORT:-0}}:80'] }}\n\
         networks:\n  shared: {{ external: true, name: {network} }}\n  own: {{}}\n"
    );
    world.project(key, &[("compose.yaml", &file)])
}

fn network(world: &World) -> String {
    format!("{}-net", world.root.file_name().unwrap().to_str().unwrap())
}

/// The host name of whoever answers to `name`, as `service` of the project sees it. (A static busybox cannot `wget`:
/// it wants the C library's modules.)
fn fetch(project: &Project<'_>, service: &str, name: &str) -> String {
    let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 10 {name} 80 | tail -n 1");
    let answer = || project.stack(&["exec", "-T", service, "sh", "-c", &script]).text().to_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match answer() {
            text if !text.is_empty() => return text,
            _ if Instant::now() > deadline => panic!("no answer from {name}"),
            _ => {}
        }
    }
}

fn id(project: &Project<'_>, service: &str) -> String {
    project.stack(&["ps", "-q", service]).ok().text().get(..12).unwrap().to_owned()
}

fn record(world: &World, network: &str) -> PathBuf {
    world.home.join("networks").join(format!("{network}.json"))
}

#[test]
fn two_stacks_meet_on_a_network_and_part_in_either_order() {
    World::with_busybox().run(|world| {
        let network = network(world);
        let (owner, guest) = (owner(world, "owner", &network), guest(world, "guest", &network, ""));
        guest
            .stack(&["up", "-d"])
            .code(1)
            .says(&format!("network {network} declared as external, but could not be found"));
        owner.stack(&["up", "-d"]).ok();
        guest.stack(&["up", "-d"]).ok();
        meet(&owner, &guest);
        guest.stack(&["down"]).ok();
        assert!(record(world, &network).exists(), "a guest never removes the network");
        owner.stack(&["exec", "-T", "web", "nslookup", "cli"]).code(1);
        owner.stack(&["down"]).ok();
        world.assert_no_leak();

        owner.stack(&["up", "-d"]).ok();
        guest.stack(&["up", "-d"]).ok();
        let said = owner.stack(&["down"]).ok();
        assert!(said.stderr.contains(&format!("Network {network} Resource is still in use")), "{said}");
        assert!(record(world, &network).exists());
        guest.stack(&["exec", "-T", "cli", "nslookup", "web"]).code(1);
        owner.stack(&["up", "-d"]).ok();
        meet(&owner, &guest);
        owner.stack(&["down"]).ok().says("Resource is still in use");
        guest.stack(&["down"]).ok();
        world.assert_no_leak();
        owner.stack(&["down"]).ok();
        assert!(!record(world, &network).exists());
        assert!(!record(world, &network).with_extension("d").exists());
    });
}

#[track_caller]
fn meet(owner: &Project<'_>, guest: &Project<'_>) {
    assert_eq!(fetch(owner, "web", "cli"), id(guest, "cli"));
    assert_eq!(fetch(guest, "cli", "web"), id(owner, "web"));
    assert_eq!(fetch(guest, "cli", &format!("{}-web-1", owner.name)), id(owner, "web"));
    guest.stack(&["exec", "-T", "cli", "ping", "-c", "1", "-W", "10", "web"]).ok();
}

#[test]
fn a_network_without_containers_is_kept_by_those_who_join() {
    World::with_busybox().run(|world| {
        let network = network(world);
        let owner = owner(world, "owner", &network);
        let (one, two) = (guest(world, "one", &network, ""), guest(world, "two", &network, ", own"));
        owner.stack(&["create"]).ok();
        world.assert_no_leak();
        let port = free_port();
        one.stack_with(&[("PORT", &port.to_string())], &["up", "-d"]).ok();
        two.stack(&["up", "-d"]).ok();
        // Addresses of three supervisors never clash.
        owner.stack(&["start"]).ok();
        for project in [&one, &two] {
            assert_eq!(fetch(project, "cli", "web"), id(&owner, "web"));
        }
        assert_eq!(fetch(&one, "cli", &format!("{}-cli-1", two.name)), id(&two, "cli"));
        assert_eq!(get(port, "/").trim(), id(&one, "cli"));
        one.stack(&["down"]).ok();
        two.stack(&["down"]).ok();
        owner.stack(&["down"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn killed_supervisors_leave_the_network_as_it_is() {
    World::with_busybox().run(|world| {
        let network = network(world);
        let (owner, guest) = (owner(world, "owner", &network), guest(world, "guest", &network, ""));
        owner.stack(&["up", "-d"]).ok();
        guest.stack(&["up", "-d"]).ok();
        owner.kill_supervisor();
        meet(&owner, &guest);
        guest.kill_supervisor();
        meet(&owner, &guest);
        // Nothing of the owner's runs: its supervisor is all that holds the namespace.
        owner.stack(&["stop"]).ok();
        owner.kill_supervisor();
        guest.kill_supervisor();
        owner.stack(&["start"]).ok();
        meet(&owner, &guest);
        owner.stack(&["stop"]).ok();
        guest.kill_supervisor();
        guest.stack(&["down"]).ok();
        world.assert_no_leak();
        owner.stack(&["down"]).ok();
        assert!(!record(world, &network).exists());
    });
}

/// The guest's supervisor alone holds the namespace then.
#[test]
fn the_network_survives_everybody_of_its_owner() {
    World::with_busybox().run(|world| {
        let network = network(world);
        let owner = owner(world, "owner", &network);
        let (one, two) = (guest(world, "one", &network, ""), guest(world, "two", &network, ""));
        owner.stack(&["create"]).ok();
        one.stack(&["up", "-d"]).ok();
        kill_with_launcher(&owner);
        two.stack(&["up", "-d"]).ok();
        assert_eq!(fetch(&two, "cli", &format!("{}-cli-1", one.name)), id(&one, "cli"));
        owner.stack(&["start"]).ok();
        for guest in [&one, &two] {
            assert_eq!(fetch(guest, "cli", "web"), id(&owner, "web"));
        }
    });
}

fn kill_with_launcher(project: &Project<'_>) {
    let pid = project.supervisor().expect("it runs");
    let is_launcher = |(child, line): &(i32, String)| {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        line.contains("__launch") && status.contains(&format!("PPid:\t{pid}\n"))
    };
    let launcher = project.world.processes().into_iter().find(is_launcher).expect("a launcher").0;
    let signal = |pid, signal| kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    signal(launcher, Signal::STOP);
    signal(pid, Signal::KILL);
    signal(launcher, Signal::KILL);
    eventually("their end", || {
        let gone = |pid| !project.world.processes().iter().any(|(p, line)| *p == pid && !line.is_empty());
        (gone(pid) && gone(launcher)).then_some(())
    });
}

#[test]
fn built_in_networks_are_no_external_ones() {
    World::with_busybox().run(|world| {
        for name in ["host", "none", "bridge"] {
            let project = guest(world, name, name, "");
            project.stack(&["up", "-d"]).code(1).says(&format!("network_mode: {name}"));
        }
    });
}
