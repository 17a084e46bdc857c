//! Whether a new flow is admitted: ordered rules, limits, priorities.
//!
//! [`Rules`] are the configuration, [`Switches`] what operators switched, and a [`Policy`] is what one shard has
//! counted.
//!
//! It must not know packet bytes, the table or how servers are chosen; it is given keys and times.

mod classifier;
mod follow;
mod limits;
mod settings;

pub use settings::{Action, Limits, PolicySettings, RuleSettings};

use crate::balance::Priority;
use crate::bucket::Bucket;
use crate::flow::Key;
use crate::time::Instant;
use classifier::Classifier;
use limits::{ClientLimits, Taken};
use std::net::IpAddr;

/// The number that means no rule.
pub const NO_RULE: u16 = u16::MAX;

/// Percentage of the table, or of the gateway's rate, that is reserved for higher priorities.
const RESERVED: [u64; 3] = [20, 10, 0];

/// Why a new flow is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its rule's rate of new flows is exhausted.
    RuleRate,
    /// Its rule has reached its flow limit.
    RuleFlows,
    /// Its client's rate of new flows is exhausted.
    ClientRate,
    /// Its client has reached its flow limit.
    ClientFlows,
    /// The gateway's rate of new flows is exhausted, or nearly so, and the rest is reserved for higher priorities.
    Rate(Priority),
    /// The table is nearly full, and the rest is reserved for higher priorities.
    Table(Priority),
}

/// A rule's counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleTotals {
    /// Packets without a flow that it matched.
    pub matched: u64,
    /// Flows that it admitted.
    pub opened: u64,
    /// Flows that its limits refused.
    pub refused: u64,
    /// Live flows that it admitted.
    pub flows: u32,
    /// Those of them whose clients have proved themselves: only these count in limits.
    pub proven: u32,
}

/// The rules and limits as configured. Immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// By number.
    rules: Vec<RuleSettings>,
    /// The numbers of the rules that are evaluated, in file order.
    order: Vec<u16>,
    classifier: Classifier,
    rate: Option<u32>,
    /// Percentage reserved from each priority: nothing is reserved from the highest one in use.
    reserved: [u64; 3],
}

/// Which rules are switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switches(Vec<bool>);

/// What a new flow takes from its limits: carried out by [`Policy::take`] even if the flow was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Takes {
    client: Option<Taken>,
    rule: Option<Bucket>,
    gateway: Option<Bucket>,
    /// Whether a limit of the rule refused it.
    refused_by_rule: bool,
}

#[derive(Debug, Clone)]
struct RuleState {
    bucket: Bucket,
    clients: Option<ClientLimits>,
    totals: RuleTotals,
}

/// One shard's part of policy: limits used, and the counters of each rule.
#[derive(Debug, Clone)]
pub struct Policy {
    states: Vec<RuleState>,
    bucket: Bucket,
}

impl Rules {
    /// Compiles the rules, evaluated in this order; `used` are the priorities that services use.
    pub fn new(settings: &PolicySettings, order: Vec<u16>, used: impl Iterator<Item = Priority>) -> Self {
        let asked = || order.iter().map(|number| &settings.rules[usize::from(*number)]);
        let used = asked().filter_map(|rule| rule.priority).chain(used);
        let highest = used.max().unwrap_or_default();
        let reserved = |priority: Priority| if priority >= highest { 0 } else { RESERVED[priority as usize] };
        Rules {
            classifier: Classifier::new(&asked().collect::<Vec<_>>()),
            rules: settings.rules.clone(),
            order,
            rate: settings.rate,
            reserved: [Priority::Low, Priority::Normal, Priority::High].map(reserved),
        }
    }

    /// Returns whether no rules are evaluated.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Returns the rules that are evaluated, in order, with their numbers.
    pub fn in_order(&self) -> impl ExactSizeIterator<Item = (u16, &RuleSettings)> {
        self.order.iter().map(|number| (*number, &self.rules[usize::from(*number)]))
    }

    /// Returns a rule.
    pub fn get(&self, rule: u16) -> Option<&RuleSettings> {
        self.rules.get(usize::from(rule))
    }

    /// Returns the gateway's limit of new flows per second; none is unlimited.
    pub fn rate(&self) -> Option<u32> {
        self.rate
    }

    /// Returns the percentage of the table and of the gateway's rate that a priority may not use.
    pub fn reserved(&self, priority: Priority) -> u64 {
        self.reserved[priority as usize]
    }

    /// Returns the first switched-on rule that matches a packet without a flow, and its action. `ingress` 0 is unknown.
    pub fn decide(&self, switches: &Switches, key: &Key, ingress: u16) -> Option<(u16, Action)> {
        let found = self.classifier.find(key, ingress, |at| switches.is_on(self.order[at]))?;
        let number = self.order[found];
        Some((number, self.rules[usize::from(number)].action))
    }

    /// Returns the priority of a rule's flows, if it names one.
    pub fn priority(&self, rule: u16) -> Option<Priority> {
        self.rules.get(usize::from(rule))?.priority
    }

    /// Returns a rule's name.
    pub fn name(&self, rule: u16) -> Option<&str> {
        self.rules.get(usize::from(rule)).map(|rule| rule.name.as_str())
    }

    /// Returns the number of the rule with this name.
    pub fn find(&self, name: &str) -> Option<u16> {
        self.in_order().find(|(_, rule)| rule.name == name).map(|(number, _)| number)
    }
}

impl Switches {
    /// Returns the initial state of the rules, as configured.
    pub fn new(rules: &Rules) -> Self {
        Switches(rules.rules.iter().map(|rule| rule.enabled).collect())
    }

    /// Returns whether a rule is switched on.
    pub fn is_on(&self, rule: u16) -> bool {
        self.0.get(usize::from(rule)) == Some(&true)
    }

    /// Switches a rule on or off; returns false if there is no such rule. Live flows stay.
    pub fn set(&mut self, rule: u16, on: bool) -> bool {
        self.0.get_mut(usize::from(rule)).map(|switch| *switch = on).is_some()
    }
}

impl Policy {
    /// Creates the shard's part, with all limits unused.
    pub fn new(rules: &Rules) -> Self {
        let state = |rule: &RuleSettings| {
            let by_client = rule.limits.client_rate.is_some() || rule.limits.client_flows.is_some();
            RuleState {
                bucket: Bucket::default(),
                clients: by_client.then(ClientLimits::new),
                totals: RuleTotals::default(),
            }
        };
        Policy { states: rules.rules.iter().map(state).collect(), bucket: Bucket::default() }
    }

    /// Returns whether a new flow is within every limit, and what it takes from them; changes nothing. `flows` of `max`
    /// are in the table; `ended` is the rule and client of a flow that counts as ended and had counted
    /// in limits.
    pub fn admit(
        &self,
        rules: &Rules,
        now: Instant,
        rule: u16,
        (priority, client, ended): (Priority, IpAddr, Option<(u16, IpAddr)>),
        (flows, max): (u32, u32),
    ) -> (Takes, Result<(), Refusal>) {
        let mut takes = Takes::default();
        let ended = ended.filter(|ended| ended.0 == rule).map(|ended| ended.1);
        let result = self.admit_into(&mut takes, rules, now, (rule, priority), (client, ended), (flows, max));
        (takes, result)
    }

    fn admit_into(
        &self,
        takes: &mut Takes,
        rules: &Rules,
        now: Instant,
        (rule, priority): (u16, Priority),
        clients: (IpAddr, Option<IpAddr>),
        (flows, max): (u32, u32),
    ) -> Result<(), Refusal> {
        let reserved = rules.reserved(priority);
        if reserved > 0 && u64::from(flows) * 100 >= u64::from(max) * (100 - reserved) {
            return Err(Refusal::Table(priority));
        }
        if let (Some(settings), Some(state)) = (rules.rules.get(usize::from(rule)), self.states.get(usize::from(rule)))
        {
            let result = state.admit(takes, settings, now, clients);
            takes.refused_by_rule = result.is_err();
            result?;
        }
        if let Some(rate) = rules.rate {
            takes.gateway = Some(self.bucket.take(now, rate, reserved).ok_or(Refusal::Rate(priority))?);
        }
        Ok(())
    }

    /// Takes what [`Policy::admit`] computed.
    pub fn take(&mut self, rule: u16, takes: &Takes) {
        if let Some(bucket) = takes.gateway {
            self.bucket = bucket;
        }
        let Some(state) = self.states.get_mut(usize::from(rule)) else { return };
        state.totals.refused += u64::from(takes.refused_by_rule);
        if let Some(bucket) = takes.rule {
            state.bucket = bucket;
        }
        if let (Some(clients), Some(taken)) = (&mut state.clients, takes.client) {
            clients.take(taken);
        }
    }

    /// Counts a packet without a flow that a rule matched.
    pub fn matched(&mut self, rule: u16) {
        if let Some(state) = self.states.get_mut(usize::from(rule)) {
            state.totals.matched += 1;
        }
    }

    /// Records a flow that was created.
    pub fn opened(&mut self, rule: u16) {
        let Some(state) = self.states.get_mut(usize::from(rule)) else { return };
        state.totals.opened += 1;
        state.totals.flows += 1;
    }

    /// Returns whether the limits of a rule allow another flow whose client has proved itself.
    ///
    /// # Errors
    /// The limit that has been reached.
    pub fn may_prove(&self, rules: &Rules, rule: u16, client: IpAddr) -> Result<(), Refusal> {
        let found = rules.rules.get(usize::from(rule)).zip(self.states.get(usize::from(rule)));
        let Some((settings, state)) = found else { return Ok(()) };
        state.has_room(settings, (settings.client.of(client), None))
    }

    /// Records that the client of a flow that was created at `created` has proved itself.
    pub fn proven(&mut self, rules: &Rules, rule: u16, (client, created): (IpAddr, Instant)) {
        let Some(state) = self.states.get_mut(usize::from(rule)) else { return };
        state.totals.proven += 1;
        if let Some(clients) = state.clients.as_mut().filter(|clients| clients.counts(created)) {
            clients.opened(rules.rules[usize::from(rule)].client.of(client));
        }
    }

    /// Counts a flow of which a limit of its rule refused that it counts.
    pub fn refused(&mut self, rule: u16) {
        if let Some(state) = self.states.get_mut(usize::from(rule)) {
            state.totals.refused += 1;
        }
    }

    /// Records that a flow that was created at `created` ended; `proven` says whether its client had proved itself.
    pub fn ended(&mut self, rules: &Rules, rule: u16, (client, created): (IpAddr, Instant), proven: bool) {
        let Some(state) = self.states.get_mut(usize::from(rule)) else { return };
        state.totals.flows -= 1;
        if !proven {
            return;
        }
        state.totals.proven -= 1;
        if let Some(clients) = state.clients.as_mut().filter(|clients| clients.counts(created)) {
            clients.ended(rules.rules[usize::from(rule)].client.of(client));
        }
    }

    /// Returns the number of live flows of each rule, by rule number.
    pub fn flows(&self) -> impl Iterator<Item = u32> + '_ {
        self.states.iter().map(|state| state.totals.flows)
    }

    /// Returns the counters of a rule.
    pub fn totals(&self, rule: u16) -> RuleTotals {
        self.states.get(usize::from(rule)).map(|state| state.totals).unwrap_or_default()
    }

    /// Returns how much is left of the limits of a client, a rule and the gateway, of which `reserved` percent is not
    /// for this flow, in the terms of [`Usage`].
    pub fn usage(&self, rules: &Rules, now: Instant, (rule, reserved): (u16, u64), client: IpAddr) -> Usage {
        let of = |bucket: Bucket, rate, reserved| RateUsage {
            left: bucket.left(now, rate),
            rate,
            refuses: bucket.take(now, rate, reserved).is_none(),
        };
        let mut usage =
            Usage { gateway_rate: rules.rate.map(|rate| of(self.bucket, rate, reserved)), ..Usage::default() };
        let found = rules.rules.get(usize::from(rule)).zip(self.states.get(usize::from(rule)));
        if let Some((settings, state)) = found {
            let limits = &settings.limits;
            usage.rule_rate = limits.rate.map(|rate| of(state.bucket, rate, 0));
            usage.rule_flows = limits.flows.map(|most| (state.totals.proven, most));
            if let Some(clients) = &state.clients {
                let client = settings.client.of(client);
                usage.client_rate = limits.client_rate.map(|rate| of(clients.bucket(now, client), rate, 0));
                usage.client_flows = limits.client_flows.map(|most| (clients.flows(client), most));
            }
        }
        usage
    }
}

/// The state of each limit that applies to a new flow; none if there is no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The client's rate of new flows.
    pub client_rate: Option<RateUsage>,
    /// The client's flows, and their limit.
    pub client_flows: Option<(u32, u32)>,
    /// The rule's rate of new flows.
    pub rule_rate: Option<RateUsage>,
    /// The rule's flows, and their limit.
    pub rule_flows: Option<(u32, u32)>,
    /// The gateway's rate of new flows.
    pub gateway_rate: Option<RateUsage>,
}

/// The state of a limit of new flows per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateUsage {
    /// New flows that it would admit at once.
    pub left: u32,
    /// Its rate: new flows per second.
    pub rate: u32,
    /// Whether it refuses the next flow.
    pub refuses: bool,
}

impl RuleState {
    fn admit(
        &self,
        takes: &mut Takes,
        settings: &RuleSettings,
        now: Instant,
        (client, ended): (IpAddr, Option<IpAddr>),
    ) -> Result<(), Refusal> {
        let limits = &settings.limits;
        let client = settings.client.of(client);
        self.has_room(settings, (client, ended))?;
        if let (Some(clients), Some(rate)) = (&self.clients, limits.client_rate) {
            takes.client = Some(clients.admit(now, client, rate).ok_or(Refusal::ClientRate)?);
        }
        if let Some(rate) = limits.rate {
            takes.rule = Some(self.bucket.take(now, rate, 0).ok_or(Refusal::RuleRate)?);
        }
        Ok(())
    }

    /// Returns whether the limits on simultaneous flows allow another; `ended` is the client of a flow of this rule
    /// that counts as ended.
    fn has_room(&self, settings: &RuleSettings, (client, ended): (IpAddr, Option<IpAddr>)) -> Result<(), Refusal> {
        let limits = &settings.limits;
        if limits.flows.is_some_and(|most| self.totals.proven - u32::from(ended.is_some()) >= most) {
            return Err(Refusal::RuleFlows);
        }
        let of_client = ended.is_some_and(|ended| settings.client.of(ended) == client);
        let flows = |clients: &ClientLimits| clients.flows(client).saturating_sub(u32::from(of_client));
        match (&self.clients, limits.client_flows) {
            (Some(clients), Some(most)) if flows(clients) >= most => Err(Refusal::ClientFlows),
            _ => Ok(()),
        }
    }
}

/// The first part of a rule that does not match a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The protocol.
    Protocol,
    /// The ingress interface.
    Ingress,
    /// The destination port.
    Ports,
    /// The source port.
    SourcePorts,
    /// The source address.
    From,
    /// The destination address.
    To,
}

impl RuleSettings {
    /// Returns the first part that does not match a packet without a flow; none if all parts match.
    pub fn mismatch(&self, key: &Key, ingress: u16) -> Option<Mismatch> {
        let within = |networks: &[ipnet::IpNet], address: IpAddr| {
            networks.is_empty() || networks.iter().any(|network| network.contains(&address))
        };
        let in_range = |ranges: &[(u16, u16)], port: u16| {
            ranges.is_empty() || ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
        };
        let (src, dst) = (key.addresses.src(), key.addresses.dst());
        if self.protocol.is_some_and(|protocol| protocol != key.protocol) {
            Some(Mismatch::Protocol)
        } else if self.ingress.is_some_and(|number| number != ingress) {
            Some(Mismatch::Ingress)
        } else if !in_range(&self.ports, key.dst_port) {
            Some(Mismatch::Ports)
        } else if !in_range(&self.source_ports, key.src_port) {
            Some(Mismatch::SourcePorts)
        } else if !within(&self.from, src) {
            Some(Mismatch::From)
        } else if !within(&self.to, dst) {
            Some(Mismatch::To)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Addresses, Protocol};

    fn key(src: &str, port: u16) -> Key {
        let addresses = Addresses::new(src.parse().unwrap(), "192.0.2.80".parse().unwrap()).unwrap();
        Key { addresses, src_port: 5000, dst_port: port, protocol: Protocol::Tcp }
    }

    /// Rules with their switches and one shard's part.
    struct All {
        rules: Rules,
        switches: Switches,
        policy: Policy,
    }

    impl All {
        fn new(settings: &PolicySettings, used: &[Priority]) -> Self {
            let order = (0..settings.rules.len() as u16).collect();
            let rules = Rules::new(settings, order, used.iter().copied());
            All { switches: Switches::new(&rules), policy: Policy::new(&rules), rules }
        }

        fn decide(&mut self, key: &Key, ingress: u16) -> Option<(u16, Action)> {
            let decided = self.rules.decide(&self.switches, key, ingress);
            decided.inspect(|(rule, _)| self.policy.matched(*rule))
        }

        fn admit(&mut self, rule: u16, priority: Priority, client: IpAddr, fill: (u32, u32)) -> Result<(), Refusal> {
            let ask = |policy: &Policy| policy.admit(&self.rules, Instant::ZERO, rule, (priority, client, None), fill);
            let (takes, result) = ask(&self.policy);
            assert_eq!(ask(&self.policy), (takes, result), "admit changes nothing");
            self.policy.take(rule, &takes);
            result
        }
    }

    fn policy(rules: Vec<RuleSettings>) -> All {
        All::new(&PolicySettings { rules, ..PolicySettings::default() }, &[Priority::Normal])
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
        assert!(policy.switches.set(0, false) && !policy.switches.set(9, false));
        assert_eq!(policy.decide(&key("10.1.0.1", 80), 0), Some((1, Action::Reject)));
        assert!(policy.switches.set(4, false));
        assert_eq!(policy.decide(&key("9.9.9.9", 80), 0), None);
        let matched: Vec<u64> = (0..5).map(|rule| policy.policy.totals(rule).matched).collect();
        assert_eq!(matched, [1, 2, 1, 0, 1]);
    }

    #[test]
    fn a_rules_limits_refuse_with_a_reason_and_recover() {
        let limits = Limits { flows: Some(2), client_flows: Some(1), ..Limits::default() };
        let mut policy = policy(vec![RuleSettings { limits, ..RuleSettings::new("a", Action::Balance(None)) }]);
        let client = |n: u8| IpAddr::from([10, 0, 0, n]);
        let admit = |policy: &mut All, n| {
            let result = policy.admit(0, Priority::Normal, client(n), (0, 100));
            if result.is_ok() {
                policy.policy.opened(0);
            }
            result
        };
        let prove = |policy: &mut All, n| {
            let may = policy.policy.may_prove(&policy.rules, 0, client(n));
            may.map(|()| policy.policy.proven(&policy.rules, 0, (client(n), Instant::ZERO)))
        };
        assert_eq!([admit(&mut policy, 1), admit(&mut policy, 1)], [Ok(()); 2], "neither has proved itself");
        assert_eq!([prove(&mut policy, 1), prove(&mut policy, 1)], [Ok(()), Err(Refusal::ClientFlows)]);
        assert_eq!(admit(&mut policy, 1), Err(Refusal::ClientFlows));
        assert_eq!([admit(&mut policy, 2), prove(&mut policy, 2)], [Ok(()); 2]);
        assert_eq!(admit(&mut policy, 3), Err(Refusal::RuleFlows));
        policy.policy.ended(&policy.rules, 0, (client(1), Instant::ZERO), false);
        assert_eq!(admit(&mut policy, 3), Err(Refusal::RuleFlows));
        policy.policy.ended(&policy.rules, 0, (client(1), Instant::ZERO), true);
        assert_eq!(admit(&mut policy, 3), Ok(()));
        let totals = policy.policy.totals(0);
        assert_eq!(totals, RuleTotals { matched: 0, opened: 4, refused: 3, flows: 2, proven: 1 });
        assert_eq!(policy.admit(NO_RULE, Priority::Normal, client(9), (0, 100)), Ok(()));
    }

    #[test]
    fn lower_priorities_are_refused_first_and_the_highest_in_use_never() {
        let settings = PolicySettings { rate: Some(10), ..PolicySettings::default() };
        let client = IpAddr::from([10, 0, 0, 1]);
        use Priority::{High, Low, Normal};
        let mut policy = All::new(&settings, &[Low, Normal, High]);
        let mut admit = |class, flows| policy.admit(NO_RULE, class, client, (flows, 100));
        for (flows, want) in [(79, [Ok(()), Ok(()), Ok(())]), (80, [Err(Refusal::Table(Low)), Ok(()), Ok(())])] {
            assert_eq!([Low, Normal, High].map(|class| admit(class, flows)), want);
        }
        assert_eq!(admit(Normal, 90), Err(Refusal::Table(Normal)));
        // Five of ten are in use.
        let refused = [Low, Low, Low, Low, Normal, Normal, High, High].map(|class| admit(class, 0).err());
        let (low, normal, high) = (Some(Refusal::Rate(Low)), Some(Refusal::Rate(Normal)), Some(Refusal::Rate(High)));
        assert_eq!(refused, [None, None, None, low, None, normal, None, high]);
        let mut alone = All::new(&PolicySettings::default(), &[Normal]);
        assert_eq!(alone.admit(NO_RULE, Normal, client, (99, 100)), Ok(()));
    }
}
