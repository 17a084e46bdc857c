//! Compares how fair Equipoise, nftables and the least TUN NAT are when their tables are full and when they are flooded:
//! run by `tools/lab-fairness`, whose `--help` explains the options.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "shares helpers with the device tests")]
#![allow(clippy::disallowed_methods, reason = "real programs take real time")]

#[path = "devices/lab/mod.rs"]
mod lab;
#[path = "devices/world.rs"]
mod world;

use lab::clients::Outcome;
use lab::established::{Left, Through, measure};
use lab::gateways::Kind;
use lab::scenario::{Measured, Pressure, Report, Scenario, quiet_rate};
use lab::strangers::Filling;
use std::time::Duration;

/// As in the device tests.
type Service = (&'static str, &'static str, usize, u16);

/// What the command line says; `tools/lab-fairness` has checked it.
struct Options {
    only: Vec<String>,
    gateways: Vec<Kind>,
    /// What the packets of `flood-established` go through.
    through: Vec<Through>,
    flows: u64,
    per_second: u32,
    seconds: u32,
    idle: Duration,
    /// SYNs per second that no device drops; measured if none is given.
    flood: Option<u32>,
    json: bool,
}

/// How often a flood that devices cannot take is measured.
const ROUNDS: usize = 3;

/// A row's name, what it measures and what is required of Equipoise, in percent.
type Row = (&'static str, Pressure, Measured, f64);

const FULL: [Row; 7] = [
    ("closing", Pressure::Full(Filling::Closing), Measured::Tcp, 100.0),
    ("closing-full", Pressure::Full(Filling::Closing), Measured::Tcp, 100.0),
    ("closing-plain", Pressure::Full(Filling::Closing), Measured::Tcp, 100.0),
    ("one-way", Pressure::Full(Filling::OneWay), Measured::Tcp, 99.0),
    ("answered", Pressure::Full(Filling::Answered), Measured::Tcp, 99.0),
    ("queries", Pressure::Full(Filling::Answered), Measured::Dns, 99.0),
    ("idle", Pressure::Full(Filling::Idle), Measured::Tcp, 99.0),
];

fn main() {
    let options = options();
    let mut unfair = Vec::new();
    print_head(&options);
    for (name, pressure, measured, least) in FULL {
        // The queues matter in a flood only.
        for kind in options.wanted(name).into_iter().filter(|kind| *kind != Kind::OneQueue) {
            // A row for the kernel alone: the others' "closing" is this one.
            if name == "closing-full" && kind != Kind::Nftables {
                continue;
            }
            let report = options.scenario(name, pressure, measured, kind).run(name, kind);
            print_row(&options, name, &report);
            if kind == Kind::Equipoise && (report.outcome.percent() < least || report.outcome.reset > 0) {
                unfair.push(format!("{name}: {:.1} % of {least} %", report.outcome.percent()));
            }
        }
    }
    floods(&options, &mut unfair);
    if !unfair.is_empty() {
        eprintln!("Equipoise is not fair: {}", unfair.join("; "));
        std::process::exit(1);
    }
}

/// The floods: at a rate of which the device of Equipoise drops nothing, alone and on a full table, and above it.
fn floods(options: &Options, unfair: &mut Vec<String>) {
    let [below, full, above, established] =
        ["flood", "flood-full", "flood-above", "flood-established"].map(|name| options.wanted(name));
    if [&below, &full, &above, &established].iter().all(|kinds| kinds.is_empty()) {
        return;
    }
    let mut rate = options.flood.unwrap_or_else(|| quiet_rate(Kind::Equipoise, options.flows) / 10 * 8);
    let run =
        |name: &str, rate, kind| options.scenario(name, Pressure::Flood(rate), Measured::Tcp, kind).run(name, kind);
    if below.contains(&Kind::Equipoise) {
        let mut own = run("flood", rate, Kind::Equipoise);
        // A machine with other work to do is not equally fast at all times.
        for _ in 0..5 {
            if own.account.by_devices == 0 {
                break;
            }
            print_row(options, "(too much)", &own);
            rate = rate / 4 * 3;
            own = run("flood", rate, Kind::Equipoise);
        }
        print_row(options, "flood", &own);
        judge_decisions("flood", &own, unfair);
        if own.outcome.percent() < 99.0 {
            unfair.push(format!("flood: {:.1} % of 99 %", own.outcome.percent()));
        }
    }
    for kind in below.into_iter().filter(|kind| *kind != Kind::Equipoise) {
        print_row(options, "flood", &run("flood", rate, kind));
    }
    for kind in full {
        let pressure = Pressure::FullAndFlood(Filling::Closing, rate);
        let report = options.scenario("flood-full", pressure, Measured::Tcp, kind).run("flood-full", kind);
        print_row(options, "flood-full", &report);
        if kind == Kind::Equipoise && report.outcome.percent() < 99.0 {
            unfair.push(format!("flood-full: {:.1} % of 99 %", report.outcome.percent()));
        }
    }
    let mut above: Vec<(Kind, Outcome)> = above.into_iter().map(|kind| (kind, Outcome::default())).collect();
    // In turn, since other work of the machine comes and goes.
    for _ in 0..if above.is_empty() { 0 } else { ROUNDS } {
        for (kind, sum) in &mut above {
            let report = run("flood-above", rate * 5 / 2, *kind);
            print_row(options, "flood-above", &report);
            *sum += report.outcome;
            if *kind == Kind::Equipoise {
                judge_decisions("flood-above", &report, unfair);
            }
        }
    }
    let percent = |wanted| above.iter().find(|(kind, _)| *kind == wanted).map(|(_, sum)| sum.percent());
    if let (Some(own), Some(least)) = (percent(Kind::Equipoise), percent(Kind::Least))
        // One percent: the noise of a thousand clients.
        && own < least - 1.0
    {
        unfair.push(format!("flood-above: {own:.1} %, the least NAT {least:.1} %"));
    }
    if !established.is_empty() {
        keep(options, rate * 5 / 2, unfair);
    }
}

/// What those who are connected keep above that rate: of its throughput without a flood a stream at least 0.7 of the share
/// that forwarding by the kernel leaves it, answers within 50 ms, and every server.
fn keep(options: &Options, rate: u32, unfair: &mut Vec<String>) {
    if !options.json {
        println!(
            "{:17} {:10} {:>9} {:>8} {:>10} {:>9} {:>7} {:>6} {:>9}",
            "scenario", "through", "SYNs/s", "Gbit/s", "median ms", "p99 ms", "answers", "downs", "lost"
        );
    }
    let mut shares: Vec<(Through, Vec<f64>)> = options.through.iter().map(|through| (*through, Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (through, shares) in &mut shares {
            let through = *through;
            let [quiet, flooded] = [0, rate].map(|rate| {
                let left = measure(through, rate, options.seconds);
                print_left(options, through, &left);
                left
            });
            shares.push(flooded.gbits / quiet.gbits);
            let (p99, downs) = (flooded.p99, flooded.downs);
            let late = p99.is_none_or(|p99| p99 > Duration::from_millis(50));
            if matches!(through, Through::Equipoise | Through::Shortcut) && (late || downs != Some(0)) {
                let through = through.name();
                unfair.push(format!("flood-established, {through}: 99 % answered within {p99:?}, downs {downs:?}"));
            }
        }
    }
    let median = |wanted| {
        let mut of = shares.iter().find(|(through, _)| *through == wanted)?.1.clone();
        of.sort_by(f64::total_cmp);
        of.get(of.len() / 2).copied()
    };
    let Some(forwarding) = median(Through::Forwarding) else { return };
    for through in [Through::Equipoise, Through::Shortcut] {
        let Some(own) = median(through) else { continue };
        let name = through.name();
        if !options.json {
            println!("flood-established: a stream keeps {own:.2} with {name}, {forwarding:.2} by forwarding");
        }
        if own < 0.7 * forwarding {
            unfair.push(format!("flood-established, {name}: a stream keeps {own:.2}, by forwarding {forwarding:.2}"));
        }
    }
}

fn print_left(options: &Options, through: Through, left: &Left) {
    let ms = |span: Option<Duration>| span.map(|span| span.as_secs_f64() * 1e3);
    if options.json {
        let row = serde_json::json!({
            "scenario": "flood-established", "through": through.name(), "strangers_per_second": left.flood,
            "gbit_per_second": left.gbits, "median_ms": ms(left.median), "p99_ms": ms(left.p99),
            "answers": left.answers, "downs": left.downs, "lost": left.lost,
        });
        println!("{row}");
        return;
    }
    let shown = |span| ms(span).map_or("-".into(), |ms| format!("{ms:.2}"));
    let or_none = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
    println!(
        "flood-established {:10} {:>9} {:>8.2} {:>10} {:>9} {:>7} {:>6} {:>9}",
        through.name(),
        left.flood,
        left.gbits,
        shown(left.median),
        shown(left.p99),
        left.answers,
        or_none(left.downs.map(|n| n as u64)),
        or_none(left.lost),
    );
}

/// Notes it if Equipoise dropped or answered anything of its own accord in a flood.
fn judge_decisions(name: &str, own: &Report, unfair: &mut Vec<String>) {
    if own.account.by_decision > 0 || own.account.engine_says != Some(0) {
        let (lost, says) = (own.account.by_decision, own.account.engine_says.unwrap_or_default());
        unfair.push(format!("{name}: it decided to drop {lost} packets, and says {says}"));
    }
}

impl Options {
    fn wanted(&self, name: &str) -> Vec<Kind> {
        let wanted = self.only.is_empty() || self.only.iter().any(|only| only == name);
        if wanted { self.gateways.clone() } else { Vec::new() }
    }

    fn scenario(&self, name: &str, pressure: Pressure, measured: Measured, kind: Kind) -> Scenario {
        // Closing flows stay for 120 s in the kernel and for 240 s in Equipoise (RFC 5382, REQ-5): the load that keeps
        // the table full there keeps it half full here.
        let closing =
            matches!(pressure, Pressure::Full(Filling::Closing) | Pressure::FullAndFlood(Filling::Closing, _));
        let half = kind == Kind::Nftables && closing && name != "closing-full";
        Scenario {
            pressure,
            measured,
            flows: self.flows,
            part: if half { 0.5 } else { 1.0 },
            per_second: self.per_second,
            clients: (self.per_second * self.seconds) as usize,
            rest: if name == "idle" { self.idle } else { Duration::ZERO },
            plain: name == "closing-plain",
        }
    }
}

fn options() -> Options {
    let mut options = Options {
        only: Vec::new(),
        gateways: Kind::ALL.to_vec(),
        through: Through::ALL.to_vec(),
        flows: 262_144,
        per_second: 200,
        seconds: 10,
        idle: Duration::from_secs(310),
        flood: None,
        json: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number =
            || words.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{word} needs a number"));
        match word.as_str() {
            "--json" => options.json = true,
            "--flows" => options.flows = number(),
            "--rate" => options.per_second = number() as u32,
            "--seconds" => options.seconds = number() as u32,
            "--idle" => options.idle = Duration::from_secs(number()),
            "--flood" => options.flood = Some(number() as u32),
            "--only" => options.only = words.next().unwrap().split(',').map(str::to_owned).collect(),
            "--gateways" => {
                let names = words.next().unwrap();
                options
                    .gateways
                    .retain(|kind| names.split(',').any(|name| kind.name().to_lowercase().starts_with(name)));
            }
            "--through" => {
                let names = words.next().unwrap();
                let is_named =
                    |through: &Through| names.split(',').any(|name| through.name().to_lowercase().starts_with(name));
                options.through.retain(is_named);
            }
            // Of `cargo test`.
            _ => panic!("there is no option {word}"),
        }
    }
    options
}

fn print_head(options: &Options) {
    if options.json {
        return;
    }
    println!(
        "{} clients/s for {} s, 100 ms away; losses in packets, negative where the gateway sent some of its own",
        options.per_second, options.seconds
    );
    println!(
        "{:14} {:10} {:>17} {:>9} {:>8} {:>6} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "scenario",
        "gateway",
        "table",
        "strangers",
        "served %",
        "late",
        "resets",
        "lost",
        "devices",
        "decision",
        "says"
    );
}

fn print_row(options: &Options, name: &str, report: &Report) {
    let Report { gateway, table, strangers, outcome, account, reasons } = report;
    if options.json {
        let row = serde_json::json!({
            "scenario": name, "gateway": gateway.name(), "flows": table.map(|t| t.0), "max_flows": table.map(|t| t.1),
            "strangers_per_second": strangers, "tried": outcome.tried, "served": outcome.served,
            "percent": outcome.percent(), "late": outcome.late, "reset": outcome.reset, "resets_made": account.resets,
            "lost_of_clients": account.lost_of_clients, "lost": account.lost, "lost_by_devices": account.by_devices,
            "lost_by_decision": account.by_decision, "engine_says": account.engine_says, "reasons": reasons,
        });
        println!("{row}");
        return;
    }
    let table = table.map_or("none".into(), |(flows, size)| format!("{flows}/{size}"));
    let says = account.engine_says.map_or("-".into(), |says| says.to_string());
    println!(
        "{name:14} {:10} {table:>17} {strangers:>7}/s {:>8.1} {:>6} {:>7} {:>9} {:>9} {:>9} {says:>9}",
        gateway.name(),
        outcome.percent(),
        outcome.late,
        account.resets,
        account.lost_of_clients,
        account.by_devices,
        account.by_decision,
    );
    if !reasons.is_empty() {
        println!("{:14} {reasons}", "");
    }
}
