//! A stand-alone balancer: one shard and no packets. The engine does not use it; it measures how algorithms distribute
//! flows.

use super::{
    Admin, Ask, Chooser, Draws, Health, Notice, Pick, PoolSettings, Roster, ServerSettings, ServiceSettings, Standings,
};
use crate::flow::Key;
use crate::ids::{ServerId, ServiceId};
use crate::time::{Duration, Instant};
use std::net::IpAddr;

/// A roster, the standing of its servers, and one shard's chooser.
#[derive(Debug, Clone)]
pub struct Balancer {
    roster: Roster,
    standings: Standings,
    chooser: Chooser,
}

impl Balancer {
    /// Creates a balancer with all servers up; the pools of `services` and the servers of `pools` are indices into the
    /// other lists.
    pub fn new(services: &[ServiceSettings], pools: &[PoolSettings], servers: &[ServerSettings], seed: u64) -> Self {
        let roster = Roster::new(services, pools, servers);
        Balancer { standings: Standings::new(&roster), chooser: Chooser::new(&roster, seed), roster }
    }

    /// Picks a server for a new flow from those that may take it, except those in `tried`.
    pub fn pick(&mut self, now: Instant, service: ServiceId, key: &Key, tried: &[ServerId]) -> Option<Pick> {
        let Balancer { roster, standings, chooser } = self;
        chooser.advance(roster, standings);
        loop {
            let mut draws = Draws::default();
            let ask = Ask { now, roster, standings, service, key, overlay: None };
            match chooser.choose(&ask, tried, &mut draws) {
                Err(stale) => chooser.refresh(now, roster, standings, stale),
                Ok(pick) => {
                    chooser.drawn(roster, service, key.addresses.dst().is_ipv6(), &draws);
                    pick.and_then(|pick| pick.proposed)
                        .into_iter()
                        .for_each(|proposed| chooser.picked(roster, proposed));
                    return pick;
                }
            }
        }
    }

    /// Records a flow that was created for a pick, whose client proves itself at once.
    pub fn opened(&mut self, now: Instant, service: ServiceId, key: &Key, pick: Pick) {
        let of = (service, key.addresses.src());
        let pick = (pick.server, pick.by);
        self.chooser.opened(now, &self.roster, &self.standings, of, pick);
        self.chooser.proven(now, (&self.roster, &self.standings), of, pick, now);
    }

    /// Records that a flow ended.
    pub fn ended(&mut self, now: Instant, service: ServiceId, client: IpAddr, server: ServerId) {
        if self.chooser.ended(now, &self.roster, &self.standings, (service, client), (server, true)) {
            self.standings.idle(server);
        }
    }

    /// Changes the weight of a server.
    pub fn set_weight(&mut self, now: Instant, server: ServerId, weight: u16) {
        self.standings.set_weight(&self.roster, now, server, weight);
    }

    /// Sets the administrative state of a server. Draining ends by force after `deadline`, if given.
    pub fn set_admin(&mut self, now: Instant, server: ServerId, admin: Admin, deadline: Option<Duration>) {
        let flows = self.chooser.flows(server);
        self.standings.set_admin(&self.roster, now, server, admin, (deadline, flows));
    }

    /// Sets the health of one of a server's addresses according to its monitors; `of_port` gives it for one of its
    /// ports.
    pub fn set_health(&mut self, now: Instant, server: ServerId, v6: bool, of_port: impl Fn(u16) -> Health) {
        self.standings.set_health(&self.roster, now, server, v6, of_port);
    }

    /// Sets a server's reported load, 0 to 100, and whether it asks for no new flows.
    pub fn report(&mut self, now: Instant, server: ServerId, load: u8, maintenance: bool) {
        self.standings.report(&self.roster, now, server, load, maintenance);
        self.chooser.advance(&self.roster, &self.standings);
    }

    /// Sets the smoothed round trip of a server's probes.
    pub fn set_latency(&mut self, server: ServerId, latency: Duration) {
        self.standings.set_latency(server, latency);
    }

    /// Records a sign of trouble from the traffic.
    pub fn trouble(&mut self, now: Instant, server: ServerId) {
        self.standings.trouble(&self.roster, now, server);
    }

    /// Does the work that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.standings.handle_timeout(&self.roster, now);
        self.chooser.handle_timeout(now);
    }

    /// Returns when [`Balancer::handle_timeout`] next has work to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.standings.poll_timeout()
    }

    /// Returns the next event.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.standings.poll_notice()
    }

    /// Returns a server's standing and its number of flows.
    pub fn state(&self, now: Instant, server: ServerId) -> (super::ServerState, u32) {
        (self.standings.state(&self.roster, now, server), self.chooser.flows(server))
    }

    /// Returns whether the server of a flow whose client uses this family is out of service.
    pub fn is_gone(&self, service: ServiceId, server: ServerId, v6: bool) -> bool {
        self.standings.is_gone(&self.roster, service, server, v6)
    }

    /// Returns how many clients a service's group remembers; 0 if it is not sticky.
    pub fn remembered_clients(&self, service: ServiceId) -> usize {
        self.chooser.remembered_clients(&self.roster, service)
    }
}
