//! The maximum segment size in a SYN, lowered to what the path MTUs allow (RFC 9293, 3.7.1; RFC 4459, 3.2).

use super::super::checksum::{self, Delta};
use super::super::{Parsed, Transport, word};
use super::put;

/// Lowers the maximum segment size option of a SYN to at most `most` bytes, if there is one; `partial` is
/// [`super::super::Meta::partial_checksum`]. Without the option the endpoints assume 536 bytes, which need not be
/// lowered.
pub fn clamp_mss(packet: &mut [u8], parsed: &Parsed, most: u16, partial: bool) {
    let Transport::Tcp { flags, header, .. } = parsed.transport else { return };
    if !flags.syn() {
        return;
    }
    let Some(at) = mss_at(&packet[parsed.offset..parsed.offset + usize::from(header)]) else { return };
    let at = parsed.offset + at;
    if word(packet, at) <= most {
        return;
    }
    // The value may straddle two words of the checksum.
    let words = at & !1..(at + 3) & !1;
    let before = checksum::add(0, &packet[words.clone()]);
    put(packet, at, most);
    let delta = Delta::between(before, checksum::add(0, &packet[words]));
    if !partial {
        let sum = parsed.offset + 16;
        put(packet, sum, delta.patch(word(packet, sum)));
    }
}

/// Returns the maximum segment size that a SYN states, if it does.
pub fn mss(packet: &[u8], parsed: &Parsed) -> Option<u16> {
    let Transport::Tcp { flags, header, .. } = parsed.transport else { return None };
    let header = packet.get(parsed.offset..parsed.offset + usize::from(header)).filter(|_| flags.syn())?;
    mss_at(header).map(|at| word(header, at))
}

/// Where the value of the option stands in a TCP header.
fn mss_at(header: &[u8]) -> Option<usize> {
    let mut at = 20;
    loop {
        match (*header.get(at)?, header.get(at + 1)) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, Some(4)) => return header.get(at + 2..at + 4).map(|_| at + 2),
            (_, Some(len)) if *len >= 2 => at += usize::from(*len),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{parse, proto};
    use super::*;
    use etherparse::{PacketBuilder, TcpHeader};

    fn syn(options: &[u8], syn: bool) -> Vec<u8> {
        let mut header = TcpHeader::new(1, 2, 3, 4);
        header.syn = syn;
        header.ack = !syn;
        header.set_options_raw(options).unwrap();
        let mut out = Vec::new();
        PacketBuilder::ipv4([1; 4], [2; 4], 9).tcp_header(header).write(&mut out, b"odd").unwrap();
        out
    }

    #[test]
    fn a_larger_segment_size_is_lowered_and_the_checksum_stays_valid() {
        for (options, want) in [
            (&[2, 4, 0x05, 0xb4][..], Some(1360)),
            (&[1, 2, 4, 0x05, 0xb4], Some(1360)),
            (&[3, 3, 7, 1, 2, 4, 0xff, 0xff], Some(1360)),
            (&[2, 4, 0x05, 0x00], None),
            (&[3, 3, 7, 0, 2, 4, 0x05, 0xb4], None),
            (&[9, 0, 2, 4, 0x05, 0xb4], None),
            (&[9, 200, 2, 4, 0x05, 0xb4], None),
            (&[2, 3, 5, 0xb4], None),
            (&[], None),
        ] {
            let original = syn(options, true);
            let mut packet = original.clone();
            let parsed = parse(&packet).unwrap();
            clamp_mss(&mut packet, &parsed, 1360, false);
            assert_eq!(packet != original, want.is_some(), "{options:?}");
            let sum = checksum::pseudo(&parsed.addresses, proto::TCP, parsed.len - 20);
            assert_eq!(checksum::fold(checksum::add(sum, &packet[20..])), 0xffff, "{options:?}");
            let at = mss_at(&packet[20..]).map(|at| word(&packet, 20 + at));
            assert_eq!(want.or(at), at, "{options:?}");
            let mut other = syn(options, false);
            let before = other.clone();
            let parsed = parse(&other).unwrap();
            clamp_mss(&mut other, &parsed, 1360, false);
            assert_eq!(other, before, "no SYN");
        }
    }

    #[test]
    fn a_partial_checksum_does_not_cover_options() {
        let mut packet = syn(&[2, 4, 0x05, 0xb4], true);
        let parsed = parse(&packet).unwrap();
        let before = word(&packet, 36);
        clamp_mss(&mut packet, &parsed, 1000, true);
        assert_eq!((word(&packet, 36), word(&packet, 42)), (before, 1000));
    }
}
