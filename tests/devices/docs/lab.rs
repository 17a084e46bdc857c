//! The network of the documentation: clients, one gateway or two, and a host with three servers.
//!
//! ```text
//!  client ------------- eth0 gateway eth1 ------------- servers
//!  198.51.100.7, .8      .1          10.0.2.1           web-1 10.0.2.11, web-2 .12, web-3 .13: HTTP, port 8080
//! ```
//!
//! Everything ends with the values here.

use super::machine::{Machine, WIDTH};
use super::root;
use super::servers::Server;
use crate::world::{Running, eventually, ip, program, run};
use equipoise::gateway::netns::Namespace;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Where the first page has the configuration that others begin with.
const FIRST: &str = "docs/first-service.md";
const FILE: &str = "/etc/equipoise/equipoise.toml";

/// Succeeds when all three servers have answered a probe.
const PROBED: &str = "eqctl monitors | grep -c 'answered in' | grep -qx 3";

pub struct Lab {
    client: Namespace,
    behind: Namespace,
    servers: Vec<Option<Server>>,
    /// The gateways with their names. There is one, called `gateway`, unless the page wishes two.
    gateways: Vec<(String, Machine)>,
    downloads: Vec<Running>,
    /// Where commands without a host run: beside the fixtures of the source tree.
    here: tempfile::TempDir,
    name: String,
}

/// Makes a host with a bridge `eth0`, so that it can be connected to two gateways, with addresses of a network.
fn host(label: &str, network: &str, hosts: &[u8]) -> Namespace {
    let namespace = Namespace::new(label).unwrap();
    ip(&namespace, "link add eth0 type bridge");
    namespace.up("eth0").unwrap();
    for host in hosts {
        ip(&namespace, &format!("address add {network}.{host}/24 dev eth0"));
    }
    ip(&namespace, &format!("route add default via {network}.1"));
    namespace
}

fn told(output: &Output) -> (bool, String) {
    (output.status.success(), String::from_utf8(output.stdout.clone()).unwrap())
}

impl Lab {
    pub fn new(name: &str) -> Lab {
        let client = host(&format!("{name}-client"), "198.51.100", &[7, 8]);
        let behind = host(&format!("{name}-servers"), "10.0.2", &[11, 12, 13]);
        let servers = (1..=3).map(|n| Some(Server::start(&behind, n))).collect();
        let here = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root().join("fixtures"), here.path().join("fixtures")).unwrap();
        let (gateways, downloads, name) = (Vec::new(), Vec::new(), name.to_owned());
        let mut lab = Lab { client, behind, servers, gateways, downloads, here, name };
        lab.connect("gateway", 1);
        lab
    }

    /// Adds a gateway whose addresses in both networks end with `last`.
    fn connect(&mut self, name: &str, last: u8) {
        let machine = Machine::new(&format!("{}-{name}", self.name));
        let gateway = &machine.namespace;
        gateway.forward().unwrap();
        let port = format!("port{last}");
        for (device, network, other) in [("eth0", "198.51.100", &self.client), ("eth1", "10.0.2", &self.behind)] {
            gateway.cable(device, other, &port).unwrap();
            ip(other, &format!("link set {port} master eth0"));
            ip(gateway, &format!("address add {network}.{last}/24 dev {device}"));
        }
        self.gateways.push((name.to_owned(), machine));
    }

    /// Replaces the gateway by a pair with a cable between them, `eth2`.
    fn pair(&mut self) {
        self.gateways.clear();
        self.connect("gateway-1", 2);
        self.connect("gateway-2", 3);
        let [(_, one), (_, two)] = self.gateways.as_slice() else { unreachable!("two were made") };
        one.namespace.cable("eth2", &two.namespace, "eth2").unwrap();
        ip(&one.namespace, "address add 10.255.0.1/24 dev eth2");
        ip(&two.namespace, "address add 10.255.0.2/24 dev eth2");
    }

    fn shell(&self, mut command: Command, script: &str) -> (bool, String) {
        command
            .args(["-c", &format!("exec 2>&1; {script}")])
            .env("COLUMNS", WIDTH)
            .env("TERM", "dumb")
            .env_remove("RUST_LOG");
        told(&run(command.stdin(Stdio::null())))
    }

    /// Runs a command on a host; returns whether it succeeded, and what it printed.
    fn try_at(&mut self, host: &str, command: &str) -> (bool, String) {
        if let Some((_, machine)) = self.gateways.iter_mut().find(|(name, _)| name == host) {
            return machine.run(command);
        }
        match host {
            "client" => self.shell(self.client.command("sh"), command),
            "" => {
                let programs = Path::new(env!("CARGO_BIN_EXE_equipoise")).parent().unwrap().display();
                let mut shell = Command::new("sh");
                shell.current_dir(self.here.path()).env("PATH", format!("{programs}:/usr/sbin:/usr/bin:/sbin:/bin"));
                self.shell(shell, command)
            }
            _ => panic!("there is no host {host}"),
        }
    }

    /// Runs a command on a host; returns what it prints.
    pub fn run(&mut self, host: &str, command: &str) -> String {
        self.try_at(host, command).1
    }

    /// Writes a file of a page on every gateway; its first line is its path, in a comment. The seed, which otherwise is
    /// another one in each run, decides which server is the first.
    pub fn file(&mut self, path: &str, lines: &[&str]) {
        let first = if path == FILE { "seed = 1" } else { lines[0] };
        let text = [&[first], &lines[1..]].concat().join("\n") + "\n";
        // A path that ends with the name of a gateway is a file of that one.
        let own = path.rsplit_once(" on ");
        for (name, machine) in &mut self.gateways {
            match own {
                Some((path, on)) if on == name => machine.file(path, &text.replacen(lines[0], "seed = 1", 1)),
                Some(_) => {}
                None => machine.file(path, &text),
            }
        }
    }

    /// Does what the page does not show.
    pub fn wish(&mut self, wish: &str) {
        let server = |wish: &str| -> Option<usize> { wish.strip_prefix("web-")?.get(..1)?.parse().ok() };
        match (server(wish), wish.split_once(' ').map_or("", |(_, what)| what)) {
            (Some(n), "stops") => self.servers[n - 1] = None,
            (Some(n), "starts") => self.servers[n - 1] = Some(Server::start(&self.behind, n)),
            (Some(n), "is ill") => self.servers[n - 1].as_ref().unwrap().is_ill(true),
            (Some(n), "is well") => self.servers[n - 1].as_ref().unwrap().is_ill(false),
            _ => self.wish_of_hosts(wish),
        }
    }

    fn wish_of_hosts(&mut self, wish: &str) {
        match wish {
            "the first service" => self.first_service(),
            "two gateways" => self.pair(),
            "the servers have been probed" => self.until("gateway", PROBED),
            "client downloads" => self.download(),
            "the downloads end" => self.downloads.clear(),
            _ => match wish.split_once(": ") {
                Some((host, command)) => match host.strip_prefix("until ") {
                    Some(host) => self.until(host, command),
                    None => {
                        let (done, said) = self.try_at(host, command);
                        assert!(done, "{wish}: {said}");
                    }
                },
                None => panic!("the lab does not know how to do this: {wish}"),
            },
        }
    }

    /// Starts the gateway with the configuration of the first page.
    fn first_service(&mut self) {
        let page = std::fs::read_to_string(root().join(FIRST)).unwrap();
        let block = page.split("```toml\n").find(|rest| rest.starts_with(&format!("# {FILE}\n")));
        let lines: Vec<&str> = block.expect("a configuration").lines().take_while(|line| *line != "```").collect();
        self.file(FILE, &lines);
        self.run("gateway", &format!("equipoise run --config {FILE}"));
        self.until("gateway", PROBED);
    }

    /// Starts a download that goes on: the first one from port 40001.
    fn download(&mut self) {
        let port = (40_001 + self.downloads.len()).to_string();
        let mut curl = self.client.command(program("curl").to_str().unwrap());
        curl.args([
            "-sS",
            "--interface",
            "198.51.100.7",
            "--local-port",
            &port,
            "-o",
            "/dev/null",
            "http://192.0.2.80/film",
        ]);
        self.downloads.push(Running::start(curl.stderr(Stdio::null())));
        // All of what there is has come: figures do not grow any more.
        let come = format!("eqctl flows client 198.51.100.7 and port {port} | grep -q '6[4-9]\\.[0-9] KiB'");
        let host = self.gateways[0].0.clone();
        self.until(&host, &come);
    }

    /// Waits until a command succeeds.
    fn until(&mut self, host: &str, command: &str) {
        eventually(command, || {
            let (done, _) = self.try_at(host, command);
            if !done {
                std::thread::sleep(Duration::from_millis(100)); // leaves the processor to what is waited for
            }
            done
        });
    }
}
