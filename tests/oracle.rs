//! The oracle of the other tests can itself fail.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of a test program")]

#[path = "common/oracle.rs"]
mod oracle;

use etherparse::PacketBuilder;
use oracle::{check, is_valid};

const A: [u8; 4] = [10, 1, 2, 3];
const B: [u8; 4] = [192, 0, 2, 80];

/// Each transport over each family: name, packet, offset of the transport checksum.
fn packets() -> Vec<(&'static str, Vec<u8>, usize)> {
    let v4 = || PacketBuilder::ipv4(A, B, 64);
    let v6 = || PacketBuilder::ipv6([0x20; 16], [0xfd; 16], 64);
    let mut all = vec![
        ("tcp4", Vec::new(), 36),
        ("udp4", Vec::new(), 26),
        ("icmp4", Vec::new(), 22),
        ("tcp6", Vec::new(), 56),
        ("udp6", Vec::new(), 46),
        ("icmp6", Vec::new(), 42),
    ];
    let data = b"odd length!";
    v4().tcp(1, 2, 3, 4).ack(5).write(&mut all[0].1, data).unwrap();
    v4().udp(1, 2).write(&mut all[1].1, data).unwrap();
    v4().icmpv4_echo_request(1, 2).write(&mut all[2].1, data).unwrap();
    v6().tcp(1, 2, 3, 4).ack(5).write(&mut all[3].1, data).unwrap();
    v6().udp(1, 2).write(&mut all[4].1, data).unwrap();
    v6().icmpv6_echo_request(1, 2).write(&mut all[5].1, data).unwrap();
    all
}

#[test]
fn right_packets_pass() {
    for (name, packet, _) in packets() {
        assert_eq!(check(&packet), Ok(()), "{name}");
        assert!(is_valid(&packet));
    }
}

#[test]
fn each_flipped_bit_of_a_checksum_or_of_its_data_is_found() {
    for (name, packet, sum) in packets() {
        let last = packet.len() - 1;
        let header = if name.ends_with('4') { &[10, 11][..] } else { &[] };
        for at in [sum, sum + 1, last, 15, 19].iter().chain(header) {
            for bit in 0..8 {
                let mut packet = packet.clone();
                packet[*at] ^= 1 << bit;
                assert!(check(&packet).is_err(), "{name}: byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_none_over_ipv4_and_wrong_over_ipv6() {
    for (name, mut packet, sum) in packets() {
        packet[sum..sum + 2].fill(0);
        assert_eq!(is_valid(&packet), name == "udp4", "{name}");
    }
}

#[test]
fn of_a_fragment_only_the_header_is_judged() {
    let (_, mut packet, sum) = packets().swap_remove(0);
    packet[sum] ^= 1;
    packet[6] |= 0x20;
    assert!(!is_valid(&packet));
    // The header checksum covers the flag that was set.
    let old = u16::from_be_bytes([packet[10], packet[11]]);
    let (less, borrow) = old.overflowing_sub(0x2000);
    let fixed = less - u16::from(borrow);
    packet[10..12].copy_from_slice(&fixed.to_be_bytes());
    assert_eq!(check(&packet), Ok(()));
}

#[test]
fn what_is_not_an_ip_packet_is_not_valid() {
    for bytes in [&b""[..], b"x", &[0x45; 19], &[0x60; 39], &[0x45; 60]] {
        assert!(!is_valid(bytes));
    }
}
