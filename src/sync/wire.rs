//! Frames, and the fields of a greeting.
//!
//! ```text
//! frame    version u8 | kind u8 | length of the body u16 | term u64 | seq u64 | body
//! field    tag u8 | length u8 | value            (of a greeting)
//! ```
//!
//! Numbers are big-endian. A frame of an unknown kind is skipped, and so is an unknown field. It must not know what bodies
//! mean.

/// The version of frames: another one is refused.
pub(super) const VERSION: u8 = 1;
/// Bytes before the body of a frame.
pub const HEADER: usize = 20;
/// Most bytes of a body.
pub const MOST_BODY: usize = u16::MAX as usize;
/// Most bytes of the body of a greeting or proof: nothing else is read before both have proved that they have the key.
pub(super) const MOST_GREETING: usize = 512;

crate::words::words! {
    /// The kinds of frames.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Kind {
        /// Who one is, and what one has.
        Hello = "hello",
        /// Proof of the shared key.
        Proof = "proof",
        /// What numbers in records stand for.
        Names = "names",
        /// Records: flags u8, then records of a state.
        Put = "put",
        /// Flows that have ended: slots, each u32.
        Del = "del",
        /// Flows that carried packets: word u32 and bits u64, 64 slots each.
        Touch = "touch",
        /// All flows of some ranges follow: flags u8, ranges (32 bytes), about how many flows u32.
        Bulk = "bulk",
        /// They have been sent.
        BulkEnd = "bulk-end",
        /// A digest u64 per range.
        Digest = "digest",
        /// Some ranges are to be sent again: flags u8, ranges (32 bytes).
        Want = "want",
        /// What has been read: seq u64, role u8.
        Ack = "ack",
        /// The other gateway shall take over.
        Yield = "yield",
        /// Flows that cannot be here: slot u32 and hash u64 each.
        Refused = "refused",
        /// Slots of flows that were taken: the sender's u32, the receiver's u32, hash of the keys u64 each.
        Map = "map",
        /// Sequence numbers of idle connections: slot u32, hash of the keys u64 and 20 bytes each.
        Numbers = "numbers",
        /// Verdicts of the monitors: flags u8 (1: all of them from here on; 2: these were the last of all), records of a state.
        Health = "health",
        /// Sticky clients that an operator clears: step u8 (2: forget those that match and were given their server before that; 3:
        /// done), number u32, and in step 2 conditions, each a tag u8, length u16 and value.
        Clear = "clear",
    }
}

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u8,
    /// Its number; see [`Kind::of`].
    pub kind: u8,
    pub len: u16,
    pub term: u64,
    pub seq: u64,
}

impl Kind {
    /// Returns its number in a frame.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn of(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

impl Header {
    pub(super) fn write(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        (out[0], out[1]) = (self.version, self.kind);
        out[2..4].copy_from_slice(&self.len.to_be_bytes());
        out[4..12].copy_from_slice(&self.term.to_be_bytes());
        out[12..].copy_from_slice(&self.seq.to_be_bytes());
        out
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let mut words = Reader(&header[2..]);
        let (len, term, seq) = (words.u16()?, words.u64()?, words.u64()?);
        Some(Header { version: header[0], kind: header[1], len, term, seq })
    }
}

/// Takes numbers off bytes; none where there are too few.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// A set of ranges of key hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ranges([u64; 4]);

impl Ranges {
    pub(super) const COUNT: usize = 256;
    pub(super) const ALL: Ranges = Ranges([u64::MAX; 4]);
    pub(super) const NONE: Ranges = Ranges([0; 4]);
    pub(super) fn add(&mut self, range: u8) {
        self.0[usize::from(range >> 6)] |= 1 << (range & 63);
    }

    pub(super) fn has(&self, range: u8) -> bool {
        self.0[usize::from(range >> 6)] & 1 << (range & 63) != 0
    }

    pub(super) fn add_all(&mut self, others: &Ranges) {
        self.0.iter_mut().zip(others.0).for_each(|(own, other)| *own |= other);
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Ranges::NONE
    }

    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|word| out.extend(word.to_be_bytes()));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Ranges> {
        let mut words = [0; 4];
        for word in &mut words {
            *word = reader.u64()?;
        }
        Some(Ranges(words))
    }
}

/// A greeting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hello {
    /// The sender's name.
    pub node: String,
    /// Drawn at its start.
    pub instance: u64,
    /// Drawn for this connection.
    pub nonce: [u8; 32],
    /// A hash of what its configuration says about flows.
    pub fingerprint: u64,
    /// The highest term that it has seen.
    pub seen_term: u64,
    /// The instance of its peer with which it was last in step, or 0.
    pub in_step_with: u64,
    /// Its role; see [`super::Role`].
    pub role: u8,
}

impl Hello {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MOST_GREETING);
        let mut field = |tag: u8, value: &[u8]| {
            out.extend([tag, value.len() as u8]);
            out.extend_from_slice(value);
        };
        field(1, &self.node.as_bytes()[..self.node.len().min(MOST_NAME)]);
        field(2, &self.instance.to_be_bytes());
        field(3, &self.nonce);
        field(4, &self.fingerprint.to_be_bytes());
        field(5, &self.seen_term.to_be_bytes());
        field(6, &self.in_step_with.to_be_bytes());
        field(7, &[self.role]);
        out
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Hello> {
        let (mut hello, mut nonce) = (Hello::default(), None);
        let mut rest = Reader(bytes);
        while let Some(tag) = rest.u8() {
            let len = rest.u8()?;
            let value = rest.take(usize::from(len))?;
            let number = || <[u8; 8]>::try_from(value).ok().map(u64::from_be_bytes);
            match tag {
                1 => hello.node = std::str::from_utf8(value).ok()?.into(),
                2 => hello.instance = number()?,
                3 => nonce = Some(value.try_into().ok()?),
                4 => hello.fingerprint = number()?,
                5 => hello.seen_term = number()?,
                6 => hello.in_step_with = number()?,
                7 => hello.role = *value.first()?,
                _ => {}
            }
        }
        Some(Hello { nonce: nonce?, ..hello })
    }
}

/// Most bytes of a name.
pub(super) const MOST_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let header = Header { version: 1, kind: 250, len: 65_535, term: u64::MAX - 1, seq: 1 << 40 };
        let bytes = header.write();
        assert_eq!(Header::read(&bytes), Some(header));
        assert!((0..HEADER).all(|len| Header::read(&bytes[..len]).is_none()));
        let numbers: Vec<u8> = Kind::ALL.iter().map(|kind| kind.number()).collect();
        assert_eq!(numbers, (1..=17).collect::<Vec<_>>());
        assert!(Kind::ALL.iter().all(|kind| Kind::of(kind.number()) == Some(*kind)));
        assert_eq!((Kind::of(0), Kind::of(18)), (None, None));
    }

    #[test]
    fn unknown_fields_of_a_greeting_are_skipped_and_a_cut_one_is_none() {
        let hello = Hello {
            node: "a".into(),
            instance: 3,
            nonce: [7; 32],
            fingerprint: 4,
            seen_term: 5,
            in_step_with: 6,
            role: 2,
        };
        let mut bytes = hello.write();
        assert!(bytes.len() <= MOST_GREETING);
        assert_eq!(Hello::read(&bytes), Some(hello.clone()));
        bytes.extend([99, 3, 1, 2, 3]);
        assert_eq!(Hello::read(&bytes), Some(hello));
        bytes.pop();
        assert_eq!(Hello::read(&bytes), None);
        assert_eq!(Hello::read(&[1, 1, b'a']), None, "no nonce");
    }

    #[test]
    fn ranges_are_a_set() {
        let mut ranges = Ranges::NONE;
        [0, 63, 64, 255].iter().for_each(|range| ranges.add(*range));
        let mut out = Vec::new();
        ranges.write(&mut out);
        assert_eq!((out.len(), Ranges::read(&mut Reader(&out))), (32, Some(ranges)));
        assert_eq!((0..=255).filter(|range| ranges.has(*range)).collect::<Vec<u8>>(), [0, 63, 64, 255]);
        assert_eq!((ranges.len(), Ranges::ALL.len()), (4, 256));
    }
}
