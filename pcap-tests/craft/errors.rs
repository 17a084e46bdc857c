//! Captures of ICMP errors about packets of flows, from either side.

use super::film::Film;
use super::pieces::{datagram, error, numbered, too_big};
use super::talk::{Talk, with_extension, with_options};
use super::{C4, C6, DNS4, DNS6, QUIC4, WEB4, WEB6};

/// Client, service, server, and the router next to each, for both families.
const WAYS: [[&str; 5]; 2] = [
    [C4, DNS4, "10.0.2.1:53", "198.51.100.1", "10.0.0.1"],
    [C6, DNS6, "[fd00::2]:53", "2001:db8:c::1", "fd00:0:0:1::1"],
];

/// The address of an endpoint.
fn ip(end: &str) -> String {
    super::talk::at(end).ip().to_string()
}

pub fn packet_too_big_from_behind_reaches_the_client(film: &mut Film) {
    for [client, service, server, _, router] in WAYS {
        film.show(datagram(client, service, 1400, 7, true));
        // The router beyond saw the packet as it was forwarded.
        let seen = datagram(client, server, 1400, 7, true);
        film.show(too_big(router, &ip(client), 1300, &seen[..if router.contains(':') { 400 } else { 28 }]));
    }
    let mut talk = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.show_all(talk.open());
    let data = talk.client("A", &[7; 1400]);
    film.show(data.clone());
    let seen = crate::setup::tcp(talk.client, talk.server, "A", 1001, 5001, &[7; 1400]);
    film.show(too_big("10.0.0.1", &ip(C4), 1300, &seen[..48]));
}

pub fn packet_too_big_from_the_clients_side_reaches_the_server(film: &mut Film) {
    for [client, service, server, router, _] in WAYS {
        film.show(datagram(client, service, 40, 7, true));
        film.show(datagram(server, client, 1400, 8, true));
        let seen = datagram(service, client, 1400, 8, true);
        film.show(too_big(router, &ip(service), 1300, &seen[..if router.contains(':') { 600 } else { 100 }]));
        // The client itself reports that nothing listens any more.
        let kind = if router.contains(':') { (1, 4) } else { (3, 3) };
        film.show(error(&ip(client), &ip(service), kind, &seen[..80]));
    }
}

pub fn an_error_is_translated_however_its_quote_is_written(film: &mut Film) {
    let [client, service, server, _, router] = WAYS[0];
    film.show(datagram(client, service, 600, 7, false));
    let seen = datagram(client, server, 600, 7, false);
    // Options of every length before the ports; no more than eight octets after them.
    for words in 6..=15usize {
        let quoted = with_options(seen.clone(), &vec![1; words * 4 - 20]);
        film.show(error(router, &ip(client), (11, 0), &quoted[..words * 4 + 8]));
    }
    // RFC 4884: the quote is padded to 128 octets, its length stated, and an extension (here MPLS) follows.
    let mut quoted = seen[..128].to_vec();
    quoted.extend([0x20, 0, 0xdf, 0xfd, 0, 8, 1, 1, 0, 0x01, 0x01, 0xff]);
    let mut extended = error(router, &ip(client), (11, 0), &quoted);
    extended[25] = 32;
    film.show(spoil_icmp(extended));
    let [client, service, server, _, router] = WAYS[1];
    film.show(datagram(client, service, 600, 7, false));
    let seen = datagram(client, server, 600, 7, false);
    let quoted = with_extension(with_extension(seen, 60, &[0, 1, 4, 0, 0, 0, 0]), 0, &[0, 1, 4, 0, 0, 0, 0]);
    film.show(error(router, &ip(client), (3, 0), &quoted[..64]));
    film.show(error(router, &ip(client), (1, 3), &quoted));
}

/// Recomputes the checksum of an ICMPv4 message.
fn spoil_icmp(mut packet: Vec<u8>) -> Vec<u8> {
    packet[22..24].fill(0);
    let mut sum: u32 = packet[20..].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[22..24].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

pub fn errors_that_cannot_be_true_are_dropped_by_name(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.show_all(talk.open());
    let seen = |seq: u32| numbered(crate::setup::tcp(talk.client, talk.server, "A", seq, 5001, &[7; 100]), 9, true);
    let client = ip(C4);
    // A segment that was never sent; one that was acknowledged long ago.
    film.show(too_big("10.0.0.1", &client, 1300, &seen(0x4000_0000)[..48]));
    film.show(too_big("10.0.0.1", &client, 1300, &seen(5)[..48]));
    // A wrong checksum of the error; a wrong checksum of the quoted header, to the service; too short a quote.
    let mut wrong = too_big("10.0.0.1", &client, 1300, &seen(1001)[..48]);
    wrong[27] ^= 1;
    film.show(wrong);
    let mut header = seen(1001);
    header[8] ^= 1;
    film.show(too_big("10.0.0.1", &ip(WEB4), 1300, &header[..48]));
    film.show(too_big("10.0.0.1", &ip(WEB4), 1300, &seen(1001)[..24]));
    // An MTU that no link has.
    film.show(too_big("10.0.0.1", &client, 67, &seen(1001)[..48]));
    let mut six = Talk::new(C6, WEB6, "[fd00::2]:8080");
    film.show_all(six.open());
    let seen6 = crate::setup::tcp(six.client, six.server, "A", 1001, 5001, &[7; 100]);
    film.show(too_big("fd00:0:0:1::1", &ip(C6), 1279, &seen6[..80]));
    // Source quench, and a redirect.
    film.show(error("10.0.0.1", &client, (4, 0), &seen(1001)[..48]));
    film.show(error("10.0.0.1", &client, (5, 1), &seen(1001)[..48]));
    // Of no flow: to the service; from a server's port; and one that is not the gateway's business.
    let stray = crate::setup::tcp(super::talk::at(WEB4), super::talk::at("198.51.100.8:9"), "A", 1, 1, b"");
    film.show(error("198.51.100.8", &ip(WEB4), (3, 3), &stray));
    let stray = crate::setup::tcp(super::talk::at("198.51.100.8:9"), super::talk::at("10.0.2.1:8080"), "A", 1, 1, b"");
    film.show(error("10.0.2.1", "198.51.100.8", (3, 3), &stray));
    let foreign =
        crate::setup::tcp(super::talk::at("198.51.100.8:9"), super::talk::at("203.0.113.9:25"), "A", 1, 1, b"");
    film.show(error("203.0.113.9", "198.51.100.8", (3, 3), &foreign));
    // The valid version of the one refused above.
    film.show(too_big("10.0.0.1", &client, 1300, &seen(1001)[..48]));
}

pub fn an_error_neither_refreshes_nor_ends_a_flow(film: &mut Film) {
    let [client, _, _, _, router] = WAYS[0];
    let (service, server) = (QUIC4, "10.0.2.1:443");
    let mut talk = Talk::new("198.51.100.9:40000", WEB4, "10.0.2.1:8080");
    film.show_all(talk.open());
    film.show(datagram(client, service, 40, 7, false));
    let seen = datagram(client, server, 40, 7, false);
    let tcp = crate::setup::tcp(talk.client, talk.server, "A", 1001, 5001, b"");
    for second in [100, 200, 299] {
        film.at_ms(second * 1000);
        film.show(error(router, &ip(client), (3, 1), &seen));
        film.show(error(router, "198.51.100.9", (3, 2), &tcp));
    }
    // The datagram's flow ends five minutes after its datagram; the connection goes on.
    film.at_ms(301_000);
    film.show(error(router, &ip(client), (3, 1), &seen));
    film.show(talk.client("A", b"still here"));
}
