//! The way out: through `pasta`, past another tool's firewall, kept and ended.
//!
//! Needs the package `passt`. The only packets go to a namespace that plays the world.

use crate::lab::{HOST, Lab, PATIENCE, WORLD, echo, eventually, is_echoed, privileged, run};
use simple_dns::TYPE;
use stack_runtime::home::read_json;
use stack_runtime::network::{BuildNetwork, StackNetwork, UplinkState};
use stack_runtime::spec::{ContainerSpec, EndpointSpec, NetworkMode, NetworkSpec, PortSpec, Protocol};
use stack_runtime::sys::netns::Worker;
use stack_runtime::sys::nft::{Chain, Family, Hook, Transaction};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;

/// `false`, said aloud, without `pasta`.
fn with_pasta(test: &str) -> bool {
    let installed = Command::new("pasta").arg("--version").output().is_ok();
    assert!(
        installed || std::env::var_os("STACK_TEST_PRIVILEGED").is_none(),
        "{test} needs the package passt"
    );
    if !installed {
        eprintln!("SKIPPED {test}: needs the package passt");
    }
    installed
}

async fn ready(network: &StackNetwork) -> UplinkState {
    let mut state = network.uplink();
    let settled = state.wait_for(|s| matches!(s, UplinkState::Ready | UplinkState::Failed(_)));
    tokio::time::timeout(PATIENCE, settled).await.unwrap().unwrap().clone()
}

fn recorded_pid(lab: &Lab) -> Option<i32> {
    let value: serde_json::Value = read_json(&lab.home.run_of("p").join("uplink.json")).unwrap()?;
    value["pid"].as_i64().map(|p| i32::try_from(p).unwrap())
}

fn is_running(pid: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// What Docker, ufw and firewalld do to everybody else's forwarded packets.
fn drop_forwarded(host: &Worker) {
    let chain = Chain { name: "forward", kind: "filter", hook: Hook::Forward, priority: 0, accept: false };
    host.run_blocking(move || Transaction::new(Family::Inet, "other").chain(&chain).commit()).unwrap();
}

#[test]
fn containers_reach_the_world_past_a_dropping_firewall() {
    let test = "containers_reach_the_world_past_a_dropping_firewall";
    if !with_pasta(test) {
        return;
    }
    run(test, |lab| async move {
        let world = lab.world();
        drop_forwarded(&lab.host);
        lab.network("p_default");
        lab.network_with(NetworkSpec { name: "p_inside".into(), internal: true, ..NetworkSpec::default() });
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_default"], &[]);
        let shut = lab.container("p-shut-1", &["p_inside"], &[]);
        web.connect(&network).await;
        shut.connect(&network).await;
        assert_eq!(ready(&network).await, UplinkState::Ready);
        echo(&world.inside, "0.0.0.0:80");
        let address = format!("{WORLD}:80");
        assert!(is_echoed(&web.inside, &address, 10).unwrap());
        assert!(is_echoed(&shut.inside, &address, 10).is_err(), "an internal network has no way out");
        assert!(tokio::task::block_in_place(|| is_echoed(&web.inside, &address, 3_000_000)).unwrap());
        udp_to_the_world(&web.inside, &world.inside);
        compare_with_nft(&lab);
        network.close().await;
    });
}

fn udp_to_the_world(from: &Worker, world: &Worker) {
    let service = world.run_blocking(|| UdpSocket::bind("0.0.0.0:99")).unwrap();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let (length, client) = service.recv_from(&mut buffer).unwrap();
        service.send_to(&buffer[..length], client).unwrap();
    });
    let answer = from.run_blocking(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"ping", format!("{WORLD}:99"))?;
        let mut buffer = [0; 64];
        let (length, _) = socket.recv_from(&mut buffer)?;
        Ok(buffer[..length].to_vec())
    });
    assert_eq!(answer.unwrap(), b"ping");
    echo.join().unwrap();
}

/// The rules as the real tool reads them back, where it is installed.
fn compare_with_nft(lab: &Lab) {
    let listed = lab.stack_worker().run_blocking(|| Command::new("nft").args(["list", "ruleset"]).output());
    let Ok(output) = listed else {
        eprintln!("SKIPPED comparison of the rules: needs the package nftables");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let expected = "table inet stack {
        chain input { type filter hook input priority filter; policy accept; ct state invalid drop }
        chain forward { type filter hook forward priority filter; policy drop;
            iifname \"uplink\" ct state established,related accept
            iifname \"br-*\" oifname \"uplink\" accept }
        chain postrouting { type nat hook postrouting priority srcnat; policy accept;
            oifname \"uplink\" masquerade } }";
    assert_eq!(words(&text), words(expected), "{text}");
}

#[test]
fn the_host_is_reached_by_its_address_but_not_its_loopback() {
    let test = "the_host_is_reached_by_its_address_but_not_its_loopback";
    if !with_pasta(test) {
        return;
    }
    run(test, |lab| async move {
        let _world = lab.world();
        lab.network("p_default");
        let network = lab.open();
        let endpoint = EndpointSpec { network: "p_default".into(), ..EndpointSpec::default() };
        let web = lab.container_with(ContainerSpec {
            name: "p-web-1".into(),
            network: NetworkMode::Bridge(vec![endpoint]),
            extra_hosts: vec![("host.test".into(), "host-gateway".into())],
            ports: vec![PortSpec {
                host_ip: None,
                published: (8080, 8080),
                target: 80,
                protocol: Protocol::Tcp,
            }],
            ..ContainerSpec::default()
        });
        web.connect(&network).await;
        echo(&web.inside, "0.0.0.0:80");
        assert!(web.file("hosts").ends_with(&format!("{HOST}\thost.test\n")), "{}", web.file("hosts"));
        assert_eq!(ready(&network).await, UplinkState::Ready);
        echo(&lab.host, "0.0.0.0:9000");
        echo(&lab.host, "127.0.0.1:9001");
        assert!(is_echoed(&web.inside, &format!("{HOST}:9000"), 10).unwrap());
        let by_the_host = format!("{HOST}:8080");
        network.refresh(&web.id);
        eventually("published", || is_echoed(&lab.host, "127.0.0.1:8080", 10).is_ok()).await;
        assert!(is_echoed(&web.inside, &by_the_host, 10).unwrap(), "a published port by the host's address");
        for address in [HOST, "169.254.77.2", WORLD] {
            assert!(is_echoed(&web.inside, &format!("{address}:9001"), 10).is_err(), "{address}");
        }
        network.close().await;
    });
}

#[test]
fn the_uplink_outlives_a_supervisor_and_ends_with_the_stack() {
    let test = "the_uplink_outlives_a_supervisor_and_ends_with_the_stack";
    if !with_pasta(test) {
        return;
    }
    run(test, |lab| async move {
        let world = lab.world();
        lab.network("p_default");
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_default"], &[]);
        web.connect(&network).await;
        assert_eq!(ready(&network).await, UplinkState::Ready);
        let first = recorded_pid(&lab).unwrap();
        drop(network);
        let network = lab.open();
        network.adopt(web.request()).await.unwrap();
        assert_eq!(ready(&network).await, UplinkState::Ready);
        assert_eq!(recorded_pid(&lab), Some(first), "found, not started again");
        echo(&world.inside, "0.0.0.0:80");
        assert!(is_echoed(&web.inside, &format!("{WORLD}:80"), 10).unwrap());
        network.close().await;
        assert!(!is_running(first));
        assert_eq!(recorded_pid(&lab), None);
        let network = lab.open();
        network.adopt(web.request()).await.unwrap();
        assert_eq!(ready(&network).await, UplinkState::Ready);
        let second = recorded_pid(&lab).unwrap();
        drop(network);
        // One that had no reason to look for it ends it all the same.
        lab.open().close().await;
        eventually("the left-over ends", || !is_running(second)).await;
        let network = lab.open();
        network.adopt(web.request()).await.unwrap();
        assert_eq!(ready(&network).await, UplinkState::Ready);
        let third = recorded_pid(&lab).unwrap();
        drop(network);
        // Killed before it could write the record.
        let run = lab.home.run_of("p");
        std::fs::remove_file(run.join("uplink.json")).unwrap();
        std::fs::write(run.join("uplink.starting"), "").unwrap();
        lab.open().close().await;
        eventually("the unrecorded one ends", || !is_running(third)).await;
    });
}

#[test]
fn a_build_has_names_and_a_way_out_and_leaves_nothing() {
    let test = "a_build_has_names_and_a_way_out_and_leaves_nothing";
    if !with_pasta(test) {
        return;
    }
    run(test, |lab| async move {
        let world = lab.world();
        lab.serve_names();
        let build = BuildNetwork::start_on(lab.outside()).unwrap();
        assert!(build.resolv_conf.starts_with("nameserver 127.0.0.11\n"));
        assert_eq!(build.host_gateway.map(|a| a.to_string()).as_deref(), Some(HOST));
        tokio::time::timeout(PATIENCE, build.ready()).await.unwrap().unwrap();
        let inside = Worker::start("lab-build", Arc::new(build.netns.try_clone().unwrap())).unwrap();
        echo(&world.inside, "0.0.0.0:80");
        assert!(is_echoed(&inside, &format!("{WORLD}:80"), 10).unwrap());
        let query = crate::lab::query("example.test", TYPE::A);
        let length = inside.run_blocking(move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(&query, "127.0.0.11:53")?;
            socket.recv(&mut [0; 512])
        });
        assert!(length.unwrap() > 30);
        let has_uplink = || {
            inside
                .run_blocking(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
                .unwrap()
                .contains("uplink")
        };
        assert!(has_uplink());
        drop(build);
        eventually("pasta ends with the build", || !has_uplink()).await;
    });
}

#[test]
fn a_missing_pasta_is_one_clear_warning() {
    let test = "uplink::a_missing_pasta_is_one_clear_warning";
    if !privileged(test) {
        return;
    }
    if std::env::var_os("PATH").is_some_and(|p| p != "/nonexistent") {
        let program = std::env::current_exe().unwrap();
        let status =
            Command::new(program).args(["--exact", test]).env("PATH", "/nonexistent").status().unwrap();
        assert!(status.success());
        return;
    }
    run(test, |lab| async move {
        lab.network("p_default");
        let network = lab.open();
        let web = lab.container("p-web-1", &["p_default"], &[]);
        let has = web.connect(&network).await;
        assert_eq!(web.resolve("p-web-1").unwrap(), [has.addresses[0].1.clone()]);
        let UplinkState::Failed(why) = ready(&network).await else { panic!("there is no pasta") };
        assert!(why.contains("install the package `passt`"), "{why}");
    });
}
