//! What runs at both ends in every situation: servers that answer and can be told to speak first, a client that answers
//! them, and the two ways to balance: Equipoise, and DNAT by the plain kernel.

use crate::world::{PATIENCE, Running, SERVICE, World, program, run};
use equipoise::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Port of the web service, and that of its servers.
pub const WEB: [u16; 2] = [80, 8080];
/// Port of the UDP service and of its servers.
pub const ECHO: u16 = 5353;
/// UDP port of a service whose servers do not listen there.
pub const CLOSED: u16 = 9;
/// TCP port of a service whose server does not exist.
pub const DEAD: u16 = 81;
/// The last address of the link to server1, which nobody has.
const NOBODY: [&str; 2] = ["10.99.1.77", "fd99:0:0:1::77"];
/// A TCP port in the range of the service "range", which servers use as a source port.
pub const IN_RANGE: u16 = 20_050;
/// The client's own port, TCP and UDP, for servers that speak first.
pub const CLIENTS_OWN: u16 = 9000;
/// What an answer begins with; it is never answered.
const ANSWER: &[u8] = b"answer ";
/// A datagram that begins with it is answered after 3 s.
pub const LATER: &[u8] = b"later ";

/// The network with its programs.
pub struct Network {
    pub world: World,
    /// The servers' UDP sockets at [`ECHO`], and how many answers each has got.
    pub echoes: Vec<(UdpSocket, Arc<AtomicUsize>)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Network {
    pub fn new(name: &str) -> Network {
        let world = World::new(name);
        let stop = Arc::<AtomicBool>::default();
        let mut threads = Vec::new();
        let mut echoes = Vec::new();
        for (n, server) in world.servers.iter().enumerate() {
            tcp(server, WEB[1], format!("server{}\n", n + 1), &stop, &mut threads);
            tcp(server, IN_RANGE - 1, "range\n".into(), &stop, &mut threads);
            echoes.push(udp(server, ECHO, &stop, &mut threads));
        }
        tcp(&world.client, CLIENTS_OWN, "client\n".into(), &stop, &mut threads);
        udp(&world.client, CLIENTS_OWN, &stop, &mut threads);
        Network { world, echoes, stop, threads }
    }

    /// Starts Equipoise in the gateway.
    pub fn equipoise(&self, more: &str) -> Running {
        let mut text = format!("[gateway]\ncontrol-socket = {:?}\n{more}\n", self.world.socket());
        let services = [
            ("web", format!(":{}/tcp", WEB[0]), Some(WEB[1]), false),
            ("echo", format!(":{ECHO}/udp"), None, false),
            ("range", ":20000-20099/tcp".into(), None, false),
            ("closed", format!(":{CLOSED}/udp"), None, false),
            ("ping", "/icmp".into(), None, false),
            ("dead", format!(":{DEAD}/tcp"), Some(WEB[1]), true),
        ];
        for (name, at, port, dead) in services {
            let [v4, v6] = SERVICE;
            text += &format!("[[service]]\nname = \"{name}\"\nlisten = [\"{v4}{at}\", ");
            text += &format!("\"[{v6}]{at}\"]\npool = \"{name}\"\n[[pool]]\nname = \"{name}\"\n");
            let port = port.map_or(String::new(), |port| format!("port = {port}\n"));
            for n in 1..=if dead { 1 } else { 3 } {
                let [a, b] = [0, 1].map(|family| match dead {
                    true => NOBODY[family].to_owned(),
                    false => World::server_address(n, family).to_string(),
                });
                text += &format!("[[pool.server]]\nname = \"server{n}\"\naddress = [\"{a}\", \"{b}\"]\n{port}");
            }
        }
        self.world.start(&text)
    }

    /// Lets the plain kernel translate to server1 instead.
    pub fn kernel(&self) {
        let mut rules = String::new();
        for (family, ip) in ["ip", "ip6"].into_iter().enumerate() {
            let server = World::server_address(1, family);
            let with_port =
                |address: &str, port| [format!("{address}:{port}"), format!("[{address}]:{port}")][family].clone();
            let [web, dead] = [&server.to_string(), NOBODY[family]].map(|address| with_port(address, WEB[1]));
            let icmp = ["icmp type echo-request", "icmpv6 type echo-request"][family];
            let to = format!("{ip} daddr {}", SERVICE[family]);
            rules += &format!(
                "table {ip} balancer {{\nchain balance {{\ntype nat hook prerouting priority dstnat\n\
                 {to} tcp dport {} dnat to {web}\n{to} tcp dport {DEAD} dnat to {dead}\n\
                 {to} udp dport {{ {ECHO}, {CLOSED} }} dnat to {server}\n\
                 {to} tcp dport 20000-20099 dnat to {server}\n{to} {icmp} dnat to {server}\n}}\n}}\n",
                WEB[0],
            );
        }
        self.nft(&rules);
    }

    /// Adds rules to the gateway's nftables.
    pub fn nft(&self, rules: &str) {
        self.nft_of(&self.world.gateway, rules);
    }

    /// Adds rules to the nftables of a namespace.
    pub fn nft_of(&self, namespace: &Namespace, rules: &str) {
        let file = self.world.dir.path().join("rules.nft");
        std::fs::write(&file, rules).unwrap();
        succeeded(&run(namespace.command(program("nft").to_str().unwrap()).arg("-f").arg(file)), rules);
    }

    /// Runs `ip` in the gateway.
    pub fn ip(&self, words: &str) {
        let mut command = self.world.gateway.command(program("ip").to_str().unwrap());
        succeeded(&run(command.args(words.split(' '))), words);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn succeeded(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves TCP on a port: sends `greeting` to whoever connects, then waits for the end.
fn tcp(at: &Namespace, port: u16, greeting: String, stop: &Arc<AtomicBool>, threads: &mut Vec<JoinHandle<()>>) {
    let listener = at.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let stop = Arc::clone(stop);
    threads.push(std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(greeting.as_bytes());
                let _ = stream.set_nonblocking(true);
                open.push(stream);
            }
            open.retain_mut(|stream| !matches!(stream.read(&mut [0; 64]), Ok(0)));
            std::thread::sleep(Duration::from_millis(2));
        }
    }));
}

/// Answers datagrams on a port. Returns its socket, to speak first with, and the number of answers that came.
fn udp(
    at: &Namespace,
    port: u16,
    stop: &Arc<AtomicBool>,
    threads: &mut Vec<JoinHandle<()>>,
) -> (UdpSocket, Arc<AtomicUsize>) {
    let socket = at.run(|| UdpSocket::bind(("::", port))).unwrap().unwrap();
    let answers = Arc::<AtomicUsize>::default();
    let (own, counted, stop) = (socket.try_clone().unwrap(), Arc::clone(&answers), Arc::clone(stop));
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    threads.push(std::thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while !stop.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut bytes) else { continue };
            if bytes.starts_with(ANSWER) {
                counted.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let answer = [ANSWER, &bytes[..len]].concat();
            if bytes.starts_with(LATER) {
                let socket = socket.try_clone().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_secs(3));
                    let _ = socket.send_to(&answer, from);
                });
            } else {
                let _ = socket.send_to(&answer, from);
            }
        }
    }));
    (own, answers)
}

/// Connects within the patience of a browser and returns the greeting.
pub fn greeting(to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut bytes = [0; 64];
    let len = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// Sends `bytes` up to three times and returns whether the answer came from where they were sent to.
pub fn answered(to: SocketAddr, bytes: &[u8], patience: Duration) -> std::io::Result<bool> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    let want = [ANSWER, bytes].concat();
    let mut got = vec![0; want.len() + 1];
    for _ in 0..3 {
        socket.send(bytes)?;
        match socket.recv(&mut got) {
            Ok(len) => return Ok(got[..len] == want),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Waits until the addresses of all namespaces can be used (duplicate address detection).
pub fn ready(network: &Network) {
    let began = std::time::Instant::now();
    let web = |n: usize, family| {
        let to = SocketAddr::new(World::server_address(n, family), WEB[1]);
        network.world.gateway.run(|| greeting(to, Duration::from_millis(500)).is_ok()).unwrap()
    };
    while !(1..=3).all(|n| web(n, 0) && web(n, 1)) {
        assert!(began.elapsed() < PATIENCE, "the servers are not reachable from the gateway");
        std::thread::sleep(Duration::from_millis(50));
    }
}
