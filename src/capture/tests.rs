//! Captures written by hand, byte by byte, and read back.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

fn read(bytes: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    let mut reader = Reader::new(bytes)?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

fn pcap(big: bool, nanos: bool, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let mut out = word(if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
    out.extend([half(2), half(4)].concat());
    out.extend([word(0), word(0), word(65_535), word(101)].concat());
    for (seconds, fraction, data) in packets {
        let len = data.len() as u32;
        out.extend([word(*seconds), word(*fraction), word(len), word(len + 1)].concat());
        out.extend(*data);
    }
    out
}

/// A pcapng file with one interface with these options and one packet at `units`.
fn pcapng(big: bool, options: &[(u16, &[u8])], units: u64) -> Vec<u8> {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let block = |kind: u32, body: &[u8]| {
        let len = word(body.len() as u32 + 12);
        [&word(kind)[..], &len, body, &len].concat()
    };
    let section = [&word(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat();
    let mut interface = [&half(1)[..], &half(0), &word(0)].concat();
    for (code, value) in options {
        interface.extend([half(*code), half(value.len() as u16)].concat());
        interface.extend(*value);
        interface.resize(interface.len().next_multiple_of(4), 0);
    }
    interface.extend([0; 4]);
    let packet = [word(0), word((units >> 32) as u32), word(units as u32), word(3), word(3)].concat();
    let packet = [&packet[..], &[1, 2, 3, 0]].concat();
    let unknown = block(0x0bad_0bad, &[0; 8]);
    [block(0x0a0d_0d0a, &section), block(1, &interface), unknown, block(6, &packet)].concat()
}

#[test]
fn classic_captures_are_read_in_every_order_and_resolution() {
    for (big, nanos, want) in [
        (false, false, 5_000_007_000),
        (true, false, 5_000_007_000),
        (false, true, 5_000_000_007),
        (true, true, 5_000_000_007),
    ] {
        let frames = read(&pcap(big, nanos, &[(5, 7, b"abc"), (6, 0, b"")])).unwrap();
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].at, &frames[0].data[..], frames[0].original_len), (want, &b"abc"[..], 4));
        assert_eq!((frames[1].number, frames[0].link), (2, Link::Raw(101)));
    }
}

#[test]
fn pcapng_times_follow_resolution_and_offset() {
    let minus_ten = |big: bool| if big { (-10i64).to_be_bytes() } else { (-10i64).to_le_bytes() };
    for big in [false, true] {
        let offset = minus_ten(big);
        let cases: &[(&[(u16, &[u8])], u64, u64)] = &[
            (&[], 12_500_000, 12_500_000_000),
            (&[(9, &[9])], 12_500_000_001, 12_500_000_001),
            (&[(9, &[0])], 12, 12_000_000_000),
            (&[(9, &[0x80 | 20])], 25 << 19, 12_500_000_000),
            (&[(9, &[6]), (14, &offset)], 12_500_000, 2_500_000_000),
            (&[(14, &offset)], 1, 0),
            (&[(9, &[255])], u64::MAX, 0),
        ];
        for (options, units, want) in cases {
            let frames = read(&pcapng(big, options, *units)).unwrap();
            assert_eq!((frames[0].at, &frames[0].data[..]), (*want, &[1, 2, 3][..]), "{options:?} {big}");
        }
    }
}

#[test]
fn pcapng_names_the_interface() {
    let named = read(&pcapng(false, &[(2, b"eth1")], 0)).unwrap();
    assert_eq!(named[0].interface.as_deref(), Some("eth1"));
    assert_eq!(read(&pcapng(true, &[], 0)).unwrap()[0].interface, None);
    assert_eq!(read(&pcap(false, false, &[(1, 2, b"abc")])).unwrap()[0].interface, None);
}

#[test]
fn packet_blocks_of_early_pcapng_are_read() {
    for big in [false, true] {
        let word = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let half = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let whole = pcapng(big, &[(9, &[9])], 7);
        // After interface and drops: time, lengths, data and options.
        let body = [&half(0)[..], &half(9), &word(1), &word(5), &word(3), &word(4)].concat();
        let head = [&body[..], &[1, 2, 3, 0]].concat();
        let framed = |body: &[u8]| {
            let len = word(12 + body.len() as u32);
            [&word(2)[..], &len, body, &len].concat()
        };
        let options = [&head[..], &half(2), &half(4), &[0; 4], &half(0), &half(0)].concat();
        for body in [&head, &options] {
            let frames = read(&[&whole[..], &framed(body)].concat()).unwrap();
            let seen: Vec<_> = frames.iter().map(|f| (f.at, &f.data[..], f.original_len)).collect();
            assert_eq!(seen, [(7, &[1, 2, 3][..], 3), ((1 << 32) + 5, &[1, 2, 3], 4)]);
        }
        let mut other = framed(&head);
        other[..4].reverse();
        assert_eq!(read(&[&whole[..], &other].concat()).unwrap().len(), 1, "a block of another type");
        let error = read(&[&whole[..], &framed(&head[..16])].concat()).unwrap_err();
        assert!(matches!(error, CaptureError::Damaged { packets: 1, .. }), "{error}");
    }
}

#[test]
fn what_is_written_is_read_again_the_same() {
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.frame(1_700_000_000_123_456_789, Link::Raw(101), b"", b"packet").unwrap();
    writer.frame(1_700_000_000_123_456_790, Link::Ethernet, b"header", b"x").unwrap();
    let frames = read(&writer.finish().unwrap()).unwrap();
    let seen: Vec<_> = frames.iter().map(|f| (f.at, f.link, &f.data[..])).collect();
    assert_eq!(
        seen,
        [
            (1_700_000_000_123_456_789, Link::Raw(101), &b"packet"[..]),
            (1_700_000_000_123_456_790, Link::Ethernet, b"headerx")
        ]
    );
}

#[test]
fn gzip_is_unpacked() {
    let plain = pcap(false, false, &[(1, 2, b"abc")]);
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&plain).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(read(&packed).unwrap(), read(&plain).unwrap());
    for end in 1..packed.len() {
        let error = read(&packed[..end]).unwrap_err();
        let clear = matches!(error, CaptureError::CutOff { .. } | CaptureError::Damaged { .. });
        assert!(clear || end < 2, "{end}: {error}");
    }
    // The data is followed by its checksum and length.
    for at in packed.len() - 8..packed.len() {
        let mut damaged = packed.clone();
        damaged[at] ^= 1;
        let error = read(&damaged).unwrap_err();
        assert!(matches!(error, CaptureError::Damaged { packets: 1, .. }), "{at}: {error}");
    }
}

#[test]
fn packets_before_the_end_of_a_gzip_stream_that_is_cut_off_are_read() {
    let packets: Vec<_> = (0..200u32).map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let packets: Vec<_> = (0..).zip(&packets).map(|(i, bytes)| (i, i, &bytes[..])).collect();
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&pcap(false, false, &packets)).unwrap();
    let packed = packer.finish().unwrap();
    let mut reader = Reader::new(&packed[..packed.len() - 100]).unwrap();
    let mut whole = 0;
    let error = loop {
        match reader.next_frame() {
            Ok(frame) => whole += u64::from(frame.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CaptureError::CutOff { packets, .. } if packets == whole), "{whole}: {error}");
    assert!(whole > 100, "{whole}");
}

#[test]
fn what_is_not_a_capture_is_described_by_its_first_bytes() {
    for (bytes, want) in [
        (&b"# a text"[..], "the text \"# a \""),
        (b"\x7fELF", "the bytes [7f, 45, 4c, 46]"),
        (b"", "empty"),
        (&[0x1f, 0x8b, 9], "gzip"),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn frames_of_a_link_type_that_is_not_read_hold_no_packet() {
    let mut bytes = pcap(false, false, &[(1, 2, b"abc")]);
    bytes[20] = 189;
    let frame = &read(&bytes).unwrap()[0];
    assert_eq!(frame.link, super::Link::Other(189));
    assert!(frame.link.ip_offset(&frame.data).unwrap_err().to_string().contains("link type 189"));
}

#[test]
fn a_capture_cut_anywhere_is_an_error_or_ends_at_a_boundary() {
    let bytes = pcap(false, false, &[(1, 2, b"abc"), (2, 3, b"defg")]);
    let boundaries = [24, 24 + 19, bytes.len()];
    for end in 1..bytes.len() {
        let result = read(&bytes[..end]);
        assert_eq!(result.is_ok(), boundaries.contains(&end), "{end}: {result:?}");
    }
    let bytes = pcapng(false, &[(9, &[9])], 7);
    for end in 1..bytes.len() {
        match read(&bytes[..end]) {
            Ok(frames) => assert!(frames.is_empty() && [28, 60, 80].contains(&end), "{end}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn no_flipped_byte_panics_or_takes_memory_without_bound() {
    let classic = pcap(false, true, &[(1, 2, b"abc"), (2, 3, b"defg")]);
    let next = pcapng(true, &[(9, &[9]), (14, &[0; 8])], 7);
    for original in [classic, next] {
        for at in 0..original.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = original.clone();
                bytes[at] ^= flip;
                let _ = read(&bytes);
            }
        }
    }
}
