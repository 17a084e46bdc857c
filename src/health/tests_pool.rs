//! The monitors with many servers and over long times: units, floors, spread of probes, bounds, scripts, captures.

use super::settings::{DnsKind, Floor, LoadSource, MonitorSettings, Probe, WatchedPort};
use super::testing::*;
use super::{HealthEvent, Monitors, Taken};
use crate::ids::ServerId;
use crate::packet::{Meta, Parsed, TcpFlags, Transport, parse};
use crate::state::Health;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Returns the number, from 1, of the server of an IPv4 probe.
fn server_of(parsed: &Parsed) -> u32 {
    match parsed.addresses.dst() {
        IpAddr::V4(v4) => u32::from(v4) & 0xff_ffff,
        IpAddr::V6(v6) => u128::from(v6) as u32,
    }
}

/// Returns the replies of servers that listen on all but the closed ports, and none for the dead servers.
fn all_but<'a>(dead: &'a [u32], closed: &'a [u16]) -> impl FnMut(&[u8], &Parsed) -> Vec<Packet> + 'a {
    move |packet, parsed| match parsed.transport {
        _ if dead.contains(&server_of(parsed)) => vec![],
        Transport::Echo { .. } => soon(echo_reply(packet, parsed)),
        Transport::Tcp { flags: TcpFlags(SYN), seq, dst, .. } => {
            let flags = if closed.contains(&dst) { RST | ACK } else { SYN | ACK };
            soon(segment(parsed, 7, seq.wrapping_add(1), flags, b""))
        }
        _ => vec![],
    }
}

#[test]
fn a_port_goes_down_alone_and_an_address_takes_all_its_ports() {
    let mut all = settings(1, "46", vec![fall_1(Probe::Icmp), fall_1(Probe::Tcp)]);
    all.pools[0].servers[0].ports = [443, 80, 80].map(WatchedPort::tcp).into();
    let mut sim = Sim::new(&all);
    let states = |sim: &Sim| {
        [80, 443, 25].map(|port| [false, true].map(|v6| sim.health.state(ServerId(0), v6, port) == Health::Up))
    };
    sim.run(secs(2), &mut all_but(&[], &[443]));
    assert_eq!(states(&sim), [[true, true], [false, false], [true, true]]);
    sim.run(secs(2), &mut |packet, parsed| match parsed.addresses.dst() {
        IpAddr::V6(_) => vec![],
        IpAddr::V4(_) => all_but(&[], &[])(packet, parsed),
    });
    assert_eq!(states(&sim), [[true, false], [true, false], [true, false]]);
    assert_eq!(sim.health.history(ServerId(0)).filter(|entry| entry.port == Some(443) && !entry.v6).count(), 2);
    assert_eq!(sim.health.state(ServerId(99), false, 80), Health::Up, "an unmonitored server is up");
    let rows = sim.health.rows(sim.now);
    assert_eq!(rows.len(), 6, "ICMP, and TCP of two ports, of two addresses");
    assert_eq!(rows[0].last.as_deref(), Some("answered in 10.000 ms"));
    assert_eq!(rows[4].last.as_deref(), Some("timed out after 500 ms"));
    assert!(serde_json::to_string(&rows).unwrap().contains(r#""monitor":"m","probe":"icmp","address":"10.0.0.1""#));
    assert_eq!(sim.health.latency(ServerId(0)), Some(Duration::from_millis(10)));
}

#[test]
fn a_monitor_with_ports_of_its_own_applies_to_all_ports() {
    let own = MonitorSettings { ports: vec![9000, 9001], ..fall_1(Probe::Tcp) };
    let mut sim = Sim::new(&settings(1, "4", vec![own]));
    sim.run(secs(2), &mut all_but(&[], &[9001]));
    assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Down);
    assert_eq!(sim.reported(), ["1 down: refused (RST)"]);
    sim.run(secs(2), &mut all_but(&[], &[]));
    assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Up);
}

#[test]
fn detection_takes_at_most_interval_times_falls_and_the_timeout() {
    let settings_of = MonitorSettings { jitter_percent: 10, ..monitor(Probe::Tcp) };
    let mut sim = Sim::new(&settings(50, "4", vec![settings_of]));
    sim.run(secs(5), &mut all_but(&[], &[]));
    assert_eq!(sim.reported(), [] as [String; 0]);
    let died = sim.now;
    sim.run(secs(5), &mut all_but(&(1..=50).collect::<Vec<_>>(), &[]));
    let after = |event: &HealthEvent| match event {
        HealthEvent::Transition { at, up: false, why, .. } if why.to_string() == "3 of 3 timed out after 500 ms" => {
            at.since(died)
        }
        other => panic!("{other:?}"),
    };
    let at: Vec<Duration> = sim.events.iter().map(after).collect();
    assert_eq!(at.len(), 50);
    // Three probes 1 s apart with 10 % of jitter, the first within 1.1 s, and the timeout of the last one.
    assert!(at.iter().all(|span| (Duration::from_millis(2290)..Duration::from_millis(3810)).contains(span)), "{at:?}");
}

#[test]
fn the_floor_keeps_the_last_servers_and_releases_them_when_others_come_up() {
    let mut all = settings(4, "4", vec![fall_1(Probe::Tcp)]);
    all.pools[0].floor = Floor::Percent(50);
    let mut sim = Sim::new(&all);
    sim.run(secs(3), &mut all_but(&[1, 2, 3, 4], &[]));
    let mut reported = sim.reported();
    let up =
        |sim: &Sim| (0..4).filter(|id| sim.health.state(ServerId(*id), false, 80) == Health::Up).collect::<Vec<_>>();
    assert_eq!(up(&sim).len(), 2);
    assert_eq!(
        reported.iter().filter(|t| t.contains("kept: 1 of 1 timed out")).count(),
        2,
        "reported once: {reported:?}"
    );
    assert_eq!(reported.len(), 4);
    let kept: Vec<u32> = up(&sim);
    assert!(sim.health.rows(sim.now).iter().filter(|row| row.kept_by_floor).all(|row| kept.contains(&row.server.0)));
    // The two that are out of service come up: the kept ones go down, the oldest first.
    let dead: Vec<u32> = kept.iter().map(|id| id + 1).collect();
    sim.run(secs(3), &mut all_but(&dead, &[]));
    assert!(up(&sim).iter().all(|id| !kept.contains(id)) && up(&sim).len() == 2);
    let order: Vec<String> =
        reported.iter().filter_map(|t| t.split_once(" kept").map(|(id, _)| id.to_owned())).collect();
    reported = sim.reported();
    let gone: Vec<String> =
        reported.iter().filter_map(|t| t.split_once(" down").map(|(id, _)| id.to_owned())).collect();
    assert_eq!(gone, order, "{reported:?}");
}

#[test]
fn a_kept_server_that_recovers_never_went_down() {
    let mut all = settings(1, "4", vec![fall_1(Probe::Tcp)]);
    all.pools[0].floor = Floor::Count(1);
    let mut sim = Sim::new(&all);
    sim.run(secs(2), &mut all_but(&[1], &[]));
    assert_eq!(sim.reported(), ["1 kept: 1 of 1 timed out after 500 ms"]);
    sim.run(secs(2), &mut all_but(&[], &[]));
    assert_eq!((sim.reported().len(), sim.health.rows(sim.now)[0].kept_by_floor), (0, false));
}

#[test]
fn the_initial_health_holds_until_the_first_verdict() {
    for initial in [Health::Up, Health::Down, Health::Unknown] {
        let mut sim = Sim::new(&settings(1, "4", vec![MonitorSettings { initial, ..monitor(Probe::Icmp) }]));
        assert_eq!(sim.health.state(ServerId(0), false, 80), initial);
        sim.run(secs(4), &mut all_but(&[], &[]));
        assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Up);
    }
}

#[test]
fn probes_vary_within_the_jitter_and_do_not_synchronize() {
    let mut sim = Sim::new(&settings(100, "4", vec![monitor(Probe::Icmp)]));
    let began = sim.now;
    sim.run(secs(20), &mut all_but(&[], &[]));
    let mut times: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
    for (at, packet) in &sim.sent {
        times.entry(server_of(&parse(packet).unwrap())).or_default().push(*at);
    }
    let mut gaps = Vec::new();
    for times in times.values() {
        assert!(times[0].since(began) < secs(1));
        gaps.extend(times.windows(2).map(|pair| pair[1].since(pair[0])));
    }
    assert!(gaps.iter().all(|gap| (Duration::from_millis(900)..=Duration::from_millis(1100)).contains(gap)));
    assert!(gaps.iter().max().unwrap().abs_diff(*gaps.iter().min().unwrap()) > Duration::from_millis(150));
    // No tenth of a second has more than three times its share of the 100 servers.
    let mut tenths = [0; 10];
    times.values().for_each(|times| tenths[(times[0].since(began).as_millis() / 100) as usize] += 1);
    assert!(tenths.iter().all(|count| (1..=30).contains(count)), "{tenths:?}");
}

#[test]
fn the_same_seed_sends_the_same_packets_and_another_seed_others() {
    let run = |seed| {
        let monitors = vec![monitor(Probe::Icmp), monitor(Probe::Tcp), monitor(http(|_| {}))];
        let mut sim = Sim::new(&crate::health::HealthSettings { seed, ..settings(20, "46", monitors) });
        sim.run(secs(5), &mut all_but(&[3, 4], &[]));
        (sim.sent, sim.events)
    };
    let (first, again, other) = (run(1), run(1), run(2));
    assert!(first.0.len() > 500 && first == again);
    assert!(first.0.iter().map(|s| &s.1).ne(other.0.iter().map(|s| &s.1)));
}

#[test]
fn ten_thousand_servers_are_probed_with_bounded_work_per_call() {
    let monitors = vec![monitor(Probe::Icmp), monitor(http(|_| {}))];
    let mut health = Monitors::new(&settings(10_000, "4", monitors));
    let mut buf = [0; 2048];
    let mut now = Instant::ZERO;
    let (mut calls, mut sent, mut most) = (0, 0, 0);
    while now < Instant::ZERO + secs(3) {
        now = health.poll_timeout().unwrap().max(now);
        // The driver is late: many probes are due at once.
        if calls % 100 == 0 {
            now = now + Duration::from_millis(100);
        }
        health.handle_timeout(now);
        calls += 1;
        let packets = std::iter::from_fn(|| health.poll_transmit(now, &mut buf)).count();
        most = most.max(packets);
        sent += packets;
        while health.poll_event().is_some() {}
    }
    // 10,000 echo requests per second, and as many SYNs as 512 connections of half a second allow.
    assert!((30_000..60_000).contains(&sent), "{sent} packets");
    assert!(most <= 1100, "{most} packets after one call");
    let rows = health.rows(now);
    assert_eq!(rows.len(), 20_000);
    assert!(rows.iter().filter(|row| row.probe == "icmp").all(|row| row.sent >= 2));
    assert!(rows.iter().filter(|row| row.probe == "http" && row.sent > 0).count() >= 2000);
}

#[test]
fn hostile_packets_never_panic() {
    let load = Some(LoadSource::Regex("(?<load>[0-9]+)".into()));
    let monitors = vec![
        monitor(Probe::Icmp),
        monitor(Probe::Tcp),
        monitor(http(|p| (p.expect, p.load) = (contains("x"), load))),
        monitor(Probe::Dns { name: "a".into(), kind: super::settings::DnsKind::A, expect: None }),
    ];
    let mut numbers = crate::rng::Rng::new(3);
    let mut web = WebServer::new(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n");
    let mut sim = Sim::new(&settings(3, "46", monitors.clone()));
    let mut late = Monitors::new(&settings(3, "46", monitors.clone()));
    let mut observer = Monitors::new(&settings(3, "46", monitors));
    observer.observe(true);
    let mut spoiled = 0;
    for _ in 0..20 {
        sim.run(secs(1), &mut |packet, parsed| {
            let answer = match parsed.transport {
                Transport::Tcp { .. } => web.answer(packet, parsed).into_iter().map(|(_, bytes, _)| bytes).collect(),
                Transport::Udp { .. } => vec![datagram(parsed, &packet[parsed.offset + 8..])],
                _ => vec![echo_reply(packet, parsed), unreachable(packet, parsed, 60)],
            };
            let mut out = Vec::new();
            for bytes in answer {
                for _ in 0..20 {
                    let mut bytes = bytes.clone();
                    let v4 = bytes[0] >> 4 == 4;
                    let from = if v4 { 20 } else { 40 };
                    for _ in 0..=numbers.below(3) {
                        let at = from + numbers.below((bytes.len() - from) as u64) as usize;
                        bytes[at] = numbers.next() as u8;
                    }
                    // Partial checksums, so that not all packets are rejected for their checksums.
                    let meta = Meta { partial_checksum: true, ..Meta::default() };
                    let Ok(parsed) = parse(&bytes) else { continue };
                    spoiled += 1;
                    late.handle_packet(Instant::ZERO, &bytes, &parsed, meta);
                    observer.handle_packet(Instant::from_nanos(spoiled), &bytes, &parsed, meta);
                    out.push((Duration::from_millis(numbers.below(50)), bytes, meta));
                }
            }
            out
        });
    }
    assert!(spoiled > 1000 && sim.taken.contains(&Taken::Answer), "{spoiled}");
}

#[test]
fn a_script_overrides_the_monitors_until_it_releases_the_server() {
    let mut sim = Sim::new(&settings(2, "4", vec![fall_1(Probe::Tcp)]));
    sim.run(secs(2), &mut all_but(&[], &[]));
    let now = sim.now;
    sim.health.force(now, ServerId(0), false);
    sim.health.force(now, ServerId(7), false);
    sim.run(secs(2), &mut all_but(&[], &[]));
    assert_eq!(sim.health.state(ServerId(0), false, 80), Health::Down);
    assert_eq!(sim.health.state(ServerId(7), true, 80), Health::Down);
    sim.health.release(sim.now, ServerId(0));
    sim.health.release(sim.now, ServerId(0));
    sim.health.force(sim.now, ServerId(7), true);
    sim.run(secs(1), &mut all_but(&[], &[]));
    assert_eq!(
        sim.reported(),
        [
            "1 down: forced",
            "8 down: forced",
            "8 down: forced",
            "1 up: no longer forced",
            "8 up: forced",
            "8 up: forced"
        ]
    );
}

/// Passes the packets of a live run to an observer.
fn observed(settings: &crate::health::HealthSettings, packets: &[(Instant, Vec<u8>)], until: Instant) -> Monitors {
    let mut health = Monitors::new(settings);
    health.observe(true);
    health.handle_timeout(packets[0].0);
    for (at, bytes) in packets {
        while let Some(due) = health.poll_timeout().filter(|due| due <= at) {
            health.handle_timeout(due);
        }
        let parsed = parse(bytes).unwrap();
        assert!(health.is_ours(&parsed.addresses));
        health.handle_packet(*at, bytes, &parsed, Meta::default());
        assert_eq!(health.poll_transmit(*at, &mut [0; 2000]), None, "it sends nothing");
    }
    while let Some(due) = health.poll_timeout().filter(|due| *due < until) {
        health.handle_timeout(due);
    }
    health
}

#[test]
fn captured_probes_and_replies_give_the_verdicts_of_the_live_run() {
    let monitors = vec![fall_1(Probe::Icmp), fall_1(Probe::Tcp), fall_1(http(|p| p.expect = contains("ready")))];
    let all = settings(4, "4", monitors);
    let mut web = WebServer::new(b"HTTP/1.1 200 OK\r\n\r\nready");
    let mut sim = Sim::new(&all);
    let mut came = Vec::new();
    let began = sim.now;
    for round in 0..8 {
        if round == 5 {
            web.reply = b"HTTP/1.1 500 Oops\r\n\r\n".to_vec();
        }
        let mut now = BTreeMap::new();
        let first = sim.sent.len();
        sim.run(secs(1), &mut |packet, parsed| {
            let dead = round == 3 && server_of(parsed) == 2;
            let answers = match parsed.transport {
                _ if dead => vec![],
                Transport::Tcp { .. } => web.answer(packet, parsed),
                _ => soon(echo_reply(packet, parsed)),
            };
            now.insert(packet.to_vec(), answers.clone());
            answers
        });
        for (at, packet) in &sim.sent[first..] {
            came.push((*at, packet.clone()));
            let answers = now.get(packet).into_iter().flatten();
            came.extend(answers.map(|(delay, bytes, _)| (*at + *delay, bytes.clone())));
        }
    }
    came.sort_by_key(|(at, _)| *at);
    let live = sim.reported();
    assert!(
        live.iter().any(|t| t.contains("timed out")) && live.iter().any(|t| t.contains("500, expected")),
        "{live:?}"
    );
    let mut replayed = observed(&all, &came, sim.now);
    let mut other = Sim::new(&all);
    other.events = std::iter::from_fn(|| replayed.poll_event()).collect();
    assert_eq!(other.reported(), live);
    assert!(came.first().unwrap().0 >= began);
}

#[test]
fn replies_without_probes_match_assumed_probes_and_an_empty_capture_changes_nothing() {
    let all = settings(2, "4", vec![fall_1(Probe::Icmp)]);
    let mut sim = Sim::new(&all);
    let mut came = Vec::new();
    sim.run(secs(10), &mut |packet, parsed| {
        let answers = if server_of(parsed) == 1 { soon(echo_reply(packet, parsed)) } else { vec![] };
        came.extend(answers.iter().map(|(_, bytes, _)| bytes.clone()));
        answers
    });
    // One reply every 200 ms: each assumed probe gets one in time.
    let bytes = came[0].clone();
    let came: Vec<_> = (0..50).map(|i| (Instant::from_nanos(i * 200_000_000), bytes.clone())).collect();
    let health = observed(&all, &came, Instant::from_nanos(10_000_000_000));
    assert_eq!(health.state(ServerId(0), false, 80), Health::Up);
    assert_eq!(health.state(ServerId(1), false, 80), Health::Down);
    assert_eq!(health.latency(ServerId(0)), None, "the times of the probes are unknown");
    let mut silent = Monitors::new(&all);
    silent.observe(true);
    for _ in 0..1000 {
        silent.handle_timeout(silent.poll_timeout().unwrap());
    }
    assert_eq!(silent.poll_event(), None);
}

#[test]
fn a_monitor_probes_only_ports_that_it_can_judge() {
    let dns = Probe::Dns { name: "a.example".into(), kind: DnsKind::A, expect: None };
    let mut all = settings(1, "4", [Probe::Tcp, http(|_| {}), dns].map(fall_1).into());
    all.pools[0].servers[0].ports = vec![
        WatchedPort::tcp(80),
        WatchedPort::udp(514),
        WatchedPort::tcp(53),
        WatchedPort::udp(53),
        WatchedPort { port: 9, tcp: false, udp: false },
    ];
    let sim = Sim::new(&all);
    let probed: Vec<_> = sim.health.rows(sim.now).into_iter().map(|row| (row.port.unwrap_or(0), row.probe)).collect();
    let want = [(53, "tcp"), (53, "http"), (53, "dns"), (80, "tcp"), (80, "http"), (514, "dns")];
    assert_eq!(probed, want);
}

#[test]
fn a_port_that_no_monitor_can_judge_stays_up_while_another_is_down() {
    let mut all = settings(1, "4", vec![fall_1(Probe::Tcp)]);
    all.pools[0].servers[0].ports = vec![WatchedPort::tcp(80), WatchedPort::udp(514)];
    let mut sim = Sim::new(&all);
    sim.run(secs(5), &mut |_, _| vec![]);
    let state = |port| sim.health.state(ServerId(0), false, port);
    assert_eq!((state(80), state(514)), (Health::Down, Health::Up));
    assert_eq!(sim.health.parts_down(ServerId(0)), [(false, Some(80))]);
}
