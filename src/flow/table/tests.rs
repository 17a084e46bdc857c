//! The table as a whole: keys, half-open flows, expiry, and which flow gives way.

mod room;

use super::super::tcp::Segment;
use super::*;
use crate::packet::TcpFlags;
use std::collections::BTreeSet;

fn keys(client: u32, port: u16, protocol: Protocol) -> (Key, Key) {
    let there = Addresses::V4 { src: client, dst: 0xc000_0250 };
    let back = Addresses::V4 { src: 0x0a00_020b, dst: client };
    let client = Key { addresses: there, src_port: port, dst_port: 80, protocol };
    (client, Key { addresses: back, src_port: 8080, dst_port: port, protocol })
}

fn new((client, server): (Key, Key)) -> NewFlow {
    let half_open = client.protocol == Protocol::Tcp;
    let (service, server_id) = (ServiceId(0), ServerId(0));
    NewFlow { client, server, service, server_id, profile: 0, nat_pool: NO_POOL, rule: 0, picked_by: 2, half_open }
}

fn table(max_flows: u32, max_half_open: u32) -> Table {
    Table::new(&TableSettings { max_flows, max_half_open, ..TableSettings::default() })
}

fn at(seconds: u64) -> Instant {
    ms(seconds * 1000)
}

fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// Adds a flow as the engine does: its first packet counts.
fn add(table: &mut Table, now: Instant, client: u32, protocol: Protocol) -> u32 {
    let index = table.insert(now, &new(keys(client, 1000, protocol)));
    if protocol == Protocol::Tcp {
        table.follow(now, index, &Track::first(Side::Client, &seg(TcpFlags::SYN, 100, 0)));
    }
    table.count_packets(Found { index, side: Side::Client }, 1, 60);
    index
}

fn seg(flags: u8, seq: u32, ack: u32) -> Segment {
    Segment { flags: TcpFlags(flags), seq, ack, len: 0 }
}

/// Passes a segment of a flow through the tracker; returns its slot afterwards.
fn pass(table: &mut Table, now: Instant, index: u32, side: Side, segment: Segment) -> u32 {
    let track = table.track(now, index, side, &segment);
    let index = table.follow(now, index, &track);
    table.count_packets(Found { index, side }, 1, 52);
    index
}

fn datagram(table: &mut Table, now: Instant, index: u32, side: Side) {
    let state = if side == Side::Server { TimeoutState::UdpTwoWay } else { table.flow(index).state() };
    table.on_datagram(now, Found { index, side }, state);
    table.count_packets(Found { index, side }, 1, 60);
}

const ACK: u8 = TcpFlags::ACK;

/// Adds an established flow.
fn open(table: &mut Table, now: Instant, client: u32) -> u32 {
    let index = add(table, now, client, Protocol::Tcp);
    let index = pass(table, now, index, Side::Server, seg(TcpFlags::SYN | ACK, 500, 101));
    pass(table, now, index, Side::Client, seg(ACK, 101, 501))
}

/// Adds a flow that both ends have closed.
fn closed(table: &mut Table, now: Instant, client: u32) -> u32 {
    let index = open(table, now, client);
    pass(table, now, index, Side::Client, seg(TcpFlags::FIN | ACK, 101, 501));
    pass(table, now, index, Side::Server, seg(TcpFlags::FIN | ACK, 501, 102));
    assert_eq!(table.flow(index).state(), TimeoutState::Closing);
    index
}

/// Ends everything that is due, and returns the slots.
fn expire(table: &mut Table, now: Instant) -> BTreeSet<u32> {
    let mut ended = BTreeSet::new();
    let mut most = 10_000;
    while let Some(index) = table.expired(now, &mut most) {
        table.remove(now, index);
        ended.insert(index);
    }
    ended
}

#[test]
fn a_table_too_large_for_memory_is_refused_without_a_panic() {
    // More than the address space.
    assert!(reserved::<Flow>(usize::MAX / size_of::<Flow>()).is_err());
    let text = TableTooBig { max_flows: 100_000_000, max_half_open: 7 }.to_string();
    assert!(text.contains("100000000 flows and 7 half-open") && text.contains("[flows]"), "{text}");
}

#[test]
fn both_keys_find_the_same_flow_and_the_translations_are_inverse_half_open_or_not() {
    let mut table = table(4, 4);
    let half_open = add(&mut table, at(0), 7, Protocol::Tcp);
    let whole = open(&mut table, at(0), 8);
    assert!(Table::is_half_open(half_open) && !Table::is_half_open(whole));
    for (index, client) in [(half_open, 7), (whole, 8)] {
        let (client, server) = keys(client, 1000, Protocol::Tcp);
        assert_eq!(table.find(&client), Some(Found { index, side: Side::Client }));
        assert_eq!(table.find(&server), Some(Found { index, side: Side::Server }));
        let there = table.translation(index, Side::Client);
        assert_eq!((there.addresses, there.src_port, there.dst_port), (server.addresses.reversed(), 1000, 8080));
        let back = table.translation(index, Side::Server);
        assert_eq!((back.addresses, back.src_port, back.dst_port), (client.addresses.reversed(), 80, 1000));
        assert_eq!(there.deltas.reversed(), back.deltas);
        assert_eq!(table.facts(index).picked_by, 2);
    }
}

#[test]
fn a_reused_slot_is_a_different_flow() {
    let mut table = table(1, 1);
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let index = add(&mut table, at(0), 1, protocol);
        let old = table.id(index);
        assert_eq!(table.next_id(Some(index), protocol == Protocol::Tcp).index, old.index);
        table.remove(at(0), index);
        assert_eq!((table.slot(old), table.find(&keys(1, 1000, protocol).0)), (None, None));
        let next = table.next_id(None, protocol == Protocol::Tcp);
        let again = add(&mut table, at(0), 2, protocol);
        assert_eq!((again, table.slot(old), table.id(again)), (index, None, next));
        assert_eq!(table.slot(table.id(again)), Some(again));
    }
}

#[test]
fn a_flow_leaves_the_store_with_what_it_counted_when_its_handshake_is_complete() {
    let mut table = table(1, 2);
    let index = add(&mut table, at(3), 1, Protocol::Tcp);
    assert_eq!((table.len(), table.half_open(), table.count(TimeoutState::Opening)), (0, (1, 2), 1));
    let index = pass(&mut table, at(4), index, Side::Server, seg(TcpFlags::SYN | ACK, 500, 101));
    assert!(table.facts(index).answered);
    let next = table.next_id(None, false);
    let index = pass(&mut table, at(5), index, Side::Client, seg(ACK, 101, 501));
    assert_eq!((table.id(index), table.len(), table.half_open().0), (next, 1, 0));
    let facts = table.facts(index);
    assert_eq!((facts.packets, facts.bytes, facts.created), ([2, 1], [112, 52], at(3)));
    assert!(facts.answered && facts.state == TimeoutState::Established);
    assert!(table.is_full(false, None) && !table.is_full(true, None));
}

#[test]
fn a_reset_handshake_stays_half_open_and_can_be_tried_again() {
    let mut table = table(1, 1);
    let index = add(&mut table, at(0), 1, Protocol::Tcp);
    pass(&mut table, at(9), index, Side::Server, seg(TcpFlags::RST | ACK, 0, 101));
    assert_eq!((table.facts(index).state, table.count(TimeoutState::Reset)), (TimeoutState::Reset, 1));
    let again = table.track(at(10), index, Side::Client, &seg(TcpFlags::SYN, 7000, 0));
    assert_eq!(again.tracked(), super::super::tcp::Tracked::Reopen);
    assert_eq!(table.touched(index), table.clock.at(table.clock.tick(at(9))));
    assert_eq!(expire(&mut table, at(248)), BTreeSet::new());
    assert_eq!(expire(&mut table, at(250)), BTreeSet::from([index]));
    assert!(table.is_empty() && table.poll_timeout().is_none());
}

#[test]
fn an_acknowledgement_that_crossed_a_reset_teaches_a_half_open_flow_nothing() {
    let mut table = table(1, 1);
    let index = add(&mut table, at(0), 1, Protocol::Tcp);
    let data = |flags, seq, ack| Segment { len: 10, ..seg(flags, seq, ack) };
    // The server sends data with its SYN.
    pass(&mut table, at(1), index, Side::Server, data(TcpFlags::SYN | ACK, 500, 101));
    pass(&mut table, at(2), index, Side::Server, seg(TcpFlags::RST, 501, 0));
    assert_eq!(table.facts(index).state, TimeoutState::Reset);
    let ends = table.half_open.ends(index & !HALF_OPEN);
    pass(&mut table, at(3), index, Side::Client, data(ACK, 5_000_000, 501));
    assert_eq!(table.half_open.ends(index & !HALF_OPEN), ends);
    // It did not accept the reset: the same acknowledgement opens the flow.
    let index = pass(&mut table, at(5), index, Side::Client, seg(ACK, 101, 501));
    assert!(!Table::is_half_open(index) && table.facts(index).state == TimeoutState::Established);
}

#[test]
fn half_open_flows_leave_in_the_order_in_which_they_came() {
    let mut table = table(1, 100);
    for client in 0..100 {
        add(&mut table, ms(client), client as u32, Protocol::Tcp);
    }
    let oldest = |table: &Table| table.key(table.room_for_half_open().unwrap().victim.unwrap().0, Side::Client);
    // Some leave from the middle, and their slots are used again.
    for client in [50, 0, 1, 99] {
        let index = table.find(&keys(client, 1000, Protocol::Tcp).0).unwrap().index;
        table.remove(ms(100), index);
        add(&mut table, ms(100), 1000 + client, Protocol::Tcp);
    }
    let mut order: Vec<u32> = (2..50).chain(51..99).collect();
    order.extend([1050, 1000, 1001, 1099]);
    for client in order {
        assert!(table.is_full(true, None));
        assert_eq!(oldest(&table), keys(client, 1000, Protocol::Tcp).0, "{client}");
        table.remove(ms(200), table.room_for_half_open().unwrap().victim.unwrap().0);
        add(&mut table, ms(200), 5000 + client, Protocol::Tcp);
    }
}

#[test]
fn the_store_grows_with_its_flows_and_loses_none_while_it_does() {
    let mut table = table(1, 40_000);
    let mut left = BTreeSet::new();
    for client in 0..60_000u32 {
        if table.is_full(true, None) {
            let (oldest, _) = table.room_for_half_open().unwrap().victim.unwrap();
            table.remove(ms(1), oldest);
        }
        add(&mut table, ms(1), client, Protocol::Tcp);
        // Some leave at once or a little later, on both sides of each growth.
        if client % 3 == 0 {
            let gone = client - client.min(client % 700);
            if let Some(found) = table.find(&keys(gone, 1000, Protocol::Tcp).0) {
                table.remove(ms(1), found.index);
                left.insert(gone);
            }
        }
    }
    let is_there = |client: u32, table: &Table| {
        let (there, back) = keys(client, 1000, Protocol::Tcp);
        let (there, back) = (table.find(&there), table.find(&back));
        assert_eq!(there.map(|found| found.index), back.map(|found| found.index), "{client}");
        there.is_some()
    };
    // Those that have left, and the oldest, are gone; all others are there.
    let found: Vec<u32> = (0..60_000).filter(|client| is_there(*client, &table)).collect();
    assert_eq!(found.len() as u32, table.half_open().0);
    assert!(found.iter().all(|client| !left.contains(client)));
    let first = *found.first().unwrap();
    assert_eq!(found.len(), (first..60_000).filter(|client| !left.contains(client)).count());
    assert!(first > 0 && found.len() > 30_000);
}

#[test]
fn a_half_open_flow_that_was_reset_and_revived_keeps_its_place_in_the_order() {
    let mut table = table(1, 4);
    let flows: Vec<u32> = (0..4).map(|client| add(&mut table, at(0), client, Protocol::Tcp)).collect();
    let oldest = |table: &Table| table.room_for_half_open().unwrap().victim.unwrap().0;
    let reset = |table: &mut Table, now, index| pass(table, now, index, Side::Server, seg(TcpFlags::RST | ACK, 0, 101));
    // Resets in another order than the SYNs.
    for client in [1, 0] {
        reset(&mut table, at(1), flows[client]);
    }
    assert_eq!((oldest(&table), table.facts(flows[0]).state), (flows[0], TimeoutState::Reset));
    // The client did not accept the reset, and goes on.
    let index = pass(&mut table, at(5), flows[0], Side::Client, seg(ACK, 101, 0));
    assert_eq!((index, table.facts(index).state), (flows[0], TimeoutState::Opening));
    for client in [0, 1, 2, 3] {
        assert_eq!(oldest(&table), flows[client], "{client}");
        table.remove(at(6), flows[client]);
    }
    assert_eq!(table.room_for_half_open(), None);
}

#[test]
fn no_flow_expires_before_its_timeout_or_two_ticks_after_it() {
    let mut table = table(8, 8);
    let tick = TICK.as_millis() as u64;
    for start in [0, 1, tick - 1, tick, 7 * tick + 3] {
        let udp = add(&mut table, ms(start), 1, Protocol::Udp);
        let tcp = add(&mut table, ms(start), 2, Protocol::Tcp);
        for (index, timeout) in [(udp, 300_000), (tcp, 240_000)] {
            let deadline = table.deadline(index);
            assert!(deadline >= ms(start + timeout) && deadline <= ms(start + timeout) + 2 * TICK, "{start}");
        }
        assert_eq!(expire(&mut table, ms(start + 239_999)), BTreeSet::new());
        assert_eq!(expire(&mut table, ms(start + 240_000) + 2 * TICK), BTreeSet::from([tcp]));
        assert_eq!(expire(&mut table, ms(start + 300_000) + 2 * TICK), BTreeSet::from([udp]));
    }
}

#[test]
fn a_half_open_flow_expires_however_long_its_timeout_and_whatever_comes_after_it() {
    const DAY: u64 = 86_400;
    let timeouts = Timeouts { opening: Duration::from_secs(30 * DAY), ..Timeouts::default() };
    let mut table =
        Table::new(&TableSettings { max_flows: 1, max_half_open: 100, timeouts, ..TableSettings::default() });
    let first = add(&mut table, at(0), 0, Protocol::Tcp);
    let mut ended = Vec::new();
    for day in 1..40 {
        add(&mut table, at(day * DAY), day as u32, Protocol::Tcp);
        let all = expire(&mut table, at(day * DAY));
        ended.extend(all.contains(&first).then_some(day));
    }
    // Its slot is used again.
    assert_eq!(ended[0], 7);
}

#[test]
fn a_flow_after_years_without_one_lives_as_long_as_any() {
    let mut table = table(2, 2);
    let year = 365 * 86_400;
    for years in 0..40 {
        let now = at(years * year / 2);
        let (udp, tcp) = (add(&mut table, now, 1, Protocol::Udp), add(&mut table, now, 2, Protocol::Tcp));
        assert!(table.touched(udp) <= now && now.since(table.touched(udp)) < TICK, "{years}");
        assert_eq!(expire(&mut table, now + Duration::from_secs(239)), BTreeSet::new(), "{years}");
        assert_eq!(expire(&mut table, now + Duration::from_secs(301)), BTreeSet::from([udp, tcp]), "{years}");
    }
}

#[test]
fn at_the_end_of_time_nothing_is_due_again_and_again() {
    let mut table = table(2, 2);
    for now in [Instant::ZERO, Instant::from_nanos(u64::MAX - 5_000_000_000), Instant::FAR] {
        expire(&mut table, now);
        add(&mut table, now, 1, Protocol::Udp);
        add(&mut table, now, 2, Protocol::Tcp);
        for _ in 0..100 {
            expire(&mut table, now);
        }
        assert!(table.poll_timeout().is_none_or(|due| due > now), "{now}");
        for (client, protocol) in [(1, Protocol::Udp), (2, Protocol::Tcp)] {
            let found = table.find(&keys(client, 1000, protocol).0).expect("added at this time");
            table.remove(now, found.index);
        }
    }
}

#[test]
fn a_refreshed_flow_stays_and_one_that_is_closing_does_not() {
    let mut table = table(8, 8);
    let (stream, over) = (add(&mut table, at(0), 1, Protocol::Udp), closed(&mut table, at(0), 2));
    for now in 1..=400 {
        datagram(&mut table, at(now), stream, Side::Client);
        if now < 240 {
            pass(&mut table, at(now), over, Side::Client, seg(ACK, 102, 502));
        }
        let ended = expire(&mut table, at(now));
        assert_eq!(ended.contains(&over), now == 241, "{now}");
    }
    assert_eq!(expire(&mut table, at(699)), BTreeSet::new());
    assert_eq!(expire(&mut table, at(701)), BTreeSet::from([stream]));
}

#[test]
fn a_walk_in_steps_misses_no_flow_whose_handshake_completes_meanwhile() {
    let mut table = table(8, 8);
    let free = open(&mut table, at(0), 1);
    open(&mut table, at(0), 2);
    let late = add(&mut table, at(0), 3, Protocol::Tcp);
    let late = pass(&mut table, at(0), late, Side::Server, seg(TcpFlags::SYN | ACK, 500, 101));
    table.remove(at(0), free);
    let mut seen = Vec::new();
    let mut next = 0;
    loop {
        let first = table.slots(next).next();
        let Some((index, used)) = first else { break };
        if used {
            seen.push(table.key(index, Side::Client));
        }
        next = Table::position(index) + 1;
        if seen.len() == 2 && Table::is_half_open(late) && table.half_open().0 == 1 {
            // It takes the first slot of the table, wherever the walk is.
            assert_eq!(pass(&mut table, at(1), late, Side::Client, seg(ACK, 101, 501)), free);
        }
    }
    assert!(seen.contains(&keys(3, 1000, Protocol::Tcp).0) && seen.contains(&keys(2, 1000, Protocol::Tcp).0));
}

#[test]
fn what_ended_after_it_was_closed_is_remembered_for_a_minute() {
    let mut table = table(4, 4);
    let (over, idle) = (closed(&mut table, at(0), 1), open(&mut table, at(0), 2));
    let half_open = add(&mut table, at(0), 3, Protocol::Tcp);
    [over, idle, half_open].into_iter().for_each(|index| table.remove(at(10), index));
    let ended = |now, client| table.has_just_ended(now, &keys(client, 1000, Protocol::Tcp).0);
    assert_eq!([1, 2, 3].map(|client| ended(at(70), client)), [true, false, false]);
    assert!(!ended(at(71), 1));
}

#[test]
fn counts_by_state_follow_every_change() {
    let mut table = table(8, 8);
    add(&mut table, at(0), 1, Protocol::Tcp);
    open(&mut table, at(0), 2);
    closed(&mut table, at(0), 3);
    add(&mut table, at(0), 4, Protocol::Icmp);
    let counts = TimeoutState::ALL.map(|state| table.count(state));
    assert_eq!(counts, [1, 1, 1, 0, 0, 0, 1]);
    assert_eq!((table.len(), table.flows_that_stay(None)), (3, 1));
    expire(&mut table, at(10_000));
    assert_eq!(TimeoutState::ALL.map(|state| table.count(state)), [0; 7]);
}
