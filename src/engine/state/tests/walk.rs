//! States that are saved by portions while packets go on, against what the engine has been in that time.

use super::books::{audit, ports};
use super::*;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What a flow is, whatever its slot: its keys and its names.
type Known = (u8, SocketAddr, SocketAddr, String, String, SocketAddr, Option<SocketAddr>);

fn known(engine: &Engine, now: Instant) -> BTreeSet<Known> {
    let mut rows = Vec::new();
    engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
    let firm = rows.into_iter().filter(|row| row.id.index & crate::ids::FlowId::HALF_OPEN == 0);
    firm.map(|row| {
        let protocol = row.protocol.number(false);
        (protocol, row.client, row.listen, row.service, row.server, row.server_address, row.source)
    })
    .collect()
}

/// An engine that is saved by portions while its talks go on, and what was seen of it.
struct Saved {
    engine: Engine,
    talks: Vec<Talk>,
    now: Instant,
    walk: StateWalk,
    state: Vec<u8>,
    /// Flows that were there at any time of the walk, and those that were there all the time.
    ever: BTreeSet<Known>,
    throughout: BTreeSet<Known>,
}

fn save_amid(seed: u64, rng: &mut Rng, plans: &[Settings]) -> Saved {
    let (engine, talks, now) = busy(seed, rng);
    let there = known(&engine, now);
    let walk = StateWalk::new(now, false);
    let mut of = Saved { engine, talks, now, walk, state: Vec::new(), ever: there.clone(), throughout: there };
    // Where plans change, enough for all names in a few portions.
    let portion = if plans.is_empty() { 1 } else { 20 } + rng.below(20) as usize;
    while !of.engine.write_state(&mut of.walk, of.now, portion, &mut of.state) {
        of.now = of.now + Duration::from_millis(rng.below(500));
        tick(&mut of.engine, of.now);
        if !plans.is_empty() && rng.below(6) == 0 {
            let next = &plans[rng.below(plans.len() as u64) as usize];
            of.engine.reload(of.now, next, Removed::Drain);
        }
        if rng.below(5) == 0 {
            let mut rows = Vec::new();
            of.engine.flows(of.now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
            if let Some(row) = rows.get(rng.below(rows.len().max(1) as u64) as usize) {
                of.engine.apply(of.now, Change::Kill { flow: row.id }).unwrap();
            }
        }
        of.talks.push(Talk::new(rng));
        for _ in 0..8 {
            let place = rng.below(of.talks.len() as u64) as usize;
            of.talks[place].go_on(rng, of.now, &mut [&mut of.engine]);
            let there = known(&of.engine, of.now);
            of.throughout.retain(|flow| there.contains(flow));
            of.ever.extend(there);
        }
    }
    of
}

#[test]
fn what_lived_through_a_walk_goes_on_and_nothing_that_never_was_appears() {
    let plans = [before(), after()];
    let mut seen = [0; 5];
    for seed in 0..16 {
        let mut rng = Rng::new(1000 + seed);
        let plans = if seed % 2 == 0 { &plans[..] } else { &[] };
        let mut of = save_amid(seed, &mut rng, plans);
        let mut new = Engine::new(&after());
        let mut load = StateLoad::new(of.walk.time());
        assert_eq!(new.load_state(&mut load, of.now, &of.state), Ok(of.state.len()));
        let loaded = new.end_load(&load, of.now).unwrap();
        assert_eq!((loaded.skipped, loaded.unreadable, loaded.lost[Lost::Unreadable as usize]), (0, 0, 0));
        audit(&new, of.now);
        let (here, there) = (known(&new, of.now), known(&of.engine, of.now));
        let missing: Vec<_> = of.throughout.difference(&here).collect();
        // Whose timeout was over by what the state knew of its last packet.
        let expired = loaded.lost[Lost::Expired as usize] as usize;
        assert!(missing.len() <= expired, "seed {seed}: {missing:?}; {loaded}");
        let strange: Vec<_> = here.difference(&of.ever).collect();
        assert!(strange.is_empty(), "seed {seed}: {strange:?}");
        seen[0] += of.throughout.len();
        seen[1] += here.difference(&there).count();
        seen[2] += there.difference(&here).count();
        // What both know goes on alike, although the numbers are behind in one. Not where flows are limited: those that have
        // ended in one still count in the other.
        let few: ipnet::IpNet = "198.51.100.0/29".parse().unwrap();
        let both: BTreeSet<_> = here.intersection(&there).cloned().collect();
        let goes_on = |engine: &Engine, now, talk: &Talk| {
            let own =
                |flow: &Known| (flow.0, flow.1, flow.2) == (talk.protocol.number(false), talk.client, talk.listen);
            is_known(engine, talk)
                && both.iter().any(own)
                && known(engine, now).iter().any(|flow| own(flow) && both.contains(flow))
        };
        of.talks.retain(|talk| !few.contains(&talk.client.ip()) && goes_on(&of.engine, of.now, talk));
        for _ in 0..200 {
            of.now = of.now + Duration::from_millis(rng.below(300));
            [&mut of.engine, &mut new].into_iter().for_each(|engine| tick(engine, of.now));
            of.talks.retain(|talk| is_known(&of.engine, talk) && is_known(&new, talk));
            if of.talks.is_empty() {
                break;
            }
            seen[3] += 1;
            let place = rng.below(of.talks.len() as u64) as usize;
            of.talks[place].go_on(&mut rng, of.now, &mut [&mut of.engine, &mut new]);
        }
        audit(&new, of.now);
        seen[4] += no_port_twice(&mut new, of.now, &mut rng);
        for _ in 0..2 {
            // Flows first, then the ports that rest after them.
            of.now = of.now + Duration::from_secs(100_000);
            tick(&mut new, of.now);
            (0..9).for_each(|_| new.handle_timeout(of.now));
        }
        let left = views(&new, of.now);
        assert!(left.flows.is_empty() && left.nat.is_empty() && left.sticky == [0], "{left:?}");
    }
    assert!(seen.iter().zip([500, 5, 5, 500, 500]).all(|(count, least)| *count > least), "{seen:?}");
}

/// Opens flows with ports of the NAT pool until there are no more; returns how many. None gets one that is in use, or rests.
fn no_port_twice(engine: &mut Engine, now: Instant, rng: &mut Rng) -> usize {
    let mut opened = 0;
    for n in 0..500 {
        let mut talk = Talk::new(rng);
        (talk.protocol, talk.there, talk.step) = (crate::packet::Protocol::Udp, None, 0);
        talk.client = SocketAddr::new([203, 0, 112, 1].into(), 2000 + n);
        talk.listen = "192.0.2.81:54".parse().unwrap();
        talk.go_on(rng, now, &mut [engine]);
        opened += usize::from(talk.there.is_some());
    }
    ports(engine, now);
    opened
}

#[test]
fn a_walk_ends_although_plans_follow_each_other_without_a_pause() {
    let plans = [before(), after()];
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let (mut engine, _, mut now) = busy(seed, &mut rng);
        let undisturbed = save(&mut engine, now, false, 100).len();
        let flows = known(&engine, now);
        let (mut walk, mut state, mut portions) = (StateWalk::new(now, false), Vec::new(), 0);
        // More than all names at a time.
        while !engine.write_state(&mut walk, now, 40, &mut state) {
            now = now + Duration::from_millis(5);
            engine.reload(now, &plans[portions % 2], Removed::Drain);
            portions += 1;
            assert!(
                portions < 1000 && state.len() < undisturbed * 20,
                "{} bytes instead of {undisturbed}",
                state.len()
            );
        }
        let mut new = Engine::new(&after());
        let loaded = load(&mut new, now, &state);
        assert!(known(&new, now).is_superset(&flows) || loaded.lost() > 0, "{loaded}");
        audit(&new, now);
        assert_eq!((loaded.flows, loaded.unreadable), (flows.len() as u64, 0), "{loaded}");
    }
}
