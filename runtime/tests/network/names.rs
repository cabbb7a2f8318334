//! Names: who sees whom, and what goes outside.

use crate::lab::{Lab, run};
use simple_dns::rdata::{PTR, RData};
use simple_dns::{Packet, PacketFlag, TYPE};
use stack_runtime::spec::{ContainerSpec, DnsSpec, EndpointSpec, NetworkMode, NetworkSpec};

#[test]
fn two_containers_resolve_and_reach_each_other() {
    run("two_containers_resolve_and_reach_each_other", |lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_default"], &["web", "front"]);
        let db = lab.container("p-db-1", &["p_default"], &["db"]);
        let web_has = web.connect(&network).await;
        let db_has = db.connect(&network).await;
        let address = db_has.addresses[0].1.clone();
        for name in ["db", "p-db-1", "DB", "db.p_default", "p-db-1.p_default", &db.id[..12]] {
            assert_eq!(web.resolve(name).unwrap(), std::slice::from_ref(&address), "{name}");
        }
        assert_eq!(db.resolve("front").unwrap(), [web_has.addresses[0].1.clone()]);
        let _service = db.serve("0.0.0.0:5432", "database");
        assert_eq!(web.fetch(&format!("{address}:5432")).unwrap(), "database");
        let own = format!("{}\t{}\n", web_has.addresses[0].1, &web.id[..12]);
        assert!(web.file("hosts").ends_with(&own), "{}", web.file("hosts"));
        assert_eq!(web.file("resolv.conf"), "nameserver 127.0.0.11\nsearch lab.test\noptions ndots:0\n");
        assert_eq!(web.file("hostname"), format!("{}\n", &web.id[..12]));
        network.disconnect(&db.id).await;
        assert!(web.resolve("db").is_err(), "a stopped container has no name");
    });
}

#[test]
fn a_new_name_resolves_at_once() {
    run("a_new_name_resolves_at_once", |lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_default"], &["web"]);
        let address = web.connect(&network).await.addresses[0].1.clone();
        let renamed = ContainerSpec { name: "p-new-1".into(), ..web.spec.clone() };
        network.rename(&web.id, &renamed).unwrap();
        for name in ["p-new-1", "web"] {
            assert_eq!(web.resolve(name).unwrap(), std::slice::from_ref(&address), "{name}");
        }
        assert!(web.resolve("p-web-1").is_err(), "the old name is gone");
    });
}

#[test]
fn replicas_answer_in_turn_and_reverse_names_work() {
    run("replicas_answer_in_turn_and_reverse_names_work", |lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let mut replicas = Vec::new();
        for n in 1..=3 {
            let one = lab.container(&format!("p-web-{n}"), &["p_default"], &["web"]);
            one.connect(&network).await;
            replicas.push(one);
        }
        assert_eq!(replicas[0].resolve("web").unwrap().len(), 3);
        let mut first = std::collections::HashSet::new();
        for _ in 0..60 {
            let answer = replicas[0].ask("web", TYPE::A).unwrap();
            first.insert(format!("{:?}", Packet::parse(&answer).unwrap().answers[0].rdata));
        }
        assert!(first.len() > 1, "the order varies");
        let address = replicas[1].resolve("p-web-2").unwrap()[0].clone();
        let mut digits: Vec<&str> = address.split('.').collect();
        digits.reverse();
        let answer = replicas[0].ask(&format!("{}.in-addr.arpa", digits.join(".")), TYPE::PTR).unwrap();
        let packet = Packet::parse(&answer).unwrap();
        let RData::PTR(PTR(name)) = &packet.answers[0].rdata else { panic!("{packet:?}") };
        assert_eq!(name.to_string(), "p-web-2.p_default");
    });
}

#[test]
fn networks_keep_names_and_packets_apart() {
    run("networks_keep_names_and_packets_apart", |lab| async move {
        lab.network("p_front");
        lab.network("p_back");
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_front"], &["web"]);
        let both = lab.container("p-api-1", &["p_front", "p_back"], &["api"]);
        let db = lab.container("p-db-1", &["p_back"], &["db"]);
        web.connect(&network).await;
        let both_has = both.connect(&network).await;
        let db_has = db.connect(&network).await;
        assert!(web.resolve("db").is_err());
        assert_eq!(both_has.addresses.len(), 2);
        assert_eq!(web.resolve("api").unwrap(), [both_has.addresses[0].1.clone()]);
        assert_eq!(db.resolve("api").unwrap(), [both_has.addresses[1].1.clone()]);
        let _service = db.serve("0.0.0.0:5432", "database");
        let address = format!("{}:5432", db_has.addresses[0].1);
        assert_eq!(both.fetch(&address).unwrap(), "database");
        assert!(web.fetch(&address).is_err(), "no way from one network to the other");
    });
}

#[test]
fn unknown_names_go_to_the_hosts_server() {
    run("unknown_names_go_to_the_hosts_server", |lab| async move {
        lab.serve_names();
        lab.network("p_default");
        lab.network_with(NetworkSpec { name: "p_inside".into(), internal: true, ..NetworkSpec::default() });
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_default"], &[]);
        let shut = lab.container("p-shut-1", &["p_inside"], &[]);
        web.connect(&network).await;
        shut.connect(&network).await;
        assert_eq!(web.resolve("example.test").unwrap(), ["192.0.2.80"]);
        assert_eq!(web.resolve("nowhere.test").unwrap_err(), "NameError");
        assert_eq!(shut.resolve("example.test").unwrap_err(), "ServerFailure");
        let known = web.ask("p-web-1", TYPE::AAAA).unwrap();
        assert_eq!(format!("{:?}", Packet::parse(&known).unwrap().rcode()), "NoError");
        let short = web.ask("big.test", TYPE::A).unwrap();
        assert!(Packet::parse(&short).unwrap().has_flags(PacketFlag::TRUNCATION));
        assert_eq!(Packet::parse(&web.ask_by_tcp("big.test")).unwrap().answers.len(), 1);
        assert_eq!(Packet::parse(&web.ask_by_tcp("p-web-1")).unwrap().answers.len(), 1);
    });
}

#[test]
fn without_an_upstream_the_answer_is_servfail() {
    run("without_an_upstream_the_answer_is_servfail", |lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_default"], &[]);
        web.connect(&network).await;
        assert_eq!(web.resolve("example.test").unwrap_err(), "ServerFailure");
    });
}

#[test]
fn a_containers_own_servers_are_asked_from_inside() {
    run("a_containers_own_servers_are_asked_from_inside", |lab: Lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let endpoint = EndpointSpec { network: "p_default".into(), ..EndpointSpec::default() };
        let web = lab.container_with(ContainerSpec {
            name: "p-web-1".into(),
            network: NetworkMode::Bridge(vec![endpoint]),
            dns: DnsSpec { servers: vec!["127.0.0.1".into()], ..DnsSpec::default() },
            ..ContainerSpec::default()
        });
        web.connect(&network).await;
        let socket = web.inside.run_blocking(|| std::net::UdpSocket::bind("127.0.0.1:53")).unwrap();
        let serving = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            buffer[2] |= 0x80;
            buffer[3] = (buffer[3] & 0xf0) | 3;
            socket.send_to(&buffer[..length], from).unwrap();
        });
        assert_eq!(web.resolve("example.test").unwrap_err(), "NameError");
        serving.join().unwrap();
    });
}

/// A server at this address that answers every question with this code.
fn refusing(inside: &stack_runtime::sys::netns::Worker, address: &'static str, code: u8) {
    let socket = inside.run_blocking(move || std::net::UdpSocket::bind(address)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            buffer[3] = (buffer[3] & 0xf0) | code;
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

#[test]
fn a_server_that_refuses_or_fails_is_followed_by_the_next() {
    run("a_server_that_refuses_or_fails_is_followed_by_the_next", |lab: Lab| async move {
        let (servfail, nxdomain, refused) = (2, 3, 5);
        lab.network("p_default");
        let network = lab.open();
        let endpoint = EndpointSpec { network: "p_default".into(), ..EndpointSpec::default() };
        let servers = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(String::from).to_vec();
        let web = lab.container_with(ContainerSpec {
            name: "p-web-1".into(),
            network: NetworkMode::Bridge(vec![endpoint]),
            dns: DnsSpec { servers, ..DnsSpec::default() },
            ..ContainerSpec::default()
        });
        web.connect(&network).await;
        refusing(&web.inside, "127.0.0.1:53", servfail);
        refusing(&web.inside, "127.0.0.2:53", refused);
        refusing(&web.inside, "127.0.0.3:53", nxdomain);
        assert_eq!(web.resolve("example.test").unwrap_err(), "NameError", "the third one's word");
    });
}

#[test]
fn nonsense_addresses_are_refused() {
    run("nonsense_addresses_are_refused", |lab: Lab| async move {
        let network = lab.open();
        let dns = DnsSpec { servers: vec!["foo".into()], ..DnsSpec::default() };
        let web = lab.container_with(ContainerSpec { dns, ..ContainerSpec::default() });
        assert_eq!(network.connect(web.request()).await.unwrap_err().message, "invalid DNS address: foo");
        let extra_hosts = vec![("db".into(), "10.0.0".into())];
        let web = lab.container_with(ContainerSpec { extra_hosts, ..ContainerSpec::default() });
        let error = network.connect(web.request()).await.unwrap_err();
        assert_eq!(error.message, "invalid IP address in extra_hosts: db=10.0.0");
    });
}

#[test]
fn a_container_that_serves_port_53_keeps_it() {
    run("a_container_that_serves_port_53_keeps_it", |lab: Lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let endpoint = EndpointSpec { network: "p_default".into(), ..EndpointSpec::default() };
        let dns = lab.container_with(ContainerSpec {
            name: "p-dns-1".into(),
            network: NetworkMode::Bridge(vec![endpoint]),
            exposed: vec!["53/udp".into()],
            ..ContainerSpec::default()
        });
        let has = dns.connect(&network).await;
        let bound = dns.inside.run_blocking(|| {
            Ok((std::net::UdpSocket::bind("0.0.0.0:53")?, std::net::TcpListener::bind("0.0.0.0:53")?))
        });
        let _both = bound.expect("all addresses are free");
        assert_eq!(dns.resolve("p-dns-1").unwrap(), [has.addresses[0].1.clone()]);
        assert_eq!(Packet::parse(&dns.ask_by_tcp("p-dns-1")).unwrap().answers.len(), 1);
        drop(network);
        let network = lab.open();
        network.adopt(dns.request()).await.unwrap();
        assert_eq!(dns.resolve("p-dns-1").unwrap(), [has.addresses[0].1.clone()]);
    });
}
