//! Numbers of an earlier time.

use super::*;

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
