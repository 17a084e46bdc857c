//! A packet without a flow: rules, service, limits, the client's sticky slot, candidates.

use super::super::Reason;
use super::super::arrival::Arrival;
use super::super::step::Step;
use super::foresee::Prospect;
use super::{CandidateLine, Explanation, LimitLine, RuleLine, Runs, ServiceLine, StickyLine, state_after, timer};
use crate::balance::{Ask, PickedBy};
use crate::flow::Key;
use crate::ids::{NatPoolId, ServerId, ServiceId};
use crate::packet::Transport;
use crate::policy::{Action, Mismatch, RateUsage, RuleSettings, Usage};

/// Maximum number of servers that an explanation lists.
const MOST_CANDIDATES: usize = 256;

/// Adds the parts that apply to it.
pub(super) fn explain(prospect: &mut Prospect<'_>, arrival: &Arrival<'_>, step: &Step, explanation: &mut Explanation) {
    let (Some(key), Step::Open(_) | Step::Settle(_)) = (&arrival.key(), step) else { return };
    if prospect.without_room(arrival, step).is_some() {
        return;
    }
    rules(prospect, arrival, key, explanation);
    let Some(service) = prospect.scratch.opening.service else {
        return explanation.notes.extend(off(prospect, key));
    };
    explanation.service = Some(service_line(prospect, key, service));
    if prospect.scratch.opening.admission.is_none() {
        return;
    }
    limits(prospect, arrival, key, service, explanation);
    prospect.refresh(arrival.now, service, key);
    let prospect = &*prospect;
    let opening = &prospect.scratch.opening;
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
    let opens_midway = matches!(arrival.parsed.transport, Transport::Tcp { flags, .. } if !flags.syn());
    if opens_midway && opening.new.is_some() {
        explanation.notes.push("adopted: the flow begins in the middle of its connection".into());
    }
    if let Some((new, by, follow)) = &opening.new {
        explanation.outcome.server = Some(prospect.engine.plan.server_name(new.server_id));
        explanation.outcome.picked_by = Some(*by);
        if let Step::Open(onward) = step
            && let Some(state) = state_after(onward, follow)
        {
            let timeout = prospect.engine.shard.table().timeout_of_new(new.profile, state);
            let usual = prospect.engine.shard.table().timeout(0, state);
            explanation.timers.push(timer(state, timeout, timeout == usual, Runs::Anew));
        }
        if let Some(pool) = prospect.engine.shard.nat_pools().get(usize::from(new.nat_pool)) {
            let name = prospect.engine.plan.nat_pool_name(NatPoolId(u32::from(new.nat_pool)));
            let rests = humantime::format_duration(pool.settings().hold);
            explanation.notes.push(format!(
                "full NAT: source from pool {name}; after the flow, its port rests for {rests} towards this server"
            ));
        }
    }
}

/// Adds which flow yields its return key, and which one gives way if there is no room.
pub(super) fn room(prospect: &Prospect<'_>, arrival: &Arrival<'_>, step: &Step, explanation: &mut Explanation) {
    let makes_room = match step {
        Step::Hit(hit) => hit.leaves_half_open(),
        Step::Open(_) | Step::Settle(_) => true,
        _ => false,
    };
    let opening = &prospect.scratch.opening;
    if let (Step::Open(_), Some(over)) = (step, opening.yields) {
        let row = prospect.engine.shard.row(&prospect.engine.plan, arrival.now, over);
        let state = row.state.name();
        explanation.before.push(format!("flow {} ({state}) is over and yields its return key", row.id));
    }
    let (true, Some(short), Some(room)) = (makes_room, opening.short, opening.room) else { return };
    let Some((victim, class)) = room.victim else { return };
    let row = prospect.engine.shard.row(&prospect.engine.plan, arrival.now, victim);
    let text = format!("{} is full: flow {} ({}, {}) gives way", short.text(), row.id, row.state.name(), class.name());
    explanation.before.push(text);
}

fn rules(prospect: &Prospect<'_>, arrival: &Arrival<'_>, key: &Key, explanation: &mut Explanation) {
    let (rules, switches) = (prospect.engine.plan.rules(), prospect.standing.switches());
    let decided = prospect.scratch.opening.rule;
    for (place, (number, rule)) in (1..).zip(rules.in_order()) {
        let why_not = if !switches.is_on(number) {
            Some("off".to_owned())
        } else {
            rule.mismatch(key, arrival.meta.ingress).map(|mismatch| differs(mismatch, rule, key))
        };
        explanation.rules.push(RuleLine {
            place,
            rule: rule.name.clone(),
            action: action(prospect, rule.action),
            matches: number == decided,
            why_not,
        });
        if number == decided {
            return;
        }
    }
}

fn action(prospect: &Prospect<'_>, action: Action) -> String {
    match action {
        Action::Balance(Some(service)) => format!("balance to {}", prospect.engine.plan.service(service).name),
        other => other.name().into(),
    }
}

fn differs(mismatch: Mismatch, rule: &RuleSettings, key: &Key) -> String {
    let range = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let ports = |ranges: &[(u16, u16)]| list(ranges.iter().map(range));
    let networks = |networks: &[ipnet::IpNet]| list(networks.iter().map(ToString::to_string));
    match mismatch {
        Mismatch::Protocol => {
            let wanted = rule.protocol.map_or(String::new(), |protocol| protocol.name().to_string());
            format!("protocol {} is not {wanted}", key.protocol.name())
        }
        Mismatch::Ingress => "it came in at another interface, or at one that is not known".into(),
        Mismatch::Ports => format!("destination port {} is not {}", key.dst_port, ports(&rule.ports)),
        Mismatch::SourcePorts => format!("source port {} is not {}", key.src_port, ports(&rule.source_ports)),
        Mismatch::From => format!("source {} is not in {}", key.addresses.src(), networks(&rule.from)),
        Mismatch::To => format!("destination {} is not in {}", key.addresses.dst(), networks(&rule.to)),
    }
}

/// Lists a few items, and how many more there are.
fn list(all: impl ExactSizeIterator<Item = String>) -> String {
    const FEW: usize = 4;
    let more = all.len().saturating_sub(FEW);
    let few = all.take(FEW).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{few} or {more} more") } else { few }
}

/// Says which service would take the packet if it were on.
fn off(prospect: &Prospect<'_>, key: &Key) -> Option<String> {
    let plan = &prospect.engine.plan;
    let named = match plan.rules().get(prospect.scratch.opening.rule).map(|rule| rule.action) {
        Some(Action::Balance(named)) => named,
        Some(_) => return None,
        None => None,
    };
    let listens = || plan.directory().service(key.addresses.dst(), key.protocol, key.dst_port);
    let service = plan.service(named.or_else(listens)?);
    (!service.enabled).then(|| format!("service {} is off: nothing listens there until it is on", service.name))
}

fn service_line(prospect: &Prospect<'_>, key: &Key, service: ServiceId) -> ServiceLine {
    let plan = &prospect.engine.plan;
    let (_, pool, algorithm) = plan.service_row(service);
    let rule = plan.rules().get(prospect.scratch.opening.rule);
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
    let usage: Usage = engine.shard.policy().usage(rules, arrival.now, (rule, reserved), client);
    // A flow that counts as ended is still included there.
    let ended = prospect.foresight.without.filter(|ended| ended.proven);
    let of_rule = u64::from(ended.is_some_and(|ended| ended.rule == rule));
    let of_client = u64::from(ended.is_some_and(|ended| ended.rule == rule && ended.client == client));
    let mut line = |limit: &str, used: u64, (most, total): (u64, u64), refuses: bool| {
        explanation.limits.push(LimitLine { limit: limit.into(), used, most, total, refuses });
    };
    let (len, max) = (u64::from(prospect.look().flows_that_stay()), u64::from(engine.shard.table().max()));
    let refuses = reserved > 0 && len * 100 >= max * (100 - reserved);
    line("table", len, (max * (100 - reserved) / 100, max), refuses);
    if let Some((flows, most)) = usage.rule_flows {
        let flows = u64::from(flows) - of_rule;
        line("rule-flows", flows, (most.into(), most.into()), flows >= u64::from(most));
    }
    if let Some((flows, most)) = usage.client_flows {
        let flows = u64::from(flows).saturating_sub(of_client);
        line("client-flows", flows, (most.into(), most.into()), flows >= u64::from(most));
    }
    for (name, rate, reserved) in [
        ("client-rate", usage.client_rate, 0),
        ("rule-rate", usage.rule_rate, 0),
        ("gateway-rate", usage.gateway_rate, reserved),
    ] {
        let Some(RateUsage { left, rate, refuses }) = rate else { continue };
        let (left, most) = (u64::from(left), u64::from(rate));
        let usable = most * (100 - reserved) / 100;
        let used = most - left.min(most);
        line(name, used, (usable, most), refuses);
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
    let by_last_resort = opening.new.as_ref().is_some_and(|(_, by, _)| *by == PickedBy::LastResort);
    let facts = engine.shard.chooser().candidates(ask, MOST_CANDIDATES);
    let all = ask.roster.servers_of(ask.service).count();
    if all > facts.len() {
        explanation.notes.push(format!("{} more servers are not listed", all - facts.len()));
    }
    let unfit = |server: ServerId| {
        let found = opening.unfit.iter().find(|(of, _)| *of == server);
        found.map(|(_, why)| match why {
            Reason::Untranslatable => "the packet cannot be translated for its family".to_owned(),
            Reason::NatExhausted => "no source port is left towards it".to_owned(),
            _ => "another flow has the return key".to_owned(),
        })
    };
    for fact in facts {
        let is_chosen = chosen == Some(fact.server) && fact.last_resort == by_last_resort;
        explanation.candidates.push(CandidateLine {
            server: engine.plan.server_name(fact.server),
            last_resort: fact.last_resort,
            weight: fact.state.weight,
            weight_now: fact.state.weight_now,
            health: fact.health,
            admin: fact.state.admin,
            flows: fact.flows,
            max_flows: ask.roster.server(fact.server).max_flows,
            // Stickiness may choose a server that the algorithm would not.
            out: if is_chosen { None } else { fact.out.or_else(|| unfit(fact.server)) },
            score: fact.score,
            chosen: is_chosen,
        });
    }
    let by_algorithm =
        opening.new.as_ref().is_some_and(|(_, by, _)| matches!(by, PickedBy::Algorithm | PickedBy::LastResort));
    if by_algorithm {
        explanation.arithmetic = engine.shard.chooser().arithmetic(ask, by_last_resort);
    }
}
