//! A busy engine is saved and read back into one that follows another plan: all views agree, and so do the verdicts on
//! whatever comes next.

use super::super::testing::at;
use super::super::*;
use super::record::kind;
use super::wire::{Writer, next_record};
use super::*;
use crate::balance::Admin;
use crate::config;
use crate::flow::TimeoutState;
use crate::ids::ServerId;
use crate::packet::{Addresses, Protocol};
use crate::rng::Rng;
use crate::time::Duration;
use etherparse::PacketBuilder;
use std::net::{IpAddr, SocketAddr};

mod copy;

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

/// One client's traffic with a service.
#[derive(Debug, Clone)]
struct Talk {
    protocol: Protocol,
    client: SocketAddr,
    listen: SocketAddr,
    /// As the server sees it: from the client or the NAT address, and to the server.
    there: Option<(SocketAddr, SocketAddr)>,
    /// The next numbers of the client and of the server.
    next: [u32; 2],
    step: u32,
}

fn packet((protocol, seq, ack, flags): (Protocol, u32, u32, &str), from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut out = Vec::new();
    let payload: &[u8] = if flags == "PA" || protocol == Protocol::Udp { b"some data" } else { b"" };
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), 60),
        (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), 60),
        other => panic!("{other:?}"),
    };
    match protocol {
        Protocol::Udp => ip.udp(from.port(), to.port()).write(&mut out, payload),
        Protocol::Icmp if flags == "reply" => ip.icmpv4_echo_reply(from.port(), 1).write(&mut out, payload),
        Protocol::Icmp => ip.icmpv4_echo_request(from.port(), 1).write(&mut out, payload),
        _ => {
            let mut tcp = ip.tcp(from.port(), to.port(), seq, 1000);
            for flag in flags.chars() {
                tcp = match flag {
                    'S' => tcp.syn(),
                    'F' => tcp.fin(),
                    'R' => tcp.rst(),
                    _ => tcp.ack(ack),
                };
            }
            tcp.write(&mut out, payload)
        }
    }
    .unwrap();
    out
}

fn addresses(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    use crate::packet::Transport::{Echo, Tcp, Udp};
    let parsed = crate::packet::parse(packet).ok()?;
    let (src, dst) = match parsed.transport {
        Tcp { src, dst, .. } | Udp { src, dst } => (src, dst),
        Echo { id, .. } => (id, id),
        _ => return None,
    };
    Some((SocketAddr::new(parsed.addresses.src(), src), SocketAddr::new(parsed.addresses.dst(), dst)))
}

/// Passes a packet in; returns the verdict without the flow's slot, and the ends of what is sent.
fn pass(engine: &mut Engine, now: Instant, packet: &[u8]) -> (String, Option<(SocketAddr, SocketAddr)>) {
    let mut packet = packet.to_vec();
    let verdict = match engine.handle_packet(now, &mut packet, Meta::default()) {
        Verdict::Forward { why: Forwarded::Translated { from, opened, .. }, .. } => format!("{from:?} {opened}"),
        Verdict::Emit { why: Forwarded::Translated { from, opened, .. } } => {
            let mut buffer = vec![0; 65_535];
            let (len, _) = engine.poll_transmit(now, &mut buffer).expect("what replaces the packet");
            packet = buffer[..len].to_vec();
            format!("{from:?} {opened}")
        }
        other => format!("{other:?}"),
    };
    let mut buffer = vec![0; 65_535];
    while engine.poll_transmit(now, &mut buffer).is_some() {}
    let sent = verdict.contains(' ').then(|| addresses(&packet)).flatten();
    (verdict, sent)
}

impl Talk {
    fn new(rng: &mut Rng) -> Talk {
        let v6 = rng.below(4) == 0;
        let n = rng.below(12);
        let client: IpAddr =
            if v6 { [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, n as u16].into() } else { [198, 51, 100, n as u8].into() };
        let choice = rng.below(4);
        let port = 1024 + rng.below(60_000) as u16;
        let (protocol, listen): (_, SocketAddr) = match (v6, choice) {
            (true, 0 | 2) => (Protocol::Tcp, "[2001:db8::80]:80".parse().unwrap()),
            (true, _) => (Protocol::Tcp, "[2001:db8::81]:80".parse().unwrap()),
            (false, 3) => (Protocol::Icmp, SocketAddr::new([192, 0, 2, 83].into(), port)),
            (false, of) => {
                let udp = rng.below(3) == 0;
                let address = IpAddr::from([192, 0, 2, 80 + of as u8]);
                let port = if udp { 54 } else { 80 };
                (if udp { Protocol::Udp } else { Protocol::Tcp }, SocketAddr::new(address, port))
            }
        };
        let next = [rng.next() as u32, rng.next() as u32];
        Talk { protocol, client: SocketAddr::new(client, port), listen, there: None, next, step: 0 }
    }

    /// Returns the next packet: from the client, or from the server if it has seen something.
    fn next(&mut self, rng: &mut Rng) -> Vec<u8> {
        let step = self.step;
        self.step += 1;
        let [seq, other] = self.next;
        let client = |flags| packet((self.protocol, seq, other, flags), self.client, self.listen);
        let Some((src, dst)) = self.there else { return client(if self.protocol == Protocol::Tcp { "S" } else { "" }) };
        let server = |flags| packet((self.protocol, other, seq, flags), dst, src);
        if self.protocol != Protocol::Tcp {
            return if rng.below(2) == 0 { client("") } else { server("reply") };
        }
        let (bytes, made) = match (step, rng.below(12)) {
            (1, _) => {
                self.next[0] = seq.wrapping_add(1);
                self.next[1] = other.wrapping_add(1);
                return packet((self.protocol, other, seq.wrapping_add(1), "SA"), dst, src);
            }
            (2, _) => ([0, 0], client("A")),
            (_, 0..=2) => ([9, 0], client("PA")),
            (_, 3..=5) => ([0, 9], server("PA")),
            (_, 6 | 7) => ([0, 0], client("A")),
            (_, 8) => ([0, 0], server("A")),
            (_, 9) => ([1, 0], client("FA")),
            (_, 10) => ([0, 1], server("FA")),
            _ => ([0, 0], if rng.below(2) == 0 { client("R") } else { server("A") }),
        };
        self.next = [self.next[0].wrapping_add(bytes[0]), self.next[1].wrapping_add(bytes[1])];
        made
    }

    /// Lets the talk go on in several engines, which must agree.
    fn go_on(&mut self, rng: &mut Rng, now: Instant, engines: &mut [&mut Engine]) {
        let packet = self.next(rng);
        let mut became = engines.iter_mut().map(|engine| pass(engine, now, &packet));
        let first = became.next().unwrap();
        became.for_each(|other| assert_eq!(other, first, "{self:?}"));
        if let (verdict, Some(there)) = first
            && verdict.starts_with("Client")
        {
            self.there = Some(there);
        }
    }
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
    chooser.begin_sticky_walk();
    let sticky = engine.plan.settings().services.iter().filter(|service| service.name == "sticky");
    let groups: Vec<u32> = sticky.map(|service| service.sticky.as_ref().unwrap().group).collect();
    let mut remembered = |group| {
        let mut clients = 0;
        while chooser.walk_sticky(engine.standing.servers(), group, 100, |slot| clients += usize::from(slot.proven)) > 0
        {
        }
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
        // Who has a sticky slot is led by it.
        let mut led = 0;
        for n in 0..12 {
            let mut talk = Talk::new(&mut rng);
            talk.protocol = Protocol::Udp;
            (talk.client, talk.listen) =
                (SocketAddr::new([198, 51, 100, n].into(), 999), "192.0.2.82:54".parse().unwrap());
            let packet = talk.next(&mut rng);
            let row = |engine: &mut Engine| {
                pass(engine, now, &packet);
                let client = Some(talk.client.ip().into());
                let mut rows = Vec::new();
                engine.flows(now, &FlowQuery { client, ..FlowQuery::default() }, Cursor::default(), 1 << 16, &mut rows);
                rows.into_iter().find(|row| row.client == talk.client)
            };
            let [before, after] = [&mut old, &mut new].map(row);
            if before.as_ref().is_some_and(|row| row.picked_by == crate::balance::PickedBy::Stickiness) {
                led += 1;
                assert_eq!(before.map(|row| row.server), after.map(|row| row.server));
            }
        }
        rows[4] += led;
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
        // All of it ends: nothing is left that anybody counts.
        for _ in 0..2 {
            // Flows first, then the ports that rest after them.
            now = now + Duration::from_secs(100_000);
            tick(&mut new, now);
            new.handle_timeout(now);
        }
        let left = views(&new, now);
        assert!(left.flows.is_empty() && left.nat.is_empty() && left.sticky == [0], "{left:?}");
        assert!(left.servers.iter().all(|row| (row.1, row.2) == (0, 0)), "{left:?}");
        assert!(left.rules.iter().all(|row| (row.2, row.3) == (0, 0)), "{left:?}");
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

#[test]
fn what_changes_during_a_walk_leaves_a_state_that_can_be_read() {
    for seed in 0..40 {
        let mut rng = Rng::new(1000 + seed);
        let (mut engine, mut talks, mut now) = busy(seed, &mut rng);
        let (mut walk, mut state) = (StateWalk::new(now, false), Vec::new());
        while !engine.write_state(&mut walk, now, 5, &mut state) {
            now = now + Duration::from_millis(rng.below(3000));
            tick(&mut engine, now);
            talks.push(Talk::new(&mut rng));
            for _ in 0..10 {
                let place = rng.below(talks.len() as u64) as usize;
                talks[place].go_on(&mut rng, now, &mut [&mut engine]);
            }
        }
        let mut new = Engine::new(&after());
        let mut load = StateLoad::new(walk.time());
        assert_eq!(new.load_state(&mut load, now, &state), Ok(state.len()));
        let loaded = new.end_load(&load, now).unwrap();
        assert_eq!((loaded.skipped, loaded.unreadable), (0, 0));
        let mut rows = Vec::new();
        new.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
        let mut known = Vec::new();
        engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut known);
        let same = rows.iter().filter(|row| {
            known
                .iter()
                .any(|other| (row.client, row.listen, &row.server) == (other.client, other.listen, &other.server))
        });
        assert!(same.count() * 2 > rows.len(), "most go on");
        for _ in 0..2 {
            // Flows first, then the ports that rest after them.
            now = now + Duration::from_secs(100_000);
            tick(&mut new, now);
            new.handle_timeout(now);
        }
        let left = views(&new, now);
        assert!(left.flows.is_empty() && left.nat.is_empty() && left.sticky == [0], "{left:?}");
    }
}

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
