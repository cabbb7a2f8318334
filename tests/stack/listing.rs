//! What lists and shows prints: tables, `-q`, `--format`, and where progress goes.

use crate::common::{Project, World, eventually, free_port};
use serde_json::Value;
use std::collections::BTreeSet;

/// `web` publishes and is built, `db` has a volume and is healthy, `job` has ended.
fn shop(port: u16) -> String {
    format!(
        r#"
services:
  db:
    image: busybox:1
    command: ["sh", "-c", "echo one; echo two; sleep 1000"]
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    healthcheck: {{ test: [CMD, "true"], interval: 1s }}
  web:
    build: .
    image: shop/web:2
    command: [sleep, "1000"]
    stop_signal: SIGKILL
    ports: ["{port}:80", "127.0.0.1:{port}:53/udp"]
    expose: ["443"]
    depends_on: {{ db: {{ condition: service_healthy }} }}
  job:
    image: busybox:1
    command: ["sh", "-c", "echo from the job; exit 3"]
volumes: {{ data: {{}} }}
"#
    )
}

const DOCKERFILE: &str = "FROM busybox:1\nRUN echo built > /built\n";

fn with(key: &'static str, test: impl FnOnce(&Project<'_>, u16) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let port = free_port();
        let project = world
            .project(key, &[("compose.yaml", &shop(port)), ("Dockerfile", DOCKERFILE), ("shop/.keep", "")]);
        project.stack(&["--progress", "quiet", "build"]).ok();
        project.stack(&["--progress", "quiet", "up", "-d"]).ok();
        eventually("the end of the job", || (project.ps_field("job", "State") == "exited").then_some(()));
        test(&project, port);
        project.stack(&["down", "-v", "-t", "0", "--remove-orphans"]).ok();
        world.assert_no_leak();
    });
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn ps_in_all_its_forms() {
    with("ps", |project, port| {
        let name = |service: &str| format!("{}-{service}-1", project.name);
        let table = project.stack(&["ps"]).ok().stdout;
        let mut lines = table.lines();
        let heading: Vec<_> =
            lines.next().unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(heading, ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]);
        let rest: Vec<_> = lines.collect();
        assert_eq!(rest.len(), 2, "only what runs: {table}");
        assert!(rest[0].starts_with(&name("db")) && rest[0].contains("(healthy)"), "{table}");
        let ports = format!("127.0.0.1:{port}->53/udp, 0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp, 443/tcp");
        let web = rest[1];
        for cell in [name("web").as_str(), "shop/web:2", "\"sleep 1000\"", " web ", "Up ", &ports] {
            assert!(web.contains(cell), "`{cell}` is missing from {web}");
        }
        // -a has the ended one, too.
        let all = project.stack(&["ps", "-a"]).ok().stdout;
        assert!(all.lines().any(|l| l.starts_with(&name("job")) && l.contains("Exited (3) ")), "{all}");
        assert_eq!(project.stack(&["ps", "--services"]).ok().stdout, "db\nweb\n");
        let ids = project.stack(&["ps", "-q"]).ok().stdout;
        assert!(ids.lines().count() == 2 && ids.lines().all(|id| is_hex(id, 64)), "{ids}");
        assert_eq!(
            project.stack(&["ps", "--format", "{{.Name}} {{.State}}", "db"]).ok().text(),
            format!("{} running", name("db"))
        );
        let table =
            project.stack(&["ps", "-a", "--format", "table {{.Service}}\\t{{.ExitCode}}", "job"]).ok();
        assert_eq!(table.stdout, "SERVICE   EXITCODE\njob       3\n");
        assert_eq!(
            project.stack(&["ps", "--status", "exited", "--format", "{{.Service}}"]).ok().text(),
            "job"
        );
        assert_eq!(
            project.stack(&["ps", "--filter", "status=exited", "--format", "{{.Service}}"]).ok().text(),
            "job"
        );
        assert!(
            project
                .stack(&["ps", "-a", "--no-trunc", "job"])
                .ok()
                .stdout
                .contains("\"sh -c echo from the job; exit 3\"")
        );
    });
}

#[test]
fn ps_as_json_has_composes_keys() {
    with("ps-json", |project, port| {
        let rows = rows(&project.stack(&["ps", "-a", "--format", "json"]).ok().stdout);
        assert_eq!(rows.len(), 3);
        let of = |service: &str| rows.iter().find(|row| row["Service"] == service).unwrap();
        let keys: BTreeSet<&str> = of("web").as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "Command CreatedAt ExitCode Health ID Image Labels LocalVolumes Mounts Name Names Networks Ports Project Publishers RunningFor Service Size State Status";
        let missing: Vec<_> = expected.split(' ').filter(|key| !keys.contains(key)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        for key in ["Labels", "Mounts", "Networks", "Ports", "LocalVolumes", "Size"] {
            assert!(of("db")[key].is_string(), "{key}");
        }
        assert!(is_hex(of("db")["ID"].as_str().unwrap(), 12));
        assert_eq!((&of("db")["Health"], &of("db")["LocalVolumes"]), (&"healthy".into(), &"1".into()));
        assert_eq!((&of("job")["ExitCode"], &of("job")["State"]), (&3.into(), &"exited".into()));
        let published = |url: &str, target: u16, port: u16, protocol: &str| serde_json::json!({"URL": url, "TargetPort": target, "PublishedPort": port, "Protocol": protocol});
        let expected = [
            published("127.0.0.1", 53, port, "udp"),
            published("0.0.0.0", 80, port, "tcp"),
            published("::", 80, port, "tcp"),
            published("", 443, 0, "tcp"),
        ];
        assert_eq!(of("web")["Publishers"], Value::from(expected.to_vec()));
    });
}

#[test]
fn labels_and_names_are_composes() {
    with("labels", |project, _| {
        project.stack(&["run", "-d", "job", "true"]).ok();
        let rows = project.ps();
        let labels = |service: &str, name: &str| -> String {
            let row = rows
                .iter()
                .find(|row| row["Service"] == service && row["Name"].as_str().unwrap().contains(name));
            format!(",{},", row.unwrap()["Labels"].as_str().unwrap())
        };
        let web = labels("web", "web-1");
        let file = project.directory.join("compose.yaml");
        for (key, value) in [
            ("project", project.name.as_str()),
            ("service", "web"),
            ("container-number", "1"),
            ("oneoff", "False"),
            ("project.config_files", file.to_str().unwrap()),
            ("project.working_dir", project.directory.to_str().unwrap()),
            ("depends_on", "db:service_healthy:false"),
        ] {
            assert!(web.contains(&format!(",com.docker.compose.{key}={value},")), "{key}: {web}");
        }
        let hash = |text: &str| {
            text.split_once("config-hash=")
                .map(|(_, rest)| rest.chars().take_while(char::is_ascii_hexdigit).count())
        };
        assert_eq!(hash(&web), Some(64), "{web}");
        assert!(labels("job", "-job-run-").contains(",com.docker.compose.oneoff=True,"));
        assert!(rows.iter().any(|row| row["Name"] == format!("{}-web-1", project.name)));
        let volume: Value =
            project.stack(&["volume", "inspect", &format!("{}_data", project.name)]).ok().json();
        assert_eq!(volume[0]["Labels"]["com.docker.compose.volume"], "data");
        assert_eq!(volume[0]["Labels"]["com.docker.compose.project"], project.name);
        assert!(volume[0]["Labels"]["com.docker.compose.config-hash"].is_string());
        let record = project.world.home.join(format!("networks/{}_default.json", project.name));
        let record = std::fs::read_to_string(record).unwrap();
        let label = |key: &str| record.split_once(&format!("\"com.docker.compose.{key}\"")).is_some();
        assert!(label("network") && label("project") && label("config-hash"), "{record}");
        let image: Value = project.stack(&["image", "inspect", "shop/web:2"]).ok().json();
        let of_image = &image[0]["Config"]["Labels"];
        assert_eq!(
            (&of_image["com.docker.compose.project"], &of_image["com.docker.compose.service"]),
            (&project.name.as_str().into(), &"web".into())
        );
    });
}

#[test]
fn ports_processes_images_and_projects() {
    with("others", |project, port| {
        let says = |args: &[&str]| project.stack(args).ok().stdout;
        assert_eq!(says(&["port", "web", "80"]), format!("0.0.0.0:{port}\n"));
        assert_eq!(says(&["port", "--protocol", "udp", "web", "53"]), format!("127.0.0.1:{port}\n"));
        project
            .stack(&["port", "web", "81"])
            .code(1)
            .says(&format!("no port 81/tcp for container {}-web-1", project.name));
        project.stack(&["port", "job", "80"]).code(1).says("no port 80/tcp");

        let top = says(&["top", "web"]);
        let heading: Vec<_> = top.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(heading, ["SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
        assert!(
            top.lines().nth(1).is_some_and(|l| l.starts_with("web ") && l.ends_with("sleep 1000")),
            "{top}"
        );

        let images = says(&["images"]);
        let heading: Vec<_> =
            images.lines().next().unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(heading, ["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"]);
        assert_eq!(images.lines().count(), 4, "a row per container: {images}");
        let ids = says(&["images", "-q"]);
        assert!(ids.lines().count() == 2 && ids.lines().all(|id| is_hex(id, 64)), "{ids}");
        let json: Value = serde_json::from_str(&says(&["images", "--format", "json"])).unwrap();
        let web = json.as_array().unwrap().iter().find(|row| row["Repository"] == "shop/web").unwrap();
        assert_eq!(
            (&web["Tag"], &web["ContainerName"]),
            (&"2".into(), &format!("{}-web-1", project.name).into())
        );

        let file = project.directory.join("compose.yaml");
        let ls = project.world.stack(&["ls"]).ok().stdout;
        let mut lines =
            ls.lines().map(|l| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>());
        assert_eq!(lines.next().unwrap(), ["NAME", "STATUS", "CONFIG FILES"]);
        assert_eq!(lines.next().unwrap(), [&project.name, "running(2)", file.to_str().unwrap()]);
        assert_eq!(project.world.stack(&["ls", "-q"]).ok().text(), project.name);
        let json: Value = project.world.stack(&["ls", "--format", "json"]).ok().json();
        assert_eq!(json[0]["Name"], project.name);
        project.stack(&["stop", "-t", "0"]).ok();
        assert_eq!(project.world.stack(&["ls", "-q"]).ok().stdout, "", "only what runs");
        assert!(project.world.stack(&["ls", "-a"]).ok().stdout.contains("  exited(3)  "));
        assert_eq!(project.world.stack(&["ls", "-a", "-q"]).ok().text(), project.name);
    });
}

#[test]
fn volumes_images_and_disk_use() {
    with("store", |project, _| {
        let says = |args: &[&str]| project.world.stack(args).ok().stdout;
        let volume = format!("{}_data", project.name);
        assert_eq!(says(&["volume", "ls"]), format!("DRIVER    VOLUME NAME\nlocal     {volume}\n"));
        assert_eq!(says(&["volume", "ls", "-q"]), format!("{volume}\n"));
        assert_eq!(rows(&says(&["volume", "ls", "--format", "json"]))[0]["Name"], volume);
        project.world.stack(&["volume", "rm", &volume]).code(1).says("is in use");
        project.world.stack(&["volume", "inspect", "nothing"]).code(1).says("no such volume: nothing");

        let table = says(&["image", "ls"]);
        assert!(table.starts_with("REPOSITORY   TAG       IMAGE ID "), "{table}");
        assert_eq!(says(&["image", "ls", "-q"]).lines().count(), 2);
        assert!(
            rows(&says(&["image", "ls", "--format", "json"]))
                .iter()
                .any(|row| row["Repository"] == "shop/web")
        );
        says(&["image", "tag", "shop/web:2", "other/name:3"]);
        assert_eq!(says(&["image", "rm", "other/name:3"]), "Untagged: other/name:3\n");
        project.world.stack(&["image", "rm", "nothing:1"]).code(1).says("no such image: nothing:1");
        project.world.stack(&["image", "rm", "shop/web:2"]).code(1).says("is used by a container");
        let archive = project.directory.join("web.tar");
        says(&["image", "save", "-o", archive.to_str().unwrap(), "shop/web:2"]);
        project.stack(&["down", "-t", "0"]).ok();
        let id = says(&["image", "inspect", "shop/web:2"]);
        says(&["image", "rm", "shop/web:2"]);
        assert_eq!(says(&["image", "load", "-i", archive.to_str().unwrap()]), "Loaded image: shop/web:2\n");
        assert_eq!(says(&["image", "inspect", "shop/web:2"]), id);

        let df = says(&["system", "df"]);
        let kinds: Vec<_> = df.lines().map(|l| l.split("  ").next().unwrap()).collect();
        assert_eq!(kinds, ["TYPE", "Images", "Containers", "Local Volumes", "Build Cache"]);
        assert_eq!(rows(&says(&["system", "df", "--format", "json"]))[0]["TotalCount"], 2);
        assert!(says(&["system", "prune", "-f"]).contains("Total reclaimed space: "));
        assert_eq!(says(&["volume", "ls", "-q"]), format!("{volume}\n"), "named volumes are kept");
        assert!(says(&["builder", "prune", "-f"]).contains("Total reclaimed space: "));
        assert_eq!(says(&["volume", "rm", &volume]), format!("{volume}\n"));
    });
}

#[test]
fn logs_have_a_padded_prefix_and_leave_runs_out() {
    with("logs", |project, _| {
        project.stack(&["run", "--rm", "-T", "-q", "job", "echo", "from a run"]).ok();
        let all = project.stack(&["logs"]).ok().stdout;
        let mut lines: Vec<_> = all.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["db-1   | one", "db-1   | two", "job-1  | from the job"],
            "also of the stopped one"
        );
        assert_eq!(project.stack(&["logs", "db", "-n", "1"]).ok().stdout, "db-1  | two\n");
        assert_eq!(
            project.stack(&["logs", "--no-log-prefix", "--no-color", "job"]).ok().stdout,
            "from the job\n"
        );
        let coloured = project.stack(&["--ansi", "always", "--progress", "auto", "logs"]).ok().stdout;
        for colour in ["\u{1b}[36mdb-1   |\u{1b}[0m one", "\u{1b}[33mjob-1  |\u{1b}[0m from the job"] {
            assert!(coloured.contains(colour), "each in its colour: {coloured:?}");
        }
    });
}

#[test]
fn progress_has_four_views_on_standard_error() {
    with("views", |project, _| {
        let web = format!("Container {}-web-1", project.name);
        let again = |progress: &str| {
            let ran = project
                .stack(&["--progress", progress, "up", "-d", "--force-recreate", "--no-deps", "web"])
                .ok();
            assert_eq!(ran.stdout, "", "standard output is for data");
            // This world has no way out, which is told, too.
            ran.stderr.split_inclusive('\n').filter(|line| !line.contains("pasta")).collect::<String>()
        };
        let plain = format!("{web} Recreate\n{web} Recreated\n{web} Starting\n{web} Started\n");
        assert_eq!(again("plain"), plain);
        assert_eq!(again("auto"), plain, "no terminal");
        assert!(again("tty").contains("[+] up 1/1"));
        assert_eq!(again("quiet"), "");
        assert_eq!(again("none"), "");
        let events = rows(&again("json"));
        let words: Vec<_> = events
            .iter()
            .map(|e| (e["id"].as_str().unwrap(), e["status"].as_str().unwrap(), e["text"].as_str().unwrap()))
            .collect();
        let expected =
            [("Working", "Recreate"), ("Done", "Recreated"), ("Working", "Starting"), ("Done", "Started")];
        assert_eq!(words, expected.map(|(status, text)| (web.as_str(), status, text)));
        assert!(events.iter().all(|e| e["v"] == 1));
        // What fails is told in the same form, with its code.
        let ran = project.stack(&["--progress", "json", "up", "-d", "nobody"]).code(1);
        let last = rows(&ran.stderr).pop().unwrap();
        assert_eq!(
            (&last["error"], last["message"].as_str().unwrap().contains("no such service: nobody")),
            (&true.into(), true)
        );
        let ran = project.stack(&["--progress", "quiet", "up", "-d", "nobody"]).code(1);
        assert!(ran.stderr.contains("no such service: nobody"), "errors remain: {ran}");
        project.stack(&["--progress", "fancy", "ps"]).code(1).says("unsupported --progress value \"fancy\"");
        assert_eq!(project.stack_with(&[("COMPOSE_PROGRESS", "quiet")], &["restart", "web"]).ok().stderr, "");
    });
}

#[test]
fn an_image_that_another_is_built_upon_is_built_first() {
    let compose = r#"
services:
  top:
    build: { dockerfile_inline: "FROM lower\nRUN cat /lower >/top", additional_contexts: { lower: "service:bottom" } }
    command: [sleep, "1000"]
    stop_signal: SIGKILL
  bottom: { build: { dockerfile_inline: "FROM busybox:1\nRUN echo from below >/lower" } }
  other: { build: { dockerfile_inline: "FROM busybox:1" } }
"#;
    World::with_busybox().run(move |world| {
        let project = world.project("upon", &[("compose.yaml", compose)]);
        for args in [&["build", "top"][..], &["build"], &["up", "-d", "top"]] {
            let ran = project.stack(args).ok();
            let at = |what: String| {
                ran.stderr.find(&what).unwrap_or_else(|| panic!("`{what}` is missing from {ran}"))
            };
            let (bottom, top) = (
                format!("Image {}-bottom Built", project.name),
                format!("Image {}-top Building", project.name),
            );
            assert!(at(bottom) < at(top), "{ran}");
            assert_eq!(ran.stderr.contains("-other Built"), args == ["build"], "{ran}");
            for name in ["bottom", "top", "other"].map(|key| format!("{}-{key}", project.name)) {
                // The last one is in use, and there need not be another one.
                drop(world.stack(&["image", "rm", &name]));
            }
        }
        assert_eq!(project.stack(&["exec", "-T", "top", "cat", "/top"]).ok().text(), "from below");
        assert_eq!(project.ps().len(), 1, "what it is built upon does not run");
        project.stack(&["down", "-t", "0"]).ok();
        world.assert_no_leak();
    });
}

#[test]
fn builds_are_told_step_by_step() {
    with("build", |project, _| {
        let build = |args: &[&str]| project.stack(&[&["build"], args].concat()).ok();
        let cached = build(&[]);
        assert!(
            cached.stderr.contains("Image shop/web:2 [2/2] RUN echo built > /built CACHED\n"),
            "{cached}"
        );
        assert!(cached.stderr.ends_with("Image shop/web:2 Built\n"), "{cached}");
        let anew = build(&["--no-cache"]);
        assert!(
            anew.stderr.contains("[2/2] RUN echo built > /built DONE")
                && !anew.stderr.contains("CACHED\nImage shop/web:2 exported"),
            "{anew}"
        );
        let quiet = build(&["-q"]);
        assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
        let up = project.stack(&["up", "-d", "--build", "--quiet-build", "web"]).ok();
        assert!(!up.stderr.contains("RUN echo") && up.stderr.contains("Image shop/web:2 Built\n"), "{up}");
        let up = project.stack(&["up", "-d", "--build", "web"]).ok();
        assert!(up.stderr.contains("[2/2] RUN echo built > /built CACHED"), "{up}");
        // A changed file is built and replaces what ran, only when asked for.
        project.write("Dockerfile", "FROM busybox:1\nRUN echo again > /built\n");
        let before = project.ps_field("web", "ID");
        project.stack(&["up", "-d"]).ok();
        assert_eq!(project.ps_field("web", "ID"), before);
        project.stack(&["up", "-d", "--build"]).ok();
        assert_ne!(project.ps_field("web", "ID"), before);
        assert_eq!(project.stack(&["exec", "-T", "web", "cat", "/built"]).ok().text(), "again");
        build(&["db"]).says("No services to build");
        build(&["job", "web"]).says("Image shop/web:2 Built");
    });
}

#[test]
fn damage_of_the_store_is_found_and_repaired() {
    World::with_busybox().run(|world| {
        let project = world.project("harm", &[("compose.yaml", DAMAGED), ("Dockerfile", DOCKERFILE)]);
        project.stack(&["up", "-d"]).ok();
        project.world.stack(&["system", "check"]).ok().says("no damage");
        let snapshots = world.home.join("store/snapshots");
        let mut built =
            std::fs::read_dir(snapshots).unwrap().flatten().map(|entry| entry.path().join("fs/built"));
        let built = built.find(|path| path.exists()).unwrap();
        std::fs::write(built, "changed").unwrap();

        let found = project.world.stack(&["system", "check"]).code(1).says("the image store is damaged");
        let container = format!("container {}-web-1", project.name);
        assert!(found.stdout.contains(&container) && found.stdout.contains("image harm/web:1"), "{found}");
        let kept = project.world.stack(&["system", "check", "--repair"]).code(1);
        assert!(kept.stdout.contains(&format!("kept, as {container} runs on it")), "{kept}");
        let row = project.world.stack(&["system", "check", "--format", "json"]).code(1);
        assert_eq!(rows(&row.stdout)[0]["Kind"], "layer");

        project.stack(&["down", "-t", "0"]).ok();
        let repaired = project.world.stack(&["system", "check", "--repair"]).ok();
        assert!(repaired.stdout.contains("with it went image harm/web:1"), "{repaired}");
        project.world.stack(&["system", "check"]).ok().says("no damage");
        // Made anew by the next build.
        project.stack(&["up", "-d"]).ok();
        assert_eq!(project.stack(&["exec", "-T", "web", "cat", "/built"]).ok().stdout, "built\n");
    });
}

const DAMAGED: &str = r#"
services:
  web:
    build: .
    image: harm/web:1
    command: [sleep, "1000"]
    stop_signal: SIGKILL
"#;

#[test]
fn a_budget_is_kept_after_builds() {
    World::with_busybox().run(|world| {
        let project = world.project("frugal", &[("compose.yaml", DAMAGED), ("Dockerfile", DOCKERFILE)]);
        let stack = |args: &[&str]| project.world.stack(args);
        stack(&["system", "budget"]).ok().says("No budget is set");
        stack(&["system", "budget", "lots"]).code(1).says("invalid size");
        project.stack(&["up", "-d"]).ok();
        let dockerfile =
            |size: u32| format!("FROM busybox:1\nRUN dd if=/dev/zero of=/large bs=1M count={size}\n");
        let size = || stack(&["system", "df", "--format", "json"]).ok();
        project.write("Dockerfile", &dockerfile(20));
        project.stack(&["build"]).ok();
        // The next image takes the name; the first is used by the container, the second by nobody.
        stack(&["system", "budget", "30m"]).ok();
        assert!(rows(&size().stdout).iter().any(|row| row["Type"] == "Budget"));
        stack(&["system", "df"]).ok().says("Budget of images and build cache: ");
        project.write("Dockerfile", &dockerfile(21));
        project.stack(&["build"]).ok().says("to keep the budget of 31.5MB");
        let images = rows(&stack(&["image", "ls", "--format", "json"]).ok().stdout);
        assert_eq!(images.len(), 3, "busybox, the container's and the new one: {images:?}");
        assert_eq!(project.stack(&["exec", "-T", "web", "cat", "/built"]).ok().stdout, "built\n");
        // What is new is needed, whatever the budget.
        stack(&["system", "budget", "1m"]).ok();
        project.write("Dockerfile", &dockerfile(22));
        project.stack(&["build"]).ok().says("more than their budget of 1.05MB");
        project.stack(&["up", "-d"]).ok();
        stack(&["system", "budget", "none"]).ok();
        stack(&["system", "budget"]).ok().says("No budget is set");
        stack(&["system", "check"]).ok();
    });
}

#[test]
fn volumes_of_the_project_and_of_services() {
    with("vols", |project, _port| {
        let data = format!("{}_data", project.name);
        let table = project.stack(&["volumes"]).ok().stdout;
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["DRIVER", "VOLUME", "NAME"], vec!["local", &data]]);
        assert_eq!(project.stack(&["volumes", "-q", "db"]).ok().stdout, format!("{data}\n"));
        assert_eq!(project.stack(&["volumes", "-q", "web"]).ok().stdout, "");
        let rows = rows(&project.stack(&["volumes", "--format", "json"]).ok().stdout);
        assert_eq!(
            (&rows[0]["Name"], &rows[0]["Driver"]),
            (&Value::from(data.as_str()), &Value::from("local"))
        );
        let line = project.stack(&["volumes", "--format", "{{.Driver}} of {{.Scope}}"]).ok().stdout;
        assert_eq!(line, "local of local\n");
        // Only a running container counts.
        project.stack(&["stop", "-t", "0", "db"]).ok();
        assert_eq!(project.stack(&["volumes", "-q", "db"]).ok().stdout, "");
        project.stack(&["volumes", "nobody"]).code(1).says("no such service: nobody");
    });
}
