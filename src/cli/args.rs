//! The command line of `equipoise`.

use super::print::Moving;
use crate::control::PacketWords;
#[cfg(feature = "demo")]
use crate::demo::DemoOptions;
use clap::{Parser, Subcommand};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// A NAT load balancer in userspace whose every decision can be replayed from a capture.
#[derive(Debug, Parser)]
#[command(name = "equipoise", version, arg_required_else_help = true)]
pub(super) struct Args {
    /// The log level.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The log level.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Verbosity {
    /// Log more to stderr: flows with -v, everything with -vv. Overridden by the environment variable RUST_LOG.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway on a TUN device until SIGINT or SIGTERM; usually needs root. SIGHUP reloads the configuration.
    Run {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Keep all privileges after set-up, for debuggers and profilers. Otherwise capabilities, files and system calls
        /// are restricted to what forwarding needs.
        #[arg(long)]
        unconfined: bool,
        /// Take the place of the running gateway with the same device and control socket, with all its flows, for example
        /// after an upgrade. It ends once this one forwards packets; if this one fails before, it carries on.
        #[arg(long)]
        takeover: bool,
    },
    /// Check a configuration without touching the system; with --live also whether a gateway works on this system. Exit
    /// code: 0 if it is valid and nothing is found, 1 if not.
    Check {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE", required_unless_present = "diff")]
        config: Option<PathBuf>,
        /// Print one JSON object that includes problems with line and column; with --diff one per change.
        #[arg(long)]
        json: bool,
        /// Also look at this system, and change nothing: forwarding, firewall, routing rules, connected networks. With a
        /// running gateway, run it in the same network namespace, as root. With --diff, compare with what is in force in the
        /// running gateway.
        #[arg(long)]
        live: bool,
        /// Print what a reload of this configuration would do, object by object: compared with --config or --against, or with
        /// --live, which also counts the live flows that it would touch.
        #[arg(long, value_name = "NEW")]
        diff: Option<PathBuf>,
        /// With --diff: the configuration to compare with.
        #[arg(long, value_name = "OLD", requires = "diff", conflicts_with = "live")]
        against: Option<PathBuf>,
    },
    /// Remove rules, routes and proxy entries that a gateway with this configuration has left behind: one that was killed,
    /// or has `keep-fallback`. Refuses while it runs.
    Cleanup {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Remove what a gateway has left to its service manager for the next start, which will not come: what the end of a
        /// gateway would remove. To be called when it has ended, as the unit of the package does.
        #[arg(long)]
        stopped: bool,
    },
    /// Print the reference of all settings; or a configuration, for this gateway of a pair, of the program that elects the
    /// active one or announces it. Needs no privileges.
    Print {
        /// What to print.
        #[command(subcommand)]
        of: Print,
    },
    /// Replay a capture through the engine: one line per packet, then flows, servers and counters. Needs no privileges.
    Replay(Replay),
    /// Explain what would become of packets: the rule that matches, the service, each server with the reason why it is
    /// chosen or not, the rewrite, the timers. Needs no privileges and no running gateway.
    Explain(Explain),
    /// Write a configuration that means what one of ipvsadm or keepalived does, and list line by line what it cannot mean,
    /// and what to do about it. Exit code: 0 if everything is meant, 3 if something is listed.
    Import(Import),
    /// Run the checklist of NAT requirements on the engine in this binary: one row per requirement, with the cases that
    /// prove it. Exit code 1 if any fails. Needs no privileges.
    #[cfg(feature = "conformance")]
    Conformance {
        /// Directory of the cases; by default that of the source tree.
        #[arg(long, value_name = "DIR")]
        cases: Option<PathBuf>,
        /// Only requirements whose name contains TEXT: 4787, "RFC 5508 REQ-3".
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        only: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run a demo on this machine: clients, gateway and servers in network namespaces, with real traffic through a real
    /// TUN device. Cleans up after itself.
    #[cfg(feature = "demo")]
    Demo(Demo),
}

/// The options of a replay.
#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The capture: pcap or pcapng, optionally gzipped.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Write the translated packets to this file (pcapng, nanosecond timestamps).
    #[arg(short = 'w', long = "write", value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Replay the intact part of a damaged capture; the report states what is missing.
    #[arg(long)]
    pub partial: bool,
    /// File of events to apply during the replay, one per line: `12.5 server web/web-2 down`, `30 rule block off`.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Continue after the last packet until every flow has ended.
    #[arg(long)]
    pub drain: bool,
    /// Instead of the report, explain the packet of frame N right before it is handled, then verify that it meets the
    /// verdict that was explained. Frames are numbered as in the report.
    #[arg(long, value_name = "N", conflicts_with_all = ["output", "drain"], value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) explain: Option<u64>,
}

/// What to import.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The program whose configuration it is.
    #[arg(value_name = "PROGRAM", value_enum)]
    pub(super) from: Program,
    /// The file: keepalived.conf, or what `ipvsadm-save -n` prints.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Write the configuration to this file instead of stdout; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Source address of probes, which servers must route to the gateway; one per family.
    #[arg(long = "probe-address", value_name = "ADDRESS")]
    pub(super) probe_addresses: Vec<IpAddr>,
    /// Import servers that are reached by direct routing or a tunnel as if they were reached by NAT. They are listed: their
    /// replies must come through the gateway.
    #[arg(long)]
    pub(super) assume_nat: bool,
    /// Print one JSON object with the configuration and what is listed.
    #[arg(long)]
    pub(super) json: bool,
}

/// A program whose configuration can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Program {
    /// ipvsadm.
    Ipvsadm,
    /// keepalived.
    Keepalived,
}

/// How packets are written.
const PACKETS: &str = "\
How to write a packet:
  tcp SRC:PORT -> DST:PORT [FLAGS] [seq N] [ack N] [len N]   FLAGS: syn, syn ack,
                     ack, fin ack, rst, psh ack, ...; without flags it is a SYN
  udp SRC:PORT -> DST:PORT [len N]
  sctp SRC:PORT -> DST:PORT [len N]
  icmp SRC -> DST [id N] [seq N] [len N]                     echo request
  icmp SRC -> DST reply [id N] [seq N] [len N]               echo reply
  gre|esp|ipip|ip-N SRC -> DST [len N]
Any of them may end with `ttl N` (hop limit), `df` or `ingress NAME`. IPv6
addresses with a port have brackets: [2001:db8::7]:4711

Examples:
  equipoise explain --config lb.toml 'tcp 192.0.2.7:4711 -> 203.0.113.10:80 syn'
  equipoise explain --config lb.toml --event 'server web/web-2 down' \\
      'udp [2001:db8::7]:4711 -> [2001:db8::53]:53 len 40'";

/// The options of an explanation.
#[derive(Debug, clap::Args)]
#[command(after_help = PACKETS)]
pub(super) struct Explain {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// The packets. Each is explained, then handed to the engine, so that the next one meets the flow that it opened.
    #[arg(value_name = "PACKET", required = true)]
    pub(super) packets: Vec<PacketWords>,
    /// Apply an event before the first packet, as in a file for `replay --events` but without the time: "server web/web-2
    /// down", "rule block off". May be repeated.
    #[arg(long = "event", value_name = "EVENT")]
    pub(super) events: Vec<String>,
    /// Use this seed instead of the one in the configuration; `equipoise run` logs the one that it drew.
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Print one JSON object per packet.
    #[arg(long)]
    pub(super) json: bool,
}

/// The options of the demo.
#[cfg(feature = "demo")]
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Number of requests.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().requests)]
    requests: u64,
    /// Number of concurrent clients, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = DemoOptions::default().clients)]
    clients: u16,
    /// Stop sending after this time.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Skip the drill in which a server stops under traffic and comes back.
    #[arg(long)]
    no_drill: bool,
    /// Weights of the servers, one per server: 1,1,2.
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',', default_values_t = DemoOptions::default().weights)]
    weights: Vec<u16>,
    /// Keep running with light traffic until Ctrl-C, for experiments.
    #[arg(long, conflicts_with = "requests")]
    forever: bool,
    /// Print only one JSON object at the end.
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "demo")]
impl Demo {
    /// Converts to the options of the demo.
    pub(super) fn options(&self) -> DemoOptions {
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

/// What is printed.
#[derive(Debug, Subcommand)]
pub(super) enum Print {
    /// Every setting of the configuration file: what it takes, its default, what a reload does with it. Markdown.
    Settings {
        /// Print one JSON object per setting.
        #[arg(long)]
        json: bool,
    },
    /// keepalived: the gateway that it elects gets the addresses and becomes active.
    Keepalived {
        /// Configuration file of this gateway (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// An address that the active gateway has, and on which interface: the next hop of clients' routers, or the default
        /// gateway of servers. Once for each. The first interface carries the election.
        #[arg(long = "address", value_name = "ADDRESS/LENGTH@INTERFACE")]
        addresses: Vec<Moving>,
        /// Number of the virtual router, which no other pair in the same network has.
        #[arg(long, value_name = "1-255", default_value_t = 51, value_parser = clap::value_parser!(u8).range(1..))]
        router_id: u8,
    },
    /// BIRD 2: the service addresses are announced while this gateway is active.
    Bird {
        /// Configuration file of this gateway (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// An IPv4 address of this gateway, by which routers know it.
        #[arg(long, value_name = "ADDRESS")]
        router_id: Option<Ipv4Addr>,
    },
}
