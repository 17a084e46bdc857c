//! What is done to a gateway, and what came of it.

use super::clients::{Outcome, ask, connect};
use super::gateways::{Kind, start};
use super::ledger::{Account, dropped_by_devices};
use super::strangers::Filling;
use super::{Lab, Workers};
use std::time::{Duration, Instant};

/// New flows per second while clients are measured: what keeps 262,144 entries of five minutes full.
const STEADY: u32 = 874;
/// Until nothing is under way any more: several round trips.
const QUIET: Duration = Duration::from_millis(500);

/// What the strangers do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pressure {
    /// The table is full, and stays under pressure where the flows would not otherwise be renewed.
    Full(Filling),
    /// SYNs per second from random sources.
    Flood(u32),
    /// The same while the table is full.
    FullAndFlood(Filling, u32),
}

/// What the measured clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    Tcp,
    Dns,
}

/// A scenario and how large it is.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub pressure: Pressure,
    pub measured: Measured,
    /// Size of the table of Equipoise.
    pub flows: u64,
    /// What part of the table is filled before clients are measured.
    pub part: f64,
    /// Clients per second, and how many.
    pub per_second: u32,
    pub clients: usize,
    /// How long the table is left alone between its filling and the measurement.
    pub rest: Duration,
    /// Without offload towards the server.
    pub plain: bool,
}

/// What came of a scenario.
#[derive(Debug, Clone)]
pub struct Report {
    pub gateway: Kind,
    /// Flows in the table and its size when the measurement began; `None` without a table.
    pub table: Option<(u64, u64)>,
    /// Strangers' packets per second that really reached the gateway.
    pub strangers: u32,
    pub outcome: Outcome,
    pub account: Account,
    /// Equipoise's own words.
    pub reasons: String,
}

impl Scenario {
    /// Runs it on a gateway of a kind, in a lab of its own.
    pub fn run(&self, name: &str, kind: Kind) -> Report {
        let lab = Lab::new(name, self.plain);
        let gateway = start(&lab, kind, self.flows);
        // Neighbours are known, and the path works at all.
        let trial = connect(&lab, 20, 4);
        assert_eq!(trial.served, trial.tried, "{}: no client is served before anything happens", kind.name());
        let size = gateway.table().map_or(self.flows, |(_, size)| size);
        // A little more than it takes: those that were there before may have ended.
        let full = (size as f64 * self.part * 1.02) as u64 + 10;
        if let Pressure::Full(filling) | Pressure::FullAndFlood(filling, _) = self.pressure {
            lab.fill(filling, full);
            // Only Equipoise distinguishes by age.
            if kind == Kind::Equipoise {
                std::thread::sleep(self.rest);
            }
        }
        std::thread::sleep(QUIET);
        let table = gateway.table();
        let (before, began) = (lab.page(gateway.totals()), Instant::now());
        let mut strangers = self.press(&lab, size, full);
        let outcome = match self.measured {
            Measured::Tcp => connect(&lab, self.per_second, self.clients),
            Measured::Dns => ask(&lab, self.per_second, self.clients),
        };
        if let Some(strangers) = &mut strangers {
            strangers.end();
        }
        let lasted = began.elapsed();
        std::thread::sleep(QUIET);
        let page = lab.page(gateway.totals());
        Report {
            gateway: kind,
            table,
            strangers: (page.strangers_since(&before) as f64 / lasted.as_secs_f64()) as u32,
            outcome,
            account: page.since(&before),
            reasons: gateway.reasons(),
        }
    }

    /// Starts what goes on while clients are measured. `full` flows are in the table already, if any.
    fn press(&self, lab: &Lab, size: u64, full: u64) -> Option<Workers> {
        match self.pressure {
            Pressure::Full(filling @ (Filling::OneWay | Filling::Answered)) => {
                Some(lab.keep_filling(filling, full, STEADY))
            }
            Pressure::Full(filling @ Filling::Idle) => Some(lab.keep_filling(filling, full, self.per_second)),
            // The clients themselves renew it.
            Pressure::Full(Filling::Closing) => None,
            Pressure::Flood(rate) | Pressure::FullAndFlood(_, rate) => {
                let strangers = lab.flood(rate, 1);
                // A table of this size would be full of them.
                let seconds = (size as f64 * 1.1 / f64::from(rate)).clamp(1.0, 12.0);
                std::thread::sleep(Duration::from_secs_f64(seconds));
                Some(strangers)
            }
        }
    }
}

/// Finds the rate of SYNs up to which no device of the gateway drops a packet, within a tenth.
pub fn quiet_rate(kind: Kind, flows: u64) -> u32 {
    let lab = Lab::new("rate", false);
    let _gateway = start(&lab, kind, flows);
    connect(&lab, 20, 4);
    let (mut good, mut bad) = (2_000_u32, 0);
    while bad == 0 || bad > good + good / 10 {
        let rate = if bad == 0 { good * 2 } else { good.midpoint(bad) };
        if drops_nothing(&lab, rate) {
            good = rate;
        } else {
            bad = rate;
        }
        if good > 1_000_000 {
            break;
        }
    }
    good
}

fn drops_nothing(lab: &Lab, rate: u32) -> bool {
    let dropped = || dropped_by_devices(&lab.gateway).into_iter().map(|(_, count)| count).sum::<u64>();
    // The other work of a machine may stop a gateway for a while: one quiet run out of two is enough.
    (0..2).any(|round| {
        let before = dropped();
        let mut flood = lab.flood(rate, u64::from(rate) + round);
        std::thread::sleep(Duration::from_secs(2));
        flood.end();
        std::thread::sleep(QUIET);
        dropped() == before
    })
}
