//! Who dies with whom: owner, launcher, monitor, container.

use super::harness::{PATIENCE, options, sh, wait_until};
use crate::privileged;
use stack_runtime::launch::{LaunchStdio, Launcher, LauncherNetns};
use stack_runtime::logs;
use stack_runtime::monitor::{self, RunRecord};
use stack_runtime::spec::{ContainerSpec, NetworkMode};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
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

privileged!(a_replacement_starts_when_the_owner_is_killed, fixture, {
    // The owner is a shell that holds a copy of the control socket, so to say: here the test itself lets go.
    let mark = fixture.dir.join("mark");
    let mut with = options();
    with.respawn = Some(vec!["__launch".into(), mark.display().to_string()]);
    with.netns = LauncherNetns::New;
    let launcher = Launcher::spawn(with).unwrap();
    let pid = launcher.pid();
    // A drop says goodbye, and no replacement comes: the launcher just ends.
    drop(launcher);
    wait_until("the launcher's end", || !is_alive(pid)).await;
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
    let private: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    assert!(private < 1024, "{private} KiB\n{rollup}");
    container.kill(9);
    container.exit().await;
});
