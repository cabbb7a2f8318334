//! Builds and pulls of a whole stack: beside each other, and interrupted.

use crate::common::{Background, PATIENCE, Project, World, eventually, free_port, registry};
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

#[test]
fn what_would_be_built_can_be_printed() {
    let compose = "services:\n  a:\n    image: x/a:1\n    build:\n      context: sub\n      args: {K: v, E: null}\n      tags: ['t:1']\n      \
                   target: t\n      platforms: [linux/amd64, linux/arm64]\n      provenance: mode=max\n      sbom: true\n      secrets: [f]\n      \
                   additional_contexts: {b: 'service:b', i: 'docker-image://q'}\n      ulimits: {nofile: {soft: 1, hard: 2}}\n      ssh: [default]\n      \
                   cache_from: [x]\n      extra_hosts: {h: 1.2.3.4}\n      network: host\n      shm_size: 1m\n  \
                   b: {build: {dockerfile_inline: 'FROM scratch'}}\nsecrets: {f: {file: ./ff}}\n";
    let files = [("compose.yaml", compose), ("sub/Dockerfile", "FROM scratch AS t\n")];
    with("bake", &files, |project| {
        let printed = project.stack(&["build", "--print", "--pull", "--no-cache", "--build-arg", "Z=1"]).ok();
        assert!(!printed.stderr.contains("Building"), "{printed}");
        let bake: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
        assert_eq!(bake["group"]["default"]["targets"], serde_json::json!(["a", "b"]));
        let mut a = bake["target"]["a"].clone();
        let labels = a.as_object_mut().unwrap().remove("labels").unwrap();
        assert_eq!(labels["com.docker.compose.service"], "a");
        let here = |path: &str| project.directory.join(path).display().to_string();
        let expected = serde_json::json!({
            "context": here("sub"), "contexts": {"b": "target:b", "i": "docker-image://q"}, "dockerfile": here("sub/Dockerfile"),
            "args": {"K": "v", "Z": "1"}, "tags": ["t:1", "x/a:1"], "cache-from": ["x"], "target": "t",
            "secret": [format!("id=f,type=file,src={}", here("ff"))], "ssh": ["default="], "platforms": ["linux/amd64", "linux/arm64"],
            "pull": true, "no-cache": true, "network": "host", "shm-size": "1048576", "ulimits": ["nofile=1:2"],
            "extra-hosts": {"h": "1.2.3.4"}, "output": ["type=image,push=false"],
            "attest": ["type=provenance,mode=max", "type=sbom"],
        });
        assert_eq!(a, expected);
        let b = &bake["target"]["b"];
        assert_eq!(
            (&b["dockerfile-inline"], b.get("dockerfile")),
            (&serde_json::json!("FROM scratch"), None)
        );
        assert_eq!(b["output"], serde_json::json!(["type=docker"]));
        let pushed = project.stack(&["build", "--print", "--push", "--sbom", "false", "a"]).ok();
        let pushed: serde_json::Value = serde_json::from_str(&pushed.stdout).unwrap();
        assert_eq!(pushed["target"]["a"]["output"], serde_json::json!(["type=registry"]));
        assert_eq!(pushed["target"]["a"]["attest"][1], "type=sbom,disabled=true");
    });
}

#[test]
fn platforms_and_attestations_travel_with_a_push() {
    let _ = registry::program(); // while there still is a way out
    World::with_busybox().run(|world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Some(server) = runtime.block_on(registry::Server::start(free_port(), false)) else { return };
        let (several, stated, plain) = (server.name("t/several:1"), server.name("t/stated:1"), server.name("t/plain:1"));
        let compose = format!(
            "services:\n  several: {{image: '{several}', build: {{platforms: [linux/arm64, linux/amd64, linux/s390x]}}}}\n  \
             stated: {{image: '{stated}', build: {{provenance: mode=max, sbom: true}}}}\n  plain: {{image: '{plain}', build: .}}\n"
        );
        let text = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\nCMD [\"/none\"]\n";
        let project = world.project("platforms", &[("compose.yaml", &compose), ("Dockerfile", text)]);
        let here = project.stack(&["build", "--memory", "1g", "--builder", "other"]).ok();
        for said in [
            "--memory has no effect",
            "--builder has no effect",
            "services.stated.build: an image of this machine's store has no attestations",
            "linux/arm64 [2/2] COPY",
            "linux/s390x [2/2] COPY",
        ] {
            assert!(here.stderr.contains(said), "{said}: {here}");
        }
        // One of several is what runs here, however many were built.
        let image = world.stack(&["image", "inspect", &several]).ok();
        let image: serde_json::Value = serde_json::from_str(&image.stdout).unwrap();
        assert_eq!(image[0]["Architecture"], if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
        let up = project.stack(&["up", "--no-start", "--build", "several"]).ok();
        assert!(!up.stderr.contains("s390x"), "{up}");

        project.stack(&["build", "--push"]).ok();
        let index = |name: &str| {
            let (repository, tag) = name.split_once('/').unwrap().1.rsplit_once(':').unwrap();
            let accept = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
            let url = format!("http://{}/v2/{repository}/manifests/{tag}", name.split_once('/').unwrap().0);
            let curl = std::process::Command::new("curl").args(["-s", "-H", accept, &url]).output().unwrap();
            serde_json::from_slice::<serde_json::Value>(&curl.stdout).unwrap()
        };
        let architectures = |name: &str| -> Vec<String> {
            let manifests = index(name)["manifests"].as_array().cloned().unwrap_or_default();
            manifests.iter().map(|m| m["platform"]["architecture"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(architectures(&several), ["arm64", "amd64", "s390x"]);
        assert_eq!(architectures(&stated).last().map(String::as_str), Some("unknown"));
        assert!(index(&plain).get("manifests").is_none() && index(&plain)["layers"].is_array());
        project.stack(&["build", "--push", "--provenance", "false", "--sbom", "false", "stated"]).ok();
        assert!(architectures(&stated).is_empty(), "the command line wins");
        project.stack(&["build", "--provenance", "much"]).code(1).says("services.several.build.provenance");
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
