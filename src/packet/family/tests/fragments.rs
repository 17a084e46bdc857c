//! Fragments of a packet that is translated to the other family.

use super::*;

/// Splits a whole packet without options or extensions into fragments of at most `size` bytes of data, in the
/// packet's own family.
fn cut(packet: &[u8], size: usize, id: u32) -> Vec<Vec<u8>> {
    let parsed = parse(packet).unwrap();
    let data = &packet[parsed.offset..];
    let piece = |at: usize| {
        let part = &data[at..data.len().min(at + size)];
        let more = at + part.len() < data.len();
        let piece = header::Piece { id, offset: at as u16, more };
        let (class, hops) = if packet[0] >> 4 == 4 { (packet[1], packet[8]) } else { (0, packet[7]) };
        let protocol = parsed.protocol;
        let make = Make {
            addresses: &parsed.addresses,
            class,
            hops,
            protocol,
            data: part.len(),
            piece: Some(piece),
            id: None,
        };
        [header::make(&make).unwrap().bytes(), part].concat()
    };
    (0..data.len()).step_by(size).map(piece).collect()
}

/// Reassembles fragments: what follows the first one's header, without its Fragment header.
fn join(pieces: &[Vec<u8>]) -> (Vec<u8>, Vec<u32>) {
    let mut data = Vec::new();
    let mut ids = Vec::new();
    for piece in pieces {
        let head = header::read(piece).unwrap();
        let which = head.piece.unwrap();
        assert_eq!(usize::from(which.offset), data.len());
        assert_eq!(head.len, piece.len());
        data.extend(&piece[head.offset..]);
        ids.push(which.id);
        assert_eq!(which.more, !std::ptr::eq(piece, pieces.last().unwrap()));
    }
    let head = header::read(&pieces[0]).unwrap();
    let make = Make {
        addresses: &head.addresses,
        class: head.class,
        hops: head.hops,
        protocol: head.protocol,
        data: data.len(),
        piece: None,
        id: Some(0),
    };
    ([header::make(&make).unwrap().bytes(), &data].concat(), ids)
}

fn cross_piece(packet: &[u8], to: &Across) -> Result<Vec<u8>, Untranslatable> {
    let mut out = b"kept".to_vec();
    let result = translate_fragment(&mut out, packet, &parse(packet).unwrap(), to);
    assert!(result.is_ok() || out.len() == 4);
    result.map(|_| out.split_off(4))
}

#[test]
fn fragments_together_are_the_whole_packet_in_the_other_family() {
    for kind in [Kind::Tcp, Kind::Udp] {
        for (near, far, id, id_there) in [(FOUR, SIX, 0xbeef, 0xbeef), (SIX, FOUR, 0xdead_beef, 0xbeef)] {
            for size in [24, 200, 1000] {
                let payload: Vec<u8> = (0..3001u32).map(|i| (i * 7) as u8).collect();
                let whole = build(kind, &near, &payload);
                let to = Across { addresses: far, src_port: 1, dst_port: 2 };
                let pieces: Vec<Vec<u8>> = cut(&whole, size, id)
                    .iter()
                    .map(|piece| {
                        let made = cross_piece(piece, &to).unwrap();
                        assert_eq!(made.len(), translated_len(piece, &parse(piece).unwrap()));
                        made
                    })
                    .collect();
                let (joined, ids) = join(&pieces);
                assert!(sum_is_right(&joined));
                assert!(ids.iter().all(|id| *id == id_there));
                let want = cross(&whole, &to).unwrap();
                assert_eq!(joined[parse(&joined).unwrap().offset..], want[parse(&want).unwrap().offset..]);
                // IPv4 fragments can be fragmented again.
                assert!(matches!(far, Addresses::V6 { .. }) || pieces.iter().all(|piece| piece[6] & 0x40 == 0));
            }
        }
    }
}

#[test]
fn fragments_that_cannot_be_handled_are_refused_by_name() {
    let to = |addresses| Across { addresses, src_port: 1, dst_port: 2 };
    for (near, far) in [(FOUR, SIX), (SIX, FOUR)] {
        for piece in cut(&build(Kind::Request, &near, &[0; 400]), 200, 1) {
            assert_eq!(cross_piece(&piece, &to(far)), Err(Untranslatable::Fragment), "ICMP");
        }
        let pieces = cut(&build(Kind::Tcp, &near, &[0; 400]), 16, 1);
        assert_eq!(cross_piece(&pieces[0], &to(far)), Err(Untranslatable::Fragment), "half a TCP header");
        let whole = build(Kind::Tcp, &near, &[0; 400]);
        assert_eq!(cross_piece(&whole, &to(far)), Err(Untranslatable::Malformed), "whole");
        let sound = cut(&build(Kind::Udp, &near, &[0; 400]), 200, 1);
        assert!(cross_piece(&sound[1], &to(far)).is_ok());
        assert_eq!(cross_piece(&sound[1], &to(near)), Err(Untranslatable::Malformed), "its own family");
        assert!(parse(&pieces[1]).is_err(), "it could overwrite the TCP header");
        let mut no_sum = build(Kind::Udp, &near, &[0; 400]);
        let at = parse(&no_sum).unwrap().offset + 6;
        no_sum[at..at + 2].fill(0);
        let pieces = cut(&no_sum, 200, 1);
        assert_eq!(cross_piece(&pieces[0], &to(far)), Err(Untranslatable::UdpNoSum));
        let ragged = cut(&build(Kind::Udp, &near, &[0; 400]), 204, 1);
        assert!(parse(&ragged[0]).is_err(), "not of whole units");
    }
    let mut far_off = cut(&build(Kind::Udp, &SIX, &[0; 400]), 200, 1).remove(1);
    far_off[42..44].copy_from_slice(&0xfff9u16.to_be_bytes());
    assert!(parse(&far_off).is_err(), "beyond the length field");
}
