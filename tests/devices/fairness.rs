//! A full or flooded table takes no service from a client that behaves: the laboratory of `tools/lab-fairness` with a
//! small table and for seconds.

use crate::lab::Lab;
use crate::lab::clients::ask;
use crate::lab::gateways::{Kind, start};
use crate::lab::scenario::{Measured, Pressure, Report, Scenario};
use crate::lab::strangers::Filling;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Two labs at a time would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 200 clients per second for three seconds, and a table of 2,000 flows.
fn scenario(pressure: Pressure, measured: Measured) -> Scenario {
    let (flows, per_second, clients) = (2_000, 200, 600);
    Scenario { pressure, measured, flows, part: 1.0, per_second, clients, rest: Duration::ZERO, plain: false }
}

fn run(name: &str, scenario: Scenario) -> Report {
    let _alone = alone();
    scenario.run(name, Kind::Equipoise)
}

/// At least this many in a hundred are served, nobody is reset, and nobody's packet is lost.
fn is_fair(report: &Report, least: f64) {
    let served = report.outcome.percent();
    assert!(served >= least, "{served:.1} % of {least} %: {report:#?}");
    assert_eq!((report.outcome.reset, report.account.resets), (0, 0), "{report:#?}");
}

/// The table was full of them: with a store of its own for half-open flows, a few may be elsewhere.
fn was_full(report: &Report) {
    let (flows, size) = report.table.unwrap();
    assert!(flows >= size - size / 10, "{report:#?}");
}

#[test]
fn a_table_full_of_closing_flows_serves_every_client() {
    let report = run("closing", scenario(Pressure::Full(Filling::Closing), Measured::Tcp));
    was_full(&report);
    is_fair(&report, 100.0);
    assert_eq!((report.account.lost_of_clients, report.account.by_decision), (0, 0), "{report:#?}");
}

#[test]
fn a_table_full_of_closing_flows_serves_every_client_without_offload() {
    let mut scenario = scenario(Pressure::Full(Filling::Closing), Measured::Tcp);
    scenario.plain = true;
    let report = run("plain", scenario);
    was_full(&report);
    is_fair(&report, 100.0);
}

#[test]
fn a_table_full_of_datagrams_without_an_answer_serves_clients() {
    let report = run("one-way", scenario(Pressure::Full(Filling::OneWay), Measured::Tcp));
    was_full(&report);
    is_fair(&report, 99.0);
}

#[test]
fn a_table_full_of_answered_datagrams_serves_clients() {
    let report = run("answered", scenario(Pressure::Full(Filling::Answered), Measured::Tcp));
    was_full(&report);
    is_fair(&report, 99.0);
}

/// 874 queries per second, each answered, would keep 262,144 entries of five minutes full.
#[test]
fn answered_queries_do_not_shut_out_other_queries() {
    let report = run("queries", scenario(Pressure::Full(Filling::Answered), Measured::Dns));
    was_full(&report);
    is_fair(&report, 99.0);
}

#[test]
fn the_query_after_those_that_filled_the_table_is_served() {
    let _alone = alone();
    let lab = Lab::new("2622", false);
    let gateway = start(&lab, Kind::Equipoise, 2_621);
    let outcome = ask(&lab, 1_000, 2_622);
    assert_eq!((outcome.tried, outcome.served), (2_622, 2_622), "{}", gateway.reasons());
}

/// The table has room for the half-open flows of 83 ms, and a handshake takes 100 ms. The rate is one that a device of a
/// busy machine takes; if it loses packets nevertheless, only the gateway's own decisions count.
#[test]
fn a_flood_of_handshakes_takes_nothing_from_clients() {
    let scenario = scenario(Pressure::Flood(3_000), Measured::Tcp);
    let report = run("flood", Scenario { flows: 250, per_second: 60, clients: 180, ..scenario });
    assert_eq!((report.account.engine_says, report.account.resets), (Some(0), 0), "{report:#?}");
    if report.account.by_devices == 0 {
        assert!(report.outcome.percent() >= 99.0 && report.account.by_decision == 0, "{report:#?}");
    }
}

#[test]
fn a_flood_of_handshakes_takes_nothing_from_clients_even_when_the_table_is_full() {
    let scenario = scenario(Pressure::FullAndFlood(Filling::Closing, 3_000), Measured::Tcp);
    let report = run("flood-full", Scenario { flows: 250, per_second: 60, clients: 180, ..scenario });
    was_full(&report);
    assert_eq!(report.account.resets, 0, "{report:#?}");
    assert!(report.account.by_devices != 0 || report.outcome.percent() >= 99.0, "{report:#?}");
}

/// Without these, a lab that loses packets by itself would be taken for an unfair gateway.
#[test]
fn the_lab_itself_loses_nothing() {
    let scenario = scenario(Pressure::Full(Filling::Closing), Measured::Tcp);
    let _alone = alone();
    // The kernel's table has the size that the machine gives it; a little of it is enough here.
    for (kind, part) in [(Kind::Least, 1.0), (Kind::Nftables, 0.01)] {
        let report = Scenario { part, clients: 200, ..scenario }.run("control", kind);
        is_fair(&report, 100.0);
        assert_eq!((report.outcome.late, report.account.lost, report.account.by_devices), (0, 0, 0), "{report:#?}");
    }
}
