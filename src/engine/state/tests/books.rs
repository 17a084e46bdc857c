//! An audit: everything that an engine counts about its flows, counted again from the flows alone.

use super::super::super::*;
use crate::flow::{Mapping, SavedFlow, Table};
use crate::policy::NO_RULE;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Flows that are not half-open, by slot.
fn flows(engine: &Engine) -> Vec<(u32, SavedFlow)> {
    let table = engine.shard.table();
    let used = table.slots(Table::position(0)).filter(|(_, used)| *used);
    used.filter_map(|(index, _)| Some((index, table.save(index)?))).collect()
}

/// Panics if anything is counted wrong. There must be no half-open flow.
pub(super) fn audit(engine: &Engine, now: Instant) {
    let flows = flows(engine);
    let count = |which: &dyn Fn(&SavedFlow) -> bool| flows.iter().filter(|(_, saved)| which(saved)).count() as u64;
    let counters = engine.counters();
    let ended: u64 = counters.flows_ended.iter().map(|ended| ended.count).sum();
    assert_eq!((counters.flows, counters.flows_opened), (flows.len() as u64, flows.len() as u64 + ended));
    for state in counters.states {
        assert_eq!(state.count, count(&|saved| saved.state == state.kind), "{state:?}");
    }
    for id in engine.plan.order().services.clone() {
        let row = engine.services().into_iter().find(|row| row.service == engine.plan.service(id).name).unwrap();
        assert_eq!(row.flows, count(&|saved| saved.flow.service == id), "{row:?}");
    }
    for id in engine.plan.order().servers.clone() {
        let (pool, server) = engine.plan.pool_and_server(id);
        let row = engine.servers(now).into_iter().find(|row| (&*row.pool, &*row.server) == (pool, server)).unwrap();
        let own = |saved: &SavedFlow| saved.flow.server_id == id;
        assert_eq!((row.flows, row.proven), (count(&own), count(&|saved| own(saved) && saved.proven)), "{row:?}");
    }
    rules(engine, now, &flows);
    sticky(engine, &flows);
    ports(engine, now);
}

/// Rules, and each client of each.
fn rules(engine: &Engine, now: Instant, flows: &[(u32, SavedFlow)]) {
    let rules = engine.plan.rules();
    for (number, rule) in rules.in_order() {
        let own: Vec<&SavedFlow> = flows.iter().map(|(_, saved)| saved).filter(|s| s.flow.rule == number).collect();
        let proven: Vec<&&SavedFlow> = own.iter().filter(|saved| saved.proven).collect();
        let totals = engine.shard.policy().totals(number);
        assert_eq!((totals.flows as usize, totals.proven as usize), (own.len(), proven.len()), "{rule:?}");
        let mut clients: BTreeMap<IpAddr, u32> = BTreeMap::new();
        for saved in &proven {
            *clients.entry(rule.client.of(saved.flow.client.addresses.src())).or_default() += 1;
        }
        for (client, flows) in clients {
            let used = engine.shard.policy().usage(rules, now, (number, 0), client).client_flows;
            assert!(used.is_none_or(|(used, _)| used == flows), "{used:?} of {client} by {rule:?}: {flows}");
        }
    }
    assert!(flows.iter().all(|(_, saved)| saved.flow.rule == NO_RULE || rules.get(saved.flow.rule).is_some()));
}

/// Which sticky clients have flows.
fn sticky(engine: &Engine, flows: &[(u32, SavedFlow)]) {
    let mut chooser = engine.shard.chooser().clone();
    let known = (engine.plan.roster(), engine.standing.servers());
    chooser.begin_sticky_walk(crate::flow::Watcher::Successor);
    for group in engine.shard.chooser().sticky_groups().collect::<Vec<_>>() {
        let mut busy = BTreeSet::new();
        let mut take = |slot: crate::flow::SavedSlot| _ = slot.is_busy && busy.insert((slot.client, slot.proven));
        while chooser.walk_sticky(engine.standing.servers(), (crate::flow::Watcher::Successor, group), 100, &mut take)
            > 0
        {}
        let counted = flows.iter().filter_map(|(index, saved)| {
            let of = engine.plan.roster().service(saved.flow.service).sticky.as_ref().filter(|of| of.group == group)?;
            let client = saved.flow.client.addresses.src();
            let kept = (saved.flow.server_id, saved.proven, engine.shard.table().note(*index));
            let counts = engine.shard.chooser().counts(known, (saved.flow.service, client), kept);
            counts.then(|| (of.prefixes.of(client), saved.proven))
        });
        assert_eq!(busy, counted.collect(), "group {group}");
    }
}

/// Panics if a port of a NAT pool is that of two flows, or rests although it is that of one. Half-open flows may be there.
pub(super) fn ports(engine: &Engine, now: Instant) {
    let mut rows = Vec::new();
    engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
    let mut used = BTreeMap::new();
    for row in rows.iter().filter(|row| row.source.is_some()) {
        let Some(source) = row.source else { continue };
        let key = (source, row.protocol.number(false), row.server_address);
        assert!(used.insert(key, false).is_none(), "a port of two flows: {row:?}");
    }
    for pool in engine.shard.nat_pools() {
        for rest in pool.resting((Instant::ZERO, 0)) {
            let Mapping { address, port, protocol, server } = rest.mapping;
            let server = SocketAddr::new(server.address, server.port);
            let key = (SocketAddr::new(address, port), protocol.number(false), server);
            assert!(used.insert(key, true).is_none(), "a port that rests twice, or is in use: {rest:?}");
        }
    }
    for nat in engine.nat_pools() {
        let count = |rests: bool| {
            let own = |key: &(SocketAddr, u8, _)| (key.0.ip(), key.1) == (nat.address, nat.protocol.number(false));
            used.iter().filter(|(key, of)| own(key) && **of == rests).count() as u32
        };
        assert_eq!((nat.used, nat.resting), (count(false), count(true)), "{nat:?}");
    }
}
