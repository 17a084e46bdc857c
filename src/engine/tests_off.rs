//! A service that is off: it takes no new flows, and keeps those that it has.

use super::testing::{CLIENT, VIP, at, bytes, settings, tcp};
use super::*;
use crate::packet::Meta;

fn send(engine: &mut Engine, second: u64, port: u16, syn: bool) -> Verdict {
    let packet = if syn { tcp(CLIENT, port, VIP, 80, 100).syn() } else { tcp(CLIENT, port, VIP, 80, 101).ack(501) };
    engine.handle_packet(at(second), &mut bytes(packet, b""), Meta::default())
}

#[test]
fn it_keeps_its_flows_and_gets_new_ones_once_it_is_on_again() {
    let on = settings(1, 100);
    let mut off = on.clone();
    off.services[0].enabled = false;
    let mut engine = Engine::new(&on);
    assert!(matches!(send(&mut engine, 1, 1, true), Verdict::Forward { .. }));
    let mut answer = bytes(tcp([10, 0, 2, 1], 8080, CLIENT, 1, 500).syn().ack(101), b"");
    assert!(matches!(engine.handle_packet(at(1), &mut answer, Meta::default()), Verdict::Forward { .. }));
    assert!(matches!(send(&mut engine, 1, 1, false), Verdict::Forward { .. }));

    engine.reload(at(2), &off, Removed::Drain);
    assert!(matches!(send(&mut engine, 3, 1, false), Verdict::Forward { .. }), "its flow goes on");
    for syn in [true, false] {
        assert_eq!(send(&mut engine, 3, 2, syn), Verdict::Consume(Consumed::Closed), "new connections are refused");
    }
    assert_eq!((engine.services()[0].enabled, engine.counters().flows), (false, 1));
    let syn = bytes(tcp(CLIENT, 2, VIP, 80, 100).syn(), b"");
    let notes = engine.explain(at(3), &syn, Meta::default()).notes;
    assert_eq!(notes, ["service web is off: nothing listens there until it is on"]);

    engine.reload(at(4), &on, Removed::Drain);
    assert!(matches!(send(&mut engine, 5, 2, true), Verdict::Forward { .. }));
    assert!(matches!(send(&mut engine, 5, 1, false), Verdict::Forward { .. }));
}
