//! How records are written: a kind, a length and fields, each with a tag and a length, so that a reader skips what it does
//! not know.
//!
//! ```text
//! record   kind u8 | length u16 | fields
//! field    tag u8  | length u8; 255: length u16 follows | value
//! number   big-endian, without leading zero bytes; a missing field is 0
//! ```
//!
//! It must not know what records mean.

use std::net::IpAddr;

/// Bytes before the fields of a record.
pub(super) const HEADER: usize = 3;
/// The length of a field that is followed by the real one.
const LONG: u8 = u8::MAX;

/// Appends one record.
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    begin: usize,
}

impl<'o> Writer<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, kind: u8) -> Self {
        let begin = out.len();
        out.extend([kind, 0, 0]);
        Writer { out, begin }
    }

    /// Adds a field.
    pub(super) fn bytes(&mut self, tag: u8, value: &[u8]) {
        self.out.push(tag);
        match u8::try_from(value.len()) {
            Ok(len) if len != LONG => self.out.push(len),
            _ => {
                self.out.push(LONG);
                self.out.extend((value.len() as u16).to_be_bytes());
            }
        }
        self.out.extend_from_slice(value);
    }

    /// Adds a number; 0 is not written.
    pub(super) fn number(&mut self, tag: u8, value: u64) {
        let bytes = value.to_be_bytes();
        let skip = value.leading_zeros() as usize / 8;
        if value != 0 {
            self.bytes(tag, &bytes[skip..]);
        }
    }

    /// Adds a number with a sign; 0 is not written.
    pub(super) fn signed(&mut self, tag: u8, value: i64) {
        self.number(tag, folded(value));
    }

    /// Adds a number that is written even if it is 0.
    pub(super) fn present(&mut self, tag: u8, value: u64) {
        if value == 0 { self.bytes(tag, &[]) } else { self.number(tag, value) }
    }

    /// Adds a number with a sign that is written even if it is 0.
    pub(super) fn present_signed(&mut self, tag: u8, value: i64) {
        self.present(tag, folded(value));
    }

    pub(super) fn address(&mut self, tag: u8, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.bytes(tag, &v4.octets()),
            IpAddr::V6(v6) => self.bytes(tag, &v6.octets()),
        }
    }

    /// Ends the record.
    pub(super) fn end(self) {
        let len = self.out.len() - self.begin - HEADER;
        debug_assert!(len <= usize::from(u16::MAX), "a record of {len} bytes");
        self.out[self.begin + 1..self.begin + HEADER].copy_from_slice(&(len as u16).to_be_bytes());
    }
}

/// Moves the sign into the lowest bit, so that small numbers are short.
fn folded(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// Takes the next record off some bytes: its kind and its fields; none if it is not complete.
pub(super) fn next_record<'b>(bytes: &mut &'b [u8]) -> Option<(u8, Fields<'b>)> {
    let [kind, high, low, rest @ ..] = *bytes else { return None };
    let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    *bytes = rest;
    Some((*kind, Fields(body)))
}

/// The fields of a record, in order. One whose length is wrong ends them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'b>(&'b [u8]);

impl<'b> Iterator for Fields<'b> {
    type Item = (u8, Value<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let [tag, len, rest @ ..] = self.0 else { return None };
        let (len, rest) = match (*len, rest) {
            (LONG, [high, low, rest @ ..]) => (u16::from_be_bytes([*high, *low]), rest),
            (LONG, _) => return None,
            (len, rest) => (u16::from(len), rest),
        };
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some((*tag, Value(value)))
    }
}

/// The value of a field. What it cannot be is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'b>(pub &'b [u8]);

impl<'b> Value<'b> {
    pub(super) fn number(self) -> Option<u64> {
        let mut bytes = [0; 8];
        let at = bytes.len().checked_sub(self.0.len())?;
        bytes[at..].copy_from_slice(self.0);
        Some(u64::from_be_bytes(bytes))
    }

    pub(super) fn signed(self) -> Option<i64> {
        self.number().map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Returns the number, if it is one of this type.
    pub(super) fn as_number<T: TryFrom<u64>>(self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    pub(super) fn text(self) -> Option<&'b str> {
        std::str::from_utf8(self.0).ok()
    }

    pub(super) fn address(self) -> Option<IpAddr> {
        let v4 = || <[u8; 4]>::try_from(self.0).ok().map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(self.0).ok().map(IpAddr::from);
        v4().or_else(v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let mut out = Vec::new();
        let numbers = [0, 1, 255, 256, 65_535, 1 << 40, u64::MAX];
        let signed = [0, 1, -1, 63, -64, i64::MAX, i64::MIN];
        let text = "ä".repeat(300);
        let mut record = Writer::new(&mut out, 7);
        numbers.iter().for_each(|n| record.present(1, *n));
        signed.iter().for_each(|n| record.signed(2, *n));
        record.bytes(3, text.as_bytes());
        record.bytes(4, &[5; 255]);
        record.address(5, [10, 0, 0, 1].into());
        record.address(5, [1u16; 8].into());
        record.end();
        Writer::new(&mut out, 8).end();
        let mut bytes = &out[..];
        let (kind, fields) = next_record(&mut bytes).unwrap();
        let of = |tag| fields.filter(move |(own, _)| *own == tag).map(|(_, value)| value);
        assert_eq!(kind, 7);
        assert_eq!(of(1).map(|value| value.number().unwrap()).collect::<Vec<_>>(), numbers);
        // A zero is not written.
        assert_eq!(of(2).map(|value| value.signed().unwrap()).collect::<Vec<_>>(), signed[1..]);
        assert_eq!(of(3).next().unwrap().text(), Some(&*text));
        assert_eq!(of(4).next().unwrap().0, [5; 255]);
        assert_eq!(of(5).filter_map(Value::address).count(), 2);
        assert!(next_record(&mut bytes).is_some_and(|(kind, mut fields)| kind == 8 && fields.next().is_none()));
        assert!(next_record(&mut bytes).is_none() && bytes.is_empty());
    }

    #[test]
    fn what_is_cut_off_is_no_record_and_no_field() {
        let mut out = Vec::new();
        let mut record = Writer::new(&mut out, 7);
        record.number(1, 300);
        record.bytes(2, &[1; 300]);
        record.end();
        for len in 0..out.len() {
            assert!(next_record(&mut &out[..len]).is_none());
            let fields = Fields(out.get(HEADER..len).unwrap_or_default());
            assert!(fields.count() < 2);
        }
        assert_eq!((Value(&[1; 9]).number(), Value(&[255, 0]).text(), Value(&[1; 5]).address()), (None, None, None));
        assert_eq!(Value(&[1, 0]).as_number::<u8>(), None);
    }
}
