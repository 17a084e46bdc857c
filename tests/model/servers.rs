//! Servers as operators, traffic and time make them: weights, administrative states, forced health, reports, holds, slow start.

use equipoise::balance::{Admin, Passive, ServerSettings};
use equipoise::time::{Duration, Instant};

/// How long a server's report counts.
const REPORT_LIFE: Duration = Duration::from_secs(60);
/// Slow start rises in so many steps.
pub const STEPS: u32 = 16;

/// A server's word on its load.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub load: u8,
    pub at: Instant,
    /// Flows that it had then, and that it was given since.
    pub flows_then: u32,
    pub given: u32,
}

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    pub settings: ServerSettings,
    passive: Option<Passive>,
    pub admin: Admin,
    pub deadline: Option<Instant>,
    /// What an operator says of its health.
    pub forced: Option<bool>,
    pub flows: u32,
    pub flows_total: u64,
    pub report: Option<Report>,
    pub maintenance: bool,
    pub times: [u64; 2],
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    /// Since when it is back, where it was away.
    back_since: Option<Instant>,
    /// How often it went away: clients stick to it until then.
    pub era: u32,
    signs: Vec<Instant>,
    pub held_until: Instant,
    held: bool,
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
            flows: 0,
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
            last_hold: Duration::ZERO,
        }
    }

    /// Whether it may have new flows, health left aside.
    pub fn is_open(&self, now: Instant) -> bool {
        self.admin == Admin::Enabled && self.settings.weight > 0 && !self.maintenance && self.held_until <= now
    }

    pub fn is_full(&self) -> bool {
        self.settings.max_flows.is_some_and(|most| self.flows >= most)
    }

    /// Whether an operator says that it is down.
    pub fn is_forced_down(&self) -> bool {
        self.forced == Some(false)
    }

    /// Sixteenths of its weight that slow start allows: the first at once.
    pub fn step(&self, now: Instant) -> u32 {
        let rise = self.settings.slow_start.as_nanos();
        let Some(since) = self.back_since.filter(|_| rise > 0) else { return STEPS };
        let passed = now.since(since).as_nanos() * u128::from(STEPS) / rise;
        (passed.min(u128::from(STEPS)) as u32).max(1)
    }

    /// Its weight in force, in sixteenths.
    pub fn weight(&self, now: Instant) -> u32 {
        u32::from(self.settings.weight) * self.step(now)
    }

    /// Changes what an operator, or the server itself, says: who stops taking flows is forgotten by clients, who begins
    /// again begins slowly.
    pub fn change(&mut self, now: Instant, change: impl FnOnce(&mut Server)) {
        let was = self.is_open(now);
        change(self);
        let is = self.is_open(now);
        self.era += u32::from(was && !is);
        if is && !was {
            self.back_since = Some(now);
        }
    }

    /// Notes that it came back into service.
    pub fn is_back(&mut self, now: Instant) {
        self.back_since = Some(now);
    }

    pub fn reports(&mut self, now: Instant, load: u8, maintenance: bool) {
        let report = Report { load, at: now, flows_then: self.flows, given: 0 };
        self.change(now, |server| {
            server.report = Some(report);
            server.maintenance = maintenance;
        });
    }

    /// A sign of trouble; until when it is taken out, if this was one too many.
    pub fn sign(&mut self, now: Instant) -> Option<Instant> {
        let passive = self.passive.clone()?;
        if self.held_until > now {
            return None;
        }
        // The signs that count began with the first of them.
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
        Some(self.held_until)
    }

    /// It answered: signs count no more.
    pub fn answered(&mut self) {
        self.signs.clear();
    }

    /// What time alone does to it; whether its draining is over.
    pub fn passes(&mut self, now: Instant) -> bool {
        if self.report.is_some_and(|report| report.at + REPORT_LIFE <= now) {
            self.report = None;
            self.maintenance = false;
        }
        if self.held && self.held_until <= now {
            self.held = false;
            self.back_since = Some(now);
        }
        let over = self.deadline.is_some_and(|deadline| deadline <= now);
        if over {
            self.deadline = None;
        }
        over
    }

    /// When time next does something to it beside slow start.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let held = Some(self.held_until).filter(|until| *until > now);
        let report = self.report.map(|report| report.at + REPORT_LIFE);
        [held, report, self.deadline].into_iter().flatten().min()
    }
}
