//! Losses before the gateway, and whole downloads with bursts of them.

use super::*;

#[test]
fn data_lost_before_the_gateway_does_not_block_the_tracker() {
    let jump = (C, seg("A", 101 + 100_000, 501, 1000));
    assert_eq!(after_open(&[jump, (C, seg("R", 101 + 101_000, 0, 0))]), ["established", "reset"]);
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
