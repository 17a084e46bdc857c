//! Which flows give way in a full table.

use super::*;

const ANY: Newcomer = Newcomer { is_proven: false, may_take_settled: true };
/// Its handshake is complete.
const PROVEN: Newcomer = Newcomer { is_proven: true, ..ANY };

fn victim(table: &Table, now: Instant) -> Option<(u32, Class)> {
    table.room(now, ANY).victim
}

/// Makes room as the engine does.
fn make_room(table: &mut Table, now: Instant) -> Option<(u32, Class)> {
    make_room_for(table, now, ANY)
}

fn make_room_for(table: &mut Table, now: Instant, newcomer: Newcomer) -> Option<(u32, Class)> {
    let room = table.room(now, newcomer);
    table.pass_over(&room);
    if let Some((victim, _)) = room.victim {
        table.remove(now, victim);
    }
    room.victim
}

#[test]
fn flows_that_are_over_give_way_first_then_queries_then_idle_ones_and_busy_ones_never() {
    let mut table = table(10, 10);
    let idle = open(&mut table, at(0), 1);
    let busy = open(&mut table, at(0), 2);
    let query = add(&mut table, at(320), 3, Protocol::Udp);
    datagram(&mut table, at(320), query, Side::Server);
    let spoofed = add(&mut table, at(320), 4, Protocol::Udp);
    let stream = add(&mut table, at(320), 5, Protocol::Udp);
    datagram(&mut table, at(320), stream, Side::Server);
    datagram(&mut table, at(320), stream, Side::Client);
    let over = closed(&mut table, at(320), 6);
    let just_over = closed(&mut table, at(330), 7);
    let mut now = at(331);
    table.touch(now, busy, TimeoutState::Established);
    // The answered query has its second chance.
    for want in [(over, Class::Over), (spoofed, Class::Brief), (query, Class::Brief), (idle, Class::Settled)] {
        assert_eq!(make_room(&mut table, now), Some(want));
    }
    assert_eq!(make_room(&mut table, now), Some((just_over, Class::Over)), "better than a refusal");
    assert_eq!(make_room(&mut table, now), None);
    now = at(441);
    assert_eq!(make_room(&mut table, now), Some((stream, Class::Conversing)), "idle for two minutes");
    assert_eq!((make_room(&mut table, now), table.len()), (None, 1));
    assert_eq!(victim(&table, at(630)), None);
    assert_eq!(victim(&table, at(632)), Some((busy, Class::Settled)));
    assert_eq!(table.room(at(632), Newcomer { may_take_settled: false, ..ANY }).victim, None, "not at any rate");
}

#[test]
fn datagrams_give_way_in_order_but_a_stream_of_them_stays() {
    let mut table = table(100, 1);
    let stream = add(&mut table, at(0), 0, Protocol::Udp);
    for client in 1..100 {
        add(&mut table, at(1), client, Protocol::Udp);
    }
    for client in 100..1000 {
        // A stream that is never answered, such as syslog.
        datagram(&mut table, at(2), stream, Side::Client);
        let (slot, _) = victim(&table, at(2)).unwrap();
        let gone = table.key(slot, Side::Client);
        assert_eq!(gone, keys(client - 99, 1000, Protocol::Udp).0);
        assert_eq!(make_room(&mut table, at(2)), Some((slot, Class::Brief)));
        add(&mut table, at(2), client, Protocol::Udp);
    }
    assert!(table.find(&keys(0, 1000, Protocol::Udp).0).is_some());
}

#[test]
fn of_busy_datagrams_the_idlest_gives_way() {
    let mut table = table(20, 1);
    for client in 0..20 {
        add(&mut table, at(0), client, Protocol::Udp);
    }
    for client in 0..20 {
        let index = table.find(&keys(client, 1000, Protocol::Udp).0).unwrap().index;
        let later = if client == 5 { 1 } else { 2 + u64::from(client) };
        datagram(&mut table, at(later), index, Side::Client);
    }
    let (slot, _) = make_room(&mut table, at(30)).unwrap();
    assert_eq!(slot, 5);
    // The others that were looked at were passed over: it is the turn of those behind them.
    assert_eq!(make_room(&mut table, at(30)).unwrap().0, 0);
}

#[test]
fn datagrams_that_are_all_busy_stay_and_who_comes_is_refused_but_for_a_complete_handshake() {
    let mut table = table(40, 1);
    for client in 0..40 {
        add(&mut table, at(0), client, Protocol::Udp);
    }
    let all_send = |table: &mut Table, now| {
        (0..40).for_each(|client| {
            if let Some(found) = table.find(&keys(client, 1000, Protocol::Udp).0) {
                datagram(table, now, found.index, Side::Client);
            }
        });
    };
    all_send(&mut table, at(100));
    // Each is passed over once; none gives way for it.
    assert_eq!([0; 2].map(|_| make_room(&mut table, at(101))), [None, None]);
    // The third looks at the last eight, and at those that the first one passed over: they have not sent since.
    assert_eq!(make_room(&mut table, at(101)), Some((0, Class::Brief)));
    all_send(&mut table, at(102));
    assert_eq!(make_room_for(&mut table, ms(102_900), PROVEN), None);
    all_send(&mut table, at(103));
    assert!(matches!(make_room_for(&mut table, ms(104_200), PROVEN), Some((_, Class::Brief))));
}

/// Adds a flow of datagrams in which the client sends again after an answer.
fn conversation(table: &mut Table, now: Instant, client: u32) -> u32 {
    let index = add(table, now, client, Protocol::Udp);
    datagram(table, now, index, Side::Server);
    datagram(table, now, index, Side::Client);
    index
}

#[test]
fn conversations_beyond_half_of_the_table_give_way_after_seconds_and_others_after_minutes() {
    let mut table = table(10, 1);
    let talks: Vec<u32> = (0..6).map(|client| conversation(&mut table, at(client.into()), client)).collect();
    let streams: Vec<u32> = (6..10).map(|client| open(&mut table, at(6), client)).collect();
    assert_eq!(table.flows_that_stay(None), 9);
    assert_eq!(victim(&table, ms(9_900)), None);
    let room = |table: &Table, now, newcomer| table.room(now, newcomer).victim;
    assert_eq!(room(&table, ms(6_200), PROVEN), Some((talks[0], Class::Conversing)));
    assert_eq!(make_room(&mut table, ms(10_200)), Some((talks[0], Class::Conversing)));
    // The five that are left are half of the table.
    assert_eq!((room(&table, at(119), PROVEN), table.flows_that_stay(None)), (None, 9));
    assert_eq!(make_room(&mut table, ms(121_200)), Some((talks[1], Class::Conversing)));
    assert_eq!(table.flows_that_stay(Some(streams[0])), 7);
}
