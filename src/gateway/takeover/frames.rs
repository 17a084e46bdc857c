//! The frames of a takeover: a length, a kind, and what it carries.

use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

/// The version of the protocol: both sides must have the same.
pub(super) const VERSION: u32 = 1;

/// The longest frame: no frame of either side is longer.
const LONGEST: usize = 16 << 20;
/// The most bytes of state in a frame.
pub(super) const PORTION: usize = 256 << 10;

/// What a frame says. The first letter is who sends it: the gateway that takes over (`T`) or the one that hands over (`H`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// T: who it is, [`super::Hello`].
    Hello = 1,
    /// H: what it hands over, [`super::Offer`], with the descriptors.
    Offer = 2,
    /// T: it knows the replies of new flows from now on, so the copy may begin.
    Begin = 3,
    /// H: a part of the copy.
    State = 4,
    /// H: everything has been sent once, or what had changed since.
    Pass = 5,
    /// T: it could serve at once.
    Ready = 6,
    /// H: it handles no packet any more, and this was all.
    Last = 7,
    /// T: it has read all of it.
    Commit = 8,
    /// H: the packets are yours.
    Yours = 9,
    /// T: it serves.
    Serving = 10,
    /// Either: it does not go on, for this reason.
    Refused = 11,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Hello,
        Kind::Offer,
        Kind::Begin,
        Kind::State,
        Kind::Pass,
        Kind::Ready,
        Kind::Last,
        Kind::Commit,
        Kind::Yours,
        Kind::Serving,
        Kind::Refused,
    ];
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    pub body: Vec<u8>,
}

impl Frame {
    /// Returns what the frame says as a value.
    pub(super) fn value<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Returns what the frame says as text.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        // It goes to the log.
        text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// The name of a kind, for messages.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Appends a frame to bytes.
pub(super) fn append(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    out.extend((body.len() as u32).to_be_bytes());
    out.push(kind as u8);
    out.extend(body);
}

/// Writes a frame.
pub(super) fn write(to: &mut impl Write, kind: Kind, body: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(5 + body.len());
    append(&mut out, kind, body);
    to.write_all(&out)
}

/// Reads a frame; none at the end.
pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 5];
    let mut have = 0;
    while have < head.len() {
        match from.read(&mut head[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (kind, len) = parse_head(head)?;
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok(Some(Frame { kind, body }))
}

/// Takes a frame off the begin of bytes; none if it is not complete.
pub(super) fn take(bytes: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    let Some(head) = bytes.first_chunk() else { return Ok(None) };
    let (kind, len) = parse_head(*head)?;
    if bytes.len() < 5 + len {
        return Ok(None);
    }
    let body = bytes[5..5 + len].to_vec();
    bytes.drain(..5 + len);
    Ok(Some(Frame { kind, body }))
}

fn parse_head([a, b, c, d, kind]: [u8; 5]) -> io::Result<(Kind, usize)> {
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    let known = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
    match known.filter(|_| len <= LONGEST) {
        Some(kind) => Ok((kind, len)),
        None => Err(io::Error::new(ErrorKind::InvalidData, "this is not a takeover frame")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written_in_whatever_pieces() {
        let mut all = Vec::new();
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            append(&mut all, kind, &vec![place as u8; place * 1000]);
        }
        let mut from = &all[..];
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(read(&mut from).unwrap(), Some(Frame { kind, body: vec![place as u8; place * 1000] }));
        }
        assert_eq!(read(&mut from).unwrap(), None);
        let (mut held, mut found) = (Vec::new(), 0);
        for piece in all.chunks(77) {
            held.extend(piece);
            while let Some(frame) = take(&mut held).unwrap() {
                assert_eq!(frame.kind, Kind::ALL[found]);
                found += 1;
            }
        }
        assert_eq!((found, held.len()), (Kind::ALL.len(), 0));
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_takes_no_memory() {
        for bytes in [[0, 0, 0, 1, 0], [0, 0, 0, 1, 12], [1, 0, 0, 1, 4], [255; 5]] {
            assert_eq!(read(&mut &bytes[..]).unwrap_err().kind(), ErrorKind::InvalidData);
            assert_eq!(take(&mut bytes.to_vec()).unwrap_err().kind(), ErrorKind::InvalidData);
        }
        assert_eq!(read(&mut &[0, 0, 0][..]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(read(&mut &[0, 0, 0, 9, 4, 1][..]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
