//! Shard-independent state: the standing of servers, operator changes, discovered path MTUs.
//!
//! One writer. It must not know flows; the consequences of its changes for flows are up to the shards.

mod follow;

use super::pair::Duty;
use super::plan::Plan;
use crate::balance::{Notice, ServerState, Standings};
use crate::health::Monitors;
use crate::ids::{ServerId, ServiceId};
use crate::packet::Addresses;
use crate::policy::Switches;
#[cfg(test)]
use crate::state::Health;
use crate::time::{Duration, Instant};
use ipnet::IpNet;

/// What every packet of a flow needs to know of the flow's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hot {
    /// The path MTU over IPv4 and over IPv6; 0 is unknown.
    mtu: [u16; 2],
    /// Whether flows may have to end because the server is down or disabled.
    gone: bool,
    /// Whether its draining is over: the remaining flows end.
    drained: bool,
}

/// What is known of all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct All {
    /// The least known path MTU over IPv4 and over IPv6; [`u16::MAX`] if none is known.
    least_mtu: [u16; 2],
    /// How many are [`Hot::gone`].
    gone: u32,
}

impl All {
    fn of(hot: &[Hot]) -> All {
        let known = |v6: usize| hot.iter().map(|server| server.mtu[v6]).filter(|mtu| *mtu > 0).min();
        let gone = hot.iter().filter(|server| server.gone).count() as u32;
        All { least_mtu: [0, 1].map(|v6| known(v6).unwrap_or(u16::MAX)), gone }
    }
}

/// The standing of everything in a [`Plan`].
#[derive(Debug, Clone)]
pub(super) struct Standing {
    servers: Standings,
    hot: Vec<Hot>,
    /// What holds for all servers: most packets need no more, and few servers stay in the processor's cache.
    all: All,
    switches: Switches,
    /// How often an address or port of a server went down, and came up.
    transitions: Vec<[u64; 2]>,
    /// Whether monitors follow the probes of a capture and send none.
    observing: bool,
    /// Networks that are no longer in the configuration, and of which flows may be left.
    retired: Vec<IpNet>,
    duty: Duty,
    /// Another one whenever packets of an established flow may have to be treated otherwise.
    era: u64,
}

impl Standing {
    /// Creates the standing from the settings, with every server up.
    pub(super) fn new(plan: &Plan) -> Self {
        let servers = || (0..plan.roster().servers().len() as u32).map(ServerId);
        let hot = |server| {
            let mtu = plan.pool_mtu(server).unwrap_or(0);
            Hot { mtu: [false, true].map(|v6| possible(v6, mtu)), gone: false, drained: false }
        };
        let hot: Vec<Hot> = servers().map(hot).collect();
        Standing {
            servers: Standings::new(plan.roster()),
            all: All::of(&hot),
            hot,
            switches: Switches::new(plan.rules()),
            transitions: servers().map(|_| [0; 2]).collect(),
            observing: false,
            retired: Vec::new(),
            duty: Duty::Full,
            era: 0,
        }
    }

    /// Returns what the gateway answers for.
    #[inline]
    pub(super) fn duty(&self) -> Duty {
        self.duty
    }

    /// Sets what the gateway answers for.
    pub(super) fn set_duty(&mut self, duty: Duty) {
        self.duty = duty;
        self.era += 1;
    }

    /// Returns a number that changes whenever packets of an established flow may have to be treated otherwise than before.
    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// Returns the standing of servers as balancing sees it.
    #[inline]
    pub(super) fn servers(&self) -> &Standings {
        &self.servers
    }

    /// Returns which rules are switched on.
    pub(super) fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Returns whether flows of a server may have to end because it is down or disabled.
    #[inline]
    pub(super) fn may_be_gone(&self, server: ServerId) -> bool {
        self.all.gone > 0 && self.hot[server.0 as usize].gone
    }

    /// Returns whether a server's draining is over, so that its remaining flows end.
    pub(super) fn is_drained(&self, server: ServerId) -> bool {
        self.hot[server.0 as usize].drained
    }

    /// Returns whether the server of a flow whose client uses this family is out of service.
    pub(super) fn is_gone(&self, plan: &Plan, service: ServiceId, server: ServerId, v6: bool) -> bool {
        self.servers.is_gone(plan.roster(), service, server, v6)
    }

    /// Returns whether a packet of so many bytes is not larger than what reaches a server, as far as that is known.
    #[inline]
    pub(super) fn reaches(&self, server: ServerId, v6: bool, size: usize) -> bool {
        size <= usize::from(self.all.least_mtu[usize::from(v6)]) || self.reaches_it(server, v6, size)
    }

    /// The same where some server is reached by less.
    #[inline(never)]
    fn reaches_it(&self, server: ServerId, v6: bool, size: usize) -> bool {
        let mtu = self.path_mtu(server, v6);
        mtu == 0 || size <= usize::from(mtu)
    }

    /// Returns the size of the largest packet to a server in bytes; 0 is unknown.
    #[inline]
    pub(super) fn path_mtu(&self, server: ServerId, v6: bool) -> u16 {
        self.hot[server.0 as usize].mtu[usize::from(v6)]
    }

    /// Sets the path MTU to a server.
    pub(super) fn set_path_mtu(&mut self, server: ServerId, v6: bool, mtu: u16) {
        self.hot[server.0 as usize].mtu[usize::from(v6)] = possible(v6, mtu);
        self.all = All::of(&self.hot);
        self.era += 1;
    }

    /// Returns whether a packet belongs to the monitors; while they observe, also one that a monitor of the capture
    /// sent.
    #[inline]
    pub(super) fn is_probe(&self, plan: &Plan, addresses: &Addresses) -> bool {
        let health = &plan.settings().health;
        let (src, dst) = match *addresses {
            Addresses::V4 { src, dst } => {
                let ours = |address: u32| health.source_v4.is_some_and(|source| source.to_bits() == address);
                (self.observing && ours(src), ours(dst))
            }
            Addresses::V6 { src, dst } => {
                let ours = |address: u128| health.source_v6.is_some_and(|source| source.to_bits() == address);
                (self.observing && ours(src), ours(dst))
            }
        };
        src || dst
    }

    /// Makes the packets of a capture's monitors count as probes.
    pub(super) fn observe(&mut self) {
        self.observing = true;
    }

    /// Switches a rule on or off; returns false if there is no such rule.
    pub(super) fn switch(&mut self, rule: u16, on: bool) -> bool {
        self.switches.set(rule, on)
    }

    /// Changes the standing of servers.
    pub(super) fn servers_mut(&mut self) -> &mut Standings {
        &mut self.servers
    }

    /// Sets the health of a server according to its monitors; returns whether its flows may have to end.
    pub(super) fn take_health(&mut self, plan: &Plan, now: Instant, server: ServerId, monitors: &Monitors) -> bool {
        for v6 in [false, true] {
            self.servers.set_health(plan.roster(), now, server, v6, |port| monitors.state(server, v6, port));
        }
        self.settle(plan, server)
    }

    /// Recomputes whether a server's flows may have to end.
    pub(super) fn settle(&mut self, plan: &Plan, server: ServerId) -> bool {
        let gone = self.servers.may_be_gone(plan.roster(), server);
        let was = std::mem::replace(&mut self.hot[server.0 as usize].gone, gone);
        self.all.gone = self.all.gone + u32::from(gone) - u32::from(was);
        self.era += u64::from(gone != was);
        gone
    }

    /// Records whether a server's draining is over.
    pub(super) fn set_drained(&mut self, server: ServerId, drained: bool) {
        self.hot[server.0 as usize].drained = drained;
    }

    /// Clears the ends of draining: the flows concerned have ended.
    pub(super) fn clear_drained(&mut self) {
        self.hot.iter_mut().for_each(|server| server.drained = false);
    }

    /// Counts that an address or port of a server went down or came up.
    pub(super) fn count_transition(&mut self, server: ServerId, up: bool) {
        self.transitions[server.0 as usize][usize::from(up)] += 1;
    }

    /// Returns how often an address or port of a server went down, and came up.
    pub(super) fn transitions(&self, server: ServerId) -> [u64; 2] {
        self.transitions[server.0 as usize]
    }

    /// Returns a server's standing.
    pub(super) fn state(&self, plan: &Plan, now: Instant, server: ServerId) -> ServerState {
        self.servers.state(plan.roster(), now, server)
    }

    /// Returns the next server event.
    pub(super) fn poll_notice(&mut self) -> Option<Notice> {
        self.servers.poll_notice()
    }

    /// Returns when [`Standing::handle_timeout`] next has work to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.servers.poll_timeout()
    }

    /// Does the work that is due.
    pub(super) fn handle_timeout(&mut self, plan: &Plan, now: Instant) {
        self.servers.handle_timeout(plan.roster(), now);
    }

    /// Sets the smoothed round trip of a server's probes.
    pub(super) fn set_latency(&mut self, server: ServerId, latency: Duration) {
        self.servers.set_latency(server, latency);
    }

    /// Sets a server's reported load.
    pub(super) fn report(&mut self, plan: &Plan, now: Instant, server: ServerId, load: u8, maintenance: bool) {
        self.servers.report(plan.roster(), now, server, load, maintenance);
    }

    /// Sets the health of a server's address in one family, for tests.
    #[cfg(test)]
    pub(super) fn set_health(&mut self, plan: &Plan, now: Instant, server: ServerId, v6: bool, health: Health) {
        self.servers.set_health(plan.roster(), now, server, v6, |_| health);
    }
}

/// No IPv6 path has an MTU of less than 1,280 bytes, and no host accepts a smaller one (RFC 8200, 5; RFC 8201, 4).
const fn possible(v6: bool, mtu: u16) -> u16 {
    if v6 && mtu != 0 && mtu < 1280 { 1280 } else { mtu }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Engine, Refused};
    use super::*;
    use crate::balance::{PoolSettings, ServerSettings};
    use crate::config::Settings;
    use crate::ids::PoolId;

    fn all(standing: &Standing) -> [[u16; 2]; 2] {
        [0, 1].map(|at| [false, true].map(|v6| standing.path_mtu(ServerId(at), v6)))
    }

    #[test]
    fn discovered_mtus_apply_per_server_and_family() {
        let mut settings = Settings::default();
        let pool = |name: &str, server, mtu| PoolSettings { mtu, ..PoolSettings::new(name, vec![ServerId(server)]) };
        settings.pools = vec![pool("a", 0, Some(1400)), pool("b", 1, None)];
        settings.servers = [0, 1].map(|at| ServerSettings::new("s", PoolId(at))).into();
        settings.gateway.client_mtu = Some(1280);
        let mut engine = Engine::new(&settings);
        assert_eq!((all(engine.standing()), engine.plan().client_mtu()), ([[1400; 2], [0; 2]], 1280));
        let mut set = |server, v6, mtu| engine.apply(Instant::ZERO, Change::Mtu { server: ServerId(server), v6, mtu });
        assert_eq!((set(1, true, 9000), set(0, false, 1500)), (Ok(()), Ok(())));
        assert_eq!(set(2, false, 1500), Err(Refused::NoSuchServer(ServerId(2))));
        assert_eq!(all(engine.standing()), [[1500, 1400], [0, 9000]]);
    }

    #[test]
    fn no_ipv6_path_mtu_is_below_1280_bytes() {
        let pools = vec![PoolSettings { mtu: Some(576), ..PoolSettings::new("a", vec![ServerId(0)]) }];
        let settings = Settings { pools, servers: vec![ServerSettings::new("s", PoolId(0))], ..Settings::default() };
        let mut standing = Standing::new(&Plan::new(&settings));
        assert_eq!([false, true].map(|v6| standing.path_mtu(ServerId(0), v6)), [576, 1280]);
        for (mtu, want) in [(0, 0), (68, 1280), (1279, 1280), (1281, 1281)] {
            standing.set_path_mtu(ServerId(0), true, mtu);
            assert_eq!(standing.path_mtu(ServerId(0), true), want);
            let reaches = [1279, 1280, 1281, 70_000].map(|size| standing.reaches(ServerId(0), true, size));
            assert_eq!(reaches, [1279, 1280, 1281, 70_000].map(|size| want == 0 || size <= usize::from(want)));
        }
    }
}
