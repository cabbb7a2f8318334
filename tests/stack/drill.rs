//! The security drill: known ways out of other runtimes, tried against this one.
//!
//! Overwriting the runtime's program (CVE-2019-5736) by way of `stack oci`, what lies over `/proc` when the runtime writes
//! to it (CVE-2025-52881) and hostile layers have tests of their own too, in `oci::confinement`, `init::confine` and the
//! runtime's `images` suite.

use crate::common::{PATIENCE, Project, World, eventually};
use std::os::unix::fs::symlink;

fn with(key: &'static str, compose: &'static str, test: impl FnOnce(&World, &Project<'_>) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let project = world.project(key, &[("compose.yaml", compose)]);
        test(world, &project);
    });
}

const IDLE: &str =
    "services: { web: { image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL } }";

/// Where its descriptors lead, of the shell that runs this and was given nothing but the first three. A `/dev/null`
/// that is not the container's is told.
const DESCRIPTORS: &str = "ls -l /proc/$$/fd; for n in 0 1 2; do test $(readlink /proc/$$/fd/$n) != /dev/null || \
    test /proc/$$/fd/$n -ef /dev/null || echo \"$n -> foreign\"; done";

/// Nothing but standard input, output and error, each a pipe, a terminal or nothing.
#[track_caller]
fn assert_only_streams(route: &str, text: &str) {
    let links = || text.lines().filter_map(|line| line.trim_end().split_once(" -> "));
    let numbers: Vec<&str> = links().filter_map(|(file, _)| file.split_whitespace().last()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{route}: {text}");
    for (_, target) in links() {
        let streams = ["pipe:", "socket:", "/dev/null", "/dev/pts/", "/dev/console"];
        assert!(streams.iter().any(|kind| target.starts_with(kind)), "{route}: {text}");
    }
}

#[test]
fn nothing_but_streams_reaches_a_program() {
    let compose = format!(
        r#"
services:
  web:
    image: "busybox:1"
    command: ["sh", "-c", {DESCRIPTORS:?}]
  probed:
    image: "busybox:1"
    command: [sleep, "1000"]
    stop_signal: SIGKILL
    healthcheck: {{ test: [CMD, sh, -c, {DESCRIPTORS:?}], interval: 100ms }}
  built:
    build:
      dockerfile_inline: |
        FROM busybox:1
        RUN ({DESCRIPTORS}) >/descriptors; true
    command: [cat, /descriptors]
"#
    )
    .replace('$', "$$");
    World::with_busybox().run(move |world| {
        let project = world.project("streams", &[("compose.yaml", &compose)]);
        let script = ["sh", "-c", DESCRIPTORS];
        project.stack(&["up", "-d", "probed"]).ok();
        let run = |args: &[&str]| project.stack(&[args, &script].concat()).ok().stdout;
        assert_only_streams("exec", &run(&["exec", "-T", "probed"]));
        assert_only_streams("run", &run(&["run", "--rm", "-T", "web"]));
        let up = project.stack(&["up", "--no-log-prefix", "web"]).ok();
        assert_only_streams("up", &up.stdout);
        let built = project.stack(&["run", "--rm", "-T", "--build", "built"]).ok();
        assert_only_streams("RUN", &built.stdout);
        let id = project.stack(&["ps", "-q", "probed"]).ok().text().to_owned();
        let health =
            world.home.join("stacks").join(&project.name).join("containers").join(id).join("health.json");
        let output = eventually("a probe", || {
            let health: serde_json::Value = serde_json::from_slice(&std::fs::read(&health).ok()?).ok()?;
            health["log"][0]["output"].as_str().map(str::to_owned)
        });
        assert_only_streams("probe", &output);
    });
}

/// CVE-2024-21626: a working directory behind a descriptor of the runtime.
#[test]
fn a_working_directory_is_never_a_descriptor_of_ours() {
    with("working-directory", IDLE, |world, project| {
        project.stack(&["up", "-d"]).ok();
        let marker = world.root.file_name().unwrap().to_str().unwrap();
        let look = format!(
            "pwd; cd ../../../../../../../..; ls {}; find / -xdev -name '{marker}' 2>&1",
            world.root.display()
        );
        for number in 3..24 {
            let directory = format!("/proc/self/fd/{number}");
            for verb in [&["exec", "-T"][..], &["run", "--rm", "-T"]] {
                let ran = project.stack(&[verb, &["-w", &directory, "web", "sh", "-c", &look]].concat());
                assert!(!ran.status.success() || !ran.stdout.contains(marker), "{ran}");
                assert!(!ran.stdout.lines().any(|line| line.contains(marker)), "{ran}");
            }
        }
        // The same by a link in the image, and by an instruction of it.
        project.write(
            "Dockerfile",
            &format!("FROM busybox:1\nRUN ln -s /proc/self/fd/8 /w\nWORKDIR /w\nRUN {look} >/seen || true\n"),
        );
        let compose = "services: { web: { build: ., command: [cat, /seen] } }";
        project.write("other.yaml", compose);
        let ran = project.stack(&["-f", "other.yaml", "run", "--rm", "-T", "web"]);
        assert!(!ran.stdout.contains(marker), "{ran}");
    });
}

/// CVE-2021-30465: a link that comes and goes where something is about to be mounted.
#[test]
fn a_mount_target_that_changes_under_our_hands_leads_nowhere_outside() {
    let compose = r#"
services:
  swaps:
    image: "busybox:1"
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    command:
      - sh
      - -c
      - |
        mkdir -p /data/place; ln -s /../../../../../../../../../.. /data/link; echo ready
        while :; do mv -T /data/place /data/aside; mv -T /data/link /data/place; mv -T /data/place /data/link; mv -T /data/aside /data/place; done
  victim:
    image: "busybox:1"
    profiles: [victim]
    volumes: ["data:/data", "second:/data/place/made-by-mount"]
    command: ["sh", "-c", "awk '{ print $$5 }' /proc/self/mountinfo | grep made-by-mount; ls -d /made-by-mount 2>/dev/null; true"]
volumes: { data: {}, second: {} }
"#;
    with("race", compose, |_, project| {
        project.stack(&["up", "-d", "swaps"]).ok();
        eventually("the swaps", || project.stack(&["logs", "swaps"]).text().contains("ready").then_some(()));
        let made =
            ["/", "/tmp", "/var", "/var/lib"].map(|dir| std::path::Path::new(dir).join("made-by-mount"));
        for _ in 0..25 {
            // Refused when the target is a link just then, or mounted inside: at the place or, by the link, in the root.
            let ran = project.stack(&["run", "--rm", "-T", "victim"]);
            let inside = ["/data/place/made-by-mount", "/made-by-mount", "/data/aside/made-by-mount"];
            assert!(ran.stdout.lines().all(|line| inside.contains(&line)), "{ran}");
            assert!(made.iter().all(|path| !path.exists()), "a directory was made on the host: {ran}");
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains("made-by-mount"), "a mount of the host: {ran}");
        }
    });
}

/// CVE-2025-31133, -52565, -52881: an image whose own files stand where the kernel's shall be.
#[test]
fn links_of_an_image_in_place_of_the_kernels_files_redirect_nothing() {
    World::with_busybox().run(|world| {
        let compose = r#"
services:
  web:
    build: .
    tty: true
    command: ["/bin/busybox", "sh", "-c", "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | head -c 1 | wc -c; ls -l /dev/null /dev/console; v=$$(cat /proc/sys/kernel/core_pattern); echo \"$$v\" >/proc/sys/kernel/core_pattern && echo wrote"]
"#;
        let dockerfile = "FROM scratch\nCOPY --from=busybox:1 /bin /bin\nCOPY tree/ /\n";
        let tricks: [(&str, &[(&str, &str)]); 4] = [
            ("devices", &[("dev/null", "/proc/sys/kernel/core_pattern"), ("dev/console", "/proc/sysrq-trigger"), ("dev/pts/0", "/proc/sys/kernel/core_pattern")]),
            ("dev", &[("dev", "/proc/sys/kernel")]),
            ("proc", &[("proc", "/tmp")]),
            ("sys", &[("sys", "/proc/sys")]),
        ];
        for (name, links) in tricks {
            let project = world.project(name, &[("compose.yaml", compose), ("Dockerfile", dockerfile)]);
            for (at, target) in links {
                let path = project.directory.join("tree").join(at);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink(target, path).unwrap();
            }
            let ran = project.spawn(&["up", "--no-log-prefix"]).wait(PATIENCE);
            assert!(!ran.stdout.contains("wrote"), "{name}: {ran}");
            if ran.stdout.contains("/dev/null") {
                assert!(ran.stdout.starts_with("0\r\n") || ran.stdout.starts_with("0\n"), "{name}: {ran}");
                assert!(ran.stdout.lines().any(|line| line.starts_with('c') && line.trim_end().ends_with("/dev/null")), "{name}: {ran}");
            } else {
                assert!(!ran.status.success(), "{name}: neither refused nor run: {ran}");
            }
            project.stack(&["down", "-v", "-t", "0"]).ok();
        }
    });
}

#[test]
fn settings_of_the_kernel_and_devices_of_the_host_are_out_of_reach() {
    with("kernel", IDLE, |_, project| {
        project.stack(&["up", "-d"]).ok();
        let says = |script: &str| {
            let ran = project.stack(&["exec", "-T", "web", "sh", "-c", script]).ok();
            ran.stdout
        };
        // Each is given the value that it has, so that a success would change nothing.
        let write = "for p in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname \
            /proc/sys/vm/panic_on_oom /proc/sys/fs/suid_dumpable /proc/irq/default_smp_affinity \
            /sys/kernel/uevent_helper /sys/kernel/mm/transparent_hugepage/enabled /sys/module/kernel/parameters/panic \
            $(find /sys/fs/cgroup -maxdepth 3 \\( -name release_agent -o -name cgroup.procs -o -name memory.max -o -name devices.allow \\) | head -n 20); \
            do test -e $p || continue; v=$(head -n 1 $p 2>/dev/null); (echo \"$v\" >$p) 2>/dev/null && echo \"wrote $p\"; done; \
            (echo >/proc/sysrq-trigger) 2>/dev/null && echo wrote sysrq; true";
        assert_eq!(says(write), "");
        let remount = "for p in /proc/sys /proc/sysrq-trigger /sys /; do mount -o remount,rw,bind $p 2>/dev/null && echo \"remounted $p\"; done; \
            umount /proc/kcore 2>/dev/null && echo uncovered; mount -t proc proc /mnt 2>/dev/null && echo mounted; \
            mkdir -p /tmp/r; mount -t tmpfs t /tmp/r 2>/dev/null && echo mounted; chroot / true; true";
        assert_eq!(says(remount), "");
        let devices = "for d in 'c 1 1' 'c 1 2' 'c 1 11' 'c 10 229' 'c 10 237' 'b 7 0' 'b 8 0' 'b 254 0' 'b 259 0'; do \
            mknod /tmp/d $d 2>/dev/null || continue; (head -c 1 /tmp/d >/dev/null) 2>/dev/null && echo \"opened $d\"; rm -f /tmp/d; done; true";
        assert_eq!(says(devices), "");
    });
}

/// What masks a file, and what stands for no input, must not be the host's to change.
#[test]
fn nobody_changes_the_null_device_of_the_host() {
    with("null", IDLE, |_, project| {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let null = || std::fs::metadata("/dev/null").unwrap();
        let before = (null().mode(), null().uid());
        let change = "for p in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts /proc/$$/fd/0 /proc/1/fd/0; do \
            test -c $p && chmod 600 $p 2>/dev/null; test -c $p && chown 7 $p 2>/dev/null; done; true";
        project.stack(&["up", "-d"]).ok();
        project.stack(&["exec", "-T", "web", "sh", "-c", change]).ok();
        project.stack(&["exec", "-d", "web", "sh", "-c", &format!("{change}; touch /done")]).ok();
        eventually("the other one", || {
            let seen = project.stack(&["exec", "-T", "web", "test", "-e", "/done"]);
            seen.status.success().then_some(())
        });
        project.stack(&["run", "--rm", "-T", "web", "sh", "-c", change]).ok();
        let after = (null().mode(), null().uid());
        if after != before {
            std::fs::set_permissions("/dev/null", std::fs::Permissions::from_mode(before.0)).unwrap();
            std::os::unix::fs::chown("/dev/null", Some(before.1), None).unwrap();
        }
        assert_eq!(after, before, "it is as it was again");
    });
}

/// Calls that lead to other containers or to the host, by their numbers on x86_64: refused by filter or capability.
const CALLS: &str = r#"
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
calls = {
    "add_key": (248, b"user", b"drill", b"x", 1, -3), "keyctl": (250, 0, -3, 1), "request_key": (249, b"user", b"drill", 0, -3),
    "unshare": (272, 0x10000000), "mount": (165, b"none", b"/mnt", b"tmpfs", 0, 0), "umount2": (166, b"/proc/kcore", 2),
    "bpf": (321, 0, 0, 0), "open_by_handle_at": (304, -100, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0), "init_module": (175, 0, 0, b""), "kexec_load": (246, 0, 0, 0, 0), "setns": (308, 0, 0),
    "pivot_root": (155, b"/", b"/"), "reboot": (169, 0xfee1dead, 672274793, 0, 0), "swapon": (167, b"/x", 0),
    "settimeofday": (164, 0, 0), "syslog": (103, 3, 0, 0), "iopl": (172, 3), "ptrace": (101, 16, 1, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "fsopen": (430, b"tmpfs", 0), "open_tree": (428, -100, b"/", 1),
}
for name, (number, *args) in calls.items():
    ctypes.set_errno(0)
    if name in ("ptrace", "process_vm_readv") and os.getpid() == 1: continue
    result = libc.syscall(number, *args)
    got = errno.errorcode.get(ctypes.get_errno(), "none")
    # Looking at one's own neighbours is allowed, as in Docker; nobody else is there.
    if result == -1 and got in ("EPERM", "ENOSYS"): continue
    print(name, result, got)
print("uid", os.geteuid(), "pids", sorted(int(p) for p in os.listdir("/proc") if p.isdigit()))
"#;

#[test]
fn calls_that_lead_out_are_refused() {
    World::with_base_images().run(|world| {
        let compose = r#"
services:
  other: { image: "python:3.13-slim", command: [sleep, "1000"], stop_signal: SIGKILL }
  web: { image: "python:3.13-slim", command: [python, /drill.py], configs: [{ source: drill, target: /drill.py }], cap_drop: [SYS_PTRACE] }
configs: { drill: { file: drill.py } }
"#;
        let project = world.project("calls", &[("compose.yaml", compose), ("drill.py", CALLS)]);
        project.stack(&["up", "-d", "other"]).ok();
        let ran = project.stack(&["run", "--rm", "-T", "web"]).ok();
        assert_eq!(ran.text(), "uid 0 pids [1]", "{ran}");
    });
}

#[test]
fn a_program_with_the_set_user_id_bit_gains_nothing_where_that_is_forbidden() {
    World::with_base_images().run(|world| {
        let compose = r#"
x-web: &web
  build:
    dockerfile_inline: |
      FROM python:3.13-slim
      RUN cp -L /usr/bin/python3 /privileged && chmod 4755 /privileged
  user: "1000:1000"
  command: [/privileged, -c, "import os; print(os.getuid(), os.geteuid())"]
services:
  gains: { <<: *web }
  forbidden: { <<: *web, security_opt: ["no-new-privileges:true"] }
"#;
        let project = world.project("bit", &[("compose.yaml", compose)]);
        let says = |service: &str| project.stack(&["run", "--rm", "-T", service]).ok().text().to_owned();
        assert_eq!(says("gains"), "1000 0");
        assert_eq!(says("forbidden"), "1000 1000");
    });
}

/// CVE-2019-5736, of the launcher: a program that is the runtime itself, by the link that every process has to its own.
/// Ours, with the host's libraries, waits for a reader of its log.
#[test]
fn the_launchers_program_is_out_of_reach_for_writing() {
    let compose = r#"
x-web: &web
  image: "busybox:1"
  stop_signal: SIGKILL
  volumes: ["/lib:/lib:ro", "/lib64:/lib64:ro", "/usr/lib:/usr/lib:ro", "./pipes:/pipes"]
services:
  itself: { <<: *web, entrypoint: [/proc/self/exe], command: [oci, --debug, --log, /pipes/run, list] }
  idle: { <<: *web, command: [sleep, "1000"] }
"#;
    with("itself", compose, |_, project| {
        let pipes = project.directory.join("pipes");
        std::fs::create_dir(&pipes).unwrap();
        for name in ["run", "exec"] {
            nix::unistd::mkfifo(&pipes.join(name), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        }
        project.stack(&["up", "-d"]).ok();
        assert_program_is_read_only(project, "/pipes/run");
        let itself = ["/proc/self/exe", "oci", "--debug", "--log", "/pipes/exec", "list"];
        project.stack(&[&["exec", "-d", "-T", "idle"][..], &itself].concat()).ok();
        assert_program_is_read_only(project, "/pipes/exec");
        project.stack(&["kill"]).ok();
    });
}

/// Of the process with this word in its command line and the project's pipe before it.
#[track_caller]
fn assert_program_is_read_only(project: &Project<'_>, pipe: &str) {
    use rustix::fs::{Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_get_seals, fstatvfs, open};
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata(project.directory.join(&pipe[1..])).unwrap().ino();
    let is_it = |dir: &std::path::Path| {
        let line = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        let sees = std::fs::metadata(dir.join("root").join(&pipe[1..])).is_ok_and(|meta| meta.ino() == inode);
        sees && line.starts_with(b"/proc/self/exe\0") && line.split(|b| *b == 0).any(|w| w == pipe.as_bytes())
    };
    let process = eventually("the runtime inside", || {
        let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        all.into_iter().find(|dir| is_it(dir))
    });
    let program = open(process.join("exe"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let is_read_only = fstatvfs(&program).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY);
    let is_sealed = fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    assert!(is_read_only || is_sealed, "{} can be written", process.display());
}

#[test]
fn processes_of_neighbours_are_out_of_reach() {
    let compose = r#"
services:
  other: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL }
  web: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL, cap_add: [SYS_PTRACE, KILL] }
"#;
    with("neighbours", compose, |world, project| {
        project.stack(&["up", "-d"]).ok();
        let id = project.stack(&["ps", "-q", "other"]).ok().text().to_owned();
        let root = world.container_root(&id);
        let pid = root.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let look = format!(
            "ls /proc | grep -x {pid}; kill -0 {pid} 2>/dev/null && echo signalled; cat /proc/{pid}/environ 2>/dev/null; \
             ls /proc | grep -c '^[0-9]*$'"
        );
        // The shell's own, its helpers', and nobody else's.
        let seen = project.stack(&["exec", "-T", "web", "sh", "-c", &look]).ok();
        let count: usize = seen.text().parse().unwrap_or_else(|_| panic!("{seen}"));
        assert!(count <= 5, "{seen}");
    });
}

/// Keys that a program leaves in its session, with nothing but the kernel in the way.
const KEYS: &str = r#"
import ctypes, errno, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    result = libc.syscall(number, *args)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
if sys.argv[1] == "leave":
    print(call(248, b"user", b"drill", b"secret", 6, -3), flush=True)
    time.sleep(1000)
buffer = ctypes.create_string_buffer(16)
print(call(250, 10, -3, b"user", b"drill", 0), call(250, 11, int(sys.argv[2]), buffer, 16, 0), buffer.value.decode())
"#;

#[test]
fn keys_of_a_neighbour_are_out_of_reach() {
    World::with_base_images().run(|world| {
        let compose = r#"
x-web: &web { image: "python:3.13-slim", stop_signal: SIGKILL, security_opt: ["seccomp:unconfined"], configs: [{ source: keys, target: /keys.py }] }
services:
  other: { <<: *web, command: [python, /keys.py, leave] }
  web: { <<: *web, command: [python, /keys.py, look, "0"] }
configs: { keys: { file: keys.py } }
"#;
        let project = world.project("keys", &[("compose.yaml", compose), ("keys.py", KEYS)]);
        project.stack(&["up", "-d", "other"]).ok();
        let key = eventually("the key", || {
            let said = project.stack(&["logs", "--no-log-prefix", "other"]).ok();
            said.text().parse::<u32>().ok()
        });
        let look = ["run", "--rm", "-T", "web", "python", "/keys.py", "look", &key.to_string()];
        assert_eq!(project.stack(&look).ok().text(), "ENOKEY EACCES");
    });
}

/// Whoever may make a user namespace is root in it, and gets no further for that.
#[test]
fn root_of_an_inner_user_namespace_gets_no_further() {
    let compose = r#"
services:
  web: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL, security_opt: ["seccomp:unconfined"] }
"#;
    with("inner", compose, |_, project| {
        project.stack(&["up", "-d"]).ok();
        let tries = "umount /proc/kcore 2>/dev/null && echo uncovered; \
            for p in /proc/sys /proc/sysrq-trigger /sys; do mount -o remount,rw,bind $p 2>/dev/null && echo remounted $p; done; \
            (v=$(cat /proc/sys/kernel/core_pattern); echo \"$v\" >/proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote; \
            mknod /tmp/d b 254 0 2>/dev/null && (head -c 1 /tmp/d >/dev/null) 2>/dev/null && echo device; mkdir -p /tmp/m; \
            for t in proc sysfs cgroup2 'cgroup -o memory' 'cgroup -o rdma'; do mount -t $t none /tmp/m 2>/dev/null && echo mounted $t; done; \
            nsenter -t 1 -m true 2>/dev/null && echo entered; echo inside $(id -u)";
        let ran = project.stack(&["exec", "-T", "web", "unshare", "-U", "-r", "-m", "sh", "-c", tries]);
        // A host may forbid the namespace itself.
        assert!(matches!(ran.stdout.as_str(), "inside 0\n" | ""), "{ran}");
        assert_eq!(ran.status.success(), ran.stdout == "inside 0\n", "{ran}");
    });
}

/// A layer with a device and with a program that would be its owner's, unpacked by an ordinary user.
#[test]
fn devices_and_set_user_id_bits_in_a_layer_give_an_ordinary_user_nothing() {
    World::with_busybox().as_ordinary_user().run(|world| {
        use std::os::unix::fs::PermissionsExt;
        let dockerfile = "FROM busybox:1\nADD layer.tar /\n";
        let compose = "services: { web: { build: . , image: drill-layer, command: [sh, -c, \"ls -l /bit; (head -c 1 /dev-of-layer >/dev/null) && echo read; mknod /tmp/d c 1 1 && echo made; true\"] } }";
        let project = world.project("layer", &[("compose.yaml", compose), ("Dockerfile", dockerfile)]);
        let mut layer = tar::Builder::new(std::fs::File::create(project.directory.join("layer.tar")).unwrap());
        let mut append = |name: &str, kind, mode, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(data.len() as u64);
            header.set_device_major(1).unwrap();
            header.set_device_minor(5).unwrap();
            layer.append_data(&mut header, name, data).unwrap();
        };
        append("bit", tar::EntryType::Regular, 0o4755, b"#!/bin/sh\n");
        append("dev-of-layer", tar::EntryType::Char, 0o666, b"");
        layer.finish().unwrap();
        let ran = project.stack(&["run", "--rm", "-T", "--build", "web"]);
        assert!(!ran.stdout.contains("read") && !ran.stdout.contains("made"), "{ran}");
        // Whoever is not the owner gets to no file of a layer.
        let mode = std::fs::metadata(world.home.join("store/snapshots")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        world.assert_no_leak();
    });
}
