//! A gateway of a later version: its stream has kinds of frames, records and fields that the other does not know, and steps of
//! orders.

use equipoise::sync::{HEADER, Kind};

/// A kind of record: a flow of a state.
const FLOW: u8 = 9;

/// Changes a stream on its way.
#[derive(Debug, Default)]
pub struct Later {
    held: Vec<u8>,
    frames: u32,
}

impl Later {
    /// Takes bytes of the stream; returns what leaves instead.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(len) = self.held.get(2..4).map(|len| usize::from(u16::from_be_bytes([len[0], len[1]])))
            && self.held.len() >= HEADER + len
        {
            let rest = self.held.split_off(HEADER + len);
            let frame = std::mem::replace(&mut self.held, rest);
            self.frames += 1;
            let kind = frame[1];
            if kind == Kind::Clear.number() {
                out.extend([frame[0], kind, 0, 5]);
                out.extend_from_slice(&frame[4..HEADER]);
                // A step of the same number that this version does not have, without conditions.
                out.push(1);
                out.extend_from_slice(&frame[HEADER + 1..HEADER + 5]);
            }
            if kind == Kind::Put.number() {
                out.extend(with_more(&frame));
            } else {
                out.extend_from_slice(&frame);
            }
            let is_greeting = kind == Kind::Hello.number() || kind == Kind::Proof.number();
            if !is_greeting && self.frames.is_multiple_of(3) {
                let body = [7; 5];
                out.extend([frame[0], 77, 0, body.len() as u8]);
                out.extend_from_slice(&frame[4..HEADER]);
                out.extend(body);
            }
        }
        out
    }
}

/// A frame of records, with one more field in each flow, and records of an unknown kind.
fn with_more(frame: &[u8]) -> Vec<u8> {
    let mut body = vec![frame[HEADER]];
    let mut rest = &frame[HEADER + 1..];
    while let [kind, high, low, ..] = *rest {
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (record, more) = rest.split_at(3 + len);
        rest = more;
        if kind == FLOW {
            body.extend([kind]);
            body.extend((len as u16 + 5).to_be_bytes());
            body.extend_from_slice(&record[3..]);
            body.extend([200, 3, 1, 2, 3]);
            body.extend([201, 0, 4, 9, 2, 1, 1]);
        } else {
            body.extend_from_slice(record);
        }
    }
    if body.len() > usize::from(u16::MAX) {
        return frame.to_vec();
    }
    let mut out = frame[..HEADER].to_vec();
    out[2..4].copy_from_slice(&(body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}
