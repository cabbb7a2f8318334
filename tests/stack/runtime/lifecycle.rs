//! Who dies with whom: owner, launcher, monitor, container.

use super::harness::{PATIENCE, options, sh, wait_until};
use crate::privileged;
use stack_runtime::launch::{LaunchStdio, Launcher, LauncherNetns, LauncherOptions};
use stack_runtime::logs;
use stack_runtime::monitor::{self, RunRecord};
use stack_runtime::spec::{ContainerSpec, NetworkMode};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

fn is_alive(pid: i32) -> bool {
    monitor::start_time(pid).is_ok()
}

fn kill(pid: i32) {
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

privileged!(a_container_outlives_its_killed_launcher, fixture, {
    let second = Launcher::spawn(options()).unwrap();
    let request =
        fixture.request(sh("echo before; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo after; exit 6"));
    let dir = request.dir.clone();
    let created = second.create(request).await.unwrap();
    second.start(&created).await.unwrap();
    wait_until("first output", || {
        fs::read_to_string(dir.join("log.json")).unwrap_or_default().contains("before")
    })
    .await;
    kill(second.pid());
    wait_until("the launcher's end", || !is_alive(second.pid())).await;
    assert!(RunRecord::read(&dir).unwrap().unwrap().is_alive());
    let go = File::open(format!("/proc/{}/root/tmp", created.pid)).unwrap();
    rustix::fs::openat(
        &go,
        "go",
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        rustix::fs::Mode::RUSR,
    )
    .unwrap();
    wait_until("the exit record", || monitor::read_exit(&dir).unwrap().is_some()).await;
    assert_eq!(monitor::read_exit(&dir).unwrap().unwrap().code, Some(6));
    assert!(fs::read_to_string(dir.join("log.json")).unwrap().contains("after"));
});

privileged!(a_created_container_goes_with_its_owner, fixture, {
    let container = fixture.create(fixture.request(sh("echo never"))).await.unwrap();
    let (pid, monitor, dir) = (container.created.pid, container.created.monitor_pid, container.dir.clone());
    drop(container);
    wait_until("the end of monitor and init", || !is_alive(pid) && !is_alive(monitor)).await;
    assert!(!dir.join("run.json").exists() && !dir.join("exit.json").exists());
});

privileged!(a_container_dies_with_its_monitor, fixture, {
    let container = fixture.up(ContainerSpec { user: "web".into(), ..sh("echo up; sleep 1000") }).await;
    container.wait_for_output("up").await;
    kill(container.created.monitor_pid);
    wait_until("the container's end", || !is_alive(container.created.pid)).await;
    let stack_runtime::observed::State::Exited { exit } = monitor::observe(&container.dir).unwrap() else {
        panic!("it has ended")
    };
    assert_eq!(exit.code, None);
    stack_runtime::cgroup::remove(&fixture.cgroup(&container)).unwrap();
});

privileged!(ephemeral_containers_die_with_the_launcher, fixture, {
    let launcher = Launcher::spawn(options()).unwrap();
    let (mut output, theirs) = std::io::pipe().unwrap();
    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    let mut request =
        fixture.request(ContainerSpec { network: NetworkMode::Inherit, ..sh("echo up; sleep 1000") });
    request.ephemeral = true;
    request.stdio = LaunchStdio::Fds([null(), theirs.into(), null()]);
    let group = request.cgroup.clone();
    let created = launcher.create(request).await.unwrap();
    launcher.start(&created).await.unwrap();
    let mut up = [0; 3];
    output.read_exact(&mut up).unwrap();
    launcher.shutdown().await;
    wait_until("the container's end", || !is_alive(created.pid)).await;
    stack_runtime::cgroup::remove(&group).unwrap();
});

/// Not a test of its own: the owner that [`a_replacement_starts_when_the_owner_is_killed`] kills.
#[test]
fn owner_to_be_killed() {
    let Some(path) = std::env::var_os("STACK_TEST_OWNER") else { return };
    let mut with = options();
    with.respawn = Some(vec!["__launch".into()]);
    let launcher = Launcher::spawn(with).unwrap();
    fs::write(path, launcher.pid().to_string()).unwrap();
    std::thread::sleep(PATIENCE);
}

privileged!(a_build_step_needs_no_control_group_and_no_log, fixture, {
    let (mut output, theirs) = std::io::pipe().unwrap();
    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    let mut request = fixture
        .request(ContainerSpec { network: NetworkMode::Inherit, ..sh("echo made > /made; echo said") });
    (request.ephemeral, request.cgroup) = (true, String::new());
    request.stdio = LaunchStdio::Fds([null(), theirs.into(), null()]);
    let upper = request.dir.join("upper");
    let container = fixture.create(request).await.unwrap();
    assert_eq!(container.created.warnings, Vec::<String>::new());
    fixture.start(&container).await.unwrap();
    assert_eq!(container.exit().await.code, Some(0));
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "said\n");
    assert_eq!(fs::read_to_string(upper.join("made")).unwrap(), "made\n");
    assert!(!container.dir.join("log.json").exists() && !container.dir.join("oci.json").exists());
});

privileged!(a_replacement_starts_when_the_owner_is_killed, fixture, {
    let path = fixture.dir.join("launcher-pid");
    let (mut said, theirs) = std::io::pipe().unwrap();
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::lifecycle::owner_to_be_killed", "--nocapture"])
        .env("STACK_TEST_OWNER", &path)
        .stdout(std::process::Stdio::null())
        .stderr(theirs)
        .spawn()
        .unwrap();
    let pid = || fs::read_to_string(&path).ok()?.parse::<i32>().ok();
    wait_until("the launcher", || pid().is_some()).await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the launcher's end", || !is_alive(pid().unwrap())).await;
    // The replacement here is a launcher without a socket, which says so; the pipe ends with it.
    let mut words = String::new();
    said.read_to_string(&mut words).unwrap();
    assert!(words.contains("stack starts this by itself"), "{words}");
});

privileged!(a_launcher_that_is_dropped_starts_no_replacement, fixture, {
    let mut with = options();
    with.respawn = Some(vec!["__launch".into()]);
    let launcher = Launcher::spawn(with).unwrap();
    let pid = launcher.pid();
    drop(launcher);
    wait_until("the launcher's end", || !is_alive(pid)).await;
    assert!(fixture.dir.exists());
});

privileged!(a_launcher_joins_a_network_namespace, fixture, {
    let joined = Launcher::spawn(LauncherOptions {
        netns: LauncherNetns::Join(fixture.launcher.netns().unwrap()),
        ..options()
    })
    .unwrap();
    let inode = |netns: OwnedFd| File::from(netns).metadata().unwrap().ino();
    assert_eq!(inode(joined.netns().unwrap()), inode(fixture.launcher.netns().unwrap()));
    joined.shutdown().await;
});

privileged!(many_containers_start_at_once, fixture, {
    let began = std::time::Instant::now();
    let mut containers = Vec::new();
    for number in 0..30 {
        containers.push(
            fixture.create(fixture.request(sh(&format!("echo {number}; exit {number}")))).await.unwrap(),
        );
    }
    for container in &containers {
        fixture.start(container).await.unwrap();
    }
    for (number, container) in containers.iter().enumerate() {
        assert_eq!(container.exit().await.code, Some(i32::try_from(number).unwrap()));
        assert_eq!(container.output(), format!("{number}\n"));
    }
    assert!(began.elapsed() < PATIENCE);
});

privileged!(logs_are_followed_over_a_restart, fixture, {
    let request = fixture.request(sh("echo one; exit 1"));
    let dir = request.dir.clone();
    let mut receiver = logs::read(dir.clone(), logs::Options { follow: true, ..logs::Options::default() });
    fixture.run_request(request).await;
    let mut again = fixture.request(sh("echo two"));
    again.dir = dir.clone();
    fixture.run_request(again).await;
    for expected in ["one\n", "two\n"] {
        let entry = tokio::time::timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap().unwrap();
        assert_eq!(entry.log, expected);
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(tokio::time::timeout(PATIENCE, receiver.recv()).await.unwrap().is_none());
});

privileged!(a_monitor_is_small, fixture, {
    let container = fixture.up(sh("echo up; sleep 1000")).await;
    container.wait_for_output("up").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", container.created.monitor_pid)).unwrap();
    // Clean pages are the binary's, shared with every other process of ours that runs.
    let private: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_Dirty"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    assert!(private < 1024, "{private} KiB\n{rollup}");
    container.kill(9);
    container.exit().await;
});
