//! The tracker, segment by segment, and in connections with losses.

mod behind;
mod losses;

use super::*;

const C: Side = Side::Client;
const S: Side = Side::Server;

fn seg(flags: &str, seq: u32, ack: u32, len: u32) -> Segment {
    let bit = |c| match c {
        'S' => TcpFlags::SYN,
        'A' => TcpFlags::ACK,
        'F' => TcpFlags::FIN,
        _ => TcpFlags::RST,
    };
    Segment { flags: TcpFlags(flags.chars().map(bit).fold(0, |a, b| a | b)), seq, ack, len }
}

#[test]
fn what_goes_on_is_tracked_like_everything_else() {
    let (mut random, mut went_on) = (crate::rng::Rng::new(3), 0);
    for _ in 0..200_000 {
        // Numbers at every limit, and near each other.
        let mut number = || {
            let at = [0, 1, AHEAD, WINDOW, u32::MAX - AHEAD][random.below(5) as usize];
            7u32.wrapping_add(at).wrapping_add(random.below(3) as u32).wrapping_sub(1)
        };
        let (next, acked, seq, ack) = ([number(), number()], [number(), number()], number(), number());
        let open = syn(0) | syn(1) | has_acked(0) | has_acked(1) | OPENED;
        let bit = |bits: u64| if bits < 16 { 1 << bits } else { 0 };
        let seen = open ^ bit(random.below(64)) ^ bit(random.below(64));
        let before = Ends { next, acked, seen, early: random.below(3) as u16 };
        let flags = TcpFlags(TcpFlags::ACK ^ if random.below(4) == 0 { 1 << random.below(5) } else { 0 });
        let segment = Segment { flags, seq, ack, len: random.below(2) as u32 };
        let from = if random.below(2) == 0 { C } else { S };
        let (mut quick, mut full) = (before, before);
        if !quick.goes_on(from, &segment) {
            assert_eq!(quick, before);
            continue;
        }
        went_on += 1;
        let tracked = full.step(TimeoutState::Established, from, &segment);
        assert_eq!((quick, tracked), (full, Tracked::Refresh(TimeoutState::Established)), "{before:?} {segment:?}");
    }
    assert!(went_on > 5_000, "{went_on}");
}

/// Runs segments through a tracker and returns the state after each; `=` where a segment proved nothing.
fn walk(segments: &[(Side, Segment)]) -> Vec<&'static str> {
    let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
    let mut seen = Vec::new();
    for (from, segment) in segments {
        let tracked = ends.step(state, *from, segment);
        if *from == C && segment.flags == TcpFlags(TcpFlags::SYN) && state == TimeoutState::Established {
            ends.doubt();
        }
        match tracked {
            Tracked::Refresh(to) => {
                state = to;
                seen.push(to.name());
            }
            Tracked::Pass => seen.push("="),
            Tracked::Reopen => seen.push("reopen"),
        }
    }
    seen
}

fn open() -> Vec<(Side, Segment)> {
    vec![(C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0)), (C, seg("A", 101, 501, 0))]
}

fn after_open(more: &[(Side, Segment)]) -> Vec<&'static str> {
    let mut all = open();
    all.extend_from_slice(more);
    walk(&all).split_off(3)
}

#[test]
fn the_three_way_handshake_establishes() {
    assert_eq!(walk(&open()), ["opening", "opening", "established"]);
}

#[test]
fn repeated_syn_and_syn_ack_never_establish() {
    let (syn, answer) = ((C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0)));
    assert_eq!(walk(&[syn, answer, syn, answer, answer, syn]), ["opening"; 6]);
}

#[test]
fn an_ack_of_a_wrong_number_does_not_establish() {
    let mut all = open();
    all[2].1.ack = 500;
    assert_eq!(walk(&all)[2], "opening");
    all[2].1.ack = 501 + AHEAD + 1;
    assert_eq!(walk(&all)[2], "opening");
}

#[test]
fn a_simultaneous_open_establishes() {
    let all = [
        (C, seg("S", 100, 0, 0)),
        (S, seg("S", 500, 0, 0)),
        (C, seg("SA", 100, 501, 0)),
        (S, seg("SA", 500, 101, 0)),
        (C, seg("A", 101, 501, 0)),
    ];
    assert_eq!(walk(&all)[4], "established");
}

#[test]
fn a_half_closed_flow_stays_established_and_two_fins_close_it() {
    let more = [
        (C, seg("FA", 101, 501, 0)),
        (S, seg("A", 501, 102, 1000)),
        (S, seg("FA", 1501, 102, 0)),
        (C, seg("A", 102, 1502, 0)),
        (C, seg("S", 9000, 0, 0)),
    ];
    assert_eq!(after_open(&more), ["established", "established", "closing", "closing", "reopen"]);
}

#[test]
fn a_late_duplicate_of_the_old_syn_does_not_reopen() {
    let fins = [(C, seg("FA", 101, 501, 0)), (S, seg("FA", 501, 102, 0))];
    for (seq, want) in [(100, "="), (101, "="), (102, "reopen"), (0x8000_0000, "reopen")] {
        assert_eq!(after_open(&[fins[0], fins[1], (C, seg("S", seq, 0, 0))])[2], want, "{seq}");
    }
    let refused = [(C, seg("S", 100, 0, 0)), (S, seg("RA", 0, 101, 0)), (C, seg("S", 100, 0, 0))];
    assert_eq!(walk(&refused), ["opening", "reset", "="]);
}

#[test]
fn only_a_reset_at_the_exact_number_is_believed() {
    let data = (S, seg("A", 501, 101, 1000));
    for (side, seq, want) in [
        (C, 101, "reset"),
        (C, 102, "="),
        (C, 100, "="),
        (S, 1501, "reset"),
        (S, 501, "reset"), // the client has acknowledged no more than this
        (S, 900, "="),
        (S, 0, "="),
    ] {
        assert_eq!(after_open(&[data, (side, seg("R", seq, 0, 0))])[1], want, "{side:?} {seq}");
    }
}

#[test]
fn data_after_a_reset_revives_the_flow_and_strays_do_not() {
    let reset = (C, seg("R", 101, 0, 0));
    assert_eq!(after_open(&[reset, (S, seg("A", 501, 101, 10))]), ["reset", "established"]);
    assert_eq!(after_open(&[reset, (S, seg("A", 0x8000_0000, 5, 10))]), ["reset", "="]);
    assert_eq!(after_open(&[reset, reset, (C, seg("S", 0x8000_0007, 0, 0))]), ["reset", "=", "reopen"]);
}

#[test]
fn acknowledged_or_unsent_data_is_not_in_flight() {
    let mut ends = Ends::default();
    let data = [(C, seg("A", 101, 501, 100)), (S, seg("A", 501, 151, 10))];
    for (from, segment) in open().iter().chain(&data[..]) {
        ends.step(if segment.flags.syn() { TimeoutState::Opening } else { TimeoutState::Established }, *from, segment);
    }
    for (sender, seq, want) in [
        (C, 150, false),
        (C, 151, true),
        (C, 200, true),
        (C, 202, false),
        (S, 500, false),
        (S, 501, true),
        (S, 512, false),
    ] {
        assert_eq!(ends.is_under_way(sender, seq), want, "{sender:?} {seq}");
    }
    let mut opening = Ends::default();
    opening.step(TimeoutState::Opening, C, &seg("S", 100, 0, 0));
    assert!(opening.is_under_way(C, 100) && !opening.is_under_way(C, 5000));
    // Data that a server sends before the client's first acknowledgement (RFC 7413).
    for segment in [seg("SA", 500, 101, 0), seg("A", 501, 101, 1400), seg("A", 1901, 101, 1400)] {
        opening.step(TimeoutState::Opening, S, &segment);
    }
    assert_eq!([500, 501, 1901, 3302].map(|seq| opening.is_under_way(S, seq)), [true, true, true, false]);
}

#[test]
fn a_refused_connection_is_reset() {
    let syn = (C, seg("S", 100, 0, 0));
    assert_eq!(walk(&[syn, (S, seg("RA", 0, 101, 0))]), ["opening", "reset"]);
    assert_eq!(walk(&[syn, (S, seg("RA", 0, 99, 0))]), ["opening", "="]);
    assert_eq!(walk(&[syn, (S, seg("R", 0, 0, 0))]), ["opening", "="]);
    assert_eq!(walk(&[syn, (C, seg("R", 101, 0, 0))]), ["opening", "reset"]);
}

#[test]
fn a_syn_on_an_established_flow_proves_nothing() {
    assert_eq!(after_open(&[(C, seg("S", 7, 0, 0)), (S, seg("A", 501, 101, 0))]), ["=", "established"]);
}

#[test]
fn an_adopted_flow_establishes_only_when_the_client_acknowledges_the_server() {
    let (first, answer) = ((C, seg("A", 900, 5000, 10)), (S, seg("A", 5000, 910, 100)));
    assert_eq!(walk(&[first, first, first]), ["opening"; 3], "only the client has sent");
    assert_eq!(walk(&[first, answer, answer]), ["opening"; 3], "not acknowledged");
    assert_eq!(walk(&[first, answer, (C, seg("A", 910, 5099, 0))])[2], "opening", "one octet short");
    assert_eq!(walk(&[first, answer, (C, seg("A", 910, 5100, 0))])[2], "established");
    let far = (S, seg("A", 0x8000_0000, 910, 0));
    assert_eq!(walk(&[first, far, (C, seg("A", 910, 0x8000_0000, 0))])[2], "opening", "a stray from the server");
    assert_eq!(walk(&[first, (S, seg("R", 5000, 0, 0))])[1], "reset");
    assert_eq!(walk(&[first, (S, seg("R", 5001, 0, 0))])[1], "=");
}

#[test]
fn a_syn_on_an_adopted_flow_begins_a_handshake() {
    let mut all = vec![(C, seg("A", 900, 5000, 10))];
    all.extend(open());
    assert_eq!(walk(&all), ["opening", "opening", "opening", "established"]);
}

#[test]
fn sequence_numbers_wrap() {
    let all = [
        (C, seg("S", u32::MAX, 0, 0)),
        (S, seg("SA", u32::MAX, 0, 0)),
        (C, seg("A", 0, 0, 0)),
        (C, seg("A", 0, 0, 1000)),
        (S, seg("R", 0, 0, 0)),
    ];
    assert_eq!(walk(&all), ["opening", "opening", "established", "established", "reset"]);
}

#[test]
fn a_reset_does_not_bypass_the_acknowledgement_of_the_server() {
    let opening = [(C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0))];
    for reset in [(C, seg("R", 101, 0, 0)), (S, seg("R", 501, 0, 0))] {
        let all = [opening[0], opening[1], reset, (C, seg("A", 101, 7, 10))];
        assert_eq!(walk(&all)[2..], ["reset", "opening"], "{reset:?}");
        let all = [opening[0], opening[1], reset, (C, seg("A", 101, 501, 10))];
        assert_eq!(walk(&all)[2..], ["reset", "established"], "{reset:?}");
    }
    // A server in SYN-RECEIVED replies to a wrong acknowledgement with a reset at that number (RFC 9293, 3.10.7.4).
    let guess = (C, seg("A", 101, 7777, 0));
    let all = [opening[0], opening[1], guess, (S, seg("R", 7777, 0, 0)), guess, guess];
    assert_eq!(walk(&all)[2..], ["opening", "=", "opening", "opening"]);
}

#[test]
fn a_guess_near_the_servers_number_does_not_establish() {
    for (ack, want) in [(501, "established"), (502, "opening"), (1000, "opening"), (500, "opening")] {
        let mut all = open();
        all[2].1.ack = ack;
        assert_eq!(walk(&all)[2], want, "{ack}");
    }
    // A server may send before the handshake is complete (RFC 7413), and that much may be acknowledged.
    for (ack, want) in [(501, "established"), (601, "established"), (602, "opening")] {
        let early = [(C, seg("S", 100, 0, 10)), (S, seg("SA", 500, 111, 0)), (S, seg("A", 501, 111, 100))];
        let all = [early[0], early[1], early[2], (C, seg("A", 111, ack, 0))];
        assert_eq!(walk(&all)[3], want, "{ack}");
        let all = [early[0], (S, seg("SA", 500, 111, 100)), (C, seg("A", 111, ack, 0))];
        assert_eq!(walk(&all)[2], want, "on the SYN: {ack}");
    }
}

#[test]
fn a_connection_accepted_at_the_second_attempt_establishes() {
    // Some systems repeat a refused SYN with the same number.
    let syn = (C, seg("S", 100, 0, 0));
    let refused = [syn, (S, seg("RA", 0, 101, 0)), syn, (S, seg("SA", 500, 101, 0)), (C, seg("A", 101, 501, 0))];
    assert_eq!(walk(&refused), ["opening", "reset", "=", "opening", "established"]);
}

#[test]
fn a_server_that_accepts_a_syn_with_numbers_of_the_closed_connection_begins_a_connection() {
    // RFC 6191, 2: with timestamps this is permitted.
    let more = [
        (C, seg("A", 101, 501, 100_000)),
        (C, seg("FA", 100_101, 501, 0)),
        (S, seg("FA", 501, 100_102, 0)),
        (C, seg("S", 50_000, 0, 0)),
        (S, seg("SA", 0x9000_0000, 50_001, 0)),
        (C, seg("A", 50_001, 0x9000_0001, 0)),
        (C, seg("R", 50_001, 0, 0)),
    ];
    assert_eq!(after_open(&more)[2..], ["closing", "=", "opening", "established", "reset"]);
    // The client has sent no SYN.
    assert_eq!(after_open(&[more[0], more[1], more[2], more[4]])[3], "=");
}

#[test]
fn a_server_that_has_forgotten_the_connection_makes_the_tracker_follow_the_new_one() {
    let more = [
        (C, seg("S", 0x7000_0000, 0, 0)),
        (S, seg("SA", 0x9000_0000, 0x7000_0001, 0)),
        (C, seg("A", 0x7000_0001, 0x9000_0001, 0)),
        (C, seg("R", 0x7000_0001, 0, 0)),
    ];
    assert_eq!(after_open(&more), ["=", "=", "established", "reset"]);
    // A late duplicate of the old SYN-ACK does not count.
    let late = [(C, seg("S", 100, 0, 0)), (S, seg("SA", 500, 101, 0)), (C, seg("R", 101, 0, 0))];
    assert_eq!(after_open(&late), ["=", "=", "reset"]);
    // A forged SYN-ACK does not kill a connection: its traffic continues with its own numbers.
    let forged = [more[0], more[1], more[3]];
    let real = [(S, seg("A", 501, 101, 10)), (C, seg("A", 101, 511, 0)), more[3], (S, seg("R", 511, 0, 0))];
    let all = [&forged[..], &real[..]].concat();
    assert_eq!(after_open(&all), ["=", "=", "reset", "established", "established", "=", "="]);
}

#[test]
fn data_after_a_fin_disproves_the_fin() {
    let more = [
        (C, seg("FA", 101, 501, 0)),
        (C, seg("A", 101, 501, 1000)),
        (S, seg("FA", 501, 1101, 0)),
        (C, seg("A", 1101, 502, 1000)),
        (C, seg("FA", 2101, 502, 0)),
        (C, seg("FA", 2101, 502, 0)),
        (C, seg("A", 2102, 502, 0)),
    ];
    let want = ["established", "established", "established", "established", "closing", "closing", "closing"];
    assert_eq!(after_open(&more), want);
    let stray = [(C, seg("FA", 90, 501, 0)), (S, seg("FA", 501, 101, 0)), (C, seg("A", 101, 502, 10))];
    assert_eq!(after_open(&stray)[2], "established");
}

#[test]
fn a_fin_on_the_segment_that_establishes_counts() {
    let all = [
        (C, seg("S", 100, 0, 0)),
        (S, seg("SA", 500, 101, 0)),
        (C, seg("FA", 101, 501, 10)),
        (S, seg("FA", 501, 112, 50)),
        (C, seg("A", 112, 552, 0)),
    ];
    assert_eq!(walk(&all)[2..], ["established", "closing", "closing"]);
    // Everything that the server sends before the client acknowledges any of it.
    let all = [
        (C, seg("S", 100, 0, 10)),
        (S, seg("SA", 500, 111, 0)),
        (S, seg("FA", 501, 111, 50)),
        (C, seg("A", 111, 501, 0)),
        (S, seg("A", 552, 111, 0)),
        (C, seg("FA", 111, 552, 0)),
        (S, seg("A", 552, 112, 0)),
    ];
    assert_eq!(walk(&all)[3..], ["established", "established", "closing", "closing"]);
}

#[test]
fn a_simultaneous_open_that_ends_in_two_syn_acks_establishes() {
    // RFC 9293, figure 8: no further segment is required.
    let all =
        [(C, seg("S", 100, 0, 0)), (S, seg("S", 500, 0, 0)), (C, seg("SA", 100, 501, 0)), (S, seg("SA", 500, 101, 0))];
    assert_eq!(walk(&all), ["opening", "opening", "opening", "established"]);
    assert_eq!(walk(&[all[0], all[1], (C, seg("SA", 100, 400, 0)), all[3]])[3], "opening");
}

#[test]
fn a_forged_syn_during_the_handshake_does_not_block_the_tracker() {
    let all = [open()[0], open()[1], (C, seg("S", 0x8000_0000, 0, 0)), open()[2], (C, seg("R", 101, 0, 0))];
    assert_eq!(walk(&all)[3..], ["established", "reset"]);
    let stranger =
        [(C, seg("S", 0x8000_0000, 0, 0)), (C, seg("R", 0x8000_0001, 0, 0)), (C, seg("RA", 0x8000_0001, 7, 0))];
    let all = [&open()[..2], &stranger, &open()[2..]].concat();
    assert_eq!(walk(&all)[3..], ["=", "=", "established"], "its reset does not end the handshake");
}

#[test]
fn a_refused_fast_open_is_reset() {
    // RFC 9293, 3.10.7.1: the reply acknowledges the data as well.
    assert_eq!(walk(&[(C, seg("S", 100, 0, 10)), (S, seg("RA", 0, 111, 0))]), ["opening", "reset"]);
}

#[test]
fn an_adopted_flow_with_megabytes_in_flight_establishes() {
    let far = 5000 + (8 << 20);
    let all = [
        (C, seg("A", 900, 5000, 0)),
        (S, seg("A", far, 900, 1000)),
        (C, seg("A", 900, 5000, 0)),
        (C, seg("A", 900, far + 1000, 0)),
    ];
    assert_eq!(walk(&all), ["opening", "opening", "opening", "established"]);
}

#[test]
fn without_the_servers_number_no_flow_becomes_long_lived() {
    let mut rng = crate::rng::Rng::new(7);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let iss = rng.next() as u32;
        let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
        for _ in 0..12 {
            let near = |rng: &mut crate::rng::Rng, of: u32| of.wrapping_add(rng.below(5) as u32).wrapping_sub(2);
            let (kind, seq) = (rng.below(7), near(&mut rng, 101));
            // Never the one number that only a receiver of the SYN-ACK knows, but close to it.
            let guess = if rng.below(2) == 0 { near(&mut rng, iss) } else { rng.next() as u32 };
            let ack = if guess == iss.wrapping_add(1) { 0 } else { guess };
            let segment = match kind {
                0 => (C, seg("S", seq.wrapping_sub(1), 0, rng.below(2) as u32 * 10)),
                1 => (C, seg(["R", "RA"][rng.below(2) as usize], seq, ack, 0)),
                2 => (C, seg("FA", seq, ack, rng.below(3) as u32)),
                3 => (C, seg("SA", seq.wrapping_sub(1), ack, 0)),
                4 => (C, seg("A", seq, ack, rng.below(100) as u32)),
                5 => (S, seg("SA", iss, 101, 0)),
                // How a server replies to a wrong acknowledgement.
                _ => (S, seg("R", ack, 0, 0)),
            };
            match ends.step(state, segment.0, &segment.1) {
                Tracked::Refresh(to) => state = to,
                Tracked::Pass => {}
                Tracked::Reopen => (ends, state) = (Ends::default(), TimeoutState::Opening),
            }
            seen.insert(state.name());
            assert_ne!(state, TimeoutState::Established, "{segment:?}");
        }
    }
    assert!(seen.contains("reset") && seen.contains("opening"), "{seen:?}");
}

#[test]
fn addresses_and_ports_alone_cannot_shorten_a_flows_life() {
    let mut rng = crate::rng::Rng::new(11);
    let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
    for (from, segment) in open() {
        let Tracked::Refresh(to) = ends.step(state, from, &segment) else { panic!("{segment:?}") };
        state = to;
    }
    for _ in 0..300_000 {
        let flags = ["S", "SA", "R", "RA", "A", "FA", "F"][rng.below(7) as usize];
        let segment = seg(flags, rng.next() as u32, rng.next() as u32, rng.below(70_000) as u32);
        let step = ends.step(state, C, &segment);
        assert!(matches!(step, Tracked::Pass | Tracked::Refresh(TimeoutState::Established)), "{segment:?}: {step:?}");
    }
    // The connection itself still closes.
    let more = [(S, seg("FA", 501, 101, 0)), (C, seg("FA", 101, 502, 0)), (S, seg("A", 502, 102, 0))];
    let last = more.map(|(from, segment)| ends.step(state, from, &segment));
    assert_eq!(last[2], Tracked::Refresh(TimeoutState::Closing), "{ends:?}");
}
