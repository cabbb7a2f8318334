//! What the typed project holds, and what a load says about variables.

mod support;

use stack_schema::diagnostic::Severity;
use stack_schema::load::{LoadRequest, Loaded, render};
use stack_schema::project::*;
use std::path::Path;
use std::time::Duration;
use support::Case;

fn case(files: &[(&str, &str)], args: &[&str]) -> Case {
    Case {
        name: "shop".into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
        ..Case::default()
    }
}

fn load(text: &str) -> Loaded {
    case(&[("compose.yaml", text)], &[]).load()
}

fn project(loaded: Loaded) -> Project {
    let found: String = loaded.diagnostics.iter().map(|diagnostic| diagnostic.render()).collect();
    loaded.project.unwrap_or_else(|| panic!("{found}"))
}

const SHOP: &str = r#"
services:
  web:
    build: ./web
    command: serve --port 80
    environment: {A: 1, GONE: }
    user: "1000:1000"
    ports: ["8080:80", "127.0.0.1::81/udp"]
    volumes: ["./src:/src:ro", "data:/data", "/anon", {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]
    depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully}}
    networks: {default: {aliases: [www]}}
    deploy: {replicas: 3, resources: {limits: {memory: 64m, cpus: "0.5", pids: 9}}, restart_policy: {condition: on-failure, max_attempts: 2}}
    develop: {watch: [{path: ./src, action: sync, target: /src, ignore: ["*.tmp"]}, {path: req.txt, action: rebuild}]}
    secrets: [key, {source: key, target: other, mode: 0400}]
    extra_hosts: ["gw=host-gateway"]
    ulimits: {nofile: 7, core: {soft: 1, hard: 2}}
    tmpfs: /run:size=1m
    stop_grace_period: 1m30s
    init: true
  db:
    image: postgres:17
    healthcheck: {test: pg_isready, interval: 5s, retries: 3, start_period: 1m}
    restart: unless-stopped
  init: {image: busybox, entrypoint: [], scale: 1}
volumes: {data: }
secrets: {key: {file: ./key}}
"#;

#[test]
fn the_common_attributes_are_bound() {
    let project = project(load(SHOP));
    assert_eq!((project.name.as_str(), project.services.len()), ("shop", 3));
    assert_eq!(project.services.keys().collect::<Vec<_>>(), ["web", "db", "init"]);
    let web = &project.services["web"];
    assert_eq!(web.build.as_ref().map(|build| build.context.as_path()), Some(Path::new("/case/shop/web")));
    assert_eq!(web.command.as_deref(), Some(&["serve".to_owned(), "--port".into(), "80".into()][..]));
    assert_eq!(web.environment["A"].as_deref(), Some("1"));
    assert_eq!(web.environment["GONE"], None);
    assert_eq!(web.user.as_deref(), Some("1000:1000"));
    assert_eq!((web.ports[0].published.as_str(), web.ports[0].target), ("8080", 80));
    assert_eq!((web.ports[1].host_ip.as_deref(), web.ports[1].protocol.as_str()), (Some("127.0.0.1"), "udp"));
    assert_eq!(
        web.volumes.iter().map(|mount| mount.kind).collect::<Vec<_>>(),
        [MountKind::Bind, MountKind::Volume, MountKind::Volume, MountKind::Tmpfs]
    );
    assert_eq!((web.volumes[0].source.as_deref(), web.volumes[0].read_only), (Some("/case/shop/src"), true));
    assert_eq!((web.volumes[3].tmpfs_size, web.volumes[3].tmpfs_mode), (Some(Bytes(1 << 20)), Some(0o700)));
    assert_eq!(web.depends_on["db"].condition, Condition::ServiceHealthy);
    assert_eq!(web.depends_on["init"].condition, Condition::ServiceCompletedSuccessfully);
    assert_eq!(web.networks["default"].aliases, ["www"]);
    assert_eq!((web.scale, web.restart), (3, RestartPolicy::OnFailure(2)));
    assert_eq!(
        (web.resources.memory, web.resources.cpus, web.resources.pids),
        (Some(Bytes(64 << 20)), Some(0.5), Some(9))
    );
    assert_eq!((web.develop[0].action, web.develop[1].action), (WatchAction::Sync, WatchAction::Rebuild));
    assert_eq!(web.develop[1].path, Path::new("/case/shop/req.txt"));
    assert_eq!(
        web.secrets.iter().map(|grant| grant.target.as_str()).collect::<Vec<_>>(),
        ["/run/secrets/key", "/run/secrets/other"]
    );
    assert_eq!(web.secrets[1].mode, Some(0o400));
    assert_eq!(web.extra_hosts, [("gw".to_owned(), "host-gateway".to_owned())]);
    assert_eq!(
        (web.ulimits["nofile"], web.ulimits["core"]),
        (Ulimit { soft: 7, hard: 7 }, Ulimit { soft: 1, hard: 2 })
    );
    assert_eq!(web.tmpfs, [("/run".to_owned(), "size=1m".to_owned())]);
    assert_eq!(web.stop_grace_period, Some(Duration::from_secs(90)));
    assert!(web.init && !web.tty);
    let db = &project.services["db"];
    assert_eq!((db.scale, db.restart, db.command.clone()), (1, RestartPolicy::UnlessStopped, None));
    let check = db.healthcheck.as_ref().expect("a health check");
    assert_eq!(check.test.as_deref(), Some(&["CMD-SHELL".to_owned(), "pg_isready".into()][..]));
    assert_eq!(
        (check.interval, check.start_period),
        (Some(Duration::from_secs(5)), Some(Duration::from_secs(60)))
    );
    assert_eq!(project.services["init"].entrypoint, Some(vec![]));
    assert_eq!(
        (project.volumes["data"].name.as_str(), project.networks["default"].name.as_str()),
        ("shop_data", "shop_default")
    );
    assert_eq!(project.secrets["key"].content, FileContent::File("/case/shop/key".into()));
}

#[test]
fn places_survive_into_the_project() {
    let project = project(load(SHOP));
    let at = |path: &str| project.places.of(path).map(|place| place.line_column());
    assert_eq!(at("services.web.ports[1]"), Some((8, 24)));
    assert_eq!(at("services.db"), Some((20, 3)));
    assert_eq!(at("services.db.image"), Some((21, 12)));
    assert_eq!(at("services.db.nothing.here"), Some((20, 3)));
}

#[test]
fn the_fingerprint_is_docker_composes_hash() {
    // Each of these is what `docker compose 2.40 config --hash '*'` prints.
    for (service, hash) in [
        (
            "{image: x, environment: {A: '1'}}",
            "95ca1b32488beb02300555e1890cc05773b0da0b75fbcce43b3179cd20bf17bb",
        ),
        (
            "{image: x, deploy: {resources: {limits: {cpus: 0.5, memory: 64m}}}}",
            "659f47e6417f7b5252da58890877c9bad234605fd7f534d1a024d0197ae2ab1f",
        ),
        ("{image: x, x-foo: 1}", "d5457d0b2799957b606d2ac4ed52d85a1e75799490e56229948300b9a59e8953"),
        (
            "{image: x, command: 'a <b> & c', networks: {default: {aliases: [x], priority: 5}}}",
            "67b721bfcb39ed5be534f257f66cfad71d56e5a35cdd6a0a484e04aec3ef517a",
        ),
        (
            "{image: x, extra_hosts: [a=1.2.3.4], cpus: 1.5, mem_limit: 1g, ulimits: {nofile: 3}, stop_grace_period: 1m}",
            "973c1e4acf751c761bf51c1a50eb3e6b931de19b28f3e20b19a479c0a36e93ba",
        ),
    ] {
        let project = project(load(&format!("services: {{a: {service}}}")));
        assert_eq!(project.services["a"].fingerprint, hash, "{service}");
    }
}

#[test]
fn the_fingerprint_is_about_the_container() {
    let print = |text: &str| project(load(text)).services["a"].fingerprint.clone();
    let plain = print("services: {a: {image: x, environment: [A=1, B=2]}}");
    assert_eq!(
        plain,
        print("services: {a: {environment: {B: 2, A: '1'}, image: x, scale: 4, pull_policy: always}}")
    );
    assert_eq!(
        plain,
        print("services: {a: {image: x, environment: [A=1, B=2], deploy: {replicas: 1}, profiles: []}}")
    );
    assert_ne!(plain, print("services: {a: {image: x, environment: [A=1, B=3]}}"));
}

#[test]
fn unset_variables_warn_once_per_reference() {
    let loaded = load("services: {a: {image: \"x$U\", hostname: \"${U}-${V:-d}\"}}");
    let warnings: Vec<String> = loaded
        .diagnostics
        .iter()
        .map(|d| format!("{} {:?}", d.message, d.place.as_ref().map(|p| p.line_column())))
        .collect();
    assert_eq!(
        warnings,
        [
            "the variable `U` is not set, an empty string stands in for it Some((1, 25))",
            "the variable `U` is not set, an empty string stands in for it Some((1, 41))",
        ]
    );
    assert!(loaded.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Warning));
}

#[test]
fn without_interpolation_references_stay() {
    let text =
        "services: {a: {image: \"x:${U}\", scale: \"${N:-1}\", ports: [\"${P}:80\"], volumes: [\"$D:/d\"]}}";
    let loaded = case(&[("compose.yaml", text)], &["--no-interpolate"]).load();
    let yaml = render::yaml(&loaded);
    for kept in ["image: x:${U}", "scale: ${N:-1}", "${P}:80", "$D"] {
        assert!(yaml.contains(kept), "{kept}: {yaml}");
    }
}

#[test]
fn a_named_service_activates_its_profiles() {
    let text = "services: {a: {image: a, profiles: [p]}, b: {image: b, profiles: [q]}, c: {image: c}}";
    let project = project(case(&[("compose.yaml", text)], &["--", "a"]).load());
    assert_eq!(project.services.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(project.disabled.keys().collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn env_files_of_other_services_are_not_read() {
    let text = "services: {a: {image: a}, b: {image: b, env_file: none.env}}";
    assert!(case(&[("compose.yaml", text)], &["--", "a"]).load().project.is_some());
    assert!(case(&[("compose.yaml", text)], &[]).load().project.is_none());
}

#[test]
fn contents_come_from_the_environment() {
    let text = "services: {a: {image: a, secrets: [s, u], configs: [c]}}\nsecrets: {s: {environment: SECRET}, u: {environment: NOPE}}\nconfigs: {c: {content: \"v=${SECRET}\"}}";
    let project = project(case(&[("compose.yaml", text), (".env", "SECRET=hush\n")], &[]).load());
    assert_eq!(project.secrets["s"].content, FileContent::Inline("hush".into()));
    assert_eq!(project.secrets["u"].content, FileContent::Unset("NOPE".into()));
    assert_eq!(project.configs["c"].content, FileContent::Inline("v=hush".into()));
}

/// Accepted, carried, and said to be without effect, by name and at its key.
#[test]
fn what_is_not_honoured_is_named() {
    for (attribute, text) in [
        ("services.a.provider", "services: {a: {provider: {type: x, options: {k: [1, 2]}}}}"),
        ("services.a.models", "services: {a: {image: i, models: [m]}}\nmodels: {m: {model: x}}"),
        ("models", "services: {a: {image: i, models: [m]}}\nmodels: {m: {model: x}}"),
        ("services.a.use_api_socket", "services: {a: {image: i, use_api_socket: true}}"),
        ("services.a.pre_start", "services: {a: {image: i, pre_start: [{image: m, per_replica: false}]}}"),
        ("secrets.s.driver", "services: {a: {image: i, secrets: [s]}}\nsecrets: {s: {file: f, driver: d}}"),
        (
            "configs.c.template_driver",
            "services: {a: {image: i, configs: [c]}}\nconfigs: {c: {file: f, template_driver: d}}",
        ),
    ] {
        let loaded = load(text);
        let named = loaded.diagnostics.iter().find(|found| found.key_path == attribute);
        let found = named.unwrap_or_else(|| panic!("{attribute}: {:?}", loaded.diagnostics));
        assert_eq!(found.message, format!("`{attribute}` is accepted but not honoured yet"));
        assert_eq!(found.severity, stack_schema::diagnostic::Severity::Warning);
        let place = found.place.as_ref().expect("a place");
        assert!(place.is_text(attribute.rsplit('.').next().expect("a key")), "{attribute}");
        assert!(loaded.project.is_some(), "{attribute}");
    }
}

#[test]
fn a_service_without_a_platform_has_the_default_one() {
    let files = [
        ("compose.yaml", "services: {a: {image: i}, b: {image: i, platform: linux/amd64}}"),
        (".env", "DOCKER_DEFAULT_PLATFORM=linux/arm64"),
    ];
    let loaded = case(&files, &[]).load();
    assert!(!stack_schema::load::render::yaml(&loaded).contains("arm64"));
    let project = project(loaded);
    assert_eq!(project.services["a"].platform.as_deref(), Some("linux/arm64"));
    assert_eq!(project.services["b"].platform.as_deref(), Some("linux/amd64"));
}

#[test]
fn the_first_link_to_what_is_watched_is_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().canonicalize().expect("a real path");
    std::fs::create_dir_all(root.join("real/inner")).expect("directories");
    std::os::unix::fs::symlink("real", root.join("link")).expect("a link");
    std::os::unix::fs::symlink("inner", root.join("real/second")).expect("a link");
    let text = "services: {a: {build: ., develop: {watch: [{path: link/second/x, action: rebuild}, {path: real/y, action: rebuild}]}}}\n";
    let request = |no_path_resolution: bool| LoadRequest {
        files: vec!["-".into()],
        stdin: Some(text.into()),
        project_directory: root.clone(),
        project_name: Some("p".into()),
        no_path_resolution,
        ..LoadRequest::default()
    };
    let watched = |no_path_resolution: bool| {
        let loaded = stack_schema::load::load(&request(no_path_resolution), &stack_schema::source::Disk);
        let path = |index: usize| {
            let path = format!("services.a.develop.watch[{index}].path");
            loaded.explain(&path).and_then(|found| found.node.as_str().map(str::to_owned)).expect("a path")
        };
        [path(0), path(1)]
    };
    let below = |path: &str| root.join(path).display().to_string();
    assert_eq!(watched(false), [below("real/second/x"), below("real/y")]);
    assert_eq!(watched(true), ["link/second/x", "real/y"]);
}
