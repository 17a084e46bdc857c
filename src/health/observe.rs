//! Monitors that follow a capture: they use its probes and replies, and send nothing.
//!
//! A captured probe counts for every monitor that could have sent it; a reply must match its ports. Before the first
//! captured probe of a target, one probe per interval is assumed, which any matching reply ends, but only once the
//! capture has contained some packet of the monitors.

use super::http::Response;
use super::probes::protocol_of;
use super::settings::Probe;
use super::targets::Targets;
use super::why::Failure;
use super::{Monitors, Taken, dns, icmp, tcp, udp};
use crate::packet::{Parsed, TcpFlags, Transport, proto, word};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Maximum number of HTTP responses followed at the same time.
const MOST_STREAMS: usize = 1024;
/// Maximum number of outstanding captured probes per target.
const MOST_SENT: usize = 64;

#[derive(Debug)]
pub(super) struct Observer {
    /// Whether the capture has contained any packet of the monitors.
    seen: bool,
    followed: Vec<Followed>,
    streams: BTreeMap<(IpAddr, u16, u16), Stream>,
}

#[derive(Debug, Default)]
struct Followed {
    /// Whether the capture contains its probes.
    captured: bool,
    sent: VecDeque<Sent>,
}

/// An outstanding probe: captured, with its source port (or sequence number), or assumed.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    ours: Option<u16>,
}

#[derive(Debug)]
struct Stream {
    target: u32,
    next: u32,
    response: Response,
}

impl Observer {
    pub(super) fn new(targets: usize) -> Self {
        let followed = std::iter::repeat_with(Followed::default).take(targets).collect();
        Observer { seen: false, followed, streams: BTreeMap::new() }
    }
}

/// Returns the targets at an address and port; a linear scan is enough for a replay.
fn at(all: &Targets, address: IpAddr, protocol: u8, port: u16) -> Vec<u32> {
    let fits = |t: &&super::targets::Target| {
        t.address == address
            && t.port == port
            && protocol_of(&all.monitors[t.monitor as usize].settings.probe, address) == protocol
    };
    (0..).zip(&all.targets).filter(|(_, target)| fits(target)).map(|(id, _)| id).collect()
}

impl Monitors {
    pub(super) fn observed(&mut self, now: Instant, packet: &[u8], parsed: &Parsed) -> Taken {
        if let Some(observer) = &mut self.observer {
            observer.seen = true;
        }
        self.expire_observed(now);
        let (src, dst) = (parsed.addresses.src(), parsed.addresses.dst());
        let ours = |address| match address {
            IpAddr::V4(v4) => self.source_v4 == Some(v4),
            IpAddr::V6(v6) => self.source_v6 == Some(v6),
        };
        let any =
            if ours(src) { self.captured(now, dst, packet, parsed) } else { self.answer(now, src, packet, parsed) };
        if any { Taken::Answer } else { Taken::Unknown }
    }

    /// Takes a captured probe; returns whether it belongs to one of the monitors.
    fn captured(&mut self, now: Instant, to: IpAddr, packet: &[u8], parsed: &Parsed) -> bool {
        let (ours, theirs) = match parsed.transport {
            Transport::Echo { request: true, .. } => (word(packet, parsed.offset + 6), 0),
            Transport::Tcp { src, dst, flags, .. } if flags.syn() && !flags.ack() => (src, dst),
            Transport::Udp { src, dst } => (src, dst),
            // Other packets that a monitor sends belong to a known probe.
            _ => return true,
        };
        let mut targets = at(&self.all, to, parsed.protocol, theirs);
        if let Transport::Tcp { .. } = parsed.transport {
            let raw = word(packet, parsed.offset + 14) == tcp::WINDOW;
            let http = |id: &u32| self.is_http(*id);
            if targets.iter().any(http) && !targets.iter().all(http) {
                targets.retain(|id| self.is_http(*id) != raw);
            }
        }
        let Some(observer) = &mut self.observer else { return false };
        for id in &targets {
            let followed = &mut observer.followed[*id as usize];
            if !followed.captured {
                followed.captured = true;
                followed.sent.clear();
            }
            let again = followed.sent.iter().any(|sent| sent.ours == Some(ours));
            if !again && followed.sent.len() < MOST_SENT {
                followed.sent.push_back(Sent { at: now, ours: Some(ours) });
            }
        }
        for id in &targets {
            self.rearm(now, *id);
        }
        !targets.is_empty()
    }

    fn is_http(&self, id: u32) -> bool {
        let target = &self.all.targets[id as usize];
        matches!(self.all.monitors[target.monitor as usize].settings.probe, Probe::Http(_))
    }

    /// Takes a packet from a server; returns whether it was a reply.
    fn answer(&mut self, now: Instant, from: IpAddr, packet: &[u8], parsed: &Parsed) -> bool {
        let (ours, theirs) = match parsed.transport {
            Transport::Echo { request: false, .. } => (word(packet, parsed.offset + 6), 0),
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst } => (dst, src),
            Transport::Icmp { .. } => return self.observed_error(now, packet, parsed),
            _ => return false,
        };
        let mut any = false;
        for id in at(&self.all, from, parsed.protocol, theirs) {
            let target = &self.all.targets[id as usize];
            let monitor = &self.all.monitors[target.monitor as usize];
            let payload = udp::payload(packet, parsed);
            let verdict = match &monitor.settings.probe {
                Probe::Icmp => Some(Ok(())),
                Probe::Tcp => match parsed.transport {
                    Transport::Tcp { flags, .. } if flags.0 & 0x17 == TcpFlags::SYN | TcpFlags::ACK => Some(Ok(())),
                    Transport::Tcp { flags, .. } if flags.rst() => Some(Err(Failure::Refused)),
                    _ => None,
                },
                Probe::Http(_) => {
                    any |= self.follow(now, id, (from, theirs, ours), packet, parsed);
                    continue;
                }
                Probe::Udp { .. } if monitor.matcher.as_ref().is_none_or(|m| m.matches(payload)) => Some(Ok(())),
                Probe::Udp { .. } => Some(Err(Failure::Answer)),
                Probe::Dns { name, kind, expect } => payload
                    .get(..2)
                    .and_then(|id| dns::query(word(id, 0), name, *kind))
                    .and_then(|query| dns::judge(&query, payload, *expect)),
            };
            any |= verdict.is_some_and(|verdict| self.end_observed(now, id, ours, verdict));
        }
        any
    }

    fn observed_error(&mut self, now: Instant, packet: &[u8], parsed: &Parsed) -> bool {
        let Some(quote) = icmp::quote(packet, parsed) else { return false };
        let echo = matches!(quote.protocol, proto::ICMP | proto::ICMPV6);
        let (ours, theirs) = if echo { (quote.theirs, 0) } else { (quote.ours, quote.theirs) };
        let targets = at(&self.all, quote.dst, quote.protocol, theirs);
        targets.into_iter().any(|id| self.end_observed(now, id, ours, Err(Failure::Unreachable(quote.what))))
    }

    /// Follows an HTTP response in order; after a gap it waits for the missing segment.
    fn follow(&mut self, now: Instant, id: u32, key: (IpAddr, u16, u16), packet: &[u8], parsed: &Parsed) -> bool {
        let Transport::Tcp { flags, seq, header, .. } = parsed.transport else { return false };
        let Some(observer) = &mut self.observer else { return false };
        if flags.syn() && flags.ack() {
            if observer.streams.len() >= MOST_STREAMS {
                observer.streams.pop_first();
            }
            let stream = Stream { target: id, next: seq.wrapping_add(1), response: Response::default() };
            observer.streams.insert(key, stream);
            return true;
        }
        if flags.rst() {
            let stream = observer.streams.remove(&key);
            let failure = if stream.is_some() { Failure::Reset } else { Failure::Refused };
            return self.end_observed(now, id, key.2, Err(failure));
        }
        let Some(stream) = observer.streams.get_mut(&key).filter(|stream| stream.target == id) else { return false };
        let payload = packet.get(parsed.offset + usize::from(header)..parsed.len).unwrap_or(&[]);
        let known = stream.next.wrapping_sub(seq) as usize;
        if known > payload.len() {
            return true;
        }
        let monitor = &self.all.monitors[self.all.targets[id as usize].monitor as usize];
        stream.next = stream.next.wrapping_add((payload.len() - known) as u32);
        let mut verdict = stream.response.feed(monitor, &payload[known..]);
        if verdict.is_none() && flags.fin() {
            verdict = Some(stream.response.end(monitor));
        }
        let Some(verdict) = verdict else { return true };
        let load = stream.response.load;
        observer.streams.remove(&key);
        self.set_load(now, id, load);
        self.end_observed(now, id, key.2, verdict)
    }

    /// Ends the probe from this source port, or the assumed one; returns whether there was one.
    fn end_observed(&mut self, now: Instant, id: u32, ours: u16, verdict: Result<(), Failure>) -> bool {
        let Some(observer) = &mut self.observer else { return false };
        let sent = &mut observer.followed[id as usize].sent;
        let Some(place) = sent.iter().position(|sent| sent.ours.is_none_or(|port| port == ours)) else { return false };
        let Some(probe) = sent.remove(place) else { return false };
        let latency: Option<Duration> = probe.ours.map(|_| now.since(probe.at));
        self.record(now, id, verdict.map(|()| latency));
        self.rearm(now, id);
        true
    }

    /// Ends the probes that are overdue at the time of a packet: wake-ups may be handled after packets of the same time.
    fn expire_observed(&mut self, now: Instant) {
        while let Some(id) = self.schedule.pop(now) {
            if (id as usize) < self.all.targets.len() {
                self.wake_observed(now, id);
            }
        }
    }

    pub(super) fn wake_observed(&mut self, now: Instant, id: u32) {
        let (interval, timeout) = self.times(id);
        let failure = Failure::Timeout { after_ms: timeout.as_millis() as u64 };
        while let Some(observer) = &mut self.observer {
            let sent = &mut observer.followed[id as usize].sent;
            if sent.front().is_none_or(|sent| sent.at + timeout > now) {
                break;
            }
            sent.pop_front();
            self.record(now, id, Err(failure.clone()));
        }
        let Some(observer) = &mut self.observer else { return };
        let followed = &mut observer.followed[id as usize];
        let target = &mut self.all.targets[id as usize];
        if target.due <= now {
            if observer.seen && !followed.captured && followed.sent.is_empty() {
                followed.sent.push_back(Sent { at: now, ours: None });
            }
            target.due = now + interval;
        }
        self.rearm(now, id);
    }

    fn times(&self, id: u32) -> (Duration, Duration) {
        let settings = &self.all.monitors[self.all.targets[id as usize].monitor as usize].settings;
        (settings.interval, settings.timeout)
    }

    /// Sets the wake-up of a target to the timeout of its oldest probe or to its next assumed probe, whichever is first.
    fn rearm(&mut self, now: Instant, id: u32) {
        let (_, timeout) = self.times(id);
        let Some(observer) = &self.observer else { return };
        let followed = &observer.followed[id as usize];
        let due = if followed.captured { Instant::FAR } else { self.all.targets[id as usize].due };
        let ends = followed.sent.front().map_or(Instant::FAR, |sent| sent.at + timeout);
        self.schedule.set(id, due.min(ends).max(now));
    }
}
