use super::*;
use stack_runtime::image::HealthcheckConfig;
use stack_runtime::spec::{MountKindSpec, NetworkMode, Probe};
use stack_schema::project::{Endpoint, Healthcheck, Mount, MountKind, Network, Port};
use std::sync::Arc;
use std::time::Duration;

struct Nobody;

impl Around for Nobody {
    fn image(&self, _: &str) -> Option<String> {
        None
    }
    fn mounts(&self, container: &str) -> Option<Vec<MountSpec>> {
        let bind = |target: &str| MountSpec {
            kind: MountKindSpec::Bind {
                source: "/host".into(),
                create: false,
                propagation: None,
                recursive: None,
            },
            target: target.into(),
            read_only: false,
        };
        let memory = MountKindSpec::Tmpfs { size: None, mode: None, options: String::new() };
        let memory = MountSpec { kind: memory, ..bind("/memory") };
        (container == "shop-db-1").then(|| vec![bind("/data"), bind("/own"), memory])
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn image() -> ImageView {
    let config = ImageConfig {
        entrypoint: Some(words("/entry")),
        cmd: Some(words("serve now")),
        env: words("PATH=/bin A=1 B=2"),
        ..ImageConfig::default()
    };
    ImageView { id: "sha256:aa".into(), chain_id: "sha256:bb".into(), config }
}

fn creation(service: Service) -> Creation {
    Creation {
        service: Arc::new(service),
        reference: "app".into(),
        number: 1,
        name: "shop-web-1".into(),
        temporary: None,
        inherited: Vec::new(),
        one_off: None,
    }
}

fn project() -> Project {
    let network = Network { key: "default".into(), name: "shop_default".into(), ..Network::default() };
    let networks = [("default".to_string(), network)].into_iter().collect();
    Project { name: "shop".into(), networks, ..Project::default() }
}

fn spec_of(service: Service, image: &ImageView) -> ContainerSpec {
    container_spec(&project(), &creation(service), image, &Nobody).expect("a good service")
}

fn web() -> Service {
    Service { key: "web".into(), ..Service::default() }
}

#[test]
fn entry_point_and_command_merge_as_docker_does() {
    let case = |entrypoint: Option<&str>, command: Option<&str>| {
        let service = Service { entrypoint: entrypoint.map(words), command: command.map(words), ..web() };
        spec_of(service, &image()).args.join(" ")
    };
    assert_eq!(case(None, None), "/entry serve now");
    assert_eq!(case(None, Some("other")), "/entry other");
    assert_eq!(case(Some("/mine"), None), "/mine");
    assert_eq!(case(Some("/mine"), Some("x")), "/mine x");
    assert_eq!(case(Some(""), None), "serve now");
    assert_eq!(case(None, Some("")), "/entry serve now");
}

#[test]
fn nothing_to_run_is_an_error() {
    let refused = container_spec(&project(), &creation(web()), &ImageView::default(), &Nobody);
    assert_eq!(refused.expect_err("no command").message, "no command specified");
}

#[test]
fn the_services_variables_win_and_null_removes() {
    let environment =
        [("A".to_string(), Some("9".to_string())), ("B".to_string(), None)].into_iter().collect();
    let env = spec_of(Service { environment, ..web() }, &image()).env;
    assert_eq!(env, [("PATH".to_string(), "/bin".to_string()), ("A".into(), "9".into())]);
}

#[test]
fn image_volumes_become_anonymous_unless_covered_and_are_inherited() {
    let mut image = image();
    image.config.volumes = ["/data".to_string(), "/other/".to_string()].into();
    let bind = Mount {
        kind: MountKind::Bind,
        source: Some("/host".into()),
        target: "/other".into(),
        read_only: true,
        create_host_path: true,
        propagation: None,
        recursive: None,
        nocopy: false,
        subpath: None,
        tmpfs_size: None,
        tmpfs_mode: None,
    };
    let mut creation = creation(Service { volumes: vec![bind], ..web() });
    creation.inherited = vec![("/data".into(), "f".repeat(64))];
    let mounts = container_spec(&project(), &creation, &image, &Nobody).expect("good").mounts;
    assert_eq!(mounts.len(), 2);
    let volume = mounts.iter().find(|m| m.target == "/data").expect("of the image");
    let expected =
        MountKindSpec::Volume { name: "f".repeat(64), nocopy: false, subpath: None, anonymous: true };
    assert_eq!(volume.kind, expected);
}

#[test]
fn health_merges_field_by_field() {
    let mut image = image();
    image.config.shell = Some(words("/bin/bash -c"));
    image.config.healthcheck = Some(HealthcheckConfig {
        test: vec!["CMD-SHELL".into(), "pg_isready".into()],
        interval: Duration::from_secs(7),
        ..HealthcheckConfig::default()
    });
    let own = Healthcheck { retries: Some(9), timeout: Some(Duration::ZERO), ..Healthcheck::default() };
    let health = spec_of(Service { healthcheck: Some(own), ..web() }, &image).health.expect("inherited");
    assert_eq!(health.probe, Probe::Exec(words("/bin/bash -c pg_isready")));
    assert_eq!((health.interval, health.retries), (Duration::from_secs(7), 9));
    assert_eq!((health.timeout, health.start_interval), (Duration::from_secs(30), Duration::from_secs(5)));
    let none = Healthcheck { test: Some(words("NONE")), ..Healthcheck::default() };
    assert_eq!(spec_of(Service { healthcheck: Some(none), ..web() }, &image).health, None);
    let disabled = Healthcheck { disable: true, ..Healthcheck::default() };
    assert_eq!(spec_of(Service { healthcheck: Some(disabled), ..web() }, &image).health, None);
}

#[test]
fn endpoints_answer_to_container_service_and_aliases() {
    let place = Endpoint { aliases: words("www web"), ..Endpoint::default() };
    let service = Service { networks: [("default".to_string(), place)].into_iter().collect(), ..web() };
    let NetworkMode::Bridge(endpoints) = spec_of(service, &image()).network else { panic!("a bridge") };
    assert_eq!(endpoints[0].network, "shop_default");
    assert_eq!(endpoints[0].aliases, ["shop-web-1", "web", "www"]);
}

#[test]
fn a_run_container_has_no_restart_and_no_service_name() {
    let service = Service {
        restart: RestartPolicy::Always,
        networks: [("default".to_string(), Endpoint::default())].into_iter().collect(),
        ..web()
    };
    let mut creation = creation(service);
    creation.one_off = Some(Default::default());
    let spec = container_spec(&project(), &creation, &image(), &Nobody).expect("good");
    assert_eq!(spec.restart, RestartSpec::No);
    let NetworkMode::Bridge(endpoints) = spec.network else { panic!("a bridge") };
    assert_eq!(endpoints[0].aliases, ["shop-web-1"]);
    assert_eq!(spec.labels[label::ONE_OFF], "True");
}

#[test]
fn ports_are_ranges() {
    let port = |published: &str| Port {
        host_ip: None,
        published: published.into(),
        target: 80,
        protocol: "tcp".into(),
        mode: "ingress".into(),
        name: None,
    };
    let service = Service { ports: vec![port(""), port("8080"), port("8000-8010")], ..web() };
    let spec = spec_of(service, &image());
    let published: Vec<_> = spec.ports.iter().map(|p| p.published).collect();
    assert_eq!(published, [(0, 0), (8080, 8080), (8000, 8010)]);
    assert_eq!(spec.exposed, ["80/tcp"]);
}

#[test]
fn mounts_of_another_service_come_along_but_for_memory_and_own_places() {
    let mut project = project();
    project.services.insert("db".into(), Service { key: "db".into(), ..Service::default() });
    let service =
        Service { volumes_from: words("db:ro"), tmpfs: vec![("/own".into(), String::new())], ..web() };
    let spec = container_spec(&project, &creation(service), &image(), &Nobody).expect("good");
    let mounts: Vec<_> = spec.mounts.iter().map(|m| (m.target.as_str(), m.read_only)).collect();
    assert_eq!(mounts, [("/own", false), ("/data", true)]);
    let service = Service { volumes_from: words("container:gone"), ..web() };
    let refused = container_spec(&project, &creation(service), &image(), &Nobody).expect_err("no donor");
    assert_eq!(refused.message, "No such container: gone");
}

#[test]
fn links_are_names_of_this_container_alone() {
    let mut project = project();
    project.services.insert("db".into(), Service { key: "db".into(), scale: 2, ..Service::default() });
    let service =
        Service { links: words("db:database db"), external_links: words("other:far plain"), ..web() };
    let spec = container_spec(&project, &creation(service), &image(), &Nobody).expect("good");
    let links: Vec<_> = spec.links.iter().map(|(alias, name)| format!("{alias}={name}")).collect();
    let numbered = ["db-1=shop-db-1", "db-2=shop-db-2"];
    assert_eq!(links, [&["database=db"][..], &numbered, &numbered, &["far=other"]].concat());
}
