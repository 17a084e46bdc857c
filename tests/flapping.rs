//! A server flaps for an hour of virtual time: it gets no flow while it is down, everything adds up, nothing grows.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "common/random.rs"]
mod random;
#[path = "common/setup.rs"]
mod setup;

use equipoise::balance::{Algorithm, Health, Prefixes, Stickiness};
use equipoise::config::Settings;
use equipoise::engine::{Engine, Event, Verdict};
use equipoise::health::settings::{MonitorSettings, PoolWatch, Probe, ServerWatch, WatchedPort};
use equipoise::ids::{PoolId, ServerId};
use equipoise::packet::{Meta, parse};
use equipoise::time::{Duration, Instant};
use random::Random;
use setup::{SERVER_PORT, VIP4, at_ms, server, settings, tcp};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const PROBES: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 250);
const HOUR: u64 = 3_600_000;
const SLOTS: u32 = 50;

/// Four servers monitored by echo and by TCP twice per second, least connections, sticky clients, slow start.
fn flapping() -> Settings {
    let mut settings = settings(&[1, 2, 1, 1], 1_000);
    let second = Duration::from_secs(1);
    settings.services[0].algorithm = Algorithm::LeastConnections;
    settings.services[0].sticky =
        Some(Stickiness { prefixes: Prefixes::ADDRESS, idle: 20 * second, slots: SLOTS, group: 0 });
    settings.servers.iter_mut().for_each(|server| server.slow_start = 8 * second);
    settings.table.timeouts.opening = 3 * second;
    let monitor = |name: &str, probe| MonitorSettings {
        interval: second / 2,
        timeout: second / 4,
        samples: 10,
        max_lost: Some(8),
        fall: 2,
        rise: 2,
        ..MonitorSettings::new(name, probe)
    };
    let watch = |i: u32| ServerWatch {
        server: ServerId(i),
        v4: settings.servers[i as usize].v4,
        v6: None,
        ports: vec![WatchedPort::tcp(SERVER_PORT)],
    };
    settings.health.source_v4 = Some(PROBES);
    settings.health.pools = vec![PoolWatch {
        pool: PoolId(0),
        monitors: vec![monitor("ping", Probe::Icmp), monitor("port", Probe::Tcp)],
        floor: Default::default(),
        servers: (0..4).map(watch).collect(),
    }];
    settings
}

/// Which servers reply: the first is down for some seconds, then up for some, and so on; the second fails now and
/// then.
struct Weather {
    until: [u64; 2],
    answers: [bool; 4],
    random: Random,
}

impl Weather {
    fn at(&mut self, ms: u64) {
        for i in 0..2 {
            if self.until[i] <= ms {
                self.answers[i] = !self.answers[i];
                let long = if i == 0 || !self.answers[i] { 6_000 } else { 60_000 };
                self.until[i] = ms + 1_000 + self.random.below(long);
            }
        }
    }
}

/// Returns a server's reply to a probe, if it is up.
fn answer(probe: &[u8]) -> Option<Vec<u8>> {
    let parsed = parse(probe).expect("a probe is a packet");
    let (from, to) = (parsed.addresses.dst(), parsed.addresses.src());
    match parsed.transport {
        equipoise::packet::Transport::Tcp { src, dst, flags, .. } if flags.syn() => {
            let seq = u32::from_be_bytes(probe[24..28].try_into().unwrap());
            let packet = tcp(SocketAddr::new(from, dst), SocketAddr::new(to, src), "SA", 9, seq.wrapping_add(1), b"");
            Some(packet)
        }
        equipoise::packet::Transport::Tcp { .. } => None,
        _ => {
            let word = |at: usize| u16::from_be_bytes([probe[at], probe[at + 1]]);
            Some(setup::echo(from, to, true, word(24), word(26), &probe[28..]))
        }
    }
}

struct Run {
    engine: Engine,
    weather: Weather,
    went_down: u64,
    came_up: u64,
    most_wakes: u32,
    packets: u64,
}

impl Run {
    /// Does everything that is due, and lets healthy servers reply to the probes.
    fn pump(&mut self, now: Instant) {
        let mut buffer = [0; 65_535];
        let mut wakes = 0;
        while self.engine.poll_timeout().is_some_and(|when| when <= now) {
            self.engine.handle_timeout(now);
            wakes += 1;
            assert!(wakes < 1_000, "the engine never becomes idle");
        }
        self.most_wakes = self.most_wakes.max(wakes);
        while let Some((len, _)) = self.engine.poll_transmit(now, &mut buffer) {
            let to = parse(&buffer[..len]).expect("its own packet").addresses.dst();
            let place = (0..4).find(|i| server(*i, to) == to).expect("probes go to servers");
            if let Some(mut packet) = answer(&buffer[..len]).filter(|_| self.weather.answers[place]) {
                let verdict = self.engine.handle_packet(now, &mut packet, Meta::default());
                self.packets += 1;
                assert!(matches!(verdict, Verdict::Consume(_)), "{verdict:?}");
            }
        }
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Health { up: true, .. } => self.came_up += 1,
                Event::Health { up: false, .. } => self.went_down += 1,
                other => panic!("{other}"),
            }
        }
    }

    fn is_up(&self, now: Instant, place: usize) -> bool {
        self.engine.servers(now)[place].health == Health::Up
    }
}

#[test]
fn a_server_that_flaps_for_an_hour_leaves_everything_in_order() {
    let weather = Weather { until: [2_000, 30_000], answers: [true; 4], random: Random::new(5) };
    let engine = Engine::new(&flapping());
    let mut run = Run { engine, weather, went_down: 0, came_up: 0, most_wakes: 0, packets: 0 };
    let mut random = Random::new(7);
    let (mut opened, mut to_flapping, mut was_up, mut changes) = (0u64, 0u64, [true; 4], 0u64);
    for ms in (0..HOUR).step_by(100) {
        let now = at_ms(ms);
        run.weather.at(ms);
        run.pump(now);
        let up: Vec<bool> = (0..4).map(|place| run.is_up(now, place)).collect();
        changes += was_up.iter().zip(&up).filter(|(was, is)| was != is).count() as u64;
        was_up.copy_from_slice(&up);
        let client: IpAddr = Ipv4Addr::from_bits(0x6440_0000 + random.below(200) as u32).into();
        let port = 1024 + random.below(60_000) as u16;
        let mut packet = tcp(SocketAddr::new(client, port), SocketAddr::new(VIP4.into(), 80), "S", 1, 0, b"");
        let total = run.engine.counters().flows_opened;
        let verdict = run.engine.handle_packet(now, &mut packet, Meta::default());
        run.packets += 1;
        let Verdict::Forward { .. } = verdict else { panic!("two servers are always up: {verdict:?}") };
        let is_new = run.engine.counters().flows_opened > total;
        let rows = run.engine.servers(now);
        let place = usize::from(packet[19]) - 1;
        assert!(up[place] || !is_new, "at {ms} ms a flow went to server {place}, which is down");
        opened += u64::from(is_new);
        to_flapping += u64::from(is_new && place == 0);
        assert_eq!(rows.iter().map(|row| row.flows).sum::<u64>(), run.engine.counters().flows);
        assert!(run.engine.counters().add_up());
    }
    // 5 s each way on average: an hour has some 450 rounds, and a short one may go unnoticed.
    assert!(run.went_down > 200 && run.went_down.abs_diff(run.came_up) <= 2, "{} {}", run.went_down, run.came_up);
    assert!(changes > 400 && to_flapping > 1_000, "{changes} changes, {to_flapping} of {opened} flows");
    assert!(run.most_wakes < 20, "{} calls of handle_timeout at a time", run.most_wakes);
    let history = run.engine.health_history(at_ms(HOUR)).len();
    assert!((32..=4 * 32).contains(&history), "{history} entries");
    let counters = run.engine.counters();
    let ended: u64 = counters.flows_ended.iter().map(|count| count.count).sum();
    assert_eq!((opened, run.packets), (counters.flows + ended, counters.packets_in));
    println!(
        "down {} times, {changes} changes seen, {to_flapping} of {opened} flows to the flapping server, at most {} calls",
        run.went_down, run.most_wakes
    );
    // Without clients all flows end, and all remembered state is released.
    for ms in (HOUR..HOUR + 60_000).step_by(50) {
        run.weather.answers = [true; 4];
        run.pump(at_ms(ms));
    }
    let rows = run.engine.servers(at_ms(HOUR + 60_000));
    assert!(rows.iter().all(|row| row.flows == 0 && row.weight_now == f32::from(row.weight)));
    assert_eq!(run.engine.counters().flows, 0);
}
