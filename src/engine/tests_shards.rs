//! Two shards, one plan, one standing: each decides as it would alone, and a look leaves no trace in either.

use super::testing::{VIP, at, bytes, settings, tcp};
use super::*;
use crate::balance::{Admin, Algorithm, Prefixes, Stickiness};
use crate::ids::ServerId;
use crate::policy::{Action, Limits, RuleSettings};
use crate::rng::Rng;
use crate::time::Duration;

const CLIENTS: u64 = 40;

/// One engine whose shard can be exchanged for another.
struct Two {
    engine: Engine,
    other: Shard,
}

impl Two {
    fn new(settings: &Settings) -> Self {
        let engine = Engine::new(settings);
        let other = Shard::try_new(&engine.plan).expect("memory");
        Two { engine, other }
    }

    /// Runs a function with the shard that a client belongs to.
    fn at_home<T>(&mut self, client: u8, act: impl FnOnce(&mut Engine) -> T) -> T {
        let away = client % 2 == 1;
        if away {
            std::mem::swap(&mut self.engine.shard, &mut self.other);
        }
        let done = act(&mut self.engine);
        if away {
            std::mem::swap(&mut self.engine.shard, &mut self.other);
        }
        done
    }

    fn handle_timeout(&mut self, now: Instant) {
        (0..2).for_each(|client| self.at_home(client, |engine| engine.handle_timeout(now)));
    }
}

/// An input: a connection that a client opens, or a change by an operator.
#[derive(Debug, Clone)]
enum Input {
    Syn { client: u8, port: u16 },
    Change(Change),
}

fn inputs(seed: u64) -> Vec<(Instant, Input)> {
    let mut random = Rng::new(seed);
    let input = |second: u64| {
        let server = ServerId(random.below(4) as u32);
        let input = match random.below(12) {
            0 => Input::Change(Change::Weight { server, weight: random.below(4) as u16 }),
            1 => {
                let admin = [Admin::Enabled, Admin::Enabled, Admin::Draining][random.below(3) as usize];
                Input::Change(Change::Admin { server, admin, deadline: None })
            }
            2 => Input::Change(Change::Health { server, up: [None, None, Some(false)][random.below(3) as usize] }),
            _ => Input::Syn { client: random.below(CLIENTS) as u8, port: 1000 + random.below(500) as u16 },
        };
        (at(second), input)
    };
    (1..400).map(input).collect()
}

fn with(algorithm: Algorithm, change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings(4, 1000);
    settings.seed = 7;
    settings.services[0].algorithm = algorithm;
    change(&mut settings);
    settings
}

fn limited(settings: &mut Settings) {
    let limits = Limits { client_flows: Some(3), client_rate: Some(2), ..Limits::default() };
    settings.policy.rules = vec![RuleSettings { limits, ..RuleSettings::new("few", Action::Balance(None)) }];
}

fn sticky(settings: &mut Settings) {
    let slots = Stickiness { prefixes: Prefixes::ADDRESS, idle: Duration::from_secs(60), slots: 1000, group: 0 };
    settings.services[0].sticky = Some(slots);
}

/// Passes in a SYN; returns its verdict without the flow's name, and the packet that is sent.
fn open(engine: &mut Engine, now: Instant, client: u8, port: u16) -> (String, Vec<u8>) {
    let mut syn = bytes(tcp([198, 51, 100, client], port, VIP, 80, 100).syn(), b"");
    let verdict = match engine.handle_packet(now, &mut syn, Meta::default()) {
        Verdict::Forward { why: Forwarded::Translated { opened, .. }, .. } => format!("forwarded, opened {opened}"),
        other => format!("{other:?}"),
    };
    (verdict, syn)
}

/// Returns the outcome for the connections of the selected clients.
fn alone(settings: &Settings, inputs: &[(Instant, Input)], asked: impl Fn(u8) -> bool) -> Vec<(String, Vec<u8>)> {
    let mut engine = Engine::new(settings);
    let mut became = Vec::new();
    for (now, input) in inputs {
        engine.handle_timeout(*now);
        match input {
            Input::Change(change) => engine.apply(*now, change.clone()).expect("a change that can be made"),
            Input::Syn { client, port } if asked(*client) => became.push(open(&mut engine, *now, *client, *port)),
            Input::Syn { .. } => {}
        }
    }
    became
}

fn sharded(settings: &Settings, inputs: &[(Instant, Input)]) -> Vec<(u8, (String, Vec<u8>))> {
    let mut two = Two::new(settings);
    let mut became = Vec::new();
    for (now, input) in inputs {
        two.handle_timeout(*now);
        match input {
            Input::Change(change) => two.engine.apply(*now, change.clone()).expect("a change that can be made"),
            Input::Syn { client, port } => {
                became.push((*client, two.at_home(*client, |engine| open(engine, *now, *client, *port))));
            }
        }
    }
    let [own, other] = [&two.engine.shard, &two.other].map(|shard| shard.counters());
    assert!(own.flows_opened > 20 && other.flows_opened > 20 && own.add_up() && other.add_up());
    became
}

#[test]
fn each_of_two_shards_decides_as_one_that_has_only_its_clients() {
    for algorithm in Algorithm::ALL {
        for change in [limited, sticky] {
            let (settings, inputs) = (with(algorithm, change), inputs(algorithm as u64));
            let both = sharded(&settings, &inputs);
            for home in 0..2 {
                let own = both.iter().filter(|(client, _)| client % 2 == home).map(|(_, became)| became.clone());
                let want = alone(&settings, &inputs, |client| client % 2 == home);
                assert_eq!(own.collect::<Vec<_>>(), want, "{algorithm:?}, shard {home}");
            }
        }
    }
}

#[test]
fn two_shards_decide_as_one_if_decisions_depend_only_on_the_client() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        for change in [limited, sticky] {
            let (settings, inputs) = (with(algorithm, change), inputs(100 + algorithm as u64));
            let both: Vec<_> = sharded(&settings, &inputs).into_iter().map(|(_, became)| became).collect();
            assert_eq!(both, alone(&settings, &inputs, |_| true), "{algorithm:?}");
        }
    }
}

#[test]
fn any_number_of_looks_changes_nothing() {
    for algorithm in Algorithm::ALL {
        let mut engine = Engine::new(&with(algorithm, limited));
        for (now, input) in inputs(algorithm as u64).into_iter().take(100) {
            engine.handle_timeout(now);
            let Input::Syn { client, port } = input else { continue };
            let syn = bytes(tcp([198, 51, 100, client], port, VIP, 80, 100).syn(), b"");
            let before = format!("{engine:?}");
            let first = engine.foresee(now, &syn, Meta::default());
            engine.explain(now, &syn, Meta::default());
            assert_eq!(engine.foresee(now, &syn, Meta::default()), first);
            assert!(format!("{engine:?}") == before, "{algorithm:?}: a look left a trace");
            open(&mut engine, now, client, port);
        }
    }
}
