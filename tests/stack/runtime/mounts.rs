//! The root file system and what is mounted in it.

use super::harness::{Fixture, sh};
use crate::privileged;
use stack_runtime::launch::BindFiles;
use stack_runtime::spec::{ContainerSpec, MountKindSpec, MountSpec};
use std::fs;
use std::path::PathBuf;

fn mount(kind: MountKindSpec, target: &str, read_only: bool) -> MountSpec {
    MountSpec { kind, target: target.into(), read_only }
}

fn bind(source: PathBuf, target: &str, read_only: bool) -> MountSpec {
    mount(
        MountKindSpec::Bind { source, create: false, propagation: None, recursive: None },
        target,
        read_only,
    )
}

fn volume(target: &str, nocopy: bool) -> MountSpec {
    let kind = MountKindSpec::Volume { name: "v".into(), nocopy, subpath: None, anonymous: false };
    mount(kind, target, false)
}

fn with(mounts: Vec<MountSpec>, script: &str) -> ContainerSpec {
    ContainerSpec { mounts, ..sh(script) }
}

fn dir(fixture: &Fixture, name: &str) -> PathBuf {
    let dir = fixture.dir.join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

privileged!(the_root_is_the_image_with_a_layer_of_its_own, fixture, {
    let request = fixture.request(sh("cat /data/seed; echo changed > /data/seed; rm /etc/group; ls /etc"));
    let upper = request.dir.join("upper");
    let (_, output) = fixture.run_request(request).await;
    assert_eq!(output, "from the image\npasswd\n");
    assert_eq!(fs::read_to_string(upper.join("data/seed")).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(fixture.image().join("data/seed")).unwrap(), "from the image\n");
});

privileged!(the_writable_layer_survives_a_restart, fixture, {
    let first = fixture.request(sh("echo kept > /tmp/file"));
    let dir = first.dir.clone();
    fixture.run_request(first).await;
    let mut second = fixture.request(sh("cat /tmp/file"));
    second.dir = dir;
    assert_eq!(fixture.run_request(second).await.1, "kept\n");
});

privileged!(many_layers_stack_up_with_the_top_first, fixture, {
    let mut lower_dirs = Vec::new();
    for number in 0..120 {
        let layer = dir(fixture, &format!("layers/with-a-rather-long-name-{number}/fs"));
        fs::write(layer.join(format!("file-{number}")), "").unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        lower_dirs.push(layer);
    }
    lower_dirs.push(fixture.image());
    let mut request = fixture.request(sh("ls / | grep -c '^file-'; cat /top"));
    request.lower_dirs = lower_dirs;
    assert_eq!(fixture.run_request(request).await.1, "120\n0");
});

privileged!(system_mounts_are_as_dockers, fixture, {
    let (_, output) = fixture.sh("awk '{print $5, $6}' /proc/self/mountinfo | grep -v masked").await;
    for expected in [
        "/proc rw,nosuid,nodev,noexec",
        "/dev rw,nosuid",
        "/dev/pts rw,nosuid,noexec",
        "/dev/shm rw,nosuid,nodev,noexec",
        "/dev/mqueue rw,nosuid,nodev,noexec",
        "/sys ro,nosuid,nodev,noexec",
        "/sys/fs/cgroup ro,nosuid,nodev,noexec",
    ] {
        assert!(output.lines().any(|line| line.starts_with(expected)), "{expected} in {output}");
    }
    let (_, output) = fixture
        .sh("stat -c '%a %n' /dev/null /dev/shm /dev; readlink /dev/fd; readlink /dev/ptmx; mount | grep -c overlay")
        .await;
    assert_eq!(output, "666 /dev/null\n1777 /dev/shm\n755 /dev\n/proc/self/fd\npts/ptmx\n1\n");
    let (_, output) = fixture
        .sh("for n in null zero full random urandom tty; do [ -c /dev/$n ] && echo $n; done; \
            for n in stdin stdout stderr core; do readlink /dev/$n; done; \
            awk '$2 == \"/dev\" || $2 == \"/dev/pts\" { print $4 }' /proc/mounts")
        .await;
    let (nodes, options) = output.split_at(output.find("rw,").expect("options"));
    let core = if std::path::Path::new("/proc/kcore").exists() { "/proc/kcore\n" } else { "" };
    let links = "/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n";
    assert_eq!(nodes, format!("null\nzero\nfull\nrandom\nurandom\ntty\n{links}{core}"));
    for option in ["size=65536k", "mode=755", "gid=5", "mode=620", "ptmxmode=666"] {
        assert!(options.contains(option), "{option}: {options}");
    }
});

privileged!(shm_has_the_asked_size, fixture, {
    let wanted = ContainerSpec {
        shm_size: Some(1 << 20),
        ..sh("dd if=/dev/zero of=/dev/shm/x bs=1k count=2048 2>/dev/null; wc -c < /dev/shm/x")
    };
    assert_eq!(fixture.run(wanted).await.1, "1048576\n");
});

privileged!(a_read_only_root_leaves_mounts_writable, fixture, {
    let tmp = mount(
        MountKindSpec::Tmpfs { size: Some(65536), mode: Some(0o700), options: String::new() },
        "/run",
        false,
    );
    let script = "touch /x 2>&1; touch /run/x /dev/shm/x && stat -c %a /run; mkdir -p /var/new 2>&1; ";
    let wanted = ContainerSpec { read_only: true, mounts: vec![tmp], ..sh(script) };
    let (_, output) = fixture.run(wanted).await;
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert!(output.contains("700\n"), "{output}");
});

privileged!(binds_of_directories_and_files, fixture, {
    let source = dir(fixture, "source");
    fs::write(source.join("file"), "bound\n").unwrap();
    let mounts =
        vec![bind(source.join("file"), "/etc/app/deep/conf", true), bind(source.clone(), "/mnt", false)];
    let script = "cat /etc/app/deep/conf /mnt/file; echo new > /mnt/new; echo x > /etc/app/deep/conf";
    let (code, output) = fixture.run(with(mounts, script)).await;
    assert!(output.starts_with("bound\nbound\n") && output.contains("Read-only"), "{output}");
    assert_ne!(code, Some(0));
    assert_eq!(fs::read_to_string(source.join("new")).unwrap(), "new\n");
    let missing = fixture.request(with(vec![bind("/nope/nothing".into(), "/x", false)], "true"));
    let error = fixture.create(missing).await.err().expect("it is refused");
    assert!(error.reason.contains("bind source path does not exist: /nope/nothing"), "{error}");
});

privileged!(a_link_in_the_image_cannot_lead_a_mount_out, fixture, {
    let outside = dir(fixture, "outside");
    let layer = dir(fixture, "evil");
    std::os::unix::fs::symlink(&outside, layer.join("way")).unwrap();
    let source = dir(fixture, "plain");
    fs::write(source.join("mark"), "inside").unwrap();
    let mut request = fixture.request(with(vec![bind(source, "/way/in", false)], "cat /way/in/mark"));
    request.lower_dirs.insert(0, layer);
    assert_eq!(fixture.run_request(request).await.1, "inside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
});

privileged!(an_empty_volume_gets_what_the_image_has, fixture, {
    for (nocopy, expected) in [(false, "from the image\n"), (true, "")] {
        let data = dir(fixture, &format!("volumes/v-{nocopy}/_data"));
        let mut request =
            fixture.request(with(vec![volume("/data", nocopy)], "cat /data/seed; echo more > /data/own"));
        request.volumes.insert("/data".into(), data.clone());
        let (_, output) = fixture.run_request(request).await;
        assert_eq!(output.replace("cat: can't open '/data/seed': No such file or directory\n", ""), expected);
        assert_eq!(fs::read_to_string(data.join("own")).unwrap(), "more\n");
    }
});

privileged!(a_volume_with_content_is_left_alone, fixture, {
    let data = dir(fixture, "volumes/full/_data");
    fs::write(data.join("mine"), "").unwrap();
    let mut request = fixture.request(with(vec![volume("/data", false)], "ls /data"));
    request.volumes.insert("/data".into(), data);
    assert_eq!(fixture.run_request(request).await.1, "mine\n");
});

privileged!(contents_are_written_with_owner_and_mode, fixture, {
    let content = MountKindSpec::Content { content: "secret".into(), mode: 0o440, uid: 1000, gid: 1001 };
    let wanted = with(
        vec![mount(content, "/run/secrets/key", true)],
        "cat /run/secrets/key; stat -c ' %a %u %g' /run/secrets/key",
    );
    assert_eq!(fixture.run(wanted).await.1, "secret 440 1000 1001\n");
});

privileged!(an_image_is_mounted_read_only, fixture, {
    let kind = |subpath: Option<&str>| MountKindSpec::Image {
        chain_id: "sha256:0".into(),
        subpath: subpath.map(str::to_owned),
    };
    for (subpath, path) in [(None, "/img/data/seed"), (Some("data"), "/img/seed")] {
        let script = format!("cat {path}; touch /img/x");
        let mut request = fixture.request(with(vec![mount(kind(subpath), "/img", true)], &script));
        request.images.insert("/img".into(), vec![dir(fixture, "more"), fixture.image()]);
        let (_, output) = fixture.run_request(request).await;
        assert!(output.starts_with("from the image\n") && output.contains("Read-only"), "{output}");
    }
});

privileged!(hosts_files_are_read_at_start_not_at_create, fixture, {
    let mut request =
        fixture.request(sh("cat /etc/hosts /etc/hostname /etc/resolv.conf; echo x >> /etc/hosts"));
    let file = |name: &str| Some(fixture.dir.join(name));
    request.files =
        BindFiles { hosts: file("hosts"), hostname: file("hostname"), resolv_conf: file("resolv") };
    let container = fixture.create(request).await.unwrap();
    for name in ["hosts", "hostname", "resolv"] {
        fs::write(fixture.dir.join(name), format!("{name}\n")).unwrap();
    }
    fixture.start(&container).await.unwrap();
    assert_eq!(container.exit().await.code, Some(0));
    assert_eq!(container.output(), "hosts\nhostname\nresolv\n");
    assert_eq!(fs::read_to_string(fixture.dir.join("hosts")).unwrap(), "hosts\nx\n");
});

privileged!(nothing_is_mounted_on_the_host, fixture, {
    let container = fixture.up(sh("echo up; sleep 1000")).await;
    container.wait_for_output("up").await;
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(mounts.contains(" shared:"));
    let ours = fixture.dir.to_string_lossy().into_owned();
    assert!(!mounts.contains(&ours), "{mounts}");
    container.kill(9);
    container.exit().await;
});
