//! Outstanding probes: started when due, matched with replies, ended by their timeout.

use super::jitter;
use super::settings::Probe;
use super::stack::Progress;
use super::targets::Outstanding;
use super::why::Failure;
use super::{HealthEvent, Monitors, Taken, dns, http, icmp, tcp, udp};
use crate::packet::{Addresses, Meta, Parsed, Transport, build, proto};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;
use std::net::IpAddr;

/// First source port of probes.
pub(super) const FIRST_PORT: u16 = 32_768;
/// Number of source ports: up to 60,999, the default range of Linux.
pub(super) const PORTS: u16 = 28_232;
/// Packets waiting to be sent beyond which no probe is started.
const MOST_PACKETS: usize = 1024;

/// Identifies the probe of a reply. For ICMP `theirs` is 0 and `ours` is the sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub address: IpAddr,
    pub protocol: u8,
    pub ours: u16,
    pub theirs: u16,
}

/// Packets to send.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Tests whether starting probes must wait until some packets are sent.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_PACKETS
    }

    /// Queues the packet that `write` appends to an empty buffer; if the queue is full, the packet counts as lost.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.waiting.len() < 2 * MOST_PACKETS {
            self.push_always(write);
        }
    }

    /// Queues a packet without a limit: for the stack, whose sockets limit what they send.
    pub(super) fn push_always(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut packet = self.spare.pop().unwrap_or_default();
        write(&mut packet);
        self.waiting.push_back(packet);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn pop(&mut self, buf: &mut [u8]) -> Option<(usize, Meta)> {
        loop {
            let mut packet = self.waiting.pop_front()?;
            let len = packet.len();
            let fits = buf.get_mut(..len).map(|room| room.copy_from_slice(&packet));
            packet.clear();
            self.spare.push(packet);
            if fits.is_some() {
                return Some((len, Meta::default()));
            }
        }
    }
}

impl Monitors {
    /// Spreads the first probes over their intervals.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = true;
        (0..self.all.targets.len() as u32).for_each(|id| self.schedule_first(now, id));
        for unit in &mut self.all.units {
            unit.since = now;
        }
    }

    /// Sets the time of the first probe of a target.
    pub(super) fn schedule_first(&mut self, now: Instant, id: u32) {
        let target = &mut self.all.targets[id as usize];
        let settings = &self.all.monitors[target.monitor as usize].settings;
        target.due = match self.observer {
            // By then the first probe of a live monitor would have been captured.
            Some(_) => now + settings.interval + settings.timeout,
            None => now + jitter::part(&mut self.numbers, settings.interval),
        };
        self.schedule.set(id, target.due);
    }

    /// Ends the probe of a target, if there is one, without a result.
    pub(super) fn abandon(&mut self, now: Instant, id: u32) {
        self.end(now, id, None);
        let target = &mut self.all.targets[id as usize];
        (target.let_off, target.waits_since) = (0, None);
    }

    pub(super) fn wake_target(&mut self, now: Instant, id: u32) {
        if self.observer.is_some() {
            return self.wake_observed(now, id);
        }
        let target = &self.all.targets[id as usize];
        if target.probe.is_some() {
            if self.is_let_off(id) {
                return self.end(now, id, None);
            }
            let target = &self.all.targets[id as usize];
            let after = self.all.monitors[target.monitor as usize].settings.timeout;
            self.finish(now, id, Err(Failure::Timeout { after_ms: after.as_millis() as u64 }));
        } else {
            self.probe(now, id);
        }
    }

    fn probe(&mut self, now: Instant, id: u32) {
        let target = &self.all.targets[id as usize];
        let monitor = &self.all.monitors[target.monitor as usize];
        let (address, port) = (target.address, target.port);
        let Some(addresses) = self.to(address) else { return };
        let http = matches!(monitor.settings.probe, Probe::Http(_));
        if http && !self.stack.has_room() {
            match self.stack.longest_lingering() {
                Some(slot) => self.forget_lingering(now, slot),
                None => return self.waiting.push_back(id),
            }
        }
        let target = &self.all.targets[id as usize];
        let monitor = &self.all.monitors[target.monitor as usize];
        let protocol = protocol_of(&monitor.settings.probe, address);
        let secret = self.numbers.next();
        let next = jitter::jittered(&mut self.numbers, monitor.settings.interval, monitor.settings.jitter_percent);
        let timeout = monitor.settings.timeout;
        // Twice the time, as each reload takes from it what it needs to connect again.
        let last = target.waits_since.map_or(Instant::FAR, |since| (since + timeout * 2).max(now));
        let until = last.min(now + timeout);
        let Some(key) = self.free_key(address, protocol, port) else {
            // All source ports towards this server and port are in use: try again later.
            return self.schedule.set(id, now + next);
        };
        let mut slot = None;
        let monitor = &self.all.monitors[self.all.targets[id as usize].monitor as usize];
        match &monitor.settings.probe {
            Probe::Icmp => self.outbox.push(|out| icmp::request(out, &addresses, self.echo, key.ours, secret)),
            Probe::Tcp => self.outbox.push(|out| tcp::syn(out, &addresses, key.ours, port, secret as u32)),
            Probe::Udp { payload, .. } => {
                self.outbox.push(|out| udp::datagram(out, &addresses, key.ours, port, payload));
            }
            Probe::Dns { name, kind, .. } => {
                let query = dns::query(secret as u16, name, *kind).unwrap_or_default();
                self.outbox.push(|out| udp::datagram(out, &addresses, key.ours, port, &query));
            }
            Probe::Http(_) => slot = self.stack.open(id, &addresses, key.ours, port),
        }
        let target = &mut self.all.targets[id as usize];
        target.due = now + next;
        target.probe = Some(Outstanding { started: now, ours: key.ours, secret, slot });
        self.outstanding.insert(key, id);
        self.schedule.set(id, until);
        if let Some(slot) = slot {
            self.advance(now, slot, None);
        }
    }

    fn to(&self, address: IpAddr) -> Option<Addresses> {
        let source = match address {
            IpAddr::V4(_) => self.source_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.source_v6.map(IpAddr::V6),
        };
        Addresses::new(source?, address)
    }

    /// Returns a source port (or sequence number) without an outstanding probe to this address and port.
    fn free_key(&mut self, address: IpAddr, protocol: u8, theirs: u16) -> Option<Key> {
        for _ in 0..64 {
            let ours = self.next_port;
            self.next_port = FIRST_PORT + (ours - FIRST_PORT + 1) % PORTS;
            let key = Key { address, protocol, ours, theirs };
            if !self.outstanding.contains_key(&key) && !self.lingering.contains_key(&key) {
                return Some(key);
            }
        }
        None
    }

    /// Tests whether the packets of the outstanding probe may have been lost on this side.
    fn has_lapsed(&self, id: u32) -> bool {
        let probe = self.all.targets[id as usize].probe;
        probe.is_some_and(|probe| self.lapsed.is_some_and(|until| until >= probe.started))
    }

    /// Decides whether a probe that has timed out is judged, and counts it if not.
    fn is_let_off(&mut self, id: u32) -> bool {
        let lapsed = self.has_lapsed(id);
        let target = &mut self.all.targets[id as usize];
        let most = self.all.monitors[target.monitor as usize].settings.fall;
        let is = lapsed && target.let_off < most;
        target.let_off += u32::from(is);
        is
    }

    /// Ends the probe of a target with a result and frees its resources.
    pub(super) fn finish(&mut self, now: Instant, id: u32, result: Result<Option<Duration>, Failure>) {
        let mut result = result;
        if let Ok(latency) = &mut result {
            // Some of it may be a pause of our own.
            *latency = latency.filter(|_| !self.has_lapsed(id));
            self.all.targets[id as usize].let_off = 0;
        }
        self.end(now, id, Some(result));
    }

    /// Ends the probe of a target, with a result if it is judged, and frees its resources.
    fn end(&mut self, now: Instant, id: u32, result: Option<Result<Option<Duration>, Failure>>) {
        let target = &mut self.all.targets[id as usize];
        let Some(probe) = target.probe.take() else { return };
        target.waits_since = None;
        let monitor = &self.all.monitors[target.monitor as usize];
        let protocol = protocol_of(&monitor.settings.probe, target.address);
        let key = Key { address: target.address, protocol, ours: probe.ours, theirs: target.port };
        self.outstanding.remove(&key);
        self.schedule.set(id, target.due.max(now));
        // One that has timed out and is not judged has no result.
        let in_order = result
            .as_ref()
            .is_some_and(|result| !matches!(result, Err(Failure::Timeout { .. } | Failure::Unreachable(_))));
        if let Some(result) = result {
            self.record(now, id, result);
        }
        if let Some(slot) = probe.slot {
            self.stack.close(now, slot, (key, in_order), &mut self.outbox);
            if self.stack.lingering(slot).is_some() {
                self.lingering.insert(key, (slot, id));
            }
            self.linger(now, slot, None);
        }
    }

    /// Goes on closing a connection whose probe has its result; once it is closed, the next probe may use it.
    fn linger(&mut self, now: Instant, slot: u32, packet: Option<(&[u8], &Parsed)>) {
        let key = self.stack.lingering(slot);
        let id = key.and_then(|key| self.lingering.get(&key)).map(|(_, id)| *id);
        let monitor = id.map(|id| &self.all.monitors[self.all.targets[id as usize].monitor as usize]);
        let next = monitor.and_then(|monitor| self.stack.linger(now, slot, packet, monitor, &mut self.outbox));
        self.schedule.set(self.all.targets.len() as u32 + slot, next.unwrap_or(Instant::FAR));
        if next.is_none() {
            key.map(|key| self.lingering.remove(&key));
            // Those that rest meanwhile do not need it.
            while let Some(next) = self.waiting.pop_front() {
                let target = &self.all.targets[next as usize];
                if !target.rests() && target.probe.is_none() {
                    self.probe(now, next);
                    break;
                }
            }
        }
    }

    /// Resets a connection that is being closed, to make room for another.
    fn forget_lingering(&mut self, now: Instant, slot: u32) {
        if let Some(key) = self.stack.lingering(slot) {
            self.lingering.remove(&key);
        }
        self.stack.abort(now, slot, &mut self.outbox);
        self.schedule.set(self.all.targets.len() as u32 + slot, Instant::FAR);
    }

    /// Matches a packet with a valid checksum against the outstanding probes.
    pub(super) fn answered(&mut self, now: Instant, packet: &[u8], parsed: &Parsed) -> Taken {
        let address = parsed.addresses.src();
        let key = |ours, theirs| Key { address, protocol: parsed.protocol, ours, theirs };
        let taken = match parsed.transport {
            Transport::Echo { request: false, id } => self.echo_reply(now, packet, parsed, id),
            Transport::Icmp { .. } => return self.unreachable(now, packet, parsed),
            Transport::Tcp { src, dst, .. } => match self.lingering.get(&key(dst, src)).copied() {
                Some((slot, _)) => {
                    self.linger(now, slot, Some((packet, parsed)));
                    Some(())
                }
                None => {
                    self.outstanding.get(&key(dst, src)).copied().and_then(|id| self.segment(now, id, packet, parsed))
                }
            },
            Transport::Udp { src, dst } => {
                self.outstanding.get(&key(dst, src)).copied().and_then(|id| self.datagram(now, id, packet, parsed))
            }
            _ => return Taken::Unknown,
        };
        if taken.is_some() {
            return Taken::Answer;
        }
        if !self.addresses.contains(&address) {
            return Taken::Unknown;
        }
        if let Transport::Tcp { .. } = parsed.transport {
            // Without a reset, a server whose SYN/ACK arrives late would retransmit it for a minute.
            let mut reset = [0; build::MOST];
            if let Some(len) = build::reset(&mut reset, parsed) {
                self.outbox.push(|out| out.extend_from_slice(&reset[..len]));
            }
        }
        Taken::Late
    }

    fn echo_reply(&mut self, now: Instant, packet: &[u8], parsed: &Parsed, id: u16) -> Option<()> {
        let (seq, secret) = icmp::numbers(packet, parsed).filter(|_| id == self.echo)?;
        let key = Key { address: parsed.addresses.src(), protocol: parsed.protocol, ours: seq, theirs: 0 };
        let target = *self.outstanding.get(&key)?;
        let probe = self.all.targets[target as usize].probe.filter(|probe| probe.secret == secret)?;
        self.finish(now, target, Ok(Some(now.since(probe.started))));
        Some(())
    }

    fn segment(&mut self, now: Instant, id: u32, packet: &[u8], parsed: &Parsed) -> Option<()> {
        let Transport::Tcp { src, dst, flags, ack, .. } = parsed.transport else { return None };
        let probe = self.all.targets[id as usize].probe?;
        if let Some(slot) = probe.slot {
            self.advance(now, slot, Some((packet, parsed)));
            return Some(());
        }
        let verdict = tcp::judge(flags, ack, probe.secret as u32)?;
        if verdict.is_ok() {
            self.outbox.push(|out| tcp::reset(out, &parsed.addresses.reversed(), dst, src, ack));
        }
        self.finish(now, id, verdict.map(|()| Some(now.since(probe.started))));
        Some(())
    }

    fn datagram(&mut self, now: Instant, id: u32, packet: &[u8], parsed: &Parsed) -> Option<()> {
        let target = &self.all.targets[id as usize];
        let monitor = &self.all.monitors[target.monitor as usize];
        let probe = target.probe?;
        let payload = udp::payload(packet, parsed);
        let verdict = match &monitor.settings.probe {
            Probe::Dns { name, kind, expect } => {
                let query = dns::query(probe.secret as u16, name, *kind)?;
                dns::judge(&query, payload, *expect)?
            }
            _ if monitor.matcher.as_ref().is_none_or(|matcher| matcher.matches(payload)) => Ok(()),
            _ => Err(Failure::Answer),
        };
        self.finish(now, id, verdict.map(|()| Some(now.since(probe.started))));
        Some(())
    }

    /// Ends the probe whose packet an ICMP error quotes.
    fn unreachable(&mut self, now: Instant, packet: &[u8], parsed: &Parsed) -> Taken {
        let Some(quote) = icmp::quote(packet, parsed) else { return Taken::Unknown };
        if self.to(quote.dst).is_none_or(|ours| ours.src() != quote.src) {
            return Taken::Unknown;
        }
        let icmp = matches!(quote.protocol, proto::ICMP | proto::ICMPV6);
        let (ours, theirs) = if icmp { (quote.theirs, 0) } else { (quote.ours, quote.theirs) };
        let key = Key { address: quote.dst, protocol: quote.protocol, ours, theirs };
        let Some(id) = self.outstanding.get(&key).copied() else { return Taken::Late };
        let Some(probe) = self.all.targets[id as usize].probe else { return Taken::Late };
        // An error about a sequence number that was never sent is forged (RFC 5927).
        let forged = match quote.protocol {
            proto::TCP if probe.slot.is_none() => quote.seq != probe.secret as u32,
            proto::TCP | proto::UDP => false,
            _ => quote.ours != self.echo,
        };
        if forged {
            return Taken::Unknown;
        }
        self.finish(now, id, Err(Failure::Unreachable(quote.what)));
        Taken::Answer
    }

    pub(super) fn wake_connection(&mut self, now: Instant, slot: u32) {
        if self.stack.lingering(slot).is_some() {
            return self.linger(now, slot, None);
        }
        self.advance(now, slot, None);
    }

    /// Advances an HTTP connection, by a packet or by time.
    fn advance(&mut self, now: Instant, slot: u32, packet: Option<(&[u8], &Parsed)>) {
        let Some(id) = self.stack.target(slot) else { return };
        let target = &self.all.targets[id as usize];
        let monitor = &self.all.monitors[target.monitor as usize];
        let Some(started) = target.probe.map(|probe| probe.started) else { return };
        match self.stack.advance(now, slot, packet, monitor, &mut self.outbox) {
            Progress::Waits(wake) => {
                let wake = wake.unwrap_or(Instant::FAR);
                self.schedule.set(self.all.targets.len() as u32 + slot, wake);
            }
            Progress::Ended { verdict, load } => {
                self.set_load(now, id, load);
                self.finish(now, id, verdict.map(|()| Some(now.since(started))));
            }
        }
    }

    /// Records the load that a server reported.
    pub(super) fn set_load(&mut self, at: Instant, id: u32, load: Option<http::Load>) {
        let Some(load) = load else { return };
        let unit = &self.all.units[self.all.targets[id as usize].unit as usize];
        let server = &mut self.all.servers[unit.server as usize];
        server.load = Some((at, load.percent, load.maintenance));
        server.version = server.version.wrapping_add(1);
        let server = server.id;
        self.push_event(HealthEvent::Load { server, load: load.percent, maintenance: load.maintenance, at });
    }
}

/// Returns the IP protocol of a probe to an address.
pub(super) fn protocol_of(probe: &Probe, address: IpAddr) -> u8 {
    match (probe, address) {
        (Probe::Icmp, IpAddr::V4(_)) => proto::ICMP,
        (Probe::Icmp, IpAddr::V6(_)) => proto::ICMPV6,
        (Probe::Tcp | Probe::Http(_), _) => proto::TCP,
        (Probe::Udp { .. } | Probe::Dns { .. }, _) => proto::UDP,
    }
}
