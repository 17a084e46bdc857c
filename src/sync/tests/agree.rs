//! That both know the same, whatever came between, and that they say so where they cannot.

use super::*;

#[test]
fn a_slow_peer_gets_states_and_not_a_log() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[3]);
    for n in 0..50 {
        talk(&mut pair.gates[0], at(pair.ms), n, listen);
    }
    pair.run(1000);
    let before = pair.bytes;
    // The connection takes nothing for two seconds, while flows begin and end.
    for round in 0..200u16 {
        pair.ms += 10;
        let now = pair.now();
        for n in 0..50 {
            pair.gates[0].pass(now, &udp(client(n), listen));
        }
        let (from, to) = talk(&mut pair.gates[0], now, 1000 + round, listen);
        pair.gates[0].pass(now, &udp(to, from));
        let rows = pair.gates[0].rows(now);
        let id = rows.iter().find(|row| row.client.port() == client(1000 + round).port()).unwrap().id;
        pair.gates[0].engine.apply(now, Change::Kill { flow: id }).unwrap();
    }
    pair.run(2000);
    pair.assert_equal();
    // What has come and gone meanwhile is not told; who carried packets is a bit per flow.
    assert!(pair.bytes - before < 10_000, "{} bytes", pair.bytes - before);
}

#[test]
fn on_a_slow_link_the_next_connection_of_a_port_takes_the_place_of_the_last_one() {
    let mut pair = Pair::new();
    pair.run(1000);
    let listen = address(LISTEN[0]);
    let now = pair.now();
    open(&mut pair.gates[0], now, 1, listen);
    pair.run(1000);
    let kill = |gate: &mut Gate, now, n| {
        let rows = gate.rows(now);
        let flow = rows.iter().find(|row| row.client.port() == client(n).port()).unwrap().id;
        gate.engine.apply(now, Change::Kill { flow }).unwrap();
        flow.index
    };
    // What is written now arrives seconds later.
    let now = pair.now();
    let (_, before) = open(&mut pair.gates[0], now, 2, listen);
    let mut late = Vec::new();
    for _ in 0..80 {
        pair.ms += 10;
        late.extend(pair.gates[0].output(pair.now()));
    }
    // The client of the second one begins another one, which has a lower slot; and its former slot gets another flow, so that
    // nothing says that it has ended.
    let now = pair.now();
    let gate = &mut pair.gates[0];
    let slots = [kill(gate, now, 2), kill(gate, now, 1)];
    let (_, after) = open(gate, now, 2, listen);
    open(gate, now, 3, listen);
    let of = |gate: &Gate, n| gate.rows(now).iter().find(|row| row.client.port() == client(n).port()).unwrap().id.index;
    assert!(before != after && slots[0] > slots[1]);
    assert_eq!([of(gate, 3), of(gate, 2)], slots);
    pair.ms += 20;
    let now = pair.now();
    late.extend(pair.gates[0].output(now));
    pair.ms += 1200;
    let now = pair.now();
    let to = &mut pair.gates[1];
    to.node.handle_input(now, &mut to.engine, &late);
    assert_eq!(pair.gates[1].flows(now), pair.gates[0].flows(now));
    pair.run(11_000);
    pair.assert_equal();
    assert!(!pair.gates[1].events.iter().any(|event| matches!(event, Event::Differs { .. })));
}

#[test]
fn what_differs_is_found_and_sent_again() {
    let mut pair = Pair::new();
    let now = pair.now();
    for n in 0..20 {
        open(&mut pair.gates[0], now, n, address(LISTEN[0]));
    }
    pair.run(11_000);
    pair.assert_equal();
    // The standby loses a flow unnoticed, and has another one in another state.
    let rows = pair.gates[1].rows(pair.now());
    let now = pair.now();
    let gate = &mut pair.gates[1];
    gate.engine.drop_flow(now, rows[3].id);
    gate.engine.forget_flow_change(rows[3].id.index);
    gate.node.book.tell(rows[3].id.index, None);
    gate.pass(now, &tcp("F", (101, 0), client(4), address(LISTEN[0])));
    pair.run(25_000);
    pair.assert_equal();
    assert!(pair.gates[1].events.iter().any(|event| matches!(event, Event::Differs { ranges: 1 })));
}

#[test]
fn a_flow_that_cannot_be_at_the_peer_is_left_out_of_what_both_compare() {
    let without = CONFIG.replace("name = \"full\"", "name = \"other\"");
    let mut pair = Pair::with(&without);
    let now = pair.now();
    for n in 0..12 {
        open(&mut pair.gates[0], now, n, address(LISTEN[usize::from(n % 3)]));
    }
    pair.run(25_000);
    let now = pair.now();
    let (all, some) = (pair.gates[0].flows(now), pair.gates[1].flows(now));
    assert_eq!((all.len(), some.len()), (12, 8), "a service is not there");
    assert!(some.iter().all(|flow| all.contains(flow)));
    assert!(pair.gates[1].node.status().agreed);
    assert!(!pair.gates[1].events.iter().any(|event| matches!(event, Event::Differs { .. })));
}

#[test]
fn a_difference_of_configurations_is_reported() {
    let mut pair = Pair::new();
    let connected = |pair: &Pair| {
        pair.gates[0].events.iter().rev().find_map(|event| match event {
            Event::Connected { differs, resumes } => Some((*differs, *resumes)),
            _ => None,
        })
    };
    assert_eq!(connected(&pair), Some((false, false)));
    pair.gates[1].node.settings.fingerprint = 8;
    pair.disconnect();
    pair.connect();
    pair.run(100);
    assert_eq!(connected(&pair), Some((true, true)));
}

#[test]
fn flows_that_ended_while_the_peer_was_away_end_there_too_and_new_ones_come() {
    let mut pair = Pair::new();
    let now = pair.now();
    for n in 0..10 {
        open(&mut pair.gates[0], now, n, address(LISTEN[0]));
    }
    pair.run(1000);
    pair.disconnect();
    let rows = pair.gates[0].rows(pair.now());
    for row in &rows[..5] {
        pair.gates[0].engine.apply(pair.now(), Change::Kill { flow: row.id }).unwrap();
    }
    let now = pair.now();
    open(&mut pair.gates[0], now, 20, address(LISTEN[1]));
    pair.wait(1000);
    pair.connect();
    pair.run(1000);
    pair.assert_equal();
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 6);
}

#[test]
fn a_gateway_that_starts_anew_gets_back_from_the_standby_what_it_had() {
    let mut pair = Pair::new();
    open_all(&mut pair.gates[0], at(pair.ms), 0);
    pair.run(1000);
    let had = pair.gates[0].flows(pair.now());
    pair.disconnect();
    pair.gates[0] = Gate::new(pair.now(), CONFIG, SyncSettings { instance: 50, ..settings(0) });
    pair.connect();
    pair.run(1000);
    assert_eq!(pair.gates[0].flows(pair.now()), had);
    assert!(pair.gates[0].events.contains(&Event::Ready { whole: true }));
}

#[test]
fn a_gateway_without_its_peer_is_ready_after_the_deadline() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    gate.run(at(19_990));
    assert!(!gate.node.is_ready());
    assert_eq!(gate.node.poll_timeout(at(19_990), false), Some(at(20_000)));
    gate.run(at(20_000));
    assert!(gate.node.is_ready() && gate.events == [Event::Ready { whole: false }]);
    assert_eq!(gate.node.status().role, Role::Ready);
}

#[test]
fn what_operators_change_at_the_active_holds_at_the_standby() {
    let mut pair = Pair::new();
    let server = pair.gates[0].engine.find_server("web", "b").unwrap();
    let drain = Change::Admin { server, admin: crate::balance::Admin::Draining, deadline: None };
    pair.gates[0].engine.apply(pair.now(), drain).unwrap();
    pair.gates[0].node.standing_changed();
    pair.run(100);
    assert_eq!(pair.gates[1].engine.servers(pair.now())[1].admin, crate::balance::Admin::Draining);
    // What they change at the standby does not hold at the active.
    let server = pair.gates[1].engine.find_server("web", "c").unwrap();
    pair.gates[1].engine.apply(pair.now(), Change::Weight { server, weight: 0 }).unwrap();
    pair.gates[1].node.standing_changed();
    pair.run(100);
    assert_eq!(pair.gates[0].engine.servers(pair.now())[2].weight, 1);
}

#[test]
fn names_come_again_after_a_reload_at_either_end() {
    let mut pair = Pair::new();
    let turned = CONFIG.replace("    { name = \"a\", address = \"10.0.0.1\" },\n", "").replace(
        "address = \"10.0.0.3\" },",
        "address = \"10.0.0.3\" },\n    { name = \"a\", address = \"10.0.0.1\" },",
    );
    let more = turned.replace(
        "    { name = \"b\"",
        "    { name = \"new\", address = \"10.0.0.9\", weight = 0 },\n    { name = \"b\"",
    );
    for (round, gate) in [0, 1].into_iter().enumerate() {
        open_all(&mut pair.gates[0], at(pair.ms), round as u16 * 20);
        pair.run(100);
        let settings = config::parse(&more, "more.toml").unwrap_or_else(|error| panic!("{error}"));
        let now = pair.now();
        pair.gates[gate].engine.reload(now, &settings, Removed::Drain);
        open_all(&mut pair.gates[0], at(pair.ms), round as u16 * 20 + 10);
        pair.run(12_000);
        pair.assert_equal();
    }
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 20);
}

#[test]
fn packets_at_the_active_keep_flows_of_the_standby_alive() {
    let mut pair = Pair::new();
    let (listen, now) = (address(LISTEN[0]), pair.now());
    open(&mut pair.gates[0], now, 0, listen);
    for _ in 0..5 {
        pair.run(10_000);
        pair.gates[0].pass(pair.now(), &tcp("DA", (101, 501), client(0), listen));
    }
    pair.run(1_100);
    let idle = pair.gates[1].rows(pair.now())[0].idle_ms;
    assert!(idle < 2_500, "idle for {idle} ms");
    assert_eq!(pair.gates[1].node.audit(&mut pair.gates[1].engine, 0, u32::MAX), (None, 0));
}

#[test]
fn after_a_short_break_only_what_may_be_lost_is_sent_again() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    for n in 0..100 {
        open(&mut pair.gates[0], at(pair.ms), n, listen);
    }
    pair.run(2000);
    // The last that is sent gets lost, in both directions.
    let rows = pair.gates[0].rows(pair.now());
    for row in &rows[..5] {
        pair.gates[0].engine.apply(pair.now(), Change::Kill { flow: row.id }).unwrap();
    }
    for n in 100..105 {
        open(&mut pair.gates[0], at(pair.ms), n, listen);
    }
    pair.ms += 10;
    let now = pair.now();
    let lost = pair.gates[0].output(now);
    assert!(lost.len() > 400, "{} bytes", lost.len());
    pair.disconnect();
    // More happens meanwhile, also to what was lost.
    for n in 105..110 {
        let now = pair.now();
        open(&mut pair.gates[0], now, n, listen);
    }
    let rows = pair.gates[0].rows(pair.now());
    let gone = rows.iter().find(|row| row.client.port() == client(102).port()).unwrap().id;
    pair.gates[0].engine.apply(pair.now(), Change::Kill { flow: gone }).unwrap();
    pair.wait(1000);
    let before = pair.bytes_of(Kind::Put);
    pair.connect();
    pair.run(200);
    assert_eq!(pair.gates[0].flows(pair.now()), pair.gates[1].flows(pair.now()));
    assert!(pair.bytes_of(Kind::Put) - before < 2500, "{} bytes", pair.bytes_of(Kind::Put) - before);
    pair.run(11_000);
    pair.assert_equal();
    assert!(!pair.gates[1].events.iter().any(|event| matches!(event, Event::Differs { .. })));
    // Each knows the other's slots still: what ends here ends there, and the other way round.
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    pair.gates[0].command(now, Command::StandBy);
    pair.run(100);
    for gate in [1, 0] {
        let rows = pair.gates[gate].rows(pair.now());
        pair.gates[gate].engine.apply(pair.now(), Change::Kill { flow: rows[7].id }).unwrap();
        pair.run(100);
        if gate == 1 {
            assert_eq!(pair.gates[0].rows(pair.now()).len(), rows.len() - 1);
        }
    }
}

#[test]
fn a_peer_that_was_active_meanwhile_gets_everything() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    (0..50).for_each(|n| _ = open(&mut pair.gates[0], at(pair.ms), n, listen));
    pair.run(2000);
    pair.disconnect();
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    pair.wait(1000);
    let before = pair.bytes_of(Kind::Put);
    pair.connect();
    pair.run(200);
    assert!(pair.bytes_of(Kind::Put) - before > 50 * 80);
}

/// Seed 1064 of the simulation, in which a client had used its port again.
#[test]
fn a_connection_that_has_just_begun_gives_way_to_no_earlier_one_of_its_port() {
    let listen = address(LISTEN[0]);
    for (pause, closes) in [(2000, false), (100, true)] {
        let mut pair = Pair::new();
        pair.disconnect();
        pair.gates[1].command(pair.now(), Command::Activate);
        let now = pair.now();
        let before = open(&mut pair.gates[1], now, 0, listen);
        if closes {
            pair.gates[1].pass(now, &tcp("FA", (101, 501), client(0), listen)).0.expect("it closes");
            pair.gates[1].pass(now, &tcp("FA", (501, 102), before.1, before.0)).0.expect("it closes");
        }
        pair.wait(pause);
        let now = pair.now();
        open(&mut pair.gates[0], now, 9, listen);
        let (from, to) = ends(&pair.gates[0].pass(now, &tcp("S", (900, 0), client(0), listen)).0.expect("a server"));
        assert_ne!(to, before.1);
        pair.gates[0].pass(now, &tcp("SA", (500, 901), to, from)).0.expect("its answer");
        pair.connect();
        pair.run(200);
        let sent = pair.gates[0].pass(pair.now(), &tcp("DA", (901, 501), client(0), listen)).0.expect("it goes on");
        assert_eq!(ends(&sent), (from, to));
        pair.gates[1].command(pair.now(), Command::StandBy);
        pair.run(12_000);
        pair.assert_equal();
        assert_eq!(pair.gates[1].rows(pair.now()).len(), 2);
    }
}

#[test]
fn where_both_are_active_the_later_connection_of_a_port_stays_however_late_the_record_of_the_former_one_comes() {
    let mut pair = Pair::new();
    pair.gates[1].command(pair.now(), Command::Activate);
    pair.run(620);
    let (now, listen) = (pair.now(), address(LISTEN[0]));
    open(&mut pair.gates[1], now, 1, listen);
    pair.ms += 10;
    let now = pair.now();
    let late = pair.gates[1].output(now);
    pair.ms += 1300;
    let now = pair.now();
    // The first one's turn is over, so that this one has another server.
    open(&mut pair.gates[0], now, 2, listen);
    open(&mut pair.gates[0], now, 1, listen);
    let server = |pair: &Pair| {
        let rows = pair.gates[0].rows(pair.now());
        rows.iter().find(|row| row.client == client(1).into()).map(|row| row.server.clone())
    };
    assert_eq!(server(&pair).as_deref(), Some("b"));
    pair.ms += 1400;
    let now = pair.now();
    let Gate { engine, node, .. } = &mut pair.gates[0];
    node.handle_input(now, engine, &late);
    assert_eq!(server(&pair).as_deref(), Some("b"));
    pair.gates[1].command(now, Command::StandBy);
    pair.run(11_000);
    pair.assert_equal();
    assert_eq!(server(&pair).as_deref(), Some("b"));
}
