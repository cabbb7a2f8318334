//! Builds and pulls of a whole stack: beside each other, and interrupted.

use crate::common::{Background, PATIENCE, Project, World, eventually};
use rustix::process::Signal;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

fn with(key: &'static str, files: &[(&str, &str)], test: impl FnOnce(&Project<'_>) + Send + 'static) {
    let files: Vec<(String, String)> =
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    World::with_busybox().run(move |world| {
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let project = world.project(key, &files);
        test(&project);
        project.stack(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn services_that_need_not_wait_for_each_other_are_built_beside_each_other() {
    // Each waits for the other one to begin: only builds that run together can end.
    let meets = |own: &str, other: &str| {
        format!(
            "FROM busybox:1\nRUN --mount=type=cache,id=meet,target=/meet touch /meet/{own}; n=0; \
             until test -e /meet/{other}; do n=$((n+1)); test $n -lt 3000 || exit 1; usleep 10000; done\n"
        )
    };
    let compose = "services:\n  a: { build: { dockerfile: a.Dockerfile } }\n  b: { build: { dockerfile: b.Dockerfile } }\n";
    let files =
        [("compose.yaml", compose), ("a.Dockerfile", &meets("a", "b")), ("b.Dockerfile", &meets("b", "a"))];
    with("beside", &files, |project| {
        project.stack(&["build"]).ok().says("-a Built").says("-b Built");
        project.stack(&["build", "--no-cache"]).ok();
        project.stack(&["up", "--no-start", "--build"]).ok();
    });
}

#[test]
fn what_services_share_is_built_once_and_bases_come_first() {
    // Every line of the cache mount is a step that was really executed.
    let count = |step: &str| format!("RUN --mount=type=cache,id=count,target=/c echo {step} >> /c/steps\n");
    let shared = format!("FROM busybox:1 AS base\n{}", count("base"));
    let web = format!("{shared}FROM base AS one\n{}FROM base AS two\n{}", count("one"), count("two"));
    let above = format!(
        "ARG FROM=shared/under:1\nFROM ${{FROM}}\n{}COPY --from=shared/tools:1 /tools /tools\n\
         RUN --mount=type=cache,id=count,target=/c cp /c/steps /steps\n",
        count("above")
    );
    let files = [
        (
            "compose.yaml",
            "services:\n  above: {image: 'shared/above:1', build: {dockerfile: above.Dockerfile}}\n  \
             one: {build: {dockerfile: web.Dockerfile, target: one}}\n  \
             two: {build: {dockerfile: web.Dockerfile, target: two}}\n  \
             under: {image: 'shared/under:1', build: {dockerfile: web.Dockerfile, target: two}}\n  \
             tools: {image: 'shared/tools:1', build: {dockerfile_inline: \"FROM busybox:1\\nRUN echo t > /tools\\n\"}}\n",
        ),
        ("web.Dockerfile", &web),
        ("above.Dockerfile", &above),
    ];
    with("one-graph", &files, |project| {
        let ran = project.stack(&["build", "--progress", "plain"]).ok();
        let executed = |step: &str| {
            let done = |line: &&str| line.contains(&format!("echo {step} >>")) && line.contains(" DONE ");
            ran.stderr.lines().filter(done).count()
        };
        for step in ["base", "one", "two", "above"] {
            assert_eq!(executed(step), 1, "{step}: {ran}");
        }
        // Another order of names, and nothing there: what it is made from is built, asked for or not.
        for image in ["shared/above:1", "shared/under:1", "shared/tools:1"] {
            project.stack(&["image", "rm", image]).ok();
        }
        project.stack(&["build", "above"]).ok().says("shared/under:1 Built").says("shared/tools:1 Built");
        project.stack(&["image", "inspect", "shared/above:1"]).ok();
        project.stack(&["image", "rm", "shared/above:1", "shared/under:1"]).ok();
        project.stack(&["up", "--no-start", "above"]).ok().says("shared/under:1 Built");
    });
}

/// Ctrl-C.
fn interrupt(background: Background) {
    background.signal(Signal::INT);
    background.wait(PATIENCE).code(130);
}

#[test]
fn an_interrupted_build_leaves_nothing_and_is_taken_up_again() {
    let compose = "services: { web: { build: ., command: [sleep, '1000'], stop_signal: SIGKILL } }";
    let text = "FROM busybox:1\nRUN echo first > /first\nRUN --mount=type=cache,target=/go test -e /go/now || \
                { echo be''gun; sleep 1000; }\n";
    let files = [("compose.yaml", compose), ("Dockerfile", text)];
    with("cut-build", &files, |project| {
        for args in [&["build", "--progress", "plain"][..], &["up", "-d", "--build"]] {
            let build = project.spawn(args);
            eventually("the second step", || build.stderr().contains("begun\n").then_some(()));
            interrupt(build);
            assert!(project.ps().is_empty(), "nothing was made");
            project.world.assert_no_leak();
        }
        project.edit("Dockerfile", "test -e /go/now ||", "test -e / ||");
        let ran = project.stack(&["up", "-d"]).ok();
        assert!(ran.stderr.contains("RUN echo first > /first CACHED"), "what was done is kept: {ran}");
        assert_eq!(project.ps_field("web", "State"), "running");
    });
}

#[test]
fn an_interrupted_pull_leaves_nothing() {
    World::with_busybox().run(|world| {
        // Somebody listens and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let image = format!("127.0.0.1:{}/never:1", listener.local_addr().unwrap().port());
        let (asked, was_asked) = mpsc::channel::<TcpStream>();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let mut byte = [0];
                if stream.read(&mut byte).is_ok() && asked.send(stream).is_err() {
                    return;
                }
            }
        });
        let compose = format!(
            "services:\n  here: {{ image: 'busybox:1', command: [sleep, '1000'] }}\n  there: {{ image: '{image}' }}\n"
        );
        let project = world.project("cut-pull", &[("compose.yaml", &compose)]);
        for args in [&["pull"][..], &["up", "-d"]] {
            let pull = project.spawn(args);
            let stream = was_asked.recv_timeout(PATIENCE).expect("the registry is asked");
            interrupt(pull);
            drop(stream);
            assert!(project.ps().is_empty(), "nothing was made");
            world.assert_no_leak();
        }
    });
}
