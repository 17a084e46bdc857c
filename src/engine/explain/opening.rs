//! How a packet of no flow fares: rules, service, limits, what is remembered of the client, candidates.

use super::super::arrival::Arrival;
use super::super::step::Step;
use super::foresee::Prospect;
use super::{CandidateLine, Explanation, LimitLine, RuleLine, ServiceLine, StickyLine, state_after, timer};
use crate::balance::Ask;
use crate::flow::Key;
use crate::ids::{NatPoolId, ServerId, ServiceId};
use crate::policy::{Action, Mismatch, NO_RULE, Usage};

/// Most servers that an explanation lists.
const MOST_CANDIDATES: usize = 256;

/// Adds what applies of it.
pub(super) fn explain(prospect: &Prospect<'_>, arrival: &Arrival<'_>, step: &Step, explanation: &mut Explanation) {
    let (Some(key), Step::Open(_) | Step::Settle(_)) = (&arrival.key, step) else { return };
    if prospect.engine.shard.table().find(key).is_some() && prospect.before.is_empty() {
        return;
    }
    rules(prospect, arrival, key, explanation);
    let opening = &prospect.scratch.opening;
    let Some(service) = opening.service else { return };
    explanation.service = Some(service_line(prospect, key, service));
    limits(prospect, arrival, key, service, explanation);
    let ask = Ask {
        now: arrival.now,
        roster: prospect.engine.plan.roster(),
        standings: prospect.standing.servers(),
        service,
        key,
        overlay: Some(&prospect.foresight.overlay),
    };
    sticky(prospect, &ask, explanation);
    candidates(prospect, &ask, explanation);
    if let Some((new, by, follow)) = &opening.new {
        explanation.outcome.server = Some(prospect.engine.plan.server_name(new.server_id));
        explanation.outcome.picked_by = Some(*by);
        if let Step::Open(onward) = step
            && let Some(state) = state_after(onward, follow)
        {
            let timeout = prospect.engine.shard.table().timeout(new.profile, state);
            explanation.timers.push(timer(state, timeout, new.profile, true));
        }
        if let Some(pool) = prospect.engine.shard.nat_pools().get(usize::from(new.nat_pool)) {
            let name = prospect.engine.plan.nat_pool_name(NatPoolId(u32::from(new.nat_pool)));
            let rests = humantime::format_duration(pool.settings().hold);
            explanation
                .notes
                .push(format!("full NAT: source from pool {name}; its port rests for {rests} after the flow"));
        }
    }
    if let Some(victim) = opening.victim {
        let row = prospect.engine.shard.row(&prospect.engine.plan, arrival.now, victim);
        let text = format!("the table is full: flow {} ({}) gives way", row.id, row.state.name());
        explanation.before.push(text);
    }
}

fn rules(prospect: &Prospect<'_>, arrival: &Arrival<'_>, key: &Key, explanation: &mut Explanation) {
    let (rules, switches) = (prospect.engine.plan.rules(), prospect.standing.switches());
    let decided = prospect.scratch.opening.rule;
    let shown = if decided == NO_RULE { rules.all().len() } else { usize::from(decided) + 1 };
    for (number, rule) in (0..).zip(rules.all()).take(shown) {
        let why_not = if !switches.is_on(number) {
            Some("off".to_owned())
        } else {
            rule.mismatch(key, arrival.meta.ingress).map(|mismatch| differs(mismatch, key))
        };
        explanation.rules.push(RuleLine {
            place: number + 1,
            rule: rule.name.clone(),
            action: action(prospect, rule.action),
            matches: number == decided,
            why_not,
        });
    }
}

fn action(prospect: &Prospect<'_>, action: Action) -> String {
    match action {
        Action::Balance(Some(service)) => format!("balance to {}", prospect.engine.plan.service(service).name),
        other => other.name().into(),
    }
}

fn differs(mismatch: Mismatch, key: &Key) -> String {
    match mismatch {
        Mismatch::Protocol => format!("protocol is {}", key.protocol.name()),
        Mismatch::Ingress => "it came in at another interface, or at one that is not known".into(),
        Mismatch::Ports => format!("destination port is {}", key.dst_port),
        Mismatch::SourcePorts => format!("source port is {}", key.src_port),
        Mismatch::From => format!("source address is {}", key.addresses.src()),
        Mismatch::To => format!("destination address is {}", key.addresses.dst()),
    }
}

fn service_line(prospect: &Prospect<'_>, key: &Key, service: ServiceId) -> ServiceLine {
    let plan = &prospect.engine.plan;
    let (_, pool, algorithm) = plan.service_row(service);
    let rule = plan.rules().all().get(usize::from(prospect.scratch.opening.rule));
    let found_by = match rule {
        Some(rule) if rule.action == Action::Balance(Some(service)) => format!("rule {}", rule.name),
        _ => {
            let holds = |listen: &&crate::balance::Listen| {
                listen.protocol == key.protocol
                    && listen.network().contains(&key.addresses.dst())
                    && (listen.first_port..=listen.last_port).contains(&key.dst_port)
            };
            let listen = plan.service(service).listen.iter().filter(holds).max_by_key(|listen| listen.prefix);
            listen.map_or_else(String::new, |listen| format!("listen address {listen}"))
        }
    };
    ServiceLine { service: plan.service(service).name.clone(), found_by, pool: pool.into(), algorithm }
}

fn limits(
    prospect: &Prospect<'_>,
    arrival: &Arrival<'_>,
    key: &Key,
    service: ServiceId,
    explanation: &mut Explanation,
) {
    let engine = prospect.engine;
    let (rules, rule) = (engine.plan.rules(), prospect.scratch.opening.rule);
    let priority = rules.priority(rule).unwrap_or(engine.plan.service(service).priority);
    let reserved = rules.reserved(priority);
    let client = key.addresses.src();
    let usage: Usage = engine.shard.policy().usage(rules, arrival.now, rule, client);
    // A flow that counts as ended is still counted there.
    let ended = prospect.foresight.without;
    let of_rule = u64::from(ended.is_some_and(|ended| ended.rule == rule));
    let of_client = u64::from(ended.is_some_and(|ended| ended.rule == rule && ended.client == client));
    let mut line = |limit: &str, used: u64, most: u64, refuses: bool| {
        explanation.limits.push(LimitLine { limit: limit.into(), used, most, refuses });
    };
    let (len, max) =
        (u64::from(engine.shard.table().len()) - u64::from(ended.is_some()), u64::from(engine.shard.table().max()));
    line("table", len, max * (100 - reserved) / 100, reserved > 0 && len * 100 >= max * (100 - reserved));
    if let Some((flows, most)) = usage.rule_flows {
        let flows = u64::from(flows) - of_rule;
        line("rule-flows", flows, u64::from(most), flows >= u64::from(most));
    }
    if let Some((flows, most)) = usage.client_flows {
        let flows = u64::from(flows).saturating_sub(of_client);
        line("client-flows", flows, u64::from(most), flows >= u64::from(most));
    }
    for (name, rate, reserved) in [
        ("client-rate", usage.client_rate, 0),
        ("rule-rate", usage.rule_rate, 0),
        ("gateway-rate", usage.gateway_rate, reserved),
    ] {
        let Some((left, most)) = rate else { continue };
        let (left, most) = (u64::from(left), u64::from(most));
        let usable = most * (100 - reserved) / 100;
        let used = most - left.min(most);
        line(name, used, usable, used > 0 && used >= usable);
    }
}

fn sticky(prospect: &Prospect<'_>, ask: &Ask<'_>, explanation: &mut Explanation) {
    let Some(facts) = prospect.engine.shard.chooser().sticky(ask) else { return };
    let Some(stickiness) = &ask.roster.service(ask.service).sticky else { return };
    let age = ask.now.since(facts.slot.since);
    explanation.sticky = Some(StickyLine {
        client: stickiness.prefixes.of(ask.key.addresses.src()),
        server: prospect.engine.plan.server_name(facts.slot.server),
        flows: facts.slot.flows,
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        holds: facts.why_not.is_none(),
        why_not: facts.why_not.map(Into::into),
    });
}

fn candidates(prospect: &Prospect<'_>, ask: &Ask<'_>, explanation: &mut Explanation) {
    let (engine, opening) = (prospect.engine, &prospect.scratch.opening);
    let chosen: Option<ServerId> = opening.new.as_ref().map(|(new, ..)| new.server_id);
    let by_last_resort = opening.new.as_ref().is_some_and(|(_, by, _)| *by == crate::balance::PickedBy::LastResort);
    let facts = engine.shard.chooser().candidates(ask, MOST_CANDIDATES);
    let all = ask.roster.servers_of(ask.service).count();
    if all > facts.len() {
        explanation.notes.push(format!("{} more servers are not listed", all - facts.len()));
    }
    for fact in facts {
        explanation.candidates.push(CandidateLine {
            server: engine.plan.server_name(fact.server),
            last_resort: fact.last_resort,
            weight: fact.state.weight,
            weight_now: fact.state.weight_now,
            health: fact.health,
            admin: fact.state.admin,
            flows: fact.flows,
            max_flows: ask.roster.server(fact.server).max_flows,
            out: fact.out,
            score: fact.score,
            chosen: chosen == Some(fact.server) && fact.last_resort == by_last_resort,
        });
    }
    explanation.arithmetic = engine.shard.chooser().arithmetic(ask, by_last_resort);
    let tried = opening.picks.len().saturating_sub(usize::from(chosen.is_some()));
    if tried > 0 {
        let text = format!("{tried} picked before: another flow has the return key, or the family does not fit");
        explanation.notes.push(text);
    }
}
