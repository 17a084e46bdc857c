//! Captures of full NAT, of hairpin, of translation between the families, and of protocols other than TCP and UDP.
//!
//! The NAT pools of these cases have so few ports that it is known which one a flow gets.

use super::film::Film;
use super::pieces::{cut, datagram, error, numbered, too_big};
use super::talk::{Talk, at, spoil, with_options};
use super::{C4, C6, DNS4, DNS6, QUIC4, WEB4, WEB6};
use crate::setup::{echo, ip, tcp, udp};
use etherparse::IpNumber;

/// The only source that a flow can get.
const SOURCE: &str = "10.0.9.1:5000";

pub fn full_nat_gives_each_flow_a_port_of_its_own(film: &mut Film) {
    // Four ports for five clients with the same port.
    for last in 1..=5 {
        film.show(udp(at(&format!("198.51.100.{last}:40000")), at(DNS4), b"question"));
    }
    // Another protocol has its own ports.
    film.show(tcp(at("198.51.100.9:40000"), at(WEB4), "S", 1, 0, b""));
}

pub fn who_finds_no_port_is_told_that_it_is_prohibited(film: &mut Film) {
    film.show(udp(at("198.51.100.1:40000"), at(DNS4), b"question"));
    film.show(udp(at("198.51.100.2:40000"), at(DNS4), b"question"));
    film.show(udp(at("198.51.100.1:40000"), at(DNS4), b"the first goes on"));
}

pub fn who_finds_no_port_is_told_that_the_host_is_unreachable(film: &mut Film) {
    who_finds_no_port_is_told_that_it_is_prohibited(film);
}

pub fn a_freed_port_rests_for_two_minutes(film: &mut Film) {
    film.show(udp(at("198.51.100.1:40000"), at(QUIC4), b"question"));
    // Its flow ends after 300 s, and the port may be reused 120 s later.
    film.at_ms(419_000);
    film.show(udp(at("198.51.100.2:40000"), at(QUIC4), b"a second too early"));
    film.at_ms(422_000);
    film.show(udp(at("198.51.100.3:40000"), at(QUIC4), b"in time"));
}

pub fn two_servers_share_a_source_port(film: &mut Film) {
    let (one, other) = ("198.51.100.1:40000", "198.51.100.2:40000");
    film.show(udp(at(one), at(DNS4), b"to dns-1"));
    film.show(udp(at(other), at(DNS4), b"to dns-2"));
    // The servers' addresses tell the answers apart.
    film.show(udp(at("10.0.2.2:53"), at(SOURCE), b"from dns-2"));
    film.show(udp(at("10.0.2.1:53"), at(SOURCE), b"from dns-1"));
    // So do those in a quote.
    let seen = udp(at(SOURCE), at("10.0.2.2:53"), b"to dns-2");
    film.show(error("10.0.2.2", "10.0.9.1", (3, 3), &seen));
    film.show(udp(at("198.51.100.3:40000"), at(DNS4), b"there are only two servers"));
}

pub fn a_resting_port_serves_another_server(film: &mut Film) {
    film.show(udp(at("198.51.100.1:40000"), at(QUIC4), b"to quic-1"));
    // Its flow ends after 300 s, and its port rests for another 120 s.
    film.at_ms(419_000);
    film.show(udp(at("198.51.100.2:40000"), at(QUIC4), b"to quic-2"));
    film.show(udp(at("198.51.100.3:40000"), at(QUIC4), b"a second too early"));
    film.at_ms(422_000);
    film.show(udp(at("198.51.100.4:40000"), at(QUIC4), b"to quic-1 again"));
}

pub fn half_open_flows_have_at_most_half_of_the_ports(film: &mut Film) {
    let (one, other, server) = ("198.51.100.1:40000", "198.51.100.2:40000", "10.0.2.1:8080");
    // One of the two ports is that of an open connection.
    film.show(tcp(at(one), at(WEB4), "S", 1000, 0, b""));
    film.show(tcp(at(server), at("10.0.9.1:5001"), "SA", 5000, 1001, b""));
    film.show(tcp(at(one), at(WEB4), "A", 1001, 5001, b""));
    // Whoever only sends SYNs has the other: the oldest gives way.
    for last in 1..=3 {
        film.show(tcp(at(&format!("203.0.113.{last}:40000")), at(WEB4), "S", 1, 0, b""));
    }
    film.show(tcp(at(one), at(WEB4), "PA", 1001, 5001, b"goes on"));
    // Another client opens a connection in between.
    film.show(tcp(at(other), at(WEB4), "S", 2000, 0, b""));
    film.show(tcp(at(server), at(SOURCE), "SA", 6000, 2001, b""));
    film.show(tcp(at(other), at(WEB4), "A", 2001, 6001, b""));
    // Now both ports are those of open connections, and nobody takes them.
    film.show(tcp(at("203.0.113.4:40000"), at(WEB4), "S", 1, 0, b""));
    film.show(tcp(at(other), at(WEB4), "PA", 2001, 6001, b"goes on"));
}

pub fn a_source_port_keeps_parity_and_range_where_that_is_asked_for(film: &mut Film) {
    // The pool has 1022 to 1025: one of each kind.
    for port in [53, 54, 40_000, 40_001, 55] {
        film.show(udp(at(&format!("198.51.100.1:{port}")), at(DNS4), b"question"));
    }
}

pub fn a_client_has_one_source_address(film: &mut Film) {
    for last in 1..=4 {
        for port in 1..=4 {
            film.show(udp(at(&format!("198.51.100.{last}:{port}")), at(DNS4), b"question"));
        }
    }
}

pub fn a_server_reaches_its_own_service(film: &mut Film) {
    // The server web-1 calls the service, and the service is web-1.
    let (own, server) = ("10.0.2.1:40000", "10.0.2.1:8080");
    film.show(tcp(at(own), at(WEB4), "S", 1000, 0, b""));
    film.show(tcp(at(server), at(SOURCE), "SA", 5000, 1001, b""));
    film.show(tcp(at(own), at(WEB4), "A", 1001, 5001, b""));
    film.show(tcp(at(own), at(WEB4), "PA", 1001, 5001, b"question"));
    film.show(tcp(at(server), at(SOURCE), "PA", 5001, 1009, b"answer"));
}

pub fn an_error_about_a_hairpinned_flow_reaches_who_asked(film: &mut Film) {
    film.show(udp(at("10.0.2.2:40000"), at(DNS4), b"question"));
    // The called server refuses; then the caller refuses the reply.
    let seen = udp(at(SOURCE), at("10.0.2.1:53"), b"question");
    film.show(error("10.0.2.1", "10.0.9.1", (3, 3), &seen));
    film.show(udp(at("10.0.2.1:53"), at(SOURCE), b"answer"));
    let seen = udp(at(DNS4), at("10.0.2.2:40000"), b"answer");
    film.show(error("10.0.2.2", "192.0.2.80", (3, 3), &seen));
}

pub fn what_comes_to_a_source_address_of_no_flow_goes_nowhere(film: &mut Film) {
    film.show(tcp(at("10.0.2.1:8080"), at(SOURCE), "A", 1, 1, b""));
    film.show(udp(at("10.0.2.1:53"), at(SOURCE), b"late"));
    film.show(echo(at("10.0.2.1:53").ip(), at(SOURCE).ip(), false, 7, 1, b"are you there?"));
}

pub fn ipv6_clients_reach_ipv4_servers(film: &mut Film) {
    let mut talk = Talk::new(C6, WEB6, "10.0.2.1:8080");
    film.show(spoil(talk.client("S", b""), |packet| (packet[0], packet[1]) = (0x6b, 0x80 | packet[1] & 15)));
    film.show(tcp(at("10.0.2.1:8080"), at(SOURCE), "SA", 5000, 1001, b""));
    film.show(tcp(at(C6), at(WEB6), "A", 1001, 5001, b"data over IPv6"));
    film.show(spoil(tcp(at("10.0.2.1:8080"), at(SOURCE), "A", 5001, 1015, b"data over IPv4"), |p| p[1] = 0xb8));
    // A datagram, its reply without a checksum, fragments both ways, an error each way, and a wrong checksum.
    film.show(udp(at(C6), at(DNS6), b"question"));
    let mut absent = udp(at("10.0.2.1:53"), at(SOURCE), b"answer");
    absent[26..28].fill(0);
    film.show(absent);
    film.show_all(cut(&datagram(C6, DNS6, 3000, 9, false), 1232, 9));
    film.show_all(cut(&datagram("10.0.2.1:53", SOURCE, 3000, 9, false), 1480, 9));
    let seen = datagram(SOURCE, "10.0.2.1:53", 1400, 0, true);
    film.show(too_big("10.0.0.1", "10.0.9.1", 1300, &seen[..68]));
    let seen = datagram(DNS6, C6, 1400, 0, true);
    film.show(too_big("2001:db8:c::1", "2001:db8::80", 1400, &seen[..600]));
    let mut wrong = udp(at(C6), at(DNS6), b"wrong");
    *wrong.last_mut().expect("a packet") ^= 1;
    film.show(wrong);
    // Echo, to the service address that listens for it.
    film.show(echo(at(C6).ip(), at("[2001:db8::90]:1").ip(), false, 77, 1, b"ping"));
    // A Routing header with a segment left.
    let mut routed = udp(at(C6), at(DNS6), b"onwards");
    let station = [&[17, 2, 4, 1, 0, 0, 0, 0][..], &[0x20; 16]].concat();
    (routed[5], routed[6]) = (routed[5] + 24, 43);
    routed.splice(40..40, station);
    film.show(routed);
    film.show(echo(at("10.0.2.1:1").ip(), at(SOURCE).ip(), true, 5000, 1, b"ping"));
    // Longer than 1,280 in IPv6, on a path whose MTU is unknown: fragmentation allowed.
    film.show(datagram("10.0.2.1:53", SOURCE, 1400, 4, false));
    // Options after a Fragment header: IPv4 cannot express them.
    let mut odd = cut(&datagram(C6, DNS6, 3000, 11, false), 1232, 11).swap_remove(0);
    odd[40] = 60;
    odd.splice(48..48, [17, 0, 1, 4, 0, 0, 0, 0]);
    let len = (odd.len() - 40) as u16;
    odd[4..6].copy_from_slice(&len.to_be_bytes());
    film.show(odd);
}

pub fn fragments_of_different_ends_never_become_one_packet(film: &mut Film) {
    // Two clients behind one source address, with one identification, alternating.
    let [one, two] = [C4, "198.51.100.8:40000"].map(|client| cut(&datagram(client, DNS4, 3000, 7, false), 1480, 7));
    for (one, two) in one.into_iter().zip(two) {
        film.show(one);
        film.show(two);
    }
    // A third comes when they are complete, a later fragment first; then the first client's packet again.
    let three = cut(&datagram("198.51.100.9:40000", DNS4, 3000, 7, false), 1480, 7);
    film.show_all([three[2].clone(), three[0].clone(), three[1].clone()]);
    film.show_all(cut(&datagram(C4, DNS4, 3000, 7, false), 1480, 7));
    // IPv6 clients whose identifications have the same low 16 bits.
    for id in [1u8, 2] {
        film.show_all(cut(&datagram(C6, DNS6, 3000, 9, false), 1448, 9).into_iter().map(|mut piece| {
            piece[44] = id;
            piece
        }));
    }
    // Two servers behind one service address reply to one client.
    for (client, server) in [("198.51.100.7:1", "10.0.2.1:123"), ("198.51.100.7:2", "10.0.2.2:123")] {
        film.show(datagram(client, "192.0.2.80:123", 10, 3, true));
        film.show_all(cut(&datagram(server, client, 3000, 5, false), 1480, 5));
    }
}

pub fn ipv4_clients_reach_ipv6_servers(film: &mut Film) {
    let source = "[fd00:9::1]:5000";
    film.show(spoil(tcp(at(C4), at(WEB4), "S", 1000, 0, b""), |packet| packet[1] = 0xb8));
    film.show(tcp(at("[fd00::1]:8080"), at(source), "SA", 5000, 1001, b""));
    film.show(with_options(tcp(at(C4), at(WEB4), "A", 1001, 5001, b"options go"), &[7, 7, 4, 0, 0, 0, 0, 0]));
    film.show(with_options(tcp(at(C4), at(WEB4), "A", 1011, 5001, b"no way"), &[131, 7, 4, 10, 9, 9, 9, 0]));
    // No checksum: it is computed. Above the path MTU in IPv6: with Don't Fragment, and without. Only above 1,280: it
    // fits.
    let mut absent = udp(at(C4), at(DNS4), b"question");
    absent[26..28].fill(0);
    film.show(absent);
    film.show(datagram(C4, DNS4, 1452, 3, true));
    film.show(datagram(C4, DNS4, 1452, 4, false));
    film.show(datagram(C4, DNS4, 1400, 4, false));
    film.show_all(cut(&datagram(C4, DNS4, 3000, 5, false), 1208, 5));
    let seen = udp(at(source), at("[fd00::1]:53"), b"question");
    film.show(error("fd00::1", "fd00:9::1", (1, 4), &seen));
    film.show(echo(at(C4).ip(), at("192.0.2.90:1").ip(), false, 77, 1, b"ping"));
    film.show(echo(at("[fd00::1]:1").ip(), at(source).ip(), true, 5000, 1, b"ping"));
    // A long ping in fragments: the ICMPv6 checksum covers the length of the whole message, which no fragment states.
    let ping = echo(at(C4).ip(), at("192.0.2.90:1").ip(), false, 78, 1, &[7; 2000]);
    film.show_all(cut(&numbered(ping, 12, false), 1480, 12));
}

fn raw(from: &str, to: &str, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    ip(at(from).ip(), at(to).ip()).write(&mut packet, protocol, payload).expect("a packet");
    packet
}

pub fn gre_and_esp_go_by_addresses_alone(film: &mut Film) {
    for (protocol, server) in [(IpNumber::GRE, "10.0.2.1:1"), (IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, "10.0.2.2:1")]
    {
        film.show(raw(C4, WEB4, protocol, &[0, 0, 8, 0, 1, 2, 3, 4]));
        film.show(raw(server, C4, protocol, &[0, 0, 8, 0, 4, 3, 2, 1]));
        film.show_all(cut(&numbered(raw(C4, WEB4, protocol, &[9; 2000]), 3, false), 1480, 3));
    }
    film.show(raw(C4, WEB4, IpNumber(89), &[2, 1, 0, 44]));
    film.show(raw(C6, WEB6, IpNumber(89), &[3, 1, 0, 44]));
}

pub fn sctp_goes_by_its_ports_and_its_sum_stays_right(film: &mut Film) {
    let packet = |from: &str, to: &str, wrong: u8| {
        let mut sctp = [at(from).port().to_be_bytes(), at(to).port().to_be_bytes()].concat();
        sctp.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        // INIT: tag, window, streams, first number.
        sctp.extend([1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
        let sum = crc32c::crc32c(&sctp) ^ u32::from(wrong);
        sctp[8..12].copy_from_slice(&sum.to_le_bytes());
        raw(from, to, IpNumber::SCTP, &sctp)
    };
    film.show(packet(C4, "192.0.2.80:36412", 0));
    film.show(packet("10.0.2.1:8080", C4, 0));
    film.show(packet(C6, "[2001:db8::80]:36412", 0));
    // A wrong checksum is left for the receiver to detect.
    film.show(packet(C4, "192.0.2.80:36412", 1));
    film.show(packet(C4, "192.0.2.80:36413", 0));
}

pub fn a_connection_that_is_over_yields_its_nat_port(film: &mut Film) {
    // The pool has one port.
    let source = at("10.0.9.1:5000");
    let mut first = Talk::new(C4, WEB4, "10.0.2.1:8080");
    let seen = |talk: &mut Talk, flags: &str| {
        let packet = tcp(talk.server, source, flags, talk.next[1], talk.next[0], b"");
        talk.server(flags, b"");
        packet
    };
    let connect = |film: &mut Film, talk: &mut Talk| {
        film.show(talk.client("S", b""));
        film.show(seen(talk, "SA"));
        film.show(talk.client("A", b""));
    };
    connect(film, &mut first);
    let mut second = Talk { client: at("198.51.100.8:40000"), next: [30_000, 35_000], ..first.clone() };
    // An established flow keeps its port.
    film.show(second.client("S", b""));
    second.next[0] = 30_000;
    film.show(first.client("FA", b""));
    film.show(seen(&mut first, "FA"));
    film.show(first.client("A", b""));
    film.wait_ms(1000);
    connect(film, &mut second);
    film.show(second.client("PA", b"mine"));
}
