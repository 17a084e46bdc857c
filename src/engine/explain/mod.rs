//! Why a packet meets its verdict, as plain values: a look without carrying out, and the facts behind it.
//!
//! It must not decide anything: what becomes of the packet is what [`super::look`] says, and everything else here is
//! read from the same rooms that the look reads.

mod rows;

pub use rows::*;

use super::Engine;
use crate::packet::Meta;
use crate::time::Instant;

impl Engine {
    /// Explains what would become of a packet at `now`, and changes nothing.
    pub fn explain(&self, now: Instant, packet: &[u8], meta: Meta) -> Explanation {
        let _ = (now, packet, meta);
        Explanation::default()
    }
}
