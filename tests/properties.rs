//! What holds for the engine whatever bytes arrive: random ones, and valid packets flipped, truncated, extended and
//! spliced.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "common/oracle.rs"]
mod oracle;
#[path = "common/setup.rs"]
mod setup;

use equipoise::engine::{Engine, Forwarded, Outcome, Packet, Reason, Verdict};
use equipoise::packet::{Meta, Side, Transport, checksum, parse};
use equipoise::time::Instant;
use proptest::prelude::*;
use proptest::sample::select;
use setup::{PING4, PING6, SERVER_PORT, VIP4, VIP6, at_ms, echo, icmp_error, settings, tcp, udp};
use std::net::{IpAddr, SocketAddr};

/// Capacity of the table; half-open flows have a store of their own.
const MAX_FLOWS: u32 = 6;
const MAX_HALF_OPEN: u32 = 4;

/// Addresses of packets: clients, services, servers, strangers and impossible ones, few enough to coincide.
fn address(v4: bool) -> impl Strategy<Value = IpAddr> {
    let v4_all: Vec<IpAddr> =
        ["198.51.100.7", "198.51.100.8", "10.0.2.1", "10.0.2.2", "8.8.8.8", "127.0.0.1", "255.255.255.255"]
            .iter()
            .map(|address| address.parse().expect("an address"))
            .chain([VIP4.into(), VIP4.into(), PING4.into()])
            .collect();
    let v6_all: Vec<IpAddr> =
        ["2001:db8:c::7", "2001:db8:c::8", "fd00::1", "fd00::2", "2001:4860::8", "::1", "ff02::1"]
            .iter()
            .map(|address| address.parse().expect("an address"))
            .chain([VIP6.into(), VIP6.into(), PING6.into()])
            .collect();
    select(if v4 { v4_all } else { v6_all })
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![80, 80, 53, 53, 81, SERVER_PORT, 4000, 4001, 0])
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

/// A valid packet from anyone to anyone.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let ends = any::<bool>().prop_flat_map(|v4| (address(v4), address(v4)));
    let flags = select(vec!["S", "S", "SA", "A", "A", "PA", "FA", "R", "RA"]);
    (ends, port(), port(), flags, 0..4u32, payload(), 0..5u8).prop_map(
        |((src, dst), sport, dport, flags, seq, data, kind)| {
            let (from, to) = (SocketAddr::new(src, sport), SocketAddr::new(dst, dport));
            match kind {
                0 | 1 => tcp(from, to, flags, 100 + seq, 500 + seq, &data),
                2 => udp(from, to, &data),
                3 => echo(src, dst, false, sport, seq as u16, &data),
                _ => echo(src, dst, true, sport, seq as u16, &data),
            }
        },
    )
}

/// A valid packet from a client to a service that accepts it.
fn to_service() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), 0..3u8, 1..9u16, payload(), any::<u32>()).prop_map(|(v4, kind, n, data, seq)| {
        let client: IpAddr =
            if v4 { [198, 51, 100, n as u8].into() } else { [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, n].into() };
        let (vip, ping): (IpAddr, IpAddr) = if v4 { (VIP4.into(), PING4.into()) } else { (VIP6.into(), PING6.into()) };
        let from = SocketAddr::new(client, 1000 + n);
        match kind {
            0 => tcp(from, SocketAddr::new(vip, 80), "S", seq, 0, &data),
            1 => udp(from, SocketAddr::new(vip, 53), &data),
            _ => echo(client, ping, false, n, seq as u16, &data),
        }
    })
}

#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Extend(Vec<u8>),
    Splice(Vec<u8>, prop::sample::Index, prop::sample::Index),
    /// Recomputes the IPv4 header checksum, so that what follows it is examined.
    MendSum,
    /// Makes the length fields match the bytes.
    MendLength,
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => index().prop_map(Change::Flip),
        2 => (index(), select(vec![0, 1, 0x45, 0x4f, 0x60, 0xff, 6, 17, 44, 58])).prop_map(|(at, to)| Change::Set(at, to)),
        1 => index().prop_map(Change::Cut),
        1 => payload().prop_map(Change::Extend),
        1 => (valid(), index(), index()).prop_map(|(other, from, at)| Change::Splice(other, from, at)),
        3 => Just(Change::MendSum),
        1 => Just(Change::MendLength),
    ]
}

impl Change {
    fn apply(&self, packet: &mut Vec<u8>) {
        if packet.is_empty() {
            return;
        }
        match self {
            Change::Flip(bit) => {
                let bit = bit.index(packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            Change::Set(at, to) => {
                let at = at.index(packet.len());
                packet[at] = *to;
            }
            Change::Cut(at) => packet.truncate(at.index(packet.len() + 1)),
            Change::Extend(bytes) => packet.extend(bytes),
            Change::Splice(other, from, at) => {
                packet.truncate(at.index(packet.len()));
                packet.extend(&other[from.index(other.len())..]);
            }
            Change::MendSum => fix_checksum(packet),
            Change::MendLength if packet.len() >= 40 && packet[0] >> 4 == 6 => {
                let len = (packet.len() - 40) as u16;
                packet[4..6].copy_from_slice(&len.to_be_bytes());
            }
            Change::MendLength if packet.len() >= 20 => {
                let len = packet.len() as u16;
                packet[2..4].copy_from_slice(&len.to_be_bytes());
                fix_checksum(packet);
            }
            Change::MendLength => {}
        }
    }
}

fn fix_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    if packet[0] >> 4 == 4 && header >= 20 && packet.len() >= header {
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::add(0, &packet[..header]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![valid(), to_service()], prop::collection::vec(change(), 1..6)).prop_map(|(mut packet, changes)| {
        changes.iter().for_each(|change| change.apply(&mut packet));
        packet
    })
}

/// A fragment of a packet: the first or a later one, whole or overlapping others.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![valid(), to_service()], 0..4u16, any::<bool>(), 0..3u8).prop_map(|(packet, place, more, id)| {
        let v4 = packet[0] >> 4 == 4;
        let header = if v4 { 20 } else { 40 };
        let body = &packet[header..];
        let (start, end) = (usize::from(place * 8).min(body.len() - 1), usize::from(place * 8 + 24).min(body.len()));
        let mut piece = body[start & !7..end].to_vec();
        if more {
            piece.resize(piece.len().next_multiple_of(8), 0);
        }
        let field = place << if v4 { 0 } else { 3 } | u16::from(more) << if v4 { 13 } else { 0 };
        let mut out = packet[..header].to_vec();
        if v4 {
            out[4..8].copy_from_slice(&[0, id, (field >> 8) as u8, field as u8]);
            out[2..4].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
            out.extend(piece);
            fix_checksum(&mut out);
        } else {
            out[4..6].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
            out.extend([packet[6], 0, (field >> 8) as u8, field as u8, 0, 0, 0, id]);
            out[6] = 44;
            out.extend(piece);
        }
        out
    })
}

/// An ICMP error about a packet that the engine may have sent, or about nothing.
fn error() -> impl Strategy<Value = Vec<u8>> {
    let kind = select(vec![(3u8, 1u8), (3, 4), (3, 3), (11, 0), (12, 0), (4, 0), (5, 0), (1, 0), (2, 0)]);
    let about = prop_oneof![valid(), to_service(), fragment(), prop::collection::vec(any::<u8>(), 0..60)];
    (about, kind, 0..60u32, any::<bool>(), any::<prop::sample::Index>()).prop_map(|(about, kind, mtu, wrong, cut)| {
        let v4 = about.first().is_none_or(|first| first >> 4 != 6);
        // From the server that the packet would go to, or from its sender.
        let (server, other): (IpAddr, IpAddr) = match (parse(&about), v4) {
            (Ok(parsed), _) => (parsed.addresses.dst(), parsed.addresses.src()),
            (_, true) => ([10, 0, 2, 1].into(), VIP4.into()),
            _ => ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), VIP6.into()),
        };
        let keep = if wrong { cut.index(about.len() + 1) } else { about.len() };
        icmp_error(server, other, kind, mtu * 50, &about[..keep])
    })
}

/// What arrives at one point in time.
#[derive(Debug, Clone)]
struct Arrival {
    after_ms: u64,
    packet: Vec<u8>,
    meta: Meta,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let packet = prop_oneof![
        2 => valid(),
        2 => to_service(),
        4 => mutated(),
        1 => prop::collection::vec(any::<u8>(), 0..120),
        2 => fragment(),
        1 => error(),
    ];
    let meta = prop_oneof![
        8 => Just(Meta::default()),
        1 => (any::<bool>(), 0..3000u16).prop_map(|(partial_checksum, gso_size)| Meta { partial_checksum, gso_size, ..Meta::default() }),
    ];
    let after_ms = prop_oneof![6 => 0..50u64, 2 => 0..5_000u64, 1 => 0..400_000u64];
    (after_ms, packet, meta).prop_map(|(after_ms, packet, meta)| Arrival { after_ms, packet, meta })
}

fn engine() -> Engine {
    let mut settings = settings(&[1, 2], MAX_FLOWS);
    settings.table.max_half_open = MAX_HALF_OPEN;
    Engine::new(&settings)
}

fn is_malformed(reason: Reason) -> bool {
    use Reason::*;
    matches!(
        reason,
        TooShort
            | BadVersion
            | BadHeaderLength
            | BadTotalLength
            | BadHeaderChecksum
            | TruncatedTransport
            | BadTcpOffset
    )
}

/// Hands in one packet and checks everything that must hold for its verdict.
fn hand_in(engine: &mut Engine, now: Instant, arrival: &Arrival) -> Result<(Verdict, Vec<u8>), TestCaseError> {
    let (before, mut packet) = (engine.counters(), arrival.packet.clone());
    let verdict = engine.handle_packet(now, &mut packet, arrival.meta);
    let after = engine.counters();
    prop_assert!(after.add_up());
    let handed = after.packets_in - before.packets_in;
    prop_assert!(handed >= 1 && (arrival.meta.gso_size > 0 || handed == 1));
    let opened = matches!(verdict, Verdict::Forward { why: Forwarded::Translated { opened: true, .. }, .. });
    prop_assert_eq!(
        after.flows_opened - before.flows_opened,
        u64::from(opened),
        "state without a cause: {:?}",
        verdict
    );
    prop_assert!(after.half_open <= u64::from(MAX_HALF_OPEN));
    prop_assert!(after.flows - after.half_open <= u64::from(MAX_FLOWS));
    let gone = |counters: &equipoise::engine::Counters| counters.flows_ended.iter().map(|c| c.count).sum::<u64>();
    prop_assert_eq!(after.flows_opened - gone(&after), after.flows);
    let valid = oracle::is_valid(&arrival.packet);
    match verdict {
        Verdict::Drop(reason) => {
            prop_assert_eq!(&packet, &arrival.packet, "dropped and changed");
            // A length of zero denotes a jumbogram (RFC 2675), which the libraries accept.
            let jumbo =
                arrival.packet.first().is_some_and(|b| b >> 4 == 6) && arrival.packet.get(4..6) == Some(&[0, 0]);
            prop_assert!(!valid || jumbo || !is_malformed(reason), "two libraries find no fault, but: {:?}", reason);
        }
        Verdict::Emit { .. } => return Err(TestCaseError::fail("every path takes every packet here")),
        Verdict::Consume(_) => prop_assert_eq!(&packet, &arrival.packet, "consumed and changed"),
        Verdict::Forward { len, why } => {
            prop_assert!(len <= packet.len() && parse(&packet).is_ok_and(|parsed| parsed.len == len));
            prop_assert_eq!(&packet[len..], &arrival.packet[len..], "bytes after the packet were changed");
            if why == Forwarded::Foreign {
                prop_assert_eq!(&packet, &arrival.packet, "foreign and changed");
            } else if !arrival.meta.partial_checksum {
                let now_valid = oracle::check(&packet[..len]);
                prop_assert_eq!(
                    now_valid.is_ok(),
                    valid,
                    "before {:?}, after {:?}",
                    oracle::check(&arrival.packet),
                    now_valid
                );
            }
        }
    }
    Ok((verdict, packet))
}

/// The reply with the same bytes: addresses and ports are swapped, which keeps every checksum valid.
fn turned(packet: &[u8]) -> Vec<u8> {
    let (mut turned, parsed) = (packet.to_vec(), parse(packet).expect("it parsed before"));
    let (src, len) = if packet[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
    for at in src..src + len {
        turned.swap(at, at + len);
    }
    if !matches!(parsed.transport, Transport::Echo { .. }) {
        for at in parsed.offset..parsed.offset + 2 {
            turned.swap(at, at + 2);
        }
    }
    turned
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_invariant_holds_whatever_comes(arrivals in prop::collection::vec(arrival(), 1..40)) {
        let (mut engine, mut now) = (engine(), at_ms(0));
        let (mut consumed, mut refused) = (0, 0);
        for arrival in &arrivals {
            now = now + std::time::Duration::from_millis(arrival.after_ms);
            while engine.poll_timeout().is_some_and(|at| at <= now) {
                engine.handle_timeout(now);
            }
            // The counters count the segments of a super-packet, which is replied to once.
            let (verdict, _) = hand_in(&mut engine, now, arrival)?;
            consumed += u64::from(matches!(verdict, Verdict::Consume(_)));
            refused += u64::from(matches!(verdict, Verdict::Drop(Reason::TableFull | Reason::ReturnKeyTaken)));
        }
        let mut buffer = vec![0; 65_535];
        let mut sent = 0;
        while let Some((len, _)) = engine.poll_transmit(now, &mut buffer) {
            prop_assert_eq!(oracle::check(&buffer[..len]), Ok(()), "of the engine's own");
            sent += 1;
        }
        // A waiting fragment is sent later or never; a flow without room is dropped and reported. Of a connection that
        // nobody knows, and of a flow that ends, both ends hear.
        let opened = engine.counters().flows_opened;
        prop_assert!(sent <= 2 * (consumed + refused + opened), "{} > 2 x ({} + {} + {})", sent, consumed, refused, opened);
        engine.handle_timeout(Instant::FAR);
        prop_assert_eq!((engine.counters().flows, engine.poll_timeout()), (0, None));
    }

    #[test]
    fn arbitrary_bytes_never_become_state_of_a_service(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut engine = engine();
        let arrival = Arrival { after_ms: 0, packet: bytes, meta: Meta::default() };
        hand_in(&mut engine, at_ms(0), &arrival)?;
        prop_assert_eq!(engine.counters().flows, 0);
    }

    #[test]
    fn the_reverse_direction_undoes_the_forward_one(packet in to_service(), padding in payload()) {
        let mut engine = engine();
        let len = packet.len();
        let padded = [packet.clone(), padding].concat();
        let arrival = Arrival { after_ms: 0, packet: padded, meta: Meta::default() };
        let (verdict, there) = hand_in(&mut engine, at_ms(0), &arrival)?;
        let Verdict::Forward { len: out, why: Forwarded::Translated { flow, opened: true, .. } } = verdict else {
            return Err(TestCaseError::fail(format!("{verdict:?}")));
        };
        prop_assert_eq!(out, len);
        prop_assert_ne!(&there[..len], &packet[..]);
        let answer = Arrival { after_ms: 0, packet: turned(&there[..len]), meta: Meta::default() };
        prop_assert!(oracle::is_valid(&answer.packet));
        let (verdict, back) = hand_in(&mut engine, at_ms(1), &answer)?;
        let why = Forwarded::Translated { flow, from: Side::Server, opened: false };
        prop_assert_eq!(verdict, Verdict::Forward { len, why });
        prop_assert_eq!(back, turned(&packet));
    }

    #[test]
    fn two_engines_with_the_same_settings_do_the_same(arrivals in prop::collection::vec(arrival(), 1..40)) {
        let mut engines = [engine(), engine()];
        let mut now = at_ms(0);
        for arrival in &arrivals {
            now = now + std::time::Duration::from_millis(arrival.after_ms);
            let [one, other] = engines.each_mut().map(|engine| {
                engine.handle_timeout(now);
                let mut packet = arrival.packet.clone();
                let verdict = engine.handle_packet(now, &mut packet, arrival.meta);
                let mut buffer = vec![0; 65_535];
                let sent = engine.poll_transmit(now, &mut buffer).map(|(len, meta)| (buffer[..len].to_vec(), meta));
                (verdict, packet, sent, engine.poll_event(), engine.poll_timeout())
            });
            prop_assert_eq!(one, other);
        }
        prop_assert_eq!(engines[0].counters(), engines[1].counters());
        prop_assert_eq!(engines[0].servers(now), engines[1].servers(now));
    }
}

/// What leaves an engine: verdicts with the packets, and packets of the engine's own, in their order.
type Left = Vec<(Option<Verdict>, Vec<u8>)>;

/// The arrivals with their times, one after the other, and the timers between them.
fn one_by_one(engine: &mut Engine, arrivals: &[(Instant, Arrival)]) -> Left {
    let (mut left, mut buffer) = (Vec::new(), vec![0; 65_535]);
    for (now, arrival) in arrivals {
        while engine.poll_timeout().is_some_and(|due| due <= *now) {
            engine.handle_timeout(*now);
        }
        let mut packet = arrival.packet.clone();
        let verdict = engine.handle_packet(*now, &mut packet, arrival.meta);
        left.push((Some(verdict), packet));
        while let Some((len, _)) = engine.poll_transmit(*now, &mut buffer) {
            left.push((None, buffer[..len].to_vec()));
        }
    }
    left
}

/// The same in batches of these sizes.
fn in_batches(engine: &mut Engine, arrivals: &[(Instant, Arrival)], sizes: &[usize]) -> Left {
    let (mut left, mut at, mut sizes) = (Vec::new(), 0, sizes.iter().cycle());
    while at < arrivals.len() {
        let now = arrivals[at].0;
        while engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        let size = sizes.next().copied().unwrap_or(1).clamp(1, arrivals.len() - at);
        let mut packets: Vec<_> =
            arrivals[at..at + size].iter().map(|(at, a)| (*at, a.packet.clone(), a.meta)).collect();
        let batch = packets.iter_mut().map(|(at, bytes, meta)| Packet { at: *at, bytes, meta: *meta });
        let handled = engine.handle_batch(&mut batch.collect::<Vec<_>>(), |outcome| match outcome {
            Outcome::Packet { verdict, bytes, .. } => left.push((Some(verdict), bytes.to_vec())),
            Outcome::Own { bytes, .. } => left.push((None, bytes.to_vec())),
        });
        assert!(handled >= 1, "the first packet of a batch is always handled");
        at += handled;
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_packets_are_divided_into_batches_makes_no_difference(
        arrivals in prop::collection::vec(arrival(), 1..80),
        sizes in prop::collection::vec(1..70usize, 1..6),
    ) {
        let mut now = at_ms(0);
        let arrivals: Vec<_> = arrivals.into_iter().map(|arrival| {
            now = now + std::time::Duration::from_millis(arrival.after_ms * u64::from(arrival.after_ms > 25));
            (now, arrival)
        }).collect();
        let [mut one, mut other] = [engine(), engine()];
        prop_assert_eq!(one_by_one(&mut one, &arrivals), in_batches(&mut other, &arrivals, &sizes));
        prop_assert_eq!(one.counters(), other.counters());
        prop_assert_eq!(one.servers(now), other.servers(now));
    }
}

#[test]
fn the_inputs_reach_every_kind_of_verdict() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let (mut runner, mut engine) = (TestRunner::deterministic(), engine());
    let (arrivals, mut buffer) = (arrival(), vec![0; 65_535]);
    for ms in 0..12_000 {
        let arrival = arrivals.new_tree(&mut runner).expect("an arrival").current();
        engine.handle_timeout(at_ms(ms * 20));
        hand_in(&mut engine, at_ms(ms * 20), &arrival).expect("every invariant holds");
        engine.poll_transmit(at_ms(ms * 20), &mut buffer);
    }
    let counters = engine.counters();
    let never: Vec<Reason> = counters.dropped.iter().filter(|c| c.count == 0).map(|c| c.kind).collect();
    // Other tests cover these: they need a pool of weight zero, six busy flows at once, a late segment of a closed flow
    // that gave way, two services of one pool, a queue that nobody drains, rules and servers with limits, monitors, and a peer.
    use Reason::*;
    let limits = [
        RuleDrop,
        RuleLoop,
        RuleRate,
        RuleFlows,
        ClientRate,
        ClientFlows,
        ServerFlows,
        GatewayRate,
        TableLow,
        TableNormal,
    ];
    let rare = [
        NoServer,
        TableFull,
        RecentlyEnded,
        ReturnKeyTaken,
        AnswerQueueFull,
        NoProbe,
        BadProbeChecksum,
        AnswerLimit,
        OtherGateway,
    ];
    let unseen = [FragmentStoreFull, OtherProtocol, Detour, IcmpImplausible, IcmpBadMtu, NatExhausted, Untranslatable];
    assert!(
        never.iter().all(|reason| limits.contains(reason) || rare.contains(reason) || unseen.contains(reason)),
        "{never:?}"
    );
    assert_eq!(never.len(), limits.len() + rare.len() + unseen.len(), "{never:?}");
    assert!(
        counters.consumed.iter().take(2).all(|c| c.count > 0) && counters.translated > 1000 && counters.foreign > 100
    );
}
