//! One shard's part of balancing: each server's load here, the state of each algorithm, and the sticky clients.
//!
//! [`Chooser::choose`] changes nothing; [`Chooser::picked`] and [`Chooser::opened`] carry out the result.

mod follow;
mod listed;
mod saved;

pub use follow::Loads;

use super::choice::Choice;
use super::picker::{Own, Picker};
use super::resource_usage::Usage;
use super::roster::Roster;
use super::settings::{Algorithm, Stickiness};
use super::standings::{News, Standings};
use super::{Pick, PickedBy};
use crate::flow::{Key, Lister, Slot, Sticky, Ticket, Tickets};
use crate::ids::{ServerId, ServiceId};
use crate::rng::Rng;
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A server's load from this shard's flows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) flows: u32,
    /// Flows whose clients have proved themselves.
    proven: u32,
    /// Flows that it had at its last report, and flows assigned to it since.
    reported: (u32, u32),
}

/// Which flow events an algorithm needs. Most need none, and are then not called.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// The load of the flow's server.
    load: bool,
    /// That the flow was opened.
    opened: bool,
}

impl Told {
    fn new(algorithm: Algorithm) -> Told {
        let load = matches!(algorithm, Algorithm::LeastConnections | Algorithm::ResourceUsage);
        Told { load, opened: algorithm == Algorithm::ConnectionRate }
    }
}

/// A group whose weights or window must be brought up to date before a choice ([`Chooser::refresh`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale(pub(super) u32);

/// The random state of the algorithms in the course of one look; empty at first.
#[derive(Debug, Clone, Default)]
pub struct Draws([Option<Rng>; 2]);

/// A proposal of an algorithm that was picked: its group, family and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposed {
    pub(super) group: u32,
    pub(super) family: bool,
    pub(super) place: u32,
}

/// What a chooser would be after something that has not been carried out; only explanations have one.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Bases and groups brought up to date.
    choices: BTreeMap<u32, Choice>,
    own: BTreeMap<u32, [Own; 2]>,
    /// A server that has one flow fewer, and whether the client of that flow had proved itself.
    ended: Option<(ServerId, bool)>,
    /// A server whose standing has changed.
    changed: Option<ServerId>,
}

impl Overlay {
    /// Counts one flow of a server as ended; `proven` says whether its client had proved itself.
    pub fn end(&mut self, server: ServerId, proven: bool) {
        self.ended = Some((server, proven));
        self.choices.clear();
        self.own.clear();
    }

    /// Marks the standing of a server as changed.
    pub fn change(&mut self, server: ServerId) {
        self.changed = Some(server);
        self.choices.clear();
        self.own.clear();
    }

    /// Brings a group up to date, like [`Chooser::refresh`].
    pub fn refresh(&mut self, now: Instant, chooser: &Chooser, roster: &Roster, standings: &Standings, stale: Stale) {
        let base = roster.base(stale.0);
        let mut choice = chooser.choices[base as usize].clone();
        let mut loads = chooser.loads.clone();
        let is_member = |server: Option<ServerId>| server.is_some_and(|server| roster.place(base, server).is_some());
        choice.stale |= is_member(self.changed);
        if let Some((server, _)) = self.ended {
            loads[server.0 as usize].flows -= 1;
            if let Some(place) = roster.place(base, server) {
                let (flows, usage) = (loads[server.0 as usize].flows, || usage(&loads, standings, server));
                choice.families.iter_mut().for_each(|family| family.picker.load_changed(place, flows, usage));
            }
        }
        choice.refresh(now, base, roster, standings, &loads);
        let mut own = chooser.own[stale.0 as usize].clone();
        choice.lead(&mut own);
        self.choices.insert(base, choice);
        self.own.insert(stale.0, own);
    }

    fn concerns(&self, roster: &Roster, base: u32) -> bool {
        let mut servers = [self.ended.map(|(server, _)| server), self.changed].into_iter().flatten();
        servers.any(|server| roster.place(base, server).is_some())
    }
}

/// A chooser and its overlay.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'c> {
    chooser: &'c Chooser,
    overlay: Option<&'c Overlay>,
}

/// One shard's part of balancing.
#[derive(Debug, Clone)]
pub struct Chooser {
    loads: Vec<Load>,
    /// By base.
    choices: Vec<Choice>,
    /// By base: which flow events its algorithm needs.
    told: Vec<Told>,
    /// By group, for IPv4 and IPv6 clients.
    own: Vec<[Own; 2]>,
    /// By group of services that share sticky slots.
    sticky: BTreeMap<u32, Sticky>,
    tickets: Tickets,
    /// Walks over sticky clients that have begun, by [`Lister`].
    lists: [u64; Lister::COUNT],
    /// The number of the first unread change.
    seen: u64,
}

impl Chooser {
    /// Creates the chooser for all groups of a roster.
    pub fn new(roster: &Roster, seed: u64) -> Self {
        let mut sticky = BTreeMap::new();
        for stickiness in roster.services().iter().filter_map(|service| service.sticky.as_ref()) {
            let slots = || Sticky::new(stickiness.slots, stickiness.idle);
            sticky.entry(stickiness.group).or_insert_with(slots);
        }
        let choices: Vec<Choice> = roster.bases().iter().map(|base| Choice::new(roster, base, seed)).collect();
        let own = |group| choices[roster.base(group) as usize].own(roster, group, seed);
        Chooser {
            loads: vec![Load::default(); roster.servers().len()],
            own: (0..roster.groups()).map(own).collect(),
            choices,
            told: roster.bases().iter().map(|base| Told::new(base.algorithm)).collect(),
            sticky,
            tickets: Tickets::default(),
            lists: [0; Lister::COUNT],
            seen: 0,
        }
    }

    /// Returns the number of flows of a server.
    #[inline]
    pub fn flows(&self, server: ServerId) -> u32 {
        self.loads[server.0 as usize].flows
    }

    /// Returns the number of a server's flows whose clients have proved themselves.
    pub fn proven_flows(&self, server: ServerId) -> u32 {
        self.loads[server.0 as usize].proven
    }

    /// Returns whether a server may have another flow whose client has proved itself.
    pub fn may_prove(&self, roster: &Roster, server: ServerId) -> bool {
        roster.server(server).max_flows.is_none_or(|most| self.proven_flows(server) < most)
    }

    /// Returns whether all changes have been read.
    #[inline]
    pub fn is_current(&self, standings: &Standings) -> bool {
        self.seen == standings.next_news()
    }

    /// Reads the changes.
    pub fn advance(&mut self, roster: &Roster, standings: &Standings) {
        if self.is_current(standings) {
            return;
        }
        match standings.news(self.seen) {
            Some(news) => news.for_each(|(server, news)| self.follow(roster, standings, server, news)),
            None => {
                for server in (0..self.loads.len() as u32).map(ServerId) {
                    for news in [News::Report, News::Latency, News::Standing] {
                        self.follow(roster, standings, server, news);
                    }
                }
            }
        }
        self.seen = standings.next_news();
    }

    fn follow(&mut self, roster: &Roster, standings: &Standings, server: ServerId, news: News) {
        match news {
            News::Standing => {
                for (base, _) in roster.members(server) {
                    self.choices[base as usize].stale = true;
                }
                self.load_changed(roster, standings, server);
            }
            News::Report => {
                let load = &mut self.loads[server.0 as usize];
                load.reported = (load.flows, 0);
                self.load_changed(roster, standings, server);
            }
            News::Latency => {
                let Some(latency) = standings.server(server).latency else { return };
                for (base, place) in roster.members(server) {
                    for family in &mut self.choices[base as usize].families {
                        family.picker.latency_changed(place as usize, latency);
                    }
                }
            }
        }
    }

    /// Updates the algorithms after a server's load has changed.
    fn load_changed(&mut self, roster: &Roster, standings: &Standings, server: ServerId) {
        let Chooser { choices, loads, told, .. } = self;
        let (flows, usage) = (loads[server.0 as usize].flows, || usage(loads, standings, server));
        for (base, place) in roster.members(server).filter(|(base, _)| told[*base as usize].load) {
            for family in &mut choices[base as usize].families {
                family.picker.load_changed(place as usize, flows, usage);
            }
        }
    }

    /// Brings a group's weights and window up to date.
    pub fn refresh(&mut self, now: Instant, roster: &Roster, standings: &Standings, stale: Stale) {
        let Chooser { choices, own, loads, .. } = self;
        let base = roster.base(stale.0);
        let choice = &mut choices[base as usize];
        choice.refresh(now, base, roster, standings, loads);
        choice.lead(&mut own[stale.0 as usize]);
    }

    /// Chooses a server for a new flow from those that may take it and are not in `tried`; changes nothing.
    ///
    /// `draws` is the random state after an earlier choice of the same look, or the default.
    ///
    /// # Errors
    /// [`Stale`] names a group that must first be brought up to date by [`Chooser::refresh`], or by
    /// [`Overlay::refresh`] if there is an overlay.
    pub fn choose(&self, ask: &Ask<'_>, tried: &[ServerId], draws: &mut Draws) -> Result<Option<Pick>, Stale> {
        View { chooser: self, overlay: ask.overlay }.choose(ask, tried, draws)
    }

    /// Returns a client's sticky slots in a service's group; the first that can be used applies.
    pub(super) fn slots(&self, ask: &Ask<'_>) -> impl Iterator<Item = Slot> {
        let stickiness = ask.roster.service(ask.service).sticky.as_ref();
        let sticky = stickiness.and_then(|of| Some((of, self.sticky.get(&of.group)?)));
        let find = |(of, sticky): (&Stickiness, &Sticky)| sticky.find(ask.now, of.prefixes.of(ask.key.addresses.src()));
        sticky.map(find).into_iter().flatten().flatten()
    }

    /// Records that a proposal was picked, whether or not a flow resulted.
    pub fn picked(&mut self, roster: &Roster, proposed: Proposed) {
        let family = usize::from(proposed.family);
        let choice = &mut self.choices[roster.base(proposed.group) as usize];
        let own = &mut self.own[proposed.group as usize][family];
        choice.families[family].picker.picked(own, proposed.place as usize);
    }

    /// Advances the random state of a service's algorithms for a client family.
    pub fn drawn(&mut self, roster: &Roster, service: ServiceId, v6: bool, draws: &Draws) {
        let groups = [Some(service.0), roster.last_resort(service.0)];
        for (group, rng) in groups.into_iter().zip(&draws.0) {
            let (Some(group), Some(rng)) = (group, rng) else { continue };
            let family = self.choices[roster.base(group) as usize].family(v6);
            self.own[group as usize][family].drawn(rng.clone());
        }
    }

    /// Records a flow that was created for a pick. Its client has yet to prove itself. Returns the ticket of its sticky
    /// slot, which the flow keeps.
    pub fn opened(
        &mut self,
        now: Instant,
        roster: &Roster,
        standings: &Standings,
        (service, client): (ServiceId, IpAddr),
        (server, by): (ServerId, PickedBy),
    ) -> Ticket {
        let load = &mut self.loads[server.0 as usize];
        load.flows += 1;
        load.reported.1 += 1;
        let within = if by == PickedBy::LastResort { roster.last_resort(service.0) } else { Some(service.0) };
        let within = within.map(|group| roster.base(group)).filter(|base| self.told[*base as usize].opened);
        if let Some((within, place)) = within.and_then(|base| Some((base, roster.place(base, server)?))) {
            for family in &mut self.choices[within as usize].families {
                family.picker.opened(now, place);
            }
        }
        self.load_changed(roster, standings, server);
        match self.sticky_of(roster, service, client) {
            Some((sticky, client, tickets)) if by != PickedBy::LastResort => {
                sticky.opened(now, client, (server, standings.server(server).era), tickets)
            }
            _ => 0,
        }
    }

    /// Records that the client of a flow, which was opened at `created` and keeps `ticket`, has proved itself; returns the
    /// ticket that it keeps from now on.
    pub fn proven(
        &mut self,
        now: Instant,
        (roster, standings): (&Roster, &Standings),
        (service, client): (ServiceId, IpAddr),
        (server, by): (ServerId, PickedBy),
        (created, ticket): (Instant, Ticket),
    ) -> Ticket {
        self.loads[server.0 as usize].proven += 1;
        match self.sticky_of(roster, service, client) {
            Some((sticky, client, tickets)) if by != PickedBy::LastResort => {
                sticky.proven(now, client, (server, standings.server(server).era), (created, ticket), tickets)
            }
            _ => 0,
        }
    }

    /// Returns the sticky slots of a service's group, the client there, and where its tickets come from.
    fn sticky_of(
        &mut self,
        roster: &Roster,
        service: ServiceId,
        client: IpAddr,
    ) -> Option<(&mut Sticky, IpAddr, &mut Tickets)> {
        let stickiness = roster.service(service).sticky.as_ref()?;
        let sticky = self.sticky.get_mut(&stickiness.group)?;
        Some((sticky, stickiness.prefixes.of(client), &mut self.tickets))
    }

    /// Records that a flow ended that kept `ticket`; returns whether its server has none left.
    pub fn ended(
        &mut self,
        now: Instant,
        roster: &Roster,
        standings: &Standings,
        (service, client): (ServiceId, IpAddr),
        (server, proven, ticket): (ServerId, bool, Ticket),
    ) -> bool {
        let load = &mut self.loads[server.0 as usize];
        load.flows -= 1;
        load.proven -= u32::from(proven);
        let is_idle = load.flows == 0;
        if let Some((sticky, client, _)) = self.sticky_of(roster, service, client) {
            sticky.ended(now, client, proven, ticket);
        }
        self.load_changed(roster, standings, server);
        is_idle
    }

    /// Returns the servers of all sticky clients, one entry per client.
    pub fn sticky_servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.sticky.values().flat_map(Sticky::servers)
    }

    /// Removes clients that have been idle for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sticky.values_mut().for_each(|slots| slots.expire(now));
    }

    /// Returns how many clients that have proved themselves a service's group remembers; 0 if it is not sticky.
    pub fn remembered_clients(&self, roster: &Roster, service: ServiceId) -> usize {
        let sticky = roster.service(service).sticky.as_ref();
        sticky.and_then(|sticky| self.sticky.get(&sticky.group)).map_or(0, Sticky::len)
    }
}

/// What a choice depends on besides the chooser.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The time.
    pub now: Instant,
    /// The roster.
    pub roster: &'a Roster,
    /// The standing of servers.
    pub standings: &'a Standings,
    /// The service that the client asks for.
    pub service: ServiceId,
    /// The key of the client's packet.
    pub key: &'a Key,
    /// What is laid over the chooser.
    pub overlay: Option<&'a Overlay>,
}

impl<'c> View<'c> {
    /// Returns the chooser as this question sees it.
    pub(super) fn new(chooser: &'c Chooser, ask: &Ask<'c>) -> Self {
        View { chooser, overlay: ask.overlay }
    }

    fn choose(&self, ask: &Ask<'_>, tried: &[ServerId], draws: &mut Draws) -> Result<Option<Pick>, Stale> {
        let service = ask.service.0;
        if !self.is_ready(ask, service) {
            return Err(Stale(service));
        }
        let fits = |slot: &Slot| self.why_not_sticky(ask, *slot).is_none() && !tried.contains(&slot.server);
        if let Some(slot) = self.chooser.slots(ask).find(fits) {
            return Ok(Some(Pick { server: slot.server, by: PickedBy::Stickiness, proposed: None }));
        }
        if let Some((server, proposed)) = self.propose(ask, service, tried, &mut draws.0[0]) {
            return Ok(Some(Pick { server, by: PickedBy::Algorithm, proposed: Some(proposed) }));
        }
        let Some(last) = ask.roster.last_resort(service) else { return Ok(None) };
        if !self.is_ready(ask, last) {
            return Err(Stale(last));
        }
        let found = self.propose(ask, last, tried, &mut draws.0[1]);
        Ok(found.map(|(server, proposed)| Pick { server, by: PickedBy::LastResort, proposed: Some(proposed) }))
    }

    fn choice(&self, base: u32) -> &'c Choice {
        let over = self.overlay.and_then(|overlay| overlay.choices.get(&base));
        over.unwrap_or(&self.chooser.choices[base as usize])
    }

    fn own(&self, group: u32) -> &'c [Own; 2] {
        let over = self.overlay.and_then(|overlay| overlay.own.get(&group));
        over.unwrap_or(&self.chooser.own[group as usize])
    }

    pub(super) fn is_ready(&self, ask: &Ask<'_>, group: u32) -> bool {
        let base = ask.roster.base(group);
        let is_behind = |overlay: &Overlay| !overlay.choices.contains_key(&base) && overlay.concerns(ask.roster, base);
        let choice = self.choice(base);
        !choice.stale
            && choice.leads(self.own(group), ask.key.addresses.dst().is_ipv6())
            && (!self.chooser.told[base as usize].opened
                || choice.families.iter().all(|family| family.picker.is_current(ask.now)))
            && !self.overlay.is_some_and(is_behind)
    }

    /// Picks among the servers of a group that is ready.
    fn propose(
        &self,
        ask: &Ask<'_>,
        group: u32,
        tried: &[ServerId],
        draw: &mut Option<Rng>,
    ) -> Option<(ServerId, Proposed)> {
        let places = &ask.roster.group(group).places;
        let flows = |place: usize| self.flows(places[place]);
        let (picker, own, family) = self.picker(ask, group);
        let place = [Counting::All, Counting::Proven].into_iter().find_map(|counting| {
            let refuses = |place: usize| self.refuses(ask.roster, places[place], counting, tried);
            picker.propose(own, ask.key, draw, &flows, &refuses)
        });
        place.map(|place| (places[place], Proposed { group, family, place: place as u32 }))
    }

    /// Returns the algorithm that picks for a flow, the service's own part of it, and the family whose state it uses.
    pub(super) fn picker(&self, ask: &Ask<'_>, group: u32) -> (&'c Picker, &'c Own, bool) {
        let choice = self.choice(ask.roster.base(group));
        let family = choice.family(ask.key.addresses.dst().is_ipv6());
        (&choice.families[family].picker, &self.own(group)[family], family == 1)
    }

    /// Returns the number of flows of a server.
    pub(super) fn flows(&self, server: ServerId) -> u32 {
        let ended = self.overlay.and_then(|overlay| overlay.ended).is_some_and(|(ended, _)| ended == server);
        self.chooser.flows(server) - u32::from(ended)
    }

    /// Returns whether a server has reached its flow limit, in which only flows count whose clients have proved
    /// themselves.
    pub(super) fn is_full(&self, roster: &Roster, server: ServerId) -> bool {
        let ended = self.overlay.and_then(|overlay| overlay.ended) == Some((server, true));
        let proven = self.chooser.proven_flows(server) - u32::from(ended);
        roster.max_flows(server).is_some_and(|most| proven >= most)
    }

    /// Returns whether a server is not proposed. As long as there are others, that is also the case if it will have
    /// reached its limit once the clients of all its flows have proved themselves: a burst of handshakes goes to servers
    /// that have room for it, and a flood of spoofed ones takes no room away.
    pub(super) fn refuses(&self, roster: &Roster, server: ServerId, counting: Counting, tried: &[ServerId]) -> bool {
        let full = match counting {
            Counting::All => roster.max_flows(server).is_some_and(|most| self.flows(server) >= most),
            Counting::Proven => self.is_full(roster, server),
        };
        full || tried.contains(&server)
    }

    /// Returns a server's usable weight for clients of a family, and the weight that the algorithm has: 0 if servers of
    /// a better rank serve.
    pub(super) fn weights(&self, base: u32, v6: bool, place: usize) -> (u32, u32) {
        let family = &self.choice(base).families[usize::from(v6)];
        (family.usable[place], family.weights[place])
    }

    /// Returns why a client does not return to its previous server; none if it does.
    pub(super) fn why_not_sticky(&self, ask: &Ask<'_>, slot: Slot) -> Option<NotSticky> {
        let base = ask.roster.base(ask.service.0);
        let Some(place) = ask.roster.place(base, slot.server) else { return Some(NotSticky::Elsewhere) };
        if self.weights(base, ask.key.addresses.dst().is_ipv6(), place).0 == 0 {
            Some(NotSticky::Unusable)
        } else if self.is_full(ask.roster, slot.server) {
            Some(NotSticky::Full)
        } else {
            (ask.standings.server(slot.server).era != slot.era).then_some(NotSticky::WasAway)
        }
    }
}

/// Returns a server's last report and the flows since, as a view shows them.
pub(super) fn usage_of(view: &View<'_>, ask: &Ask<'_>, server: ServerId) -> Option<Usage> {
    usage(&view.chooser.loads, ask.standings, server)
}

/// Which flows are compared with a server's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    All,
    Proven,
}

/// Why a client does not return to its sticky server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotSticky {
    /// The service does not use the server.
    Elsewhere,
    /// The server may not be given flows.
    Unusable,
    /// It has reached its flow limit.
    Full,
    /// It has been out of service since.
    WasAway,
}

pub(super) fn usage(loads: &[Load], standings: &Standings, server: ServerId) -> Option<Usage> {
    let (flows_then, given_since) = loads[server.0 as usize].reported;
    standings.server(server).report.map(|report| Usage { load: report.load, flows_then, given_since })
}
