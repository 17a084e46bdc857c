//! What goes on, and what ends, when the other gateway takes over.

use super::*;
use crate::flow::TimeoutState;

#[test]
fn the_standby_has_every_flow_and_goes_on_with_it() {
    let mut pair = Pair::new();
    let flows = open_all(&mut pair.gates[0], at(pair.ms), 0);
    pair.run(11_000);
    pair.assert_equal();
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 5, "without the half-open one");
    // It answers nothing.
    let stranger = tcp("DA", (5, 5), client(50), address(LISTEN[0]));
    assert_eq!(pair.gates[1].pass(pair.now(), &stranger), (None, 0));
    assert_eq!(pair.gates[1].pass(pair.now(), &tcp("S", (1, 0), client(51), address(LISTEN[0]))), (None, 0));
    // The first gateway dies.
    let now = pair.now();
    pair.gates[1].node.disconnected(now, &mut pair.gates[1].engine);
    pair.gates[1].command(now, Command::Activate);
    for (n, listen, from, to) in &flows {
        let is_tcp = listen.port() == 80;
        let packet = if is_tcp { tcp("DA", (101, 501), client(*n), *listen) } else { udp(client(*n), *listen) };
        let sent = pair.gates[1].pass(now, &packet).0.expect("it goes on");
        assert_eq!(ends(&sent), (*from, *to), "as before");
        let answer = if is_tcp { tcp("DA", (501, 105), *to, *from) } else { udp(*to, *from) };
        let sent = pair.gates[1].pass(now, &answer).0.expect("the answer");
        assert_eq!(ends(&sent), (*listen, client(*n)));
    }
    assert_eq!(pair.gates[1].pass(now, &stranger), (None, 0), "the peer may know it");
    assert!(pair.gates[1].pass(now, &tcp("S", (1, 0), client(51), address(LISTEN[0]))).0.is_some());
}

#[test]
fn a_sticky_client_stays_on_its_server_through_a_takeover() {
    let mut pair = Pair::new();
    let now = pair.now();
    let (_, server) = open(&mut pair.gates[0], now, 0, address(LISTEN[2]));
    // Its flow has ended before the peer starts anew: only the slot is left.
    let id = pair.gates[0].rows(now)[0].id;
    pair.gates[0].engine.apply(now, Change::Kill { flow: id }).unwrap();
    pair.disconnect();
    pair.gates[1] = Gate::new(pair.now(), CONFIG, SyncSettings { instance: 77, ..settings(1) });
    pair.connect();
    pair.run(1000);
    pair.assert_equal();
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    for n in 1..6 {
        assert_eq!(open(&mut pair.gates[1], now, n, address(LISTEN[2])).1, server);
    }
}

#[test]
fn only_the_active_lets_flows_expire_and_after_a_takeover_each_has_a_minute() {
    let mut pair = Pair::new();
    let now = pair.now();
    talk(&mut pair.gates[0], now, 0, address(LISTEN[3]));
    open(&mut pair.gates[0], now, 1, address(LISTEN[0]));
    pair.run(100);
    pair.disconnect();
    pair.gates[0].command(pair.now(), Command::StandBy);
    // Longer than five minutes.
    pair.wait(400_000);
    assert_eq!((pair.gates[0].rows(pair.now()).len(), pair.gates[1].rows(pair.now()).len()), (2, 2));
    pair.gates[1].command(pair.now(), Command::Activate);
    pair.wait(59_000);
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 2);
    pair.wait(2000);
    assert_eq!(pair.gates[1].rows(pair.now()).len(), 1, "the idle conversation is over");
}

#[test]
fn half_open_flows_end_at_a_standby_without_a_word() {
    let mut pair = Pair::new();
    let now = pair.now();
    pair.gates[0].pass(now, &tcp("S", (100, 0), client(0), address(LISTEN[0])));
    pair.gates[0].command(now, Command::StandBy);
    assert_eq!(pair.gates[0].engine.counters().half_open, 1);
    pair.wait(300_000);
    assert_eq!(pair.gates[0].engine.counters().half_open, 0);
}

#[test]
fn each_gives_nat_ports_of_its_half_until_the_other_has_been_away_for_long_enough() {
    let mut pair = Pair::new();
    pair.disconnect();
    pair.gates[1].command(pair.now(), Command::Activate);
    let take = |gate: &mut Gate, now, from: u16, most: u16| -> Vec<u16> {
        let listen = address(LISTEN[1]);
        (from..from + most)
            .filter_map(|n| {
                let syn = gate.pass(now, &tcp("S", (100, 0), client(n), listen)).0?;
                let (from, to) = ends(&syn);
                gate.pass(now, &tcp("SA", (500, 101), to, from));
                gate.pass(now, &tcp("A", (101, 501), client(n), listen));
                Some(from.port())
            })
            .collect()
    };
    let now = pair.now();
    // There are three servers, each with all ports.
    let (first, second) = (take(&mut pair.gates[0], now, 0, 200), take(&mut pair.gates[1], now, 200, 200));
    assert!(!first.is_empty() && first.iter().all(|port| (2000..2050).contains(port)), "{first:?}");
    assert!(!second.is_empty() && second.iter().all(|port| (2050..2100).contains(port)), "{second:?}");
    assert_eq!((first.len(), second.len()), (150, 150));
    pair.wait(61_000);
    let now = pair.now();
    assert_eq!(take(&mut pair.gates[1], now, 400, 200).len(), 150, "the peer's half");
}

#[test]
fn a_planned_switch_waits_until_the_peer_knows_everything() {
    let mut pair = Pair::new();
    open_all(&mut pair.gates[0], at(pair.ms), 0);
    pair.gates[0].command(pair.now(), Command::Yield);
    assert_eq!(pair.gates[0].node.status().role, Role::Yielding);
    pair.run(100);
    assert!(
        pair.gates[0].events.contains(&Event::Yielded) && pair.gates[1].events.contains(&Event::Asked { times: 1 })
    );
    assert_eq!(pair.gates[0].flows(pair.now()), pair.gates[1].flows(pair.now()));
    let now = pair.now();
    pair.gates[0].command(now, Command::StandBy);
    pair.gates[1].command(now, Command::Activate);
    assert_eq!(pair.gates[1].engine.duty(), Duty::Known);
    pair.run(61_000);
    assert_eq!((pair.gates[0].engine.duty(), pair.gates[1].engine.duty()), (Duty::Standby, Duty::Full));
    assert_eq!(pair.gates[1].pass(pair.now(), &tcp("DA", (5, 5), client(50), address(LISTEN[0]))), (None, 1));
}

#[test]
fn after_a_switch_the_new_standby_hears_what_becomes_of_flows_that_it_had_given() {
    let mut pair = Pair::new();
    for n in 0..10 {
        open(&mut pair.gates[0], at(pair.ms), n, address(LISTEN[0]));
    }
    pair.run(100);
    pair.gates[0].command(at(pair.ms), Command::StandBy);
    pair.gates[1].command(at(pair.ms), Command::Activate);
    pair.run(20_000);
    let now = pair.now();
    let rows = pair.gates[1].rows(now);
    pair.gates[1].engine.apply(now, Change::Kill { flow: rows[0].id }).unwrap();
    pair.gates[1].pass(now, &tcp("DA", (101, 501), client(5), address(LISTEN[0]))).0.expect("it goes on");
    pair.run(1_100);
    let rows = pair.gates[0].rows(pair.now());
    assert_eq!(rows.len(), 9, "what ends at the active one ends here");
    let idle = |n: u16| rows.iter().find(|row| row.client.port() == client(n).port()).unwrap().idle_ms;
    assert!(idle(5) < 2_000 && idle(6) > 20_000, "{} {}", idle(5), idle(6));
    assert!(!pair.gates.iter().any(|gate| gate.events.iter().any(|event| matches!(event, Event::Differs { .. }))));
}

#[test]
fn after_a_split_the_flow_that_only_one_has_seen_wins_and_otherwise_the_higher_term() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    let now = pair.now();
    for n in 0..6 {
        open(&mut pair.gates[0], now, n, listen);
    }
    pair.run(1000);
    pair.disconnect();
    pair.gates[1].command(pair.now(), Command::Activate);
    pair.ms += 1000;
    let now = pair.now();
    // New ones at both; 0 closes at the first, 1 at the second, 2 is seen by both and closes at the second.
    open(&mut pair.gates[0], now, 10, listen);
    open(&mut pair.gates[1], now, 11, listen);
    open(&mut pair.gates[1], now, 12, listen);
    let closes = |gate: &mut Gate, n: u16| {
        let (_, server) = ends(&gate.pass(now, &tcp("FA", (101, 501), client(n), listen)).0.unwrap());
        gate.pass(now, &tcp("FA", (501, 102), server, client(n)));
        gate.pass(now, &tcp("A", (102, 502), client(n), listen));
    };
    closes(&mut pair.gates[0], 0);
    closes(&mut pair.gates[1], 1);
    closes(&mut pair.gates[1], 2);
    pair.gates[0].pass(now, &tcp("DA", (101, 501), client(2), listen));
    // The same client to both, with other servers: the term decides.
    let first = open(&mut pair.gates[0], now, 30, listen);
    let second = open(&mut pair.gates[1], now, 30, listen);
    assert_ne!(first, second);
    pair.connect();
    pair.run(500);
    pair.gates[0].command(pair.now(), Command::StandBy);
    pair.run(12_000);
    let now = pair.now();
    let (a, b) = (pair.gates[0].flows(now), pair.gates[1].flows(now));
    assert_eq!(a, b);
    assert_eq!(a.len(), 10);
    let state = |n: u16| a.iter().find(|flow| flow.contains(&format!(":{} ", client(n).port()))).unwrap();
    assert!([0, 1, 2].iter().all(|n| state(*n).ends_with("closing")), "{a:#?}");
    assert!(state(30).contains(&second.1.ip().to_string()), "{}", state(30));
}

/// The configuration without server `b`.
fn without_b() -> String {
    CONFIG.replace("    { name = \"b\", address = \"10.0.0.2\" },\n", "")
}

fn hosts(gate: &Gate) -> u32 {
    let hosts = |event: &Event| if let Event::Hosts { servers } = event { *servers } else { 0 };
    gate.events.iter().map(hosts).sum()
}

#[test]
fn flows_of_a_server_that_is_not_configured_here_go_on_and_no_new_one_begins_there() {
    let mut pair = Pair::with(&without_b());
    let opened: Vec<_> = (0..6).map(|n| (n, open(&mut pair.gates[0], at(pair.ms), n, address(LISTEN[0])))).collect();
    let full = open(&mut pair.gates[0], at(pair.ms), 50, address(LISTEN[1]));
    pair.run(11_000);
    pair.assert_equal();
    assert_eq!(hosts(&pair.gates[1]), 1, "one plan for all of them");
    // The other gateway is not there any more.
    pair.disconnect();
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    let goes_on = |pair: &mut Pair| {
        let now = pair.now();
        for (n, (from, to)) in opened.iter().chain([&(50, full)]) {
            let listen = address(LISTEN[usize::from(*n == 50)]);
            let sent = pair.gates[1].pass(now, &tcp("DA", (101, 501), client(*n), listen)).0.expect("it goes on");
            assert_eq!(ends(&sent), (*from, *to));
            let sent = pair.gates[1].pass(now, &tcp("DA", (501, 105), *to, *from)).0.expect("the answer");
            assert_eq!(ends(&sent), (listen, client(*n)));
        }
    };
    goes_on(&mut pair);
    for n in 10..20 {
        let (_, server) = open(&mut pair.gates[1], now, n, address(LISTEN[0]));
        assert_ne!(server.ip().octets(), [10, 0, 0, 2]);
    }
    let row = |pair: &Pair| pair.gates[1].engine.servers(pair.now()).into_iter().find(|row| row.server == "b");
    assert_eq!(row(&pair).map(|row| (row.removed, row.flows >= 2)), Some((true, true)));
    // The server is configured here, too: it keeps its flows, and gets new ones.
    let settings = config::parse(CONFIG, "sync.toml").unwrap_or_else(|error| panic!("{error}"));
    pair.gates[1].engine.reload(now, &settings, Removed::Drain);
    goes_on(&mut pair);
    assert_eq!(row(&pair).map(|row| row.removed), Some(false));
    let gets = (20..30).map(|n| open(&mut pair.gates[1], now, n, address(LISTEN[0])).1).collect::<Vec<_>>();
    assert!(gets.iter().any(|server| server.ip().octets() == [10, 0, 0, 2]), "{gets:?}");
}

#[test]
fn flows_of_a_server_that_has_another_address_here_go_on_where_they_began() {
    let moved = CONFIG.replace("address = \"10.0.0.2\"", "address = \"10.0.9.2\"");
    let mut pair = Pair::with(&moved);
    let opened: Vec<_> = (0..6).map(|n| open(&mut pair.gates[0], at(pair.ms), n, address(LISTEN[0]))).collect();
    pair.run(11_000);
    pair.assert_equal();
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    for (n, (from, to)) in (0..).zip(opened) {
        let sent =
            pair.gates[1].pass(now, &tcp("DA", (101, 501), client(n), address(LISTEN[0]))).0.expect("it goes on");
        assert_eq!(ends(&sent), (from, to));
    }
}

#[test]
fn flows_of_a_server_that_both_have_removed_stay_at_the_standby() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    for n in 0..6 {
        open(&mut pair.gates[0], at(pair.ms), n, listen);
    }
    pair.run(100);
    let settings = config::parse(&without_b(), "sync.toml").unwrap_or_else(|error| panic!("{error}"));
    for gate in [1, 0] {
        let now = pair.now();
        pair.gates[gate].engine.reload(now, &settings, Removed::Drain);
        pair.run(500);
    }
    // Their records come again.
    for n in 0..6 {
        pair.gates[0].pass(pair.now(), &tcp("FA", (101, 501), client(n), listen)).0.expect("it goes on");
    }
    pair.run(11_000);
    pair.assert_equal();
    assert_eq!((pair.gates[1].rows(pair.now()).len(), hosts(&pair.gates[1])), (6, 0));
}

#[test]
fn servers_that_a_peer_only_names_get_no_slot_and_plans_are_made_once_a_second() {
    let mut pair = Pair::with(&without_b());
    pair.run(1000);
    assert_eq!(hosts(&pair.gates[1]), 0, "it has no flow");
    let listen = address(LISTEN[0]);
    (0..3).for_each(|n| _ = open(&mut pair.gates[0], at(pair.ms), n, listen));
    pair.run(100);
    // A server of which the other one has no flow yet is named with a reload.
    let more =
        CONFIG.replace("    { name = \"c\"", "    { name = \"d\", address = \"10.0.0.4\" },\n    { name = \"c\"");
    let settings = config::parse(&more, "sync.toml").unwrap_or_else(|error| panic!("{error}"));
    let now = pair.now();
    pair.gates[0].engine.reload(now, &settings, Removed::Drain);
    (10..14).for_each(|n| _ = open(&mut pair.gates[0], now, n, listen));
    pair.run(500);
    let flows = |pair: &Pair, gate: usize| pair.gates[gate].rows(pair.now()).len();
    assert_eq!((hosts(&pair.gates[1]), flows(&pair, 0), flows(&pair, 1)), (1, 7, 6), "too soon");
    pair.run(11_000);
    assert_eq!(hosts(&pair.gates[1]), 2);
    pair.assert_equal();
}

#[test]
fn handshakes_under_way_go_over_with_a_planned_switch() {
    let mut pair = Pair::new();
    let [plain, full] = [0, 1].map(|at| address(LISTEN[at]));
    pair.run(1000);
    let now = pair.now();
    let syn = |gate: &mut Gate, now, n, listen| {
        ends(&gate.pass(now, &tcp("S", (100, 0), client(n), listen)).0.expect("sent"))
    };
    // One whose server has not answered yet, and one that lacks the client's acknowledgement; each with both kinds of NAT.
    let asked = [(0, plain), (1, full)].map(|(n, listen)| (n, listen, syn(&mut pair.gates[0], now, n, listen)));
    let answered = [(2, plain), (3, full)].map(|(n, listen)| (n, listen, syn(&mut pair.gates[0], now, n, listen)));
    for (_, _, (from, to)) in &answered {
        pair.gates[0].pass(now, &tcp("SA", (500, 101), *to, *from)).0.expect("its answer");
    }
    pair.gates[0].command(now, Command::Yield);
    pair.run(30);
    // Answered meanwhile, and begun in the last moment.
    let (n, listen) = (4, full);
    let now = pair.now();
    let (from, to) = syn(&mut pair.gates[0], now, n, listen);
    pair.run(20);
    pair.gates[0].pass(pair.now(), &tcp("SA", (500, 101), to, from)).0.expect("its answer");
    let late = (n, listen, (from, to));
    let now = pair.now();
    let last = (5, plain, syn(&mut pair.gates[0], now, 5, plain));
    assert!(pair.gates[0].events.contains(&Event::Yielded));
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    pair.gates[0].command(now, Command::StandBy);
    pair.run(10);
    let now = pair.now();
    for (n, listen, (from, to)) in asked.into_iter().chain([last]) {
        let sent = pair.gates[1].pass(now, &tcp("SA", (500, 101), to, from)).0.expect("the answer passes");
        assert_eq!(ends(&sent), (listen, client(n)));
    }
    for (n, listen, (from, to)) in asked.into_iter().chain(answered).chain([late, last]) {
        let sent = pair.gates[1].pass(now, &tcp("A", (101, 501), client(n), listen)).0.expect("it goes on");
        assert_eq!(ends(&sent), (from, to));
    }
    assert_eq!(pair.gates[1].rows(now).len(), 6, "all are established");
    pair.run(11_000);
    pair.assert_equal();
    assert_eq!(pair.gates[0].rows(pair.now()).len(), 6);
}

#[test]
fn a_handshake_that_goes_over_takes_the_place_of_no_flow() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    // Both are active: each has a connection of the same client, one of them a half-open one.
    pair.disconnect();
    pair.gates[1].command(pair.now(), Command::Activate);
    let now = pair.now();
    let known = open(&mut pair.gates[1], now, 0, listen);
    open(&mut pair.gates[0], now, 9, listen);
    pair.gates[0].pass(now, &tcp("S", (700, 0), client(0), listen)).0.expect("another server");
    pair.connect();
    pair.run(100);
    pair.gates[0].command(pair.now(), Command::Yield);
    pair.run(100);
    let sent = pair.gates[1].pass(pair.now(), &tcp("DA", (101, 501), client(0), listen)).0.expect("it goes on");
    assert_eq!(ends(&sent), known);
}

#[test]
fn sequence_numbers_of_idle_connections_are_known_at_the_standby() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    let (from, to) = open(&mut pair.gates[0], at(pair.ms), 0, listen);
    pair.run(1000);
    // Much has passed since its record.
    pair.gates[0].pass(pair.now(), &tcp("DA", (900_101, 501), client(0), listen)).0.expect("it passes");
    pair.gates[0].pass(pair.now(), &tcp("DA", (501, 900_105), to, from)).0.expect("it passes");
    let resets = |pair: &mut Pair, seq| {
        let now = pair.now();
        pair.gates[1].pass(now, &tcp("R", (seq, 0), client(0), listen)).0.expect("it passes");
        pair.gates[1].rows(now)[0].state
    };
    pair.run(20_000);
    assert_eq!(pair.bytes_of(Kind::Numbers), 0);
    pair.run(15_000);
    assert_eq!(pair.bytes_of(Kind::Numbers), (HEADER + 4 + 8 + 20) as u64, "once");
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    assert_eq!(resets(&mut pair, 101), TimeoutState::Established, "not at a number of earlier");
    assert_eq!(resets(&mut pair, 900_105), TimeoutState::Reset);
}

#[test]
fn they_count_as_old_once_the_connection_goes_on() {
    let listen = address(LISTEN[0]);
    for goes_on in [false, true] {
        let mut pair = Pair::new();
        let (from, to) = open(&mut pair.gates[0], at(pair.ms), 0, listen);
        pair.run(35_000);
        if goes_on {
            pair.gates[0].pass(pair.now(), &tcp("DA", (101, 501), client(0), listen)).0.expect("it goes on");
        }
        pair.run(1_200);
        let now = pair.now();
        pair.gates[1].command(now, Command::Activate);
        // Far away from them: both ends agree on these, which are learned where something may have passed.
        pair.gates[1].pass(now, &tcp("DA", (500_000_000, 600_000_000), client(0), listen)).0.expect("it passes");
        pair.gates[1].pass(now, &tcp("DA", (600_000_000, 500_000_004), to, from)).0.expect("it passes");
        pair.gates[1].pass(now, &tcp("R", (500_000_004, 0), client(0), listen)).0.expect("it passes");
        let state = if goes_on { TimeoutState::Reset } else { TimeoutState::Established };
        assert_eq!(pair.gates[1].rows(now)[0].state, state);
    }
}

#[test]
fn a_port_whose_flow_has_ended_at_the_peer_rests_here_too() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[1]);
    let (from, to) = open(&mut pair.gates[0], at(pair.ms), 0, listen);
    pair.run(100);
    let id = pair.gates[0].rows(pair.now())[0].id;
    pair.gates[0].engine.apply(pair.now(), Change::Kill { flow: id }).unwrap();
    pair.run(100);
    let now = pair.now();
    pair.gates[1].command(now, Command::Activate);
    pair.gates[0].command(now, Command::StandBy);
    pair.run(100);
    // The first gateway is active again, with the ports of its half.
    let now = pair.now();
    pair.gates[0].command(now, Command::Activate);
    pair.gates[1].command(now, Command::StandBy);
    let resting = |gate: &Gate| gate.engine.nat_pools().iter().map(|row| row.resting).sum::<u32>();
    assert_eq!((resting(&pair.gates[0]), resting(&pair.gates[1])), (1, 1));
    for n in 1..200 {
        if let Some(syn) = pair.gates[0].pass(now, &tcp("S", (100, 0), client(n), listen)).0 {
            assert_ne!(ends(&syn), (from, to), "it rests");
        }
    }
    pair.run(61_000);
    let now = pair.now();
    pair.gates.iter_mut().for_each(|gate| gate.engine.handle_timeout(now));
    assert_eq!((resting(&pair.gates[0]), resting(&pair.gates[1])), (0, 0));
}

#[test]
fn an_answer_waits_until_the_peer_can_go_on_with_the_connection() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    pair.run(1000);
    let answer = |pair: &mut Pair, n| {
        let now = pair.now();
        let (from, to) = ends(&pair.gates[0].pass(now, &tcp("S", (100, 0), client(n), listen)).0.expect("a server"));
        pair.gates[0].pass(now, &tcp("SA", (500, 101), to, from)).0.expect("its answer");
        let mut rows = Vec::new();
        pair.gates[0].engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
        let id = rows.iter().find(|row| row.client.port() == client(n).port()).unwrap().id;
        (pair.gates[0].node.holds(now, id), id)
    };
    assert!(!answer(&mut pair, 0).0, "initially none does");
    pair.gates[0].node.hold_answers(true);
    let (holds, id) = answer(&mut pair, 1);
    assert!(holds && pair.gates[0].node.poll_released().is_none());
    let now = pair.now();
    assert_eq!(pair.gates[0].node.poll_timeout(now, false), Some(now));
    // There and back without a pause.
    let out = pair.gates[0].output(now);
    pair.gates[1].node.handle_input(now, &mut pair.gates[1].engine, &out);
    assert_eq!(pair.gates[1].node.poll_timeout(now, false), Some(now));
    let back = pair.gates[1].output(now);
    pair.gates[0].node.handle_input(now, &mut pair.gates[0].engine, &back);
    assert_eq!((pair.gates[0].node.poll_released(), pair.gates[0].node.poll_released()), (Some(id), None));
    // The first gateway dies before it gets the client's acknowledgement.
    pair.gates[1].command(now, Command::Activate);
    pair.gates[1].pass(now, &tcp("DA", (101, 501), client(1), listen)).0.expect("it goes on");
    assert_eq!(pair.gates[1].rows(now).len(), 1);
}

#[test]
fn an_answer_on_a_port_that_is_used_again_waits_for_its_own_connection() {
    let mut pair = Pair::new();
    let listen = address(LISTEN[0]);
    pair.gates[0].node.hold_answers(true);
    let now = pair.now();
    open(&mut pair.gates[0], now, 1, listen);
    pair.run(1000);
    // It ends, and its client begins another one at once.
    let now = pair.now();
    let id = pair.gates[0].rows(now)[0].id;
    pair.gates[0].engine.apply(now, Change::Kill { flow: id }).unwrap();
    let (from, to) = ends(&pair.gates[0].pass(now, &tcp("S", (90_100, 0), client(1), listen)).0.expect("a server"));
    pair.gates[0].pass(now, &tcp("SA", (500, 90_101), to, from)).0.expect("its answer");
    let mut rows = Vec::new();
    pair.gates[0].engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
    assert!(pair.gates[0].node.holds(now, rows[0].id));
    let out = pair.gates[0].output(now);
    pair.gates[1].node.handle_input(now, &mut pair.gates[1].engine, &out);
    assert_eq!((pair.gates[1].rows(now).len(), pair.gates[1].engine.counters().half_open), (0, 1));
    pair.gates[1].command(now, Command::Activate);
    let sent = pair.gates[1].pass(now, &tcp("DA", (90_101, 501), client(1), listen)).0.expect("it goes on");
    assert_eq!(ends(&sent), (from, to));
}

#[test]
fn a_handshake_that_a_slow_link_has_delayed_gives_way_to_its_connection() {
    // The other gateway may be active, too, and of the higher term.
    for both_active in [false, true] {
        let mut pair = Pair::new();
        let listen = address(LISTEN[0]);
        pair.run(1000);
        if both_active {
            pair.gates[1].command(at(pair.ms), Command::Activate);
            pair.run(1000);
        }
        pair.gates[0].node.hold_answers(true);
        let now = pair.now();
        let (from, to) = ends(&pair.gates[0].pass(now, &tcp("S", (100, 0), client(1), listen)).0.expect("a server"));
        pair.gates[0].pass(now, &tcp("SA", (500, 101), to, from)).0.expect("its answer");
        let mut rows = Vec::new();
        pair.gates[0].engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
        assert!(pair.gates[0].node.holds(now, rows[0].id));
        let half_open = pair.gates[0].output(now);
        pair.gates[0].pass(now, &tcp("A", (101, 501), client(1), listen)).0.expect("the handshake");
        pair.ms += 20;
        let whole = pair.gates[0].output(pair.now());
        // Both arrive seconds later: by then, the first looks as if it had begun after the second.
        for (late, bytes) in [(2800, half_open), (100, whole)] {
            pair.ms += late;
            let now = pair.now();
            pair.gates[1].node.handle_input(now, &mut pair.gates[1].engine, &bytes);
        }
        assert_eq!(pair.gates[1].rows(pair.now()).len(), 1, "it is established there: {both_active}");
    }
}

#[test]
fn an_answer_waits_for_20_ms_at_most_and_too_many_do_not_wait() {
    let mut pair = Pair::new();
    pair.run(1000);
    pair.gates[0].node.hold_answers(true);
    let flow = |n: u32| FlowId { index: FlowId::HALF_OPEN | n, generation: 1 };
    let now = pair.now();
    assert!(pair.gates[0].node.holds(now, flow(0)));
    let later = at(pair.ms + 20);
    pair.gates[0].output(now);
    assert_eq!(pair.gates[0].node.poll_timeout(at(pair.ms + 15), true), Some(later));
    pair.gates[0].run(at(pair.ms + 19));
    assert_eq!(pair.gates[0].node.poll_released(), None);
    pair.gates[0].run(later);
    assert_eq!(pair.gates[0].node.poll_released(), Some(flow(0)));
    assert_eq!(pair.gates[0].node.held_answers(), HoldTotals { held: 1, late: 1, ..HoldTotals::default() });
    for n in 0..4096 {
        assert!(pair.gates[0].node.holds(later, flow(n)));
    }
    assert!(!pair.gates[0].node.holds(later, flow(5000)));
    pair.ms += 20;
    pair.run(100);
    assert_eq!(std::iter::from_fn(|| pair.gates[0].node.poll_released()).count(), 4096);
    assert!(pair.gates[0].node.holds(pair.now(), flow(1)));
    let said = |on| pair.gates[0].events.contains(&Event::Holding { on });
    assert!(said(false) && said(true));
    // Nothing waits for a peer that is gone.
    pair.disconnect();
    let now = pair.now();
    pair.gates[0].run(now);
    assert_eq!(pair.gates[0].node.poll_released(), Some(flow(1)));
    assert!(!pair.gates[0].node.holds(now, flow(2)));
}

#[test]
fn a_command_before_the_peer_has_proved_itself_makes_nobody_wait_busily() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    gate.node.connected(at(0), &mut gate.engine, [1; 32]);
    gate.output(at(0));
    gate.command(at(0), Command::Activate);
    assert!(gate.node.poll_timeout(at(0), false) > Some(at(0)));
    assert!(gate.output(at(0)).is_empty());
}
