//! Captures in which time passes: what lives how long.

use super::film::Film;
use super::talk::{Talk, at};
use super::{C4, C6, DNS4, QUIC4, QUIC6, WEB4};
use crate::setup::udp;

const S1: &str = "10.0.2.1:8080";
const SECOND: u64 = 1000;

pub fn a_half_open_flow_expires_four_minutes_after_its_first_packet(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    let (syn, answer) = (talk.client("S", b""), talk.server("SA", b""));
    film.show(syn.clone());
    // Neither a retransmission nor the server's answer prolongs it.
    film.at_ms(100 * SECOND);
    film.show(syn);
    film.show(answer.clone());
    film.at_ms(239 * SECOND);
    film.show(answer.clone());
    film.at_ms(241 * SECOND);
    film.show(answer);
    film.show(talk.client("A", b""));
}

pub fn syn_and_syn_ack_repeated_never_establish(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    let (syn, answer) = (talk.client("S", b""), talk.server("SA", b""));
    for packet in [&syn, &answer, &syn, &answer, &answer] {
        film.show(packet.clone());
    }
    film.wait_ms(241 * SECOND);
    film.show(talk.client("A", b""));
}

pub fn an_established_flow_lives_two_hours_and_four_minutes(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.at_ms(7439 * SECOND);
    film.show(talk.client("PA", b"a second before the end"));
    film.at_ms((7439 + 7439) * SECOND);
    film.show(talk.server("PA", b"and so does the server keep it"));
    film.at_ms((7439 + 7439 + 7441) * SECOND);
    film.show(talk.server("PA", b"a second too late"));
    film.show(talk.client("PA", b"as late as that"));
}

pub fn a_closed_flow_is_kept_four_minutes(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show_all(talk.open());
    film.show_all(talk.close());
    // The last acknowledgement was lost: the server retransmits its FIN.
    film.wait_ms(239 * SECOND);
    talk.next[1] -= 1;
    film.show(talk.server("FA", b""));
    film.show(talk.client("A", b""));
    film.wait_ms(241 * SECOND);
    talk.next[1] -= 1;
    film.show(talk.server("FA", b""));
}

pub fn an_idle_udp_flow_expires_after_five_minutes_and_the_next_datagram_is_a_new_flow(film: &mut Film) {
    for (client, service) in [(at(C4), at(QUIC4)), (at(C6), at(QUIC6))] {
        film.show(udp(client, service, b"first"));
    }
    film.at_ms(299 * SECOND);
    film.show(udp(at(C4), at(QUIC4), b"the same flow"));
    film.show(udp(at(C6), at(QUIC6), b"the same flow"));
    film.at_ms((299 + 301) * SECOND);
    film.show(udp(at(C4), at(QUIC4), b"a new flow, the next server"));
    film.show(udp(at("[fd00::2]:443"), at(C6), b"an answer to nobody"));
}

pub fn either_side_keeps_a_udp_flow_alive(film: &mut Film) {
    let (client, service, server) = (at(C4), at(QUIC4), at("10.0.2.1:443"));
    film.show(udp(client, service, b"subscribe"));
    for _ in 0..3 {
        film.wait_ms(290 * SECOND);
        film.show(udp(server, client, b"news"));
    }
    for _ in 0..3 {
        film.wait_ms(290 * SECOND);
        film.show(udp(client, service, b"more"));
    }
}

pub fn a_service_has_timeouts_of_its_own(film: &mut Film) {
    // One lives 180 s with both directions seen, 120 s with one; each is tried a second before and after its end.
    let (client, service, server) = (at(C4), at(DNS4), at("10.0.2.1:53"));
    film.show(udp(client, service, b"first"));
    film.at_ms(119 * SECOND);
    film.show(udp(server, client, b"a second before the end"));
    film.at_ms((119 + 179) * SECOND);
    film.show(udp(server, client, b"a second before the end"));
    film.at_ms((119 + 179 + 181) * SECOND);
    film.show(udp(server, client, b"a second too late"));
    film.show(udp(client, service, b"a new flow"));
    film.wait_ms(121 * SECOND);
    film.show(udp(client, service, b"a second too late, another new flow"));
}

pub fn a_port_has_timeouts_of_its_own(film: &mut Film) {
    let [own, other] = ["192.0.2.80:54", "192.0.2.80:55"].map(at);
    film.show(udp(at(C4), own, b"30 s"));
    film.show(udp(at(C4), other, b"300 s"));
    film.at_ms(29 * SECOND);
    film.show(udp(at(C4), own, b"a second before the end"));
    film.at_ms((29 + 31) * SECOND);
    film.show(udp(at(C4), own, b"a second too late: a new flow"));
    film.at_ms(299 * SECOND);
    film.show(udp(at(C4), other, b"a second before the end"));
    film.at_ms((299 + 301) * SECOND);
    film.show(udp(at(C4), other, b"a second too late: a new flow"));
}

pub fn a_question_to_a_well_known_port_lives_half_a_minute_or_a_minute(film: &mut Film) {
    let [ntp, other] = ["192.0.2.80:123", "192.0.2.80:443"].map(at);
    film.show(udp(at(C4), at(DNS4), b"30 s"));
    film.show(udp(at(C4), ntp, b"60 s"));
    film.show(udp(at(C4), at("192.0.2.80:161"), b"60 s"));
    film.show(udp(at(C4), other, b"300 s"));
    film.show(udp(at("10.0.2.1:53"), at(C4), b"an answer changes nothing"));
    film.at_ms(29 * SECOND);
    film.show(udp(at(C4), at(DNS4), b"a second before the end"));
    film.at_ms((29 + 30) * SECOND);
    film.show(udp(at(C4), ntp, b"a second before the end"));
    film.at_ms((29 + 31) * SECOND);
    film.show(udp(at(C4), at(DNS4), b"a second too late: a new flow"));
    film.at_ms((59 + 61) * SECOND);
    film.show(udp(at(C4), ntp, b"a second too late: a new flow"));
    film.at_ms(299 * SECOND);
    film.show(udp(at(C4), other, b"a second before the end"));
}

pub fn the_timeouts_of_a_service_win_over_those_of_well_known_ports(film: &mut Film) {
    film.show(udp(at(C4), at(DNS4), b"300 s"));
    film.at_ms(299 * SECOND);
    film.show(udp(at(C4), at(DNS4), b"a second before the end"));
    film.at_ms((299 + 301) * SECOND);
    film.show(udp(at(C4), at(DNS4), b"a second too late: a new flow"));
}

pub fn a_segment_of_no_flow_is_adopted_where_the_service_says_so(film: &mut Film) {
    let mut talk = Talk::new(C4, WEB4, S1);
    film.show(talk.client("R", b""));
    film.show(talk.client("SA", b""));
    film.show(talk.client("PA", b"in the middle"));
    // Without an acknowledged reply it lives as long as a half-open flow.
    film.at_ms(239 * SECOND);
    film.show(talk.server("PA", b"a second before the end"));
    film.show(talk.client("A", b""));
    film.at_ms((239 + 7439) * SECOND);
    film.show(talk.client("PA", b"a second before the end of an established flow"));
    film.at_ms((239 + 7439 + 7441) * SECOND);
    film.show(talk.server("PA", b"a second too late"));
    film.show(talk.client("A", b"adopted once more"));
    film.wait_ms(241 * SECOND);
    film.show(talk.server("A", b""));
}
