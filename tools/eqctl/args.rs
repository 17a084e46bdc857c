//! What `eqctl` is told on its command line.

use clap::{Parser, Subcommand};
use equipoise::config::GatewaySettings;
use equipoise::control::Request;
use equipoise::engine::FlowQuery;
use equipoise::ids::FlowId;
use equipoise::packet::Protocol;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Looks into a running Equipoise gateway.
#[derive(Debug, Parser)]
#[command(name = "eqctl", version)]
pub struct Args {
    /// The gateway's control socket.
    #[arg(long, global = true, value_name = "PATH", default_value_os_t = GatewaySettings::default().control_socket)]
    pub socket: PathBuf,
    /// Prints a line of JSON a row.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Seconds between two looks, where it is to go on looking.
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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists flows: who talks to whom, in which state, since when, how much.
    Flows(Filter),
    /// Lists servers with their weights, flows and traffic.
    Servers {
        #[command(flatten)]
        watch: Watch,
    },
    /// Lists services with their addresses and flows.
    Services {
        #[command(flatten)]
        watch: Watch,
    },
    /// Shows what the monitors see of each server: state, losses, latency, last result.
    Monitors {
        #[command(flatten)]
        watch: Watch,
    },
    /// Lists when servers went down and came up, and why: the last 32 changes a server.
    History,
    /// Lists the policy rules in their order, with what they have matched, let in and refused.
    Rules {
        #[command(flatten)]
        watch: Watch,
    },
    /// Lists the source addresses of full NAT that flows have had: ports used, resting, left, and flows refused for want of one.
    Nat {
        #[command(flatten)]
        watch: Watch,
    },
    /// Switches a rule on or off until the gateway ends; flows that it let in stay.
    Rule {
        /// The rule's name, as `eqctl rules` shows it.
        #[arg(value_name = "NAME")]
        rule: String,
        /// `on` or `off`.
        #[arg(value_enum)]
        to: Switch,
    },
    /// Shows what became of all packets, each drop reason in words.
    Counters {
        /// Shows the rows that stand at zero too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        watch: Watch,
    },
    /// Shows what runs: version, uptime, device, sizes.
    Status,
    /// Removes a flow from the table; neither end is told.
    Kill {
        /// The flow's ID as `eqctl flows` shows it, for example 1042.3.
        #[arg(value_name = "ID")]
        flow: FlowId,
    },
    /// Changes a server at run time.
    #[command(subcommand)]
    Server(ServerCommand),
}

/// What to change of a server.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Gives a server another weight until the gateway ends; its flows stay.
    Weight {
        /// The server, as `eqctl servers` shows it.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
        /// The new weight, 0 to 65535; 0 gets no new flows.
        weight: u16,
    },
    /// Lets a server keep its flows and gives it no new ones, sticky or not.
    Drain {
        /// The server, as `eqctl servers` shows it.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
        /// After this time (such as 10m) the flows that are left are ended, TCP by resets to both ends.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        deadline: Option<Duration>,
    },
    /// Takes a server as down: its flows fare as the service's `on-down` says.
    Disable {
        /// The server, as `eqctl servers` shows it.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
    },
    /// Lets a server take new flows again.
    Enable {
        /// The server, as `eqctl servers` shows it.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
    },
    /// Tells a server's load, for the algorithm `resource-usage`; it counts for a minute.
    Load {
        /// The server, as `eqctl servers` shows it.
        #[arg(value_name = "POOL/SERVER")]
        server: ServerName,
        /// 0 (idle) to 100 percent.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        load: u8,
        /// It wants no new flows.
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

/// How often to look.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Looks again every so many seconds (2 if not given), until interrupted.
    #[arg(long = "watch", value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
}

/// Which flows; all that is given must hold.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only this service's.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only those that go to this server.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Only those of this client or network: 198.51.100.7, 198.51.100.0/24, 2001:db8::/32.
    #[arg(long, value_name = "NET", value_parser = network)]
    client: Option<IpNet>,
    /// Only this protocol's.
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<Protocol>,
    /// Shows no more than so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Filter {
    /// The request for these flows.
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

/// A server's name with its pool's.
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
            _ => Err("a server is named POOL/SERVER, for example web/web-1".into()),
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
    text.parse().ok().or_else(address).ok_or_else(|| "neither an address nor a network like 198.51.100.0/24".into())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    let found = Protocol::from_name(&text.to_ascii_lowercase());
    found.ok_or_else(|| "a protocol is tcp, udp, icmp, sctp, gre, esp, ipip or a number such as ip-89".into())
}
