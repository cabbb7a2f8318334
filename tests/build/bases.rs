//! Base images that come from a registry.

use crate::bed::{Bed, Case};
use crate::registry::Server;
use stack::build::BuildRequest;
use stack_runtime::image::progress::silent;
use stack_runtime::image::{Reference, push};
use std::io::Write;
use std::process::{Command, Stdio};

pub(crate) const ALL: &[(&str, Case)] = &[
    ("bases_are_pulled_once_and_again_when_asked", bases_are_pulled_once_and_again_when_asked),
    ("signing_in_lets_a_build_pull", signing_in_lets_a_build_pull),
];

fn bases_are_pulled_once_and_again_when_asked(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_099, false)) else { return };
    let name = server.name("base:1");
    let reference = Reference::parse(&name).expect("a name");
    let publish = |version: u32| {
        let mut request = bed.request(&format!("FROM busybox:1\nCOPY <<E /version\n{version}\nE"));
        request.tags = vec![reference.clone()];
        bed.build_request(request).success();
        bed.wait_for(push::push(&bed.env.store, &reference, &silent)).expect("pushed");
        bed.env.store.remove(&name, true).expect("removed here");
    };
    publish(1);
    let text =
        format!("FROM {name} AS a\nRUN cp /version /a\nFROM {name}\nCOPY --from=a /a /a\nRUN cp /version /b");
    let built = bed.build(&text);
    assert_eq!((bed.text(&built, "a"), bed.text(&built, "b")), ("1\n".into(), "1\n".into()));
    let local = bed.env.store.image(&name).expect("read").expect("pulled");
    publish(2);
    bed.env.store.tag(&local.id, &reference).expect("as before");
    // What is here is good enough, ...
    assert_eq!(bed.build(&text).counts(), (3, 3));
    // ... until the newest one is asked for, for every stage the same.
    let newest = BuildRequest { pull: true, ..bed.request(&text) };
    let built = bed.build_request(newest);
    assert_eq!((bed.text(&built, "a"), bed.text(&built, "b")), ("2\n".into(), "2\n".into()));
    // A digest names one image for ever.
    let pinned = format!(
        "FROM {}@{}\nRUN cp /version /c",
        server.name("base"),
        local.manifest_digest.expect("pulled")
    );
    assert_eq!(bed.text(&bed.build(&pinned), "c"), "1\n");
}

fn signing_in_lets_a_build_pull(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_098, true)) else { return };
    let name = server.name("base:1");
    let host = format!("127.0.0.1:{}", server.port);
    let stack = |args: &[&str], input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.args(args).current_dir(&bed.context).stdin(Stdio::piped()).stdout(Stdio::piped());
        command
            .env("STACK_HOME", &bed.env.home.data)
            .env("DOCKER_CONFIG", bed.directory.path().join("docker"));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        let ran = child.wait_with_output().expect("ended");
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    stack(&["image", "tag", "busybox:1", &name], "");
    let (is_pushed, said) = stack(&["image", "push", &name], "");
    assert!(!is_pushed && said.contains("denied"), "{said}");
    let login = |password| stack(&["login", "-u", "user", "--password-stdin", &host], password);
    let (is_in, said) = login("wrong");
    assert!(!is_in && said.contains("denied"), "{said}");
    let (is_in, said) = login("s3cret\n");
    assert!(is_in && said.contains("Login Succeeded") && !said.contains("s3cret"), "{said}");
    assert!(stack(&["image", "push", &name], "").0);
    bed.env.store.remove(&name, true).expect("removed here");
    bed.write("Dockerfile", &format!("FROM {name}\nRUN true\n"));
    bed.write("compose.yaml", "services: {web: {build: {context: ., network: none}}}\n");
    let (is_built, said) = stack(&["--progress", "plain", "build"], "");
    assert!(is_built, "{said}");
    assert!(stack(&["logout", &host], "").1.contains("Removing login credentials"));
    assert!(stack(&["logout", &host], "").1.contains("Not logged in"));
    assert!(!stack(&["--progress", "plain", "build", "--pull"], "").0);
}
