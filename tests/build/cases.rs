//! Images, cache and failures.

use crate::bed::{Bed, Case};
use stack::build::{self, BuildEvent, BuildRequest, DockerfileSource};
use stack_runtime::image::Reference;
use std::time::Duration;

pub(crate) const ALL: &[(&str, Case)] = &[
    ("an_image_from_scratch", an_image_from_scratch),
    ("an_unchanged_build_is_all_cached", an_unchanged_build_is_all_cached),
    ("a_change_rebuilds_from_there_on", a_change_rebuilds_from_there_on),
    ("args_and_env_in_keys", args_and_env_in_keys),
    ("completed_steps_survive_a_failure", completed_steps_survive_a_failure),
    ("no_cache_executes_again", no_cache_executes_again),
    ("stages_are_pruned_and_shared", stages_are_pruned_and_shared),
    ("history_and_config", history_and_config),
    ("failures_show_the_line", failures_show_the_line),
    ("a_failure_has_the_last_lines_and_all_are_on_disk", a_failure_has_the_last_lines_and_all_are_on_disk),
    ("triggers_run_in_children", triggers_run_in_children),
    ("pruning_forgets", pruning_forgets),
    ("two_builds_at_once", two_builds_at_once),
];

fn an_image_from_scratch(bed: &Bed) {
    bed.write("hello", "hi");
    let mut request = bed.request("FROM scratch\nCOPY hello /bin/hello\nCMD [\"/bin/hello\"]");
    request.tags = vec![Reference::parse("example/hello:1").expect("a name")];
    request.labels.insert("l".into(), "1".into());
    let built = bed.build_request(request);
    assert_eq!(bed.text(&built, "bin/hello"), "hi");
    let image = bed.env.store.image("example/hello:1").expect("read").expect("tagged");
    assert_eq!(image.config.cmd.as_deref().expect("set"), ["/bin/hello"]);
    assert_eq!(image.labels["l"], "1");
    assert_eq!((image.layers.len(), image.document.history.len()), (1, 2));
}

const STEPS: &str =
    "FROM busybox:1\nWORKDIR /app\nCOPY list .\nRUN cp list copy && echo made\nCOPY . .\nENV X=1\n";

fn an_unchanged_build_is_all_cached(bed: &Bed) {
    bed.write("list", "a");
    bed.write("main", "b");
    let first = bed.build(STEPS);
    assert_eq!(first.counts(), (4, 0));
    assert_eq!(first.output(), ["made"]);
    let second = bed.build(STEPS);
    assert_eq!(second.counts(), (4, 4));
    assert_eq!(first.success().image_id, second.success().image_id);
    assert!(second.output().is_empty());
    // Times do not count.
    let later = std::time::SystemTime::now() - Duration::from_secs(5000);
    std::fs::File::open(bed.context.join("main")).and_then(|f| f.set_modified(later)).expect("set");
    assert_eq!(bed.build(STEPS).counts(), (4, 4));
}

fn a_change_rebuilds_from_there_on(bed: &Bed) {
    bed.write("list", "a");
    bed.write("main", "b");
    bed.write(".dockerignore", "ignored\n");
    bed.build(STEPS).success();
    bed.write("main", "c");
    let built = bed.build(STEPS);
    assert_eq!(built.counts(), (4, 3));
    assert_eq!(bed.text(&built, "app/main"), "c");
    bed.write("ignored", "x");
    let built = bed.build(STEPS);
    assert_eq!(built.counts(), (4, 4));
    assert!(bed.file(&built, "app/ignored").is_none());
    bed.write("list", "changed");
    assert_eq!(bed.build(STEPS).counts(), (4, 1));
    // Back to what was: everything is found again.
    bed.write("list", "a");
    assert_eq!(bed.build(STEPS).counts(), (4, 4));
}

fn args_and_env_in_keys(bed: &Bed) {
    let text = "FROM busybox:1\nLABEL a=1\nARG V=1\nRUN echo $V > /v\nCMD [\"x\"]";
    let with = |text: &str, value: &str| {
        let mut request = bed.request(text);
        request.args.insert("V".into(), Some(value.into()));
        bed.build_request(request)
    };
    let first = with(text, "1");
    assert_eq!(bed.text(&first, "v"), "1\n");
    assert_eq!(with(text, "1").counts(), (1, 1));
    let second = with(text, "2");
    assert_eq!(second.counts(), (1, 0));
    assert_eq!(bed.text(&second, "v"), "2\n");
    // Labels and commands are in no key, and an argument that is not declared is nothing.
    assert_eq!(with(&text.replace("a=1", "a=2").replace("\"x\"", "\"y\""), "2").counts(), (1, 1));
    let mut request = bed.request(text);
    request.args.insert("OTHER".into(), Some("x".into()));
    assert_eq!(bed.build_request(request).counts(), (1, 1));
}

fn completed_steps_survive_a_failure(bed: &Bed) {
    let text = "FROM busybox:1\nRUN echo one > /one\nRUN ";
    let failed = bed.build(&format!("{text}false"));
    failed.failure();
    assert_eq!(bed.build(&format!("{text}true")).counts(), (2, 1));
}

fn no_cache_executes_again(bed: &Bed) {
    let text = "FROM busybox:1\nRUN --mount=type=cache,target=/c echo x >> /c/f && cp /c/f /f";
    bed.build(text).success();
    let request = BuildRequest { no_cache: true, ..bed.request(text) };
    let built = bed.build_request(request);
    assert_eq!(built.counts(), (1, 0));
    // The cache mount was emptied too.
    assert_eq!(bed.text(&built, "f"), "x\n");
    assert_eq!(bed.build(text).counts(), (1, 1));
}

fn stages_are_pruned_and_shared(bed: &Bed) {
    bed.write("src", "s");
    let text = "FROM busybox:1 AS base\nRUN echo base > /base\n\
        FROM base AS one\nCOPY src /one\nFROM base AS two\nRUN cat /base > /two\n\
        FROM busybox:1 AS unused\nRUN false\n\
        FROM scratch\nCOPY --from=one /one /\nCOPY --from=2 /two /t/\nCOPY --from=busybox:1 /bin/busybox /bin/";
    let built = bed.build(text);
    assert_eq!(bed.text(&built, "one"), "s");
    assert_eq!(bed.text(&built, "t/two"), "base\n");
    assert!(bed.file(&built, "bin/busybox").is_some());
    let again = bed.build(text);
    assert_eq!(again.counts(), (6, 6));
    let mut request = bed.request(text);
    request.target = Some("ONE".into());
    let target = bed.build_request(request);
    assert_eq!(target.counts(), (2, 2));
    let mut request = bed.request(text);
    request.target = Some("nope".into());
    assert!(bed.build_request(request).failure().contains("target stage `nope` could not be found"));
    let names: Vec<&str> = built
        .events
        .iter()
        .filter_map(|e| match e {
            BuildEvent::Done { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert!(names.contains(&"[two 2/2] RUN cat /base > /two"), "{names:?}");
}

fn history_and_config(bed: &Bed) {
    let text = "FROM busybox:1\nARG A=1\nRUN true\nWORKDIR /w\nUSER 5:6\nEXPOSE 80\nENTRYPOINT [\"e\"]\n";
    let image = bed.image(&bed.build(text));
    let lines: Vec<(String, bool)> = image
        .document
        .history
        .iter()
        .skip(1)
        .map(|h| (h.created_by.clone().unwrap_or_default(), h.empty_layer))
        .collect();
    let expected = [
        ("ARG A=1", true),
        ("RUN |1 A=1 /bin/sh -c true # buildkit", false),
        ("WORKDIR /w", false),
        ("USER 5:6", true),
        ("EXPOSE [80/tcp]", true),
        ("ENTRYPOINT [\"e\"]", true),
    ];
    let expected: Vec<(String, bool)> = expected.map(|(line, empty)| (line.to_owned(), empty)).to_vec();
    assert_eq!(lines, expected);
    // The base's command is not for another entry point.
    assert_eq!((image.config.cmd, image.config.working_dir.as_str()), (None, "/w"));
}

fn failures_show_the_line(bed: &Bed) {
    let failed = bed.build("FROM busybox:1\n\nRUN echo out && echo err >&2 && exit 7\n");
    let shown = failed.failure();
    for part in ["Dockerfile (inline):3:1", "    3 | RUN echo out", "exit code: 7", "  out", "  err", "[2/2]"]
    {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
    assert_eq!(failed.result.expect_err("failed").exit_code, Some(7));
    let missing = bed.build("FROM busybox:1\nCOPY nope /\n").failure();
    assert!(missing.contains("`nope` not found") && missing.contains(":2:1"), "{missing}");
    let absent = bed.build("FROM localhost:1/nothing:1\n").failure();
    assert!(
        absent.contains("failed to pull base image localhost:1/nothing:1") && absent.contains(":1:1"),
        "{absent}"
    );
    let no_shell = bed.build("FROM scratch\nRUN echo\n").failure();
    assert!(no_shell.contains("/bin/sh"), "{no_shell}");
    let unknown = bed.build("FROM busybox:1\nUSER nobody-here\nRUN true\n").failure();
    assert!(unknown.contains("nobody-here"), "{unknown}");
    let request = BuildRequest { dockerfile: DockerfileSource::default(), ..bed.request("") };
    assert!(bed.build_request(request).failure().contains("failed to read the Dockerfile"));
}

fn a_failure_has_the_last_lines_and_all_are_on_disk(bed: &Bed) {
    // More than 4 MiB in lines, one of which is longer than any event.
    let text = "FROM busybox:1\nRUN seq 1 500000; head -c 100000 /dev/zero | tr '\\0' x; echo; seq 500001 500100; exit 9\n";
    let shown = bed.build(text).failure();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.contains(&"  500100") && lines.contains(&"  499999"), "{shown}");
    assert!(!lines.contains(&"  499900"), "{shown}");
    let log =
        shown.lines().find_map(|line| line.strip_prefix("  the whole output: ")).expect("it is said where");
    let whole = std::fs::read_to_string(log).expect("it is there");
    assert!(whole.starts_with("1\n2\n") && whole.ends_with("\n500100\n"));
    assert_eq!(whole.lines().count(), 500_101);
    assert!(whole.lines().any(|line| line.len() == 100_000));
}

fn triggers_run_in_children(bed: &Bed) {
    bed.write("app", "a");
    let mut request = bed.request("FROM busybox:1\nONBUILD COPY app /app\nONBUILD RUN cat /app > /seen");
    request.tags = vec![Reference::parse("base:1").expect("a name")];
    let base = bed.build_request(request);
    assert!(bed.file(&base, "app").is_none());
    let child = bed.build("FROM base:1");
    assert_eq!(bed.text(&child, "seen"), "a");
    assert!(bed.image(&child).config.on_build.is_empty());
}

fn pruning_forgets(bed: &Bed) {
    let text = "FROM busybox:1\nRUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/f bs=1k count=64 2>/dev/null; echo x > /x";
    bed.build(text).success();
    let (home, store) = (&bed.env.home, &bed.env.store);
    let usage = build::usage(home, store).expect("measured");
    assert_eq!((usage.records, usage.layers), (1, 0));
    assert!(usage.mounts >= 64 << 10, "{usage:?}");
    assert_eq!(build::chains_in_use(home).len(), 1);
    // The image has the layer, so only the mount goes.
    let pruned = build::prune(home, store, false, Duration::ZERO).expect("pruned");
    assert_eq!((pruned.records, pruned.mounts), (0, 1));
    assert_eq!(bed.build(text).counts(), (1, 1));
    build::prune(home, store, true, Duration::ZERO).expect("pruned");
    assert_eq!(bed.build(text).counts(), (1, 0));
}

fn two_builds_at_once(bed: &Bed) {
    let text = "FROM busybox:1\nRUN echo begin; cat /proc/sys/kernel/random/uuid > /id";
    let ids = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..3).map(|_| scope.spawn(|| bed.text(&bed.build(text), "id"))).collect();
        builds.into_iter().map(|build| build.join().expect("built")).collect::<Vec<_>>()
    });
    // One executed it, the others found its layer.
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}
