//! One function per fact.

use super::bed::{Bed, Case, PROJECT, crash_rounds, eventually, health, spec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stack::supervise::Client;
use stack::supervise::protocol::What;
use stack_runtime::engine::{Engine, ErrorKind, Until, Waited};
use stack_runtime::observed::{Exit, HealthStatus, State};
use stack_runtime::spec::{
    ContainerSpec, EndpointSpec, ExecSpec, NetworkMode, NetworkSpec, PortSpec, Protocol, RestartSpec,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ALL: &[(&str, Case)] = &[$((stringify!($name), |bed| Box::pin($name(bed)))),*];
    };
}

cases![
    the_exit_code_is_kept,
    a_handler_gets_the_stop_signal_and_its_grace,
    a_pid_1_that_does_not_hear_is_not_waited_for,
    the_child_of_a_shell_is_told_to_stop,
    a_container_that_ignores_the_signal_is_killed_after_its_grace,
    on_failure_restarts_and_gives_up,
    always_restarts_until_stopped,
    a_kill_between_two_attempts_ends_them,
    a_missing_program_is_named_and_does_not_loop,
    a_removed_by_itself_container_leaves_its_exit_code,
    a_healthy_container_is_found_soon_whatever_its_interval,
    a_container_that_never_gets_healthy_is_unhealthy,
    a_probe_that_hangs_is_killed,
    exec_joins_and_passes_the_code_through,
    exec_into_a_stopped_container_is_refused,
    a_running_container_is_not_removed,
    a_killed_supervisor_is_replaced_and_its_containers_run_on,
    an_exit_that_nobody_saw_is_dealt_with,
    a_killed_monitor_ends_its_container_with_an_unknown_code,
    health_goes_on_after_adoption,
    two_clients_start_one_supervisor,
    pause_and_resume,
    events_are_told_in_order,
    many_containers_at_once,
    a_killed_launcher_is_replaced,
    names_and_ports_work_and_come_back_after_a_crash,
    a_taken_port_is_named_with_its_holder,
    killed_at_random_moments_it_still_does_what_it_was_asked,
];

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

fn exited(waited: Waited) -> Exit {
    match waited {
        Waited::Exited(exit) => exit,
        other => panic!("not an exit: {other:?}"),
    }
}

fn has_sigterm_handler(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap_or("0");
    u64::from_str_radix(caught.trim(), 16).is_ok_and(|mask| mask & (1 << 14) != 0)
}

async fn the_exit_code_is_kept(bed: Bed) {
    let id = bed.start(spec("a", "exit 42")).await;
    assert_eq!(bed.exit_code(&id).await, Some(42));
    let State::Exited { exit } = bed.observe(&id).state else { panic!("{:?}", bed.observe(&id).state) };
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (Some(42), None, false));
    bed.down().await;
}

async fn a_handler_gets_the_stop_signal_and_its_grace(bed: Bed) {
    let id = bed.start(spec("a", "trap 'sleep 0.3; exit 7' TERM; while :; do sleep 0.05; done")).await;
    let pid = bed.pid(&id);
    eventually("the trap is set", || has_sigterm_handler(pid)).await;
    bed.engine.stop(PROJECT, &id, None).await.expect("stop");
    assert_eq!(bed.exit_code(&id).await, Some(7));
    bed.down().await;
}

async fn a_pid_1_that_does_not_hear_is_not_waited_for(bed: Bed) {
    let id = bed.start(ContainerSpec { args: vec!["sleep".into(), "1000".into()], ..spec("a", "") }).await;
    let begun = Instant::now();
    bed.engine.stop(PROJECT, &id, None).await.expect("stop");
    assert!(begun.elapsed() < Duration::from_secs(8), "not the ten seconds of grace: {:?}", begun.elapsed());
    assert_eq!(bed.exit_code(&id).await, Some(137));
    bed.down().await;
}

async fn the_child_of_a_shell_is_told_to_stop(bed: Bed) {
    let script =
        "sh -c 'trap \"exit 5\" TERM; touch /ready; while :; do sleep 0.05; done'; code=$?; exit $code";
    let id = bed.start(spec("a", script)).await;
    let upper = bed.home.container(PROJECT, &id).join("upper/ready");
    eventually("the child runs", || upper.exists()).await;
    bed.engine.stop(PROJECT, &id, None).await.expect("stop");
    assert_eq!(bed.exit_code(&id).await, Some(5));
    bed.down().await;
}

async fn a_container_that_ignores_the_signal_is_killed_after_its_grace(bed: Bed) {
    let id = bed.start(spec("a", "trap : TERM; touch /ready; while :; do sleep 0.05; done")).await;
    let pid = bed.pid(&id);
    eventually("the trap is set", || has_sigterm_handler(pid)).await;
    let begun = Instant::now();
    bed.engine.stop(PROJECT, &id, Some(Duration::from_millis(700))).await.expect("stop");
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let exit = exited(bed.wait(&id, Until::Exited).await);
    assert_eq!((exit.code, exit.signal), (Some(137), Some(9)));
    bed.down().await;
}

async fn on_failure_restarts_and_gives_up(bed: Bed) {
    let policy = RestartSpec::OnFailure(2);
    let id = bed.start(ContainerSpec { restart: policy, ..spec("a", "echo x >>/runs; exit 3") }).await;
    assert_eq!(bed.exit_code(&id).await, Some(3));
    let runs = std::fs::read_to_string(bed.home.container(PROJECT, &id).join("upper/runs")).expect("runs");
    assert_eq!((runs.lines().count(), bed.observe(&id).restart_count), (3, 2));
    assert!(matches!(bed.observe(&id).state, State::Exited { .. }));
    // A start by hand counts anew.
    bed.engine.start(PROJECT, &id).await.expect("start");
    eventually("all attempts again", || {
        let runs = std::fs::read_to_string(bed.home.container(PROJECT, &id).join("upper/runs"));
        runs.is_ok_and(|runs| runs.lines().count() == 6)
    })
    .await;
    assert_eq!((bed.exit_code(&id).await, bed.observe(&id).restart_count), (Some(3), 2));
    bed.down().await;
}

async fn always_restarts_until_stopped(bed: Bed) {
    let id = bed.start(ContainerSpec { restart: RestartSpec::Always, ..spec("a", "exit 0") }).await;
    eventually("it restarts", || bed.observe(&id).restart_count >= 3).await;
    bed.engine.stop(PROJECT, &id, None).await.expect("stop");
    let State::Exited { exit } = bed.observe(&id).state else { panic!("{:?}", bed.observe(&id).state) };
    assert_eq!(exit.code, Some(0));
    bed.down().await;
}

async fn a_kill_between_two_attempts_ends_them(bed: Bed) {
    let id = bed.start(ContainerSpec { restart: RestartSpec::Always, ..spec("a", "exit 3") }).await;
    eventually("the attempts are far apart", || bed.observe(&id).restart_count >= 4).await;
    eventually("it waits", || matches!(bed.observe(&id).state, State::Restarting { .. })).await;
    bed.engine.signal(PROJECT, &id, "KILL").await.expect("signal");
    assert_eq!(bed.exit_code(&id).await, Some(3));
    assert!(matches!(bed.observe(&id).state, State::Exited { .. }));
    bed.down().await;
}

async fn a_missing_program_is_named_and_does_not_loop(bed: Bed) {
    let broken =
        ContainerSpec { args: vec!["/no/such".into()], restart: RestartSpec::Always, ..spec("a", "") };
    let id = bed.create(broken).await;
    let error = bed.engine.start(PROJECT, &id).await.expect_err("it cannot start");
    assert_eq!(error.kind, ErrorKind::NoSuchProgram, "{error}");
    assert!(error.message.contains("/no/such"), "{error}");
    assert_eq!((bed.exit_code(&id).await, bed.observe(&id).restart_count), (Some(127), 0));
    bed.down().await;
}

async fn a_removed_by_itself_container_leaves_its_exit_code(bed: Bed) {
    let id = bed.start(ContainerSpec { auto_remove: true, ..spec("a", "exit 9") }).await;
    assert_eq!(bed.exit_code(&id).await, Some(9));
    eventually("it is removed", || !bed.exists(&id)).await;
    bed.down().await;
}

async fn a_healthy_container_is_found_soon_whatever_its_interval(bed: Bed) {
    let check = health("test -e /ready", Duration::from_secs(3600), 3);
    let id =
        bed.start(ContainerSpec { health: check, ..spec("a", "sleep 0.5; touch /ready; sleep 1000") }).await;
    assert_eq!(bed.wait(&id, Until::Healthy).await, Waited::Reached);
    let found = bed.observe(&id).health;
    assert_eq!((found.status, found.failing_streak), (HealthStatus::Healthy, 0));
    bed.down().await;
}

async fn a_container_that_never_gets_healthy_is_unhealthy(bed: Bed) {
    let check = health("echo no; exit 1", Duration::from_millis(200), 2);
    let id = bed.start(ContainerSpec { health: check, ..spec("a", "sleep 1000") }).await;
    assert_eq!(bed.wait(&id, Until::Healthy).await, Waited::Unhealthy);
    let found = bed.observe(&id).health;
    let last = found.log.last().expect("a result");
    assert_eq!((last.exit_code, last.output.as_str()), (1, "no\n"));
    bed.down().await;
}

async fn a_probe_that_hangs_is_killed(bed: Bed) {
    let mut check = health("echo begun; sleep 1000", Duration::from_millis(100), 1).expect("some");
    check.timeout = Duration::from_millis(300);
    let id = bed.start(ContainerSpec { health: Some(check), ..spec("a", "sleep 1000") }).await;
    assert_eq!(bed.wait(&id, Until::Healthy).await, Waited::Unhealthy);
    let found = bed.observe(&id).health;
    let last = found.log.last().expect("a result");
    assert_eq!(last.exit_code, -1);
    assert!(last.output.contains("exceeded timeout") && last.output.contains("begun"), "{}", last.output);
    bed.down().await;
}

async fn exec_joins_and_passes_the_code_through(bed: Bed) {
    let id = bed.start(spec("a", "echo here >/mark; sleep 1000")).await;
    let upper = bed.home.container(PROJECT, &id).join("upper/mark");
    eventually("it runs", || upper.exists()).await;
    assert_eq!(bed.exec(&id, "cat /mark; exit 33").await, (33, "here\n".into()));
    bed.down().await;
}

async fn exec_into_a_stopped_container_is_refused(bed: Bed) {
    let id = bed.start(spec("a", "exit 0")).await;
    bed.exit_code(&id).await;
    let nothing = std::fs::File::open("/dev/null").expect("null");
    let streams = [nothing.as_fd(), nothing.as_fd(), nothing.as_fd()];
    let error =
        bed.client().await.exec(&id, &ExecSpec::default(), Some(streams), (0, 0)).await.expect_err("stopped");
    assert_eq!(error.kind, ErrorKind::Conflict);
    bed.down().await;
}

async fn a_running_container_is_not_removed(bed: Bed) {
    let id = bed.start(spec("a", "sleep 1000")).await;
    let error = bed.engine.remove(PROJECT, &id, true).await.expect_err("it runs");
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(bed.exists(&id));
    bed.down().await;
}

async fn a_killed_supervisor_is_replaced_and_its_containers_run_on(bed: Bed) {
    let id = bed.start(spec("a", "sleep 1000")).await;
    let (pid, first) = (bed.pid(&id), bed.supervisor_pid());
    send(first, Signal::SIGKILL);
    eventually("its launcher starts the next one", || {
        stack::supervise::is_alive(&bed.home, PROJECT) && bed.supervisor_pid() != first
    })
    .await;
    assert_eq!(bed.pid(&id), pid);
    assert_eq!(bed.wait(&id, Until::Running).await, Waited::Reached);
    assert_eq!(bed.exec(&id, "exit 4").await.0, 4);
    bed.down().await;
}

async fn an_exit_that_nobody_saw_is_dealt_with(bed: Bed) {
    let script = "while ! test -e /go; do sleep 0.02; done; echo x >>/runs; exit 6";
    let id = bed.start(ContainerSpec { restart: RestartSpec::OnFailure(1), ..spec("a", script) }).await;
    let upper = bed.home.container(PROJECT, &id).join("upper");
    let (pid, supervisor) = (bed.pid(&id), bed.supervisor_pid());
    // Frozen, not killed: a killed one is replaced before the container can end unseen.
    send(supervisor, Signal::SIGSTOP);
    std::fs::write(format!("/proc/{pid}/root/go"), "").expect("go");
    let exit = bed.home.container(PROJECT, &id).join("exit.json");
    eventually("the end is written down", || exit.exists()).await;
    send(supervisor, Signal::SIGKILL);
    assert_eq!(bed.exit_code(&id).await, Some(6));
    let runs = std::fs::read_to_string(upper.join("runs")).expect("runs");
    assert_eq!((runs.lines().count(), bed.observe(&id).restart_count), (2, 1));
    bed.down().await;
}

async fn a_killed_monitor_ends_its_container_with_an_unknown_code(bed: Bed) {
    let id = bed.start(spec("a", "sleep 1000")).await;
    let dir = bed.home.container(PROJECT, &id);
    let run = stack_runtime::monitor::RunRecord::read(&dir).expect("readable").expect("runs");
    send(run.monitor_pid, Signal::SIGKILL);
    assert_eq!(bed.exit_code(&id).await, None);
    eventually("it is not left running", || stack_runtime::monitor::start_time(run.pid).is_err()).await;
    bed.down().await;
}

async fn health_goes_on_after_adoption(bed: Bed) {
    let check = health("test -e /ready", Duration::from_millis(200), 3);
    let id = bed.start(ContainerSpec { health: check, ..spec("a", "touch /ready; sleep 1000") }).await;
    assert_eq!(bed.wait(&id, Until::Healthy).await, Waited::Reached);
    send(bed.supervisor_pid(), Signal::SIGKILL);
    assert_eq!(bed.wait(&id, Until::Healthy).await, Waited::Reached);
    bed.exec(&id, "rm /ready").await;
    eventually("the next one probes on", || bed.observe(&id).health.status == HealthStatus::Unhealthy).await;
    bed.down().await;
}

async fn two_clients_start_one_supervisor(bed: Bed) {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_stack"));
    let connect = || Client::connect_or_spawn_from(program, &bed.home, PROJECT);
    let (a, b, c, d) = tokio::join!(connect(), connect(), connect(), connect());
    for client in [&a, &b, &c, &d] {
        assert!(client.as_ref().is_ok_and(|client| client.project() == PROJECT), "{client:?}");
    }
    let pid = bed.supervisor_pid();
    eventually("the others are gone", || bed.processes("stack\0__supervise\0") == [pid]).await;
    drop((a, b, c, d));
    bed.down().await;
}

async fn pause_and_resume(bed: Bed) {
    let id = bed.start(spec("a", "while :; do echo x >>/ticks; sleep 0.02; done")).await;
    let client = bed.client().await;
    client.pause(&id).await.expect("pause");
    assert!(matches!(bed.observe(&id).state, State::Paused { .. }));
    assert_eq!(client.pause(&id).await.expect_err("twice").kind, ErrorKind::Conflict);
    client.resume(&id).await.expect("resume");
    let ticks = bed.home.container(PROJECT, &id).join("upper/ticks");
    let size = || std::fs::metadata(&ticks).map_or(0, |meta| meta.len());
    let before = size();
    eventually("it goes on", || size() > before).await;
    client.pause(&id).await.expect("pause");
    bed.engine.stop(PROJECT, &id, Some(Duration::ZERO)).await.expect("a paused container stops");
    drop(client);
    bed.down().await;
}

async fn events_are_told_in_order(bed: Bed) {
    let mut notices = bed.client().await.subscribe().await.expect("subscribe");
    let restart = RestartSpec::OnFailure(1);
    let id = bed.start(ContainerSpec { restart, ..spec("a", "exit 1") }).await;
    let mut told = Vec::new();
    while told.len() < 5 {
        let notice = notices.next().await.expect("readable").expect("more");
        assert_eq!(notice.id, id);
        told.push(match notice.what {
            What::Started => "started",
            What::Exited(_) => "exited",
            What::Restarting { attempt: 1, .. } => "restarting",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, ["started", "exited", "restarting", "started", "exited"]);
    drop(notices);
    bed.down().await;
}

async fn many_containers_at_once(bed: Bed) {
    let starts = (0..12).map(|n| bed.start(spec(&format!("c{n}"), "sleep 1000")));
    let ids = futures_util::future::join_all(starts).await;
    for id in &ids {
        assert!(matches!(bed.observe(id).state, State::Running { .. }));
    }
    let begun = Instant::now();
    let stops = ids.iter().map(|id| bed.engine.stop(PROJECT, id, None));
    assert!(futures_util::future::join_all(stops).await.iter().all(Result::is_ok));
    assert!(begun.elapsed() < Duration::from_secs(9), "none waits for its grace: {:?}", begun.elapsed());
    bed.down().await;
}

async fn a_killed_launcher_is_replaced(bed: Bed) {
    let id = bed.start(spec("a", "sleep 1000")).await;
    let (pid, launcher) = (bed.pid(&id), bed.processes("stack\0__launch\0")[0]);
    send(launcher, Signal::SIGKILL);
    eventually("another one runs", || {
        bed.processes("stack\0__launch\0").iter().any(|other| *other != launcher)
    })
    .await;
    let other = bed.create(spec("b", "exit 3")).await;
    bed.engine.start(PROJECT, &other).await.expect("start");
    assert_eq!((bed.exit_code(&other).await, bed.pid(&id)), (Some(3), pid));
    bed.down().await;
}

/// The crash test below the command line: SIGKILL at random moments, and every effect still comes true.
async fn killed_at_random_moments_it_still_does_what_it_was_asked(bed: Bed) {
    let mut random = Random::seeded();
    for round in 0..crash_rounds() {
        let pause = Duration::from_millis(random.below(120));
        let killer = async {
            tokio::time::sleep(pause).await;
            for pid in bed.processes("stack\0__supervise\0") {
                // It may have ended by itself.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        };
        let work = async {
            let stays = bed.start(spec(&format!("stays{round}"), "sleep 1000")).await;
            let ends = bed.start(spec(&format!("ends{round}"), "exit 5")).await;
            assert_eq!(bed.exit_code(&ends).await, Some(5), "round {round}, killed after {pause:?}");
            bed.engine.stop(PROJECT, &stays, None).await.expect("stop");
            for id in [stays, ends] {
                bed.engine.remove(PROJECT, &id, true).await.expect("remove");
            }
        };
        tokio::join!(killer, work);
        if round % 10 == 9 {
            bed.engine.release(PROJECT).await.expect("release");
            bed.assert_nothing_left();
        }
    }
    bed.down().await;
}

struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_nanos() as u64;
        Self(seed | 1)
    }
    /// Marsaglia's xorshift: good enough to hit different moments.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn on_network(spec: ContainerSpec, alias: &str) -> ContainerSpec {
    let endpoint =
        EndpointSpec { network: "shop_default".into(), aliases: vec![alias.into()], ..Default::default() };
    ContainerSpec { network: NetworkMode::Bridge(vec![endpoint]), ..spec }
}

fn tcp_port(published: u16) -> PortSpec {
    let protocol = Protocol::Tcp;
    PortSpec { host_ip: Some("127.0.0.1".into()), published: (published, published), target: 80, protocol }
}

/// The page that a published port gives, if any.
fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.rsplit_once("\r\n\r\n").map(|(_, body)| body.to_owned()).filter(|body| !body.is_empty())
}

async fn names_and_ports_work_and_come_back_after_a_crash(bed: Bed) {
    let network = NetworkSpec { name: "shop_default".into(), ..Default::default() };
    bed.engine.create_network(PROJECT, &network).await.expect("network");
    let script = "echo hello >/index.html; exec httpd -f -p 80 -h /";
    let web = ContainerSpec { ports: vec![tcp_port(0)], ..on_network(spec("web-1", script), "web") };
    let web = bed.start(web).await;
    let other = bed.start(on_network(spec("other-1", "sleep 1000"), "other")).await;
    let port = bed.observe(&web).published.first().expect("a port").host_port;
    eventually("the page is served", || page(port).as_deref() == Some("hello\n")).await;
    let ask = "wget -qO- http://web/index.html";
    assert_eq!(bed.exec(&other, ask).await, (0, "hello\n".into()));

    let first = bed.supervisor_pid();
    send(first, Signal::SIGKILL);
    eventually("the same port answers again", || page(port).as_deref() == Some("hello\n")).await;
    assert_ne!(bed.supervisor_pid(), first);
    assert_eq!(bed.exec(&other, ask).await, (0, "hello\n".into()));
    assert_eq!(bed.observe(&web).published.first().map(|published| published.host_port), Some(port));

    bed.engine.stop(PROJECT, &web, None).await.expect("stop");
    assert_eq!(page(port), None);
    assert_ne!(bed.exec(&other, ask).await.0, 0);
    bed.engine.start(PROJECT, &web).await.expect("start");
    let port = bed.observe(&web).published.first().expect("a port").host_port;
    eventually("it is served again", || page(port).is_some()).await;
    bed.down().await;
}

async fn a_taken_port_is_named_with_its_holder(bed: Bed) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("address").port();
    let error = bed.engine.check_ports(&[tcp_port(port)]).expect_err("taken");
    assert_eq!(error.kind, ErrorKind::PortTaken);
    let holder = std::process::id().to_string();
    assert!(error.message.contains(&port.to_string()) && error.message.contains(&holder), "{error}");
    drop(taken);
    bed.engine.check_ports(&[tcp_port(port)]).expect("free");
    bed.engine.release(PROJECT).await.expect("nothing to release");
}
