//! On a terminal: redrawn progress, colours, and the terminals of `exec` and `run`.

use crate::common::{Project, Terminal, World, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

/// `web` starts when `slow` is healthy, which is when the test says so.
const HELD: &str = r#"
services:
  slow:
    image: busybox:1
    command: ["sh", "-c", "echo slow begins; sleep 1000"]
    stop_signal: SIGKILL
    volumes: ["./go:/go"]
    healthcheck: { test: [CMD, test, -e, /go/now], interval: 1s, retries: 1000 }
  web:
    image: busybox:1
    command: ["sh", "-c", "echo web begins; sleep 1000"]
    stop_signal: SIGKILL
    depends_on: { slow: { condition: service_healthy } }
"#;

fn with(key: &'static str, compose: &'static str, test: impl FnOnce(&Project<'_>) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let project = world.project(key, &[("compose.yaml", compose), ("go/.keep", "")]);
        test(&project);
        project.stack(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        world.assert_no_leak();
    });
}

/// Lines that are rows of the progress, by what they are about.
fn rows<'a>(lines: &'a [String], thing: &str) -> Vec<&'a String> {
    lines.iter().filter(|line| line.contains(thing)).collect()
}

#[test]
fn progress_is_redrawn_in_place_whatever_the_width() {
    with("redrawn", HELD, |project| {
        for columns in [100, 44] {
            let mut up = Terminal::spawn(project, (30, columns), &[], &["up", "-d"]);
            let slow = format!("Container {}-slow-1", project.name);
            up.until("[+] up 2/3");
            let is_working = |line: &&String| {
                let spins = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏".chars().any(|c| line.starts_with(&format!(" {c} Container ")));
                spins && line.ends_with('s')
            };
            eventually("the spinner of what is waited for", || {
                let lines = up.lines();
                let working: Vec<_> = lines.iter().filter(is_working).cloned().collect();
                let is_whole = |line: &String| columns < 100 || line.contains(&format!("{slow} Waiting "));
                (working.len() == 1 && is_whole(&working[0])).then_some(())
            });
            project.write("go/now", "");
            up.code(0);
            let lines = up.lines();
            assert!(lines.contains(&"[+] up 3/3".to_owned()), "{lines:#?}");
            let rows = rows(&lines, &slow);
            assert_eq!(rows.len(), 1, "one row a thing: {lines:#?}");
            assert!(rows[0].starts_with(" ✔ "), "{lines:#?}");
            let text = lines.concat().replace(' ', "");
            assert!(text.contains("slow-1Healthy") && text.contains("web-1Started"), "{lines:#?}");
            std::fs::remove_file(project.directory.join("go/now")).unwrap();
            project.stack(&["down", "-t", "0"]).ok();
        }
    });
}

#[test]
fn on_a_low_terminal_finished_rows_make_room() {
    let many = r#"
services:
  many: { image: "busybox:1", command: [sleep, "1000"], stop_signal: SIGKILL, scale: 9 }
  slow:
    image: busybox:1
    command: [sleep, "1000"]
    stop_signal: SIGKILL
    volumes: ["./go:/go"]
    healthcheck: { test: [CMD, test, -e, /go/now], interval: 1s, retries: 1000 }
"#;
    with("low", many, |project| {
        let mut up = Terminal::spawn(project, (6, 100), &[], &["up", "-d", "--wait"]);
        let slow = format!("Container {}-slow-1 Waiting", project.name);
        up.until(&slow);
        up.until("[+] up 10/11");
        assert!(rows(&up.lines(), &slow).len() == 1, "{:#?}", up.lines());
        project.write("go/now", "");
        up.code(0);
        let lines = up.lines();
        assert!(lines.contains(&"[+] up 11/11".to_owned()), "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.starts_with(" ✔ ")).count(), 11, "{lines:#?}");
    });
}

#[test]
fn logs_of_an_attached_up_stand_above_its_progress() {
    with("above", HELD, |project| {
        let mut up = Terminal::spawn(project, (30, 100), &[], &["up"]);
        up.until("slow-1  | slow begins");
        assert!(!up.raw().contains("web begins"));
        eventually("the log line above the progress", || {
            let lines = up.lines();
            let at = |text: &str| lines.iter().position(|line| line.contains(text));
            (at("slow begins")? < at("[+] up")?).then_some(())
        });
        project.write("go/now", "");
        up.until("web-1   | web begins");
        up.press("\u{3}");
        up.code(130);
        assert_eq!(rows(&up.lines(), "slow begins").len(), 1, "{:#?}", up.lines());
        up.until("Gracefully Stopping");
    });
}

#[test]
fn a_build_shows_what_it_is_at() {
    let compose = "services: { made: { build: { dockerfile_inline: \"FROM busybox:1\\nRUN echo at work; sleep 2\" } } }";
    with("building", compose, |project| {
        let mut build = Terminal::spawn(project, (30, 100), &[], &["build"]);
        eventually("its step and output", || {
            let lines = build.lines();
            let row = lines.iter().find(|line| line.contains("-made Building "))?;
            (row.contains("at work") || row.contains("[2/2] RUN echo at work")).then_some(())
        });
        build.code(0);
        let built = format!("Image {}-made Built", project.name);
        assert_eq!(rows(&build.lines(), &built).len(), 1, "{:#?}", build.lines());
    });
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let compose = "services: { one: { image: 'busybox:1', command: [echo, printed] } }";
    with("colours", compose, |project| {
        const CYAN: &str = "\u{1b}[36mone-1  |\u{1b}[0m printed";
        let on_terminal = |env: &[(&str, &str)], args: &[&str]| {
            let mut up = Terminal::spawn(project, (30, 100), env, args);
            up.code(0);
            up.raw()
        };
        let coloured = on_terminal(&[], &["up"]);
        assert!(coloured.contains(CYAN) && coloured.contains("\u{1b}[32m✔"), "{coloured:?}");
        for plain in [
            on_terminal(&[("NO_COLOR", "1")], &["up", "--force-recreate"]),
            on_terminal(&[], &["--ansi", "never", "up", "--force-recreate"]),
            on_terminal(&[("COMPOSE_ANSI", "never")], &["up", "--force-recreate"]),
        ] {
            assert!(plain.contains("one-1  | printed") && !plain.contains("\u{1b}[3"), "{plain:?}");
        }
        // Never forces plain lines, NO_COLOR only their colour.
        assert!(!on_terminal(&[], &["--ansi", "never", "up"]).contains('\u{1b}'));
        assert!(on_terminal(&[("NO_COLOR", "1")], &["up"]).contains("[+] up"));
        assert!(!on_terminal(&[], &["up", "--no-color"]).contains("\u{1b}[36m"));
        // Elsewhere none, unless always.
        let ran = project.stack(&["up"]).ok();
        assert!(!ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'), "{ran}");
        let ran = project.stack(&["--ansi", "always", "--progress", "auto", "logs"]).ok();
        assert!(ran.stdout.contains(CYAN), "{ran}");
    });
}

#[test]
fn exec_has_a_terminal_with_its_size_keys_and_code() {
    let compose = "services: { one: { image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL } }";
    with("exec-tty", compose, |project| {
        project.stack(&["up", "-d"]).ok();
        let mut shell = Terminal::spawn(project, (33, 77), &[], &["exec", "one", "sh"]);
        shell.until("/ #");
        shell.press("tty; stty size\r");
        shell.until("/dev/pts/0");
        shell.until("33 77");
        shell.resize(44, 88);
        eventually("the new size inside", || {
            shell.press("stty size\r");
            std::thread::sleep(Duration::from_millis(50));
            shell.lines().iter().any(|line| line == "44 88").then_some(())
        });
        // Ctrl-C is a key for the program inside, not for us.
        shell.press("echo be''gun; sleep 1000\r");
        shell.until("begun");
        shell.press("\u{3}");
        shell.until("^C");
        shell.press("echo inter''rupted $?\r");
        shell.until("interrupted 130");
        shell.press("exit 7\r");
        shell.code(7);

        let mut sleeper = Terminal::spawn(
            project,
            (30, 100),
            &[],
            &["exec", "one", "sh", "-c", "echo here; exec sleep 1000"],
        );
        sleeper.until("here");
        sleeper.press("\u{3}");
        sleeper.code(130);
    });
}

#[test]
fn exec_without_a_terminal_says_so() {
    let compose = "services: { one: { image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL } }";
    with("exec-no-tty", compose, |project| {
        project.stack(&["up", "-d"]).ok();
        let mut none =
            Terminal::spawn(project, (30, 100), &[], &["exec", "-T", "one", "sh", "-c", "tty; exit 3"]);
        none.code(3);
        assert!(none.raw().contains("not a tty") || none.raw().contains("/dev/pts"), "{}", none.raw());
        let mut deaf = Terminal::deaf(project, &["exec", "one", "true"]);
        deaf.code(1);
        deaf.until("error: stdin is not a terminal");
        Terminal::deaf(project, &["exec", "-T", "one", "echo", "fine"]).code(0);
        let ran = project.stack(&["exec", "one", "sh", "-c", "test -t 0 || test -t 1 || echo none"]).ok();
        assert_eq!(ran.stdout, "none\n");
    });
}

#[test]
fn run_has_a_terminal_whose_first_byte_is_seen() {
    let compose = "services: { one: { image: 'busybox:1' } }";
    with("run-tty", compose, |project| {
        let quick =
            ["run", "-q", "--rm", "one", "sh", "-c", "echo from the first byte; stty size; tty; exit 5"];
        for round in 0..10 {
            let mut run = Terminal::spawn(project, (21, 99), &[], &quick);
            run.code(5);
            assert_eq!(run.lines(), ["from the first byte", "21 99", "/dev/pts/0"], "round {round}");
        }
        let mut run = Terminal::spawn(project, (21, 99), &[], &["run", "--rm", "one", "sh"]);
        run.until("/ #");
        run.resize(22, 98);
        eventually("the new size inside", || {
            run.press("stty size\r");
            std::thread::sleep(Duration::from_millis(50));
            run.lines().iter().any(|line| line == "22 98").then_some(())
        });
        // Told by the program itself: until then the shell is in front, and would swallow what is meant for it.
        run.press("sh -c \"echo be''gun; exec sleep 1000\"\r");
        run.until("begun");
        run.press("\u{3}");
        run.until("^C");
        run.press("echo inter''rupted $?\r");
        run.until("interrupted 130");
        run.press("exit 6\r");
        run.code(6);
        assert!(project.ps().is_empty(), "--rm leaves nothing");
    });
}

#[test]
fn a_run_whose_command_line_is_killed_goes_on_and_is_removed_when_it_ends() {
    let compose =
        "services: { one: { image: 'busybox:1', stop_signal: SIGKILL, volumes: ['./go:/go', /anonymous] } }";
    with("run-killed", compose, |project| {
        let wait =
            "touch /go/begun; until test -e /go/now; do sleep 0.02; done; echo went on > /go/ended; exit 3";
        let running = |args: &[&str]| {
            let run = project.spawn(&[&["run", "-q", "-T"], args, &["one", "sh", "-c", wait]].concat());
            eventually("its program", || project.directory.join("go/begun").exists().then_some(()));
            run.signal(Signal::KILL);
            run.wait(PATIENCE);
            std::fs::remove_file(project.directory.join("go/begun")).unwrap();
            let rows = project.ps();
            assert_eq!((rows.len(), &rows[0]["State"]), (1, &"running".into()), "{rows:?}");
        };
        running(&["--rm"]);
        project.write("go/now", "");
        eventually("its end and removal", || project.ps().is_empty().then_some(()));
        assert_eq!(std::fs::read_to_string(project.directory.join("go/ended")).unwrap(), "went on\n");
        let no_volume = || project.stack(&["volume", "ls", "-q"]).ok().stdout.is_empty().then_some(());
        eventually("the end of its anonymous volume", no_volume);
        std::fs::remove_file(project.directory.join("go/now")).unwrap();

        // Also when its supervisor is killed with it.
        running(&["--rm"]);
        for (pid, command) in project.world.processes() {
            if command.contains("__supervise") {
                let _ = kill_process(Pid::from_raw(pid).expect("not zero"), Signal::KILL);
            }
        }
        project.write("go/now", "");
        eventually("its removal by the next supervisor", || project.ps().is_empty().then_some(()));
        std::fs::remove_file(project.directory.join("go/now")).unwrap();

        // Without --rm it stays when it ended; down takes it along when asked for.
        running(&[]);
        project.stack(&["down", "-t", "0", "--remove-orphans"]).ok();
        assert!(project.ps().is_empty());
    });
}

const TALKER: &str = r#"
services:
  shell: { image: "busybox:1", command: sh, tty: true, stdin_open: true, stop_signal: SIGKILL }
  plain: { image: "busybox:1", stdin_open: true, stop_signal: SIGKILL, command: [sh, -c, 'trap "exit 5" TERM; while read x; do test $$x = end && exit 4; echo got $$x; done'] }
  deaf: { image: "busybox:1", stop_signal: SIGKILL, command: [sh, -c, 'trap "exit 6" TERM; while :; do echo tick; sleep 0.1; done'] }
"#;

#[test]
fn attach_has_the_containers_terminal_and_leaves_it_by_keys() {
    with("attach-tty", TALKER, |project| {
        project.stack(&["up", "-d"]).ok();
        let mut shell = Terminal::spawn(project, (33, 77), &[], &["attach", "shell"]);
        shell.press("stty size; tty\r");
        shell.until("33 77");
        shell.until("/dev/pts/0");
        shell.resize(44, 88);
        eventually("the new size inside", || {
            shell.press("stty size\r");
            std::thread::sleep(Duration::from_millis(50));
            shell.lines().iter().any(|line| line == "44 88").then_some(())
        });
        shell.press("KEPT=kept\r\u{10}\u{11}");
        shell.code(0);
        assert_eq!(project.ps_field("shell", "State"), "running");
        let mut again =
            Terminal::spawn(project, (30, 100), &[], &["attach", "--detach-keys", "ctrl-x,q", "shell"]);
        again.press("echo $KEPT by me\r");
        again.until("kept by me");
        again.press("\u{18}q");
        again.code(0);
        let mut last = Terminal::spawn(project, (30, 100), &[], &["attach", "shell"]);
        last.press("exit 9\r");
        last.code(9);
        project.stack(&["attach", "shell"]).code(1).says("service \"shell\" is not running");
        project
            .stack(&["attach", "--detach-keys", "ctrl-1", "deaf"])
            .code(1)
            .says("invalid detach keys (ctrl-1)");
    });
}

#[test]
fn run_is_left_by_the_keys_as_well() {
    with("run-leave", TALKER, |project| {
        let mut run = Terminal::spawn(project, (30, 100), &[], &["run", "--name", "left", "shell"]);
        run.until("/ #");
        run.press("\u{10}\u{11}");
        run.code(0);
        let state =
            project.ps().into_iter().find(|row| row["Name"] == "left").map(|row| row["State"].clone());
        assert_eq!(state.as_ref().and_then(|state| state.as_str()), Some("running"));
    });
}

#[test]
fn attach_without_a_terminal_carries_streams_and_signals() {
    with("attach-plain", TALKER, |project| {
        project.stack(&["up", "-d"]).ok();
        project.write("end", "b\nend\n");
        let ran = project.reading("end", &["attach", "plain"]).code(4);
        assert_eq!(ran.stdout, "got b\n");
        let ticks = |args: &[&str]| {
            let attached = project.spawn(&[&["attach"], args, &["deaf"]].concat());
            eventually("output", || attached.stdout().contains("tick").then_some(()));
            attached
        };
        let apart = ticks(&["--sig-proxy=false"]);
        apart.signal(Signal::TERM);
        assert_eq!(apart.wait(crate::common::PATIENCE).status.code(), None, "it was ours");
        assert_eq!(project.ps_field("deaf", "State"), "running");
        project.stack(&["pause", "deaf"]).ok();
        project.stack(&["attach", "deaf"]).code(1).says("cannot attach to a paused container");
        project.stack(&["unpause", "deaf"]).ok();
        let proxied = ticks(&[]);
        proxied.signal(Signal::TERM);
        proxied.wait(crate::common::PATIENCE).code(6);
    });
}
