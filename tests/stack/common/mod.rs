//! The ground that tests of the real thing stand on: a [`World`].
//!
//! A world is a thread with its own mount namespace (where `/` is shared, as systemd makes it; so a forgotten
//! "private" shows as a leak) and, unless it needs the outside, its own network namespace, so that ports never clash.
//! It has a home of its own (`STACK_HOME`), projects of its own, and a leak check: whatever happens in the test, every
//! project is taken down, and a process, mount, link, cgroup, socket or changed sysctl that is left is a failure.
//!
//! | variable | means |
//! |---|---|
//! | `STACK_TEST_PRIVILEGED=1` | a test that cannot run here (no root, no busybox, no images) fails instead of being skipped |
//! | `STACK_TEST_BUSYBOX` | a static busybox; default: what `tests/run` put in the cache, then the system's |
//! | `STACK_TEST_IMAGES` | an archive of the example's base images; default: what `tests/images/make` put in the cache |
//! | `STACK_TEST_USER=1` | as an ordinary user, who has no namespaces of their own: one test at a time |
//! | `STACK_TEST_DIR` | where worlds are, instead of the folder for temporary files of the build |
//! | `STACK_TEST_KEEP=1` | a failed test's home stays, and its path is printed |
// Every test file uses its own part; an integration test has no callers outside; a failed `unwrap` is a failed test.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

mod command;
mod http;
mod image;
mod leak;
mod project;
#[path = "../../../runtime/tests/common/registry.rs"]
pub mod registry;
mod terminal;
mod user;

pub use command::{Background, Ran};
pub use http::{Response, free_port, get, http};
pub use image::{Images, busybox};
pub use project::Project;
pub use terminal::Terminal;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Enough for anything on a machine with ten times the load it should have.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// See the module.
pub struct World {
    /// `STACK_HOME`.
    pub home: PathBuf,
    /// Holds home, projects and captured output.
    pub root: PathBuf,
    /// For an ordinary user in root's tests: a copy of the program where they can reach it.
    program: Option<PathBuf>,
    projects: RefCell<Vec<(String, PathBuf)>>,
    before: leak::Before,
}

/// What a world needs; finish with [`Wanted::run`].
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    uplink: bool,
    images: Images,
    user: bool,
}

impl World {
    /// Its own network namespace, and `busybox:1` in the store.
    pub fn with_busybox() -> Wanted {
        Wanted { uplink: false, images: Images::Busybox, user: false }
    }
    /// As above with the example's base images instead.
    pub fn with_base_images() -> Wanted {
        Wanted { uplink: false, images: Images::Base, user: false }
    }
    /// An empty store.
    pub fn empty() -> Wanted {
        Wanted { uplink: false, images: Images::None, user: false }
    }

    /// A directory named after the project, holding these files.
    pub fn project(&self, key: &str, files: &[(&str, &str)]) -> Project<'_> {
        let project = self.adopt(key, &self.root.join("projects").join(unique(key)));
        for (name, text) in files {
            project.write(name, text);
        }
        project
    }

    /// A directory copied from the checkout, e.g. an example.
    pub fn project_from(&self, key: &str, folder: &Path) -> Project<'_> {
        let directory = self.root.join("projects").join(unique(key));
        std::fs::create_dir_all(directory.parent().expect("below the root")).unwrap();
        let copied = std::process::Command::new("cp").arg("-r").arg(folder).arg(&directory).status().unwrap();
        assert!(copied.success(), "cannot copy {}", folder.display());
        self.adopt(key, &directory)
    }

    fn adopt(&self, key: &str, directory: &Path) -> Project<'_> {
        std::fs::create_dir_all(directory).unwrap();
        let name = directory.file_name().and_then(|n| n.to_str()).expect("made from a name").to_owned();
        self.projects.borrow_mut().push((name.clone(), directory.to_owned()));
        Project { world: self, key: key.to_owned(), name, directory: directory.to_owned() }
    }

    /// Runs the program outside any project.
    pub fn stack(&self, args: &[&str]) -> Ran {
        command::run(self, &self.root, &[], args, PATIENCE)
    }

    /// Runs the program in a directory, with nothing but what is in its environment.
    pub fn stack_in(&self, directory: &Path, env: &[(&str, &str)], args: &[&str]) -> Ran {
        command::run(self, directory, env, args, PATIENCE)
    }

    /// What is left of this world's projects now; empty when all is well.
    pub fn leaks(&self) -> Vec<String> {
        leak::find(self)
    }

    /// Processes of this world, by id and command line.
    pub fn processes(&self) -> Vec<(i32, String)> {
        leak::processes(&self.home.to_string_lossy())
    }

    /// The root of a running container, by the id (or its beginning) that `ps -q` prints.
    pub fn container_root(&self, id: &str) -> PathBuf {
        let stacks = self.home.join("stacks");
        let containers = std::fs::read_dir(stacks).unwrap().flatten().flat_map(|project| {
            std::fs::read_dir(project.path().join("containers")).into_iter().flatten().flatten()
        });
        let mut found = containers.filter(|entry| entry.file_name().to_string_lossy().starts_with(id));
        let directory = found.next().unwrap_or_else(|| panic!("no container {id}")).path();
        let run = std::fs::read(directory.join("run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
        PathBuf::from(format!("/proc/{}/root", run["pid"]))
    }

    /// Polls until nothing is left: PID 1 of a loaded machine reaps late.
    pub fn assert_no_leak(&self) {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let leaks = self.leaks();
            if leaks.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n{}", leaks.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What `down` of each project said if it failed: it may explain a leak, and is no failure of a test by itself,
    /// which may have broken its files on purpose.
    fn take_down(&self) -> Vec<String> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let mut failures = Vec::new();
        let stacks = self.home.join("stacks");
        for (name, directory) in self.projects.borrow().iter() {
            let args = ["-p", name, "down", "-v", "-t", "0", "--remove-orphans"];
            match command::try_run(self, directory, &[], &args, PATIENCE) {
                Some(ran) if ran.status.success() => {
                    assert!(!stacks.join(name).exists(), "down leaves the directory of {name}");
                }
                Some(ran) => failures.push(ran.to_string()),
                None => failures.push(format!("down of {name} did not end in {PATIENCE:?}")),
            }
        }
        failures
    }
}

impl Wanted {
    /// In the machine's own network namespace: builds that download.
    pub fn and_uplink(mut self) -> Self {
        self.uplink = true;
        self
    }

    /// The program runs as uid 1000, who has no subordinate ids, no service manager and no other privilege.
    pub fn as_ordinary_user(mut self) -> Self {
        self.user = is_root();
        self
    }

    /// Runs the test, in a thread of its own because namespaces belong to threads; visibly skips it where it cannot run.
    pub fn run(self, test: impl FnOnce(&World) + Send + 'static) {
        if let Err(reason) = self.possible() {
            return skip(&reason);
        }
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || self.enter_and_run(test));
        let ended = thread.expect("a thread").join();
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    fn possible(self) -> Result<(), String> {
        if !is_root() && std::env::var_os("STACK_TEST_USER").is_none() {
            return Err("needs root; or STACK_TEST_USER=1, to run as this user".into());
        }
        self.images.available()
    }

    fn enter_and_run(self, test: impl FnOnce(&World)) {
        enter_namespaces(self.uplink);
        // The checkout may lie where only root can go.
        let place = if self.user { std::env::temp_dir() } else { image::scratch() };
        let root = place.join(unique("world"));
        let home = root.join("home");
        std::fs::create_dir_all(&home).unwrap();
        let program = self.user.then(|| user::prepare(&root, &home));
        let world = World { home, root, program, projects: RefCell::default(), before: leak::Before::look() };
        if self.user {
            user::provide(&world, self.images);
        } else {
            self.images.provide(&world.home);
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&world)));
        let failures = world.take_down();
        let leaks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.assert_no_leak()));
        if leaks.is_err() {
            let _ = writeln!(std::io::stderr(), "{}", failures.join("\n"));
        }
        leak::sweep(&world);
        clear(&world.root, result.is_err());
        for ended in [result, leaks] {
            if let Err(panic) = ended {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn clear(root: &Path, failed: bool) {
    if failed && std::env::var_os("STACK_TEST_KEEP").is_some() {
        let _ = writeln!(std::io::stderr(), "kept: {}", root.display());
    } else {
        let _ = as_owner("rm").arg("-rf").arg(root).status();
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program that may touch the files of containers, also those of subordinate ids.
fn as_owner(program: &str) -> std::process::Command {
    if is_root() {
        return std::process::Command::new(program);
    }
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--", program]);
    command
}

/// An ordinary user's world is the machine's own.
fn enter_namespaces(uplink: bool) {
    if !is_root() {
        return;
    }
    let network = if uplink { CloneFlags::empty() } else { CloneFlags::CLONE_NEWNET };
    unshare(CloneFlags::CLONE_NEWNS | network).expect("root may unshare");
    let none = None::<&str>;
    // Private first: where the machine's `/` is shared, "shared" alone would stay in the machine's peer group.
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(none, "/", none, MsFlags::MS_REC | propagation, none).expect("root may change propagation");
    }
    if !uplink {
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "cannot bring up the loopback device");
    }
}

/// Says that a test did not run, past the capture of the test runner.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var("STACK_TEST_PRIVILEGED").as_deref() != Ok("1"), "{test} cannot run here: {reason}");
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

/// A figure for whoever reads the log, past the capture of the test runner.
pub fn note(text: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "{test}: {text}");
}

/// Calls until it gives a value; panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `KEY-t1234-5`: no other test, process or run has it at the same time.
fn unique(key: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{key}-t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
