//! A NAT pool against a naive pool, for any steps.

use super::*;
use proptest::prelude::*;

/// A step of the properties: the client's port, the server, and what happens.
#[derive(Debug, Clone)]
enum Step {
    Open { port: u16, server: u16, half_open: bool },
    Establish(usize),
    Release(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let port = prop::sample::select(vec![1, 2, 40_000, 40_001]);
    let step = prop_oneof![
        6 => (port, 1u16..4, any::<bool>()).prop_map(|(port, server, half_open)| Step::Open { port, server, half_open }),
        2 => (0usize..12).prop_map(Step::Establish),
        3 => (0usize..12).prop_map(Step::Release),
        1 => (0u64..90).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..200)
}

fn any_settings() -> impl Strategy<Value = NatPoolSettings> {
    let ports = prop::sample::select(vec![(1020, 1027), (2047, 2052), (1023, 1024), (7, 7)]);
    (ports, any::<[bool; 4]>()).prop_map(|((first_port, last_port), [parity, range_class, holds, paired])| {
        let hold = Duration::from_secs(if holds { 120 } else { 0 });
        let pooling = if paired { Pooling::Paired } else { Pooling::Arbitrary };
        NatPoolSettings { first_port, last_port, parity, range_class, hold, pooling, ..settings() }
    })
}

/// A port in a naive pool, in the order in which they were taken.
#[derive(Debug, Clone, Copy)]
struct Held {
    mapping: Mapping,
    half_open: bool,
    rests: Option<Instant>,
}

/// Returns the ports that a client's port may become.
fn alike(settings: &NatPoolSettings, port: u16) -> Vec<u16> {
    (settings.first_port..=settings.last_port)
        .filter(|own| !settings.parity || own % 2 == port % 2)
        .filter(|own| !settings.range_class || (*own < 1024) == (port < 1024))
        .collect()
}

/// Checks an outcome against the ports held before it.
fn check(
    settings: &NatPoolSettings,
    held: &[Held],
    (port, to, half_open): (u16, Endpoint, bool),
    found: Result<Proposal, Exhausted>,
) -> Result<(), TestCaseError> {
    let alike = alike(settings, port);
    let of = |address: IpAddr| {
        let of = move |held: &&Held| (held.mapping.address, held.mapping.server) == (address, to);
        held.iter().filter(of).filter(|held| alike.contains(&held.mapping.port)).collect::<Vec<_>>()
    };
    let in_use = |held: &&Held| held.half_open && held.rests.is_none();
    let half_open_of = |address| of(address).into_iter().filter(in_use).collect::<Vec<_>>();
    let has_room = |address| {
        let all_tentative = of(address).into_iter().filter(|held| held.half_open).count();
        let may_have = all_tentative < alike.len().div_ceil(2) || half_open_of(address).is_empty();
        of(address).len() < alike.len() && (!half_open || may_have)
    };
    let addresses: Vec<_> = settings.v4.iter().map(|a| IpAddr::V4(*a)).collect();
    let all = settings.pooling == Pooling::Arbitrary;
    match found {
        Ok(found) if found.replaces => {
            prop_assert_eq!(half_open_of(found.address)[0].mapping.port, found.port);
            prop_assert!(half_open && !has_room(found.address));
            prop_assert!(!all || addresses.iter().all(|address| !has_room(*address)));
        }
        Ok(found) => {
            prop_assert!(alike.contains(&found.port) && has_room(found.address));
            prop_assert!(of(found.address).iter().all(|held| held.mapping.port != found.port));
        }
        Err(Exhausted) => {
            let none = |address: &IpAddr| !has_room(*address) && (!half_open || half_open_of(*address).is_empty());
            let are_none = if all { addresses.iter().all(none) } else { addresses.iter().any(none) };
            prop_assert!(are_none);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_pool_agrees_with_a_naive_pool(settings in any_settings(), udp: bool, steps in steps()) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let (mut pool, mut now) = (NatPool::new(&settings, 5), at(0));
        let mut held: Vec<Held> = Vec::new();
        for step in steps {
            match step {
                Step::Open { port, server: n, half_open } => {
                    let to = server(n);
                    let found = pool.open(now, (client(port as u8), port), (protocol, to), half_open);
                    check(&settings, &held, (port, to, half_open), found)?;
                    if let Ok(Proposal { address, port, .. }) = found {
                        let mapping = Mapping { address, port, protocol, server: to };
                        held.retain(|held| held.mapping != mapping);
                        held.push(Held { mapping, half_open, rests: None });
                    }
                }
                Step::Establish(n) => {
                    if let Some(held) = held.get_mut(n).filter(|held| held.rests.is_none()) {
                        pool.established(&held.mapping);
                        held.half_open = false;
                    }
                }
                Step::Release(n) => {
                    if let Some(Held { mapping, half_open, .. }) = held.get(n).copied() {
                        pool.release(now, &mapping);
                        if held[n].rests.is_some() {
                            continue;
                        }
                        if half_open && !udp || settings.hold.is_zero() {
                            held.remove(n);
                        } else {
                            held[n].rests = Some(now + settings.hold);
                        }
                    }
                }
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds),
            }
            held.retain(|held| held.rests.is_none_or(|until| until > now));
            while pool.is_due(now, 0) {
                pool.handle_timeout(now);
            }
            for usage in pool.usage() {
                let own = || held.iter().filter(|held| held.mapping.address == usage.address);
                let count = |of: fn(&&Held) -> bool| own().filter(of).count() as u32;
                let want = [count(|held| held.rests.is_none()), count(|held| held.half_open && held.rests.is_none()), count(|held| held.rests.is_some())];
                prop_assert_eq!([usage.used, usage.tentative, usage.resting], want);
                let mut busy: BTreeMap<Endpoint, u32> = BTreeMap::new();
                own().for_each(|held| *busy.entry(held.mapping.server).or_default() += 1);
                let all = u32::from(settings.last_port - settings.first_port) + 1;
                prop_assert_eq!(usage.endpoints as usize, busy.len());
                prop_assert_eq!(usage.free, all - busy.values().max().copied().unwrap_or(0));
                prop_assert_eq!(usage.fullest.map(|server| busy[&server]), busy.values().max().copied());
            }
            prop_assert_eq!(pool.is_in_use(), !held.is_empty());
        }
    }

    #[test]
    fn a_proposal_after_what_counts_as_done_is_that_after_doing_it(
        settings in any_settings(), steps in steps(), ends in 0usize..12, wait in 0u64..200, half_open: bool, to in 1u16..4,
        udp: bool,
    ) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let (mut pool, mut now) = (NatPool::new(&settings, 5), at(0));
        let mut open: Vec<Mapping> = Vec::new();
        for step in steps {
            match step {
                Step::Open { port, server: n, half_open } => {
                    let found = pool.open(now, (client(1), port), (protocol, server(n)), half_open);
                    if let Ok(Proposal { address, port, .. }) = found {
                        let mapping = Mapping { address, port, protocol, server: server(n) };
                        open.retain(|other| *other != mapping);
                        open.push(mapping);
                    }
                }
                Step::Establish(n) => open.get(n).into_iter().for_each(|mapping| pool.established(mapping)),
                Step::Release(n) if n < open.len() => pool.release(now, &open.remove(n)),
                Step::Release(_) => {}
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds),
            }
        }
        now = now + Duration::from_secs(wait);
        let given_back = GivenBack { rested: pool.to_give_back(now, 1), ended: open.get(ends).copied() };
        for port in [1, 2, 40_000] {
            let ask = |pool: &NatPool, given_back| {
                let mut draw = pool.draw();
                pool.propose(&mut draw, (client(1), port), (protocol, server(to)), half_open, given_back)
            };
            let mut done = pool.clone();
            given_back.ended.iter().for_each(|mapping| done.release(now, mapping));
            done.handle_timeout(now);
            prop_assert_eq!(ask(&pool, given_back), ask(&done, GivenBack::default()));
        }
    }
}
