//! The engine's file work: nothing here needs a supervisor or root.

use super::record::{ContainerDir, container_ids};
use super::{create, names, observe, remove};
use stack_runtime::engine::ErrorKind;
use stack_runtime::home::{self, Home};
use stack_runtime::observed::{Exit, HealthStatus, State};
use stack_runtime::spec::{ContainerSpec, HealthSpec, MountKindSpec, MountSpec, Probe};
use stack_runtime::volume;
use std::time::Duration;

struct Bed {
    home: Home,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = Home { data: dir.path().join("data"), run: dir.path().join("run") };
        home.prepare().expect("home");
        Self { home, _dir: dir }
    }
    fn create(&self, name: &str) -> Result<String, ErrorKind> {
        self.create_spec(ContainerSpec { name: name.into(), ..Default::default() })
    }
    fn create_spec(&self, spec: ContainerSpec) -> Result<String, ErrorKind> {
        create::create(&self.home, "shop", spec).map_err(|e| e.kind)
    }
    fn remove(&self, id: &str, volumes: bool) {
        let record = self.dir(id).record().expect("readable").expect("exists");
        remove::container(&self.home, &record, volumes).expect("remove");
    }
    fn dir(&self, id: &str) -> ContainerDir {
        ContainerDir::new(&self.home, "shop", id)
    }
    fn names(&self) -> Vec<String> {
        let containers = observe::containers(&self.home, "shop").expect("observe");
        containers.into_iter().map(|container| container.name).collect()
    }
    fn state(&self, id: &str) -> State {
        observe::container(&self.home, "shop", id).expect("observe").expect("exists").state
    }
}

fn with_anonymous_volume(name: &str, volume: &str) -> ContainerSpec {
    let kind = MountKindSpec::Volume { name: volume.into(), nocopy: false, subpath: None, anonymous: true };
    let mounts = vec![MountSpec { kind, target: "/data".into(), read_only: false }];
    ContainerSpec { name: name.into(), mounts, ..Default::default() }
}

#[test]
fn a_created_container_is_observed_complete() {
    let bed = Bed::new();
    let id = bed.create("web").expect("create");
    let found = observe::container(&bed.home, "shop", &id).expect("observe").expect("exists");
    assert_eq!((found.id.as_str(), found.name.as_str(), &found.state), (id.as_str(), "web", &State::Created));
    assert_eq!(found.spec.hostname.as_deref(), Some(&id[..12]));
    assert_eq!((id.len(), found.health.status), (64, HealthStatus::None));
    assert!(bed.dir(&id).upper().is_dir() && bed.dir(&id).work().is_dir());
}

#[test]
fn a_name_is_given_once_per_project() {
    let bed = Bed::new();
    let id = bed.create("web").expect("create");
    assert_eq!(bed.create("web"), Err(ErrorKind::Conflict));
    assert_eq!(bed.names(), ["web"]);
    bed.remove(&id, false);
    bed.create("web").expect("the name is free again");
    create::create(&bed.home, "other", ContainerSpec { name: "web".into(), ..Default::default() })
        .expect("its own");
}

#[test]
fn many_at_once_get_one_name_once() {
    let bed = Bed::new();
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| bed.create("web"))).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("no panic").ok()).count()
    });
    assert_eq!((made, bed.names().len()), (1, 1));
}

#[test]
fn a_conflict_leaves_nothing() {
    let bed = Bed::new();
    bed.create("web").expect("create");
    bed.create("web").expect_err("taken");
    let entries = std::fs::read_dir(bed.home.containers("shop")).expect("readable").count();
    assert_eq!(entries, 1);
}

#[test]
fn hostile_names_stay_in_their_directory() {
    let bed = Bed::new();
    for name in ["", ".lock", "../up", "a/b", "-x", &"x".repeat(300)] {
        assert!(bed.create(name).is_err(), "{name}");
    }
    assert!(bed.names().is_empty());
}

#[test]
fn a_create_that_was_cut_off_is_invisible_and_its_name_is_free() {
    let bed = Bed::new();
    let cut = "c".repeat(64);
    std::fs::create_dir_all(names::making(&bed.home, "shop", &cut)).expect("directory");
    names::take(&bed.home, "shop", "web", &cut).expect("names").expect("free");
    assert!(bed.names().is_empty());
    bed.create("web").expect("nobody makes it any more");
    remove::sweep(&bed.home, "shop").expect("sweep");
    assert!(!names::making(&bed.home, "shop", &cut).exists());
}

#[test]
fn a_name_that_is_being_given_is_taken() {
    let bed = Bed::new();
    let other = "d".repeat(64);
    let hidden = names::making(&bed.home, "shop", &other);
    std::fs::create_dir_all(&hidden).expect("directory");
    let _making = home::lock(&hidden.join(names::MAKING)).expect("lock");
    names::take(&bed.home, "shop", "web", &other).expect("names").expect("free");
    assert_eq!(bed.create("web"), Err(ErrorKind::Conflict));
}

#[test]
fn a_rename_moves_name_and_record() {
    let bed = Bed::new();
    let (old, new) = (bed.create("web").expect("create"), bed.create("abc_web").expect("create"));
    let clash = names::rename(&bed.home, "shop", &new, "web").expect("files");
    assert_eq!(clash, Err(old.clone()));
    bed.remove(&old, false);
    names::rename(&bed.home, "shop", &new, "web").expect("files").expect("free");
    assert_eq!(bed.names(), ["web"]);
    assert_eq!(names::holder(&bed.home, "shop", "web").expect("files"), Some(new));
    assert_eq!(names::holder(&bed.home, "shop", "abc_web").expect("files"), None);
}

#[test]
fn anonymous_volumes_go_with_the_last_container_that_uses_them() {
    let bed = Bed::new();
    let first = bed.create_spec(with_anonymous_volume("a", "")).expect("create");
    let record = bed.dir(&first).record().expect("readable").expect("exists");
    let MountKindSpec::Volume { name, .. } = &record.spec.mounts[0].kind else { panic!("a volume") };
    let second = bed.create_spec(with_anonymous_volume("b", name)).expect("create");
    bed.remove(&first, true);
    assert!(volume::inspect(&bed.home, name).expect("readable").is_some(), "the other still has it");
    bed.remove(&second, true);
    assert!(volume::inspect(&bed.home, name).expect("readable").is_none());
}

#[test]
fn states_come_from_files() {
    let bed = Bed::new();
    let id = bed.create("web").expect("create");
    let dir = bed.dir(&id);
    let exit = Exit { code: Some(7), ..Default::default() };
    home::replace_json(&dir.path().join("exit.json"), &exit).expect("write");
    assert_eq!(bed.state(&id), State::Exited { exit: exit.clone() });
    let mut supervision = dir.supervision().expect("readable");
    supervision.is_waiting = true;
    dir.write_supervision(&supervision).expect("write");
    assert_eq!(bed.state(&id), State::Restarting { exit });
}

#[test]
fn a_run_whose_end_nobody_saw_is_unknown() {
    let bed = Bed::new();
    let id = bed.create("web").expect("create");
    let run = stack_runtime::monitor::RunRecord {
        pid: 1,
        start_time: u64::MAX,
        monitor_pid: 1,
        monitor_start_time: u64::MAX,
        started_at: "2026-01-01T00:00:00Z".into(),
    };
    home::replace_json(&bed.dir(&id).path().join("run.json"), &run).expect("write");
    let State::Exited { exit } = bed.state(&id) else { panic!("it does not run") };
    assert_eq!(exit.code, None);
}

#[test]
fn a_damaged_file_is_named() {
    let bed = Bed::new();
    let id = bed.create("web").expect("create");
    std::fs::write(bed.dir(&id).path().join("config.json"), "{").expect("write");
    let error = observe::containers(&bed.home, "shop").expect_err("damaged").to_string();
    assert!(error.contains("config.json"), "{error}");
    std::fs::write(bed.dir(&id).path().join("config.json"), r#"{"format":99}"#).expect("write");
    assert!(observe::containers(&bed.home, "shop").is_err());
}

#[test]
fn the_health_of_a_container_with_a_check_is_read() {
    let bed = Bed::new();
    let second = Duration::from_secs(1);
    let health = HealthSpec {
        probe: Probe::Exec(vec!["true".into()]),
        interval: second,
        timeout: second,
        retries: 3,
        start_period: second,
        start_interval: second,
    };
    let spec = ContainerSpec { name: "db".into(), health: Some(health), ..Default::default() };
    let id = bed.create_spec(spec).expect("create");
    let known = stack_runtime::observed::Health {
        status: HealthStatus::Unhealthy,
        failing_streak: 3,
        log: Vec::new(),
    };
    bed.dir(&id).write_health(&known).expect("write");
    let found = observe::container(&bed.home, "shop", &id).expect("observe").expect("exists");
    assert_eq!(found.health, known);
}

#[test]
fn nothing_is_left_of_a_stack_without_containers() {
    let bed = Bed::new();
    let id = bed.create("web").expect("create");
    remove::stack(&bed.home, "shop").expect("kept");
    assert_eq!(container_ids(&bed.home, "shop").expect("readable"), std::slice::from_ref(&id));
    bed.remove(&id, true);
    remove::stack(&bed.home, "shop").expect("removed");
    assert!(!bed.home.containers("shop").exists());
}
