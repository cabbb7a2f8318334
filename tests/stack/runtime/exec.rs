//! Further programs in a running container, terminals, and attaching.

use super::harness::{Container, Fixture, PATIENCE, sh};
use crate::privileged;
use stack_runtime::launch::{ExecProcess, ExecRequest, ExecStdio, LaunchError};
use stack_runtime::logs::Stream;
use stack_runtime::monitor::{Attachment, connect_to};
use stack_runtime::spec::{ContainerSpec, ExecSpec};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

fn exec_sh(script: &str) -> ExecSpec {
    ExecSpec { args: sh(script).args, ..ExecSpec::default() }
}

async fn sleeper(fixture: &Fixture, wanted: ContainerSpec) -> Container {
    let container = fixture.up(ContainerSpec { args: sh("echo up; exec sleep 1000").args, ..wanted }).await;
    container.wait_for_output("up").await;
    container
}

async fn begin(
    fixture: &Fixture,
    container: &Container,
    exec: ExecSpec,
    stdio: ExecStdio,
) -> Result<ExecProcess, LaunchError> {
    let request = ExecRequest { pid: container.created.pid, dir: container.dir.clone(), exec, stdio };
    tokio::time::timeout(PATIENCE, fixture.launcher.exec(request)).await.expect("exec answers")
}

/// Exit code and standard output.
async fn exec(fixture: &Fixture, container: &Container, exec: ExecSpec) -> (i32, String) {
    let (output, theirs) = std::io::pipe().unwrap();
    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    let stdio = ExecStdio::Fds([null(), theirs.into(), null()]);
    let mut process = begin(fixture, container, exec, stdio).await.unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        File::from(OwnedFd::from(output)).read_to_string(&mut text).unwrap();
        text
    });
    let code = tokio::time::timeout(PATIENCE, process.wait()).await.expect("exec ends").unwrap();
    (code, read.await.unwrap())
}

async fn finish(container: Container) {
    container.kill(9);
    container.exit().await;
}

privileged!(exec_gives_output_and_code, fixture, {
    let container = sleeper(fixture, ContainerSpec::default()).await;
    let (code, output) =
        exec(fixture, &container, exec_sh("echo hello; ps | grep -c 'sleep 1000'; exit 9")).await;
    assert_eq!(code, 9);
    assert!(output.starts_with("hello\n"), "{output}");
    let (code, _) = exec(fixture, &container, exec_sh("kill -9 $$")).await;
    assert_eq!(code, 137);
    finish(container).await;
});

privileged!(exec_is_confined_as_the_container, fixture, {
    let container =
        sleeper(fixture, ContainerSpec { cap_drop: vec!["CHOWN".into()], ..ContainerSpec::default() }).await;
    let script = "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; \
        for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup | wc -l; ls /proc/self/fd | wc -l";
    let (_, inside) = exec(fixture, &container, exec_sh(script)).await;
    let (_, own) = fixture
        .run(ContainerSpec {
            cap_drop: vec!["CHOWN".into()],
            ..sh("grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status")
        })
        .await;
    assert!(inside.starts_with(&own), "{inside} {own}");
    for name in ["pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let link = std::fs::read_link(format!("/proc/{}/ns/{name}", container.created.pid)).unwrap();
        assert!(inside.contains(&*link.to_string_lossy()), "{name}: {inside}");
    }
    assert!(inside.ends_with("\n4\n"), "{inside}");
    finish(container).await;
});

privileged!(exec_has_its_own_user_directory_and_environment, fixture, {
    let mut wanted = ContainerSpec { working_dir: "/data".into(), ..ContainerSpec::default() };
    wanted.env = vec![("A".into(), "1".into()), ("B".into(), "2".into())];
    let container = sleeper(fixture, wanted).await;
    let mut spec = exec_sh("id -u; pwd; echo $A $B $HOME");
    assert_eq!(exec(fixture, &container, spec.clone()).await.1, "0\n/data\n1 2 /root\n");
    spec.user = Some("web".into());
    spec.working_dir = Some("/tmp".into());
    spec.env = vec![("B".into(), "3".into())];
    assert_eq!(exec(fixture, &container, spec).await.1, "1000\n/tmp\n1 3 /home/web\n");
    finish(container).await;
});

privileged!(exec_is_in_the_containers_groups, fixture, {
    let container = sleeper(fixture, ContainerSpec::default()).await;
    let (_, output) = exec(
        fixture,
        &container,
        exec_sh(
            "cat /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | grep -c \"^$$\\$\"",
        ),
    )
    .await;
    let groups: u32 = output.trim().parse().unwrap();
    assert!(groups >= 1, "{output}");
    finish(container).await;
});

privileged!(exec_of_nothing_is_127_and_of_a_dead_container_an_error, fixture, {
    let container = sleeper(fixture, ContainerSpec::default()).await;
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let nothing = ExecSpec { args: vec!["nope".into()], ..ExecSpec::default() };
    let error = begin(fixture, &container, nothing.clone(), ExecStdio::Fds([null(), null(), null()]))
        .await
        .unwrap_err();
    assert_eq!(error.code, 127);
    container.kill(9);
    container.exit().await;
    let error =
        begin(fixture, &container, nothing, ExecStdio::Fds([null(), null(), null()])).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to find the container: it is not running");
});

privileged!(an_exec_can_be_killed, fixture, {
    let container = sleeper(fixture, ContainerSpec::default()).await;
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let mut process =
        begin(fixture, &container, exec_sh("sleep 1000 & wait"), ExecStdio::Fds([null(), null(), null()]))
            .await
            .unwrap();
    process.kill().unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, process.wait()).await.unwrap().unwrap(), 137);
    finish(container).await;
});

privileged!(an_exec_with_a_terminal_has_its_size, fixture, {
    let container = sleeper(fixture, ContainerSpec::default()).await;
    let mut process = begin(
        fixture,
        &container,
        exec_sh("tty; stty size; echo $TERM"),
        ExecStdio::Tty { rows: 33, cols: 99 },
    )
    .await
    .unwrap();
    let mut master = File::from(process.pty.take().expect("there is a terminal"));
    let output = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        // The end of a terminal is EIO.
        let _ = master.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    assert_eq!(tokio::time::timeout(PATIENCE, process.wait()).await.unwrap().unwrap(), 0);
    assert_eq!(output.await.unwrap(), "/dev/pts/0\r\n33 99\r\nxterm\r\n");
    finish(container).await;
});

fn attach(dir: &Path) -> Attachment {
    Attachment::new(connect_to(dir, None).unwrap()).unwrap()
}

async fn collect(attachment: &Attachment, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let next = tokio::time::timeout(PATIENCE, attachment.output())
            .await
            .unwrap_or_else(|_| panic!("only {text:?}"));
        let Some((_, bytes)) = next.unwrap() else { break };
        text += &String::from_utf8_lossy(&bytes);
    }
    text
}

privileged!(a_terminal_is_attached_to_resized_and_left, fixture, {
    let wanted = ContainerSpec {
        tty: true,
        stdin_open: true,
        ..sh("while read line; do echo got $line; stty size; done")
    };
    let container = fixture.create(fixture.request(wanted)).await.unwrap();
    let first = attach(&container.dir);
    first.resize(40, 120).await.unwrap();
    fixture.start(&container).await.unwrap();
    first.input(b"one\n").await.unwrap();
    let text = collect(&first, "120\r\n").await;
    assert!(text.contains("got one\r\n40 120\r\n"), "{text:?}");
    drop(first);
    let second = attach(&container.dir);
    second.input(b"two\n").await.unwrap();
    assert!(collect(&second, "got two\r\n").await.contains("got two"));
    second.close_input().await.unwrap();
    collect(&second, "\u{0}").await;
    assert_eq!(container.exit().await.code, Some(0));
    assert!(container.output().contains("got one\r\n"));
});

privileged!(input_without_a_terminal_ends_when_closed, fixture, {
    let container = fixture
        .create(fixture.request(ContainerSpec { stdin_open: true, ..sh("cat; echo done >&2") }))
        .await
        .unwrap();
    let client = attach(&container.dir);
    fixture.start(&container).await.unwrap();
    let big = "0123456789abcde\n".repeat(16 * 1024);
    client.input(big.as_bytes()).await.unwrap();
    client.close_input().await.unwrap();
    let (mut out, mut err) = (0, String::new());
    while let Some((stream, bytes)) = tokio::time::timeout(PATIENCE, client.output()).await.unwrap().unwrap()
    {
        match stream {
            Stream::Stdout => out += bytes.len(),
            Stream::Stderr => err += &String::from_utf8_lossy(&bytes),
        }
    }
    assert_eq!((out, err.as_str()), (big.len(), "done\n"));
    assert_eq!(container.exit().await.code, Some(0));
});

privileged!(a_client_sees_the_first_byte, fixture, {
    let container = fixture.create(fixture.request(sh("echo first; exit 4"))).await.unwrap();
    let client = attach(&container.dir);
    fixture.start(&container).await.unwrap();
    assert_eq!(collect(&client, "first\n").await, "first\n");
    assert_eq!(container.exit().await.code, Some(4));
});
