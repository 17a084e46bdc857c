//! Packets of existing flows: state tracking, MTU checks and translation.

use super::answers::Why;
use super::craft;
use super::engine::{Fate, HALF_OPEN, NOWHERE};
use super::flows::Flow;
use super::model::{Arrival, Model};
use super::tcp::{Means, Tracker};
use super::wire::{ACK, Body, RST, SYN, Tcp};
use equipoise::balance::{Admin, Health, Mss, OnDown};
use equipoise::engine::{Consumed, Ended, Event};
use equipoise::flow::{TICK, TimeoutState};
use equipoise::packet::{Protocol, Side};
use equipoise::time::{Duration, Instant};

/// A SYN retransmission earlier than this is not a sign of trouble (RFC 6298, 2.1). The age of a half-open flow may be
/// overestimated by a tick.
const SOONEST_RETRY: Duration = Duration::from_nanos(500_000_000 + TICK.as_nanos() as u64);
/// How long after a reset packets may still arrive that its receiver sent before the reset reached it.
const UNDER_WAY: Duration = Duration::from_secs(2);

impl Model {
    /// Handles a packet of a flow whose server may be gone. Returns `None` if the flow stays, `Some(None)` if it was
    /// ended and the packet may open another, and the outcome if the connection was reset.
    pub fn abandoned(&mut self, arrival: &Arrival, place: usize, from: Side) -> Option<Option<Fate>> {
        let flow = &self.flows.all[place];
        let v6 = flow.listen.is_ipv6();
        if !self.is_gone(flow.service, flow.server, v6) {
            return None;
        }
        let on_down = self.services[flow.service].settings.on_down;
        let tcp = flow.protocol == Protocol::Tcp;
        let keeps = on_down.unwrap_or(if tcp { OnDown::Keep } else { OnDown::Reset }) == OnDown::Keep;
        let asks = |s: &Tcp| s.has(SYN) && !s.has(ACK) && from == Side::Client;
        if let Some(segment) = arrival.segment().filter(asks) {
            // The server has no state for a connection that it has not answered.
            let unknown = flow.state == TimeoutState::Opening && flow.is_unanswered() && on_down.is_none();
            let another = flow.tcp.asks_for_another(flow.state, &segment) && arrival.sum_is_right();
            if another && !flow.may_be_replaced(arrival.now) {
                self.seen("another connection than a living one at a server that is gone");
            }
            let flow = &self.flows.all[place];
            let another = another && flow.may_be_replaced(arrival.now);
            if unknown || another {
                self.seen(if another {
                    "another connection than that of a server that is gone"
                } else {
                    "asked another server"
                });
                self.forget(arrival.now, place, Ended::ServerDown);
                return Some(None);
            }
        }
        if keeps {
            self.seen("kept at a server that is gone");
            return None;
        }
        if tcp {
            self.end_by_reset(arrival.now, place, Ended::ServerDown);
            return Some(Some(Fate::Consumed(Consumed::ServerDown)));
        }
        self.end(arrival.now, place, Ended::ServerDown);
        Some(None)
    }

    /// Returns whether the server of a flow is disabled, or down for the client's address family.
    pub fn is_gone(&self, service: usize, server: usize, v6: bool) -> bool {
        let it = &self.servers[server];
        let own = [Some(&self.services[service]), self.last_resorts[service].as_ref()];
        let down =
            own.into_iter().flatten().any(|own| own.servers.contains(&server) && own.health(it, v6) == Health::Down);
        it.admin == Admin::Disabled || down
    }

    /// Updates the passive health of a server from the first packets of a flow that it has not answered yet.
    pub fn first_signs(&mut self, arrival: &Arrival, place: usize, from: Side) {
        let flow = &self.flows.all[place];
        let (server, age, adopted) = (flow.server, arrival.now.since(flow.created), flow.tcp.adopted);
        let client = flow.tcp.ends[0].next.unwrap_or(0);
        match (from, arrival.segment()) {
            // A refusal acknowledges the SYN; a server may legitimately reset an adopted connection.
            (Side::Server, Some(segment)) if segment.has(RST) => {
                let refuses = !adopted && segment.has(ACK) && segment.ack == client;
                if refuses {
                    self.seen("refused by a server");
                    self.trouble(arrival.now, server);
                }
            }
            (Side::Server, _) => self.servers[server].answered(),
            (Side::Client, Some(segment)) if segment.has(SYN) && age >= SOONEST_RETRY && arrival.sum_is_right() => {
                self.seen("asked again");
                self.trouble(arrival.now, server);
            }
            _ => {}
        }
    }

    /// Returns how a packet changes the state of its flow; the change takes effect only if the packet is forwarded.
    pub fn track(&self, arrival: &Arrival, place: usize, from: Side) -> (Tracker, Means) {
        let now = arrival.now;
        let flow = &self.flows.all[place];
        let mut tcp = flow.tcp.clone();
        let means = match arrival.packet.body {
            Body::Tcp(segment) => {
                let means = tcp.take(flow.state, from, &segment);
                if from == Side::Client && segment.has(SYN) && !segment.has(ACK) {
                    if means == Means::New && !flow.may_be_replaced(now) {
                        return (tcp, Means::Nothing);
                    }
                    let silent = flow.state == TimeoutState::Established && flow.is_silent(now);
                    if silent && !tcp.doubted {
                        tcp.doubted = true;
                        return (tcp, Means::State(TimeoutState::Established));
                    }
                }
                let before_it_knew = flow.state == TimeoutState::Reset
                    && tcp.reset_by != from
                    && !(tcp.refused || tcp.answered_anew)
                    && !segment.has(SYN)
                    && now.since(flow.touched) < UNDER_WAY;
                if before_it_knew && means != Means::New {
                    // A half-open flow learns nothing from it either.
                    let tcp = if flow.half_open { flow.tcp.clone() } else { tcp };
                    return (tcp, Means::Nothing);
                }
                means
            }
            Body::Echo { .. } => Means::State(TimeoutState::Icmp),
            _ if from == Side::Server => Means::State(TimeoutState::UdpTwoWay),
            _ => Means::State(flow.state),
        };
        (tcp, means)
    }

    fn follow(&mut self, now: Instant, place: usize, (tcp, means): (Tracker, Means), opened: bool) {
        let flow = &mut self.flows.all[place];
        let (was_half_open, was) = (flow.half_open, flow.state);
        let refused = tcp.refused && !flow.tcp.refused;
        flow.tcp = tcp;
        if refused {
            self.seen("another connection refused");
        }
        if let Means::State(state) = means {
            self.seen(&format!("{} goes to {}", was.name(), state.name()));
            // The packet that opens a flow does not refresh it.
            if !opened || state != was {
                self.flows.touch(now, place, state);
            }
        }
        let flow = &mut self.flows.all[place];
        if flow.half_open {
            flow.tcp.forget();
        } else if was_half_open {
            self.events.push(Event::FlowEstablished { was: HALF_OPEN, id: NOWHERE });
        }
        let Flow { protocol, half_open, state, proven, .. } = self.flows.all[place];
        let open = matches!(state, TimeoutState::Established | TimeoutState::Closing);
        if protocol == Protocol::Tcp && !half_open && open && !proven {
            self.proven(now, place);
        }
    }

    /// Returns whether a packet that is forwarded is the first by which the client shows that it receives what the
    /// server sends.
    pub fn proves(&self, place: usize, from: Side, means: Means) -> bool {
        let flow = &self.flows.all[place];
        let shows = match flow.protocol {
            Protocol::Tcp => means.completes(),
            _ => from == Side::Client && !flow.is_unanswered(),
        };
        shows && !flow.proven
    }

    fn size(arrival: &Arrival) -> usize {
        let packet = arrival.packet;
        match (usize::from(arrival.meta.gso_size), packet.body) {
            (0, _) => packet.len,
            (size, Body::Tcp(segment)) => packet.len.min(packet.len - segment.len as usize + size),
            (size, _) => packet.len.min(packet.at + 8 + size),
        }
    }

    /// Returns whether a packet of a flow fits the path MTU or may be fragmented.
    pub fn fits(&self, arrival: &Arrival, place: usize, from: Side) -> bool {
        Model::size(arrival) <= self.mtu(place, from) || !arrival.packet.whole_only
    }

    /// Forwards a packet of a flow if it fits.
    pub fn forward(
        &mut self,
        arrival: &Arrival,
        place: usize,
        from: Side,
        (opened, track): (bool, (Tracker, Means)),
    ) -> (Fate, Vec<u8>) {
        let mtu = self.mtu(place, from);
        let packet = arrival.packet;
        let flow = &self.flows.all[place];
        let too_big = Model::size(arrival) > mtu;
        if !self.fits(arrival, place, from) {
            let both =
                matches!(flow.state, TimeoutState::Established | TimeoutState::Closing | TimeoutState::UdpTwoWay);
            return self.tell_to(arrival, Why::TooBig(mtu), Consumed::TooBig, both);
        }
        let flow = &self.flows.all[place];
        let refused = flow.protocol != Protocol::Tcp && flow.stalled && !flow.proven;
        if refused && from == Side::Server {
            self.seen("a server does not keep a refused conversation");
        } else {
            self.follow(arrival.now, place, track, opened);
        }
        let datagram = from == Side::Client && !opened && self.flows.all[place].protocol != Protocol::Tcp;
        if datagram && self.flows.converse(place) {
            self.proven(arrival.now, place);
        }
        let flow = &self.flows.all[place];
        let to = flow.ends(if from == Side::Client { Side::Server } else { Side::Client });
        let mut out = craft::translated(arrival.bytes, packet, to.1, to.0, arrival.meta.partial_checksum);
        let cut = too_big && arrival.meta.gso_size == 0;
        let clamp = arrival.segment().filter(|segment| segment.has(SYN)).and_then(|_| self.segment_size(place));
        if let Some(most) = clamp {
            let before = out.clone();
            craft::clamp(&mut out, packet, most);
            if out != before {
                self.seen("segment size lowered");
                if !arrival.meta.partial_checksum {
                    craft::mend(&mut out, &before, packet, false);
                }
            }
        }
        let (count, len) = (arrival.count(), packet.len as u64);
        let flow = &mut self.flows.all[place];
        let server = &mut self.servers[flow.server];
        flow.count(from, count, len);
        server.packets[from as usize] += count;
        server.bytes[from as usize] += len;
        let [packets, bytes] = &mut self.traffic[flow.service][from as usize];
        (*packets, *bytes) = (*packets + count, *bytes + len);
        let fate = Fate::Translated { server: server.settings.name.clone(), from, opened, cut };
        if cut {
            if arrival.meta.partial_checksum {
                // Devices do not complete the checksum of a fragmented packet.
                craft::complete(&mut out, packet);
            }
            self.sent.extend(craft::pieces(&out, mtu));
            return (fate, Vec::new());
        }
        (fate, out)
    }

    /// Returns the MTU of the outgoing path.
    fn mtu(&self, place: usize, from: Side) -> usize {
        let flow = &self.flows.all[place];
        let mtu = match from {
            Side::Client => self.mtus[flow.server][usize::from(flow.server_end.is_ipv6())],
            Side::Server => self.settings.gateway.client_mtu.unwrap_or(0),
        };
        if mtu == 0 { usize::MAX } else { usize::from(mtu) }
    }

    /// Returns the largest MSS that the ends of a flow may announce to each other.
    fn segment_size(&self, place: usize) -> Option<u16> {
        let flow = &self.flows.all[place];
        match self.services[flow.service].settings.mss {
            Mss::Off => None,
            Mss::To(most) => Some(most),
            Mss::Auto => {
                let headers = if flow.listen.is_ipv6() { 60 } else { 40 };
                let least = self.mtu(place, Side::Client).min(self.mtu(place, Side::Server));
                Some(u16::try_from(least.saturating_sub(headers)).unwrap_or(u16::MAX))
            }
        }
    }
}
