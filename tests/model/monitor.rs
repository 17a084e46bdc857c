//! Monitors that send echo requests. The engine chooses when to send them, within the jitter; the model determines the
//! results.

use super::craft;
use super::wire::{self, Body, Packet};
use equipoise::health::settings::MonitorSettings;
use equipoise::health::{Failure, Why};
use equipoise::state::Health;
use equipoise::time::{Duration, Instant};
use std::net::IpAddr;

/// A monitored address.
#[derive(Debug, Clone)]
pub struct Watch {
    pub server: usize,
    pub address: IpAddr,
    pub health: Health,
    settings: MonitorSettings,
    /// The pending request and when it was sent.
    pub asked: Option<(Instant, Vec<u8>)>,
    /// When the last request was sent.
    last: Option<Instant>,
    /// The results in the sampling window; `None` is a failure.
    window: Vec<Option<Duration>>,
    /// Consecutive successes, or consecutive failures.
    successes: u32,
    failures: u32,
    pub smoothed: Option<Duration>,
}

impl Watch {
    pub fn new(server: usize, address: IpAddr, settings: &MonitorSettings) -> Self {
        let health = settings.initial;
        Watch {
            server,
            address,
            health,
            settings: settings.clone(),
            asked: None,
            last: None,
            window: Vec::new(),
            successes: 0,
            failures: 0,
            smoothed: None,
        }
    }

    /// Returns when the pending request counts as lost.
    pub fn until(&self) -> Option<Instant> {
        self.asked.as_ref().map(|(since, _)| *since + self.settings.timeout)
    }

    /// Records a request that the engine sent; returns what is wrong with it, if anything.
    pub fn asks(&mut self, now: Instant, bytes: &[u8], packet: &Packet) -> Option<String> {
        let sound = matches!(packet.body, Body::Echo { request: true, .. }) && packet.sum_is_right(bytes);
        let soonest = self.settings.interval / 100 * (100 - u32::from(self.settings.jitter_percent));
        let early = self.last.is_some_and(|last| now < last + soonest);
        let wrong = !sound || early || self.asked.is_some();
        (self.asked, self.last) = (Some((now, bytes.to_vec())), Some(now));
        wrong.then(|| {
            format!("{}: a request that is invalid (sound: {sound}), too early ({early}) or redundant", self.address)
        })
    }

    /// Returns whether a reply answers the pending request: it has the same length, identifier, sequence number and
    /// first eight bytes of data.
    pub fn is_answered_by(&self, bytes: &[u8], packet: &Packet) -> bool {
        let reply = matches!(packet.body, Body::Echo { request: false, .. });
        let Some((_, asked)) = self.asked.as_ref().filter(|(_, asked)| asked.len() == packet.len) else { return false };
        let told = packet.at + 4..packet.at + 16;
        reply && asked[told.clone()] == bytes[told]
    }

    /// Records the result of the pending request, answered now or lost. Returns why the health changed, if it did.
    pub fn result(&mut self, now: Instant, answered: bool) -> Option<Why> {
        let (since, _) = self.asked.take()?;
        let latency = answered.then(|| now.since(since));
        self.window.push(latency);
        if self.window.len() > self.settings.samples as usize {
            self.window.remove(0);
        }
        match latency {
            // RFC 6298, 2.3: each new sample has a weight of one eighth.
            Some(latency) => {
                (self.successes, self.failures) = (self.successes + 1, 0);
                self.smoothed = Some(self.smoothed.map_or(latency, |old| (old * 7 + latency) / 8));
            }
            None => (self.successes, self.failures) = (0, self.failures + 1),
        }
        let fault = self.fault(answered);
        let (health, why) = match fault {
            Some(why) => (Health::Down, Some(why)),
            None if self.successes >= self.settings.rise => {
                let average_ms = self.average().map(millis);
                (Health::Up, Some(Why::Answered { count: self.successes, average_ms }))
            }
            None => (self.health, None),
        };
        let changed = health != self.health;
        self.health = health;
        why.filter(|_| changed)
    }

    fn average(&self) -> Option<Duration> {
        let answered = self.window.iter().flatten().count() as u32;
        (answered > 0).then(|| self.window.iter().flatten().sum::<Duration>() / answered)
    }

    fn fault(&self, answered: bool) -> Option<Why> {
        let lost = self.window.iter().filter(|result| result.is_none()).count() as u32;
        let of = self.window.len() as u32;
        if let Some(most) = self.settings.max_lost.filter(|most| lost > *most) {
            return Some(Why::Lost { lost, of, most });
        }
        if !answered && self.failures >= self.settings.fall {
            let last = Failure::Timeout { after_ms: self.settings.timeout.as_millis() as u64 };
            return Some(Why::Failed { count: self.failures, last });
        }
        let limit = self.settings.max_latency?;
        let average = self.average().filter(|average| *average > limit)?;
        Some(Why::Slow { average_ms: millis(average), limit_ms: millis(limit) })
    }
}

/// Returns whole milliseconds, rounded up.
fn millis(span: Duration) -> u64 {
    span.as_micros().div_ceil(1000) as u64
}

/// Returns the reply to an echo request.
pub fn reply(request: &[u8]) -> Vec<u8> {
    let at = if request[0] >> 4 == 4 { 20 } else { 40 };
    let wire::Read::Packet(packet) = wire::read(request) else { return Vec::new() };
    let mut message = request[at..].to_vec();
    message[0] = if at == 20 { 0 } else { 129 };
    craft::packet(packet.dst, packet.src, if at == 20 { 1 } else { 58 }, 60, &message)
}
