//! The frames of a netlink datagram, parsed by hand: the crates drop the kernel's explanation of an error.
//!
//! It must not know sockets.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const HEADER: usize = 16;

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The system's error number; 0 is success.
    pub errno: i32,
    /// The kernel's explanation, if it gave one.
    pub text: Option<String>,
}

/// One message of a datagram, with its header parsed.
pub(super) struct Frame<'a> {
    kind: u16,
    flags: u16,
    /// The sequence number of the request that it answers.
    pub sequence: u32,
    bytes: &'a [u8],
}

/// Splits a datagram into its messages; stops at the first truncated one.
pub(super) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let bytes = datagram.get(..length).filter(|b| b.len() >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Frame { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)?, bytes })
    })
}

impl<'a> Frame<'a> {
    /// Returns its type.
    pub(super) fn kind(&self) -> u16 {
        self.kind
    }

    /// Returns what follows its header.
    pub(super) fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// Parses the message in it.
    pub(super) fn parse(&self) -> Option<Message> {
        match NetlinkMessage::<Message>::deserialize(self.bytes).ok()?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        }
    }

    /// Returns how the request ended, if this message says so.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        if ![NLMSG_ERROR, NLMSG_DONE].contains(&self.kind) {
            return None;
        }
        let code = u32_at(self.bytes, HEADER).unwrap_or(0).cast_signed();
        Some(Outcome { errno: code.saturating_neg(), text: self.text() })
    }

    /// Returns the kernel's explanation: the attribute `NLMSGERR_ATTR_MSG`, which follows the request's header, or
    /// the whole request if the kernel echoed it.
    fn text(&self) -> Option<String> {
        const ATTRIBUTE_MESSAGE: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let mut at = HEADER + 4;
        if self.kind == NLMSG_ERROR {
            at += match self.flags & NLM_F_CAPPED {
                0 => usize::try_from(u32_at(self.bytes, at)?).ok()?.next_multiple_of(4),
                _ => HEADER,
            };
        }
        loop {
            let length = usize::from(u16_at(self.bytes, at)?);
            let value = self.bytes.get(at + 4..at.checked_add(length)?)?;
            if u16_at(self.bytes, at + 2)? & 0x3fff == ATTRIBUTE_MESSAGE {
                return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
            }
            at += length.max(4).next_multiple_of(4);
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as the kernel sends it: code, the request's header, `echoed` bytes of the request, a text.
    fn error(code: i32, flags: u16, echoed: &[u8], text: &str) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + 4 + HEADER];
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8] = 7;
        bytes[16..20].copy_from_slice(&code.to_ne_bytes());
        bytes[20..24].copy_from_slice(&u32::try_from(HEADER + echoed.len()).unwrap().to_ne_bytes());
        bytes.extend(echoed);
        // Another attribute first: the offset of the error.
        bytes.extend([8, 0, 2, 0, 9, 0, 0, 0]);
        bytes.extend(u16::try_from(text.len() + 5).unwrap().to_ne_bytes());
        bytes.extend([1, 0]);
        bytes.extend(text.as_bytes());
        bytes.push(0);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_kernels_explanation_is_found_after_the_request_or_its_header() {
        let cases = [
            (error(-22, NLM_F_CAPPED | NLM_F_ACK_TLVS, &[], "no such thing"), 22, Some("no such thing")),
            (error(-22, NLM_F_ACK_TLVS, &[1; 12], "no such thing"), 22, Some("no such thing")),
            (error(-17, NLM_F_CAPPED, &[], "unread"), 17, None),
            (error(0, NLM_F_CAPPED, &[], ""), 0, None),
        ];
        for (bytes, errno, text) in cases {
            let frame = frames(&bytes).next().unwrap();
            assert_eq!(frame.sequence, 7);
            assert_eq!(frame.outcome(), Some(Outcome { errno, text: text.map(str::to_owned) }));
        }
    }

    #[test]
    fn cut_off_datagrams_are_read_as_far_as_they_go() {
        let whole = error(-22, NLM_F_ACK_TLVS, &[1; 12], "text");
        for length in 0..whole.len() {
            let mut bytes = whole[..length].to_vec();
            assert!(frames(&bytes).next().is_none());
            if length >= HEADER {
                bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
                frames(&bytes).for_each(|f| drop((f.outcome(), f.parse())));
            }
        }
    }
}
