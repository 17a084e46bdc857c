//! Rules, limits and priorities: whether a new flow is admitted.

use equipoise::balance::Priority;
use equipoise::engine::{Pressed, Reason};
use equipoise::packet::Protocol;
use equipoise::policy::{Action, PolicySettings, RuleSettings};
use equipoise::time::{Duration, Instant};
use std::net::{IpAddr, SocketAddr};

const SECOND: u64 = 1_000_000_000;

/// A rate limit that allows a burst of one second's worth: a leaky bucket that drains at the rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    /// The fill level at time `at`, in nanoseconds of draining.
    level: u64,
    at: Instant,
}

impl Meter {
    /// Takes one, keeping `kept` percent of the capacity for others. An empty meter always admits one.
    pub fn take(&mut self, now: Instant, rate: u32, kept: u64) -> bool {
        let passed = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let level = self.level.saturating_sub(passed);
        let one = SECOND / u64::from(rate);
        if level > 0 && level + one > SECOND / 100 * (100 - kept) {
            return false;
        }
        (self.level, self.at) = (level + one, now);
        true
    }
}

/// A client, or prefix of clients, of a rule.
#[derive(Debug, Clone)]
struct Client {
    address: IpAddr,
    meter: Meter,
    flows: u32,
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub settings: RuleSettings,
    pub on: bool,
    meter: Meter,
    clients: Vec<Client>,
    /// Flows created earlier do not count by client.
    since: Option<Instant>,
    pub matched: u64,
    pub flows_total: u64,
    pub refused: u64,
    pub flows: u32,
    /// Those that count in limits.
    pub proven: u32,
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub rules: Vec<Rule>,
    rate: Option<u32>,
    meter: Meter,
    /// The highest priority that a rule or service uses.
    highest: Priority,
    told: Vec<(Priority, Pressed, Instant)>,
}

/// The reason why a flow is refused, and the pressure to report, if any.
pub type Refused = (Reason, Option<(Priority, Pressed)>);

impl Policy {
    pub fn new(settings: &PolicySettings, services: impl Iterator<Item = Priority>) -> Self {
        let rule = |settings: &RuleSettings| Rule {
            settings: settings.clone(),
            on: settings.enabled,
            meter: Meter::default(),
            clients: Vec::new(),
            since: None,
            matched: 0,
            flows_total: 0,
            refused: 0,
            flows: 0,
            proven: 0,
        };
        let of_rules = settings.rules.iter().filter_map(|rule| rule.priority);
        Policy {
            rules: settings.rules.iter().map(rule).collect(),
            rate: settings.rate,
            meter: Meter::default(),
            highest: of_rules.chain(services).max().unwrap_or_default(),
            told: Vec::new(),
        }
    }

    /// Returns the first rule that matches, and its action.
    pub fn decide(&mut self, protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Option<(usize, Action)> {
        let any = |nets: &[ipnet::IpNet], ip: IpAddr| nets.is_empty() || nets.iter().any(|net| net.contains(&ip));
        let port = |all: &[(u16, u16)], port| all.is_empty() || all.iter().any(|(a, b)| *a <= port && port <= *b);
        let matches = |rule: &Rule| {
            let s = &rule.settings;
            let protocol = s.protocol.is_none_or(|wanted| wanted == protocol);
            let ports = port(&s.source_ports, src.port()) && port(&s.ports, dst.port());
            rule.on && protocol && ports && any(&s.from, src.ip()) && any(&s.to, dst.ip()) && s.ingress.is_none()
        };
        let place = self.rules.iter().position(matches)?;
        self.rules[place].matched += 1;
        Some((place, self.rules[place].settings.action))
    }

    /// Admits a flow if it is within all limits: those of the table, its rule, its client and the gateway.
    ///
    /// What was taken from an earlier limit is not returned if a later one refuses.
    pub fn admit(
        &mut self,
        now: Instant,
        rule: Option<usize>,
        class: Priority,
        client: IpAddr,
        (flows, most): (usize, usize),
    ) -> Result<(), Refused> {
        let kept: u64 = match class {
            _ if class == self.highest => 0,
            Priority::Low => 20,
            Priority::Normal => 10,
            Priority::High => 0,
        };
        if kept > 0 && flows as u64 * 100 >= most as u64 * (100 - kept) {
            let reason = if class == Priority::Low { Reason::TableLow } else { Reason::TableNormal };
            return Err((reason, Some((class, Pressed::Table))));
        }
        if let Some(rule) = rule.map(|place| &mut self.rules[place])
            && let Err(reason) = rule.admit(now, client)
        {
            rule.refused += 1;
            return Err((reason, None));
        }
        match self.rate {
            Some(rate) if !self.meter.take(now, rate, kept) => Err((Reason::GatewayRate, Some((class, Pressed::Rate)))),
            _ => Ok(()),
        }
    }

    /// Returns whether pressure is reported now: at most once a minute for each priority and kind.
    pub fn tells(&mut self, now: Instant, class: Priority, of: Pressed) -> bool {
        let last = self.told.iter().rev().find(|told| (told.0, told.1) == (class, of)).map(|told| told.2);
        let tells = last.is_none_or(|last| now.since(last) >= Duration::from_secs(60));
        if tells {
            self.told.push((class, of, now));
        }
        tells
    }

    /// Follows other settings of the same rules. Those whose limits by client are new, or distinguish clients
    /// differently, count from now on.
    pub fn follow(&mut self, now: Instant, settings: &PolicySettings, services: impl Iterator<Item = Priority>) {
        let fresh = Policy::new(settings, services);
        (self.rate, self.highest) = (fresh.rate, fresh.highest);
        for (rule, new) in self.rules.iter_mut().zip(&settings.rules) {
            let old = std::mem::replace(&mut rule.settings, new.clone());
            if old.enabled != new.enabled {
                rule.on = new.enabled;
            }
            let counts = |of: &RuleSettings| of.limits.client_rate.is_some() || of.limits.client_flows.is_some();
            if !counts(&old) || !counts(new) || old.client != new.client {
                (rule.clients, rule.since) = (Vec::new(), Some(now));
            }
        }
    }

    pub fn opened(&mut self, rule: Option<usize>) {
        let Some(rule) = rule.map(|place| &mut self.rules[place]) else { return };
        rule.flows_total += 1;
        rule.flows += 1;
    }

    pub fn proven(&mut self, rule: Option<usize>, (client, created): (IpAddr, Instant)) {
        let Some(rule) = rule.map(|place| &mut self.rules[place]) else { return };
        rule.proven += 1;
        rule.client(client).flows += u32::from(rule.since.is_none_or(|since| since < created));
    }

    pub fn ended(&mut self, rule: Option<usize>, (client, created): (IpAddr, Instant), proven: bool) {
        let Some(rule) = rule.map(|place| &mut self.rules[place]) else { return };
        rule.flows -= 1;
        rule.proven -= u32::from(proven);
        rule.client(client).flows -= u32::from(proven && rule.since.is_none_or(|since| since < created));
    }
}

impl Rule {
    fn client(&mut self, address: IpAddr) -> &mut Client {
        let address = self.settings.client.of(address);
        let place = self.clients.iter().position(|client| client.address == address).unwrap_or_else(|| {
            self.clients.push(Client { address, meter: Meter::default(), flows: 0 });
            self.clients.len() - 1
        });
        &mut self.clients[place]
    }

    /// Returns whether the limits on simultaneous flows, of which only those of proven clients count, admit another.
    pub fn has_room(&mut self, client: IpAddr) -> Result<(), Reason> {
        let limits = self.settings.limits.clone();
        if limits.flows.is_some_and(|most| self.proven >= most) {
            return Err(Reason::RuleFlows);
        }
        let of_client = self.client(client).flows;
        if limits.client_flows.is_some_and(|most| of_client >= most) { Err(Reason::ClientFlows) } else { Ok(()) }
    }

    fn admit(&mut self, now: Instant, client: IpAddr) -> Result<(), Reason> {
        self.has_room(client)?;
        let limits = self.settings.limits.clone();
        let client = self.client(client);
        if limits.client_rate.is_some_and(|rate| !client.meter.take(now, rate, 0)) {
            return Err(Reason::ClientRate);
        }
        match limits.rate {
            Some(rate) if !self.meter.take(now, rate, 0) => Err(Reason::RuleRate),
            _ => Ok(()),
        }
    }
}
