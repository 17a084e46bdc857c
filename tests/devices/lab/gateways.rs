//! The gateways that are compared: Equipoise, the kernel's own NAT, and the least TUN NAT.

use super::established::without_bpf;
use super::ledger::conntrack;
use super::{DNS, FILL, Lab, PARROT, SERVER, SERVICE, WEB, Workers, least, nft};
use crate::world::{Running, eventually, run};
use equipoise::control::Totals;
use std::fs::File;
use std::process::{Command, Output, Stdio};

/// A kind of gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nftables,
    Equipoise,
    /// Equipoise without the right to load BPF programs, so with one queue.
    OneQueue,
    Least,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Nftables, Kind::Equipoise, Kind::OneQueue, Kind::Least];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Nftables => "nftables",
            Kind::Equipoise => "Equipoise",
            Kind::OneQueue => "one queue",
            Kind::Least => "least NAT",
        }
    }
}

/// A gateway that runs.
pub struct Gateway<'a> {
    lab: &'a Lab,
    kind: Kind,
    running: Option<Running>,
    _least: Option<Workers>,
}

/// Starts a gateway. `flows` is the size of its table, which only Equipoise lets us choose. The kernel's is that of the
/// machine, since `nf_conntrack_max` is read-only in a namespace other than the first.
pub fn start(lab: &Lab, kind: Kind, flows: u64) -> Gateway<'_> {
    let (mut running, mut least) = (None, None);
    match kind {
        Kind::Nftables => nft(&lab.gateway, lab.dir.path(), &ruleset()),
        Kind::Equipoise => running = Some(start_equipoise(lab, &configuration(lab, flows), &[])),
        Kind::OneQueue => running = Some(start_equipoise(lab, &configuration(lab, flows), &without_bpf())),
        Kind::Least => least = Some(least::start(lab)),
    }
    Gateway { lab, kind, running, _least: least }
}

/// What is translated, for each family: protocol, service port, server address, server port.
fn translations(family: usize) -> [(&'static str, u16, &'static str, u16); 4] {
    [
        ("tcp", WEB[0], SERVER[family], WEB[1]),
        ("udp", DNS[0], SERVER[family], DNS[1]),
        ("tcp", FILL[0], PARROT[family], FILL[1]),
        ("udp", FILL[0], PARROT[family], FILL[1]),
    ]
}

fn ruleset() -> String {
    let mut text = String::new();
    for (family, ip) in ["ip", "ip6"].into_iter().enumerate() {
        text += &format!("table {ip} lab {{\nchain lab {{\ntype nat hook prerouting priority dstnat\n");
        for (protocol, port, server, own) in translations(family) {
            let server = [server.to_owned(), format!("[{server}]")][family].clone();
            text += &format!("{ip} daddr {} {protocol} dport {port} dnat to {server}:{own}\n", SERVICE[family]);
        }
        text += "}\n}\n";
    }
    text
}

fn configuration(lab: &Lab, flows: u64) -> String {
    let socket = lab.dir.path().join("control.sock");
    let mut text = format!("[gateway]\ncontrol-socket = {socket:?}\n[flows]\nmax = {flows}\n");
    for (name, [port, own], protocols, server) in
        [("web", WEB, &["tcp"][..], SERVER), ("dns", DNS, &["udp"], SERVER), ("fill", FILL, &["tcp", "udp"], PARROT)]
    {
        let listen =
            |protocol: &&str| format!("\"{}:{port}/{protocol}\", \"[{}]:{port}/{protocol}\"", SERVICE[0], SERVICE[1]);
        let listen: Vec<String> = protocols.iter().map(listen).collect();
        text += &format!(
            "[[service]]\nname = \"{name}\"\nlisten = [{}]\npool = \"{name}\"\n[[pool]]\nname = \"{name}\"\n\
             [[pool.server]]\nname = \"{name}-1\"\naddress = [\"{}\", \"{}\"]\nport = {own}\n",
            listen.join(", "),
            server[0],
            server[1]
        );
    }
    text
}

/// Starts it through another program, if any is given.
fn start_equipoise(lab: &Lab, configuration: &str, wrap: &[String]) -> Running {
    let [file, log] = ["equipoise.toml", "stderr"].map(|name| lab.dir.path().join(name));
    std::fs::write(&file, configuration).unwrap();
    let words = [wrap, &[env!("CARGO_BIN_EXE_equipoise").to_owned()]].concat();
    let mut command = lab.gateway.command(&words[0]);
    command.args(&words[1..]).arg("run").arg("--config").arg(file).env_remove("RUST_LOG");
    let mut running = Running::start(command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()));
    eventually("the gateway's control socket", || {
        if let Some(status) = running.ended() {
            panic!("the gateway ended: {status}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        eqctl(lab, &["status"]).status.success()
    });
    running
}

fn eqctl(lab: &Lab, args: &[&str]) -> Output {
    let socket = lab.dir.path().join("control.sock");
    run(Command::new(env!("CARGO_BIN_EXE_eqctl")).arg("--socket").arg(socket).args(args))
}

impl Gateway<'_> {
    /// Returns Equipoise's own counters.
    pub fn totals(&self) -> Option<Totals> {
        self.running.as_ref()?;
        let output = eqctl(self.lab, &["counters", "--json"]);
        assert!(output.status.success(), "eqctl: {}", String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Returns how many flows the table holds, and how many it can; `None` without a table.
    pub fn table(&self) -> Option<(u64, u64)> {
        match self.kind {
            Kind::Nftables => Some((conntrack(&self.lab.gateway, "count"), conntrack(&self.lab.gateway, "max"))),
            Kind::Equipoise | Kind::OneQueue => {
                self.totals().map(|totals| (totals.engine.flows, totals.engine.max_flows))
            }
            Kind::Least => None,
        }
    }

    /// Returns what Equipoise dropped or consumed since the start, by reason.
    pub fn reasons(&self) -> String {
        let Some(totals) = self.totals() else { return String::new() };
        let dropped = totals.engine.dropped.iter().map(|row| (format!("{:?}", row.kind), row.count));
        let consumed = totals.engine.consumed.iter().map(|row| (format!("{:?}", row.kind), row.count));
        let ended = totals.engine.flows_ended.iter().map(|row| (format!("ended {:?}", row.kind), row.count));
        let rows = dropped.chain(consumed).chain(ended).filter(|(_, count)| *count != 0);
        rows.map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
    }
}
