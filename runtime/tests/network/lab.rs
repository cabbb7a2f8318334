//! Namespaces, containers without programs, and a resolver of our own.

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use stack_runtime::home::Home;
use stack_runtime::network::link::LinkPlan;
use stack_runtime::network::{
    ConnectRequest, Connected, Host, NetworkRecord, StackNetwork, create_record, link,
};
use stack_runtime::spec::{ContainerSpec, EndpointSpec, NetworkMode, NetworkSpec, PoolSpec};
use stack_runtime::sys::netns::{self, Worker};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `false`, said aloud, without root.
pub(crate) fn privileged(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("STACK_TEST_PRIVILEGED").is_none(), "{test} needs root");
    eprintln!("SKIPPED {test}: needs root");
    false
}

/// Runs an async test, or says that it is skipped.
pub(crate) fn run<F: Future<Output = ()>>(test: &str, body: impl FnOnce(Lab) -> F) {
    if !privileged(test) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { body(Lab::new()).await });
}

/// One private world.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) home: Home,
    pub(crate) host: Arc<Worker>,
    stack_netns: OwnedFd,
}

/// The rest of the world: a namespace behind the private host's default route.
pub(crate) struct World {
    pub(crate) inside: Worker,
}

pub(crate) const WORLD: &str = "203.0.113.1";
pub(crate) const HOST: &str = "203.0.113.2";

/// A namespace that plays a container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) spec: ContainerSpec,
    pub(crate) dir: PathBuf,
    pub(crate) netns: Arc<OwnedFd>,
    /// Runs the container's "programs".
    pub(crate) inside: Worker,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { data: dir.path().join("data"), run: dir.path().join("run") };
        home.prepare().unwrap();
        std::fs::create_dir_all(home.run_of("p")).unwrap();
        let netns = Arc::new(netns::create().unwrap());
        let host = Arc::new(Worker::start("lab-host", netns.clone()).unwrap());
        let own = netns.clone();
        host.run_blocking(move || link::loopback(&own)).unwrap();
        std::fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\nsearch lab.test\n").unwrap();
        std::fs::write(dir.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
        Self { dir, home, host, stack_netns: netns::create().unwrap() }
    }

    /// What the library takes for the world outside.
    pub(crate) fn outside(&self) -> Host {
        Host {
            netns: self.host.home().try_clone().unwrap(),
            resolv_conf: self.dir.path().join("resolv.conf"),
            hosts: self.dir.path().join("hosts"),
        }
    }

    /// The stack's network; opened a second time it is another supervisor's.
    pub(crate) fn open(&self) -> StackNetwork {
        StackNetwork::open(&self.home, "p", self.stack_netns.try_clone().unwrap(), self.outside()).unwrap()
    }

    pub(crate) fn stack_worker(&self) -> Worker {
        Worker::start("lab-stack", Arc::new(self.stack_netns.try_clone().unwrap())).unwrap()
    }

    pub(crate) fn network(&self, name: &str) -> NetworkRecord {
        create_record(&self.home, "p", &NetworkSpec { name: name.into(), ..NetworkSpec::default() }).unwrap()
    }

    pub(crate) fn network_with(&self, spec: NetworkSpec) -> NetworkRecord {
        create_record(&self.home, "p", &spec).unwrap()
    }

    /// A container on these networks whose names are its own and `aliases`.
    pub(crate) fn container(&self, name: &str, networks: &[&str], aliases: &[&str]) -> Container {
        let endpoint = |network: &&str| EndpointSpec {
            network: (*network).into(),
            aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
            ..EndpointSpec::default()
        };
        let network = NetworkMode::Bridge(networks.iter().map(endpoint).collect());
        self.container_with(ContainerSpec { name: name.into(), network, ..ContainerSpec::default() })
    }

    pub(crate) fn container_with(&self, spec: ContainerSpec) -> Container {
        let id = format!("{:016x}{:048x}", getrandom::u64().unwrap(), 0);
        let dir = self.home.container("p", &id);
        std::fs::create_dir_all(&dir).unwrap();
        let netns = Arc::new(netns::create().unwrap());
        let inside = Worker::start("lab-container", netns.clone()).unwrap();
        Container { id, spec, dir, netns, inside }
    }

    /// Gives the private host an interface, a default route and somebody behind it.
    pub(crate) fn world(&self) -> World {
        let netns = Arc::new(netns::create().unwrap());
        let inside = Worker::start("lab-world", netns.clone()).unwrap();
        let address = |text: &str| (text.parse().unwrap(), 24);
        let plan = LinkPlan {
            host_link: "tohost".into(),
            bridge: "world".into(),
            interface: "eth0".into(),
            mac: [2, 0, 0, 0, 0, 2],
            addresses: vec![address(HOST)],
            mtu: None,
        };
        let (gateway, host) = (address(WORLD), self.host.home().clone());
        let made = inside.run_blocking(move || {
            link::loopback(&netns)?;
            link::ensure_bridge("world", [2, 0, 0, 0, 0, 1], &[gateway], None)?;
            link::attach(&host, &[plan], &[gateway.0])
        });
        made.unwrap();
        World { inside }
    }

    /// A server of names in the private host: `example.test` is 192.0.2.80, the rest unknown.
    pub(crate) fn serve_names(&self) {
        let bind = || Ok((UdpSocket::bind("127.0.0.1:53")?, std::net::TcpListener::bind("127.0.0.1:53")?));
        let (udp, tcp) = self.host.run_blocking(bind).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                udp.send_to(&upstream_answer(&buffer[..length], true), from).unwrap();
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let query = read_framed(&mut stream).unwrap();
                write_framed(&mut stream, &upstream_answer(&query, false)).unwrap();
            }
        });
    }
}

impl Container {
    pub(crate) fn request(&self) -> ConnectRequest<'_> {
        ConnectRequest {
            id: &self.id,
            spec: &self.spec,
            netns: self.netns.try_clone().unwrap(),
            dir: &self.dir,
        }
    }

    pub(crate) async fn connect(&self, network: &StackNetwork) -> Connected {
        network.connect(self.request()).await.unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    /// Addresses a name has as seen from here, sorted; the code when there are none.
    pub(crate) fn resolve(&self, name: &str) -> Result<Vec<String>, String> {
        let answer = self.ask(name, TYPE::A).unwrap();
        let packet = Packet::parse(&answer).unwrap();
        let address = |r: &ResourceRecord<'_>| match &r.rdata {
            RData::A(a) => Some(Ipv4Addr::from_bits(a.address).to_string()),
            _ => None,
        };
        let mut found: Vec<String> = packet.answers.iter().filter_map(address).collect();
        found.sort();
        if found.is_empty() { Err(format!("{:?}", packet.rcode())) } else { Ok(found) }
    }

    pub(crate) fn ask(&self, name: &str, kind: TYPE) -> io::Result<Vec<u8>> {
        let query = query(name, kind);
        self.inside.run_blocking(move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(&query, "127.0.0.11:53")?;
            let mut buffer = vec![0; 65_535];
            let (length, _) = socket.recv_from(&mut buffer)?;
            buffer.truncate(length);
            Ok(buffer)
        })
    }

    pub(crate) fn ask_by_tcp(&self, name: &str) -> Vec<u8> {
        let query = query(name, TYPE::A);
        let asked = self.inside.run_blocking(move || {
            let mut stream = std::net::TcpStream::connect("127.0.0.11:53")?;
            write_framed(&mut stream, &query)?;
            read_framed(&mut stream)
        });
        asked.unwrap()
    }

    /// A service inside that answers every connection with its name and closes.
    pub(crate) fn serve(&self, address: &str, says: &str) -> Service {
        serve(&self.inside, address, says)
    }

    /// One connection from inside; what the service said.
    pub(crate) fn fetch(&self, address: &str) -> io::Result<String> {
        fetch(&self.inside, address)
    }
}

/// A TCP service of the lab; it stops listening with the value.
pub(crate) struct Service {
    listener: std::net::TcpListener,
}

impl Service {
    fn start(listener: std::net::TcpListener, says: &str) -> Self {
        let (accepting, says) = (listener.try_clone().unwrap(), says.to_owned());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let says = says.clone();
                std::thread::spawn(move || {
                    use std::io::{Read, Write};
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut asked = Vec::new();
                    if stream.read_to_end(&mut asked).is_ok() {
                        drop(stream.write_all(says.as_bytes()).and_then(|()| stream.write_all(&asked)));
                    }
                });
            }
        });
        Self { listener }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Wakes the accepting thread, which holds another descriptor of the socket.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Read).unwrap();
    }
}

/// A service in a worker's namespace.
pub(crate) fn serve(inside: &Worker, address: &str, says: &str) -> Service {
    let address: SocketAddr = address.parse().unwrap();
    let listener = inside.run_blocking(move || std::net::TcpListener::bind(address)).unwrap();
    Service::start(listener, says)
}

/// A service that sends every byte back as it comes. Unlike [`serve`] it does not wait
/// for the client's end, which `pasta` of 2023 does not pass on.
pub(crate) fn echo(inside: &Worker, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = inside.run_blocking(move || std::net::TcpListener::bind(address)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut from, mut to) = (stream.as_ref().unwrap().try_clone().unwrap(), stream.unwrap());
            std::thread::spawn(move || drop(io::copy(&mut from, &mut to)));
        }
    });
}

/// Sends bytes to an [`echo`] and reads as many; `true` when they are the same.
pub(crate) fn is_echoed(from: &Worker, address: &str, length: usize) -> io::Result<bool> {
    use std::io::{Read, Write};
    let address: SocketAddr = address.parse().unwrap();
    from.run_blocking(move || {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut writer, sent) = (stream.try_clone()?, bytes.clone());
        let sending = std::thread::spawn(move || writer.write_all(&sent));
        let mut back = vec![0; length];
        stream.read_exact(&mut back)?;
        sending.join().unwrap()?;
        Ok(back == bytes)
    })
}

/// Connects from a worker's namespace, says nothing, and reads to the end.
pub(crate) fn fetch(from: &Worker, address: &str) -> io::Result<String> {
    send_and_read(from, address, b"")
}

pub(crate) fn send_and_read(from: &Worker, address: &str, bytes: &[u8]) -> io::Result<String> {
    use std::io::{Read, Write};
    let (address, bytes): (SocketAddr, Vec<u8>) = (address.parse().unwrap(), bytes.to_vec());
    from.run_blocking(move || {
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut writer = stream.try_clone()?;
        let sending = std::thread::spawn(move || {
            writer.write_all(&bytes)?;
            writer.shutdown(std::net::Shutdown::Write)
        });
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        sending.join().unwrap()?;
        Ok(text)
    })
}

/// Polls until it is so.
pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(4711);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(name).unwrap(),
        QTYPE::TYPE(kind),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.build_bytes_vec().unwrap()
}

fn upstream_answer(query: &[u8], over_udp: bool) -> Vec<u8> {
    let packet = Packet::parse(query).unwrap();
    let name = packet.questions[0].qname.to_string();
    let mut reply = Packet::new_reply(packet.id());
    reply.questions = packet.questions.clone();
    if name == "big.test" && over_udp {
        reply.set_flags(PacketFlag::TRUNCATION);
    } else if name == "example.test" || name == "big.test" {
        let data = RData::A(A { address: Ipv4Addr::new(192, 0, 2, 80).to_bits() });
        reply.answers.push(ResourceRecord::new(packet.questions[0].qname.clone(), CLASS::IN, 5, data));
    } else {
        *reply.rcode_mut() = RCODE::NameError;
    }
    reply.build_bytes_vec().unwrap()
}

fn read_framed(stream: &mut std::net::TcpStream) -> io::Result<Vec<u8>> {
    use std::io::Read;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write_framed(stream: &mut std::net::TcpStream, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes())?;
    stream.write_all(bytes)
}

/// A network with a subnet of the user's.
pub(crate) fn configured(name: &str, subnet: &str) -> NetworkSpec {
    let pool = PoolSpec { subnet: Some(subnet.into()), ..PoolSpec::default() };
    NetworkSpec { name: name.into(), pools: vec![pool], ..NetworkSpec::default() }
}
