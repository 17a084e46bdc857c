//! The facts behind a choice, read from the same data that the choice reads: the candidates, the other servers with the
//! reason why they are not candidates, and what the algorithm compares.

use super::chooser::{Ask, Chooser, Counting, NotSticky, Stale, View};
use super::picker::{Own, Picker};
use super::resource_usage::{Usage, estimate};
use super::server::STEPS;
use super::{Admin, Algorithm, Health, ServerState};
use crate::flow::Slot;
use crate::ids::ServerId;
use crate::time::Duration;

/// A server that could take a flow.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateFacts {
    /// The server.
    pub server: ServerId,
    /// Whether it belongs to the last-resort pool.
    pub last_resort: bool,
    /// Its standing.
    pub state: ServerState,
    /// Its health according to its monitors, for clients of the packet's family.
    pub health: Health,
    /// Its flows.
    pub flows: u32,
    /// Why it is not a candidate; none if it is one.
    pub out: Option<String>,
    /// What the algorithm compares.
    pub score: Option<String>,
}

/// A client's sticky slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyFacts {
    /// The slot.
    pub slot: Slot,
    /// Why it does not apply; none if it does.
    pub why_not: Option<&'static str>,
}

impl Chooser {
    /// Returns a group of the service that has to be brought up to date first.
    pub fn behind(&self, ask: &Ask<'_>) -> Option<Stale> {
        let view = View::new(self, ask);
        let groups = [Some(ask.service.0), ask.roster.last_resort(ask.service.0)];
        groups.into_iter().flatten().find(|group| !view.is_ready(ask, *group)).map(Stale)
    }

    /// Returns the servers that could take a flow, in pool order, then those of the last resort; at most `most`.
    pub fn candidates(&self, ask: &Ask<'_>, most: usize) -> Vec<CandidateFacts> {
        let view = View::new(self, ask);
        let groups = [Some(ask.service.0), ask.roster.last_resort(ask.service.0)];
        let of = |group: u32| (0..ask.roster.group(group).places.len()).map(move |place| (group, place));
        let all = groups.into_iter().flatten().flat_map(of);
        // Computed once for all candidates: the Maglev table may be long.
        let shares = match view.picker(ask, ask.service.0).0 {
            Picker::Maglev(maglev, ..) => maglev.shares(),
            _ => Vec::new(),
        };
        let counting = [ask.service.0, ask.roster.last_resort(ask.service.0).unwrap_or(ask.service.0)]
            .map(|group| (group, view.counting(ask, group)));
        let of = |group: u32| counting[usize::from(counting[0].0 != group)].1;
        all.take(most).map(|(group, place)| view.candidate(ask, (group, of(group)), place, &shares)).collect()
    }

    /// Returns the client's sticky slot.
    pub fn sticky(&self, ask: &Ask<'_>) -> Option<StickyFacts> {
        let view = View::new(self, ask);
        let fits = |slot: &Slot| view.why_not_sticky(ask, *slot).is_none();
        let slot = self.slots(ask).find(fits).or_else(|| self.slots(ask).next())?;
        let why_not = view.why_not_sticky(ask, slot).map(|why| match why {
            NotSticky::Elsewhere => "the service does not use that server",
            NotSticky::Unusable => "that server may not be given flows",
            NotSticky::Full => "that server has as many flows as it may",
            NotSticky::WasAway => "that server has been out of service since",
        });
        Some(StickyFacts { slot, why_not })
    }

    /// Returns how the algorithm of the service, or that of its last resort, chooses, in words.
    pub fn arithmetic(&self, ask: &Ask<'_>, last_resort: bool) -> Option<String> {
        let group = if last_resort { ask.roster.last_resort(ask.service.0)? } else { ask.service.0 };
        let (view, places) = (View::new(self, ask), &ask.roster.group(group).places);
        let counting = view.counting(ask, group);
        let refuses = |place: usize| view.refuses(ask.roster, places[place], counting, &[]);
        let (picker, own, _) = view.picker(ask, group);
        Some(picker.arithmetic(own, ask, places, &refuses))
    }
}

impl View<'_> {
    /// Returns which flows are compared with the limits of a group's servers.
    fn counting(&self, ask: &Ask<'_>, group: u32) -> Counting {
        let base = ask.roster.base(group);
        let (places, v6) = (&ask.roster.group(group).places, ask.key.addresses.dst().is_ipv6());
        let has_room = |place: usize| {
            self.weights(base, v6, place).1 > 0 && !self.refuses(ask.roster, places[place], Counting::All, &[])
        };
        if (0..places.len()).any(has_room) { Counting::All } else { Counting::Proven }
    }

    fn candidate(
        &self,
        ask: &Ask<'_>,
        (group, counting): (u32, Counting),
        place: usize,
        shares: &[f64],
    ) -> CandidateFacts {
        let (roster, v6) = (ask.roster.group(group), ask.key.addresses.dst().is_ipv6());
        let server = roster.places[place];
        let state = ask.standings.state(ask.roster, ask.now, server);
        let base = ask.roster.base(group);
        let health = ask.standings.health(base, usize::from(v6), place);
        let flows = self.flows(server);
        let (usable, weight) = self.weights(base, v6, place);
        let out = if !roster.reached[usize::from(v6)][place] {
            Some(format!("no address for {} clients", if v6 { "IPv6" } else { "IPv4" }))
        } else if state.admin != Admin::Enabled {
            Some(if state.admin == Admin::Draining { "draining".into() } else { "disabled".into() })
        } else if state.weight == 0 {
            Some("weight 0".into())
        } else if state.maintenance {
            Some("asked for no new flows (maintenance)".into())
        } else if let Some(until) = state.held_until {
            Some(format!("passive hold for {:.1} s more", until.since(ask.now).as_secs_f64()))
        } else if health != Health::Up {
            Some(if health == Health::Down { "down".to_owned() } else { "health not known yet".to_owned() })
        } else if self.is_full(ask.roster, server) {
            Some("has as many flows as it may".into())
        } else if self.refuses(ask.roster, server, counting, &[]) {
            Some("full once its flows are proven".into())
        } else if usable > 0 && weight == 0 {
            let (backup, rank) = roster.ranks[place];
            Some(if backup { "backup: others serve".into() } else { format!("priority {rank}: a better one serves") })
        } else {
            None
        };
        let score = if out.is_none() { self.score(ask, group, place, shares) } else { None };
        CandidateFacts { server, last_resort: group != ask.service.0, state, health, flows, out, score }
    }

    fn score(&self, ask: &Ask<'_>, group: u32, place: usize, shares: &[f64]) -> Option<String> {
        let server = ask.roster.group(group).places[place];
        let (picker, own, family) = self.picker(ask, group);
        let weight = self.weights(ask.roster.base(group), family, place).1;
        let usage = super::chooser::usage_of(self, ask, server);
        match picker {
            Picker::Maglev(..) => Some(format!("{:.2} % of the table", shares.get(place)? * 100.0)),
            _ => picker.score(own, (place, weight), (self.flows(server), usage), ask),
        }
    }
}

/// Returns a weight in the units of the settings, from units of 1/16.
fn whole(units: u32) -> String {
    let weight = f64::from(units) / f64::from(STEPS);
    format!("{weight}")
}

impl Picker {
    /// Returns what the algorithm compares for a candidate, in words and figures.
    fn score(
        &self,
        own: &Own,
        (place, weight): (usize, u32),
        load: (u32, Option<Usage>),
        ask: &Ask<'_>,
    ) -> Option<String> {
        let per_weight = |load: f64| load / (f64::from(weight.max(1)) / f64::from(STEPS));
        let (flows, usage) = load;
        Some(match self {
            Picker::RoundRobin(schedule) => match own {
                Own::Position(position) => format!("due in {:.4} rounds", rounds(position.due_in(schedule, place)?)),
                _ => return None,
            },
            Picker::LeastConnections(_) | Picker::TwoChoices(_) => {
                let each = per_weight(f64::from(flows) + 1.0);
                format!("({flows} + 1) flows / weight {} = {each:.4}", whole(weight))
            }
            Picker::ConnectionRate(rate) => {
                let recent = rate.recent(place);
                let each = per_weight(recent as f64 + 1.0);
                format!("({recent} + 1) new flows / weight {} = {each:.4}", whole(weight))
            }
            Picker::Random(random) => {
                let (own, all) = random.share(place)?;
                format!("{:.2} % of the draws", own as f64 * 100.0 / all as f64)
            }
            Picker::SourceHash(source, hash, prefixes) => {
                let client = hash.client(ask.key.addresses.src(), prefixes);
                format!("draws {}", source.draw(client, place)?)
            }
            Picker::Maglev(..) => return None,
            Picker::LeastLatency(least) => {
                let latency = least.latency(place);
                let each = per_weight(latency.as_secs_f64() * 1e3);
                let what = if least.is_measured(place) { "round trip" } else { "round trip (average of the others)" };
                format!("{what} {:.3} ms / weight {} = {each:.4}", millis(latency), whole(weight))
            }
            Picker::ResourceUsage(all) => match (all.waits_with(), usage) {
                (Some((schedule, position)), _) => {
                    format!("due in {:.4} rounds", rounds(position.due_in(schedule, place)?))
                }
                (None, Some(usage)) => format!(
                    "load {} % + {} flows since = {:.3} %",
                    usage.load,
                    usage.given_since,
                    estimate(&usage) as f64 / 1e3
                ),
                (None, None) => return None,
            },
        })
    }

    /// Returns how the algorithm chooses, in words.
    fn arithmetic(&self, own: &Own, ask: &Ask<'_>, places: &[ServerId], refuses: &dyn Fn(usize) -> bool) -> String {
        match self {
            Picker::RoundRobin(_) if ask.roster.service(ask.service).algorithm == Algorithm::Priority => {
                "of the servers of the best priority that any usable server has, the one that is due first".into()
            }
            Picker::RoundRobin(_) => {
                "the server that is due first: each is due every 1/weight of a round".into()
            }
            Picker::LeastConnections(_) => {
                "the fewest flows per weight, counting the new one; among equals the one picked longest ago".into()
            }
            Picker::ConnectionRate(_) => {
                "the fewest new flows per weight within the window; among equals the one picked longest ago".into()
            }
            Picker::Random(_) => "drawn at random, as likely as the weight".into(),
            Picker::TwoChoices(two) => {
                let drawn = two.drawn_from(&mut own.draw(), refuses);
                let name = |place: usize| ask.roster.server(places[place]).name.clone();
                let drawn = drawn.map_or(String::new(), |(one, other)| format!(": {} and {}", name(one), name(other)));
                format!("two are drawn at random, as likely as the weight{drawn}; the less loaded of them")
            }
            Picker::SourceHash(source, hash, prefixes) => {
                let client = prefixes.of(ask.key.addresses.src());
                let hashed = hash.client(ask.key.addresses.src(), prefixes);
                let within = if source.has_tables() { "; it draws a table of servers, and of these" } else { ";" };
                format!("client {client} hashes to {hashed:016x}{within} the server that draws the highest number for it")
            }
            Picker::Maglev(maglev, hash, prefixes) => {
                let (what, hashed) = match prefixes {
                    None => ("flow".into(), hash.flow(ask.key)),
                    Some(prefixes) => {
                        let client = ask.key.addresses.src();
                        (format!("client {}", prefixes.of(client)), hash.client(client, prefixes))
                    }
                };
                match maglev.entry(hashed) {
                    None => format!("the {what} hashes to {hashed:016x}; the table is empty"),
                    Some((entry, size)) => format!(
                        "the {what} hashes to {hashed:016x}: entry {entry} of {size}; where its server refuses, entries \
                         of further hashes"
                    ),
                }
            }
            Picker::LeastLatency(_) => {
                "the shortest round trip per weight; among equals the one picked longest ago".into()
            }
            Picker::ResourceUsage(all) if all.waits_with().is_some() => {
                "in turn, until every candidate has reported its load".into()
            }
            Picker::ResourceUsage(_) => {
                "the least reported load, with an estimate for the flows given since; among equals the one picked longest \
                 ago"
                    .into()
            }
        }
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Rounds of round robin, from its units: 2^80 at a weight of one unit.
fn rounds(due: u128) -> f64 {
    due as f64 / (1u128 << 80) as f64 * f64::from(STEPS)
}
