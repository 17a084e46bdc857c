//! TCP probes without a connection: a SYN, and a reset in reply to its SYN/ACK (RFC 9293).

use super::frame;
use super::why::Failure;
use crate::packet::{Addresses, TcpFlags, proto};

/// The window in the SYN: never used for data, it identifies the probe in a capture.
pub(super) const WINDOW: u16 = 1024;

/// Appends a SYN with a maximum segment size option, like every stack.
pub(super) fn syn(out: &mut Vec<u8>, addresses: &Addresses, ours: u16, theirs: u16, isn: u32) {
    let mss: u16 = if matches!(addresses, Addresses::V4 { .. }) { 1460 } else { 1440 };
    let mut body = [0; 24];
    header(&mut body, ours, theirs, isn, TcpFlags::SYN, WINDOW);
    body[20..22].copy_from_slice(&[2, 4]);
    body[22..24].copy_from_slice(&mss.to_be_bytes());
    frame::write(out, addresses, proto::TCP, 16, &body);
}

/// Appends the reset for a SYN/ACK whose acknowledgement number is `seq`.
pub(super) fn reset(out: &mut Vec<u8>, addresses: &Addresses, ours: u16, theirs: u16, seq: u32) {
    let mut body = [0; 20];
    header(&mut body, ours, theirs, seq, TcpFlags::RST, 0);
    frame::write(out, addresses, proto::TCP, 16, &body);
}

fn header(body: &mut [u8], ours: u16, theirs: u16, seq: u32, flags: u8, window: u16) {
    let offset = (body.len() / 4) as u8;
    body[0..2].copy_from_slice(&ours.to_be_bytes());
    body[2..4].copy_from_slice(&theirs.to_be_bytes());
    body[4..8].copy_from_slice(&seq.to_be_bytes());
    body[12..14].copy_from_slice(&[offset << 4, flags]);
    body[14..16].copy_from_slice(&window.to_be_bytes());
}

/// Judges the reply to a SYN with the initial sequence number `isn`; returns none if the segment is no reply to it.
pub(super) fn judge(flags: TcpFlags, ack: u32, isn: u32) -> Option<Result<(), Failure>> {
    if !flags.ack() || ack != isn.wrapping_add(1) {
        return None;
    }
    match (flags.syn(), flags.rst()) {
        (true, false) => Some(Ok(())),
        (false, true) => Some(Err(Failure::Refused)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_segment_that_acknowledges_the_syn_answers_it() {
        let f = |bits| TcpFlags(bits);
        let (syn, ack, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST);
        let cases = [
            (f(syn | ack), 8, Some(Ok(()))),
            (f(rst | ack), 8, Some(Err(Failure::Refused))),
            (f(syn | ack), 7, None),
            (f(rst | ack), 9, None),
            (f(rst), 8, None),
            (f(syn), 8, None),
            (f(ack), 8, None),
        ];
        for (flags, number, want) in cases {
            assert_eq!(judge(flags, number, 7), want, "{flags:?} {number}");
        }
        assert_eq!(judge(f(syn | ack), 0, u32::MAX), Some(Ok(())));
    }
}
