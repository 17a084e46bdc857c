//! States of other plans and versions, states that are not whole, and states that nobody has saved.

use super::super::record::{self, kind};
use super::super::wire::{Writer, next_record};
use super::books::audit;
use super::*;
use std::net::{IpAddr, SocketAddr};

#[test]
fn what_the_plan_lacks_is_left_out_and_counted() {
    let mut rng = Rng::new(7);
    let (mut old, mut talks, now) = busy(7, &mut rng);
    without_half_open(&mut old, now, &mut talks);
    let state = save(&mut old, now, true, 100);
    let flows = views(&old, now).flows;
    let count = |which: &dyn Fn(&FlowRow) -> bool| flows.iter().filter(|row| which(row)).count() as u64;
    // A service, a server's address, a rule and a NAT address are gone.
    let text = ["seed = 3\n", &POOLS.concat(), SERVICES[1], SERVICES[2], SERVICES[3], RULES[2], NAT].concat();
    let text = text.replace("10.0.0.1'", "10.0.0.77'").replace("'10.9.0.1','10.9.0.2'", "'10.9.0.1'");
    let mut new = Engine::new(&settings(&text));
    let loaded = load(&mut new, now, &state);
    let gone_service = |row: &FlowRow| row.service == "web";
    let gone_server = |row: &FlowRow| !gone_service(row) && row.server_address.ip() == IpAddr::from([10, 0, 0, 1]);
    let gone_nat = |row: &FlowRow| row.source.is_some_and(|source| source.ip() == IpAddr::from([10, 9, 0, 2]));
    let lost = |why: Lost| loaded.lost[why as usize];
    assert_eq!(lost(Lost::Service), count(&gone_service));
    assert_eq!(lost(Lost::Server), count(&gone_server));
    assert_eq!(lost(Lost::NatAddress), count(&gone_nat));
    assert!(Lost::ALL[..3].iter().all(|why| lost(*why) > 0), "{loaded}");
    assert_eq!(loaded.flows + loaded.lost(), flows.len() as u64);
    assert_eq!(loaded.servers, [5, 1]);
    let rows = views(&new, now).flows;
    assert!(rows.len() as u64 == loaded.flows && rows.iter().any(|row| row.rule.is_none()));
    assert!(loaded.to_string().contains("its server is gone"), "{loaded}");
}

#[test]
fn another_version_changes_nothing_and_unknown_fields_are_skipped() {
    let mut engine = Engine::new(&before());
    let shown = format!("{engine:?}");
    for (head, error) in [(VERSION + 1, StateError::Version(VERSION + 1)), (0, StateError::Version(0))] {
        let mut state = Vec::new();
        record::Head { version: head, is_final: true, is_copy: false }.write(&mut state);
        assert_eq!(engine.load_state(&mut StateLoad::new(at(1)), at(1), &state), Err(error));
    }
    let mut other = Vec::new();
    record::write_end(&mut other, 0);
    assert_eq!(engine.load_state(&mut StateLoad::new(at(1)), at(1), &other), Err(StateError::NoState));
    assert!(format!("{engine:?}") == shown, "something has changed");

    // Each record of a later version has a field more, and there are new kinds.
    let mut rng = Rng::new(3);
    let (mut old, mut talks, now) = busy(3, &mut rng);
    without_half_open(&mut old, now, &mut talks);
    let state = save(&mut old, now, true, 100);
    let (mut rest, mut newer, mut records) = (&state[..], Vec::new(), 0);
    while let Some((kind, fields)) = next_record(&mut rest) {
        let mut record = Writer::new(&mut newer, kind);
        record.bytes(200, b"news");
        fields.for_each(|(tag, value)| record.bytes(tag, value.0));
        record.end();
        records += 1;
    }
    let want = views(&old, now);
    let mut new = Engine::new(&after());
    let loaded = load(&mut new, now, &newer);
    assert_eq!((views(&new, now), loaded.skipped), (want, records));
}

#[test]
fn what_a_clock_that_is_ahead_says_of_a_server_has_happened_by_now() {
    let (mut old, server) = (Engine::new(&before()), ServerId(0));
    old.apply(at(10), Change::Health { server, up: Some(false) }).unwrap();
    old.apply(at(20), Change::Health { server, up: Some(true) }).unwrap();
    old.apply(at(20), Change::Load { server, load: 50, maintenance: true }).unwrap();
    let state = save(&mut old, at(21), true, 100);
    let (mut new, now) = (Engine::new(&before()), at(30));
    let mut load = StateLoad::new(at(100_000));
    new.load_state(&mut load, now, &state).unwrap();
    new.end_load(&load, now).unwrap();
    let standing = new.standing.servers().save(new.plan.roster(), now, server);
    assert_eq!((standing.back_since, standing.load, standing.maintenance), (Some(now), Some((50, now)), true));
}

#[test]
fn a_state_without_its_end_is_not_whole() {
    let (mut old, _, now) = busy(1, &mut Rng::new(1));
    let state = save(&mut old, now, true, 100);
    let mut ends = vec![0];
    let mut rest = &state[..];
    while next_record(&mut rest).is_some() {
        ends.push(state.len() - rest.len());
    }
    let read = |state: &[u8]| {
        let (mut engine, mut load) = (Engine::new(&after()), StateLoad::new(now));
        engine.load_state(&mut load, now, state).expect("a state");
        engine.end_load(&load, now).map(|loaded| loaded.flows)
    };
    assert!(read(&state).is_ok());
    assert_eq!(read(&state[..ends[ends.len() - 2]]), Err(StateError::NotWhole));
    // One record in the middle is missing.
    let (from, to) = (ends[ends.len() / 2], ends[ends.len() / 2 + 1]);
    assert_eq!(read(&[&state[..from], &state[to..]].concat()), Err(StateError::NotWhole));
}

/// Returns a state with records of one kind changed.
fn changed(state: &[u8], which: u8, change: impl Fn(u8, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let (mut rest, mut out) = (state, Vec::new());
    while let Some((kind, fields)) = next_record(&mut rest) {
        let mut record = Writer::new(&mut out, kind);
        for (tag, value) in fields {
            let other = if kind == which { change(tag, value.0) } else { None };
            record.bytes(tag, other.as_deref().unwrap_or(value.0));
        }
        record.end();
    }
    out
}

#[test]
fn times_that_no_engine_saves_keep_nothing_for_ever() {
    let (mut old, mut talks, now) = busy(5, &mut Rng::new(5));
    without_half_open(&mut old, now, &mut talks);
    let state = save(&mut old, now, true, 100);
    // As far as a number goes into the future, and into the past.
    for far in [u64::MAX - 1, u64::MAX] {
        let mut mad = state.clone();
        for (of, times) in [
            (kind::SERVER, &[10, 11, 12, 13][..]),
            (kind::VERDICT, &[8]),
            (kind::SLOT, &[5, 6]),
            (kind::FLOW, &[9, 10]),
            (kind::REST, &[7]),
        ] {
            mad = changed(&mad, of, |tag, _| times.contains(&tag).then(|| far.to_be_bytes().to_vec()));
        }
        let mut new = Engine::new(&before());
        let loaded = load(&mut new, now, &mad);
        assert_eq!((loaded.unreadable, loaded.lost[Lost::Unreadable as usize]), (0, 0), "{loaded}");
        audit(&new, now);
        let mut later = now;
        for _ in 0..3 {
            later = later + Duration::from_secs(10_000);
            tick(&mut new, later);
            (0..9).for_each(|_| new.handle_timeout(later));
        }
        let left = views(&new, later);
        assert!(left.flows.is_empty() && left.nat.is_empty() && left.sticky == [0], "{left:?}");
    }
}

#[test]
fn a_flow_that_would_send_in_the_name_of_another_is_not_readable() {
    let (mut old, mut talks, now) = busy(6, &mut Rng::new(6));
    without_half_open(&mut old, now, &mut talks);
    let state = save(&mut old, now, true, 100);
    let plain = views(&old, now).flows.iter().filter(|row| row.source.is_none()).count() as u64;
    // The last byte of the server's replies is that of where they go.
    let forged = changed(&state, kind::FLOW, |tag, value| {
        let mut key = value.to_vec();
        key.last_mut().filter(|_| tag == 2).map(|last| *last ^= 0x80)?;
        Some(key)
    });
    let mut new = Engine::new(&before());
    let loaded = load(&mut new, now, &forged);
    assert_eq!((loaded.lost[Lost::Unreadable as usize], loaded.flows), (plain, 0), "{loaded}");
    audit(&new, now);
}

#[test]
fn addresses_count_and_not_the_names_of_nat_pools() {
    let (mut old, mut talks, now) = busy(8, &mut Rng::new(8));
    without_half_open(&mut old, now, &mut talks);
    let state = save(&mut old, now, true, 100);
    let (flows, resting) = (views(&old, now).flows, views(&old, now).nat.iter().map(|row| row.resting).sum::<u32>());
    let text = |nat: &str| ["seed = 3\n", &POOLS.concat(), &SERVICES.concat(), &RULES.concat(), nat].concat();
    let renamed = text(NAT).replace("'out'", "'renamed'");
    let swapped =
        text(&NAT.replace(",'10.9.0.2'", "")) + "[[nat-pool]]\nname='b'\naddresses='10.9.0.2'\nports='2000-2200'\n";
    for text in [renamed, swapped] {
        let mut new = Engine::new(&settings(&text));
        let loaded = load(&mut new, now, &state);
        assert_eq!((loaded.flows, loaded.resting), (flows.len() as u64, [resting.into(), 0]), "{loaded}");
        audit(&new, now);
    }
    // Ports that the pool no longer has.
    let mut new = Engine::new(&settings(&text(&NAT.replace("2000", "2100"))));
    let loaded = load(&mut new, now, &state);
    let out = flows.iter().filter(|row| row.source.is_some_and(|source| source.port() < 2100)).count() as u64;
    assert_eq!((loaded.lost[Lost::Port as usize], loaded.lost()), (out, out), "{loaded}");
    assert!(out > 0);
    audit(&new, now);
}

#[test]
fn a_smaller_table_takes_what_fits_and_counts_the_rest() {
    let (mut old, mut talks, now) = busy(9, &mut Rng::new(9));
    without_half_open(&mut old, now, &mut talks);
    let state = save(&mut old, now, true, 100);
    let flows = views(&old, now).flows.len() as u64;
    let mut small = before();
    small.table.max_flows = flows as u32 / 2;
    let mut new = Engine::new(&small);
    let loaded = load(&mut new, now, &state);
    assert_eq!((loaded.flows, loaded.lost[Lost::Room as usize]), (flows / 2, flows - flows / 2), "{loaded}");
    audit(&new, now);
    // It goes on working.
    let mut rng = Rng::new(10);
    for n in 0..200 {
        Talk::new(&mut rng).go_on(&mut rng, now + Duration::from_millis(n * 100), &mut [&mut new]);
    }
}

/// A configuration with one service whose clients are sticky by network.
fn sticky_by(prefix: u8) -> Settings {
    let service = format!(
        "[[service]]\nname='sticky'\nlisten='192.0.2.82:54/udp'\npool='web'\n\
         sticky={{idle='60s',by='network',ipv4-prefix={prefix}}}\n[timeouts]\nudp-one-way='10m'\nudp-two-way='10m'\n"
    );
    settings(&["seed = 3\n", POOLS[0], &service].concat())
}

#[test]
fn sticky_clients_by_other_networks_are_others_and_one_with_a_flow_has_no_idle_time() {
    let mut old = Engine::new(&sticky_by(24));
    let mut talk = Talk::new(&mut Rng::new(1));
    (talk.protocol, talk.listen) = (crate::packet::Protocol::Udp, "192.0.2.82:54".parse().unwrap());
    talk.client = SocketAddr::new([198, 51, 100, 0].into(), 5000);
    // It is proven by its second datagram.
    let mut rng = Rng::new(3);
    while old.shard.chooser().sticky_groups().all(|group| !is_proven(&old, group)) {
        talk.go_on(&mut rng, at(1000), &mut [&mut old]);
    }
    // Long ago by the idle time, but the flow is there.
    let now = at(1300);
    let state = save(&mut old, now, true, 10);
    // That of clients that have yet to prove themselves is over.
    for (prefix, slots) in [(24, [1, 1]), (32, [0, 2]), (16, [0, 2])] {
        let mut new = Engine::new(&sticky_by(prefix));
        let loaded = load(&mut new, now, &state);
        assert_eq!((loaded.slots, loaded.flows), (slots, 1), "{prefix}: {loaded}");
        audit(&new, now);
        let later = at(1300 + 700);
        tick(&mut new, later);
        audit(&new, later);
    }
}

fn is_proven(engine: &Engine, group: u32) -> bool {
    let mut chooser = engine.shard.chooser().clone();
    let mut found = false;
    chooser.begin_sticky_walk(crate::flow::Watcher::Successor);
    while chooser.walk_sticky(engine.standing.servers(), (crate::flow::Watcher::Successor, group), 10, |slot| {
        found |= slot.proven
    }) > 0
    {}
    found
}

#[test]
fn numbers_of_a_last_state_are_behind_once_packets_have_passed_after_it() {
    let mut old = Engine::new(&before());
    let mut rng = Rng::new(4);
    let mut talk = Talk { listen: "192.0.2.80:80".parse().unwrap(), ..Talk::new(&mut rng) };
    (talk.protocol, talk.client) = (crate::packet::Protocol::Tcp, "198.51.100.9:5000".parse().unwrap());
    (0..3).for_each(|_| talk.go_on(&mut rng, at(1000), &mut [&mut old]));
    let state = save(&mut old, at(1000), true, 10);
    for outdated in [false, true] {
        let mut new = Engine::new(&before());
        let mut load = StateLoad::new(at(1000));
        if outdated {
            load.outdated();
        }
        new.load_state(&mut load, at(1000), &state).unwrap();
        assert_eq!(new.end_load(&load, at(1000)).unwrap().flows, 1);
        // Both ends are far ahead by now, and close the connection.
        let [client, server] = talk.next.map(|next| next.wrapping_add(100 << 20));
        let (from, to) = talk.there.unwrap();
        for flags in ["A", "FA"] {
            let packets = [
                super::talks::packet((talk.protocol, client, server, flags), talk.client, talk.listen),
                super::talks::packet((talk.protocol, server, client, flags), to, from),
            ];
            packets.iter().for_each(|packet| _ = super::talks::pass(&mut new, at(1001), packet));
        }
        let closing = new.counters().states[crate::flow::TimeoutState::Closing as usize].count;
        assert_eq!(closing, u64::from(outdated), "who does not know that the numbers are old learns no others");
    }
}

#[test]
fn a_plan_with_fewer_slots_that_comes_while_a_state_is_read_leaves_out_what_it_lacks() {
    // The first of each kind only: all other slots are gone, unless a flow has them by then.
    let fewer = "[[pool]]\nname='web'\nserver=[{name='a',address=['10.0.0.1','fd00::1'],port=8080}]\n";
    let fewer = settings(&["seed = 3\n", fewer, SERVICES[0], RULES[2]].concat());
    let mut rng = Rng::new(77);
    let (mut old, _, now) = busy(77, &mut rng);
    let state = save(&mut old, now, false, 100);
    let mut lost = 0;
    for cut in (0..state.len()).step_by(97) {
        let (mut new, mut load) = (Engine::new(&before()), StateLoad::new(now));
        let read = new.load_state(&mut load, now, &state[..cut]).expect("a state");
        new.reload(now, &fewer, Removed::Drain);
        new.load_state(&mut load, now, &state[read..]).expect("a state");
        let loaded = new.end_load(&load, now).expect("the end");
        lost += loaded.lost() + loaded.slots[1];
        assert!(new.counters().add_up() && loaded.unreadable == 0, "{cut}: {loaded}");
    }
    assert!(lost > 20, "{lost}");
}
