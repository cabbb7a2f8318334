use super::*;
use crate::dockerfile::stages::{Names, Reference, select};

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source { name: "Dockerfile".into(), path: None, text: text.into() })
}

fn parsed(text: &str) -> Dockerfile {
    parse(source(text)).unwrap_or_else(|e| panic!("{}", e.render()))
}

fn failure(text: &str) -> String {
    parse(source(text)).err().unwrap_or_else(|| panic!("no error: {text}")).render()
}

/// The instructions of a single stage on `scratch`.
fn kinds(body: &str) -> Vec<Kind> {
    let file = parsed(&format!("FROM scratch\n{body}"));
    file.stages[0].instructions.iter().map(|i| i.kind.clone()).collect()
}

fn kind(body: &str) -> Kind {
    kinds(body).pop().expect("one instruction")
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|&s| s.to_owned()).collect()
}

#[test]
fn comments_and_continuations() {
    let kinds = kinds("# c\n  run a \\\n # inside\n\n  b \\ \n c # text\nCMD []");
    let Kind::Run(run) = &kinds[0] else { panic!("a run") };
    assert_eq!(run.command, Command::Shell("a   b  c # text".into()));
    assert_eq!(kinds[1], Kind::Cmd(Command::Exec(vec![])));
}

#[test]
fn a_doubled_escape_does_not_continue() {
    let kinds = kinds("RUN echo \\\\\nRUN b");
    assert_eq!(kinds.len(), 2);
}

#[test]
fn crlf_and_byte_order_mark() {
    let file = parsed("\u{feff}FROM a\r\nRUN x \\\r\n y\r\nWORKDIR /w\r\n");
    let Kind::Run(run) = &file.stages[0].instructions[0].kind else { panic!("a run") };
    assert_eq!(run.command, Command::Shell("x  y".into()));
    assert_eq!(file.stages[0].instructions[1].kind, Kind::Workdir("/w".into()));
}

#[test]
fn the_other_escape() {
    let file = parsed("# syntax=docker/dockerfile:1.7\n# escape=`\nFROM a\nRUN x `\n y\\\nRUN z");
    assert_eq!(file.escape, '`');
    assert_eq!(file.stages[0].instructions.len(), 2);
}

#[test]
fn directives_end_at_the_first_other_line() {
    assert_eq!(parsed("# note\n# escape=`\nFROM a").escape, '\\');
    assert!(failure("# escape=`\n# escape=`\nFROM a").contains("only one escape parser directive"));
    assert!(failure("# escape=x\nFROM a").contains("invalid escape token"));
}

#[test]
fn foreign_frontends_are_refused_by_name() {
    let accept = |text: &str| parsed(text).frontend.expect("named").accept();
    let shown = accept("# syntax=example.com/other:1\nFROM a").expect_err("foreign").render();
    assert!(shown.contains("`example.com/other:1` is not supported"), "{shown}");
    assert!(shown.contains("Dockerfile:1:1"), "{shown}");
    accept("#syntax=docker.io/docker/dockerfile:1@sha256:aa\nFROM a").expect("its own");
    accept("# syntax = docker/dockerfile\nFROM a").expect("its own");
}

#[test]
fn exec_and_shell_forms() {
    assert_eq!(kind(r#"CMD ["a","b c"]"#), Kind::Cmd(Command::Exec(strings(&["a", "b c"]))));
    assert_eq!(kind("CMD ['a']"), Kind::Cmd(Command::Shell("['a']".into())));
    assert_eq!(kind(r#"ENTRYPOINT ["a"] x"#), Kind::Entrypoint(Command::Shell(r#"["a"] x"#.into())));
    assert!(failure("FROM a\nCMD [1]").contains("only hold strings"));
    assert!(failure("FROM a\nSHELL bash").contains("JSON form"));
}

#[test]
fn env_label_and_arg() {
    let pairs = vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "\"x y\"".to_owned())];
    assert_eq!(kind(r#"ENV a=1 b="x y""#), Kind::Env(Pairs { list: pairs, is_legacy: false }));
    assert_eq!(
        kind("ENV a b  c"),
        Kind::Env(Pairs { list: vec![("a".into(), "b  c".into())], is_legacy: true })
    );
    assert_eq!(kind("ARG a b=$a"), Kind::Arg(vec![("a".into(), None), ("b".into(), Some("$a".into()))]));
    assert!(failure("FROM a\nENV x").contains("two arguments"));
    assert!(failure("FROM a\nLABEL a=1 b").contains("can't find ="));
    assert!(failure("FROM a\nENV =x").contains("blank"));
}

#[test]
fn copy_with_flags() {
    let Kind::Copy(copy) =
        kind("COPY --from=b --chown=1:2 --chmod=644 --link --exclude=a --exclude=b x y /z/")
    else {
        panic!("a copy")
    };
    assert_eq!(copy.from.as_deref(), Some("b"));
    assert_eq!((copy.chown.as_deref(), copy.chmod.as_deref(), copy.link), (Some("1:2"), Some("644"), true));
    assert_eq!(copy.excludes, ["a", "b"]);
    assert_eq!(copy.sources, [TransferSource::Path("x".into()), TransferSource::Path("y".into())]);
    assert_eq!(copy.destination, "/z/");
    let Kind::Copy(copy) = kind(r#"COPY ["a b", "/c d"]"#) else { panic!("a copy") };
    assert_eq!(copy.destination, "/c d");
    assert!(failure("FROM a\nCOPY --form=b x y").contains("Did you mean `from`?"));
    assert!(failure("FROM a\nCOPY x").contains("at least two"));
    assert!(failure("FROM a\nCOPY --chown a b").contains("needs a value"));
    assert!(failure("FROM a\nCOPY --chown=1 --chown=2 a b").contains("twice"));
}

#[test]
fn heredocs() {
    let kinds = kinds(
        "RUN <<EOF\n\techo $x\nEOF\nCOPY <<-\"A\" <<B /d/\n\tone\n\tA\ntwo $v\nB\nRUN python3 <<EOF\nx\nEOF\nUSER u",
    );
    let Kind::Run(run) = &kinds[0] else { panic!("a run") };
    assert_eq!(run.heredocs[0].content, "\techo $x\n");
    let Kind::Copy(copy) = &kinds[1] else { panic!("a copy") };
    let [TransferSource::Inline(a), TransferSource::Inline(b)] = copy.sources.as_slice() else {
        panic!("two bodies")
    };
    assert_eq!((a.name.as_str(), a.body().as_str(), a.expand), ("A", "one\n", false));
    assert_eq!((b.name.as_str(), b.body().as_str(), b.expand), ("B", "two $v\n", true));
    assert_eq!(kinds.len(), 4);
    assert!(failure("FROM a\nRUN <<EOF\nx").contains("unterminated heredoc `EOF`"));
    assert!(failure("FROM a\nCOPY a <<EOF\nEOF").contains("as its destination"));
}

#[test]
fn heredoc_names() {
    for (line, name, expand) in [
        ("RUN << E x", "E", true),
        ("RUN <<\\E x", "E", true),
        ("RUN 3<<'E' x", "E", false),
        ("RUN <<E>f x", "E>f", true),
    ] {
        let Kind::Run(run) = kind(&format!("{line}\nbody\n{name}")) else { panic!("a run") };
        assert_eq!((run.heredocs[0].name.as_str(), run.heredocs[0].expand), (name, expand), "{line}");
    }
    // In the JSON form it is empty, and the last body of a name is that of all.
    let Kind::Copy(copy) = kind(r#"COPY ["<<E", "/x"]"#) else { panic!("a copy") };
    assert!(matches!(&copy.sources[0], TransferSource::Inline(heredoc) if heredoc.content.is_empty()));
}

#[test]
fn odd_lines() {
    let file = parsed("\\\nFROM a\nRUN x \\\n  # note\n\n  y\nRUN <<E\nz\nE\nUSER u \\\n# end\n");
    assert_eq!(file.lines, [(1, 2), (3, 6), (7, 9), (10, 11)]);
    assert_eq!(file.stages[0].instructions[0].keyword, "RUN");
    assert!(failure("FROM a\n\\\n").contains("unknown instruction"));
    assert!(failure("FROM a\nRUN\u{a0}x").contains("unknown instruction"));
    // Flags of these are looked at by nobody, and a trigger where it runs.
    assert_eq!(
        kinds("ARG --x=1 a\nSTOPSIGNAL --y KILL\nHEALTHCHECK --interval=x NONE\nONBUILD NOPE  a ").len(),
        4
    );
    assert_eq!(kind("ONBUILD  NOPE  a "), Kind::Onbuild("NOPE  a ".into()));
    assert!(failure("FROM a\nONBUILD CMD [1]").contains("only hold strings"));
    assert_eq!(kind("EXPOSE 90 80"), Kind::Expose(strings(&["80", "90"])));
    assert_eq!(kind("VOLUME [\" /a \"]"), Kind::Volume(strings(&["/a"])));
    assert!(failure("# escape= \nFROM a").contains("invalid escape"));
}

#[test]
fn two_heredocs_in_one_run() {
    let Kind::Run(run) = kind("RUN <<A cat && <<B cat\n1\nA\n2\nB") else { panic!("a run") };
    assert_eq!(run.heredocs.len(), 2);
    let Kind::Run(run) = kind("RUN echo $((1<<2)) \"<<EOF\"") else { panic!("a run") };
    assert!(run.heredocs.is_empty());
}

#[test]
fn mounts_of_run() {
    let Kind::Run(run) =
        kind("RUN --mount=type=cache,target=/c --mount=from=b,target=/b --network=none make")
    else {
        panic!("a run")
    };
    assert_eq!(run.mounts.len(), 2);
    assert_eq!(run.mounts[1].from(), Some("b"));
    assert_eq!(run.network.as_deref(), Some("none"));
    assert!(failure("FROM a\nRUN --mount=from=$x,target=/a a").contains("does not support variables"));
    assert!(failure("FROM a\nRUN --network=lan a").contains("default or none or host"));
}

#[test]
fn healthchecks() {
    let Kind::Healthcheck(check) =
        kind("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=0 CMD curl -f x")
    else {
        panic!("one")
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl -f x"]);
    assert_eq!(check.interval, Some(Duration::from_secs(90)));
    assert_eq!(check.timeout, Some(Duration::from_millis(500)));
    assert_eq!(check.retries, None);
    let Kind::Healthcheck(check) = kind("HEALTHCHECK NONE") else { panic!("one") };
    assert_eq!(check.test, ["NONE"]);
    for bad in [
        "HEALTHCHECK",
        "HEALTHCHECK NONE x",
        "HEALTHCHECK CMD",
        "HEALTHCHECK --retries=-1 CMD x",
        "HEALTHCHECK --interval=1 CMD x",
        "HEALTHCHECK --interval=1us CMD x",
    ] {
        failure(&format!("FROM a\n{bad}"));
    }
}

#[test]
fn onbuild() {
    assert_eq!(kind("ONBUILD RUN x"), Kind::Onbuild("RUN x".into()));
    let Kind::Onbuild(text) = kind("ONBUILD COPY <<E /x\nhi\nE") else { panic!("a trigger") };
    assert_eq!(text, "COPY <<E /x\nhi\nE");
    let trigger = parse_trigger(&text, "base").expect("valid");
    assert!(matches!(trigger.kind, Kind::Copy(_)));
    assert!(failure("FROM a\nONBUILD ONBUILD RUN x").contains("chaining"));
    assert!(failure("FROM a\nONBUILD FROM x").contains("isn't allowed"));
    assert!(parse_trigger("RUN a\nRUN b", "base").is_err());
}

#[test]
fn errors_have_file_line_and_excerpt() {
    let shown = failure("FROM a\n\n  RUUN x\n");
    assert_eq!(
        shown,
        "error: unknown instruction `RUUN`\n  --> Dockerfile:3:3\n    3 |   RUUN x\n      |   ^^^^^^\nhint: Did you mean `RUN`?\n"
    );
    assert!(failure("RUN x\nFROM a").contains("before the first FROM"));
    assert!(failure("# nothing\n").contains("no build stage"));
    assert!(failure("FROM a b").contains("one or three"));
    assert!(failure("FROM a AS 1x").contains("invalid name"));
    assert!(failure("FROM a\nWORKDIR").contains("exactly one"));
}

fn selection(text: &str, target: Option<&str>) -> Result<stages::Selection, Box<Diagnostic>> {
    let variables = |name: &str| (name == "BASE").then(|| "debian".to_owned());
    let names = Names {
        contexts: &|name| name == "extra",
        variables: &variables,
        platform: &|_| Ok(()),
        image: &|_| Ok(()),
    };
    select(&parsed(text), target, &names)
}

#[test]
fn only_reachable_stages_are_selected() {
    let text = "FROM $BASE AS a\nFROM a AS b\nFROM x AS unused\nFROM scratch\nCOPY --from=b / /\nRUN --mount=from=extra,target=/e x";
    let found = selection(text, None).expect("valid");
    let indices: Vec<usize> = found.stages.iter().map(|s| s.index).collect();
    assert_eq!(indices, [0, 1, 3]);
    assert_eq!(found.stages[0].base, Reference::Image("debian".into()));
    assert_eq!(found.stages[1].base, Reference::Stage(0));
    assert_eq!(found.stages[2].uses, [(0, Reference::Stage(1)), (1, Reference::Context("extra".into()))]);
    let found = selection(text, Some("A")).expect("valid");
    assert_eq!(found.stages.len(), 1);
}

#[test]
fn wrong_references_are_named() {
    let fails = |text: &str, target: Option<&str>| selection(text, target).expect_err(text).render();
    assert!(fails("FROM a AS b\n", Some("x")).contains("The stages are: b."));
    assert!(fails("FROM a AS b", Some("0")).contains("could not be found"));
    assert!(fails("FROM a AS x\nCOPY --from=1 a b", None).contains("invalid stage index 1"));
    assert!(fails("FROM a AS x\nCOPY --from=0 a b", None).contains("circular"));
    assert!(fails("FROM a\nCOPY --from=$x a b", None).contains("not supported for --from"));
    assert!(fails("FROM a AS x\nCOPY --from=x a b", None).contains("circular"));
    assert!(
        fails("FROM a AS x\nCOPY --from=y a b\nFROM b AS y", Some("x")).contains("before current stage `x`")
    );
    assert!(fails("FROM $NOPE", None).contains("is empty"));
}

/// `Rule:LINE` of all findings that the file wants.
fn findings(text: &str) -> Vec<String> {
    let file = parsed(text);
    let variables = |name: &str| match name {
        "TARGETPLATFORM" | "BUILDPLATFORM" => Some("linux/amd64".to_owned()),
        "GIVEN" => Some("img".to_owned()),
        _ => None,
    };
    let image = |name: &str| if name.ends_with(':') || name.is_empty() { Err(String::new()) } else { Ok(()) };
    let names = Names { contexts: &|_| false, variables: &variables, platform: &|_| Ok(()), image: &image };
    let bases = lint::check_bases(&file, &names, &["GIVEN"]);
    let all = file.findings.iter().chain(&bases).filter(|finding| file.check.wants(finding.rule));
    let line = |finding: &lint::Finding| {
        let place = finding.diagnostic.place.as_ref().expect("a place");
        format!("{}:{}", finding.rule, place.line_column().0)
    };
    all.map(line).collect()
}

#[test]
fn keywords_in_any_case() {
    assert_eq!(parsed("from a as b\nRun x\ncmd []").stages[0].instructions.len(), 2);
}

#[test]
fn findings_have_the_known_names() {
    for (text, expected) in [
        ("FROM a AS Up\nRUN x", "StageNameCasing:1"),
        ("FROM a as up\nRUN x", "FromAsCasing:1"),
        ("FROM a\nRUN x \\\n\n\n y", "NoEmptyContinuation:5"),
        ("FROM a\nRUN x \\\n\n# end", "NoEmptyContinuation:4"),
        ("FROM a\nRUN x\nrun y", "ConsistentInstructionCasing:3"),
        ("from a\nrun x\nRUN y", "ConsistentInstructionCasing:3"),
        ("FROM a AS x\nFROM b AS x", "DuplicateStageName:2"),
        ("FROM a AS scratch", "ReservedStageName:1"),
        ("FROM a\nMAINTAINER me", "MaintainerDeprecated:2"),
        ("FROM img$NONE", "UndefinedArgInFrom:1"),
        ("FROM img${NONE:-x}", "UndefinedArgInFrom:1"),
        ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform:1"),
        ("FROM --platform=linux/arm64 a", "FromPlatformFlagConstDisallowed:1"),
        ("ARG GIVEN\nFROM $GIVEN", "InvalidDefaultArgInFrom:2"),
        ("ARG GIVEN\nFROM a:$GIVEN", "InvalidDefaultArgInFrom:2"),
        ("# check=experimental=all\n\n# other thing\nFROM a AS up", "InvalidDefinitionDescription:4"),
    ] {
        assert_eq!(findings(text), [expected], "{text}");
    }
}

#[test]
fn nothing_is_found_in_what_is_meant() {
    for text in [
        "FROM a AS up\nRUN x \\\n # why\n y",
        "from a as up\nrun x",
        "FROM --platform=$BUILDPLATFORM a",
        "FROM --platform=linux/arm64 a AS for-arm64",
        "ARG GIVEN=img\nFROM $GIVEN",
        "ARG V\nFROM a:${V:-1}",
        "# check=experimental=all\n# other thing\n#\nFROM a AS up",
        "# other thing\nFROM a AS up",
        "FROM scratch",
    ] {
        assert!(findings(text).is_empty(), "{text}: {:?}", findings(text));
    }
}

#[test]
fn findings_are_silenced_by_name() {
    let bad = "FROM a as b\nMAINTAINER me";
    assert_eq!(findings(&format!("# check=skip=FromAsCasing\n{bad}")), ["MaintainerDeprecated:3"]);
    assert!(findings(&format!("# check=skip=FromAsCasing, MaintainerDeprecated\n{bad}")).is_empty());
    assert_eq!(findings(&format!("# check=skip=fromascasing\n{bad}")).len(), 2);
    assert!(findings(&format!("# check=skip=all\n{bad}")).is_empty());
    assert!(parsed("# check=error=true;skip=A\nFROM a").check.is_error);
    assert!(failure("# check=skip\nFROM a").contains("invalid check option `skip`"));
    assert!(failure("# check=what=1\nFROM a").contains("Dockerfile:1:1"));
}

proptest::proptest! {
    #[test]
    fn never_panics(body in "(FROM|RUN|COPY|ENV|ARG|ONBUILD|HEALTHCHECK|SHELL| |\\n|\\\\|<<|-|--from=|--mount=type=cache|\\[|\\]|\"|'|=|\\$\\{|\\}|a|é|#|EOF|\\t|\\r\\n){0,40}") {
        if let Ok(file) = parse(source(&body)) {
            let names = Names { contexts: &|_| false, variables: &|_: &str| None, platform: &|_| Ok(()), image: &|_| Ok(()) };
            let _ = select(&file, None, &names);
        }
        let _ = parse(source(&format!("FROM a\n{body}")));
        let _ = parse_trigger(&body, "x");
    }
}
