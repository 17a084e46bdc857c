//! Whether a new flow is wanted: ordered rules, limits, priority classes.
//!
//! It must not know packets' bytes, the table or how servers are chosen; it is handed keys and times.

mod limits;
mod settings;

pub use settings::{Action, Limits, PolicySettings, RuleSettings};

use crate::balance::Priority;
use crate::flow::Key;
use crate::time::Instant;
use limits::{Bucket, Clients, Reached};
use std::net::IpAddr;

/// The number of no rule.
pub const NO_RULE: u16 = u16::MAX;

/// Percent of the table, or of the gateway's rate, that is kept for the classes above.
const KEPT: [u64; 3] = [20, 10, 0];

/// Why a new flow is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its rule's new flows a second are used up.
    RuleRate,
    /// Its rule has as many flows as it may.
    RuleFlows,
    /// Its client's new flows a second are used up.
    ClientRate,
    /// Its client has as many flows as it may.
    ClientFlows,
    /// The gateway's new flows a second are used up, or nearly, and what is left is for classes above.
    Rate(Priority),
    /// The table is nearly full, and what is left is for classes above.
    Table(Priority),
}

/// What a rule has done since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleTotals {
    /// Packets of no flow that it matched.
    pub matched: u64,
    /// Flows that it let in.
    pub opened: u64,
    /// Flows that its limits refused.
    pub refused: u64,
    /// Flows that it let in and that have not ended.
    pub flows: u32,
}

#[derive(Debug)]
struct Rule {
    settings: RuleSettings,
    enabled: bool,
    bucket: Bucket,
    clients: Option<Clients>,
    totals: RuleTotals,
}

/// The rules with their state.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    rate: Option<u32>,
    bucket: Bucket,
    /// Percent kept from each class: nothing is kept from the highest class in use.
    kept: [u64; 3],
}

impl Policy {
    /// Whether there are any rules.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Makes the rules; `classes` are those that services use.
    pub fn new(settings: &PolicySettings, classes: impl Iterator<Item = Priority>, seed: u64) -> Self {
        let rule = |settings: &RuleSettings| {
            let by_client = settings.limits.client_rate.is_some() || settings.limits.client_flows.is_some();
            Rule {
                enabled: settings.enabled,
                bucket: Bucket::default(),
                clients: by_client.then(|| Clients::new(seed)),
                totals: RuleTotals::default(),
                settings: settings.clone(),
            }
        };
        let used = settings.rules.iter().filter_map(|rule| rule.priority).chain(classes);
        let highest = used.max().unwrap_or_default();
        let kept = |class: Priority| if class >= highest { 0 } else { KEPT[class as usize] };
        Policy {
            rules: settings.rules.iter().map(rule).collect(),
            rate: settings.rate,
            bucket: Bucket::default(),
            kept: [Priority::Low, Priority::Normal, Priority::High].map(kept),
        }
    }

    /// The first rule that matches a packet of no flow, and what it does. `ingress` 0 is unknown.
    pub fn decide(&mut self, key: &Key, ingress: u16) -> Option<(u16, Action)> {
        let matches = |rule: &Rule| rule.enabled && matches(&rule.settings, key, ingress);
        let (number, rule) = self.rules.iter_mut().enumerate().find(|(_, rule)| matches(rule))?;
        rule.totals.matched += 1;
        Some((number as u16, rule.settings.action))
    }

    /// The class of a rule's flows, where it says so.
    pub fn priority(&self, rule: u16) -> Option<Priority> {
        self.rules.get(usize::from(rule))?.settings.priority
    }

    /// Whether a new flow is within every limit. `flows` of `max` are in the table.
    pub fn admit(
        &mut self,
        now: Instant,
        rule: u16,
        class: Priority,
        client: IpAddr,
        (flows, max): (u32, u32),
    ) -> Result<(), Refusal> {
        let kept = self.kept[class as usize];
        if kept > 0 && u64::from(flows) * 100 >= u64::from(max) * (100 - kept) {
            return Err(Refusal::Table(class));
        }
        if let Some(rule) = self.rules.get_mut(usize::from(rule)) {
            rule.admit(now, client).inspect_err(|_| rule.totals.refused += 1)?;
        }
        match self.rate {
            Some(rate) if !self.bucket.take(now, rate, kept) => Err(Refusal::Rate(class)),
            _ => Ok(()),
        }
    }

    /// Notes a flow that was made.
    pub fn opened(&mut self, rule: u16, client: IpAddr) {
        let Some(rule) = self.rules.get_mut(usize::from(rule)) else { return };
        rule.totals.opened += 1;
        rule.totals.flows += 1;
        let client = rule.settings.client.of(client);
        if let Some(clients) = &mut rule.clients {
            clients.opened(client);
        }
    }

    /// Notes that a flow ended.
    pub fn ended(&mut self, rule: u16, client: IpAddr) {
        let Some(rule) = self.rules.get_mut(usize::from(rule)) else { return };
        rule.totals.flows -= 1;
        let client = rule.settings.client.of(client);
        if let Some(clients) = &mut rule.clients {
            clients.ended(client);
        }
    }

    /// Switches a rule on or off; false where there is no such rule. Live flows stay.
    pub fn enable(&mut self, rule: u16, on: bool) -> bool {
        let Some(rule) = self.rules.get_mut(usize::from(rule)) else { return false };
        rule.enabled = on;
        true
    }

    /// The rules: settings, whether they hold, totals.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = (&RuleSettings, bool, &RuleTotals)> {
        self.rules.iter().map(|rule| (&rule.settings, rule.enabled, &rule.totals))
    }

    /// A rule's name.
    pub fn name(&self, rule: u16) -> Option<&str> {
        self.rules.get(usize::from(rule)).map(|rule| rule.settings.name.as_str())
    }
}

impl Rule {
    fn admit(&mut self, now: Instant, client: IpAddr) -> Result<(), Refusal> {
        let limits = &self.settings.limits;
        if limits.flows.is_some_and(|most| self.totals.flows >= most) {
            return Err(Refusal::RuleFlows);
        }
        if let Some(clients) = &mut self.clients {
            let client = self.settings.client.of(client);
            clients.take(now, client, limits.client_rate, limits.client_flows).map_err(|reached| match reached {
                Reached::Rate => Refusal::ClientRate,
                Reached::Flows => Refusal::ClientFlows,
            })?;
        }
        match limits.rate {
            Some(rate) if !self.bucket.take(now, rate, 0) => Err(Refusal::RuleRate),
            _ => Ok(()),
        }
    }
}

fn matches(rule: &RuleSettings, key: &Key, ingress: u16) -> bool {
    let within = |networks: &[ipnet::IpNet], address: IpAddr| {
        networks.is_empty() || networks.iter().any(|network| network.contains(&address))
    };
    let in_range = |ranges: &[(u16, u16)], port: u16| {
        ranges.is_empty() || ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
    };
    rule.protocol.is_none_or(|protocol| protocol == key.protocol)
        && rule.ingress.is_none_or(|number| number == ingress)
        && in_range(&rule.ports, key.dst_port)
        && in_range(&rule.source_ports, key.src_port)
        && within(&rule.from, key.addresses.src())
        && within(&rule.to, key.addresses.dst())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Addresses, Protocol};

    fn key(src: &str, port: u16) -> Key {
        let addresses = Addresses::new(src.parse().unwrap(), "192.0.2.80".parse().unwrap()).unwrap();
        Key { addresses, src_port: 5000, dst_port: port, protocol: Protocol::Tcp }
    }

    fn policy(rules: Vec<RuleSettings>) -> Policy {
        Policy::new(&PolicySettings { rules, ..PolicySettings::default() }, [Priority::Normal].into_iter(), 1)
    }

    #[test]
    fn the_first_rule_that_matches_and_is_on_decides() {
        let net = |text: &str| vec![text.parse().unwrap()];
        let mut policy = policy(vec![
            RuleSettings { from: net("10.0.0.0/8"), ports: vec![(80, 80)], ..RuleSettings::new("a", Action::Drop) },
            RuleSettings { from: net("10.1.0.0/16"), ..RuleSettings::new("b", Action::Reject) },
            RuleSettings { to: net("192.0.2.0/24"), ingress: Some(2), ..RuleSettings::new("c", Action::Pass) },
            RuleSettings { protocol: Some(Protocol::Udp), ..RuleSettings::new("d", Action::Drop) },
            RuleSettings { source_ports: vec![(1, 10), (5000, 5001)], ..RuleSettings::new("e", Action::Balance(None)) },
        ]);
        let cases = [("10.1.0.1", 80, 0, 0), ("10.1.0.1", 81, 0, 1), ("10.2.0.1", 81, 2, 2), ("9.9.9.9", 80, 1, 4)];
        for (src, port, ingress, want) in cases {
            assert_eq!(policy.decide(&key(src, port), ingress).unwrap().0, want, "{src} {port}");
        }
        assert!(policy.enable(0, false) && !policy.enable(9, false));
        assert_eq!(policy.decide(&key("10.1.0.1", 80), 0), Some((1, Action::Reject)));
        assert!(policy.enable(4, false));
        assert_eq!(policy.decide(&key("9.9.9.9", 80), 0), None);
        let matched: Vec<u64> = policy.rules().map(|(_, _, totals)| totals.matched).collect();
        assert_eq!(matched, [1, 2, 1, 0, 1]);
    }

    #[test]
    fn a_rules_limits_refuse_by_name_and_free_again() {
        let limits = Limits { flows: Some(2), client_flows: Some(1), ..Limits::default() };
        let mut policy = policy(vec![RuleSettings { limits, ..RuleSettings::new("a", Action::Balance(None)) }]);
        let client = |n: u8| IpAddr::from([10, 0, 0, n]);
        let admit = |policy: &mut Policy, n| {
            let result = policy.admit(Instant::ZERO, 0, Priority::Normal, client(n), (0, 100));
            if result.is_ok() {
                policy.opened(0, client(n));
            }
            result
        };
        assert_eq!(admit(&mut policy, 1), Ok(()));
        assert_eq!(admit(&mut policy, 1), Err(Refusal::ClientFlows));
        assert_eq!(admit(&mut policy, 2), Ok(()));
        assert_eq!(admit(&mut policy, 3), Err(Refusal::RuleFlows));
        policy.ended(0, client(1));
        assert_eq!(admit(&mut policy, 3), Ok(()));
        let totals = *policy.rules().next().unwrap().2;
        assert_eq!(totals, RuleTotals { matched: 0, opened: 3, refused: 2, flows: 2 });
        assert_eq!(policy.admit(Instant::ZERO, NO_RULE, Priority::Normal, client(9), (0, 100)), Ok(()));
    }

    #[test]
    fn lower_classes_are_refused_first_and_the_highest_in_use_never() {
        let settings = PolicySettings { rate: Some(10), ..PolicySettings::default() };
        let client = IpAddr::from([10, 0, 0, 1]);
        use Priority::{High, Low, Normal};
        let mut policy = Policy::new(&settings, [Low, Normal, High].into_iter(), 1);
        let mut admit = |class, flows| policy.admit(Instant::ZERO, NO_RULE, class, client, (flows, 100));
        for (flows, want) in [(79, [Ok(()), Ok(()), Ok(())]), (80, [Err(Refusal::Table(Low)), Ok(()), Ok(())])] {
            assert_eq!([Low, Normal, High].map(|class| admit(class, flows)), want);
        }
        assert_eq!(admit(Normal, 90), Err(Refusal::Table(Normal)));
        // Five of ten are taken.
        let refused = [Low, Low, Low, Low, Normal, Normal, High, High].map(|class| admit(class, 0).err());
        let (low, normal, high) = (Some(Refusal::Rate(Low)), Some(Refusal::Rate(Normal)), Some(Refusal::Rate(High)));
        assert_eq!(refused, [None, None, None, low, None, normal, None, high]);
        let mut alone = Policy::new(&PolicySettings::default(), [Normal].into_iter(), 1);
        assert_eq!(alone.admit(Instant::ZERO, NO_RULE, Normal, client, (99, 100)), Ok(()));
    }
}
