//! The state of servers as operators, traffic and time change it: weights, administrative states, forced health, load
//! reports, passive holds, slow start.

use equipoise::balance::{Admin, Health, Passive, ServerSettings};
use equipoise::time::{Duration, Instant};

/// How long a server's load report is valid.
const REPORT_LIFE: Duration = Duration::from_secs(60);
/// The number of steps in slow start.
pub const STEPS: u32 = 16;

/// A server's load report.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub load: u8,
    pub at: Instant,
    /// Flows that it had at that time.
    pub flows_then: u32,
    /// Flows assigned to it since.
    pub given: u32,
}

#[derive(Debug, Clone)]
pub struct Server {
    pub settings: ServerSettings,
    passive: Option<Passive>,
    pub admin: Admin,
    pub deadline: Option<Instant>,
    /// The health forced by an operator.
    pub forced: Option<bool>,
    /// The health reported by its monitors, by family; none if it is not monitored.
    pub watched: [Option<Health>; 2],
    /// The effective health, by family.
    pub health: [Health; 2],
    /// The smoothed round-trip time of its probes.
    pub latency: Option<Duration>,
    pub flows: u32,
    /// Those that count in its limit.
    pub proven: u32,
    pub flows_total: u64,
    pub report: Option<Report>,
    pub maintenance: bool,
    pub times: [u64; 2],
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    /// When it came back into service, if it was ever out.
    back_since: Option<Instant>,
    /// How often it has gone out of service; clients stick to it only within one era.
    pub era: u32,
    signs: Vec<Instant>,
    pub held_until: Instant,
    held: bool,
    /// How often its state has changed.
    pub changes: u64,
    /// When it is examined next.
    timer: Option<Instant>,
    last_hold: Duration,
}

impl Server {
    pub fn new(settings: &ServerSettings, passive: Option<Passive>) -> Self {
        Server {
            settings: settings.clone(),
            passive,
            admin: settings.admin,
            deadline: None,
            forced: None,
            watched: [None; 2],
            health: [Health::Up; 2],
            latency: None,
            flows: 0,
            proven: 0,
            flows_total: 0,
            report: None,
            maintenance: false,
            times: [0; 2],
            packets: [0; 2],
            bytes: [0; 2],
            back_since: None,
            era: 0,
            signs: Vec::new(),
            held_until: Instant::ZERO,
            held: false,
            changes: 0,
            timer: None,
            last_hold: Duration::ZERO,
        }
    }

    /// Returns whether it accepts new flows, regardless of its health.
    pub fn is_open(&self, now: Instant) -> bool {
        self.admin == Admin::Enabled && self.settings.weight > 0 && !self.maintenance && self.held_until <= now
    }

    pub fn is_full(&self) -> bool {
        self.settings.max_flows.is_some_and(|most| self.proven >= most)
    }

    /// Returns whether it would be full if all its flows counted.
    pub fn may_become_full(&self) -> bool {
        self.settings.max_flows.is_some_and(|most| self.flows >= most)
    }

    /// Returns its health by family: forced health overrides the monitors, and a server without monitors is up.
    pub fn told(&self) -> [Health; 2] {
        match self.forced {
            Some(true) => [Health::Up; 2],
            Some(false) => [Health::Down; 2],
            None => self.watched.map(Option::unwrap_or_default),
        }
    }

    /// Returns how many sixteenths of its weight slow start allows; the first is allowed at once.
    pub fn step(&self, now: Instant) -> u32 {
        let rise = self.settings.slow_start.as_nanos();
        let Some(since) = self.back_since.filter(|_| rise > 0) else { return STEPS };
        let passed = now.since(since).as_nanos() * u128::from(STEPS) / rise;
        (passed.min(u128::from(STEPS)) as u32).max(1)
    }

    /// Returns its effective weight, in sixteenths.
    pub fn weight(&self, now: Instant) -> u32 {
        u32::from(self.settings.weight) * self.step(now)
    }

    /// Applies a change by an operator or by the server itself. A server that stops accepting flows loses its sticky
    /// clients; one that accepts flows again begins with slow start.
    pub fn change(&mut self, now: Instant, change: impl FnOnce(&mut Server)) {
        let was = self.is_open(now);
        change(self);
        let is = self.is_open(now);
        self.era += u32::from(was && !is);
        if is && !was {
            self.back_since = Some(now);
        }
        self.changed(now);
    }

    /// Records that its state changed.
    pub fn changed(&mut self, now: Instant) {
        self.changes += 1;
        self.watch(now);
    }

    /// Sets when it is examined next: at the next step of slow start or the next timed change, whichever is first.
    pub fn watch(&mut self, now: Instant) {
        let (rise, steps) = (self.settings.slow_start.as_nanos(), u128::from(STEPS));
        let rising = self.back_since.filter(|_| self.step(now) < STEPS).map(|since| {
            let step = now.since(since).as_nanos() * steps / rise;
            since + Duration::from_nanos(((step + 1) * rise).div_ceil(steps) as u64)
        });
        self.timer = self.next(now).into_iter().chain(rising).min();
    }

    /// Follows another configuration, which differs from the older one in weight and state where these are given.
    pub fn follow(
        &mut self,
        settings: &ServerSettings,
        passive: Option<Passive>,
        weight: Option<u16>,
        admin: Option<Admin>,
    ) -> bool {
        let before = (self.settings.weight, self.admin);
        self.settings = ServerSettings { weight: weight.unwrap_or(self.settings.weight), ..settings.clone() };
        self.passive = passive;
        if let Some(admin) = admin {
            (self.admin, self.deadline) = (admin, None);
        }
        before != (self.settings.weight, self.admin)
    }

    /// Records that it came back into service.
    pub fn is_back(&mut self, now: Instant) {
        self.back_since = Some(now);
    }

    pub fn reports(&mut self, now: Instant, load: u8, maintenance: bool) {
        let report = Report { load, at: now, flows_then: self.flows, given: 0 };
        if maintenance == self.maintenance {
            self.report = Some(report);
            return self.watch(now);
        }
        self.change(now, |server| (server.report, server.maintenance) = (Some(report), maintenance));
    }

    /// Records a sign of trouble. If this was one too many, takes the server out of service and returns until when.
    pub fn sign(&mut self, now: Instant) -> Option<Instant> {
        let passive = self.passive.clone()?;
        if self.held_until > now {
            return None;
        }
        // The period in which signs count begins with the first of them.
        if self.signs.first().is_some_and(|first| now.since(*first) > passive.within) {
            self.signs.clear();
        }
        self.signs.push(now);
        if self.signs.len() < passive.failures as usize {
            return None;
        }
        let peace = now.since(self.held_until) > passive.longest;
        let hold = if self.last_hold.is_zero() || peace { passive.hold } else { self.last_hold * 2 };
        self.last_hold = hold.min(passive.longest);
        self.held_until = now + self.last_hold;
        self.held = true;
        self.signs.clear();
        self.era += 1;
        self.changed(now);
        Some(self.held_until)
    }

    /// It replied: signs of trouble no longer count.
    pub fn answered(&mut self) {
        self.signs.clear();
    }

    /// Applies the changes that time alone brings; returns whether its drain deadline has passed.
    pub fn passes(&mut self, now: Instant) -> bool {
        let hold_ends = self.held && self.held_until <= now;
        if self.timer.is_none_or(|timer| timer > now) && !hold_ends {
            return false;
        }
        let is_old = |report: &Report| report.at + REPORT_LIFE <= now;
        if self.report.as_ref().is_some_and(is_old) {
            let tires = |server: &mut Server| (server.report, server.maintenance) = (None, false);
            self.change(now, tires)
        }
        if self.held && self.held_until <= now {
            self.held = false;
            self.back_since = Some(now);
        }
        let over = self.deadline.is_some_and(|deadline| deadline <= now);
        if over {
            self.deadline = None;
        }
        self.changed(now);
        over
    }

    /// Returns when the next timed change other than slow start is due.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let held = Some(self.held_until).filter(|until| *until > now);
        let report = self.report.map(|report| report.at + REPORT_LIFE);
        [held, report, self.deadline].into_iter().flatten().min()
    }
}
