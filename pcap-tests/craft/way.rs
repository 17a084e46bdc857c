//! Captures of packets that exceed the path MTU, and of what is sent about them.

use super::film::Film;
use super::pieces::{cut, datagram, error};
use super::talk::{Talk, at, spoil};
use super::{C4, C6, DNS4, DNS6, WEB4, WEB6};
use crate::setup::tcp;
use etherparse::TcpHeader;

pub fn what_is_too_big_is_answered_with_the_mtu_of_the_way(film: &mut Film) {
    // 1,400 octets fit, 1,401 do not; likewise for TCP.
    for (client, service, header) in [(C4, DNS4, 28), (C6, DNS6, 48)] {
        film.show(datagram(client, service, 1400 - header, 1, true));
        film.show(datagram(client, service, 1401 - header, 2, true));
    }
    let mut talk = Talk::new(C4, WEB4, "10.0.2.1:8080");
    film.show_all(talk.open());
    film.show(spoil(talk.client("A", &[7; 1460]), |packet| packet[6] = 0x40));
    // The path to the clients takes 1,300.
    film.show(spoil(talk.server("A", &[7; 1460]), |packet| packet[6] = 0x40));
}

pub fn what_may_be_fragmented_goes_on_in_pieces(film: &mut Film) {
    film.show(datagram(C4, DNS4, 3000, 0xbeef, false));
    // A fragment that is itself too big.
    film.show_all(cut(&datagram(C4, DNS4, 3000, 0xbee0, false), 1480, 0xbee0));
}

pub fn the_last_hop_is_answered_in_the_services_name(film: &mut Film) {
    for (client, service) in [(C4, DNS4), (C6, DNS6)] {
        for hops in [1, 2, 1] {
            film.show(spoil(datagram(client, service, 40, 1, false), |packet| {
                let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
                packet[at] = hops;
            }));
        }
    }
}

pub fn no_error_is_sent_about_an_error_or_to_nobody(film: &mut Film) {
    let last = |packet| spoil(packet, |packet: &mut Vec<u8>| packet[8] = 1);
    // An ICMP error that belongs to no flow, on its last hop; a later fragment; sources that cannot be replied to.
    let about = tcp(at(WEB4), at(C4), "A", 1, 1, b"");
    film.show(last(error("198.51.100.7", "192.0.2.80", (3, 3), &about)));
    film.show(last(cut(&datagram(C4, DNS4, 4000, 7, false), 1440, 7).swap_remove(1)));
    for source in ["0.0.0.0:9", "127.0.0.1:9", "224.0.0.1:9", "255.255.255.255:9", "192.0.2.80:9"] {
        film.show(last(datagram(source, DNS4, 40, 1, false)));
        film.show(datagram(source, "192.0.2.80:99", 40, 1, false));
    }
}

pub fn answers_are_limited(film: &mut Film) {
    // Three per second here.
    for id in 0..5 {
        film.show(datagram(C4, "192.0.2.80:99", 40, id, false));
    }
    film.wait_ms(1_000);
    film.show(datagram(C4, "192.0.2.80:99", 40, 9, false));
}

pub fn the_segment_size_of_a_syn_is_lowered_where_the_service_asks(film: &mut Film) {
    for (client, service) in [(C4, WEB4), (C6, WEB6)] {
        for mss in [1460u16, 1200] {
            let (from, to) = (at(client), at(service));
            let mut header = TcpHeader::new(from.port() + mss, to.port(), 1000, 4096);
            header.syn = true;
            let [high, low] = mss.to_be_bytes();
            header.set_options_raw(&[1, 2, 4, high, low, 1, 1, 0]).expect("options");
            let mut packet = Vec::new();
            crate::setup::ip(from.ip(), to.ip()).tcp_header(header).write(&mut packet, b"").expect("a packet");
            film.show(packet);
        }
    }
}
