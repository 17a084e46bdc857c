//! Captures of full tables: which flow gives way, and which never does.
//!
//! Connections are named by the last octet of their client's address.

use super::film::Film;
use super::talk::{Talk, at};
use super::{DNS4, QUIC4, WEB4};
use crate::setup::{tcp, udp};
use equipoise::capture::Link;
use std::net::SocketAddr;

const SERVER: &str = "10.0.2.1:8080";
const SECOND: u64 = 1000;

fn client(last: u8) -> SocketAddr {
    SocketAddr::new([198, 51, 100, last].into(), 40_000)
}

/// A connection of this client.
fn talk(last: u8) -> Talk {
    Talk { client: client(last), ..Talk::new("0.0.0.0:0", WEB4, SERVER) }
}

/// A connection whose handshake this shows.
fn opened(film: &mut Film, last: u8) -> Talk {
    let mut talk = talk(last);
    film.show_all(talk.open());
    talk
}

fn datagram(last: u8, service: &str, text: &[u8]) -> Vec<u8> {
    udp(client(last), at(service), text)
}

fn reply(last: u8, server: &str, text: &[u8]) -> Vec<u8> {
    udp(at(server), client(last), text)
}

pub fn a_full_table_refuses_what_is_new_and_keeps_what_is_established(film: &mut Film) {
    let mut talks = [1, 2].map(|last| opened(film, last));
    opened(film, 3);
    film.show(datagram(4, DNS4, b"no room either"));
    for talk in &mut talks {
        film.show(talk.client("PA", b"here we are"));
        film.show(talk.server("PA", b"nothing has changed"));
    }
}

pub fn a_handshake_that_found_no_room_succeeds_when_the_client_sends_again(film: &mut Film) {
    let mut talks = [1, 2].map(|last| opened(film, last));
    let mut third = opened(film, 3);
    film.show(third.client("PA", b"still no room"));
    third.next[0] -= 13;
    // The server has not seen the acknowledgement.
    film.wait_ms(SECOND);
    film.show(tcp(third.server, third.client, "SA", 5000, 1001, b""));
    film.show(third.client("A", b""));
    film.show_all(talks[0].close());
    film.wait_ms(3 * SECOND);
    film.show(third.client("PA", b"there is room"));
    film.show(third.server("PA", b"there you are"));
    film.show(talks[1].client("PA", b"nothing has changed"));
}

pub fn closing_flows_give_way_to_handshakes_oldest_first(film: &mut Film) {
    let mut talks = [1, 2, 3].map(|last| opened(film, last));
    // The second is over first, then the first, by a reset, then the third.
    film.show_all(talks[1].close());
    film.wait_ms(SECOND);
    film.show(talks[0].client("RA", b""));
    film.wait_ms(SECOND);
    film.show_all(talks[2].close());
    film.wait_ms(3 * SECOND);
    for last in 4..=6 {
        opened(film, last);
    }
}

pub fn closing_flows_within_their_grace_give_way_last(film: &mut Film) {
    opened(film, 1);
    film.at_ms(301 * SECOND);
    opened(film, 2);
    film.show(datagram(3, QUIC4, b"one way"));
    let mut over = opened(film, 4);
    film.show_all(over.close());
    // The datagram's flow, the idle connection, the closed one; nothing else may go.
    for last in 5..=8 {
        opened(film, last);
    }
}

pub fn one_way_datagrams_give_way_oldest_first(film: &mut Film) {
    for last in 1..=6 {
        film.show(datagram(last, QUIC4, b"one way"));
    }
}

pub fn an_answered_query_has_a_second_chance(film: &mut Film) {
    film.show(datagram(1, DNS4, b"question"));
    film.show(reply(1, "10.0.2.1:53", b"answer"));
    // The first is passed over once; then it is the oldest that nothing has refreshed.
    for last in 2..=6 {
        film.show(datagram(last, DNS4, b"question"));
    }
}

pub fn a_stream_of_datagrams_stays_while_single_packets_go(film: &mut Film) {
    film.show(datagram(1, QUIC4, b"stream"));
    for last in 2..=7 {
        film.show(datagram(last, QUIC4, b"single"));
        film.show(datagram(1, QUIC4, b"stream"));
    }
}

/// Datagrams whose client sends again after an answer.
fn conversation(film: &mut Film, last: u8) {
    film.show(datagram(last, QUIC4, b"question"));
    film.show(reply(last, "10.0.2.1:443", b"answer"));
    film.show(datagram(last, QUIC4, b"next question"));
}

pub fn a_conversation_is_kept_for_two_minutes_without_a_packet(film: &mut Film) {
    // Half of the table is for connections, half for conversations.
    for last in [8, 9] {
        opened(film, last);
    }
    for last in [1, 2] {
        conversation(film, last);
    }
    film.at_ms(119 * SECOND);
    film.show(datagram(3, QUIC4, b"a second too early"));
    film.show(reply(2, "10.0.2.1:443", b"the second goes on"));
    film.at_ms(121 * SECOND);
    film.show(datagram(4, QUIC4, b"the first gives way"));
    film.show(datagram(2, QUIC4, b"the second does not"));
}

pub fn conversations_beyond_half_of_the_table_make_way_after_seconds(film: &mut Film) {
    for last in [1, 2, 3] {
        conversation(film, last);
        film.wait_ms(SECOND);
    }
    // The third has sent just now, the first three seconds ago.
    film.show(datagram(4, QUIC4, b"nothing has been idle for ten seconds"));
    // The client of a complete handshake has proved more than who sends datagrams.
    let mut talk = opened(film, 5);
    film.show(talk.client("PA", b"in the place of the first conversation"));
    film.show(datagram(2, QUIC4, b"the second goes on"));
    film.show(datagram(6, QUIC4, b"still too early"));
    film.at_ms(20 * SECOND);
    film.show(datagram(7, QUIC4, b"in the place of the third"));
}

pub fn busy_datagrams_stay_and_what_is_new_is_refused(film: &mut Film) {
    for _ in 0..2 {
        for last in [1, 2] {
            film.show(datagram(last, QUIC4, b"stream"));
        }
    }
    film.show(datagram(3, QUIC4, b"both were busy"));
    film.wait_ms(SECOND);
    for last in [1, 2] {
        film.show(datagram(last, QUIC4, b"stream"));
    }
    film.show(datagram(4, QUIC4, b"both are busy still"));
    film.show(datagram(5, QUIC4, b"nothing came since: the first gives way"));
    film.show(datagram(2, QUIC4, b"stream"));
}

pub fn idle_established_flows_give_way_the_idlest_first(film: &mut Film) {
    let mut first = opened(film, 1);
    film.wait_ms(SECOND);
    opened(film, 2);
    film.wait_ms(SECOND);
    opened(film, 3);
    film.at_ms(100 * SECOND);
    film.show(first.client("PA", b"not idle"));
    film.at_ms(310 * SECOND);
    opened(film, 4);
    opened(film, 5);
    // The first has been idle for 210 s only.
    let mut sixth = opened(film, 6);
    film.at_ms(401 * SECOND);
    film.show(sixth.client("PA", b"once more"));
}

pub fn a_full_half_open_store_gives_up_its_oldest_flow(film: &mut Film) {
    let mut kept = opened(film, 1);
    let mut talks = [2, 3, 4].map(talk);
    for talk in &mut talks {
        film.show(talk.client("S", b""));
    }
    // The first of the three has given way, and its server's answer finds no flow; the others complete their handshakes.
    film.show(talks[0].server("SA", b""));
    for talk in &mut talks[1..] {
        film.show(talk.server("SA", b""));
        film.show(talk.client("A", b""));
    }
    // The first succeeds when it sends its SYN again.
    opened(film, 2);
    film.show(kept.client("PA", b"I stay"));
}

pub fn half_open_flows_take_no_room_in_the_table(film: &mut Film) {
    opened(film, 1);
    let mut talks = [2, 3, 4, 5].map(talk);
    for talk in &mut talks {
        film.show(talk.client("S", b""));
    }
    film.show(talks[2].server("SA", b""));
    film.show(talks[2].client("A", b""));
}

pub fn a_thousand_syns_touch_no_established_flow(film: &mut Film) {
    let mut kept = [1, 2].map(|last| opened(film, last));
    for number in 0..1000u16 {
        let last = 100 + (number / 100) as u8;
        film.show(tcp(SocketAddr::new([198, 51, 100, last].into(), 5000 + number), at(WEB4), "S", 1000, 0, b""));
    }
    for talk in &mut kept {
        film.show(talk.client("PA", b"I stay"));
    }
    // A handshake within the time of eight SYNs succeeds.
    opened(film, 3);
}

pub fn late_segments_of_a_closed_flow_that_gave_way_are_dropped(film: &mut Film) {
    let mut gone = opened(film, 1);
    film.show_all(gone.close());
    film.wait_ms(3 * SECOND);
    opened(film, 2);
    // Both ends send their last segments again.
    let fin = || tcp(client(1), at(WEB4), "FA", 1001, 5001, b"");
    film.show(fin());
    film.show(tcp(at(SERVER), client(1), "FA", 5001, 1002, b""));
    film.show(gone.client("A", b""));
    // Its sender believes in the connection.
    film.show(gone.client("PA", b"data"));
    film.at_ms(62 * SECOND);
    film.show(fin());
    film.at_ms(65 * SECOND);
    film.show(fin());
}

pub fn want_of_room_is_reported_when_it_begins_and_when_it_ends(film: &mut Film) {
    opened(film, 1);
    for last in 2..=5 {
        film.show(datagram(last, QUIC4, b"one way"));
    }
    film.wait_ms(10 * SECOND);
    opened(film, 6);
    opened(film, 7);
    film.wait_ms(59 * SECOND);
    opened(film, 8);
    // A minute after the last that was refused, it is over; the next begins anew.
    film.wait_ms(61 * SECOND);
    film.show(datagram(9, QUIC4, b"one way"));
}

/// Shows a packet at a time in microseconds.
fn show_at(film: &mut Film, us: u64, packet: Vec<u8>) {
    film.at_ms(us / 1000);
    film.wait_ns(us % 1000 * 1000);
    film.show(packet);
}

/// A hundred connections of which nothing is left but their last states: one per millisecond.
fn a_hundred_closed(film: &mut Film) {
    for number in 0..100 {
        let mut talk = talk(101 + number);
        let packets = talk.open().into_iter().chain(talk.close());
        for (place, packet) in (0..).zip(packets.collect::<Vec<_>>()) {
            show_at(film, u64::from(number) * 1000 + place * 100, packet);
        }
    }
}

/// Twenty clients that are 100 ms away connect, one every 50 ms, and send data.
fn twenty_connect(film: &mut Film, from: u64) {
    let mut talks: Vec<Talk> = (1..=20).map(talk).collect();
    for step in 0..22 {
        let us = from * 1000 + 50_000 * step as u64;
        if let Some(talk) = talks.get_mut(step) {
            show_at(film, us, talk.client("S", b""));
        }
        if let Some(talk) = step.checked_sub(2).and_then(|step| talks.get_mut(step)) {
            show_at(film, us, talk.client("A", b""));
            show_at(film, us + 100, talk.client("PA", b"GET"));
        }
        if let Some(talk) = talks.get_mut(step) {
            show_at(film, us + 500, talk.server("SA", b""));
        }
    }
}

pub fn a_table_full_of_closing_flows_refuses_no_client(film: &mut Film) {
    film.link = Link::Raw(101);
    a_hundred_closed(film);
    twenty_connect(film, 2 * SECOND);
}

pub fn an_empty_table_refuses_no_client(film: &mut Film) {
    film.link = Link::Raw(101);
    twenty_connect(film, 0);
}
