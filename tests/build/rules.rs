//! The Dockerfile's rules that need a build to be seen.

use crate::bed::{Bed, Built, Case};
use stack::build::{self, BuildRequest, DockerfileSource, Network, Secret};
use stack_runtime::image::Reference;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

pub(crate) const ALL: &[(&str, Case)] = &[
    ("a_stage_begins_with_its_base", a_stage_begins_with_its_base),
    ("arguments_end_with_their_stage", arguments_end_with_their_stage),
    ("values_are_put_in_where_they_may_be", values_are_put_in_where_they_may_be),
    ("platform_arguments", platform_arguments),
    ("wildcards_may_match_nothing", wildcards_may_match_nothing),
    ("destinations", destinations),
    ("nothing_but_what_is_needed_is_read", nothing_but_what_is_needed_is_read),
    ("ignored_files_stay_outside", ignored_files_stay_outside),
    ("ignore_files_by_their_names", ignore_files_by_their_names),
    ("volumes_are_no_directories", volumes_are_no_directories),
    ("metadata_in_the_configuration", metadata_in_the_configuration),
    ("another_base_is_another_key", another_base_is_another_key),
    ("what_belongs_to_the_key_of_run", what_belongs_to_the_key_of_run),
    ("what_does_not_belong_to_the_key_of_run", what_does_not_belong_to_the_key_of_run),
    ("what_belongs_to_the_key_of_copy", what_belongs_to_the_key_of_copy),
    ("copied_stages_count_by_their_content", copied_stages_count_by_their_content),
    ("run_is_apart_from_this_machine", run_is_apart_from_this_machine),
    ("hosts_cannot_be_written", hosts_cannot_be_written),
    ("the_dockerfile_may_lie_elsewhere", the_dockerfile_may_lie_elsewhere),
    ("the_command_line_builds", the_command_line_builds),
    ("a_check_finds_and_builds_nothing", a_check_finds_and_builds_nothing),
    ("findings_can_be_errors", findings_can_be_errors),
    ("a_date_makes_builds_reproducible", a_date_makes_builds_reproducible),
];

fn tagged(bed: &Bed, name: &str, dockerfile: &str) -> Built {
    let mut request = bed.request(dockerfile);
    request.tags = vec![Reference::parse(name).expect("a name")];
    let built = bed.build_request(request);
    built.success();
    built
}

fn a_stage_begins_with_its_base(bed: &Bed) {
    tagged(
        bed,
        "base:1",
        "FROM busybox:1\nENV E=env\nLABEL kept=base again=base\nUSER 5\nWORKDIR /w\nCMD [\"base\"]",
    );
    let child = bed.image(&bed.build("FROM base:1 AS Named\nLABEL again=child again=last\nFROM named"));
    assert!(child.config.env.contains(&"E=env".to_owned()), "{:?}", child.config.env);
    assert_eq!((child.labels["kept"].as_str(), child.labels["again"].as_str()), ("base", "last"));
    assert_eq!((child.config.user.as_str(), child.config.working_dir.as_str()), ("5", "/w"));
    assert_eq!(child.config.cmd.as_deref().expect("inherited"), ["base"]);
    // Nothing is in an image from nothing.
    let empty = bed.image(&bed.build("FROM scratch\nCMD [\"x\"]"));
    assert!(empty.layers.is_empty() && empty.config.labels.is_empty());
}

fn arguments_end_with_their_stage(bed: &Bed) {
    let text = "ARG GLOBAL=g\nARG TAG=1\nFROM busybox:$TAG AS one\nRUN echo \"${GLOBAL-none} ${LATER-none}\" > /before\n\
        ARG GLOBAL\nARG LATER=l\nRUN echo \"$GLOBAL $LATER\" > /after\n\
        FROM one AS child\nRUN echo \"$GLOBAL $LATER\" > /child\n\
        FROM busybox:1\nRUN echo \"${GLOBAL-none} ${LATER-none}\" > /other\nCOPY --from=child /before /after /child /";
    let built = bed.build(text);
    assert_eq!(bed.text(&built, "before"), "none none\n");
    assert_eq!(bed.text(&built, "after"), "g l\n");
    assert_eq!(bed.text(&built, "child"), "g l\n");
    assert_eq!(bed.text(&built, "other"), "none none\n");
    let image = bed.image(&built);
    assert!(!image.config.env.iter().any(|pair| pair.starts_with("GLOBAL")));
}

fn values_are_put_in_where_they_may_be(bed: &Bed) {
    bed.write("from", "x");
    let text = "FROM busybox:1\nARG V=v\nENV e=$V-${none:-d}\nLABEL l=${V}\nCOPY from /to-$V\nADD from /add-${V}\n\
        WORKDIR /w-$V\nUSER ${V:+5}\nEXPOSE ${none:-81}\nVOLUME /vol-$V\nSTOPSIGNAL ${none:-SIGINT}\nRUN echo '$V' > /tmp/$V\nCMD echo $V";
    let built = bed.build(text);
    let config = bed.image(&built).config;
    assert!(config.env.contains(&"e=v-d".to_owned()), "{:?}", config.env);
    assert_eq!(
        (config.labels["l"].as_str(), config.working_dir.as_str(), config.user.as_str()),
        ("v", "/w-v", "5")
    );
    assert!(config.exposed_ports.contains("81/tcp") && config.volumes.contains("/vol-v"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert!(bed.file(&built, "to-v").is_some() && bed.file(&built, "add-v").is_some());
    // RUN and CMD are the shell's.
    assert_eq!(bed.text(&built, "tmp/v"), "$V\n");
    assert_eq!(config.cmd.as_deref().expect("set")[2], "echo $V");
}

fn platform_arguments(bed: &Bed) {
    let text = "FROM --platform=$BUILDPLATFORM busybox:1\nARG TARGETPLATFORM\nARG TARGETOS TARGETARCH BUILDARCH\nRUN echo $TARGETPLATFORM $TARGETOS $TARGETARCH $BUILDARCH ${TARGETVARIANT-undeclared} > /seen";
    let seen = bed.text(&bed.build(text), "seen");
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!(seen, format!("linux/{architecture} linux {architecture} {architecture} undeclared\n"));
}

fn wildcards_may_match_nothing(bed: &Bed) {
    bed.write("a.txt", "a");
    bed.write("b1.txt", "b1");
    bed.write("sub/c.txt", "c");
    let built = bed.build(
        "FROM scratch\nCOPY a.txt none* /first/\nCOPY none* /second/\nCOPY b?.txt */c.txt [x-z]* /third/",
    );
    assert_eq!(bed.text(&built, "first/a.txt"), "a");
    assert!(bed.file(&built, "second").is_none());
    assert_eq!(
        (bed.text(&built, "third/b1.txt"), bed.text(&built, "third/c.txt")),
        ("b1".into(), "c".into())
    );
}

fn destinations(bed: &Bed) {
    bed.write("one", "1");
    bed.write("two", "2");
    bed.write("tree/deep/x", "x");
    let text = "FROM busybox:1\nWORKDIR /w\nCOPY one plain\nCOPY one rel/\nCOPY one ./here/deep/file\nCOPY one two /last\n\
        COPY tree /copied\nCOPY --chown=3:4 one /owned/by/file\nCOPY [\"one\", \"two\", \"/json/\"]\nCOPY /../../one /clamped";
    let built = bed.build(text);
    for (path, content) in [
        ("w/plain", "1"),
        ("w/rel/one", "1"),
        ("w/here/deep/file", "1"),
        // Neither a slash nor a directory: each overwrites the one before.
        ("last", "2"),
        ("copied/deep/x", "x"),
        ("json/one", "1"),
        ("json/two", "2"),
        ("clamped", "1"),
    ] {
        assert_eq!(bed.text(&built, path), content, "{path}");
    }
    assert!(bed.file(&built, "copied/tree").is_none());
    let owner = |path: &str| {
        let meta = bed.file(&built, path).expect(path).symlink_metadata().expect("there");
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(owner("w/here/deep"), (0, 0, 0o755));
    assert_eq!((owner("owned"), owner("owned/by")), ((3, 4, 0o755), (3, 4, 0o755)));
}

fn nothing_but_what_is_needed_is_read(bed: &Bed) {
    bed.write("needed/file", "x");
    let endless = std::fs::File::create(bed.context.join("endless")).expect("made");
    // Days of reading, no room on the disk.
    endless.set_len(4 << 40).expect("sparse");
    bed.write("ignored/endless", "");
    let ignored = std::fs::File::options().write(true).open(bed.context.join("ignored/endless"));
    ignored.and_then(|file| file.set_len(4 << 40)).expect("sparse");
    bed.write(".dockerignore", "ignored\nendless");
    let built = bed.build("FROM scratch\nCOPY needed /a/\nCOPY . /b/");
    assert_eq!(bed.text(&built, "a/file"), "x");
    assert!(bed.file(&built, "b/needed/file").is_some() && bed.file(&built, "b/endless").is_none());
}

fn ignored_files_stay_outside(bed: &Bed) {
    for path in ["a.md", "README.md", "docs/x.md", "docs/keep/y.md", "src/main", "src/secret/key", "other"] {
        bed.write(path, path);
    }
    bed.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    let copied = |ignore: &str| {
        bed.write(".dockerignore", ignore);
        bed.top_layer(
            &bed.build_request(BuildRequest { dockerfile: DockerfileSource::default(), ..bed.request("") }),
        )
    };
    let files = copied(
        "# a comment\n*.md\n!README.md\ndocs\n!docs/keep\n/src/secret\n./other\nDockerfile\n.dockerignore\n",
    );
    assert_eq!(files, ["README.md", "docs", "docs/keep", "docs/keep/y.md", "src", "src/main"]);
    assert_eq!(copied("*\n!src\nsrc/secret\n"), ["src", "src/main"]);
    let files = copied("**/*.md\n.dockerignore\nDockerfile\nsrc\nother");
    assert_eq!(files, ["docs", "docs/keep"]);
    // What is left out cannot be named either.
    bed.write(".dockerignore", "src/secret");
    let failed = bed.build("FROM scratch\nCOPY src/secret/key /").failure();
    assert!(failed.contains("not found") && failed.contains(".dockerignore"), "{failed}");
}

fn ignore_files_by_their_names(bed: &Bed) {
    bed.write("a", "a");
    bed.write("b", "b");
    bed.write("x.Dockerfile", "FROM scratch\nCOPY . /\n");
    bed.write(".dockerignore", "a\n*ocker*");
    let copied = || {
        let dockerfile = DockerfileSource::Path("x.Dockerfile".into());
        bed.top_layer(&bed.build_request(BuildRequest { dockerfile, ..bed.request("") }))
    };
    assert_eq!(copied(), ["b"]);
    bed.write("x.Dockerfile.dockerignore", "b\n*ocker*");
    assert_eq!(copied(), ["a"]);
    bed.write("x.Dockerfile.dockerignore", "");
    assert_eq!(copied(), [".dockerignore", "a", "b", "x.Dockerfile", "x.Dockerfile.dockerignore"]);
}

fn volumes_are_no_directories(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nVOLUME /data /more\nVOLUME [\"/j son\"]\nRUN test ! -e /data && mkdir /data && echo kept > /data/f");
    assert_eq!(bed.text(&built, "data/f"), "kept\n");
    let config = bed.image(&built).config;
    assert_eq!(config.volumes.iter().collect::<Vec<_>>(), ["/data", "/j son", "/more"]);
}

fn metadata_in_the_configuration(bed: &Bed) {
    let text = "FROM busybox:1\nEXPOSE 80 443/tcp 53/UDP 9000-9001/sctp\nENTRYPOINT run $x\nCMD [\"a\", \"b\"]\nSTOPSIGNAL 9\n\
        HEALTHCHECK --interval=30s --timeout=5s --start-period=1m --start-interval=2s --retries=4 CMD curl -f localhost\n";
    let image = bed.image(&bed.build(text));
    let document = serde_json::to_value(&image.document).expect("json");
    let config = &document["config"];
    let ports: Vec<&String> = config["ExposedPorts"].as_object().expect("ports").keys().collect();
    assert_eq!(ports, ["443/tcp", "53/udp", "80/tcp", "9000/sctp", "9001/sctp"]);
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/sh", "-c", "run $x"]));
    assert_eq!(config["Cmd"], serde_json::json!(["a", "b"]));
    assert_eq!(config["StopSignal"], "9");
    let second = 1_000_000_000_u64;
    let expected = serde_json::json!({
        "Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 30 * second, "Timeout": 5 * second,
        "StartPeriod": 60 * second, "StartInterval": 2 * second, "Retries": 4
    });
    assert_eq!(config["Healthcheck"], expected);
    let comments = document["history"].as_array().expect("history").iter().skip(1);
    assert!(comments.into_iter().all(|entry| entry["comment"] == "buildkit.dockerfile.v0"));
    tagged(bed, "checked:1", text);
    let none = serde_json::to_value(&bed.image(&bed.build("FROM checked:1\nHEALTHCHECK NONE")).document);
    assert_eq!(none.expect("json")["config"]["Healthcheck"], serde_json::json!({"Test": ["NONE"]}));
}

fn another_base_is_another_key(bed: &Bed) {
    tagged(bed, "base:1", "FROM busybox:1\nCOPY <<E /version\n1\nE");
    let child = "FROM base:1\nRUN cp /version /seen";
    assert_eq!(bed.build(child).counts(), (1, 0));
    assert_eq!(bed.build(child).counts(), (1, 1));
    tagged(bed, "base:1", "FROM busybox:1\nCOPY <<E /version\n2\nE");
    let built = bed.build(child);
    assert_eq!(built.counts(), (1, 0));
    assert_eq!(bed.text(&built, "seen"), "2\n");
    // Another name of the same image is the same base.
    tagged(bed, "base:2", "FROM base:1");
    assert_eq!(bed.build("FROM base:2\nRUN cp /version /seen").counts(), (1, 1));
}

/// Each change of what a command sees makes it run again.
fn what_belongs_to_the_key_of_run(bed: &Bed) {
    bed.write("src/f", "1");
    let text = "FROM busybox:1\nWORKDIR /a\nRUN --mount=target=/c,source=src true\n";
    bed.build(text).success();
    let missed = |name: &str, request: BuildRequest| {
        let (steps, cached) = bed.build_request(request).counts();
        assert_eq!(steps - cached, 1, "{name}");
    };
    let file = |text: &str| bed.request(text);
    missed("words", file(&text.replace(" true", " true 1")));
    missed("form", file(&text.replace(" true", " [\"true\"]")));
    missed("env", file(&text.replace("RUN", "ENV e=1\nRUN")));
    missed("arg", file(&text.replace("RUN", "ARG unused=1\nRUN")));
    missed("user", file(&text.replace("RUN", "USER 7\nRUN")));
    missed("mount", file(&text.replace("/c", "/d")));
    missed("network", BuildRequest { network: Network::Host, ..file(text) });
    missed("shm", BuildRequest { shm_size: Some(1 << 20), ..file(text) });
    missed("host", BuildRequest { extra_hosts: vec![("db".into(), "1.2.3.4".into())], ..file(text) });
    bed.write("src/f", "2");
    missed("bind", file(text));
    let (steps, cached) = bed.build(&text.replace("/a", "/b")).counts();
    assert_eq!((steps, cached), (2, 0), "directory");
}

fn what_does_not_belong_to_the_key_of_run(bed: &Bed) {
    let text = "FROM busybox:1\nRUN --mount=type=cache,id=one,target=/c --mount=type=secret,id=s,target=/s echo x >> /c/f; cat /s > /dev/null\n";
    let request = |address: &str, secret: &str, proxy: &str| {
        let mut request = bed.request(text);
        request.extra_hosts = vec![("db".into(), address.into())];
        request.secrets.insert("s".into(), Secret::Bytes(secret.into()));
        request.args.insert("http_proxy".into(), Some(proxy.into()));
        request
    };
    assert_eq!(bed.build_request(request("1.1.1.1", "a", "http://a")).counts(), (1, 0));
    assert_eq!(bed.build_request(request("2.2.2.2", "b", "http://b")).counts(), (1, 1));
    // The cache's content changed with the first build, and its name or sharing gives no other files.
    let mut other = request("1.1.1.1", "a", "http://a");
    other.dockerfile = DockerfileSource::Inline(text.replace("id=one", "id=two,sharing=locked"));
    assert_eq!(bed.build_request(other).counts(), (1, 1));
    // Metadata that a command does not see.
    let mut labelled = request("1.1.1.1", "a", "http://a");
    labelled.dockerfile =
        DockerfileSource::Inline(text.replace("RUN", "LABEL l=1\nCMD x\nEXPOSE 80\nVOLUME /v\nRUN"));
    assert_eq!(bed.build_request(labelled).counts(), (1, 1));
}

fn what_belongs_to_the_key_of_copy(bed: &Bed) {
    let set = |path: &str, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(bed.context.join(path), mode).expect("set");
    };
    bed.write("d/f", "1");
    bed.write("d/g", "g");
    let text = "FROM scratch\nCOPY d /d\n";
    bed.build(text).success();
    let missed = |name: &str| assert_eq!(bed.build(text).counts(), (1, 0), "{name}");
    let found = |name: &str| assert_eq!(bed.build(text).counts(), (1, 1), "{name}");
    // The same size within the same tick.
    bed.write("d/f", "2");
    missed("content");
    set("d/f", 0o755);
    missed("mode");
    std::fs::rename(bed.context.join("d/g"), bed.context.join("d/h")).expect("renamed");
    missed("name");
    std::os::unix::fs::symlink("f", bed.context.join("d/link")).expect("linked");
    missed("link");
    std::fs::remove_file(bed.context.join("d/link")).expect("removed");
    std::os::unix::fs::symlink("h", bed.context.join("d/link")).expect("linked");
    missed("target");
    let attribute =
        rustix::fs::setxattr(bed.context.join("d/h"), "user.x", b"1", rustix::fs::XattrFlags::empty());
    attribute.expect("attributes");
    missed("attribute");
    let later = std::time::SystemTime::now() - std::time::Duration::from_secs(7000);
    std::fs::File::open(bed.context.join("d/h")).and_then(|f| f.set_modified(later)).expect("set");
    found("time");
    std::os::unix::fs::chown(bed.context.join("d/h"), Some(5), Some(5)).expect("chown");
    found("owner, which a context does not have");
}

fn copied_stages_count_by_their_content(bed: &Bed) {
    let text = |n: u32| {
        format!(
            "FROM busybox:1 AS made\nRUN echo {n} > /other && echo same > /file && touch -d @77 /file\nFROM scratch\nCOPY --from=made /file /\n"
        )
    };
    assert_eq!(bed.build(&text(1)).counts(), (2, 0));
    // The stage was made anew, what is copied is the same.
    assert_eq!(bed.build(&text(2)).counts(), (2, 1));
}

fn run_is_apart_from_this_machine(bed: &Bed) {
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string()
    };
    let text = "FROM busybox:1\nRUN for n in net mnt pid uts ipc; do readlink /proc/self/ns/$n; done > /seen; ls /proc | grep -c '^[0-9]' > /count";
    let request = BuildRequest { network: Network::Default, ..bed.request(text) };
    let built = bed.build_request(request);
    let seen = bed.text(&built, "seen");
    for (line, kind) in seen.lines().zip(["net", "mnt", "pid", "uts", "ipc"]) {
        assert!(line.starts_with(kind) && line != own(kind), "{kind}: {seen}");
    }
    assert!(bed.text(&built, "count").trim().parse::<u32>().expect("a number") < 8);
}

fn hosts_cannot_be_written(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nRUN for f in hosts resolv.conf; do echo x >> /etc/$f && echo written; done > /seen 2>&1; true");
    let seen = bed.text(&built, "seen");
    assert!(!seen.contains("written"), "{seen}");
}

fn the_dockerfile_may_lie_elsewhere(bed: &Bed) {
    let elsewhere = bed.directory.path().join("elsewhere.Dockerfile");
    std::fs::write(&elsewhere, "FROM scratch\nCOPY f /f\n").expect("written");
    bed.write("f", "here");
    let request = BuildRequest { dockerfile: DockerfileSource::Path(elsewhere), ..bed.request("") };
    assert_eq!(bed.text(&bed.build_request(request), "f"), "here");
}

/// The flags and the progress of `stack build`.
fn the_command_line_builds(bed: &Bed) {
    bed.write("compose.yaml", "services:\n  web:\n    image: web:1\n    build:\n      context: .\n      dockerfile: sub/My.Dockerfile\n      target: wanted\n      labels: {l: v}\n      tags: [other:2]\n");
    bed.write(
        "sub/My.Dockerfile",
        "FROM busybox:1 AS wanted\nARG A=a\nRUN echo said-$A\nFROM wanted\nRUN false\n",
    );
    let stack = |args: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_stack"))
            .args(args)
            .current_dir(&bed.context)
            .env("STACK_HOME", &bed.env.home.data)
            .output()
            .expect("started");
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
    };
    let said = stack(&["--progress", "plain", "build", "--build-arg", "A=flag"]);
    assert!(said.contains("said-flag") && said.contains("[wanted 2/2] RUN echo said-$A"), "{said}");
    let image = bed.env.store.image("web:1").expect("read").expect("named");
    assert_eq!(bed.env.store.image("other:2").expect("read").expect("tagged").id, image.id);
    assert_eq!(image.labels["l"], "v");
    let again = stack(&["--progress", "plain", "build", "--build-arg", "A=flag"]);
    assert!(again.contains("CACHED") && !again.contains("said-flag"), "{again}");
    let anew = stack(&["--progress", "plain", "build", "--no-cache", "--build-arg", "A=flag"]);
    assert!(anew.contains("said-flag"), "{anew}");
    for line in stack(&["--progress", "json", "build", "--no-cache"]).lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    let quiet = stack(&["--progress", "quiet", "build", "--no-cache"]);
    assert!(!quiet.contains("RUN") && !quiet.contains("said"), "{quiet}");
    let quiet = stack(&["--progress", "plain", "build", "-q", "--no-cache"]);
    assert!(!quiet.contains("said"), "{quiet}");
    // No terminal is here, so this is plain.
    let auto = stack(&["build", "--no-cache"]);
    assert!(auto.contains("said-a"), "{auto}");
}

/// `Rule:LINE` of what a check finds.
fn checked(bed: &Bed, dockerfile: &str) -> Vec<String> {
    let checked =
        build::check(&bed.env, &bed.request(dockerfile)).unwrap_or_else(|e| panic!("{}", e.render()));
    let line = |place: &stack_schema::source::Place| place.line_column().0;
    let findings = checked.findings.iter();
    findings.map(|f| format!("{}:{}", f.rule, f.diagnostic.place.as_ref().map_or(0, line))).collect()
}

fn a_check_finds_and_builds_nothing(bed: &Bed) {
    bed.write("a", "a");
    bed.write("left/out", "x");
    bed.write(".dockerignore", "left");
    tagged(bed, "base:1", "FROM busybox:1\nENV BASE=x");
    for (text, expected) in [
        ("FROM busybox:1\nARG FOO=1\nENV X=$FO", "UndefinedVar:3"),
        ("FROM busybox:1\nCOPY $NOPE /", "UndefinedVar:2"),
        ("FROM busybox:1 AS a\nCOPY $NOPE /\nFROM busybox:1\nRUN false", "UndefinedVar:2"),
        ("FROM busybox:1\nCOPY a left/out /x/", "CopyIgnoredFile:2"),
        ("FROM base:1$P", "UndefinedArgInFrom:1"),
        ("ARG P=linux/s390x\nFROM --platform=$P base:1", "InvalidBaseImagePlatform:2"),
        ("FROM busybox:1\nRUN false\nCMD x", "JSONArgsRecommended:3"),
    ] {
        assert_eq!(checked(bed, text), [expected], "{text}");
    }
    for text in [
        "FROM base:1\nENV X=$BASE",
        "FROM busybox:1\nARG GIVEN\nENV X=$GIVEN",
        "FROM busybox:1 AS a\nENV Y=1\nFROM a\nENV X=$Y",
        // What an image that is not here sets is not known.
        "FROM not.here/image:1\nENV X=$UNKNOWN",
        "FROM busybox:1\nRUN echo $anything\nCOPY --from=not.here/image:1 left/out /x",
    ] {
        assert!(checked(bed, text).is_empty(), "{text}: {:?}", checked(bed, text));
    }
    let hint = build::check(&bed.env, &bed.request("FROM busybox:1\nARG FOO=1\nENV X=$FO")).expect("checked");
    assert!(hint.findings[0].diagnostic.render().contains("Did you mean `FOO`?"));
    assert!(build::check(&bed.env, &bed.request("FROM busybox:1\nNOPE")).is_err());
    assert_eq!(build::usage(&bed.env.home, &bed.env.store).expect("measured").records, 0);
}

fn findings_can_be_errors(bed: &Bed) {
    let text = "# check=error=true\nFROM busybox:1\nCMD run";
    let failed = bed.build(text).failure();
    assert!(
        failed.contains("lint violation found for rules: JSONArgsRecommended") && failed.contains(":3:1"),
        "{failed}"
    );
    let mut request = bed.request(text);
    request
        .args
        .insert("BUILDKIT_DOCKERFILE_CHECK".into(), Some("skip=JSONArgsRecommended;error=true".into()));
    bed.build_request(request).success();
    let warned = bed.build("FROM busybox:1\nARG GOOD=1\nLABEL l=$GOD\nCMD run");
    let warnings: Vec<&str> = warned
        .events
        .iter()
        .filter_map(|event| match event {
            build::BuildEvent::Warning(diagnostic) => diagnostic.message.split(':').next(),
            _ => None,
        })
        .collect();
    assert_eq!(warnings, ["JSONArgsRecommended", "UndefinedVar"]);
    bed.write("Dockerfile", text);
    bed.write("compose.yaml", "services: {web: {build: .}}\n");
    let check = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.args(["build", "--check"]).args(args).current_dir(&bed.context);
        let ran = command.env("STACK_HOME", &bed.env.home.data).output().expect("started");
        (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (is_success, said) = check(&[]);
    assert!(
        !is_success && said.contains("JSONArgsRecommended") && said.contains("1 warning has been found"),
        "{said}"
    );
    bed.write("Dockerfile", "FROM busybox:1\nCMD run");
    let (is_success, said) = check(&[]);
    assert!(is_success && said.contains("Dockerfile:2:1"), "{said}");
    bed.write("Dockerfile", "FROM busybox:1");
    assert!(check(&[]).1.contains("Check complete, no warnings found."));
}

/// The same files and the same date give the same image, wherever and whenever.
fn a_date_makes_builds_reproducible(bed: &Bed) {
    const DATE: &str = "1600000000";
    let text = "FROM busybox:1 AS made\nRUN mkdir -p /o/d && echo x > /o/d/f && ln -s f /o/d/l && rm /bin/vi\n\
        FROM busybox:1\nARG SOURCE_DATE_EPOCH\nWORKDIR /w\nCOPY . /ctx\nCOPY --link f /linked\nCOPY <<E /inline\nx\nE\n\
        COPY --from=made /o /o\nRUN echo $SOURCE_DATE_EPOCH > /date && rm -r /ctx/sub && mkdir /ctx/sub\nLABEL l=1";
    let build = |folder: &str, time: u64, date: &str| {
        let context = bed.directory.path().join(folder);
        std::fs::create_dir_all(context.join("sub")).expect("made");
        for file in ["f", "sub/g"] {
            std::fs::write(context.join(file), file).expect("written");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
            std::fs::File::open(context.join(file)).and_then(|f| f.set_modified(time)).expect("set");
        }
        let mut request = BuildRequest { context, ..bed.request(text) };
        request.args.insert("SOURCE_DATE_EPOCH".into(), Some(date.into()));
        // Nothing of one build is used by the next one.
        request.no_cache = true;
        bed.build_request(request)
    };
    let first = build("here", 1_000_000_000, DATE);
    let id = first.success().image_id.clone();
    let image = bed.image(&first);
    assert_eq!(image.created, "2020-09-13T12:26:40Z");
    let own = image.document.history.iter().skip(1);
    assert!(own.into_iter().all(|entry| entry.created.as_deref() == Some("2020-09-13T12:26:40Z")));
    let young = |path: &str| {
        bed.file(&first, path).expect(path).symlink_metadata().expect("there").mtime() > 1_600_000_000
    };
    assert!(!["date", "ctx/f", "o/d/l", "inline", "w", "linked"].iter().any(|path| young(path)));
    // The second of a later clock differs.
    let second = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let begun = second();
    while second() == begun {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = build("elsewhere/deep", 1_234_567_890, DATE);
    assert_eq!(second.success().image_id, id);
    assert_ne!(build("here", 1_000_000_000, "1600000001").success().image_id, id);
    let mut wrong = bed.request("FROM scratch");
    wrong.args.insert("SOURCE_DATE_EPOCH".into(), Some("yesterday".into()));
    assert!(bed.build_request(wrong).failure().contains("invalid SOURCE_DATE_EPOCH: yesterday"));
}
