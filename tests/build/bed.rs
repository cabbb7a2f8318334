//! A home of its own with a busybox image, a context, and a builder on them.

use libtest_mimic::Failed;
use nix::mount::{MsFlags, mount};
use stack::build::{
    self, BuildEnv, BuildEvent, BuildFailure, BuildRequest, BuildResult, DockerfileSource, Network,
};
use stack_runtime::home::Home;
use stack_runtime::image::{Image, ImageConfig, Reference, Store, archive};
use stack_runtime::snapshot;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(crate) type Case = fn(&Bed);

/// Far more than anything takes on an overloaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) struct Bed {
    pub(crate) env: BuildEnv,
    pub(crate) context: PathBuf,
    pub(crate) directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

/// What a build said and gave.
pub(crate) struct Built {
    pub(crate) result: Result<BuildResult, BuildFailure>,
    pub(crate) events: Vec<BuildEvent>,
}

/// `/` shared with nobody but our children; loopback up; nothing of the machine's network is here.
pub(crate) fn prepare_namespaces() {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).expect("root may change propagation");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "loopback is up");
}

pub(crate) fn run(case: Case) -> Result<(), Failed> {
    let bed = Bed::new();
    case(&bed);
    bed.assert_nothing_left();
    Ok(())
}

impl Bed {
    fn new() -> Self {
        let directory =
            tempfile::Builder::new().prefix("stack-build-").tempdir().expect("temporary directory");
        let home = Home { data: directory.path().join("home"), run: directory.path().join("home/run") };
        home.prepare().expect("home");
        let store = Store::open(&home).expect("a store");
        import_busybox(&store, directory.path());
        let context = directory.path().join("context");
        std::fs::create_dir(&context).expect("made");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        let env =
            BuildEnv { program: Some(env!("CARGO_BIN_EXE_stack").into()), ..BuildEnv::new(home, store) };
        Self { env, context, directory, runtime }
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.context.join(path);
        std::fs::create_dir_all(path.parent().expect("below the context")).expect("made");
        std::fs::write(path, content).expect("written");
    }

    /// A request without a way out, so that no test depends on `pasta`.
    pub(crate) fn request(&self, dockerfile: &str) -> BuildRequest {
        BuildRequest {
            context: self.context.clone(),
            dockerfile: DockerfileSource::Inline(dockerfile.into()),
            network: Network::None,
            ..BuildRequest::default()
        }
    }

    pub(crate) fn build_request(&self, request: BuildRequest) -> Built {
        let events = Mutex::new(Vec::new());
        let note = |event| events.lock().expect("not poisoned").push(event);
        let work = async { tokio::time::timeout(LONG, build::build(&self.env, &request, &note)).await };
        let result = self.runtime.block_on(work).expect("in time");
        Built { result, events: events.into_inner().expect("not poisoned") }
    }

    pub(crate) fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn build(&self, dockerfile: &str) -> Built {
        self.build_request(self.request(dockerfile))
    }

    pub(crate) fn image(&self, built: &Built) -> Image {
        let id = &built.success().image_id;
        self.env.store.image(id.as_str()).expect("read").expect("the image is there")
    }

    /// The file of an image, by its topmost layer that has it.
    pub(crate) fn file(&self, built: &Built, path: &str) -> Option<PathBuf> {
        let chain = self.image(built).chain_id;
        let lower = snapshot::lower_dirs(&self.env.store, &chain).expect("layers");
        lower.into_iter().map(|layer| layer.join(path)).find(|path| path.symlink_metadata().is_ok())
    }

    pub(crate) fn text(&self, built: &Built, path: &str) -> String {
        let file = self.file(built, path).unwrap_or_else(|| panic!("{path} is not in the image"));
        std::fs::read_to_string(file).expect("text")
    }

    /// Names below the top layer of an image.
    pub(crate) fn top_layer(&self, built: &Built) -> Vec<String> {
        let chain = self.image(built).chain_id;
        let top = snapshot::lower_dirs(&self.env.store, &chain).expect("layers").remove(0);
        let mut names = Vec::new();
        list(&top, &top, &mut names);
        names.sort();
        names
    }

    fn assert_nothing_left(&self) {
        let deadline = Instant::now() + LONG;
        while let Some(left) = self.left() {
            assert!(Instant::now() < deadline, "left: {left}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn left(&self) -> Option<String> {
        let home = self.directory.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let mount = mounts.lines().find(|line| line.contains(&home)).map(|line| format!("mount {line}"));
        mount
            .or_else(|| first_in(&self.env.home.build().join("tmp")))
            .or_else(|| first_in(&self.env.store.tmp()))
    }
}

fn first_in(directory: &Path) -> Option<String> {
    let entry = std::fs::read_dir(directory).ok()?.flatten().next()?;
    Some(entry.path().display().to_string())
}

fn list(root: &Path, directory: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        names.push(entry.path().strip_prefix(root).expect("below").display().to_string());
        if entry.file_type().expect("a type").is_dir() {
            list(root, &entry.path(), names);
        }
    }
}

impl Built {
    pub(crate) fn success(&self) -> &BuildResult {
        self.result.as_ref().unwrap_or_else(|failure| panic!("{}\n{:#?}", failure.render(), self.events))
    }

    pub(crate) fn failure(&self) -> String {
        self.result.as_ref().expect_err("the build fails").render()
    }

    /// Layer steps and how many came from the cache.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.success().steps, self.success().cached)
    }

    pub(crate) fn output(&self) -> Vec<&str> {
        let line = |event: &'_ BuildEvent| match event {
            BuildEvent::Output { line, .. } => Some(line.as_str().to_owned().leak() as &str),
            _ => None,
        };
        self.events.iter().filter_map(line).collect()
    }
}

fn import_busybox(store: &Store, scratch: &Path) {
    let asked = std::env::var_os("STACK_TEST_BUSYBOX").map(PathBuf::from);
    let places = asked.into_iter().chain(["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from));
    let busybox = places.into_iter().find(|p| p.exists());
    let rootfs = scratch.join("rootfs");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/busybox/rootfs.sh");
    let made = Command::new("sh").arg(script).arg(busybox.expect("busybox-static")).arg(&rootfs).status();
    assert!(made.is_ok_and(|status| status.success()), "a tree from busybox-static");
    let tar = Command::new("tar").arg("-C").arg(&rootfs).args(["-c", "."]).output().expect("tar");
    let config =
        ImageConfig { env: vec!["PATH=/bin".into()], cmd: Some(vec!["sh".into()]), ..ImageConfig::default() };
    let name = Reference::parse("busybox:1").expect("a name");
    archive::import(store, &tar.stdout[..], config, &[name]).expect("imported");
}
