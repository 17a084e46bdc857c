//! Has the kernel carry established TCP flows past the gateway's device, where the settings ask for it.
//!
//! It holds no policy: the engine says which flows, and until when. What the program counts is reported to the engine.

use super::bpf::BpfError;
use super::bpf::shortcut::{Attached, MOST_FLOWS, Shortcut};
use super::netlink::{Netlink, NetlinkError, Policies};
use crate::engine::{Duty, Engine};
use crate::flow::Carried;
use crate::packet::{TcpFlags, proto};
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// The most devices that get the program: each takes a descriptor, and so do the programs that mark packets.
const MOST_DEVICES: usize = 128;
/// How often all flows are looked at: SYNs are judged by whether their flow was silent for a second.
const ROUND: Duration = Duration::from_millis(500);
/// Places that one step of a round looks at.
const PORTION: u32 = 2048;
/// The time between two steps of a round.
const PAUSE: Duration = Duration::from_millis(5);
/// Flows that the kernel begins to carry per turn of the loop; each costs some microseconds.
const MOST_PER_TURN: usize = 16;
/// How long a flow waits until none of its packets is in the device, which the kernel's would overtake.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long nothing is carried after the kernel has refused a flow.
const REST: Duration = Duration::from_secs(10);

/// The program, where it is attached, and what it carries.
#[derive(Debug)]
pub(super) struct Carrying {
    shortcut: Shortcut,
    netlink: Netlink,
    policies: Policies,
    /// Whether there are IPsec policies, which the kernel does not apply to what it carries.
    has_policies: bool,
    /// When that is looked at next.
    policies_due: Instant,
    device: String,
    /// By the index of the device; `None` where the program could not be attached.
    attached: BTreeMap<u32, Option<Attached>>,
    /// Whether devices may have come or gone.
    is_stale: bool,
    /// By place: the packets that were reported of the flow there, if there is one.
    reported: Vec<Option<u64>>,
    count: usize,
    /// Whether the engine offers flows.
    is_open: bool,
    /// When the kernel was last seen to have carried packets.
    carried: Option<Instant>,
    /// Since when a flow waits.
    waits: Option<Instant>,
    rests_until: Instant,
    next: u32,
    due: Instant,
}

impl Carrying {
    /// Loads the program and attaches it to all devices of the namespace that have an Ethernet header.
    pub(super) fn open(device: &str) -> Result<Carrying, BpfError> {
        let mut carrying = Carrying {
            shortcut: Shortcut::load(MOST_FLOWS)?,
            netlink: Netlink::open().map_err(|e| BpfError::new(&e))?,
            policies: Policies::open().map_err(|e| BpfError::new(&e))?,
            has_policies: false,
            policies_due: Instant::ZERO,
            device: device.into(),
            attached: BTreeMap::new(),
            is_stale: false,
            reported: vec![None; MOST_FLOWS as usize],
            count: 0,
            is_open: true,
            carried: None,
            waits: None,
            rests_until: Instant::ZERO,
            next: 0,
            due: Instant::ZERO,
        };
        match carrying.look_at_devices().map_err(|e| BpfError::new(&e))? {
            Some(error) => Err(error),
            None => Ok(carrying),
        }
    }

    /// Makes an engine offer flows.
    pub(super) fn ask(engine: &mut Engine) {
        engine.offer_paths(MOST_FLOWS);
    }

    /// Takes note that devices may have come or gone.
    pub(super) fn devices_changed(&mut self) {
        self.is_stale = true;
    }

    /// Returns when there is work to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (self.count > 0).then_some(self.due)
    }

    /// Returns whether the kernel carries packets, as far as is known.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.count > 0 && self.carried.is_some_and(|at| now.since(at) < 2 * ROUND)
    }

    /// Reports the flows of packets that are about to be handled and that the engine believes only at the numbers of now:
    /// segments that may end a connection, and ICMP errors.
    pub(super) fn before<'p>(&mut self, engine: &mut Engine, packets: impl Iterator<Item = &'p [u8]>, now: Instant) {
        if self.count == 0 {
            return;
        }
        for packet in packets.filter(|packet| is_judged(packet)) {
            if let Some(place) = engine.path_of(packet) {
                self.report(engine, place, now);
            }
        }
    }

    /// Does what is to do; to be called after packets were handled. `may` is whether anything may be carried, and `is_drained`
    /// whether no packet is in the device.
    pub(super) fn work(&mut self, engine: &mut Engine, now: Instant, (may, is_drained): (bool, bool)) {
        if std::mem::take(&mut self.is_stale) && self.rests_until < Instant::FAR {
            match self.look_at_devices() {
                Ok(None) => {}
                Ok(Some(error)) => log::warn!("shortcut: packets of a device go through the gateway's: {error}"),
                Err(error) => log::warn!("shortcut: devices may lack the program: {error}"),
            }
        }
        self.look_at_policies(engine, now);
        let may = may && !self.has_policies && engine.duty() != Duty::Standby && now >= self.rests_until;
        if may != self.is_open {
            self.is_open = may;
            engine.offer_paths(if may { MOST_FLOWS } else { 0 });
        }
        while let Some(place) = engine.poll_left() {
            self.leave(engine, place, now);
        }
        while let Some(place) = engine.poll_due() {
            self.report(engine, place, now);
        }
        self.begin(engine, now, is_drained);
        if self.due <= now {
            self.look_around(engine, now);
        }
    }

    /// Stops carrying, so that the engine knows all there is to know.
    pub(super) fn stop(&mut self, engine: &mut Engine, now: Instant) {
        self.work(engine, now, (false, false));
    }

    /// Has the kernel begin to carry what the engine offers.
    fn begin(&mut self, engine: &mut Engine, now: Instant, is_drained: bool) {
        if !engine.offers_path() {
            self.waits = None;
            return;
        }
        let since = *self.waits.get_or_insert(now);
        if !is_drained && now.since(since) < PATIENCE {
            return;
        }
        for _ in 0..MOST_PER_TURN {
            let Some(path) = engine.poll_path(now) else { return };
            if let Err(error) = self.shortcut.put(&path) {
                log::warn!("shortcut: nothing is carried for {} s: {error}", REST.as_secs());
                self.rests_until = now + REST;
                let _ = self.shortcut.remove(path.place);
                engine.left(now, path.place, None, &Carried { sequence: path.sequence, ..Carried::default() });
                return;
            }
            self.reported[path.place as usize] = Some(0);
            if self.count == 0 {
                self.due = now + ROUND;
            }
            self.count += 1;
        }
    }

    /// Has the kernel carry a flow no longer.
    fn leave(&mut self, engine: &mut Engine, place: u32, now: Instant) {
        if let Err(error) = self.shortcut.remove(place) {
            // Whatever happens to it, its packets must not go on.
            log::error!("shortcut: cannot remove a flow, so nothing is carried any more: {error}");
            self.attached.clear();
            self.rests_until = Instant::FAR;
        }
        let (seen, report) = self.shortcut.report(now, place);
        engine.left(now, place, seen, &report);
        if self.reported[place as usize].take().is_some() {
            self.count -= 1;
        }
    }

    /// Reports the flow at a place.
    fn report(&mut self, engine: &mut Engine, place: u32, now: Instant) {
        let (seen, report) = self.shortcut.report(now, place);
        if let Some(known) = &mut self.reported[place as usize] {
            *known = report.packets.iter().sum();
        }
        // Segments that came here are unknown to the program.
        if let Some(sequence) = engine.carried(now, place, seen, &report).filter(|known| *known != report.sequence) {
            self.shortcut.set_sequence(place, &sequence);
        }
    }

    /// Looks whether there are IPsec policies, as often as at flows: those that apply to a packet are not known to the program.
    fn look_at_policies(&mut self, engine: &Engine, now: Instant) {
        if now < self.policies_due || self.count == 0 && !engine.offers_path() && !self.has_policies {
            return;
        }
        self.policies_due = now + ROUND;
        let count = self.policies.count();
        let had = std::mem::replace(&mut self.has_policies, !matches!(count, Ok(0)));
        match count {
            Err(error) if !had => log::warn!("shortcut: nothing is carried: {error}"),
            Ok(1..) if !had => {
                log::warn!(
                    "shortcut: nothing is carried as long as there are IPsec policies, which would not apply to it"
                );
            }
            Ok(0) if had => log::info!("shortcut: there are no IPsec policies any more, so flows are carried"),
            _ => {}
        }
    }

    /// Reports the flows of a portion of the places that have had packets.
    fn look_around(&mut self, engine: &mut Engine, now: Instant) {
        let end = (self.next + PORTION).min(MOST_FLOWS);
        for place in self.next..end {
            if self.reported[place as usize].is_some_and(|known| known != self.shortcut.packets(place)) {
                self.report(engine, place, now);
                self.carried = Some(now);
            }
        }
        let is_done = end == MOST_FLOWS;
        self.next = if is_done { 0 } else { end };
        self.due = now + if is_done { ROUND } else { PAUSE };
    }

    /// Attaches the program where it is missing, and forgets devices that are gone; returns why one could not be attached.
    fn look_at_devices(&mut self) -> Result<Option<BpfError>, NetlinkError> {
        let devices = self.netlink.layer3_links()?;
        self.attached.retain(|index, _| devices.contains_key(index));
        let mut failed = None;
        for (index, (name, is_ethernet)) in &devices {
            let result = if *name == self.device {
                self.shortcut.set_own(*index)
            } else if !is_ethernet || self.attached.get(index).is_some_and(Option::is_some) {
                Ok(())
            } else if self.attached.len() >= MOST_DEVICES {
                Err(BpfError::of(format!("there are more than {MOST_DEVICES} devices")))
            } else {
                let attached = self.shortcut.attach(name);
                attached.map(|attached| drop(self.attached.insert(*index, Some(attached))))
            };
            match result {
                // A device that has just gone.
                Err(error) if error.is_no_device() => {}
                Err(error) => {
                    self.attached.insert(*index, None);
                    failed = Some(error.at(name));
                }
                Ok(()) => {}
            }
        }
        Ok(failed)
    }
}

/// Returns whether a packet is a TCP segment with FIN or RST, or an ICMP message that may be an error, as far as that is seen
/// at once.
fn is_judged(packet: &[u8]) -> bool {
    let (protocol, at) = match packet.first() {
        Some(first) if first >> 4 == 4 => (packet.get(9), usize::from(first & 15) * 4),
        Some(first) if first >> 4 == 6 => (packet.get(6), 40),
        _ => return false,
    };
    match protocol {
        Some(&proto::TCP) => {
            let ends = |flags: &u8| flags & (TcpFlags::FIN | TcpFlags::RST) != 0;
            packet.get(at + 13).is_some_and(ends)
        }
        // Not an echo or its answer, of which there may be many.
        Some(&proto::ICMP) => packet.get(at).is_some_and(|kind| !matches!(kind, 0 | 8)),
        Some(&proto::ICMPV6) => packet.get(at).is_some_and(|kind| kind & 128 == 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};

    #[test]
    fn errors_and_the_ends_of_connections_are_told_from_the_rest() {
        let v4 = |kind| {
            let mut packet = Vec::new();
            PacketBuilder::ipv4([1; 4], [2; 4], 9).icmpv4(kind).write(&mut packet, &[0; 28]).unwrap();
            packet
        };
        let v6 = |kind| {
            let mut packet = Vec::new();
            PacketBuilder::ipv6([1; 16], [2; 16], 9).icmpv6(kind).write(&mut packet, &[0; 48]).unwrap();
            packet
        };
        let tcp = |flags: u8| {
            let mut packet = Vec::new();
            PacketBuilder::ipv4([1; 4], [2; 4], 9).tcp(1, 2, 3, 4).ack(5).write(&mut packet, &[]).unwrap();
            packet[33] |= flags;
            packet
        };
        let echo = etherparse::IcmpEchoHeader { id: 1, seq: 1 };
        let unreachable = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
        for (packet, want) in [
            (tcp(0), false),
            (tcp(TcpFlags::FIN), true),
            (tcp(TcpFlags::RST), true),
            (v4(Icmpv4Type::EchoRequest(echo)), false),
            (v4(Icmpv4Type::EchoReply(echo)), false),
            (v4(Icmpv4Type::DestinationUnreachable(unreachable)), true),
            (v6(Icmpv6Type::EchoRequest(echo)), false),
            (v6(Icmpv6Type::PacketTooBig { mtu: 1300 }), true),
        ] {
            assert_eq!(is_judged(&packet), want, "{packet:?}");
            for len in 0..packet.len() {
                is_judged(&packet[..len]);
            }
        }
    }
}
