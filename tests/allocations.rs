//! The path of an established flow does not allocate, and NAT ports take memory in proportion to the flows.
//!
//! A counting allocator wraps the system's. It counts per thread, so that parallel tests do not disturb each other.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]
#![allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait; every call is passed to the system's allocator unchanged.

#[path = "common/setup.rs"]
mod setup;

use equipoise::config::{AnswerSettings, NoRoom};
use equipoise::engine::{Engine, Event, Forwarded, Verdict};
use equipoise::flow::{Carried, Endpoint, GivenBack, Mapping, NatPool, NatPoolSettings};
use equipoise::packet::{Meta, Protocol, Side, parse};
use equipoise::time::Instant;
use setup::{PING4, PING6, SERVER_PORT, VIP4, VIP6, at_ms, echo, settings, tcp, udp};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Bytes allocated and not freed.
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn note(bytes: i64) {
    // A thread that is ending has no counter any more, and nobody reads it.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
    let _ = BYTES.try_with(|all| all.set(all.get() + bytes));
}

// SAFETY: each method passes its arguments to `System` unchanged, and counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns how often `work` called the allocator, to allocate or to free.
fn calls<T>(work: impl FnOnce() -> T) -> u64 {
    let before = CALLS.get();
    black_box(work());
    CALLS.get() - before
}

/// An established flow: packets of both directions as they arrive.
struct Flow {
    name: &'static str,
    opening: Vec<(Side, Vec<u8>)>,
    passing: Vec<(Side, Vec<u8>)>,
}

/// Returns what a packet of `flow`'s client becomes, to find the server that the engine chose.
fn opened(engine: &mut Engine, packet: &mut [u8]) -> SocketAddr {
    let verdict = engine.handle_packet(at_ms(1), packet, Meta::default());
    assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Translated { opened: true, .. }, .. }), "{verdict:?}");
    let parsed = parse(packet).unwrap();
    let port = match parsed.transport {
        equipoise::packet::Transport::Tcp { dst, .. } | equipoise::packet::Transport::Udp { dst, .. } => dst,
        _ => 0,
    };
    SocketAddr::new(parsed.addresses.dst(), port)
}

/// Opens a flow of each kind and returns the packets that travel along it.
fn establish(engine: &mut Engine) -> Vec<Flow> {
    let clients: [IpAddr; 2] = ["198.51.100.7".parse().unwrap(), "2001:db8:c::7".parse().unwrap()];
    let vips: [IpAddr; 2] = [VIP4.into(), VIP6.into()];
    let pings: [IpAddr; 2] = [PING4.into(), PING6.into()];
    let mut flows = Vec::new();
    for (family, client) in clients.into_iter().enumerate() {
        let name = |v4, v6| if family == 0 { v4 } else { v6 };
        let (c, web) = (SocketAddr::new(client, 4000), SocketAddr::new(vips[family], 80));
        let s = opened(engine, &mut tcp(c, web, "S", 100, 0, b""));
        assert_eq!(s.port(), SERVER_PORT);
        flows.push(Flow {
            name: name("TCP over IPv4", "TCP over IPv6"),
            opening: vec![
                (Side::Server, tcp(s, c, "SA", 500, 101, b"")),
                (Side::Client, tcp(c, web, "A", 101, 501, b"")),
            ],
            passing: vec![
                (Side::Client, tcp(c, web, "PA", 101, 501, b"GET / HTTP/1.0\r\n\r\n")),
                (Side::Server, tcp(s, c, "A", 501, 119, &[7; 1200])),
                (Side::Client, tcp(c, web, "A", 119, 1701, b"")),
                (Side::Client, tcp(c, web, "R", 7, 0, b"")),
                (Side::Server, tcp(s, c, "FA", 1701, 119, b"")),
                (Side::Client, tcp(c, web, "FA", 119, 1702, b"")),
                (Side::Server, tcp(s, c, "A", 1702, 120, b"")),
            ],
        });
        let (c, dns) = (SocketAddr::new(client, 5000), SocketAddr::new(vips[family], 53));
        let s = opened(engine, &mut udp(c, dns, b"question"));
        flows.push(Flow {
            name: name("UDP over IPv4", "UDP over IPv6"),
            opening: vec![],
            passing: vec![(Side::Client, udp(c, dns, b"question")), (Side::Server, udp(s, c, b"answer"))],
        });
        let s = opened(engine, &mut echo(client, pings[family], false, 9, 1, b"ping")).ip();
        flows.push(Flow {
            name: name("ICMP echo", "ICMPv6 echo"),
            opening: vec![],
            passing: vec![
                (Side::Client, echo(client, pings[family], false, 9, 2, b"ping")),
                (Side::Server, echo(s, client, true, 9, 2, b"ping")),
            ],
        });
    }
    for (from, packet) in flows.iter_mut().flat_map(|flow| &mut flow.opening) {
        pass(engine, at_ms(2), *from, packet);
    }
    flows
}

/// Hands in a packet that must hit an existing flow.
fn pass(engine: &mut Engine, now: Instant, from: Side, packet: &mut [u8]) {
    match engine.handle_packet(now, packet, Meta::default()) {
        Verdict::Forward { why: Forwarded::Translated { from: side, opened: false, .. }, .. } if side == from => {}
        // Formatting the panic is not on the measured path.
        other => panic!("{from:?}'s packet got {other:?}"),
    }
}

#[test]
fn packets_of_an_established_flow_allocate_nothing_whichever_side_sent_them() {
    let mut engine = Engine::new(&settings(&[1, 1, 1], 1000));
    // Watchers of flows see beginnings and ends; what is between costs nothing even so.
    engine.report_flows(true);
    let mut flows = establish(&mut engine);
    while engine.poll_event().is_some() {}
    for flow in &mut flows {
        for (i, (from, packet)) in flow.passing.iter_mut().enumerate() {
            // Far enough apart that each packet touches its flow.
            let now = at_ms(1000 + 500 * i as u64);
            let used = calls(|| pass(&mut engine, now, *from, packet));
            assert_eq!(used, 0, "{}: packet {i}, from {from:?}", flow.name);
        }
    }
    assert_eq!(engine.counters().translated, 8 + flows.iter().map(|f| f.passing.len() as u64).sum::<u64>() + 2);
}

#[test]
fn a_super_packet_and_a_partial_checksum_allocate_nothing() {
    let mut engine = Engine::new(&settings(&[1], 10));
    let (c, web) = (SocketAddr::new([198, 51, 100, 7].into(), 4000), SocketAddr::new(VIP4.into(), 80));
    let s = opened(&mut engine, &mut tcp(c, web, "S", 100, 0, b""));
    pass(&mut engine, at_ms(2), Side::Server, &mut tcp(s, c, "SA", 500, 101, b""));
    pass(&mut engine, at_ms(2), Side::Client, &mut tcp(c, web, "A", 101, 501, b""));
    let mut packet = tcp(c, web, "A", 101, 501, &[1; 60_000]);
    let meta = Meta { partial_checksum: true, gso_size: 1448, ..Meta::default() };
    assert_eq!(calls(|| engine.handle_packet(at_ms(500), &mut packet, meta)), 0);
    assert_eq!(engine.counters().translated, 3 + 42);
}

#[test]
fn a_flow_that_is_carried_past_the_engine_allocates_nothing() {
    let mut engine = Engine::new(&settings(&[1], 10));
    engine.offer_paths(4);
    let (c, web) = (SocketAddr::new([198, 51, 100, 7].into(), 4000), SocketAddr::new(VIP4.into(), 80));
    let s = opened(&mut engine, &mut tcp(c, web, "S", 100, 0, b""));
    pass(&mut engine, at_ms(2), Side::Server, &mut tcp(s, c, "SA", 500, 101, b""));
    let mut packets: Vec<_> = (0..40).map(|_| tcp(c, web, "A", 101, 501, b"")).collect();
    let mut fin = tcp(c, web, "FA", 101, 501, b"");
    let mut carried = 0;
    let used = calls(|| {
        packets.iter_mut().for_each(|packet| pass(&mut engine, at_ms(3), Side::Client, packet));
        let path = engine.poll_path(at_ms(4)).expect("it has lasted");
        let report = Carried { packets: [3, 0], bytes: [200, 0], sequence: path.sequence };
        engine.carried(at_ms(900), path.place, Some(at_ms(800)), &report);
        pass(&mut engine, at_ms(1000), Side::Client, &mut fin);
        assert_eq!(engine.poll_left(), Some(path.place));
        engine.left(at_ms(1000), path.place, None, &report);
        carried = engine.shortcut().map_or(0, |shortcut| shortcut.packets);
    });
    assert_eq!((used, carried), (0, 3));
}

#[test]
fn a_timer_with_nothing_due_and_polls_with_nothing_waiting_allocate_nothing() {
    let mut engine = Engine::new(&settings(&[1, 1], 1000));
    let flows = establish(&mut engine);
    let mut buffer = vec![0; 65_535];
    let used = calls(|| {
        for ms in 3..1000 {
            engine.handle_timeout(at_ms(ms));
            assert!(engine.poll_timeout().is_some());
            assert!(engine.poll_transmit(at_ms(ms), &mut buffer).is_none());
            assert!(engine.poll_event().is_none());
        }
    });
    assert_eq!(used, 0);
    assert_eq!(engine.counters().flows, flows.len() as u64);
}

#[test]
fn flows_that_begin_expire_and_begin_again_allocate_nothing_unless_observed() {
    let mut engine = Engine::new(&settings(&[1, 1], 100));
    let syns = |round: u8| -> Vec<Vec<u8>> {
        let client = |i: u16| SocketAddr::new([198, 51, 100, round].into(), 2000 + i);
        let client6 = |i: u16| SocketAddr::new([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, u16::from(round)].into(), 2000 + i);
        (0..50)
            .flat_map(|i| {
                let v4 = tcp(client(i), SocketAddr::new(VIP4.into(), 80), "S", 1, 0, b"");
                [v4, tcp(client6(i), SocketAddr::new(VIP6.into(), 80), "S", 1, 0, b"")]
            })
            .collect()
    };
    // In the first round the balancer computes its candidates; that allocates whenever servers come or go.
    for round in 1..5 {
        let mut packets = syns(round);
        let now = at_ms(u64::from(round) * 1_000_000);
        let used = calls(|| {
            engine.handle_timeout(now);
            packets.iter_mut().for_each(|packet| {
                engine.handle_packet(now, packet, Meta::default());
            });
        });
        assert_eq!((used * u64::from(round > 1), engine.counters().flows), (0, 100), "round {round}: {used}");
    }
    assert_eq!(engine.counters().flows_opened, 400);
}

#[test]
fn a_refused_or_malformed_packet_allocates_nothing() {
    let mut settings = settings(&[1], 1);
    settings.answers = AnswerSettings { no_service: false, no_room: NoRoom::Drop, ..settings.answers };
    let mut engine = Engine::new(&settings);
    let (c, web) = (SocketAddr::new([198, 51, 100, 7].into(), 4000), SocketAddr::new(VIP4.into(), 80));
    let s = opened(&mut engine, &mut tcp(c, web, "S", 100, 0, b""));
    pass(&mut engine, at_ms(2), Side::Server, &mut tcp(s, c, "SA", 500, 101, b""));
    pass(&mut engine, at_ms(2), Side::Client, &mut tcp(c, web, "A", 101, 501, b""));
    // The handshake of another is refused at its end.
    let other = SocketAddr::new(c.ip(), 4001);
    let o = opened(&mut engine, &mut tcp(other, web, "S", 100, 0, b""));
    pass(&mut engine, at_ms(2), Side::Server, &mut tcp(o, other, "SA", 500, 101, b""));
    // The table's fill level is reported once, into a queue that already has room.
    let mut packets = [
        tcp(other, web, "A", 101, 501, b""),
        tcp(other, SocketAddr::new(VIP4.into(), 81), "S", 1, 0, b""),
        tcp(SocketAddr::new(s.ip(), SERVER_PORT), SocketAddr::new(c.ip(), 4002), "SA", 1, 1, b""),
        tcp(other, web, "S", 1, 0, b"")[..30].to_vec(),
        vec![0x45; 20],
        vec![],
    ];
    for (i, packet) in packets.iter_mut().enumerate() {
        let mut dropped = false;
        let used = calls(|| {
            dropped = matches!(engine.handle_packet(at_ms(9), packet, Meta::default()), Verdict::Drop(_));
        });
        // The server's passes, to somebody who did not come by the service address.
        assert_eq!((used, dropped), (0, i != 2), "packet {i}");
    }
}

#[test]
fn an_answer_of_the_engine_s_own_uses_the_room_of_an_earlier_one() {
    let mut engine = Engine::new(&settings(&[1], 1));
    let client: IpAddr = [198, 51, 100, 7].into();
    let mut buffer = vec![0; 65_535];
    let ping = |engine: &mut Engine, buffer: &mut [u8]| {
        let mut packet = echo(client, VIP4.into(), false, 9, 2, &[0; 1000]);
        calls(|| {
            engine.handle_packet(at_ms(1), &mut packet, Meta::default());
            assert!(engine.poll_transmit(at_ms(1), buffer).is_some());
        })
    };
    assert_ne!(ping(&mut engine, &mut buffer), 0, "the first reply allocates its buffer");
    assert_eq!(ping(&mut engine, &mut buffer), 0);
}

#[test]
fn the_counter_sees_a_vector_and_the_row_of_a_watched_flow() {
    assert_eq!(calls(|| ()), 0);
    assert_eq!(calls(|| Vec::<u8>::with_capacity(1)), 2);
    let mut grown = vec![1u8; 4];
    assert!(calls(|| grown.reserve_exact(1000)) > 0);
    let mut engine = Engine::new(&settings(&[1], 10));
    engine.report_flows(true);
    let client = SocketAddr::new([198, 51, 100, 7].into(), 4000);
    let mut syn = tcp(client, SocketAddr::new(VIP4.into(), 80), "S", 100, 0, b"");
    assert!(calls(|| engine.handle_packet(at_ms(1), &mut syn, Meta::default())) > 0);
    assert!(matches!(engine.poll_event(), Some(Event::FlowOpened(_))));
}

/// Takes a port for a flow to each of `servers` endpoints, and returns them.
fn take_ports(pool: &mut NatPool, servers: u32, half_open: bool) -> Vec<Mapping> {
    let mut taken = Vec::with_capacity(servers as usize);
    for n in 0..servers {
        let server = Endpoint { address: IpAddr::from((0x0a00_0000 + n).to_be_bytes()), port: 80 };
        let (client, protocol) = (([198, 51, 100, 7].into(), 4000), Protocol::Tcp);
        let found =
            pool.propose(&mut pool.draw(), client, (protocol, server), half_open, GivenBack::default()).unwrap();
        let mapping = Mapping { address: found.address, port: found.port, protocol, server };
        pool.take(&mapping, half_open);
        taken.push(mapping);
    }
    taken
}

#[test]
fn nat_ports_take_memory_in_proportion_to_the_flows_and_give_it_back() {
    let v4 = vec![[10, 9, 0, 1].into()];
    let settings = NatPoolSettings { v4, ..NatPoolSettings::new("out") };
    for half_open in [false, true] {
        let mut pool = NatPool::new(&settings, 1);
        let before = BYTES.get();
        let taken = take_ports(&mut pool, 10_000, half_open);
        let list = (taken.capacity() * size_of::<Mapping>()) as i64;
        let used = BYTES.get() - before - list;
        println!("10,000 endpoints with one flow each, half-open {half_open}: {used} bytes");
        assert!(used < 5_000_000, "{used}");
        taken.iter().for_each(|mapping| pool.release(at_ms(1), mapping));
        while pool.is_due(at_ms(200_000), 0) {
            pool.handle_timeout(at_ms(200_000));
        }
        assert!(!pool.is_in_use());
        drop(taken);
        let left = BYTES.get() - before;
        // What is left is the queue of resting ports, which keeps its capacity.
        assert!(left < if half_open { 10_000 } else { 1_000_000 }, "{left}");
    }
}
