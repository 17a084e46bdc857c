//! What a reload keeps of clients and of health while both change.

use super::testing::at;
use super::tests_reload::{establish, file, new_flow, send, server};
use super::*;
use crate::config::Settings;
use crate::ids::ServerId;
use crate::state::Health;

/// Ends everything that expires until then.
fn pass(engine: &mut Engine, now: Instant) {
    while engine.poll_timeout().is_some_and(|due| due <= now) {
        engine.handle_timeout(now);
    }
}

fn reset(engine: &mut Engine, now: Instant, port: u16) {
    use super::testing::{bytes, tcp};
    // The server forgets it, and so does the table a little later.
    let row = flow(engine, now, port);
    engine.apply(now, Change::Kill { flow: row.id }).unwrap();
    let _ = send(engine, now, bytes(tcp([198, 51, 100, 7], port, [192, 0, 2, 80], 80, 101).rst(), b""));
}

fn flow(engine: &Engine, now: Instant, port: u16) -> FlowRow {
    let mut rows = Vec::new();
    engine.flows(now, &FlowQuery::default(), Cursor::default(), 1000, &mut rows);
    rows.into_iter().find(|row| row.client.port() == port).expect("a flow from that port")
}

/// A web service of two servers, with sticky clients in a group.
fn sticky(group: Option<&str>) -> Settings {
    let sticky =
        group.map_or_else(String::new, |group| format!("[service.sticky]\nby='address'\nidle='10s'\n{group}\n"));
    file(&["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3"], &sticky)
}

#[test]
fn the_end_of_a_flow_means_no_client_of_a_sticky_group_that_its_service_joined_since() {
    let other = "[[service]]\nname='other'\nlisten='192.0.2.80:81/tcp'\npool='web'\n[service.sticky]\nby='address'\ngroup='g'\n";
    let own = sticky(Some(""));
    let shared = file(
        &["a=10.0.0.1", "b=10.0.0.2", "c=10.0.0.3"],
        &format!(
            "[service.sticky]\nby='address'\nidle='10s'\ngroup='g'\n{}",
            other.replace("group", "idle='10s'\ngroup")
        ),
    );
    for (before, between) in [(&own, &sticky(None)), (&own, &shared), (&shared, &own)] {
        let mut engine = Engine::new(before);
        establish(&mut engine, at(1), 1);
        for (second, next) in [(2, between), (3, before)] {
            engine.reload(at(second), next, Removed::Drain);
        }
        if before.services.len() < between.services.len() {
            engine.reload(at(3), between, Removed::Drain);
        }
        let given = establish(&mut engine, at(4), 2);
        // The former flow ends; the second one keeps its client's place for as long as it lives.
        reset(&mut engine, at(5), 1);
        pass(&mut engine, at(100));
        assert!((10..14).all(|port| new_flow(&mut engine, at(100), port) == Ok(given[3])), "{given:?}");
    }
}

const WATCHED: &str = "[[pool.monitor]]\nname='m'\ntype='icmp'\n";

#[test]
fn what_operators_force_and_monitors_learn_while_a_plan_gets_ready_stays() {
    let servers = ["a=10.0.0.1", "b=10.0.0.2"];
    let of = |watched: bool, weight: u32| {
        let text = "[gateway]\nprobe-address='192.0.2.1'\n";
        let mut settings = file(&servers, "");
        settings.servers[0].weight = weight as u16 * 2;
        if watched {
            let with = format!(
                "seed = 1\n{text}[[pool]]\nname='web'\nserver=[{{name='a', address='10.0.0.1', port=8080, weight={}}},\
                 {{name='b', address='10.0.0.2', port=8080}}]\n{WATCHED}[[service]]\nname='web'\n\
                 listen='192.0.2.80:80/tcp'\npool='web'\n",
                weight * 2
            );
            settings = super::tests_reload::parse_file(&with);
        }
        settings
    };
    let health = |engine: &Engine, name| server(&engine.servers(at(9)), name).health;
    for (before, after) in [(true, true), (false, false), (true, false)] {
        for portions in 0..8 {
            let mut engine = Engine::new(&of(before, 1));
            let force =
                |engine: &mut Engine, n, up| engine.apply(at(2), Change::Health { server: ServerId(n), up }).unwrap();
            force(&mut engine, 1, Some(false));
            let mut next = engine.succession(at(2)).prepare(&of(after, 2));
            (0..portions).for_each(|_| _ = engine.get_ready_by(at(2), &mut next, 1));
            force(&mut engine, 0, Some(false));
            force(&mut engine, 1, None);
            engine.follow(at(3), next, Removed::Drain).unwrap();
            assert_eq!(health(&engine, "a"), Health::Down, "{before}, {after}, {portions}");
            assert_ne!(health(&engine, "b"), Health::Down, "{before}, {after}, {portions}");
        }
    }
}

#[test]
fn rules_that_would_not_fit_beside_those_of_live_flows_are_noticed() {
    let rules = |letter: char, count: usize| {
        let mut settings = file(&["a=10.0.0.1"], "");
        let rule = |n| crate::policy::RuleSettings::new(&format!("{letter}{n}"), crate::policy::Action::Balance(None));
        settings.policy.rules = (0..count).map(rule).collect();
        settings
    };
    let engine = Engine::new(&rules('a', 40_000));
    let fits = |letter, count| engine.succession(at(1)).has_room(&rules(letter, count));
    assert_eq!([fits('b', 25_535), fits('b', 25_536), fits('a', 65_535)], [true, false, true]);
}

#[test]
fn without_slow_start_a_server_has_its_whole_weight_at_once() {
    use crate::balance::Admin;
    let slow = |secs| {
        let mut settings = file(&["a=10.0.0.1", "b=10.0.0.2"], "");
        settings.servers.iter_mut().for_each(|server| server.slow_start = crate::time::Duration::from_secs(secs));
        settings
    };
    let mut engine = Engine::new(&slow(6000));
    for admin in [Admin::Disabled, Admin::Enabled] {
        engine.apply(at(1), Change::Admin { server: ServerId(0), admin, deadline: None }).unwrap();
    }
    assert_eq!((1..9).filter(|port| new_flow(&mut engine, at(2), *port) == Ok(1)).count(), 1);
    engine.reload(at(3), &slow(0), Removed::Drain);
    let own = (20..40).filter(|port| new_flow(&mut engine, at(3), *port) == Ok(1)).count();
    assert!((9..=11).contains(&own), "{own} of 20");
}

#[test]
fn a_service_that_joins_a_round_robin_that_goes_on_follows_its_weights() {
    let of = |algorithm: &str| {
        let other =
            format!("[[service]]\nname='other'\nlisten='192.0.2.80:81/tcp'\npool='web'\nalgorithm='{algorithm}'\n");
        file(&["a=10.0.0.1", "b=10.0.0.2 , weight=2"], &other)
    };
    let mut engine = Engine::new(&of("maglev"));
    let next = engine.succession(at(1)).prepare(&of("round-robin"));
    let (server, admin) = (ServerId(1), crate::balance::Admin::Disabled);
    engine.apply(at(1), Change::Admin { server, admin, deadline: None }).unwrap();
    assert_eq!(new_flow(&mut engine, at(1), 1), Ok(1));
    engine.follow(at(2), next, Removed::Drain).unwrap();
    for port in 2..9 {
        use super::testing::{bytes, tcp};
        let syn = bytes(tcp([198, 51, 100, 7], port, [192, 0, 2, 80], 81, 100).syn(), b"");
        assert_eq!(send(&mut engine, at(2), syn).map(|sent| sent[19]), Ok(1));
    }
}
