//! Published ports: refuse, forward, half-close, come back.

use crate::lab::{Container, Lab, eventually, fetch, run, send_and_read};
use stack_runtime::engine::ErrorKind;
use stack_runtime::network::StackNetwork;
use stack_runtime::spec::{ContainerSpec, EndpointSpec, NetworkMode, PortSpec, Protocol};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

fn port(host_ip: Option<&str>, published: (u16, u16), target: u16, protocol: Protocol) -> PortSpec {
    PortSpec { host_ip: host_ip.map(Into::into), published, target, protocol }
}

fn with_ports(lab: &Lab, name: &str, ports: Vec<PortSpec>) -> Container {
    let endpoint = EndpointSpec { network: "p_default".into(), ..EndpointSpec::default() };
    let network = NetworkMode::Bridge(vec![endpoint]);
    lab.container_with(ContainerSpec { name: name.into(), network, ports, ..ContainerSpec::default() })
}

async fn open(lab: &Lab) -> StackNetwork {
    lab.network("p_default");
    lab.open()
}

#[test]
fn a_port_refuses_until_something_listens_inside_and_again_afterwards() {
    run("a_port_refuses_until_something_listens_inside", |lab| async move {
        let network = open(&lab).await;
        let web = with_ports(&lab, "p-web-1", vec![port(None, (8080, 8080), 80, Protocol::Tcp)]);
        let has = web.connect(&network).await;
        assert_eq!(has.published.len(), 2, "both families: {has:?}");
        let refused = fetch(&lab.host, "127.0.0.1:8080").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let on_loopback = web.serve("127.0.0.1:80", "private");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(fetch(&lab.host, "127.0.0.1:8080").is_err(), "loopback inside is not published");
        drop(on_loopback);
        let service = web.serve("0.0.0.0:80", "hello");
        eventually("forwarded", || fetch(&lab.host, "127.0.0.1:8080").is_ok()).await;
        assert_eq!(fetch(&lab.host, "127.0.0.1:8080").unwrap(), "hello");
        assert_eq!(fetch(&lab.host, "[::1]:8080").unwrap(), "hello");
        drop(service);
        let refused = || {
            fetch(&lab.host, "127.0.0.1:8080")
                .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        eventually("refused again", refused).await;
        let _service = web.serve("0.0.0.0:80", "again");
        eventually("back", || fetch(&lab.host, "[::1]:8080").is_ok_and(|t| t == "again")).await;
        network.disconnect(&web.id).await;
        eventually("free", || lab.host.run_blocking(|| TcpListener::bind("0.0.0.0:8080")).is_ok()).await;
    });
}

#[test]
fn large_transfers_and_half_closed_connections() {
    run("large_transfers_and_half_closed_connections", |lab| async move {
        let network = open(&lab).await;
        let web = with_ports(&lab, "p-web-1", vec![port(Some("127.0.0.1"), (0, 0), 80, Protocol::Tcp)]);
        let has = web.connect(&network).await;
        assert_eq!(has.published.len(), 1);
        // The service answers only after the client has ended its side.
        let _service = web.serve("0.0.0.0:80", "got:");
        let address = format!("127.0.0.1:{}", has.published[0].host_port);
        eventually("forwarded", || fetch(&lab.host, &address).is_ok()).await;
        let big = vec![b'x'; 5_000_000];
        let answer = tokio::task::block_in_place(|| send_and_read(&lab.host, &address, &big)).unwrap();
        assert_eq!((answer.len(), &answer[..5]), (big.len() + 4, "got:x"));
    });
}

#[test]
fn udp_goes_both_ways_for_several_clients() {
    run("udp_goes_both_ways_for_several_clients", |lab| async move {
        let network = open(&lab).await;
        let web = with_ports(&lab, "p-dns-1", vec![port(None, (5300, 5300), 99, Protocol::Udp)]);
        web.connect(&network).await;
        let service = web.inside.run_blocking(|| UdpSocket::bind("0.0.0.0:99")).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = service.recv_from(&mut buffer) {
                buffer[..length].reverse();
                drop(service.send_to(&buffer[..length], from));
            }
        });
        for to in ["127.0.0.1:5300", "[::1]:5300"] {
            for text in ["abc", "xyz"] {
                let local = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let answer = lab.host.run_blocking(move || {
                    let client = UdpSocket::bind(local)?;
                    client.set_read_timeout(Some(crate::lab::PATIENCE))?;
                    client.connect(to)?;
                    client.send(text.as_bytes())?;
                    let mut buffer = [0; 64];
                    let length = client.recv(&mut buffer)?;
                    Ok(buffer[..length].to_vec())
                });
                let expected: Vec<u8> = text.bytes().rev().collect();
                assert_eq!(answer.unwrap(), expected, "{to}");
            }
        }
    });
}

#[test]
fn a_taken_port_names_its_holder_and_nothing_is_left() {
    run("a_taken_port_names_its_holder_and_nothing_is_left", |lab| async move {
        let network = open(&lab).await;
        let _other = lab.host.run_blocking(|| TcpListener::bind("0.0.0.0:8080")).unwrap();
        let wishes =
            vec![port(None, (8081, 8081), 80, Protocol::Tcp), port(None, (8080, 8080), 80, Protocol::Tcp)];
        let web = with_ports(&lab, "p-web-1", wishes);
        let error = network.connect(web.request()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PortTaken);
        let holder = format!("port 8080 is taken by pid {} (", std::process::id());
        assert!(error.message.starts_with(&holder), "{error}");
        lab.host.run_blocking(|| TcpListener::bind("0.0.0.0:8081")).expect("the other port is free again");
        let next = with_ports(&lab, "p-web-2", vec![port(None, (8080, 8082), 80, Protocol::Tcp)]);
        assert_eq!(next.connect(&network).await.published[0].host_port, 8081);
        assert!(network.remove_network("p_default").await.unwrap_err().message.contains("active endpoints"));
    });
}
