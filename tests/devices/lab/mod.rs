//! A laboratory for fairness: kernel clients 100 ms away, a gateway of three kinds, a kernel server, and strangers who
//! fill the gateway's table or flood it.
//!
//! ```text
//!  client ----+                     gateway                          server (kernel)
//!  (kernel)   +-- delaying cable -- Equipoise, or nftables,   -----  web 8080/tcp, DNS 5353/udp
//!  strangers -+   (this process)    or the least NAT          -----  parrot (this process), 8081
//! ```
//!
//! Clients are measured at their own sockets. Packets are counted at both ends outside the gateway, so what it loses
//! is computed without asking it. It must not know anything inside the gateway.

pub mod cable;
pub mod clients;
pub mod established;
pub mod gateways;
pub mod least;
pub mod ledger;
pub mod packets;
pub mod scenario;
pub mod server;
pub mod strangers;

use crate::world::{program, run};
use cable::Cable;
use equipoise::gateway::netns::Namespace;
use equipoise::gateway::tun::Tun;
use ipnet::IpNet;
use ledger::Counts;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use strangers::{Parrot, Strangers};

/// The services' addresses, IPv4 first.
pub const SERVICE: [&str; 2] = ["192.0.2.80", "2001:db8:80::80"];
/// The measured client's addresses.
pub const CLIENT: [&str; 2] = ["198.51.100.2", "2001:db8:c::2"];
/// The kernel server's addresses.
pub const SERVER: [&str; 2] = ["10.99.1.2", "fd99:0:0:1::2"];
/// The parrot's addresses.
pub const PARROT: [&str; 2] = ["10.99.9.2", "fd99:0:0:9::2"];

/// TCP to the kernel server: port of the service, port of the server.
pub const WEB: [u16; 2] = [80, 8080];
/// UDP to the kernel server.
pub const DNS: [u16; 2] = [53, 5353];
/// TCP and UDP to the parrot.
pub const FILL: [u16; 2] = [8081, 8081];

/// What the cable delays packets of the client, each way.
const DELAY: Duration = Duration::from_millis(50);
/// Packets that a device of the lab queues: more than any burst here, so that the lab itself loses nothing.
const QUEUE: &str = "50000";

/// Threads that stop, and are waited for, when the value is dropped.
pub struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub fn new() -> Workers {
        Workers { stop: Arc::default(), threads: Vec::new() }
    }

    /// Starts a thread; `work` is to return soon after its argument has become true.
    pub fn start(&mut self, name: &str, work: impl FnOnce(&AtomicBool) + Send + 'static) {
        let stop = self.stop.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(&stop));
        self.threads.push(thread.expect("a thread"));
    }

    /// Stops the threads and waits for them; passes on a panic of theirs.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a thread of the lab panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

/// The network. The gateway's device towards clients is `client`, those towards servers are `server` and `parrot`.
pub struct Lab {
    pub client: Namespace,
    pub gateway: Namespace,
    pub server: Namespace,
    pub dir: tempfile::TempDir,
    pub counts: Arc<Counts>,
    /// The strangers' end: what is written here arrives at the gateway from the clients' side.
    pub outside: Arc<Tun>,
    pub strangers: Arc<Strangers>,
    pub parrot: Arc<Parrot>,
    _cable: Cable,
    _workers: Workers,
}

impl Lab {
    /// Creates the network without a gateway. `plain` disables offload on the gateway's link to the server, so that
    /// the server's kernel completes every checksum and its peer's checks them.
    pub fn new(name: &str, plain: bool) -> Lab {
        let namespace = |of: &str| {
            let made = Namespace::new(&format!("lab-{name}-{of}"));
            made.unwrap_or_else(|e| panic!("{e}\nthe lab needs root; or: unshare --user --map-root-user COMMAND"))
        };
        let [client, gateway, server] = ["client", "gateway", "server"].map(namespace);
        gateway.forward().unwrap();
        for conf in ["all", "default"] {
            gateway.sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "0").unwrap();
        }
        // A server that runs out of half-open connections must not be what is measured.
        server.sysctl("net/ipv4/tcp_syncookies", "2").unwrap();
        cable_to_server(&gateway, &server, plain);
        let far = device(&client, "eth0", CLIENT);
        let outside = Arc::new(device(&gateway, "client", ["198.51.100.1", "2001:db8:c::1"]));
        for namespace in [(&client, "eth0"), (&gateway, "client")] {
            for any in ["0.0.0.0/0", "::/0"] {
                namespace.0.route(any.parse().unwrap(), namespace.1, None).unwrap();
            }
        }
        let behind = device(&gateway, "parrot", ["10.99.9.1", "fd99:0:0:9::1"]);
        let counts = Arc::new(Counts::default());
        let strangers = Arc::new(Strangers::default());
        let parrot = Arc::new(Parrot::default());
        let mut workers = Workers::new();
        server::start(&server, &mut workers);
        strangers::start_parrot(behind, parrot.clone(), counts.clone(), &mut workers);
        let cable = Cable::new(far, outside.clone(), DELAY, counts.clone(), strangers.clone());
        ledger::count_at(&server);
        let dir = tempfile::tempdir().unwrap();
        Lab { client, gateway, server, dir, counts, outside, strangers, parrot, _cable: cable, _workers: workers }
    }

    /// Runs a program in the gateway; panics if it fails.
    pub fn at_gateway(&self, words: &str) -> String {
        at(&self.gateway, words)
    }
}

/// Runs a program in a namespace and returns what it prints; panics if it fails.
pub fn at(namespace: &Namespace, words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut command = namespace.command(program(words[0]).to_str().unwrap());
    let output = run(command.args(&words[1..]).stdin(Stdio::null()));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Loads an nftables ruleset into a namespace.
pub fn nft(namespace: &Namespace, dir: &std::path::Path, ruleset: &str) {
    let file = dir.join("rules.nft");
    std::fs::write(&file, ruleset).unwrap();
    at(namespace, &format!("nft -f {}", file.display()));
}

/// Makes a TUN device with an address of each family, in networks of the usual sizes.
fn device(namespace: &Namespace, name: &str, addresses: [&str; 2]) -> Tun {
    let tun = namespace.run(|| Tun::open_plain(name)).unwrap().unwrap_or_else(|e| panic!("{e}"));
    at(namespace, &format!("ip link set {name} txqueuelen {QUEUE}"));
    namespace.up(name).unwrap();
    for address in addresses {
        namespace.address(name, network(address)).unwrap();
    }
    tun
}

fn network(address: &str) -> IpNet {
    let address: IpAddr = address.parse().unwrap();
    IpNet::new(address, if address.is_ipv4() { 24 } else { 64 }).unwrap()
}

fn cable_to_server(gateway: &Namespace, server: &Namespace, plain: bool) {
    gateway.cable("server", server, "eth0").unwrap();
    for (own, theirs) in ["10.99.1.1", "fd99:0:0:1::1"].into_iter().zip(SERVER) {
        gateway.address("server", network(own)).unwrap();
        server.address("eth0", network(theirs)).unwrap();
        server.default_route("eth0", own.parse().unwrap()).unwrap();
    }
    if plain {
        for (namespace, device) in [(gateway, "server"), (server, "eth0")] {
            at(namespace, &format!("ethtool -K {device} tx off tso off gso off gro off"));
        }
    }
}
