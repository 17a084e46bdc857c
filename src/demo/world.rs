//! The demo's network: a client, a gateway and servers as namespaces, connected by veth pairs, in both families.

use super::options::DemoError;
use crate::gateway::netns::{Namespace, NetnsError};
use crate::gateway::setup;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Where clients connect to, IPv4 first; documentation addresses (RFC 5737, RFC 3849).
pub(super) const SERVICE: [&str; 2] = ["192.0.2.10:80", "[2001:db8:a::10]:80"];
/// The servers' port.
pub(super) const SERVER_PORT: u16 = 8080;
/// The interval between probes of a server.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);
/// How long a probe waits for its reply.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// Consecutive failures that take a server out.
pub(super) const FALL: u32 = 3;
/// Consecutive successes that bring it back.
pub(super) const RISE: u32 = 2;
/// How long a server's weight takes to rise after it is back.
pub(super) const SLOW_START: Duration = Duration::from_secs(3);
/// The path that the monitors request.
pub(super) const HEALTH: &str = "/health";
/// The source addresses of probes.
const PROBES: [&str; 2] = ["192.0.2.1", "2001:db8:a::1"];
/// The gateway's device.
const DEVICE: &str = "equipoise0";

/// The namespaces; dropping it removes the network.
pub(super) struct World {
    pub client: Namespace,
    pub gateway: Namespace,
    pub servers: Vec<Namespace>,
}

impl World {
    /// Creates the network with this many servers, `server1` and so on.
    pub(super) fn new(servers: usize) -> Result<World, DemoError> {
        Self::build(servers).map_err(|e| DemoError::new("the demo cannot make its network", e))
    }

    fn build(servers: usize) -> Result<World, NetnsError> {
        let gateway = Namespace::new("gateway")?;
        gateway.forward()?;
        // A namespace can inherit the strict check from the machine; the servers' networks have only one path anyway.
        for conf in ["all", "default"] {
            gateway.sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "0")?;
        }
        let client = Namespace::new("client")?;
        join(&gateway, "client", &client, ["198.51.100", "2001:db8:c"])?;
        let mut all = Vec::with_capacity(servers);
        for number in 1..=servers {
            let name = format!("server{number}");
            let server = Namespace::new(&name)?;
            join(&gateway, &name, &server, [&format!("10.99.{number}"), &format!("fd99:0:0:{number}")])?;
            all.push(server);
        }
        Ok(World { client, gateway, servers: all })
    }

    /// Draws the network.
    pub(super) fn describe(&self) -> String {
        let [v4, v6] = SERVICE;
        let mut text = format!("{:<19}{:<32}servers\n", "client", "gateway");
        for (number, server) in (1..).zip(&self.servers) {
            let left = match number {
                1 => format!("{:<14}---- {:<27}", "198.51.100.2", format!("service {v4}")),
                2 => format!("{:<14}     {:<27}", "2001:db8:c::2", format!("service {v6}")),
                _ => " ".repeat(46),
            };
            let _ = writeln!(
                text,
                "{left}---- {} 10.99.{number}.2, fd99:0:0:{number}::2, port {SERVER_PORT}",
                server.label()
            );
        }
        text.trim_end().to_owned()
    }

    /// Lists commands for using the network from another terminal.
    pub(super) fn commands(&self, socket: &Path) -> String {
        let user = std::process::id();
        let user = match in_user_namespace() {
            true => format!("--user=/proc/{user}/ns/user --preserve-credentials "),
            false => String::new(),
        };
        let enter = format!("nsenter {user}--net={}", self.client.path().display());
        let [v4, v6] = SERVICE;
        let (v4, v6) = (v4.trim_end_matches(":80"), v6.trim_end_matches(":80"));
        format!(
            "Use it from another terminal; Ctrl-C here ends it.\n\n    {enter} curl http://{v4}/\n    \
             {enter} curl -g 'http://{v6}/'\n    eqctl --socket {socket} flows\n    eqctl --socket {socket} counters\n\n",
            socket = socket.display()
        )
    }

    /// Checks that the gateway, which has stopped, removed everything that it had installed.
    pub(super) fn check_gateway_is_clean(&self) -> Result<(), DemoError> {
        let fail = |why: String| Err(DemoError::new("the gateway has stopped and left something behind", why));
        let explain = |e| DemoError::new("checking what the gateway left behind", e);
        let marked = self.gateway.marked(setup::PROTOCOL).map_err(explain)?;
        if marked > 0 {
            return fail(format!("{marked} routes or rules (protocol {})", setup::PROTOCOL));
        }
        if self.gateway.devices().map_err(explain)?.iter().any(|name| name == DEVICE) {
            return fail(format!("the device {DEVICE}"));
        }
        Ok(())
    }
}

/// Connects another namespace to the gateway: the gateway is .1 and ::1 on the link, the other .2 and ::2.
fn join(gateway: &Namespace, device: &str, other: &Namespace, [v4, v6]: [&str; 2]) -> Result<(), NetnsError> {
    let net = |text: String| text.parse().map_err(|_| text).expect("the demo's own networks are valid");
    let hop = |text: String| text.parse::<IpAddr>().expect("the demo's own addresses are valid");
    gateway.cable(device, other, "eth0")?;
    gateway.address(device, net(format!("{v4}.1/24")))?;
    gateway.address(device, net(format!("{v6}::1/64")))?;
    other.address("eth0", net(format!("{v4}.2/24")))?;
    other.address("eth0", net(format!("{v6}::2/64")))?;
    other.default_route("eth0", hop(format!("{v4}.1")))?;
    other.default_route("eth0", hop(format!("{v6}::1")))
}

fn in_user_namespace() -> bool {
    // The initial user namespace maps every ID to itself.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// Returns the service's addresses.
pub(super) fn service_addresses() -> [SocketAddr; 2] {
    SERVICE.map(|text| text.parse().expect("the demo's own addresses are valid"))
}

/// Returns the gateway's configuration.
pub(super) fn configuration(weights: &[u16], socket: &Path) -> String {
    let ([v4, v6], [probe4, probe6]) = (SERVICE, PROBES);
    let mut text = format!(
        "[gateway]\ndevice = \"{DEVICE}\"\ncontrol-socket = {:?}\nprobe-address = [\"{probe4}\", \"{probe6}\"]\n\n\
         [flows]\nmax = 65536\n\n\
         [[service]]\nname = \"web\"\nlisten = [\"{v4}/tcp\", \"{v6}/tcp\"]\npool = \"servers\"\n\n\
         [[pool]]\nname = \"servers\"\nslow-start = \"{}s\"\n\n\
         [[pool.monitor]]\nname = \"http\"\ntype = \"http\"\npath = \"{HEALTH}\"\n\
         interval = \"{}ms\"\ntimeout = \"{}ms\"\nfall = {FALL}\nrise = {RISE}\n",
        socket.display().to_string(),
        SLOW_START.as_secs(),
        INTERVAL.as_millis(),
        TIMEOUT.as_millis(),
    );
    for (number, weight) in (1..).zip(weights) {
        let _ = write!(
            text,
            "\n[[pool.server]]\nname = \"server{number}\"\naddress = [\"10.99.{number}.2\", \"fd99:0:0:{number}::2\"]\n\
             port = {SERVER_PORT}\nweight = {weight}\n"
        );
    }
    text
}
