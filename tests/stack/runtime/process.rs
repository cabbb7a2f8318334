//! What a program gets: streams, codes, environment, user, directory, descriptors.

use super::harness::{Fixture, sh, spec};
use crate::privileged;
use stack_runtime::launch::LaunchError;
use stack_runtime::logs::Stream;
use stack_runtime::monitor;
use stack_runtime::observed::State;
use stack_runtime::spec::ContainerSpec;
use std::fs;

async fn failure(fixture: &Fixture, spec: ContainerSpec) -> LaunchError {
    let container = fixture.create(fixture.request(spec)).await.unwrap();
    let error = fixture.start(&container).await.unwrap_err();
    let exit = container.exit().await;
    assert_eq!(exit.code, Some(error.code));
    assert_eq!(exit.error, Some(error.to_string()));
    error
}

privileged!(exit_code_and_both_streams_arrive, fixture, {
    let container = fixture.up(sh("echo out; echo err >&2; exit 7")).await;
    let exit = container.exit().await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (Some(7), None, false));
    let streams: Vec<(Stream, String)> =
        container.log().into_iter().map(|entry| (entry.stream, entry.log)).collect();
    assert_eq!(streams, [(Stream::Stdout, "out\n".into()), (Stream::Stderr, "err\n".into())]);
});

privileged!(a_missing_program_is_127_and_a_plain_file_126, fixture, {
    let missing = failure(fixture, spec(&["nope"])).await;
    assert_eq!(missing.to_string(), "failed to execute \"nope\": executable file not found in $PATH");
    assert_eq!(missing.code, 127);
    assert_eq!(failure(fixture, spec(&["/bin/nope"])).await.code, 127);
    assert_eq!(failure(fixture, spec(&["/data/seed"])).await.code, 126);
    assert_eq!(failure(fixture, spec(&["/data"])).await.code, 126);
});

privileged!(signals_end_with_128_plus_n, fixture, {
    let container = fixture.up(sh("echo up; exec sleep 1000")).await;
    container.wait_for_output("up").await;
    container.kill(9);
    let exit = container.exit().await;
    assert_eq!((exit.code, exit.signal), (Some(137), Some(9)));
});

privileged!(a_handled_signal_ends_as_the_program_wants, fixture, {
    let container =
        fixture.up(sh("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")).await;
    container.wait_for_output("up").await;
    container.kill(15);
    assert_eq!(container.exit().await.code, Some(3));
    assert!(container.output().ends_with("bye\n"));
});

privileged!(environment_has_defaults_and_the_users_wins, fixture, {
    let mut wanted = spec(&["env"]);
    wanted.env = vec![("A".into(), "1 2".into()), ("HOSTNAME".into(), "mine".into())];
    let (_, output) = fixture.run(wanted).await;
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["A=1 2", "HOME=/root", "HOSTNAME=mine", path]);
});

privileged!(users_are_looked_up_in_the_container, fixture, {
    let cases = [
        ("", &[][..], "uid=0(root) gid=0(root)"),
        ("web", &[], "uid=1000(web) gid=1001(web) groups=44(video)"),
        ("1000:0", &[], "uid=1000(web) gid=0(root)"),
        ("77", &["video"], "uid=77 gid=0(root) groups=44(video)"),
    ];
    for (user, groups, expected) in cases {
        let mut wanted = sh("id; echo $HOME");
        wanted.user = user.into();
        wanted.group_add = groups.iter().map(|group| (*group).to_owned()).collect();
        let (_, output) = fixture.run(wanted).await;
        let first = output.lines().next().unwrap_or_default();
        assert!(first.starts_with(expected), "{user:?}: {first}");
    }
    let unknown = ContainerSpec { user: "nobody-here".into(), ..sh("true") };
    let error = failure(fixture, unknown).await;
    assert!(
        error.reason.contains("unable to find user nobody-here: no matching entries in passwd file"),
        "{error}"
    );
});

privileged!(a_missing_working_directory_is_made_by_root, fixture, {
    let wanted =
        ContainerSpec { working_dir: "/srv/app".into(), user: "web".into(), ..sh("pwd; stat -c '%u %a' .") };
    assert_eq!(fixture.run(wanted).await.1, "/srv/app\n0 755\n");
});

privileged!(nothing_but_the_standard_streams_is_open, fixture, {
    let (_, output) = fixture.sh("ls /proc/self/fd; readlink /proc/self/fd/0; umask").await;
    // The third is the listed directory itself.
    assert_eq!(output, "0\n1\n2\n3\n/dev/null\n0022\n");
});

privileged!(a_user_may_open_its_own_streams_anew, fixture, {
    let wanted =
        ContainerSpec { user: "web".into(), ..sh("echo hello > /dev/stdout; echo oops > /dev/stderr") };
    assert_eq!(fixture.run(wanted).await.1, "hello\noops\n");
});

privileged!(rlimits_are_set_and_clamped_with_a_warning, fixture, {
    let mut wanted = sh("ulimit -n; ulimit -Hn");
    wanted.ulimits.insert("nofile".into(), (100, 200));
    wanted.ulimits.insert("core".into(), (0, 0));
    assert_eq!(fixture.run(wanted).await.1, "100\n200\n");
    let mut greedy = sh("true");
    greedy.ulimits.insert("memlock".into(), (-1, -1));
    let container = fixture.create(fixture.request(greedy)).await.unwrap();
    let warnings = fixture.start(&container).await.unwrap();
    assert!(warnings.iter().all(|warning| warning.starts_with("RLIMIT_MEMLOCK")), "{warnings:?}");
    container.exit().await;
});

privileged!(a_built_in_init_reaps_and_forwards, fixture, {
    let script =
        "trap 'exit 5' USR1; (sh -c 'sleep 0.05; exit 0' &); echo pid $$; while :; do sleep 0.05; done";
    let container = fixture.up(ContainerSpec { init: true, ..sh(script) }).await;
    container.wait_for_output("pid").await;
    assert!(!container.output().contains("pid 1\n"), "the program is pid 1");
    container.kill(10);
    assert_eq!(container.exit().await.code, Some(5));
});

privileged!(a_long_line_is_partial_entries_and_bytes_are_kept, fixture, {
    let (_, output) = fixture.sh("yes x | head -c 40001 | tr -d '\\n'; echo; echo end").await;
    let container = fixture.up(sh("yes 0123456789 | head -n 20000")).await;
    container.exit().await;
    assert_eq!(container.output(), "0123456789\n".repeat(20000));
    assert!(output.ends_with("end\n"));
});

privileged!(records_tell_the_state, fixture, {
    let container = fixture.create(fixture.request(sh("echo up; sleep 1000"))).await.unwrap();
    assert_eq!(monitor::observe(&container.dir).unwrap(), State::Created);
    fixture.start(&container).await.unwrap();
    container.wait_for_output("up").await;
    let State::Running { pid, .. } = monitor::observe(&container.dir).unwrap() else { panic!("it runs") };
    assert_eq!(pid, container.created.pid);
    container.kill(9);
    let exit = container.exit().await;
    assert_eq!(monitor::observe(&container.dir).unwrap(), State::Exited { exit });
    assert!(fs::read_dir(&container.dir).unwrap().flatten().all(|entry| entry.file_name() != "attach.sock"));
});
