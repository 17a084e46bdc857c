//! Sticky clients: listed, forgotten, and forgotten by the other gateway of a pair.

use super::super::super::pair::{PairFacts, Pairing};
use super::*;
use crate::sync::{Command, Node, SyncSettings};
use crate::time::Duration;

#[test]
fn sticky_clients_are_listed_and_forgotten() {
    let mut engine = sticky_engine(600);
    let lines = ask(&mut engine, "{\"request\":\"sticky\"}\n");
    assert_eq!(lines.len(), 601);
    let row = &lines[0]["sticky"];
    assert_eq!((&row["services"], &row["pool"], &row["flows"]), (&serde_json::json!(["dns"]), &"p".into(), &1.into()));
    let count = |engine: &mut Engine, query: &str| {
        ask(engine, &format!("{{\"request\":\"sticky\",\"query\":{query}}}\n")).len() - 1
    };
    assert_eq!(count(&mut engine, r#"{"client":"100.0.1.0/24"}"#), 256);
    assert_eq!(count(&mut engine, r#"{"server":"a"}"#), 300);
    let limited = ask(&mut engine, "{\"request\":\"sticky\",\"limit\":7}\n");
    assert_eq!((limited.len(), &limited[7]["done"]), (8, &serde_json::json!({"rows": 7, "more": true})));

    let refused = ask(&mut engine, "{\"request\":\"clear-sticky\"}\n");
    assert!(refused[0]["error"]["message"].as_str().unwrap().contains("ask for all"), "{refused:?}");
    let cleared = ask(&mut engine, "{\"request\":\"clear-sticky\",\"query\":{\"client\":\"100.0.1.0/24\"}}\n");
    let row = &cleared[0]["cleared"];
    assert_eq!((&row["clients"], row["before"].as_array().unwrap().len()), (&256.into(), 100));
    assert_eq!((count(&mut engine, "{}"), engine.counters().flows), (344, 600), "flows stay");
    let cleared = ask(&mut engine, "{\"request\":\"clear-sticky\",\"all\":true}\n");
    assert_eq!((&cleared[0]["cleared"]["clients"], count(&mut engine, "{}")), (&344.into(), 0));
    engine.handle_timeout(Instant::FAR);
    while engine.counters().flows > 0 {
        engine.handle_timeout(Instant::FAR);
    }
    assert_eq!(count(&mut engine, "{}"), 0, "flows of forgotten clients end as ever");
}

/// Like [`engine`], with a sticky service.
fn sticky_engine(flows: u32) -> Engine {
    let mut settings = engine(flows).plan().settings().clone();
    let prefixes = crate::balance::Prefixes::ADDRESS;
    let sticky = crate::balance::Stickiness { prefixes, idle: Duration::from_secs(60), slots: 1_000, group: 0 };
    settings.services[0].sticky = Some(sticky);
    let mut engine = Engine::new(&settings);
    for client in 0..flows {
        more_packets(&mut engine, client, 1);
    }
    engine
}

/// A gateway of a pair.
struct Gate {
    engine: Engine,
    node: Node,
    facts: PairFacts,
}

impl Gate {
    fn new(names: [&str; 2], mut engine: Engine) -> Gate {
        let settings = SyncSettings {
            node: names[0].into(),
            peer: names[1].into(),
            key: b"shared".to_vec(),
            instance: 1 + names[0].len() as u64,
            fingerprint: 7,
            learning: Duration::from_secs(20),
        };
        let node = Node::new(settings, NOW, &mut engine).unwrap();
        let address = "10.255.0.1:7400".parse().unwrap();
        let facts = PairFacts {
            own: (names[0].into(), address),
            peer: (names[1].into(), address),
            connected: None,
            connections: 0,
            bytes: [0; 2],
            differs: false,
            trouble: None,
            takeover: None,
            latest: None,
        };
        Gate { engine, node, facts }
    }

    /// Takes one step of a session.
    fn poll(&mut self, session: &mut Session, out: &mut Vec<u8>) -> Progress {
        let mut ledger = ledger(&self.engine);
        let pair = Some(Pairing { node: &mut self.node, facts: &mut self.facts });
        let outside = Outside::default();
        let (engine, ledger) = (&mut self.engine, &mut ledger);
        session.poll_output(&mut Floor { engine, ledger, now: NOW, outside: &outside, pair }, out)
    }

    /// Runs a session until it is idle; returns its last line.
    fn finish(&mut self, session: &mut Session) -> Value {
        let mut out = Vec::new();
        while self.poll(session, &mut out) != Progress::Idle {}
        let lines = out.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
        let lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
        // A row is followed by the number of rows; an error by nothing.
        lines[lines.len().saturating_sub(2)].clone()
    }
}

/// Lets two gateways talk until they have nothing to say.
fn exchange(gates: &mut [Gate; 2]) {
    for ms in 0..200 {
        let now = NOW + Duration::from_millis(ms);
        for from in [0, 1] {
            let Gate { engine, node, .. } = &mut gates[from];
            node.handle_timeout(now, engine);
            let mut out = Vec::new();
            node.poll_output(now, engine, &mut out);
            let Gate { engine, node, .. } = &mut gates[1 - from];
            node.handle_input(now, engine, &out);
        }
    }
}

#[test]
fn the_other_gateway_hears_of_a_request_to_clear_sticky_clients_once_it_is_carried_out() {
    let engine = sticky_engine(600);
    let other = Engine::new(engine.plan().settings());
    let mut gates = [Gate::new(["a", "bb"], engine), Gate::new(["bb", "a"], other)];
    for (gate, nonce) in gates.iter_mut().zip([1, 2]) {
        gate.node.connected(NOW, &mut gate.engine, [nonce; 32]);
    }
    exchange(&mut gates);
    let Gate { engine, node, .. } = &mut gates[0];
    node.command(NOW, engine, Command::Activate);
    exchange(&mut gates);
    let known = |gates: &mut [Gate; 2]| {
        exchange(gates);
        gates.each_mut().map(|gate| ask(&mut gate.engine, "{\"request\":\"sticky\"}\n").len() - 1)
    };
    assert_eq!(known(&mut gates), [600, 600]);
    let begin = |gates: &mut [Gate; 2], request: &str| {
        let mut session = session();
        session.feed(format!("{request}\n").as_bytes());
        (0..2).for_each(|_| _ = gates[0].poll(&mut session, &mut Vec::new()));
        session
    };
    // Another one like it ends it halfway; a list does not.
    let all = "{\"request\":\"clear-sticky\",\"all\":true}";
    let mut first = begin(&mut gates, all);
    let mut second = begin(&mut gates, "{\"request\":\"clear-sticky\",\"query\":{\"client\":\"100.0.2.87/32\"}}");
    begin(&mut gates, "{\"request\":\"sticky\"}");
    let failed = gates[0].finish(&mut first);
    assert!(failed["error"]["message"].as_str().unwrap().contains("this one is incomplete"), "{failed}");
    assert_eq!(gates[0].finish(&mut second)["cleared"]["clients"], 1);
    assert_eq!(known(&mut gates), [600 - 256 - 1, 599]);
    let mut again = begin(&mut gates, all);
    begin(&mut gates, "{\"request\":\"sticky\"}");
    assert_eq!(gates[0].finish(&mut again)["cleared"]["clients"], 600 - 256 - 1);
    assert_eq!(known(&mut gates), [0, 0]);
}
