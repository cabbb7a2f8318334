//! A home of its own with a busybox image, and an engine on it.

use libtest_mimic::Failed;
use nix::mount::{MsFlags, mount};
use stack::host::{HostEngine, observe};
use stack::supervise::Client;
use stack_runtime::engine::{Engine, Until, Waited};
use stack_runtime::home::{self, Home};
use stack_runtime::observed::{ContainerObserved, State};
use stack_runtime::spec::{ContainerSpec, ExecSpec, HealthSpec, Probe};
use std::future::Future;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) type Case = fn(Bed) -> Pin<Box<dyn Future<Output = ()>>>;

/// Far more than anything takes on an overloaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const PROJECT: &str = "shop";
/// Chain id of the busybox tree.
const CHAIN: &str = "b0";

pub(crate) struct Bed {
    pub(crate) engine: HostEngine,
    pub(crate) home: Home,
    _dir: tempfile::TempDir,
}

/// `/` shared with nobody but our children; loopback up; nothing of the machine's network is here.
pub(crate) fn prepare_namespaces() {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).expect("root may change propagation");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "loopback is up");
}

pub(crate) fn run(case: Case) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bed = Bed::new();
    let home = bed.home.clone();
    let done = runtime
        .block_on(async { tokio::time::timeout(LONG * 2 + LONG * crash_rounds() / 10, case(bed)).await });
    let log = std::fs::read_to_string(home.run_of(PROJECT).join("supervisor.log")).unwrap_or_default();
    done.map_err(|_| Failed::from(format!("took too long; the supervisor says:\n{log}")))
}

/// How often the crash case kills; `STACK_CRASH_ROUNDS`.
pub(crate) fn crash_rounds() -> u32 {
    std::env::var("STACK_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("stack-supervise-").tempdir().expect("temporary directory");
        // Longer than a socket's address may be.
        let data = dir.path().join("long".repeat(30));
        let home = Home { run: data.join("run"), data };
        home.prepare().expect("home");
        busybox_snapshot(&home);
        let engine = HostEngine::new(home.clone()).program(env!("CARGO_BIN_EXE_stack"));
        Self { engine, home, _dir: dir }
    }

    pub(crate) async fn client(&self) -> Arc<Client> {
        self.engine.client(PROJECT).await.expect("a supervisor")
    }

    pub(crate) async fn create(&self, spec: ContainerSpec) -> String {
        self.engine.create(PROJECT, &spec).await.expect("create")
    }

    /// Created and started.
    pub(crate) async fn start(&self, spec: ContainerSpec) -> String {
        let id = self.create(spec).await;
        self.engine.start(PROJECT, &id).await.expect("start");
        id
    }

    pub(crate) async fn wait(&self, id: &str, until: Until) -> Waited {
        tokio::time::timeout(LONG, self.engine.wait(PROJECT, id, until))
            .await
            .expect("in time")
            .expect("wait")
    }

    pub(crate) async fn exit_code(&self, id: &str) -> Option<i32> {
        match self.wait(id, Until::Exited).await {
            Waited::Exited(exit) => exit.code,
            other => panic!("not an exit: {other:?}"),
        }
    }

    pub(crate) fn observe(&self, id: &str) -> ContainerObserved {
        observe::container(&self.home, PROJECT, id).expect("observe").expect("exists")
    }

    pub(crate) fn exists(&self, id: &str) -> bool {
        observe::container(&self.home, PROJECT, id).expect("observe").is_some()
    }

    pub(crate) fn pid(&self, id: &str) -> i32 {
        match self.observe(id).state {
            State::Running { pid, .. } | State::Paused { pid, .. } => pid,
            other => panic!("not running: {other:?}"),
        }
    }

    /// Exit code and what was written to standard output.
    pub(crate) async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let spec = ExecSpec { args: shell(script), ..Default::default() };
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let nothing = std::fs::File::open("/dev/null").expect("null");
        let client = self.client().await;
        let streams = [nothing.as_fd(), writer.as_fd(), nothing.as_fd()];
        let mut exec = client.exec(id, &spec, Some(streams), (0, 0)).await.expect("exec");
        drop(writer);
        let code = exec.wait().await.expect("exit code");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        (code, text)
    }

    /// Stopped, removed, released; and nothing is left.
    pub(crate) async fn down(self) {
        for container in observe::containers(&self.home, PROJECT).expect("observe") {
            self.engine.stop(PROJECT, &container.id, Some(Duration::ZERO)).await.expect("stop");
            self.engine.remove(PROJECT, &container.id, true).await.expect("remove");
        }
        self.engine.release(PROJECT).await.expect("release");
        self.assert_nothing_left();
    }

    pub(crate) fn assert_nothing_left(&self) {
        let deadline = Instant::now() + LONG;
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left: {left:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn leftovers(&self) -> Vec<String> {
        let home = self.home.data.to_string_lossy().into_owned();
        let mut left: Vec<String> =
            processes_of(&home).iter().map(|(pid, command)| format!("process {pid} {command:?}")).collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        left.extend(mounts.lines().filter(|line| line.contains(&home)).map(|line| format!("mount {line}")));
        left.extend(self.home.run_of(PROJECT).exists().then(|| "run directory".to_owned()));
        left.extend(self.home.containers(PROJECT).exists().then(|| "containers directory".to_owned()));
        left
    }

    /// Our living processes whose command line begins so.
    pub(crate) fn processes(&self, command: &str) -> Vec<i32> {
        let all = processes_of(&self.home.data.to_string_lossy()).into_iter();
        all.filter(|(_, line)| line.starts_with(command)).map(|(pid, _)| pid).collect()
    }

    pub(crate) fn supervisor_pid(&self) -> i32 {
        let mark: serde_json::Value = home::read_json(&self.home.run_of(PROJECT).join("supervisor.json"))
            .expect("readable")
            .expect("mark");
        i32::try_from(mark["pid"].as_i64().expect("pid")).expect("pid")
    }
}

/// Living processes of ours: they have the home in their environment. Process id and command line.
fn processes_of(home: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if pid.cast_unsigned() != std::process::id() && String::from_utf8_lossy(&environment).contains(home) {
            found.push((pid, std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default()));
        }
    }
    found
}

/// What an image pull would have made.
fn busybox_snapshot(home: &Home) {
    let hex = CHAIN.repeat(32);
    let snapshot = home.store().join("snapshots").join(&hex);
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/busybox/rootfs.sh");
    let made = Command::new("sh").arg(tree).arg(busybox()).arg(snapshot.join("fs")).status();
    assert!(made.is_ok_and(|status| status.success()), "a tree from busybox-static");
    let meta = serde_json::json!({ "parent": "", "diff_id": format!("sha256:{hex}"), "size": 0 });
    home::replace_json(&snapshot.join("meta.json"), &meta).expect("meta");
}

fn busybox() -> PathBuf {
    if let Some(path) = std::env::var_os("STACK_TEST_BUSYBOX") {
        return path.into();
    }
    ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|p| p.exists())
        .expect("busybox-static")
}

pub(crate) fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).to_vec()
}

/// A busybox container that runs a script.
pub(crate) fn spec(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        image: "busybox".into(),
        chain_id: format!("sha256:{}", CHAIN.repeat(32)),
        args: shell(script),
        env: vec![("PATH".into(), "/bin".into())],
        ..Default::default()
    }
}

pub(crate) fn health(script: &str, interval: Duration, retries: u32) -> Option<HealthSpec> {
    Some(HealthSpec {
        probe: Probe::Exec(shell(script)),
        interval,
        timeout: Duration::from_secs(20),
        retries,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(5),
    })
}

/// Polls until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
