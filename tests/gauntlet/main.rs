//! Compares Equipoise with the plain kernel on gateways as people have them: run by `tools/gauntlet`, whose `--help`
//! explains the options.

#![allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "shares helpers with the device tests")]
#![allow(clippy::disallowed_methods, reason = "real programs take real time")]

mod network;
mod questions;
mod situations;
#[path = "../devices/world.rs"]
mod world;

use network::{Network, ready};
use situations::Situation;
use std::process::ExitCode;
use std::time::Duration;

/// As in the device tests.
type Service = (&'static str, &'static str, usize, u16);

/// How the gateway balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kernel,
    Equipoise,
}

/// What was answered wrongly in a situation, by kind.
struct Row {
    situation: &'static Situation,
    asked: usize,
    kernel: Vec<String>,
    equipoise: Vec<String>,
}

impl Row {
    /// Questions that the kernel answers and Equipoise does not.
    fn worse(&self) -> Vec<&String> {
        self.equipoise.iter().filter(|name| !self.kernel.contains(name)).collect()
    }

    fn verdict(&self) -> &'static str {
        match (self.worse().is_empty(), self.kernel.len() > self.equipoise.len()) {
            (true, true) => "better",
            (true, false) => "equal",
            (false, _) => "WORSE",
        }
    }
}

/// The exit code if Equipoise has not the right to load BPF programs, or the kernel is too old: then it is known to be
/// worse, as its log says.
const CANNOT_TELL: u8 = 77;

fn main() -> ExitCode {
    let (only, json) = options();
    if let Some(said) = lacks_marks() {
        eprintln!("gauntlet: {said}");
        return ExitCode::from(CANNOT_TELL);
    }
    let names = || situations::ALL.iter().map(|situation| situation.name);
    if let Some(nothing) = only.iter().find(|only| !names().any(|name| name.contains(only.as_str()))) {
        eprintln!("gauntlet: no situation contains {nothing:?}; there are: {}", names().collect::<Vec<_>>().join(", "));
        return ExitCode::from(2);
    }
    let mut worse = 0;
    if !json {
        println!("{:42} {:>12} {:>10}  verdict", "situation", "plain kernel", "Equipoise");
    }
    for (place, situation) in situations::ALL.iter().enumerate() {
        if !only.is_empty() && !only.iter().any(|only| situation.name.contains(only.as_str())) {
            continue;
        }
        let wrong = |kind| run(&format!("gauntlet{place}{kind:?}").to_lowercase(), situation, kind);
        // At the same time: most of it is waiting.
        let (kernel, equipoise) = std::thread::scope(|scope| {
            let kernel = scope.spawn(|| wrong(Kind::Kernel));
            let equipoise = wrong(Kind::Equipoise);
            (kernel.join().unwrap(), equipoise)
        });
        let row = Row { situation, asked: situation.questions.len() * 2, kernel, equipoise };
        worse += usize::from(!row.worse().is_empty());
        print_row(&row, json);
    }
    if worse > 0 {
        eprintln!("gauntlet: Equipoise is worse than the plain kernel in {worse} situations");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns what the gateway's log says if only packets of flows cannot be told from others.
fn lacks_marks() -> Option<String> {
    let network = Network::new("gauntletrights");
    let _running = network.equipoise("");
    let log = network.world.log();
    log.lines().find(|line| line.contains("no BPF program can be used")).map(str::to_owned)
}

/// Makes the situation, starts the balancer and asks; returns what was answered wrongly.
fn run(name: &str, situation: &Situation, kind: Kind) -> Vec<String> {
    let network = Network::new(name);
    ready(&network);
    (situation.make)(&network);
    let _running = match kind {
        Kind::Kernel => {
            network.kernel();
            None
        }
        Kind::Equipoise => Some(network.equipoise("")),
    };
    if let Some(event) = situation.event {
        event(&network, kind);
        std::thread::sleep(Duration::from_secs(1));
    }
    questions::ask(&network, situation.questions)
}

fn print_row(row: &Row, json: bool) {
    let right = |wrong: &[String]| row.asked - wrong.len();
    if json {
        let row = serde_json::json!({
            "situation": row.situation.name, "asked": row.asked, "verdict": row.verdict().to_lowercase(),
            "kernel_wrong": row.kernel, "equipoise_wrong": row.equipoise,
        });
        println!("{row}");
        return;
    }
    println!(
        "{:42} {:>9}/{} {:>7}/{}  {}",
        row.situation.name,
        right(&row.kernel),
        row.asked,
        right(&row.equipoise),
        row.asked,
        row.verdict()
    );
    for name in row.worse() {
        println!("    the kernel does it, Equipoise does not: {name}");
    }
}

/// Reads `--only TEXT,...` and `--json`; `tools/gauntlet` has checked them.
fn options() -> (Vec<String>, bool) {
    let (mut only, mut json) = (Vec::new(), false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = true,
            "--only" => only = words.next().expect("a text").split(',').map(str::to_owned).collect(),
            _ => panic!("there is no option {word}"),
        }
    }
    (only, json)
}
