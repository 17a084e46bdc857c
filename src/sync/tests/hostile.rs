//! A peer that is none: it does not have the key, or has it and means harm.

use super::super::link::LinkError;
use super::super::proof::proof;
use super::super::wire::{HEADER, Header, Hello, Kind, VERSION};
use super::*;

/// Greets a gateway as its peer would, and returns what proves it.
fn greet(gate: &mut Gate, now: Instant, key: &[u8], hello: &Hello) -> Vec<u8> {
    gate.node.connected(now, &mut gate.engine, [9; 32]);
    let out = gate.output(now);
    let own = hello.write();
    let frame = |kind: Kind, seq, body: &[u8]| {
        let header = Header { version: VERSION, kind: kind.number(), len: body.len() as u16, term: 0, seq };
        [&header.write()[..], body].concat()
    };
    let made = proof(key, &own, &out[HEADER..]);
    [frame(Kind::Hello, 1, &own), frame(Kind::Proof, 2, &made)].concat()
}

fn hello() -> Hello {
    Hello { node: "beta".into(), instance: 9, nonce: [3; 32], role: Role::Active.number(), ..Hello::default() }
}

/// Returns why a gateway closes the connection after some bytes.
fn closes(gate: &mut Gate, now: Instant, bytes: &[u8]) -> Option<LinkError> {
    gate.node.handle_input(now, &mut gate.engine, bytes);
    gate.run(now);
    gate.events.drain(..).find_map(|event| match event {
        Event::Close(error) => Some(error),
        _ => None,
    })
}

#[test]
fn who_is_not_the_peer_gets_nothing() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let mut closes_for = |key: &[u8], hello: &Hello, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = greet(&mut gate, at(0), key, hello);
        change(&mut bytes);
        closes(&mut gate, at(0), &bytes)
    };
    let none = |_: &mut Vec<u8>| {};
    assert_eq!(closes_for(b"shared", &hello(), &none), None);
    assert_eq!(closes_for(b"other", &hello(), &none), Some(LinkError::Key));
    let stranger = Hello { node: "gamma".into(), ..hello() };
    assert_eq!(closes_for(b"shared", &stranger, &none), Some(LinkError::Stranger("gamma".into())));
    assert_eq!(closes_for(b"shared", &Hello { node: "alpha".into(), ..hello() }, &none), Some(LinkError::Itself));
    assert_eq!(closes_for(b"shared", &hello(), &|bytes| bytes[0] = 9), Some(LinkError::Version(9)));
    assert_eq!(closes_for(b"shared", &hello(), &|bytes| bytes[1] = Kind::Put.number()), Some(LinkError::NotYet));
    let long = |bytes: &mut Vec<u8>| bytes[2] = 40;
    assert_eq!(closes_for(b"shared", &hello(), &long), Some(LinkError::NotYet), "nothing long is kept");
    let other_nonce = |bytes: &mut Vec<u8>| {
        let place = bytes.windows(4).position(|window| window == [3; 4]).unwrap();
        bytes[place] = 4;
    };
    assert_eq!(closes_for(b"shared", &hello(), &other_nonce), Some(LinkError::Key));
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let bytes = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &bytes), None);
    assert_eq!(closes(&mut gate, at(2_990), &[]), None);
    assert_eq!(closes(&mut gate, at(3_000), &[]), Some(LinkError::Silent));
    // One that drips bytes proves nothing in time.
    let bytes = greet(&mut gate, at(4_000), b"shared", &hello());
    for (ms, byte) in (4_000..).step_by(100).zip(&bytes[..49]) {
        assert_eq!(closes(&mut gate, at(ms), &[*byte]), None);
    }
    assert_eq!(closes(&mut gate, at(9_000), &[]), Some(LinkError::Silent));
}

#[test]
fn frames_that_make_no_sense_close_the_connection_and_unknown_ones_do_not() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let frame = |kind: u8, seq: u64, body: &[u8]| {
        let header = Header { version: VERSION, kind, len: body.len() as u16, term: 1, seq };
        [&header.write()[..], body].concat()
    };
    let cases: [(Kind, &[u8]); 9] = [
        (Kind::Del, &[1, 2, 3]),
        (Kind::Touch, &[1, 2, 3]),
        (Kind::Bulk, &[0; 20]),
        (Kind::BulkEnd, &[]),
        (Kind::Digest, &[0; 100]),
        (Kind::Want, &[0; 4]),
        (Kind::Ack, &[0xff; 9]),
        (Kind::Refused, &[0; 13]),
        (Kind::Map, &[0; 17]),
    ];
    for (kind, body) in cases {
        let bytes = [greet(&mut gate, at(0), b"shared", &hello()), frame(kind.number(), 3, body)].concat();
        assert_eq!(closes(&mut gate, at(0), &bytes), Some(LinkError::Unreadable(kind.name())));
    }
    let greeting = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &[greeting, frame(99, 3, &[1; 40])].concat()), None);
    assert_eq!(gate.node.status().skipped, 1);
    assert_eq!(closes(&mut gate, at(0), &frame(99, 2, &[])), Some(LinkError::Order));
}

#[test]
fn a_hostile_peer_makes_nothing_grow() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let bytes = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &bytes), None);
    let mut other = Gate::new(at(0), CONFIG, settings(1));
    other.command(at(0), Command::Activate);
    open(&mut other, at(0), 0, address(LISTEN[0]));
    let mut giving = other.engine.begin_giving(at(0));
    let mut names = Vec::new();
    while !other.engine.has_named(&giving) {
        other.engine.give_names(&mut giving, at(0), 100, &mut names);
    }
    let mut put = vec![1];
    other.engine.give_flow(&mut giving, at(0), 0, &mut put);
    let frame = |kind: Kind, seq: u64, body: &[u8]| {
        let header = Header { version: VERSION, kind: kind.number(), len: body.len() as u16, term: 1, seq };
        [&header.write()[..], body].concat()
    };
    assert_eq!(closes(&mut gate, at(0), &frame(Kind::Names, 3, &names)), None);
    // The slot is the last field: one that no table here has.
    let slotless = put.len();
    put.extend([16, 4, 0xff, 0xff, 0xff, 0xf0]);
    let len = u16::from_be_bytes([put[2], put[3]]) + (put.len() - slotless) as u16;
    put[2..4].copy_from_slice(&len.to_be_bytes());
    for seq in 4..20_000 {
        assert_eq!(closes(&mut gate, at(0), &frame(Kind::Put, seq, &put)), None);
    }
    assert_eq!(gate.rows(at(0)).len(), 0);
    let link = gate.node.link.as_ref().unwrap();
    assert!(link.refused.len() <= 8192 && link.refused.capacity() <= 16_384);
    // Wishes for everything again and again are one pass.
    let want = [&[1][..], &[0xff; 32]].concat();
    for seq in 20_000..20_100 {
        assert_eq!(closes(&mut gate, at(0), &frame(Kind::Want, seq, &want)), None);
    }
    let sent: usize = (0..20).map(|ms| gate.output(at(ms)).len()).sum();
    assert!(sent < 200_000, "{sent} bytes");
}

#[test]
fn names_that_no_service_has_reach_no_log() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let greeting = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &greeting), None);
    let mut other = Gate::new(at(0), CONFIG, settings(1));
    other.command(at(0), Command::Activate);
    (0..2).for_each(|n| _ = open(&mut other, at(0), n, address(LISTEN[usize::from(n)])));
    let mut giving = other.engine.begin_giving(at(0));
    let mut names = Vec::new();
    while !other.engine.has_named(&giving) {
        other.engine.give_names(&mut giving, at(0), 100, &mut names);
    }
    for (name, forged) in [(&b"full"[..], &b"f\n\x1bl"[..]), (b"sticky", b"other1")] {
        let place = names.windows(name.len()).position(|window| window == name).expect("a service");
        names[place..place + name.len()].copy_from_slice(forged);
    }
    let mut put = vec![1];
    other.engine.give_flow(&mut giving, at(0), 1, &mut put);
    gate.node.handle_input(at(0), &mut gate.engine, &frame_of(1, Kind::Names, 3, &names));
    gate.node.handle_input(at(0), &mut gate.engine, &frame_of(1, Kind::Put, 4, &put));
    gate.run(at(0));
    let refuses = |event: &&Event| matches!(event, Event::Refuses { .. });
    let said = gate.events.iter().find(refuses).expect("it is refused").to_string();
    assert!(said.ends_with("services that are not configured here: other1"), "{said:?}");
    assert_eq!(gate.node.refusals().services, ["other1"]);
}

/// A frame with a term of the sender's choice.
fn frame_of(term: u64, kind: Kind, seq: u64, body: &[u8]) -> Vec<u8> {
    let header = Header { version: VERSION, kind: kind.number(), len: body.len() as u16, term, seq };
    [&header.write()[..], body].concat()
}

#[test]
fn the_highest_of_all_terms_is_survived() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    let bytes = greet(&mut gate, at(0), b"shared", &Hello { seen_term: u64::MAX, ..hello() });
    assert_eq!(closes(&mut gate, at(0), &bytes), None);
    let ack = [&[0; 8][..], &[Role::Standby.number()]].concat();
    assert_eq!(closes(&mut gate, at(0), &frame_of(u64::MAX, Kind::Ack, 3, &ack)), None);
    gate.command(at(1), Command::Activate);
    gate.command(at(2), Command::StandBy);
    gate.command(at(3), Command::Activate);
    assert_eq!(gate.node.status().term, u64::MAX);
    assert!(open(&mut gate, at(4), 0, address(LISTEN[0])).1.port() == 80);
}

#[test]
fn a_slot_that_no_table_has_is_mapped_to_nothing() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    gate.command(at(0), Command::Activate);
    open(&mut gate, at(0), 0, address(LISTEN[0]));
    let bytes = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &bytes), None);
    let mark = gate.engine.flow_mark(0).unwrap();
    let keys = gate.node.book.keys(&mark);
    for (seq, theirs) in (3..).zip([u32::MAX, 4096, 4095]) {
        let body = [&theirs.to_be_bytes()[..], &0u32.to_be_bytes(), &keys.to_be_bytes()].concat();
        assert_eq!(closes(&mut gate, at(0), &frame_of(1, Kind::Map, seq, &body)), None);
        let known = gate.node.book.mapped(&gate.engine, theirs).is_some();
        assert_eq!(known, theirs == 4095);
    }
}

#[test]
fn wishes_for_everything_are_one_pass_a_second() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    gate.command(at(0), Command::Activate);
    (0..50).for_each(|n| _ = open(&mut gate, at(0), n, address(LISTEN[0])));
    let bytes = greet(&mut gate, at(0), b"shared", &hello());
    assert_eq!(closes(&mut gate, at(0), &bytes), None);
    let want = [&[0][..], &[0xff; 32]].concat();
    let mut sent = 0;
    for ms in 0..2500 {
        assert_eq!(closes(&mut gate, at(ms), &frame_of(1, Kind::Want, 3 + ms, &want)), None);
        sent += gate.output(at(ms)).len();
    }
    // The first one, and three that were asked for, of 50 records each.
    assert!((20_000..40_000).contains(&sent), "{sent} bytes");
}

#[test]
fn a_peer_that_asks_again_and_again_fills_no_queue() {
    let mut pair = Pair::new();
    let now = pair.now();
    let gate = &mut pair.gates[1];
    while gate.node.poll_event().is_some() {}
    let asks: Vec<u8> = (0..500).flat_map(|seq| frame_of(1, Kind::Yield, 1000 + seq, &[])).collect();
    gate.node.handle_input(now, &mut gate.engine, &asks);
    gate.node.handle_input(now, &mut gate.engine, &frame_of(1, Kind::Bulk, 2000, &[]));
    let events: Vec<Event> = std::iter::from_fn(|| gate.node.poll_event()).collect();
    assert_eq!(events[0], Event::Asked { times: 500 });
    assert!(matches!(events[..], [_, Event::Close(_)]), "{events:?}");
}

#[test]
fn connections_are_greeted_side_by_side_and_the_peers_alone_counts() {
    let mut pair = Pair::new();
    pair.run(1000);
    pair.disconnect();
    let now = pair.now();
    let [one, two] = &mut pair.gates;
    let mut others: Vec<_> = (0..3).map(|n| one.node.greet(now, &one.engine, [n; 32])).collect();
    let mut of_peer = one.node.greet(now, &one.engine, [9; 32]);
    // One says nothing, one has another key, one is not the peer.
    let forged = [frame_of(0, Kind::Hello, 1, &hello().write()), frame_of(0, Kind::Proof, 2, &[7; 32])].concat();
    assert_eq!(one.node.hear(&mut others[1], &mut &forged[..]), Err(LinkError::Key));
    let stranger = Hello { node: "gamma".into(), ..hello() }.write();
    let stranger = frame_of(0, Kind::Hello, 1, &stranger);
    assert_eq!(one.node.hear(&mut others[2], &mut &stranger[..]), Err(LinkError::Stranger("gamma".into())));
    two.node.connected(now, &mut two.engine, [7; 32]);
    for _ in 0..2 {
        let mut out = Vec::new();
        of_peer.poll_output(&mut out);
        two.node.handle_input(now, &mut two.engine, &out);
        let back = two.output(now);
        let mut bytes = &back[..];
        if one.node.hear(&mut of_peer, &mut bytes).unwrap() {
            // What it has sent behind its proof counts, and this gateway's proof is still to be sent.
            let rest = bytes.to_vec();
            one.node.meet(now, &mut one.engine, of_peer);
            one.node.handle_input(now, &mut one.engine, &rest);
            pair.run(1000);
            pair.assert_equal();
            return;
        }
    }
    panic!("the peer has not been heard");
}

#[test]
fn greetings_and_proofs_that_come_again_close_the_connection() {
    let mut gate = Gate::new(at(0), CONFIG, settings(0));
    for again in [Kind::Hello, Kind::Proof] {
        let bytes = greet(&mut gate, at(0), b"shared", &hello());
        assert_eq!(closes(&mut gate, at(0), &bytes), None);
        let second = match again {
            Kind::Hello => frame_of(0, again, 3, &hello().write()),
            _ => frame_of(0, again, 3, &bytes[bytes.len() - 32..]),
        };
        assert!(closes(&mut gate, at(0), &second).is_some());
        assert!(gate.output(at(0)).is_empty());
    }
}
