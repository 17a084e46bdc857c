//! All tables of a gateway at about the same time, gathered in small steps between packets: for metrics and the page.
//!
//! ```text
//!  Gathering --step, step, ... (bounded work each)--> Gathered --(another thread)--> text, JSON
//! ```
//!
//! Rows are values, so whoever prints them needs neither the engine nor its thread. It must not know how they are printed.

use super::protocol::{OperationRow, SourceRow, Status, SyncRow, Totals};
use super::session::{About, Floor};
use super::system::source_row;
use crate::config::Settings;
use crate::engine::{HistoryRow, MonitorRow, NatRow, RuleRow, ServerRow, ServiceRow};
use crate::health::ProbeTotals;
use crate::histogram::Histogram;
use std::sync::Arc;

/// Rows of servers, services or monitored servers per step: about 0.1 ms of work.
const PART: usize = 128;

/// Bounds of [`Work::turns`] in nanoseconds: 10 us to 1 s.
const TURNS: [u64; 16] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// How a gateway's loop works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The time of each turn in nanoseconds, from an event to the next wait.
    pub turns: Histogram,
    /// The packets that were read at a time.
    pub batches: Histogram,
}

impl Default for Work {
    fn default() -> Self {
        Work { turns: Histogram::new(&TURNS), batches: Histogram::new(&[1, 2, 4, 8, 16, 32]) }
    }
}

/// What is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// [`Status`].
    Status,
    /// [`Snapshot`].
    All,
    /// [`MonitorRow`]s.
    Monitors,
    /// [`HistoryRow`]s and [`OperationRow`]s.
    History,
}

/// What was gathered.
#[derive(Debug, Clone)]
pub enum Gathered {
    /// The status alone.
    Status(Arc<Status>),
    /// The tables that metrics are made of.
    All(Arc<Snapshot>),
    /// The results of the monitors.
    Monitors(Arc<Vec<MonitorRow>>),
    /// What happened to servers, and what operators and reloads changed.
    History(Arc<(Vec<HistoryRow>, Vec<OperationRow>)>),
}

/// The tables that metrics are made of.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The status.
    pub status: Status,
    /// The totals of engine and device.
    pub totals: Totals,
    /// The services.
    pub services: Vec<ServiceRow>,
    /// The servers.
    pub servers: Vec<ServerRow>,
    /// The rules.
    pub rules: Vec<RuleRow>,
    /// The port usage of the NAT pools.
    pub nat: Vec<NatRow>,
    /// The sources of servers.
    pub sources: Vec<SourceRow>,
    /// What became of all probes.
    pub probes: Vec<ProbeTotals>,
    /// How the loop works.
    pub work: Work,
    /// The other gateway of a pair, if there is one.
    pub sync: Option<SyncRow>,
}

/// Gathers a topic, step by step.
#[derive(Debug)]
pub struct Gathering {
    topic: Topic,
    /// The plan under which the rows were gathered: under another one their places are others.
    settings: Option<Arc<Settings>>,
    /// How far the rows of `services` or `servers` are.
    services_at: Option<usize>,
    servers_at: Option<usize>,
    services: Vec<ServiceRow>,
    servers: Vec<ServerRow>,
    monitors: Vec<MonitorRow>,
    history: Vec<HistoryRow>,
}

impl Gathering {
    /// Begins.
    pub fn new(topic: Topic) -> Gathering {
        Gathering {
            topic,
            settings: None,
            services_at: Some(0),
            servers_at: Some(0),
            services: Vec::new(),
            servers: Vec::new(),
            monitors: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Does a bounded amount of work; returns all of it once it is complete.
    pub fn step(&mut self, floor: &mut Floor<'_>, about: &About, work: &Work) -> Option<Gathered> {
        let settings = floor.ledger.in_force();
        if self.settings.as_ref().is_none_or(|begun| !Arc::ptr_eq(begun, settings)) {
            *self = Gathering { settings: Some(Arc::clone(settings)), ..Gathering::new(self.topic) };
        }
        let (engine, now) = (&*floor.engine, floor.now);
        match self.topic {
            Topic::Status => Some(Gathered::Status(Arc::new(Status::of(about, floor)))),
            Topic::All => self.all(floor, about, work),
            Topic::Monitors => {
                self.servers_at = engine.monitors_part(now, self.servers_at?, PART, &mut self.monitors);
                self.is_complete().then(|| Gathered::Monitors(Arc::new(std::mem::take(&mut self.monitors))))
            }
            Topic::History => {
                self.servers_at = engine.health_history_part(now, self.servers_at?, PART, &mut self.history);
                let of_servers = self.is_complete().then(|| std::mem::take(&mut self.history))?;
                Some(Gathered::History(Arc::new((of_servers, floor.ledger.operation_rows(now)))))
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.servers_at.is_none()
    }

    fn all(&mut self, floor: &mut Floor<'_>, about: &About, work: &Work) -> Option<Gathered> {
        let (engine, now) = (&*floor.engine, floor.now);
        if let Some(at) = self.services_at {
            self.services_at = engine.services_part(at, PART, &mut self.services);
            return None;
        }
        if let Some(at) = self.servers_at {
            self.servers_at = engine.servers_part(now, at, PART, &mut self.servers);
            return None;
        }
        let snapshot = Snapshot {
            status: Status::of(about, floor),
            totals: Totals { engine: engine.counters(), device: floor.outside.device },
            services: std::mem::take(&mut self.services),
            servers: std::mem::take(&mut self.servers),
            rules: engine.rules(),
            nat: engine.nat_pools(),
            sources: floor.outside.sources.iter().map(|state| source_row(state, now)).collect(),
            probes: engine.probe_totals().to_vec(),
            work: work.clone(),
            sync: floor.pair.as_ref().map(|pair| pair.row(floor.engine, now)),
        };
        Some(Gathered::All(Arc::new(snapshot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::control::{Ledger, Outside};
    use crate::engine::Engine;
    use crate::time::Instant;
    use std::fmt::Write as _;

    fn parse(servers: usize) -> Settings {
        let mut text = "[[service]]\nname='s'\nlisten='192.0.2.80:80/tcp'\npool='p'\n[[pool]]\nname='p'\n".to_owned();
        for n in 0..servers {
            writeln!(text, "[[pool.server]]\nname='a{n}'\naddress='10.0.{}.{}'", n / 250, n % 250 + 1).unwrap();
        }
        config::parse(&text, "x.toml").unwrap_or_else(|error| panic!("{error}"))
    }

    struct Lab {
        engine: Engine,
        ledger: Ledger,
        about: About,
        outside: Outside,
    }

    impl Lab {
        fn new(servers: usize) -> Lab {
            let settings = parse(servers);
            let engine = Engine::try_new(&settings).unwrap();
            let about = About::new(&settings, Instant::ZERO, 7);
            Lab { engine, ledger: Ledger::new(None, settings), about, outside: Outside::default() }
        }

        fn step(&mut self, gathering: &mut Gathering) -> Option<Gathered> {
            let Lab { engine, ledger, about, outside } = self;
            let now = Instant::from_nanos(5);
            gathering.step(&mut Floor { engine, ledger, now, outside, pair: None }, about, &Work::default())
        }

        fn all(&mut self, gathering: &mut Gathering) -> (usize, Gathered) {
            let steps = (1..1000).map(|n| (n, self.step(gathering)));
            steps.filter_map(|(n, got)| Some((n, got?))).next().expect("an end")
        }
    }

    #[test]
    fn ten_thousand_rows_are_gathered_in_small_steps_and_are_those_of_the_tables() {
        let mut lab = Lab::new(1000);
        let (steps, got) = lab.all(&mut Gathering::new(Topic::All));
        let Gathered::All(snapshot) = got else { panic!("{got:?}") };
        assert_eq!(snapshot.servers, lab.engine.servers(Instant::from_nanos(5)));
        assert_eq!(snapshot.services, lab.engine.services());
        assert_eq!(snapshot.status.servers, 1000);
        assert!(steps >= 1000 / PART, "{steps} steps");
        let (_, monitors) = lab.all(&mut Gathering::new(Topic::Monitors));
        assert!(matches!(monitors, Gathered::Monitors(rows) if rows.is_empty()), "nothing is monitored");
    }

    #[test]
    fn rows_of_two_plans_are_not_mixed() {
        let mut lab = Lab::new(200);
        let mut gathering = Gathering::new(Topic::All);
        for _ in 0..3 {
            assert!(lab.step(&mut gathering).is_none());
        }
        let other = Lab::new(100);
        (lab.engine, lab.ledger) = (other.engine, other.ledger);
        let Gathered::All(snapshot) = lab.all(&mut gathering).1 else { panic!("not all") };
        assert_eq!(snapshot.servers.len(), 100);
    }
}
