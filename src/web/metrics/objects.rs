//! What the configuration names: services, servers, rules, NAT pools, sources; and the probes by type.

use super::out::Out;
use crate::control::{Admin, Health, NatRow, ProbeTotals, RuleRow, ServerRow, ServiceRow, SourceRow};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::Hash;

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Leaves out rows of a name that was there before: what was removed and still has flows may have the name of something
/// new, and a series must be there once.
fn once<'r, T, K: Hash + Eq>(rows: &'r [T], name: impl Fn(&'r T) -> K) -> Vec<&'r T> {
    let mut seen = HashSet::with_capacity(rows.len());
    rows.iter().filter(|row| seen.insert(name(row))).collect()
}

pub(super) fn services(rows: &[ServiceRow], out: &mut Out<'_>) -> fmt::Result {
    let rows = once(rows, |row| &*row.service);
    let labels = ["service"];
    out.info(
        "equipoise_service",
        "Which pool and algorithm a service uses.",
        ["service", "pool", "algorithm"],
        rows.iter().map(|row| [&*row.service, &*row.pool, row.algorithm.name()]),
    )?;
    let enabled = rows.iter().map(|row| ([&*row.service], flag(row.enabled)));
    out.gauges("equipoise_service_enabled", "Whether a service takes new flows.", labels, enabled)?;
    let flows = rows.iter().map(|row| ([&*row.service], row.flows as f64));
    out.gauges("equipoise_service_flows", "Flows of a service.", labels, flows)?;
    let opened = rows.iter().map(|row| ([&*row.service], row.flows_total));
    out.counters("equipoise_service_flows_opened", "Flows of a service created.", labels, opened)
}

/// Whether a server takes new flows, as far as the server is concerned.
fn accepts(row: &ServerRow) -> bool {
    row.admin == Admin::Enabled
        && row.health == Health::Up
        && row.weight > 0
        && !row.maintenance
        && !row.removed
        && row.passive_hold_ms.is_none()
}

pub(super) fn servers(rows: &[ServerRow], out: &mut Out<'_>) -> fmt::Result {
    let rows = once(rows, |row| (&*row.pool, &*row.server));
    let mut gauges = |name, help, value: &dyn Fn(&ServerRow) -> Option<f64>| {
        let rows = rows.iter().filter_map(|row| Some(([&*row.pool, &*row.server], value(row)?)));
        out.gauges(name, help, ["pool", "server"], rows)
    };
    gauges(
        "equipoise_server_up",
        "Whether a server is up; without monitors it is. 0: down, or not yet known.",
        &|row| Some(flag(row.health == Health::Up)),
    )?;
    gauges(
        "equipoise_server_accepting",
        "Whether a server gets new flows: enabled, up, weight above 0, no maintenance, no passive hold, not removed.",
        &|row| Some(flag(accepts(row))),
    )?;
    gauges("equipoise_server_enabled", "Whether a server is neither disabled nor draining.", &|row| {
        Some(flag(row.admin == Admin::Enabled))
    })?;
    gauges(
        "equipoise_server_draining",
        "Whether a server is draining: it keeps its flows and gets no new ones.",
        &|row| Some(flag(row.admin == Admin::Draining)),
    )?;
    gauges("equipoise_server_weight", "Weight of a server.", &|row| Some(f64::from(row.weight)))?;
    gauges("equipoise_server_effective_weight", "Weight of a server that counts: less during slow start.", &|row| {
        Some(f64::from(row.weight_now))
    })?;
    gauges("equipoise_server_flows", "Flows of a server.", &|row| Some(row.flows as f64))?;
    gauges("equipoise_server_flows_limit", "Limit of its flows; absent without one.", &|row| {
        row.max_flows.map(f64::from)
    })?;
    gauges("equipoise_server_load_ratio", "Load that a server reported within the last minute, 0 to 1.", &|row| {
        row.load.map(|load| f64::from(load) / 100.0)
    })?;
    gauges("equipoise_server_latency_seconds", "Smoothed round-trip time of the probes of a server.", &|row| {
        row.latency_ms.map(|latency| latency / 1e3)
    })?;
    server_counters(&rows, out)
}

fn server_counters<'r>(rows: &[&'r ServerRow], out: &mut Out<'_>) -> fmt::Result {
    let opened = rows.iter().map(|row| ([&*row.pool, &*row.server], row.flows_total));
    out.counters("equipoise_server_flows_opened", "Flows given to a server.", ["pool", "server"], opened)?;
    let mut both = |name, help, label, [a, b]: [&'static str; 2], value: &dyn Fn(&ServerRow) -> [u64; 2]| {
        let of = |row: &'r ServerRow| {
            let ([first, second], names) = (value(row), (&*row.pool, &*row.server));
            [([names.0, names.1, a], first), ([names.0, names.1, b], second)]
        };
        out.counters(name, help, ["pool", "server", label], rows.iter().copied().flat_map(of))
    };
    both(
        "equipoise_server_packets",
        "Packets between clients and a server, by direction: in is to the server.",
        "direction",
        ["in", "out"],
        &|row| [row.packets_in, row.packets_out],
    )?;
    both(
        "equipoise_server_bytes",
        "Bytes of IP packets between clients and a server, by direction: in is to the server.",
        "direction",
        ["in", "out"],
        &|row| [row.bytes_in, row.bytes_out],
    )?;
    both(
        "equipoise_server_transitions",
        "How often an address or port of a server went down or came up.",
        "to",
        ["down", "up"],
        &|row| [row.times_down, row.times_up],
    )
}

pub(super) fn rules(rows: &[RuleRow], out: &mut Out<'_>) -> fmt::Result {
    let labels = ["rule"];
    let enabled = rows.iter().map(|row| ([&*row.rule], flag(row.enabled)));
    out.gauges("equipoise_rule_enabled", "Whether a rule is enabled.", labels, enabled)?;
    let matched = rows.iter().map(|row| ([&*row.rule], row.matched));
    out.counters(
        "equipoise_rule_matched_packets",
        "Packets that matched a rule; those of known flows do not count.",
        labels,
        matched,
    )?;
    let opened = rows.iter().map(|row| ([&*row.rule], row.flows_total));
    out.counters("equipoise_rule_flows_opened", "Flows that a rule admitted.", labels, opened)?;
    let refused = rows.iter().map(|row| ([&*row.rule], row.refused));
    out.counters("equipoise_rule_refused_flows", "Flows that the limits of a rule refused.", labels, refused)?;
    let flows = rows.iter().map(|row| ([&*row.rule], f64::from(row.flows)));
    out.gauges("equipoise_rule_flows", "Flows that a rule admitted and that are still there.", labels, flows)
}

pub(super) fn nat(rows: &[NatRow], out: &mut Out<'_>) -> fmt::Result {
    let named: Vec<(String, &NatRow)> = rows.iter().map(|row| (row.address.to_string(), row)).collect();
    let protocols: Vec<String> = rows.iter().map(|row| row.protocol.name().into()).collect();
    let mut gauges = |name, help, value: &dyn Fn(&NatRow) -> u32| {
        let rows = named.iter().zip(&protocols);
        let rows =
            rows.map(|((address, row), protocol)| ([&*row.pool, &**address, &**protocol], f64::from(value(row))));
        out.gauges(name, help, ["nat_pool", "address", "protocol"], rows)
    };
    gauges(
        "equipoise_nat_ports_used",
        "Source ports in use, once for each server that they are used towards.",
        &|row| row.used,
    )?;
    gauges("equipoise_nat_ports_half_open", "Those of them whose flow has not completed its handshake.", &|row| {
        row.half_open
    })?;
    gauges("equipoise_nat_ports_resting", "Source ports that rest before they are used again.", &|row| row.resting)?;
    gauges("equipoise_nat_ports_free", "Source ports that are free towards the fullest server.", &|row| row.free)?;
    let exhausted: BTreeMap<&str, u64> = rows.iter().map(|row| (&*row.pool, row.exhausted)).collect();
    let exhausted = exhausted.into_iter().map(|(pool, count)| ([pool], count));
    out.counters(
        "equipoise_nat_exhausted_flows",
        "New flows refused because a NAT pool had no port.",
        ["nat_pool"],
        exhausted,
    )
}

pub(super) fn sources(rows: &[SourceRow], out: &mut Out<'_>) -> fmt::Result {
    let labels = ["pool", "kind"];
    let servers = rows.iter().map(|row| ([&*row.pool, &*row.kind], row.servers as f64));
    out.gauges(
        "equipoise_source_servers",
        "Servers of the list in use that a pool takes from outside.",
        labels,
        servers,
    )?;
    let failing = rows.iter().map(|row| ([&*row.pool, &*row.kind], flag(row.error.is_some())));
    out.gauges(
        "equipoise_source_failing",
        "Whether the source of that list fails; the last good list stays in use.",
        labels,
        failing,
    )?;
    let age = rows.iter().filter_map(|row| Some(([&*row.pool, &*row.kind], row.good_ms? as f64 / 1e3)));
    out.gauges(
        "equipoise_source_age_seconds",
        "Time since that list was last confirmed; absent if it never was.",
        labels,
        age,
    )
}

pub(super) fn probes(rows: &[ProbeTotals], out: &mut Out<'_>) -> fmt::Result {
    let results = rows.iter().flat_map(|row| {
        let name = row.kind.name();
        [([name, "answered"], row.answered), ([name, "failed"], row.failed)]
    });
    out.counters("equipoise_probes", "Probes of the monitors, by type and result.", ["probe", "result"], results)?;
    let latencies = rows.iter().map(|row| ([row.kind.name()], &row.latency));
    out.histograms(
        "equipoise_probe_latency_seconds",
        "Time from a probe to its answer, by type.",
        1e-9,
        ["probe"],
        latencies,
    )
}
