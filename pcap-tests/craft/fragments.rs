//! Captures of fragmented packets.

use super::film::Film;
use super::pieces::{cut, datagram, numbered, piece, too_big};
use super::talk::{Talk, at, spoil};
use super::{C4, C6, DNS4, DNS6, WEB4};
use crate::setup::echo;

pub fn fragments_follow_their_first_one_in_any_order(film: &mut Film) {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (client, service) in [(C4, DNS4), (C6, DNS6)] {
        for (id, order) in (100..).zip(orders) {
            let pieces = cut(&datagram(client, service, 4000, id, false), 1440, id);
            film.show_all(order.map(|at| pieces[at].clone()));
        }
    }
    // The reply, also in fragments.
    for (server, client) in [("10.0.2.1:53", C4), ("[fd00::2]:53", C6)] {
        let pieces = cut(&datagram(server, client, 4000, 9, false), 1440, 9);
        film.show_all([pieces[2].clone(), pieces[0].clone(), pieces[1].clone()]);
    }
}

pub fn overlapping_fragments_spoil_their_packet(film: &mut Film) {
    for (client, service) in [(C4, DNS4), (C6, DNS6)] {
        let whole = datagram(client, service, 4000, 1, false);
        let pieces = cut(&whole, 1440, 1);
        // A duplicate is dropped, and spoils nothing.
        film.show_all([pieces[0].clone(), pieces[1].clone(), pieces[1].clone(), pieces[2].clone()]);
        // One that overlaps: what follows it goes nowhere.
        let pieces = cut(&whole, 1440, 2);
        film.show_all([pieces[0].clone(), piece(&whole, 1432, 2880, 2), pieces[1].clone(), pieces[2].clone()]);
        // One beyond the end, and a second end.
        let pieces = cut(&whole, 1440, 3);
        film.show_all([pieces[0].clone(), pieces[2].clone(), piece(&whole, 2880, 3200, 3), pieces[1].clone()]);
    }
}

pub fn tiny_fragments_are_dropped(film: &mut Film) {
    let segment = numbered(Talk::new(C4, WEB4, WEB4).client("S", &[0; 64]), 5, false);
    // RFC 1858: the flags are in the second fragment. RFC 3128: the second overwrites them.
    film.show_all([piece(&segment, 0, 8, 5), piece(&segment, 8, 84, 5)]);
    film.show_all([piece(&segment, 0, 24, 6), piece(&segment, 8, 32, 6), piece(&segment, 24, 84, 6)]);
    // Not a multiple of eight octets although more follow; beyond 65,535 octets; empty.
    let whole = datagram(C4, DNS4, 400, 7, false);
    film.show(spoil(piece(&whole, 0, 200, 7), |packet| {
        packet.truncate(217);
        packet[3] = 217;
    }));
    film.show(spoil(piece(&whole, 0, 200, 8), |packet| packet[6..8].copy_from_slice(&[0x1f, 0xff])));
    film.show(spoil(piece(&whole, 200, 400, 9), |packet| {
        packet.truncate(20);
        packet[2..4].copy_from_slice(&[0, 20]);
    }));
}

pub fn a_flood_of_fragments_hurts_no_whole_packet(film: &mut Film) {
    // The store holds eight packets here. A hundred sources send what never becomes whole.
    for i in 0..100u16 {
        let source = format!("203.0.113.{}:9", i + 1);
        film.show(cut(&datagram(&source, DNS4, 4000, i, false), 1440, i).swap_remove(1));
    }
    film.show(datagram(C4, DNS4, 40, 1, false));
    film.show_all(cut(&datagram(C4, DNS4, 4000, 2, false), 1440, 2));
    // A single source: its own oldest make room, so that the next source has room too.
    for id in 0..10 {
        film.show(cut(&datagram("198.51.100.66:9", DNS4, 4000, id, false), 1440, id).swap_remove(1));
    }
}

pub fn fragments_have_five_seconds(film: &mut Film) {
    let pieces = cut(&datagram(C4, DNS4, 4000, 7, false), 1440, 7);
    film.show(pieces[1].clone());
    film.at_ms(4_900);
    film.show_all([pieces[0].clone(), pieces[2].clone()]);
    let late = cut(&datagram(C4, DNS4, 4000, 8, false), 1440, 8);
    film.at_ms(10_000);
    film.show(late[1].clone());
    film.at_ms(15_100);
    // What waited is gone; these two begin anew.
    film.show_all([late[0].clone(), late[2].clone()]);
}

pub fn an_error_about_a_later_fragment_finds_its_flow(film: &mut Film) {
    film.show_all(cut(&datagram(C4, DNS4, 4000, 7, false), 1440, 7));
    let seen = cut(&datagram(C4, "10.0.2.1:53", 4000, 7, false), 1440, 7);
    film.show(too_big("10.0.0.1", "198.51.100.7", 1300, &seen[2][..28]));
    let unknown = cut(&datagram(C4, "10.0.2.1:53", 4000, 8, false), 1440, 8);
    film.show(too_big("10.0.0.1", "192.0.2.80", 1300, &unknown[2][..28]));
}

pub fn a_long_echo_request_is_answered_in_the_pieces_it_came_in(film: &mut Film) {
    let ping = numbered(echo(at(C4).ip(), at(WEB4).ip(), false, 7, 1, &[0x55; 3000]), 7, false);
    let pieces = cut(&ping, 1480, 7);
    film.show_all([pieces[1].clone(), pieces[0].clone(), pieces[2].clone()]);
}
