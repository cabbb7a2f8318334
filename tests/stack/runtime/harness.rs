//! A launcher, a busybox image, and containers that are gone when the test is.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

use indexmap::IndexMap;
use stack_runtime::launch::{
    BindFiles, Created, JoinPids, LaunchError, LaunchRequest, LaunchStdio, Launcher, LauncherNetns,
    LauncherOptions,
};
use stack_runtime::logs::Entry;
use stack_runtime::observed::Exit;
use stack_runtime::spec::ContainerSpec;
use stack_runtime::{cgroup, monitor};
use std::cell::Cell;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Generous: machines are loaded.
pub const PATIENCE: Duration = Duration::from_secs(60);

const APPLETS: [&str; 33] = [
    "sh", "cat", "echo", "ls", "sleep", "id", "env", "mount", "umount", "hostname", "ps", "kill", "stty",
    "pwd", "touch", "mkdir", "rm", "unshare", "head", "tail", "wc", "grep", "ip", "dd", "tty", "stat",
    "sysctl", "mknod", "chroot", "awk", "readlink", "yes", "tr",
];

pub struct Fixture {
    pub dir: PathBuf,
    pub launcher: Launcher,
    group: String,
    next: Cell<u32>,
    _temporary: tempfile::TempDir,
}

/// A created container and where it lives.
pub struct Container {
    pub id: String,
    pub dir: PathBuf,
    pub created: Created,
}

/// Runs a test as root with a fixture in a runtime, or says that it does not.
pub fn privileged(name: &str, test: impl AsyncFnOnce(&Fixture)) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("STACK_TEST_PRIVILEGED").is_none(), "{name} needs root");
        eprintln!("SKIPPED {name}: needs root");
        return;
    }
    shared_mounts();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fixture = Fixture::new();
        test(&fixture).await;
        let group = fixture.group.clone();
        drop(fixture);
        assert_eq!(cgroups_left(&group), Vec::<PathBuf>::new(), "control groups are left");
    });
}

/// As under systemd: mounts spread from here, so one made in the wrong place would be seen. Of this thread only.
fn shared_mounts() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).unwrap();
}

pub fn spec(args: &[&str]) -> ContainerSpec {
    ContainerSpec { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..ContainerSpec::default() }
}

pub fn sh(script: &str) -> ContainerSpec {
    spec(&["sh", "-c", script])
}

pub fn options() -> LauncherOptions {
    let program = Some(env!("CARGO_BIN_EXE_stack").into());
    LauncherOptions { netns: LauncherNetns::New, program, ..LauncherOptions::default() }
}

impl Fixture {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let temporary = tempfile::Builder::new().prefix("stack-runtime-").tempdir().unwrap();
        let dir = temporary.path().to_owned();
        busybox(&dir.join("image"));
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let group = format!("stack/test-{}-{count}", std::process::id());
        let launcher = Launcher::spawn(options()).expect("the launcher starts");
        Self { dir, launcher, group, next: Cell::new(0), _temporary: temporary }
    }

    pub fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    pub fn request(&self, spec: ContainerSpec) -> LaunchRequest {
        let number = self.next.replace(self.next.get() + 1);
        let id = format!("{:064x}", u64::from(number) + 0xabc0_0000);
        let dir = self.dir.join("containers").join(&id);
        fs::create_dir_all(&dir).unwrap();
        LaunchRequest {
            dir,
            spec,
            lower_dirs: vec![self.image()],
            files: BindFiles::default(),
            volumes: IndexMap::new(),
            images: IndexMap::new(),
            join: JoinPids::default(),
            stdio: LaunchStdio::Logged,
            cgroup: format!("{}/{id}", self.group),
            ephemeral: false,
            id,
        }
    }

    pub async fn create(&self, request: LaunchRequest) -> Result<Container, LaunchError> {
        let (id, dir) = (request.id.clone(), request.dir.clone());
        let created =
            tokio::time::timeout(PATIENCE, self.launcher.create(request)).await.expect("create ends")?;
        Ok(Container { id, dir, created })
    }

    pub async fn start(&self, container: &Container) -> Result<Vec<String>, LaunchError> {
        let started = self.launcher.start(&container.created);
        tokio::time::timeout(PATIENCE, started).await.expect("start ends")
    }

    pub async fn up(&self, spec: ContainerSpec) -> Container {
        let container = self.create(self.request(spec)).await.expect("the container is created");
        self.start(&container).await.expect("the container starts");
        container
    }

    /// To the end: exit code and everything written.
    pub async fn run(&self, spec: ContainerSpec) -> (Option<i32>, String) {
        self.run_request(self.request(spec)).await
    }

    pub async fn run_request(&self, request: LaunchRequest) -> (Option<i32>, String) {
        let container = self.create(request).await.expect("the container is created");
        self.start(&container).await.expect("the container starts");
        let exit = container.exit().await;
        (exit.code, container.output())
    }

    /// A shell script to its end.
    pub async fn sh(&self, script: &str) -> (Option<i32>, String) {
        self.run(sh(script)).await
    }

    pub fn cgroup(&self, container: &Container) -> String {
        format!("{}/{}", self.group, container.id)
    }
}

/// A test that fails leaves nothing running: a container dies with its monitor.
impl Drop for Fixture {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.join("containers")).into_iter().flatten().flatten() {
            let run =
                monitor::RunRecord::read(&entry.path()).ok().flatten().filter(monitor::RunRecord::is_alive);
            if let Some(pid) = run.and_then(|run| rustix::process::Pid::from_raw(run.monitor_pid)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                let _ = cgroup::remove(&format!("{}/{}", self.group, entry.file_name().to_string_lossy()));
            }
        }
    }
}

impl Container {
    /// Waits for the monitor's end and reads what it left.
    pub async fn exit(&self) -> Exit {
        let pidfd = stack_runtime::sys::watch(self.created.monitor.try_clone().unwrap()).unwrap();
        let gone = async { drop(pidfd.readable().await.unwrap()) };
        tokio::time::timeout(PATIENCE, gone).await.expect("the monitor ends");
        monitor::read_exit(&self.dir).unwrap().expect("there is an exit record")
    }

    pub fn log(&self) -> Vec<Entry> {
        let text = fs::read_to_string(self.dir.join("log.json")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn output(&self) -> String {
        self.log().into_iter().map(|entry| entry.log).collect()
    }

    /// Polls until the program has written this.
    pub async fn wait_for_output(&self, wanted: &str) {
        wait_until(&format!("output {wanted:?}"), || self.output().contains(wanted)).await;
    }

    pub fn kill(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.created.pid).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::pidfd_send_signal(pidfd.as_fd(), signal).unwrap();
    }
}

pub async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A root file system of busybox, with a user, a group and some data.
fn busybox(root: &Path) {
    for dir in ["bin", "etc", "tmp", "data", "home/web"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let asked = std::env::var_os("STACK_TEST_BUSYBOX").map(PathBuf::from);
    let program = asked.into_iter().chain(["/bin/busybox".into()]).find(|path| path.exists());
    fs::copy(program.expect("busybox-static is installed"), root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1001:\nvideo:x:44:web\n").unwrap();
    fs::write(root.join("data/seed"), "from the image\n").unwrap();
}

fn cgroups_left(group: &str) -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    roots.map(|root| root.join(group)).filter(|dir| dir.exists()).collect()
}

/// Declares a test that needs root: name, the fixture's name, body.
#[macro_export]
macro_rules! privileged {
    ($(#[$attribute:meta])* $name:ident, $fixture:ident, $body:block) => {
        #[test]
        $(#[$attribute])*
        fn $name() {
            $crate::runtime::harness::privileged(stringify!($name), async |$fixture: &$crate::runtime::harness::Fixture| $body);
        }
    };
}
