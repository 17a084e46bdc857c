//! What is known of both ends in fewer bytes, for a handshake under way, and as bytes of a saved state.

use super::{ASKED, Ends, SERVER_RESET, has_acked, syn};

/// Bytes of [`Ends`] in a saved state. Whoever gives a bit of `seen` another meaning gives the state another version.
pub(in crate::flow) const SAVED: usize = 20;

/// [`Ends`] of a handshake under way, packed into 15 bytes. An acknowledgement by the client of something other than the
/// server's SYN is lost, which proves nothing before the flow is open; and so is that the client's numbers are not from
/// its SYN, because that was too big to be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, packed)]
pub(in crate::flow) struct HalfEnds {
    next: [u32; 2],
    acked: u32,
    early: u16,
    seen: u8,
}

/// The bits of `seen` above those that [`HalfEnds`] keeps in place, and where it keeps them.
const MOVED: [(u16, u8); 2] = [(ASKED, 64), (SERVER_RESET, 128)];
/// The bits that it keeps in place.
const KEPT: u16 = 63;

impl HalfEnds {
    /// Packs the numbers of a flow that is opening, or was reset before it was open.
    pub(in crate::flow) fn pack(ends: &Ends) -> HalfEnds {
        let mut seen = ends.seen & KEPT;
        if ends.acked[0] != ends.next[1] || seen & syn(1) == 0 {
            seen &= !has_acked(0);
        }
        let moved = MOVED.iter().filter(|(bit, _)| ends.seen & bit != 0).fold(0, |all, (_, to)| all | to);
        HalfEnds { next: ends.next, acked: ends.acked[1], early: ends.early, seen: seen as u8 | moved }
    }

    /// Returns the numbers.
    pub(in crate::flow) fn unpack(&self) -> Ends {
        let HalfEnds { next, acked, early, seen } = *self;
        let moved = MOVED.iter().filter(|(_, from)| seen & from != 0).fold(0, |all, (bit, _)| all | bit);
        let seen = u16::from(seen) & KEPT | moved;
        Ends { next, acked: [if seen & has_acked(0) != 0 { next[1] } else { 0 }, acked], seen, early }
    }
}

impl Ends {
    /// Returns the numbers as bytes, of which [`Ends::from_saved`] makes them again.
    pub(in crate::flow) fn to_saved(self) -> [u8; SAVED] {
        let mut bytes = [0; SAVED];
        let words = self.next.into_iter().chain(self.acked);
        bytes.chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_be_bytes()));
        bytes[16..18].copy_from_slice(&self.seen.to_be_bytes());
        bytes[18..].copy_from_slice(&self.early.to_be_bytes());
        bytes
    }

    /// Makes the numbers from what [`Ends::to_saved`] returned; any bytes are some numbers.
    pub(in crate::flow) fn from_saved(bytes: &[u8; SAVED]) -> Ends {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Ends { next: [word(0), word(4)], acked: [word(8), word(12)], seen: half(16), early: half(18) }
    }
}
