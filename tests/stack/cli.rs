//! The face without a kernel behind it: what is typed, what is printed where, how it ends.

use std::path::Path;
use std::process::{Command, Output};

/// A directory with a file, and the program run in it.
struct Place(tempfile::TempDir);

impl Place {
    fn with(compose: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("compose.yaml"), compose).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn stack(&self, args: &[&str]) -> Ran {
        self.stack_with(&[], args)
    }

    fn stack_with(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.args(args).current_dir(self.path()).env_clear().stdin(std::process::Stdio::null());
        command.env("STACK_HOME", self.path().join("home")).env("HOME", self.path());
        Ran(command.envs(env.iter().copied()).output().unwrap())
    }
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }
    fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }
    fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
    #[track_caller]
    fn fails_with(&self, text: &str) {
        assert_eq!(self.code(), 1, "{}", self.err());
        assert_eq!(self.out(), "", "failures are no data");
        assert!(self.err().contains(text), "`{text}` is missing from {}", self.err());
    }
}

const SHOP: &str = "
name: shop
services:
  db:
    image: db:1
    volumes: [data:/data]
    healthcheck: {test: [CMD, 'true']}
  api:
    build: .
    depends_on: {db: {condition: service_healthy}}
    ports: ['8080:80']
  debug:
    image: busybox
    profiles: [debug]
volumes:
  data: {}
";

#[test]
fn version_and_help_need_no_project() {
    let place = Place::with("no: [yaml");
    let number = env!("CARGO_PKG_VERSION");
    assert_eq!(place.stack(&["version"]).out(), format!("stack version {number}\n"));
    assert_eq!(place.stack(&["version", "--short"]).out(), format!("{number}\n"));
    assert_eq!(place.stack(&["version", "-f", "json"]).out(), format!("{{\"version\":\"{number}\"}}\n"));
    assert!(place.stack(&["--help"]).out().contains("Usage: stack"));
    assert_eq!(place.stack(&["--version"]).code(), 0);
}

#[test]
fn a_wrong_command_line_ends_with_one() {
    let place = Place::with(SHOP);
    for args in [&["upp"][..], &["up", "--nope"], &[]] {
        assert_eq!(place.stack(args).code(), 1, "{args:?}");
    }
    place.stack(&["up", "--build", "--no-build"]).fails_with("--build and --no-build are incompatible");
    place.stack(&["up", "-d", "--watch"]).fails_with("--detach cannot be combined with");
    place.stack(&["up", "--wait", "--abort-on-container-exit"]).fails_with("--wait cannot be combined with");
    place.stack(&["up", "--force-recreate", "--no-recreate"]).fails_with("are incompatible");
    place
        .stack(&["up", "--scale", "api"])
        .fails_with("invalid --scale option \"api\". Should be SERVICE=NUM");
    place.stack(&["up", "--pull", "policy"]).fails_with("invalid --pull option \"policy\"");
    place.stack(&["--progress", "foo", "ps"]).fails_with("unsupported --progress value \"foo\"");
    place
        .stack(&["run", "-P", "-p", "1:1", "api"])
        .fails_with("--service-ports and --publish are incompatible");
}

#[test]
fn config_lists_parts() {
    let place = Place::with(SHOP);
    assert_eq!(place.stack(&["config", "--services"]).out(), "db\napi\n");
    assert_eq!(place.stack(&["--profile", "debug", "config", "--services"]).out(), "db\napi\ndebug\n");
    assert_eq!(place.stack(&["config", "--volumes"]).out(), "data\n");
    assert_eq!(place.stack(&["config", "--images"]).out(), "db:1\nshop-api\n");
    assert_eq!(place.stack(&["config", "--profiles"]).out(), "debug\n");
    assert_eq!(place.stack(&["config", "-q"]).out(), "");
    assert!(place.stack(&["config", "--hash", "db"]).out().starts_with("db "));
    assert!(place.stack(&["config", "--format", "json"]).out().starts_with("{\n"));
    let written = place.path().join("out.yaml");
    assert_eq!(place.stack(&["config", "-o", "out.yaml"]).code(), 0);
    assert!(std::fs::read_to_string(written).unwrap().starts_with("name: shop\n"));
}

#[test]
fn config_lists_what_the_files_name() {
    let place = Place::with(
        "services: {a: {image: 'x:${TAG:-1}', environment: {P: '${P:?set P}'}, models: [m]}}\nmodels: {m: {model: ai/m}}\n",
    );
    let ran = place.stack(&["config", "--variables"]);
    assert_eq!(
        ran.out().split_whitespace().collect::<Vec<_>>().join(" "),
        "NAME REQUIRED DEFAULT VALUE ALTERNATE VALUE P true TAG false 1"
    );
    let json = place.stack(&["config", "--variables", "--format", "json"]).out();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let tag =
        serde_json::json!({ "Name": "TAG", "DefaultValue": "1", "PresenceValue": "", "Required": false });
    assert_eq!(json["TAG"], tag);
    place.stack(&["config"]).fails_with("the variable `P` must have a value: set P");
    let with = |args: &[&str]| place.stack_with(&[("P", "1")], args).out();
    assert_eq!(with(&["config", "--models"]), "ai/m\n");
    let environment = with(&["config", "--environment"]);
    assert!(environment.starts_with("COMPOSE_PROJECT_NAME="), "{environment}");
    assert!(environment.contains("\nP=1\n") && environment.contains("\nPWD="), "{environment}");
}

#[test]
fn config_keeps_only_pinned_images() {
    let digest = "a".repeat(64);
    let place = Place::with(&format!("services: {{a: {{image: 'x:1@sha256:{digest}', tty: true}}}}\n"));
    let ran = place.stack(&["config", "--lock-image-digests"]);
    assert_eq!(ran.out(), format!("services:\n  a:\n    image: docker.io/library/x@sha256:{digest}\n"));
}

#[test]
fn findings_are_data_where_data_is_asked_for() {
    let place = Place::with("services:\n  web:\n    imgae: nginx\n    image: ${I}\n");
    let ran = place.stack_with(&[("I", "")], &["config", "--format", "json"]);
    assert_eq!((ran.code(), ran.out().as_str()), (1, ""));
    let finding: serde_json::Value = serde_json::from_str(ran.err().lines().next().unwrap()).unwrap();
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["file"], "compose.yaml");
    assert_eq!(
        (&finding["line"], &finding["column"], &finding["end_column"]),
        (&3.into(), &5.into(), &10.into())
    );
    assert_eq!(finding["key_path"], "services.web.imgae");
    assert_eq!(finding["excerpt"], "    imgae: nginx");
    assert_eq!(finding["hint"], "Did you mean `image`?");
}

#[test]
fn files_from_elsewhere_are_refused_by_name() {
    let place = Place::with(SHOP);
    for file in
        ["oci://registry.example/shop:1", "https://example.com/shop.git#main:sub", "git@example.com:shop.git"]
    {
        place
            .stack(&["-f", file, "config"])
            .fails_with(&format!("reading `{file}` from elsewhere is not supported"));
    }
}

/// There is no engine to choose, and one builder.
#[test]
fn variables_about_an_engine_have_no_effect() {
    let place = Place::with(SHOP);
    let plain = place.stack(&["config"]).out();
    for (name, value) in [
        ("DOCKER_HOST", "tcp://nowhere.invalid:1"),
        ("DOCKER_BUILDKIT", "perhaps"),
        ("BUILDX_BUILDER", "nobody"),
        ("BUILDKIT_PROGRESS", "none"),
        ("COMPOSE_EXPERIMENTAL", "perhaps"),
        ("COMPOSE_CONVERT_WINDOWS_PATHS", "1"),
        ("COMPOSE_MENU", "true"),
    ] {
        let ran = place.stack_with(&[(name, value)], &["config"]);
        assert_eq!((ran.code(), ran.out()), (0, plain.clone()), "{name}: {}", ran.err());
        assert_eq!(place.stack_with(&[(name, value)], &["ps", "-q"]).code(), 0, "{name}");
    }
}

#[test]
fn explain_shows_the_whole_way() {
    let place = Place::with("services:\n  web:\n    image: x\n    environment: {URL: 'http://${HOST}'}\n");
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    write("compose.override.yaml", "services: {web: {environment: {URL: 'https://${HOST}'}}}\n");
    write(".env", "NAME=db\nHOST=${NAME}-${ZONE}\n");
    let explain = |path: &str| place.stack_with(&[("ZONE", "eu")], &["explain", path]);
    let expected = "services.web.environment.URL: https://db-eu\n  \
        compose.override.yaml:1:37  'https://${HOST}'\n  \
        ← .env:2:1  `HOST` is set to `db-eu` here\n  \
        ← .env:1:1  `NAME` is set to `db` here\n  \
        ← `ZONE` is `eu` in the environment\n  \
        ← compose.yaml:4:24  goes over this: 'http://${HOST}'\n";
    assert_eq!(explain("services.web.environment.URL").out(), expected);
    explain("services.web.ports").fails_with("There is: image, environment, networks.");
}

#[test]
fn compatibility_joins_names_by_underscores() {
    let place = Place::with("name: shop\nservices:\n  db: {build: .}\n");
    let named = |variable: &[(&str, &str)], flags: &[&str]| {
        let args: Vec<&str> = flags.iter().chain(&["config", "--images"]).copied().collect();
        place.stack_with(variable, &args).out()
    };
    assert_eq!(named(&[], &[]), "shop-db\n");
    assert_eq!(named(&[], &["--compatibility"]), "shop_db\n");
    assert_eq!(named(&[("COMPOSE_COMPATIBILITY", "1")], &[]), "shop_db\n");
    // The flag shows the model without defaults, the variable does not.
    assert!(!place.stack(&["--compatibility", "config"]).out().contains("networks"));
    assert!(place.stack_with(&[("COMPOSE_COMPATIBILITY", "1")], &["config"]).out().contains("shop_default"));
}

#[test]
fn images_of_hooks_are_listed_behind_the_services_own() {
    let place = Place::with(
        "name: shop\nservices:\n  web: {image: w, pre_start: [{image: m}, {command: x}]}\n  db: {build: .}\n",
    );
    assert_eq!(place.stack(&["config", "--images"]).out(), "w\nm\nshop-db\n");
}

/// With every kind of edge.
const NEEDS: &str = "name: shop
services:
  web: {image: x, depends_on: {api: {condition: service_healthy}, cache: {condition: service_started, required: false}}}
  api: {image: x, depends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}}}
  migrate: {image: x, network_mode: 'service:db'}
  db: {image: x}
  cache: {image: x, links: [db]}
";

#[test]
fn the_graph_is_a_tree_or_text_for_a_program_that_draws() {
    let place = Place::with(NEEDS);
    let graph = |arguments: &[&str]| place.stack(&[&["graph"], arguments].concat()).out();
    let tree = "web\n\
        ├─ api (healthy)\n\
        │  ├─ db (healthy)\n\
        │  └─ migrate (completed)\n\
        │     └─ db\n\
        └─ cache (optional)\n\
        \x20  └─ db\n";
    assert_eq!(graph(&[]), tree);
    assert_eq!(graph(&["cache"]), "cache\n└─ db\n");
    let mermaid = graph(&["--format", "mermaid"]);
    assert!(mermaid.starts_with("flowchart TD\n    s0[\"web\"]\n"), "{mermaid}");
    assert!(mermaid.contains("\n    s0 -->|healthy| s1\n    s0 -.->|optional| s4\n"), "{mermaid}");
    let dot = graph(&["--format", "dot"]);
    assert!(dot.starts_with("digraph \"shop\" {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("\n    \"web\" -> \"cache\" [label=\"optional\", style=dashed];\n"), "{dot}");
    place.stack(&["graph", "--format", "svg", "-o", "needs.svg"]).out();
    let svg = std::fs::read_to_string(place.path().join("needs.svg")).unwrap();
    assert_eq!(svg.matches("<path class=\"need\"").count(), 6, "{svg}");
    assert_eq!(svg.matches("<g><title>").count(), 5, "{svg}");
    // Who needs a service stands above it.
    let height = |key: &str| -> u32 {
        let at =
            svg.split(&format!("<title>{key} </title>")).nth(1).and_then(|rest| rest.split("y=\"").nth(1));
        at.and_then(|rest| rest.split('"').next()).unwrap().parse().unwrap()
    };
    assert!(
        height("web") < height("api")
            && height("api") < height("migrate")
            && height("migrate") < height("db")
    );
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

#[test]
fn the_graph_shows_a_circle() {
    let place = Place::with(
        "services:\n  top: {image: x, depends_on: [a]}\n  a: {image: x, depends_on: [b]}\n  \
         b: {image: x, depends_on: [a, c]}\n  c: {image: x, depends_on: ['<d>']}\n",
    );
    let ran = place.stack(&["graph"]);
    let tree = "top\n└─ a\n   └─ b\n      ├─ a ↻ a → b → a\n      └─ c\n         └─ <d> (undefined)\n";
    assert_eq!(ran.out(), tree);
    let circle = "services depend on each other in a circle: a → b → a\n  --> compose.yaml:3:30";
    assert!(ran.code() == 1 && ran.err().contains(circle), "{}", ran.err());
    let mermaid = place.stack(&["graph", "--format", "mermaid"]).out();
    assert_eq!(mermaid.matches("stroke:red").count(), 2, "{mermaid}");
    assert!(mermaid.contains("&lt;d>"), "{mermaid}");
    let dot = place.stack(&["graph", "--format", "dot"]).out();
    assert!(dot.contains("\"b\" -> \"a\" [color=red];") && dot.contains("\"top\" -> \"a\";"), "{dot}");
    let svg = place.stack(&["graph", "--format", "svg"]).out();
    assert_eq!(svg.matches("class=\"need circle\"").count(), 2, "{svg}");
    assert!(svg.contains("&lt;d>") && !svg.contains("<d>"), "{svg}");
    // Without anybody outside, the circle begins with the first of the file.
    let alone = Place::with("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}");
    assert_eq!(alone.stack(&["graph"]).out(), "a\n└─ b\n   └─ a ↻ a → b → a\n");
}

#[test]
fn the_schema_is_printed() {
    let place = Place::with(SHOP);
    let schema: serde_json::Value = serde_json::from_str(&place.stack(&["schema"]).out()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let image = &schema["properties"]["services"]["additionalProperties"]["properties"]["image"];
    assert_eq!(image["type"], "string");
}

#[test]
fn what_the_readers_understood_is_shown() {
    let place = Place::with(SHOP);
    let text = "# escape=`\nARG V=\"1\" W\nFROM --platform=linux/amd64 a:$V AS One\nRUN <<E\nx\nE\nCMD run\n";
    std::fs::write(place.path().join("Dockerfile"), text).unwrap();
    let base = r#"{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/p"],"User":"u","Image":"x"}}"#;
    let shown = place.stack(&["debug", "dockerfile", "Dockerfile", base]);
    let shown: serde_json::Value =
        serde_json::from_str(&shown.out()).unwrap_or_else(|e| panic!("{e}: {}", shown.err()));
    let expected = serde_json::json!({
        "escape": "`",
        "lines": [[2, 2], [3, 3], [4, 6], [7, 7]],
        "meta_args": [{ "Key": "V", "Value": "\"1\"" }, { "Key": "W", "Value": null }],
        "stages": [{
            "name": "one",
            "base": "a:$V",
            "platform": "linux/amd64",
            "commands": [{ "name": "RUN", "lines": [4, 6] }, { "name": "CMD", "lines": [7, 7] }],
        }],
        "images": ["docker.io/library/a:1"],
        "config": { "Env": ["PATH=/p"], "User": "u", "Cmd": ["/bin/sh", "-c", "run"], "ArgsEscaped": true },
        "history": ["RUN /bin/sh -c x\n # buildkit", "CMD [\"/bin/sh\" \"-c\" \"run\"]"],
        "lint": [
            { "rule": "StageNameCasing", "lines": [3, 3] },
            { "rule": "FromPlatformFlagConstDisallowed", "lines": [3, 3] },
            { "rule": "JSONArgsRecommended", "lines": [7, 7] },
        ],
    });
    assert_eq!(shown, expected);
    let part = r#"{"Env":["PATH=/p"],"User":"u"}"#;
    let shown = place.stack(&["debug", "dockerfile", "Dockerfile", part]).out();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), expected);
    std::fs::write(place.path().join("base.json"), base).unwrap();
    std::fs::write(place.path().join("Dockerfile"), "FROM a\nNOPE").unwrap();
    place.stack(&["debug", "dockerfile", "Dockerfile", "base.json"]).fails_with("Dockerfile:2:1");
    assert!(!place.stack(&["--help"]).out().contains("debug"));
}

#[test]
fn rows_about_words_and_patterns_are_answered() {
    let place = Place::with(SHOP);
    let rows = [
        (r#"{"kind":"word","word":"${A%.*}-$B","env":["A=1.2","A=3.4"]}"#, r#"{"word":"3-"}"#),
        (
            r#"{"kind":"words","word":"a`b `$A $A","env":["A=1 2"],"escape":"`"}"#,
            r#"{"words":["ab","$A","1","2"]}"#,
        ),
        (r#"{"kind":"word","word":"${A","env":[]}"#, r#"{"error":true}"#),
        (r#"{"kind":"ignore","patterns":["*","!a/**"],"path":"a/b"}"#, r#"{"match":false}"#),
        (r#"{"kind":"ignore","patterns":["!"],"path":"a"}"#, r#"{"error":true}"#),
        (r##"{"kind":"ignorefile","text":"# c\n/a/ \n! b"}"##, r#"{"patterns":["a","!b"]}"#),
    ];
    let file = place.path().join("rows");
    std::fs::write(&file, rows.map(|(row, _)| format!("{row}\n")).concat()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
    command.args(["debug", "rows"]).stdin(std::fs::File::open(file).unwrap());
    let ran = Ran(command.env("STACK_HOME", place.path().join("home")).output().unwrap());
    assert_eq!(ran.out(), rows.map(|(_, answer)| format!("{answer}\n")).concat(), "{}", ran.err());
}

#[test]
fn files_come_from_flags_the_environment_and_standard_input() {
    let place = Place::with(SHOP);
    std::fs::write(place.path().join("other.yaml"), "services: {other: {image: x}}").unwrap();
    assert_eq!(place.stack(&["-f", "other.yaml", "config", "--services"]).out(), "other\n");
    let both = place.stack_with(&[("COMPOSE_FILE", "compose.yaml:other.yaml")], &["config", "--services"]);
    assert_eq!(both.out(), "db\napi\nother\n");
    place.stack(&["-f", "missing.yaml", "config"]).fails_with("missing.yaml");
}

#[test]
fn a_file_may_come_by_standard_input() {
    let place = Place::with("services: {never: {image: x}}");
    let program = env!("CARGO_BIN_EXE_stack");
    let script = format!("echo 'services: {{typed: {{build: ./here}}}}' | {program} -p typed-in -f - config");
    let output = Command::new("sh").args(["-c", &script]).current_dir(place.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let context = place.path().canonicalize().unwrap().join("here");
    assert!(
        text.contains("  typed:\n") && text.contains(&format!("context: {}\n", context.display())),
        "{text}"
    );
}

#[test]
fn an_env_file_stands_in_for_the_usual_one() {
    let place = Place::with("services: {web: {image: 'x:${TAG}', environment: {A: '${A:-none}'}}}");
    let image = |args: &[&str]| {
        let out = place.stack(&[args, &["config"]].concat()).out();
        out.lines()
            .filter(|l| l.contains("image:") || l.contains("A:"))
            .map(|l| l.trim().to_owned())
            .collect::<Vec<_>>()
    };
    std::fs::write(place.path().join(".env"), "TAG=usual\nA=usual\n").unwrap();
    std::fs::write(place.path().join("one.env"), "TAG=one\n").unwrap();
    std::fs::write(place.path().join("two.env"), "TAG=two\n").unwrap();
    assert_eq!(image(&[]), ["A: usual", "image: x:usual"]);
    assert_eq!(image(&["--env-file", "one.env"]), ["A: none", "image: x:one"]);
    assert_eq!(image(&["--env-file", "one.env", "--env-file", "two.env"]), ["A: none", "image: x:two"]);
    place.stack(&["--env-file", "three.env", "config"]).fails_with("three.env");
}

#[test]
fn a_project_directory_is_the_base_of_paths_env_and_name() {
    let place = Place::with("services: {never: {image: x}}");
    let base = place.path().join("base");
    std::fs::create_dir(&base).unwrap();
    std::fs::write(
        place.path().join("other.yaml"),
        "services: {web: {build: ./src, environment: {A: '${A:-none}'}}}",
    )
    .unwrap();
    std::fs::write(base.join(".env"), "A=base\n").unwrap();
    let out = place.stack(&["-f", "other.yaml", "--project-directory", "base", "config"]).out();
    assert!(out.starts_with("name: base\n"), "{out}");
    assert!(
        out.contains(&format!("context: {}\n", base.canonicalize().unwrap().join("src").display())),
        "{out}"
    );
    assert!(out.contains("A: base\n"), "{out}");
    let named = place.stack(&["-p", "mine", "-f", "other.yaml", "config"]).out();
    assert!(named.starts_with("name: mine\n"), "{named}");
    let by_environment = place.stack_with(&[("COMPOSE_PROJECT_NAME", "yours")], &["config"]).out();
    assert!(by_environment.starts_with("name: yours\n"), "{by_environment}");
}

#[test]
fn profiles_are_activated_by_flag_environment_and_name() {
    let place = Place::with(
        "services: {a: {image: x}, b: {image: x, profiles: [p]}, c: {image: x, profiles: [q, r]}}",
    );
    let services = |env: &[(&str, &str)], args: &[&str]| {
        place.stack_with(env, &[args, &["config", "--services"]].concat()).out()
    };
    assert_eq!(services(&[], &[]), "a\n");
    assert_eq!(services(&[], &["--profile", "p", "--profile", "r"]), "a\nb\nc\n");
    assert_eq!(services(&[("COMPOSE_PROFILES", "p,q")], &[]), "a\nb\nc\n");
    assert_eq!(services(&[], &["--profile", "*"]), "a\nb\nc\n");
    let named = place.stack(&["up", "-d", "--dry-run", "b"]).out();
    assert!(named.contains("create b-1") && !named.contains("c-1"), "{named}");
}

#[test]
fn what_config_prints_is_the_same_project() {
    let place = Place::with(
        "name: again\nservices:\n  web:\n    image: x\n    env_file: [web.env]\n    ports: ['80:80']\n    command: echo $$HOME\n    deploy: {replicas: 2}\n",
    );
    std::fs::write(place.path().join("web.env"), "FROM_FILE=1\n").unwrap();
    let first = place.stack(&["config"]).out();
    assert!(first.contains("FROM_FILE: \"1\"") && !first.contains("env_file"), "{first}");
    std::fs::remove_file(place.path().join("web.env")).unwrap();
    std::fs::write(place.path().join("compose.yaml"), &first).unwrap();
    assert_eq!(place.stack(&["config"]).out(), first);
    let json = place.stack(&["config", "--format", "json"]).out();
    std::fs::write(place.path().join("compose.yaml"), json).unwrap();
    assert_eq!(place.stack(&["config"]).out(), first);
}

#[test]
fn the_hash_is_about_what_env_files_say_and_not_their_names() {
    let place = Place::with("services: {web: {image: x, env_file: [one.env]}}");
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    let hash = || place.stack(&["config", "--hash", "web"]).out();
    write("one.env", "A=1\n");
    let first = hash();
    assert!(first.starts_with("web ") && first.trim().len() == 4 + 64, "{first}");
    write("two.env", "# the same\nA=1\n");
    write("compose.yaml", "services: {web: {image: x, env_file: [two.env]}}");
    assert_eq!(hash(), first);
    write("two.env", "A=2\n");
    assert_ne!(hash(), first);
}

#[test]
fn the_hash_leaves_out_what_does_not_make_a_container() {
    let place = Place::with("");
    let hash = |service: &str| {
        let text = format!("services: {{other: {{image: y}}, web: {{image: x, {service}}}}}");
        std::fs::write(place.path().join("compose.yaml"), text).unwrap();
        place.stack(&["--profile", "*", "config", "--hash", "web"]).out()
    };
    let plain = hash("");
    assert_eq!(plain.trim().len(), 4 + 64, "{plain}");
    for same in [
        "build: .",
        "pull_policy: always",
        "scale: 3",
        "deploy: {replicas: 3}",
        "depends_on: [other]",
        "profiles: [p]",
    ] {
        assert_eq!(hash(same), plain, "{same}");
    }
    for other in ["command: a", "labels: {a: b}", "ports: ['80']", "environment: {A: b}"] {
        assert_ne!(hash(other), plain, "{other}");
    }
}

#[test]
fn every_verb_explains_itself() {
    let place = Place::with("no: [yaml");
    let help = place.stack(&["--help"]).out();
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Verbs:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.len() >= 26, "{verbs:?}");
    for verb in verbs {
        for flag in ["--help", "-h"] {
            let ran = place.stack(&[verb, flag]);
            assert!(
                ran.code() == 0 && ran.out().contains(&format!("Usage: stack {verb}")),
                "{verb}: {}",
                ran.out()
            );
        }
    }
    let unknown = place.stack(&["upp"]);
    assert!(unknown.code() == 1 && unknown.err().contains("Usage: stack") && unknown.out().is_empty());
}

#[test]
fn a_finding_has_its_place() {
    let place = Place::with("services:\n  web:\n    imgae: nginx\n");
    place.stack(&["config", "-q"]).fails_with("compose.yaml:3:5");
    let ran = place.stack(&["config"]);
    ran.fails_with("compose.yaml:3:5");
    assert!(ran.err().contains("image"), "a suggestion: {}", ran.err());
}

#[test]
fn unknown_services_are_named() {
    let place = Place::with(SHOP);
    for args in
        [&["up", "x"][..], &["stop", "x"], &["logs", "x"], &["ps", "x"], &["run", "x"], &["build", "x"]]
    {
        place.stack(args).fails_with("no such service: x");
    }
    place.stack(&["exec", "x", "true"]).fails_with("service \"x\" is not running");
}

#[test]
fn nothing_to_do_is_a_success() {
    let place = Place::with(SHOP);
    for args in [&["down"][..], &["stop"], &["ps"], &["logs"], &["kill"], &["rm", "-f"], &["ls"], &["images"]]
    {
        let ran = place.stack(args);
        assert_eq!(ran.code(), 0, "{args:?}: {}", ran.err());
    }
    assert!(place.stack(&["rm", "-f"]).err().contains("No stopped containers"));
    let moved = place.stack_with(&[("COMPOSE_STATUS_STDOUT", "1")], &["rm", "-f"]);
    assert_eq!((moved.out().as_str(), moved.err().as_str()), ("No stopped containers\n", ""));
    let down = place.stack(&["-p", "nothing", "down"]);
    assert!(down.err().contains("No resource found to remove for project \"nothing\"."), "{}", down.err());
    place.stack(&["start"]).fails_with("has no container to start");
}

#[test]
fn only_a_name_needs_no_file() {
    let place = Place::with("this is: [no compose file");
    assert_eq!(place.stack(&["-p", "shop", "ps"]).code(), 0);
    assert_eq!(place.stack(&["-p", "shop", "down"]).code(), 0);
    place.stack(&["-p", "Shop", "ps"]).fails_with("invalid project name \"Shop\"");
    assert_eq!(place.stack(&["ps"]).code(), 1);
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let place = Place::with(SHOP);
    let ran = place.stack(&["up", "-d", "--dry-run"]);
    let expected = "\
pull db:1 (missing)
build api as shop-api (missing)
create network shop_default (missing)
create volume shop_data (missing)
create db-1 (missing)
start db-1 (created)
create api-1 (missing)
wait for db healthy (api depends on it)
start api-1 (created)
";
    assert_eq!(ran.out(), expected, "{}", ran.err());
    assert!(!place.path().join("home/stacks").exists());
}

#[test]
fn failures_are_json_where_progress_is() {
    let place = Place::with(SHOP);
    let ran = place.stack(&["--progress", "json", "up", "x"]);
    let line: serde_json::Value = serde_json::from_str(ran.err().lines().last().unwrap()).unwrap();
    assert_eq!(line["error"], true);
    assert!(line["message"].as_str().unwrap().contains("no such service: x"));
}

#[test]
fn a_reader_that_went_away_is_no_crash() {
    let place = Place::with(SHOP);
    let program = env!("CARGO_BIN_EXE_stack");
    let script = format!("{program} config | head -n 1");
    let output = Command::new("sh").args(["-c", &script]).current_dir(place.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "name: shop\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
