//! Rules, and what is refused by them or for its priority.

use super::*;

fn ruled(rules: Vec<RuleSettings>) -> Engine {
    let mut settings = settings(2, 10);
    settings.policy.rules = rules;
    Engine::new(&settings)
}

#[test]
fn rules_apply_to_new_flows_and_leave_live_ones_alone() {
    let from = vec!["198.51.100.0/24".parse().unwrap()];
    let block = RuleSettings { from: from.clone(), ..RuleSettings::new("block", Action::Drop) };
    let mut engine = ruled(vec![RuleSettings { enabled: false, ..block }]);
    establish(&mut engine, at(0), 1);
    engine.apply(at(1), Change::Rule { rule: 0, on: true }).unwrap();
    assert_eq!(syn(&mut engine, at(1), CLIENT, 2), Err(Verdict::Drop(Reason::RuleDrop)));
    assert!(syn(&mut engine, at(1), [9, 9, 9, 9], 2).is_ok());
    let mut data = bytes(tcp(CLIENT, 1, VIP, 80, 101).ack(501), b"data");
    assert!(matches!(send(&mut engine, at(1), &mut data), Verdict::Forward { .. }));
    let row = &engine.rules()[0];
    assert_eq!((row.place, row.rule.as_str(), row.enabled, row.matched, row.flows), (1, "block", true, 1, 0));
    assert_eq!(engine.apply(at(1), Change::Rule { rule: 7, on: true }), Err(Refused::NoSuchRule(7)));
}

#[test]
fn reject_answers_tcp_with_a_reset_and_others_with_icmp_prohibited() {
    let mut engine = ruled(vec![RuleSettings::new("no", Action::Reject)]);
    assert_eq!(syn(&mut engine, at(0), CLIENT, 1), Err(Verdict::Consume(Consumed::Rejected)));
    assert_eq!(udp(&mut engine, at(0), 2), Err(Verdict::Consume(Consumed::Rejected)));
    let packets = sent(&mut engine, at(0));
    assert!(matches!(packets[0].1.transport, Transport::Tcp { flags, ack: 101, .. } if flags.rst()));
    assert_eq!(packets[1].1.transport, Transport::Icmp { kind: 3, code: 13 });
    let mut packet = Vec::new();
    PacketBuilder::ipv6([0x20; 16], [0x30; 16], 64).udp(1, 2).write(&mut packet, b"x").unwrap();
    assert_eq!(send(&mut engine, at(0), &mut packet), Verdict::Consume(Consumed::Rejected));
    assert_eq!(sent(&mut engine, at(0))[0].1.transport, Transport::Icmp { kind: 1, code: 1 });
    let mut loops = ruled(vec![RuleSettings::new("pass", Action::Pass)]);
    assert_eq!(syn(&mut loops, at(0), CLIENT, 1), Err(Verdict::Drop(Reason::RuleLoop)));
    let mut foreign = bytes(tcp(CLIENT, 1, [9, 9, 9, 9], 80, 1).syn(), b"");
    let verdict = send(&mut loops, at(0), &mut foreign);
    assert!(matches!(verdict, Verdict::Forward { why: Forwarded::Foreign, .. }));
}

#[test]
fn a_rule_sends_flows_to_a_service_of_its_own_and_limits_them() {
    let mut settings = settings(2, 10);
    settings.pools.push(PoolSettings::new("inner", vec![ServerId(2)]));
    let v4 = Some([10, 0, 2, 77].into());
    settings.servers.push(ServerSettings { v4, port: Some(8080), ..ServerSettings::new("i", PoolId(1)) });
    let mut inner = settings.services[0].clone();
    (inner.name, inner.pool) = ("inner".into(), PoolId(1));
    inner.listen.retain(|listen| listen.address.is_ipv4());
    inner.listen.iter_mut().for_each(|listen| listen.address = [192, 0, 2, 200].into());
    settings.services.push(inner);
    let mut rule = RuleSettings::new("inner", Action::Balance(Some(ServiceId(1))));
    rule.from.push("198.51.100.0/24".parse().unwrap());
    (rule.limits.client_flows, rule.limits.rate) = (Some(2), Some(100));
    settings.policy.rules = vec![rule];
    let mut engine = Engine::new(&settings);
    assert_eq!([1, 2].map(|port| establish(&mut engine, at(0), port)), [77, 77]);
    assert_eq!(syn(&mut engine, at(0), CLIENT, 3), Err(Verdict::Drop(Reason::ClientFlows)));
    assert_eq!(syn(&mut engine, at(0), [9, 9, 9, 9], 3), Ok(1));
    let mut answer = bytes(tcp([10, 0, 2, 77], 8080, CLIENT, 1, 501).ack(101), b"");
    assert!(matches!(send(&mut engine, at(0), &mut answer), Verdict::Forward { .. }));
    assert_eq!(parse(&answer).unwrap().addresses.src(), IpAddr::from(VIP));
    let mut rows = Vec::new();
    engine.flows(at(0), &FlowQuery::default(), Cursor::default(), 10, &mut rows);
    assert!(rows.iter().any(|row| (row.service.as_str(), row.rule.as_deref()) == ("inner", Some("inner"))));
    // Ended flows free their client's quota.
    let first = rows.iter().find(|row| row.rule.is_some() && row.state == TimeoutState::Established).expect("a flow");
    engine.apply(at(1), Change::Kill { flow: first.id }).unwrap();
    assert_eq!(syn(&mut engine, at(1), CLIENT, 3), Ok(77));
}

#[test]
fn near_a_full_table_low_priorities_are_refused_first_and_it_is_reported_once() {
    let mut settings = settings(2, 10);
    let mut low = RuleSettings::new("low", Action::Balance(None));
    low.from.push("198.51.100.0/24".parse().unwrap());
    low.priority = Some(Priority::Low);
    settings.policy.rules = vec![low];
    let mut engine = Engine::new(&settings);
    // Half-open flows take no room in the table, and neither do those that are over.
    for port in 1..=20 {
        assert!(syn(&mut engine, at(0), CLIENT, port).is_ok());
    }
    for port in 100..=107 {
        establish(&mut engine, at(0), port);
    }
    for port in [106, 107] {
        let mut reset = bytes(tcp(CLIENT, port, VIP, 80, 101).rst(), b"");
        assert!(matches!(send(&mut engine, at(0), &mut reset), Verdict::Forward { .. }));
    }
    establish(&mut engine, at(0), 108);
    establish(&mut engine, at(0), 109);
    for port in 201..=203 {
        assert_eq!(syn(&mut engine, at(0), CLIENT, port), Err(Verdict::Drop(Reason::TableLow)));
    }
    assert!(syn(&mut engine, at(0), [9, 9, 9, 9], 9).is_ok());
    assert_eq!(events(&mut engine), ["the flow table is nearly full: new flows of priority low are refused"]);
}

#[test]
fn datagrams_that_give_way_do_not_count_as_a_nearly_full_table() {
    let mut settings = settings(2, 10);
    let mut high = RuleSettings::new("high", Action::Balance(None));
    high.from.push("203.0.113.0/24".parse().unwrap());
    high.priority = Some(Priority::High);
    settings.policy.rules = vec![high];
    let mut engine = Engine::new(&settings);
    for port in 1..=100 {
        assert!(udp(&mut engine, at(0), port).is_ok());
    }
    for port in 1..=9 {
        establish(&mut engine, at(1), port);
    }
    assert_eq!(syn(&mut engine, at(1), CLIENT, 10), Err(Verdict::Drop(Reason::TableNormal)));
}

#[test]
fn a_rejected_packet_is_not_answered_if_no_tcp_host_would_answer_it() {
    let mut engine = ruled(vec![RuleSettings::new("no", Action::Reject)]);
    let mut damaged = bytes(tcp(CLIENT, 1, VIP, 80, 100).syn(), b"");
    damaged[36] ^= 1;
    let reset = bytes(tcp(CLIENT, 1, VIP, 80, 100).rst(), b"");
    for mut packet in [damaged.clone(), reset] {
        assert_eq!(send(&mut engine, at(0), &mut packet), Verdict::Drop(Reason::RuleDrop));
    }
    let mut settings = settings(1, 100);
    settings.services[0].last_resort = LastResort::Reset;
    let mut nobody = Engine::new(&settings);
    down(&mut nobody, at(0), 0);
    assert_eq!(send(&mut nobody, at(1), &mut damaged), Verdict::Drop(Reason::NoServer));
    assert_eq!(sent(&mut engine, at(0)).len() + sent(&mut nobody, at(1)).len(), 0);
}
