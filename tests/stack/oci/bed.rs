//! A state directory, bundles, and nothing left when the test is over.

use crate::common::PATIENCE;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

pub(super) struct Bed {
    pub dir: PathBuf,
    next: Cell<u32>,
    _temporary: tempfile::TempDir,
}

/// A bundle on disk and its config, to be changed until it is run.
pub(super) struct Bundle<'a> {
    bed: &'a Bed,
    pub id: String,
    pub dir: PathBuf,
    pub config: Value,
}

pub(super) struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a test as root, where `/` is shared as under systemd, or says that it does not.
pub(super) fn bed(test: impl FnOnce(&Bed) + Send + 'static) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let busybox = crate::common::busybox();
    if !nix::unistd::geteuid().is_root() || busybox.is_none() {
        assert!(
            std::env::var_os("STACK_TEST_PRIVILEGED").is_none(),
            "{name} needs root and a static busybox"
        );
        crate::common::skip("needs root and a static busybox");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).unwrap();
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let temporary = tempfile::tempdir().unwrap();
        let bed = Bed { dir: temporary.path().to_owned(), next: Cell::new(0), _temporary: temporary };
        bed.make_root(&busybox.unwrap());
        test(&bed);
        bed.end(before);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Bed {
    /// One root for all bundles: containers get it read-only unless they ask for their own.
    fn make_root(&self, busybox: &Path) {
        fill_root(&self.dir.join("rootfs"), busybox);
    }

    pub(super) fn oci(&self, args: &[&str]) -> Said {
        self.feed(args, "")
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.arg("oci").arg("--root").arg(self.dir.join("state")).args(args);
        command.stdin(Stdio::null());
        command
    }

    pub(super) fn feed(&self, args: &[&str], input: &str) -> Said {
        let file = self.dir.join("input");
        fs::write(&file, input).unwrap();
        said(self.command(args).stdin(fs::File::open(file).unwrap()).output().unwrap())
    }

    /// As above; it must do.
    pub(super) fn ok(&self, args: &[&str]) -> String {
        let said = self.oci(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.out
    }

    pub(super) fn refused(&self, args: &[&str]) -> String {
        let said = self.oci(args);
        assert_ne!(said.code, 0, "{args:?} did: {}", said.out);
        said.err
    }

    pub(super) fn bundle(&self, script: &str) -> Bundle<'_> {
        self.next.set(self.next.get() + 1);
        let id = format!("t{}-{}", std::process::id(), unique(&self.dir, self.next.get()));
        let dir = self.dir.join(&id);
        fs::create_dir(&dir).unwrap();
        Bundle { bed: self, id, dir, config: config(&self.dir.join("rootfs"), script) }
    }

    pub(super) fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub(super) fn wait(&self, id: &str, status: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.status(id) != status {
            assert!(Instant::now() < deadline, "{id} is not {status} but {}", self.status(id));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn end(&self, mounts: usize) {
        for id in self.ok(&["list", "-q"]).lines() {
            self.ok(&["delete", "--force", id]);
        }
        let own = self.dir.file_name().unwrap().to_str().unwrap().to_owned();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = table.lines().filter(|line| line.contains(&own)).collect();
        assert_eq!((left, table.lines().count()), (vec![], mounts), "mounts are left");
        let groups = format!("t{}-", std::process::id());
        let suffix = own.trim_start_matches('.');
        let found = groups_named(Path::new("/sys/fs/cgroup"), &|name| {
            name.starts_with(&groups) && name.contains(suffix)
        });
        assert_eq!(found, Vec::<PathBuf>::new(), "control groups are left");
    }
}

/// Names of the groups below that fit.
fn groups_named(dir: &Path, fits: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
    {
        if fits(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
        found.extend(groups_named(&entry.path(), fits));
    }
    found
}

/// Ids are names of control groups too, which all tests of the machine share.
fn unique(dir: &Path, number: u32) -> String {
    format!("{}-{number}", dir.file_name().unwrap().to_string_lossy().trim_start_matches('.'))
}

pub(super) fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn fill_root(root: &Path, busybox: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp", "etc", "mnt", "root"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv/web:/bin/sh\n")
        .unwrap();
}

fn config(root: &Path, script: &str) -> Value {
    let plain = ["nosuid", "noexec", "nodev"];
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_SYS_CHROOT",
    ];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": root },
        "hostname": "bed",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777", "size=64k"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": plain },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" },
                { "type": "cgroup" },
            ],
        },
    })
}

impl Bundle<'_> {
    /// A root directory that belongs to this bundle alone.
    pub(super) fn own_root(&mut self) -> PathBuf {
        let root = self.dir.join("rootfs");
        fill_root(&root, &crate::common::busybox().unwrap());
        self.config["root"]["path"] = "rootfs".into();
        root
    }

    pub(super) fn mount(&mut self, target: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) {
        let mount =
            json!({ "destination": target, "type": kind, "source": source.as_ref(), "options": options });
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    pub(super) fn add_namespace(&mut self, namespace: Value) {
        self.drop_namespace(namespace["type"].as_str().unwrap());
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
    }

    pub(super) fn drop_namespace(&mut self, kind: &str) {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|own| own["type"] != kind);
    }

    pub(super) fn write(&self) {
        fs::write(self.dir.join("config.json"), serde_json::to_vec(&self.config).unwrap()).unwrap();
    }

    fn call<'b>(&'b self, verb: &'b str, options: &[&'b str]) -> Vec<&'b str> {
        self.write();
        let bundle = ["--bundle", self.dir.to_str().unwrap()];
        [&[verb], options, &[self.id.as_str()], &bundle].concat()
    }

    /// Runs it to its end.
    pub(super) fn run(&self) -> Said {
        self.bed.oci(&self.call("run", &[]))
    }

    /// What it prints; it must end well.
    pub(super) fn says(&self) -> String {
        let said = self.run();
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        said.out
    }

    pub(super) fn refused(&self) -> String {
        self.bed.refused(&self.call("create", &[]))
    }

    /// In the background, until it is deleted.
    pub(super) fn detach(&self) -> &str {
        self.detach_with(&[])
    }

    pub(super) fn detach_with(&self, options: &[&str]) -> &str {
        let args = self.call("run", &[&["--detach"], options].concat());
        let mut command = self.bed.command(&args);
        let status = command.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
        assert!(status.success(), "{args:?}");
        &self.id
    }

    pub(super) fn create(&self) -> &str {
        self.create_with(&[])
    }

    pub(super) fn create_with(&self, options: &[&str]) -> &str {
        let args = self.call("create", options);
        let output = self.dir.join("output");
        let mut command = self.bed.command(&args);
        let status = command.stdout(fs::File::create(output).unwrap()).status().unwrap();
        assert!(status.success(), "{args:?}");
        &self.id
    }

    /// What a created container has written.
    pub(super) fn output(&self) -> String {
        fs::read_to_string(self.dir.join("output")).unwrap()
    }

    pub(super) fn exec(&self, args: &[&str]) -> Said {
        self.bed.oci(&[&["exec"], args].concat())
    }
}
