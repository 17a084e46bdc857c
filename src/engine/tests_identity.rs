//! Slots follow names from one plan to the next, and are not reused while anything refers to them.

use super::testing::{VIP, at, bytes, first_flow, tcp};
use super::*;
use crate::config;
use crate::ids::ServerId;

/// Returns a web service over servers, each written `name=address`, as a file; `rest` follows.
fn file(servers: &[&str], rest: &str) -> Settings {
    let server = |text: &&str| {
        let (name, address) = text.split_once('=').expect("name=address");
        format!("{{name='{name}', address='{address}', port=8080}}")
    };
    let servers: Vec<String> = servers.iter().map(server).collect();
    let text = format!(
        "seed = 1\n[[pool]]\nname='web'\nserver=[{}]\n\
         [[service]]\nname='web'\nlisten='192.0.2.80:80/tcp'\npool='web'\n{rest}",
        servers.join(",")
    );
    config::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn slot(plan: &Plan, server: &str) -> Option<ServerId> {
    let mut servers = plan.order().servers.iter().copied();
    servers.find(|id| plan.pool_and_server(*id).1 == server)
}

fn open(engine: &mut Engine, port: u16) -> Verdict {
    let mut syn = bytes(tcp([198, 51, 100, 7], port, VIP, 80, 100).syn(), b"");
    engine.handle_packet(at(1), &mut syn, Meta::default())
}

#[test]
fn reordering_a_file_keeps_the_slots() {
    let before = Plan::new(&file(&["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3"], ""));
    let same = before.followed_by(before.written(), &InUse::default());
    assert_eq!((same.settings(), same.order()), (before.settings(), before.order()));
    let shuffled = file(&["c=10.0.0.3", "a=10.0.0.1", "b=10.0.0.2"], "");
    let after = before.followed_by(&shuffled, &InUse::default());
    for name in ["a", "b", "c"] {
        assert_eq!(slot(&after, name), slot(&before, name), "{name}");
    }
    let order: Vec<u32> = after.order().servers.iter().map(|id| id.0).collect();
    assert_eq!((order, after.written()), (vec![2, 0, 1], &shuffled));
    let rows: Vec<String> =
        Engine::with_plan(Arc::new(after)).unwrap().servers(at(0)).into_iter().map(|r| r.server).collect();
    assert_eq!(rows, ["c", "a", "b"], "in file order");
}

#[test]
fn a_server_that_is_gone_keeps_its_slot_while_flows_refer_to_it() {
    let mut engine = Engine::new(&file(&["a=10.0.0.1", "b=10.0.0.2"], ""));
    assert!(matches!(open(&mut engine, 1), Verdict::Forward { .. }));
    let server = first_flow(&engine).server_id;
    let name = engine.plan.pool_and_server(server).1.to_owned();
    let other = if name == "a" { "b=10.0.0.2" } else { "a=10.0.0.1" };
    let without = file(&[other, "new=10.0.0.9"], "");
    let after = engine.plan.followed_by(&without, &engine.in_use());
    assert_eq!((slot(&after, &name), slot(&after, "new")), (None, Some(ServerId(2))));
    assert_eq!(after.pool_and_server(server), ("web", &*name), "its flows still have a name");
    assert!(!after.roster().servers_of(crate::ids::ServiceId(0)).any(|id| id == server), "and it gets no new ones");
    // Once the flow has ended, the slot is free.
    engine.handle_timeout(at(1000));
    let after = engine.plan.followed_by(&without, &engine.in_use());
    assert_eq!(slot(&after, "new"), Some(server));
}

#[test]
fn a_server_at_another_address_is_another_server() {
    let before = Plan::new(&file(&["a=10.0.0.1", "b=10.0.0.2"], ""));
    let used = InUse { servers: vec![true, false], ..InUse::default() };
    let after = before.followed_by(&file(&["a=10.0.0.7", "b=10.0.0.2"], ""), &used);
    assert_eq!((slot(&after, "a"), slot(&after, "b")), (Some(ServerId(2)), Some(ServerId(1))));
    assert_eq!(after.roster().server(ServerId(0)).v4, Some([10, 0, 0, 1].into()));
    // Back at its old address, it is the same server again.
    let back = after.followed_by(before.written(), &used);
    assert_eq!(slot(&back, "a"), Some(ServerId(0)));
}

#[test]
fn services_rules_nat_pools_and_monitors_follow_their_names() {
    let full = "nat='full'\nnat-pool='out'\n";
    let tail = |extra: &str| {
        format!(
            "{full}{extra}[[nat-pool]]\nname='out'\naddresses='10.9.0.1'\n\
             [[rule]]\nname='block'\nfrom='203.0.113.0/24'\naction='drop'\n\
             [[rule]]\nname='all'\naction='balance'\nservice='web'\n"
        )
    };
    let before = Plan::new(&file(&["a=10.0.0.1"], &tail("")));
    let more = "[[service]]\nname='first'\nlisten='192.0.2.90:80/tcp'\npool='web'\n\
                [[nat-pool]]\nname='early'\naddresses='10.8.0.1'\n[[rule]]\nname='early'\naction='pass'\nto='8.8.8.8'\n";
    let used = InUse { services: vec![true], servers: vec![true], nat_pools: vec![true], rules: vec![false, true] };
    let after = before.followed_by(&file(&["z=10.0.0.8", "a=10.0.0.1"], &tail(more)), &used);
    let rules: Vec<&str> = after.rules().in_order().map(|(_, rule)| rule.name.as_str()).collect();
    assert_eq!(rules, ["early", "block", "all"], "evaluated in file order");
    assert_eq!(
        (before.rules().find("all"), after.rules().find("all"), after.rules().find("early")),
        (Some(1), Some(1), Some(2))
    );
    assert_eq!(after.nat_pool_name(crate::ids::NatPoolId(0)), "out");
    let names: Vec<&str> = after.settings().services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["web", "first"]);
    // An engine with such a plan works like any other.
    let mut engine = Engine::with_plan(Arc::new(after)).unwrap();
    let servers = (1..=4).filter_map(|port| match open(&mut engine, port) {
        Verdict::Forward { why: Forwarded::Translated { flow, .. }, .. } => {
            Some(engine.shard.table().facts(flow.index).server_id)
        }
        _ => None,
    });
    let mut servers: Vec<u32> = servers.map(|server| server.0).collect();
    servers.sort_unstable();
    assert_eq!(servers, [0, 0, 1, 1]);
    assert_eq!(
        engine.in_use(),
        InUse {
            services: vec![true, false],
            servers: vec![true; 2],
            nat_pools: vec![true, false],
            rules: vec![false, true, false]
        }
    );
}

#[test]
fn removed_objects_are_neither_listed_nor_evaluated() {
    let rest = "[[rule]]\nname='no'\naction='drop'\n[[service]]\nname='dns'\nlisten='192.0.2.80:53/udp'\npool='web'\n";
    let before = Plan::new(&file(&["a=10.0.0.1", "b=10.0.0.2"], rest));
    let all = InUse { services: vec![true; 2], servers: vec![true; 2], nat_pools: vec![], rules: vec![true] };
    let after = before.followed_by(&file(&["b=10.0.0.2"], ""), &all);
    let mut engine = Engine::with_plan(Arc::new(after)).unwrap();
    assert_eq!((engine.rules().len(), engine.services().len(), engine.servers(at(0)).len()), (0, 1, 1));
    assert!(matches!(open(&mut engine, 1), Verdict::Forward { .. }), "the rule that drops is gone");
    assert_eq!(engine.find_server("web", "a"), None);
    assert!(engine.plan.directory().service(VIP.into(), crate::packet::Protocol::Udp, 53).is_none());
}
