//! A busy engine is saved and read back into one that follows another plan.
//!
//! Here is what the tests share: configurations, talks of clients, and the views of an engine that must survive.

mod books;
mod copy;
mod other;
mod talks;
mod walk;
mod whole;

use super::super::testing::at;
use super::super::*;
use super::*;
use crate::balance::Admin;
use crate::config;
use crate::ids::ServerId;
use crate::packet::Addresses;
use crate::rng::Rng;
use crate::time::Duration;
use talks::Talk;

/// The tables of a configuration, in an order of choice: pools, services, rules.
const POOLS: [&str; 3] = [
    "[[pool]]\nname='web'\nserver=[{name='a',address=['10.0.0.1','fd00::1'],port=8080},\
     {name='b',address=['10.0.0.2','fd00::2'],port=8080},{name='c',address=['10.0.0.3','fd00::3'],port=8080}]\n",
    "[[pool]]\nname='far'\nserver=[{name='a',address='10.0.1.1'},{name='b',address='10.0.1.2',max-flows=100}]\n",
    "[[pool]]\nname='spare'\nserver=[{name='z',address='10.0.2.1'}]\n",
];
const SERVICES: [&str; 4] = [
    "[[service]]\nname='web'\nlisten=['192.0.2.80:80/tcp','192.0.2.80:54/udp','[2001:db8::80]:80/tcp']\npool='web'\n\
     algorithm='source-hash'\n",
    "[[service]]\nname='far'\nlisten=['192.0.2.81:80/tcp','192.0.2.81:54/udp','[2001:db8::81]:80/tcp']\npool='far'\n\
     algorithm='source-hash'\nnat='full'\nnat-pool='out'\n",
    "[[service]]\nname='sticky'\nlisten=['192.0.2.82:1-99/tcp','192.0.2.82:54/udp']\npool='web'\nsticky={idle='5m'}\n",
    "[[service]]\nname='ping'\nlisten='192.0.2.83/icmp'\npool='web'\nalgorithm='source-hash'\n",
];
const RULES: [&str; 3] = [
    "[[rule]]\nname='few'\nfrom='198.51.100.0/29'\naction='balance'\nclient-flows=6\nflows=50\n",
    "[[rule]]\nname='off'\naction='drop'\nfrom='203.0.113.0/24'\nenabled=false\n",
    "[[rule]]\nname='rest'\naction='balance'\n",
];
const NAT: &str = "[[nat-pool]]\nname='out'\naddresses=['10.9.0.1','10.9.0.2']\nports='2000-2200'\nhold='60s'\n";

fn settings(text: &str) -> Settings {
    config::parse(text, "state.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn before() -> Settings {
    settings(&["seed = 3\n", &POOLS.concat(), &SERVICES.concat(), &RULES.concat(), NAT].concat())
}

/// The same objects in another order; one that comes first shifts all slots.
fn after() -> Settings {
    let other = "[[nat-pool]]\nname='another'\naddresses=['10.9.1.1']\n";
    let turned = |all: &[&str]| all.iter().rev().copied().collect::<String>();
    let web = "{name='new',address='10.0.0.9',port=8080},{name='a'";
    let pools = turned(&POOLS).replace("{name='a',address=['10.0.0.1'", &format!("{web},address=['10.0.0.1'"));
    let pools = pools.replace("name='new',", "name='new',weight=0,");
    // A service of its own, and rules in their order, as that matters.
    let more = "[[service]]\nname='first'\nlisten='192.0.2.99:80/tcp'\npool='spare'\nsticky={idle='1m'}\n";
    settings(&["seed = 3\n", other, NAT, &pools, more, &turned(&SERVICES), &RULES.concat()].concat())
}

fn tick(engine: &mut Engine, now: Instant) {
    while engine.poll_timeout().is_some_and(|due| due <= now) {
        engine.handle_timeout(now);
    }
    while engine.poll_event().is_some() {}
}

/// Saves all of it, in slices of this many.
fn save(engine: &mut Engine, now: Instant, is_final: bool, most: usize) -> Vec<u8> {
    let (mut walk, mut out) = (StateWalk::new(now, is_final), Vec::new());
    while !engine.write_state(&mut walk, now, most, &mut out) {}
    out
}

fn load(engine: &mut Engine, now: Instant, state: &[u8]) -> Loaded {
    let mut load = StateLoad::new(now);
    // Bytes come in pieces, of which the last may be half a record.
    let mut held: Vec<u8> = Vec::new();
    for piece in state.chunks(1000) {
        held.extend(piece);
        let read = engine.load_state(&mut load, now, &held).expect("a state");
        held.drain(..read);
    }
    assert!(held.is_empty());
    engine.end_load(&load, now).expect("the end")
}

/// Of each flow, how long it has been idle and when it expires, in milliseconds. They are equal if they differ by less than
/// two ticks, which begin at other times in another engine.
#[derive(Debug)]
struct Times(Vec<[u64; 2]>);

impl PartialEq for Times {
    fn eq(&self, other: &Times) -> bool {
        let pairs = self.0.iter().flatten().zip(other.0.iter().flatten());
        self.0.len() == other.0.len() && pairs.into_iter().all(|(a, b)| a.abs_diff(*b) < 135)
    }
}

/// The views of an engine that must survive, by name.
#[derive(Debug, PartialEq)]
struct Views {
    flows: Vec<FlowRow>,
    times: Times,
    servers: Vec<(String, u64, u64, u16, Admin, String)>,
    services: Vec<(String, u64)>,
    rules: Vec<(String, bool, u32, u32)>,
    nat: Vec<NatRow>,
    sticky: Vec<usize>,
}

fn views(engine: &Engine, now: Instant) -> Views {
    let mut flows = Vec::new();
    assert!(engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut flows).is_none());
    flows.retain(|row| row.id.index & crate::ids::FlowId::HALF_OPEN == 0);
    flows.sort_by_key(|row| (row.client, row.listen, row.protocol.number(false)));
    let times = Times(flows.iter().map(|row| [row.idle_ms, row.expires_in_ms]).collect());
    for row in &mut flows {
        row.id = crate::ids::FlowId { index: 0, generation: 0 };
        (row.idle_ms, row.expires_in_ms) = (0, 0);
        // That of connections has the resolution of a tick.
        row.age_ms = 0;
    }
    let mut servers: Vec<_> = engine
        .servers(now)
        .into_iter()
        .filter(|row| row.server != "new")
        .map(|row| {
            (
                format!("{}/{}", row.pool, row.server),
                row.flows,
                row.proven,
                row.weight,
                row.admin,
                row.health.name().into(),
            )
        })
        .collect();
    servers.sort_by(|a, b| a.0.cmp(&b.0));
    let mut services: Vec<_> = engine.services().into_iter().map(|row| (row.service, row.flows)).collect();
    services.retain(|(name, _)| name != "first");
    services.sort();
    let mut rules: Vec<_> =
        engine.rules().into_iter().map(|row| (row.rule, row.enabled, row.flows, row.proven)).collect();
    rules.sort();
    let mut nat: Vec<NatRow> = engine.nat_pools().into_iter().filter(|row| row.used + row.resting > 0).collect();
    nat.iter_mut().for_each(|row| row.exhausted = 0);
    nat.sort_by_key(|row| (row.address, row.protocol.number(false)));
    // Those of valid slots.
    let mut chooser = engine.shard.chooser().clone();
    chooser.begin_sticky_walk(crate::flow::Watcher::Successor);
    let sticky = engine.plan.settings().services.iter().filter(|service| service.name == "sticky");
    let groups: Vec<u32> = sticky.map(|service| service.sticky.as_ref().unwrap().group).collect();
    let mut remembered = |group| {
        let mut clients = 0;
        while chooser.walk_sticky(engine.standing.servers(), (crate::flow::Watcher::Successor, group), 100, |slot| {
            clients += usize::from(slot.proven)
        }) > 0
        {}
        clients
    };
    Views { flows, times, servers, services, rules, nat, sticky: groups.into_iter().map(&mut remembered).collect() }
}

/// Ends what is half-open, which is not saved.
fn without_half_open(engine: &mut Engine, now: Instant, talks: &mut Vec<Talk>) {
    let mut flows = Vec::new();
    engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut flows);
    for row in flows.iter().filter(|row| row.id.index & crate::ids::FlowId::HALF_OPEN != 0) {
        engine.apply(now, Change::Kill { flow: row.id }).unwrap();
        talks.retain(|talk| (talk.client, talk.listen) != (row.client, row.listen));
    }
    let mut buffer = vec![0; 65_535];
    while engine.poll_transmit(now, &mut buffer).is_some() {}
}

/// Returns whether a talk has a flow.
fn is_known(engine: &Engine, talk: &Talk) -> bool {
    let Some(addresses) = Addresses::new(talk.client.ip(), talk.listen.ip()) else { return false };
    let key = Key { addresses, src_port: talk.client.port(), dst_port: talk.listen.port(), protocol: talk.protocol };
    talk.there.is_some() && engine.shard.table().find(&key).is_some()
}

fn server(engine: &Engine, pool: &str, name: &str) -> ServerId {
    let mut all = engine.plan.order().servers.iter().copied();
    all.find(|id| engine.plan.pool_and_server(*id) == (pool, name)).unwrap()
}

/// An engine with a random past, its talks, and the time.
fn busy(seed: u64, rng: &mut Rng) -> (Engine, Vec<Talk>, Instant) {
    let mut engine = Engine::new(&before());
    let (mut talks, mut now) = (Vec::new(), at(20_000 + seed));
    for step in 0..600 {
        now = now + Duration::from_millis(rng.below(if step % 50 == 0 { 40_000 } else { 300 }));
        tick(&mut engine, now);
        if talks.is_empty() || rng.below(6) == 0 {
            talks.push(Talk::new(rng));
        }
        let place = rng.below(talks.len() as u64) as usize;
        talks[place].go_on(rng, now, &mut [&mut engine]);
        // Ports rest after some of them.
        if step > 500 && step % 10 == 0 {
            let mut rows = Vec::new();
            engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
            if let Some(row) = rows.get(rng.below(rows.len() as u64) as usize) {
                engine.apply(now, Change::Kill { flow: row.id }).unwrap();
            }
        }
    }
    let (b, z) = (server(&engine, "web", "b"), server(&engine, "spare", "z"));
    engine.apply(now, Change::Admin { server: b, admin: Admin::Draining, deadline: None }).unwrap();
    engine.apply(now, Change::Weight { server: z, weight: 7 }).unwrap();
    let off = engine.plan.rules().find("off").unwrap();
    engine.apply(now, Change::Rule { rule: off, on: true }).unwrap();
    (engine, talks, now)
}
