//! Life of a stack's network: adoption, several interfaces, special modes.

use crate::lab::{configured, eventually, fetch, run};
use stack_runtime::spec::{ContainerSpec, EndpointSpec, NetworkMode, NetworkSpec, PortSpec, Protocol};
use std::time::Instant;

fn published(target: u16) -> Vec<PortSpec> {
    vec![PortSpec { host_ip: None, published: (0, 0), target, protocol: Protocol::Tcp }]
}

#[test]
fn another_supervisor_carries_on() {
    run("another_supervisor_carries_on", |lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let endpoint = EndpointSpec {
            network: "p_default".into(),
            aliases: vec!["web".into()],
            ..EndpointSpec::default()
        };
        let web = lab.container_with(ContainerSpec {
            name: "p-web-1".into(),
            network: NetworkMode::Bridge(vec![endpoint]),
            ports: published(80),
            ..ContainerSpec::default()
        });
        let before = web.connect(&network).await;
        let _service = web.serve("0.0.0.0:80", "hello");
        drop(network);
        let port = before.published[0].host_port;
        let free = move || std::net::TcpListener::bind(("0.0.0.0", port));
        eventually("the ports of the old supervisor are free", || lab.host.run_blocking(free).is_ok()).await;
        let network = lab.open();
        let adopted = network.adopt(web.request()).await.unwrap();
        assert_eq!(adopted, before);
        assert_eq!(web.resolve("web").unwrap(), [before.addresses[0].1.clone()]);
        let address = format!("127.0.0.1:{}", before.published[0].host_port);
        eventually("forwarded", || fetch(&lab.host, &address).is_ok_and(|t| t == "hello")).await;
        let other = lab.container("p-db-1", &["p_default"], &[]);
        let has = other.connect(&network).await;
        assert_ne!(has.addresses[0].1, before.addresses[0].1, "adopted addresses stay taken");
        assert_eq!(other.fetch(&format!("{}:80", before.addresses[0].1)).unwrap(), "hello");
    });
}

#[test]
fn interfaces_in_order_with_static_addresses_and_ipv6() {
    run("interfaces_in_order_with_static_addresses_and_ipv6", |lab| async move {
        lab.network_with(NetworkSpec { enable_ipv6: true, ..configured("p_a", "10.123.0.0/24") });
        lab.network_with(NetworkSpec { internal: true, ..configured("p_b", "10.124.0.0/24") });
        let network = lab.open();
        let on = |name: &str, ipv4: &str| EndpointSpec {
            network: name.into(),
            ipv4: Some(ipv4.into()),
            ..EndpointSpec::default()
        };
        let spec = |name: &str, end: &str| ContainerSpec {
            name: name.into(),
            network: NetworkMode::Bridge(vec![
                on("p_b", &format!("10.124.0.{end}")),
                on("p_a", &format!("10.123.0.{end}")),
            ]),
            ..ContainerSpec::default()
        };
        let (one, two) = (lab.container_with(spec("one", "50")), lab.container_with(spec("two", "60")));
        let has = one.connect(&network).await;
        assert_eq!(
            has.addresses,
            [("p_b".to_owned(), "10.124.0.50".to_owned()), ("p_a".to_owned(), "10.123.0.50".to_owned())]
        );
        two.connect(&network).await;
        let routes =
            one.inside.run_blocking(|| std::fs::read_to_string("/proc/thread-self/net/route")).unwrap();
        let default = routes.lines().find(|l| l.split('\t').nth(1) == Some("00000000")).unwrap();
        assert!(
            default.starts_with("eth1\t0") || default.starts_with("eth1\t"),
            "the internal network leads nowhere: {routes}"
        );
        let text = two.file("net.json");
        let ipv6 = text.split('"').find(|s| s.starts_with("fd")).unwrap().to_owned();
        let _service = two.serve("[::]:80", "six");
        assert_eq!(one.fetch(&format!("[{ipv6}]:80")).unwrap(), "six");
        let third = lab.container_with(spec("three", "60"));
        assert!(network.connect(third.request()).await.unwrap_err().message.contains("already in use"));
    });
}

#[test]
fn none_and_host_modes() {
    run("none_and_host_modes", |lab| async move {
        let network = lab.open();
        let alone = lab.container_with(ContainerSpec { name: "alone".into(), ..ContainerSpec::default() });
        alone.connect(&network).await;
        let _service = alone.serve("127.0.0.1:80", "self");
        assert_eq!(alone.fetch("127.0.0.1:80").unwrap(), "self");
        assert!(alone.file("resolv.conf").starts_with("nameserver 127.0.0.1\n"));
        let mut spec = ContainerSpec {
            name: "host".into(),
            network: NetworkMode::Host,
            ports: published(80),
            ..ContainerSpec::default()
        };
        spec.extra_hosts = vec![("db.test".into(), "10.0.0.9".into())];
        let host = lab.container_with(spec);
        let has = host.connect(&network).await;
        assert_eq!(has.warnings, ["Published ports are discarded when using host network mode"]);
        assert_eq!(host.file("hosts"), "127.0.0.1 localhost\n10.0.0.9\tdb.test\n");
    });
}

#[test]
fn fifty_containers_connect_quickly_and_networks_go() {
    run("fifty_containers_connect_quickly_and_networks_go", |lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let containers: Vec<_> =
            (0..50).map(|n| lab.container(&format!("c{n}"), &["p_default"], &["all"])).collect();
        // The way out is made beside the first ones, which is not what is measured.
        let first = lab.container("first", &["p_default"], &[]);
        first.connect(&network).await;
        let start = Instant::now();
        for container in &containers {
            container.connect(&network).await;
        }
        println!("connect: {:?} each", start.elapsed() / 50);
        assert_eq!(containers[0].resolve("all").map(|a| a.len() > 20), Ok(true));
        for container in &containers {
            network.disconnect(&container.id).await;
        }
        network.disconnect(&first.id).await;
        network.remove_network("p_default").await.unwrap();
        network.remove_network("p_default").await.unwrap();
        let left =
            lab.stack_worker().run_blocking(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
        assert!(!left.contains("br-"), "{left}");
    });
}
