//! What `equipoise` is told on its command line.

#[cfg(feature = "demo")]
use crate::demo::DemoOptions;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// A NAT load balancer in userspace whose every decision can be replayed from a capture.
#[derive(Debug, Parser)]
#[command(name = "equipoise", version, arg_required_else_help = true)]
pub struct Args {
    /// How much is logged.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Verbosity {
    /// Logs more, to stderr: -v flows too, -vv everything. The variable RUST_LOG, where set, decides instead.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the gateway on a TUN device until SIGINT, SIGTERM or SIGHUP; usually needs root.
    Run {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Checks a configuration without touching the system: exit code 0 if it is valid, 1 if not.
    Check {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Prints one JSON object, problems with line and column included.
        #[arg(long)]
        json: bool,
    },
    /// Replays a capture through the engine: a line a packet, then flows, servers, totals. Needs no rights.
    Replay(Replay),
    /// Runs the checklist of what a correct NAT does on this very engine: a row a requirement with the cases that
    /// prove it. Exit code 1 if one fails. Needs no rights.
    #[cfg(feature = "conformance")]
    Conformance {
        /// The directory of cases; usually that of the source tree.
        #[arg(long, value_name = "DIR")]
        cases: Option<PathBuf>,
        /// Only requirements whose name holds this: 4787, "RFC 5508 REQ-3".
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        only: String,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Plays a whole world on this machine: clients, gateway and servers in network namespaces, real traffic
    /// through a real TUN device. Leaves nothing behind.
    #[cfg(feature = "demo")]
    Demo(Demo),
}

/// What is replayed, and how.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The capture: pcap or pcapng, gzipped or not.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Writes the translated packets to this file (pcapng, nanoseconds).
    #[arg(short = 'w', long = "write", value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Prints one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Replays what is whole of a damaged capture; the report says what is missing.
    #[arg(long)]
    pub partial: bool,
    /// What happens beside the packets, a line an event: `12.5 server web/web-2 down`, `30 rule block off`.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Lets time go on behind the last packet until every flow has ended.
    #[arg(long)]
    pub drain: bool,
}

/// What the demo is to do.
#[cfg(feature = "demo")]
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Requests to send.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().requests)]
    requests: u64,
    /// Clients that send at the same time, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().clients)]
    clients: u16,
    /// Sends for no longer than this.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Leaves out the drill, in which a server stops in mid-traffic and comes back.
    #[arg(long)]
    no_drill: bool,
    /// The servers' weights, one a server: 1,1,2.
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',', default_values_t = DemoOptions::default().weights)]
    weights: Vec<u16>,
    /// Keeps going, gently, until Ctrl-C, for people who want to play in it.
    #[arg(long, conflicts_with = "requests")]
    forever: bool,
    /// Prints nothing but one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "demo")]
impl Demo {
    /// The same, as the demo takes it.
    pub fn options(&self) -> DemoOptions {
        DemoOptions {
            requests: self.requests,
            clients: self.clients,
            seconds: self.seconds,
            forever: self.forever,
            json: self.json,
            drill: !self.no_drill,
            weights: self.weights.clone(),
        }
    }
}
