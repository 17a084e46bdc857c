//! Tests of flows that are carried past the engine: which are offered, what reports do, what withdraws them.

use super::testing::{CLIENT, VIP, at, bytes, settings, tcp};
use super::*;
use crate::flow::{Carried, Sequence, TimeoutState};
use crate::ids::{FlowId, ServerId};
use crate::packet::{Addresses, Side, Transport};
use crate::time::Duration;
use etherparse::{Icmpv4Type, PacketBuilder, icmpv4::DestUnreachableHeader};

/// The first numbers of the client and of the server.
const FIRST: [u32; 2] = [1000, 5000];
/// Packets after which a flow is offered.
const LASTING: u32 = 32;

/// A connection through an engine.
struct Talk {
    engine: Engine,
    port: u16,
    /// Where the server is.
    server: ([u8; 4], u16),
    next: [u32; 2],
}

impl Talk {
    fn new(engine: Engine, port: u16) -> Talk {
        let mut talk = Talk { engine, port, server: ([0; 4], 0), next: FIRST };
        let mut syn = bytes(tcp(CLIENT, port, VIP, 80, FIRST[0]).syn(), &[]);
        assert!(matches!(talk.engine.handle_packet(at(1), &mut syn, Meta::default()), Verdict::Forward { .. }));
        let parsed = parse(&syn).unwrap();
        let (Addresses::V4 { dst, .. }, Transport::Tcp { dst: port, .. }) = (parsed.addresses, parsed.transport) else {
            panic!("{parsed:?}")
        };
        talk.server = (dst.to_be_bytes(), port);
        let mut answer = bytes(tcp(talk.server.0, port, CLIENT, talk.port, FIRST[1]).syn().ack(FIRST[0] + 1), &[]);
        assert!(matches!(talk.engine.handle_packet(at(1), &mut answer, Meta::default()), Verdict::Forward { .. }));
        talk.next = FIRST.map(|first| first + 1);
        talk.says(1, Side::Client, 0);
        talk
    }

    /// Returns a segment at a number.
    fn segment(&self, from: Side, seq: u32, flags: &str, len: usize) -> Vec<u8> {
        let (server, port) = self.server;
        let ends = [tcp(CLIENT, self.port, VIP, 80, seq), tcp(server, port, CLIENT, self.port, seq)];
        let [client, server] = ends;
        let mut segment = if from == Side::Client { client } else { server }.ack(self.next[1 - from as usize]);
        if flags.contains('R') {
            segment = segment.rst();
        }
        if flags.contains('F') {
            segment = segment.fin();
        }
        bytes(segment, &vec![0; len])
    }

    fn sends(&mut self, seconds: u64, from: Side, seq: u32, flags: &str) {
        let mut packet = self.segment(from, seq, flags, 0);
        let verdict = self.engine.handle_packet(at(seconds), &mut packet, Meta::default());
        assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Translated { .. }, .. }), "{verdict:?}");
    }

    /// Sends data.
    fn says(&mut self, seconds: u64, from: Side, len: usize) {
        let mut packet = self.segment(from, self.next[from as usize], "", len);
        self.next[from as usize] += len as u32;
        let verdict = self.engine.handle_packet(at(seconds), &mut packet, Meta::default());
        assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Translated { .. }, .. }), "{verdict:?}");
    }

    /// Makes it last.
    fn lasts(&mut self) {
        (0..LASTING).for_each(|_| self.says(2, Side::Client, 10));
    }

    /// Makes it last, and takes it.
    fn taken(engine: Engine) -> (Talk, Path) {
        let mut talk = Talk::new(engine, 4000);
        talk.lasts();
        let path = talk.engine.poll_path(at(3)).expect("it has lasted");
        (talk, path)
    }

    /// What is carried of it goes on without the engine.
    fn carried(&mut self, packets: u64, len: u32) -> Carried {
        self.next[0] += len;
        let sequence = Sequence { next: self.next, acked: [self.next[1], self.next[0]] };
        Carried { packets: [packets, 0], bytes: [u64::from(len) + 40 * packets, 0], sequence }
    }

    fn row(&self, seconds: u64) -> FlowRow {
        let mut rows = Vec::new();
        self.engine.flows(at(seconds), &FlowQuery::default(), Cursor::default(), 9, &mut rows);
        assert_eq!(rows.len(), 1);
        rows.remove(0)
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new(&settings(1, 9));
    engine.offer_paths(2);
    engine
}

#[test]
fn a_connection_is_offered_once_when_it_has_lasted() {
    let mut talk = Talk::new(engine(), 4000);
    for sent in 3..LASTING {
        assert!(!talk.engine.offers_path(), "after {sent} packets");
        talk.says(2, if sent % 2 == 0 { Side::Client } else { Side::Server }, 10);
    }
    let path = talk.engine.poll_path(at(3)).expect("it has lasted");
    let (server, port) = talk.server;
    assert_eq!(path.ends[0].addresses, Addresses::V4 { src: u32::from_be_bytes(CLIENT), dst: u32::from_be_bytes(VIP) });
    assert_eq!((path.ends[0].src_port, path.ends[0].dst_port), (4000, 80));
    assert_eq!(
        path.ends[1].addresses,
        Addresses::V4 { src: u32::from_be_bytes(server), dst: u32::from_be_bytes(CLIENT) }
    );
    assert_eq!((path.ends[1].src_port, path.ends[1].dst_port), (port, 4000));
    assert_eq!((path.mtu, path.sequence.next), ([1500; 2], talk.next));
    talk.lasts();
    assert!(talk.engine.poll_path(at(3)).is_none() && talk.row(3).shortcut);
    assert!(talk.engine.poll_left().is_none());
}

#[test]
fn nothing_is_offered_unless_somebody_asks_and_no_more_than_there_is_room_for() {
    let mut talk = Talk::new(Engine::new(&settings(1, 9)), 4000);
    talk.lasts();
    assert!(!talk.engine.offers_path() && talk.engine.counters().shortcut.is_none());
    let mut engine = engine();
    let mut talks = Vec::new();
    for port in 4000..4003 {
        let mut talk = Talk::new(engine, port);
        talk.lasts();
        engine = std::mem::replace(&mut talk.engine, Engine::new(&settings(1, 1)));
        talks.push(talk);
    }
    assert!(engine.poll_path(at(3)).is_some() && engine.poll_path(at(3)).is_some());
    assert!(engine.poll_path(at(3)).is_none(), "there is room for two");
    // The third takes the place of the first.
    let mut fin = talks[0].segment(Side::Client, talks[0].next[0], "F", 0);
    engine.handle_packet(at(3), &mut fin, Meta::default());
    let place = engine.poll_left().expect("it closes");
    talks[2].engine = engine;
    talks[2].lasts();
    assert!(!talks[2].engine.offers_path(), "the place is not free yet");
    talks[2].engine.left(at(3), place, None, &Carried::default());
    talks[2].lasts();
    assert_eq!(talks[2].engine.poll_path(at(3)).map(|path| path.place), Some(place));
}

#[test]
fn what_is_carried_counts_for_flow_server_and_service_and_keeps_the_flow() {
    let (mut talk, path) = Talk::taken(engine());
    let before = (talk.row(3), talk.engine.servers(at(3)).remove(0), talk.engine.services().remove(0));
    let report = talk.carried(7, 700);
    let known = talk.engine.carried(at(100), path.place, Some(at(99)), &report);
    assert_eq!(known, Some(report.sequence));
    // The same once more changes nothing.
    talk.engine.carried(at(101), path.place, Some(at(99)), &report);
    let after = (talk.row(101), talk.engine.servers(at(101)).remove(0), talk.engine.services().remove(0));
    assert_eq!((after.0.packets_in, after.0.bytes_in), (before.0.packets_in + 7, before.0.bytes_in + 980));
    assert_eq!((after.1.packets_in, after.1.bytes_in), (before.1.packets_in + 7, before.1.bytes_in + 980));
    assert_eq!((after.2.packets_in, after.2.bytes_in), (before.2.packets_in + 7, before.2.bytes_in + 980));
    assert!(after.0.idle_ms < 2_200, "{}", after.0.idle_ms);
    let counters = talk.engine.counters();
    assert!(counters.add_up());
    assert_eq!(counters.shortcut, Some(Shortcut { flows: 1, max_flows: 2, packets: 7, bytes: 980 }));
    assert_eq!(counters.translated + 7, after.1.packets_in + after.1.packets_out);
}

#[test]
fn numbers_of_segments_that_came_to_the_engine_stay() {
    let (mut talk, path) = Talk::taken(engine());
    let report = talk.carried(1, 100);
    talk.engine.carried(at(4), path.place, Some(at(4)), &report);
    // As one does that is too long for the way.
    talk.says(5, Side::Client, 1400);
    let later = Carried { packets: [2, 0], bytes: [180, 0], ..report };
    let known = talk.engine.carried(at(5), path.place, Some(at(5)), &later).unwrap();
    assert_eq!(known.next[0], talk.next[0]);
}

#[test]
fn a_carried_flow_ends_when_it_has_been_silent_for_its_timeout_and_not_before() {
    let mut settings = settings(1, 9);
    settings.table.timeouts.established = Duration::from_secs(60);
    let mut engine = Engine::new(&settings);
    engine.offer_paths(2);
    let (mut talk, path) = Talk::taken(engine);
    let pass = |talk: &mut Talk, until: u64, report: &mut dyn FnMut(&mut Talk, u64)| {
        for second in 4..until {
            talk.engine.handle_timeout(at(second));
            while let Some(due) = talk.engine.poll_due() {
                assert_eq!(due, path.place);
                report(talk, second);
            }
        }
    };
    // A packet passed shortly before each deadline.
    let mut packets = 0;
    pass(&mut talk, 400, &mut |talk, second| {
        packets += 1;
        let report = talk.carried(packets, 10);
        talk.engine.carried(at(second), path.place, Some(at(second - 1)), &Carried { packets: [packets, 0], ..report });
    });
    assert!((4..8).contains(&packets), "{packets}");
    // And then none: the last was reported before second 400.
    let last = talk.row(400).idle_ms;
    let report = Carried { packets: [packets, 0], ..talk.carried(0, 0) };
    let mut asked = 0;
    for second in 400..500 {
        talk.engine.handle_timeout(at(second));
        while let Some(due) = talk.engine.poll_due() {
            asked += 1;
            talk.engine.carried(at(second), due, None, &report);
        }
        let is_there = talk.engine.counters().flows > 0;
        let idle = last + (second - 400) * 1000;
        assert_eq!(is_there, idle < 60_000 + 2_000 && is_there, "idle for {idle} ms");
        assert!(is_there || idle >= 59_000, "ended after {idle} ms");
    }
    assert_eq!((talk.engine.counters().flows, asked), (0, 1));
    assert_eq!(talk.engine.poll_left(), Some(path.place));
    talk.engine.left(at(500), path.place, None, &report);
    assert_eq!(talk.engine.places_in_use(), 0);
}

#[test]
fn the_ends_of_a_carried_flow_are_reset_at_the_numbers_at_which_it_was_left() {
    let mut engine = Engine::new(&settings(2, 9));
    engine.offer_paths(2);
    drop(engine.apply(at(1), Change::Health { server: ServerId(0), up: Some(false) }));
    let (mut talk, path) = Talk::taken(engine);
    let mut buffer = vec![0; 2000];
    talk.engine.reload(at(4), &settings(1, 9), Removed::EndNow);
    while talk.engine.poll_timeout().is_some_and(|due| due <= at(4)) {
        talk.engine.handle_timeout(at(4));
    }
    assert_eq!(talk.engine.counters().flows, 0);
    assert!(talk.engine.poll_transmit(at(4), &mut buffer).is_none(), "it is still carried");
    let report = talk.carried(4000, 4 << 20);
    assert_eq!(talk.engine.poll_left(), Some(path.place));
    talk.engine.left(at(4), path.place, Some(at(4)), &report);
    let mut numbers = Vec::new();
    while let Some((len, _)) = talk.engine.poll_transmit(at(4), &mut buffer) {
        let Transport::Tcp { seq, flags, .. } = parse(&buffer[..len]).unwrap().transport else { panic!() };
        assert!(flags.rst());
        numbers.push(seq);
    }
    // What each end expects of the other.
    assert_eq!(numbers, [talk.next[1], talk.next[0]]);
}

#[test]
fn a_silent_flow_gives_its_place_to_one_that_has_packets() {
    let mut engine = engine();
    let mut talks = Vec::new();
    for port in 4000..4003 {
        let mut talk = Talk::new(engine, port);
        talk.lasts();
        engine = std::mem::replace(&mut talk.engine, Engine::new(&settings(1, 1)));
        talks.push(talk);
    }
    let paths = [engine.poll_path(at(3)).unwrap(), engine.poll_path(at(3)).unwrap()];
    // The first goes on, past the engine.
    let report = talks[0].carried(10, 1000);
    engine.carried(at(12), paths[0].place, Some(at(12)), &report);
    talks[2].engine = engine;
    talks[2].says(12, Side::Client, 10);
    assert_eq!(talks[2].engine.poll_left(), None, "none has been silent for long");
    talks[2].says(14, Side::Client, 10);
    talks[2].says(14, Side::Client, 10);
    assert_eq!(talks[2].engine.poll_left(), Some(paths[1].place));
    assert_eq!(talks[2].engine.poll_left(), None, "one is enough");
    let last = Carried { sequence: paths[1].sequence, ..Carried::default() };
    talks[2].engine.left(at(14), paths[1].place, None, &last);
    talks[2].says(14, Side::Client, 10);
    let path = talks[2].engine.poll_path(at(14)).expect("there is room");
    assert_eq!((path.place, path.ends[0].src_port), (paths[1].place, 4002));
}

#[test]
fn a_reset_is_believed_at_the_number_of_now_alone() {
    for (offset, state) in [(0, TimeoutState::Reset), (1, TimeoutState::Established), (5000, TimeoutState::Established)]
    {
        let (mut talk, path) = Talk::taken(engine());
        // More than the tracker believes to be ahead.
        let report = talk.carried(4000, 4 << 20);
        let reset = talk.segment(Side::Client, talk.next[0].wrapping_sub(offset), "R", 0);
        // What a driver does before.
        assert_eq!(talk.engine.path_of(&reset), Some(path.place));
        talk.engine.carried(at(4), path.place, Some(at(4)), &report);
        talk.sends(4, Side::Client, talk.next[0].wrapping_sub(offset), "R");
        assert_eq!(talk.row(4).state, state, "{offset}");
        let is_left = state == TimeoutState::Reset;
        assert_eq!(talk.engine.poll_left().is_some(), is_left, "a reset that proves nothing changes nothing");
    }
}

#[test]
fn an_icmp_error_is_believed_about_a_segment_of_now() {
    let (mut talk, path) = Talk::taken(engine());
    let report = talk.carried(4000, 4 << 20);
    // As the server would have got it.
    let (server, port) = talk.server;
    let sent = bytes(tcp(CLIENT, talk.port, server, port, talk.next[0]).ack(talk.next[1]), &[0; 1400]);
    let kind = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
    let mut error = Vec::new();
    let builder = PacketBuilder::ipv4([203, 0, 113, 1], CLIENT, 60).icmpv4(Icmpv4Type::DestinationUnreachable(kind));
    builder.write(&mut error, &sent[..28]).unwrap();
    // What a driver does before.
    assert_eq!(talk.engine.path_of(&error), Some(path.place));
    talk.engine.carried(at(4), path.place, Some(at(4)), &report);
    let verdict = talk.engine.handle_packet(at(4), &mut error, Meta::default());
    assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Error { .. }, .. }), "{verdict:?}");
}

#[test]
fn a_fin_and_a_syn_withdraw_a_flow_and_it_is_offered_again_if_it_goes_on() {
    for what in ["F", "S"] {
        let (mut talk, path) = Talk::taken(engine());
        if what == "F" {
            talk.sends(4, Side::Client, talk.next[0], "F");
        } else {
            let mut syn = bytes(tcp(CLIENT, talk.port, VIP, 80, 77).syn(), &[]);
            talk.engine.handle_packet(at(4), &mut syn, Meta::default());
        }
        assert_eq!(talk.engine.poll_left(), Some(path.place), "{what}");
        assert!(!talk.row(4).shortcut);
        talk.engine.left(at(4), path.place, None, &Carried { sequence: path.sequence, ..Carried::default() });
        // No data follows a FIN, so it was none.
        talk.lasts();
        assert!(talk.engine.poll_path(at(5)).is_some(), "{what}");
    }
}

#[test]
fn what_ends_a_flow_or_changes_its_way_withdraws_it() {
    type Act = fn(&mut Engine, FlowId);
    let acts: [(&str, Act, bool); 6] = [
        ("a kill", |engine, flow| drop(engine.apply(at(4), Change::Kill { flow })), false),
        (
            "a server that is down",
            |engine, _| {
                drop(engine.apply(at(4), Change::Health { server: ServerId(0), up: Some(false) }));
            },
            true,
        ),
        (
            "another path MTU",
            |engine, _| {
                drop(engine.apply(at(4), Change::Mtu { server: ServerId(0), v6: false, mtu: 1400 }));
            },
            true,
        ),
        ("a standby", |engine, _| engine.set_duty(at(4), Duty::Standby), true),
        ("nobody who carries", |engine, _| engine.offer_paths(0), true),
        (
            "a reload",
            |engine, _| {
                let mut settings = settings(1, 9);
                settings.gateway.client_mtu = Some(1400);
                engine.reload(at(4), &settings, Removed::Drain);
            },
            true,
        ),
    ];
    for (what, act, lives) in acts {
        let (mut talk, path) = Talk::taken(engine());
        act(&mut talk.engine, path.flow);
        assert_eq!(talk.engine.poll_left(), Some(path.place), "{what}");
        let before = talk.engine.servers(at(4)).remove(0).packets_in;
        let report = talk.carried(3, 30);
        talk.engine.left(at(4), path.place, Some(at(4)), &report);
        assert_eq!(talk.engine.servers(at(4)).remove(0).packets_in, before + 3, "{what}: the last report counts");
        assert_eq!((talk.engine.counters().flows > 0, talk.engine.places_in_use()), (lives, 0), "{what}");
    }
}

#[test]
fn datagrams_are_not_offered() {
    let mut engine = engine();
    let mut query = Vec::new();
    etherparse::PacketBuilder::ipv4(CLIENT, VIP, 64).udp(4000, 80).write(&mut query, b"query").unwrap();
    (0..LASTING).for_each(|_| super::testing::converse(&mut engine, at(1), &query));
    assert!(!engine.offers_path() && engine.places_in_use() == 0);
}
