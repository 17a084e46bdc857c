//! All views agree after a state was loaded, and so do the verdicts on whatever comes next.

use super::super::record::kind;
use super::super::wire::{Writer, next_record};
use super::talks::pass;
use super::*;
use crate::flow::TimeoutState;
use crate::packet::Protocol;
use std::net::SocketAddr;

#[test]
fn a_busy_engine_goes_on_in_another_one() {
    let mut kinds = std::collections::BTreeSet::new();
    let mut rows = [0; 5];
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let (mut old, mut talks, mut now) = busy(seed, &mut rng);
        without_half_open(&mut old, now, &mut talks);
        let state = save(&mut old, now, seed % 2 == 0, 1 + rng.below(40) as usize);
        // The other engine's clock is of another kind.
        let mut new = Engine::new(&after());
        let loaded = load(&mut new, now, &state);
        let want = views(&old, now);
        assert_eq!(views(&new, now), want, "seed {seed}: {loaded}");
        assert_eq!((loaded.flows, loaded.lost(), loaded.skipped), (want.flows.len() as u64, 0, 0), "{loaded}");
        assert_eq!((loaded.unreadable, loaded.servers), (0, [6, 0]), "{loaded}");
        kinds.extend(
            want.flows
                .iter()
                .map(|row| (row.protocol.number(false), row.state as u8, row.client.is_ipv6(), row.source.is_some())),
        );
        rows[0] += want.flows.len();
        rows[1] += loaded.slots[0] as usize;
        rows[2] += loaded.resting[0] as usize;
        rows[3] += want.rules.iter().map(|rule| rule.3 as usize).sum::<usize>();
        rows[4] += led_alike([&mut old, &mut new], now, &mut rng);
        // Flows go on: each packet has the same fate in both.
        for _ in 0..300 {
            now = now + Duration::from_millis(rng.below(2000));
            [&mut old, &mut new].into_iter().for_each(|engine| tick(engine, now));
            talks.retain(|talk| is_known(&old, talk));
            if talks.is_empty() {
                break;
            }
            let place = rng.below(talks.len() as u64) as usize;
            talks[place].go_on(&mut rng, now, &mut [&mut old, &mut new]);
            assert!(talks.get(place).is_none_or(|talk| is_known(&old, talk) == is_known(&new, talk)));
        }
        for engine in [&old, &new] {
            let counters = engine.counters();
            let ended: u64 = counters.flows_ended.iter().map(|ended| ended.count).sum();
            assert!(counters.add_up() && counters.flows_opened == counters.flows + ended, "{counters:?}");
        }
        all_ends(&mut new, now);
    }
    let has = |protocol: Protocol, state: TimeoutState, v6: bool, nat: bool| {
        assert!(kinds.contains(&(protocol.number(false), state as u8, v6, nat)), "{protocol:?} {state:?} {v6} {nat}");
    };
    for nat in [false, true] {
        for v6 in [false, true] {
            for state in [TimeoutState::Established, TimeoutState::Closing, TimeoutState::Reset] {
                has(Protocol::Tcp, state, v6, nat);
            }
        }
        has(Protocol::Udp, TimeoutState::UdpOneWay, false, nat);
        has(Protocol::Udp, TimeoutState::UdpTwoWay, false, nat);
    }
    has(Protocol::Icmp, TimeoutState::Icmp, false, false);
    assert!(rows.iter().all(|row| *row > 100), "{rows:?}");
}

/// Clients with a sticky slot are led by it in both engines; returns how many are.
fn led_alike([old, new]: [&mut Engine; 2], now: Instant, rng: &mut Rng) -> usize {
    let mut led = 0;
    for n in 0..12 {
        let mut talk = Talk::new(rng);
        talk.protocol = Protocol::Udp;
        (talk.client, talk.listen) = (SocketAddr::new([198, 51, 100, n].into(), 999), "192.0.2.82:54".parse().unwrap());
        let packet = talk.next(rng);
        let row = |engine: &mut Engine| {
            pass(engine, now, &packet);
            let client = Some(talk.client.ip().into());
            let mut rows = Vec::new();
            engine.flows(now, &FlowQuery { client, ..FlowQuery::default() }, Cursor::default(), 1 << 16, &mut rows);
            rows.into_iter().find(|row| row.client == talk.client)
        };
        let [before, after] = [&mut *old, &mut *new].map(row);
        if before.as_ref().is_some_and(|row| row.picked_by == crate::balance::PickedBy::Stickiness) {
            led += 1;
            assert_eq!(before.map(|row| row.server), after.map(|row| row.server));
        }
    }
    led
}

/// All of it ends: nothing is left that anybody counts.
fn all_ends(engine: &mut Engine, mut now: Instant) {
    for _ in 0..2 {
        // Flows first, then the ports that rest after them.
        now = now + Duration::from_secs(100_000);
        tick(engine, now);
        engine.handle_timeout(now);
    }
    let left = views(engine, now);
    assert!(left.flows.is_empty() && left.nat.is_empty() && left.sticky == [0], "{left:?}");
    assert!(left.servers.iter().all(|row| (row.1, row.2) == (0, 0)), "{left:?}");
    assert!(left.rules.iter().all(|row| (row.2, row.3) == (0, 0)), "{left:?}");
}

#[test]
fn a_key_that_the_file_has_changed_since_is_not_overruled() {
    let mut engine = Engine::new(&before());
    let now = at(5000);
    for (name, weight) in [("a", 9), ("b", 9)] {
        let server = server(&engine, "web", name);
        engine.apply(now, Change::Weight { server, weight }).unwrap();
        engine.apply(now, Change::Admin { server, admin: Admin::Disabled, deadline: None }).unwrap();
    }
    let state = save(&mut engine, now, true, 100);
    let text = ["seed = 3\n", &POOLS.concat(), &SERVICES.concat(), &RULES.concat(), NAT].concat();
    let text = text.replace("{name='a',address=['10.0.0.1'", "{name='a',weight=5,state='draining',address=['10.0.0.1'");
    let mut new = Engine::new(&settings(&text));
    load(&mut new, now, &state);
    let of = |name| views(&new, now).servers.into_iter().find(|row| row.0 == name).map(|row| (row.3, row.4));
    assert_eq!(of("web/a"), Some((5, Admin::Draining)), "as the file says now");
    assert_eq!(of("web/b"), Some((9, Admin::Disabled)), "as the operator said");
}

#[test]
fn ages_are_kept_on_a_clock_that_began_later() {
    let mut old = Engine::new(&before());
    let syn = |engine: &mut Engine, now| {
        let mut talk = Talk::new(&mut Rng::new(1));
        (talk.protocol, talk.listen) = (Protocol::Udp, "192.0.2.80:54".parse().unwrap());
        talk.client = "198.51.100.50:5000".parse().unwrap();
        talk.go_on(&mut Rng::new(1), now, &mut [engine]);
    };
    syn(&mut old, at(90_000));
    let state = save(&mut old, at(90_100), true, 100);
    // 50 s pass without a gateway.
    let (saved, now) = (at(9_000), at(9_050));
    let mut new = Engine::new(&before());
    let mut load = StateLoad::new(saved);
    new.load_state(&mut load, now, &state).unwrap();
    assert_eq!(new.end_load(&load, now).unwrap().flows, 1);
    let row = &mut Vec::new();
    new.flows(now, &FlowQuery::default(), Cursor::default(), 10, row);
    assert_eq!((row[0].age_ms, row[0].idle_ms / 100), (150_000, 1499));
    // The timeout of 300 s since its last packet is not shorter than it was.
    assert!((150_000..150_200).contains(&row[0].expires_in_ms), "{row:?}");
    tick(&mut new, at(9_199));
    assert_eq!(new.counters().flows, 1);
    tick(&mut new, at(9_201));
    assert_eq!(new.counters().flows, 0);
    // After so long that it would have expired, it is left out.
    let mut late = Engine::new(&before());
    let mut load = StateLoad::new(saved);
    late.load_state(&mut load, at(9_300), &state).unwrap();
    let loaded = late.end_load(&load, at(9_300)).unwrap();
    assert_eq!((loaded.flows, loaded.lost[Lost::Expired as usize]), (0, 1));
}

#[test]
fn a_flow_with_the_key_of_an_earlier_one_takes_its_place() {
    let (mut old, mut talks, now) = busy(2, &mut Rng::new(2));
    without_half_open(&mut old, now, &mut talks);
    let state = save(&mut old, now, true, 100);
    let (mut rest, mut twice) = (&state[..], Vec::new());
    while let Some((kind, fields)) = next_record(&mut rest) {
        for _ in 0..if kind == kind::FLOW { 2 } else { 1 } {
            let mut record = Writer::new(&mut twice, kind);
            fields.for_each(|(tag, value)| record.bytes(tag, value.0));
            record.end();
        }
    }
    let mut new = Engine::new(&after());
    let mut load = StateLoad::new(now);
    new.load_state(&mut load, now, &twice).unwrap();
    let _ = new.end_load(&load, now);
    assert_eq!(views(&new, now), views(&old, now));
}

#[test]
fn verdicts_of_monitors_and_kept_servers_are_recalled() {
    let text = [
        "seed = 3\n[gateway]\nprobe-address=['192.0.2.200','2001:db8::200']\n",
        &POOLS.concat().replace(
            "name='web'\n",
            "name='web'\nfloor=1\nmonitor=[{type='icmp',fall=1,rise=1,interval='1s',timeout='500ms'}]\n",
        ),
        &SERVICES.concat(),
        NAT,
    ]
    .concat();
    let mut old = Engine::new(&settings(&text));
    // Nothing answers: all go down, but for the one that the floor keeps.
    let mut now = at(1000);
    let mut buffer = vec![0; 65_535];
    for _ in 0..100 {
        now = now + Duration::from_millis(100);
        tick(&mut old, now);
        while old.poll_transmit(now, &mut buffer).is_some() {}
    }
    let health = |engine: &Engine, now| -> Vec<(String, String, bool, u64)> {
        let rows = engine.monitors(now).into_iter();
        let mut rows: Vec<_> =
            rows.map(|row| (row.server, row.state.name().to_owned(), row.kept_by_floor, row.in_state_ms)).collect();
        rows.sort();
        rows
    };
    let was = health(&old, now);
    assert_eq!(was.iter().filter(|row| row.1 == "down").count(), 4, "{was:?}");
    assert_eq!(was.iter().filter(|row| row.2).count(), 2, "{was:?}");
    let state = save(&mut old, now, true, 3);
    let mut new = Engine::new(&settings(&text));
    let loaded = load(&mut new, now, &state);
    assert_eq!((health(&new, now), loaded.verdicts), (was, [6, 0]));
    assert_eq!(views(&new, now).servers, views(&old, now).servers);
    assert!(new.poll_event().is_none(), "nothing has happened");
    // Probes go on.
    let mut sent = 0;
    for _ in 0..20 {
        now = now + Duration::from_millis(100);
        tick(&mut new, now);
        while new.poll_transmit(now, &mut buffer).is_some() {
            sent += 1;
        }
    }
    assert!(sent >= 6, "{sent}");
}
