//! Messages that no honest resolver sends.

use super::super::message::{self, Answer, Kind, MOST_ADDRESSES, MOST_RECORDS, Received, Records};
use super::*;
use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::{A, Cname, Srv};
use proptest::prelude::*;

fn name(text: &str) -> Name<Vec<u8>> {
    message::name(text).expect("a name")
}

/// A question and the beginning of its answer.
fn asked(kind: Kind) -> (Name<Vec<u8>>, Vec<u8>) {
    let name = name("web.example");
    let query = message::query(7, &name, kind, true);
    (name, query)
}

#[test]
fn names_that_lead_in_circles_or_out_of_the_message_are_no_answer() {
    let (name, query) = asked(Kind::V4);
    let header =
        |answers: u8| [&query[..2], &[0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0], &query[12..query.len() - 11]].concat();
    let at = header(0).len() as u8;
    let fixed = [0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1];
    let cases: [&[u8]; 5] = [
        // A pointer to itself, forward, past the end; a label of a reserved kind; data shorter than its length.
        &[0xc0, at],
        &[0xc0, at + 2, 0],
        &[0xff, 0xff],
        &[0x80, 1],
        &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 200, 1],
    ];
    for case in cases {
        let bytes = [&header(1)[..], case, &fixed].concat();
        let bytes = if case.len() > 4 { [&header(1)[..], case].concat() } else { bytes };
        let got = message::read(&bytes, 7, &name, Kind::V4, true);
        assert_eq!(got, Received::Malformed, "{case:02x?}");
    }
    let whole = [&header(1)[..], &[0xc0, 12], &fixed].concat();
    assert!(matches!(message::read(&whole, 7, &name, Kind::V4, true), Received::Answer(_)));
    for cut in 0..whole.len() {
        let got = message::read(&whole[..cut], 7, &name, Kind::V4, true);
        assert!(matches!(got, Received::Stranger | Received::Malformed), "{cut}: {got:?}");
    }
}

#[test]
fn records_of_other_names_say_nothing() {
    let (asked_name, query) = asked(Kind::V4);
    let query = Message::from_octets(query).expect("a message");
    let ttl = Ttl::from_secs(60);
    let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).expect("room");
    answer.push((name("other.example"), ttl, A::new([10, 6, 6, 6].into()))).expect("room");
    answer.push((name("web.example"), ttl, A::new([10, 0, 0, 1].into()))).expect("room");
    let Received::Answer(got) = message::read(&answer.finish(), 7, &asked_name, Kind::V4, true) else {
        panic!("an answer")
    };
    assert_eq!(got.records, Records::Addresses(vec!["10.0.0.1".parse().expect("an address")]));
}

#[test]
fn aliases_in_a_circle_are_no_answer() {
    let (asked_name, query) = asked(Kind::V4);
    let query = Message::from_octets(query).expect("a message");
    let ttl = Ttl::from_secs(60);
    let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).expect("room");
    answer.push((name("web.example"), ttl, Cname::new(name("b.example")))).expect("room");
    answer.push((name("b.example"), ttl, Cname::new(name("web.example")))).expect("room");
    assert_eq!(message::read(&answer.finish(), 7, &asked_name, Kind::V4, true), Received::Malformed);
}

/// Whoever answers decides how many aliases there are and in which order: following thousands would stop packets.
#[test]
fn a_long_chain_of_aliases_is_followed_in_any_order_and_an_endless_one_is_not() {
    let (asked_name, query) = asked(Kind::V4);
    let query = Message::from_octets(query).expect("a message");
    let ttl = Ttl::from_secs(60);
    let alias = |n: usize| if n == 0 { name("web.example") } else { name(&format!("a{n}.example")) };
    for (aliases, is_followed) in [(1, true), (32, true), (33, false), (1000, false)] {
        let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).expect("room");
        for n in (0..aliases).rev() {
            answer.push((alias(n), ttl, Cname::new(alias(n + 1)))).expect("room");
        }
        answer.push((alias(aliases), ttl, A::new([10, 0, 0, 1].into()))).expect("room");
        let got = message::read(&answer.finish(), 7, &asked_name, Kind::V4, false);
        assert_eq!(matches!(got, Received::Answer(Answer { ttl: Some(60), .. })), is_followed, "{aliases}: {got:?}");
    }
}

/// A message of 64 KiB has as many records as fit; what is kept of it is bounded.
#[test]
fn the_largest_answer_is_kept_within_bounds() {
    let (asked_name, query) = asked(Kind::Services);
    let query = Message::from_octets(query).expect("a message");
    let ttl = Ttl::from_secs(60);
    let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).expect("room");
    answer.set_push_limit(40_000);
    let mut pushed = 0u16;
    while answer.push((name("web.example"), ttl, Srv::new(1, 1, pushed, name("t.example")))).is_ok() {
        pushed += 1;
    }
    let mut additional = answer.additional();
    additional.set_push_limit(65_000);
    let mut address = 0u32;
    while additional
        .push((name("t.example"), ttl, A::from_octets(10, (address >> 16) as u8, (address >> 8) as u8, address as u8)))
        .is_ok()
    {
        address += 1;
    }
    assert!(pushed > 500 && address > 500, "{pushed} {address}");
    let Received::Answer(got) = message::read(&additional.finish(), 7, &asked_name, Kind::Services, false) else {
        panic!("an answer")
    };
    let Records::Services { targets, known } = got.records else { panic!("services") };
    assert!(targets.len() <= MOST_RECORDS && targets.len() == usize::from(pushed));
    assert_eq!(known["t.example"][0].len(), MOST_ADDRESSES);
}

#[test]
fn a_target_with_signs_that_a_terminal_obeys_is_named_by_its_address() {
    let mut zone = Zone::default();
    zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
    zone.additional = vec!["a.example".into()];
    let query_of = |message: &[u8]| message.to_vec();
    let mut bench = Bench::new(&[source("web", srv())], zone);
    bench.sources.handle_timeout(seconds(0));
    let Some(Request::Ask { attempt, message, to, over }) = bench.sources.poll_request() else { panic!("a question") };
    let Answers::Messages(all) = bench.zone.answer(to, over, &query_of(&message)) else { panic!("an answer") };
    // "a.example" becomes "\x1b.example" wherever it stands alone.
    let mut bytes = all[0].clone();
    for at in 0..bytes.len() - 1 {
        if bytes[at..].starts_with(b"\x01a") {
            bytes[at + 1] = 0x1b;
        }
    }
    bench.sources.answer(seconds(0), attempt, &bytes);
    bench.at(seconds(0));
    bench.until(seconds(20));
    assert!(bench.names("web").iter().all(|name| name == "10.0.0.1:80"), "{:?}", bench.names("web"));
    assert!(bench.log.iter().all(|line| !line.contains('\u{1b}')), "{:?}", bench.log);
}

proptest! {
    /// Whatever comes, nothing panics, and what is kept is bounded.
    #[test]
    fn any_bytes_are_survived(
        changes in prop::collection::vec((any::<u16>(), any::<u8>()), 0..12),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        cut in any::<u16>(),
    ) {
        let mut zone = Zone::default();
        zone.srv(1, 1, 80, "a.example").srv(2, 1, 81, "b.example").cname("_web._tcp.example", "x.example");
        zone.a("a.example", "10.0.0.1").a("b.example", "10.0.0.2");
        zone.additional = vec!["a.example".into(), "b.example".into()];
        let mut bench = Bench::new(&[source("web", srv())], zone);
        bench.sources.handle_timeout(seconds(0));
        let Some(Request::Ask { attempt, message, to, over }) = bench.sources.poll_request() else { panic!("a question") };
        let Answers::Messages(all) = bench.zone.answer(to, over, &message) else { panic!("an answer") };
        let mut bytes = all[0].clone();
        for (at, value) in changes {
            // The first two bytes are the ID: behind it, everything is reached.
            let at = 2 + usize::from(at) % (bytes.len() - 2);
            bytes[at] = value;
        }
        bytes.extend(tail);
        let end = bytes.len() - usize::from(cut) % 3 * 7 % bytes.len();
        bench.sources.answer(seconds(0), attempt, &bytes[..end]);
        bench.at(seconds(0));
        bench.until(seconds(100));
        prop_assert!(bench.names("web").len() <= 64);
    }
}
