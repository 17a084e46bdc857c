//! The command line of `eqctl`.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use equipoise::control::{
    Begun, FilterWords, FlowId, FlowQuery, Kind, PacketWords, Protocol, Request, RoleWord, SortBy, StickyQuery, Target,
    default_socket, notation,
};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
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
    /// Print comma-separated values with a header.
    #[arg(long, global = true, conflicts_with = "json")]
    pub csv: bool,
    /// Print all columns, however wide the terminal is.
    #[arg(long, global = true)]
    pub wide: bool,
    /// Show a list again every SECONDS seconds (2 if omitted) until interrupted; services and servers with their rates.
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = interval)]
    pub watch: Option<u32>,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Returns the command line, unless its parts do not go together.
    pub fn checked() -> Args {
        let args = Args::parse();
        if args.watch.is_some() && !args.command.is_list() {
            Args::refuse("--watch is for lists: flows, servers, services, counters and the like");
        }
        if args.csv && !args.command.has_rows() {
            Args::refuse("--csv is for lists and changes, whose rows have columns");
        }
        // What is wrong with a filter is said whether a gateway runs or not.
        match &args.command {
            Command::Flows(what) => drop(what.request(None)),
            Command::Kill { what, dry_run } => drop(kill_request(what, *dry_run)),
            _ => {}
        }
        args
    }

    /// Ends the program because of its command line.
    pub fn refuse(why: &str) -> ! {
        Args::command().error(ErrorKind::ValueValidation, why).exit()
    }
}

fn interval(text: &str) -> Result<u32, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| "not a number of seconds; before other words, write --watch 2".into())
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List flows with their ends, state, age and traffic: all, those that a filter selects, or those with most bytes,
    /// packets, age or idle time.
    #[command(after_help = FILTERS)]
    Flows(Flows),
    /// List servers with their state, weight, flows and traffic.
    Servers(Measure),
    /// List services with their listen addresses, flows and traffic.
    Services(Measure),
    /// List the results of the monitors for each server: state, losses, latency, last result.
    Monitors,
    /// List when and why servers went down and came up (the last 32 changes per server), and what operators and reloads
    /// changed (the last 256): who, by user number and process ID.
    History,
    /// List what happened lately, the oldest first: servers that went down or came up, shortages, and what operators and
    /// reloads changed (the last 1,024).
    Events {
        /// Go on, and print each event as it happens.
        #[arg(long)]
        follow: bool,
    },
    /// Show the gateway on a full screen: rates, services, servers, the busiest flows, drops; sort, filter, drain, explain.
    #[cfg(feature = "top")]
    Top {
        /// Seconds between two looks.
        #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        every: u32,
    },
    /// List which clients stick to which servers, or forget them.
    #[command(args_conflicts_with_subcommands = true)]
    Sticky {
        #[command(flatten)]
        which: Which,
        /// List at most N clients.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        #[command(subcommand)]
        command: Option<StickyCommand>,
    },
    /// List where pools take servers from besides the configuration file: the list in use, its age, when it is asked again,
    /// and what is wrong.
    Sources,
    /// List the policy rules in order, with the packets they matched and the flows they admitted and refused.
    Rules,
    /// List the source addresses of full NAT that flows have used: ports used, resting and free, and flows refused for
    /// lack of a port.
    Nat,
    /// Enable or disable a rule; flows that it admitted stay.
    Rule {
        /// Name of the rule, as listed by `eqctl rules`.
        #[arg(value_name = "NAME")]
        rule: String,
        /// `on` or `off`.
        #[arg(value_enum)]
        to: Switch,
    },
    /// Turn a service on or off. While it is off, new flows are answered as if nothing listened at its addresses; its
    /// flows, its routes and the monitoring of its servers stay.
    Service {
        /// Name of the service, as listed by `eqctl services`.
        #[arg(value_name = "NAME")]
        service: String,
        /// `on` or `off`.
        #[arg(value_enum)]
        to: Switch,
    },
    /// List pools with their servers by state, or change one.
    Pool {
        #[command(subcommand)]
        command: Option<PoolCommand>,
    },
    /// List what was changed at run time and is not in the configuration file, print it as a file, or drop it.
    Changes {
        #[command(subcommand)]
        command: Option<ChangesCommand>,
    },
    /// Show packet counters by fate, with a description of each drop reason.
    Counters {
        /// Also show counters that are zero.
        #[arg(long)]
        all: bool,
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
    /// Show the other gateway of a pair: roles, what both know, what is behind, the last takeover. Exit code: 0 if both know
    /// all flows, 3 if not or if their configurations differ, 1 without an answer.
    Sync,
    /// Show the role of this gateway in its pair, or change it: what keepalived does when it elects. It is obeyed at once.
    Role {
        /// The new role.
        #[arg(value_enum)]
        to: Option<Role>,
        /// Wait for up to so many seconds for a gateway that is being started.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u32,
        /// For a program that runs one command per change, as keepalived does: if commands overtake each other, one that began
        /// earlier is without effect.
        #[arg(long)]
        in_order: bool,
    },
    /// Show version, uptime, device and table size of the gateway, and what is missing of what it installed in the system.
    /// Exit code: 0 if all of it is there, 3 if something is missing or without effect, 1 without an answer.
    Status,
    /// Explain what would become of a packet, of the next packet of a flow, or of a client: the rule that matches, the
    /// flow or the service, each server with the reason why it is chosen or not, the rewrite, the timers. Changes nothing.
    Explain(Explain),
    /// Remove flows from the table without notifying their ends: one by its ID, or all that a filter selects.
    #[command(after_help = FILTERS)]
    Kill {
        /// ID of the flow, as listed by `eqctl flows`, for example 1042.3; or a filter.
        #[arg(value_name = "ID|FILTER", required = true)]
        what: Vec<String>,
        /// Only say which flows and how many it would be.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the token that changes through the page and the API need (`[http]` in the configuration). Each start of the
    /// gateway has another one.
    Token,
    /// Add, remove and change servers at run time. Changes are kept over reloads until the file says something else for
    /// that key; `eqctl changes` lists them.
    #[command(subcommand)]
    Server(ServerCommand),
}

/// The commands for a pool.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Change keys of a pool: floor, mtu, and those of [pool.passive] as passive.KEY.
    Set {
        /// The pool, as listed by `eqctl pool`.
        #[arg(value_name = "POOL")]
        pool: String,
        /// What to set, as in the configuration file; KEY= sets the default.
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
        keys: Vec<(String, String)>,
    },
}

/// The commands for what differs from the file.
#[derive(Debug, Subcommand)]
pub enum ChangesCommand {
    /// Print the configuration file with the changes in it. Comments and layout stay.
    Save {
        /// Print the difference instead, as patch(1) takes it.
        #[arg(long)]
        patch: bool,
    },
    /// Go back to what the file says.
    Drop(Dropped),
}

/// What to drop.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Dropped {
    /// Drop every change.
    #[arg(long, conflicts_with_all = ["kind", "name", "key"])]
    all: bool,
    /// Kind of the object, as listed by `eqctl changes`: server, pool, service or rule.
    #[arg(value_parser = kind, requires = "name")]
    kind: Option<Kind>,
    /// Name of the object.
    name: Option<String>,
    /// The key; all of the object if omitted.
    key: Option<String>,
}

impl Dropped {
    /// Returns the request for it.
    pub fn request(&self) -> Request {
        let object = self.kind.zip(self.name.as_ref()).map(|(kind, name)| Target::new(kind, name));
        Request::Drop { object, key: self.key.clone() }
    }
}

/// The commands for a server.
///
/// A server is written POOL/SERVER; the pool may be left out where only one has a server of that name.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Add a server to a pool.
    Add {
        /// The new server.
        #[arg(value_name = "POOL/SERVER")]
        server: String,
        /// Its keys, as in the configuration file: address=10.0.0.4 port=8080 weight=2.
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
        keys: Vec<(String, String)>,
    },
    /// Remove a server: it gets no new flows and is gone with its last one.
    Remove {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "SERVER")]
        server: String,
        /// End its flows at once, TCP flows by resets to both ends.
        #[arg(long)]
        now: bool,
        /// Wait until it has no flows left. Ctrl-C stops waiting and nothing else.
        #[arg(long)]
        wait: bool,
    },
    /// Change keys of a server.
    Set {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "SERVER")]
        server: String,
        /// What to set, as in the configuration file; KEY= sets the default.
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
        keys: Vec<(String, String)>,
    },
    /// Change the weight of a server; its flows stay.
    Weight {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "SERVER")]
        server: String,
        /// New weight, 0 to 65535; with 0 the server gets no new flows.
        weight: u16,
    },
    /// Drain a server: it keeps its flows but gets no new ones, sticky or not. With --wait, exit code 0 if its last flow has
    /// ended, 3 if the deadline has passed.
    Drain {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "SERVER")]
        server: String,
        /// End the remaining flows after this time (such as 10m), TCP flows by resets to both ends. "none" removes the deadline
        /// of a server that drains already; without this option it stays.
        #[arg(long, value_name = "TIME|none", value_parser = deadline)]
        deadline: Option<Deadline>,
        /// Wait for the end, and show what is left. Ctrl-C stops waiting; the server goes on draining.
        #[arg(long)]
        wait: bool,
    },
    /// Disable a server: its flows are handled as for a server that is down (`on-down` of the service).
    Disable {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "SERVER")]
        server: String,
    },
    /// Enable a server: it gets new flows again.
    Enable {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "SERVER")]
        server: String,
    },
    /// Set the reported load of a server, for the algorithm `resource-usage`; valid for a minute.
    Load {
        /// The server, as listed by `eqctl servers`.
        #[arg(value_name = "SERVER")]
        server: String,
        /// Load in percent, 0 (idle) to 100.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        load: u8,
        /// Mark the server as under maintenance: it gets no new flows.
        #[arg(long)]
        maintenance: bool,
    },
}

/// After what time the flows of a draining server are ended; none for never.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Option<Duration>);

fn deadline(text: &str) -> Result<Deadline, humantime::DurationError> {
    if text == "none" {
        return Ok(Deadline(None));
    }
    humantime::parse_duration(text).map(|span| Deadline(Some(span)))
}

impl ServerCommand {
    /// Returns the request for it.
    pub fn request(&self) -> Request {
        let server = |name: &str| Target::new(Kind::Server, name);
        let set = |name: &str, key: &str, value: String| Request::Set {
            object: server(name),
            values: [(key.into(), Some(value))].into(),
            deadline_ms: None,
        };
        let state = |name: &str, state: &str| set(name, "state", format!("{state:?}"));
        match self {
            ServerCommand::Add { server: name, keys } => {
                let values = keys.iter().map(|(key, value)| (key.clone(), notation(Kind::Server, key, value)));
                Request::Add { object: server(name), values: values.collect() }
            }
            ServerCommand::Remove { server: name, now, .. } => Request::Remove { object: server(name), now: *now },
            ServerCommand::Set { server: name, keys } => set_request(server(name), keys),
            ServerCommand::Weight { server, weight } => set(server, "weight", weight.to_string()),
            ServerCommand::Drain { server: name, deadline, .. } => Request::Set {
                object: server(name),
                values: [("state".into(), Some("\"draining\"".into()))].into(),
                deadline_ms: deadline
                    .map(|Deadline(span)| span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))),
            },
            ServerCommand::Disable { server } => state(server, "disabled"),
            ServerCommand::Enable { server } => state(server, "enabled"),
            ServerCommand::Load { server, load, maintenance } => {
                Request::Load { server: server.clone(), load: *load, maintenance: *maintenance }
            }
        }
    }

    /// Returns whether to wait until the server has no flows left.
    pub fn waits(&self) -> bool {
        matches!(self, ServerCommand::Remove { wait: true, .. } | ServerCommand::Drain { wait: true, .. })
    }
}

/// Returns the request that sets keys; an empty value is the default.
pub fn set_request(object: Target, keys: &[(String, String)]) -> Request {
    let value = |(key, value): &(String, String)| {
        let value = Some(value).filter(|value| !value.is_empty());
        (key.clone(), value.map(|value| notation(object.kind, key, value)))
    };
    Request::Set { values: keys.iter().map(value).collect(), object, deadline_ms: None }
}

impl Command {
    /// Returns whether it lists something that may be shown again and again.
    fn is_list(&self) -> bool {
        matches!(
            self,
            Command::Flows(_)
                | Command::Servers(_)
                | Command::Services(_)
                | Command::Monitors
                | Command::History
                | Command::Sources
                | Command::Sync
                | Command::Rules
                | Command::Nat
                | Command::Counters { .. }
                | Command::Status
                | Command::Pool { command: None }
                | Command::Changes { command: None }
                | Command::Sticky { command: None, .. }
                | Command::Events { follow: false }
        )
    }

    /// Returns whether its answer has rows with columns.
    fn has_rows(&self) -> bool {
        let is_change = match self {
            Command::Kill { .. }
            | Command::Rule { .. }
            | Command::Service { .. }
            | Command::Pool { .. }
            | Command::Sticky { .. }
            | Command::Events { .. }
            | Command::Changes { command: Some(ChangesCommand::Drop(_)) } => true,
            Command::Server(command) => !command.waits(),
            _ => false,
        };
        is_change || (self.is_list() && !matches!(self, Command::Status))
    }

    /// Returns the keys with values that it is given.
    pub fn keys(&self) -> Option<&[(String, String)]> {
        match self {
            Command::Server(ServerCommand::Add { keys, .. } | ServerCommand::Set { keys, .. })
            | Command::Pool { command: Some(PoolCommand::Set { keys, .. }) } => Some(keys),
            _ => None,
        }
    }
}

/// Names a key that is given twice.
pub fn given_twice(keys: &[(String, String)]) -> Option<&str> {
    let twice = keys.iter().enumerate().find(|(place, (key, _))| keys[..*place].iter().any(|(other, _)| other == key));
    twice.map(|(_, (key, _))| key.as_str())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.trim().is_empty());
    let (key, value) = pair.ok_or_else(|| "write KEY=VALUE, for example weight=5".to_owned())?;
    Ok((key.trim().into(), value.trim().into()))
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| "use server, pool, service or rule".into())
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
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

/// How filters are written.
const FILTERS: &str = "\
Filters:
  [src|dst] host ADDRESS    [src|dst] net NETWORK    [src|dst] port PORT|FIRST-LAST
  client ADDRESS|NETWORK    service NAME    server POOL/SERVER    pool NAME
  rule NAME    proto NAME    state NAME    tcp, udp, icmp, sctp, gre, ...
  and, or, not, parentheses (in quotes, for the shell)

  A flow has four addresses: its client, the service address, the source that the
  server sees, and the server. host, net and port look at all of them; src at those
  that packets of the client come from, dst at those that they go to.

Examples:
  eqctl flows host 198.51.100.7 and not port 443
  eqctl flows 'tcp and (server web/web-1 or server web/web-2)' --sort idle --top 5
  eqctl kill --dry-run client 198.51.100.0/24 and service web";

/// Whether rates are measured.
#[derive(Debug, clap::Args)]
pub struct Measure {
    /// Measure for a second, and show what passes per second.
    #[arg(long)]
    pub rates: bool,
}

/// Which sticky clients.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Only clients of this service, and of those that share its clients.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only clients of this server.
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// Only this client address or network.
    #[arg(long, value_name = "NET", value_parser = network)]
    client: Option<IpNet>,
}

impl Which {
    fn query(&self) -> StickyQuery {
        let (service, server) = (self.service.clone(), self.server.clone());
        StickyQuery { service, server, client: self.client }
    }

    /// Returns the request that lists them.
    pub fn list(&self, limit: Option<u64>) -> Request {
        Request::Sticky { query: self.query(), limit }
    }
}

/// The commands for sticky clients.
#[derive(Debug, Subcommand)]
pub enum StickyCommand {
    /// Forget clients: their next flow goes to the server that the algorithm chooses. Flows that they have stay.
    Clear {
        #[command(flatten)]
        which: Which,
        /// All clients of all services.
        #[arg(long, conflicts_with_all = ["service", "server", "client"],
              required_unless_present_any = ["service", "server", "client"])]
        all: bool,
    },
}

impl StickyCommand {
    /// Returns the request for it.
    pub fn request(&self) -> Request {
        let StickyCommand::Clear { which, all } = self;
        Request::ClearSticky { query: which.query(), all: *all }
    }
}

/// The flows to list; all given conditions must match.
#[derive(Debug, clap::Args)]
pub struct Flows {
    /// Only flows that this selects; see below.
    #[arg(value_name = "FILTER")]
    words: Vec<String>,
    /// Only flows of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only flows to this server.
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// Only flows from this client address or network: 198.51.100.7, 198.51.100.0/24, 2001:db8::/32.
    #[arg(long, value_name = "NET", value_parser = network)]
    client: Option<IpNet>,
    /// Only flows of this protocol.
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<Protocol>,
    /// List the flows with most of it first: bytes, packets, age, idle.
    #[arg(long, value_name = "KEY", value_parser = sort_by)]
    sort: Option<SortBy>,
    /// List the first N flows of those sorted, at most 10,000; sorted by bytes unless --sort says otherwise.
    #[arg(long, value_name = "N", conflicts_with = "limit", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    top: Option<u64>,
    /// List at most N flows.
    #[arg(long, value_name = "N", conflicts_with = "sort")]
    limit: Option<u64>,
}

/// Flows of a sorted list where no number is given.
const TOP: u64 = 20;

impl Flows {
    /// Returns what the flows are sorted by.
    pub fn sorted(&self) -> Option<SortBy> {
        self.sort.or(self.top.map(|_| SortBy::Bytes))
    }

    /// Returns the number of flows of a sorted list.
    pub fn top(&self) -> Option<u64> {
        self.sorted().map(|_| self.top.unwrap_or(TOP))
    }

    /// Returns the request for these flows; where no number is given, at most `most`.
    pub fn request(&self, most: Option<u64>) -> Request {
        let query = FlowQuery {
            service: self.service.clone(),
            server: self.server.clone(),
            client: self.client,
            protocol: self.protocol,
            ..FlowQuery::default()
        };
        let filter = (!self.words.is_empty()).then(|| filter(&self.words));
        Request::Flows { query, filter, sort: self.sorted(), limit: self.top().or(self.limit).or(most) }
    }
}

/// Reads a filter.
fn filter(words: &[String]) -> FilterWords {
    words.join(" ").parse().unwrap_or_else(|error| Args::refuse(&format!("{error}")))
}

/// Returns the request that removes flows.
pub fn kill_request(what: &[String], dry_run: bool) -> Request {
    let flow = what.first().filter(|_| what.len() == 1).and_then(|one| one.parse().ok());
    match flow {
        Some(_) if dry_run => Args::refuse("--dry-run is for filters"),
        Some(flow) => Request::Kill { flow },
        None => Request::KillFlows { filter: flow_or_filter(what), dry_run },
    }
}

/// Reads a filter where the ID of a flow would be right, too.
fn flow_or_filter(what: &[String]) -> FilterWords {
    match (what, what.join(" ").parse()) {
        (_, Ok(filter)) => filter,
        ([_], Err(error)) => {
            Args::refuse(&format!("{error}\na flow ID has the form INDEX.GENERATION, for example 1042.3"))
        }
        (_, Err(error)) => Args::refuse(&format!("{error}")),
    }
}

fn sort_by(text: &str) -> Result<SortBy, String> {
    let found = SortBy::ALL.into_iter().find(|by| by.name() == text);
    found.ok_or_else(|| format!("use {}", SortBy::ALL.map(SortBy::name).join(", ")))
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address).ok_or_else(|| "neither an address nor a network such as 198.51.100.0/24".into())
}

fn protocol(text: &str) -> Result<Protocol, String> {
    let found = Protocol::from_name(&text.to_ascii_lowercase());
    found.ok_or_else(|| "use tcp, udp, icmp, sctp, gre, esp, ipip or a number such as ip-89".into())
}

/// What a gateway of a pair is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// It takes new connections from now on.
    Active,
    /// It leaves them to the other gateway from now on.
    Standby,
    /// It has the other gateway take over as soon as that knows every flow, and forwards until then.
    Yield,
}

impl Role {
    /// Returns the request.
    pub fn request(self, begun: Option<Begun>) -> Request {
        let to = match self {
            Role::Active => RoleWord::Active,
            Role::Standby => RoleWord::Standby,
            Role::Yield => RoleWord::Yield,
        };
        Request::Role { to, begun }
    }
}
