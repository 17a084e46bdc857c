//! The command line of `eqctl`.

use clap::{Parser, Subcommand};
use equipoise::control::{FlowId, FlowQuery, PacketWords, Protocol, Request, default_socket};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Inspect and control a running Equipoise gateway.
#[derive(Debug, Parser)]
#[command(name = "eqctl", version)]
pub struct Args {
    /// Control socket of the gateway.
    #[arg(long, global = true, value_name = "PATH", default_value_os_t = default_socket())]
    pub socket: PathBuf,
    /// Print one JSON object per row.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Returns the refresh interval in seconds, with `--watch`.
    pub fn watch(&self) -> Option<u32> {
        match &self.command {
            Command::Servers { watch }
            | Command::Services { watch }
            | Command::Rules { watch }
            | Command::Nat { watch }
            | Command::Monitors { watch }
            | Command::Counters { watch, .. } => watch.seconds,
            _ => None,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List flows with their ends, state, age and traffic.
    Flows(Filter),
    /// List servers with their state, weight, flows and traffic.
    Servers {
        #[command(flatten)]
        watch: Watch,
    },
    /// List services with their listen addresses and flows.
    Services {
        #[command(flatten)]
        watch: Watch,
    },
    /// List the results of the monitors for each server: state, losses, latency, last result.
    Monitors {
        #[command(flatten)]
        watch: Watch,
    },
    /// List when and why servers went down and came up: the last 32 changes per server.
    History,
    /// List the policy rules in order, with the packets they matched and the flows they admitted and refused.
    Rules {
        #[command(flatten)]
        watch: Watch,
    },
    /// List the source addresses of full NAT that flows have used: ports used, resting and free, and flows refused for
    /// lack of a port.
    Nat {
        #[command(flatten)]
        watch: Watch,
    },
    /// Enable or disable a rule until the gateway stops; flows that it admitted stay.
    Rule {
        /// Name of the rule, as listed by `eqctl rules`.
        #[arg(value_name = "NAME")]
        rule: String,
        /// `on` or `off`.
        #[arg(value_enum)]
        to: Switch,
    },
    /// Show packet counters by fate, with a description of each drop reason.
    Counters {
        /// Also show counters that are zero.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Read the configuration file of the gateway again and put it in force; print each change. A wrong file changes nothing.
    /// Flows stay, also those of removed servers, which get no new ones. What operators changed stays, unless the file now
    /// says something else for that very key.
    Reload {
        /// Apply what can change while the gateway runs, and leave out what needs a restart, instead of refusing both.
        #[arg(long)]
        partial: bool,
        /// End the flows of removed servers at once, TCP flows by resets to both ends.
        #[arg(long)]
        now: bool,
    },
    /// Show version, uptime, device and table size of the gateway, and what is missing of what it installed in the system.
    /// Exit code: 0 if all of it is there, 3 if something is missing or without effect, 1 without an answer.
    Status,
    /// Explain what would become of a packet, of the next packet of a flow, or of a client: the rule that matches, the
    /// flow or the service, each server with the reason why it is chosen or not, the rewrite, the timers. Changes nothing.
    Explain(Explain),
    /// Remove a flow from the table without notifying its ends.
    Kill {
        /// ID of the flow, as listed by `eqctl flows`, for example 1042.3.
        #[arg(value_name = "ID")]
        flow: FlowId,
    },
    /// Change a server at run time.
    #[command(subcommand)]
    Server(ServerCommand),
}

/// The commands for a server.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Change the weight of a server until the gateway stops; its flows stay.
    Weight {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
        /// New weight, 0 to 65535; with 0 the server gets no new flows.
        weight: u16,
    },
    /// Drain a server: it keeps its flows but gets no new ones, sticky or not.
    Drain {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
        /// End the remaining flows after this time (such as 10m), TCP flows by resets to both ends.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        deadline: Option<Duration>,
    },
    /// Disable a server: its flows are handled as for a server that is down (`on-down` of the service).
    Disable {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
    },
    /// Enable a server: it gets new flows again.
    Enable {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
    },
    /// Set the reported load of a server, for the algorithm `resource-usage`; valid for a minute.
    Load {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
        /// Load in percent, 0 (idle) to 100.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        load: u8,
        /// Mark the server as under maintenance: it gets no new flows.
        #[arg(long)]
        maintenance: bool,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// The refresh interval.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Refresh every SECONDS seconds (2 if omitted) until interrupted.
    #[arg(long = "watch", value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
}

/// What to explain.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Explain {
    /// A packet: `tcp 192.0.2.7:4711 -> 203.0.113.10:80 syn`, `udp [2001:db8::7]:4711 -> [2001:db8::53]:53 len 40`, `icmp
    /// 192.0.2.7 -> 203.0.113.10`. `equipoise explain --help` shows all forms.
    #[arg(value_name = "PACKET")]
    packet: Option<PacketWords>,
    /// The next packet of the client of a flow, as listed by `eqctl flows`: for TCP an ACK.
    #[arg(long, value_name = "ID")]
    flow: Option<FlowId>,
    /// A client: its flows (at most 100), then what a new flow from its port 40000 would meet at each service.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
}

impl Explain {
    /// Returns the request for the explanation.
    pub fn request(&self) -> Option<Request> {
        let packet = self.packet.clone().map(|packet| Request::Explain { packet });
        let flow = self.flow.map(|flow| Request::ExplainFlow { flow });
        packet.or(flow).or(self.client.map(|client| Request::ExplainClient { client }))
    }
}

/// The flows to list; all given conditions must match.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only flows of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only flows to this server.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Only flows from this client address or network: 198.51.100.7, 198.51.100.0/24, 2001:db8::/32.
    #[arg(long, value_name = "NET", value_parser = network)]
    client: Option<IpNet>,
    /// Only flows of this protocol.
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<Protocol>,
    /// List at most N flows.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Filter {
    /// Returns the request for these flows.
    pub fn request(&self) -> Request {
        let query = FlowQuery {
            service: self.service.clone(),
            server: self.server.clone(),
            client: self.client,
            protocol: self.protocol,
        };
        Request::Flows { query, limit: self.limit }
    }
}

/// The name of a server with that of its pool.
#[derive(Debug, Clone)]
pub struct ServerName {
    /// The pool.
    pub pool: String,
    /// The server.
    pub server: String,
}

impl FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((pool, server)) if !pool.is_empty() && !server.is_empty() => {
                Ok(ServerName { pool: pool.into(), server: server.into() })
            }
            _ => Err("write the server as POOL/SERVER, for example web/web-1".into()),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.server)
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address).ok_or_else(|| "neither an address nor a network such as 198.51.100.0/24".into())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    let found = Protocol::from_name(&text.to_ascii_lowercase());
    found.ok_or_else(|| "use tcp, udp, icmp, sctp, gre, esp, ipip or a number such as ip-89".into())
}
