//! The tracker, segment by segment, and in connections with losses.

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
fn data_lost_before_the_gateway_does_not_block_the_tracker() {
    let jump = (C, seg("A", 101 + 100_000, 501, 1000));
    assert_eq!(after_open(&[jump, (C, seg("R", 101 + 101_000, 0, 0))]), ["established", "reset"]);
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
fn an_acknowledgement_of_all_data_behind_a_hole_is_learned() {
    // Eight MiB in flight, the first segment lost behind the gateway and retransmitted.
    let mut more: Vec<_> = (0..128).map(|i| (S, seg("A", 501 + i * 65_536, 101, 65_536))).collect();
    more.push((C, seg("A", 101, 501, 0)));
    more.push((S, seg("A", 501, 101, 65_536)));
    more.push((C, seg("A", 101, 501 + (8 << 20), 0)));
    more.push((S, seg("A", 501 + (8 << 20), 101, 1000)));
    more.push((S, seg("R", 501 + (8 << 20), 0, 0)));
    assert_eq!(after_open(&more).last(), Some(&"reset"));
}

#[test]
fn a_loss_before_the_gateway_beyond_the_stray_limit_does_not_block_the_tracker() {
    let more = [
        (C, seg("A", 101 + (8 << 20), 501, 1000)),
        (S, seg("A", 501, 1101 + (8 << 20), 0)),
        (C, seg("R", 1101 + (8 << 20), 0, 0)),
    ];
    assert_eq!(after_open(&more), ["established", "established", "reset"]);
    let blind = [(C, seg("A", 101 + (8 << 20), 0x6000_0000, 1000)), (C, seg("R", 1101 + (8 << 20), 0, 0))];
    assert_eq!(after_open(&blind)[1], "=", "knows neither number");
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

/// A download of 64-KiB segments with 32 MiB in flight, bursts of loss on both sides of the tracker, and both FINs.
fn download(rng: &mut crate::rng::Rng, first: [u32; 2], segments: u32) -> Result<(), String> {
    const SIZE: u32 = 65_536;
    let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
    let mut show = |from, segment: Segment| {
        if let Tracked::Refresh(to) = ends.step(state, from, &segment) {
            state = to;
        }
        (ends, state)
    };
    let number = |side: usize, of: u32| first[side].wrapping_add(1).wrapping_add(of);
    show(C, seg("S", first[0], 0, 0));
    show(S, seg("SA", first[1], number(0, 0), 0));
    show(C, seg("A", number(0, 0), number(1, 0), 0));
    let (mut got, mut sent, mut acked, mut deaf) = (vec![false; segments as usize], 0, 0, [0; 3]);
    while acked < segments {
        // Holes are filled from the low end first; otherwise new data is sent.
        let hole = (acked..sent).find(|i| !got[*i as usize]).filter(|_| rng.below(4) == 0);
        let next = match hole {
            Some(hole) => hole,
            None if sent < segments && sent - acked < 512 => sent,
            None => acked,
        };
        sent = sent.max(next + 1);
        for lost in &mut deaf {
            *lost = if *lost > 0 {
                *lost - 1
            } else if rng.below(400) == 0 {
                rng.below(300)
            } else {
                0
            };
        }
        if deaf[0] > 0 {
            continue;
        }
        let (ends, state) = show(S, seg("A", number(1, next * SIZE), number(0, 0), SIZE));
        if state != TimeoutState::Established {
            return Err(format!("{state:?} after segment {next} of {sent}, {acked} acknowledged"));
        }
        if next >= acked && !ends.is_under_way(S, number(1, next * SIZE)) {
            return Err(format!("segment {next} of {sent} is not in flight, {acked} acknowledged: {ends:?}"));
        }
        if deaf[1] > 0 {
            continue;
        }
        got[next as usize] = true;
        let whole = got.iter().position(|got| !got).map_or(segments, |i| i as u32);
        if deaf[2] > 0 {
            continue;
        }
        acked = whole;
        let (mut ends, state) = show(C, seg("A", number(0, 0), number(1, whole * SIZE), 0));
        let reset = ends.step(state, S, &seg("R", number(1, whole * SIZE), 0, 0));
        if reset != Tracked::Refresh(TimeoutState::Reset) {
            return Err(format!("a reset at {whole} of {sent} is not believed: {ends:?}"));
        }
    }
    let end = number(1, segments * SIZE);
    show(S, seg("FA", end, number(0, 0), 0));
    show(C, seg("FA", number(0, 0), end.wrapping_add(1), 0));
    let (_, state) = show(S, seg("A", end.wrapping_add(1), number(0, 1), 0));
    if state == TimeoutState::Closing { Ok(()) } else { Err(format!("{state:?} at the end")) }
}

#[test]
fn the_tracker_follows_a_large_window_through_bursts_of_loss() {
    let mut rng = crate::rng::Rng::new(3);
    for run in 0..20 {
        let first = [rng.next() as u32, rng.next() as u32];
        assert_eq!(download(&mut rng, first, 4000), Ok(()), "{run}");
    }
}

/// Returns a connection of which so many bytes have passed in each direction since its numbers were saved.
fn behind(sent: u32, got: u32) -> (Ends, [u32; 2]) {
    let (mut ends, mut state) = (Ends::default(), TimeoutState::Opening);
    for (from, segment) in open() {
        let Tracked::Refresh(to) = ends.step(state, from, &segment) else { panic!("{segment:?}") };
        state = to;
    }
    let mut saved = Ends::from_saved(&ends.to_saved());
    assert_eq!(saved, ends);
    saved.fall_behind();
    (saved, [101u32.wrapping_add(sent), 501u32.wrapping_add(got)])
}

const GIB: u32 = 1 << 30;

#[test]
fn numbers_that_are_behind_are_caught_up_with_and_the_connection_closes() {
    for (sent, got) in [(0, 0), (1000, 0), (0, AHEAD / 2), (3 * GIB, 0), (0, 2 * GIB), (GIB, 3 * GIB + 7)] {
        for first in [C, S] {
            let (mut ends, [client, server]) = behind(sent, got);
            let fin = |side, more: u32| match side {
                C => seg("FA", client, server.wrapping_add(more), 0),
                S => seg("FA", server, client.wrapping_add(more), 0),
            };
            let second = first.other();
            let last = match first {
                C => seg("A", client.wrapping_add(1), server.wrapping_add(1), 0),
                S => seg("A", server.wrapping_add(1), client.wrapping_add(1), 0),
            };
            let steps = [(first, fin(first, 0)), (second, fin(second, 1)), (first, last)];
            let mut state = TimeoutState::Established;
            for (from, segment) in steps {
                if let Tracked::Refresh(to) = ends.step(state, from, &segment) {
                    state = to;
                }
            }
            assert_eq!((state, ends.is_closed()), (TimeoutState::Closing, true), "{sent} {got} {first:?}: {ends:?}");
        }
    }
}

#[test]
fn a_half_closed_connection_that_is_behind_is_one_still() {
    let (mut ends, _) = behind(0, 0);
    ends.step(TimeoutState::Established, C, &seg("FA", 101, 501, 0));
    ends.fall_behind();
    let mut at = 501 + 2 * GIB;
    for _ in 0..10 {
        ends.step(TimeoutState::Established, S, &seg("A", at, 102, 1000));
        at += 1000;
        ends.step(TimeoutState::Established, C, &seg("A", 102, at, 0));
    }
    let last = ends.step(TimeoutState::Established, S, &seg("FA", at, 102, 0));
    assert_eq!(last, Tracked::Refresh(TimeoutState::Closing), "{ends:?}");
}

#[test]
fn a_stray_ends_no_connection_that_is_behind() {
    let mut rng = crate::rng::Rng::new(5);
    for _ in 0..10_000 {
        let (mut ends, [client, server]) = behind(rng.next() as u32, rng.next() as u32);
        let number = rng.next() as u32;
        for flags in ["A", "FA", "R", "RA"] {
            let step = ends.step(TimeoutState::Established, C, &seg(flags, number, rng.next() as u32, 0));
            assert!(matches!(step, Tracked::Pass | Tracked::Refresh(TimeoutState::Established)), "{step:?}");
        }
        ends.step(TimeoutState::Established, S, &seg("A", server, client, 100));
        ends.step(TimeoutState::Established, C, &seg("A", client, server.wrapping_add(100), 0));
        ends.step(TimeoutState::Established, S, &seg("A", server.wrapping_add(100), client, 100));
        let reset = seg("R", client, 0, 0);
        assert_eq!(ends.step(TimeoutState::Established, C, &reset), Tracked::Refresh(TimeoutState::Reset), "{ends:?}");
    }
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
