//! A network of namespaces with real programs in it: client, gateway, three servers, and the built `equipoise` in the
//! gateway. Everything ends with the values here, also if a test panics.

use crate::Service;
use equipoise::control::{SourceRow, Status, Totals};
use equipoise::engine::{FlowRow, HistoryRow, MonitorRow, RuleRow, ServerRow};
use equipoise::gateway::netns::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The services' addresses (documentation: RFC 5737, RFC 3849), IPv4 first.
pub const SERVICE: [&str; 2] = ["192.0.2.80", "2001:db8:80::80"];
/// The client's addresses.
pub const CLIENT: [&str; 2] = ["198.51.100.2", "2001:db8:c::2"];
/// The source addresses of the gateway's probes.
pub const PROBES: [&str; 2] = ["192.0.2.1", "2001:db8:80::1"];
/// How long anything may take to start or stop on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A program that runs alongside the test.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Running {
        command.stdin(Stdio::null());
        Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub fn terminate(self) -> ExitStatus {
        self.end_with(Signal::TERM)
    }

    /// Sends a signal and waits for the program to end.
    pub fn end_with(mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        self.wait(&format!("its end after {signal:?}"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Returns its process ID.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    pub fn wait(&mut self, what: &str) -> ExitStatus {
        let mut status = None;
        eventually(what, || {
            status = self.ended();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sets a flag when it goes: threads of a scope that run until then are waited for also if the test panics, and would be forever.
pub struct Stopping<'a>(pub &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until `done` holds, or panics.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `ip` in a namespace.
pub fn ip(at: &Namespace, words: &str) {
    let output = run(at.command(program("ip").to_str().unwrap()).args(words.split(' ')));
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a program's path; panics with the name of its package if it is missing.
pub fn program(name: &str) -> PathBuf {
    let package = match name {
        "nft" => "nftables",
        "chronyd" => "chrony",
        "dig" => "bind9-dnsutils",
        "dnsmasq" => "dnsmasq-base",
        "bird" | "birdc" => "bird2",
        "nginx" => "nginx-light",
        "ip" | "ss" => "iproute2",
        "ping" => "iputils-ping",
        "promtool" => "prometheus",
        "nsenter" | "prlimit" | "setpriv" | "unshare" => "util-linux",
        "script" => "bsdutils",
        other => other,
    };
    // The last one is where tools/test unpacks what it must not install.
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", concat!(env!("CARGO_MANIFEST_DIR"), "/target/debian/usr/sbin")]
        .iter()
        .map(|dir| PathBuf::from(dir).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("the program {name} is missing: apt-get install {package}"))
}

/// A test's own lines for the tables of a configuration with one service.
#[derive(Debug, Default, Clone, Copy)]
pub struct Lines<'a> {
    /// For `[[service]]`.
    pub service: &'a str,
    /// For `[[pool]]`.
    pub pool: &'a str,
    /// At the end: monitors and rules.
    pub rest: &'a str,
}

/// The network. Server `n` (from 1) has 10.99.n.2 and fd99:0:0:n::2.
pub struct World {
    pub client: Namespace,
    pub gateway: Namespace,
    pub servers: Vec<Namespace>,
    pub dir: tempfile::TempDir,
}

impl World {
    /// Creates it; `test` must differ between tests.
    pub fn new(test: &str) -> World {
        let namespace = |name: &str| {
            let label = format!("dev-{test}-{name}");
            Namespace::new(&label).unwrap_or_else(|e| {
                panic!("{e}\nthe device tests need root; or: unshare --user --map-root-user cargo test --test devices")
            })
        };
        let gateway = namespace("gateway");
        gateway.forward().unwrap();
        for conf in ["all", "default"] {
            gateway.sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "0").unwrap();
        }
        let client = namespace("client");
        join(&gateway, "client", &client, ["198.51.100", "2001:db8:c"]);
        let servers = (1..=3)
            .map(|n| {
                let server = namespace(&format!("server{n}"));
                join(&gateway, &format!("server{n}"), &server, [&format!("10.99.{n}"), &format!("fd99:0:0:{n}")]);
                // Otherwise the kernel suppresses ICMP errors when several are due within a second.
                for limit in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
                    server.sysctl(limit, "0").unwrap();
                }
                server
            })
            .collect();
        World { client, gateway, servers, dir: tempfile::tempdir().unwrap() }
    }

    pub fn server_address(n: usize, family: usize) -> IpAddr {
        [format!("10.99.{n}.2"), format!("fd99:0:0:{n}::2")][family].parse().unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// A configuration with a service for each (name, port and protocol, as in "80/tcp"; servers; their port), both
    /// families.
    pub fn configuration(&self, gateway: &str, services: &[(&str, &str, usize, u16)]) -> String {
        let mut text = format!("[gateway]\ncontrol-socket = {:?}\n{gateway}\n[flows]\nmax = 4096\n", self.socket());
        for service in services {
            text += &Self::tables(service, Lines::default());
        }
        text
    }

    /// A configuration with one service whose servers can be probed, and with the test's own lines.
    pub fn probing(&self, service: Service, lines: Lines<'_>) -> String {
        let [v4, v6] = PROBES;
        self.configuration(&format!("probe-address = [\"{v4}\", \"{v6}\"]"), &[])
            + &Self::tables(&service, lines)
            + lines.rest
    }

    fn tables((name, at, servers, port): &(&str, &str, usize, u16), lines: Lines<'_>) -> String {
        let [v4, v6] = SERVICE;
        let at = if at.starts_with("icmp") { "/icmp".to_owned() } else { format!(":{at}") };
        let Lines { service, pool, .. } = lines;
        let mut text = format!(
            "[[service]]\nname = \"{name}\"\nlisten = [\"{v4}{at}\", \"[{v6}]{at}\"]\npool = \"{name}\"\n{service}\n\
             [[pool]]\nname = \"{name}\"\n{pool}\n"
        );
        for n in 1..=*servers {
            let [a, b] = [Self::server_address(n, 0), Self::server_address(n, 1)];
            text += &format!("[[pool.server]]\nname = \"server{n}\"\naddress = [\"{a}\", \"{b}\"]\n");
            if *port != 0 {
                text += &format!("port = {port}\n");
            }
        }
        text
    }

    /// Returns the path of the last configuration that a gateway was started with.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("equipoise.toml")
    }

    pub fn equipoise(&self, configuration: &str, wrap: &[&str]) -> Command {
        let file = self.file();
        std::fs::write(&file, configuration).unwrap();
        let mut words = wrap.to_vec();
        words.push(env!("CARGO_BIN_EXE_equipoise"));
        let mut command = self.gateway.command(words[0]);
        command.args(&words[1..]).arg("run").arg("--config").arg(file).env_remove("RUST_LOG");
        command
    }

    /// Starts the gateway and waits until it responds.
    pub fn start(&self, configuration: &str) -> Running {
        self.start_by(configuration, &[])
    }

    /// The same, through another program that becomes the gateway.
    pub fn start_by(&self, configuration: &str, wrap: &[&str]) -> Running {
        let path = self.dir.path().join("stderr");
        let mut command = self.equipoise(configuration, wrap);
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(File::create(&path).unwrap()));
        eventually("the gateway's control socket", || {
            let said = || std::fs::read_to_string(&path).unwrap_or_default();
            if let Some(status) = running.ended() {
                panic!("the gateway ended: {status}\n{}", said());
            }
            self.eqctl_raw(&["status"]).status.success()
        });
        running
    }

    /// Starts a gateway that must fail; returns its exit code and its message.
    pub fn start_in_vain(&self, configuration: &str, wrap: &[&str]) -> (Option<i32>, String) {
        let output = run(self.equipoise(configuration, wrap).stdin(Stdio::null()));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// The same with further options.
    pub fn start_in_vain_with(&self, configuration: &str, options: &[&str]) -> (Option<i32>, String) {
        let output = run(self.equipoise(configuration, &[]).args(options).stdin(Stdio::null()));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// Runs `eqctl` as an operator would.
    pub fn eqctl_raw(&self, args: &[&str]) -> Output {
        run(&mut self.eqctl_command(args))
    }

    /// What a command of `eqctl` says, and its exit code.
    pub fn said(&self, words: &str) -> (String, Option<i32>) {
        let output = self.eqctl_raw(&words.split(' ').collect::<Vec<_>>());
        (String::from_utf8([output.stdout, output.stderr].concat()).unwrap(), output.status.code())
    }

    /// What `eqctl status` says of a gateway of which nothing needs attention.
    pub fn status(&self) -> Status {
        let output = self.eqctl_raw(&["status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A socket in the namespace of the client, or of a server from 1.
    pub fn udp_socket(&self, server: Option<usize>, address: IpAddr, port: u16) -> UdpSocket {
        let namespace = server.map_or(&self.client, |n| &self.servers[n - 1]);
        let socket = namespace.run(|| UdpSocket::bind((address, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// `eqctl` with the socket of the gateway, to be started.
    pub fn eqctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eqctl"));
        command.arg("--socket").arg(self.socket()).args(args);
        command
    }

    fn eqctl<T: DeserializeOwned>(&self, args: &[&str]) -> Vec<T> {
        let output = self.eqctl_raw(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "eqctl {args:?}: {}\n{stderr}", output.status);
        let stdout = String::from_utf8(output.stdout).unwrap();
        stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
    }

    /// Returns what `eqctl flows --json` shows, with filters.
    pub fn flows(&self, filters: &[&str]) -> Vec<FlowRow> {
        self.eqctl(&[&["flows", "--json"], filters].concat())
    }

    /// Returns what `eqctl servers --json` shows.
    pub fn server_rows(&self) -> Vec<ServerRow> {
        self.eqctl(&["servers", "--json"])
    }

    /// Returns a server's row.
    pub fn server_row(&self, n: usize) -> ServerRow {
        let name = format!("server{n}");
        self.server_rows().into_iter().find(|row| row.server == name).expect("a row a server")
    }

    /// Returns what `eqctl monitors --json` shows.
    pub fn monitors(&self) -> Vec<MonitorRow> {
        self.eqctl(&["monitors", "--json"])
    }

    /// Returns what `eqctl history --json` shows for a server.
    pub fn history(&self, n: usize) -> Vec<HistoryRow> {
        let name = format!("server{n}");
        // What operators did is listed too.
        let rows = self.eqctl::<serde_json::Value>(&["history", "--json"]).into_iter();
        let of_monitors = rows.filter(|row| row["server"].is_string());
        let rows = of_monitors.map(|row| serde_json::from_value::<HistoryRow>(row).unwrap());
        rows.filter(|row| row.server == name).collect()
    }

    /// Returns what `eqctl rules --json` shows.
    pub fn rules(&self) -> Vec<RuleRow> {
        self.eqctl(&["rules", "--json"])
    }

    /// Returns what `eqctl sources --json` shows.
    pub fn sources(&self) -> Vec<SourceRow> {
        self.eqctl(&["sources", "--json"])
    }

    /// Changes something through `eqctl`.
    pub fn change(&self, words: &str) {
        let output = self.eqctl_raw(&words.split_whitespace().collect::<Vec<_>>());
        assert!(output.status.success(), "eqctl {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns what the gateway has logged. Its lines are written by a thread of its own: wait until none follows.
    pub fn log(&self) -> String {
        let read = || std::fs::read_to_string(self.dir.path().join("stderr")).unwrap();
        let mut log = read();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let before = std::mem::replace(&mut log, read());
            if before == log {
                return log;
            }
        }
    }

    /// Returns what `eqctl counters --json` shows; it must add up at any time.
    pub fn totals(&self) -> Totals {
        let totals = self.eqctl::<Totals>(&["counters", "--json"]).pop().expect("one row");
        let engine = &totals.engine;
        let consumed: u64 = engine.consumed.iter().map(|c| c.count).sum();
        let dropped: u64 = engine.dropped.iter().map(|c| c.count).sum();
        assert_eq!(engine.packets_in, engine.translated + engine.foreign + consumed + dropped, "{engine:?}");
        totals
    }

    /// Waits until something accepts connections.
    pub fn reachable(&self, from: &Namespace, address: IpAddr, port: u16) {
        eventually(&format!("{address} port {port} to listen"), || {
            from.run(|| std::net::TcpStream::connect((address, port)).is_ok()).unwrap()
        });
    }

    /// Waits until a server listens on a TCP port, without connecting: iperf3 takes each connection for a test.
    pub fn listening(&self, server: usize, port: u16) {
        eventually(&format!("server{server} to listen on port {port}"), || {
            !self.sockets(server, &["-l", &format!("sport = :{port}")]).is_empty()
        });
    }

    /// Returns a server's TCP sockets, one per line, as its own kernel shows them.
    pub fn sockets(&self, server: usize, which: &[&str]) -> String {
        let mut ss = self.servers[server - 1].command(program("ss").to_str().unwrap());
        let output = run(ss.arg("-Htn").args(which));
        assert!(output.status.success(), "ss {which:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns a curl on the client, ready to be started.
    pub fn curl(&self, family: usize, path: &str) -> Command {
        self.curl_at(&[SERVICE[0].to_owned(), format!("[{}]", SERVICE[1])][family], path)
    }

    /// The same for a host, with its port.
    pub fn curl_at(&self, host: &str, path: &str) -> Command {
        let mut command = self.client.command(program("curl").to_str().unwrap());
        command.args(["-sS", "-g", "--max-time", "20"]).arg(format!("http://{host}/{path}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Disables offload on the gateway's links to the client and to server1: the kernel then splits super-packets and
    /// completes checksums before them, so that a wrongly patched checksum is detected. Otherwise nobody checks.
    pub fn plain_cables(&self) {
        let ethtool = program("ethtool");
        for device in ["client", "server1"] {
            let mut command = self.gateway.command(ethtool.to_str().unwrap());
            let output = run(command.args(["-K", device, "tx", "off", "tso", "off", "gso", "off"]));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Returns links, rules and routes of the gateway: everything that a run may change.
    pub fn system(&self) -> String {
        let ip = |args: &[&str]| {
            let output = run(self.gateway.command(program("ip").to_str().unwrap()).args(args));
            assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        // Routes of the devices' own link-local addresses appear when duplicate address detection ends.
        eventually("all addresses to be usable", || ip(&["-6", "address", "show", "tentative"]).is_empty());
        let lists = [
            &["-br", "link"][..],
            &["-4", "rule"],
            &["-6", "rule"],
            &["-4", "route", "show", "table", "all"],
            &["-6", "route", "show", "table", "all"],
        ];
        lists.iter().map(|args| ip(args)).collect()
    }
}

/// Runs a program to completion.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Connects another namespace to the gateway: the gateway is .1 and ::1 on the link, the other .2 and ::2.
fn join(gateway: &Namespace, device: &str, other: &Namespace, [v4, v6]: [&str; 2]) {
    gateway.cable(device, other, "eth0").unwrap();
    gateway.address(device, format!("{v4}.1/24").parse().unwrap()).unwrap();
    gateway.address(device, format!("{v6}::1/64").parse().unwrap()).unwrap();
    other.address("eth0", format!("{v4}.2/24").parse().unwrap()).unwrap();
    other.address("eth0", format!("{v6}::2/64").parse().unwrap()).unwrap();
    other.default_route("eth0", format!("{v4}.1").parse().unwrap()).unwrap();
    other.default_route("eth0", format!("{v6}::1").parse().unwrap()).unwrap();
}
