use super::*;
use crate::flow::Key;
use crate::ids::{PoolId, ServiceId};
use crate::packet::{Addresses, Protocol};
use crate::time::Duration;
use std::net::IpAddr;

fn at(s: u64) -> Instant {
    Instant::from_nanos(s * 1_000_000_000)
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn server(i: usize) -> ServerSettings {
    ServerSettings {
        v4: Some([10, 0, 0, i as u8].into()),
        v6: Some([1, 2, 3, 4, 5, 6, 7, i as u16].into()),
        ..ServerSettings::new(&format!("s{i}"), PoolId(0))
    }
}

fn servers(n: usize) -> Vec<ServerSettings> {
    (0..n).map(server).collect()
}

fn service(algorithm: Algorithm) -> ServiceSettings {
    let listen = |address: IpAddr| Listen::one(address, Protocol::Tcp, 80, 80);
    let listens = vec![listen([192, 0, 2, 80].into()), listen([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80].into())];
    ServiceSettings { algorithm, ..ServiceSettings::new("web", listens, PoolId(0)) }
}

fn sticky() -> Option<Stickiness> {
    Some(Stickiness { prefixes: Prefixes::ADDRESS, idle: seconds(300), slots: 100, group: 0 })
}

/// With seed 0, the first server comes first.
fn balancer(service: ServiceSettings, servers: &[ServerSettings]) -> Balancer {
    let pools = [PoolSettings::new("pool", (0..servers.len() as u32).map(ServerId).collect())];
    Balancer::new(&[service], &pools, servers, 0)
}

fn key(client: u8, port: u16) -> Key {
    let addresses = Addresses::new([198, 51, 100, client].into(), [192, 0, 2, 80].into()).unwrap();
    Key { addresses, src_port: port, dst_port: 80, protocol: Protocol::Tcp }
}

fn key6(client: u16) -> Key {
    let addresses = Addresses::new([9, 0, 0, 0, 0, 0, 0, client].into(), [8u16; 8].into()).unwrap();
    Key { addresses, src_port: 1, dst_port: 80, protocol: Protocol::Tcp }
}

/// Opens a flow for a client and returns its server.
fn open(balancer: &mut Balancer, now: u64, client: u8) -> Option<u32> {
    let key = key(client, 1);
    let pick = balancer.pick(at(now), ServiceId(0), &key, &[])?;
    balancer.opened(at(now), ServiceId(0), &key, pick);
    Some(pick.server.0)
}

fn opens(balancer: &mut Balancer, now: u64, clients: &[u8]) -> Vec<u32> {
    clients.iter().map(|client| open(balancer, now, *client).unwrap()).collect()
}

fn end(balancer: &mut Balancer, now: u64, client: u8, server: u32) {
    balancer.ended(at(now), ServiceId(0), [198, 51, 100, client].into(), ServerId(server));
}

#[test]
fn two_servers_and_three_sticky_clients_as_in_the_manual() {
    // R1 and R2 of client 1, R3 of client 2, R4 of client 3.
    for (algorithm, want) in [(Algorithm::RoundRobin, [0, 0, 1, 0]), (Algorithm::ConnectionRate, [0, 0, 1, 1])] {
        let service = ServiceSettings { sticky: sticky(), ..service(algorithm) };
        let mut balancer = balancer(service, &servers(2));
        assert_eq!(opens(&mut balancer, 0, &[1, 1, 2, 3]), want, "{algorithm:?}");
    }
}

#[test]
fn the_seed_determines_the_first_server() {
    let pools = [PoolSettings::new("pool", (0..4).map(ServerId).collect())];
    let first = |seed| open(&mut Balancer::new(&[service(Algorithm::RoundRobin)], &pools, &servers(4), seed), 0, 1);
    let mut seen = [0; 4];
    (1..=400).for_each(|seed| seen[first(seed).unwrap() as usize] += 1);
    assert!(seen.iter().all(|n| (60..=140).contains(n)), "{seen:?}");
    assert_eq!((first(0), first(7)), (Some(0), first(7)));
}

#[test]
fn only_untried_servers_of_the_family_with_a_weight_are_candidates() {
    let mut all = servers(4);
    (all[0].v6, all[1].v4, all[2].weight) = (None, None, 0);
    let mut balancer = balancer(service(Algorithm::RoundRobin), &all);
    assert_eq!(opens(&mut balancer, 0, &[1, 2, 3, 4]), [0, 3, 0, 3]);
    let pick = |balancer: &mut Balancer, key: &Key, tried: &[ServerId]| {
        balancer.pick(at(0), ServiceId(0), key, tried).map(|pick| pick.server.0)
    };
    assert_eq!(pick(&mut balancer, &key6(1), &[ServerId(3)]), Some(1));
    assert_eq!(pick(&mut balancer, &key(1, 1), &[ServerId(3), ServerId(0)]), None);
    balancer.set_weight(at(0), ServerId(2), 5);
    assert_eq!(pick(&mut balancer, &key(1, 1), &[ServerId(3), ServerId(0)]), Some(2));
}

#[test]
fn each_algorithm_picks_only_candidates_and_nothing_without_any() {
    for algorithm in Algorithm::ALL {
        let mut balancer = balancer(service(algorithm), &servers(4));
        balancer.set_admin(at(0), ServerId(1), Admin::Draining, None);
        balancer.set_health(at(0), ServerId(2), false, |_| Health::Down);
        let mut got = [0; 4];
        for client in 0..200 {
            got[open(&mut balancer, 0, client).unwrap() as usize] += 1;
        }
        assert!(got[0] > 0 && got[3] > 0 && got[1] + got[2] == 0, "{algorithm:?} {got:?}");
        balancer.set_admin(at(0), ServerId(0), Admin::Disabled, None);
        balancer.set_health(at(0), ServerId(3), false, |_| Health::Unknown);
        assert_eq!(open(&mut balancer, 0, 1), None, "{algorithm:?}");
        balancer.set_health(at(0), ServerId(2), false, |_| Health::Up);
        assert_eq!(open(&mut balancer, 0, 1), Some(2), "{algorithm:?}");
    }
}

#[test]
fn a_sticky_slot_ends_when_its_server_stops_taking_flows() {
    let stops: [(&str, fn(&mut Balancer)); 6] = [
        ("down", |b| b.set_health(at(1), ServerId(0), false, |_| Health::Down)),
        ("disabled", |b| b.set_admin(at(1), ServerId(0), Admin::Disabled, None)),
        ("draining", |b| b.set_admin(at(1), ServerId(0), Admin::Draining, None)),
        ("weight 0", |b| b.set_weight(at(1), ServerId(0), 0)),
        ("maintenance", |b| b.report(at(1), ServerId(0), 10, true)),
        ("trouble", |b| (0..5).for_each(|_| b.trouble(at(1), ServerId(0)))),
    ];
    for (name, stop) in stops {
        let service = ServiceSettings { sticky: sticky(), ..service(Algorithm::RoundRobin) };
        let mut pool = PoolSettings::new("pool", vec![ServerId(0), ServerId(1)]);
        pool.passive = Some(Passive::default());
        let mut balancer = Balancer::new(&[service], &[pool], &servers(2), 0);
        assert_eq!(opens(&mut balancer, 0, &[7, 7]), [0, 0]);
        stop(&mut balancer);
        assert_eq!(open(&mut balancer, 1, 8), Some(1), "{name}");
        // The server is back before the client returns: the sticky slot has ended all the same.
        balancer.set_health(at(2), ServerId(0), false, |_| Health::Up);
        balancer.set_admin(at(2), ServerId(0), Admin::Enabled, None);
        balancer.set_weight(at(2), ServerId(0), 1);
        balancer.report(at(2), ServerId(0), 10, false);
        balancer.handle_timeout(at(20));
        let key = key(7, 1);
        assert_ne!(balancer.pick(at(20), ServiceId(0), &key, &[]).unwrap().by, PickedBy::Stickiness, "{name}");
    }
}

#[test]
fn networks_and_groups_share_sticky_slots() {
    let net = Stickiness { prefixes: Prefixes { v4: 28, v6: 64 }, ..sticky().unwrap() };
    let http = ServiceSettings { sticky: Some(net), ..service(Algorithm::RoundRobin) };
    let https = ServiceSettings { name: "https".into(), ..http.clone() };
    let pools = [PoolSettings::new("pool", (0..3).map(ServerId).collect())];
    let mut balancer = Balancer::new(&[http, https], &pools, &servers(3), 1);
    let first = open(&mut balancer, 0, 1).unwrap();
    assert_eq!(opens(&mut balancer, 0, &[2, 15]), [first, first]);
    assert_ne!(open(&mut balancer, 0, 16), Some(first));
    let pick = balancer.pick(at(0), ServiceId(1), &key(3, 9), &[]).unwrap();
    assert_eq!((pick.server, pick.by), (ServerId(first), PickedBy::Stickiness));
    assert_eq!(balancer.remembered_clients(ServiceId(1)), 2);
}

#[test]
fn a_full_server_is_skipped_until_a_flow_ends() {
    let mut all = servers(3);
    all[0].max_flows = Some(2);
    for algorithm in Algorithm::ALL {
        let mut balancer = balancer(ServiceSettings { sticky: sticky(), ..service(algorithm) }, &all);
        let got: Vec<u32> = (0..60).map(|client| open(&mut balancer, 0, client).unwrap()).collect();
        assert!(got.iter().filter(|server| **server == 0).count() <= 2, "{algorithm:?}");
        let served = (0..60).find(|client| got[*client as usize] == 0).unwrap_or(0);
        if balancer.state(at(0), ServerId(0)).1 == 2 {
            assert_ne!(open(&mut balancer, 0, served), Some(0), "{algorithm:?}: also when sticky");
            end(&mut balancer, 0, served, 0);
            let again: Vec<u32> = (100..250).map(|client| open(&mut balancer, 0, client).unwrap()).collect();
            assert_eq!(again.iter().filter(|server| **server == 0).count(), 1, "{algorithm:?}");
        }
    }
}

#[test]
fn backups_and_the_last_resort_serve_only_when_all_others_are_down() {
    let mut all = servers(4);
    all[2].backup = true;
    all[3].pool = PoolId(1);
    let service = ServiceSettings { last_resort: LastResort::Pool(PoolId(1)), ..service(Algorithm::LeastConnections) };
    let pools =
        [PoolSettings::new("pool", (0..3).map(ServerId).collect()), PoolSettings::new("sorry", vec![ServerId(3)])];
    let mut balancer = Balancer::new(&[service], &pools, &all, 1);
    let mut served = opens(&mut balancer, 0, &[1, 2, 3, 4]);
    served.sort_unstable();
    assert_eq!(served, [0, 0, 1, 1]);
    (0..2).for_each(|n| balancer.set_health(at(1), ServerId(n), false, |_| Health::Down));
    assert_eq!(opens(&mut balancer, 1, &[5, 6]), [2, 2]);
    balancer.set_admin(at(2), ServerId(2), Admin::Disabled, None);
    let pick = balancer.pick(at(2), ServiceId(0), &key(7, 1), &[]).unwrap();
    assert_eq!((pick.server, pick.by), (ServerId(3), PickedBy::LastResort));
    assert!(balancer.is_gone(ServiceId(0), ServerId(0), false) && balancer.is_gone(ServiceId(0), ServerId(2), false));
    assert!(!balancer.is_gone(ServiceId(0), ServerId(3), false));
    balancer.set_health(at(2), ServerId(3), false, |_| Health::Down);
    assert_eq!(open(&mut balancer, 3, 8), None);
    assert!(balancer.is_gone(ServiceId(0), ServerId(3), false));
}

#[test]
fn a_server_that_comes_back_starts_slowly() {
    let mut all = servers(2);
    all[0].slow_start = seconds(160);
    let mut balancer = balancer(service(Algorithm::RoundRobin), &all);
    balancer.set_health(at(10), ServerId(0), false, |_| Health::Down);
    balancer.set_health(at(100), ServerId(0), false, |_| Health::Up);
    // A sixteenth against a whole at once: 1 of 17. Half against a whole after half of the time: 1 of 3.
    for (now, want) in [(100, 94), (180, 533), (300, 800)] {
        balancer.handle_timeout(at(now));
        let got = (0..1600).filter(|n| open(&mut balancer, now, *n as u8) == Some(0)).count();
        assert!(got.abs_diff(want) <= 2, "at {now} s: {got} of 1,600, want {want}");
    }
    assert_eq!(balancer.poll_timeout(), None);
}

#[test]
fn health_is_checked_for_the_ports_of_each_service() {
    let mut https = service(Algorithm::RoundRobin);
    https.listen.iter_mut().for_each(|listen| (listen.first_port, listen.last_port) = (443, 443));
    let pools = [PoolSettings::new("pool", vec![ServerId(0)])];
    let mut balancer = Balancer::new(&[service(Algorithm::RoundRobin), https], &pools, &servers(1), 1);
    balancer.set_health(at(0), ServerId(0), false, |port| if port == 443 { Health::Down } else { Health::Up });
    assert!(balancer.pick(at(0), ServiceId(0), &key(1, 1), &[]).is_some());
    assert!(balancer.pick(at(0), ServiceId(1), &key(1, 1), &[]).is_none());
    assert!(balancer.pick(at(0), ServiceId(1), &key6(1), &[]).is_some(), "the other family is unaffected");
    assert!(!balancer.is_gone(ServiceId(0), ServerId(0), false) && balancer.is_gone(ServiceId(1), ServerId(0), false));
    assert_eq!(balancer.state(at(0), ServerId(0)).0.health, Health::Down);
}

#[test]
fn draining_reports_the_end_of_the_last_flow_and_the_passing_of_the_deadline() {
    let mut balancer = balancer(service(Algorithm::RoundRobin), &servers(2));
    assert_eq!(opens(&mut balancer, 0, &[1, 2, 3]), [0, 1, 0]);
    balancer.set_admin(at(1), ServerId(0), Admin::Draining, Some(seconds(60)));
    assert_eq!(opens(&mut balancer, 2, &[1, 4]), [1, 1]);
    end(&mut balancer, 3, 1, 0);
    assert_eq!((balancer.poll_notice(), balancer.poll_timeout()), (None, Some(at(61))));
    balancer.handle_timeout(at(61));
    assert_eq!(balancer.poll_notice(), Some(Notice::DrainDeadline(ServerId(0))));
    end(&mut balancer, 61, 3, 0);
    assert_eq!(balancer.poll_notice(), Some(Notice::Drained(ServerId(0))));
    assert!(!balancer.is_gone(ServiceId(0), ServerId(0), false), "a draining server keeps its flows");
}

#[test]
fn the_least_loaded_by_report_is_picked_and_reports_are_valid_for_a_minute() {
    let mut balancer = balancer(service(Algorithm::ResourceUsage), &servers(2));
    balancer.report(at(0), ServerId(0), 80, false);
    balancer.report(at(10), ServerId(1), 20, false);
    assert_eq!(opens(&mut balancer, 11, &[1, 2, 3]), [1, 1, 1]);
    assert_eq!(balancer.poll_timeout(), Some(at(60)));
    balancer.handle_timeout(at(60));
    let mut served = opens(&mut balancer, 60, &[1, 2, 3, 4]);
    served.sort_unstable();
    assert_eq!(served, [0, 0, 1, 1], "server 0's report has expired");
    balancer.report(at(61), ServerId(1), 0, true);
    assert_eq!(opens(&mut balancer, 61, &[1, 2]), [0, 0]);
}

#[test]
fn signs_of_trouble_put_a_server_on_a_passive_hold() {
    let mut pool = PoolSettings::new("pool", vec![ServerId(0), ServerId(1)]);
    pool.passive = Some(Passive { failures: 2, ..Passive::default() });
    let mut balancer = Balancer::new(&[service(Algorithm::RoundRobin)], &[pool], &servers(2), 1);
    balancer.trouble(at(5), ServerId(0));
    balancer.trouble(at(6), ServerId(0));
    assert_eq!(balancer.poll_notice(), Some(Notice::PassiveHold(ServerId(0), at(16))));
    assert_eq!(opens(&mut balancer, 7, &[1, 2, 3]), [1, 1, 1]);
    assert_eq!(balancer.poll_timeout(), Some(at(16)));
    balancer.handle_timeout(at(16));
    assert!(opens(&mut balancer, 16, &[1, 2]).contains(&0));
}

#[test]
fn every_algorithm_serves_a_pool_of_ten_thousand() {
    let all: Vec<ServerSettings> = (0..10_000u32)
        .map(|i| ServerSettings {
            v4: Some((0x0a00_0000 + i).into()),
            ..ServerSettings::new(&format!("s{i}"), PoolId(0))
        })
        .collect();
    for algorithm in Algorithm::ALL {
        let mut balancer = balancer(service(algorithm), &all);
        let mut got = vec![0u32; all.len()];
        // Source hash examines every server: ten thousand of them twice as often is a job for the benchmarks.
        let flows = if algorithm == Algorithm::SourceHash { 500 } else { 20_000 };
        for port in 0..flows {
            let key = Key { src_port: port, ..key(1, 1) };
            let key = Key { addresses: Addresses::V4 { src: u32::from(port) << 8, dst: 9 }, ..key };
            let pick = balancer.pick(at(0), ServiceId(0), &key, &[]).unwrap();
            balancer.opened(at(0), ServiceId(0), &key, pick);
            got[pick.server.0 as usize] += 1;
        }
        let most = got.iter().max().unwrap();
        let even = matches!(
            algorithm,
            Algorithm::RoundRobin
                | Algorithm::Priority
                | Algorithm::LeastConnections
                | Algorithm::ConnectionRate
                | Algorithm::LeastLatency
                | Algorithm::ResourceUsage
        );
        // By chance alone, the fullest of 10,000 servers with an average of two flows has about ten.
        assert!(if even { *most == 2 } else { *most < 16 }, "{algorithm:?} {most}");
    }
}
